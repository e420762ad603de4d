//! Backup, restore, rotation, release, deletion.

use std::{fs, os::unix::fs::PermissionsExt};

use akv_pkcs11::crypto::symmetric::{self, KeyWrap};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use openssl::{
    bn::BigNumRef,
    pkey::PKey,
    rsa::{Padding, Rsa},
};
use serde_json::{Value, json};

use crate::support::World;

const POLICY: &str = r#"{"version":"1.0.0","anyOf":[{"authority":"https://attest.example/",
    "allOf":[{"claim":"x","equals":"true"}]}]}"#;

#[test]
fn a_backup_comes_back_with_all_versions() {
    let world = World::new();
    for token in ["kv1", "hsm1"] {
        world.on(token, "key generate rsa --new-version").ok();
        let before = world.on(token, "key show rsa --json").json();
        let file = format!("{token}.backup");
        let said = world.on(token, &format!("key backup rsa --output {file} --json")).json();
        assert_eq!(said["file"], file);
        let mode = fs::metadata(world.path(&file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "whoever has it can restore it");

        let sentence = world.on(token, &format!("key restore {file}")).refused(1);
        assert!(sentence.contains("delete and purge that one first"), "{sentence}");
        world.on(token, "key delete rsa --yes").ok();
        world.on(token, "key purge rsa --yes").ok();
        world.on(token, &format!("key restore {file}")).ok();
        let after = world.on(token, "key show rsa --json").json();
        for member in ["version", "id", "type", "size"] {
            assert_eq!(before[member], after[member], "{member}");
        }
        assert_eq!(before["versions"].as_array().map(Vec::len), Some(2));
        assert_eq!(after["versions"].as_array().map(Vec::len), Some(2), "{after}");
    }
}

#[test]
fn a_backup_overwrites_nothing_unasked() {
    let world = World::new();
    world.write("there", "something");
    let sentence = world.on("kv1", "key backup ec --output there").refused(1);
    assert!(sentence.contains("there exists") && sentence.contains("--force"), "{sentence}");
    assert_eq!(fs::read(world.path("there")).unwrap(), b"something");
    assert_eq!(world.counter("vault:kv1", "keys/backup"), 0);
    world.on("kv1", "key backup ec --output there --force").ok();
    let written = fs::read(world.path("there")).unwrap();
    let ran = world.on("kv1", "key backup ec");
    assert_eq!(ran.code, 0);
    assert!(!ran.stdout.is_empty() && !written.is_empty(), "`-` is standard output");

    world.write("empty", "");
    world.write("junk", "junk");
    assert!(world.on("kv1", "key restore empty").refused(1).contains("is empty"));
    let sentence = world.on("kv1", "key restore junk").refused(1);
    assert!(sentence.contains("the service refused the backup"), "{sentence}");
    let version = "0123456789abcdef0123456789abcdef";
    let sentence = world.on("kv1", &format!("key backup ec/{version}")).refused(2);
    assert!(sentence.contains("all versions") && sentence.contains(version), "{sentence}");
}

#[test]
fn rotation_follows_the_policy() {
    let world = World::new();
    world.on("kv1", "key rotation-policy show rsa").golden(&world, "policy-default");
    let set = "key rotation-policy set rsa --expires-after P2Y --rotate-before-expiry P30D \
               --notify-before-expiry P7D";
    world.on("kv1", set).golden(&world, "policy-set");
    let before = world.on("kv1", "key show rsa --json").json();
    let after = world.on("kv1", "key rotate rsa --json").json();
    assert_ne!(before["version"], after["version"]);
    assert!(before["expires"].is_null() && after["expires"].is_string(), "{after}");
    let shown = world.on("kv1", "key show rsa --json").json();
    assert_eq!(shown["version"], after["version"]);

    // What one key has another one can be given.
    let policy = world.on("kv1", "key rotation-policy show rsa --json").ok();
    world.write("policy.json", policy);
    world.on("kv1", "key rotation-policy set ec --file policy.json").golden(&world, "policy-file");

    let set = "key rotation-policy set ec --expires-after P1Y --rotate-after P6M";
    let policy = world.on("hsm1", set).ok();
    assert!(policy.contains("rotate         P6M after it was made"), "{policy}");

    for (arguments, code) in [
        ("set rsa", 2),
        ("set rsa --rotate-after 6M", 2),
        ("set rsa --rotate-before-expiry P30D", 2),
        ("set rsa --rotate-after P6M --rotate-before-expiry P30D --expires-after P1Y", 2),
        ("set rsa --file seed.toml", 1),
        ("show missing", 1),
    ] {
        let ran = world.on("kv1", &format!("key rotation-policy {arguments}"));
        assert_eq!(ran.code, code, "{arguments}: {ran:?}");
    }
}

#[test]
fn an_exportable_key_is_released_to_an_attested_environment() {
    let world = World::new();
    world.write("policy.json", POLICY);
    let arguments = "--json key generate out --hsm --release-policy policy.json";
    assert_eq!(world.on("hsm1", arguments).json()["exportable"], true);
    world.write("token", "no token");
    let sentence = world.on("hsm1", "key release out --target token").refused(1);
    assert!(sentence.contains("is no attestation token") && !sentence.contains("no token:"));
    assert_eq!(world.counter("managed-hsm:hsm1", "keys/release"), 0);

    // An unsigned token, which the service refuses whatever its policy.
    world.write("token", "e30.e30.e30\n");
    let release = "key release out --target token --nonce fresh --output released";
    assert!(world.on("hsm1", release).refused(1).starts_with("release key out: "));
    assert_eq!(world.counter("managed-hsm:hsm1", "keys/release"), 1);
    assert!(!world.path("released").exists(), "nothing is written for a refusal");

    // What an environment that the policy trusts gets is the key.
    let environment = Rsa::generate(2048).unwrap();
    let number = |number: &BigNumRef| BASE64_URL_SAFE_NO_PAD.encode(number.to_vec());
    let token = world.attestation(&json!({
        "iss": "https://attest.example", "x": true,
        "x-ms-runtime": {"keys": [{
            "kty": "RSA", "kid": "env", "key_ops": ["encrypt"],
            "n": number(environment.n()), "e": number(environment.e()),
        }]},
    }));
    world.write("token", token);
    world.on("hsm1", release).ok();
    let jws = fs::read_to_string(world.path("released")).unwrap();
    let payload = decoded(&jws.trim_end().split('.').nth(1).unwrap().into());
    assert_eq!(payload["request"]["nonce"], "fresh");
    let blob = decoded(&payload["response"]["key"]["key"]["key_hsm"]);
    let ciphertext = bytes(&blob["ciphertext"]);
    let (wrapped, sealed) = ciphertext.split_at(256);
    let mut aes = vec![0; 256];
    let length = environment.private_decrypt(wrapped, &mut aes, Padding::PKCS1_OAEP).unwrap();
    let pkcs8 = symmetric::unwrap(KeyWrap::Rfc5649, &aes[..length], sealed).unwrap();
    let key = PKey::private_key_from_pkcs8(&pkcs8).unwrap();
    let there = world.on("hsm1", "key show out --pem").ok();
    assert!(PKey::public_key_from_pem(there.as_bytes()).unwrap().public_eq(&key));
    assert!(world.on("hsm1", release).refused(1).contains("released exists"));

    world.write("policy.json", "{");
    let sentence = world.on("hsm1", "key generate k --release-policy policy.json").refused(1);
    assert!(sentence.contains("is not JSON"), "{sentence}");
}

#[test]
fn a_deleted_key_is_recovered_or_destroyed() {
    // As a vault does it: neither deletion nor recovery shows at once.
    let world =
        World::with("[switches]\ndeletion_delay = 1\nrecovery_delay = 1\n", crate::support::SEED);
    for token in ["kv1", "hsm1"] {
        let before = world.on(token, "key show ec --json").json();
        let sentence = world.on(token, "key delete ec").refused(2);
        assert!(sentence.contains("--yes"), "{sentence}");
        world.on(token, "key delete ec --yes").ok();
        let sentence = world.on(token, "key show ec").refused(1);
        assert!(sentence.contains("no such object"), "{sentence}");
        let listed = world.on(token, "key list --deleted");
        assert_eq!(listed.code, 0);
        listed.golden(&world, "keys-deleted");

        let sentence = world.on(token, "key generate ec --type ec").refused(1);
        assert!(sentence.contains("deleted"), "{sentence}");
        world.on(token, "key recover ec").ok();
        let after = world.on(token, "key show ec --json").json();
        assert_eq!(before["version"], after["version"]);

        world.on(token, "key delete ec --yes").ok();
        assert!(world.on(token, "key purge ec").refused(2).contains("--yes"));
        world.on(token, "key purge ec --yes").ok();
        assert_eq!(
            world.on(token, "key list --deleted --json").json().as_array().map(Vec::len),
            Some(0)
        );
        let sentence = world.on(token, "key recover ec").refused(1);
        assert!(sentence.starts_with("recover key ec: "), "{sentence}");
    }
}

fn bytes(text: &Value) -> Vec<u8> {
    BASE64_URL_SAFE_NO_PAD.decode(text.as_str().expect("text")).expect("base64url")
}

fn decoded(text: &Value) -> Value {
    serde_json::from_slice(&bytes(text)).expect("JSON")
}
