//! C_Encrypt… and C_Decrypt….

use std::sync::Arc;

use cryptoki_sys::*;

use super::arg::{Input, Mechanism, Output};
use crate::{
    crypto::symmetric::Direction::{self, Decrypt, Encrypt},
    error::Result,
    module::Module,
    operation::crypt::Crypting,
    session::{Family, Session},
};

/// The handlers of one direction.
macro_rules! handlers {
    ($direction:ident $init:ident $one_shot:ident $update:ident $last:ident) => {
        pub(super) fn $init(
            module: &Module,
            session: Arc<Session>,
            mechanism: Mechanism<'_>,
            key: CK_OBJECT_HANDLE,
        ) -> Result<()> {
            init(module, &session, $direction, &mechanism, key)
        }

        pub(super) fn $one_shot(
            module: &Module,
            session: Arc<Session>,
            data: Input<'_>,
            out: Output<'_>,
        ) -> Result<()> {
            one_shot(module, &session, $direction, &data, out)
        }

        pub(super) fn $update(
            module: &Module,
            session: Arc<Session>,
            part: Input<'_>,
            out: Output<'_>,
        ) -> Result<()> {
            update(module, &session, $direction, &part, out)
        }

        pub(super) fn $last(module: &Module, session: Arc<Session>, out: Output<'_>) -> Result<()> {
            last(module, &session, $direction, out)
        }
    };
}

handlers! { Encrypt encrypt_init encrypt encrypt_update encrypt_last }
handlers! { Decrypt decrypt_init decrypt decrypt_update decrypt_last }

fn family(session: &Session, direction: Direction) -> &Family<Crypting> {
    match direction {
        Encrypt => &session.encrypt,
        Decrypt => &session.decrypt,
    }
}

fn init(
    module: &Module,
    session: &Session,
    direction: Direction,
    mechanism: &Mechanism<'_>,
    key: CK_OBJECT_HANDLE,
) -> Result<()> {
    let mut stage = family(session, direction).lock();
    let Some((kind, parameter)) = mechanism.read() else {
        stage.cancel();
        return Ok(());
    };
    stage.begin(|| {
        let key = module.key(session, key)?;
        Crypting::new(module.slot(session), direction, kind, &parameter, &key)
    })
}

fn one_shot(
    module: &Module,
    session: &Session,
    direction: Direction,
    data: &Input<'_>,
    out: Output<'_>,
) -> Result<()> {
    let mut stage = family(session, direction).lock();
    let (data, room) = stage.arguments(|| Ok((data.bytes()?, out.room()?)))?;
    let answer = stage.one_shot(
        room,
        data,
        |crypting| crypting.size(data.len()),
        |crypting| crypting.once(module.slot(session), data),
    )?;
    out.deliver(answer)
}

fn update(
    module: &Module,
    session: &Session,
    direction: Direction,
    part: &Input<'_>,
    out: Output<'_>,
) -> Result<()> {
    let mut stage = family(session, direction).lock();
    let (part, room) = stage.arguments(|| Ok((part.bytes()?, out.room()?)))?;
    let answer = stage.step(
        room,
        |crypting| Ok(crypting.update_size(part.len())),
        |crypting| crypting.feed(module.slot(session), part),
    )?;
    out.deliver(answer)
}

fn last(module: &Module, session: &Session, direction: Direction, out: Output<'_>) -> Result<()> {
    let mut stage = family(session, direction).lock();
    let room = stage.arguments(|| out.room())?;
    let answer = stage.last(
        room,
        |crypting| crypting.size(0),
        |crypting| crypting.finish(module.slot(session)),
    )?;
    out.deliver(answer)
}
