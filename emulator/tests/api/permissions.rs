//! Who may do what, and how the refusals read.

use akv_emulator::config::{ClientConfig, Config, DeniedBy, PermissionModel, Switches};
use serde_json::json;

use crate::support::{Session, World, operation, world_with};

fn config(switches: Switches) -> Config {
    let signer = ClientConfig {
        id: "signer".into(),
        secret: "secret".into(),
        keys: Some(vec!["sign".into()]),
        secrets: Some(Vec::new()),
        certificates: Some(Vec::new()),
        names: Some(vec!["mine".into()]),
        ..ClientConfig::default()
    };
    Config { client: vec![signer], switches, ..Config::default() }
}

fn as_signer(world: &World, session: &Session<'_>, at: usize) {
    let scope = &world.ready().services[at].scope;
    session.token.replace(world.token_of("signer", "secret", scope));
}

#[test]
fn a_client_with_sign_only_signs_only() {
    let rbac = Switches { permission_model: PermissionModel::Rbac, ..Switches::default() };
    for (switches, inner) in [(Switches::default(), "ForbiddenByPolicy"), (rbac, "ForbiddenByRbac")]
    {
        let world = world_with(config(switches), Vec::new());
        let vault = world.vault();
        vault.create("mine", json!({"kty": "EC"}));
        as_signer(&world, &vault, 0);
        vault.post("/keys/mine/sign", operation("ES256", &[1; 32])).ok();
        for path in ["/keys", "/keys/mine", "/secrets", "/certificates", "/deletedkeys"] {
            vault.get(path).inner(403, inner);
        }
        let words = vault.get("/keys/mine").message().to_owned();
        if inner == "ForbiddenByPolicy" {
            assert!(words.starts_with("The user, group or application 'appid=signer;oid="));
            assert!(words.contains("does not have keys get permission on key vault 'kv;location="));
        } else {
            assert!(words.contains("Action: 'Microsoft.KeyVault/vaults/keys/read'"), "{words}");
            assert!(words.contains("/vaults/kv/keys/mine'"), "{words}");
        }
    }
}

#[test]
fn a_managed_hsm_grants_key_by_key() {
    let world = world_with(config(Switches::default()), Vec::new());
    let hsm = world.hsm();
    hsm.create("mine", json!({"kty": "EC"}));
    hsm.create("yours", json!({"kty": "EC"}));
    as_signer(&world, &hsm, 1);
    hsm.post("/keys/mine/sign", operation("ES256", &[1; 32])).ok();
    let denied = hsm.post("/keys/yours/sign", operation("ES256", &[1; 32]));
    denied.refused(403, "AccessDenied");
    assert!(denied.message().starts_with(
        "Not authorized to access Microsoft.KeyVault/managedHsm/keys/sign/action on /keys/yours \
         (Activity ID: "
    ));
    let denied = hsm.get("/keys");
    assert!(denied.message().starts_with(
        "Not authorized to access Microsoft.KeyVault/managedHsm/keys/read/action on /keys "
    ));
}

#[test]
fn a_vault_behind_a_firewall_says_so() {
    for (by, inner) in [
        (DeniedBy::Firewall, "ForbiddenByFirewall"),
        (DeniedBy::Connection, "ForbiddenByConnection"),
    ] {
        let switches = Switches { denied_by: Some(by), ..Switches::default() };
        let world = world_with(config(switches), Vec::new());
        world.vault().get("/keys").inner(403, inner);
    }
}
