// @azure/keyvault-keys: everything about keys but their use.
"use strict";

const assert = require("node:assert/strict");
const crypto = require("node:crypto");

const {
  KeyClient,
  KnownKeyExportEncryptionAlgorithm,
  parseKeyVaultKeyIdentifier,
} = require("@azure/keyvault-keys");

const { VAULT, HSM, credential, stranger, refused, all } = require("./support.js");

const DAY = 86_400_000;
const NOW = new Date(Math.floor(Date.now() / 1000) * 1000);
// Milliseconds between two questions of a poller.
const SOON = { intervalInMs: 200 };

async function creation(keys, hsm) {
  for (const size of [2048, 3072]) {
    const key = await keys.createRsaKey("rsa", { keySize: size, hsm: true });
    assert.equal(key.keyType, "RSA-HSM");
    assert.equal(key.key.n.length, size / 8);
    const sorted = [...key.keyOperations].sort();
    assert.deepEqual(sorted, ["decrypt", "encrypt", "sign", "unwrapKey", "verify", "wrapKey"]);
  }
  const curves = { "P-256": 32, "P-384": 48, "P-521": 66, "P-256K": 32 };
  for (const [curve, length] of Object.entries(curves)) {
    const key = await keys.createEcKey("ec", { curve });
    assert.equal(key.keyType, hsm ? "EC-HSM" : "EC");
    assert.deepEqual([key.key.crv, key.key.x.length, key.key.y.length], [curve, length, length]);
  }
  const oct = () => keys.createOctKey("oct", { keySize: 256, hsm: true });
  if (hsm) assert.equal((await oct()).keyType, "oct-HSM");
  else await refused(400, "BadParameter", oct);

  const key = await keys.createKey("options", "RSA", {
    keySize: 2048,
    keyOps: ["sign", "verify"],
    enabled: true,
    notBefore: new Date(+NOW - DAY),
    expiresOn: new Date(+NOW + DAY),
    tags: { purpose: "test" },
  });
  assert.deepEqual([...key.keyOperations].sort(), ["sign", "verify"]);
  assert.equal(+key.properties.notBefore, +NOW - DAY);
  assert.equal(+key.properties.expiresOn, +NOW + DAY);
  assert.deepEqual(key.properties.tags, { purpose: "test" });
  assert.equal(key.properties.recoverableDays, 7);
  const { name, version } = parseKeyVaultKeyIdentifier(key.id);
  assert.deepEqual([name, version], ["options", key.properties.version]);
}

async function reading(keys) {
  const first = await keys.createEcKey("read", { curve: "P-256" });
  const second = await keys.createEcKey("read", { curve: "P-256" });
  assert.equal((await keys.getKey("read")).id, second.id);
  const { version } = first.properties;
  assert.equal((await keys.getKey("read", { version })).id, first.id);
  const versions = await all(keys.listPropertiesOfKeyVersions("read"));
  assert.deepEqual(versions.map((item) => item.id).sort(), [first.id, second.id].sort());
  const listed = (await all(keys.listPropertiesOfKeys())).map((item) => item.name);
  for (const name of ["rsa", "ec", "options", "read"]) assert(listed.includes(name), name);
  const pages = await all(keys.listPropertiesOfKeys().byPage({ maxPageSize: 2 }));
  assert(pages.length > 1 && pages.every((page) => page.length <= 2));
  await refused(404, "KeyNotFound", () => keys.getKey("none"));
  await refused(404, "KeyNotFound", () => keys.getKey("read", { version: "0".repeat(32) }));
  assert.deepEqual(await all(keys.listPropertiesOfKeyVersions("none")), []);
}

async function updating(keys) {
  const { properties } = await keys.createRsaKey("update", { tags: { a: "b" } });
  const changed = await keys.updateKeyProperties("update", properties.version, {
    enabled: false,
    expiresOn: new Date(+NOW + DAY),
    keyOps: ["sign"],
  });
  assert.equal(changed.properties.enabled, false);
  assert.equal(+changed.properties.expiresOn, +NOW + DAY);
  assert.deepEqual(changed.keyOperations, ["sign"]);
  assert.deepEqual(changed.properties.tags, { a: "b" });
  const current = await keys.updateKeyProperties("update", { enabled: true, tags: { c: "d" } });
  assert.deepEqual(current.properties.tags, { c: "d" });
  assert.equal(current.properties.enabled, true);
}

async function rotation(keys) {
  const first = await keys.createRsaKey("rotate");
  const lifetimeActions = [{ action: "Rotate", timeAfterCreate: "P2M" }];
  const policy = { expiresIn: "P90D", lifetimeActions };
  const set = await keys.updateKeyRotationPolicy("rotate", policy);
  for (const shown of [set, await keys.getKeyRotationPolicy("rotate")]) {
    assert.equal(shown.expiresIn, "P90D");
    const rotate = shown.lifetimeActions.find((one) => one.action.toLowerCase() === "rotate");
    assert.equal(rotate.timeAfterCreate, "P2M");
    assert(shown.createdOn && shown.updatedOn);
  }
  const rotated = await keys.rotateKey("rotate");
  assert.notEqual(rotated.id, first.id);
  assert(Math.abs(+rotated.properties.expiresOn - (+NOW + 90 * DAY)) < DAY);
}

async function deletion(keys) {
  const key = await keys.createEcKey("delete", { curve: "P-256" });
  const poller = await keys.beginDeleteKey("delete", SOON);
  const deleted = await poller.pollUntilDone();
  assert.equal(deleted.id, key.id);
  const { deletedOn, scheduledPurgeDate, recoveryId } = deleted.properties;
  assert.equal(scheduledPurgeDate - deletedOn, 7 * DAY);
  assert(recoveryId.endsWith("/deletedkeys/delete"));
  await refused(404, "KeyNotFound", () => keys.getKey("delete"));
  await refused(409, "Conflict", () => keys.createEcKey("delete"));
  assert.equal((await keys.getDeletedKey("delete")).id, key.id);
  const gone = (await all(keys.listDeletedKeys())).map((item) => item.name);
  assert(gone.includes("delete"), gone);
  const recovery = await keys.beginRecoverDeletedKey("delete", SOON);
  assert.equal((await recovery.pollUntilDone()).id, key.id);
  await keys.getKey("delete");

  const backup = await keys.backupKey("delete");
  await refused(409, "Conflict", () => keys.restoreKeyBackup(backup));
  await (await keys.beginDeleteKey("delete", SOON)).pollUntilDone();
  await keys.purgeDeletedKey("delete");
  await refused(404, "KeyNotFound", () => keys.getDeletedKey("delete"));
  assert.equal((await keys.restoreKeyBackup(backup)).id, key.id);
  await refused(404, "KeyNotFound", () => keys.beginDeleteKey("none"));
}

const bytes = (jwk) =>
  Object.fromEntries(
    Object.entries(jwk).map(([name, value]) => [
      name,
      ["kty", "crv"].includes(name) ? value : Buffer.from(value, "base64url"),
    ]),
  );

async function imports(keys, hsm) {
  const rsa = crypto.generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey;
  let jwk = bytes(rsa.export({ format: "jwk" }));
  let key = await keys.importKey("import-rsa", jwk, { hardwareProtected: hsm, tags: { a: "b" } });
  assert.equal(key.keyType, hsm ? "RSA-HSM" : "RSA");
  assert.deepEqual(Buffer.from(key.key.n), jwk.n);
  assert.equal(key.key.d, undefined);
  assert.deepEqual(key.properties.tags, { a: "b" });
  const ec = crypto.generateKeyPairSync("ec", { namedCurve: "P-521" }).privateKey;
  jwk = bytes(ec.export({ format: "jwk" }));
  key = await keys.importKey("import-ec", jwk);
  assert.deepEqual(Buffer.from(key.key.x), jwk.x);
  jwk = { kty: "oct-HSM", k: crypto.randomBytes(32), keyOps: ["wrapKey"] };
  const oct = () => keys.importKey("import-oct", jwk);
  if (hsm) assert.equal((await oct()).keyType, "oct-HSM");
  else await refused(400, "BadParameter", oct);
}

async function release(keys) {
  const authority = "https://sharedeus.eus.attest.azure.net";
  const claim = { claim: "x-ms-test", equals: "true" };
  const policy = { version: "1.0.0", anyOf: [{ authority, allOf: [claim] }] };
  const key = await keys.createEcKey("release", {
    hsm: true,
    exportable: true,
    releasePolicy: { encodedPolicy: Buffer.from(JSON.stringify(policy)) },
  });
  assert.equal(key.properties.exportable, true);
  const encoded = Buffer.from(key.properties.releasePolicy.encodedPolicy);
  assert.equal(JSON.parse(encoded).anyOf[0].authority, authority);
  const recipient = crypto.generateKeyPairSync("rsa", { modulusLength: 2048 }).publicKey;
  const target = { ...recipient.export({ format: "jwk" }), kid: "r", key_ops: ["encrypt"] };
  const claims = { iss: authority, "x-ms-test": "true", "x-ms-runtime": { keys: [target] } };
  const answer = await fetch(`${process.env.AKV_EMULATOR_CONTROL}/attest`, {
    method: "POST",
    body: JSON.stringify(claims),
  });
  const { token } = await answer.json();
  for (const algorithm of Object.values(KnownKeyExportEncryptionAlgorithm)) {
    const { value } = await keys.releaseKey("release", token, { algorithm, nonce: "n" });
    const payload = JSON.parse(Buffer.from(value.split(".")[1], "base64url"));
    assert.equal(payload.response.key.key.kid, key.id);
  }
}

async function onlyHere(keys, hsm) {
  if (hsm) assert.equal((await keys.getRandomBytes(32)).length, 32);
  else await refused(404, "NotFound", () => keys.getRandomBytes(32));
  const { attestation } = (await keys.getKeyAttestation("rsa")).properties;
  assert(Buffer.from(attestation.certificatePemFile).includes("BEGIN CERTIFICATE"));
  assert(attestation.privateKeyAttestation && attestation.publicKeyAttestation);
}

async function permission(url, hsm) {
  const strange = new KeyClient(url, stranger);
  const code = hsm ? "AccessDenied" : "Forbidden";
  const inner = hsm ? undefined : "ForbiddenByPolicy";
  await refused(403, code, () => strange.getKey("rsa"), inner);
  // The package keeps nothing but the status of a page.
  await assert.rejects(all(strange.listPropertiesOfKeys()), { statusCode: 403 });
}

async function main() {
  for (const url of [VAULT, HSM]) {
    const hsm = url === HSM;
    const keys = new KeyClient(url, credential);
    const checks = [creation, reading, updating, rotation, deletion, imports, release, onlyHere];
    for (const check of checks) {
      console.log(url, check.name);
      await check(keys, hsm);
    }
    await permission(url, hsm);
  }
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
