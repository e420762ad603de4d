//! C_Initialize and C_Finalize.

use std::sync::atomic::Ordering;

use cryptoki_sys::*;

use crate::{
    case::{Case, Group, Outcome, ensure},
    client::{Session, check},
    context::{Context, is, need, one_of},
    ffi::{self, MUTEXES, NULL, init_args, place},
    functions::Function::*,
};

/// The group.
pub const GROUP: Group = Group {
    name: "initialize",
    title: "C_Initialize, C_Finalize",
    patience: 60,
    cases: &[
        Case {
            id: "null-args",
            clause: "5.4 C_Initialize",
            title: "NULL_PTR for the arguments initialises, for a single thread.",
            run: |context| begins(context, None),
        },
        Case {
            id: "no-locking",
            clause: "5.4 C_Initialize",
            title: "No callbacks and no flags initialise, for a single thread.",
            run: |context| begins(context, Some(init_args(0, 0, None))),
        },
        Case {
            id: "os-locking",
            clause: "5.4 C_Initialize",
            title: "CKF_OS_LOCKING_OK initialises.",
            run: |context| begins(context, Some(init_args(CKF_OS_LOCKING_OK, 0, None))),
        },
        Case {
            id: "no-threads",
            clause: "5.4 C_Initialize",
            title: "CKF_LIBRARY_CANT_CREATE_OS_THREADS initialises, or is CKR_NEED_TO_CREATE_THREADS.",
            run: no_threads,
        },
        Case {
            id: "callbacks-or-os",
            clause: "5.4 C_Initialize",
            title: "Callbacks with CKF_OS_LOCKING_OK initialise: the library may choose.",
            run: |context| begins(context, Some(init_args(CKF_OS_LOCKING_OK, 15, None))),
        },
        Case {
            id: "callbacks-only",
            clause: "5.4 C_Initialize",
            title: "Callbacks without CKF_OS_LOCKING_OK initialise, or are CKR_CANT_LOCK.",
            run: callbacks_only,
        },
        Case {
            id: "some-callbacks",
            clause: "5.4 C_Initialize",
            title: "Some but not all of the four callbacks are CKR_ARGUMENTS_BAD.",
            run: some_callbacks,
        },
        Case {
            id: "reserved",
            clause: "5.4 C_Initialize",
            title: "A pReserved that the library does not know is CKR_ARGUMENTS_BAD.",
            run: reserved,
        },
        Case {
            id: "twice",
            clause: "5.4 C_Initialize",
            title: "A second C_Initialize is CKR_CRYPTOKI_ALREADY_INITIALIZED, and harmless.",
            run: twice,
        },
        Case {
            id: "finalize-first",
            clause: "5.4 C_Finalize",
            title: "C_Finalize before C_Initialize is CKR_CRYPTOKI_NOT_INITIALIZED.",
            run: finalize_first,
        },
        Case {
            id: "finalize-reserved",
            clause: "5.4 C_Finalize",
            title: "A pReserved is CKR_ARGUMENTS_BAD, and the library stays initialised.",
            run: finalize_reserved,
        },
        Case {
            id: "again",
            clause: "5.4 C_Finalize",
            title: "After C_Finalize the library can be initialised again, more than once.",
            run: again,
        },
        Case {
            id: "handles-end",
            clause: "5.4 C_Finalize",
            title: "Sessions do not survive C_Finalize.",
            run: handles_end,
        },
    ],
};

fn call(context: &Context, args: Option<CK_C_INITIALIZE_ARGS>) -> Result<(), CK_RV> {
    check(match args {
        Some(mut args) => context.module.call(C_Initialize, &[place(&mut args)]),
        None => context.module.call(C_Initialize, &[NULL]),
    })
}

fn finalize(context: &Context) -> Result<(), CK_RV> {
    check(context.module.call(C_Finalize, &[NULL]))
}

fn begins(context: &mut Context, args: Option<CK_C_INITIALIZE_ARGS>) -> Outcome {
    context.stopped()?;
    is(call(context, args), CKR_OK, "C_Initialize")?;
    let slots = context.slots(false);
    is(finalize(context), CKR_OK, "C_Finalize")?;
    need(slots, "C_GetSlotList").map(|_| ())
}

fn no_threads(context: &mut Context) -> Outcome {
    context.stopped()?;
    let flags = CKF_LIBRARY_CANT_CREATE_OS_THREADS | CKF_OS_LOCKING_OK;
    let rv = call(context, Some(init_args(flags, 0, None)));
    one_of(rv, &[CKR_OK, CKR_NEED_TO_CREATE_THREADS], "C_Initialize")?;
    if rv.is_ok() { is(finalize(context), CKR_OK, "C_Finalize") } else { Ok(()) }
}

fn callbacks_only(context: &mut Context) -> Outcome {
    context.stopped()?;
    let before = MUTEXES.load(Ordering::SeqCst);
    let rv = call(context, Some(init_args(0, 15, None)));
    one_of(rv, &[CKR_OK, CKR_CANT_LOCK], "C_Initialize")?;
    if rv.is_ok() {
        need(context.slots(false), "C_GetSlotList")?;
        is(finalize(context), CKR_OK, "C_Finalize")?;
    }
    let left = MUTEXES.load(Ordering::SeqCst).saturating_sub(before);
    ensure(left == 0, || format!("{left} mutexes of ours are left after C_Finalize"))
}

fn some_callbacks(context: &mut Context) -> Outcome {
    for callbacks in 1..15 {
        context.each(format!("{callbacks:04b}"), |context| {
            context.stopped()?;
            let rv = call(context, Some(init_args(0, callbacks, None)));
            if rv.is_ok() {
                finalize(context).ok();
            }
            is(rv, CKR_ARGUMENTS_BAD, "C_Initialize")
        });
    }
    Ok(())
}

fn reserved(context: &mut Context) -> Outcome {
    context.stopped()?;
    let args = init_args(CKF_OS_LOCKING_OK, 0, Some(c"?"));
    let rv = call(context, Some(args));
    if rv.is_ok() {
        finalize(context).ok();
    }
    is(rv, CKR_ARGUMENTS_BAD, "C_Initialize")
}

fn twice(context: &mut Context) -> Outcome {
    context.stopped()?;
    is(call(context, None), CKR_OK, "C_Initialize")?;
    let second = call(context, None);
    let slots = context.slots(false);
    finalize(context).ok();
    is(second, CKR_CRYPTOKI_ALREADY_INITIALIZED, "the second C_Initialize")?;
    need(slots, "C_GetSlotList").map(|_| ())
}

fn finalize_first(context: &mut Context) -> Outcome {
    context.stopped()?;
    is(finalize(context), CKR_CRYPTOKI_NOT_INITIALIZED, "C_Finalize")
}

fn finalize_reserved(context: &mut Context) -> Outcome {
    context.stopped()?;
    is(call(context, None), CKR_OK, "C_Initialize")?;
    let mut something: CK_ULONG = 1;
    let rv = check(context.module.call(C_Finalize, &[place(&mut something)]));
    let slots = context.slots(false);
    finalize(context).ok();
    is(rv, CKR_ARGUMENTS_BAD, "C_Finalize")?;
    need(slots, "C_GetSlotList after it").map(|_| ())
}

fn again(context: &mut Context) -> Outcome {
    for _ in 0..3 {
        begins(context, Some(init_args(CKF_OS_LOCKING_OK, 0, None)))?;
    }
    Ok(())
}

fn handles_end(context: &mut Context) -> Outcome {
    let slot = context.slot()?;
    let session = need(Session::open(context.module, slot, CKF_SERIAL_SESSION), "C_OpenSession")?;
    is(context.finalize(), CKR_OK, "C_Finalize")?;
    is(context.initialize(), CKR_OK, "C_Initialize")?;
    let mut info = CK_SESSION_INFO::default();
    let rv = check(session.call(C_GetSessionInfo, &[ffi::place(&mut info)]));
    is(rv, CKR_SESSION_HANDLE_INVALID, "C_GetSessionInfo of a session of before")
}
