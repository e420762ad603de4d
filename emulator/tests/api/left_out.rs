//! What the emulator leaves out answers "not supported", to whoever may ask.

use akv_emulator::config::{ClientConfig, Config};
use serde_json::json;

use crate::support::{Session, world_with};

/// Service, method, path, name in the counters, what the refusal names, what a stranger lacks.
const LEFT_OUT: &[(bool, &str, &str, &str, &str, &str)] = &[
    (true, "GET", "/settings", "settings", "settings", "settings/read/action"),
    (true, "GET", "/settings/Name", "settings", "settings", "settings/read/action"),
    (true, "PATCH", "/settings/Name", "settings", "settings", "settings/write/action"),
    (
        true,
        "GET",
        "//providers/Microsoft.Authorization/roleDefinitions",
        "roleDefinitions",
        "roleDefinitions",
        "roleDefinitions/read/action",
    ),
    (
        true,
        "PUT",
        "/keys/k/providers/Microsoft.Authorization/roleAssignments/1",
        "roleAssignments",
        "roleAssignments",
        "roleAssignments/write/action",
    ),
    (
        true,
        "DELETE",
        "/keys/providers/Microsoft.Authorization/roleAssignments/1",
        "roleAssignments",
        "roleAssignments",
        "roleAssignments/delete/action",
    ),
    (
        true,
        "POST",
        "/securitydomain/download",
        "securitydomain/download",
        "download",
        "securitydomain/download/action",
    ),
    (
        true,
        "GET",
        "/securitydomain/upload/pending",
        "securitydomain/upload",
        "upload",
        "securitydomain/upload/read",
    ),
    (true, "POST", "/backup", "backup", "backup", "backup/start/action"),
    (true, "GET", "/restore/1/pending", "restore", "restore", "restore/status/action"),
    (true, "PUT", "/keys/k/restore", "keys/selective/restore", "restore", "restore/start/action"),
    (false, "GET", "/certificates/contacts", "certificates/contacts", "contacts", "managecontacts"),
    (false, "PUT", "/certificates/issuers/i", "certificates/issuers", "issuers", "setissuers"),
    (false, "GET", "/storage/account", "storage", "storage", "get"),
    (false, "GET", "/deletedstorage", "deletedstorage", "deletedstorage", "get"),
];

fn session(world: &crate::support::World, hsm: bool) -> Session<'_> {
    if hsm { world.hsm() } else { world.vault() }
}

#[test]
fn what_is_left_out_is_not_supported() {
    let stranger = ClientConfig {
        id: "stranger".into(),
        secret: "secret".into(),
        keys: Some(vec!["sign".into()]),
        certificates: Some(Vec::new()),
        ..ClientConfig::default()
    };
    let world = world_with(Config { client: vec![stranger], ..Config::default() }, Vec::new());
    for (hsm, method, path, counter, action, permission) in LEFT_OUT {
        let session = session(&world, *hsm);
        world.reset_counters();
        let body = (*method != "GET").then(|| json!({}));
        let answer = session.call(method, path, body.clone());
        answer.refused(400, "NotSupported");
        let words = format!("action '{action}' not supported");
        let end = answer.message().strip_prefix(&words).expect(path);
        assert_eq!(end.starts_with(" (Activity ID: "), *hsm, "{path}: {end}");
        let label = if *hsm { "managed-hsm:hsm" } else { "vault:kv" };
        assert_eq!(world.counters()[label][counter], 1, "{path}");

        let scope = &world.ready().services[usize::from(*hsm)].scope;
        session.token.replace(world.token_of("stranger", "secret", scope));
        let answer = session.call(method, path, body);
        answer.refused(403, if *hsm { "AccessDenied" } else { "Forbidden" });
        let lacks = if *hsm {
            format!("managedHsm/{permission} on /")
        } else {
            format!(" {permission} permission ")
        };
        assert!(answer.message().contains(&lacks), "{}", answer.text);
        session.token.replace(String::new());
        assert_eq!(session.call(method, path, None).status, 401);
    }
}

#[test]
fn a_certificate_of_an_issuer_is_not_supported() {
    let world = crate::support::world();
    let policy = json!({"x509_props": {"subject": "CN=c"}, "issuer": {"name": "Contoso"}});
    let answer = world.vault().post("/certificates/c/create", json!({"policy": policy}));
    answer.refused(400, "NotSupported");
}

#[test]
fn a_key_or_certificate_may_have_the_name_of_what_is_left_out() {
    let world = crate::support::world();
    for session in [world.vault(), world.hsm()] {
        session.create("settings", json!({"kty": "EC"}));
        session.create("providers", json!({"kty": "EC"}));
        session.create("restore", json!({"kty": "EC"}));
        session.get("/keys/providers").ok();
        session.post("/keys/restore/backup", json!({})).ok();
    }
}
