//! C_XxxInit, C_Xxx, C_XxxUpdate and C_XxxFinal of every operation family, written once: the rows
//! of `table.rs` name the operation as a type argument.

use std::sync::Arc;

use cryptoki_sys::*;

use super::arg::{Input, Mechanism, Output, Parameter};
use crate::{
    error::Result,
    module::Module,
    object::Object,
    operation::{Keyed, Operation, Streaming},
    session::{Family, Session},
    slot::Slot,
};

/// Init with a key: `make` checks mechanism, parameter and key. A NULL mechanism cancels (3.0 on,
/// clause 5.8 and its like).
pub(super) fn init_with<T>(
    family: &Family<T>,
    module: &Module,
    session: &Session,
    mechanism: Mechanism<'_>,
    key: CK_OBJECT_HANDLE,
    make: impl FnOnce(&Slot, CK_MECHANISM_TYPE, &Parameter<'_>, &Arc<Object>) -> Result<T>,
) -> Result<()> {
    stumble!("abi");
    let mut stage = family.lock();
    let Some((kind, parameter)) = mechanism.read() else {
        stage.cancel();
        return Ok(());
    };
    stage.begin(|| {
        let key = module.key(session, key)?;
        make(module.slot(session), kind, &parameter, &key)
    })
}

/// Init of an operation that is no more than its own value.
pub(super) fn init<O: Keyed>(
    module: &Module,
    session: Arc<Session>,
    mechanism: Mechanism<'_>,
    key: CK_OBJECT_HANDLE,
) -> Result<()> {
    init_with(O::family(&session), module, &session, mechanism, key, O::new)
}

/// The one-shot call.
pub(super) fn one_shot<O: Operation>(
    module: &Module,
    session: Arc<Session>,
    data: Input<'_>,
    out: Output<'_>,
) -> Result<()> {
    let mut stage = O::family(&session).lock();
    stumble!("abi");
    let (data, room) = stage.arguments(|| Ok((data.bytes()?, out.room()?)))?;
    let answer = stage.one_shot(
        room,
        data,
        |operation| operation.one_shot_size(data),
        |operation| operation.one_shot(data, module.slot(&session)),
    )?;
    out.deliver(answer)
}

/// Update of an operation whose result comes at the end.
pub(super) fn update<O: Operation>(
    _: &Module,
    session: Arc<Session>,
    part: Input<'_>,
) -> Result<()> {
    O::family(&session).lock().update(|operation| operation.feed(part.bytes()?))
}

/// Update of an operation that gives output for each part.
pub(super) fn stream<O: Streaming>(
    module: &Module,
    session: Arc<Session>,
    part: Input<'_>,
    out: Output<'_>,
) -> Result<()> {
    let mut stage = O::family(&session).lock();
    let (part, room) = stage.arguments(|| Ok((part.bytes()?, out.room()?)))?;
    let answer = stage.step(
        room,
        |operation| operation.part_size(part),
        |operation| operation.part(part, module.slot(&session)),
    )?;
    out.deliver(answer)
}

/// Final.
pub(super) fn last<O: Operation>(
    module: &Module,
    session: Arc<Session>,
    out: Output<'_>,
) -> Result<()> {
    let mut stage = O::family(&session).lock();
    let room = stage.arguments(|| out.room())?;
    let answer =
        stage.last(room, Operation::size, |operation| operation.finish(module.slot(&session)))?;
    out.deliver(answer)
}
