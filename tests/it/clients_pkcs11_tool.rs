//! pkcs11-tool (OpenSC): everything it does with keys, on a vault and on a Managed HSM, with RSA
//! and EC keys; the openssl command confirms each signature.

use crate::support::{Client, HSM, VAULT};

/// The scripts that look at one token are run for each kind.
fn on(token: &str, script: &'static str) {
    client().vault().hsm().seed("../keys.toml").script(script, &[token]).run();
}

fn client() -> Client {
    Client::new("pkcs11-tool")
        .needs("pkcs11-tool", "opensc")
        .needs("openssl", "openssl")
        .needs("curl", "curl")
        .needs("jq", "jq")
}

#[test]
fn everything_is_listed_without_a_warning() {
    client().vault().hsm().seed("demo").seed("objects.toml").script("list.sh", &[VAULT]).run();
}

#[test]
fn secrets_of_a_vault_are_read() {
    client().vault().seed("objects.toml").script("data.sh", &[VAULT]).run();
}

#[test]
fn a_vault_signs_with_every_mechanism_it_lists() {
    on(VAULT, "sign.sh");
}

#[test]
fn a_managed_hsm_signs_with_every_mechanism_it_lists() {
    on(HSM, "sign.sh");
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
fn a_vault_makes_key_pairs_that_work() {
    on(VAULT, "generate.sh");
}

#[test]
fn a_managed_hsm_makes_key_pairs_that_work() {
    on(HSM, "generate.sh");
}

#[test]
fn its_own_tests_pass_on_a_vault() {
    on(VAULT, "selftest.sh");
}

#[test]
fn its_own_tests_pass_on_a_managed_hsm() {
    on(HSM, "selftest.sh");
}
