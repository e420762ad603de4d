//! @azure/keyvault-keys with @azure/identity, of npm, on a vault and on a Managed HSM.

use crate::install;
use crate::sandbox::{Client, clients};

fn run(script: &str) {
    let (packages, script) = (install::node("node"), clients().join("node").join(script));
    let client = Client::new().vault().hsm().option("--config", clients().join("emulator.toml"));
    client.env("NODE_PATH", packages).run("node", &[script]);
}

#[test]
fn keys_live() {
    run("life.js");
}

#[test]
fn keys_are_used_and_used_through_pkcs11() {
    run("operations.js");
}
