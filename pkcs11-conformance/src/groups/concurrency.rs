//! Threads and fork.

use std::{collections::BTreeSet, thread};

use cryptoki_sys::*;

use crate::{
    case::{Case, Group, Outcome, ensure, fail, skip},
    client::{Family, Session},
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
            id: "fork",
            clause: "2, C_Initialize in a child",
            title: "A forked child initialises for itself, works and ends; its parent goes on.",
            run: fork,
        },
        Case {
            id: "fork-busy",
            clause: "2, C_Initialize in a child",
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
