// What the scripts share: credentials, both services, refusals, keys through PKCS#11.
"use strict";

const assert = require("node:assert/strict");
const { spawnSync } = require("node:child_process");
const fs = require("node:fs");

// Not global before Node.js 20, which the packages want.
globalThis.crypto ??= require("node:crypto").webcrypto;

const { ClientSecretCredential } = require("@azure/identity");

const VAULT = "https://kv1.vault.azure.net";
const HSM = "https://hsm1.managedhsm.azure.net";
// The label of the PKCS#11 token that a service is, and its name in the counters.
const TOKENS = { [VAULT]: "kv1", [HSM]: "hsm1" };
const COUNTERS = { [VAULT]: "vault:kv1", [HSM]: "managed-hsm:hsm1" };

const credentialOf = (id, secret) =>
  new ClientSecretCredential(process.env.AZURE_TENANT_ID, id, secret);
// May do everything.
const credential = credentialOf(process.env.AZURE_CLIENT_ID, process.env.AZURE_CLIENT_SECRET);
// Cannot get a key: whatever it does with one, the service does.
const remote = credentialOf("22222222-0000-4000-8000-000000000001", "asks-the-service");
// May do nothing.
const stranger = credentialOf("22222222-0000-4000-8000-000000000002", "may-nothing");

// What is called is refused with this status and these codes of the service.
async function refused(status, code, call, inner) {
  let answer;
  try {
    answer = await call();
  } catch (error) {
    assert.equal(error.name, "RestError", error.stack);
    assert.equal(error.statusCode, status, error.message);
    const told = error.details?.error ?? assert.fail(error.stack);
    assert.equal(told.code, code, error.message);
    if (inner) assert.equal(told.innerError?.code, inner, JSON.stringify(told));
    return;
  }
  assert.fail(`not refused with ${status} ${code}: ${JSON.stringify(answer)}`);
}

// All of a paged listing.
async function all(pages) {
  const items = [];
  for await (const item of pages) items.push(item);
  return items;
}

// Calls; the service is asked to do `operation` exactly once.
async function asked(url, operation, call) {
  const count = async () => {
    const answer = await fetch(`${process.env.AKV_EMULATOR_CONTROL}/counters`);
    return (await answer.json())[COUNTERS[url]]?.[operation] ?? 0;
  };
  const before = await count();
  const answer = await call();
  assert.equal(await count(), before + 1, operation);
  return answer;
}

// Runs pkcs11-tool on the token that is the service at `url`; returns what it printed.
function pkcs11(url, ...rest) {
  const where = ["--module", process.env.AKV_MODULE, "--token-label", TOKENS[url]];
  const ended = spawnSync("pkcs11-tool", [...where, ...rest], { encoding: "utf8" });
  assert.equal(ended.status, 0, `${rest}: ${ended.stdout}${ended.stderr}`);
  return ended.stdout;
}

// CKA_ID of the private or secret key of this label: pkcs11-tool uses keys by their ids.
function pkcs11Id(url, label) {
  for (const kind of ["privkey", "secrkey"]) {
    const lines = pkcs11(url, "-O", "--type", kind).split("\n");
    const at = lines.findIndex((line) => /^ *label: +(.*)$/.exec(line)?.[1] === label);
    const id = lines.slice(at).find((line) => at >= 0 && /^ *ID: /.test(line));
    if (id) return id.trim().split(/ +/)[1];
  }
  return assert.fail(`no key ${label}`);
}

// The same for what makes a file of a file: `--sign`, `--decrypt`; returns its bytes.
function pkcs11File(url, content, ...rest) {
  fs.writeFileSync("input", content);
  fs.rmSync("output", { force: true });
  pkcs11(url, ...rest, "--input-file", "input", "--output-file", "output");
  return fs.readFileSync("output");
}

module.exports = {
  VAULT, HSM, credential, remote, stranger, refused, all, asked, pkcs11, pkcs11Id, pkcs11File,
};
