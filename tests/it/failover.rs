//! Several endpoints with the same keys: one stands in for the other.

use std::{
    env,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use akv_wire::{Base64Url, JsonWebKey, KeyImportParameters};
use cryptoki_sys::*;
use openssl::{
    ec::{EcGroup, EcKey},
    nid::Nid,
    pkey::PKey,
};

use crate::{
    privilege::public_keys,
    service::Emulator,
    token::{Family, Mechanism, Module, Parameter, Session, bytes, flag, number},
    way::{State, Way},
};

const SERVICES: &str = "
[[vault]]
name = 'kv1'
[[vault]]
name = 'kv2'
[[hsm]]
name = 'hsm1'
[[hsm]]
name = 'hsm2'
";

/// Two vaults and two HSMs, a way to each; `imported` has one key under two versions, `restored`
/// one under the same.
struct Pair {
    emulator: Emulator,
    first: Way,
    second: Way,
}

impl Pair {
    fn vaults() -> Pair {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
        let pem = String::from_utf8(key.private_key_to_pem_pkcs8().unwrap()).unwrap();
        let seed = format!(
            "[[keys]]\nname = 'imported'\nkty = 'EC'\ncurve = 'P-256'\npem = '''\n{pem}'''\n\
             [[keys]]\nname = 'restored'\nkty = 'RSA'\nsize = 2048\nservice = 'kv1'\n\
             [[keys]]\nname = 'alone'\nkty = 'EC'\ncurve = 'P-256'\nservice = 'kv1'\n"
        );
        let pair = Pair::of(&seed, "kv1", "kv2");
        let backup = pair.emulator.vault("kv1").backup_key("restored").unwrap();
        pair.emulator.vault("kv2").restore_key(backup).unwrap();
        pair.emulator.reset();
        pair
    }

    fn of(seed: &str, first: &str, second: &str) -> Pair {
        let emulator = Emulator::configured(seed, SERVICES);
        let (first, second) = (Way::to(emulator.port(first)), Way::to(emulator.port(second)));
        Pair { emulator, first, second }
    }

    /// The token, with more lines for it and for its replica.
    fn token(&self, name: &str, more: &str, replica: &str) -> String {
        let more = format!(
            "timeout = '4s'\nconnect_timeout = '500ms'\nfailover_interval = '700ms'\n{more}\n\
             [[token.replica]]\nendpoint = '{}'\n{replica}",
            self.second.url()
        );
        self.emulator.token_at(&self.first.url(), name, &more)
    }
}

fn signs(session: &Session<'_>, label: &str) {
    let (private, public) = session.pair(label);
    sign_and_verify(session, private, public).unwrap();
}

fn sign_and_verify(
    session: &Session<'_>,
    private: CK_OBJECT_HANDLE,
    public: CK_OBJECT_HANDLE,
) -> Result<(), CK_RV> {
    let mechanism = match session.number(private, CKA_KEY_TYPE)? {
        CKK_RSA => Mechanism::plain(CKM_SHA256_RSA_PKCS),
        _ => Mechanism::plain(CKM_ECDSA_SHA256),
    };
    let signature = session.sign(&mechanism, private, b"data")?;
    session.verify(&mechanism, public, b"data", &signature)
}

#[test]
fn a_key_is_the_same_key_by_its_public_key_whatever_its_version() {
    let pair = Pair::vaults();
    let module = Module::start(&pair.token("kv1", "", ""));
    let session = module.open(0);
    let keys: Vec<_> = ["imported", "restored"].map(|label| session.pair(label)).into();
    for (private, public) in &keys {
        sign_and_verify(&session, *private, *public).unwrap();
    }
    assert_eq!(pair.emulator.requests("kv2"), 0, "the first endpoint is well");

    pair.first.set(State::Refused);
    pair.emulator.reset();
    for _ in 0..3 {
        for (private, public) in &keys {
            sign_and_verify(&session, *private, *public).unwrap();
        }
    }
    let counts = pair.emulator.counts("kv2");
    assert_eq!(counts["keys/sign"], 6);
    // The restored key is looked at once, the imported one under two versions.
    assert_eq!(counts["keys/get"], 3, "{counts:?}");

    // A key that is only at the first endpoint is told apart from one that is nowhere.
    let session = module.open(0);
    let template = [number(CKA_CLASS, CKO_PRIVATE_KEY), bytes(CKA_LABEL, "alone")];
    assert!(session.find(&template).unwrap_or_default().is_empty());

    pair.first.set(State::Open);
    thread::sleep(Duration::from_millis(800));
    pair.emulator.reset();
    for (private, public) in &keys {
        sign_and_verify(&session, *private, *public).unwrap();
    }
    assert_eq!(pair.emulator.counts("kv1").get("keys/sign"), Some(&2), "back again");
    assert_eq!(pair.emulator.requests("kv2"), 0);
    signs(&session, "alone");
}

/// Whose public key and version the configuration tells is found elsewhere by the public key, and not
/// looked for at the first endpoint.
#[test]
fn keys_with_given_public_keys_are_found_at_a_stand_in() {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let pem = String::from_utf8(key.private_key_to_pem_pkcs8().unwrap()).unwrap();
    let seed = format!(
        "[[keys]]\nname = 'ec'\nkty = 'EC'\ncurve = 'P-256'\npem = '''\n{pem}'''\n\
         [[keys]]\nname = 'rsa'\nkty = 'RSA'\nsize = 2048\nservice = 'kv1'\n"
    );
    let pair = Pair::of(&seed, "kv1", "kv2");
    let backup = pair.emulator.vault("kv1").backup_key("rsa").unwrap();
    pair.emulator.vault("kv2").restore_key(backup).unwrap();
    let more = public_keys(&pair.emulator, "kv1", true);
    pair.emulator.reset();
    let module = Module::start(&pair.token("kv1", &more, ""));
    let session = module.open(0);
    for label in ["rsa", "ec"] {
        signs(&session, label);
    }
    let counts = pair.emulator.counts("kv1");
    assert_eq!((counts.get("keys/sign"), counts.get("keys/get")), (Some(&2), None), "{counts:?}");
    assert_eq!(pair.emulator.requests("kv2"), 0);
    pair.first.set(State::Refused);
    for label in ["rsa", "ec"] {
        signs(&session, label);
    }
    assert_eq!(pair.emulator.counts("kv2").get("keys/sign"), Some(&2));
}

#[test]
fn what_was_found_at_a_stand_in_is_used_at_the_first_again() {
    let pair = Pair::vaults();
    pair.first.set(State::Refused);
    let module = Module::start(&pair.token("kv1", "", ""));
    let session = module.open(0);
    let found = session.find(&[number(CKA_CLASS, CKO_PRIVATE_KEY)]).unwrap();
    assert_eq!(found.len(), 2, "a listing comes from the stand-in");
    let keys = ["imported", "restored"].map(|label| session.pair(label));
    pair.second.set(State::Refused);
    pair.first.set(State::Open);
    thread::sleep(Duration::from_millis(800));
    for (private, public) in keys {
        sign_and_verify(&session, private, public).unwrap();
    }
}

/// Two regions of one Managed HSM have the same versions.
#[test]
fn a_secret_key_is_the_same_key_by_its_name_and_version() {
    let seed = "keys = [{ name = 'aes', kty = 'oct', size = 256, service = 'hsm1' }]";
    let pair = Pair::of(seed, "hsm1", "hsm1");
    let module = Module::start(&pair.token("hsm1", AES, ""));
    let session = module.open(0);
    let key = session.object(CKO_SECRET_KEY, "aes");
    let sealed = session.run(Family::Encrypt, &cbc(), key, b"plaintext").unwrap();
    pair.first.set(State::Refused);
    let opened = session.run(Family::Decrypt, &cbc(), key, &sealed);
    assert_eq!(opened.as_deref(), Ok(b"plaintext".as_slice()));
}

#[test]
fn a_secret_key_that_was_imported_twice_is_paired_by_the_configuration() {
    let pair = Pair::of("", "hsm1", "hsm2");
    let key = JsonWebKey {
        kty: Some("oct-HSM".into()),
        k: Some(Base64Url::new([7; 32])),
        key_ops: Some(["encrypt", "decrypt"].map(str::to_owned).to_vec()),
        ..JsonWebKey::default()
    };
    let mut version = ["hsm1", "hsm2"].map(|name| {
        let parameters = KeyImportParameters { key: key.clone(), ..Default::default() };
        let made = pair.emulator.vault(name).import_key("twice", &parameters).unwrap();
        made.key.name_and_version().unwrap().1.to_owned()
    });
    version[0].make_ascii_uppercase();
    let pairs = format!("versions = {{ 'twice/{}' = '{}' }}", version[0], version[1]);
    let sealed_and_opened_elsewhere = |replica: &str| {
        pair.first.set(State::Open);
        let module = Module::start(&pair.token("hsm1", AES, replica));
        let session = module.open(0);
        let key = session.object(CKO_SECRET_KEY, "twice");
        let sealed = session.run(Family::Encrypt, &cbc(), key, b"plaintext").unwrap();
        pair.first.set(State::Refused);
        session.run(Family::Decrypt, &cbc(), key, &sealed)
    };
    assert_eq!(sealed_and_opened_elsewhere(&pairs).as_deref(), Ok(b"plaintext".as_slice()));
    assert_eq!(sealed_and_opened_elsewhere(""), Err(CKR_DEVICE_ERROR));
}

/// The first version that tells the size of an AES key.
const AES: &str = "api_version = '2025-07-01'";

fn cbc() -> Mechanism {
    Mechanism { kind: CKM_AES_CBC_PAD, parameter: Parameter::Bytes(vec![9; 16]) }
}

#[test]
fn a_dead_endpoint_costs_one_connection_time_out_in_an_interval() {
    let pair = Pair::vaults();
    let more = "failover_interval = '1h'";
    let toml = pair.token("kv1", "", "").replace("failover_interval = '700ms'", more);
    let module = Module::start(&toml);
    let session = module.open(0);
    let (private, public) = session.pair("imported");
    let took = || {
        let started = Instant::now();
        sign_and_verify(&session, private, public).unwrap();
        started.elapsed()
    };
    took();
    // Silence on the connection there is: half of the deadline is for the stand-in.
    pair.first.set(State::Silent);
    let first = took();
    assert!(first > Duration::from_millis(1900) && first < Duration::from_secs(4), "{first:?}");
    let accepted = pair.first.accepted();
    for _ in 0..20 {
        let next = took();
        assert!(next < Duration::from_millis(450), "{next:?}");
    }
    assert_eq!(pair.first.accepted(), accepted, "nobody knocks during the interval");
}

#[test]
fn a_failing_endpoint_is_left_for_the_next_without_a_pause() {
    let pair = Pair::vaults();
    let module = Module::start(&pair.token("kv1", "", ""));
    let session = module.open(0);
    let (private, public) = session.pair("restored");
    for status in [500, 502, 503, 504, 408, 429] {
        let fault = serde_json::json!({
            "service": "vault:kv1", "operation": "keys/sign", "status": status, "retry_after": 60,
        });
        pair.emulator.trouble(&fault.to_string());
        pair.emulator.reset();
        let started = Instant::now();
        sign_and_verify(&session, private, public).unwrap();
        assert!(started.elapsed() < Duration::from_secs(1), "{status}");
        assert_eq!(pair.emulator.counts("kv2").get("keys/sign"), Some(&1), "{status}");
        pair.emulator.no_trouble();
    }
}

#[test]
fn changes_go_to_the_first_endpoint_or_nowhere() {
    let pair = Pair::vaults();
    let module =
        Module::start(&pair.token("kv1", "timeout = '1s'", "").replacen("timeout = '4s'\n", "", 1));
    let session = module.open(0);
    pair.first.set(State::Refused);
    pair.emulator.reset();
    let refused = session.generate(
        &Mechanism::plain(CKM_EC_KEY_PAIR_GEN),
        &[bytes(CKA_EC_PARAMS, super::signing::P256), bytes(CKA_LABEL, "new")],
        &[flag(CKA_TOKEN, true), bytes(CKA_LABEL, "new")],
    );
    assert_eq!(refused, Err(CKR_DEVICE_ERROR));
    let counts = pair.emulator.counts("kv2");
    assert!(counts.keys().all(|operation| operation == "keys/get"), "{counts:?}");
}

/// Load, while the endpoints are taken away in turn. `make failover` runs it for ten minutes.
#[test]
fn no_signature_fails_while_endpoints_come_and_go() {
    let seconds = env::var("AKV_FAILOVER_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(20));
    let pair = Pair::vaults();
    let module = Module::start(&pair.token("kv1", "", ""));
    let (over, signed, slowest) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let mut turns = 0;
    thread::scope(|scope| {
        for number in 0..8 {
            let (module, over, signed, slowest) = (&module, &over, &signed, &slowest);
            scope.spawn(move || {
                let session = module.open(0);
                let label = ["imported", "restored"][number % 2];
                let (private, public) = session.pair(label);
                while !over.load(SeqCst) {
                    let started = Instant::now();
                    let outcome = sign_and_verify(&session, private, public);
                    let took = started.elapsed();
                    if outcome.is_err() {
                        over.store(true, SeqCst);
                    }
                    assert_eq!(outcome, Ok(()), "{label} after {took:?}");
                    signed.fetch_add(1, SeqCst);
                    slowest.fetch_max(took.as_millis() as u64, SeqCst);
                    thread::sleep(Duration::from_millis(5));
                }
            });
        }
        while Instant::now() < end && !over.load(SeqCst) {
            let (way, state) = match turns % 4 {
                0 => (&pair.first, State::Refused),
                1 => (&pair.second, State::Refused),
                2 => (&pair.first, State::Silent),
                _ => (&pair.second, State::Silent),
            };
            way.set(state);
            thread::sleep(Duration::from_millis(1200));
            way.set(State::Open);
            // Long enough that whoever has seen one away comes back before the other goes.
            thread::sleep(Duration::from_millis(1200));
            turns += 1;
        }
        over.store(true, SeqCst);
    });
    let (signed, slowest) = (signed.load(SeqCst), slowest.load(SeqCst));
    eprintln!("failover: {turns} outages, {signed} signatures, all good; slowest {slowest} ms");
    assert!(signed > 100, "{signed}");
    let counts = ["kv1", "kv2"].map(|name| pair.emulator.counts(name)["keys/sign"]);
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}
