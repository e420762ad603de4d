//! RSA encryption and decryption: PKCS#1 v1.5 and OAEP, both ways against OpenSSL, on keys of a
//! vault, of an HSM and of a session; and what is told about a ciphertext that was tampered with.

use cryptoki_sys::*;
use openssl::{
    encrypt::Encrypter,
    hash::MessageDigest,
    pkey::{PKey, Public},
    rsa::Padding,
};

use crate::{
    service::{Emulator, VAULT},
    signing::{RSA_KEYS, SEED, public_key, session_rsa},
    token::{Family, Mechanism, Module, Parameter},
};

const PLAINTEXT: &[u8] = b"forty-eight bytes: as long as a premaster secret";

/// What OpenSSL makes of the same parameters.
enum Oracle {
    Pkcs1,
    Oaep(MessageDigest),
}

impl Oracle {
    fn encrypt(&self, key: &PKey<Public>, data: &[u8]) -> Vec<u8> {
        let mut encrypter = Encrypter::new(key).expect("encrypter");
        match self {
            Oracle::Pkcs1 => encrypter.set_rsa_padding(Padding::PKCS1).expect("padding"),
            Oracle::Oaep(md) => {
                encrypter.set_rsa_padding(Padding::PKCS1_OAEP).expect("padding");
                encrypter.set_rsa_oaep_md(*md).expect("hash");
                encrypter.set_rsa_mgf1_md(*md).expect("MGF1 hash");
            }
        }
        let mut ciphertext = vec![0; encrypter.encrypt_len(data).expect("length")];
        let length = encrypter.encrypt(data, &mut ciphertext).expect("ciphertext");
        ciphertext.truncate(length);
        ciphertext
    }
}

fn oaep(hash: CK_MECHANISM_TYPE, mgf: CK_ULONG, source: CK_ULONG, label: &[u8]) -> Mechanism {
    let parameter = Parameter::Oaep { hash, mgf, source, label: label.to_vec() };
    Mechanism { kind: CKM_RSA_PKCS_OAEP, parameter }
}

#[test]
fn what_openssl_encrypts_is_decrypted_by_every_kind_of_key() {
    let cases = [
        (Mechanism::plain(CKM_RSA_PKCS), Oracle::Pkcs1),
        (Mechanism::oaep(CKM_SHA_1, CKG_MGF1_SHA1), Oracle::Oaep(MessageDigest::sha1())),
        (Mechanism::oaep(CKM_SHA256, CKG_MGF1_SHA256), Oracle::Oaep(MessageDigest::sha256())),
        // What clients leave out: the source with an empty label (libp11), the MGF, both hashes
        // (pkcs11-provider, which has a source).
        (oaep(CKM_SHA256, CKG_MGF1_SHA256, 0, b""), Oracle::Oaep(MessageDigest::sha256())),
        (oaep(CKM_SHA256, 0, 0, b""), Oracle::Oaep(MessageDigest::sha256())),
        (oaep(0, 0, CKZ_DATA_SPECIFIED, b""), Oracle::Oaep(MessageDigest::sha1())),
    ];
    let emulator = Emulator::start(&SEED);
    let module = Module::start(&emulator.tokens());
    for slot in [0, 1] {
        let session = module.open(slot);
        for (name, bits) in RSA_KEYS {
            let (public, private) = session_rsa(&session, bits);
            for (private, public) in [session.pair(name), (private, public)] {
                let key = public_key(&session, public);
                for (mechanism, oracle) in &cases {
                    let what = format!("slot {slot}, {name}, {mechanism:?}");
                    for data in [PLAINTEXT, &[], &[0], &[0, 0, 7]] {
                        let ciphertext = oracle.encrypt(&key, data);
                        let plaintext =
                            session.run(Family::Decrypt, mechanism, private, &ciphertext);
                        assert_eq!(plaintext.as_deref(), Ok(data), "{what}");
                        let own =
                            session.run(Family::Encrypt, mechanism, public, data).expect(&what);
                        let plaintext = session.run(Family::Decrypt, mechanism, private, &own);
                        assert_eq!(plaintext.as_deref(), Ok(data), "{what}, our own");
                    }
                }
            }
        }
    }
}

/// The service has two kinds of OAEP; what it lacks is refused by C_DecryptInit.
#[test]
fn oaep_parameters_are_the_services_or_refused_at_init() {
    let hashes = [
        (CKM_SHA_1, CKG_MGF1_SHA1),
        (CKM_SHA224, CKG_MGF1_SHA224),
        (CKM_SHA256, CKG_MGF1_SHA256),
        (CKM_SHA384, CKG_MGF1_SHA384),
        (CKM_SHA512, CKG_MGF1_SHA512),
    ];
    let emulator = Emulator::start(&SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let (private, _) = session.pair("rsa2048");
    let (here_public, here) = session_rsa(&session, 2048);
    emulator.reset();
    for (hash, own_mgf) in hashes {
        for (_, mgf) in hashes {
            for label in [&b""[..], b"label"] {
                let mechanism = oaep(hash, mgf, CKZ_DATA_SPECIFIED, label);
                let possible =
                    [CKM_SHA_1, CKM_SHA256].contains(&hash) && mgf == own_mgf && label.is_empty();
                let wanted = if possible { Ok(()) } else { Err(CKR_MECHANISM_PARAM_INVALID) };
                let outcome = session.init(Family::Decrypt, &mechanism, private);
                assert_eq!(outcome, wanted, "{mechanism:?}");
                session.init_null(Family::Decrypt).unwrap();
                // A session key lives here, where all of them work.
                let own = session.run(Family::Encrypt, &mechanism, here_public, PLAINTEXT).unwrap();
                let plaintext = session.run(Family::Decrypt, &mechanism, here, &own);
                assert_eq!(plaintext.as_deref(), Ok(PLAINTEXT), "{mechanism:?}");
            }
        }
    }
    for (what, mechanism) in [
        ("no parameter", Mechanism::plain(CKM_RSA_PKCS_OAEP)),
        ("short", Mechanism { kind: CKM_RSA_PKCS_OAEP, parameter: Parameter::Bytes(vec![0; 39]) }),
        ("unknown hash", oaep(CKM_MD5, CKG_MGF1_SHA1, CKZ_DATA_SPECIFIED, b"")),
        ("unknown MGF", oaep(CKM_SHA_1, 0x7777, CKZ_DATA_SPECIFIED, b"")),
    ] {
        for (family, key) in [(Family::Decrypt, private), (Family::Encrypt, here_public)] {
            let refused = session.init(family, &mechanism, key);
            assert_eq!(refused, Err(CKR_MECHANISM_PARAM_INVALID), "{what}");
        }
    }
    assert_eq!(emulator.requests(VAULT), 0);
}

/// Whatever is wrong with a ciphertext of the right length, the answer is one and the same.
#[test]
fn ciphertexts_that_do_not_decrypt_fail_alike() {
    let emulator = Emulator::start(&SEED);
    let module = Module::start(&emulator.tokens());
    for slot in [0, 1] {
        let session = module.open(slot);
        let (here_public, here) = session_rsa(&session, 2048);
        for (private, public) in [session.pair("rsa2048"), (here, here_public)] {
            let key = public_key(&session, public);
            let raw = |block: &[u8]| {
                let mut out = vec![0; 256];
                let rsa = key.rsa().expect("RSA");
                rsa.public_encrypt(block, &mut out, Padding::NONE).expect("raw");
                out
            };
            // Blocks with right and wrong beginnings, without end, with a short padding string.
            let block = |start: [u8; 2], zero: usize| {
                let mut block = vec![0xAA; 256];
                block[..2].copy_from_slice(&start);
                block[zero] = 0;
                block
            };
            for (name, mechanism, oracle) in [
                ("PKCS#1", Mechanism::plain(CKM_RSA_PKCS), Oracle::Pkcs1),
                (
                    "OAEP",
                    Mechanism::oaep(CKM_SHA256, CKG_MGF1_SHA256),
                    Oracle::Oaep(MessageDigest::sha256()),
                ),
            ] {
                let mut flipped = oracle.encrypt(&key, PLAINTEXT);
                flipped[100] ^= 0x10;
                for (what, ciphertext) in [
                    ("one bit", flipped),
                    ("zeros", vec![0; 256]),
                    ("not below the modulus", vec![0xFF; 256]),
                    ("another block type", raw(&block([0, 1], 100))),
                    ("no leading zero", raw(&block([0x01, 2], 100))),
                    ("no end of padding", raw(&block([0, 2], 0))),
                    ("short padding", raw(&block([0, 2], 5))),
                ] {
                    let outcome = session.run(Family::Decrypt, &mechanism, private, &ciphertext);
                    assert_eq!(
                        outcome,
                        Err(CKR_ENCRYPTED_DATA_INVALID),
                        "slot {slot}, {name}, {what}"
                    );
                }
                for length in [0, 1, 255, 257] {
                    let outcome =
                        session.run(Family::Decrypt, &mechanism, private, &vec![1; length]);
                    assert_eq!(outcome, Err(CKR_ENCRYPTED_DATA_LEN_RANGE), "{name}, {length}");
                }
            }
        }
    }
}

#[test]
fn more_plaintext_than_fits_is_refused() {
    let emulator = Emulator::start(&SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let (_, public) = session.pair("rsa2048");
    for (mechanism, most) in [
        (Mechanism::plain(CKM_RSA_PKCS), 245),
        (Mechanism::oaep(CKM_SHA_1, CKG_MGF1_SHA1), 214),
        (Mechanism::oaep(CKM_SHA256, CKG_MGF1_SHA256), 190),
    ] {
        session.run(Family::Encrypt, &mechanism, public, &vec![1; most]).unwrap();
        let long = session.run(Family::Encrypt, &mechanism, public, &vec![1; most + 1]);
        assert_eq!(long, Err(CKR_DATA_LEN_RANGE), "{mechanism:?}");
    }
}

#[test]
fn pkcs1_decryption_can_be_switched_off() {
    let emulator = Emulator::start(&SEED);
    let module = Module::start(&emulator.token(VAULT, "rsa_pkcs1_decrypt = false"));
    let session = module.open(0);
    let (private, public) = session.pair("rsa2048");
    let pkcs1 = Mechanism::plain(CKM_RSA_PKCS);
    let flags = module.mechanism_info(0, CKM_RSA_PKCS).unwrap().flags;
    assert_eq!(flags & (CKF_DECRYPT | CKF_ENCRYPT | CKF_SIGN), CKF_ENCRYPT | CKF_SIGN);
    let refused = session.init(Family::Decrypt, &pkcs1, private);
    assert_eq!(refused, Err(CKR_MECHANISM_INVALID));
    session.run(Family::Encrypt, &pkcs1, public, b"data").unwrap();
    let oaep = Mechanism::oaep(CKM_SHA_1, CKG_MGF1_SHA1);
    let ciphertext = session.run(Family::Encrypt, &oaep, public, b"data").unwrap();
    assert_eq!(session.run(Family::Decrypt, &oaep, private, &ciphertext).unwrap(), b"data");
}
