//! One deadline per call, whatever goes wrong: for each kind of trouble what the caller gets, what
//! the operator reads, how often the service was asked, and that it was in time.

use std::{
    fs,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use akv_pkcs11::vault::KeyRef;
use akv_wire::KeyUpdateParameters;
use cryptoki_sys::*;
use serde_json::{Value, json};

use crate::{
    service::Emulator,
    token::{Mechanism, Module, Session, bytes, flag, number},
    way::{State, Way},
};

/// Of every call here.
const TIMEOUT: Duration = Duration::from_millis(1500);
/// What a busy machine may take longer.
const SLACK: Duration = Duration::from_millis(1500);

/// What goes wrong.
enum Trouble {
    /// A fault of docs/emulator.md for signatures with the row's key.
    Sign(Value),
    /// The way to the service becomes so, before the signature.
    Way(State),
    /// All connections break before the signature.
    Broken,
    /// All connections are forgotten on the way before the signature.
    Forgotten,
    /// The same, and no new ones come about.
    CutOff,
}

struct Row {
    name: &'static str,
    trouble: Trouble,
    /// The least and the most requests that reach the service, where it can count them.
    requests: (u64, u64),
    rv: CK_RV,
    /// Of the line in the log.
    sentence: &'static str,
}

use Trouble::{Broken, CutOff, Forgotten, Sign, Way as Blocked};

fn status(status: u16) -> Value {
    json!({ "status": status })
}

fn rows() -> Vec<Row> {
    let row = |name, trouble, requests, rv, sentence| Row { name, trouble, requests, rv, sentence };
    let ends = |how: &str| Sign(json!({ "connection": how }));
    let error = CKR_DEVICE_ERROR;
    let (once, often) = ((1, 1), (2, 30));
    let late = "no answer within the deadline";
    let failed = "the service or something in front of it failed";
    let throttled = "the service throttles this caller";
    let redirect = json!({ "redirect": "https://evil.example/" });
    let page = json!({ "status": 502, "html": true });
    let refusal = json!({ "status": 403, "html": true });
    let pause = json!({ "status": 429, "retry_after": 60 });
    let short_pause = json!({ "status": 429, "retry_after": 1, "times": 1 });
    let stranger = json!({ "status": 401, "challenge":
        "Bearer authorization=\"https://evil.example/tenant\", resource=\"https://evil.example\"" });
    let resource = json!({ "status": 401, "challenge":
        "Bearer authorization=\"https://localhost/tenant\", resource=\"https://other.example\"" });
    let logged_out = CKR_USER_NOT_LOGGED_IN;
    vec![
        row("slow-answer", Sign(json!({ "delay_ms": 900, "times": 1 })), once, CKR_OK, ""),
        row("late-answer", Sign(json!({ "delay_ms": 9000 })), once, error, late),
        row("slow-bytes", Sign(json!({ "slow_ms": 200 })), once, error, late),
        row("reset-before", ends("reset-before"), often, error, "the connection broke"),
        row("reset-after", ends("reset-after"), often, error, "the connection broke"),
        row("close-after", ends("close-after"), often, error, "the connection broke"),
        row("truncated", ends("truncate"), often, error, "the connection broke"),
        row("http-408", Sign(status(408)), often, error, "the service timed out"),
        row("http-500", Sign(status(500)), often, error, failed),
        row("http-502", Sign(status(502)), often, error, failed),
        row("http-503", Sign(status(503)), often, error, failed),
        row("http-504", Sign(status(504)), often, error, failed),
        row("html-502", Sign(page), often, error, failed),
        row("html-403", Sign(refusal), once, CKR_KEY_FUNCTION_NOT_PERMITTED, "keys/sign/action"),
        row("throttled", Sign(status(429)), often, error, throttled),
        row("throttled-long", Sign(pause), once, error, throttled),
        row("throttled-short", Sign(short_pause), once, CKR_OK, ""),
        row("redirect", Sign(redirect), once, error, "redirects are never followed"),
        row("other-authority", Sign(stranger), (2, 2), logged_out, "refuses the access token"),
        row("other-resource", Sign(resource), (2, 2), logged_out, "refuses the access token"),
        row("refused", Blocked(State::Refused), (0, 0), error, "no connection"),
        row("silent", Blocked(State::Silent), (0, 0), error, late),
        row("half-open", Broken, (0, 0), CKR_OK, ""),
        row("forgotten", Forgotten, (0, 0), CKR_OK, ""),
        row("cut-off", CutOff, (0, 0), error, "no connection within 400ms"),
    ]
}

const REFUSALS: u32 = 1000;

#[test]
fn every_fault_ends_in_time_and_says_what_it_is() {
    let rows = rows();
    let keys: Vec<String> = rows
        .iter()
        .map(|row| format!("{{ name = '{}', kty = 'EC', curve = 'P-256' }}", row.name))
        .collect();
    let services = "[[vault]]\nname = 'kv1'\n";
    let emulator = Emulator::configured(&format!("keys = [{}]", keys.join(", ")), services);
    thread::scope(|scope| {
        for row in &rows {
            let emulator = &emulator;
            scope.spawn(move || row.check(emulator));
        }
    });
}

impl Row {
    fn check(&self, emulator: &Emulator) {
        let name = self.name;
        let way = Way::to(emulator.port("kv1"));
        let log = emulator.folder.path().join(format!("{name}.log"));
        let module = start(&log, &emulator.token_at(&way.url(), "kv1", ""));
        let session = module.open(0);
        let key = session.object(CKO_PRIVATE_KEY, name);
        let sign = || session.sign(&Mechanism::plain(CKM_ECDSA), key, &[1; 32]).map(drop);
        assert_eq!(sign(), Ok(()), "{name}: without trouble");

        match &self.trouble {
            Sign(fault) => {
                let mut fault = fault.clone();
                fault["operation"] = "keys/sign".into();
                fault["name"] = name.into();
                if fault.get("times").is_none() {
                    fault["times"] = REFUSALS.into();
                }
                emulator.trouble(&fault.to_string());
            }
            Blocked(state) => way.set(*state),
            Broken => way.break_connections(),
            Forgotten => way.forget_connections(),
            CutOff => {
                way.set(State::Unanswered);
                way.forget_connections();
            }
        }
        let started = Instant::now();
        let outcome = sign();
        let took = started.elapsed();
        let wanted = if self.rv == CKR_OK { Ok(()) } else { Err(self.rv) };
        assert_eq!(outcome, wanted, "{name}");
        assert!(took < TIMEOUT + SLACK, "{name}: {took:?}");
        let told = fs::read_to_string(&log).expect("the log");
        let lines: Vec<_> = told.lines().filter(|line| line.contains(" C_Sign: ")).collect();
        match self.rv {
            CKR_OK => assert!(lines.is_empty(), "{name}: {lines:?}"),
            rv => {
                assert_eq!(lines.len(), 1, "{name}: {lines:?}");
                for part in [self.sentence, name, &format!("[CKR {rv:#x}]")] {
                    assert!(lines[0].contains(part), "{name}: {part} in {}", lines[0]);
                }
            }
        }
        if let Sign(fault) = &self.trouble {
            let ordered = fault["times"].as_u64().unwrap_or(REFUSALS.into());
            let asked = ordered - emulator.trouble_left(name);
            let (least, most) = self.requests;
            assert!((least..=most).contains(&asked), "{name}: {asked} requests");
        }
    }
}

fn start(log: &std::path::Path, token: &str) -> Module {
    let module = Module::load();
    let toml = format!(
        "[log]\nlevel = 'info'\nsink = 'file:{}'\n{token}timeout = '{}ms'\n\
         connect_timeout = '400ms'\nfind_timeout = '2s'\n",
        log.display(),
        TIMEOUT.as_millis()
    );
    assert_eq!(module.initialize_as_is(&toml), Ok(()));
    module
}

fn find(session: &Session<'_>, label: &str) -> Result<usize, CK_RV> {
    let template = [number(CKA_CLASS, CKO_PRIVATE_KEY), bytes(CKA_LABEL, label)];
    session.find(&template).map(|found| found.len())
}

/// The first call of a process needs a token: its endpoint may fail too.
#[test]
fn a_token_endpoint_that_is_down_is_told_apart_and_in_time() {
    let seed = "keys = [{ name = 'ec', kty = 'EC', curve = 'P-256' }]";
    let emulator = Emulator::configured(seed, "[[vault]]\nname = 'kv1'\n");
    for (fault, rv, sentence) in [
        (json!({ "status": 503 }), CKR_DEVICE_ERROR, "credential ClientSecret: HTTP 503"),
        (json!({ "delay_ms": 9000 }), CKR_DEVICE_ERROR, "no answer within the deadline"),
        (json!({ "connection": "reset-before" }), CKR_DEVICE_ERROR, "the connection broke"),
        (json!({ "status": 200, "html": true }), CKR_DEVICE_ERROR, "credential ClientSecret"),
        (json!({ "status": 401 }), CKR_USER_NOT_LOGGED_IN, "credential ClientSecret"),
    ] {
        let mut fault = fault;
        (fault["service"], fault["operation"]) = ("entra".into(), "token".into());
        emulator.trouble(&fault.to_string());
        let log = emulator.folder.path().join("log");
        let module = start(&log, &emulator.token("kv1", ""));
        let session = module.open(0);
        let started = Instant::now();
        assert_eq!(find(&session, "ec"), Err(rv), "{fault}");
        assert!(started.elapsed() < TIMEOUT + SLACK, "{fault}: {:?}", started.elapsed());
        let told = fs::read_to_string(&log).expect("the log");
        assert!(told.contains(sentence), "{fault}: {told}");
        assert_eq!(emulator.requests("kv1"), 0, "nothing is asked without a token");
        fs::remove_file(&log).expect("the log");
        emulator.no_trouble();
        thread::sleep(Duration::from_millis(1100));
        assert_eq!(find(&session, "ec"), Ok(1), "and then it works");
        emulator.reset();
    }
}

#[test]
fn a_next_link_to_another_host_is_not_followed() {
    let keys: Vec<_> =
        (0..30).map(|i| format!("{{ name = 'k{i}', kty = 'EC', curve = 'P-256' }}")).collect();
    let seed = format!("keys = [{}]", keys.join(", "));
    let emulator = Emulator::configured(&seed, "[[vault]]\nname = 'kv1'\n");
    emulator.trouble(r#"{"operation": "keys/list", "next_link_host": "evil.example"}"#);
    let log = emulator.folder.path().join("log");
    let module = start(&log, &emulator.token("kv1", ""));
    let session = module.open(0);
    assert_eq!(session.find(&[number(CKA_CLASS, CKO_PRIVATE_KEY)]), Err(CKR_DEVICE_ERROR));
    let told = fs::read_to_string(&log).expect("the log");
    assert!(
        told.contains("a nextLink to evil.example, which is not the configured host"),
        "{told}"
    );
}

#[test]
fn a_certificate_of_another_authority_is_refused_before_anything_is_sent() {
    let emulator = Emulator::configured("", "[[vault]]\nname = 'kv1'\n");
    let stranger = Emulator::configured("", "[[vault]]\nname = 'kv1'\n");
    let way = Way::to(stranger.port("kv1"));
    let log = emulator.folder.path().join("log");
    let module = start(&log, &emulator.token_at(&way.url(), "kv1", ""));
    assert_eq!(find(&module.open(0), "ec"), Err(CKR_DEVICE_ERROR));
    let told = fs::read_to_string(&log).expect("the log");
    assert!(told.contains("the server's certificate is not trusted"), "{told}");
    assert_eq!(stranger.requests("kv1"), 0);
}

/// Stale is better than down: what is known is found and signs on, and the operator reads once
/// that the listing is out, and once that it is back.
#[test]
fn an_outage_of_the_listing_is_told_once_and_known_keys_go_on() {
    let seed = "keys = [{ name = 'a', kty = 'EC', curve = 'P-256' }, \
                { name = 'b', kty = 'EC', curve = 'P-256' }]";
    let emulator = Emulator::configured(seed, "[[vault]]\nname = 'kv1'\n");
    let log = emulator.folder.path().join("log");
    let token = emulator.token("kv1", "cache_ttl = '0s'");
    let module = start(&log, &token);
    let session = module.open(0);
    let all = || session.find(&[number(CKA_CLASS, CKO_PRIVATE_KEY)]);
    let known = all().expect("two keys");
    assert_eq!(known.len(), 2);
    let told = |sentence: &str| {
        let log = fs::read_to_string(&log).unwrap_or_default();
        log.lines().filter(|line| line.contains(sentence)).count()
    };
    for outage in 1..=2 {
        emulator.trouble(r#"{"operation": "keys/list", "status": 503}"#);
        for _ in 0..2 {
            assert_eq!(all(), Ok(known.clone()));
            let started = Instant::now();
            let signed = session.sign(&Mechanism::plain(CKM_ECDSA), known[0], &[1; 32]);
            assert_eq!(signed.map(drop), Ok(()));
            // The pauses between attempts to list are not those of signatures.
            assert!(started.elapsed() < Duration::from_millis(800), "{:?}", started.elapsed());
        }
        assert_eq!(told("serving what is known"), outage);
        assert_eq!(told("searches are current"), outage - 1);
        emulator.no_trouble();
        // After so many failures the next attempt may be five seconds away.
        let over = Instant::now() + Duration::from_secs(20);
        while told("searches are current") < outage && Instant::now() < over {
            assert_eq!(all(), Ok(known.clone()));
            thread::sleep(Duration::from_millis(200));
        }
        assert_eq!(told("searches are current"), outage, "and once that it is over");
    }
    assert_eq!(told(" WARN "), 4, "{}", fs::read_to_string(&log).expect("the log"));
}

/// A firewall forgets all idle connections: the first call finds that out, because nothing it sends
/// is acknowledged, and goes on by a new connection. Nothing is done twice, and the others that were
/// idle cost nobody anything.
#[test]
fn forgotten_connections_cost_one_repetition_in_all() {
    const CALLERS: usize = 6;
    let seed = "keys = [{ name = 'ec', kty = 'EC', curve = 'P-256' }]";
    let emulator = Emulator::configured(seed, "[[vault]]\nname = 'kv1'\n");
    let way = Way::to(emulator.port("kv1"));
    let module = Module::start(&emulator.token_at(&way.url(), "kv1", ""));
    let session = module.open(0);
    let key = session.object(CKO_PRIVATE_KEY, "ec");
    let sign_in = |session: &Session<'_>| {
        let signed = session.sign(&Mechanism::plain(CKM_ECDSA), key, &[1; 32]);
        assert_eq!(signed.map(drop), Ok(()));
    };
    let pause = json!({ "operation": "keys/sign", "delay_ms": 300, "times": CALLERS });
    emulator.trouble(&pause.to_string());
    let start = Barrier::new(CALLERS);
    thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let session = module.open(0);
                start.wait();
                sign_in(&session);
            });
        }
    });
    let before = way.accepted();
    assert!(before >= CALLERS, "connections: {before}");
    emulator.reset();
    way.forget_connections();
    let started = Instant::now();
    sign_in(&session);
    let took = started.elapsed();
    // A second without acknowledgement, and a new connection; `connect_timeout` is three.
    assert!((900..2500).contains(&took.as_millis()), "{took:?}");
    let started = Instant::now();
    (0..10).for_each(|_| sign_in(&session));
    assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
    assert_eq!(way.accepted(), before + 1);
    assert_eq!(emulator.counts("kv1").get("keys/sign"), Some(&11));

    way.forget_connections();
    let made = session.generate(
        &Mechanism::plain(CKM_EC_KEY_PAIR_GEN),
        &[bytes(CKA_EC_PARAMS, super::signing::P256)],
        &[flag(CKA_TOKEN, true), bytes(CKA_LABEL, "made")],
    );
    assert_eq!(made.map(drop), Ok(()));
    assert_eq!(emulator.counts("kv1").get("keys/create"), Some(&1));
}

/// The many connections of a search are not kept for so long that a firewall could forget them:
/// what it costs is what the one connection of the listing does.
#[test]
fn forgotten_connections_of_a_search_cost_no_connection_time_out() {
    let keys: Vec<_> =
        (0..12).map(|i| format!("{{ name = 'k{i}', kty = 'EC', curve = 'P-256' }}")).collect();
    let seed = format!("keys = [{}]", keys.join(", "));
    let emulator = Emulator::configured(&seed, "[[vault]]\nname = 'kv1'\n");
    let way = Way::to(emulator.port("kv1"));
    let module = Module::start(&emulator.token_at(&way.url(), "kv1", "cache_ttl = '0s'"));
    let session = module.open(0);
    let all = || session.find(&[number(CKA_CLASS, CKO_PRIVATE_KEY)]).map(|found| found.len());
    let vault = emulator.vault("kv1");
    let change = |name: &str| {
        let tags = [("changed".to_owned(), "yes".to_owned())].into();
        let parameters = KeyUpdateParameters { tags: Some(tags), ..Default::default() };
        vault.update_key(KeyRef::current(name), &parameters).expect("a change");
    };
    assert_eq!(all(), Ok(12));
    let before = way.accepted();
    // `updated` has seconds.
    thread::sleep(Duration::from_millis(1100));
    (0..6).for_each(|i| change(&format!("k{i}")));
    assert_eq!(all(), Ok(12));
    assert!(way.accepted() <= before + 1, "the next search soon after goes over the same ones");
    thread::sleep(Duration::from_millis(5500));
    (0..6).for_each(|i| change(&format!("k{i}")));
    way.forget_connections();
    let started = Instant::now();
    assert_eq!(all(), Ok(12));
    // One second without acknowledgement for the listing; `connect_timeout` is three.
    assert!(started.elapsed() < Duration::from_millis(2700), "{:?}", started.elapsed());
}
