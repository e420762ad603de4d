//! Keys of sizes that the service does not make, and AES keys whose size it does not tell.

use cryptoki_sys::*;
use openssl::{hash::MessageDigest, pkey::PKey, rsa::Rsa, sign::Verifier};

use crate::{
    service::{Emulator, HSM, VAULT},
    signing::public_key,
    token::{Family, Mechanism, Module, Parameter, bytes, number},
};

/// Whatever RSA key is there can be used: the service once made and still takes 1024 bits.
#[test]
fn an_rsa_key_of_any_size_found_is_used() {
    let key = Rsa::generate(1024).and_then(PKey::from_rsa).unwrap();
    let pem = String::from_utf8(key.private_key_to_pem_pkcs8().unwrap()).unwrap();
    let emulator = Emulator::start(&format!("keys = [{{ name = 'old', pem = '''{pem}''' }}]"));
    let module = Module::start(&emulator.tokens());
    for slot in [0, 1] {
        let session = module.open(slot);
        let (private, public) = session.pair("old");
        assert_eq!(session.number(public, CKA_MODULUS_BITS), Ok(1024));
        let openssl = public_key(&session, public);
        assert!(openssl.public_eq(&key));
        let sha256 = Mechanism::plain(CKM_SHA256_RSA_PKCS);
        let signature = session.sign(&sha256, private, b"data").unwrap();
        let mut verifier = Verifier::new(MessageDigest::sha256(), &openssl).unwrap();
        assert!(verifier.verify_oneshot(&signature, b"data").unwrap());
        let pss = Mechanism::pss(CKM_SHA256_RSA_PKCS_PSS, CKM_SHA256, CKG_MGF1_SHA256, 32);
        for mechanism in [sha256, pss] {
            let signature = session.sign(&mechanism, private, b"data").unwrap();
            session.verify(&mechanism, public, b"data", &signature).unwrap();
            let wrong = session.verify(&mechanism, public, b"Data", &signature);
            assert_eq!(wrong, Err(CKR_SIGNATURE_INVALID));
        }
        for mechanism in
            [Mechanism::plain(CKM_RSA_PKCS), Mechanism::oaep(CKM_SHA256, CKG_MGF1_SHA256)]
        {
            let ciphertext = session.run(Family::Encrypt, &mechanism, public, b"data").unwrap();
            assert_eq!(ciphertext.len(), 128);
            let plaintext = session.run(Family::Decrypt, &mechanism, private, &ciphertext);
            assert_eq!(plaintext.unwrap(), b"data");
        }
        let pkcs1 = Mechanism::plain(CKM_RSA_PKCS);
        let long = session.sign(&pkcs1, private, &[1; 118]);
        assert_eq!(long, Err(CKR_DATA_LEN_RANGE), "1024 bits hold 117 bytes");
    }
}

/// Before api-version 2025-07-01 the size of an AES key is asked for with that version. A service
/// that does not know it hides no key: it is shown without the mechanisms that need its size.
#[test]
fn an_aes_key_of_unknown_size_is_shown_and_not_used() {
    const SEED: &str = "keys = [
        { name = 'old', kty = 'oct-HSM', size = 256, ops = ['encrypt', 'decrypt'] },
        { name = 'new', kty = 'oct-HSM', size = 192, ops = ['encrypt', 'decrypt'] },
    ]";
    // The first request for each name is the plain one, the second has the new version.
    const REFUSED: &str = "[[fault]]\nservice = 'managed-hsm:hsm1'\noperation = 'keys/get'\n\
        name = 'old'\nskip = 1\ntimes = 1\nstatus = 400\ncode = 'BadParameter'\n";
    let emulator = Emulator::with(SEED, REFUSED);
    let module = Module::start(&emulator.token(HSM, "cache_ttl = '0s'\n"));
    let session = module.open(0);
    let cbc = Mechanism { kind: CKM_AES_CBC, parameter: Parameter::Bytes(vec![1; 16]) };
    let new = session.object(CKO_SECRET_KEY, "new");
    assert_eq!(session.number(new, CKA_VALUE_LEN), Ok(24));
    session.run(Family::Encrypt, &cbc, new, &[7; 16]).unwrap();
    let old = session.object(CKO_SECRET_KEY, "old");
    assert_eq!(session.number(old, CKA_KEY_TYPE), Ok(CKK_AES));
    assert_eq!(session.number(old, CKA_VALUE_LEN), Err(CKR_ATTRIBUTE_TYPE_INVALID));
    assert_eq!(session.value(old, CKA_ALLOWED_MECHANISMS), Ok(vec![]));
    emulator.reset();
    for kind in [CKM_AES_CBC, CKM_AES_CBC_PAD] {
        let refused = session.init(Family::Encrypt, &Mechanism { kind, ..cbc.clone() }, old);
        assert_eq!(refused, Err(CKR_KEY_SIZE_RANGE), "{kind:#x}");
    }
    assert_eq!(emulator.requests(HSM), 0, "refused without asking again");
    session.find(&[number(CKA_CLASS, CKO_SECRET_KEY), bytes(CKA_LABEL, "old")]).unwrap();
    let asked = emulator.counts(HSM).get("keys/get").copied();
    assert_eq!(asked, Some(1), "the size of a version is asked for once");
}

/// A vault has no AES keys, so nothing is asked about their sizes.
#[test]
fn a_vault_is_not_asked_for_sizes() {
    let emulator = Emulator::start("keys = [{ name = 'ec', kty = 'EC', curve = 'P-256' }]");
    let module = Module::start(&emulator.token(VAULT, ""));
    let session = module.open(0);
    session.pair("ec");
    assert_eq!(emulator.counts(VAULT).get("keys/get"), Some(&1));
}
