//! The documented limits on objects and transactions.

use akv_emulator::config::{Config, ServiceConfig, Switches};
use serde_json::json;

use crate::support::{Session, World, operation, world, world_with};

fn configured(switches: Switches) -> World {
    world_with(Config { switches, ..Config::default() }, Vec::new())
}

#[test]
fn a_managed_hsm_keeps_a_hundred_versions_of_a_key() {
    let world = world();
    let (vault, hsm) = (world.vault(), world.hsm());
    let create = |session: &Session<'_>| session.post("/keys/k/create", json!({"kty": "EC"}));
    for _ in 0..100 {
        assert_eq!(create(&hsm).status, 200);
        assert_eq!(create(&vault).status, 200);
    }
    create(&vault).ok();
    for refused in [
        create(&hsm),
        hsm.post("/keys/k/rotate", json!({})),
        hsm.call(
            "PUT",
            "/keys/k",
            Some(json!({"key": {"kty": "oct", "k": "AAAAAAAAAAAAAAAAAAAAAA"}})),
        ),
    ] {
        refused.refused(400, "BadParameter");
        assert!(refused.message().contains("versions of a key is limited to 100"));
    }
    hsm.create("another", json!({"kty": "EC"}));
    // All of them are in a backup.
    let blob = hsm.post("/keys/k/backup", json!({})).ok();
    hsm.call("DELETE", "/keys/k", None).ok();
    hsm.call("DELETE", "/deletedkeys/k", None);
    hsm.post("/keys/restore", blob).ok();
    create(&hsm).refused(400, "BadParameter");
}

#[test]
fn a_managed_hsm_is_full_some_time() {
    assert_eq!(Switches::default().hsm_keys, 5_000);
    let world = configured(Switches { hsm_keys: 3, ..Switches::default() });
    let (vault, hsm) = (world.vault(), world.hsm());
    let create = |session: &Session<'_>, name: &str| {
        session.post(&format!("/keys/{name}/create"), json!({"kty": "EC"}))
    };
    for name in ["a", "b", "c"] {
        create(&hsm, name).ok();
    }
    let blob = hsm.post("/keys/a/backup", json!({})).ok();
    let refused = create(&hsm, "d");
    refused.refused(400, "BadParameter");
    assert!(refused.message().contains("keys is limited to 3"));
    create(&hsm, "a").ok();
    // A deleted key takes its place until it is purged.
    hsm.call("DELETE", "/keys/a", None).ok();
    create(&hsm, "d").refused(400, "BadParameter");
    hsm.call("DELETE", "/deletedkeys/a", None);
    create(&hsm, "d").ok();
    hsm.post("/keys/restore", blob).refused(400, "BadParameter");
    for name in ["a", "b", "c", "d"] {
        create(&vault, name).ok();
    }
}

#[test]
fn a_backup_holds_five_hundred_versions() {
    let world = world();
    let vault = world.vault();
    let secret = || vault.call("PUT", "/secrets/s", Some(json!({"value": "x"})));
    for at in 0..501 {
        if at == 500 {
            vault.post("/keys/k/backup", json!({})).ok();
            vault.post("/secrets/s/backup", json!({})).ok();
        }
        vault.create("k", json!({"kty": "EC"}));
        secret().ok();
    }
    for path in ["/keys/k/backup", "/secrets/s/backup"] {
        let refused = vault.post(path, json!({}));
        refused.refused(400, "BadParameter");
        assert!(refused.message().contains("501 versions"), "{}", refused.text);
    }
    let world = configured(Switches { backup_versions: 1, ..Switches::default() });
    for session in [world.vault(), world.hsm()] {
        session.create("k", json!({"kty": "EC"}));
        session.post("/keys/k/backup", json!({})).ok();
        session.create("k", json!({"kty": "EC"}));
        session.post("/keys/k/backup", json!({})).refused(400, "BadParameter");
    }
    let vault = world.vault();
    let policy = json!({"x509_props": {"subject": "CN=c"}, "issuer": {"name": "Self"}});
    for status in [200, 400] {
        vault.post("/certificates/c/create", json!({"policy": policy}));
        assert_eq!(vault.post("/certificates/c/backup", json!({})).status, status);
    }
}

/// How many of at most `most` requests are answered before one is throttled.
fn until_throttled(most: usize, mut request: impl FnMut() -> crate::support::Answer) -> usize {
    for at in 0..most {
        let answer = request();
        if answer.status == 429 {
            answer.refused(429, "Throttled");
            return at;
        }
        assert!(answer.status < 300, "{}", answer.text);
    }
    most
}

/// Goes to the first second of the next window, and stays there: the machine may be slow.
fn at_the_beginning_of_a_window(world: &World) {
    let now = world.stop_clock();
    world.advance_clock(10 - now % 10);
}

#[test]
fn a_window_of_ten_seconds_holds_what_the_table_says() {
    let world = configured(Switches { throttle: true, ..Switches::default() });
    let vault = world.vault();
    at_the_beginning_of_a_window(&world);
    let secrets =
        until_throttled(400, || vault.call("PUT", "/secrets/s", Some(json!({"value": "x"}))));
    assert_eq!(secrets, 300);
    // Whatever it is: the window is full, to the last second of it.
    world.advance_clock(9);
    assert_eq!(vault.get("/keys").status, 429);
    world.advance_clock(1);
    assert_eq!(vault.get("/keys").status, 200);
    at_the_beginning_of_a_window(&world);
    assert_eq!(vault.get("/keys").status, 200);
    let name = |kty: &str| kty.to_lowercase();
    for kty in ["RSA", "RSA-HSM"] {
        vault.create(&name(kty), json!({"kty": kty, "key_size": 4096}));
    }
    // Creating an HSM key is one tenth of a window, a GET of it one of 250.
    at_the_beginning_of_a_window(&world);
    let hsm_keys = until_throttled(20, || vault.post("/keys/e/create", json!({"kty": "EC-HSM"})));
    assert_eq!(hsm_keys, 10);
    at_the_beginning_of_a_window(&world);
    assert_eq!(until_throttled(300, || vault.get("/keys/rsa-hsm")), 250);
    at_the_beginning_of_a_window(&world);
    for _ in 0..250 {
        vault.get("/keys/rsa").ok();
    }
    for _ in 0..125 {
        vault.get("/keys/rsa-hsm").ok();
    }
    vault.post("/keys/rsa-hsm/sign", operation("RS256", &[1; 32])).refused(429, "Throttled");
    // A Managed HSM does not throttle.
    let hsm = world.hsm();
    for _ in 0..25 {
        hsm.create("k", json!({"kty": "EC"}));
    }
}

#[test]
fn the_vaults_of_a_subscription_share_five_windows() {
    let vaults = (0..6).map(|at| ServiceConfig { name: format!("v{at}"), port: 0 }).collect();
    let switches = Switches { throttle: true, ..Switches::default() };
    let world = World::start(Config { vault: vaults, switches, ..Config::default() }, Vec::new());
    let sessions: Vec<_> = (0..6).map(|at| world.session(at)).collect();
    at_the_beginning_of_a_window(&world);
    for session in &sessions[..5] {
        let create = || session.post("/keys/k/create", json!({"kty": "EC-HSM"}));
        assert_eq!(until_throttled(10, create), 10);
    }
    sessions[5].get("/keys").refused(429, "Throttled");
    at_the_beginning_of_a_window(&world);
    sessions[5].get("/keys").ok();
}
