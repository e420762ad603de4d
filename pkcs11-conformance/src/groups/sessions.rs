//! Sessions and login.

mod logins;

use cryptoki_sys::*;

use crate::{
    case::{Case, Group, Outcome, ensure, skip},
    client::{Session, check, flag, number},
    context::{Context, is, need, one_of},
    ffi::NULL,
    functions::Function::*,
    keys::{Kind, templates},
};

/// The group.
pub const GROUP: Group = Group {
    name: "sessions",
    title: "sessions and login",
    patience: 60,
    cases: &[
        Case {
            id: "not-serial",
            clause: "5.6 C_OpenSession",
            title: "Without CKF_SERIAL_SESSION: CKR_SESSION_PARALLEL_NOT_SUPPORTED.",
            run: not_serial,
        },
        Case {
            id: "info",
            clause: "5.6 C_GetSessionInfo",
            title: "A session knows its slot, its flags and its state; handles are distinct.",
            run: info,
        },
        Case {
            id: "close",
            clause: "5.6 C_CloseSession",
            title: "A closed session is gone; the others are not.",
            run: close,
        },
        Case {
            id: "close-all",
            clause: "5.6 C_CloseAllSessions",
            title: "All sessions of the slot are gone, and nobody is logged in.",
            run: close_all,
        },
        Case {
            id: "many",
            clause: "5.6 C_OpenSession",
            title: "Many sessions can be open, or CKR_SESSION_COUNT says how many.",
            run: many,
        },
        Case {
            id: "login-states",
            clause: "5.6 C_Login",
            title: "C_Login takes every session of the application to its user state, and \
                    C_Logout back.",
            run: login_states,
        },
        Case {
            id: "logins",
            clause: "5.6 C_Login, 5.6 C_Logout",
            title: "Who is logged in after what, in which sessions; a row of the table each.",
            run: logins::run,
        },
        Case {
            id: "login-later",
            clause: "5.6 C_OpenSession",
            title: "A session opened while the user is logged in is in the user state.",
            run: login_later,
        },
        Case {
            id: "login-twice",
            clause: "5.6 C_Login",
            title: "A second C_Login is CKR_USER_ALREADY_LOGGED_IN, from any session.",
            run: login_twice,
        },
        Case {
            id: "logout-first",
            clause: "5.6 C_Logout",
            title: "C_Logout before C_Login is CKR_USER_NOT_LOGGED_IN.",
            run: logout_first,
        },
        Case {
            id: "last-session",
            clause: "5.6 C_CloseSession",
            title: "Closing the last session logs out.",
            run: last_session,
        },
        Case {
            id: "user-type",
            clause: "5.6 C_Login",
            title: "A user type that is none is CKR_USER_TYPE_INVALID.",
            run: user_type,
        },
        Case {
            id: "context-specific",
            clause: "5.6 C_Login",
            title: "CKU_CONTEXT_SPECIFIC without operation is CKR_OPERATION_NOT_INITIALIZED.",
            run: context_specific,
        },
        Case {
            id: "wrong-pin",
            clause: "5.6 C_Login",
            title: "A wrong PIN is refused as one, and the right one works after it.",
            run: wrong_pin,
        },
        Case {
            id: "private-objects",
            clause: "4.4",
            title: "Private objects are not seen before C_Login.",
            run: private_objects,
        },
        Case {
            id: "read-only-session",
            clause: "5.6 C_OpenSession",
            title: "No token object is made in a read-only session: CKR_SESSION_READ_ONLY.",
            run: read_only_session,
        },
        Case {
            id: "objects-end",
            clause: "5.6 C_CloseSession",
            title: "A session's objects end with it.",
            run: objects_end,
        },
        Case {
            id: "operation-state",
            clause: "5.6 C_GetOperationState",
            title: "Without operation: CKR_OPERATION_NOT_INITIALIZED.",
            run: operation_state,
        },
        Case {
            id: "cancel-nothing",
            clause: "5.6 C_SessionCancel",
            title: "Cancelling where nothing is active is CKR_OK.",
            run: cancel_nothing,
        },
    ],
};

fn not_serial(context: &mut Context) -> Outcome {
    let slot = context.slot()?;
    for flags in [0, CKF_RW_SESSION] {
        let rv = Session::open(context.module, slot, flags);
        is(rv.map(|_| ()), CKR_SESSION_PARALLEL_NOT_SUPPORTED, &format!("flags {flags:#x}"))?;
    }
    Ok(())
}

const RO: CK_FLAGS = CKF_SERIAL_SESSION;
const RW: CK_FLAGS = CKF_SERIAL_SESSION | CKF_RW_SESSION;

/// A read-only and, where the token lets us, a read/write session.
fn both(context: &mut Context) -> Outcome<Vec<(Session, CK_FLAGS)>> {
    let slot = context.slot()?;
    let protected = need(context.token_info(slot), "C_GetTokenInfo")?.flags & CKF_WRITE_PROTECTED;
    let mut both = vec![(context.open(RO)?, RO)];
    if protected == 0 {
        both.push((context.open(RW)?, RW));
    }
    Ok(both)
}

fn state(flags: CK_FLAGS, user: bool) -> CK_STATE {
    match (flags == RW, user) {
        (false, false) => CKS_RO_PUBLIC_SESSION,
        (false, true) => CKS_RO_USER_FUNCTIONS,
        (true, false) => CKS_RW_PUBLIC_SESSION,
        (true, true) => CKS_RW_USER_FUNCTIONS,
    }
}

fn in_state(session: Session, flags: CK_FLAGS, user: bool) -> Outcome {
    let told = need(session.info(), "C_GetSessionInfo")?.state;
    let wanted = state(flags, user);
    ensure(told == wanted, || {
        format!("session with flags {flags:#x} is in state {told} instead of {wanted}")
    })
}

fn info(context: &mut Context) -> Outcome {
    let slot = context.slot()?;
    let both = both(context)?;
    for (session, flags) in &both {
        ensure(session.handle != CK_INVALID_HANDLE, || "handle 0".to_owned())?;
        let info = need(session.info(), "C_GetSessionInfo")?;
        ensure(info.slotID == slot, || format!("slot {} instead of {slot}", info.slotID))?;
        let (told, flags) = (info.flags, *flags);
        ensure(told == flags, || format!("flags {told:#x} instead of {flags:#x}"))?;
        in_state(*session, flags, false)?;
    }
    let distinct = both.len() < 2 || both[0].0.handle != both[1].0.handle;
    ensure(distinct, || "two sessions have one handle".to_owned())
}

fn close(context: &mut Context) -> Outcome {
    let (first, second) = (context.open(RO)?, context.open(RO)?);
    context.forget(first);
    need(first.close(), "C_CloseSession")?;
    is(first.info().map(|_| ()), CKR_SESSION_HANDLE_INVALID, "C_GetSessionInfo of the closed")?;
    is(first.close(), CKR_SESSION_HANDLE_INVALID, "C_CloseSession again")?;
    need(second.info(), "C_GetSessionInfo of the other").map(|_| ())
}

fn close_all(context: &mut Context) -> Outcome {
    context.has_login()?;
    let slot = context.slot()?;
    let (first, second) = (context.user()?, context.open(RO)?);
    let rv = check(context.module.call(C_CloseAllSessions, &[slot.into()]));
    need(rv, "C_CloseAllSessions")?;
    for session in [first, second] {
        context.forget(session);
        is(session.info().map(|_| ()), CKR_SESSION_HANDLE_INVALID, "C_GetSessionInfo after it")?;
    }
    let session = context.open(RO)?;
    in_state(session, RO, false)
}

fn many(context: &mut Context) -> Outcome {
    let slot = context.slot()?;
    let mut sessions = Vec::new();
    let ended = loop {
        match Session::open(context.module, slot, RO) {
            Ok(session) => sessions.push(session),
            Err(rv) => break Err(rv),
        }
        if sessions.len() == 200 {
            break Ok(());
        }
    };
    for session in &sessions {
        need(session.close(), "C_CloseSession")?;
    }
    one_of(ended, &[CKR_OK, CKR_SESSION_COUNT], &format!("session {}", sessions.len() + 1))
}

fn login_states(context: &mut Context) -> Outcome {
    context.has_login()?;
    let both = both(context)?;
    let (first, _) = both[0];
    need(context.login(first), "C_Login")?;
    for (session, flags) in &both {
        in_state(*session, *flags, true)?;
    }
    need(first.logout(), "C_Logout")?;
    for (session, flags) in &both {
        in_state(*session, *flags, false)?;
    }
    Ok(())
}

fn login_later(context: &mut Context) -> Outcome {
    context.has_login()?;
    let first = context.open(RO)?;
    need(context.login(first), "C_Login")?;
    for (session, flags) in both(context)? {
        in_state(session, flags, true)?;
    }
    Ok(())
}

fn login_twice(context: &mut Context) -> Outcome {
    context.has_login()?;
    let (first, second) = (context.open(RO)?, context.open(RO)?);
    need(context.login(first), "C_Login")?;
    is(context.login(first), CKR_USER_ALREADY_LOGGED_IN, "C_Login again")?;
    is(context.login(second), CKR_USER_ALREADY_LOGGED_IN, "C_Login from another session")
}

fn logout_first(context: &mut Context) -> Outcome {
    let session = context.open(RO)?;
    is(session.logout(), CKR_USER_NOT_LOGGED_IN, "C_Logout")
}

fn last_session(context: &mut Context) -> Outcome {
    context.has_login()?;
    let first = context.open(RO)?;
    need(context.login(first), "C_Login")?;
    context.forget(first);
    need(first.close(), "C_CloseSession")?;
    let session = context.open(RO)?;
    in_state(session, RO, false)
}

fn user_type(context: &mut Context) -> Outcome {
    let session = context.open(RO)?;
    is(session.login(0x77, Some("0000")), CKR_USER_TYPE_INVALID, "C_Login(0x77)")
}

fn context_specific(context: &mut Context) -> Outcome {
    context.has_login()?;
    let session = context.user()?;
    let pin = context.target.pin.clone();
    let rv = session.login(CKU_CONTEXT_SPECIFIC, pin.as_deref());
    is(rv, CKR_OPERATION_NOT_INITIALIZED, "C_Login(CKU_CONTEXT_SPECIFIC)")
}

/// Another PIN of the same length, digits for digits.
fn wrong_of(pin: String) -> String {
    let mut wrong = pin.into_bytes();
    if let Some(first) = wrong.first_mut() {
        *first ^= 1;
    }
    String::from_utf8_lossy(&wrong).into_owned()
}

fn wrong_pin(context: &mut Context) -> Outcome {
    context.has_login()?;
    let slot = context.slot()?;
    let info = need(context.token_info(slot), "C_GetTokenInfo")?;
    let low = CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_LOCKED;
    if info.flags & low != 0 || context.target.read_only {
        return skip("a wrong PIN might lock the token");
    }
    let Some(pin) = context.target.pin.clone() else { return skip("the token asks for the PIN") };
    let wrong = wrong_of(pin);
    let session = context.open(RO)?;
    let rv = session.login(CKU_USER, Some(&wrong));
    if rv.is_ok() {
        return skip("the token takes any PIN");
    }
    // It has the length and the characters of the right one.
    is(rv, CKR_PIN_INCORRECT, "C_Login with a wrong PIN")?;
    in_state(session, RO, false)?;
    need(context.login(session), "C_Login with the right one")
}

fn private_objects(context: &mut Context) -> Outcome {
    let session = context.open(RO)?;
    let slot = context.slot()?;
    let info = need(context.token_info(slot), "C_GetTokenInfo")?;
    if info.flags & CKF_LOGIN_REQUIRED == 0 {
        return skip("the token requires no login");
    }
    let wanted = vec![(CKA_PRIVATE, flag(true))];
    let found = need(session.find(&wanted), "C_FindObjects")?;
    ensure(found.is_empty(), || format!("{} private objects are found", found.len()))?;
    context.has_login()?;
    need(context.login(session), "C_Login")?;
    let found = need(session.find(&wanted), "C_FindObjects after C_Login")?;
    match found.is_empty() {
        true => skip("none is there after C_Login either"),
        false => Ok(()),
    }
}

fn read_only_session(context: &mut Context) -> Outcome {
    context.may_write()?;
    let session = context.open(RO)?;
    match context.login(session) {
        Ok(()) | Err(CKR_USER_ALREADY_LOGGED_IN) => {}
        Err(rv) => return is(Err::<(), _>(rv), CKR_OK, "C_Login"),
    }
    let offered = context.offered(CKF_GENERATE_KEY_PAIR)?;
    if !offered.iter().any(|(kind, _)| *kind == CKM_RSA_PKCS_KEY_PAIR_GEN) {
        return skip("CKM_RSA_PKCS_KEY_PAIR_GEN is not offered");
    }
    let (mechanism, public, private) = templates(Kind::Rsa(2048), true, &context.target.label);
    let made = session.generate_pair(&mechanism, &public, &private);
    if let Ok((public, private)) = made {
        let _ = session.destroy(public);
        let _ = session.destroy(private);
    }
    is(made, CKR_SESSION_READ_ONLY, "C_GenerateKeyPair with CKA_TOKEN")
}

fn objects_end(context: &mut Context) -> Outcome {
    let (first, second) = (context.user()?, context.session()?);
    let value = vec![
        (CKA_CLASS, number(CKO_PUBLIC_KEY)),
        (CKA_KEY_TYPE, number(CKK_RSA)),
        (CKA_TOKEN, flag(false)),
        (CKA_LABEL, b"pkcs11-conformance".to_vec()),
        (CKA_MODULUS, vec![0xc5; 256]),
        (CKA_PUBLIC_EXPONENT, vec![1, 0, 1]),
    ];
    let Ok(object) = first.create(&value) else { return skip("no session object can be created") };
    need(second.value(object, CKA_CLASS), "C_GetAttributeValue from another session")?;
    context.forget(first);
    need(first.close(), "C_CloseSession")?;
    let rv = second.value(object, CKA_CLASS);
    is(rv, CKR_OBJECT_HANDLE_INVALID, "C_GetAttributeValue of an object of a closed session")
}

fn operation_state(context: &mut Context) -> Outcome {
    let session = context.session()?;
    let mut size: CK_ULONG = 0;
    let rv = check(session.call(C_GetOperationState, &[NULL, crate::ffi::place(&mut size)]));
    if rv == Err(CKR_FUNCTION_NOT_SUPPORTED) {
        return skip("not supported");
    }
    is(rv, CKR_OPERATION_NOT_INITIALIZED, "C_GetOperationState")
}

fn cancel_nothing(context: &mut Context) -> Outcome {
    context.needs(C_SessionCancel)?;
    let session = context.session()?;
    let flags = CKF_SIGN | CKF_VERIFY | CKF_ENCRYPT | CKF_DECRYPT | CKF_DIGEST | CKF_FIND_OBJECTS;
    let rv = check(session.call(C_SessionCancel, &[flags.into()]));
    if rv == Err(CKR_FUNCTION_NOT_SUPPORTED) {
        return skip("not supported");
    }
    is(rv, CKR_OK, "C_SessionCancel")
}
