//! Several endpoints with the same keys: one stands in for the other.

use std::{
    env, fs,
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
    rsa::Rsa,
};

use crate::{
    fork::in_child,
    host::{Host, numbers, reserved},
    privilege::public_keys,
    service::Emulator,
    token::{Family, Mechanism, Module, Parameter, Session, bytes, flag, is_alone, number},
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

/// What is wrapped at one endpoint is unwrapped at the other: by a secret key, which both have, and
/// by a private key that goes by its public one.
#[test]
fn what_was_wrapped_here_is_unwrapped_there() {
    let seed = "keys = [{ name = 'aes', kty = 'oct', size = 256, service = 'hsm1' }]";
    let (hsms, vaults) = (Pair::of(seed, "hsm1", "hsm1"), Pair::vaults());
    let secret = [number(CKA_CLASS, CKO_SECRET_KEY), number(CKA_KEY_TYPE, CKK_AES)];
    let open = [flag(CKA_SENSITIVE, false), flag(CKA_EXTRACTABLE, true)];
    for (pair, name, more, label, mechanism) in [
        (&hsms, "hsm1", AES, "aes", Mechanism::plain(CKM_AES_KEY_WRAP)),
        (&vaults, "kv1", "", "restored", Mechanism::oaep(CKM_SHA256, CKG_MGF1_SHA256)),
        (&vaults, "kv1", "", "restored", Mechanism::oaep(CKM_SHA_1, CKG_MGF1_SHA1)),
    ] {
        pair.first.set(State::Open);
        let module = Module::start(&pair.token(name, more, ""));
        let session = module.open(0);
        let (unwrapping, wrapping) = match label {
            "aes" => [session.object(CKO_SECRET_KEY, label); 2].into(),
            _ => session.pair(label),
        };
        let value = [bytes(CKA_VALUE, [5; 16])];
        let key = session.create(&[&secret[..], &open, &value].concat()).unwrap();
        let wrapped = session.wrap(&mechanism, wrapping, key).unwrap();
        pair.first.set(State::Refused);
        pair.emulator.reset();
        let template = [&secret[..], &open].concat();
        let there = session.unwrap(&mechanism, unwrapping, &wrapped, &template).unwrap();
        assert_eq!(session.value(there, CKA_VALUE).unwrap(), [5; 16], "{label}");
        let stand_in = if name == "kv1" { "kv2" } else { name };
        assert_eq!(pair.emulator.counts(stand_in).get("keys/unwrapkey"), Some(&1), "{label}");
        // And back, by the secret key, whose wrapping is the service's.
        if label == "aes" {
            let wrapped = session.wrap(&mechanism, wrapping, key).unwrap();
            pair.first.set(State::Open);
            pair.second.set(State::Refused);
            thread::sleep(Duration::from_millis(800));
            let back = session.unwrap(&mechanism, unwrapping, &wrapped, &template).unwrap();
            assert_eq!(session.value(back, CKA_VALUE).unwrap(), [5; 16]);
            pair.second.set(State::Open);
        }
    }
}

/// What a parent has learnt about its stand-in is nothing a child asks again.
#[test]
fn a_child_goes_on_at_the_stand_in() {
    if !is_alone("failover::a_child_goes_on_at_the_stand_in", &[]) {
        return;
    }
    let pair = Pair::vaults();
    let module = Module::start(&pair.token("kv1", "", ""));
    let session = module.open(0);
    let keys = ["imported", "restored"].map(|label| session.pair(label));
    pair.first.set(State::Refused);
    for (private, public) in keys {
        sign_and_verify(&session, private, public).unwrap();
    }
    pair.emulator.reset();
    in_child(|| {
        for (private, public) in keys {
            sign_and_verify(&session, private, public).unwrap();
        }
    });
    let counts: Vec<_> = pair.emulator.counts("kv2").into_iter().collect();
    assert_eq!(counts, [("keys/sign".into(), 2)], "their versions are known");
}

/// A parent whose threads use the stand-in while it forks, with somebody logged in and metrics:
/// children go on, with the login and what is known of the stand-in, or begin anew.
#[test]
fn children_of_a_busy_parent_keep_its_login_and_its_stand_in() {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let ec = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let rsa = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let seed: String = [("ec", "EC", ec), ("rsa", "RSA", rsa)]
        .into_iter()
        .map(|(name, kty, key)| {
            let pem = String::from_utf8(key.private_key_to_pem_pkcs8().unwrap()).unwrap();
            format!("[[keys]]\nname = '{name}'\nkty = '{kty}'\npem = '''\n{pem}'''\n")
        })
        .collect();
    // Imported into each, so that the versions differ.
    let pair = Pair::of(&seed, "kv1", "kv2");
    let (client, secret) = pair.emulator.client_and_secret();
    let token = pair.token("kv1", "login = \"client-secret\"", "");
    let token = token.replace("failover_interval = '700ms'", "failover_interval = '1h'");
    let metrics = tempfile::tempdir().unwrap();
    let toml = format!("metrics_dir = '{}'\n{token}", metrics.path().display());
    let host = Host::compile("forks.c", &[]);
    let copy = host.copy().display().to_string();
    pair.first.set(State::Refused);
    let pin = format!("{client}:{secret}");
    let out = host.run(&[&copy, &reserved(&toml), "60", &pin]);
    let [signatures, ..] = numbers(&out)[..] else { panic!("{out}") };
    let counts = pair.emulator.counts("kv2");
    assert_eq!(counts["keys/sign"], u64::try_from(signatures).unwrap(), "{out}");
    assert_eq!(pair.emulator.requests("kv1"), 0);
    let files = fs::read_dir(metrics.path()).unwrap().count();
    assert!((1..=3).contains(&files), "the parent's, and of who has ended since: {files}");
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
    let seed = "keys = [{ name = 'aes', kty = 'oct', size = 256, service = 'hsm1' }]";
    let hsms = Pair::of(seed, "hsm1", "hsm1");
    let hsm_module = Module::start(&hsms.token("hsm1", AES, ""));
    let (over, signed, slowest) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let opened = AtomicU64::new(0);
    let mut turns = 0_usize;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let session = hsm_module.open(0);
                let key = session.object(CKO_SECRET_KEY, "aes");
                while !over.load(SeqCst) {
                    let sealed = session.run(Family::Encrypt, &cbc(), key, b"plaintext");
                    let plain = sealed
                        .and_then(|sealed| session.run(Family::Decrypt, &cbc(), key, &sealed));
                    if plain.is_err() {
                        over.store(true, SeqCst);
                    }
                    assert_eq!(plain.as_deref(), Ok(b"plaintext".as_slice()));
                    opened.fetch_add(1, SeqCst);
                    thread::sleep(Duration::from_millis(5));
                }
            });
        }
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
            let away = [State::Refused, State::Silent];
            match turns % 6 {
                // The machine is there, and its service fails.
                turn @ (4 | 5) => pair.emulator.trouble(&format!(
                    "{{\"service\": \"vault:{}\", \"operation\": \"keys/sign\", \"status\": {}}}",
                    ["kv1", "kv2"][turn - 4],
                    [500, 503][turn - 4],
                )),
                turn => {
                    for pair in [&pair, &hsms] {
                        [&pair.first, &pair.second][turn % 2].set(away[turn / 2]);
                    }
                }
            }
            thread::sleep(Duration::from_millis(1200));
            pair.emulator.no_trouble();
            for pair in [&pair, &hsms] {
                [&pair.first, &pair.second].iter().for_each(|way| way.set(State::Open));
            }
            // Long enough that whoever has seen one away comes back before the other goes.
            thread::sleep(Duration::from_millis(1200));
            turns += 1;
        }
        over.store(true, SeqCst);
    });
    let (signed, slowest) = (signed.load(SeqCst), slowest.load(SeqCst));
    let opened = opened.load(SeqCst);
    eprintln!(
        "failover: {turns} outages, {signed} signatures and {opened} decryptions, all good; \
         slowest signature {slowest} ms"
    );
    assert!(signed > 100 && opened > 50, "{signed}, {opened}");
    let counts = ["kv1", "kv2"].map(|name| pair.emulator.counts(name)["keys/sign"]);
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}
