//! azure-keyvault-keys, -certificates and -secrets with azure-identity, of PyPI, on a vault and on
//! a Managed HSM.

use crate::install;
use crate::sandbox::{Client, clients};

fn run(script: &str) {
    let (python, folder) = (install::python("python"), clients().join("python"));
    let client = Client::new().vault().hsm().option("--config", clients().join("emulator.toml"));
    // No bytecode beside the scripts.
    client.env("PYTHONDONTWRITEBYTECODE", "1").run(python, &[folder.join(script)]);
}

#[test]
fn keys_live() {
    run("key_life.py");
}

#[test]
fn keys_are_used_and_used_through_pkcs11() {
    run("key_operations.py");
}

#[test]
fn certificates_live() {
    run("certificate_life.py");
}

#[test]
fn secrets_live_and_all_clients_are_asynchronous_too() {
    run("secret_life.py");
}
