//! C_FindObjects….

use cryptoki_sys::*;

use crate::{
    service::{Emulator, VAULT},
    signing::{P256, SEED, session_ec},
    token::{Family, Mechanism, Module, NOTHING, bytes, flag, number},
};

#[test]
fn a_search_gives_each_object_once_whatever_the_page() {
    let emulator = Emulator::start(&SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let template = [number(CKA_KEY_TYPE, CKK_EC)];
    let mut all = session.find(&template).unwrap();
    all.sort_unstable();
    assert_eq!(all.len(), 8, "four pairs");
    for page in [1, 2, 3, 8, 100] {
        session.find_init(&template).unwrap();
        let mut found = Vec::new();
        loop {
            let some = session.find_next(page).unwrap();
            assert!(some.len() <= page);
            if some.is_empty() {
                break;
            }
            found.extend(some);
        }
        // The end is the end, however often one asks.
        assert_eq!(session.find_next(page).unwrap(), NOTHING);
        session.find_final().unwrap();
        assert_eq!(session.find_next(page), Err(CKR_OPERATION_NOT_INITIALIZED));
        assert_eq!(session.find_final(), Err(CKR_OPERATION_NOT_INITIALIZED));
        found.sort_unstable();
        assert_eq!(found, all, "pages of {page}");
    }
}

#[test]
fn a_search_begins_once_and_ends_when_told() {
    let emulator = Emulator::start(&SEED);
    let module = Module::start(&emulator.tokens());
    let (one, other) = (module.open(0), module.open(0));
    one.find_init(&[]).unwrap();
    assert_eq!(one.find_init(&[]), Err(CKR_OPERATION_ACTIVE));
    other.find_init(&[]).unwrap();
    other.find_final().unwrap();
    assert_eq!(one.find_next(1).unwrap().len(), 1, "the first search goes on");
    // A search never stands in the way of a signature, nor a signature in its own.
    let key = other.object(CKO_PRIVATE_KEY, "p256");
    let ecdsa = Mechanism::plain(CKM_ECDSA_SHA256);
    one.init(Family::Sign, &ecdsa, key).unwrap();
    one.update(Family::Sign, b"da").unwrap();
    assert_eq!(one.find_next(2).unwrap().len(), 2);
    one.update(Family::Sign, b"ta").unwrap();
    one.cancel(CKF_FIND_OBJECTS).unwrap();
    assert_eq!(one.find_next(1), Err(CKR_OPERATION_NOT_INITIALIZED));
    let signature = one.last(Family::Sign).unwrap();
    let public = other.object(CKO_PUBLIC_KEY, "p256");
    other.verify(&ecdsa, public, b"data", &signature).unwrap();
}

#[test]
fn templates_match_exactly_or_not_at_all() {
    let emulator = Emulator::start(&SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let modulus = session.value(session.object(CKO_PUBLIC_KEY, "rsa3072"), CKA_MODULUS).unwrap();
    let private = || number(CKA_CLASS, CKO_PRIVATE_KEY);
    for (what, template, wanted) in [
        ("everything", vec![], 14),
        ("on the token", vec![flag(CKA_TOKEN, true)], 14),
        ("in the session", vec![flag(CKA_TOKEN, false)], 0),
        ("private keys", vec![private()], 7),
        ("certificates", vec![number(CKA_CLASS, CKO_CERTIFICATE)], 0),
        ("data", vec![number(CKA_CLASS, CKO_DATA)], 0),
        ("NSS trust", vec![number(CKA_CLASS, 0xce53_4353)], 0),
        ("secret keys", vec![number(CKA_CLASS, CKO_SECRET_KEY)], 0),
        ("RSA keys", vec![number(CKA_KEY_TYPE, CKK_RSA)], 6),
        ("what decrypts", vec![flag(CKA_DECRYPT, true)], 3),
        ("private keys that sign", vec![private(), flag(CKA_SIGN, true)], 7),
        ("private keys that do not", vec![private(), flag(CKA_SIGN, false)], 0),
        ("private objects", vec![flag(CKA_PRIVATE, true)], 0),
        ("a modulus", vec![bytes(CKA_MODULUS, &modulus)], 2),
        (
            "a modulus with a leading zero",
            vec![bytes(CKA_MODULUS, [&[0], &modulus[..]].concat())],
            0,
        ),
        ("a curve", vec![bytes(CKA_EC_PARAMS, P256)], 2),
        ("2048 bits", vec![number(CKA_MODULUS_BITS, 2048)], 1),
        ("an unknown attribute", vec![bytes(0x8000_0001, b"x")], 0),
        ("a secret one", vec![bytes(CKA_PRIVATE_EXPONENT, b"\x01")], 0),
        ("two labels", vec![bytes(CKA_LABEL, "p256"), bytes(CKA_LABEL, "p384")], 0),
        ("a label twice", vec![bytes(CKA_LABEL, "p256"), bytes(CKA_LABEL, "p256")], 2),
        ("an empty id", vec![bytes(CKA_ID, b"")], 0),
        ("an id", vec![bytes(CKA_ID, [7; 20])], 0),
        (
            "a label and another type",
            vec![bytes(CKA_LABEL, "p256"), number(CKA_KEY_TYPE, CKK_RSA)],
            0,
        ),
    ] {
        assert_eq!(session.find(&template).unwrap().len(), wanted, "{what}");
    }
    for bad in [
        (CKA_CLASS, vec![0; 4]),
        (CKA_TOKEN, vec![1, 0]),
        (CKA_TOKEN, vec![]),
        (CKA_KEY_TYPE, vec![]),
        (CKA_START_DATE, b"2026".to_vec()),
    ] {
        let refused = session.find_init(std::slice::from_ref(&bad));
        assert_eq!(refused, Err(CKR_ATTRIBUTE_VALUE_INVALID), "{bad:?}");
        assert_eq!(session.find_next(1), Err(CKR_OPERATION_NOT_INITIALIZED));
    }
}

/// An object of a session is everybody's, and gone with the session that made it.
#[test]
fn session_objects_go_with_their_session() {
    let emulator = Emulator::start("");
    let module = Module::start(&emulator.tokens());
    let (one, other, hsm) = (module.open(0), module.open(0), module.open(1));
    let (public, private) = session_ec(&one, P256);
    let session_keys = [flag(CKA_TOKEN, false), number(CKA_KEY_TYPE, CKK_EC)];
    assert_eq!(other.find(&session_keys).unwrap().len(), 2);
    assert_eq!(hsm.find(&session_keys).unwrap(), NOTHING, "another token's are not shown");
    let ecdsa = Mechanism::plain(CKM_ECDSA);
    let signature = other.sign(&ecdsa, private, &[1; 32]).unwrap();
    other.init(Family::Sign, &ecdsa, private).unwrap();
    one.close().unwrap();
    assert_eq!(other.find(&session_keys).unwrap(), NOTHING);
    assert_eq!(other.value(public, CKA_ID), Err(CKR_OBJECT_HANDLE_INVALID));
    let gone = other.verify(&ecdsa, public, &[1; 32], &signature);
    assert_eq!(gone, Err(CKR_KEY_HANDLE_INVALID));
    // What was begun with the key can be ended.
    other.one_shot(Family::Sign, &[1; 32]).unwrap();
    // And one that is destroyed is gone at once.
    let (public, private) = session_ec(&other, P256);
    other.destroy(private).unwrap();
    assert_eq!(other.destroy(private), Err(CKR_OBJECT_HANDLE_INVALID));
    assert_eq!(other.find(&session_keys).unwrap(), [public]);
}

/// Keys that are deleted at the service, and keys that appear there, while searches run.
#[test]
fn what_a_search_has_found_stays_found() {
    let emulator = Emulator::start(&SEED);
    let module = Module::start(&emulator.token(VAULT, "cache_ttl = '0s'"));
    let session = module.open(0);
    session.find_init(&[number(CKA_CLASS, CKO_PRIVATE_KEY)]).unwrap();
    let first = session.find_next(1).unwrap();
    emulator.vault(VAULT).delete_key("p256").unwrap();
    let other = module.open(0);
    assert_eq!(other.find(&[number(CKA_CLASS, CKO_PRIVATE_KEY)]).unwrap().len(), 6);
    let rest = session.find_next(10).unwrap();
    assert_eq!(first.len() + rest.len(), 7, "the search is a snapshot");
    session.find_final().unwrap();
    // A handle whose key is gone is refused by the service, when it is used.
    let label = |key: &CK_OBJECT_HANDLE| session.text(*key, CKA_LABEL).unwrap();
    let gone = first.iter().chain(&rest).find(|key| label(key) == "p256").unwrap();
    let ecdsa = Mechanism::plain(CKM_ECDSA);
    let refused = session.sign(&ecdsa, *gone, &[1; 32]);
    assert_eq!(refused, Err(CKR_KEY_HANDLE_INVALID));
    assert_eq!(session.one_shot(Family::Sign, &[1; 32]), Err(CKR_OPERATION_NOT_INITIALIZED));
}

/// A key the module cannot show must not hide the others.
#[test]
fn secret_keys_are_shown_beside_pairs() {
    let emulator = Emulator::start(&SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(1);
    assert_eq!(session.find(&[]).unwrap().len(), 15);
    assert_eq!(session.find(&[number(CKA_CLASS, CKO_SECRET_KEY)]).unwrap().len(), 1);
}
