//! Signatures: every mechanism that is listed, on every kind of key, of a vault, of an HSM and of
//! a session, one-shot and in parts; each is checked by OpenSSL and by the module.

mod cases;

use std::sync::LazyLock;

use cryptoki_sys::*;
use openssl::{
    hash::MessageDigest,
    pkey::{PKey, Public},
    rsa::{Padding, Rsa},
};

use self::cases::{Case, DATA, Scheme, cases, digest_info, digest_info_of, ecdsa_is_good};
use crate::{
    service::Emulator,
    token::{Family, Mechanism, Module, Parameter, Session, bytes, flag, number},
};

/// DER of the object identifiers of the curves.
pub const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
pub const P256K: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];
pub const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
pub const P521: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];

/// The keys every test here knows: the emulator's demonstration, by name.
pub const RSA_KEYS: [(&str, CK_ULONG); 3] =
    [("rsa2048", 2048), ("rsa3072", 3072), ("rsa4096", 4096)];
pub const EC_KEYS: [(&str, &[u8]); 4] =
    [("p256", P256), ("p256k", P256K), ("p384", P384), ("p521", P521)];

/// A seed with those keys, the RSA keys made once for all tests; `oct` keys are the HSM's only.
pub static SEED: LazyLock<String> = LazyLock::new(|| {
    let mut seed = String::from(
        "keys = [
            { name = 'p256', kty = 'EC', curve = 'P-256' },
            { name = 'p256k', kty = 'EC', curve = 'P-256K' },
            { name = 'p384', kty = 'EC', curve = 'P-384' },
            { name = 'p521', kty = 'EC', curve = 'P-521' },
            { name = 'aes256', kty = 'oct-HSM', size = 256,
              ops = ['encrypt', 'decrypt', 'wrapKey', 'unwrapKey'] },",
    );
    for (name, bits) in RSA_KEYS {
        let key = Rsa::generate(bits as u32).and_then(PKey::from_rsa).expect("a key");
        let pem = String::from_utf8(key.private_key_to_pem_pkcs8().expect("PEM")).expect("PEM");
        seed += &format!("{{ name = '{name}', pem = \"\"\"{pem}\"\"\" }},");
    }
    seed + "]"
});

/// The public key of an object, as OpenSSL reads it.
pub fn public_key(session: &Session<'_>, object: CK_OBJECT_HANDLE) -> PKey<Public> {
    let der = session.value(object, CKA_PUBLIC_KEY_INFO).expect("CKA_PUBLIC_KEY_INFO");
    PKey::public_key_from_der(&der).expect("a SubjectPublicKeyInfo")
}

/// A session pair: RSA of so many bits.
pub fn session_rsa(session: &Session<'_>, bits: CK_ULONG) -> (CK_OBJECT_HANDLE, CK_OBJECT_HANDLE) {
    let mechanism = Mechanism::plain(CKM_RSA_PKCS_KEY_PAIR_GEN);
    let public = [number(CKA_MODULUS_BITS, bits)];
    session.generate(&mechanism, &public, &[flag(CKA_TOKEN, false)]).expect("a pair")
}

/// A session pair on a curve.
pub fn session_ec(session: &Session<'_>, params: &[u8]) -> (CK_OBJECT_HANDLE, CK_OBJECT_HANDLE) {
    let mechanism = Mechanism::plain(CKM_EC_KEY_PAIR_GEN);
    let public = [bytes(CKA_EC_PARAMS, params)];
    session.generate(&mechanism, &public, &[flag(CKA_TOKEN, false)]).expect("a pair")
}

/// Every pair a session can sign with, by name: the service's and pairs of its own.
fn pairs(session: &Session<'_>) -> Vec<(String, CK_KEY_TYPE, CK_OBJECT_HANDLE, CK_OBJECT_HANDLE)> {
    let mut pairs = Vec::new();
    for (name, bits) in RSA_KEYS {
        let (private, public) = session.pair(name);
        pairs.push((name.to_owned(), CKK_RSA, private, public));
        let (public, private) = session_rsa(session, bits);
        pairs.push((format!("session {name}"), CKK_RSA, private, public));
    }
    for (name, params) in EC_KEYS {
        let (private, public) = session.pair(name);
        pairs.push((name.to_owned(), CKK_EC, private, public));
        let (public, private) = session_ec(session, params);
        pairs.push((format!("session {name}"), CKK_EC, private, public));
    }
    pairs
}

fn key_type(case: &Case) -> CK_KEY_TYPE {
    if case.scheme == Scheme::Ecdsa { CKK_EC } else { CKK_RSA }
}

#[test]
fn every_listed_mechanism_signs_and_verifies_with_every_kind_of_key() {
    let emulator = Emulator::start(&SEED);
    let module = Module::start(&emulator.tokens());
    for slot in [0, 1] {
        let session = module.open(slot);
        let pairs = pairs(&session);
        for kind in module.mechanisms(slot) {
            let uses = module.mechanism_info(slot, kind).unwrap().flags;
            if uses & (CKF_SIGN | CKF_VERIFY) == 0 {
                continue;
            }
            for case in cases(kind) {
                let fitting = pairs.iter().filter(|(_, kind, ..)| *kind == key_type(&case));
                for (name, _, private, public) in fitting {
                    let what = format!("slot {slot}, {name}, mechanism {kind:#x}");
                    // With session keys more is possible than with the service's, which say so.
                    let allowed = session.value(*private, CKA_ALLOWED_MECHANISMS).unwrap();
                    if !allowed.as_chunks().0.contains(&kind.to_ne_bytes()) {
                        assert!(!name.starts_with("session"), "{what}");
                        let refused = session.init(Family::Sign, &case.mechanism, *private);
                        assert_eq!(refused, Err(CKR_MECHANISM_INVALID), "{what}");
                        continue;
                    }
                    signs(&session, &case, *private, *public, &what);
                }
            }
        }
    }
}

fn signs(
    session: &Session<'_>,
    case: &Case,
    private: CK_OBJECT_HANDLE,
    public: CK_OBJECT_HANDLE,
    what: &str,
) {
    let (input, mechanism) = (case.input(), &case.mechanism);
    let oracle = public_key(session, public);
    let whole = session.sign(mechanism, private, &input).expect(what);
    assert!(case.is_good(&oracle, &whole), "{what}");

    session.init(Family::Sign, mechanism, private).unwrap();
    for part in [&input[..1], &input[1..1], &input[1..8], &input[8..]] {
        session.update(Family::Sign, part).expect(what);
    }
    let parts = session.last(Family::Sign).expect(what);
    assert!(case.is_good(&oracle, &parts), "{what}, in parts");

    for signature in [&whole, &parts] {
        assert_eq!(session.verify(mechanism, public, &input, signature), Ok(()), "{what}");
        session.init(Family::Verify, mechanism, public).unwrap();
        session.update(Family::Verify, &input[..5]).unwrap();
        session.update(Family::Verify, &input[5..]).unwrap();
        assert_eq!(session.verify_last(signature), Ok(()), "{what}, in parts");
    }
    // One bit of the signature, one of the data, and both lengths around the right one.
    let mut other = whole.clone();
    other[whole.len() / 2] ^= 1;
    assert_eq!(
        session.verify(mechanism, public, &input, &other),
        Err(CKR_SIGNATURE_INVALID),
        "{what}"
    );
    let mut data = input.clone();
    data[0] ^= 1;
    assert_eq!(
        session.verify(mechanism, public, &data, &whole),
        Err(CKR_SIGNATURE_INVALID),
        "{what}"
    );
    for length in [0, whole.len() - 1, whole.len() + 1] {
        let mut wrong = whole.clone();
        wrong.resize(length, 0);
        assert_eq!(
            session.verify(mechanism, public, &input, &wrong),
            Err(CKR_SIGNATURE_LEN_RANGE),
            "{what}, {length} bytes"
        );
    }
}

/// Any digest with any curve, as long as it fits what the service takes.
#[test]
fn ecdsa_takes_digests_of_any_length() {
    let emulator = Emulator::start(&SEED);
    let module = Module::start(&emulator.tokens());
    let ecdsa = Mechanism::plain(CKM_ECDSA);
    let session = module.open(0);
    for (name, params) in EC_KEYS {
        let (private, public) = session.pair(name);
        let (session_public, session_private) = session_ec(&session, params);
        let pairs = [("service", private, public), ("session", session_private, session_public)];
        for (owner, private, public) in pairs {
            let oracle = public_key(&session, public);
            for length in (1..=66).chain([127, 128]) {
                let digest: Vec<u8> = (0..length).map(|i| (i * 7 + 0x81) as u8).collect();
                let what = format!("{name} of the {owner}, {length} bytes");
                match session.sign(&ecdsa, private, &digest) {
                    Ok(signature) => {
                        assert!(ecdsa_is_good(&oracle, &digest, &signature), "{what}");
                        session.verify(&ecdsa, public, &digest, &signature).expect(&what);
                    }
                    // Its leftmost 521 bits are no number of 64 bytes, the most the service takes.
                    Err(rv) => {
                        let limit = ("p521", "service", CKR_DATA_LEN_RANGE);
                        assert_eq!((name, owner, rv), limit, "{what}");
                        assert!(length > 64, "{what}");
                    }
                }
            }
            let mut digest = vec![0x55; 65];
            digest[0] = 0;
            let signature = session.sign(&ecdsa, private, &digest).expect(name);
            assert!(ecdsa_is_good(&oracle, &digest, &signature), "{name}, a leading zero");
        }
    }
}

/// A key on secp256k1 from before 7.0 signs by the algorithm's old name, and no other.
#[test]
fn a_key_from_before_7_0_signs() {
    let seed = "keys = [{ name = 'old', kty = 'EC', curve = 'SECP256K1' }]";
    let emulator = Emulator::start(seed);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let (private, public) = session.pair("old");
    assert_eq!(session.value(public, CKA_EC_PARAMS).expect("a curve"), P256K);
    let ecdsa = Mechanism::plain(CKM_ECDSA);
    let signature = session.sign(&ecdsa, private, &[7; 32]).expect("a signature");
    assert!(ecdsa_is_good(&public_key(&session, public), &[7; 32], &signature));
    session.verify(&ecdsa, public, &[7; 32], &signature).expect("verification");
}

/// What CKM_RSA_PKCS is given is what is signed, DigestInfo or not.
#[test]
fn rsa_pkcs_signs_what_it_is_given_or_says_that_it_cannot() {
    const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
    let inputs: Vec<(&str, Vec<u8>, bool)> = vec![
        ("SHA-256", digest_info(MessageDigest::sha256(), DATA), true),
        ("SHA-384", digest_info(MessageDigest::sha384(), DATA), true),
        ("SHA-512", digest_info(MessageDigest::sha512(), DATA), true),
        ("SHA-1", digest_info(MessageDigest::sha1(), DATA), false),
        ("SHA-224", digest_info(MessageDigest::sha224(), DATA), false),
        ("SHA3-256", digest_info(MessageDigest::sha3_256(), DATA), false),
        ("SHA-256 without NULL", digest_info_of(SHA256, &[], &[7; 32]), false),
        ("SHA-256 of 31 bytes", digest_info_of(SHA256, &[5, 0], &[7; 31]), false),
        (
            "a DigestInfo and one byte",
            {
                let mut info = digest_info(MessageDigest::sha256(), DATA);
                info.push(0);
                info
            },
            false,
        ),
        ("a bare digest", vec![9; 32], false),
        ("TLS 1.1", vec![8; 36], false),
        ("one byte", vec![1], false),
        ("the most", vec![3; 245], false),
    ];
    let emulator = Emulator::start(&SEED);
    let module = Module::start(&emulator.tokens());
    let mechanism = Mechanism::plain(CKM_RSA_PKCS);
    for slot in [0, 1] {
        let session = module.open(slot);
        let (private, public) = session.pair("rsa2048");
        let oracle = public_key(&session, public).rsa().expect("RSA");
        for (name, input, everywhere) in &inputs {
            let signature = session.sign(&mechanism, private, input);
            // A Managed HSM has no RSNULL until the configuration says so.
            if slot == 1 && !everywhere {
                assert_eq!(signature, Err(CKR_DATA_INVALID), "{name}");
                continue;
            }
            let signature = signature.expect(name);
            let mut recovered = vec![0; 256];
            let length = oracle
                .public_decrypt(&signature, &mut recovered, Padding::PKCS1)
                .expect("PKCS#1 padding");
            assert_eq!(recovered[..length], input[..], "{name}");
            session.verify(&mechanism, public, input, &signature).expect(name);
        }
        let long = session.sign(&mechanism, private, &[3; 246]);
        assert_eq!(long, Err(CKR_DATA_LEN_RANGE));
    }
    let module = Module::start(&emulator.token(crate::service::HSM, "rsnull = true"));
    let session = module.open(0);
    let (private, public) = session.pair("rsa2048");
    let signature = session.sign(&mechanism, private, &[8; 36]).unwrap();
    session.verify(&mechanism, public, &[8; 36], &signature).unwrap();
}

/// The service's PSS has one hash, one MGF and one salt; p11test tries them all.
#[test]
fn pss_parameters_are_the_services_or_refused_at_init() {
    let hashes = [
        (CKM_SHA_1, CKG_MGF1_SHA1, 20),
        (CKM_SHA224, CKG_MGF1_SHA224, 28),
        (CKM_SHA256, CKG_MGF1_SHA256, 32),
        (CKM_SHA384, CKG_MGF1_SHA384, 48),
        (CKM_SHA512, CKG_MGF1_SHA512, 64),
        (CKM_SHA3_256, CKG_MGF1_SHA3_256, 32),
        (CKM_MD5, 0, 16),
    ];
    let mechanisms = [
        (CKM_RSA_PKCS_PSS, None),
        (CKM_SHA256_RSA_PKCS_PSS, Some(CKM_SHA256)),
        (CKM_SHA384_RSA_PKCS_PSS, Some(CKM_SHA384)),
        (CKM_SHA512_RSA_PKCS_PSS, Some(CKM_SHA512)),
    ];
    let emulator = Emulator::start(&SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let (private, _) = session.pair("rsa2048");
    emulator.reset();
    let mut good = 0;
    for (kind, fixed) in mechanisms {
        for (hash, own_mgf, length) in hashes {
            for (_, mgf, _) in hashes {
                for salt in [0, 20, 32, 48, 64, 190, usize::MAX] {
                    let mechanism = Mechanism::pss(kind, hash, mgf, salt);
                    let possible = [CKM_SHA256, CKM_SHA384, CKM_SHA512].contains(&hash)
                        && mgf == own_mgf
                        && salt == length
                        && fixed.is_none_or(|fixed| fixed == hash);
                    let outcome = session.init(Family::Sign, &mechanism, private);
                    if possible {
                        good += 1;
                        assert_eq!(outcome, Ok(()), "{mechanism:?}");
                        session.init_null(Family::Sign).unwrap();
                    } else {
                        assert_eq!(outcome, Err(CKR_MECHANISM_PARAM_INVALID), "{mechanism:?}");
                    }
                }
            }
        }
    }
    assert_eq!(good, 6);
    for (parameter, wanted) in [
        (Parameter::None, CKR_MECHANISM_PARAM_INVALID),
        (Parameter::Bytes(vec![0; 23]), CKR_MECHANISM_PARAM_INVALID),
        (Parameter::Bytes(vec![0; 25]), CKR_MECHANISM_PARAM_INVALID),
        (Parameter::Bytes(vec![]), CKR_MECHANISM_PARAM_INVALID),
    ] {
        let mechanism = Mechanism { kind: CKM_RSA_PKCS_PSS, parameter };
        assert_eq!(session.init(Family::Sign, &mechanism, private), Err(wanted));
    }
    // A digest of another length is found when it comes.
    let mechanism = Mechanism::pss(CKM_RSA_PKCS_PSS, CKM_SHA256, CKG_MGF1_SHA256, 32);
    for length in [0, 20, 31, 33, 64] {
        assert_eq!(
            session.sign(&mechanism, private, &vec![1; length]),
            Err(CKR_DATA_LEN_RANGE),
            "{length}"
        );
    }
    assert_eq!(emulator.requests(crate::service::VAULT), 0);
}

/// A mechanism without parameter takes none.
#[test]
fn a_parameter_where_there_is_none_is_refused() {
    let emulator = Emulator::start(&SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let rsa = session.object(CKO_PRIVATE_KEY, "rsa2048");
    let ec = session.object(CKO_PRIVATE_KEY, "p256");
    for (kind, key) in
        [(CKM_RSA_PKCS, rsa), (CKM_SHA256_RSA_PKCS, rsa), (CKM_ECDSA, ec), (CKM_ECDSA_SHA256, ec)]
    {
        let mechanism = Mechanism { kind, parameter: Parameter::Bytes(vec![0; 4]) };
        let refused = Err(CKR_MECHANISM_PARAM_INVALID);
        assert_eq!(session.init(Family::Sign, &mechanism, key), refused, "{kind:#x}");
    }
    for kind in [CKM_SHA_1, CKM_SHA256] {
        let mechanism = Mechanism { kind, parameter: Parameter::Bytes(vec![0; 4]) };
        let refused = Err(CKR_MECHANISM_PARAM_INVALID);
        assert_eq!(session.init(Family::Digest, &mechanism, 0), refused, "{kind:#x}");
    }
}

/// What cannot be signed with is refused by C_SignInit, and nothing is active afterwards.
#[test]
fn a_key_that_does_not_fit_is_refused_at_init() {
    let emulator = Emulator::start(
        "keys = [
            { name = 'rsa', kty = 'RSA', size = 2048 },
            { name = 'ec', kty = 'EC', curve = 'P-256' },
            { name = 'decrypts', kty = 'RSA', size = 2048, ops = ['decrypt'] },
            { name = 'verifies', kty = 'EC', curve = 'P-256', ops = ['verify'] },
            { name = 'off', kty = 'EC', curve = 'P-256', enabled = false },
            { name = 'aes', kty = 'oct-HSM', size = 256 },
        ]
        certificates = [{ name = 'tls', subject = 'CN=tls', kty = 'EC', curve = 'P-256' }]",
    );
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let hsm = module.open(1);
    let private = |name| session.object(CKO_PRIVATE_KEY, name);
    let public = |name| session.object(CKO_PUBLIC_KEY, name);
    let ecdsa = Mechanism::plain(CKM_ECDSA);
    let pkcs1 = Mechanism::plain(CKM_RSA_PKCS);
    let unknown = Mechanism::plain(CKM_AES_CBC);
    let certificate = session.object(CKO_CERTIFICATE, "tls");
    use Family::{Decrypt, Encrypt, Sign, Verify};
    for (what, session, family, mechanism, key, wanted) in [
        ("EC key, RSA mechanism", &session, Sign, &pkcs1, private("ec"), CKR_KEY_TYPE_INCONSISTENT),
        (
            "RSA key, EC mechanism",
            &session,
            Sign,
            &ecdsa,
            private("rsa"),
            CKR_KEY_TYPE_INCONSISTENT,
        ),
        ("a public key signs", &session, Sign, &ecdsa, public("ec"), CKR_KEY_TYPE_INCONSISTENT),
        (
            "a private key verifies",
            &session,
            Verify,
            &ecdsa,
            private("ec"),
            CKR_KEY_TYPE_INCONSISTENT,
        ),
        (
            "a private key encrypts",
            &session,
            Encrypt,
            &pkcs1,
            private("rsa"),
            CKR_KEY_TYPE_INCONSISTENT,
        ),
        (
            "a public key decrypts",
            &session,
            Decrypt,
            &pkcs1,
            public("rsa"),
            CKR_KEY_TYPE_INCONSISTENT,
        ),
        ("ECDSA decrypts", &session, Decrypt, &ecdsa, private("ec"), CKR_MECHANISM_INVALID),
        (
            "not in key_ops",
            &session,
            Sign,
            &pkcs1,
            private("decrypts"),
            CKR_KEY_FUNCTION_NOT_PERMITTED,
        ),
        (
            "verify only",
            &session,
            Sign,
            &ecdsa,
            private("verifies"),
            CKR_KEY_FUNCTION_NOT_PERMITTED,
        ),
        ("disabled", &session, Sign, &ecdsa, private("off"), CKR_KEY_FUNCTION_NOT_PERMITTED),
        ("not listed", &session, Sign, &unknown, private("ec"), CKR_MECHANISM_INVALID),
        ("no handle", &session, Sign, &ecdsa, 0, CKR_KEY_HANDLE_INVALID),
        ("a stranger's handle", &session, Sign, &ecdsa, 4711, CKR_KEY_HANDLE_INVALID),
        ("the session's handle", &session, Sign, &ecdsa, CK_ULONG::MAX, CKR_KEY_HANDLE_INVALID),
        ("a certificate", &session, Sign, &ecdsa, certificate, CKR_KEY_HANDLE_INVALID),
        (
            "an AES key",
            &hsm,
            Sign,
            &ecdsa,
            hsm.object(CKO_SECRET_KEY, "aes"),
            CKR_KEY_TYPE_INCONSISTENT,
        ),
    ] {
        assert_eq!(session.init(family, mechanism, key), Err(wanted), "{what}");
        if family != Verify {
            let idle = session.one_shot(family, &[1; 32]);
            assert_eq!(idle, Err(CKR_OPERATION_NOT_INITIALIZED), "{what}");
        }
    }
    // The public key of a disabled or sign-only key verifies all the same: it is local.
    session.init(Family::Verify, &ecdsa, public("off")).unwrap();
}
