//! What each version of the contract has, and the ones before have not.

use akv_wire::ApiVersion;
use serde_json::{Value, json};

use crate::support::{Session, encode, operation, world};

/// Whether the service shows or does it, asked with the session's version.
type Probe = fn(&Session<'_>) -> bool;

/// What the contract says: the feature, the first version with it on a vault and on a Managed HSM
/// (none where it never is; the oldest where it always is), and how to see it.
const FEATURES: &[(&str, Option<&str>, Option<&str>, Probe)] = &[
    ("recoverableDays", Some("7.1-preview"), Some("7.0"), |s| has_attribute(s, "recoverableDays")),
    ("oct keys", None, Some("7.2-preview"), |s| {
        s.post("/keys/o/create", json!({"kty": "oct"})).status == 200
    }),
    ("imported oct keys", None, Some("7.2-preview"), |s| {
        let key = json!({"kty": "oct", "k": encode(&[1; 16])});
        s.call("PUT", "/keys/o", Some(json!({"key": key}))).status == 200
    }),
    ("AES", None, Some("7.2-preview"), |s| {
        s.post("/keys/aes/encrypt", operation("A256GCM", b"x")).status == 200
    }),
    ("AES key wrap", None, Some("7.2-preview"), |s| {
        s.post("/keys/aes/wrapkey", operation("A256KW", &[1; 16])).status == 200
    }),
    ("rotate", Some("7.3"), Some("7.3"), |s| s.post("/keys/r/rotate", json!({})).status == 200),
    ("rotation policy", Some("7.3"), Some("7.3"), |s| {
        s.get("/keys/r/rotationpolicy").status == 200
    }),
    ("release", Some("7.3"), Some("7.3"), |s| {
        // That the key cannot be released is another refusal.
        s.post("/keys/r/release", json!({"target": "x"})).status == 403
    }),
    ("release policies", Some("7.3"), Some("7.3"), |s| {
        let policy = json!({"version": "1.0.0", "anyOf": [{
            "authority": "https://a.example", "allOf": [{"claim": "a", "equals": "b"}],
        }]});
        let policy = json!({"data": encode(policy.to_string().as_bytes())});
        let attributes = json!({"exportable": true});
        let body = json!({"kty": "EC", "attributes": attributes, "release_policy": policy});
        s.post("/keys/e/create", body).status == 200
    }),
    ("exportable in a request", Some("7.3"), Some("7.3"), |s| {
        let body = json!({"attributes": {"exportable": false}});
        s.call("PATCH", "/keys/r", Some(body)).status == 200
    }),
    ("exportable", Some("7.3"), Some("7.0"), |s| has_attribute(s, "exportable")),
    ("random bytes", None, Some("7.3-preview"), |s| {
        s.post("/rng", json!({"count": 4})).status == 200
    }),
    ("hsmPlatform", Some("7.5-preview.1"), None, |s| has_attribute(s, "hsmPlatform")),
    ("attestation", Some("7.6-preview.1"), Some("7.6-preview.1"), |s| {
        s.get("/keys/hard/attestation").ok_or_missing()["attributes"]["attestation"].is_object()
    }),
    ("HMAC", None, Some("7.6-preview.1"), |s| {
        s.post("/keys/aes/sign", operation("HS256", &[1; 32])).status == 200
    }),
    ("padded key wrap", None, Some("7.6-preview.1"), |s| {
        s.post("/keys/aes/wrapkey", operation("CKM_AES_KEY_WRAP_PAD", &[1; 16])).status == 200
    }),
    ("key_size", Some("2025-06-01-preview"), Some("2025-06-01-preview"), |s| {
        has_attribute(s, "key_size")
    }),
    ("sign", Some("7.0"), Some("7.0"), |s| {
        s.post("/keys/r/sign", operation("PS256", &[1; 32])).status == 200
    }),
    ("ECDSA on P-256K", Some("7.0"), Some("7.0"), |s| {
        s.post("/keys/k1/sign", operation("ES256K", &[1; 32])).status == 200
    }),
    ("deleted keys", Some("7.0"), Some("7.0"), |s| s.get("/deletedkeys").status == 200),
];

fn has_attribute(session: &Session<'_>, name: &str) -> bool {
    let one = session.get("/keys/r").ok()["attributes"].get(name).is_some();
    let listed = session.get("/keys").ok()["value"]
        .as_array()
        .expect("list")
        .iter()
        .filter(|item| item["kid"].as_str().is_some_and(|kid| kid.ends_with("/keys/r")))
        .any(|item| item["attributes"].get(name).is_some());
    assert_eq!(one, listed, "{name} is shown by GET and listing alike");
    one
}

#[test]
fn features_begin_with_their_version() {
    let world = world();
    let rank = |name: &str| ApiVersion::all().position(|version| version.as_str() == name);
    for (session, hsm) in [(world.vault(), false), (world.hsm(), true)] {
        session.create("r", json!({"kty": "RSA"}));
        session.create("hard", json!({"kty": "EC-HSM"}));
        session.create("k1", json!({"kty": "EC", "crv": "P-256K"}));
        if hsm {
            session.create("aes", json!({"kty": "oct"}));
        }
        let versions = ApiVersion::all().filter(|version| rank(version.as_str()) >= rank("7.0"));
        for version in versions {
            session.version.replace(version.as_str().into());
            for (feature, vault_since, hsm_since, probe) in FEATURES {
                let since = if hsm { hsm_since } else { vault_since };
                let expected = since.is_some_and(|since| rank(version.as_str()) >= rank(since));
                assert_eq!(probe(&session), expected, "{feature} in {version}, HSM: {hsm}");
            }
        }
    }
}

#[test]
fn an_unknown_version_and_none_are_refused_in_the_dialect() {
    let world = world();
    for session in [world.vault(), world.hsm()] {
        for unknown in ["7.7", "2025-07-02", "1.0", "latest", "7.4.1"] {
            session.version.replace(unknown.into());
            let answer = session.get("/keys");
            answer.refused(400, "BadParameter");
            assert!(answer.message().contains(unknown), "{}", answer.text);
        }
        let answer = session.send("GET", &format!("{}/keys", session.url), None);
        answer.refused(400, "BadParameter");
        assert!(answer.message().starts_with("api-version must be specified"));
    }
}

trait OrMissing {
    fn ok_or_missing(self) -> Value;
}

impl OrMissing for crate::support::Answer {
    /// What was found; nothing for 404.
    fn ok_or_missing(self) -> Value {
        if self.status == 404 { Value::Null } else { self.ok() }
    }
}
