//! Threads and fork.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use cryptoki_sys::*;

use super::{find::object, imports::rsa_nobody};
use crate::{
    case::{Case, Group, Outcome, ensure, fail, skip},
    client::{Family, Session, check},
    context::{Context, need},
    ffi::{self, Module, NULL, init_args, place},
    functions::Function::*,
    mechanism::{HASHES, Mechanism, scheme},
    names, oracle,
    samples::{pairs, to_sign},
};

/// The group.
pub const GROUP: Group = Group {
    name: "concurrency",
    title: "threads and fork",
    patience: 90,
    cases: &[
        Case {
            id: "sessions",
            clause: "5.4 C_Initialize, CKF_OS_LOCKING_OK",
            title: "Threads open sessions, digest and close, all at once, and get the right digests.",
            run: sessions,
        },
        Case {
            id: "signatures",
            clause: "5.4 C_Initialize, CKF_OS_LOCKING_OK",
            title: "Threads sign with one key, all at once, and OpenSSL accepts each signature.",
            run: signatures,
        },
        Case {
            id: "callbacks",
            clause: "5.4 C_Initialize, CK_C_INITIALIZE_ARGS",
            title: "With locks of the application's alone, threads get the right digests.",
            run: callbacks,
        },
        Case {
            id: "objects",
            clause: "5.4 C_Initialize, CKF_OS_LOCKING_OK",
            title: "Threads make objects, find each its own once, and destroy them, all at once.",
            run: objects,
        },
        Case {
            id: "logins",
            clause: "5.6 C_Login",
            title: "Of threads that log in at once one does, and the others are told so.",
            run: logins,
        },
        Case {
            id: "fork-inherits",
            clause: "3.6 CKF_INTERFACE_FORK_SAFE",
            title: "Where an interface says so, a child goes on with its parent's state: login, \
                    sessions, objects, and an operation under way.",
            run: fork_inherits,
        },
        Case {
            id: "fork",
            clause: "3.6 CKF_INTERFACE_FORK_SAFE, 5.4 C_Initialize",
            title: "A forked child initialises for itself, works and ends; its parent goes on.",
            run: fork,
        },
        Case {
            id: "fork-busy",
            clause: "3.6 CKF_INTERFACE_FORK_SAFE, 5.4 C_Initialize",
            title: "An operation of the parent is untouched by a child that came meanwhile.",
            run: fork_busy,
        },
    ],
};

const THREADS: usize = 8;

/// Runs the work in threads; fails with the first failure.
fn together(work: impl Fn(usize) -> Outcome + Sync) -> Outcome {
    let outcomes: Vec<_> = thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(move || work(n))).collect();
        threads.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    outcomes.into_iter().try_for_each(|one| one.unwrap_or_else(|_| fail("a thread panicked")))
}

fn digest(module: &'static Module, slot: CK_SLOT_ID, message: &[u8]) -> Outcome {
    let session = need(Session::open(module, slot, CKF_SERIAL_SESSION), "C_OpenSession")?;
    let told = session.run(Family::Digest, &Mechanism::plain(CKM_SHA256), 0, message);
    let told = need(told, "C_Digest")?;
    need(session.close(), "C_CloseSession")?;
    ensure(told == HASHES[2].digest(message), || "another thread's digest".to_owned())
}

fn has_sha256(context: &mut Context) -> Outcome {
    let offered = context.offered(CKF_DIGEST)?;
    match offered.iter().any(|(kind, _)| *kind == CKM_SHA256) {
        true => Ok(()),
        false => skip("CKM_SHA256 is not offered"),
    }
}

fn sessions(context: &mut Context) -> Outcome {
    has_sha256(context)?;
    let (module, slot) = (context.module, context.slot()?);
    together(|n| (0..30).try_for_each(|round| digest(module, slot, &[n as u8, round, 3, 4])))
}

fn signatures(context: &mut Context) -> Outcome {
    let mut seen = BTreeSet::new();
    for (kind, key) in pairs(context, Family::Sign)? {
        let Some(of) = scheme(kind) else { continue };
        if !matches!(kind, CKM_RSA_PKCS | CKM_ECDSA) || !seen.insert(kind) {
            continue;
        }
        context.each(format!("{}, {key}", names::mechanism(kind)), |context| {
            let (module, slot) = (context.module, context.slot()?);
            context.user()?;
            let data = to_sign(of, &key);
            together(|_| {
                let session =
                    need(Session::open(module, slot, CKF_SERIAL_SESSION), "C_OpenSession")?;
                for _ in 0..5 {
                    let mechanism = Mechanism::plain(kind);
                    let sig = session.run(Family::Sign, &mechanism, key.private, &data);
                    let sig = need(sig, "C_Sign")?;
                    let right = match kind {
                        CKM_ECDSA => oracle::ecdsa_verify(key.oracle()?, &data, &sig),
                        _ => oracle::pkcs1_recover(key.oracle()?, &sig).map(|told| told == data),
                    };
                    ensure(right.unwrap_or(false), || "OpenSSL refuses a signature".to_owned())?;
                }
                need(session.close(), "C_CloseSession")
            })
        });
    }
    Ok(())
}

fn callbacks(context: &mut Context) -> Outcome {
    has_sha256(context)?;
    let slot = context.slot()?;
    context.stopped()?;
    let mut args = init_args(0, 15, None);
    let module = context.module;
    let rv = module.call(C_Initialize, &[place(&mut args)]);
    if rv == CKR_CANT_LOCK {
        return skip("CKR_CANT_LOCK");
    }
    need(check(rv), "C_Initialize")?;
    let outcome =
        together(|n| (0..30).try_for_each(|round| digest(module, slot, &[n as u8, round, 5])));
    need(check(module.call(C_Finalize, &[NULL])), "C_Finalize")?;
    outcome
}

fn objects(context: &mut Context) -> Outcome {
    let (module, slot) = (context.module, context.slot()?);
    object(context.user()?)?;
    together(|n| {
        let session = need(Session::open(module, slot, CKF_SERIAL_SESSION), "C_OpenSession")?;
        for round in 0..20 {
            let label = vec![(CKA_LABEL, format!("pkcs11-conformance, {n}.{round}").into_bytes())];
            let template = [rsa_nobody(), label.clone()].concat();
            let own = need(session.create(&template), "C_CreateObject")?;
            let found = need(session.find(&label), "C_FindObjects")?;
            ensure(found == [own], || format!("{} objects are found", found.len()))?;
            need(session.destroy(own), "C_DestroyObject")?;
            let found = need(session.find(&label), "C_FindObjects")?;
            ensure(found.is_empty(), || "a destroyed object is found".to_owned())?;
        }
        need(session.close(), "C_CloseSession")
    })
}

fn logins(context: &mut Context) -> Outcome {
    context.has_login()?;
    let session = context.user()?;
    let Some(pin) = context.target.pin.clone() else { return skip("no PIN was given") };
    let slot = context.slot()?;
    let flags = need(context.token_info(slot), "C_GetTokenInfo")?.flags;
    if flags & CKF_LOGIN_REQUIRED == 0 {
        return skip("the token asks for no login");
    }
    need(session.logout(), "C_Logout")?;
    let module = context.module;
    let done = AtomicUsize::new(0);
    let outcome = together(|_| {
        let own = need(Session::open(module, slot, CKF_SERIAL_SESSION), "C_OpenSession")?;
        match own.login(CKU_USER, Some(&pin)) {
            Err(CKR_USER_ALREADY_LOGGED_IN) => {}
            rv => {
                need(rv, "C_Login")?;
                done.fetch_add(1, Ordering::SeqCst);
            }
        }
        need(own.close(), "C_CloseSession")
    });
    let state = need(session.info(), "C_GetSessionInfo")?.state;
    context.user()?;
    outcome?;
    let done = done.into_inner();
    ensure(done == 1, || format!("{done} of {THREADS} logins are CKR_OK"))?;
    let users = [CKS_RO_USER_FUNCTIONS, CKS_RW_USER_FUNCTIONS];
    ensure(users.contains(&state), || format!("the session's state is {state}"))
}

fn fork_inherits(context: &mut Context) -> Outcome {
    has_sha256(context)?;
    let safe = context.module.interface(None, None, CKF_INTERFACE_FORK_SAFE);
    if !matches!(safe, Some(Ok(_))) {
        return skip("no interface says so");
    }
    let session = context.user()?;
    let own = object(session)?;
    let state = need(session.info(), "C_GetSessionInfo")?.state;
    need(session.init(Family::Digest, &Mechanism::plain(CKM_SHA256), 0), "C_DigestInit")?;
    need(session.update(Family::Digest, b"one"), "C_DigestUpdate")?;
    let goes_on = || -> u8 {
        let after = session.update(Family::Digest, b"child");
        match (after, session.last(Family::Digest)) {
            (Ok(_), Ok(digest)) if digest == HASHES[2].digest(b"onechild") => {}
            _ => return 5,
        }
        match session.info() {
            Ok(info) if info.state == state => {}
            _ => return 6,
        }
        u8::from(session.value(own, CKA_CLASS).is_err()) * 7
    };
    let code = ffi::in_fork(15, goes_on).map_err(crate::case::Stop::Fail)?;
    need(session.update(Family::Digest, b"two"), "the parent's C_DigestUpdate")?;
    let digest = need(session.last(Family::Digest), "the parent's C_DigestFinal")?;
    ensure(digest == HASHES[2].digest(b"onetwo"), || "the parent's digest is wrong".to_owned())?;
    told(code)
}

/// What the child does, as an exit code.
fn child(module: &'static Module, slot: CK_SLOT_ID) -> u8 {
    let mut args = init_args(CKF_OS_LOCKING_OK, 0, None);
    if module.call(C_Initialize, &[place(&mut args)]) != CKR_OK {
        return 2;
    }
    if digest(module, slot, b"child").is_err() {
        return 3;
    }
    u8::from(module.call(C_Finalize, &[NULL]) != CKR_OK) * 4
}

fn told(code: i32) -> Outcome {
    match code {
        0 => Ok(()),
        2 => fail("C_Initialize fails in the child"),
        3 => fail("a digest fails in the child"),
        4 => fail("C_Finalize fails in the child"),
        5 => fail("the digest under way is lost in the child"),
        6 => fail("the session, or its login, is lost in the child"),
        7 => fail("the object's handle is lost in the child"),
        code if code == -libc::SIGALRM => fail("the child hangs"),
        code => fail(format!("the child ended with {code}")),
    }
}

fn fork(context: &mut Context) -> Outcome {
    has_sha256(context)?;
    let (module, slot) = (context.module, context.slot()?);
    let session = context.user()?;
    let code = ffi::in_fork(15, || child(module, slot)).map_err(crate::case::Stop::Fail)?;
    need(session.info(), "the parent's C_GetSessionInfo")?;
    digest(module, slot, b"parent")?;
    told(code)
}

fn fork_busy(context: &mut Context) -> Outcome {
    has_sha256(context)?;
    let (module, slot) = (context.module, context.slot()?);
    let session = context.user()?;
    need(session.init(Family::Digest, &Mechanism::plain(CKM_SHA256), 0), "C_DigestInit")?;
    need(session.update(Family::Digest, b"one"), "C_DigestUpdate")?;
    let code = ffi::in_fork(15, || child(module, slot)).map_err(crate::case::Stop::Fail)?;
    need(session.update(Family::Digest, b"two"), "the parent's C_DigestUpdate")?;
    let digest = need(session.last(Family::Digest), "the parent's C_DigestFinal")?;
    ensure(digest == HASHES[2].digest(b"onetwo"), || "the parent's digest is wrong".to_owned())?;
    told(code)
}
