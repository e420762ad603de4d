//! Objects of secret keys that live in this process: AES keys, generic secrets, HMAC keys.

use cryptoki_sys::*;
use zeroize::Zeroizing;

use super::{
    Material, Object, project,
    session_key::{Source, allow, any_key, is_private, key_type, unsupported},
    template::{Template, inconsistent},
};
use crate::{
    crypto::{self, symmetric::SecretKey},
    error::{Error, Result},
    mechanism::{Home, MAX_SECRET, Mechanism, is_secret},
    process,
    slot::Slot,
};

/// Usages of a secret key.
pub const USAGES: &[CK_ATTRIBUTE_TYPE] =
    &[CKA_ENCRYPT, CKA_DECRYPT, CKA_SIGN, CKA_VERIFY, CKA_WRAP, CKA_UNWRAP];

/// Usages of the secret keys of a type.
pub fn able(key_type: CK_KEY_TYPE) -> &'static [CK_ATTRIBUTE_TYPE] {
    match key_type {
        CKK_AES => &[CKA_ENCRYPT, CKA_DECRYPT, CKA_WRAP, CKA_UNWRAP],
        // Generic secrets and HMAC keys.
        _ => &[CKA_SIGN, CKA_VERIFY],
    }
}

/// C_GenerateKey for the session.
///
/// # Errors
/// CKR_TEMPLATE_INCOMPLETE without CKA_VALUE_LEN, CKR_ATTRIBUTE_VALUE_INVALID,
/// CKR_TEMPLATE_INCONSISTENT.
pub fn generated(
    mechanism: &Mechanism,
    template: &Template,
    session: CK_SESSION_HANDLE,
    slot: &Slot,
) -> Result<Object> {
    let key_type = mechanism.key_type().unwrap_or(CK_ULONG::MAX);
    template.fixed_ulong(CKA_KEY_TYPE, key_type)?;
    template.without(&[CKA_VALUE, CKA_CHECK_VALUE])?;
    let length = length_of(key_type, template)?;
    let mut bytes = Zeroizing::new(vec![0; length]);
    crypto::random(&mut bytes)?;
    object(key_type, bytes, template, Source::Generated(mechanism.kind), session, slot)
}

/// C_CreateObject for the session.
///
/// # Errors
/// CKR_TEMPLATE_INCOMPLETE, CKR_ATTRIBUTE_VALUE_INVALID, CKR_TEMPLATE_INCONSISTENT.
pub fn brought(template: &Template, session: CK_SESSION_HANDLE, slot: &Slot) -> Result<Object> {
    let bytes = value_of(template)?;
    object(key_type(template)?, bytes, template, Source::Brought, session, slot)
}

/// The key bytes in a template.
///
/// # Errors
/// As [`brought`].
pub fn value_of(template: &Template) -> Result<Zeroizing<Vec<u8>>> {
    check_type(template)?;
    let bytes = Zeroizing::new(template.required(CKA_VALUE)?.to_vec());
    template.fixed_ulong(CKA_VALUE_LEN, bytes.len() as CK_ULONG)?;
    check_length(key_type(template)?, bytes.len() as CK_ULONG)
        .map_err(|error| Error::new(CKR_ATTRIBUTE_VALUE_INVALID, error.sentence().to_owned()))?;
    Ok(bytes)
}

/// A key that was unwrapped, of a length that [`check_unwrapped`] let through.
///
/// # Errors
/// CKR_TEMPLATE_INCONSISTENT.
pub fn unwrapped(
    bytes: Zeroizing<Vec<u8>>,
    template: &Template,
    session: CK_SESSION_HANDLE,
    slot: &Slot,
) -> Result<Object> {
    object(key_type(template)?, bytes, template, Source::Unwrapped, session, slot)
}

/// Refuses a template of a key type that no secret key here has.
///
/// # Errors
/// CKR_TEMPLATE_INCOMPLETE, CKR_ATTRIBUTE_VALUE_INVALID.
pub fn check_type(template: &Template) -> Result<()> {
    match key_type(template)? {
        known if is_secret(known) => Ok(()),
        other => Err(unsupported(other)),
    }
}

/// The lengths, at most `most`, that an unwrapped key can have by its template.
///
/// # Errors
/// CKR_WRAPPED_KEY_LEN_RANGE where there is none.
pub fn possible_lengths(template: &Template, most: usize) -> Result<Vec<usize>> {
    let of_type: Vec<usize> = match key_type(template)? {
        CKK_AES => vec![16, 24, 32],
        _ => (1..=MAX_SECRET).collect(),
    };
    let wanted = template.ulong(CKA_VALUE_LEN);
    let possible: Vec<usize> = of_type
        .into_iter()
        .filter(|length| *length <= most && wanted.is_none_or(|w| w == *length as CK_ULONG))
        .collect();
    match possible.is_empty() {
        false => Ok(possible),
        true => Err(Error::new(
            CKR_WRAPPED_KEY_LEN_RANGE,
            format!("CKA_VALUE_LEN {wanted:?} with this key type and mechanism"),
        )),
    }
}

/// Refuses an unwrapped key whose length is not its template's.
///
/// # Errors
/// CKR_WRAPPED_KEY_LEN_RANGE.
pub fn check_unwrapped(template: &Template, length: usize) -> Result<()> {
    match possible_lengths(template, MAX_SECRET)?.contains(&length) {
        true => Ok(()),
        false => Err(Error::new(
            CKR_WRAPPED_KEY_LEN_RANGE,
            format!("{length} bytes were wrapped, which is not the template's kind of key"),
        )),
    }
}

/// CKA_VALUE_LEN of a template that makes a key.
///
/// # Errors
/// CKR_TEMPLATE_INCOMPLETE, CKR_ATTRIBUTE_VALUE_INVALID.
pub fn length_of(key_type: CK_KEY_TYPE, template: &Template) -> Result<usize> {
    template.required(CKA_VALUE_LEN)?;
    check_length(key_type, template.ulong(CKA_VALUE_LEN).unwrap_or_default())
}

fn check_length(key_type: CK_KEY_TYPE, length: CK_ULONG) -> Result<usize> {
    match (key_type, usize::try_from(length)) {
        (CKK_AES, Ok(length @ (16 | 24 | 32))) => Ok(length),
        (other, Ok(length @ 1..=MAX_SECRET)) if other != CKK_AES => Ok(length),
        _ => Err(Error::new(
            CKR_ATTRIBUTE_VALUE_INVALID,
            format!(
                "a secret key of {length} bytes: AES has 16, 24 or 32, others 1 to {MAX_SECRET}"
            ),
        )),
    }
}

fn object(
    key_type: CK_KEY_TYPE,
    bytes: Zeroizing<Vec<u8>>,
    template: &Template,
    source: Source,
    session: CK_SESSION_HANDLE,
    slot: &Slot,
) -> Result<Object> {
    template.fixed_flag(CKA_TRUSTED, false, "no user may declare a key trusted")?;
    process::leave_out_of_core_dumps(&bytes);
    let key = SecretKey::new(bytes);
    let check_value = check_value(key_type, &key, template)?;
    let sensitive = template.flag(CKA_SENSITIVE).unwrap_or(false);
    let extractable = template.flag(CKA_EXTRACTABLE).unwrap_or(source.default_extractable());
    let generated = source.is_generated();
    let mut attributes = any_key(template, source);
    attributes
        .set_ulong(CKA_CLASS, CKO_SECRET_KEY)
        .set_ulong(CKA_KEY_TYPE, key_type)
        .set_ulong(CKA_VALUE_LEN, key.bytes().len() as CK_ULONG)
        .set_bool(CKA_PRIVATE, is_private(slot, template, true))
        .set_bool(CKA_SENSITIVE, sensitive)
        .set_bool(CKA_EXTRACTABLE, extractable)
        .set_bool(CKA_ALWAYS_SENSITIVE, generated && sensitive)
        .set_bool(CKA_NEVER_EXTRACTABLE, generated && !extractable)
        .set_bool(CKA_WRAP_WITH_TRUSTED, template.flag(CKA_WRAP_WITH_TRUSTED).unwrap_or(false))
        .set_bool(CKA_TRUSTED, false)
        .set(CKA_CHECK_VALUE, check_value);
    match template.bytes(CKA_ALLOWED_MECHANISMS) {
        Some(allowed) => attributes.set(CKA_ALLOWED_MECHANISMS, allowed),
        None => {
            let offered =
                project::mechanisms_for(CKO_SECRET_KEY, key_type, Home::Session, &slot.token);
            attributes.set_mechanisms(CKA_ALLOWED_MECHANISMS, offered)
        }
    };
    allow(&mut attributes, template, USAGES, able(key_type));
    if extractable && !sensitive {
        attributes.set(CKA_VALUE, key.bytes());
    }
    Ok(Object { attributes, material: Material::Secret(key), owner: Some(session) })
}

/// CKA_CHECK_VALUE of a key; empty where its template asks for none (clause 4.10.2).
///
/// # Errors
/// CKR_TEMPLATE_INCONSISTENT where the template has another.
pub fn check_value(key_type: CK_KEY_TYPE, key: &SecretKey, template: &Template) -> Result<Vec<u8>> {
    let computed = match key_type {
        CKK_AES => key.aes_check_value()?,
        _ => key.generic_check_value(),
    };
    match template.bytes(CKA_CHECK_VALUE) {
        Some([]) => Ok(vec![]),
        Some(given) if given != computed => {
            Err(inconsistent("CKA_CHECK_VALUE is not that of the key"))
        }
        _ => Ok(computed),
    }
}
