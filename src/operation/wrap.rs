//! C_WrapKey and C_UnwrapKey. A key that lives here is wrapped here; what the service unwraps
//! becomes a session key. Only a key transfer (BYOK) unwraps onto the token: everything else would
//! pass through this process in clear.

use std::sync::Arc;

use akv_wire::{Base64Url, EncryptionAlgorithm, JsonWebKey};
use cryptoki_sys::*;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{
    import,
    key::{self, UNWRAP, WRAP},
    making::{PRIVATE_EC, PRIVATE_RSA, operations},
};
use crate::{
    abi::arg::Parameter,
    crypto::{
        self, Curve, Hash, PrivateKey, PublicKey,
        symmetric::{self, KeyWrap},
    },
    error::{Error, Result},
    mechanism::{
        Scheme,
        parameter::{Oaep, RsaAesWrap},
    },
    object::{
        Material, Object, VaultKey, session_key,
        template::{Template, inconsistent},
    },
    slot::Slot,
    vault::{Cipher, KeyRef},
};

/// A key about to be wrapped.
#[derive(Debug)]
pub struct Wrapping {
    key: PublicKey,
    with: RsaAesWrap,
    plain: Plain,
    size: usize,
}

/// Key bytes that are not printed.
struct Plain(Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Wrapping {
    /// Checks mechanism, parameter and both keys.
    ///
    /// # Errors
    /// CKR_KEY_UNEXTRACTABLE for a key of the service or one that says so,
    /// CKR_WRAPPING_KEY_TYPE_INCONSISTENT, CKR_KEY_NOT_WRAPPABLE; as [`key::check`].
    pub fn new(
        slot: &Slot,
        kind: CK_MECHANISM_TYPE,
        parameter: &Parameter<'_>,
        wrapping: &Arc<Object>,
        object: &Object,
    ) -> Result<Wrapping> {
        let mechanism = key::check(slot, kind, wrapping, WRAP).map_err(for_wrapping_key)?;
        let Material::Public(key) = &wrapping.material else {
            return Err(Error::new(
                CKR_WRAPPING_KEY_TYPE_INCONSISTENT,
                format!("'{}' is no public key", wrapping.label()),
            ));
        };
        let with = RsaAesWrap::parse(parameter)?;
        if !object.attributes.is(CKA_EXTRACTABLE) {
            return Err(Error::new(
                CKR_KEY_UNEXTRACTABLE,
                format!("key '{}' never leaves where it is", object.label()),
            ));
        }
        let plain = match &object.material {
            Material::Private(key) => key.pkcs8_der()?,
            Material::Vault(_) | Material::Secret(_) | Material::Public(_) | Material::None => {
                return Err(Error::new(
                    CKR_KEY_NOT_WRAPPABLE,
                    format!("{} does not wrap '{}'", mechanism.name, object.label()),
                ));
            }
        };
        let modulus = key.modulus_len().unwrap_or_default();
        let size = symmetric::wrapped_len(KeyWrap::Rfc5649, plain.len())
            .map(|wrapped| modulus + wrapped)
            .ok_or_else(|| Error::new(CKR_KEY_SIZE_RANGE, "a key too long to be wrapped"))?;
        Ok(Wrapping { key: key.clone(), with, plain: Plain(plain), size })
    }

    /// Bytes of the wrapped key.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Wraps: RSAES-OAEP of a fresh AES key, then the key under that (PKCS#11 3.2, 6.1.28).
    ///
    /// # Errors
    /// CKR_RANDOM_NO_RNG, CKR_KEY_SIZE_RANGE for an RSA key too small for the hash.
    pub fn finish(self) -> Result<Zeroizing<Vec<u8>>> {
        let mut aes = Zeroizing::new(vec![0; self.with.aes]);
        crypto::random(&mut aes)?;
        let Oaep { hash, mgf, label } = &self.with.oaep;
        let mut wrapped = self.key.encrypt_oaep(*hash, *mgf, label, &aes)?;
        wrapped.extend(symmetric::wrap(KeyWrap::Rfc5649, &aes, &self.plain.0)?);
        Ok(wrapped.into())
    }
}

/// Complaints about the key of an operation, as they are worded for a wrapping key.
fn for_wrapping_key(error: Error) -> Error {
    match error.rv() {
        CKR_KEY_TYPE_INCONSISTENT => {
            Error::new(CKR_WRAPPING_KEY_TYPE_INCONSISTENT, error.sentence().to_owned())
        }
        _ => error,
    }
}

fn for_unwrapping_key(error: Error) -> Error {
    match error.rv() {
        CKR_KEY_TYPE_INCONSISTENT => {
            Error::new(CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT, error.sentence().to_owned())
        }
        _ => error,
    }
}

/// A key about to be unwrapped.
#[derive(Debug)]
pub struct Unwrapping {
    with: RsaAesWrap,
    under: Under,
    class: CK_OBJECT_CLASS,
    template: Template,
}

#[derive(Debug)]
enum Under {
    Vault(Arc<VaultKey>),
    Here(PrivateKey),
}

impl Unwrapping {
    /// Checks mechanism, parameter, key and template.
    ///
    /// # Errors
    /// CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT, CKR_TEMPLATE_INCONSISTENT,
    /// CKR_MECHANISM_PARAM_INVALID; as [`key::check`].
    pub fn new(
        slot: &Slot,
        kind: CK_MECHANISM_TYPE,
        parameter: &Parameter<'_>,
        unwrapping: &Arc<Object>,
        class: CK_OBJECT_CLASS,
        template: Template,
    ) -> Result<Unwrapping> {
        let mechanism = key::check(slot, kind, unwrapping, UNWRAP).map_err(for_unwrapping_key)?;
        if mechanism.scheme != Scheme::RsaAesWrap || class != CKO_PRIVATE_KEY {
            return Err(inconsistent(format!(
                "{} does not unwrap an object of class {class:#x}",
                mechanism.name
            )));
        }
        let with = RsaAesWrap::parse(parameter)?;
        let under = match &unwrapping.material {
            Material::Vault(key) => Under::Vault(Arc::clone(key)),
            Material::Private(key) => Under::Here(key.clone()),
            Material::Secret(_) | Material::Public(_) | Material::None => {
                let sentence = format!("'{}' cannot unwrap", unwrapping.label());
                return Err(Error::new(CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT, sentence));
            }
        };
        match (template.on_token(), &under) {
            (true, Under::Vault(_)) => {
                with.for_transfer()?;
                import::check_for_service(&template)?;
                transfer_type(&template)?;
            }
            (true, Under::Here(_)) => {
                return Err(inconsistent(
                    "onto the token only a key of the service unwraps: the key would pass in clear",
                ));
            }
            (false, Under::Vault(_)) => drop(with.oaep.clone().for_service()?),
            (false, Under::Here(_)) => {}
        }
        Ok(Unwrapping { with, under, class, template })
    }

    /// Unwraps and gives back the handle of the new key.
    ///
    /// # Errors
    /// CKR_WRAPPED_KEY_LEN_RANGE, CKR_WRAPPED_KEY_INVALID without saying why; docs/errors.md.
    pub fn run(
        self,
        slot: &Slot,
        wrapped: &[u8],
        session: CK_SESSION_HANDLE,
    ) -> Result<CK_OBJECT_HANDLE> {
        debug_assert_eq!(self.class, CKO_PRIVATE_KEY);
        if let (Under::Vault(kek), true) = (&self.under, self.template.on_token()) {
            return transfer(slot, kek, wrapped, &self.template);
        }
        let aes = self.aes_key(slot, wrapped)?;
        let (_, rest) = wrapped.split_at(self.modulus());
        let plain = symmetric::unwrap(KeyWrap::Rfc5649, &aes, rest).map_err(|_| invalid())?;
        let key = PrivateKey::from_pkcs8(&plain).map_err(|_| invalid())?;
        Ok(slot.store.add(session_key::unwrapped(&key, &self.template, session, slot)?))
    }

    fn modulus(&self) -> usize {
        let public = match &self.under {
            Under::Vault(key) => key.public().cloned(),
            Under::Here(key) => Some(key.public()),
        };
        public.and_then(|public| public.modulus_len()).unwrap_or_default()
    }

    fn aes_key(&self, slot: &Slot, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let Some((encrypted, _)) = wrapped.split_at_checked(self.modulus()) else {
            return Err(Error::new(
                CKR_WRAPPED_KEY_LEN_RANGE,
                format!("{} bytes are no wrapped key", wrapped.len()),
            ));
        };
        let Oaep { hash, mgf, label } = &self.with.oaep;
        let aes = match &self.under {
            Under::Here(key) => {
                key.decrypt_oaep(*hash, *mgf, label, encrypted).map_err(|_| invalid())?
            }
            Under::Vault(key) => {
                let algorithm = match hash {
                    Hash::Sha1 => EncryptionAlgorithm::RsaOaep,
                    _ => EncryptionAlgorithm::RsaOaep256,
                };
                let input = Cipher { value: encrypted, ..Cipher::default() };
                let key = KeyRef::version(&key.name, &key.version);
                slot.note(slot.vault.unwrap_key(key, algorithm, &input))?
            }
        };
        if aes.len() == self.with.aes { Ok(aes) } else { Err(invalid()) }
    }
}

fn invalid() -> Error {
    Error::new(CKR_WRAPPED_KEY_INVALID, "the wrapped key cannot be unwrapped")
}

/// The JSON of a key transfer blob (BYOK specification).
#[derive(Serialize)]
struct TransferBlob<'a> {
    schema_version: &'static str,
    header: TransferHeader<'a>,
    ciphertext: Base64Url,
    generator: &'static str,
}

#[derive(Serialize)]
struct TransferHeader<'a> {
    kid: &'a str,
    alg: &'static str,
    enc: &'static str,
}

/// Hands a wrapped key to the service, which unwraps it in its HSM: the key never is in clear
/// here.
fn transfer(
    slot: &Slot,
    kek: &VaultKey,
    wrapped: &[u8],
    template: &Template,
) -> Result<CK_OBJECT_HANDLE> {
    let blob = TransferBlob {
        schema_version: "1.0.0",
        header: TransferHeader { kid: &kek.id, alg: "dir", enc: "CKM_RSA_AES_KEY_WRAP" },
        ciphertext: Base64Url::new(wrapped),
        generator: concat!("akv-pkcs11/", env!("CARGO_PKG_VERSION")),
    };
    let blob = serde_json::to_vec(&blob)
        .map_err(|error| Error::new(CKR_GENERAL_ERROR, format!("transfer blob: {error}")))?;
    let (kty, curve) = transfer_type(template)?;
    let usages = if curve.is_some() { PRIVATE_EC } else { PRIVATE_RSA };
    let jwk = JsonWebKey {
        kty: Some(kty.to_owned()),
        crv: curve.map(|curve| curve.name().to_owned()),
        key_ops: Some(operations(template, usages).collect()),
        key_hsm: Some(Base64Url::new(blob)),
        ..JsonWebKey::default()
    };
    import::send(slot, jwk, template)
}

fn transfer_type(template: &Template) -> Result<(&'static str, Option<Curve>)> {
    template.required(CKA_KEY_TYPE)?;
    match template.ulong(CKA_KEY_TYPE) {
        Some(CKK_RSA) => Ok(("RSA-HSM", None)),
        Some(CKK_EC) => {
            let curve = Curve::from_params(template.required(CKA_EC_PARAMS)?)?;
            Ok(("EC-HSM", Some(curve)))
        }
        other => Err(inconsistent(format!("CKA_KEY_TYPE {other:?} is not for a private key"))),
    }
}
