//! Key attestation: the members are the contract's, the statements the emulator's own, and a
//! client can check them.

use openssl::bn::BigNum;
use openssl::ecdsa::EcdsaSig;
use openssl::hash::{MessageDigest, hash};
use openssl::x509::X509;
use serde_json::{Value, json};

use crate::support::{Session, decode, encode, operation, world};

/// The statement, after its signature and the chain were checked.
fn checked(attestation: &Value, member: &str) -> Value {
    let pem = decode(&attestation["certificatePemFile"]);
    let chain = X509::stack_from_pem(&pem).expect("PEM");
    let [leaf, root] = chain.as_slice() else { panic!("a chain of two") };
    let root_key = root.public_key().expect("key");
    assert!(leaf.verify(&root_key).expect("verify") && root.verify(&root_key).expect("verify"));
    let statement = String::from_utf8(decode(&attestation[member])).expect("JWS");
    let (signed, signature) = statement.rsplit_once('.').expect("JWS");
    let signature = decode(&json!(signature));
    let number = |bytes| BigNum::from_slice(bytes).expect("number");
    let (r, s) = signature.split_at(32);
    let signature = EcdsaSig::from_private_components(number(r), number(s)).expect("signature");
    let digest = hash(MessageDigest::sha256(), signed.as_bytes()).expect("digest");
    let key = leaf.public_key().and_then(|key| key.ec_key()).expect("key");
    assert!(signature.verify(&digest, &key).expect("verify"));
    let content = signed.split_once('.').expect("JWS").1;
    serde_json::from_slice(&decode(&json!(content))).expect("JSON")
}

fn attested(session: &Session<'_>, name: &str) -> (Value, Value) {
    let shown = session.get(&format!("/keys/{name}/attestation")).ok();
    let mut plain = session.get(&format!("/keys/{name}")).ok();
    let mut without = shown.clone();
    let attestation =
        without["attributes"].as_object_mut().and_then(|all| all.remove("attestation"));
    for bundle in [&mut without, &mut plain] {
        // A Managed HSM shuffles them.
        bundle["key"].as_object_mut().expect("key").remove("key_ops");
    }
    assert_eq!(without, plain, "an attestation is shown with the key as it is");
    (shown["key"].clone(), attestation.expect("attestation"))
}

#[test]
fn an_hsm_states_that_a_key_is_its_own() {
    let world = world();
    let (vault, hsm) = (world.vault(), world.hsm());
    for (session, kty) in [(&vault, "RSA-HSM"), (&vault, "EC-HSM"), (&hsm, "RSA"), (&hsm, "EC")] {
        session.create("k", json!({"kty": kty}));
        let (key, attestation) = attested(session, "k");
        let members: Vec<&String> = attestation.as_object().expect("object").keys().collect();
        let expected =
            ["certificatePemFile", "privateKeyAttestation", "publicKeyAttestation", "version"];
        assert_eq!(members, expected);
        let private = checked(&attestation, "privateKeyAttestation");
        let public = checked(&attestation, "publicKeyAttestation");
        assert_eq!((&private["kid"], &public["kid"]), (&key["kid"], &key["kid"]));
        assert_eq!((&private["extractable"], &private["sensitive"]), (&json!(false), &json!(true)));
        let der = decode(&public["public_key"]);
        let digest = hash(MessageDigest::sha256(), &der).expect("digest");
        assert_eq!(private["public_key_sha256"], encode(&digest));
        let stated = openssl::pkey::PKey::public_key_from_der(&der).expect("SPKI");
        if let Ok(rsa) = stated.rsa() {
            assert_eq!(rsa.n().to_vec(), decode(&key["n"]));
        } else {
            let point = [decode(&key["x"]), decode(&key["y"])].concat();
            assert!(der.ends_with(&point));
        }
        // A version can be asked, too.
        let path = key["kid"].as_str().and_then(|kid| kid.split_once("/keys/")).expect("kid").1;
        let again = session.get(&format!("/keys/{path}/attestation")).ok();
        assert!(again["attributes"]["attestation"].is_object());
    }
    hsm.create("aes", json!({"kty": "oct"}));
    let (_, attestation) = attested(&hsm, "aes");
    assert!(attestation.get("publicKeyAttestation").is_none());
    assert_eq!(checked(&attestation, "privateKeyAttestation")["class"], "secret-key");
}

#[test]
fn a_software_key_is_not_attested_nor_an_unknown_one_nor_before_7_6() {
    let world = world();
    let (vault, hsm) = (world.vault(), world.hsm());
    vault.create("soft", json!({"kty": "RSA"}));
    vault.get("/keys/soft/attestation").refused(400, "BadParameter");
    for session in [&vault, &hsm] {
        session.get("/keys/none/attestation").refused(404, "KeyNotFound");
        session.create("k", json!({"kty": "EC-HSM"}));
        session.version.replace("7.5".into());
        // The path means a version of that name then.
        session.get("/keys/k/attestation").refused(404, "KeyNotFound");
    }
    // Clients may send back what they read.
    vault.version.replace("7.6".into());
    let shown = vault.get("/keys/k/attestation").ok();
    let body = json!({"attributes": shown["attributes"]});
    vault.call("PATCH", "/keys/k", Some(body)).ok();
    vault.post("/keys/k/sign", operation("ES256", &[1; 32])).ok();
}
