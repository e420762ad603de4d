// @azure/keyvault-keys: everything a key is used for, by the service, and through PKCS#11.
"use strict";

const assert = require("node:assert/strict");
const crypto = require("node:crypto");

const {
  CryptographyClient,
  KeyClient,
  KnownEncryptionAlgorithms,
  KnownSignatureAlgorithms,
} = require("@azure/keyvault-keys");

const { VAULT, HSM, credential, remote, refused, asked } = require("./support.js");
const { pkcs11, pkcs11Id, pkcs11File } = require("./support.js");

const DATA = Buffer.from("What is signed, or encrypted: forty-eight bytes.");
const CURVES = { "P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "P-256K": "ES256K" };
const hash = (algorithm) => crypto.createHash(`sha${/\d+/.exec(algorithm)}`).update(DATA).digest();

async function sign(url, key, algorithm) {
  const there = new CryptographyClient(key.id, remote);
  const digest = hash(algorithm);
  const signed = await asked(url, "keys/sign", () => there.sign(algorithm, digest));
  assert.equal(signed.keyID, key.id);
  for (const [value, good] of [[digest, true], [Buffer.alloc(digest.length), false]]) {
    const verify = () => there.verify(algorithm, value, signed.result);
    assert.equal((await asked(url, "keys/verify", verify)).result, good, algorithm);
  }
  if (!algorithm.startsWith("HS")) {
    // The package hashes the data itself.
    const again = await there.signData(algorithm, DATA);
    assert.equal((await there.verifyData(algorithm, DATA, again.result)).result, true, algorithm);
    // Node's own verification, with the public key.
    const { keyOps, kid, ...jwk } = key.key;
    for (const member of ["n", "e", "x", "y"]) {
      if (jwk[member]) jwk[member] = Buffer.from(jwk[member]).toString("base64url");
    }
    jwk.kty = algorithm.startsWith("ES") ? "EC" : "RSA";
    jwk.crv = jwk.crv === "P-256K" ? "secp256k1" : jwk.crv;
    const options = {
      key: crypto.createPublicKey({ key: jwk, format: "jwk" }),
      dsaEncoding: "ieee-p1363",
    };
    if (algorithm.startsWith("PS")) {
      options.padding = crypto.constants.RSA_PKCS1_PSS_PADDING;
      options.saltLength = crypto.constants.RSA_PSS_SALTLEN_DIGEST;
    }
    const name = `sha${/\d+/.exec(algorithm)}`;
    assert(crypto.verify(name, DATA, options, signed.result), algorithm);
  }
  await refused(400, "BadParameter", () => there.sign(algorithm, digest.subarray(1)));
}

// PKCS #1 padding around what the caller gives, without a hash's name.
async function signPlain(url, key, algorithm) {
  const there = new CryptographyClient(key.id, remote);
  const signed = await asked(url, "keys/sign", () => there.sign(algorithm, DATA));
  assert.equal((await there.verify(algorithm, DATA, signed.result)).result, true);
  const { n, e } = key.key;
  const jwk = { kty: "RSA", n: Buffer.from(n).toString("base64url") };
  jwk.e = Buffer.from(e).toString("base64url");
  const open = crypto.createPublicKey({ key: jwk, format: "jwk" });
  assert.deepEqual(crypto.publicDecrypt(open, signed.result), DATA);
}

async function encrypt(url, key, algorithm) {
  const there = new CryptographyClient(key.id, remote);
  const more = {};
  if (algorithm.includes("CBC")) more.iv = crypto.randomBytes(16);
  if (algorithm.includes("GCM")) more.additionalAuthenticatedData = Buffer.from("also");
  const made = await asked(url, "keys/encrypt", () =>
    there.encrypt({ algorithm, plaintext: DATA, ...more }),
  );
  if (algorithm.includes("GCM")) {
    assert.equal(made.iv.length, 12);
    Object.assign(more, { iv: made.iv, authenticationTag: made.authenticationTag });
  }
  const decrypt = () => there.decrypt({ algorithm, ciphertext: made.result, ...more });
  const { result } = await asked(url, "keys/decrypt", decrypt);
  assert.deepEqual(Buffer.from(result), DATA, algorithm);
  if (algorithm.startsWith("RSA1_5") || algorithm === "RSA-OAEP") {
    // What the package encrypted itself.
    const here = new CryptographyClient(key, credential);
    const local = await here.encrypt({ algorithm, plaintext: DATA });
    const plain = await there.decrypt({ algorithm, ciphertext: local.result });
    assert.deepEqual(Buffer.from(plain.result), DATA, algorithm);
  }
}

async function wrap(url, key, algorithm) {
  const there = new CryptographyClient(key.id, remote);
  const secret = crypto.randomBytes(32);
  const wrapped = await asked(url, "keys/wrapkey", () => there.wrapKey(algorithm, secret));
  const unwrap = () => there.unwrapKey(algorithm, wrapped.result);
  const { result } = await asked(url, "keys/unwrapkey", unwrap);
  assert.deepEqual(Buffer.from(result), secret, algorithm);
}

async function everyAlgorithm(url, keys) {
  const tried = new Set();
  const each = async (use, key, algorithms) => {
    for (const algorithm of algorithms) {
      tried.add(algorithm);
      await use(url, key, algorithm);
    }
  };
  const rsa = await keys.createRsaKey("rsa");
  await each(sign, rsa, ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]);
  await each(signPlain, rsa, ["RSNULL"]);
  await each(encrypt, rsa, ["RSA1_5", "RSA-OAEP", "RSA-OAEP-256"]);
  await each(wrap, rsa, ["RSA1_5", "RSA-OAEP", "RSA-OAEP-256"]);
  for (const [curve, algorithm] of Object.entries(CURVES)) {
    await each(sign, await keys.createEcKey(`ec-${curve}`, { curve }), [algorithm]);
  }
  if (url === HSM) {
    for (const keySize of [128, 192, 256]) {
      const key = await keys.createOctKey(`oct${keySize}`, { keySize, hsm: true });
      await each(encrypt, key, ["GCM", "CBC", "CBCPAD"].map((mode) => `A${keySize}${mode}`));
      await each(wrap, key, [`A${keySize}KW`, "CKM_AES_KEY_WRAP", "CKM_AES_KEY_WRAP_PAD"]);
      if (keySize === 256) await each(sign, key, ["HS256", "HS384", "HS512"]);
    }
  }
  const named = [
    ...Object.values(KnownSignatureAlgorithms),
    ...Object.values(KnownEncryptionAlgorithms),
  ];
  const symmetric = (name) => /^(A\d|HS|CKM)/.test(name);
  const left = named.filter((name) => !tried.has(name) && (url === HSM || !symmetric(name)));
  assert.deepEqual(left, []);
}

async function refusals(url, keys) {
  const inner = (code) => (url === HSM ? undefined : code);
  const key = await keys.createRsaKey("sign-only", { keyOps: ["sign"] });
  const there = new CryptographyClient(key.id, remote);
  const decrypt = () => there.decrypt({ algorithm: "RSA-OAEP", ciphertext: Buffer.alloc(256) });
  await refused(403, "Forbidden", decrypt, inner("KeyOperationForbidden"));
  await keys.updateKeyProperties("sign-only", { enabled: false });
  const disabled = () => there.sign("RS256", hash("RS256"));
  await refused(403, "Forbidden", disabled, inner("KeyDisabled"));
}

// Keys of the package are used through PKCS#11, and keys made through PKCS#11 by the package.
async function throughPkcs11(url, keys) {
  pkcs11(url, "--keypairgen", "--key-type", "rsa:2048", "--label", "p11-rsa");
  pkcs11(url, "--keypairgen", "--key-type", "EC:secp384r1", "--label", "p11-ec");
  await keys.createRsaKey("sdk-rsa");
  await keys.createEcKey("sdk-ec", { curve: "P-384" });
  for (const [name, algorithm, mechanism] of [
    ["p11-rsa", "RS256", "SHA256-RSA-PKCS"],
    ["sdk-rsa", "PS384", "SHA384-RSA-PKCS-PSS"],
    ["p11-ec", "ES384", "ECDSA-SHA384"],
    ["sdk-ec", "ES384", "ECDSA-SHA384"],
  ]) {
    const key = await keys.getKey(name);
    const there = new CryptographyClient(key.id, remote);
    const id = pkcs11Id(url, name);
    const signature = pkcs11File(url, DATA, "--sign", "--id", id, "-m", mechanism);
    const verified = await there.verify(algorithm, hash(algorithm), signature);
    assert.equal(verified.result, true, name);
    await sign(url, key, algorithm);
    if (name.endsWith("rsa")) {
      const { result } = await there.encrypt({ algorithm: "RSA-OAEP", plaintext: DATA });
      const oaep = ["RSA-PKCS-OAEP", "--hash-algorithm", "SHA-1", "--mgf", "MGF1-SHA1"];
      const plain = pkcs11File(url, result, "--decrypt", "--id", id, "-m", ...oaep);
      assert.deepEqual(plain, DATA, name);
      await encrypt(url, key, "RSA-OAEP-256");
    }
  }
  if (url === HSM) {
    pkcs11(url, "--keygen", "--key-type", "AES:32", "--sensitive", "--label", "p11-aes");
    await keys.createOctKey("sdk-aes", { keySize: 256, hsm: true });
    for (const name of ["p11-aes", "sdk-aes"]) {
      const there = new CryptographyClient((await keys.getKey(name)).id, remote);
      const [algorithm, iv] = ["A256CBCPAD", crypto.randomBytes(16)];
      const cbc = ["--id", pkcs11Id(url, name), "-m", "AES-CBC-PAD", "--iv", iv.toString("hex")];
      const ciphertext = pkcs11File(url, DATA, "--encrypt", ...cbc);
      const { result } = await there.decrypt({ algorithm, ciphertext, iv });
      assert.deepEqual(Buffer.from(result), DATA, name);
      const made = await there.encrypt({ algorithm, plaintext: DATA, iv });
      assert.deepEqual(pkcs11File(url, made.result, "--decrypt", ...cbc), DATA, name);
    }
  }
}

async function main() {
  for (const url of [VAULT, HSM]) {
    const keys = new KeyClient(url, credential);
    for (const check of [everyAlgorithm, refusals, throughPkcs11]) {
      console.log(url, check.name);
      await check(url, keys);
    }
  }
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
