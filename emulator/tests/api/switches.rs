//! What is unknown of the services is a switch: each is documented and does what it says.

use akv_emulator::config::{Config, Switches};
use serde_json::{Value, json};

use crate::support::{Session, World, encode, operation, world_with};

fn with(change: impl FnOnce(&mut Switches)) -> World {
    let mut switches = Switches::default();
    change(&mut switches);
    world_with(Config { switches, ..Config::default() }, Vec::new())
}

/// The rows of the table of switches: names, default, meaning.
fn documented() -> Vec<(Vec<String>, String, String)> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/emulator.md");
    let text = std::fs::read_to_string(file).expect("docs/emulator.md");
    let table = text.split_once("| switch | default | meaning |").expect("table").1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').splitn(3, '|').map(str::trim).collect();
        let names = cells[0].split(", ").map(|name| name.trim_matches('`').to_owned());
        (names.collect(), cells[1].to_owned(), cells[2].to_owned())
    })
    .collect()
}

#[test]
fn every_switch_is_documented_with_its_default() {
    let Value::Object(mut switches) = serde_json::to_value(Switches::default()).expect("JSON")
    else {
        panic!("switches are an object");
    };
    for (names, default, meaning) in documented() {
        assert!(!meaning.is_empty());
        let defaults: Vec<&str> = default.split(", ").collect();
        for (at, name) in names.iter().enumerate() {
            let value = switches.remove(name).unwrap_or_else(|| panic!("'{name}' is no switch"));
            let told = defaults.get(at).or(defaults.last()).expect("default").trim_matches('`');
            let value = if value.is_null() { "none".to_owned() } else { value.to_string() };
            assert_eq!(told, value, "default of '{name}'");
        }
    }
    assert!(switches.is_empty(), "undocumented: {switches:?}");
}

/// Open points 1 and 7.
#[test]
fn aes_payloads_and_callers_ivs_are_as_switched() {
    let aes = |hsm: &Session<'_>, value: &[u8], iv: Option<&str>| {
        hsm.create("aes", json!({"kty": "oct"}));
        let mut body = operation("A256GCM", value);
        if let Some(iv) = iv {
            body["iv"] = json!(iv);
        }
        hsm.post("/keys/aes/encrypt", body)
    };
    let iv = encode(&[7; 12]);
    let world = with(|_| {});
    aes(&world.hsm(), b"x", Some(&iv)).refused(400, "BadParameter");
    aes(&world.hsm(), &[1; 100_000], None).ok();
    let world = with(|switches| {
        switches.gcm_caller_iv_refused = false;
        switches.max_aes_payload = 4_096;
    });
    let hsm = world.hsm();
    let made = aes(&hsm, b"x", Some(&iv)).ok();
    assert_ne!(made["iv"], iv, "a caller's IV is ignored, never used");
    aes(&hsm, &[1; 4_096], None).ok();
    aes(&hsm, &[1; 4_097], None).refused(400, "BadParameter");
    // It is no limit of RSA.
    hsm.create("rsa", json!({"kty": "RSA"}));
    hsm.post("/keys/rsa/encrypt", operation("RSA-OAEP", &[1; 32])).ok();
}

/// Open point 3; open point 2 is tested with the algorithms.
#[test]
fn rsnull_is_there_and_bounded_as_switched() {
    let world = with(|switches| {
        switches.vault_rsnull = false;
        switches.rsnull_margin = 100;
    });
    let (vault, hsm) = (world.vault(), world.hsm());
    for session in [&vault, &hsm] {
        session.create("rsa", json!({"kty": "RSA"}));
    }
    vault.post("/keys/rsa/sign", operation("RSNULL", &[1; 36])).refused(400, "BadParameter");
    hsm.post("/keys/rsa/sign", operation("RSNULL", &[1; 156])).ok();
    hsm.post("/keys/rsa/sign", operation("RSNULL", &[1; 157])).refused(400, "BadParameter");
    let world = with(|switches| switches.hsm_rsnull = false);
    let (vault, hsm) = (world.vault(), world.hsm());
    for (session, status) in [(&vault, 200), (&hsm, 400)] {
        session.create("rsa", json!({"kty": "RSA"}));
        let answer = session.post("/keys/rsa/sign", operation("RSNULL", &[1; 245]));
        assert_eq!(answer.status, status, "{}", answer.text);
    }
    // PKCS#1 has no room for more, whatever a switch says.
    let world = with(|switches| switches.rsnull_margin = 0);
    let vault = world.vault();
    vault.create("rsa", json!({"kty": "RSA"}));
    vault.post("/keys/rsa/sign", operation("RSNULL", &[1; 246])).refused(400, "BadParameter");
}

/// Open points 4 and 5.
#[test]
fn inner_codes_are_named_as_switched() {
    for (hsm_codes, time_codes) in [(false, true), (true, true), (true, false), (false, false)] {
        let world = with(|switches| {
            switches.hsm_inner_codes = hsm_codes;
            switches.time_inner_codes = time_codes;
        });
        for (session, named) in [(world.vault(), true), (world.hsm(), hsm_codes)] {
            let refusal = |name: &str, body: Value| {
                session.create(name, body);
                let digest = operation("ES256", &[1; 32]);
                let answer = session.post(&format!("/keys/{name}/sign"), digest);
                answer.refused(403, "Forbidden");
                answer.json["error"]["innererror"]["code"].as_str().map(str::to_owned)
            };
            let some = |name: &str, known: bool| Some(name.to_owned()).filter(|_| known && named);
            let disabled = json!({"kty": "EC", "attributes": {"enabled": false}});
            assert_eq!(refusal("d", disabled), some("KeyDisabled", true));
            let verify = json!({"kty": "EC", "key_ops": ["verify"]});
            assert_eq!(refusal("v", verify), some("KeyOperationForbidden", true));
            let expired = json!({"kty": "EC", "attributes": {"exp": 1}});
            assert_eq!(refusal("e", expired), some("KeyExpired", time_codes));
            let early = json!({"kty": "EC", "attributes": {"nbf": 4_000_000_000_i64}});
            assert_eq!(refusal("n", early), some("KeyNotYetValid", time_codes));
        }
    }
}

/// Open point 8, both services.
#[test]
fn a_disabled_key_works_in_public_as_switched() {
    for switched in [false, true] {
        let world = with(|switches| switches.disabled_key_public_operations = switched);
        for session in [world.vault(), world.hsm()] {
            session.create("k", json!({"kty": "RSA"}));
            let signature = session.post("/keys/k/sign", operation("RS256", &[1; 32])).ok();
            let body = json!({"attributes": {"enabled": false}});
            session.call("PATCH", "/keys/k", Some(body)).ok();
            let verify = json!({
                "alg": "RS256", "digest": encode(&[1; 32]), "value": signature["value"],
            });
            let expected = if switched { 200 } else { 403 };
            for (path, body) in [
                ("verify", verify),
                ("encrypt", operation("RSA-OAEP", &[1; 32])),
                ("wrapkey", operation("RSA-OAEP", &[1; 32])),
            ] {
                let answer = session.post(&format!("/keys/k/{path}"), body);
                assert_eq!(answer.status, expected, "{path}: {}", answer.text);
            }
            for (path, alg) in [("sign", "RS256"), ("decrypt", "RSA-OAEP"), ("unwrapkey", "RSA1_5")]
            {
                let answer = session.post(&format!("/keys/k/{path}"), operation(alg, &[1; 32]));
                answer.refused(403, "Forbidden");
            }
        }
    }
}

/// Open point 4: the code itself.
#[test]
fn an_hsm_refuses_a_use_with_the_code_as_switched() {
    let world = with(|switches| switches.hsm_refusal_code = "AccessDenied".to_owned());
    for (session, code) in [(world.vault(), "Forbidden"), (world.hsm(), "AccessDenied")] {
        session.create("d", json!({"kty": "EC", "attributes": {"enabled": false}}));
        session.create("v", json!({"kty": "EC", "key_ops": ["verify"]}));
        for name in ["d", "v"] {
            let answer = session.post(&format!("/keys/{name}/sign"), operation("ES256", &[1; 32]));
            answer.refused(403, code);
        }
    }
}

#[test]
fn a_vault_has_oct_keys_as_switched() {
    let world = with(|switches| switches.vault_oct_keys = true);
    let vault = world.vault();
    let key = vault.create("aes", json!({"kty": "oct-HSM", "key_size": 128}));
    assert_eq!(key["kty"], "oct-HSM");
    vault.post("/keys/aes/encrypt", operation("A128GCM", b"x")).ok();
}
