//! How many requests a call makes, by the service's own count.

use std::collections::BTreeMap;

use akv_pkcs11::vault::KeyRef;
use akv_wire::{KeyAttributes, KeyCreateParameters, KeyUpdateParameters};
use cryptoki_sys::*;

use crate::{
    service::{Emulator, HSM, VAULT},
    token::{Family, Mechanism, Module, NOTHING, Room, bytes, flag, number},
};

const SEED: &str = "
keys = [
    { name = 'rsa', kty = 'RSA', size = 2048 },
    { name = 'ec', kty = 'EC', curve = 'P-256' },
]";

fn counted(rows: &[(&str, u64)]) -> BTreeMap<String, u64> {
    rows.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[test]
fn the_first_signature_by_label_costs_a_token_a_look_and_itself() {
    let emulator = Emulator::start(SEED);
    for (slot, service) in [(0, VAULT), (1, HSM)] {
        emulator.reset();
        let module = Module::start(&emulator.tokens());
        let session = module.open(slot);
        module.token_info(slot).unwrap();
        session.info().unwrap();
        for kind in module.mechanisms(slot) {
            module.mechanism_info(slot, kind).unwrap();
        }
        let none = counted(&[]);
        assert_eq!((emulator.counts(service), emulator.counts("entra")), (none.clone(), none));

        let key = session.object(CKO_PRIVATE_KEY, "ec");
        let ecdsa = Mechanism::plain(CKM_ECDSA);
        session.init(Family::Sign, &ecdsa, key).unwrap();
        let query = session.one_shot_in(Family::Sign, &[1; 32], Room::Query);
        assert_eq!((query.rv, query.length), (CKR_OK, 64));
        let short = session.one_shot_in(Family::Sign, &[1; 32], Room::Bytes(63));
        assert_eq!((short.rv, short.length), (CKR_BUFFER_TOO_SMALL, 64));
        assert_eq!(emulator.counts(service), counted(&[("keys/get", 1)]), "not signed yet");
        session.one_shot(Family::Sign, &[1; 32]).unwrap();
        assert_eq!(emulator.counts(service), counted(&[("keys/get", 1), ("keys/sign", 1)]));
        assert_eq!(emulator.counts("entra"), counted(&[("token", 1)]));

        emulator.reset();
        for _ in 0..5 {
            session.sign(&ecdsa, key, &[2; 32]).unwrap();
        }
        assert_eq!(emulator.counts(service), counted(&[("keys/sign", 5)]));
        assert_eq!(emulator.requests("entra"), 0);
    }
}

#[test]
fn what_needs_no_private_key_asks_nobody() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    for (slot, service) in [(0, VAULT), (1, HSM)] {
        let session = module.open(slot);
        let (private, public) = session.pair("rsa");
        let mechanism = Mechanism::plain(CKM_SHA256_RSA_PKCS);
        let signature = session.sign(&mechanism, private, b"data").unwrap();
        emulator.reset();
        session.verify(&mechanism, public, b"data", &signature).unwrap();
        assert_eq!(
            session.verify(&mechanism, public, b"tada", &signature),
            Err(CKR_SIGNATURE_INVALID)
        );
        let pkcs1 = Mechanism::plain(CKM_RSA_PKCS);
        session.run(Family::Encrypt, &pkcs1, public, b"data").unwrap();
        session.run(Family::Digest, &Mechanism::plain(CKM_SHA256), 0, b"data").unwrap();
        for object in [private, public] {
            session.text(object, CKA_LABEL).unwrap();
            session.value(object, CKA_ID).unwrap();
            session.value(object, CKA_MODULUS).unwrap();
        }
        session.init(Family::Decrypt, &pkcs1, private).unwrap();
        let query = session.one_shot_in(Family::Decrypt, &[1; 256], Room::Query);
        assert_eq!((query.rv, query.length), (CKR_OK, 256));
        session.init_null(Family::Decrypt).unwrap();
        // A session pair lives here.
        let (public, private) = session
            .generate(
                &Mechanism::plain(CKM_EC_KEY_PAIR_GEN),
                &[bytes(CKA_EC_PARAMS, super::signing::P256)],
                &[flag(CKA_TOKEN, false)],
            )
            .unwrap();
        let ecdsa = Mechanism::plain(CKM_ECDSA);
        let signature = session.sign(&ecdsa, private, &[7; 32]).unwrap();
        session.verify(&ecdsa, public, &[7; 32], &signature).unwrap();
        assert_eq!((emulator.requests(service), emulator.requests("entra")), (0, 0));
    }
}

/// A result whose length is not known before is asked for once, however it is fetched.
#[test]
fn a_decryption_is_one_request_whatever_the_buffers() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let (private, public) = session.pair("rsa");
    let pkcs1 = Mechanism::plain(CKM_RSA_PKCS);
    let ciphertext = session.run(Family::Encrypt, &pkcs1, public, b"plaintext").unwrap();
    emulator.reset();
    session.init(Family::Decrypt, &pkcs1, private).unwrap();
    for (room, wanted) in [
        (Room::Query, (CKR_OK, 256)),
        (Room::Bytes(8), (CKR_BUFFER_TOO_SMALL, 9)),
        (Room::Query, (CKR_OK, 9)),
        (Room::Bytes(0), (CKR_BUFFER_TOO_SMALL, 9)),
        (Room::Bytes(9), (CKR_OK, 9)),
    ] {
        let output = session.one_shot_in(Family::Decrypt, &ciphertext, room);
        assert_eq!((output.rv, output.length), wanted, "{room:?}");
    }
    assert_eq!(emulator.counts(VAULT), counted(&[("keys/decrypt", 1)]));
}

#[test]
fn an_open_search_lists_page_by_page_and_looks_at_each_key_once() {
    const KEYS: u64 = 60;
    let rows: Vec<String> =
        (0..KEYS).map(|i| format!("{{ name = 'k{i}', kty = 'EC', curve = 'P-256' }}")).collect();
    let emulator = Emulator::start(&format!("keys = [{}]", rows.join(", ")));
    let module = Module::start(&emulator.tokens());
    for (slot, service) in [(0, VAULT), (1, HSM)] {
        let session = module.open(slot);
        emulator.reset();
        let template = [number(CKA_CLASS, CKO_PRIVATE_KEY)];
        assert_eq!(session.find(&template).unwrap().len() as u64, KEYS);
        let counts = emulator.counts(service);
        assert_eq!(counts["keys/get"], KEYS);
        assert_eq!(counts["keys/list"], KEYS.div_ceil(25), "{counts:?}");
        assert_eq!(counts.len(), 2, "{counts:?}");

        emulator.reset();
        for template in [
            vec![],
            vec![number(CKA_CLASS, CKO_PUBLIC_KEY)],
            vec![number(CKA_KEY_TYPE, CKK_EC)],
            vec![bytes(CKA_LABEL, "k7")],
        ] {
            // Certificates are looked for once, by the first search that may want some.
            session.find(&template).unwrap();
        }
        emulator.reset();
        for template in [vec![], vec![number(CKA_CLASS, CKO_CERTIFICATE)]] {
            session.find(&template).unwrap();
        }
        assert_eq!(emulator.requests(service), 0, "{:?}", emulator.counts(service));
    }
}

#[test]
fn keys_named_in_the_configuration_need_no_listing() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.token(VAULT, "keys = ['ec', 'gone']"));
    let session = module.open(0);
    let found = session.find(&[number(CKA_CLASS, CKO_PRIVATE_KEY)]).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(session.text(found[0], CKA_LABEL).unwrap(), "ec");
    let template = [number(CKA_CLASS, CKO_PRIVATE_KEY), bytes(CKA_LABEL, "rsa")];
    assert_eq!(session.find(&template).unwrap(), NOTHING, "not one of the named");
    assert_eq!(emulator.counts(VAULT), counted(&[("keys/get", 2)]));
}

#[test]
fn a_name_that_does_not_exist_is_asked_for_once() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    for _ in 0..3 {
        let template = [number(CKA_CLASS, CKO_PRIVATE_KEY), bytes(CKA_LABEL, "nobody")];
        assert_eq!(session.find(&template).unwrap(), NOTHING);
    }
    assert_eq!(emulator.counts(VAULT), counted(&[("keys/get", 1), ("keys/list", 1)]));
}

#[test]
fn a_service_that_is_down_does_not_hide_what_is_known() {
    let mut emulator = Emulator::start(SEED);
    let more =
        "cache_ttl = '0s'\ntimeout = '500ms'\nconnect_timeout = '200ms'\nfind_timeout = '1s'";
    let module = Module::start(&emulator.token(VAULT, more));
    let session = module.open(0);
    let template = [number(CKA_CLASS, CKO_PRIVATE_KEY)];
    let mut known = session.find(&template).unwrap();
    known.sort_unstable();
    assert_eq!(known.len(), 2);
    emulator.stop();
    let mut stale = session.find(&template).unwrap();
    stale.sort_unstable();
    assert_eq!(stale, known);
    assert_eq!(session.text(known[0], CKA_LABEL).map(drop), Ok(()));
    // Sessions open and mechanisms are told without anybody; a signature needs the service.
    let other = module.open(0);
    let key = other.object(CKO_PRIVATE_KEY, "ec");
    other.init(Family::Sign, &Mechanism::plain(CKM_ECDSA), key).unwrap();
    let refused = other.one_shot(Family::Sign, &[1; 32]).unwrap_err();
    assert!([CKR_DEVICE_ERROR, CKR_DEVICE_REMOVED, CKR_FUNCTION_FAILED].contains(&refused));
    assert_eq!(other.one_shot(Family::Sign, &[1; 32]), Err(CKR_OPERATION_NOT_INITIALIZED));
}

#[test]
fn a_search_of_a_service_that_was_never_reached_says_so() {
    let mut emulator = Emulator::start("");
    let more = "timeout = '500ms'\nconnect_timeout = '200ms'\nfind_timeout = '1s'";
    let toml = emulator.token(VAULT, more);
    emulator.stop();
    let module = Module::start(&toml);
    let session = module.open(0);
    assert!(session.find(&[]).is_err());
    assert_eq!(session.find_next(1), Err(CKR_OPERATION_NOT_INITIALIZED));
}

#[test]
fn changes_at_the_service_show_after_the_time_to_live() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.token(VAULT, "cache_ttl = '0s'"));
    let session = module.open(0);
    let before = session.object(CKO_PRIVATE_KEY, "ec");
    let id = session.value(before, CKA_ID).unwrap();
    let vault = emulator.vault(VAULT);
    let parameters = KeyCreateParameters {
        kty: Some("EC".into()),
        crv: Some("P-256".into()),
        ..KeyCreateParameters::default()
    };
    vault.create_key("ec", &parameters).unwrap();
    let after = session.object(CKO_PRIVATE_KEY, "ec");
    assert_ne!(session.value(after, CKA_ID).unwrap(), id, "the label means the current version");
    // The handle found before the rotation goes on signing with its own version.
    let ecdsa = Mechanism::plain(CKM_ECDSA);
    session.sign(&ecdsa, before, &[3; 32]).unwrap();

    let off = KeyUpdateParameters {
        attributes: Some(KeyAttributes { enabled: Some(false), ..KeyAttributes::default() }),
        ..KeyUpdateParameters::default()
    };
    vault.update_key(KeyRef::current("ec"), &off).unwrap();
    let key = session.object(CKO_PRIVATE_KEY, "ec");
    assert_eq!(session.flag(key, CKA_SIGN), Ok(false));
    assert_eq!(session.sign(&ecdsa, key, &[3; 32]), Err(CKR_KEY_FUNCTION_NOT_PERMITTED));

    vault.delete_key("ec").unwrap();
    let template = [bytes(CKA_LABEL, "ec")];
    assert_eq!(session.find(&template).unwrap(), NOTHING);
}

/// A token that the service takes no longer is replaced, once, and the call does not notice.
#[test]
fn a_token_that_ended_is_replaced_in_passing() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let key = session.object(CKO_PRIVATE_KEY, "ec");
    let ecdsa = Mechanism::plain(CKM_ECDSA);
    session.sign(&ecdsa, key, &[1; 32]).unwrap();
    emulator.reset();
    emulator.advance(7200);
    session.sign(&ecdsa, key, &[1; 32]).unwrap();
    let counts = emulator.counts(VAULT);
    assert_eq!(counts.get("401"), Some(&1), "{counts:?}");
    assert_eq!(emulator.counts("entra"), counted(&[("token", 1)]));
    emulator.reset();
    session.sign(&ecdsa, key, &[1; 32]).unwrap();
    assert_eq!(emulator.counts(VAULT), counted(&[("keys/sign", 1)]));
}

/// Who comes at once asks at once for the same things: each is asked for by one of them.
#[test]
fn parallel_first_calls_share_a_token() {
    const CALLERS: usize = 16;
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    let start = std::sync::Barrier::new(CALLERS);
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let session = module.open(0);
                start.wait();
                let key = session.object(CKO_PRIVATE_KEY, "ec");
                session.sign(&Mechanism::plain(CKM_ECDSA), key, &[1; 32]).unwrap();
            });
        }
    });
    let wanted = [("keys/get", 1), ("keys/sign", CALLERS as u64)];
    assert_eq!(emulator.counts(VAULT), counted(&wanted));
    assert_eq!(emulator.counts("entra"), counted(&[("token", 1)]));
}
