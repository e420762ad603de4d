//! Everything at once for a long time: `make soak`. A short piece of it runs with every other test.

use std::{
    collections::BTreeMap,
    env, fs,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use cryptoki_sys::*;
use serde_json::{Value, json};

use crate::{
    service::{Emulator, HSM, VAULT},
    token::{Family, Mechanism, Module, Parameter, Rv, Session, threads},
    way::{State, Way},
};

const THREADS: usize = 32;
/// So many of them use a module that is finalized and initialised again under their calls.
const RELOADED: usize = 4;
/// The deadline of a call.
const TIMEOUT: Duration = Duration::from_secs(10);
const SEED: &str = "
keys = [
    { name = 'rsa', kty = 'RSA', size = 2048 },
    { name = 'ec', kty = 'EC', curve = 'P-256' },
    { name = 'trap', kty = 'EC', curve = 'P-256' },
    { name = 'aes', kty = 'oct-HSM', size = 256, service = 'hsm1' },
]";
/// Tokens end soon, so that there is always somebody who fetches one.
const SERVICES: &str = "token_lifetime = 30\n[[vault]]\nname = 'kv1'\n[[hsm]]\nname = 'hsm1'\n";

/// The authority, in orders of trouble.
const ENTRA: &str = "entra";

/// A number below `limit`, another one each time.
fn random(limit: u64) -> u64 {
    let mut bytes = [0; 8];
    openssl::rand::rand_bytes(&mut bytes).expect("random bytes");
    u64::from_ne_bytes(bytes) % limit
}

/// Trouble that a call gets over within its deadline.
fn transient() -> Vec<Value> {
    let mut all: Vec<_> = [408, 429, 500, 502, 503, 504].map(|s| json!({ "status": s })).into();
    all.extend(
        ["reset-before", "reset-after", "close-before", "close-after", "truncate"]
            .map(|end| json!({ "connection": end })),
    );
    all.extend(["notify-before", "notify-after"].map(|end| json!({ "connection": end })));
    all.push(json!({ "status": 502, "html": true }));
    all.push(json!({ "status": 429, "retry_after": 1 }));
    // No slow bytes: each waits for its turn in an emulator that all threads keep busy, and some
    // hundred turns are longer than a deadline. The tables of faults have them.
    all.push(json!({ "delay_ms": 700 }));
    all
}

/// How often the trouble of an operation is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Operations that trouble is ordered for; how many requests of each are left alone between two
/// troubles, at most (of the frequent ones one in a hundred is hit); and how many looks. A call gets
/// over some failures in a row, but not over any number.
const TARGETS: [(&str, u64, u64); 8] = [
    ("keys/sign", 200, 1),
    ("keys/decrypt", 200, 1),
    ("keys/encrypt", 200, 1),
    ("keys/get", 20, 50),
    ("keys/list", 2, 50),
    ("handshake", 20, 5),
    ("token", 20, 20),
    // The authority's.
    ("greeting", 20, 20),
];

fn order(emulator: &Emulator, operation: &str, apart: u64) {
    let kinds = match operation {
        "handshake" | "greeting" => vec![
            json!({ "connection": "reset-before" }),
            json!({ "connection": "close-before" }),
            json!({ "connection": "handshake-failure" }),
            json!({ "delay_ms": 3500 }),
        ],
        "token" => {
            let mut kinds = transient();
            kinds.retain(|kind| kind["status"] != 408);
            kinds
        }
        _ => transient(),
    };
    let mut fault = kinds[random(kinds.len() as u64) as usize].clone();
    fault["operation"] = operation.into();
    match operation {
        "greeting" => (fault["operation"], fault["service"]) = ("handshake".into(), ENTRA.into()),
        "handshake" => {
            fault["service"] = ["vault:kv1", "managed-hsm:hsm1"][random(2) as usize].into()
        }
        _ => {}
    }
    if operation == "keys/sign" {
        // The key "trap" has its own.
        fault["name"] = ["rsa", "ec"][random(2) as usize].into();
    }
    fault["skip"] = random(apart).into();
    fault["times"] = 1.into();
    emulator.trouble(&fault.to_string());
}

/// What is counted and what went wrong.
#[derive(Default)]
struct Tally {
    over: AtomicBool,
    signatures: AtomicU64,
    decryptions: AtomicU64,
    searches: AtomicU64,
    traps: AtomicU64,
    slowest: AtomicU64,
    failures: Mutex<BTreeMap<String, u64>>,
}

impl Tally {
    /// Runs a call that must succeed.
    fn run<T>(&self, what: &str, count: &AtomicU64, call: impl FnOnce() -> Rv<T>) -> Rv<T> {
        let started = Instant::now();
        let outcome = call();
        let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.slowest.fetch_max(took, SeqCst);
        count.fetch_add(u64::from(outcome.is_ok()), SeqCst);
        outcome.inspect_err(|rv| self.failed(format!("{what}: {rv:#x}")))
    }

    fn failed(&self, what: String) {
        *self.failures.lock().expect("lock").entry(what).or_default() += 1;
    }
}

/// One thing that clients do, with every answer verified.
fn one(tally: &Tally, session: &Session<'_>, hsm: bool) -> Rv {
    let data = [random(8) as u8; 32];
    let sign = |label: &str, mechanism: Mechanism| {
        let (private, public) = session.pair(label);
        let signature = session.sign(&mechanism, private, &data)?;
        session.verify(&mechanism, public, &data, &signature)
    };
    let pss = Mechanism::pss(CKM_SHA256_RSA_PKCS_PSS, CKM_SHA256, CKG_MGF1_SHA256, 32);
    let decrypt = |label: &str, mechanism: Mechanism| {
        let (private, public) = match label {
            "aes" => [session.object(CKO_SECRET_KEY, label); 2].into(),
            _ => session.pair(label),
        };
        let ciphertext = session.run(Family::Encrypt, &mechanism, public, &data)?;
        let plaintext = session.run(Family::Decrypt, &mechanism, private, &ciphertext)?;
        assert_eq!(plaintext, data, "another plaintext");
        Ok(())
    };
    let cbc = Mechanism { kind: CKM_AES_CBC_PAD, parameter: Parameter::Bytes(vec![7; 16]) };
    let (signatures, decryptions) = (&tally.signatures, &tally.decryptions);
    match random(8) {
        0..3 => tally.run("ECDSA", signatures, || sign("ec", Mechanism::plain(CKM_ECDSA))),
        3 => {
            let mechanism = Mechanism::plain(CKM_SHA256_RSA_PKCS);
            tally.run("RSA", signatures, || sign("rsa", mechanism))
        }
        4 => tally.run("PSS", signatures, || sign("rsa", pss)),
        5 => {
            let mechanism = Mechanism::oaep(CKM_SHA_1, CKG_MGF1_SHA1);
            tally.run("OAEP", decryptions, || decrypt("rsa", mechanism))
        }
        6 if hsm => tally.run("AES", decryptions, || decrypt("aes", cbc)),
        _ => tally.run("search", &tally.searches, || {
            let other = session.module.open_with(session.info()?.slotID, CKF_SERIAL_SESSION)?;
            other.find(&[]).map(drop)?;
            other.close()
        }),
    }
}

/// What a call cannot get over is told as what it is, and the next call works.
fn trap(tally: &Tally, emulator: &Emulator, session: &Session<'_>) {
    let key = session.object(CKO_PRIVATE_KEY, "trap");
    let ecdsa = Mechanism::plain(CKM_ECDSA);
    let challenge = "Bearer authorization=\"https://evil.example/t\", resource=\"https://evil\"";
    let hopeless = [
        (json!({ "redirect": "https://evil.example/", "times": 1 }), CKR_DEVICE_ERROR),
        (json!({ "status": 403, "html": true, "times": 1 }), CKR_KEY_FUNCTION_NOT_PERMITTED),
        (json!({ "status": 401, "challenge": challenge, "times": 2 }), CKR_USER_NOT_LOGGED_IN),
    ];
    while !tally.over.load(SeqCst) {
        for (mut fault, rv) in hopeless.clone() {
            (fault["operation"], fault["name"]) = ("keys/sign".into(), "trap".into());
            emulator.trouble(&fault.to_string());
            let outcome = session.sign(&ecdsa, key, &[1; 32]);
            if outcome.as_ref().err() != Some(&rv) {
                tally.failed(format!("the trap {fault}: {outcome:?}"));
            }
            let _ = tally.run("after a trap", &tally.traps, || session.sign(&ecdsa, key, &[1; 32]));
        }
        thread::sleep(Duration::from_millis(500));
    }
}

/// Whether a module that was finalized under a call may answer so.
fn is_end(rv: CK_RV) -> bool {
    matches!(rv, CKR_CRYPTOKI_NOT_INITIALIZED | CKR_SESSION_HANDLE_INVALID | CKR_SESSION_CLOSED)
        || matches!(rv, CKR_KEY_HANDLE_INVALID | CKR_OBJECT_HANDLE_INVALID)
        || rv == CKR_OPERATION_NOT_INITIALIZED
}

/// Signs with a module that comes and goes; what is signed is right.
fn sign_through_reloads(tally: &Tally, module: &Module) {
    let ecdsa = Mechanism::plain(CKM_ECDSA);
    let round = || {
        let session = module.open_with(0, CKF_SERIAL_SESSION)?;
        let find = |class| {
            let template =
                [crate::token::number(CKA_CLASS, class), crate::token::bytes(CKA_LABEL, "ec")];
            session.find(&template)?.first().copied().ok_or(CKR_OBJECT_HANDLE_INVALID)
        };
        let (private, public) = (find(CKO_PRIVATE_KEY)?, find(CKO_PUBLIC_KEY)?);
        let signature = session.sign(&ecdsa, private, &[3; 32])?;
        session.verify(&ecdsa, public, &[3; 32], &signature)?;
        session.close()
    };
    while !tally.over.load(SeqCst) {
        match round() {
            Ok(()) => {
                tally.signatures.fetch_add(1, SeqCst);
            }
            Err(rv) if is_end(rv) => thread::sleep(Duration::from_millis(5)),
            Err(rv) => tally.failed(format!("through reloads: {rv:#x}")),
        }
    }
}

/// Resident memory of this process alone, KiB, and its descriptors beside those of the ways.
fn size(ways: &[&Way]) -> (u64, usize) {
    let statm = fs::read_to_string("/proc/self/statm").expect("/proc");
    let pages: Vec<u64> = statm.split(' ').filter_map(|word| word.parse().ok()).collect();
    let of_ways: usize = ways.iter().map(|way| way.descriptors()).sum();
    let all = fs::read_dir("/proc/self/fd").expect("/proc").count();
    let descriptors = all.saturating_sub(of_ways);
    ((pages[1] - pages[2]) * 4, descriptors)
}

#[test]
fn nothing_fails_that_need_not_fail() {
    // A process of its own: memory and descriptors are those of no other test.
    const SECONDS: &str = "AKV_SOAK_SECONDS";
    let seconds = env::var(SECONDS).unwrap_or_else(|_| "15".to_owned());
    if !crate::token::is_alone("soak::nothing_fails_that_need_not_fail", &[(SECONDS, &seconds)]) {
        return;
    }
    let length = Duration::from_secs(seconds.parse().expect("a number of seconds"));
    let emulator = Emulator::configured(SEED, SERVICES);
    let log = emulator.folder.path().join("log");
    // The vault's first way comes and goes; a second one, its replica's, stays.
    let (way, stand_in) = (Way::to(emulator.port(VAULT)), Way::to(emulator.port(VAULT)));
    let deadline = format!("timeout = '{}s'\n", TIMEOUT.as_secs());
    let replica = format!("[[token.replica]]\nendpoint = '{}'\n", stand_in.url());
    let toml = format!(
        "log = {{ level = 'error', sink = 'file:{}' }}\n{}{}",
        log.display(),
        emulator.token_at(&way.url(), VAULT, &format!("{deadline}{replica}")),
        emulator.token(HSM, &deadline),
    );
    let start = || {
        let module = Module::load();
        module.initialize_as_is(&toml).expect("C_Initialize");
        module
    };
    let (module, reloaded) = (start(), start());
    let tally = Tally::default();
    let (mut troubles, mut reloads, mut outages) = (0_u64, 0_u64, 0_u64);
    let mut sizes = Vec::new();
    let began = Instant::now();
    thread::scope(|scope| {
        for number in 0..THREADS - RELOADED {
            let (module, tally) = (&module, &tally);
            scope.spawn(move || {
                let session = module.open(number as CK_SLOT_ID % 2);
                while !tally.over.load(SeqCst) {
                    let _ = one(tally, &session, number % 2 == 1);
                }
            });
        }
        for _ in 0..RELOADED {
            scope.spawn(|| sign_through_reloads(&tally, &reloaded));
        }
        // Where nobody stands in: a stand-in's refusal is not the last word.
        scope.spawn(|| trap(&tally, &emulator, &module.open(1)));
        // Trouble, one piece for each operation at a time; reloads; looks at the process.
        let (mut reload, mut look) = (began, began + length / 5);
        let mut turn = began;
        while began.elapsed() < length {
            let waiting = emulator.troubles();
            for (operation, apart, looks) in TARGETS {
                if random(looks) == 0 && !waiting.iter().any(|one| one == operation) {
                    order(&emulator, operation, apart);
                    troubles += 1;
                }
            }
            if reload.elapsed() > Duration::from_secs(5) {
                reloaded.finalize().expect("C_Finalize");
                reloaded.initialize_as_is(&toml).expect("C_Initialize");
                (reload, reloads) = (Instant::now(), reloads + 1);
            }
            if turn.elapsed() > Duration::from_secs(3) {
                let states = [State::Open, State::Refused, State::Unanswered, State::Silent];
                way.set(states[outages as usize % states.len()]);
                (turn, outages) = (Instant::now(), outages + 1);
            }
            if look < Instant::now() {
                sizes.push(size(&[&way, &stand_in]));
                look += length / 5;
            }
            thread::sleep(LOOK);
        }
        tally.over.store(true, SeqCst);
    });
    sizes.push(size(&[&way, &stand_in]));
    let requests = [VAULT, HSM].map(|name| emulator.requests(name));
    let count = |count: &AtomicU64| count.load(SeqCst);
    let failures = tally.failures.lock().expect("lock").clone();
    eprintln!(
        "soak: {} s, {THREADS} threads: {} signatures and {} decryptions, all right; {} searches; \
         {} requests, {troubles} troubles among them, {outages} changes of an endpoint, {} token \
         requests, {reloads} reloads, {} refusals told; slowest call {} ms; KiB and descriptors after each fifth: {sizes:?}; \
         failures: {failures:?}",
        length.as_secs(),
        count(&tally.signatures),
        count(&tally.decryptions),
        count(&tally.searches),
        requests[0] + requests[1],
        emulator.requests("entra"),
        count(&tally.traps),
        count(&tally.slowest),
    );
    // The traps' lines are what they have to be.
    let told = fs::read_to_string(&log).unwrap_or_default();
    let told: Vec<_> = told.lines().filter(|line| !line.contains(" key trap/")).collect();
    assert!(failures.is_empty(), "{failures:?}\n{}", told.join("\n"));
    assert!(count(&tally.signatures) > 100 && troubles > 10 && reloads > 0);
    assert!(Duration::from_millis(count(&tally.slowest)) < TIMEOUT + Duration::from_secs(1));
    let ((kib, descriptors), (kib_late, descriptors_late)) = (sizes[0], sizes[sizes.len() - 1]);
    assert!(kib_late < kib + 16 * 1024, "memory grows: {sizes:?}");
    assert!(descriptors_late <= descriptors + 8, "descriptors grow: {sizes:?}");
    drop((way, stand_in));
    // What the ways had under way ends with them.
    let patience = Instant::now() + Duration::from_secs(5);
    while threads() > 2 && Instant::now() < patience {
        thread::sleep(LOOK);
    }
    assert_eq!(threads(), 2, "the test and its main thread");
}
