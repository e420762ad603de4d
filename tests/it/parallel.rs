//! Many threads: each in a session of its own, and all of them while the module ends.

use std::{
    net::TcpListener,
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use cryptoki_sys::*;

use crate::{
    service::{Emulator, HSM, VAULT},
    signing::{P256, session_ec},
    token::{Family, Mechanism, Module, Session, bytes, is_alone, number, threads},
};

const SEED: &str = "
keys = [
    { name = 'ec', kty = 'EC', curve = 'P-256' },
    { name = 'rsa', kty = 'RSA', size = 2048 },
]";
const CALLERS: usize = 32;

fn mixed(session: &Session<'_>, caller: usize) {
    let data = format!("what caller {caller} signs");
    let data = data.as_bytes();
    let (rsa, rsa_public) = session.pair("rsa");
    let (ec, ec_public) = session.pair("ec");
    let pkcs1 = Mechanism::plain(CKM_SHA256_RSA_PKCS);
    let ecdsa = Mechanism::plain(CKM_ECDSA_SHA256);
    for round in 0..4 {
        session.init(Family::Sign, &pkcs1, rsa).unwrap();
        for part in data.chunks(3 + round) {
            session.update(Family::Sign, part).unwrap();
        }
        let signature = session.last(Family::Sign).unwrap();
        session.verify(&pkcs1, rsa_public, data, &signature).unwrap();
        let signature = session.sign(&ecdsa, ec, data).unwrap();
        session.verify(&ecdsa, ec_public, data, &signature).unwrap();
        let plain = Mechanism::plain(CKM_RSA_PKCS);
        let ciphertext = session.run(Family::Encrypt, &plain, rsa_public, data).unwrap();
        assert_eq!(session.run(Family::Decrypt, &plain, rsa, &ciphertext).unwrap(), data);
        let (public, private) = session_ec(session, P256);
        let signature = session.sign(&ecdsa, private, data).unwrap();
        session.verify(&ecdsa, public, data, &signature).unwrap();
        session.destroy(private).unwrap();
        session.destroy(public).unwrap();
        let token = session.find(&[crate::token::flag(CKA_TOKEN, true)]).unwrap();
        assert_eq!(token.len(), 4);
        session.random(33).unwrap();
    }
}

#[test]
fn threads_in_their_own_sessions_never_meet() {
    if !is_alone("parallel::threads_in_their_own_sessions_never_meet", &[]) {
        return;
    }
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    let before = threads();
    let most = AtomicUsize::new(0);
    let start = Barrier::new(CALLERS);
    thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (module, start, most) = (&module, &start, &most);
            scope.spawn(move || {
                let session = module.open(caller as CK_SLOT_ID % 2);
                start.wait();
                mixed(&session, caller);
                most.fetch_max(threads(), Ordering::Relaxed);
                session.close().unwrap();
            });
        }
    });
    assert!(most.into_inner() <= before + CALLERS, "no thread but this test's own");
    for service in [VAULT, HSM] {
        let counts = emulator.counts(service);
        let signatures = (CALLERS / 2 * 4 * 2) as u64;
        assert_eq!(counts["keys/sign"], signatures, "one request each");
        assert_eq!(counts["keys/get"], 2, "everybody looked for the same keys: {counts:?}");
    }
}

/// A service that takes its time holds up nobody but the callers that wait for it.
#[test]
fn calls_that_need_nobody_wait_for_nobody() {
    // Connections are made by the kernel, and nobody ever answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let module = Module::start(&format!(
        "[[token]]\nendpoint = 'https://{address}'\nservice = 'vault'\n\
         scope = 'https://vault.azure.net/.default'\nauthority = 'https://{address}'\n\
         tenant = 't'\ntimeout = '3s'\nconnect_timeout = '3s'\nfind_timeout = '3s'\n\
         credential = {{ type = 'client-secret', client_id = 'c', secret = 's' }}\n"
    ));
    let slow = module.open(0);
    let quick = module.open(0);
    thread::scope(|scope| {
        let search = scope.spawn(|| slow.find(&[bytes(CKA_LABEL, "ec")]));
        thread::sleep(Duration::from_millis(100));
        let start = Instant::now();
        let other = module.open(0);
        other.run(Family::Digest, &Mechanism::plain(CKM_SHA256), 0, b"data").unwrap();
        session_ec(&quick, P256);
        assert!(quick.find(&[number(CKA_CLASS, CKO_DATA)]).unwrap().is_empty());
        other.close().unwrap();
        module.token_info(0).unwrap();
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert!(!search.is_finished(), "the search waits");
        assert!(search.join().unwrap().is_err());
    });
}

#[test]
fn calls_under_way_outlive_finalize() {
    let emulator = Emulator::start(SEED);
    let toml = emulator.token(VAULT, "");
    let module = Module::start(&toml);
    for round in 0..5 {
        let sessions: Vec<_> = (0..8).map(|_| module.open(0)).collect();
        let key = sessions[0].object(CKO_PRIVATE_KEY, "ec");
        let (ecdsa, start) = (Mechanism::plain(CKM_ECDSA), Barrier::new(sessions.len() + 1));
        thread::scope(|scope| {
            for session in &sessions {
                scope.spawn(|| {
                    start.wait();
                    loop {
                        match session.sign(&ecdsa, key, &[1; 32]) {
                            Ok(signature) => assert_eq!(signature.len(), 64),
                            Err(rv) => {
                                // Which call met the end decides between these.
                                let ends = [
                                    CKR_CRYPTOKI_NOT_INITIALIZED,
                                    CKR_SESSION_HANDLE_INVALID,
                                    CKR_SESSION_CLOSED,
                                ];
                                assert!(ends.contains(&rv), "{rv:#x}");
                                break;
                            }
                        }
                    }
                });
            }
            start.wait();
            thread::sleep(Duration::from_millis(20 * round));
            module.finalize().unwrap();
        });
        module.initialize(&toml).unwrap();
    }
    module.open(0).object(CKO_PRIVATE_KEY, "rsa");
}

/// What no client should do, and some do: one session in several threads.
#[test]
fn threads_in_one_session_get_answers() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let key = session.object(CKO_PRIVATE_KEY, "ec");
    let ecdsa = Mechanism::plain(CKM_ECDSA);
    let signed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..40 {
                    match session.sign(&ecdsa, key, &[1; 32]) {
                        Ok(signature) => {
                            assert_eq!(signature.len(), 64);
                            signed.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(rv) => assert!(
                            [CKR_OPERATION_ACTIVE, CKR_OPERATION_NOT_INITIALIZED].contains(&rv),
                            "{rv:#x}"
                        ),
                    }
                    session.find_init(&[]).ok();
                    session.find_next(3).ok();
                    session.find_final().ok();
                }
            });
        }
    });
    let signed = signed.into_inner() as u64;
    assert!(signed > 0);
    assert_eq!(emulator.counts(VAULT)["keys/sign"], signed, "each success is one request");
}

/// A session that is closed under a call lets the call end.
#[test]
fn a_session_may_be_closed_under_a_call() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    let key = module.open(0).object(CKO_PRIVATE_KEY, "rsa");
    let mechanism = Mechanism::plain(CKM_SHA256_RSA_PKCS);
    for round in 0..20 {
        let session = module.open(0);
        let (mechanism, start) = (&mechanism, &Barrier::new(2));
        thread::scope(|scope| {
            let signer = scope.spawn(move || {
                start.wait();
                session.sign(mechanism, key, b"data")
            });
            start.wait();
            thread::sleep(Duration::from_micros(300 * round));
            session.close().unwrap();
            match signer.join().unwrap() {
                Ok(signature) => assert_eq!(signature.len(), 256),
                Err(rv) => assert_eq!(rv, CKR_SESSION_HANDLE_INVALID),
            }
        });
        assert_eq!(session.info().map(drop), Err(CKR_SESSION_HANDLE_INVALID));
    }
}
