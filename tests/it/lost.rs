//! Answers that are lost after the service has done what was asked, and before: making, importing
//! and deleting are sent once, and whoever asked is told what came of it.

use std::fs;

use akv_pkcs11::vault::KeyRef;
use cryptoki_sys::*;
use openssl::rsa::Rsa;
use serde_json::json;

use crate::{
    life::{on_token, rsa_template},
    service::{Emulator, HSM, VAULT},
    signing::P256,
    token::{Mechanism, Module, Rv, Session, bytes},
};

type Act = fn(&Session<'_>, &str) -> Rv;

fn make(session: &Session<'_>, label: &str) -> Rv {
    let public = [vec![bytes(CKA_EC_PARAMS, P256)], on_token(label)].concat();
    let mechanism = Mechanism::plain(CKM_EC_KEY_PAIR_GEN);
    session.generate(&mechanism, &public, &on_token(label)).map(drop)
}

fn import(session: &Session<'_>, label: &str) -> Rv {
    let key = Rsa::generate(2048).expect("a key");
    session.create(&[rsa_template(&key), on_token(label)].concat()).map(drop)
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
    // How the answer is lost, whether the look afterwards fails too, and what comes of it.
    let fates = [
        ("reset-after", false, Ok(())),
        ("reset-before", false, Err(CKR_DEVICE_ERROR)),
        ("reset-after", true, Err(CKR_DEVICE_ERROR)),
    ];
    let keys: Vec<_> = (0..fates.len())
        .map(|nr| format!("{{ name = 'delete-{nr}', kty = 'EC', curve = 'P-256' }}"))
        .collect();
    let emulator = Emulator::start(&format!("keys = [{}]", keys.join(", ")));
    for (slot, service) in [(0, VAULT), (1, HSM)] {
        for (act, operation, perform, adds) in acts {
            for (nr, (connection, blind, outcome)) in fates.into_iter().enumerate() {
                let name = format!("{act}-{nr}");
                let log = emulator.folder.path().join(format!("{service}-{name}.log"));
                let module = Module::load();
                let more = "allow_delete = true\ntimeout = '2s'";
                let tokens = emulator.token(VAULT, more) + &emulator.token(HSM, more);
                let sink = format!("[log]\nlevel = 'info'\nsink = 'file:{}'\n", log.display());
                assert_eq!(module.initialize_as_is(&format!("{sink}{tokens}")), Ok(()));
                let session = module.open(slot);
                if !adds {
                    session.object(CKO_PRIVATE_KEY, &name);
                }
                emulator.reset();
                let fault = json!({ "operation": operation, "connection": connection, "times": 1 });
                emulator.trouble(&fault.to_string());
                if blind {
                    // What is looked at before the request is let through.
                    let before = u32::from(adds);
                    let fault = json!({ "operation": "keys/get", "status": 500, "skip": before });
                    emulator.trouble(&fault.to_string());
                }
                let what = format!("{service}, {act}, {connection}, blind: {blind}");
                assert_eq!(perform(&session, &name), outcome, "{what}");
                emulator.no_trouble();
                let done = u64::from(connection == "reset-after");
                let sent = emulator.counts(service).get(operation).copied().unwrap_or_default();
                assert_eq!(sent, done, "{what}: carried out");
                let there = emulator.vault(service).key(KeyRef::current(&name)).is_ok();
                assert_eq!(there, adds == (done == 1), "{what}");
                let told = fs::read_to_string(&log).unwrap_or_default();
                let named = told.lines().any(|l| l.contains(" ERROR ") && l.contains(&name));
                assert_eq!(named, outcome.is_err(), "{what}: {told}");
            }
        }
    }
}
