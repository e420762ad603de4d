//! C_Verify… and C_VerifySignature… (3.2).

use std::sync::Arc;

use cryptoki_sys::*;

use super::{
    arg::{Input, Mechanism},
    family,
};
use crate::{error::Result, module::Module, operation::verify::Verifying, session::Session};

pub(super) fn init(
    module: &Module,
    session: Arc<Session>,
    mechanism: Mechanism<'_>,
    key: CK_OBJECT_HANDLE,
) -> Result<()> {
    family::init_with(&session.verify, module, &session, mechanism, key, Verifying::new)
}

pub(super) fn one_shot(
    module: &Module,
    session: Arc<Session>,
    data: Input<'_>,
    signature: Input<'_>,
) -> Result<()> {
    let mut verifying = session.verify.lock().take(true)?;
    verifying.feed(data.bytes()?)?;
    verifying.finish(module.slot(&session), signature.bytes()?)
}

pub(super) fn update(_: &Module, session: Arc<Session>, part: Input<'_>) -> Result<()> {
    session.verify.lock().update(|verifying| verifying.feed(part.bytes()?))
}

pub(super) fn last(module: &Module, session: Arc<Session>, signature: Input<'_>) -> Result<()> {
    let verifying = session.verify.lock().take(false)?;
    verifying.finish(module.slot(&session), signature.bytes()?)
}

pub(super) fn signature_init(
    module: &Module,
    session: Arc<Session>,
    mechanism: Mechanism<'_>,
    key: CK_OBJECT_HANDLE,
    signature: Input<'_>,
) -> Result<()> {
    let stage = &session.verify_signature;
    family::init_with(stage, module, &session, mechanism, key, |slot, kind, parameter, key| {
        let verifying = Verifying::new(slot, kind, parameter, key)?;
        Ok((verifying, signature.bytes()?.to_vec()))
    })
}

pub(super) fn signature_one_shot(
    module: &Module,
    session: Arc<Session>,
    data: Input<'_>,
) -> Result<()> {
    let (mut verifying, signature) = session.verify_signature.lock().take(true)?;
    verifying.feed(data.bytes()?)?;
    verifying.finish(module.slot(&session), &signature)
}

pub(super) fn signature_update(_: &Module, session: Arc<Session>, part: Input<'_>) -> Result<()> {
    session.verify_signature.lock().update(|(verifying, _)| verifying.feed(part.bytes()?))
}

pub(super) fn signature_last(module: &Module, session: Arc<Session>) -> Result<()> {
    let (verifying, signature) = session.verify_signature.lock().take(false)?;
    verifying.finish(module.slot(&session), &signature)
}
