//! What does not decrypt fails alike, whatever is wrong with it: the same code, the same words in
//! the log, the same requests. Anything else would decrypt for whoever may ask often enough.

use std::{fs, path::Path};

use cryptoki_sys::*;
use openssl::{
    bn::BigNum,
    rsa::{Padding, Rsa},
};

use crate::{
    service::{Emulator, HSM, VAULT},
    signing::session_rsa,
    token::{Family, Mechanism, Module, Parameter, Rv, Session, bytes, number},
};

const SEED: &str = "
keys = [
    { name = 'rsa', kty = 'RSA', size = 2048 },
    { name = 'aes', kty = 'oct-HSM', size = 256 },
]";

/// The lines that were written since the last call, without what differs between any two calls:
/// times, lengths of time, ids of requests.
fn told(log: &Path, seen: &mut usize) -> Vec<String> {
    let text = fs::read_to_string(log).expect("the log");
    let new = text[*seen..].lines().map(|line| {
        let words = line.split(' ').skip(2).map(|word| match word.matches('-').count() {
            4.. if word.len() >= 36 => "ID".to_owned(),
            _ => word.replace(|c: char| c.is_ascii_digit(), "#").replace("##", "#"),
        });
        words.collect::<Vec<_>>().join(" ")
    });
    let new = new.collect();
    *seen = text.len();
    new
}

/// A module that logs everything, and its log.
fn talkative(emulator: &Emulator) -> (Module, std::path::PathBuf) {
    let log = emulator.folder.path().join("log");
    let sink = format!("log = {{ level = 'trace', sink = 'file:{}' }}\n", log.display());
    let module = Module::load();
    module.initialize_as_is(&format!("{sink}{}", emulator.tokens())).unwrap();
    (module, log)
}

/// Runs each case; all of them must end with `wanted`, after the same number of requests, with
/// the same lines in the log.
fn all_alike<'c>(
    emulator: &Emulator,
    log: &Path,
    wanted: CK_RV,
    cases: impl IntoIterator<Item = (&'c str, Vec<u8>)>,
    decrypt: impl Fn(&[u8]) -> Rv<Vec<u8>>,
) {
    let (mut seen, mut first) = (0, None);
    told(log, &mut seen);
    for (what, ciphertext) in cases {
        emulator.reset();
        assert_eq!(decrypt(&ciphertext), Err(wanted), "{what}");
        let is = (emulator.counts(VAULT), emulator.counts(HSM), told(log, &mut seen));
        assert!(!is.2.is_empty(), "a log at level trace");
        assert_eq!(&is, first.get_or_insert_with(|| is.clone()), "{what}");
    }
}

/// Blocks that no PKCS#1 encryption makes, encrypted.
fn wrong_blocks(session: &Session<'_>, public: CK_OBJECT_HANDLE) -> Vec<(&'static str, Vec<u8>)> {
    let number = |kind| BigNum::from_slice(&session.value(public, kind).unwrap()).unwrap();
    let key =
        Rsa::from_public_components(number(CKA_MODULUS), number(CKA_PUBLIC_EXPONENT)).unwrap();
    let block = |start: [u8; 2], zero: usize| {
        let mut block = vec![0xAA; 256];
        block[..2].copy_from_slice(&start);
        block[zero] = 0;
        let mut out = vec![0; 256];
        key.public_encrypt(&block, &mut out, Padding::NONE).unwrap();
        out
    };
    vec![
        ("another block type", block([0, 1], 100)),
        ("no leading zero", block([1, 2], 100)),
        ("no end of the padding", block([0, 2], 0)),
        ("short padding", block([0, 2], 5)),
        ("zeros", vec![0; 256]),
        ("anything", vec![0x5A; 256]),
        ("not below the modulus", vec![0xFF; 256]),
    ]
}

#[test]
fn pkcs1_decryption_tells_nothing() {
    let emulator = Emulator::start(SEED);
    let (module, log) = talkative(&emulator);
    let pkcs1 = Mechanism::plain(CKM_RSA_PKCS);
    for slot in [0, 1] {
        let session = module.open(slot);
        let (here_public, here) = session_rsa(&session, 2048);
        for (private, public) in [session.pair("rsa"), (here, here_public)] {
            // A connection and a token are there before the first case.
            let good = session.run(Family::Encrypt, &pkcs1, public, b"data").unwrap();
            assert_eq!(session.run(Family::Decrypt, &pkcs1, private, &good).unwrap(), b"data");
            let cases = wrong_blocks(&session, public);
            all_alike(&emulator, &log, CKR_ENCRYPTED_DATA_INVALID, cases, |ciphertext| {
                session.run(Family::Decrypt, &pkcs1, private, ciphertext)
            });
        }
    }
}

#[test]
fn cbc_padding_tells_nothing() {
    let emulator = Emulator::start(SEED);
    let (module, log) = talkative(&emulator);
    let session = module.open(1);
    let here = session
        .create(&[
            number(CKA_CLASS, CKO_SECRET_KEY),
            number(CKA_KEY_TYPE, CKK_AES),
            bytes(CKA_VALUE, vec![7; 32]),
        ])
        .unwrap();
    let with = |kind| Mechanism { kind, parameter: Parameter::Bytes(vec![9; 16]) };
    let (plain, padded) = (with(CKM_AES_CBC), with(CKM_AES_CBC_PAD));
    for key in [session.object(CKO_SECRET_KEY, "aes"), here] {
        let ending = |end: &[u8]| {
            let mut blocks = vec![0x41; 48];
            blocks[48 - end.len()..].copy_from_slice(end);
            session.run(Family::Encrypt, &plain, key, &blocks).unwrap()
        };
        let good = ending(&[3, 3, 3]);
        assert_eq!(session.run(Family::Decrypt, &padded, key, &good).unwrap().len(), 45);
        let cases = || {
            [
                ("zero", ending(&[0])),
                ("seventeen", ending(&[17])),
                ("255", ending(&[255])),
                ("the first of three is wrong", ending(&[2, 3, 3])),
                ("the second of three is wrong", ending(&[3, 4, 3])),
                ("the first of sixteen is wrong", {
                    let mut block = [16; 16];
                    block[0] = 15;
                    ending(&block)
                }),
                ("another last block", [ending(&[1]), vec![0x33; 16]].concat()[16..].to_vec()),
            ]
        };
        all_alike(&emulator, &log, CKR_ENCRYPTED_DATA_INVALID, cases(), |ciphertext| {
            session.run(Family::Decrypt, &padded, key, ciphertext)
        });
        // In parts: what comes before the last block is the same, too.
        all_alike(&emulator, &log, CKR_ENCRYPTED_DATA_INVALID, cases(), |ciphertext| {
            session.init(Family::Decrypt, &padded, key)?;
            for part in ciphertext.chunks(20) {
                session.update(Family::Decrypt, part)?;
            }
            session.last(Family::Decrypt)
        });
    }
}
