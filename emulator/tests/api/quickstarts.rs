//! The keys of Microsoft's quickstarts for Terraform, PowerShell, Bicep and ARM templates, by the
//! requests with which those tools make them.

use akv_emulator::config::{ClientConfig, Config};
use serde_json::{Value, json};

use crate::support::{decode, operation, world, world_with};

const OPS: [&str; 6] = ["decrypt", "encrypt", "sign", "unwrapKey", "verify", "wrapKey"];

/// `azurerm_key_vault_key` of the quickstart, with the permissions it gives itself: the provider
/// looks first, makes the key, sets the policy, reads both; and purges what it destroys.
#[test]
fn terraform() {
    let permissions = [
        "List",
        "Create",
        "Delete",
        "Get",
        "Purge",
        "Recover",
        "Update",
        "GetRotationPolicy",
        "SetRotationPolicy",
    ];
    let client = ClientConfig {
        id: "terraform".into(),
        secret: "s".into(),
        keys: Some(permissions.map(str::to_lowercase).into()),
        ..ClientConfig::default()
    };
    let world = world_with(Config { client: vec![client], ..Config::default() }, Vec::new());
    for session in [world.vault(), world.hsm()] {
        let scope = &world.ready().services[usize::from(session.is_hsm())].scope;
        session.token.replace(world.token_of("terraform", "s", scope));
        session.version.replace("7.4".into());
        session.get("/keys/key-abc/").refused(404, "KeyNotFound");
        let definition = json!({
            "kty": "RSA", "key_ops": OPS, "attributes": {"enabled": true}, "tags": {},
            "key_size": 2048,
        });
        let made = session.post("/keys/key-abc/create", definition.clone()).ok();
        let policy = json!({
            "lifetimeActions": [
                {"trigger": {"timeBeforeExpiry": "P29D"}, "action": {"type": "Notify"}},
                {"trigger": {"timeBeforeExpiry": "P30D"}, "action": {"type": "Rotate"}},
            ],
            "attributes": {"expiryTime": "P90D"},
        });
        session.call("PUT", "/keys/key-abc/rotationpolicy", Some(policy)).ok();

        let read = session.get("/keys/key-abc/").ok();
        assert_eq!(read["key"]["kid"], made["key"]["kid"]);
        assert_eq!(decode(&read["key"]["n"]).len() * 8, 2048);
        let mut ops: Vec<_> = read["key"]["key_ops"].as_array().expect("key_ops").clone();
        ops.sort_by_key(Value::to_string);
        assert_eq!(ops, OPS);
        let policy = session.get("/keys/key-abc/rotationpolicy").ok();
        assert_eq!(policy["attributes"]["expiryTime"], "P90D");
        for (action, when) in [("notify", "P29D"), ("rotate", "P30D")] {
            let actions = policy["lifetimeActions"].as_array().expect("actions");
            let found = actions.iter().find(|one| {
                let name = one["action"]["type"].as_str().unwrap_or_default();
                name.eq_ignore_ascii_case(action)
            });
            assert_eq!(found.expect(action)["trigger"]["timeBeforeExpiry"], when);
        }
        let update = json!({"key_ops": OPS, "attributes": {"enabled": true}, "tags": {"a": "b"}});
        let updated = session.call("PATCH", "/keys/key-abc/", Some(update)).ok();
        assert_eq!(updated["tags"], json!({"a": "b"}));
        // Nothing that was not permitted.
        let code = if session.is_hsm() { "AccessDenied" } else { "Forbidden" };
        session.post("/keys/key-abc/sign", operation("RS256", &[1; 32])).refused(403, code);

        // What was deleted and not purged is recovered instead of made.
        session.call("DELETE", "/keys/key-abc", None).ok();
        session.get("/keys/key-abc/").refused(404, "KeyNotFound");
        session.post("/keys/key-abc/create", definition).refused(409, "Conflict");
        let recovered = session.post("/deletedkeys/key-abc/recover", json!({})).ok();
        assert_eq!(recovered["key"]["kid"], made["key"]["kid"]);
        session.call("DELETE", "/keys/key-abc", None).ok();
        assert_eq!(session.call("DELETE", "/deletedkeys/key-abc", None).status, 204);
        session.get("/deletedkeys/key-abc").refused(404, "KeyNotFound");
    }
}

/// `Add-AzKeyVaultKey -Destination Software` and `Get-AzKeyVaultKey`, which use the SDK for .NET:
/// without a token at first, to be told where to get one; the empty version with its slash.
#[test]
fn powershell() {
    let world = world();
    let vault = world.vault();
    let token = vault.token.take();
    let challenged = vault.call("POST", "/keys/ExampleKey/create", None);
    assert_eq!(challenged.status, 401);
    let challenge = challenged.headers["www-authenticate"].to_str().expect("text");
    assert!(challenge.contains("resource=\"https://vault.azure.net\""), "{challenge}");
    vault.token.replace(token);
    let made = vault.create("ExampleKey", json!({"kty": "RSA", "attributes": {"enabled": true}}));
    assert_eq!((made["kty"].as_str(), decode(&made["n"]).len()), (Some("RSA"), 256));
    let got = vault.get("/keys/ExampleKey/").ok();
    assert_eq!(got["key"]["kid"], made["kid"]);
    // Names are case-insensitive.
    assert_eq!(vault.get("/keys/examplekey/").ok()["key"]["kid"], made["kid"]);
}

/// Bicep files and ARM templates go to the control plane, which is not there. What it makes of
/// their parameters in the vault is: each allowed type, no operations named, a size for RSA, a
/// curve for EC.
#[test]
fn templates() {
    let world = world();
    let vault = world.vault();
    for kty in ["RSA", "RSA-HSM"] {
        let key = vault.create("key", json!({"kty": kty, "key_ops": [], "key_size": 2048}));
        assert_eq!(key["kty"], kty);
        assert_eq!(key["key_ops"].as_array().map(Vec::len), Some(6));
    }
    for kty in ["EC", "EC-HSM"] {
        for curve in ["P-256", "P-256K", "P-384", "P-521"] {
            let key = vault.create("key", json!({"kty": kty, "key_ops": [], "crv": curve}));
            assert_eq!((&key["kty"], &key["crv"]), (&json!(kty), &json!(curve)));
            assert_eq!(key["key_ops"], json!(["sign", "verify"]));
        }
    }
}
