//! The test vectors of Project Wycheproof: what has broken other implementations.
//!
//! Every set whose curve, hash and key size exist here is run; each test says how many vectors it
//! must at least have seen, so that a filter cannot silently let everything pass.

use ::wycheproof::{
    EllipticCurve, HashFunction, TestResult, aead, cipher, ecdsa, keywrap, mac, rsa_oaep,
    rsa_pkcs1_decrypt, rsa_pkcs1_verify, rsa_pss_verify,
};
use cryptoki_sys::{CKR_MECHANISM_PARAM_INVALID, CKR_OK};

use super::*;
use crate::crypto::symmetric::{Cipher, Direction, Hmac, KeyWrap, Mode, unwrap, wrap};

#[test]
fn ecdsa_with_fixed_size_signatures() {
    let mut seen = 0;
    for name in ecdsa::TestName::all() {
        for group in ecdsa::TestSet::load(name).unwrap().test_groups {
            let (Some(curve), Some(hash)) = (curve(group.key.curve), hash(group.hash)) else {
                continue;
            };
            if group.test_type != ecdsa::TestGroupTypeId::EcdsaP1363 {
                continue;
            }
            let key = PublicKey::from_spki_der(&group.der).unwrap();
            assert_eq!(key, PublicKey::from_ec_point(curve, &group.key.key).unwrap());
            for test in group.tests {
                // PKCS#11 takes halves of equal length that are shorter; these vectors do not.
                let whole = key.signature_len();
                if test.sig.len() < whole && test.sig.len() % 2 == 0 {
                    continue;
                }
                let got = rv(key.verify_ecdsa(&hash.digest(&test.msg), &test.sig));
                check(test.result, got, &format!("{name:?} {} {}", test.tc_id, test.comment));
                seen += 1;
            }
        }
    }
    assert!(seen > 1500, "{seen} vectors");
}

#[test]
fn rsa_pkcs1_signatures() {
    let mut seen = 0;
    for name in rsa_pkcs1_verify::TestName::all() {
        for group in rsa_pkcs1_verify::TestSet::load(name).unwrap().test_groups {
            let Some(hash) = hash(group.hash) else { continue };
            let key = PublicKey::from_spki_der(&group.der).unwrap();
            for test in group.tests {
                let content = digest_info::encode(hash, &hash.digest(&test.msg));
                let got = rv(key.verify_pkcs1(&content, &test.sig));
                check(test.result, got, &format!("{name:?} {} {}", test.tc_id, test.comment));
                if test.result.must_fail() {
                    // Whatever is recovered is not what was to be signed.
                    let recovered = key.recover_pkcs1(&test.sig).ok();
                    assert_ne!(recovered, Some(content), "{name:?} {}", test.tc_id);
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 3000, "{seen} vectors");
}

#[test]
fn rsa_pss_signatures() {
    let mut seen = 0;
    for name in rsa_pss_verify::TestName::all() {
        for group in rsa_pss_verify::TestSet::load(name).unwrap().test_groups {
            let (Some(hash), Some(mgf)) = (hash(group.hash), group.mgf_hash.and_then(hash)) else {
                continue;
            };
            let key = PublicKey::rsa(&group.key.n, &group.key.e).unwrap();
            for test in group.tests {
                let digest = hash.digest(&test.msg);
                let got = rv(key.verify_pss(hash, mgf, group.salt_size, &digest, &test.sig));
                if hash != mgf {
                    assert_eq!(got, CKR_MECHANISM_PARAM_INVALID);
                    continue;
                }
                check(test.result, got, &format!("{name:?} {} {}", test.tc_id, test.comment));
                seen += 1;
            }
        }
    }
    assert!(seen > 800, "{seen} vectors");
}

#[test]
fn rsa_pkcs1_ciphertexts() {
    let mut seen = 0;
    for name in rsa_pkcs1_decrypt::TestName::all() {
        for group in rsa_pkcs1_decrypt::TestSet::load(name).unwrap().test_groups {
            let key = PrivateKey::from_pkcs8(&group.pkcs8).unwrap();
            for test in group.tests {
                let what = format!("{name:?} {} {}", test.tc_id, test.comment);
                let got = key.decrypt_pkcs1(&test.ct);
                if let Ok(plaintext) = &got {
                    assert_eq!(**plaintext, *test.pt, "{what}");
                }
                check(test.result, rv(got), &what);
                // The same ciphertext, unwrapped: the key where it is one, never an error.
                if let Ok(key) = key.decrypt_pkcs1_implicit(&test.ct, &[test.pt.len()]) {
                    assert_eq!(key.len(), test.pt.len(), "{what}");
                    let equal = *key == *test.pt;
                    assert!(equal != test.result.must_fail() || test.pt.is_empty(), "{what}");
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 150, "{seen} vectors");
}

#[test]
fn rsa_oaep_ciphertexts() {
    let mut seen = 0;
    for name in rsa_oaep::TestName::all() {
        for group in rsa_oaep::TestSet::load(name).unwrap().test_groups {
            let (Some(hash), Some(mgf)) = (hash(group.hash), hash(group.mgf_hash)) else {
                continue;
            };
            // Private keys below 2048 bits are refused.
            let Ok(key) = PrivateKey::from_pkcs8(&group.pkcs8) else {
                assert!(group.key_size < 2048, "{name:?} {}", group.key_size);
                continue;
            };
            for test in group.tests {
                let what = format!("{name:?} {} {}", test.tc_id, test.comment);
                let got = key.decrypt_oaep(hash, mgf, &test.label, &test.ct);
                if let Ok(plaintext) = &got {
                    assert_eq!(**plaintext, *test.pt, "{what}");
                }
                if std::str::from_utf8(&test.label).is_err()
                    && rv(got.clone()) == CKR_MECHANISM_PARAM_INVALID
                {
                    assert!(hash != mgf || hash == Hash::Sha224, "{what}");
                    continue;
                }
                check(test.result, rv(got), &what);
                seen += 1;
            }
        }
    }
    assert!(seen > 500, "{seen} vectors");
}

#[test]
fn aes_gcm() {
    let mut seen = 0;
    for group in aead::TestSet::load(aead::TestName::AesGcm).unwrap().test_groups {
        for test in group.tests {
            let what = format!("{} {}", test.tc_id, test.comment);
            let mode = Mode::Gcm {
                iv: test.nonce.to_vec(),
                aad: test.aad.to_vec(),
                tag_len: group.tag_size / 8,
            };
            let sealed = [&test.ct[..], &test.tag].concat();
            let got = Cipher::once(Direction::Decrypt, mode.clone(), &test.key, &sealed);
            if let Ok(plaintext) = &got {
                assert_eq!(**plaintext, *test.pt, "{what}");
                let back = Cipher::once(Direction::Encrypt, mode, &test.key, &test.pt).unwrap();
                assert_eq!(*back, sealed, "{what}");
            }
            // IVs beyond 256 bytes are refused.
            if test.nonce.len() <= 256 {
                check(test.result, rv(got), &what);
                seen += 1;
            }
        }
    }
    assert!(seen > 250, "{seen} vectors");
}

#[test]
fn aes_cbc_with_padding() {
    let mut seen = 0;
    for group in cipher::TestSet::load(cipher::TestName::AesCbcPkcs5).unwrap().test_groups {
        for test in group.tests {
            let what = format!("{} {}", test.tc_id, test.comment);
            let mode = Mode::CbcPad { iv: test.nonce.to_vec().try_into().unwrap() };
            let got = Cipher::once(Direction::Decrypt, mode.clone(), &test.key, &test.ct);
            if let Ok(plaintext) = &got {
                assert_eq!(**plaintext, *test.pt, "{what}");
                let back = Cipher::once(Direction::Encrypt, mode, &test.key, &test.pt).unwrap();
                assert_eq!(*back, *test.ct, "{what}");
            }
            check(test.result, rv(got), &what);
            seen += 1;
        }
    }
    assert!(seen > 150, "{seen} vectors");
}

#[test]
fn aes_key_wrap() {
    let mut seen = 0;
    for (name, method) in [
        (keywrap::TestName::AesKeyWrap, KeyWrap::Rfc3394),
        (keywrap::TestName::AesKeyWrapWithPadding, KeyWrap::Rfc5649),
    ] {
        for group in keywrap::TestSet::load(name).unwrap().test_groups {
            for test in group.tests {
                let what = format!("{name:?} {} {}", test.tc_id, test.comment);
                let got = unwrap(method, &test.key, &test.ct);
                if let Ok(key) = &got {
                    assert_eq!(**key, *test.pt, "{what}");
                    assert_eq!(wrap(method, &test.key, &test.pt).unwrap(), *test.ct, "{what}");
                }
                check(test.result, rv(got), &what);
                seen += 1;
            }
        }
    }
    assert!(seen > 400, "{seen} vectors");
}

#[test]
fn hmac() {
    let mut seen = 0;
    for (name, hash) in [
        (mac::TestName::HmacSha1, Hash::Sha1),
        (mac::TestName::HmacSha224, Hash::Sha224),
        (mac::TestName::HmacSha256, Hash::Sha256),
        (mac::TestName::HmacSha384, Hash::Sha384),
        (mac::TestName::HmacSha512, Hash::Sha512),
    ] {
        for group in mac::TestSet::load(name).unwrap().test_groups {
            for test in group.tests {
                let what = format!("{name:?} {} {}", test.tc_id, test.comment);
                let mut hmac = Hmac::new(hash, &test.key).unwrap();
                hmac.update(&test.msg);
                // Shorter tags are their beginning (CKM_…_HMAC_GENERAL).
                let equal = hmac.clone().finish()[..group.tag_size / 8] == test.tag[..];
                assert_eq!(equal, !test.result.must_fail(), "{what}");
                if group.tag_size / 8 == hash.len() {
                    check(test.result, rv(hmac.verify(&test.tag)), &what);
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 800, "{seen} vectors");
}

fn check(expected: TestResult, got: CK_RV, what: &str) {
    match expected {
        TestResult::Valid => assert_eq!(got, CKR_OK, "{what}"),
        TestResult::Invalid => assert_ne!(got, CKR_OK, "{what}"),
        TestResult::Acceptable => {}
    }
}

fn curve(curve: EllipticCurve) -> Option<Curve> {
    match curve {
        EllipticCurve::Secp256r1 => Some(Curve::P256),
        EllipticCurve::Secp256k1 => Some(Curve::P256K),
        EllipticCurve::Secp384r1 => Some(Curve::P384),
        EllipticCurve::Secp521r1 => Some(Curve::P521),
        _ => None,
    }
}

fn hash(hash: HashFunction) -> Option<Hash> {
    match hash {
        HashFunction::Sha1 => Some(Hash::Sha1),
        HashFunction::Sha2_224 => Some(Hash::Sha224),
        HashFunction::Sha2_256 => Some(Hash::Sha256),
        HashFunction::Sha2_384 => Some(Hash::Sha384),
        HashFunction::Sha2_512 => Some(Hash::Sha512),
        HashFunction::Sha3_224 => Some(Hash::Sha3_224),
        HashFunction::Sha3_256 => Some(Hash::Sha3_256),
        HashFunction::Sha3_384 => Some(Hash::Sha3_384),
        HashFunction::Sha3_512 => Some(Hash::Sha3_512),
        _ => None,
    }
}
