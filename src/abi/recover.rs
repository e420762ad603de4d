//! C_SignRecover… and C_VerifyRecover….

use std::sync::Arc;

use cryptoki_sys::*;

use super::arg::{Input, Mechanism, Output};
use crate::{
    error::Result,
    module::Module,
    operation::{Size, sign::Signing, verify::Recovering},
    session::Session,
};

pub(super) fn sign_init(
    module: &Module,
    session: Arc<Session>,
    mechanism: Mechanism<'_>,
    key: CK_OBJECT_HANDLE,
) -> Result<()> {
    let mut stage = session.sign_recover.lock();
    let Some((kind, parameter)) = mechanism.read() else {
        stage.cancel();
        return Ok(());
    };
    stage.begin(|| {
        let key = module.key(&session, key)?;
        Signing::recoverable(module.slot(&session), kind, &parameter, &key)
    })
}

pub(super) fn sign(
    module: &Module,
    session: Arc<Session>,
    data: Input<'_>,
    out: Output<'_>,
) -> Result<()> {
    let mut stage = session.sign_recover.lock();
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

pub(super) fn verify_init(
    module: &Module,
    session: Arc<Session>,
    mechanism: Mechanism<'_>,
    key: CK_OBJECT_HANDLE,
) -> Result<()> {
    let mut stage = session.verify_recover.lock();
    let Some((kind, parameter)) = mechanism.read() else {
        stage.cancel();
        return Ok(());
    };
    stage.begin(|| {
        let key = module.key(&session, key)?;
        Recovering::new(module.slot(&session), kind, &parameter, &key)
    })
}

pub(super) fn verify(
    _: &Module,
    session: Arc<Session>,
    signature: Input<'_>,
    out: Output<'_>,
) -> Result<()> {
    let mut stage = session.verify_recover.lock();
    let (signature, room) = stage.arguments(|| Ok((signature.bytes()?, out.room()?)))?;
    let answer = stage.one_shot(
        room,
        signature,
        |recovering| Ok(recovering.size()),
        |recovering| recovering.run(signature),
    )?;
    out.deliver(answer)
}
