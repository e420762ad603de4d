//! Private and secret keys that a client brings to the token: an import at the service.

use akv_wire::{Base64Url, JsonWebKey, KeyImportParameters};
use cryptoki_sys::*;
use zeroize::Zeroizing;

use super::{
    find,
    generate_secret::{check_usages, secret_operations},
    making::{Making, PRIVATE_EC, PRIVATE_RSA, PUBLIC_EC, PUBLIC_RSA, Usages, operations},
};
use crate::{
    crypto::{PrivateKey, symmetric::SecretKey},
    error::{Error, Result},
    mechanism::{Home, MECHANISMS, Mechanism},
    object::{
        Object, dates, session_secret,
        template::{Template, inconsistent},
    },
    slot::Slot,
};

/// What a template for a key at the service must not ask for.
///
/// # Errors
/// CKR_TEMPLATE_INCONSISTENT, CKR_ATTRIBUTE_VALUE_INVALID.
pub fn check_for_service(template: &Template) -> Result<()> {
    let why = "keys of the service never leave it";
    template.fixed_flag(CKA_SENSITIVE, true, why)?;
    template.fixed_flag(CKA_EXTRACTABLE, false, why)?;
    template.fixed_flag(CKA_MODIFIABLE, true, "every key of the service is")?;
    template.fixed_flag(CKA_ALWAYS_AUTHENTICATE, false, "no key asks for a login at each use")?;
    template.fixed_flag(CKA_WRAP_WITH_TRUSTED, false, "there are no trusted wrapping keys")?;
    template.fixed_flag(CKA_TRUSTED, false, "no user may declare a key trusted")?;
    template.without(&[CKA_ALLOWED_MECHANISMS, CKA_WRAP_TEMPLATE, CKA_UNWRAP_TEMPLATE])?;
    dates::bounds(template).map(drop)
}

/// Imports a private key and gives back the handle of its private key object.
///
/// # Errors
/// CKR_TEMPLATE_INCONSISTENT for what the service cannot keep or a name that exists;
/// docs/errors.md.
pub fn private_key(slot: &Slot, key: &PrivateKey, template: &Template) -> Result<CK_OBJECT_HANDLE> {
    check_for_service(template)?;
    let (jwk, private, public) = jwk(slot, key)?;
    let public = public.iter().map(|(_, operation)| (*operation).to_owned());
    let jwk =
        JsonWebKey { key_ops: Some(operations(template, private).chain(public).collect()), ..jwk };
    send(slot, jwk, template)
}

/// Imports a secret key of this type and gives back its handle.
///
/// # Errors
/// CKR_TEMPLATE_INCONSISTENT on a vault, for what the service cannot keep or a name that exists,
/// CKR_ATTRIBUTE_VALUE_INVALID for a key that is not of 16, 24 or 32 bytes; docs/errors.md.
pub fn secret_key(
    slot: &Slot,
    key_type: CK_KEY_TYPE,
    bytes: &[u8],
    template: &Template,
) -> Result<CK_OBJECT_HANDLE> {
    check_for_service(template)?;
    check_secret(slot, key_type, template)?;
    if !matches!(bytes.len(), 16 | 24 | 32) {
        return Err(Error::new(
            CKR_ATTRIBUTE_VALUE_INVALID,
            format!("a secret key of {} bytes: the service keeps 16, 24 or 32", bytes.len()),
        ));
    }
    let key = SecretKey::new(Zeroizing::new(bytes.to_vec()));
    session_secret::check_value(key_type, &key, template)?;
    let jwk = JsonWebKey { k: Some(Base64Url::new(bytes)), ..JsonWebKey::default() };
    send_secret(slot, jwk, key_type, bytes.len(), template)
}

/// Refuses a secret key that this service does not keep.
///
/// # Errors
/// CKR_TEMPLATE_INCONSISTENT.
pub fn check_secret(slot: &Slot, key_type: CK_KEY_TYPE, template: &Template) -> Result<()> {
    let keeps = |row: &Mechanism| {
        row.key_type() == Some(key_type)
            && row.uses_with(Home::Service, &slot.token) & CKF_GENERATE != 0
    };
    if !MECHANISMS.iter().any(keeps) {
        return Err(inconsistent(format!(
            "token '{}' keeps no secret keys of type {key_type:#x}: AES is for a Managed HSM, \
             generic secrets for one with `hmac = true`",
            slot.token.label
        )));
    }
    check_usages(key_type, template)
}

/// Sends an import request for a secret key of `length` bytes, or its transfer blob.
///
/// # Errors
/// As [`secret_key`].
pub fn send_secret(
    slot: &Slot,
    jwk: JsonWebKey,
    key_type: CK_KEY_TYPE,
    length: usize,
    template: &Template,
) -> Result<CK_OBJECT_HANDLE> {
    let jwk = JsonWebKey {
        kty: Some("oct-HSM".to_owned()),
        key_ops: Some(secret_operations(key_type, template)),
        ..jwk
    };
    let making = Making::new(slot, label(template)?.as_deref(), id(template))?;
    send_as(making.sized(8 * length as u32), jwk, true, template)
}

/// Sends an import request for a key pair, which may also be a transfer blob.
///
/// # Errors
/// As [`private_key`].
pub fn send(slot: &Slot, jwk: JsonWebKey, template: &Template) -> Result<CK_OBJECT_HANDLE> {
    let making = Making::new(slot, label(template)?.as_deref(), id(template))?;
    send_as(making, jwk, slot.token.hsm_protection, template)
}

fn send_as(
    making: Making<'_>,
    jwk: JsonWebKey,
    hsm: bool,
    template: &Template,
) -> Result<CK_OBJECT_HANDLE> {
    let name = making.name().to_owned();
    let parameters = KeyImportParameters {
        hsm: hsm.then_some(true),
        key: jwk,
        attributes: dates::attributes(&[template])?,
        tags: Some(making.tags()?),
        release_policy: None,
    };
    let handles = making.send(|vault, name| vault.import_key(name, &parameters))?;
    handles.first().copied().ok_or_else(|| {
        Error::new(CKR_DEVICE_ERROR, format!("the service imported '{name}', but sent no key"))
    })
}

/// The template of a copy onto the token: what the object has, but for what is given anew.
///
/// # Errors
/// As [`Template::new`].
pub fn template_of_copy(object: &Object, given: &Template) -> Result<Template> {
    const KEPT: &[CK_ATTRIBUTE_TYPE] = &[
        CKA_LABEL,
        CKA_ID,
        CKA_SIGN,
        CKA_VERIFY,
        CKA_ENCRYPT,
        CKA_DECRYPT,
        CKA_WRAP,
        CKA_UNWRAP,
        CKA_START_DATE,
        CKA_END_DATE,
        // What the service cannot keep is refused rather than forgotten.
        CKA_WRAP_TEMPLATE,
        CKA_UNWRAP_TEMPLATE,
    ];
    let kept = KEPT
        .iter()
        .filter(|kind| given.bytes(**kind).is_none())
        .filter_map(|kind| Some((*kind, object.attributes.bytes(*kind)?)));
    let merged: Vec<_> = given.iter().chain(kept).collect();
    Template::new(object.class(), &merged)
}

/// The label of a key to be made; SunPKCS11 gives the alias as CKA_ID alone.
fn label(template: &Template) -> Result<Option<String>> {
    let label = template.text(CKA_LABEL)?.filter(|label| !label.is_empty());
    let alias = || {
        let id = std::str::from_utf8(id(template)?).ok()?;
        let printable = id.chars().all(|c| !c.is_control()) && !id.trim().is_empty();
        printable.then(|| id.to_owned())
    };
    Ok(label.map(str::to_owned).or_else(alias))
}

fn id(template: &Template) -> Option<&[u8]> {
    template.bytes(CKA_ID).filter(|id| !id.is_empty())
}

/// A private key as the service imports it, without key_ops; what its private and its public half
/// can be used for.
///
/// # Errors
/// CKR_KEY_SIZE_RANGE for an RSA key of a size the service does not keep.
pub fn jwk(slot: &Slot, key: &PrivateKey) -> Result<(JsonWebKey, Usages, Usages)> {
    let kty = |plain: &str| match slot.token.hsm_protection {
        true => Some(format!("{plain}-HSM")),
        false => Some(plain.to_owned()),
    };
    let text = |bytes: &[u8]| Some(Base64Url::new(bytes));
    let public = key.public();
    let Some((curve, (x, y))) = public.curve().zip(public.coordinates()) else {
        let parts = key.rsa_components()?;
        let bits = public.size_bits();
        if !(2048..=4096).contains(&bits) {
            return Err(Error::new(
                CKR_KEY_SIZE_RANGE,
                format!("an RSA key of {bits} bits: the service keeps 2048, 3072 and 4096"),
            ));
        }
        let jwk = JsonWebKey {
            kty: kty("RSA"),
            n: text(&parts.n),
            e: text(&parts.e),
            d: text(&parts.d),
            p: text(&parts.p),
            q: text(&parts.q),
            dp: text(&parts.dp),
            dq: text(&parts.dq),
            qi: text(&parts.qi),
            ..JsonWebKey::default()
        };
        return Ok((jwk, PRIVATE_RSA, PUBLIC_RSA));
    };
    let jwk = JsonWebKey {
        kty: kty("EC"),
        crv: Some(curve.name().to_owned()),
        x: text(x),
        y: text(y),
        d: text(&key.ec_secret()?),
        ..JsonWebKey::default()
    };
    Ok((jwk, PRIVATE_EC, PUBLIC_EC))
}

/// The token's public key object for a public key that a client writes beside the private one:
/// the service keeps them together, so it is there already.
///
/// # Errors
/// CKR_TEMPLATE_INCONSISTENT where no key of the token has it.
pub fn beside_private(slot: &Slot, object: &Object) -> Result<CK_OBJECT_HANDLE> {
    let info = object.attributes.bytes(CKA_PUBLIC_KEY_INFO).unwrap_or_default();
    let wanted = vec![
        (CKA_CLASS, CKO_PUBLIC_KEY.to_ne_bytes().to_vec()),
        (CKA_TOKEN, vec![CK_TRUE]),
        (CKA_PUBLIC_KEY_INFO, info.to_vec()),
    ];
    // Its label says which key to ask for; only if that is another's are all keys looked at.
    let label = object.attributes.bytes(CKA_LABEL).filter(|label| !label.is_empty());
    let labelled = label.map(|label| (CKA_LABEL, label.to_vec()));
    let searches = [wanted.iter().cloned().chain(labelled).collect(), wanted];
    for wanted in searches {
        if let Some(handle) = find::find(slot, &wanted)?.next(1).first() {
            return Ok(*handle);
        }
    }
    Err(inconsistent(
        "a public key alone: the service keeps it with its private key, which must come first",
    ))
}
