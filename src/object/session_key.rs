//! Objects of key pairs that live in this process, and of public keys that clients bring.

use cryptoki_sys::*;

use super::{
    Attributes, Material, Object, project,
    template::{Template, inconsistent},
};
use crate::{
    crypto::{Curve, PrivateKey, PublicKey, RsaInput},
    error::{Error, Result},
    mechanism::Home,
    slot::Slot,
};

/// Usages of a private key.
const PRIVATE_USAGES: &[CK_ATTRIBUTE_TYPE] = &[CKA_SIGN, CKA_SIGN_RECOVER, CKA_DECRYPT, CKA_UNWRAP];
/// Usages of a public key.
const PUBLIC_USAGES: &[CK_ATTRIBUTE_TYPE] =
    &[CKA_VERIFY, CKA_VERIFY_RECOVER, CKA_ENCRYPT, CKA_WRAP];

/// Where the key material comes from, for CKA_LOCAL and its kin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Generated here with this mechanism.
    Generated(CK_MECHANISM_TYPE),
    /// Brought by the client.
    Brought,
    /// Unwrapped.
    Unwrapped,
}

impl Source {
    /// CKA_EXTRACTABLE of a key whose template does not say. Unwrapped: true by the standard
    /// (PKCS#11 3.2, clause 5.18.4). Brought: whoever did has the key in clear, and SunPKCS11
    /// brings keys without a word before it wraps them.
    pub fn default_extractable(self) -> bool {
        !matches!(self, Source::Generated(_))
    }

    /// Whether the key was never anywhere else.
    pub fn is_generated(self) -> bool {
        matches!(self, Source::Generated(_))
    }
}

/// The two objects of a pair generated here: public, private.
///
/// # Errors
/// CKR_TEMPLATE_INCONSISTENT.
pub fn pair(
    key: &PrivateKey,
    public: &Template,
    private: &Template,
    session: CK_SESSION_HANDLE,
    slot: &Slot,
) -> Result<(Object, Object)> {
    let mechanism = match key.public().curve() {
        Some(_) => CKM_EC_KEY_PAIR_GEN,
        None => CKM_RSA_PKCS_KEY_PAIR_GEN,
    };
    let source = Source::Generated(mechanism);
    let public = public_object(&key.public(), public, source, session, slot)?;
    Ok((public, private_object(key, private, source, session, slot)?))
}

/// A session object with the public key of `of`, as `template` describes it.
///
/// # Errors
/// CKR_TEMPLATE_INCONSISTENT.
pub fn public(
    of: &Object,
    template: &Template,
    session: CK_SESSION_HANDLE,
    slot: &Slot,
) -> Result<Object> {
    match &of.material {
        Material::Public(key) => public_object(key, template, Source::Brought, session, slot),
        Material::Vault(_) | Material::Private(_) | Material::Secret(_) | Material::None => {
            Err(inconsistent(format!("'{}' is no public key", of.label())))
        }
    }
}

/// C_CreateObject of a public key.
///
/// # Errors
/// CKR_TEMPLATE_INCOMPLETE, CKR_ATTRIBUTE_VALUE_INVALID, CKR_CURVE_NOT_SUPPORTED.
pub fn brought_public(
    template: &Template,
    session: CK_SESSION_HANDLE,
    slot: &Slot,
) -> Result<Object> {
    let invalid =
        |error: Error| Error::new(CKR_ATTRIBUTE_VALUE_INVALID, error.sentence().to_owned());
    let key = match key_type(template)? {
        CKK_RSA => {
            PublicKey::rsa(template.required(CKA_MODULUS)?, template.required(CKA_PUBLIC_EXPONENT)?)
                .map_err(invalid)?
        }
        CKK_EC => {
            let curve = Curve::from_params(template.required(CKA_EC_PARAMS)?)?;
            PublicKey::from_ec_point(curve, template.required(CKA_EC_POINT)?).map_err(invalid)?
        }
        other => return Err(unsupported(other)),
    };
    public_object(&key, template, Source::Brought, session, slot)
}

/// C_CreateObject of a private key for the session.
///
/// # Errors
/// As [`private_of`].
pub fn brought_private(
    template: &Template,
    session: CK_SESSION_HANDLE,
    slot: &Slot,
) -> Result<Object> {
    private_object(&private_of(template)?, template, Source::Brought, session, slot)
}

/// A private key that was unwrapped into the session.
///
/// # Errors
/// CKR_TEMPLATE_INCONSISTENT for a template of another key type.
pub fn unwrapped(
    key: &PrivateKey,
    template: &Template,
    session: CK_SESSION_HANDLE,
    slot: &Slot,
) -> Result<Object> {
    let key_type = if key.public().is_rsa() { CKK_RSA } else { CKK_EC };
    template.fixed_ulong(CKA_KEY_TYPE, key_type)?;
    private_object(key, template, Source::Unwrapped, session, slot)
}

/// The private key whose material is in a template.
///
/// # Errors
/// CKR_TEMPLATE_INCOMPLETE, CKR_ATTRIBUTE_VALUE_INVALID, CKR_CURVE_NOT_SUPPORTED.
pub fn private_of(template: &Template) -> Result<PrivateKey> {
    match key_type(template)? {
        CKK_RSA => PrivateKey::from_rsa_components(RsaInput {
            n: template.required(CKA_MODULUS)?,
            e: template.required(CKA_PUBLIC_EXPONENT)?,
            d: template.required(CKA_PRIVATE_EXPONENT)?,
            p: template.bytes(CKA_PRIME_1),
            q: template.bytes(CKA_PRIME_2),
            dp: template.bytes(CKA_EXPONENT_1),
            dq: template.bytes(CKA_EXPONENT_2),
            qi: template.bytes(CKA_COEFFICIENT),
        }),
        CKK_EC => {
            let curve = Curve::from_params(template.required(CKA_EC_PARAMS)?)?;
            PrivateKey::from_ec(curve, template.required(CKA_VALUE)?)
        }
        other => Err(unsupported(other)),
    }
}

/// CKA_KEY_TYPE of a template.
///
/// # Errors
/// CKR_TEMPLATE_INCOMPLETE.
pub fn key_type(template: &Template) -> Result<CK_KEY_TYPE> {
    template.required(CKA_KEY_TYPE)?;
    Ok(template.ulong(CKA_KEY_TYPE).unwrap_or(CK_ULONG::MAX))
}

pub(super) fn unsupported(key_type: CK_KEY_TYPE) -> Error {
    Error::new(CKR_ATTRIBUTE_VALUE_INVALID, format!("CKA_KEY_TYPE {key_type:#x} is not supported"))
}

/// CKA_PRIVATE of an object: as its template asks, or `default`; never where nobody logs in, as
/// with keys of the service (many clients ask for it whatever the token's flags say).
pub fn is_private(slot: &Slot, template: &Template, default: bool) -> bool {
    slot.needs_login() && template.flag(CKA_PRIVATE).unwrap_or(default)
}

fn public_object(
    key: &PublicKey,
    template: &Template,
    source: Source,
    session: CK_SESSION_HANDLE,
    slot: &Slot,
) -> Result<Object> {
    template.fixed_flag(CKA_TRUSTED, false, "no user may declare a key trusted")?;
    let mut attributes = common(CKO_PUBLIC_KEY, key, template, source, slot);
    project::public_usage(&mut attributes, key);
    attributes
        .set_bool(CKA_PRIVATE, is_private(slot, template, false))
        .set_bool(CKA_TRUSTED, false);
    let able: &[_] = if key.is_rsa() { PUBLIC_USAGES } else { &[CKA_VERIFY] };
    allow(&mut attributes, template, PUBLIC_USAGES, able);
    Ok(Object { attributes, material: Material::Public(key.clone()), owner: Some(session) })
}

fn private_object(
    key: &PrivateKey,
    template: &Template,
    source: Source,
    session: CK_SESSION_HANDLE,
    slot: &Slot,
) -> Result<Object> {
    template.fixed_flag(
        CKA_ALWAYS_AUTHENTICATE,
        false,
        "no key asks for a login before each use",
    )?;
    let public = key.public();
    let sensitive = template.flag(CKA_SENSITIVE).unwrap_or(true);
    let extractable = template.flag(CKA_EXTRACTABLE).unwrap_or(source.default_extractable());
    let generated = source.is_generated();
    let mut attributes = common(CKO_PRIVATE_KEY, &public, template, source, slot);
    attributes
        .set_ulong(CKA_CLASS, CKO_PRIVATE_KEY)
        .set_bool(CKA_PRIVATE, is_private(slot, template, true))
        .set_bool(CKA_SENSITIVE, sensitive)
        .set_bool(CKA_EXTRACTABLE, extractable)
        .set_bool(CKA_ALWAYS_SENSITIVE, generated && sensitive)
        .set_bool(CKA_NEVER_EXTRACTABLE, generated && !extractable)
        .set_bool(CKA_ALWAYS_AUTHENTICATE, false)
        .set_bool(CKA_WRAP_WITH_TRUSTED, template.flag(CKA_WRAP_WITH_TRUSTED).unwrap_or(false));
    let able: &[_] = if public.is_rsa() { PRIVATE_USAGES } else { &[CKA_SIGN] };
    allow(&mut attributes, template, PRIVATE_USAGES, able);
    if extractable && !sensitive {
        disclose(&mut attributes, key)?;
    }
    Ok(Object { attributes, material: Material::Private(key.clone()), owner: Some(session) })
}

/// What both halves have in common.
fn common(
    class: CK_OBJECT_CLASS,
    key: &PublicKey,
    template: &Template,
    source: Source,
    slot: &Slot,
) -> Attributes {
    let mut attributes = any_key(template, source);
    attributes.set(CKA_SUBJECT, template.bytes(CKA_SUBJECT).unwrap_or_default());
    project::public_part(&mut attributes, class, key, Home::Session, &slot.token);
    if let Some(allowed) = template.bytes(CKA_ALLOWED_MECHANISMS) {
        attributes.set(CKA_ALLOWED_MECHANISMS, allowed);
    }
    attributes
}

/// What session objects of every class have (clause 4.4).
pub(super) fn storage(template: &Template) -> Attributes {
    let mut attributes = Attributes::default();
    attributes
        .set_bool(CKA_TOKEN, false)
        .set_bool(CKA_MODIFIABLE, template.flag(CKA_MODIFIABLE).unwrap_or(true))
        .set_bool(CKA_COPYABLE, template.flag(CKA_COPYABLE).unwrap_or(true))
        .set_bool(CKA_DESTROYABLE, template.flag(CKA_DESTROYABLE).unwrap_or(true))
        .set(CKA_LABEL, template.bytes(CKA_LABEL).unwrap_or_default());
    attributes
}

/// What session keys of every class have.
pub(super) fn any_key(template: &Template, source: Source) -> Attributes {
    let mut attributes = storage(template);
    let given = |kind| template.bytes(kind).unwrap_or_default();
    attributes
        .set_bool(CKA_DERIVE, template.flag(CKA_DERIVE).unwrap_or(false))
        .set_bool(CKA_LOCAL, source.is_generated())
        .set_ulong(
            CKA_KEY_GEN_MECHANISM,
            match source {
                Source::Generated(mechanism) => mechanism,
                Source::Brought | Source::Unwrapped => CK_ULONG::MAX,
            },
        )
        .set(CKA_ID, given(CKA_ID))
        .set(CKA_START_DATE, given(CKA_START_DATE))
        .set(CKA_END_DATE, given(CKA_END_DATE));
    for kind in [CKA_WRAP_TEMPLATE, CKA_UNWRAP_TEMPLATE] {
        if let Some(value) = template.bytes(kind) {
            attributes.set(kind, value);
        }
    }
    attributes
}

/// Sets usages as the template has them; those that it does not name, within what a key of this
/// type can do. One that it names is the object's (clause 4.1.1), also where no mechanism goes with
/// the type: clients name more than they use, and Init tells them.
pub(super) fn allow(
    attributes: &mut Attributes,
    template: &Template,
    all: &[CK_ATTRIBUTE_TYPE],
    able: &[CK_ATTRIBUTE_TYPE],
) {
    let allowed: Vec<_> = template.usages(all).collect();
    for usage in all {
        let named = template.flag(*usage) == Some(true);
        attributes.set_bool(*usage, named || allowed.contains(usage) && able.contains(usage));
    }
}

/// Key material of a key that its owner made readable.
fn disclose(attributes: &mut Attributes, key: &PrivateKey) -> Result<()> {
    if key.public().is_rsa() {
        let parts = key.rsa_components()?;
        for (kind, value) in [
            (CKA_PRIVATE_EXPONENT, &parts.d),
            (CKA_PRIME_1, &parts.p),
            (CKA_PRIME_2, &parts.q),
            (CKA_EXPONENT_1, &parts.dp),
            (CKA_EXPONENT_2, &parts.dq),
            (CKA_COEFFICIENT, &parts.qi),
        ] {
            attributes.set(kind, value.as_slice());
        }
    } else {
        attributes.set(CKA_VALUE, key.ec_secret()?.as_slice());
    }
    Ok(())
}
