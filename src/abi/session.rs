//! Sessions and login. Opening a session never asks the service: libp11 waits for ever if it
//! fails.

use std::{ffi::c_void, sync::Arc};

use cryptoki_sys::*;

use super::arg::{Input, Place};
use crate::{
    error::{Error, Result},
    module::Module,
    session::Session,
    slot::Slot,
};

pub(super) fn open(
    module: &Module,
    slot: &Slot,
    flags: CK_FLAGS,
    _application: Place<'_, c_void>,
    _notify: CK_NOTIFY,
    handle: Place<'_, CK_SESSION_HANDLE>,
) -> Result<()> {
    handle.needed()?;
    if flags & CKF_SERIAL_SESSION == 0 {
        return Err(Error::new(
            CKR_SESSION_PARALLEL_NOT_SUPPORTED,
            "CKF_SERIAL_SESSION is not set",
        ));
    }
    let known = CKF_SERIAL_SESSION | CKF_RW_SESSION | CKF_ASYNC_SESSION;
    if flags & !known != 0 {
        return Err(Error::new(CKR_ARGUMENTS_BAD, format!("session flags {flags:#x}")));
    }
    if flags & CKF_ASYNC_SESSION != 0 {
        return Err(Error::new(
            CKR_SESSION_ASYNC_NOT_SUPPORTED,
            "asynchronous sessions are not supported",
        ));
    }
    handle.put(module.open_session(slot, flags & CKF_RW_SESSION != 0))
}

pub(super) fn close(module: &Module, session: Arc<Session>) -> Result<()> {
    module.close_session(session.handle)
}

pub(super) fn close_all(module: &Module, slot: &Slot) -> Result<()> {
    module.close_all_sessions(slot);
    Ok(())
}

pub(super) fn info(
    module: &Module,
    session: Arc<Session>,
    info: Place<'_, CK_SESSION_INFO>,
) -> Result<()> {
    let slot = module.slot(&session);
    let state = match (session.read_write, slot.is_logged_in()) {
        (false, false) => CKS_RO_PUBLIC_SESSION,
        (false, true) => CKS_RO_USER_FUNCTIONS,
        (true, false) => CKS_RW_PUBLIC_SESSION,
        (true, true) => CKS_RW_USER_FUNCTIONS,
    };
    info.put(CK_SESSION_INFO {
        slotID: slot.id,
        state,
        flags: session.flags(),
        ulDeviceError: slot.device_error(),
    })
}

pub(super) fn login(
    module: &Module,
    session: Arc<Session>,
    user: CK_USER_TYPE,
    pin: Input<'_>,
) -> Result<()> {
    let slot = module.slot(&session);
    match user {
        CKU_USER => {
            if pin.is_null() && slot.needs_login() {
                return Err(Error::new(
                    CKR_ARGUMENTS_BAD,
                    "no PIN, and the token has no protected authentication path",
                ));
            }
            slot.note(slot.login(pin.bytes()?))
        }
        // No key asks for it (CKA_ALWAYS_AUTHENTICATE is false), so there is nothing to add.
        CKU_CONTEXT_SPECIFIC if is_operating(&session) => pin.bytes().map(drop),
        CKU_CONTEXT_SPECIFIC => Err(Error::new(
            CKR_OPERATION_NOT_INITIALIZED,
            "a context-specific login without an active operation",
        )),
        CKU_SO => Err(no_officer(module, slot)),
        _ => Err(Error::new(CKR_USER_TYPE_INVALID, format!("user type {user}"))),
    }
}

/// Why the security officer is not logged in: what the state of the token forbids comes first.
fn no_officer(module: &Module, slot: &Slot) -> Error {
    let (all, writing) = module.session_counts(slot);
    if all > writing {
        let sentence = format!("{} read-only sessions are open", all - writing);
        return Error::new(CKR_SESSION_READ_ONLY_EXISTS, sentence);
    }
    if slot.is_logged_in() {
        return Error::new(CKR_USER_ANOTHER_ALREADY_LOGGED_IN, "the user is logged in");
    }
    let sentence = "there is no security officer: vaults are administered in Azure";
    Error::new(CKR_PIN_LOCKED, sentence)
}

pub(super) fn login_user(
    module: &Module,
    session: Arc<Session>,
    user: CK_USER_TYPE,
    pin: Input<'_>,
    name: Input<'_>,
) -> Result<()> {
    name.bytes()?;
    login(module, session, user, pin)
}

fn is_operating(session: &Session) -> bool {
    session.sign.lock().is_active()
        || session.decrypt.lock().is_active()
        || session.encrypt.lock().is_active()
        || session.verify.lock().is_active()
        || session.sign_recover.lock().is_active()
        || session.message_sign.lock().is_active()
        || session.message_encrypt.lock().is_active()
        || session.message_decrypt.lock().is_active()
}

pub(super) fn logout(module: &Module, session: Arc<Session>) -> Result<()> {
    module.slot(&session).logout()
}

/// C_SessionCancel (3.0, clause 5.6.11): ends the operations the flags name.
pub(super) fn cancel(_: &Module, session: Arc<Session>, flags: CK_FLAGS) -> Result<()> {
    if flags & CKF_FIND_OBJECTS != 0 {
        session.find.lock().cancel();
    }
    if flags & CKF_DIGEST != 0 {
        session.digest.lock().cancel();
    }
    if flags & CKF_SIGN != 0 {
        session.sign.lock().cancel();
    }
    if flags & CKF_VERIFY != 0 {
        session.verify.lock().cancel();
        session.verify_signature.lock().cancel();
    }
    if flags & CKF_ENCRYPT != 0 {
        session.encrypt.lock().cancel();
    }
    if flags & CKF_DECRYPT != 0 {
        session.decrypt.lock().cancel();
    }
    if flags & CKF_SIGN_RECOVER != 0 {
        session.sign_recover.lock().cancel();
    }
    if flags & CKF_VERIFY_RECOVER != 0 {
        session.verify_recover.lock().cancel();
    }
    if flags & CKF_MESSAGE_ENCRYPT != 0 {
        session.message_encrypt.lock().cancel();
    }
    if flags & CKF_MESSAGE_DECRYPT != 0 {
        session.message_decrypt.lock().cancel();
    }
    if flags & CKF_MESSAGE_SIGN != 0 {
        session.message_sign.lock().cancel();
    }
    if flags & CKF_MESSAGE_VERIFY != 0 {
        session.message_verify.lock().cancel();
    }
    Ok(())
}

/// C_GetSessionValidationFlags (3.2): no validation is claimed.
pub(super) fn validation_flags(
    _: &Module,
    _: Arc<Session>,
    kind: CK_SESSION_VALIDATION_FLAGS_TYPE,
    flags: Place<'_, CK_FLAGS>,
) -> Result<()> {
    if kind != CKS_LAST_VALIDATION_OK as CK_SESSION_VALIDATION_FLAGS_TYPE {
        return Err(Error::new(CKR_ARGUMENTS_BAD, format!("validation flags of type {kind}")));
    }
    flags.put(0)
}
