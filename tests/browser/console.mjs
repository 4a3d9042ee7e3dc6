// The console as a customer and as an operator use it, in a real browser.
import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { ADMIN, Stage, barriers } from "./stage.mjs";

let stage;
before(async () => {
  stage = await Stage.set();
  const made = { tenant: "acme", url: `${stage.secure}/soc`, description: "Our SOC", event_types: ["soc.*"] };
  await stage.api("POST", "/v1/subscriptions", made);
});
after(async () => {
  await stage?.clear();
});

async function publish(page, id, tenant = "acme") {
  await page.goto(`${stage.base}/publish`);
  const event = { id, type: "demo.happened", tenant, data: { severity: "high" } };
  await page.getByLabel("Event (JSON)").fill(JSON.stringify(event));
  await page.getByRole("button", { name: "Publish" }).click();
  await page.getByText(`Published as ${id}`).waitFor();
}

async function disableAndEnable(page) {
  await page.getByRole("button", { name: "Disable" }).click();
  await page.getByRole("heading", { name: "Disable this subscription?" }).waitFor();
  await page.getByRole("button", { name: "Disable" }).click();
  await page.getByText("It is disabled").waitFor();
  await page.getByRole("button", { name: "Enable" }).click();
  await page.getByText("It is enabled").waitFor();
}

test("a customer sets up a Leicbit webhook, tests it and sees an event arrive", async () => {
  const page = await stage.signedIn({ permissions: ["clipboard-read", "clipboard-write"] });
  await page.getByRole("link", { name: "Subscriptions" }).click();
  await page.getByRole("link", { name: "New subscription" }).click();
  await page.getByLabel("Tenant").fill("acme");
  await page.getByLabel("URL").fill("http://127.0.0.1:1/");
  await page.getByLabel("Description").fill("A new one");
  await page.getByLabel(/Leicbit/).check();
  await page.getByRole("button", { name: "Create" }).click();
  assert.match(await page.locator("#url-fault").innerText(), /https/i);
  await page.getByLabel("URL").fill(`${stage.secure}/hook`);
  await page.getByRole("button", { name: "Create" }).click();

  await page.getByText("shown this once").waitFor();
  const secret = await page.locator("#hex").inputValue();
  assert.match(secret, /^[0-9a-f]{64}$/);
  await page.locator("[data-copy=hex]").click();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), secret);
  const id = (await page.locator("dd.id").last().innerText()).trim();
  const path = `${stage.base}/subscriptions/${id}`;
  await page.goto(path);
  assert.equal(await page.locator("#hex").count(), 0);

  await page.getByRole("button", { name: "Test" }).click();
  await page.getByText("Test delivered").waitFor();
  await disableAndEnable(page);

  // Open beside it, the page of the subscription hears of the event by itself.
  await page.goto(path);
  const other = await page.context().newPage();
  await other.goto(`${stage.base}/publish`);
  const event = { type: "demo.happened", tenant: "acme", data: { severity: "high" } };
  await other.getByLabel("Event (JSON)").fill(JSON.stringify({ id: "live-1", ...event }));
  await other.getByRole("button", { name: "Who would want it?" }).click();
  await other.getByText("1 of 2 subscriptions want it").waitFor();
  await other.getByRole("button", { name: "Publish" }).click();
  await other.getByText("Published as live-1").waitFor();
  await other.close();
  await page.bringToFront();
  // Sooner than the sign of life, which has the page look, too.
  await page.getByText("live-1").waitFor({ timeout: 8000 });
  await page.getByRole("link", { name: "demo.happened" }).first().click();
  await page.getByText("x-leicbit-signature", { exact: true }).waitFor();
  await page.getByText("As a curl command").click();
  assert.match(await page.locator("pre[id^=curl]").innerText(), /^curl -sS -X POST 'https/);
  await page.getByRole("button", { name: "Redeliver" }).click();
  await page.getByText("It is sent again").waitFor();
  await page.locator("details.attempt").nth(1).waitFor();
  await page.context().close();
});

test("a test to a private address is refused, and says so", async () => {
  const page = await stage.signedIn();
  await page.goto(`${stage.base}/subscriptions/new`);
  await page.getByLabel("Tenant").fill("private");
  await page.getByLabel("URL").fill("https://10.0.0.1/hook");
  await page.getByRole("button", { name: "Create" }).click();
  await page.getByText(/nothing is sent there/).waitFor();
  await page.getByRole("button", { name: "Test" }).click();
  await page.getByText("Test failed").waitFor();
  await page.getByText("blocked address").first().waitFor();
  await page.context().close();
});

test("an operator finds what was given up, and sends it again once it is mended", async () => {
  const retry = { max_attempts: 1 };
  const made = { tenant: "acme", url: `${stage.plain}/in`, description: "Broken", retry };
  const { id } = await stage.api("POST", "/v1/subscriptions", made);
  const page = await stage.signedIn();
  await publish(page, "lost-1");
  await page.getByRole("link", { name: "Dead letters" }).click();
  await page.goto(`${stage.base}/dead-letters?subscription=${id}`);
  await page.waitForFunction(() => {
    const found = document.body.innerText.includes("lost-1");
    if (!found) location.reload();
    return found;
  }, undefined, { polling: 1000 });
  stage.mended = true;
  await page.getByText("1 matches").waitFor();
  await page.getByRole("button", { name: "Send it again" }).click();
  await page.getByRole("heading", { name: /^Send 1 again/ }).waitFor();
  await page.getByRole("button", { name: "Send again" }).click();
  await page.getByText("1 dead letter is sent again.").waitFor();
  await page.goto(`${stage.base}/attempts?subscription=${id}&outcome=delivered`);
  await page.getByText("lost-1").waitFor();
  await page.context().close();
});

test("a tenant comes with a token in the fragment, and sees nothing of another", async () => {
  const theirs = { tenant: "bluebell", url: `${stage.plain}/theirs`, description: "bluebell" };
  const { id } = await stage.api("POST", "/v1/subscriptions", theirs);
  const { token } = await stage.api("POST", "/v1/tenants/acme/tokens", { ttl: "1h" });
  const page = await stage.visitor();
  await page.goto(`${stage.base}/subscriptions#token=${token}`);
  await page.getByRole("heading", { name: "Subscriptions" }).waitFor();
  assert.ok(!page.url().includes("ct_"), "the token stays in no address");
  await page.getByText("Our SOC").waitFor();
  for (const path of ["/", "/subscriptions", "/attempts", "/dead-letters", "/publish"]) {
    await page.goto(stage.base + path);
    assert.ok(!(await page.content()).includes("bluebell"), path);
  }
  assert.equal(await page.getByRole("link", { name: "Quarantine" }).count(), 0);
  const answer = await page.request.get(`${stage.base}/subscriptions/${id}`);
  assert.equal(answer.status(), 404);
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Token").waitFor();
  await page.context().close();
});

test("a form takes away what it has no more, and keeps what nobody touched", async () => {
  const made = {
    tenant: "acme", url: `${stage.plain}/edited`, description: "Edited", headers: { "x-a": "1", "x-b": "2" },
    filter: { data: { severity: ["high"], kind: ["leak"] } }, retry: { max_attempts: 3 },
  };
  const { id } = await stage.api("POST", "/v1/subscriptions", made);
  const page = await stage.signedIn();
  await page.goto(`${stage.base}/subscriptions/${id}/edit`);
  await page.getByLabel("Filter").fill('{"data": {"kind": ["leak"]}}');
  await page.getByText("More: headers").click();
  await page.getByLabel("Headers").fill("x-b: 2");
  await page.getByLabel("Retry").fill("{");
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByRole("alert").getByText("must be JSON").waitFor();
  assert.equal(await page.getByLabel("Headers").inputValue(), "x-b: 2");
  await page.getByLabel("Retry").fill("");
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("It is saved.").waitFor();
  assert.equal(new URL(page.url()).pathname, `/subscriptions/${id}`);
  const now = await stage.api("GET", `/v1/subscriptions/${id}`);
  assert.deepEqual(
    [now.filter, now.headers, now.retry, now.description],
    [{ data: { kind: ["leak"] } }, { "x-b": "2" }, null, "Edited"],
  );
  await page.context().close();
});

test("whoever is not signed in any more loses nothing that was typed", async () => {
  const page = await stage.signedIn();
  await page.goto(`${stage.base}/publish`);
  await page.getByLabel("Event (JSON)").fill('{"type": "demo.kept", "tenant": "acme", "data": {}}');
  const cookies = await page.context().cookies();
  await page.context().clearCookies();
  await page.getByRole("button", { name: "Publish" }).click();
  await page.getByText("You are not signed in any more").waitFor();
  await page.context().addCookies(cookies);
  await page.getByRole("button", { name: "Publish" }).click();
  await page.getByText("Published as console-").waitFor();
  await page.context().close();
});

test("a tenant's console is shown in the frame of a page that may, the admin's in none", async () => {
  const { token } = await stage.api("POST", "/v1/tenants/acme/tokens", { ttl: "1h" });
  const page = await stage.visitor();
  const framed = encodeURIComponent(`${stage.base}/subscriptions#token=${token}`);
  await page.goto(`${stage.portal}/?show=${framed}`);
  const frame = page.frameLocator("iframe");
  await frame.getByRole("link", { name: "Our SOC" }).click();
  await frame.getByRole("heading", { name: "Our SOC" }).waitFor();
  await page.context().close();
  // What a browser says when it shows no frame is what is wanted here.
  const admin = await stage.signedIn();
  admin.removeAllListeners("console");
  const refused = admin.waitForEvent("console", (message) => /frame-ancestors/.test(message.text()));
  await admin.goto(`${stage.portal}/?show=${encodeURIComponent(stage.base)}`);
  await refused;
  await admin.context().close();
});

test("a link signs in to the console's own pages alone, and nobody who is signed in unasked", async () => {
  const { token } = await stage.api("POST", "/v1/tenants/acme/tokens", { ttl: "1h" });
  const page = await stage.visitor();
  await page.goto(`${stage.base}/sign-in?to=${encodeURIComponent("//127.0.0.2:9/")}#token=${token}`);
  await page.getByRole("heading", { name: "Overview" }).waitFor();
  assert.equal(page.url(), `${stage.base}/`);
  await page.goto(`${stage.base}/sign-in#token=ct_wrong`);
  await page.getByText("the token is not valid").waitFor();
  await page.context().close();
  const admin = await stage.signedIn();
  admin.removeAllListeners("dialog");
  for (const path of ["/attempts", "/sign-in"]) {
    const asked = admin.waitForEvent("dialog");
    const going = admin.goto(`${stage.base}${path}#token=${token}`);
    await (await asked).dismiss();
    await going;
    await admin.goto(`${stage.base}/attempts`);
    await admin.getByText("admin", { exact: true }).waitFor();
  }
  // Where the page is the same, the browser loads none: the token is read all the same.
  const asked = admin.waitForEvent("dialog");
  await admin.evaluate((hash) => { location.hash = hash; }, `token=${token}`);
  await (await asked).accept();
  await admin.getByText("tenant", { exact: true }).waitFor();
  assert.ok(!admin.url().includes("ct_"));
  await admin.context().close();
});

test("without script, everything can be read and done", async () => {
  const page = await stage.signedIn({ javaScriptEnabled: false });
  await page.getByRole("link", { name: "Subscriptions" }).click();
  await page.getByRole("link", { name: "Our SOC" }).click();
  await page.getByRole("button", { name: "Test" }).click();
  await page.getByText("Test delivered").waitFor();
  await disableAndEnable(page);
  await page.getByRole("link", { name: "Attempts", exact: true }).click();
  await page.getByRole("link", { name: "demo.happened" }).first().click();
  await page.getByText("webhook-id").first().waitFor();
  await page.context().close();
});

test("the keyboard reaches everything", async () => {
  const page = await stage.signedIn();
  await page.goto(`${stage.base}/subscriptions`);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the page");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  for (let n = 0; n < 30; n += 1) {
    await page.keyboard.press("Tab");
    if (await page.evaluate(() => document.activeElement.textContent.trim() === "Our SOC")) break;
  }
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Our SOC" }).waitFor();
  await page.context().close();
});

test("every page is without barriers, wide and narrow, light and dark", async () => {
  const id = async (path) => (await stage.api("GET", path)).items[0];
  const subscription = await id("/v1/subscriptions?tenant=acme");
  const attempt = await id("/v1/attempts?outcome=delivered");
  const pages = {
    overview: "/",
    subscriptions: "/subscriptions",
    subscription: `/subscriptions/${subscription.id}`,
    edit: `/subscriptions/${subscription.id}/edit`,
    new: "/subscriptions/new",
    attempts: "/attempts",
    delivery: `/deliveries/${attempt.delivery_id}`,
    "dead-letters": "/dead-letters",
    quarantine: "/quarantine",
    publish: "/publish",
    nothing: "/subscriptions/sub_0",
  };
  const found = [];
  for (const [size, viewport] of Object.entries({
    wide: { width: 1280, height: 900 },
    narrow: { width: 390, height: 844 },
  })) {
    for (const colorScheme of ["light", "dark"]) {
      const page = await stage.signedIn({ viewport, colorScheme });
      for (const [name, path] of Object.entries(pages)) {
        await page.goto(stage.base + path);
        for (const barrier of await barriers(page)) found.push(`${name} ${size} ${colorScheme}: ${barrier}`);
        const sideways = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
        if (sideways) found.push(`${name} ${size}: wider than the window`);
        if (process.env.SHOTS) {
          await mkdir(process.env.SHOTS, { recursive: true });
          const file = join(process.env.SHOTS, `${name}-${size}-${colorScheme}.png`);
          await page.screenshot({ path: file, fullPage: true });
        }
      }
      await page.context().close();
    }
  }
  const visitor = await stage.visitor();
  await visitor.goto(`${stage.base}/sign-in`);
  found.push(...(await barriers(visitor)).map((barrier) => `sign-in: ${barrier}`));
  assert.deepEqual(found, []);
});

// Last: what any page complained of, in any test. An error page is an error by itself.
test("no page complains", () => {
  const complaints = stage.errors.filter((error) => !error.includes("/subscriptions/sub_0"));
  const refused = complaints.filter((error) => !/status of (401|404|412|422)/.test(error));
  assert.deepEqual(refused, []);
});
