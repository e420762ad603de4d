//! `key import`: PEM in every form, key transfer, secret keys.

use openssl::{
    ec::{EcGroup, EcKey},
    nid::Nid,
    pkey::{PKey, Private},
    rsa::Rsa,
    symm::Cipher,
};

use crate::support::World;

fn rsa() -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()
}

fn ec(curve: Nid) -> PKey<Private> {
    let group = EcGroup::from_curve_name(curve).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

/// The public half the service has of a key, beside the one it was brought with.
fn same_public(world: &World, token: &str, name: &str, key: &PKey<Private>) {
    let pem = world.on(token, &format!("key show {name} --pem")).ok();
    let there = PKey::public_key_from_pem(pem.as_bytes()).expect("a public key");
    assert!(there.public_eq(key), "{name}");
}

#[test]
fn private_keys_in_pem() {
    let world = World::with("", "");
    let (rsa, p256, p384) = (rsa(), ec(Nid::X9_62_PRIME256V1), ec(Nid::SECP384R1));
    let k256 = ec(Nid::SECP256K1);
    for (name, pem, key) in [
        ("pkcs8-rsa", rsa.private_key_to_pem_pkcs8().unwrap(), &rsa),
        ("pkcs1", rsa.rsa().unwrap().private_key_to_pem().unwrap(), &rsa),
        ("pkcs8-ec", p256.private_key_to_pem_pkcs8().unwrap(), &p256),
        ("sec1", p384.ec_key().unwrap().private_key_to_pem().unwrap(), &p384),
        ("k256", k256.private_key_to_pem_pkcs8().unwrap(), &k256),
    ] {
        for token in ["kv1", "hsm1"] {
            world.write("key.pem", &pem);
            world.on(token, &format!("key import {name} --pem key.pem")).ok();
            same_public(&world, token, name, key);
        }
    }
    // By standard input, and into the vault's HSM.
    let pem = rsa.private_key_to_pem_pkcs8().unwrap();
    let arguments = "--token kv1 --json key import stdin --pem - --hsm --ops sign";
    let made = world.run_with(arguments.split(' '), &pem).json();
    assert_eq!((&made["type"], &made["operations"]), (&"RSA-HSM".into(), &vec!["sign"].into()));
    same_public(&world, "kv1", "stdin", &rsa);
}

#[test]
fn a_key_that_never_travels_in_clear() {
    let world = World::with("", "");
    for token in ["kv1", "hsm1"] {
        let kek = "key generate kek --type rsa --hsm --ops import";
        world.on(token, kek).ok();
        for (name, key) in [("rsa", rsa()), ("ec", ec(Nid::SECP521R1))] {
            world.write("key.pem", key.private_key_to_pem_pkcs8().unwrap());
            let ran = world.on(token, &format!("key import {name} --pem key.pem --kek kek --json"));
            let made = ran.json();
            assert!(made["type"].as_str().unwrap().ends_with("-HSM"), "{made}");
            same_public(&world, token, name, &key);
        }
        let sentence = world.on(token, "key import more --pem key.pem --kek rsa").refused(1);
        assert!(sentence.contains("'rsa' cannot be a key encryption key"), "{sentence}");
    }
}

#[test]
fn secret_keys_are_for_an_hsm() {
    let world = World::with("", "");
    world.write("aes", [7; 32]);
    let made = world.on("hsm1", "--json key import aes --aes aes --ops encrypt,decrypt").json();
    assert_eq!(made["type"], "oct-HSM");
    world.write("aes", [7; 33]);
    let sentence = world.on("hsm1", "key import more --aes aes").refused(1);
    assert!(sentence.contains("33 bytes"), "{sentence}");
}

#[test]
fn what_cannot_be_imported_is_refused_before_anything_is_asked() {
    let world = World::with("", "");
    let key = rsa();
    let cipher = Cipher::aes_128_cbc();
    world.write("encrypted.pem", key.private_key_to_pem_pkcs8_passphrase(cipher, b"p").unwrap());
    let sentence = world.on("kv1", "key import k --pem encrypted.pem").refused(1);
    assert!(sentence.contains("is encrypted: decrypt it on the way"), "{sentence}");

    world.write("public.pem", key.public_key_to_pem().unwrap());
    world.write("cut.pem", &key.private_key_to_pem_pkcs8().unwrap()[..400]);
    world.write("blob.json", "{}");
    for (arguments, word) in [
        ("--pem public.pem", "no private key"),
        ("--pem cut.pem", "has no end"),
        ("--pem nowhere.pem", "nowhere.pem cannot be read"),
        ("--byok blob.json", "no key transfer blob"),
    ] {
        let sentence = world.on("kv1", &format!("key import k {arguments}")).refused(1);
        assert!(sentence.contains(word), "{sentence}");
    }
    for arguments in ["--pem a --aes b", "--byok blob.json --type ec", "--kek k --aes b"] {
        assert_eq!(world.on("kv1", &format!("key import k {arguments}")).code, 2, "{arguments}");
    }
    let edwards = PKey::generate_ed25519().unwrap();
    world.write("ed.pem", edwards.private_key_to_pem_pkcs8().unwrap());
    let sentence = world.on("kv1", "key import k --pem ed.pem").refused(1);
    assert!(sentence.contains("neither RSA nor EC"), "{sentence}");
    assert_eq!(world.counter("vault:kv1", "requests"), 0);
}

#[test]
fn a_blob_of_a_vendor_is_handed_over_as_it_is() {
    let world = World::with("", "");
    world.on("hsm1", "key generate kek --type rsa --hsm --ops import").ok();
    // One that names the right key and holds nonsense gets as far as the service.
    let kid = "https://127.0.0.1/keys/kek/0123456789abcdef0123456789abcdef";
    world.write(
        "blob.json",
        format!(
            r#"{{"schema_version":"1.0.0","header":{{"kid":"{kid}","alg":"dir",
            "enc":"CKM_RSA_AES_KEY_WRAP"}},"ciphertext":"AAAA","generator":"test"}}"#
        ),
    );
    let sentence = world.on("hsm1", "key import k --byok blob.json").refused(1);
    assert!(sentence.starts_with("import key k: "), "{sentence}");
    assert_eq!(world.counter("managed-hsm:hsm1", "keys/import"), 1);
}
