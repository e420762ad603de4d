//! C_FindObjectsInit, C_FindObjects, C_FindObjectsFinal (clause 5.7.7 and following).

use std::sync::Arc;

use cryptoki_sys::*;

use super::arg::{Handles, Place, Template};
use crate::{
    error::{Error, Result},
    module::Module,
    object::attribute::row_of,
    operation::{Stage, find},
    session::Session,
};

pub(super) fn init(module: &Module, session: Arc<Session>, template: Template<'_>) -> Result<()> {
    stumble!("abi");
    let mut wanted = Vec::new();
    for (kind, value) in template.values()? {
        if let Some(row) = row_of(kind) {
            row.check(&value)?;
        }
        wanted.push((kind, value.into_owned()));
    }
    session.find.lock().begin(|| find::find(module.slot(&session), &wanted))
}

pub(super) fn next(
    _: &Module,
    session: Arc<Session>,
    objects: Handles<'_>,
    count: Place<'_, CK_ULONG>,
) -> Result<()> {
    count.needed()?;
    let capacity = objects.capacity()?;
    let mut find = session.find.lock();
    let handles = find.active()?.next(capacity);
    objects.put(&handles);
    count.put(handles.len() as CK_ULONG)
}

pub(super) fn end(_: &Module, session: Arc<Session>) -> Result<()> {
    match &mut *session.find.lock() {
        Stage::Idle => Err(Error::new(CKR_OPERATION_NOT_INITIALIZED, "no search is active")),
        find => {
            find.cancel();
            Ok(())
        }
    }
}
