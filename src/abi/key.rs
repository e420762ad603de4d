//! C_GenerateKey, C_GenerateKeyPair, C_WrapKey, C_UnwrapKey, C_WrapKeyAuthenticated,
//! C_UnwrapKeyAuthenticated.

use std::sync::Arc;

use cryptoki_sys::*;

use super::arg::{Input, Mechanism, Output, Parameter, Place, Template as Given};
use crate::{
    error::{Error, Result},
    mechanism::{AesMode, Scheme, parameter},
    module::Module,
    object::{Object, template::Template},
    operation::{
        Size, Stage, create,
        generate::Generating,
        generate_secret::GeneratingSecret,
        unwrap::Unwrapping,
        wrap::{self, Wrapping},
    },
    session::Session,
    slot::Slot,
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
    super::object::writable(&session, template.on_token())?;
    let generating = GeneratingSecret::new(slot, mechanism, template)?;
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
    let (wrapping, key) = keys(module, &session, wrapping, key)?;
    if kind == CKM_AES_GCM && parameter.is_gcm_wrap() {
        let parameter = parameter.gcm_wrap()?;
        let answer = wrap::with_iv_made(slot, kind, parameter, (&wrapping, &key), room)?;
        return wrapped.deliver(answer);
    }
    let mut stage = Stage::Idle;
    stage.begin(|| Wrapping::new(slot, kind, &parameter, &wrapping, &key))?;
    let size = |wrapping: &Wrapping| Ok(Size::Exact(wrapping.size()));
    wrapped.deliver(stage.one_shot(room, &[], size, |wrapping| wrapping.finish(slot))?)
}

pub(super) fn wrap_authenticated(
    module: &Module,
    session: Arc<Session>,
    mechanism: Mechanism<'_>,
    wrapping: CK_OBJECT_HANDLE,
    key: CK_OBJECT_HANDLE,
    aad: Input<'_>,
    wrapped: Output<'_>,
) -> Result<()> {
    let (slot, room) = (module.slot(&session), wrapped.room()?);
    let (kind, parameter) = authenticating(slot, &mechanism)?;
    let (wrapping, key) = keys(module, &session, wrapping, key)?;
    let (parameter, aad) = (parameter.gcm_message()?, aad.bytes()?);
    wrapped.deliver(wrap::authenticated(slot, kind, parameter, (&wrapping, &key), aad, room)?)
}

/// The wrapping key, and the key to be wrapped.
fn keys(
    module: &Module,
    session: &Session,
    wrapping: CK_OBJECT_HANDLE,
    key: CK_OBJECT_HANDLE,
) -> Result<(Arc<Object>, Arc<Object>)> {
    let wrapping = module.key(session, wrapping).map_err(|error| {
        Error::new(CKR_WRAPPING_KEY_HANDLE_INVALID, error.sentence().to_owned())
    })?;
    Ok((wrapping, module.key(session, key)?))
}

/// A mechanism that authenticates what it wraps.
fn authenticating<'a>(
    slot: &Slot,
    mechanism: &Mechanism<'a>,
) -> Result<(CK_MECHANISM_TYPE, Parameter<'a>)> {
    let (kind, parameter) = mechanism.required()?;
    let (row, _) = slot.mechanism(kind)?;
    if row.scheme != Scheme::Aes(AesMode::Gcm) {
        let sentence = format!("{} does not authenticate additional data", row.name);
        return Err(Error::new(CKR_MECHANISM_INVALID, sentence));
    }
    Ok((kind, parameter))
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
    let unwrapping = unwrapping_key(module, &session, unwrapping)?;
    let (class, template) = template_of_key(slot, &session, template, &unwrapping)?;
    let unwrapping = Unwrapping::new(slot, kind, &parameter, &unwrapping, class, template)?;
    key.put(unwrapping.run(slot, wrapped.bytes()?, session.handle)?)
}

#[expect(clippy::too_many_arguments, reason = "those of the C function")]
pub(super) fn unwrap_authenticated(
    module: &Module,
    session: Arc<Session>,
    mechanism: Mechanism<'_>,
    unwrapping: CK_OBJECT_HANDLE,
    wrapped: Input<'_>,
    template: Given<'_>,
    aad: Input<'_>,
    key: Place<'_, CK_OBJECT_HANDLE>,
) -> Result<()> {
    key.needed()?;
    let slot = module.slot(&session);
    let (kind, parameter) = authenticating(slot, &mechanism)?;
    let unwrapping = unwrapping_key(module, &session, unwrapping)?;
    let (class, template) = template_of_key(slot, &session, template, &unwrapping)?;
    let (parameter, aad) = (parameter.gcm_message()?, aad.bytes()?);
    let unwrapping =
        Unwrapping::authenticated(slot, kind, &parameter, aad, &unwrapping, class, template)?;
    key.put(unwrapping.run(slot, wrapped.bytes()?, session.handle)?)
}

fn unwrapping_key(
    module: &Module,
    session: &Session,
    handle: CK_OBJECT_HANDLE,
) -> Result<Arc<Object>> {
    module
        .key(session, handle)
        .map_err(|error| Error::new(CKR_UNWRAPPING_KEY_HANDLE_INVALID, error.sentence().to_owned()))
}

/// The template of a key to be unwrapped, which this session may make, with what the unwrapping
/// key adds to it.
fn template_of_key(
    slot: &Slot,
    session: &Session,
    given: Given<'_>,
    unwrapping: &Object,
) -> Result<(CK_OBJECT_CLASS, Template)> {
    let (class, mut template) = super::object::template_of(&given.values()?)?;
    if let Some(added) = unwrapping.attributes.bytes(CKA_UNWRAP_TEMPLATE) {
        template = template.with_added(class, added)?;
    }
    super::object::writable(session, template.on_token())?;
    super::object::visible(slot, create::is_private(slot, class, &template))?;
    Ok((class, template))
}
