//! C_Message… (3.0): one Init, many messages.

use std::sync::Arc;

use cryptoki_sys::*;

use super::{
    arg::{Input, Mechanism, Output, Parameter},
    family::init_with,
};
use crate::{
    crypto::symmetric::Direction::{self, Decrypt, Encrypt},
    error::{Error, Result},
    module::Module,
    operation::{
        Keyed,
        message::{MessageCrypting, MessageSigning, MessageVerifying},
        sign::Signing,
        verify::Verifying,
    },
    session::{Family, Session},
};

/// The handlers of one direction of encryption.
macro_rules! handlers {
    ($direction:ident $init:ident $whole:ident $begin:ident $next:ident $end:ident) => {
        pub(super) fn $init(
            module: &Module,
            session: Arc<Session>,
            mechanism: Mechanism<'_>,
            key: CK_OBJECT_HANDLE,
        ) -> Result<()> {
            let stage = of(&session, $direction);
            init_with(stage, module, &session, mechanism, key, |slot, kind, _, key| {
                MessageCrypting::new(slot, $direction, kind, key)
            })
        }

        pub(super) fn $whole(
            module: &Module,
            session: Arc<Session>,
            parameter: Parameter<'_>,
            aad: Input<'_>,
            data: Input<'_>,
            out: Output<'_>,
        ) -> Result<()> {
            let mut stage = of(&session, $direction).lock();
            let crypting = stage.active()?;
            let (parameter, room) = (parameter.gcm_message()?, out.room()?);
            let slot = module.slot(&session);
            out.deliver(crypting.whole(slot, parameter, aad.bytes()?, data.bytes()?, room)?)
        }

        pub(super) fn $begin(
            _: &Module,
            session: Arc<Session>,
            parameter: Parameter<'_>,
            aad: Input<'_>,
        ) -> Result<()> {
            let mut stage = of(&session, $direction).lock();
            stage.active()?.begin(parameter.gcm_message()?, aad.bytes()?)
        }

        pub(super) fn $next(
            module: &Module,
            session: Arc<Session>,
            parameter: Parameter<'_>,
            data: Input<'_>,
            out: Output<'_>,
            flags: CK_FLAGS,
        ) -> Result<()> {
            let mut stage = of(&session, $direction).lock();
            let crypting = stage.active()?;
            let (parameter, room) = (parameter.gcm_message()?, out.room()?);
            let is_last = flags & CKF_END_OF_MESSAGE != 0;
            let slot = module.slot(&session);
            out.deliver(crypting.next(slot, parameter, data.bytes()?, is_last, room)?)
        }

        pub(super) fn $end(_: &Module, session: Arc<Session>) -> Result<()> {
            of(&session, $direction).lock().take(false).map(drop)
        }
    };
}

handlers! { Encrypt encrypt_init encrypt encrypt_begin encrypt_next encrypt_end }
handlers! { Decrypt decrypt_init decrypt decrypt_begin decrypt_next decrypt_end }

fn of(session: &Session, direction: Direction) -> &Family<MessageCrypting> {
    match direction {
        Encrypt => &session.message_encrypt,
        Decrypt => &session.message_decrypt,
    }
}

/// No mechanism that signs has a parameter for each message.
fn none(parameter: &Parameter<'_>) -> Result<()> {
    match parameter.is_empty() {
        true => Ok(()),
        false => Err(Error::new(CKR_MECHANISM_PARAM_INVALID, "a parameter with a message")),
    }
}

pub(super) fn sign_init(
    module: &Module,
    session: Arc<Session>,
    mechanism: Mechanism<'_>,
    key: CK_OBJECT_HANDLE,
) -> Result<()> {
    let stage = &session.message_sign;
    init_with(stage, module, &session, mechanism, key, |slot, kind, parameter, key| {
        Signing::new(slot, kind, parameter, key).map(MessageSigning::new)
    })
}

pub(super) fn sign(
    module: &Module,
    session: Arc<Session>,
    parameter: Parameter<'_>,
    data: Input<'_>,
    out: Output<'_>,
) -> Result<()> {
    let mut stage = session.message_sign.lock();
    let signing = stage.active()?;
    none(&parameter)?;
    let room = out.room()?;
    out.deliver(signing.whole(module.slot(&session), data.bytes()?, room)?)
}

pub(super) fn sign_begin(
    _: &Module,
    session: Arc<Session>,
    parameter: Parameter<'_>,
) -> Result<()> {
    let mut stage = session.message_sign.lock();
    let signing = stage.active()?;
    none(&parameter)?;
    signing.begin()
}

/// Without a place for the signature's length more parts follow.
pub(super) fn sign_next(
    module: &Module,
    session: Arc<Session>,
    parameter: Parameter<'_>,
    data: Input<'_>,
    out: Output<'_>,
) -> Result<()> {
    let mut stage = session.message_sign.lock();
    let signing = stage.active()?;
    none(&parameter)?;
    let data = data.bytes()?;
    if !out.is_wanted() {
        return signing.next(data);
    }
    let room = out.room()?;
    out.deliver(signing.last(module.slot(&session), data, room)?)
}

pub(super) fn sign_end(_: &Module, session: Arc<Session>) -> Result<()> {
    session.message_sign.lock().take(false).map(drop)
}

pub(super) fn verify_init(
    module: &Module,
    session: Arc<Session>,
    mechanism: Mechanism<'_>,
    key: CK_OBJECT_HANDLE,
) -> Result<()> {
    let stage = &session.message_verify;
    init_with(stage, module, &session, mechanism, key, |slot, kind, parameter, key| {
        Verifying::new(slot, kind, parameter, key).map(MessageVerifying::new)
    })
}

pub(super) fn verify(
    module: &Module,
    session: Arc<Session>,
    parameter: Parameter<'_>,
    data: Input<'_>,
    signature: Input<'_>,
) -> Result<()> {
    let mut stage = session.message_verify.lock();
    let verifying = stage.active()?;
    none(&parameter)?;
    verifying.whole(module.slot(&session), data.bytes()?, signature.bytes()?)
}

pub(super) fn verify_begin(
    _: &Module,
    session: Arc<Session>,
    parameter: Parameter<'_>,
) -> Result<()> {
    let mut stage = session.message_verify.lock();
    let verifying = stage.active()?;
    none(&parameter)?;
    verifying.begin()
}

/// Without a signature more parts follow.
pub(super) fn verify_next(
    module: &Module,
    session: Arc<Session>,
    parameter: Parameter<'_>,
    data: Input<'_>,
    signature: Input<'_>,
) -> Result<()> {
    let mut stage = session.message_verify.lock();
    let verifying = stage.active()?;
    none(&parameter)?;
    let last = if signature.is_null() { None } else { Some(signature.bytes()?) };
    verifying.next(module.slot(&session), data.bytes()?, last)
}

pub(super) fn verify_end(_: &Module, session: Arc<Session>) -> Result<()> {
    session.message_verify.lock().take(false).map(drop)
}
