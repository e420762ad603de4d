//! The openssl command with the pkcs11 engine of libp11, on a vault and on a Managed HSM, with RSA
//! and EC keys; everything signed is verified without the engine.

use crate::support::{Client, HSM, VAULT};

fn on(token: &str, script: &'static str) {
    Client::new("openssl")
        .needs("openssl", "openssl")
        .needs("pkcs11-tool", "opensc")
        .needs("curl", "curl")
        .needs("jq", "jq")
        .vault()
        .hsm()
        .seed("../keys.toml")
        .script(script, &[token])
        .run();
}

#[test]
fn files_are_signed_with_a_vault() {
    on(VAULT, "dgst.sh");
}

#[test]
fn files_are_signed_with_a_managed_hsm() {
    on(HSM, "dgst.sh");
}

#[test]
fn a_vault_holds_an_authority_s_key() {
    on(VAULT, "ca.sh");
}

#[test]
fn a_managed_hsm_holds_an_authority_s_key() {
    on(HSM, "ca.sh");
}

#[test]
fn messages_are_signed_and_decrypted_with_a_vault() {
    on(VAULT, "cms.sh");
}

#[test]
fn messages_are_signed_and_decrypted_with_a_managed_hsm() {
    on(HSM, "cms.sh");
}

#[test]
fn a_vault_decrypts() {
    on(VAULT, "decrypt.sh");
}

#[test]
fn a_managed_hsm_decrypts() {
    on(HSM, "decrypt.sh");
}

#[test]
fn a_tls_server_s_key_is_in_a_vault() {
    on(VAULT, "server.sh");
}

#[test]
fn a_tls_server_s_key_is_in_a_managed_hsm() {
    on(HSM, "server.sh");
}
