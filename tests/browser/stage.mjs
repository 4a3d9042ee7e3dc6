// What the tests need around them: a Carillon, endpoints and a browser, each ended with the test.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

export const ADMIN = "correct-horse-battery-staple-0123456789";
const program = process.env.CARILLON;
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

// Starts the program; resolves with the first match of `ready` in what it prints.
async function start(args, ready, env = {}) {
  const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  const seen = [];
  const lines = [child.stdout, child.stderr].map((stream) => createInterface({ input: stream }));
  const match = await new Promise((resolve, reject) => {
    for (const line of lines) {
      line.on("line", (text) => {
        if (seen.length < 200) seen.push(text);
        const found = text.match(ready);
        if (found) resolve(found);
      });
    }
    child.once("exit", (code) => reject(new Error(`${args[0]} ended (${code}): ${seen.join("\n")}`)));
  });
  const stop = async () => {
    if (child.exitCode === null) {
      child.kill("SIGTERM");
      await once(child, "exit");
    }
  };
  return { match, stop };
}

export class Stage {
  errors = [];
  #ends = [];

  static async set() {
    const stage = new Stage();
    try {
      await stage.#set();
    } catch (error) {
      await stage.clear();
      throw error;
    }
    return stage;
  }

  async #set() {
    this.folder = await mkdtemp(join(tmpdir(), "carillon-browser-"));
    this.#ends.push(() => rm(this.folder, { recursive: true, force: true }));
    const ca = join(this.folder, "ca.pem");
    // An endpoint that speaks TLS, as Leicbit's format wants it.
    const tls = await start(["listen", "--listen", "127.0.0.1:0", "-q", `--tls-self-signed=${ca}`],
      /listening on (https:\/\/\S+?);/);
    this.#ends.push(tls.stop);
    this.secure = tls.match[1];
    await this.#endpoint();
    // A page of somebody else's that shows the console in a frame.
    this.portal = await this.#serve((request, response) => {
      const to = new URL(request.url, this.portal).searchParams.get("show");
      response.setHeader("content-type", "text/html");
      response.end(`<!DOCTYPE html><title>Portal</title><iframe title="webhooks" src="${to}"></iframe>`);
    });
    const config = join(this.folder, "carillon.toml");
    await writeFile(config, `
[http]
listen = "127.0.0.1:0"
admin_token = "${ADMIN}"
embed_in = ["${this.portal}"]
[ops]
listen = "127.0.0.1:0"
[embedded]
path = "${join(this.folder, "carillon.db")}"
[egress]
allow = ["127.0.0.1/32"]
ca_file = "${ca}"
[telemetry]
log = "json"
`);
    const carillon = await start(["serve", "--config", config], /"api":"(http:[^"]+)"/);
    this.#ends.push(carillon.stop);
    this.base = carillon.match[1];
    const args = ["--no-sandbox", "--disable-dev-shm-usage"];
    this.browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args });
    this.#ends.push(() => this.browser.close());
  }

  // An endpoint that answers 500 until it is mended.
  async #endpoint() {
    this.mended = false;
    this.plain = await this.#serve((request, response) => {
      request.resume();
      request.on("end", () => {
        response.statusCode = this.mended ? 200 : 500;
        response.end(this.mended ? "thank you" : "out of order");
      });
    });
  }

  // A server on a free port; resolves with its address.
  async #serve(answer) {
    const server = createServer(answer);
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    this.#ends.push(() => new Promise((resolve) => {
      server.closeAllConnections();
      server.close(resolve);
    }));
    return `http://127.0.0.1:${server.address().port}`;
  }

  async clear() {
    for (const end of this.#ends.reverse()) await end();
  }

  // Asks the API, as the admin.
  async api(method, path, body) {
    const headers = { authorization: `Bearer ${ADMIN}` };
    if (body !== undefined) headers["content-type"] = "application/json";
    const answer = await fetch(this.base + path, { method, headers, body: JSON.stringify(body) });
    assert.ok(answer.ok, `${method} ${path}: ${answer.status}`);
    return answer.status === 204 ? null : answer.json();
  }

  // A page of a new visitor; whatever its console complains of is kept.
  async visitor(options = {}) {
    const context = await this.browser.newContext(options);
    const page = await context.newPage();
    page.setDefaultTimeout(20_000);
    page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") {
        this.errors.push(`${page.url()}: ${message.text()}`);
      }
    });
    page.on("pageerror", (error) => this.errors.push(`${page.url()}: ${error}`));
    page.on("dialog", (dialog) => dialog.accept());
    return page;
  }

  async signedIn(options = {}) {
    const page = await this.visitor(options);
    await page.goto(`${this.base}/`);
    await page.getByLabel("Token").fill(ADMIN);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    return page;
  }
}

// What axe-core finds on the page that matters: it runs beside the page's own policy.
export async function barriers(page) {
  const session = await page.context().newCDPSession(page);
  const { frameTree } = await session.send("Page.getFrameTree");
  const { executionContextId: contextId } = await session.send("Page.createIsolatedWorld", {
    frameId: frameTree.frame.id,
    worldName: "axe",
  });
  await session.send("Runtime.evaluate", { contextId, expression: axe });
  const { result } = await session.send("Runtime.evaluate", {
    contextId,
    awaitPromise: true,
    returnByValue: true,
    expression: `axe.run().then((found) => found.violations.map((one) =>
      one.impact + ": " + one.id + ": " + one.nodes.map((node) => node.html.slice(0, 150)).join(" | ")))`,
  });
  await session.detach();
  assert.ok(Array.isArray(result.value), "axe did not run");
  return result.value;
}
