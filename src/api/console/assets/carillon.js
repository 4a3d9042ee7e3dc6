// What makes the pages live. Every page works without it.
"use strict";

// A token in the fragment signs in: it is never sent but in this one request.
function signInByFragment() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!given) return false;
  const to = location.pathname === "/sign-in"
    ? new URLSearchParams(location.search).get("to") || "/"
    : location.pathname + location.search;
  history.replaceState(null, "", location.pathname + location.search);
  const embedded = window.top !== window.self ? "yes" : "";
  const body = new URLSearchParams({ token: given, embedded, to });
  fetch("/sign-in", { method: "POST", body, redirect: "manual" })
    .then(() => location.replace(to));
  return true;
}

function say(text) {
  document.getElementById("said").textContent = text;
}

// "5m ago", as the server says it.
function inWords(ms) {
  const s = Math.floor(Math.abs(ms) / 1000);
  if (s < 1) return "now";
  const span = s < 120 ? `${s}s` : s < 7200 ? `${Math.floor(s / 60)}m`
    : s < 172800 ? `${Math.floor(s / 3600)}h` : `${Math.floor(s / 86400)}d`;
  return ms < 0 ? `${span} ago` : `in ${span}`;
}

function tellTimes() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const words = inWords(Date.parse(time.dateTime) - Date.now());
    if (time.textContent !== words) time.textContent = words;
  }
}

// Parts of the page that are live are asked for again, and put in place where they changed.
let asking = false;
async function refresh() {
  if (asking || document.hidden) return;
  asking = true;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (!answer.ok || answer.redirected) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const next = fresh.getElementById(part.id);
      // What somebody is reading or typing in stays as it is.
      const busy = part.contains(document.activeElement) && document.activeElement !== part;
      if (!next || busy || part.dataset.was === next.innerHTML) continue;
      const open = [...part.querySelectorAll("details[id]")].map((one) => [one.id, one.open]);
      part.dataset.was = next.innerHTML;
      part.replaceChildren(...next.childNodes);
      for (const [id, isOpen] of open) {
        const one = document.getElementById(id);
        if (one) one.open = isOpen;
      }
      ready(part);
    }
  } catch {
    // The server is away; the next news come when it is back.
  } finally {
    asking = false;
  }
}

function listen() {
  if (!document.querySelector("[data-live]")) return;
  const news = new EventSource("/live");
  news.addEventListener("news", refresh);
  addEventListener("pagehide", () => news.close());
}

// A form that is answered in place: the page stays where it is, and what is new is said.
async function answerInPlace(event) {
  const form = event.target;
  const button = event.submitter;
  if (button?.dataset.sure && !confirm(button.dataset.sure)) {
    event.preventDefault();
    return;
  }
  if (!form.matches("[data-in-place]")) return;
  event.preventDefault();
  const body = new URLSearchParams(new FormData(form, button));
  button?.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(form.action || location.href, { method: "POST", body });
    if (answer.redirected) {
      location.assign(answer.url);
      return;
    }
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const main = fresh.getElementById("main");
    document.getElementById("main").replaceWith(main);
    ready(main);
    const told = main.querySelector(".notice, .once, #explained-title");
    say(told ? told.textContent.trim() : "Done.");
    if (told) {
      told.tabIndex = -1;
      told.focus({ preventScroll: false });
    }
  } catch {
    button?.removeAttribute("aria-busy");
    say("The server did not answer. Try again.");
    alert("The server did not answer. Try again.");
  }
}

async function copy(event) {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const from = document.getElementById(button.dataset.copy);
  const text = from.value ?? from.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    say("Copied.");
  } catch {
    from.focus();
    from.select?.();
    say("Press Ctrl and C to copy.");
  }
}

function ready(part) {
  for (const button of part.querySelectorAll("[data-copy]")) button.hidden = false;
  tellTimes();
}

if (!signInByFragment()) {
  document.addEventListener("submit", answerInPlace);
  document.addEventListener("click", copy);
  ready(document);
  setInterval(tellTimes, 5000);
  listen();
}
