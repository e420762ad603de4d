//! The first call of a process needs a token: the endpoint that gives it may fail as well.

use std::{
    thread,
    time::{Duration, Instant},
};

use cryptoki_sys::*;
use serde_json::{Value, json};

use super::{REFUSALS, SLACK, TIMEOUT, find, start, told_once};
use crate::{
    service::Emulator,
    token::Mechanism,
    way::{State, Way},
};

/// What goes wrong.
enum Trouble {
    /// A fault for requests for tokens.
    Token(Value),
    /// A fault for handshakes with the authority.
    Greet(Value),
    /// What the way to the authority is like.
    Way(State),
}

struct Row {
    name: &'static str,
    trouble: Trouble,
    /// The least and the most requests for tokens; handshakes where those fail.
    requests: (u64, u64),
    rv: CK_RV,
    /// Of the line in the log, beside the credential.
    sentence: &'static str,
}

fn rows() -> Vec<Row> {
    use Trouble::{Greet, Token, Way};
    let row = |name, trouble, requests, rv, sentence| Row { name, trouble, requests, rv, sentence };
    let status = |status: u16| Token(json!({ "status": status }));
    let ends = |how: &str| Token(json!({ "connection": how }));
    let greets = |how: &str| Greet(json!({ "connection": how }));
    let pause = |seconds: u16, times: u64| {
        Token(json!({ "status": 429, "retry_after": seconds, "times": times }))
    };
    let error = CKR_DEVICE_ERROR;
    let (nothing, once, often) = ((0, 0), (1, 1), (2, 30));
    let late = "no answer within the deadline";
    let redirect = json!({ "redirect": "https://evil.example/" });
    vec![
        row("slow-answer", Token(json!({ "delay_ms": 900, "times": 1 })), once, CKR_OK, ""),
        row("late-answer", Token(json!({ "delay_ms": 9000 })), once, error, late),
        row("slow-bytes", Token(json!({ "slow_ms": 200 })), once, error, late),
        row("http-500", status(500), often, error, "HTTP 500"),
        row("http-503", status(503), often, error, "HTTP 503"),
        row("http-401", status(401), once, CKR_USER_NOT_LOGGED_IN, "HTTP 401"),
        row("throttled", status(429), often, error, "HTTP 429"),
        row("throttled-long", pause(60, REFUSALS), once, error, "HTTP 429"),
        row("throttled-short", pause(1, 1), once, CKR_OK, ""),
        row("redirect", Token(redirect), once, error, "redirects are never followed"),
        row("html-200", Token(json!({ "status": 200, "html": true })), once, error, ""),
        row("reset", ends("reset-before"), often, error, "the connection broke"),
        row("closed", ends("close-after"), often, error, "the connection broke"),
        row("truncated", ends("truncate"), often, error, "the connection broke"),
        row("alert", greets("handshake-failure"), often, error, "no connection"),
        row("expired", greets("expired-certificate"), once, error, "certificate is not trusted"),
        row("refused", Way(State::Refused), nothing, error, "Connection refused"),
        row("unanswered", Way(State::Unanswered), nothing, error, "no connection"),
    ]
}

#[test]
fn a_token_endpoint_that_is_down_is_told_apart_and_in_time() {
    // Some at a time, each with an emulator, because all services of one share the authority.
    let rows = rows();
    thread::scope(|scope| {
        for rows in rows.chunks(3) {
            scope.spawn(move || {
                let seed = "keys = [{ name = 'ec', kty = 'EC', curve = 'P-256' }]";
                let emulator = Emulator::configured(seed, "[[vault]]\nname = 'kv1'\n");
                rows.iter().for_each(|row| row.check(&emulator));
            });
        }
    });
}

impl Row {
    fn check(&self, emulator: &Emulator) {
        let name = self.name;
        emulator.no_trouble();
        emulator.reset();
        let way = Way::to(emulator.authority_port());
        let log = emulator.folder.path().join(format!("{name}.log"));
        let token = emulator.token("kv1", "");
        let token =
            token.replace(&format!(":{}'", emulator.authority_port()), &format!(":{}'", way.port));
        let order = |fault: &Value, operation: &str| {
            let mut fault = fault.clone();
            (fault["operation"], fault["service"]) = (operation.into(), "entra".into());
            let times = fault["times"].as_u64().unwrap_or(REFUSALS);
            fault["times"] = times.into();
            emulator.trouble(&fault.to_string());
            times
        };
        let given = || emulator.counts("entra").get("token").copied().unwrap_or_default();
        let mut ordered = None;
        match &self.trouble {
            Trouble::Token(fault) => ordered = Some(order(fault, "token")),
            Trouble::Greet(fault) => ordered = Some(order(fault, "handshake")),
            Trouble::Way(state) => way.set(*state),
        }
        let module = start(&log, &token);
        let session = module.open(0);
        let started = Instant::now();
        let outcome = find(&session, "ec");
        let took = started.elapsed();
        let asked = match ordered {
            Some(ordered) => ordered - emulator.trouble_left("entra"),
            None => given(),
        };
        assert_eq!(outcome, if self.rv == CKR_OK { Ok(1) } else { Err(self.rv) }, "{name}");
        assert!(took < TIMEOUT + SLACK, "{name}: {took:?}");
        told_once(&log, "C_FindObjectsInit", self.rv, &["credential ClientSecret", self.sentence]);
        let (least, most) = self.requests;
        assert!((least..=most).contains(&asked), "{name}: {asked} requests");
        if self.rv == CKR_OK {
            return;
        }
        assert_eq!(emulator.requests("kv1"), 0, "{name}: nothing is asked without a token");
        if self.name == "throttled-long" {
            // Nor is the authority while it wants to be left alone.
            assert_eq!(find(&session, "ec"), Err(self.rv), "{name}");
            assert_eq!(REFUSALS - emulator.trouble_left("entra"), 1, "{name}");
            return;
        }
        emulator.no_trouble();
        way.set(State::Open);
        let patience = Instant::now() + Duration::from_secs(10);
        while find(&session, "ec") != Ok(1) {
            assert!(Instant::now() < patience, "{name}: it works again");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// One answer that is wrong, a gateway's perhaps, does not take the token from everybody while no
/// other can be had.
#[test]
fn a_refusal_of_one_request_leaves_the_token_to_the_others() {
    let seed = "keys = [{ name = 'ec', kty = 'EC', curve = 'P-256' },
        { name = 'odd', kty = 'EC', curve = 'P-256' }]";
    let emulator = Emulator::configured(seed, "[[vault]]\nname = 'kv1'\n");
    let module = start(&emulator.folder.path().join("log"), &emulator.token("kv1", ""));
    let session = module.open(0);
    let [good, odd] = ["ec", "odd"].map(|label| session.object(CKO_PRIVATE_KEY, label));
    let sign = |key| session.sign(&Mechanism::plain(CKM_ECDSA), key, &[4; 32]).map(drop);
    let down =
        json!({ "service": "entra", "operation": "token", "status": 503, "times": REFUSALS });
    let refusal = json!({ "operation": "keys/sign", "name": "odd", "status": 401, "times": 1 });
    emulator.trouble(&down.to_string());
    emulator.trouble(&refusal.to_string());
    assert_eq!(sign(odd), Err(CKR_DEVICE_ERROR), "no other token is to be had");
    emulator.reset();
    assert_eq!(sign(good), Ok(()));
    assert_eq!(sign(odd), Ok(()));
    assert_eq!(emulator.requests("kv1"), 2);
    emulator.no_trouble();
    emulator.trouble(&refusal.to_string());
    assert_eq!(sign(odd), Ok(()), "with a new one");
    assert_eq!(emulator.counts("entra").get("token"), Some(&1));
}
