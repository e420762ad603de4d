//! Answers that are lost after the service has done what was asked, and before: making, importing
//! and deleting are sent once, and whoever asked is told what came of it.

use std::{
    fs,
    path::Path,
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use akv_pkcs11::vault::KeyRef;
use akv_wire::KeyCreateParameters;
use cryptoki_sys::*;
use openssl::rsa::Rsa;
use serde_json::{Value, json};

use crate::{
    life::{on_token, rsa_template},
    service::{Emulator, HSM, VAULT},
    signing::P256,
    token::{Mechanism, Module, Rv, Session, Template, bytes, number},
};

type Act = fn(&Session<'_>, &str) -> Rv;

fn make(session: &Session<'_>, label: &str) -> Rv {
    let public = [vec![bytes(CKA_EC_PARAMS, P256)], on_token(label)].concat();
    let mechanism = Mechanism::plain(CKM_EC_KEY_PAIR_GEN);
    session.generate(&mechanism, &public, &on_token(label)).map(drop)
}

fn import(session: &Session<'_>, label: &str) -> Rv {
    // Made once: it is not what is waited for here.
    static KEY: LazyLock<Template> =
        LazyLock::new(|| rsa_template(&Rsa::generate(2048).expect("a key")));
    session.create(&[KEY.clone(), on_token(label)].concat()).map(drop)
}

fn delete(session: &Session<'_>, label: &str) -> Rv {
    session.destroy(session.object(CKO_PRIVATE_KEY, label))
}

#[test]
fn what_must_not_be_done_twice_is_sent_once_and_its_outcome_is_looked_at() {
    let acts: [(&str, &str, Act, bool); 3] = [
        ("create", "keys/create", make, true),
        ("import", "keys/import", import, true),
        ("delete", "keys/delete", delete, false),
    ];
    let lost = |how: &str| json!({ "connection": how });
    let failed = |status: u16| json!({ "status": status });
    let error = Err(CKR_DEVICE_ERROR);
    let fates: [Fate; _] = [
        (lost("reset-after"), true, false, Ok(())),
        (lost("close-after"), true, false, Ok(())),
        (lost("truncate"), true, false, Ok(())),
        (lost("reset-before"), false, false, error),
        (failed(500), false, false, error),
        (failed(504), false, false, error),
        (lost("reset-after"), true, true, error),
        (failed(504), false, true, error),
    ];
    thread::scope(|scope| {
        for (slot, service) in [(0, VAULT), (1, HSM)] {
            for (act, operation, perform, adds) in acts {
                let fates = &fates;
                scope.spawn(move || {
                    // One each: what is counted, and who is in trouble, is nobody else's.
                    let ground = Ground { slot, service, act, operation, perform, adds };
                    ground.check(fates);
                });
            }
        }
    });
}

/// The fault that loses the answer, whether it was carried out, whether the look afterwards fails
/// too, and what comes of it.
type Fate = (Value, bool, bool, Rv);

struct Ground {
    slot: CK_SLOT_ID,
    service: &'static str,
    act: &'static str,
    operation: &'static str,
    perform: Act,
    /// It makes a key, else it takes one away.
    adds: bool,
}

impl Ground {
    fn check(&self, fates: &[Fate]) {
        let Ground { slot, service, act, operation, perform, adds } = *self;
        let keys: Vec<_> = (0..fates.len())
            .map(|nr| format!("{{ name = 'delete-{nr}', kty = 'EC', curve = 'P-256' }}"))
            .collect();
        let emulator = Emulator::start(&format!("keys = [{}]", keys.join(", ")));
        let module = Module::load();
        for (nr, (fault, done, blind, outcome)) in fates.iter().enumerate() {
            let name = format!("{act}-{nr}");
            let log = emulator.folder.path().join(format!("{name}.log"));
            let more = "allow_delete = true\ntimeout = '2s'";
            let tokens = emulator.token(VAULT, more) + &emulator.token(HSM, more);
            assert_eq!(module.initialize_as_is(&format!("{}{tokens}", sink(&log))), Ok(()));
            let session = module.open(slot);
            if !adds {
                session.object(CKO_PRIVATE_KEY, &name);
            }
            emulator.reset();
            let what = format!("{service}, {act}, {fault}, blind: {blind}");
            let mut fault = fault.clone();
            (fault["operation"], fault["times"]) = (operation.into(), 1.into());
            emulator.trouble(&fault.to_string());
            if *blind {
                // What is looked at before the request is let through.
                let before = u32::from(adds);
                let fault = json!({ "operation": "keys/get", "status": 500, "skip": before });
                emulator.trouble(&fault.to_string());
            }
            assert_eq!(perform(&session, &name), *outcome, "{what}");
            emulator.no_trouble();
            let sent = emulator.counts(service).get(operation).copied().unwrap_or_default();
            assert_eq!(sent, u64::from(*done), "{what}: carried out");
            let there = emulator.vault(service).key(KeyRef::current(&name)).is_ok();
            assert_eq!(there, adds == *done, "{what}");
            let told = fs::read_to_string(&log).unwrap_or_default();
            let named = told.lines().any(|l| l.contains(" ERROR ") && l.contains(&name));
            assert_eq!(named, outcome.is_err(), "{what}: {told}");
            let done = if adds { "made" } else { "deleted" };
            let doubt = format!("whether key '{name}' was {done} cannot be told");
            assert_eq!(told.contains(&doubt), *blind, "{what}: {told}");
            assert_eq!(module.finalize(), Ok(()));
        }
    }
}

/// The `[log]` of a configuration that writes there.
fn sink(log: &Path) -> String {
    format!("[log]\nlevel = 'info'\nsink = 'file:{}'\n", log.display())
}

/// An answer that comes after the deadline is as lost as one that never does: the call ends in
/// time, a look tells that the key is ours, and the next one finds the name taken.
#[test]
fn an_answer_after_the_deadline_leaves_a_key_that_is_told() {
    let emulator = Emulator::start("");
    let log = emulator.folder.path().join("log");
    let module = Module::load();
    let more = "timeout = '3s'";
    let tokens = emulator.token(VAULT, more) + &emulator.token(HSM, more);
    assert_eq!(module.initialize_as_is(&format!("{}{tokens}", sink(&log))), Ok(()));
    for (slot, service) in [(0, VAULT), (1, HSM)] {
        let session = module.open(slot);
        for (act, operation, perform) in
            [("create", "keys/create", make as Act), ("import", "keys/import", import)]
        {
            emulator.reset();
            // Slow bytes: it is carried out at once, and told too late.
            let fault = json!({ "operation": operation, "slow_ms": 300, "times": 1 });
            emulator.trouble(&fault.to_string());
            let started = Instant::now();
            assert_eq!(perform(&session, act), Ok(()), "{service}: a look tells that it is ours");
            // The deadline, the look, and the second after which a race would show.
            assert!(started.elapsed() < Duration::from_millis(8500), "{:?}", started.elapsed());
            assert_eq!(emulator.counts(service).get(operation), Some(&1), "{service}");
            assert_eq!(perform(&session, act), Err(CKR_TEMPLATE_INCONSISTENT), "it is there");
        }
    }
}

/// After a lost answer there is a key of the name, and it is a stranger's: it is not ours, whoever
/// asked for it first. Only the tag of the request tells.
#[test]
fn a_strangers_key_is_not_adopted_after_a_lost_answer() {
    let emulator = Emulator::start("");
    for (slot, service) in [(0, VAULT), (1, HSM)] {
        for (act, operation, perform) in
            [("create", "keys/create", make as Act), ("import", "keys/import", import)]
        {
            let log = emulator.folder.path().join(format!("{service}-{act}.log"));
            let module = Module::load();
            let toml = sink(&log) + &emulator.tokens();
            assert_eq!(module.initialize_as_is(&toml), Ok(()));
            let session = module.open(slot);
            // Ours takes its time and comes to nothing; a stranger is faster.
            let fault =
                json!({ "operation": operation, "delay_ms": 800, "status": 504, "times": 1 });
            emulator.trouble(&fault.to_string());
            let stranger = emulator.vault(service);
            let outcome = thread::scope(|scope| {
                scope.spawn(|| {
                    // The fault is met, and waits.
                    while !emulator.troubles().is_empty() {
                        thread::sleep(Duration::from_millis(20));
                    }
                    let parameters = KeyCreateParameters {
                        kty: Some("EC".into()),
                        crv: Some("P-256".into()),
                        ..KeyCreateParameters::default()
                    };
                    stranger.create_key(act, &parameters).expect("the stranger's key");
                });
                perform(&session, act)
            });
            assert_eq!(outcome, Err(CKR_DEVICE_ERROR), "{service}, {act}");
            let told = fs::read_to_string(&log).expect("the log");
            let line = told.lines().find(|line| line.contains(" ERROR ")).unwrap_or_default();
            assert!(line.contains(act) && line.contains("HTTP 504"), "{told}");
            let versions = stranger.key_versions(act, stranger.find_deadline()).expect("versions");
            assert_eq!(versions.len(), 1, "{service}, {act}: the stranger's alone");
            assert_eq!(versions[0].attributes.enabled, Some(true), "and it is left alone");
            // Now that it is there, the name is taken.
            assert_eq!(perform(&session, act), Err(CKR_TEMPLATE_INCONSISTENT));
        }
    }
}

/// A deleted name is recovered or purged before a key is made: the answers to that can be lost as
/// well, and nothing is sent twice.
#[test]
fn a_lost_answer_about_a_deleted_name_is_told_and_the_next_call_goes_on() {
    let emulator = Emulator::start("");
    for (policy, operation) in [("recover", "deletedkeys/recover"), ("purge", "deletedkeys/purge")]
    {
        for (slot, service) in [(0, VAULT), (1, HSM)] {
            let client = emulator.vault(service);
            for (nr, connection) in ["reset-before", "reset-after"].into_iter().enumerate() {
                let name = format!("{policy}-{nr}");
                let what = format!("{service}, {name}, {connection}");
                let parameters = KeyCreateParameters {
                    kty: Some("EC".into()),
                    crv: Some("P-256".into()),
                    ..KeyCreateParameters::default()
                };
                client.create_key(&name, &parameters).expect("a key");
                client.delete_key(&name).expect("deleted");
                let log = emulator.folder.path().join(format!("{service}-{name}.log"));
                let module = Module::load();
                let more = format!(
                    "on_deleted_name = '{policy}'\ngenerate_on_existing = 'new-version'\n\
                     timeout = '3s'"
                );
                let tokens = emulator.token(VAULT, &more) + &emulator.token(HSM, &more);
                assert_eq!(module.initialize_as_is(&format!("{}{tokens}", sink(&log))), Ok(()));
                let session = module.open(slot);
                emulator.reset();
                let fault = json!({ "operation": operation, "connection": connection, "times": 1 });
                emulator.trouble(&fault.to_string());
                assert_eq!(make(&session, &name), Err(CKR_DEVICE_ERROR), "{what}");
                assert!(emulator.troubles().is_empty(), "{what}: {operation} was asked for");
                let sent = emulator.counts(service).get(operation).copied().unwrap_or_default();
                assert_eq!(sent, u64::from(connection == "reset-after"), "{what}");
                let told = fs::read_to_string(&log).expect("the log");
                let named = |l: &str| l.contains(" ERROR ") && l.contains(&name);
                assert!(told.lines().any(named), "{what}: {told}");
                // It was not known; now it is seen: a recovered key is there, a purged name free.
                assert_eq!(make(&session, &name), Ok(()), "{what}: again");
                let versions = client.key_versions(&name, client.find_deadline()).expect("a list");
                assert_eq!(versions.len(), 1 + usize::from(policy == "recover"), "{what}");
            }
        }
    }
}

/// A key that was made, or changed, is made although the versions beside it cannot be listed; they
/// are shown as soon as they can be.
#[test]
fn what_was_done_is_not_undone_by_a_look_at_other_versions() {
    let emulator = Emulator::start("keys = [{ name = 'rolling', kty = 'EC', curve = 'P-256' }]");
    let more = "versions = 'enabled'\ngenerate_on_existing = 'new-version'\ntimeout = '2s'";
    let module = Module::start(&emulator.token(VAULT, more));
    let session = module.open(0);
    let listing = json!({ "service": VAULT, "operation": "keys/versions", "status": 403 });
    emulator.trouble(&listing.to_string());
    let public = [vec![bytes(CKA_EC_PARAMS, P256)], on_token("rolling")].concat();
    let mechanism = Mechanism::plain(CKM_EC_KEY_PAIR_GEN);
    let (public, private) =
        session.generate(&mechanism, &public, &on_token("rolling")).expect("a second version");
    let ecdsa = Mechanism::plain(CKM_ECDSA);
    let signature = session.sign(&ecdsa, private, &[7; 32]).expect("signed");
    session.verify(&ecdsa, public, &[7; 32], &signature).expect("its own");
    session.set(private, &[bytes(CKA_ID, [3])]).expect("changed");
    assert_eq!(session.value(private, CKA_ID).as_deref(), Ok(&[3][..]));
    emulator.no_trouble();
    let keys = || session.find(&[number(CKA_CLASS, CKO_PRIVATE_KEY)]).expect("a search");
    assert_eq!(keys().len(), 2, "the version before is shown again");
    assert_eq!(session.object(CKO_PRIVATE_KEY, "rolling"), private);
}
