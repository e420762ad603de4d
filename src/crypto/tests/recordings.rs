//! Signatures that the real services made, verified here.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use cryptoki_sys::{CKR_OK, CKR_SIGNATURE_INVALID};
use serde_json::Value;

use super::*;

#[test]
fn signatures_of_key_vault_and_managed_hsm() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/api/recordings/vectors_sign.json");
    let Ok(text) = std::fs::read_to_string(path) else {
        eprintln!("SKIPPED: no recordings of the services beside the project ({path})");
        return;
    };
    let vectors: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert!(vectors.len() >= 50, "{} vectors", vectors.len());
    for vector in &vectors {
        let what = format!("{} {}", vector["alg"], vector["source"]);
        let (digest, signature) = (part(&vector["digest"]), part(&vector["signature"]));
        let key = key(&vector["jwk"]);
        assert_eq!(verify(&key, vector, &digest, &signature), CKR_OK, "{what}");
        let mut other = digest.clone();
        other[0] ^= 0x80;
        assert_eq!(verify(&key, vector, &other, &signature), CKR_SIGNATURE_INVALID, "{what}");
        let mut forged = signature.clone();
        forged[signature.len() - 1] ^= 1;
        assert_eq!(verify(&key, vector, &digest, &forged), CKR_SIGNATURE_INVALID, "{what}");
    }
}

fn verify(key: &PublicKey, vector: &Value, digest: &[u8], signature: &[u8]) -> CK_RV {
    let algorithm = vector["alg"].as_str().unwrap();
    let hash = match &algorithm[2..5] {
        "256" => Hash::Sha256,
        "384" => Hash::Sha384,
        "512" => Hash::Sha512,
        other => panic!("an unknown algorithm {other}"),
    };
    rv(match &algorithm[..2] {
        "RS" => key.verify_pkcs1(&digest_info::encode(hash, digest), signature),
        "PS" => key.verify_pss(hash, hash, hash.len(), digest, signature),
        _ => key.verify_ecdsa(digest, signature),
    })
}

fn key(jwk: &Value) -> PublicKey {
    match jwk["crv"].as_str() {
        None => PublicKey::rsa(&part(&jwk["n"]), &part(&jwk["e"])).unwrap(),
        Some(name) => {
            let curve = Curve::from_name(name).unwrap();
            PublicKey::ec(curve, &part(&jwk["x"]), &part(&jwk["y"])).unwrap()
        }
    }
}

fn part(value: &Value) -> Vec<u8> {
    BASE64_URL_SAFE_NO_PAD.decode(value.as_str().unwrap()).unwrap()
}
