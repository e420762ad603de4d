//! azure_security_keyvault_keys: everything a key is used for, by the service, and through PKCS#11.

use azure_security_keyvault_keys::{
    KeyClient, ResourceExt,
    models::{
        CreateKeyParameters, CurveName, EncryptionAlgorithm, Key, KeyOperationParameters, KeyType,
        SignParameters, SignatureAlgorithm, VerifyParameters,
    },
};
use openssl::{
    bn::BigNum,
    ec::EcGroup,
    ecdsa::EcdsaSig,
    hash::{MessageDigest, hash},
    nid::Nid,
    pkey::PKey,
    rsa::{Padding, Rsa},
    sign::{RsaPssSaltlen, Verifier},
};

use super::{
    SERVICES, answer, content, in_sandbox,
    keys::{client, create, create_ec, create_rsa, version},
    pkcs11, pkcs11_file, pkcs11_id,
};

const DATA: &[u8] = b"What is signed, or encrypted: forty-eight bytes.";

#[test]
fn keys_are_used_and_used_through_pkcs11() {
    in_sandbox("operations::keys_are_used_and_used_through_pkcs11", async || {
        for (url, token, hsm) in SERVICES {
            let keys = client(url);
            every_algorithm(&keys, hsm).await;
            through_pkcs11(&keys, token).await;
        }
    });
}

fn digest(bits: usize) -> Vec<u8> {
    hash(method(bits), DATA).expect("hash").to_vec()
}

fn method(bits: usize) -> MessageDigest {
    match bits {
        256 => MessageDigest::sha256(),
        384 => MessageDigest::sha384(),
        _ => MessageDigest::sha512(),
    }
}

/// Signs, verifies by the service; returns the signature.
async fn sign(
    keys: &KeyClient,
    name: &str,
    algorithm: &SignatureAlgorithm,
    bits: usize,
) -> Vec<u8> {
    let parameters =
        SignParameters { algorithm: Some(algorithm.clone()), value: Some(digest(bits)) };
    let signed = answer!(keys.sign(name, content!(parameters), None));
    let version = signed.resource_id().expect("kid").version.expect("a version");
    let signature = signed.result.expect("a signature");
    assert!(verify(keys, name, &version, algorithm, digest(bits), &signature).await);
    assert!(!verify(keys, name, &version, algorithm, vec![0; bits / 8], &signature).await);
    signature
}

async fn verify(
    keys: &KeyClient,
    name: &str,
    version: &str,
    algorithm: &SignatureAlgorithm,
    digest: Vec<u8>,
    signature: &[u8],
) -> bool {
    let parameters = VerifyParameters {
        algorithm: Some(algorithm.clone()),
        digest: Some(digest),
        signature: Some(signature.to_vec()),
    };
    answer!(keys.verify(name, version, content!(parameters), None)).value.expect("a verdict")
}

async fn encrypt(keys: &KeyClient, key: &Key, algorithm: EncryptionAlgorithm) {
    let (name, mode) = (key.resource_id().expect("kid").name, algorithm.to_string());
    let mut asked = KeyOperationParameters {
        algorithm: Some(algorithm),
        value: Some(DATA.to_vec()),
        ..Default::default()
    };
    if mode.contains("CBC") {
        asked.iv = Some(vec![7; 16]);
    }
    if mode.contains("GCM") {
        asked.additional_authenticated_data = Some(b"also".to_vec());
    }
    let made = answer!(keys.encrypt(&name, content!(asked.clone()), None));
    if mode.contains("GCM") {
        (asked.iv, asked.authentication_tag) = (made.iv, made.authentication_tag);
    }
    asked.value = made.result;
    let plain = answer!(keys.decrypt(&name, &version(key), content!(asked), None));
    assert_eq!(plain.result.as_deref(), Some(DATA), "{mode}");
}

async fn wrap(keys: &KeyClient, key: &Key, algorithm: EncryptionAlgorithm) {
    let name = key.resource_id().expect("kid").name;
    let mut asked = KeyOperationParameters {
        algorithm: Some(algorithm),
        value: Some(vec![9; 32]),
        ..Default::default()
    };
    asked.value = answer!(keys.wrap_key(&name, content!(asked.clone()), None)).result;
    let plain = answer!(keys.unwrap_key(&name, &version(key), content!(asked.clone()), None));
    assert_eq!(plain.result, Some(vec![9; 32]), "{:?}", asked.algorithm);
}

async fn every_algorithm(keys: &KeyClient, hsm: bool) {
    use {EncryptionAlgorithm as E, SignatureAlgorithm as S};
    let rsa = create_rsa(keys, "rsa").await;
    for (algorithm, bits) in [
        (S::Rs256, 256),
        (S::Rs384, 384),
        (S::Rs512, 512),
        (S::Ps256, 256),
        (S::Ps384, 384),
        (S::Ps512, 512),
        (S::Rsnull, 384),
    ] {
        let signature = sign(keys, "rsa", &algorithm, bits).await;
        let public = public_rsa(&rsa);
        if algorithm == S::Rsnull {
            let mut plain = vec![0; 256];
            let open = public.rsa().expect("RSA");
            let len = open.public_decrypt(&signature, &mut plain, Padding::PKCS1).expect("PKCS#1");
            assert_eq!(plain[..len], digest(bits));
            continue;
        }
        let mut verifier = Verifier::new(method(bits), &public).expect("verifier");
        if algorithm.to_string().starts_with("PS") {
            verifier.set_rsa_padding(Padding::PKCS1_PSS).expect("PSS");
            verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).expect("salt");
        }
        assert!(verifier.verify_oneshot(&signature, DATA).expect("verification"), "{algorithm}");
    }
    for algorithm in [E::Rsa1_5, E::RsaOaep, E::RsaOaep256] {
        encrypt(keys, &rsa, algorithm.clone()).await;
        wrap(keys, &rsa, algorithm).await;
    }
    for (curve, algorithm, bits, nid) in [
        (CurveName::P256, S::Es256, 256, Nid::X9_62_PRIME256V1),
        (CurveName::P256K, S::Es256K, 256, Nid::SECP256K1),
        (CurveName::P384, S::Es384, 384, Nid::SECP384R1),
        (CurveName::P521, S::Es512, 512, Nid::SECP521R1),
    ] {
        let key = create_ec(keys, "ec", curve).await;
        let signature = sign(keys, "ec", &algorithm, bits).await;
        assert!(ec_verifies(&key, nid, bits, &signature), "{algorithm}");
    }
    if !hsm {
        return;
    }
    let symmetric = [
        (128, [E::A128Gcm, E::A128Cbc, E::A128Cbcpad], E::A128Kw),
        (192, [E::A192Gcm, E::A192Cbc, E::A192Cbcpad], E::A192Kw),
        (256, [E::A256Gcm, E::A256Cbc, E::A256Cbcpad], E::A256Kw),
    ];
    for (size, modes, wrapping) in symmetric {
        let (kty, key_size) = (Some(KeyType::OctHsm), Some(size));
        let parameters = CreateKeyParameters { kty, key_size, ..Default::default() };
        let key = create(keys, "oct", parameters).await;
        for mode in modes {
            encrypt(keys, &key, mode).await;
        }
        for algorithm in [wrapping, E::CkmAesKeyWrap, E::CkmAesKeyWrapPad] {
            wrap(keys, &key, algorithm).await;
        }
    }
    for (algorithm, bits) in [(S::Hs256, 256), (S::Hs384, 384), (S::Hs512, 512)] {
        sign(keys, "oct", &algorithm, bits).await;
    }
}

fn number(bytes: Option<&Vec<u8>>) -> BigNum {
    BigNum::from_slice(bytes.expect("a number of the key")).expect("number")
}

fn public_rsa(key: &Key) -> PKey<openssl::pkey::Public> {
    let jwk = key.key.as_ref().expect("JWK");
    let rsa = Rsa::from_public_components(number(jwk.n.as_ref()), number(jwk.e.as_ref()));
    PKey::from_rsa(rsa.expect("RSA")).expect("key")
}

fn ec_verifies(key: &Key, curve: Nid, bits: usize, signature: &[u8]) -> bool {
    let jwk = key.key.as_ref().expect("JWK");
    let group = EcGroup::from_curve_name(curve).expect("curve");
    let (x, y) = (number(jwk.x.as_ref()), number(jwk.y.as_ref()));
    let key = openssl::ec::EcKey::from_public_key_affine_coordinates(&group, &x, &y).expect("key");
    let (r, s) = signature.split_at(signature.len() / 2);
    let number = |bytes| BigNum::from_slice(bytes).expect("number");
    let signature = EcdsaSig::from_private_components(number(r), number(s)).expect("signature");
    signature.verify(&digest(bits), &key).expect("verification")
}

/// Keys of the crate are used through PKCS#11, and keys made through PKCS#11 by the crate.
async fn through_pkcs11(keys: &KeyClient, token: &str) {
    pkcs11(token, &["--keypairgen", "--key-type", "rsa:2048", "--label", "p11-rsa"]);
    pkcs11(token, &["--keypairgen", "--key-type", "EC:prime256v1", "--label", "p11-ec"]);
    create_rsa(keys, "sdk-rsa").await;
    create_ec(keys, "sdk-ec", CurveName::P256).await;
    for (name, algorithm, mechanism) in [
        ("p11-rsa", SignatureAlgorithm::Ps256, "SHA256-RSA-PKCS-PSS"),
        ("sdk-rsa", SignatureAlgorithm::Rs256, "SHA256-RSA-PKCS"),
        ("p11-ec", SignatureAlgorithm::Es256, "ECDSA-SHA256"),
        ("sdk-ec", SignatureAlgorithm::Es256, "ECDSA-SHA256"),
    ] {
        let id = pkcs11_id(token, name);
        let signature = pkcs11_file(token, DATA, &["--sign", "--id", &id, "-m", mechanism]);
        let key = answer!(keys.get_key(name, None));
        let good = verify(keys, name, &version(&key), &algorithm, digest(256), &signature).await;
        assert!(good, "{name}");
        sign(keys, name, &algorithm, 256).await;
        if name.ends_with("rsa") {
            let parameters = KeyOperationParameters {
                algorithm: Some(EncryptionAlgorithm::Rsa1_5),
                value: Some(DATA.to_vec()),
                ..Default::default()
            };
            let made = answer!(keys.encrypt(name, content!(parameters), None)).result;
            let decrypt = ["--decrypt", "--id", &id, "-m", "RSA-PKCS"];
            assert_eq!(pkcs11_file(token, &made.expect("ciphertext"), &decrypt), DATA, "{name}");
        }
    }
}
