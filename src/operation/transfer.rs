//! Key transfer (BYOK): what C_UnwrapKey does with CKM_RSA_AES_KEY_WRAP, CKA_TOKEN true and an
//! import-only key of the service. The service unwraps in its HSM: the key never is in clear here.

use akv_wire::{Base64Url, JsonWebKey};
use cryptoki_sys::*;
use serde::Serialize;

use super::{
    import,
    making::{PRIVATE_EC, PRIVATE_RSA, operations},
};
use crate::{
    crypto::{
        Curve,
        symmetric::{KeyWrap, wrapped_len},
    },
    error::{Error, Result},
    mechanism::parameter::RsaAesWrap,
    object::{
        VaultKey,
        template::{Template, inconsistent},
    },
    slot::Slot,
};

/// The key that is to come, as far as its template tells: checked before anything is sent.
#[derive(Debug)]
pub enum Arrival {
    /// RSA.
    Rsa,
    /// On this curve.
    Ec(Curve),
    /// AES or a generic secret.
    Secret(CK_KEY_TYPE),
}

impl Arrival {
    /// Checks parameter and template.
    ///
    /// # Errors
    /// CKR_MECHANISM_PARAM_INVALID for a parameter that the specification of key transfers does
    /// not have; CKR_TEMPLATE_INCOMPLETE, CKR_TEMPLATE_INCONSISTENT, CKR_CURVE_NOT_SUPPORTED.
    pub fn new(
        slot: &Slot,
        with: &RsaAesWrap,
        class: CK_OBJECT_CLASS,
        template: &Template,
    ) -> Result<Arrival> {
        with.for_transfer()?;
        import::check_for_service(template)?;
        template.required(CKA_KEY_TYPE)?;
        match (class, template.ulong(CKA_KEY_TYPE)) {
            (CKO_PRIVATE_KEY, Some(CKK_RSA)) => Ok(Arrival::Rsa),
            (CKO_PRIVATE_KEY, Some(CKK_EC)) => {
                Curve::from_params(template.required(CKA_EC_PARAMS)?).map(Arrival::Ec)
            }
            (CKO_SECRET_KEY, Some(kind @ (CKK_AES | CKK_GENERIC_SECRET))) => {
                import::check_secret(slot, kind, template)?;
                Ok(Arrival::Secret(kind))
            }
            (_, kind) => Err(inconsistent(format!(
                "CKA_KEY_TYPE {kind:?} is not for an object of class {class:#x}"
            ))),
        }
    }
}

/// The JSON of a key transfer blob (BYOK specification).
#[derive(Serialize)]
struct Blob<'a> {
    schema_version: &'static str,
    header: Header<'a>,
    ciphertext: Base64Url,
    generator: &'static str,
}

#[derive(Serialize)]
struct Header<'a> {
    kid: &'a str,
    alg: &'static str,
    enc: &'static str,
}

/// Hands a wrapped key to the service and gives back the handle of the new key.
///
/// # Errors
/// CKR_WRAPPED_KEY_LEN_RANGE; docs/errors.md.
pub fn transfer(
    slot: &Slot,
    kek: &VaultKey,
    arrival: &Arrival,
    wrapped: &[u8],
    template: &Template,
) -> Result<CK_OBJECT_HANDLE> {
    let modulus = kek.public().and_then(|public| public.modulus_len()).unwrap_or_default();
    let blob = Blob {
        schema_version: "1.0.0",
        header: Header { kid: &kek.id, alg: "dir", enc: "CKM_RSA_AES_KEY_WRAP" },
        ciphertext: Base64Url::new(wrapped),
        generator: concat!("akv-pkcs11/", env!("CARGO_PKG_VERSION")),
    };
    let blob = serde_json::to_vec(&blob)
        .map_err(|error| Error::new(CKR_GENERAL_ERROR, format!("transfer blob: {error}")))?;
    let jwk = JsonWebKey { key_hsm: Some(Base64Url::new(blob)), ..JsonWebKey::default() };
    let pair = |kty: &str, curve: Option<Curve>, usages| JsonWebKey {
        kty: Some(kty.to_owned()),
        crv: curve.map(|curve| curve.name().to_owned()),
        key_ops: Some(operations(template, usages).collect()),
        ..jwk.clone()
    };
    match arrival {
        Arrival::Rsa => import::send(slot, pair("RSA-HSM", None, PRIVATE_RSA), template),
        Arrival::Ec(curve) => {
            import::send(slot, pair("EC-HSM", Some(*curve), PRIVATE_EC), template)
        }
        Arrival::Secret(kind) => {
            let length = secret_len(wrapped.len().saturating_sub(modulus)).ok_or_else(|| {
                Error::new(
                    CKR_WRAPPED_KEY_LEN_RANGE,
                    format!("{} bytes are no wrapped AES key", wrapped.len()),
                )
            })?;
            if template.ulong(CKA_VALUE_LEN).is_some_and(|given| given != length as CK_ULONG) {
                let sentence = format!("CKA_VALUE_LEN is not {length}, that of the wrapped key");
                return Err(Error::new(CKR_WRAPPED_KEY_LEN_RANGE, sentence));
            }
            import::send_secret(slot, jwk, *kind, length, template)
        }
    }
}

/// Bytes of the AES key in so many wrapped bytes.
fn secret_len(wrapped: usize) -> Option<usize> {
    [16, 24, 32].into_iter().find(|length| wrapped_len(KeyWrap::Rfc5649, *length) == Some(wrapped))
}
