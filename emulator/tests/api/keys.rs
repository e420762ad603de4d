//! Making, importing, showing and listing keys.

use std::collections::BTreeSet;

use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::rsa::Rsa;
use serde_json::{Value, json};

use crate::support::{Session, decode, encode, world};

fn each(test: impl Fn(&Session<'_>)) {
    let world = world();
    test(&world.vault());
    test(&world.hsm());
}

#[test]
fn every_kind_is_made_as_the_dialect_says() {
    let world = world();
    let (vault, hsm) = (world.vault(), world.hsm());
    for (kty, size) in [("RSA", 2048), ("RSA-HSM", 3072), ("RSA", 4096)] {
        let body = json!({"kty": kty, "key_size": size});
        let key = vault.create("rsa", body.clone());
        assert_eq!(key["kty"], kty);
        assert_eq!(decode(&key["n"]).len(), size / 8);
        assert_eq!(key["e"], if kty == "RSA" { "AQAB" } else { "AAEAAQ" });
        assert_eq!(
            key["key_ops"],
            json!(["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"])
        );
        assert_eq!(hsm.create("rsa", body)["kty"], "RSA-HSM");
    }
    for (curve, width) in [("P-256", 32), ("P-256K", 32), ("P-384", 48), ("P-521", 66)] {
        let body = json!({"kty": "EC", "crv": curve});
        let key = vault.create("ec", body.clone());
        assert_eq!((&key["kty"], &key["crv"]), (&json!("EC"), &json!(curve)));
        assert_eq!((decode(&key["x"]).len(), decode(&key["y"]).len()), (width, width));
        assert_eq!(key["key_ops"], json!(["sign", "verify"]));
        assert_eq!(hsm.create("ec", body)["kty"], "EC-HSM");
    }
    for size in [128, 192, 256] {
        let key = hsm.create("oct", json!({"kty": "oct", "key_size": size}));
        assert_eq!(key["kty"], "oct-HSM");
        assert!(key.get("k").is_none());
        let ops: BTreeSet<&str> =
            key["key_ops"].as_array().expect("ops").iter().filter_map(Value::as_str).collect();
        assert!(ops.contains("deriveKey") && ops.len() == 7);
    }
    vault
        .post("/keys/oct/create", json!({"kty": "oct-HSM", "key_size": 256}))
        .refused(400, "BadParameter");
}

#[test]
fn keys_from_before_7_0_keep_their_curves_name_and_algorithm() {
    use crate::support::operation;
    let world = world();
    let (vault, hsm) = (world.vault(), world.hsm());
    let body = json!({"kty": "EC", "crv": "SECP256K1"});
    assert_eq!(vault.create("old", body.clone())["crv"], "SECP256K1");
    assert_eq!(vault.post("/keys/old/rotate", json!({})).ok()["key"]["crv"], "SECP256K1");
    assert_eq!(hsm.create("new", body)["crv"], "P-256K", "it came later");
    vault.create("new", json!({"kty": "EC", "crv": "P-256K"}));
    for (session, name, good, bad) in [
        (&vault, "old", "ECDSA256", "ES256K"),
        (&vault, "new", "ES256K", "ECDSA256"),
        (&hsm, "new", "ES256K", "ECDSA256"),
    ] {
        let path = format!("/keys/{name}/sign");
        let signature = session.post(&path, operation(good, &[1; 32])).bytes("value");
        session.post(&path, operation(bad, &[1; 32])).refused(400, "BadParameter");
        let verify = json!({"alg": good, "digest": encode(&[1; 32]), "value": encode(&signature)});
        let verified = session.post(&format!("/keys/{name}/verify"), verify).ok();
        assert_eq!(verified["value"], true);
    }
}

#[test]
fn what_a_key_cannot_be_is_refused() {
    each(|session| {
        for body in [
            json!({"kty": "RSA", "key_size": 1024}),
            json!({"kty": "RSA", "key_size": 2049}),
            json!({"kty": "RSA", "public_exponent": 65536}),
            json!({"kty": "EC", "crv": "P-192"}),
            json!({"kty": "OKP"}),
            json!({}),
            json!({"kty": "EC", "colour": "red"}),
            json!({"kty": "EC", "attributes": {"colour": "red"}}),
            json!({"kty": "EC", "key_ops": ["melt"]}),
            json!({"kty": "EC", "attributes": {"nbf": 5, "exp": 4}}),
            json!({"kty": "EC", "tags": {"a": 1}}),
            json!([]),
        ] {
            let answer = session.post("/keys/bad/create", body.clone());
            assert_eq!(answer.json["error"]["code"], "BadParameter", "{body}: {}", answer.text);
            assert_eq!(answer.status, 400, "{body}");
        }
        let tags: serde_json::Map<_, _> =
            (0..16).map(|at| (format!("t{at}"), json!("v"))).collect();
        session
            .post("/keys/bad/create", json!({"kty": "EC", "tags": tags}))
            .refused(400, "BadParameter");
        assert_eq!(session.get("/keys").ok()["value"], json!([]));
    });
}

#[test]
fn names_are_checked_and_case_insensitive() {
    each(|session| {
        session
            .post("/keys/invalidkey%5B%5D/create", json!({"kty": "EC"}))
            .refused(400, "BadParameter");
        let long = "a".repeat(128);
        session
            .post(&format!("/keys/{long}/create"), json!({"kty": "EC"}))
            .refused(400, "BadParameter");
        let page = session.post("/keys//backup", json!({}));
        assert_eq!(page.status, 400);
        assert_eq!(page.text.contains("<html>"), !session.is_hsm(), "{}", page.text);
        let key = session.create("MixedCase", json!({"kty": "EC"}));
        let other = session.get("/keys/mixedCASE").ok();
        assert_eq!(other["key"]["kid"], key["kid"]);
        session.create("mixedcase", json!({"kty": "EC"}));
        assert_eq!(
            session.get("/keys/MIXEDCASE/versions").ok()["value"].as_array().map(Vec::len),
            Some(2)
        );
    });
}

#[test]
fn identifiers_carry_the_name_the_client_used() {
    let world = world();
    let vault = world.vault();
    vault.create("k", json!({"kty": "EC"}));
    let port = world.ready().services[0].port;
    let url = format!("https://localhost:{port}/keys/k?api-version=7.4");
    let key = vault.send("GET", &url, None).ok();
    let kid = key["key"]["kid"].as_str().expect("kid");
    assert!(kid.starts_with(&format!("https://localhost:{port}/keys/k/")), "{kid}");
}

#[test]
fn versions_are_kept_and_the_newest_is_current() {
    each(|session| {
        let first = session.create("v", json!({"kty": "EC"}));
        let second = session.create("v", json!({"kty": "RSA", "tags": {"n": "2"}}));
        let id = |key: &Value| {
            key["kid"].as_str().and_then(|kid| kid.rsplit('/').next()).expect("kid").to_owned()
        };
        assert_eq!(id(&first).len(), 32);
        for path in ["/keys/v", "/keys/v/"] {
            let current = session.get(path).ok();
            assert_eq!(current["key"]["kid"], second["kid"]);
            assert_eq!(current["tags"], json!({"n": "2"}));
        }
        let old = session.get(&format!("/keys/v/{}", id(&first))).ok();
        assert_eq!(old["key"]["kid"], first["kid"]);
        assert!(old.get("tags").is_none());
        session.get("/keys/v/00000000000000000000000000000000").refused(404, "KeyNotFound");
        session.get("/keys/none").refused(404, "KeyNotFound");
        assert_eq!(session.get("/keys/none/versions").ok()["value"], json!([]));
        let versions = session.get("/keys/v/versions").ok();
        let ids: BTreeSet<&str> = versions["value"]
            .as_array()
            .expect("list")
            .iter()
            .filter_map(|item| item["kid"].as_str())
            .collect();
        assert_eq!(ids, [&first, &second].map(|key| key["kid"].as_str().expect("kid")).into());
    });
}

#[test]
fn listings_come_in_pages_of_both_dialects() {
    each(|session| {
        let names: Vec<String> = (0..27).map(|at| format!("key-{:02}", (at * 7) % 27)).collect();
        for name in &names {
            session.create(name, json!({"kty": "EC"}));
        }
        for (limit, pages) in [("", 2), ("?maxresults=10", 3), ("?maxresults=1", 27)] {
            let mut answer = session.get(&format!("/keys{limit}"));
            let (mut seen, mut count) = (Vec::new(), 0);
            loop {
                count += 1;
                let page = answer.ok();
                for item in page["value"].as_array().expect("value") {
                    let kid = item["kid"].as_str().expect("kid");
                    seen.push(kid.rsplit('/').next().expect("name").to_owned());
                }
                match page.get("nextLink") {
                    Some(Value::String(link)) => {
                        assert_eq!(link.contains("api-version"), !session.is_hsm(), "{link}");
                        answer = session.send("GET", link, None);
                    }
                    // The dialects differ in how the last page ends.
                    Some(Value::Null) if !session.is_hsm() => break,
                    None if session.is_hsm() => break,
                    other => panic!("nextLink {other:?}"),
                }
            }
            assert_eq!(count, pages);
            let mut expected = names.clone();
            if !session.is_hsm() {
                expected.sort();
            }
            assert_eq!(seen, expected);
        }
        for bad in ["0", "26", "x"] {
            session.get(&format!("/keys?maxresults={bad}")).refused(400, "BadParameter");
        }
    });
}

#[test]
fn members_show_with_the_version_that_added_them() {
    let world = world();
    for (session, platform) in [(world.vault(), Some("0")), (world.hsm(), None)] {
        session.create("k", json!({"kty": "RSA"}));
        let shown = |version: &str| {
            session.version.replace(version.into());
            session.get("/keys/k").ok()["attributes"].clone()
        };
        let newest = shown("2025-07-01");
        assert_eq!(newest["key_size"], 2048);
        assert_eq!(newest.get("hsmPlatform").and_then(Value::as_str), platform);
        assert_eq!(newest["exportable"], false);
        let middle = shown("7.4");
        assert!(middle.get("key_size").is_none() && middle.get("hsmPlatform").is_none());
        assert_eq!(middle["recoverableDays"], 7);
        let old = shown("7.2");
        assert_eq!(old.get("exportable").is_none(), !session.is_hsm());
        session.version.replace("7.7".into());
        session.get("/keys/k").refused(400, "BadParameter");
        let url = format!("{}/keys/k", session.url);
        session.send("GET", &url, None).refused(400, "BadParameter");
    }
    let vault = world.vault();
    vault.version.replace("7.0".into());
    assert!(vault.get("/keys/k").ok()["attributes"].get("recoverableDays").is_none());
    // A Managed HSM shows everything to everybody.
    let hsm = world.hsm();
    hsm.version.replace("7.0".into());
    let shown = hsm.get("/keys/k").ok();
    assert_eq!(
        (&shown["attributes"]["exportable"], &shown["attributes"]["recoverableDays"]),
        (&json!(false), &json!(7))
    );
}

#[test]
fn imported_keys_show_what_was_sent() {
    each(|session| {
        let pair = Rsa::generate(2048).expect("RSA");
        let number = |number: Option<&openssl::bn::BigNumRef>| {
            json!(encode(&number.expect("number").to_vec()))
        };
        let mut with_sign = vec![0];
        with_sign.extend(pair.n().to_vec());
        let key = json!({
            "kty": "RSA", "n": encode(&with_sign), "e": number(Some(pair.e())),
            "d": number(Some(pair.d())), "p": number(pair.p()), "q": number(pair.q()),
            "dp": number(pair.dmp1()), "dq": number(pair.dmq1()), "qi": number(pair.iqmp()),
        });
        let answer = session.call("PUT", "/keys/rsa", Some(json!({"key": key}))).ok();
        assert_eq!(decode(&answer["key"]["n"]).len(), 257);
        assert!(answer["key"].get("d").is_none());

        let group = EcGroup::from_curve_name(Nid::SECP256K1).expect("curve");
        let pair = EcKey::generate(&group).expect("EC");
        let (mut x, mut y) = (BigNum::new().expect("x"), BigNum::new().expect("y"));
        let mut ctx = openssl::bn::BigNumContext::new().expect("ctx");
        pair.public_key().affine_coordinates(&group, &mut x, &mut y, &mut ctx).expect("point");
        let key = json!({
            "kty": "EC", "crv": "P-256K", "x": number(Some(&x)), "y": number(Some(&y)),
            "d": number(Some(pair.private_key())),
        });
        let body = json!({"key": key, "Hsm": true});
        let answer = session.call("PUT", "/keys/ec", Some(body)).ok();
        assert_eq!(answer["key"]["kty"], "EC-HSM");
        assert_eq!(answer["key"]["x"], key["x"]);

        let wrong =
            json!({"kty": "EC", "crv": "P-256K", "x": key["x"], "y": key["x"], "d": key["d"]});
        for key in [json!({}), json!({"kty": "RSA"}), json!({"kty": "EC", "crv": "P-1"}), wrong] {
            session
                .call("PUT", "/keys/bad", Some(json!({"key": key})))
                .refused(400, "BadParameter");
        }
    });
    let world = world();
    let hsm = world.hsm();
    let key = json!({"kty": "oct", "k": encode(&[7; 32])});
    let answer = hsm.call("PUT", "/keys/aes", Some(json!({"key": key}))).ok();
    assert_eq!(answer["key"]["kty"], "oct-HSM");
    assert!(answer["key"].get("k").is_none());
}

#[test]
fn an_update_changes_what_it_names() {
    each(|session| {
        session.create("u", json!({"kty": "RSA", "tags": {"a": "1"}}));
        let body = json!({"attributes": {"enabled": false, "exp": 4_000_000_000_i64}});
        let changed = session.call("PATCH", "/keys/u/", Some(body)).ok();
        assert_eq!(changed["attributes"]["enabled"], false);
        assert_eq!(changed["attributes"]["exp"], 4_000_000_000_i64);
        assert_eq!(changed["tags"], json!({"a": "1"}));
        let body = json!({"key_ops": ["sign"], "tags": {"b": "2"}});
        let changed = session.call("PATCH", "/keys/u", Some(body)).ok();
        assert_eq!(changed["key"]["key_ops"], json!(["sign"]));
        assert_eq!(changed["tags"], json!({"b": "2"}));
        assert_eq!(changed["attributes"]["enabled"], false);
        session.call("PATCH", "/keys/none", Some(json!({}))).refused(404, "KeyNotFound");
        session.call("PATCH", "/keys/u", Some(json!({"kty": "EC"}))).refused(400, "BadParameter");
        // Clients without PATCH may say so in a header.
        let url = format!("{}/keys/u?api-version=7.4", session.url);
        let answer = session
            .world
            .http
            .post(url)
            .bearer_auth(session.token.borrow())
            .header("x-http-method", "PATCH")
            .json(&json!({"attributes": {"enabled": true}}))
            .send()
            .expect("send");
        assert_eq!(crate::support::Answer::read(answer).ok()["attributes"]["enabled"], true);
    });
}

#[test]
fn unknown_paths_methods_and_actions_are_refused() {
    let world = world();
    let (vault, hsm) = (world.vault(), world.hsm());
    vault.post("/keys/x/melt", json!({})).refused(405, "MethodNotAllowed");
    hsm.post("/keys/x/melt", json!({})).refused(400, "NotSupported");
    assert!(
        hsm.post("/keys/x/melt", json!({}))
            .message()
            .starts_with("action 'melt' not supported (Activity ID: ")
    );
    vault.get("/nonsense").refused(404, "NotFound");
    hsm.get("/certificates").refused(404, "NotFound");
    vault.call("PUT", "/keys", Some(json!({}))).refused(405, "MethodNotAllowed");
}
