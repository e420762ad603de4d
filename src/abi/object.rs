//! C_CreateObject, C_CopyObject, C_DestroyObject, C_GetObjectSize, C_GetAttributeValue,
//! C_SetAttributeValue.

use std::{
    borrow::Cow,
    sync::{Arc, MutexGuard, PoisonError},
};

use cryptoki_sys::*;
use zeroize::Zeroizing;

use super::arg::{Asked, Place, Template as Given};
use crate::{
    error::{Error, Result},
    module::Module,
    object::{data, template::Template},
    operation::{
        change, create,
        secret::{self, Kept},
    },
    session::Session,
    slot::Slot,
};

pub(super) fn create(
    module: &Module,
    session: Arc<Session>,
    template: Given<'_>,
    object: Place<'_, CK_OBJECT_HANDLE>,
) -> Result<()> {
    object.needed()?;
    let slot = module.slot(&session);
    let (class, template) = template_of(&template.values()?)?;
    writable(&session, template.on_token())?;
    visible(slot, create::is_private(slot, class, &template))?;
    object.put(create::create(slot, class, &template, session.handle)?)
}

/// The class that a template names, and the template read for it.
pub(super) fn template_of(
    given: &[(CK_ATTRIBUTE_TYPE, Cow<'_, [u8]>)],
) -> Result<(CK_OBJECT_CLASS, Template)> {
    let (_, class) = given
        .iter()
        .find(|(kind, _)| *kind == CKA_CLASS)
        .ok_or_else(|| Error::new(CKR_TEMPLATE_INCOMPLETE, "CKA_CLASS is missing"))?;
    let class = <[u8; _]>::try_from(class.as_ref())
        .map(CK_ULONG::from_ne_bytes)
        .map_err(|_| Error::new(CKR_ATTRIBUTE_VALUE_INVALID, "CKA_CLASS is no CK_ULONG"))?;
    if class > CKO_TRUST {
        let sentence = format!("CKA_CLASS {class:#x} is no class of the standard");
        return Err(Error::new(CKR_ATTRIBUTE_VALUE_INVALID, sentence));
    }
    Ok((class, Template::new(class, given)?))
}

pub(super) fn copy(
    module: &Module,
    session: Arc<Session>,
    object: CK_OBJECT_HANDLE,
    template: Given<'_>,
    copy: Place<'_, CK_OBJECT_HANDLE>,
) -> Result<()> {
    copy.needed()?;
    let slot = module.slot(&session);
    let object = module.object(&session, object)?;
    let template = Template::new(object.class(), &template.values()?)?;
    if !object.attributes.is(CKA_COPYABLE) {
        return Err(Error::new(
            CKR_ACTION_PROHIBITED,
            format!("'{}' cannot be copied (CKA_COPYABLE is false)", object.label()),
        ));
    }
    writable(&session, template.on_token())?;
    copy.put(change::copy(slot, &object, &template, session.handle)?)
}

pub(super) fn destroy(
    module: &Module,
    session: Arc<Session>,
    handle: CK_OBJECT_HANDLE,
) -> Result<()> {
    let object = module.object(&session, handle)?;
    writable(&session, object.attributes.is(CKA_TOKEN))?;
    change::destroy(module.slot(&session), handle, &object)
}

pub(super) fn size(
    module: &Module,
    session: Arc<Session>,
    object: CK_OBJECT_HANDLE,
    size: Place<'_, CK_ULONG>,
) -> Result<()> {
    size.put(module.object(&session, object)?.size() as CK_ULONG)
}

pub(super) fn attributes(
    module: &Module,
    session: Arc<Session>,
    object: CK_OBJECT_HANDLE,
    template: Given<'_>,
) -> Result<()> {
    let found = module.object(&session, object)?;
    let secret = match (template.asks_for(CKA_VALUE)?, data::secret_name(&found)) {
        (Some(_), Some(name)) => Some(read(module.slot(&session), &session, object, name)),
        _ => None,
    };
    let outcome = template.fill(|kind| match &secret {
        Some(secret) if kind == CKA_VALUE => {
            secret.as_ref().map(|value| value.as_slice()).map_err(Clone::clone)
        }
        _ => found.value(kind),
    });
    let given = outcome.is_ok() && template.asks_for(CKA_VALUE)? == Some(Asked::Value);
    if let Some(Ok(value)) = secret.filter(|_| !given) {
        kept(&session).put(object, value);
    }
    outcome
}

/// The value of a secret: the one whose length this session asked for just now, or a new request.
fn read(
    slot: &Slot,
    session: &Session,
    object: CK_OBJECT_HANDLE,
    name: &str,
) -> Result<Zeroizing<Vec<u8>>> {
    let fetched = kept(session).take(object);
    fetched.map_or_else(|| secret::value(slot, name), Ok)
}

fn kept(session: &Session) -> MutexGuard<'_, Kept> {
    session.secret.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn set_attributes(
    module: &Module,
    session: Arc<Session>,
    handle: CK_OBJECT_HANDLE,
    template: Given<'_>,
) -> Result<()> {
    let object = module.object(&session, handle)?;
    let given = template.values()?;
    writable(&session, object.attributes.is(CKA_TOKEN))?;
    change::set(module.slot(&session), handle, &object, &given)
}

/// Token objects are made and changed in read/write sessions only.
pub(super) fn writable(session: &Session, on_token: bool) -> Result<()> {
    if on_token && !session.read_write {
        return Err(Error::new(
            CKR_SESSION_READ_ONLY,
            "token objects are made, changed and destroyed in read/write sessions",
        ));
    }
    Ok(())
}

/// Private objects are made after login only.
pub(super) fn visible(slot: &Slot, private: bool) -> Result<()> {
    if private && slot.needs_login() && !slot.is_logged_in() {
        return Err(Error::new(CKR_USER_NOT_LOGGED_IN, "private objects need a login"));
    }
    Ok(())
}
