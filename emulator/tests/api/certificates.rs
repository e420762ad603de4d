//! Certificates with their keys and secrets.

use akv_emulator::config::{Config, Switches};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkcs12::Pkcs12;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::{X509, X509NameBuilder, X509Req};
use serde_json::{Value, json};

use crate::support::{decode, operation, world, world_with};

fn policy(issuer: &str) -> Value {
    json!({
        "key_props": {"kty": "EC", "crv": "P-256", "exportable": true},
        "x509_props": {"subject": "CN=example, O=Somebody", "sans": {"dns_names": ["example.org"]}},
        "issuer": {"name": issuer},
    })
}

fn signed(name: &str, key: &PKey<impl openssl::pkey::HasPublic>, signer: &PKey<Private>) -> X509 {
    let mut subject = X509NameBuilder::new().expect("name");
    subject.append_entry_by_text("CN", name).expect("CN");
    let subject = subject.build();
    let mut builder = X509::builder().expect("builder");
    builder.set_version(2).expect("version");
    builder.set_subject_name(&subject).expect("subject");
    builder.set_issuer_name(&subject).expect("issuer");
    builder.set_pubkey(key).expect("key");
    builder.set_not_before(&Asn1Time::days_from_now(0).expect("time")).expect("before");
    builder.set_not_after(&Asn1Time::days_from_now(30).expect("time")).expect("after");
    builder.sign(signer, MessageDigest::sha256()).expect("sign");
    builder.build()
}

#[test]
fn a_self_signed_certificate_has_key_and_secret_of_its_version() {
    let world = world();
    let vault = world.vault();
    let body = json!({"policy": policy("Self"), "tags": {"a": "b"}});
    let begun = vault.post("/certificates/web/create", body);
    assert_eq!(begun.status, 202);
    let location = begun.headers["location"].to_str().expect("text").to_owned();
    assert!(location.contains("/certificates/web/pending?api-version=7.6&request_id="));
    assert_eq!(begun.json["status"], "inProgress");
    let csr = BASE64_STANDARD.decode(begun.json["csr"].as_str().expect("csr")).expect("base64");
    let csr = X509Req::from_der(&csr).expect("CSR");
    assert!(csr.verify(&csr.public_key().expect("key")).expect("verify"));
    assert_eq!(vault.send("GET", &location, None).ok()["status"], "completed");

    let certificate = vault.get("/certificates/web").ok();
    let der = BASE64_STANDARD.decode(certificate["cer"].as_str().expect("cer")).expect("base64");
    let leaf = X509::from_der(&der).expect("X.509");
    assert!(leaf.verify(&leaf.public_key().expect("key")).expect("verify"));
    assert_eq!(decode(&certificate["x5t"]), &*leaf.digest(MessageDigest::sha1()).expect("digest"));
    let names = leaf.subject_alt_names().expect("names");
    assert_eq!(names.get(0).and_then(|name| name.dnsname()), Some("example.org"));
    let version = certificate["id"].as_str().and_then(|id| id.rsplit('/').next()).expect("id");
    assert_eq!(certificate["kid"], format!("{}/keys/web/{version}", vault.url));
    assert_eq!(certificate["sid"], format!("{}/secrets/web/{version}", vault.url));
    assert_eq!(vault.get(&format!("/certificates/web/{version}")).ok()["id"], certificate["id"]);

    let key = vault.get(&format!("/keys/web/{version}")).ok();
    assert_eq!(key["managed"], true);
    let signature = vault.post("/keys/web/sign", operation("ES256", &[1; 32])).bytes("value");
    assert_eq!(signature.len(), 64);
    vault.call("DELETE", "/keys/web", None).refused(400, "BadParameter");

    let secret = vault.get("/secrets/web").ok();
    assert_eq!((&secret["managed"], &secret["kid"]), (&json!(true), &certificate["kid"]));
    let pfx = BASE64_STANDARD.decode(secret["value"].as_str().expect("value")).expect("base64");
    let parsed = Pkcs12::from_der(&pfx).expect("PFX").parse2("").expect("open");
    assert!(parsed.pkey.expect("key").public_eq(&leaf.public_key().expect("key")));
    assert_eq!(parsed.cert.expect("leaf").to_der().expect("DER"), der);

    let listed = vault.get("/certificates").ok();
    assert_eq!(listed["value"][0]["id"], format!("{}/certificates/web", vault.url));
    assert_eq!(listed["value"][0]["tags"], json!({"a": "b"}));
    assert_eq!(vault.get("/certificates/web/versions").ok()["value"][0]["id"], certificate["id"]);
    assert_eq!(vault.get("/certificates/web/policy").ok(), certificate["policy"]);
    vault.get("/certificates/none").refused(404, "CertificateNotFound");

    let gone = vault.call("DELETE", "/certificates/web", None).ok();
    assert_eq!(gone["recoveryId"], format!("{}/deletedcertificates/web", vault.url));
    vault.get("/keys/web").refused(404, "KeyNotFound");
    vault.get("/secrets/web").refused(404, "SecretNotFound");
    vault
        .post("/certificates/web/create", json!({"policy": policy("Self")}))
        .inner(409, "ObjectIsDeletedButRecoverable");
}

#[test]
fn a_certificate_takes_its_time_when_told() {
    let switches = Switches { certificate_delay: 10, ..Switches::default() };
    let world = world_with(Config { switches, ..Config::default() }, Vec::new());
    let vault = world.vault();
    vault.post("/certificates/slow/create", json!({"policy": policy("Self")}));
    assert_eq!(vault.get("/certificates/slow/pending").ok()["status"], "inProgress");
    vault.get("/certificates/slow").refused(404, "CertificateNotFound");
    vault.get("/keys/slow").refused(404, "KeyNotFound");
    world.advance_clock(10);
    assert_eq!(vault.get("/certificates/slow/pending").ok()["status"], "completed");
    vault.get("/certificates/slow").ok();
}

#[test]
fn a_key_that_must_stay_stays() {
    let world = world();
    let vault = world.vault();
    for (content_type, exportable) in [
        ("application/x-pkcs12", false),
        ("application/x-pem-file", false),
        ("application/x-pem-file", true),
    ] {
        let mut policy = policy("Self");
        policy["key_props"]["exportable"] = json!(exportable);
        policy["secret_props"] = json!({"contentType": content_type});
        vault.post("/certificates/c/create", json!({"policy": policy}));
        vault.get("/certificates/c").ok();
        let secret = vault.get("/secrets/c").ok();
        assert_eq!(secret["contentType"], content_type);
        let value = secret["value"].as_str().expect("value");
        if content_type == "application/x-pem-file" {
            assert!(value.contains("-----BEGIN CERTIFICATE-----"));
            assert_eq!(value.contains("PRIVATE KEY"), exportable);
        } else {
            let pfx = BASE64_STANDARD.decode(value).expect("base64");
            let parsed = Pkcs12::from_der(&pfx).expect("PFX").parse2("").expect("open");
            assert!(parsed.pkey.is_none());
        }
    }
}

#[test]
fn a_request_signed_elsewhere_is_merged() {
    let world = world();
    let vault = world.vault();
    let begun = vault.post("/certificates/m/create", json!({"policy": policy("Unknown")}));
    let csr = BASE64_STANDARD.decode(begun.json["csr"].as_str().expect("csr")).expect("base64");
    let public = X509Req::from_der(&csr).expect("CSR").public_key().expect("key");
    let issuer = PKey::from_rsa(Rsa::generate(2048).expect("RSA")).expect("key");
    let leaf = signed("m", &public, &issuer);
    let root = signed("root", &issuer, &issuer);
    let encoded = |one: &X509| BASE64_STANDARD.encode(one.to_der().expect("DER"));
    vault
        .post("/certificates/m/pending/merge", json!({"x5c": [encoded(&root)]}))
        .refused(400, "BadParameter");
    let merged = vault
        .post("/certificates/m/pending/merge", json!({"x5c": [encoded(&leaf), encoded(&root)]}));
    assert_eq!(merged.status, 201, "{}", merged.text);
    assert_eq!(merged.json["cer"], encoded(&leaf));
    let pfx = vault.get("/secrets/m").ok();
    let pfx = BASE64_STANDARD.decode(pfx["value"].as_str().expect("value")).expect("base64");
    let parsed = Pkcs12::from_der(&pfx).expect("PFX").parse2("").expect("open");
    assert_eq!(parsed.ca.expect("chain").len(), 1);
    vault
        .post("/certificates/m/pending/merge", json!({"x5c": [encoded(&leaf)]}))
        .refused(404, "PendingCertificateNotFound");
}

#[test]
fn pfx_and_pem_are_imported() {
    let world = world();
    let vault = world.vault();
    let key = PKey::from_rsa(Rsa::generate(2048).expect("RSA")).expect("key");
    let leaf = signed("imported", &key, &key);
    let pfx = Pkcs12::builder().pkey(&key).cert(&leaf).build2("pass").expect("PFX");
    let pfx = BASE64_STANDARD.encode(pfx.to_der().expect("DER"));
    let answer = vault.post("/certificates/a/import", json!({"value": pfx, "pwd": "pass"})).ok();
    let cer = BASE64_STANDARD.encode(leaf.to_der().expect("DER"));
    assert_eq!(answer["cer"], cer);
    assert_eq!(answer["policy"]["issuer"]["name"], "Unknown");
    assert_eq!(answer["policy"]["x509_props"]["subject"], "CN=imported");
    vault
        .post("/certificates/b/import", json!({"value": pfx, "pwd": "wrong"}))
        .refused(400, "BadParameter");
    let pem = [key.private_key_to_pem_pkcs8().expect("PEM"), leaf.to_pem().expect("PEM")].concat();
    let pem = String::from_utf8(pem).expect("text");
    let answer = vault.post("/certificates/c/import", json!({"value": pem})).ok();
    assert_eq!(answer["cer"], cer);
    assert_eq!(vault.get("/secrets/c").ok()["contentType"], "application/x-pem-file");
    let signature = vault.post("/keys/c/sign", operation("RS256", &[1; 32])).bytes("value");
    assert_eq!(signature.len(), 256);
    // As the SDK for Python sends it.
    let twice = json!({"value": BASE64_STANDARD.encode(&pem)});
    assert_eq!(vault.post("/certificates/e/import", twice).ok()["cer"], cer);
    for (value, kind) in [
        ("AAAA", "valid PKCS#12 format."),
        ("no base64!", "valid PKCS#12 format."),
        (
            pem.trim_end_matches(char::is_alphanumeric).split_at(900).0,
            "Base64 encoded PEM content.",
        ),
    ] {
        let refused = vault.post("/certificates/d/import", json!({"value": value}));
        refused.refused(400, "BadParameter");
        assert!(refused.message().trim_end().ends_with(kind), "{}", refused.message());
    }
}

#[test]
fn what_a_policy_cannot_be_is_refused() {
    let world = world();
    let vault = world.vault();
    for (pointer, value) in [
        ("/issuer/name", json!("")),
        ("/x509_props/subject", json!("nonsense")),
        ("/key_props/kty", json!("oct")),
        ("/key_props/crv", json!("P-1")),
        ("/key_props/colour", json!("red")),
    ] {
        let mut policy = policy("Self");
        let (parent, member) = pointer.rsplit_once('/').expect("pointer");
        policy.pointer_mut(parent).expect("parent")[member] = value;
        let answer = vault.post("/certificates/x/create", json!({"policy": policy}));
        assert_eq!(answer.status, 400, "{pointer}: {}", answer.text);
    }
    vault.create("taken", json!({"kty": "EC"}));
    vault
        .post("/certificates/taken/create", json!({"policy": policy("Self")}))
        .refused(409, "Conflict");
}

#[test]
fn secrets_are_kept_and_hidden_when_disabled() {
    let world = world();
    let vault = world.vault();
    let set = |body: Value| vault.call("PUT", "/secrets/s", Some(body));
    let first = set(json!({"value": "one", "contentType": "text/plain"})).ok();
    assert_eq!((&first["value"], &first["contentType"]), (&json!("one"), &json!("text/plain")));
    set(json!({"value": "two", "tags": {"a": "b"}})).ok();
    assert_eq!(vault.get("/secrets/s").ok()["value"], "two");
    let listed = vault.get("/secrets").ok();
    assert!(listed["value"][0].get("value").is_none());
    assert_eq!(vault.get("/secrets/s/versions").ok()["value"].as_array().map(Vec::len), Some(2));
    let changed =
        vault.call("PATCH", "/secrets/s", Some(json!({"attributes": {"enabled": false}})));
    assert!(changed.ok().get("value").is_none());
    vault.get("/secrets/s").inner(403, "SecretDisabled");
    set(json!({})).refused(400, "BadParameter");
    vault.call("DELETE", "/secrets/s", None).ok();
    set(json!({"value": "x"})).inner(409, "ObjectIsDeletedButRecoverable");
}
