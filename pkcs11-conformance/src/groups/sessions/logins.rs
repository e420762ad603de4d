//! The table of logins (5.6): who is logged in, what is done, what comes of it, who is then.

use cryptoki_sys::*;

use super::{RO, RW};
use crate::{
    case::{Outcome, ensure, skip},
    client::{Rv, Session, check},
    context::{Context, need, one_of},
    functions::Function::*,
};

/// Who is logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Nobody,
    User,
    Officer,
}
use Who::*;

/// What is done, by the session of this index.
#[derive(Clone, Copy, Debug)]
enum Step {
    Open(CK_FLAGS),
    Close(usize),
    CloseAll,
    Login(usize, Who),
    /// C_LoginUser, with an empty name.
    LoginUser(usize),
    Logout(usize),
}
use Step::*;

/// Who is logged in by the first session, what sessions there are, what is done, the CK_RV, and
/// who is logged in then.
struct Row {
    before: Who,
    sessions: &'static [CK_FLAGS],
    step: Step,
    wanted: CK_RV,
    after: Who,
}

const fn row(
    before: Who,
    sessions: &'static [CK_FLAGS],
    step: Step,
    wanted: CK_RV,
    after: Who,
) -> Row {
    Row { before, sessions, step, wanted, after }
}

const ROWS: &[Row] = &[
    row(Nobody, &[RO], Open(RO), CKR_OK, Nobody),
    row(Nobody, &[RO], Open(RW), CKR_OK, Nobody),
    row(Nobody, &[RO, RW], Login(0, User), CKR_OK, User),
    row(Nobody, &[RO, RW], Login(1, User), CKR_OK, User),
    row(Nobody, &[RO, RW], LoginUser(0), CKR_OK, User),
    row(Nobody, &[RW], LoginUser(0), CKR_OK, User),
    row(Nobody, &[RW, RW], Login(1, Officer), CKR_OK, Officer),
    row(Nobody, &[RW, RO], Login(0, Officer), CKR_SESSION_READ_ONLY_EXISTS, Nobody),
    row(Nobody, &[RO, RW], Logout(0), CKR_USER_NOT_LOGGED_IN, Nobody),
    row(Nobody, &[RO, RW], Close(0), CKR_OK, Nobody),
    row(User, &[RO], Open(RO), CKR_OK, User),
    row(User, &[RO], Open(RW), CKR_OK, User),
    row(User, &[RO, RW], Login(0, User), CKR_USER_ALREADY_LOGGED_IN, User),
    row(User, &[RO, RW], Login(1, User), CKR_USER_ALREADY_LOGGED_IN, User),
    row(User, &[RO, RW], LoginUser(1), CKR_USER_ALREADY_LOGGED_IN, User),
    row(User, &[RW, RW], Login(1, Officer), CKR_USER_ANOTHER_ALREADY_LOGGED_IN, User),
    row(User, &[RO, RW], Logout(0), CKR_OK, Nobody),
    row(User, &[RO, RW], Logout(1), CKR_OK, Nobody),
    row(User, &[RO, RW], Close(0), CKR_OK, User),
    row(User, &[RO, RW], Close(1), CKR_OK, User),
    row(User, &[RO], Close(0), CKR_OK, Nobody),
    row(User, &[RO, RW], CloseAll, CKR_OK, Nobody),
    row(Officer, &[RW], Open(RW), CKR_OK, Officer),
    row(Officer, &[RW], Open(RO), CKR_SESSION_READ_WRITE_SO_EXISTS, Officer),
    row(Officer, &[RW, RW], Login(1, Officer), CKR_USER_ALREADY_LOGGED_IN, Officer),
    row(Officer, &[RW, RW], Login(1, User), CKR_USER_ANOTHER_ALREADY_LOGGED_IN, Officer),
    row(Officer, &[RW, RW], LoginUser(1), CKR_USER_ANOTHER_ALREADY_LOGGED_IN, Officer),
    row(Officer, &[RW, RW], Logout(1), CKR_OK, Nobody),
    row(Officer, &[RW, RW], Close(0), CKR_OK, Officer),
    row(Officer, &[RW], Close(0), CKR_OK, Nobody),
    row(Officer, &[RW, RW], CloseAll, CKR_OK, Nobody),
];

impl Row {
    fn name(&self) -> String {
        let kind = |flags: &CK_FLAGS| if *flags == RW { "R/W" } else { "R/O" };
        let sessions: Vec<&str> = self.sessions.iter().map(kind).collect();
        let who = |who: Who| match who {
            Nobody => "nobody",
            User => "user",
            Officer => "officer",
        };
        let step = match self.step {
            Open(flags) => format!("open {}", kind(&flags)),
            Close(n) => format!("close {n}"),
            CloseAll => "close all".to_owned(),
            Login(n, one) => format!("login {} by {n}", who(one)),
            LoginUser(n) => format!("login by name by {n}"),
            Logout(n) => format!("logout by {n}"),
        };
        format!("{}, {}: {step}", who(self.before), sessions.join(" and "))
    }
}

/// Tries the table, a result per row.
pub fn run(context: &mut Context) -> Outcome {
    for row in ROWS {
        context.each(row.name(), |context| attempt(context, row));
    }
    Ok(())
}

fn login(context: &mut Context, session: Session, who: Who) -> Rv {
    match (who, context.target.so_pin.clone()) {
        (Officer, pin) => session.login(CKU_SO, pin.as_deref()),
        _ => context.login(session),
    }
}

fn attempt(context: &mut Context, row: &Row) -> Outcome {
    context.has_login()?;
    let slot = context.slot()?;
    let protected = need(context.token_info(slot), "C_GetTokenInfo")?.flags & CKF_WRITE_PROTECTED;
    if protected != 0 && (row.sessions.contains(&RW) || matches!(row.step, Open(RW))) {
        return skip("the token is write protected");
    }
    let officer = row.before == Officer || matches!(row.step, Login(_, Officer));
    if officer && context.target.so_pin.is_none() {
        return skip("no --so-pin was given");
    }
    context.drop_keys();
    // Nothing of an earlier row: the login ends with the last session.
    need(close_all(context, slot), "C_CloseAllSessions")?;
    let mut sessions = Vec::new();
    for flags in row.sessions {
        sessions.push((context.open(*flags)?, *flags));
    }
    if row.before != Nobody {
        need(login(context, sessions[0].0, row.before), "C_Login")?;
    }
    let rv = match row.step {
        Open(flags) => match Session::open(context.module, slot, flags) {
            Ok(session) => {
                context.remember(session);
                sessions.push((session, flags));
                Ok(())
            }
            Err(rv) => Err(rv),
        },
        Close(n) => {
            let (session, _) = sessions.remove(n);
            context.forget(session);
            session.close()
        }
        CloseAll => {
            sessions.drain(..).for_each(|(session, _)| context.forget(session));
            close_all(context, slot)
        }
        Login(n, who) => login(context, sessions[n].0, who),
        LoginUser(n) => {
            let pin = context.target.pin.clone().unwrap_or_default();
            match sessions[n].0.login_user(CKU_USER, &pin, "") {
                Err(CKR_FUNCTION_NOT_SUPPORTED) => return skip("C_LoginUser is not supported"),
                rv => rv,
            }
        }
        Logout(n) => sessions[n].0.logout(),
    };
    one_of(rv, &[row.wanted], "the call")?;
    if sessions.is_empty() {
        sessions.push((context.open(RO)?, RO));
    }
    for (session, flags) in sessions {
        let told = need(session.info(), "C_GetSessionInfo")?.state;
        let wanted = state(flags, row.after);
        ensure(told == wanted, || {
            format!("session with flags {flags:#x} is in state {told} instead of {wanted}")
        })?;
    }
    Ok(())
}

fn close_all(context: &Context, slot: CK_SLOT_ID) -> Rv {
    check(context.module.call(C_CloseAllSessions, &[slot.into()]))
}

/// The state of a session of these flags (5.6, table of session states).
fn state(flags: CK_FLAGS, who: Who) -> CK_STATE {
    match (flags == RW, who) {
        (false, Nobody) => CKS_RO_PUBLIC_SESSION,
        (false, _) => CKS_RO_USER_FUNCTIONS,
        (true, Nobody) => CKS_RW_PUBLIC_SESSION,
        (true, User) => CKS_RW_USER_FUNCTIONS,
        (true, Officer) => CKS_RW_SO_FUNCTIONS,
    }
}
