//! Java's SunPKCS11: keytool, jarsigner, programs, JSSE (openjdk-17-jdk-headless).

use crate::support::Client;

fn java(script: &'static str) {
    Client::new("java")
        .vault()
        .hsm()
        .seed("seed.toml")
        .needs("javac", "openjdk-17-jdk-headless")
        .needs("openssl", "openssl")
        .needs("jq", "jq")
        .script(script, &[])
        .run();
}

#[test]
fn a_program_does_all_that_sunpkcs11_can() {
    java("checks.sh");
}
