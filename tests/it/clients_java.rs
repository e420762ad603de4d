//! Java's SunPKCS11: keytool, jarsigner, programs, JSSE (openjdk-17-jdk-headless).

use crate::support::{Client, HSM, VAULT};

fn java(script: &'static str, arguments: &[&str]) {
    Client::new("java")
        .vault()
        .hsm()
        .seed("seed.toml")
        .needs("javac", "openjdk-17-jdk-headless")
        .needs("openssl", "openssl")
        .needs("jq", "jq")
        .script(script, arguments)
        .run();
}

#[test]
fn a_program_does_all_that_sunpkcs11_can() {
    java("checks.sh", &[]);
}

#[test]
fn as_the_first_provider_it_gets_nothing_but_handshake_signatures() {
    java("first.sh", &[]);
}

#[test]
fn the_example_signs_with_a_key_of_each_kind() {
    java("example.sh", &[]);
}

#[test]
fn jarsigner_signs_with_every_key_of_a_vault() {
    java("jarsigner.sh", &[VAULT]);
}

#[test]
fn jarsigner_signs_with_every_key_of_a_managed_hsm() {
    java("jarsigner.sh", &[HSM]);
}

#[test]
fn keytool_makes_and_certifies_an_rsa_key_in_a_vault() {
    java("keytool.sh", &[VAULT, "-keyalg", "RSA", "-keysize", "2048"]);
}

#[test]
fn keytool_makes_and_certifies_an_ec_key_in_a_managed_hsm() {
    java("keytool.sh", &[HSM, "-keyalg", "EC", "-groupname", "secp384r1"]);
}
