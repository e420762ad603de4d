//! nginx with `ssl_certificate_key "engine:pkcs11:…"`: real workers, real TLS.

use crate::support::Client;

fn nginx(script: &'static str) -> Client {
    Client::new("nginx")
        .vault()
        .hsm()
        .seed("demo")
        .needs("nginx", "nginx")
        .needs("openssl", "openssl")
        .needs("curl", "curl")
        .needs("jq", "jq")
        .needs("ps", "procps")
        .script(script, &[])
}

#[test]
fn every_handshake_is_one_signature() {
    nginx("handshakes.sh").reads_log().run();
}

#[test]
fn a_reload_loses_no_request() {
    nginx("reload.sh").run();
}

#[test]
fn after_a_rotation_the_certificates_key_goes_on_signing() {
    nginx("rotation.sh").run();
}

#[test]
fn a_rotation_nobody_announced_breaks_no_worker() {
    nginx("surprise.sh").run();
}

/// Two identities of which one may get and sign, the other sign alone.
#[test]
fn a_server_needs_no_more_than_to_sign() {
    let clients = crate::support::root().join("tests/clients/nginx/emulator.toml");
    nginx("privilege.sh").option("--config", clients).reads_log().run();
}

#[test]
fn an_outage_is_told_and_survived() {
    nginx("outage.sh").needs("perl", "perl-base").reads_log().run();
}

#[test]
fn the_example_works() {
    nginx("example.sh").run();
}
