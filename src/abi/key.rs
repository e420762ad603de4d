//! C_GenerateKey, C_GenerateKeyPair, C_WrapKey, C_UnwrapKey.

use std::sync::Arc;

use cryptoki_sys::*;

use super::arg::{Input, Mechanism, Output, Place, Template as Given};
use crate::{
    error::{Error, Result},
    mechanism::parameter,
    module::Module,
    object::template::Template,
    operation::{
        Size, Stage, create,
        generate::Generating,
        generate_secret::GeneratingSecret,
        wrap::{Unwrapping, Wrapping},
    },
    session::Session,
};

pub(super) fn generate(
    module: &Module,
    session: Arc<Session>,
    mechanism: Mechanism<'_>,
    template: Given<'_>,
    key: Place<'_, CK_OBJECT_HANDLE>,
) -> Result<()> {
    key.needed()?;
    let slot = module.slot(&session);
    let (kind, parameter) = mechanism.required()?;
    let (mechanism, uses) = slot.mechanism(kind)?;
    if uses & CKF_GENERATE == 0 {
        let sentence = format!("{} does not generate keys", mechanism.name);
        return Err(Error::new(CKR_MECHANISM_INVALID, sentence));
    }
    parameter::none(mechanism, &parameter)?;
    let template = Template::new(CKO_SECRET_KEY, &template.values()?)?;
    let generating = GeneratingSecret::new(slot, mechanism, template)?;
    super::object::writable(&session, generating.is_on_token())?;
    super::object::visible(slot, generating.is_private(slot))?;
    key.put(generating.run(slot, session.handle)?)
}

pub(super) fn generate_pair(
    module: &Module,
    session: Arc<Session>,
    mechanism: Mechanism<'_>,
    public: Given<'_>,
    private: Given<'_>,
    public_key: Place<'_, CK_OBJECT_HANDLE>,
    private_key: Place<'_, CK_OBJECT_HANDLE>,
) -> Result<()> {
    public_key.needed()?;
    private_key.needed()?;
    let slot = module.slot(&session);
    let (kind, parameter) = mechanism.required()?;
    let (mechanism, uses) = slot.mechanism(kind)?;
    if uses & CKF_GENERATE_KEY_PAIR == 0 {
        let sentence = format!("{} does not generate key pairs", mechanism.name);
        return Err(Error::new(CKR_MECHANISM_INVALID, sentence));
    }
    parameter::none(mechanism, &parameter)?;
    let public = Template::new(CKO_PUBLIC_KEY, &public.values()?)?;
    let private = Template::new(CKO_PRIVATE_KEY, &private.values()?)?;
    let generating = Generating::new(mechanism, public, private)?;
    super::object::writable(&session, generating.is_on_token())?;
    super::object::visible(slot, generating.is_private(slot))?;
    let pair = generating.run(slot, session.handle)?;
    public_key.put(pair.public)?;
    private_key.put(pair.private)
}

pub(super) fn wrap(
    module: &Module,
    session: Arc<Session>,
    mechanism: Mechanism<'_>,
    wrapping: CK_OBJECT_HANDLE,
    key: CK_OBJECT_HANDLE,
    wrapped: Output<'_>,
) -> Result<()> {
    let (slot, room) = (module.slot(&session), wrapped.room()?);
    let (kind, parameter) = mechanism.required()?;
    let handle_of = |rv| move |error: Error| Error::new(rv, error.sentence().to_owned());
    let wrapping =
        module.key(&session, wrapping).map_err(handle_of(CKR_WRAPPING_KEY_HANDLE_INVALID))?;
    let key = module.key(&session, key)?;
    let mut stage = Stage::Idle;
    stage.begin(|| Wrapping::new(slot, kind, &parameter, &wrapping, &key))?;
    let size = |wrapping: &Wrapping| Ok(Size::Exact(wrapping.size()));
    wrapped.deliver(stage.one_shot(room, &[], size, |wrapping| wrapping.finish())?)
}

pub(super) fn unwrap(
    module: &Module,
    session: Arc<Session>,
    mechanism: Mechanism<'_>,
    unwrapping: CK_OBJECT_HANDLE,
    wrapped: Input<'_>,
    template: Given<'_>,
    key: Place<'_, CK_OBJECT_HANDLE>,
) -> Result<()> {
    key.needed()?;
    let slot = module.slot(&session);
    let (kind, parameter) = mechanism.required()?;
    let unwrapping = module.key(&session, unwrapping).map_err(|error| {
        Error::new(CKR_UNWRAPPING_KEY_HANDLE_INVALID, error.sentence().to_owned())
    })?;
    let (class, template) = super::object::template_of(&template.values()?)?;
    super::object::writable(&session, template.on_token())?;
    super::object::visible(slot, create::is_private(slot, class, &template))?;
    let unwrapping = Unwrapping::new(slot, kind, &parameter, &unwrapping, class, template)?;
    key.put(unwrapping.run(slot, wrapped.bytes()?, session.handle)?)
}
