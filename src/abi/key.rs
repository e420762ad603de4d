//! C_GenerateKey, C_GenerateKeyPair.

use std::sync::Arc;

use cryptoki_sys::*;

use super::arg::{Mechanism, Place, Template as Given};
use crate::{
    error::{Error, Result},
    mechanism::parameter,
    module::Module,
    object::template::Template,
    operation::{generate::Generating, generate_secret::GeneratingSecret},
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
