//! The same trouble met by what is asked beside signatures, at a vault and at a Managed HSM.

use std::{fs, thread, time::Instant};

use cryptoki_sys::*;
use openssl::{pkey::PKey, rsa::Rsa};
use serde_json::{Value, json};

use super::{REFUSALS, SLACK, TIMEOUT, find, initialize, told_once};
use crate::{
    life::on_token,
    service::Emulator,
    signing::P256,
    token::{Family, Mechanism, Module, Rv, Session, bytes, number},
    way::{State, Way},
};

/// One thing that is asked for.
struct Act {
    operation: &'static str,
    function: &'static str,
    perform: fn(&Session<'_>, &[u8]) -> Rv,
    /// It is not sent twice when it may have been carried out.
    once: bool,
    forbidden: CK_RV,
}

const LABEL: &str = "rsa";

const ACTS: &[Act] = &[
    Act {
        operation: "keys/get",
        function: "C_FindObjectsInit",
        perform: |session, _| find(session, LABEL).map(|count| assert_eq!(count, 1)),
        once: false,
        forbidden: CKR_FUNCTION_REJECTED,
    },
    Act {
        operation: "keys/list",
        function: "C_FindObjectsInit",
        perform: |session, _| {
            let all = session.find(&[number(CKA_CLASS, CKO_PRIVATE_KEY)])?;
            assert!(!all.is_empty());
            Ok(())
        },
        once: false,
        forbidden: CKR_FUNCTION_REJECTED,
    },
    Act {
        operation: "keys/decrypt",
        function: "C_Decrypt",
        perform: |session, ciphertext| {
            let key = session.object(CKO_PRIVATE_KEY, LABEL);
            let plaintext = session.run(Family::Decrypt, &oaep(), key, ciphertext)?;
            assert_eq!(plaintext, PLAINTEXT);
            Ok(())
        },
        once: false,
        forbidden: CKR_KEY_FUNCTION_NOT_PERMITTED,
    },
    Act {
        operation: "keys/create",
        function: "C_GenerateKeyPair",
        perform: |session, _| {
            let public = [vec![bytes(CKA_EC_PARAMS, P256)], on_token("made")].concat();
            let mechanism = Mechanism::plain(CKM_EC_KEY_PAIR_GEN);
            session.generate(&mechanism, &public, &on_token("made")).map(drop)
        },
        once: true,
        forbidden: CKR_FUNCTION_REJECTED,
    },
];

const PLAINTEXT: &[u8] = b"plaintext that came through";

fn oaep() -> Mechanism {
    Mechanism::oaep(CKM_SHA256, CKG_MGF1_SHA256)
}

/// What goes wrong.
#[derive(Clone)]
enum Trouble {
    /// A fault of the operation.
    Request(Value),
    /// A fault of new connections, and no other is left.
    Greet(&'static str),
    /// What the way to the service is like.
    Way(State),
}

struct Row {
    name: &'static str,
    trouble: Trouble,
    /// The least and the most requests, or handshakes: of what may be repeated, and of the rest.
    requests: [(u64, u64); 2],
    /// None: as the act has it for what is forbidden.
    rv: Option<CK_RV>,
    sentence: &'static str,
}

fn rows() -> Vec<Row> {
    use Trouble::{Greet, Request, Way};
    let row = |name, trouble, requests, rv, sentence| Row { name, trouble, requests, rv, sentence };
    let (nothing, once, often) = ((0, 0), (1, 1), (2, 30));
    let error = Some(CKR_DEVICE_ERROR);
    let fault = |fault: Value| Request(fault);
    let ends = |how: &str| Request(json!({ "connection": how }));
    let failed = "the service or something in front of it failed";
    let broke = "the connection broke";
    let late = "no answer within the deadline";
    let unsafe_to_repeat = [often, once];
    vec![
        row("late", fault(json!({ "delay_ms": 9000 })), [once; 2], error, late),
        row("reset-after", ends("reset-after"), unsafe_to_repeat, error, broke),
        row("truncated", ends("truncate"), unsafe_to_repeat, error, broke),
        row("http-503", fault(json!({ "status": 503 })), unsafe_to_repeat, error, failed),
        row("throttled", fault(json!({ "status": 429 })), [often; 2], error, "throttles"),
        row(
            "pause",
            fault(json!({ "status": 429, "retry_after": 60 })),
            [once; 2],
            error,
            "throttles",
        ),
        row(
            "html-200",
            fault(json!({ "status": 200, "html": true })),
            [once; 2],
            error,
            "the answer is ",
        ),
        row(
            "html-403",
            fault(json!({ "status": 403, "html": true })),
            [once; 2],
            None,
            "lacks data action",
        ),
        row(
            "redirect",
            fault(json!({ "redirect": "https://evil.example/" })),
            [once; 2],
            error,
            "redirects are never followed",
        ),
        row("alert", Greet("handshake-failure"), [often; 2], error, "TLS handshake"),
        row("expired", Greet("expired-certificate"), [once; 2], error, "is not trusted"),
        row("refused", Way(State::Refused), [nothing; 2], error, "Connection refused"),
        row(
            "unanswered",
            Way(State::Unanswered),
            [nothing; 2],
            error,
            "no connection within 400ms",
        ),
    ]
}

#[test]
fn what_is_no_signature_ends_in_time_as_well() {
    let rows = rows();
    let key = PKey::from_rsa(Rsa::generate(2048).expect("a key")).expect("a key");
    let pem = String::from_utf8(key.private_key_to_pem_pkcs8().expect("PEM")).expect("text");
    let seed = format!("[[keys]]\nname = '{LABEL}'\nkty = 'RSA'\npem = '''\n{pem}'''\n");
    let services: Vec<(&Row, &str, String)> = ["vault", "hsm"]
        .into_iter()
        .flat_map(|kind| rows.iter().map(move |row| (row, kind, format!("{kind}-{}", row.name))))
        .collect();
    let config: String =
        services.iter().map(|(_, kind, name)| format!("[[{kind}]]\nname = '{name}'\n")).collect();
    // An emulator for each act: trouble that one is in is nobody else's.
    let emulators = [(); ACTS.len()].map(|()| Emulator::configured(&seed, &config));
    // The key is the same everywhere: one ciphertext does.
    let module = Module::start(&emulators[0].token("vault-late", ""));
    let session = module.open(0);
    let public = session.pair(LABEL).1;
    let sealed = session.run(Family::Encrypt, &oaep(), public, PLAINTEXT).expect("a ciphertext");
    thread::scope(|scope| {
        for (row, _, service) in &services {
            let (emulators, sealed) = (&emulators, &sealed);
            scope.spawn(move || {
                let module = Module::load();
                for (act, emulator) in ACTS.iter().zip(emulators) {
                    row.check(emulator, &module, service, act, sealed);
                    assert_eq!(module.finalize(), Ok(()));
                }
            });
        }
    });
}

impl Row {
    /// The service does what it is asked for, and the answer is lost.
    fn was_carried_out(&self) -> bool {
        let Trouble::Request(fault) = &self.trouble else { return false };
        ["reset-after", "truncate"].iter().any(|how| fault["connection"] == *how)
    }

    fn check(
        &self,
        emulator: &Emulator,
        module: &Module,
        service: &str,
        act: &Act,
        ciphertext: &[u8],
    ) {
        let operation = act.operation;
        let what = format!("{service}, {operation}");
        let way = Way::to(emulator.port(service));
        let log = emulator.folder.path().join(what.replace(['/', ','], "-"));
        initialize(module, &log, &emulator.token_at(&way.url(), service, ""));
        let session = module.open(0);
        // What is done with a key is done with one that is known; a search is the first request.
        if !act.function.starts_with("C_Find") {
            session.object(CKO_PRIVATE_KEY, LABEL);
        }
        let label = match service.starts_with("vault") {
            true => format!("vault:{service}"),
            false => format!("managed-hsm:{service}"),
        };
        let order = |mut fault: Value, operation: &str| {
            (fault["operation"], fault["service"]) = (operation.into(), label.as_str().into());
            fault["times"] = REFUSALS.into();
            if operation == "keys/create" {
                fault["name"] = "made".into();
            }
            emulator.trouble(&fault.to_string());
        };
        match self.trouble.clone() {
            Trouble::Request(fault) => order(fault, operation),
            Trouble::Greet(how) => {
                order(json!({ "connection": how }), "handshake");
                way.break_connections();
            }
            Trouble::Way(state) => {
                way.set(state);
                way.break_connections();
            }
        }
        let before = emulator.requests(service);
        let started = Instant::now();
        let outcome = (act.perform)(&session, ciphertext);
        let took = started.elapsed();
        let told = fs::read_to_string(&log).unwrap_or_default();
        let rv = match act.once && self.was_carried_out() {
            // A look tells that the key is there, and ours.
            true => CKR_OK,
            false => self.rv.unwrap_or(act.forbidden),
        };
        assert_eq!(outcome.err().unwrap_or(CKR_OK), rv, "{what}: {told}");
        assert!(took < TIMEOUT + SLACK, "{what}: {took:?}");
        told_once(&log, act.function, rv, &[&format!("token '{service}'"), self.sentence]);
        let asked = match self.trouble {
            Trouble::Way(_) => emulator.requests(service) - before,
            _ => REFUSALS - emulator.trouble_left(&label),
        };
        let (least, most) = self.requests[usize::from(act.once)];
        assert!((least..=most).contains(&asked), "{what}: {asked} requests\n{told}");
    }
}
