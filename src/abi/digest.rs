//! C_Digest….

use std::sync::Arc;

use cryptoki_sys::*;

use super::arg::{Input, Mechanism, Output};
use crate::{
    error::{Error, Result},
    mechanism::parameter,
    module::Module,
    object::Material,
    operation::{Size, digest::Digesting},
    session::Session,
};

pub(super) fn init(module: &Module, session: Arc<Session>, mechanism: Mechanism<'_>) -> Result<()> {
    let Some((kind, parameter)) = mechanism.read() else {
        session.digest.lock().cancel();
        return Ok(());
    };
    session.digest.lock().begin(|| {
        let (mechanism, _) = module.slot(&session).mechanism(kind)?;
        parameter::none(mechanism, &parameter)?;
        Digesting::new(mechanism).ok_or_else(|| {
            Error::new(CKR_MECHANISM_INVALID, format!("{} is no digest", mechanism.name))
        })
    })
}

pub(super) fn one_shot(
    _: &Module,
    session: Arc<Session>,
    data: Input<'_>,
    out: Output<'_>,
) -> Result<()> {
    let mut stage = session.digest.lock();
    let (data, room) = stage.arguments(|| Ok((data.bytes()?, out.room()?)))?;
    let answer = stage.one_shot(
        room,
        data,
        |digest| Ok(Size::Exact(digest.size())),
        |mut digest| {
            digest.feed(data);
            Ok(digest.finish().into())
        },
    )?;
    out.deliver(answer)
}

pub(super) fn update(_: &Module, session: Arc<Session>, part: Input<'_>) -> Result<()> {
    session.digest.lock().update(|digest| {
        digest.feed(part.bytes()?);
        Ok(())
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
        digest.feed(key.bytes());
        Ok(())
    })
}

pub(super) fn last(_: &Module, session: Arc<Session>, out: Output<'_>) -> Result<()> {
    let mut stage = session.digest.lock();
    let room = stage.arguments(|| out.room())?;
    let answer = stage.last(
        room,
        |digest| Ok(Size::Exact(digest.size())),
        |digest| Ok(digest.finish().into()),
    )?;
    out.deliver(answer)
}
