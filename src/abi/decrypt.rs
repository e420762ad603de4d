//! C_Decrypt….

use std::sync::Arc;

use cryptoki_sys::*;
use zeroize::Zeroizing;

use super::arg::{Input, Mechanism, Output};
use crate::{error::Result, module::Module, operation::crypt::Decrypting, session::Session};

pub(super) fn init(
    module: &Module,
    session: Arc<Session>,
    mechanism: Mechanism<'_>,
    key: CK_OBJECT_HANDLE,
) -> Result<()> {
    let Some((kind, parameter)) = mechanism.read() else {
        session.decrypt.lock().cancel();
        return Ok(());
    };
    session.decrypt.lock().begin(|| {
        let key = module.key(&session, key)?;
        Decrypting::new(module.slot(&session), kind, &parameter, &key)
    })
}

pub(super) fn one_shot(
    module: &Module,
    session: Arc<Session>,
    data: Input<'_>,
    out: Output<'_>,
) -> Result<()> {
    let mut stage = session.decrypt.lock();
    let (data, room) = stage.arguments(|| Ok((data.bytes()?, out.room()?)))?;
    let answer = stage.one_shot(
        room,
        data,
        |decrypting| Ok(decrypting.size()),
        |mut decrypting| {
            decrypting.feed(data)?;
            decrypting.finish(module.slot(&session))
        },
    )?;
    out.deliver(answer)
}

/// The part is collected: RSA gives its output at the end, all at once.
pub(super) fn update(
    _: &Module,
    session: Arc<Session>,
    part: Input<'_>,
    out: Output<'_>,
) -> Result<()> {
    let mut stage = session.decrypt.lock();
    let (part, room) = stage.arguments(|| Ok((part.bytes()?, out.room()?)))?;
    let answer = stage.step(
        room,
        |_| Ok(0),
        |decrypting| {
            decrypting.feed(part)?;
            Ok(Zeroizing::default())
        },
    )?;
    out.deliver(answer)
}

pub(super) fn last(module: &Module, session: Arc<Session>, out: Output<'_>) -> Result<()> {
    let mut stage = session.decrypt.lock();
    let room = stage.arguments(|| out.room())?;
    let answer = stage.last(
        room,
        |decrypting| Ok(decrypting.size()),
        |decrypting| decrypting.finish(module.slot(&session)),
    )?;
    out.deliver(answer)
}
