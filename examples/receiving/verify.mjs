// Verifies the signatures of Carillon's webhooks, in both formats.
//
// verify.mjs standard|leicbit SECRET [NOW] < captured.json

import { createHmac, createPublicKey, timingSafeEqual, verify } from "node:crypto";
import { readFileSync, realpathSync } from "node:fs";
import { fileURLToPath } from "node:url";

const TOLERANCE = 5 * 60; // Seconds. An older request may be one that somebody sends again.

/** Why a request is not taken. */
export class Refused extends Error {}

/** Takes `whsec_…` or `whpk_…`, headers (names in lower case) and the raw body (Buffer). */
export function verifyStandard(secret, headers, body, now = Date.now() / 1000) {
  const key = standardKey(secret);
  const id = header(headers, "webhook-id");
  const timestamp = header(headers, "webhook-timestamp");
  const signatures = header(headers, "webhook-signature").split(" ");
  checkTimestamp("webhook-timestamp", timestamp, now);
  const content = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), body]);
  const fits = secret.startsWith("whpk_")
    ? signatures.some((signature) => fitsEd25519(key, content, signature))
    : contains(signatures, `v1,${createHmac("sha256", key).update(content).digest("base64")}`);
  if (!fits) throw new Refused("no signature matches");
}

/** Takes the secret in hex, headers (names in lower case) and the raw body (Buffer). */
export function verifyLeicbit(secret, headers, body, now = Date.now() / 1000) {
  if (!/^[0-9a-f]{64}$/.test(secret)) throw new Refused("malformed secret");
  const [first, ...signatures] = header(headers, "x-leicbit-signature").split(",");
  if (!first.startsWith("t=")) throw new Refused("malformed header x-leicbit-signature");
  const timestamp = first.slice(2);
  checkTimestamp("x-leicbit-signature", timestamp, now);
  // The key is the hex text itself, not the bytes that it stands for.
  const digest = createHmac("sha256", secret).update(timestamp).update(body).digest("hex");
  if (!contains(signatures, `v1=${digest}`)) throw new Refused("no signature matches");
}

function standardKey(secret) {
  const [, text] = /^(?:whsec|whpk)_(.*)$/.exec(secret) ?? [];
  const key = Buffer.from(text ?? "", "base64");
  // An empty key, of a setting that is missing, is one that everybody has.
  if (key.length !== 32 || key.toString("base64") !== text) throw new Refused("malformed secret");
  return key;
}

function header(headers, name) {
  const value = headers[name];
  if (typeof value !== "string" || value === "") throw new Refused(`missing header ${name}`);
  return value;
}

function checkTimestamp(name, timestamp, now) {
  if (!/^[0-9]{1,12}$/.test(timestamp)) throw new Refused(`malformed header ${name}`);
  const within = Math.abs(now - Number(timestamp)) <= TOLERANCE;
  if (!within) throw new Refused("timestamp outside tolerance");
}

/** Whether one of them is `expected`, in a time that does not tell how much of it fits. */
function contains(signatures, expected) {
  const wanted = Buffer.from(expected);
  return signatures.some((signature) => {
    const given = Buffer.from(signature);
    return given.length === wanted.length && timingSafeEqual(given, wanted);
  });
}

function fitsEd25519(key, content, signature) {
  if (!signature.startsWith("v1a,")) return false;
  const jwk = { kty: "OKP", crv: "Ed25519", x: key.toString("base64url") };
  const publicKey = createPublicKey({ key: jwk, format: "jwk" });
  return verify(null, content, publicKey, Buffer.from(signature.slice(4), "base64"));
}

/** Does what the command line says with the text that `read` returns; returns the exit code. */
export function main([format, secret, now, ...rest], read) {
  const formats = new Map([["standard", verifyStandard], ["leicbit", verifyLeicbit]]);
  const wrong = rest.length > 0 || !/^[0-9]*$/.test(now ?? "");
  if (!formats.has(format) || secret === undefined || wrong) {
    console.error("verify.mjs standard|leicbit SECRET [NOW] < captured.json");
    return 2;
  }
  let headers, body;
  try {
    const captured = JSON.parse(read());
    if (typeof captured.body !== "string") throw new TypeError("no body");
    const entries = Object.entries(captured.headers);
    headers = Object.fromEntries(entries.map(([name, value]) => [name.toLowerCase(), value]));
    body = Buffer.from(captured.body);
  } catch {
    console.error("not a captured request");
    return 1;
  }
  try {
    formats.get(format)(secret, headers, body, now && Number(now));
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    console.error(error.message);
    return 1;
  }
  console.log("valid");
  return 0;
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  process.exitCode = main(process.argv.slice(2), () => readFileSync(0, "utf8"));
}
