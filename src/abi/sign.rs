//! C_Sign….

use std::sync::Arc;

use cryptoki_sys::*;

use super::arg::{Input, Mechanism, Output};
use crate::{
    error::Result,
    module::Module,
    operation::{Size, sign::Signing},
    session::Session,
};

pub(super) fn init(
    module: &Module,
    session: Arc<Session>,
    mechanism: Mechanism<'_>,
    key: CK_OBJECT_HANDLE,
) -> Result<()> {
    let Some((kind, parameter)) = mechanism.read() else {
        session.sign.lock().cancel();
        return Ok(());
    };
    session.sign.lock().begin(|| {
        let key = module.key(&session, key)?;
        Signing::new(module.slot(&session), kind, &parameter, &key)
    })
}

pub(super) fn one_shot(
    module: &Module,
    session: Arc<Session>,
    data: Input<'_>,
    out: Output<'_>,
) -> Result<()> {
    let mut stage = session.sign.lock();
    let (data, room) = stage.arguments(|| Ok((data.bytes()?, out.room()?)))?;
    let answer = stage.one_shot(
        room,
        data,
        |signing| Ok(Size::Exact(signing.size())),
        |mut signing| {
            signing.feed(data)?;
            signing.finish(module.slot(&session))
        },
    )?;
    out.deliver(answer)
}

pub(super) fn update(_: &Module, session: Arc<Session>, part: Input<'_>) -> Result<()> {
    session.sign.lock().update(|signing| signing.feed(part.bytes()?))
}

pub(super) fn last(module: &Module, session: Arc<Session>, out: Output<'_>) -> Result<()> {
    let mut stage = session.sign.lock();
    let room = stage.arguments(|| out.room())?;
    let answer = stage.last(
        room,
        |signing| Ok(Size::Exact(signing.size())),
        |signing| signing.finish(module.slot(&session)),
    )?;
    out.deliver(answer)
}
