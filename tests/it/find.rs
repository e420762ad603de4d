//! C_FindObjects….

use std::{
    fs,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use akv_pkcs11::vault::KeyRef;
use akv_wire::KeyCreateParameters;
use cryptoki_sys::*;

use crate::{
    identity::self_made,
    life::on_token,
    service::{Emulator, VAULT},
    signing::{P256, SEED, session_ec},
    token::{Family, Mechanism, Module, NOTHING, Session, Template, bytes, flag, number},
    way::{State, Way},
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

const THREE: &str = "keys = [{ name = 'a', kty = 'EC', curve = 'P-256' }, \
                   { name = 'b', kty = 'EC', curve = 'P-256' }, \
                   { name = 'c', kty = 'EC', curve = 'P-256' }]";
/// Of every call of the tests below.
const TIMEOUT: Duration = Duration::from_millis(1500);
const LIMITS: &str = "timeout = '1500ms'\nconnect_timeout = '400ms'\nfind_timeout = '20s'";

/// A private key by its label.
fn private(label: &str) -> Template {
    vec![number(CKA_CLASS, CKO_PRIVATE_KEY), bytes(CKA_LABEL, label)]
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let outcome = work();
    (outcome, started.elapsed())
}

/// One asks and hears nothing; that is the answer for all who have waited for it, not a reason to
/// ask one after the other.
#[test]
fn searches_behind_a_silent_service_fail_together() {
    const CALLERS: usize = 16;
    let emulator = Emulator::start(THREE);
    let way = Way::to(emulator.port(VAULT));
    let module = Module::start(&emulator.token_at(&way.url(), VAULT, LIMITS));
    assert_eq!(module.open(0).find(&private("a")).map(|found| found.len()), Ok(1));
    way.set(State::Silent);
    let start = Barrier::new(CALLERS);
    thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let session = module.open(0);
                start.wait();
                let (found, took) = timed(|| session.find(&private("b")));
                assert_eq!(found, Err(CKR_DEVICE_ERROR));
                assert!(took < 2 * TIMEOUT, "{took:?}");
            });
        }
    });
    // Who comes later asks anew.
    way.set(State::Open);
    assert_eq!(module.open(0).find(&private("b")).map(|found| found.len()), Ok(1));
}

/// What is known is shown at once while somebody asks anew, and for some seconds after that failed.
#[test]
fn what_is_known_is_not_waited_for_again_and_again() {
    let emulator = Emulator::start(THREE);
    let way = Way::to(emulator.port(VAULT));
    let more = format!("{LIMITS}\ncache_ttl = '0s'");
    let module = Module::start(&emulator.token_at(&way.url(), VAULT, &more));
    let session = module.open(0);
    for template in [private("a"), vec![number(CKA_CLASS, CKO_PRIVATE_KEY)]] {
        let known = session.find(&template);
        assert!(known.as_ref().is_ok_and(|found| !found.is_empty()));
        way.set(State::Silent);
        thread::scope(|scope| {
            let first = scope.spawn(|| timed(|| module.open(0).find(&template)));
            thread::sleep(Duration::from_millis(400));
            let (found, took) = timed(|| session.find(&template));
            assert_eq!(found, known);
            assert!(took < Duration::from_millis(500), "while another asks: {took:?}");
            let (found, took) = first.join().expect("the first");
            assert_eq!(found, known);
            assert!(took < 2 * TIMEOUT, "{took:?}");
        });
        let (_, took) = timed(|| (0..10).for_each(|_| assert_eq!(session.find(&template), known)));
        assert!(took < Duration::from_millis(500), "after a failure: {took:?}");
        way.set(State::Open);
        thread::sleep(Duration::from_millis(5200));
        emulator.reset();
        assert_eq!(session.find(&template), known);
        assert!(emulator.requests(VAULT) > 0, "asked again in the end");
    }
}

/// A client that is told "no such key" may make one.
#[test]
fn an_outage_is_not_told_as_no_such_key() {
    let emulator = Emulator::start(THREE);
    let module = Module::start(&emulator.token(VAULT, LIMITS));
    let session = module.open(0);
    let known = session.find(&private("a")).expect("a key");
    let id = || vec![bytes(CKA_ID, [7; 20])];
    for (operation, template) in [
        ("keys/get", private("b")),
        ("keys/get", vec![bytes(CKA_UNIQUE_ID, "c/0#priv")]),
        ("keys/list", private("nobody")),
        ("keys/list", id()),
    ] {
        emulator.trouble(&format!(r#"{{"operation": "{operation}", "status": 503}}"#));
        assert_eq!(session.find(&template), Err(CKR_DEVICE_ERROR), "{operation}: {template:?}");
        assert_eq!(session.find(&private("a")).as_ref(), Ok(&known), "{operation}");
        emulator.no_trouble();
        // After the pause that the failures brought.
        let over = Instant::now() + Duration::from_secs(10);
        while session.find(&template).is_err() && Instant::now() < over {
            thread::sleep(Duration::from_millis(100));
        }
        assert!(session.find(&template).is_ok(), "{operation}: {template:?}");
    }
    // To be forbidden to list is no outage: a key is found by its name.
    let module = Module::start(&emulator.token(VAULT, LIMITS));
    emulator.trouble(r#"{"operation": "keys/list", "status": 403}"#);
    assert_eq!(module.open(0).find(&private("nobody")), Ok(NOTHING.to_vec()));
}

/// Keys that the configuration names and that cannot be had just now are none that do not exist.
#[test]
fn an_outage_of_a_named_key_is_told_to_who_looks_for_it() {
    let seed = "keys = [{ name = 'a', kty = 'EC', curve = 'P-256' }, { name = 'b', kty = 'EC', \
                curve = 'P-256', tags = { akv-p11 = 'l=other' } }]";
    let emulator = Emulator::start(seed);
    let module = Module::start(&emulator.token(VAULT, &format!("{LIMITS}\nkeys = ['a', 'b']")));
    let session = module.open(0);
    assert_eq!(session.find(&private("a")).map(|found| found.len()), Ok(1));
    emulator.trouble(r#"{"operation": "keys/get", "name": "b", "status": 503}"#);
    assert_eq!(session.find(&private("other")), Err(CKR_DEVICE_ERROR));
    let open = session.find(&[number(CKA_CLASS, CKO_PRIVATE_KEY)]);
    assert_eq!(open.map(|found| found.len()), Ok(1), "one key never hides the others");
}

#[test]
fn an_outage_of_certificates_hides_no_key_and_is_told_to_who_looks_for_certificates() {
    let seed = "certificates = [{ name = 'tls', subject = 'CN=tls', kty = 'EC', curve = 'P-256' }]";
    let emulator = Emulator::start(seed);
    let certificates = |more| {
        let class = number(CKA_CLASS, CKO_CERTIFICATE);
        if more { vec![class, bytes(CKA_LABEL, "tls")] } else { vec![class] }
    };
    for named in [true, false] {
        let module = Module::start(&emulator.token(VAULT, LIMITS));
        let session = module.open(0);
        emulator.trouble(r#"{"operation": "certificates/get", "status": 503}"#);
        let template = certificates(named);
        assert_eq!(session.find(&template), Err(CKR_DEVICE_ERROR), "{template:?}");
        let pair = session.find(&[bytes(CKA_LABEL, "tls")]);
        assert_eq!(pair.map(|found| found.len()), Ok(2), "the keys are there");
        emulator.no_trouble();
        let over = Instant::now() + Duration::from_secs(10);
        while session.find(&template).is_err() && Instant::now() < over {
            thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(session.find(&template).map(|found| found.len()), Ok(1));
        // Who may not read certificates has none.
        let module = Module::start(&emulator.token(VAULT, LIMITS));
        emulator.trouble(r#"{"operation": "certificates/get", "status": 403}"#);
        assert_eq!(module.open(0).find(&template), Ok(NOTHING.to_vec()));
        emulator.no_trouble();
    }
}

/// After a rotation the label means the version of the configured certificate. That this cannot be
/// looked up just now does not change it.
#[test]
fn an_outage_does_not_move_a_label_to_another_version() {
    let emulator = Emulator::start(THREE);
    let info = {
        let module = Module::start(&emulator.token(VAULT, ""));
        let session = module.open(0);
        session.value(session.object(CKO_PUBLIC_KEY, "a"), CKA_PUBLIC_KEY_INFO).unwrap()
    };
    let file = emulator.folder.path().join("a.pem");
    fs::write(&file, self_made(&info).to_pem().unwrap()).unwrap();
    let more = format!(
        "{LIMITS}\ncache_ttl = '0s'\ngenerate_on_existing = 'new-version'\ncertificates = ['{}']",
        file.display()
    );
    let start = || Module::start(&emulator.token(VAULT, &more));
    let public = |session: &Session<'_>| {
        let found = session.find(&[number(CKA_CLASS, CKO_PUBLIC_KEY), bytes(CKA_LABEL, "a")])?;
        session.value(found[0], CKA_PUBLIC_KEY_INFO)
    };
    let module = start();
    let session = module.open(0);
    assert_eq!(public(&session).as_ref(), Ok(&info));
    let vault = emulator.vault(VAULT);
    let first = vault.key(KeyRef::current("a")).unwrap();
    let (_, first) = first.key.name_and_version().unwrap();
    let parameters = KeyCreateParameters {
        kty: Some("EC".into()),
        crv: Some("P-256".into()),
        ..KeyCreateParameters::default()
    };
    vault.create_key("a", &parameters).unwrap();
    // The new version can be had; which is meant cannot be told. Its first look is the name's.
    let trouble = || {
        emulator.trouble(r#"{"operation": "keys/versions", "status": 503}"#);
        emulator.trouble(r#"{"operation": "keys/get", "name": "a", "skip": 1, "status": 503}"#);
    };
    trouble();
    assert_eq!(public(&session).as_ref(), Ok(&info), "version {first} stays");
    emulator.no_trouble();
    thread::sleep(Duration::from_millis(5200));
    assert_eq!(public(&session).as_ref(), Ok(&info), "and is found again");
    // Nor does a version that is made then, which its maker gets.
    trouble();
    let template = [vec![bytes(CKA_EC_PARAMS, P256)], on_token("a")].concat();
    let mechanism = Mechanism::plain(CKM_EC_KEY_PAIR_GEN);
    let (made, key) = session.generate(&mechanism, &template, &on_token("a")).expect("a version");
    emulator.no_trouble();
    let ecdsa = Mechanism::plain(CKM_ECDSA);
    let signature = session.sign(&ecdsa, key, &[8; 32]).expect("signed");
    session.verify(&ecdsa, made, &[8; 32], &signature).expect("its own");
    assert_ne!(session.value(made, CKA_PUBLIC_KEY_INFO).as_ref(), Ok(&info));
    assert_eq!(public(&session).as_ref(), Ok(&info), "version {first} is still meant");
    // Who has never seen it is told.
    trouble();
    assert_eq!(public(&start().open(0)), Err(CKR_DEVICE_ERROR));
}

/// One deadline for a call: where the keys could not be had in it, secrets are not waited for too.
#[test]
fn a_search_for_keys_and_secrets_waits_for_a_silent_service_once() {
    let emulator = Emulator::start(THREE);
    let more = format!("{LIMITS}\nsecrets = ['*']");
    let module = Module::start(&emulator.token(VAULT, &more));
    let session = module.open(0);
    for operation in ["keys/get", "secrets/list"] {
        let fault = format!(r#"{{"operation": "{operation}", "delay_ms": 9000, "times": 1}}"#);
        emulator.trouble(&fault);
    }
    assert_eq!(session.find(&[bytes(CKA_LABEL, "a")]), Err(CKR_DEVICE_ERROR));
    assert_eq!(emulator.troubles(), ["secrets/list"], "not asked for");
    emulator.no_trouble();
    assert_eq!(session.find(&[bytes(CKA_LABEL, "a")]).map(|found| found.len()), Ok(2));
}

/// What the log says a request took is what it took, not what those before it did.
#[test]
fn each_request_of_a_search_has_its_own_time() {
    let rows: Vec<_> =
        (0..8).map(|i| format!("{{ name = 'k{i}', kty = 'EC', curve = 'P-256' }}")).collect();
    let emulator = Emulator::start(&format!("keys = [{}]", rows.join(", ")));
    let log = emulator.folder.path().join("log");
    let sink = format!("[log]\nlevel = 'debug'\nsink = 'file:{}'\n", log.display());
    let module = Module::load();
    let toml = emulator.token(VAULT, "find_rate = 5");
    module.initialize_as_is(&format!("{sink}{toml}")).unwrap();
    let template = [number(CKA_CLASS, CKO_PRIVATE_KEY)];
    let (found, took) = timed(|| module.open(0).find(&template));
    assert_eq!(found.map(|found| found.len()), Ok(8));
    assert!(took > Duration::from_millis(1400), "paced: {took:?}");
    let told = fs::read_to_string(&log).unwrap();
    let times = told.lines().filter(|line| line.contains(": get k"));
    let times: Vec<u64> = times
        .filter_map(|line| line.split_once(" ms, attempt")?.0.rsplit(' ').next()?.parse().ok())
        .collect();
    assert_eq!(times.len(), 8, "{told}");
    assert!(times.iter().all(|time| *time < 1000), "{times:?}");
}
