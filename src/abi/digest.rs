//! C_DigestInit, which has no key, and C_DigestKey; the rest is in `family.rs`.

use std::sync::Arc;

use cryptoki_sys::*;

use super::arg::Mechanism;
use crate::{
    error::{Error, Result},
    mechanism::parameter,
    module::Module,
    object::Material,
    operation::{Operation, digest::Digesting},
    session::Session,
};

pub(super) fn init(module: &Module, session: Arc<Session>, mechanism: Mechanism<'_>) -> Result<()> {
    let mut stage = session.digest.lock();
    let Some((kind, parameter)) = mechanism.read() else {
        stage.cancel();
        return Ok(());
    };
    stage.begin(|| {
        let (mechanism, _) = module.slot(&session).mechanism(kind)?;
        parameter::none(mechanism, &parameter)?;
        Digesting::new(mechanism).ok_or_else(|| {
            Error::new(CKR_MECHANISM_INVALID, format!("{} is no digest", mechanism.name))
        })
    })
}

/// C_DigestKey: the value of a session secret key is here to be digested, no other.
pub(super) fn key(module: &Module, session: Arc<Session>, key: CK_OBJECT_HANDLE) -> Result<()> {
    let object = module.key(&session, key);
    session.digest.lock().update(|digest| {
        let object = object?;
        let Material::Secret(key) = &object.material else {
            return Err(Error::new(
                CKR_KEY_INDIGESTIBLE,
                format!("the value of key '{}' is not given out", object.label()),
            ));
        };
        digest.feed(key.bytes())
    })
}
