//! Keys that leave and come: backup, restore, "bring your own key", rotation.

use openssl::bn::BigNum;
use openssl::cipher::Cipher;
use openssl::cipher_ctx::{CipherCtx, CipherCtxFlags};
use openssl::pkey::PKey;
use openssl::rsa::{Padding, Rsa};
use serde_json::{Value, json};

use crate::support::{Session, decode, encode, operation, world};

#[test]
fn a_backup_holds_all_versions_and_returns_to_its_own_kind_of_place() {
    let world = world();
    for session in [world.vault(), world.hsm()] {
        let first = session.create("b", json!({"kty": "EC", "tags": {"a": "1"}}));
        let second = session.create("b", json!({"kty": "RSA"}));
        let signature = session.post("/keys/b/sign", operation("RS256", &[1; 32])).bytes("value");
        let blob = session.post("/keys/b/backup", json!({})).ok();
        let text = decode(&blob["value"]);
        assert_eq!(text.starts_with(b"&AzureKeyVaultKeyBackupV1.microsoft.com"), !session.is_hsm());
        session.post("/keys/restore", blob.clone()).refused(409, "Conflict");
        session.call("DELETE", "/keys/b", None).ok();
        session.post("/keys/restore", blob.clone()).refused(409, "Conflict");
        session.call("DELETE", "/deletedkeys/b", None);
        let restored = session.post("/keys/restore", blob.clone()).ok();
        assert_eq!(restored["key"]["kid"], second["kid"]);
        assert_eq!(session.get("/keys/b/versions").ok()["value"].as_array().map(Vec::len), Some(2));
        let id = first["kid"].as_str().and_then(|kid| kid.rsplit('/').next()).expect("version");
        assert_eq!(session.get(&format!("/keys/b/{id}")).ok()["tags"], json!({"a": "1"}));
        let verify = json!({
            "alg": "RS256", "digest": encode(&[1; 32]), "value": encode(&signature),
        });
        assert_eq!(session.post("/keys/b/verify", verify).ok()["value"], true);

        // Tampering shows, and so does a stranger's blob.
        session.call("DELETE", "/keys/b", None).ok();
        session.call("DELETE", "/deletedkeys/b", None);
        let code = if session.is_hsm() { "MalformedBackupBlob" } else { "Malformed backup blob" };
        let mut changed = text.clone();
        let last = changed.len() - 30;
        changed[last] = if changed[last] == b'A' { b'B' } else { b'A' };
        for bad in [changed, b"doesnotexist".to_vec()] {
            session.post("/keys/restore", json!({"value": encode(&bad)})).refused(400, code);
        }
        let other = crate::support::world();
        let there = if session.is_hsm() { other.hsm() } else { other.vault() };
        there.post("/keys/restore", blob).refused(400, code);
    }
}

#[test]
fn secrets_and_certificates_come_back_too() {
    let world = world();
    let vault = world.vault();
    vault.call("PUT", "/secrets/s", Some(json!({"value": "one"}))).ok();
    let policy = json!({"x509_props": {"subject": "CN=c"}, "issuer": {"name": "Self"}});
    vault.post("/certificates/c/create", json!({"policy": policy}));
    for (collection, name) in [("secrets", "s"), ("certificates", "c")] {
        let path = format!("/{collection}/{name}");
        let before = vault.get(&path).ok();
        let blob = vault.post(&format!("{path}/backup"), json!({})).ok();
        vault.call("DELETE", &path, None).ok();
        let gone = format!("/deleted{collection}/{name}");
        assert_eq!(vault.get(&gone).ok()["id"], before["id"]);
        let listed = vault.get(&format!("/deleted{collection}")).ok();
        assert_eq!(listed["value"][0]["recoveryId"], format!("{}{gone}", vault.url));
        vault.post(&format!("{gone}/recover"), json!({})).ok();
        assert_eq!(vault.get(&path).ok()["id"], before["id"]);
        vault.call("DELETE", &path, None).ok();
        assert_eq!(vault.call("DELETE", &gone, None).status, 204);
        vault
            .get(&path)
            .refused(404, if name == "s" { "SecretNotFound" } else { "CertificateNotFound" });
        vault.post(&format!("/{collection}/restore"), blob).ok();
        let after = vault.get(&path).ok();
        assert_eq!(after["id"], before["id"]);
        assert_eq!(after["cer"], before["cer"]);
    }
    vault.post("/keys/c/sign", operation("RS256", &[1; 32])).ok();
}

/// `CKM_RSA_AES_KEY_WRAP`, made with OpenSSL alone.
fn transfer_blob(kek: &Value, payload: &[u8]) -> String {
    let number = |member| BigNum::from_slice(&decode(&kek[member])).expect("number");
    let public = Rsa::from_public_components(number("n"), number("e")).expect("RSA");
    let aes = [0x17; 32];
    let mut wrapped = vec![0; public.size() as usize];
    public.public_encrypt(&aes, &mut wrapped, Padding::PKCS1_OAEP).expect("OAEP");
    let mut ctx = CipherCtx::new().expect("ctx");
    ctx.set_flags(CipherCtxFlags::FLAG_WRAP_ALLOW);
    ctx.encrypt_init(Some(Cipher::aes_256_wrap_pad()), Some(&aes), None).expect("init");
    let mut sealed = Vec::new();
    ctx.cipher_update_vec(payload, &mut sealed).expect("wrap");
    ctx.cipher_final_vec(&mut sealed).expect("wrap");
    wrapped.extend(sealed);
    let blob = json!({
        "schema_version": "1.0.0",
        "header": {"kid": kek["kid"], "alg": "dir", "enc": "CKM_RSA_AES_KEY_WRAP"},
        "ciphertext": encode(&wrapped),
        "generator": "test",
    });
    encode(blob.to_string().as_bytes())
}

fn import(session: &Session<'_>, kty: &str, blob: &str) -> crate::support::Answer {
    let body = json!({"key": {"kty": kty, "key_hsm": blob}});
    session.call("PUT", "/keys/own", Some(body))
}

#[test]
fn a_key_of_ones_own_comes_wrapped() {
    let world = world();
    for session in [world.vault(), world.hsm()] {
        let kek = session.create("kek", json!({"kty": "RSA-HSM", "key_ops": ["import"]}));
        let pair = PKey::from_rsa(Rsa::generate(2048).expect("RSA")).expect("key");
        let pkcs8 = pair.private_key_to_pkcs8().expect("PKCS#8");
        let blob = transfer_blob(&kek, &pkcs8);
        let shown = import(&session, "RSA-HSM", &blob).ok();
        assert_eq!(decode(&shown["key"]["n"]), pair.rsa().expect("RSA").n().to_vec());
        assert_eq!(shown["key"]["kty"], "RSA-HSM");
        session.post("/keys/own/sign", operation("RS256", &[1; 32])).ok();
        // What the blob holds must be what the request says.
        import(&session, "EC-HSM", &blob).refused(400, "BadParameter");
        let other = session.create("other", json!({"kty": "RSA-HSM"}));
        import(&session, "RSA-HSM", &transfer_blob(&other, &pkcs8)).refused(403, "Forbidden");
        let mut stranger = kek.clone();
        stranger["n"] = other["n"].clone();
        import(&session, "RSA-HSM", &transfer_blob(&stranger, &pkcs8)).refused(400, "BadParameter");
        import(&session, "RSA-HSM", &encode(b"{}")).refused(400, "BadParameter");
    }
    let hsm = world.hsm();
    let kek = hsm.get("/keys/kek").ok()["key"].clone();
    import(&hsm, "oct-HSM", &transfer_blob(&kek, &[9; 32])).ok();
    let wrapped = hsm.post("/keys/own/wrapkey", operation("A256KW", &[1; 16])).bytes("value");
    let mut expected = [0; 24];
    let aes = openssl::aes::AesKey::new_encrypt(&[9; 32]).expect("key");
    openssl::aes::wrap_key(&aes, None, &mut expected, &[1; 16]).expect("wrap");
    assert_eq!(wrapped, expected);
    // A vault's key encryption key lives two days.
    let vault = world.vault();
    let kek = vault.get("/keys/kek").ok();
    let (created, exp) = (kek["attributes"]["created"].as_i64(), kek["attributes"]["exp"].as_i64());
    assert_eq!(exp.expect("exp") - created.expect("created"), 2 * 86_400);
}

#[test]
fn rotation_makes_a_version_that_expires_as_the_policy_says() {
    let world = world();
    for session in [world.vault(), world.hsm()] {
        let first = session.create("r", json!({"kty": "EC", "crv": "P-384", "tags": {"a": "1"}}));
        let policy = json!({
            "attributes": {"expiryTime": "P90D"},
            "lifetimeActions": [{
                "action": {"type": "rotate"}, "trigger": {"timeAfterCreate": "P30D"},
            }],
        });
        let path = "/keys/r/rotationpolicy";
        let shown = session.call("PUT", path, Some(policy)).ok();
        if session.is_hsm() {
            assert_eq!(shown["id"], "keys/r/rotationpolicy");
            assert_eq!(shown["lifetimeActions"][0]["action"]["type"], "rotate");
            assert_eq!(shown["lifetimeActions"].as_array().map(Vec::len), Some(1));
        } else {
            assert_eq!(shown["id"], format!("{}{path}", session.url));
            assert_eq!(shown["lifetimeActions"][0]["action"]["type"], "Rotate");
            assert_eq!(shown["lifetimeActions"][1]["trigger"]["timeBeforeExpiry"], "P30D");
        }
        assert_eq!(session.get(path).ok(), shown);
        let rotated = session.post("/keys/r/rotate", json!({})).ok();
        assert_ne!(rotated["key"]["kid"], first["kid"]);
        assert_eq!(
            (&rotated["key"]["crv"], &rotated["tags"]),
            (&json!("P-384"), &json!({"a": "1"}))
        );
        let times = &rotated["attributes"];
        let life =
            times["exp"].as_i64().expect("exp") - times["created"].as_i64().expect("created");
        assert_eq!(life, 90 * 86_400);
        for bad in [
            json!({"attributes": {"expiryTime": "P1D"}}),
            json!({"attributes": {"expiryTime": "soon"}}),
            json!({"lifetimeActions": [{"action": {"type": "melt"}, "trigger": {"timeAfterCreate": "P30D"}}]}),
            json!({"lifetimeActions": [{"action": {"type": "rotate"}, "trigger": {}}]}),
            json!({"lifetimeActions": [{"action": {"type": "rotate"}, "trigger": {"timeBeforeExpiry": "P30D"}}]}),
        ] {
            session.call("PUT", path, Some(bad)).refused(400, "BadParameter");
        }
        session.post("/keys/none/rotate", json!({})).refused(404, "KeyNotFound");
        session.version.replace("7.2".into());
        assert!(session.post("/keys/r/rotate", json!({})).status >= 400);
    }
}

#[test]
fn a_key_is_released_to_whom_its_policy_trusts() {
    let world = world();
    for session in [world.vault(), world.hsm()] {
        let policy = json!({"version": "1.0.0", "anyOf": [{
            "authority": "https://maa.example/",
            "allOf": [{"claim": "x-ms-debuggable", "equals": "false"}],
        }]});
        let created = session.create(
            "out",
            json!({
                "kty": "EC-HSM", "attributes": {"exportable": true},
                "release_policy": {"data": encode(policy.to_string().as_bytes())},
            }),
        );
        let environment = Rsa::generate(2048).expect("RSA");
        let number = |number: &openssl::bn::BigNumRef| encode(&number.to_vec());
        let runtime = json!({"keys": [{
            "kty": "RSA", "kid": "env", "key_ops": ["encrypt"],
            "n": number(environment.n()), "e": number(environment.e()),
        }]});
        let attest = |claims: Value| {
            let url = format!("{}/attest", world.ready().control);
            let answer = world.http.post(url).json(&claims).send().expect("control");
            crate::support::Answer::read(answer).ok()["token"].clone()
        };
        let good = json!({
            "iss": "https://maa.example", "x-ms-debuggable": false, "x-ms-runtime": runtime,
        });
        let release = |target: Value| {
            session.post("/keys/out/release", json!({"target": target, "nonce": "n"}))
        };
        let answer = release(attest(good.clone())).ok();
        let jws = answer["value"].as_str().expect("JWS");
        let payload = jws.split('.').nth(1).expect("payload");
        let payload: Value = serde_json::from_slice(&decode(&json!(payload))).expect("JSON");
        assert_eq!(payload["request"]["nonce"], "n");
        let released = &payload["response"]["key"];
        assert_eq!(released["key"]["kid"], created["kid"]);
        let blob = decode(&released["key"]["key_hsm"]);
        let blob: Value = serde_json::from_slice(&blob).expect("blob");
        assert_eq!(
            blob["header"],
            json!({"kid": "env", "alg": "dir", "enc": "CKM_RSA_AES_KEY_WRAP"})
        );
        let ciphertext = decode(&blob["ciphertext"]);
        let (wrapped, sealed) = ciphertext.split_at(256);
        let mut aes = vec![0; 256];
        let len =
            environment.private_decrypt(wrapped, &mut aes, Padding::PKCS1_OAEP).expect("OAEP");
        let mut ctx = CipherCtx::new().expect("ctx");
        ctx.set_flags(CipherCtxFlags::FLAG_WRAP_ALLOW);
        ctx.decrypt_init(Some(Cipher::aes_256_wrap_pad()), Some(&aes[..len]), None).expect("init");
        let mut pkcs8 = Vec::new();
        ctx.cipher_update_vec(sealed, &mut pkcs8).expect("unwrap");
        ctx.cipher_final_vec(&mut pkcs8).expect("unwrap");
        let key = PKey::private_key_from_pkcs8(&pkcs8).expect("PKCS#8").ec_key().expect("EC");
        let signature = openssl::ecdsa::EcdsaSig::sign(&[1; 32], &key).expect("sign");
        let mut bytes = signature.r().to_vec_padded(32).expect("r");
        bytes.extend(signature.s().to_vec_padded(32).expect("s"));
        let verify = json!({"alg": "ES256", "digest": encode(&[1; 32]), "value": encode(&bytes)});
        assert_eq!(session.post("/keys/out/verify", verify).ok()["value"], true);

        let with = |member: &str, value: Value| {
            let mut claims = good.clone();
            claims[member] = value;
            attest(claims)
        };
        for target in [
            with("iss", json!("https://other.example")),
            with("x-ms-debuggable", json!(true)),
            with("exp", json!(1)),
            with("x-ms-runtime", json!({})),
            json!("nonsense"),
        ] {
            release(target).refused(400, "BadParameter");
        }
        session.create("in", json!({"kty": "EC"}));
        session
            .post("/keys/in/release", json!({"target": attest(good.clone())}))
            .refused(403, "Forbidden");
        session
            .post(
                "/keys/bad/create",
                json!({
                    "kty": "EC-HSM", "attributes": {"exportable": true},
                    "release_policy": {"data": encode(b"{}")},
                }),
            )
            .refused(400, "BadParameter");
    }
}

#[test]
fn a_vault_has_exportable_keys_with_a_policy_only() {
    let (world, policy) = (world(), json!({"data": encode(b"{}")}));
    let asked = |body| world.vault().post("/keys/k/create", body);
    let refused = asked(json!({"kty": "EC-HSM", "attributes": {"exportable": true}}));
    refused.refused(400, "BadParameter");
    assert_eq!(refused.message(), "AKV.SKR.1004: Exportable keys must have release policy.");
    let refused = asked(json!({"kty": "EC-HSM", "release_policy": policy}));
    refused.refused(400, "BadParameter");
    assert_eq!(
        refused.message(),
        "AKV.SKR.1005: Non-exportable keys must not have release policy."
    );
}

#[test]
fn keys_rotate_when_the_policy_says_it_is_time() {
    let world = world();
    for at in [0, 1] {
        let session = world.session(at);
        session.create("auto", json!({"kty": "EC"}));
        let policy = json!({
            "attributes": {"expiryTime": "P90D"},
            "lifetimeActions": [{
                "action": {"type": "Rotate"}, "trigger": {"timeAfterCreate": "P30D"},
            }],
        });
        session.call("PUT", "/keys/auto/rotationpolicy", Some(policy)).ok();
        let versions = || {
            let session = world.session(at);
            session.get("/keys/auto/versions").ok()["value"].as_array().expect("list").len()
        };
        assert_eq!(versions(), 1);
        world.advance_clock(30 * 86_400 - 60);
        assert_eq!(versions(), 1);
        world.advance_clock(60);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_eq!(versions(), 2));
            }
        });
        world.advance_clock(30 * 86_400);
        assert_eq!(versions(), 3);
    }
}
