//! Delete, recover, purge; enabled, nbf, exp; counters.

use akv_emulator::config::{Config, Switches};
use serde_json::json;

use crate::support::{operation, world, world_with};

#[test]
fn deletion_is_soft() {
    let world = world();
    for vault in [true, false] {
        let session = if vault { world.vault() } else { world.hsm() };
        let key = session.create("d", json!({"kty": "EC"}));
        let gone = session.call("DELETE", "/keys/d", None).ok();
        assert_eq!(gone["key"]["kid"], key["kid"]);
        assert_eq!(gone["recoveryId"], format!("{}/deletedkeys/d", session.url));
        let (at, until) = (gone["deletedDate"].as_i64(), gone["scheduledPurgeDate"].as_i64());
        assert_eq!(until.expect("date") - at.expect("date"), 7 * 86_400);
        session.get("/keys/d").refused(404, "KeyNotFound");
        session.post("/keys/d/create", json!({"kty": "EC"})).refused(409, "Conflict");
        session.call("DELETE", "/keys/d", None).refused(404, "KeyNotFound");
        assert_eq!(session.get("/deletedkeys/d").ok()["key"]["kid"], key["kid"]);
        let listed = session.get("/deletedkeys").ok();
        assert_eq!(listed["value"][0]["kid"], format!("{}/keys/d", session.url));
        let back = session.post("/deletedkeys/d/recover", json!({})).ok();
        assert_eq!(back["key"]["kid"], key["kid"]);
        assert_eq!(session.get("/keys/d").status, 200);
        session.get("/deletedkeys/d").refused(404, "KeyNotFound");
        session.call("DELETE", "/deletedkeys/d", None).refused(404, "KeyNotFound");
        session.call("DELETE", "/keys/d", None).ok();
        let purged = session.call("DELETE", "/deletedkeys/d", None);
        assert_eq!((purged.status, purged.text.as_str()), (204, ""));
        session.create("d", json!({"kty": "EC"}));
        // What nobody purges is purged when its time has come.
        session.call("DELETE", "/keys/d", None).ok();
        world.advance_clock(7 * 86_400);
        session.token.replace(if vault { world.vault() } else { world.hsm() }.token.into_inner());
        session.get("/deletedkeys/d").refused(404, "KeyNotFound");
    }
}

#[test]
fn a_vault_deletes_and_recovers_in_its_own_time() {
    let switches = Switches { deletion_delay: 10, recovery_delay: 5, ..Switches::default() };
    let world = world_with(Config { switches, ..Config::default() }, Vec::new());
    let vault = world.vault();
    vault.create("d", json!({"kty": "EC"}));
    vault.call("DELETE", "/keys/d", None).ok();
    vault.get("/keys/d").refused(404, "KeyNotFound");
    let unseen = vault.get("/deletedkeys/d");
    unseen.refused(404, "KeyNotFound");
    assert_eq!(unseen.message(), "Deleted Key not found: d");
    vault.post("/keys/d/create", json!({"kty": "EC"})).inner(409, "ObjectIsBeingDeleted");
    vault.post("/deletedkeys/d/recover", json!({})).inner(409, "ObjectIsBeingDeleted");
    world.advance_clock(10);
    vault.get("/deletedkeys/d").ok();
    vault.post("/keys/d/create", json!({"kty": "EC"})).inner(409, "ObjectIsDeletedButRecoverable");
    vault.post("/deletedkeys/d/recover", json!({})).ok();
    vault.get("/keys/d").refused(404, "KeyNotFound");
    world.advance_clock(5);
    vault.get("/keys/d").ok();
    // A Managed HSM is immediate.
    let hsm = world.hsm();
    hsm.create("d", json!({"kty": "EC"}));
    hsm.call("DELETE", "/keys/d", None).ok();
    hsm.get("/deletedkeys/d").ok();
}

#[test]
fn a_disabled_key_is_shown_but_not_used() {
    let world = world();
    for session in [world.vault(), world.hsm()] {
        session.create("k", json!({"kty": "RSA", "attributes": {"enabled": false}}));
        assert_eq!(session.get("/keys/k").ok()["attributes"]["enabled"], false);
        for (name, body) in [
            ("sign", operation("RS256", &[0; 32])),
            ("encrypt", operation("RSA-OAEP", &[0; 32])),
            ("unwrapkey", operation("RSA-OAEP", &[0; 256])),
        ] {
            let answer = session.post(&format!("/keys/k/{name}"), body);
            answer.refused(403, "Forbidden");
            if !session.is_hsm() {
                answer.inner(403, "KeyDisabled");
            }
        }
    }
    let switches = Switches { disabled_key_public_operations: true, ..Switches::default() };
    let world = world_with(Config { switches, ..Config::default() }, Vec::new());
    let vault = world.vault();
    vault.create("k", json!({"kty": "RSA", "attributes": {"enabled": false}}));
    vault.post("/keys/k/encrypt", operation("RSA-OAEP", &[0; 32])).ok();
    vault.post("/keys/k/sign", operation("RS256", &[0; 32])).inner(403, "KeyDisabled");
}

#[test]
fn outside_its_time_a_key_only_undoes() {
    let world = world();
    let vault = world.vault();
    let now = world.http.get(format!("{}/clock", world.ready().control)).send().expect("clock");
    let now = now.json::<serde_json::Value>().expect("json")["now"].as_i64().expect("now");
    let attributes = json!({"nbf": now - 100, "exp": now + 100});
    vault.create("k", json!({"kty": "RSA", "attributes": attributes}));
    let signature = vault.post("/keys/k/sign", operation("RS256", &[1; 32])).ok();
    let secret = vault.post("/keys/k/encrypt", operation("RSA-OAEP", b"x")).ok();
    world.advance_clock(100);
    vault.post("/keys/k/sign", operation("RS256", &[1; 32])).inner(403, "KeyExpired");
    vault.post("/keys/k/wrapkey", operation("RSA-OAEP", b"x")).inner(403, "KeyExpired");
    let verify = json!({
        "alg": "RS256", "digest": crate::support::encode(&[1; 32]), "value": signature["value"],
    });
    assert_eq!(vault.post("/keys/k/verify", verify).ok(), json!({"value": true}));
    let decrypt = json!({"alg": "RSA-OAEP", "value": secret["value"]});
    assert_eq!(vault.post("/keys/k/decrypt", decrypt).bytes("value"), b"x");
    world.advance_clock(-400);
    vault.post("/keys/k/sign", operation("RS256", &[1; 32])).inner(403, "KeyNotYetValid");
}

#[test]
fn counters_tell_exactly_what_happened() {
    let world = world();
    let vault = world.vault();
    vault.create("k", json!({"kty": "EC"}));
    world.reset_counters();
    for _ in 0..3 {
        vault.post("/keys/k/sign", operation("ES256", &[1; 32])).ok();
    }
    vault.get("/keys/k").ok();
    vault.get("/nonsense");
    assert_eq!(
        world.counters(),
        json!({"vault:kv": {"requests": 5, "keys/sign": 3, "keys/get": 1, "unknown": 1}})
    );
}
