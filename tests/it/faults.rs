//! One deadline per call, whatever goes wrong: for each kind of trouble what the caller gets, what
//! the operator reads, how often the service was asked, and that it was in time.

mod authority;
mod names;
mod operations;

use std::{
    fs,
    path::Path,
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
    /// A fault for the next handshakes with the row's vault, and no connection is left.
    Greet(Value),
    /// The way to the service becomes so, before the signature.
    Way(State),
    /// All connections end before the signature, as a server ends them.
    Ended,
    /// The same, and new ones come to nothing.
    Cold,
    /// All connections are forgotten on the way before the signature.
    Forgotten,
    /// The same, and no new ones come about.
    CutOff,
}

struct Row {
    name: &'static str,
    trouble: Trouble,
    /// The least and the most requests that reach the service; handshakes where those fail.
    requests: (u64, u64),
    rv: CK_RV,
    /// Of the line in the log.
    sentence: &'static str,
}

use Trouble::{Cold, CutOff, Ended, Forgotten, Greet, Sign, Way as Blocked};

fn status(status: u16) -> Value {
    json!({ "status": status })
}

fn rows() -> Vec<Row> {
    let row = |name, trouble, requests, rv, sentence| Row { name, trouble, requests, rv, sentence };
    let ends = |how: &str| Sign(json!({ "connection": how }));
    let greets = |how: &str| Greet(json!({ "connection": how }));
    let error = CKR_DEVICE_ERROR;
    let (nothing, once, often) = ((0, 0), (1, 1), (2, 30));
    let unanswered = "no connection within 400ms";
    let untrusted = "the server's certificate is not trusted";
    let late = "no answer within the deadline";
    let failed = "the service or something in front of it failed";
    let throttled = "the service throttles this caller";
    let redirect = json!({ "redirect": "https://evil.example/" });
    let page = json!({ "status": 502, "html": true });
    let portal = json!({ "status": 200, "html": true });
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
        row("html-200", Sign(portal), once, error, "the answer is "),
        row("html-403", Sign(refusal), once, CKR_KEY_FUNCTION_NOT_PERMITTED, "keys/sign/action"),
        row("throttled", Sign(status(429)), often, error, throttled),
        row("throttled-long", Sign(pause), once, error, throttled),
        row("throttled-short", Sign(short_pause), once, CKR_OK, ""),
        row("redirect", Sign(redirect), once, error, "redirects are never followed"),
        row("other-authority", Sign(stranger), (2, 2), logged_out, "refuses the access token"),
        row("other-resource", Sign(resource), (2, 2), logged_out, "refuses the access token"),
        row("alert", greets("handshake-failure"), often, error, "no connection: TLS handshake: "),
        row("expired", greets("expired-certificate"), once, error, untrusted),
        row("greeting-reset", greets("reset-before"), often, error, "no connection: TLS handshake"),
        row("slow-greeting", Greet(json!({ "delay_ms": 900, "times": 1 })), once, CKR_OK, ""),
        row("late-greeting", Greet(json!({ "delay_ms": 9000 })), often, error, unanswered),
        row("refused", Blocked(State::Refused), nothing, error, "Connection refused"),
        row("silent", Blocked(State::Silent), nothing, error, late),
        row("ended", Ended, once, CKR_OK, ""),
        row("half-open", Forgotten, once, CKR_OK, ""),
        row("unanswered", Cold, nothing, error, unanswered),
        row("cut-off", CutOff, nothing, error, unanswered),
    ]
}

/// So often a fault is met that is for ever.
const REFUSALS: u64 = 1000;

#[test]
fn every_fault_ends_in_time_and_says_what_it_is() {
    let rows = rows();
    let each =
        |line: fn(&str) -> String| -> String { rows.iter().map(|row| line(row.name)).collect() };
    // A vault for each, so that its requests and handshakes are those of no other row.
    let keys = each(|name| {
        format!("[[keys]]\nname = '{name}'\nkty = 'EC'\ncurve = 'P-256'\nservice = '{name}'\n")
    });
    let vaults = each(|name| format!("[[vault]]\nname = '{name}'\n"));
    let emulator = Emulator::configured(&keys, &vaults);
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
        let way = Way::to(emulator.port(name));
        let log = emulator.folder.path().join(format!("{name}.log"));
        let module = start(&log, &emulator.token_at(&way.url(), name, ""));
        let session = module.open(0);
        let key = session.object(CKO_PRIVATE_KEY, name);
        let sign = || session.sign(&Mechanism::plain(CKM_ECDSA), key, &[1; 32]).map(drop);
        assert_eq!(sign(), Ok(()), "{name}: without trouble");

        let vault = format!("vault:{name}");
        let order = |fault: &Value, operation: &str| {
            let mut fault = fault.clone();
            (fault["operation"], fault["service"]) = (operation.into(), vault.as_str().into());
            let times = fault["times"].as_u64().unwrap_or(REFUSALS);
            fault["times"] = times.into();
            emulator.trouble(&fault.to_string());
            times
        };
        let signed = || emulator.counts(name).get("keys/sign").copied().unwrap_or_default();
        let before = signed();
        let mut ordered = None;
        match &self.trouble {
            Sign(fault) => ordered = Some(order(fault, "keys/sign")),
            Greet(fault) => {
                ordered = Some(order(fault, "handshake"));
                way.break_connections();
            }
            Blocked(state) => way.set(*state),
            Ended => way.break_connections(),
            Cold => {
                way.set(State::Unanswered);
                way.break_connections();
            }
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
        assert_eq!(outcome, wanted, "{name}: {}", fs::read_to_string(&log).unwrap_or_default());
        assert!(took < TIMEOUT + SLACK, "{name}: {took:?}");
        told_once(&log, "C_Sign", self.rv, &[self.sentence, name]);
        let asked = match ordered {
            Some(ordered) => ordered - emulator.trouble_left(&vault),
            None => signed() - before,
        };
        let (least, most) = self.requests;
        assert!((least..=most).contains(&asked), "{name}: {asked} requests");
    }
}

/// The log has one line about the function, with all these parts, if it failed, and else none.
fn told_once(log: &Path, function: &str, rv: CK_RV, parts: &[&str]) {
    let told = fs::read_to_string(log).expect("the log");
    let lines: Vec<_> =
        told.lines().filter(|line| line.contains(&format!(" {function}: "))).collect();
    if rv == CKR_OK {
        return assert!(lines.is_empty(), "{}: {lines:?}", log.display());
    }
    assert_eq!(lines.len(), 1, "{}: {told}", log.display());
    for part in parts.iter().copied().chain([format!("[CKR {rv:#x}]").as_str()]) {
        assert!(lines[0].contains(part), "{}: {part} in {}", log.display(), lines[0]);
    }
}

fn start(log: &Path, token: &str) -> Module {
    let module = Module::load();
    initialize(&module, log, token);
    module
}

fn initialize(module: &Module, log: &Path, token: &str) {
    let toml = format!(
        "[log]\nlevel = 'info'\nsink = 'file:{}'\n{token}timeout = '{}ms'\n\
         connect_timeout = '400ms'\nfind_timeout = '2s'\n",
        log.display(),
        TIMEOUT.as_millis()
    );
    assert_eq!(module.initialize_as_is(&toml), Ok(()));
}

fn find(session: &Session<'_>, label: &str) -> Result<usize, CK_RV> {
    let template = [number(CKA_CLASS, CKO_PRIVATE_KEY), bytes(CKA_LABEL, label)];
    session.find(&template).map(|found| found.len())
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
    let started = Instant::now();
    assert_eq!(session.find(&[number(CKA_CLASS, CKO_PRIVATE_KEY)]), Err(CKR_DEVICE_ERROR));
    assert!(started.elapsed() < TIMEOUT + SLACK, "{:?}", started.elapsed());
    assert_eq!(emulator.counts("kv1").get("keys/list"), Some(&1), "a page is asked for once");
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
    let started = Instant::now();
    assert_eq!(find(&module.open(0), "ec"), Err(CKR_DEVICE_ERROR));
    assert!(started.elapsed() < TIMEOUT + SLACK, "{:?}", started.elapsed());
    assert_eq!(way.accepted(), 1, "a certificate does not become better");
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
    let (before, searched) = (way.accepted(), Instant::now());
    // `updated` has seconds.
    thread::sleep(Duration::from_millis(1100));
    (0..6).for_each(|i| change(&format!("k{i}")));
    assert_eq!(all(), Ok(12));
    // Unless a busy machine took longer than they are kept.
    if searched.elapsed() < Duration::from_millis(4500) {
        assert!(way.accepted() <= before + 1, "the next search soon after goes over the same ones");
    }
    thread::sleep(Duration::from_millis(5500));
    (0..6).for_each(|i| change(&format!("k{i}")));
    way.forget_connections();
    let started = Instant::now();
    assert_eq!(all(), Ok(12));
    // One second without acknowledgement for the listing; `connect_timeout` is three.
    assert!(started.elapsed() < Duration::from_millis(2700), "{:?}", started.elapsed());
}
