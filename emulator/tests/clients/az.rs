//! azure-cli of PyPI: `az keyvault`, on a vault and on a Managed HSM.

use std::env;

use crate::install;
use crate::sandbox::{Client, clients, require};

fn run(client: Client, script: &str) {
    for (command, package) in
        [("openssl", "openssl"), ("pkcs11-tool", "opensc"), ("curl", "curl"), ("jq", "jq")]
    {
        require(command, package);
    }
    // The interpreter's folder has `az`, too.
    let mut path = install::python("az").with_file_name("").into_os_string();
    path.push(":");
    path.push(env::var_os("PATH").unwrap_or_default());
    let script = clients().join("az").join(script);
    client.env("PATH", path).run("sh", &["-eu".as_ref(), script.as_os_str()]);
}

#[test]
fn a_vault_is_managed() {
    run(Client::new().vault(), "vault.sh");
}

#[test]
fn a_managed_hsm_is_managed() {
    run(Client::new().hsm(), "hsm.sh");
}

#[test]
fn no_public_name_is_needed() {
    run(Client::at_localhost().vault().hsm(), "localhost.sh");
}
