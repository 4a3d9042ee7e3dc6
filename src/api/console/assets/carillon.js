// What makes the pages live. Every page works without it.
"use strict";

const inFrame = window.top !== window.self;

function say(text) {
  document.getElementById("said").textContent = text;
}

// "5m ago", beside the time itself.
function inWords(ms) {
  const s = Math.floor(Math.abs(ms) / 1000);
  if (s < 1) return "now";
  const span = s < 120 ? `${s}s` : s < 7200 ? `${Math.floor(s / 60)}m`
    : s < 172800 ? `${Math.floor(s / 3600)}h` : `${Math.floor(s / 86400)}d`;
  return ms < 0 ? `${span} ago` : `in ${span}`;
}

function tellTimes() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    time.dataset.ago = inWords(Date.parse(time.dateTime) - Date.now());
    time.title = time.dateTime;
  }
}

function ready(part) {
  for (const button of part.querySelectorAll("[data-copy]")) button.hidden = false;
  tellTimes();
}

// The page of an answer.
async function pageOf(answer) {
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

// Puts a fresh page in place of this one; whether there is one.
function putInPlace(fresh) {
  const main = fresh.getElementById("main");
  if (!main) return false;
  document.title = fresh.title;
  document.getElementById("main").replaceWith(main);
  if (main.dataset.at) history.replaceState(null, "", main.dataset.at);
  ready(main);
  const told = main.querySelector("[data-told]") ?? main.querySelector("[aria-invalid]");
  // What has the focus is read out by itself.
  if (told) told.focus();
  else say("Done.");
  return true;
}

// A token in the fragment signs in: it is never sent but in this one request.
async function signInByFragment() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return false;
  history.replaceState(null, "", location.pathname + location.search);
  const isSignedIn = document.querySelector("form[action='/sign-out'], [data-signed-in]");
  // A page that shows this one in a frame knows who looks; a link from anywhere does not.
  if (isSignedIn && !inFrame && !confirm("Sign in with the token of this link instead?")) return false;
  const to = location.pathname === "/sign-in"
    ? new URLSearchParams(location.search).get("to") ?? "/"
    : location.pathname + location.search;
  const body = new URLSearchParams({ token, in_frame: inFrame ? "yes" : "", to });
  try {
    const answer = await fetch("/sign-in", { method: "POST", body });
    // Where to is the server's to say: it knows which pages are its own.
    if (answer.redirected) {
      location.replace(answer.url);
      return true;
    }
    if (!putInPlace(await pageOf(answer))) say("That token was refused.");
  } catch {
    say("The server did not answer. Load the page again.");
  }
  return false;
}

// Parts of the page that are live are asked for again, and put in place where they changed.
let asking = false;
let askAgain = false;
async function refresh() {
  if (document.hidden || !document.querySelector("[data-live]")) return;
  askAgain = asking;
  if (asking) return;
  asking = true;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    isLive(answer.ok && !answer.redirected);
    if (!answer.ok || answer.redirected) return;
    const fresh = await pageOf(answer);
    for (const part of document.querySelectorAll("[data-live]")) {
      const next = fresh.getElementById(part.id);
      // What somebody is reading or typing in stays as it is.
      const used = document.activeElement;
      const busy = part.contains(used) && used.matches("input, select, textarea, button, a, summary, pre");
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
    isLive(false);
  } finally {
    asking = false;
    if (askAgain) refresh();
  }
}

// Listens while the page is looked at: a browser has few connections to one server.
let news = null;
let again = 0;
function isLive(yes) {
  const told = document.getElementById("live");
  told.hidden = yes;
  if (!yes && !told.dataset.since) told.dataset.since = new Date().toISOString().slice(11, 19);
  if (yes) delete told.dataset.since;
  told.textContent = yes ? "" : `Not live since ${told.dataset.since}.`;
}

function listen() {
  clearTimeout(again);
  if (news || document.hidden || !document.querySelector("[data-live]")) return;
  news = new EventSource("/live");
  news.addEventListener("open", () => isLive(true));
  news.addEventListener("news", refresh);
  news.addEventListener("beat", refresh);
  news.addEventListener("error", () => {
    isLive(false);
    // The browser tries again by itself, but not after a refusal.
    if (news?.readyState !== EventSource.CLOSED) return;
    news = null;
    again = setTimeout(listen, 15000);
  });
}

function silence() {
  clearTimeout(again);
  news?.close();
  news = null;
}

// A form that is answered in place: the page stays where it is, and what is new is said.
// One at a time: what one shows, a secret perhaps, another's answer must not take away.
let sending = false;
async function answerInPlace(event) {
  const form = event.target;
  const button = event.submitter;
  if (!form.matches("[data-in-place]")) return;
  event.preventDefault();
  if (sending) return;
  sending = true;
  form.ariaBusy = "true";
  const body = new URLSearchParams(new FormData(form, button));
  try {
    const answer = await fetch(form.action, { method: "POST", body });
    const isSignIn = answer.redirected && new URL(answer.url).pathname === "/sign-in";
    if (isSignIn) {
      // What was typed stays.
      fail(form, inFrame ? "You are not signed in any more. Load the page around this one again."
        : "You are not signed in any more. Sign in in another tab, then press it again.");
    } else if (answer.redirected) {
      location.assign(answer.url);
    } else {
      const fresh = await pageOf(answer);
      const why = refusal(answer, fresh);
      if (why) fail(form, why);
      else putInPlace(fresh);
      listen();
    }
  } catch {
    fail(form, "The server did not answer. Try again.");
  } finally {
    form.ariaBusy = null;
    sending = false;
  }
}

// Why there is nothing to put in place; empty where there is. The page of an error has no form, and
// what was typed into this one must not go for it.
function refusal(answer, fresh) {
  const main = fresh.getElementById("main");
  if (!main) return `That did not work: the server answered ${answer.status}.`;
  if (answer.ok || main.querySelector("form")) return "";
  return (main.querySelector(".notice") ?? main).textContent.trim();
}

function fail(form, text) {
  const told = form.querySelector(".failed") ?? document.createElement("p");
  told.className = "failed notice bad";
  told.setAttribute("role", "alert");
  told.textContent = text;
  form.append(told);
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

async function begin() {
  if (await signInByFragment()) return;
  const at = document.getElementById("main").dataset.at;
  if (at) history.replaceState(null, "", at);
  document.addEventListener("submit", answerInPlace);
  document.addEventListener("click", copy);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return silence();
    listen();
    refresh();
  });
  addEventListener("hashchange", signInByFragment);
  addEventListener("pagehide", silence);
  addEventListener("pageshow", listen);
  ready(document);
  setInterval(tellTimes, 5000);
  listen();
  const first = document.querySelector("#main [data-told]") ?? document.getElementById("token");
  // A frame must not take the focus from the page around it.
  if (!inFrame) first?.focus();
}

begin();
