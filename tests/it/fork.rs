//! Forked children: each of the three things a child may do first, in each of the situations a
//! host brings about. Every test is a process of its own.

#![allow(unsafe_code)]

use std::{
    panic::{self, AssertUnwindSafe},
    ptr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use cryptoki_sys::*;

use crate::{
    service::{Emulator, VAULT},
    signing::{P256, session_ec},
    token::{Family, Mechanism, Module, Session, call, check, is_alone, threads},
};

const SEED: &str = "
keys = [
    { name = 'ec', kty = 'EC', curve = 'P-256' },
    { name = 'rsa', kty = 'RSA', size = 2048 },
]";
/// Seconds after which a child counts as hung.
const PATIENCE: u32 = 60;

/// Runs `body` in a forked child, which must come to its end.
pub fn in_child(body: impl FnOnce()) {
    wait(fork(body));
}

fn fork(body: impl FnOnce()) -> libc::pid_t {
    // SAFETY: the child calls the module, which promises to work there, and leaves by _exit; the
    // C library's own locks are whole in it.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork");
    if child == 0 {
        // SAFETY: no handler is installed: the alarm ends the process.
        unsafe { libc::alarm(PATIENCE) };
        let outcome = panic::catch_unwind(AssertUnwindSafe(body));
        // SAFETY: ends this process and nothing else.
        unsafe { libc::_exit(i32::from(outcome.is_err())) };
    }
    child
}

fn wait(child: libc::pid_t) {
    let mut status = 0;
    // SAFETY: `child` is ours, and `status` is live.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "ended by signal {}", libc::WTERMSIG(status));
    assert_eq!(libc::WEXITSTATUS(status), 0, "the child's assertions");
}

fn works(session: &Session<'_>) {
    let (private, public) = session.pair("ec");
    let ecdsa = Mechanism::plain(CKM_ECDSA_SHA256);
    for _ in 0..3 {
        let signature = session.sign(&ecdsa, private, b"data").unwrap();
        session.verify(&ecdsa, public, b"data", &signature).unwrap();
    }
}

#[test]
fn a_child_that_initializes_begins_afresh() {
    if !is_alone("fork::a_child_that_initializes_begins_afresh", &[]) {
        return;
    }
    let emulator = Emulator::start(SEED);
    let toml = emulator.token(VAULT, "");
    let module = Module::start(&toml);
    let session = module.open(0);
    session.login(CKU_USER, "1234").unwrap();
    works(&session);
    let before = threads();
    // As libp11 does it: NULL, and the configuration is the parent's; or with arguments.
    for with_arguments in [false, true] {
        in_child(|| {
            let began = match with_arguments {
                true => module.initialize(&toml),
                false => check(call!(module, C_Initialize(ptr::null_mut()))),
            };
            assert_eq!(began, Ok(()));
            let again = check(call!(module, C_Initialize(ptr::null_mut())));
            assert_eq!(again, Err(CKR_CRYPTOKI_ALREADY_INITIALIZED));
            assert_eq!(session.info().map(drop), Err(CKR_SESSION_HANDLE_INVALID));
            let fresh = module.open(0);
            assert_eq!(fresh.info().unwrap().state, CKS_RW_PUBLIC_SESSION, "nobody is logged in");
            works(&fresh);
            // And a child of the child.
            in_child(|| {
                assert_eq!(check(call!(module, C_Initialize(ptr::null_mut()))), Ok(()));
                works(&module.open(0));
            });
            works(&fresh);
            module.finalize().unwrap();
            assert_eq!(module.initialize(&toml), Ok(()));
            works(&module.open(0));
            assert_eq!(threads(), 1);
        });
        works(&session);
    }
    assert_eq!(session.info().unwrap().state, CKS_RW_USER_FUNCTIONS, "the parent's login stays");
    assert_eq!(threads(), before);
    assert_eq!(emulator.requests("entra"), 1, "the parent's access token is good in each child");
}

#[test]
fn a_child_that_finalizes_ends_its_own_copy() {
    if !is_alone("fork::a_child_that_finalizes_ends_its_own_copy", &[]) {
        return;
    }
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.token(VAULT, ""));
    let session = module.open(0);
    works(&session);
    for _ in 0..3 {
        // As pkcs11-provider does it.
        in_child(|| {
            assert_eq!(module.finalize(), Ok(()));
            assert_eq!(module.finalize(), Err(CKR_CRYPTOKI_NOT_INITIALIZED));
            assert_eq!(session.info().map(drop), Err(CKR_CRYPTOKI_NOT_INITIALIZED));
            assert_eq!(check(call!(module, C_Initialize(ptr::null_mut()))), Ok(()));
            let fresh = module.open(0);
            works(&fresh);
        });
        works(&session);
    }
    assert_eq!(emulator.requests("entra"), 1, "the parent's access token is good in each child");
}

#[test]
fn a_child_may_go_on_where_its_parent_was() {
    if !is_alone("fork::a_child_may_go_on_where_its_parent_was", &[]) {
        return;
    }
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.token(VAULT, ""));
    let session = module.open(0);
    session.login(CKU_USER, "1234").unwrap();
    let (private, public) = session.pair("rsa");
    let (here_public, here) = session_ec(&session, P256);
    let mechanism = Mechanism::plain(CKM_SHA256_RSA_PKCS);
    session.sign(&mechanism, private, b"warm").unwrap();
    let signature = session.sign(&mechanism, private, b"half and half").unwrap();
    session.init(Family::Sign, &mechanism, private).unwrap();
    session.update(Family::Sign, b"half and").unwrap();
    session.find_init(&[]).unwrap();
    assert_eq!(session.find_next(1).unwrap().len(), 1);
    let goes_on = || {
        session.update(Family::Sign, b" half").unwrap();
        assert_eq!(session.last(Family::Sign).unwrap(), signature, "PKCS#1 does not vary");
        assert!(!session.find_next(10).unwrap().is_empty());
        session.find_final().unwrap();
        session.verify(&mechanism, public, b"half and half", &signature).unwrap();
        let ecdsa = Mechanism::plain(CKM_ECDSA);
        let made = session.sign(&ecdsa, here, &[5; 32]).unwrap();
        session.verify(&ecdsa, here_public, &[5; 32], &made).unwrap();
        assert_eq!(session.info().unwrap().state, CKS_RW_USER_FUNCTIONS);
    };
    let children: Vec<_> = (0..4)
        .map(|_| {
            fork(|| {
                goes_on();
                let begun = check(call!(module, C_Initialize(ptr::null_mut())));
                assert_eq!(begun, Err(CKR_CRYPTOKI_ALREADY_INITIALIZED));
                session.close().unwrap();
                works(&module.open(0));
                module.finalize().unwrap();
            })
        })
        .collect();
    goes_on();
    children.into_iter().for_each(wait);
    works(&session);
}

/// What a child made with the parent's copy is its own: nothing random repeats.
#[test]
fn children_make_keys_of_their_own() {
    if !is_alone("fork::children_make_keys_of_their_own", &[]) {
        return;
    }
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.token(VAULT, ""));
    let session = module.open(0);
    session_ec(&session, P256);
    let folder = tempfile::tempdir().unwrap();
    let made = || {
        let (public, _) = session_ec(&session, P256);
        let mut bytes = session.value(public, CKA_EC_POINT).unwrap();
        bytes.extend(session.random(16).unwrap());
        bytes
    };
    for i in 0..4 {
        in_child(|| std::fs::write(folder.path().join(i.to_string()), made()).unwrap());
    }
    let mut all: Vec<_> =
        (0..4).map(|i| std::fs::read(folder.path().join(i.to_string())).unwrap()).collect();
    all.push(made());
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 5);
}

/// The parent forks while its threads are inside calls, as Apache and Java do.
#[test]
fn a_fork_in_the_middle_of_everything_hurts_nobody() {
    const CALLERS: usize = 8;
    const FORKS: usize = 20;
    if !is_alone("fork::a_fork_in_the_middle_of_everything_hurts_nobody", &[]) {
        return;
    }
    let emulator = Emulator::start(SEED);
    let toml = emulator.token(VAULT, "");
    let module = Module::start(&toml);
    let quiet = module.open(0);
    works(&quiet);
    let before = threads();
    let done = AtomicBool::new(false);
    let busy: Vec<_> = (0..CALLERS).map(|_| module.open(0)).collect();
    thread::scope(|scope| {
        for session in &busy {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    works(session);
                }
            });
        }
        for i in 0..FORKS {
            in_child(|| match i % 3 {
                0 => {
                    works(&quiet);
                    for session in &busy {
                        // It had a call under way, or it works.
                        match session.info() {
                            Ok(_) => {
                                session.cancel(CKF_SIGN | CKF_VERIFY | CKF_FIND_OBJECTS).unwrap();
                                works(session);
                            }
                            Err(rv) => assert_eq!(rv, CKR_SESSION_HANDLE_INVALID),
                        }
                    }
                }
                1 => {
                    assert_eq!(check(call!(module, C_Initialize(ptr::null_mut()))), Ok(()));
                    works(&module.open(0));
                }
                _ => {
                    assert_eq!(module.finalize(), Ok(()));
                    assert_eq!(module.initialize(&toml), Ok(()));
                    works(&module.open(0));
                }
            });
        }
        assert_eq!(threads(), before + CALLERS, "no thread but this test's own");
        done.store(true, Ordering::Relaxed);
    });
    works(&quiet);
}

/// A child of a process that had not initialised, or no longer was.
#[test]
fn a_child_of_a_process_without_the_module_knows_nothing() {
    if !is_alone("fork::a_child_of_a_process_without_the_module_knows_nothing", &[]) {
        return;
    }
    let emulator = Emulator::start(SEED);
    let toml = emulator.token(VAULT, "");
    let module = Module::load();
    let child = || {
        let mut info = CK_INFO::default();
        let rv = call!(module, C_GetInfo(&raw mut info));
        assert_eq!(rv, CKR_CRYPTOKI_NOT_INITIALIZED);
        assert_eq!(module.finalize(), Err(CKR_CRYPTOKI_NOT_INITIALIZED));
        module.initialize(&toml).unwrap();
        works(&module.open(0));
    };
    in_child(child);
    module.initialize(&toml).unwrap();
    works(&module.open(0));
    module.finalize().unwrap();
    in_child(child);
}
