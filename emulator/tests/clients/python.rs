//! azure-keyvault-keys, -certificates and -secrets of PyPI.

use crate::{
    install,
    sandbox::{Client, clients},
};

fn run(script: &str) -> String {
    let python = install::python("python");
    Client::new().vault().hsm().run(python, &[clients().join("python").join(script)])
}

#[test]
fn keys() {
    run("keys.py");
}
