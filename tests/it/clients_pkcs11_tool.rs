//! pkcs11-tool, of OpenSC.

use crate::support::Client;

#[test]
fn lists() {
    Client::new("pkcs11-tool")
        .vault()
        .hsm()
        .seed("demo")
        .needs("pkcs11-tool", "opensc")
        .script("list.sh", &[])
        .run();
}
