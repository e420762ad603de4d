//! C_UnwrapKey and C_UnwrapKeyAuthenticated. What a key of this process or of the service unwraps
//! becomes a session key. Only a key transfer unwraps onto the token: everything else would pass
//! through this process in clear.

mod rsa;

use std::sync::Arc;

use akv_wire::EncryptionAlgorithm;
use cryptoki_sys::*;
use zeroize::Zeroizing;

use self::rsa::Rsa;
use super::{
    gcm::{Cargo, GcmKey},
    key::{self, UNWRAP},
    transfer::{self, Arrival},
    wrap::{service_algorithm, takes_private_keys},
};
use crate::{
    abi::arg::{GcmMessageParameter, Parameter},
    crypto::{
        PrivateKey,
        symmetric::{self, BLOCK, Cipher, Direction, KeyWrap, Mode, SecretKey},
    },
    error::{Error, Result},
    mechanism::{
        AesMode, MAX_SECRET, Mechanism, Scheme,
        parameter::{self, Oaep, RsaAesWrap, tag_len},
    },
    object::{
        Material, Object, VaultKey, session_key, session_secret,
        template::{Template, inconsistent},
    },
    slot::Slot,
    vault::{self},
};

/// A key about to be unwrapped: refused by [`Unwrapping::new`] or it can be, if it is one.
#[derive(Debug)]
pub struct Unwrapping {
    under: Under,
    class: CK_OBJECT_CLASS,
    template: Template,
}

/// With what a key is unwrapped.
#[derive(Debug)]
enum Under {
    Pkcs1(Rsa),
    Oaep(Rsa, Oaep),
    RsaAes(Rsa, RsaAesWrap),
    KeyWrap(SecretKey, KeyWrap),
    Cipher(SecretKey, Mode),
    Service(Arc<VaultKey>, EncryptionAlgorithm),
    Gcm(GcmKey, Opening),
    Transfer(Arc<VaultKey>, Arrival),
}

/// What GCM needs besides its key. Without a tag of its own it is the end of the wrapped key.
#[derive(Debug)]
struct Opening {
    iv: Vec<u8>,
    aad: Vec<u8>,
    tag_len: usize,
    tag: Option<Vec<u8>>,
}

impl Unwrapping {
    /// Checks mechanism, parameter, key and template; nothing is asked of the service.
    ///
    /// # Errors
    /// As [`key::check`], in the words for an unwrapping key; CKR_MECHANISM_PARAM_INVALID;
    /// CKR_TEMPLATE_INCOMPLETE, CKR_TEMPLATE_INCONSISTENT, CKR_ATTRIBUTE_VALUE_INVALID.
    pub fn new(
        slot: &Slot,
        kind: CK_MECHANISM_TYPE,
        parameter: &Parameter<'_>,
        unwrapping: &Arc<Object>,
        class: CK_OBJECT_CLASS,
        template: Template,
    ) -> Result<Unwrapping> {
        let mechanism = key::check(slot, kind, unwrapping, UNWRAP).map_err(for_unwrapping_key)?;
        let under = match (mechanism.scheme, template.on_token()) {
            (Scheme::RsaAesWrap, true) => {
                let Material::Vault(key) = &unwrapping.material else {
                    return Err(in_clear());
                };
                let with = RsaAesWrap::parse(parameter)?;
                let arrival = Arrival::new(slot, &with, class, &template)?;
                Under::Transfer(Arc::clone(key), arrival)
            }
            _ => Under::new(slot, mechanism, parameter, unwrapping).map_err(for_unwrapping_key)?,
        };
        if !matches!(under, Under::Transfer(..)) {
            check_template(mechanism, class, &template)?;
        }
        Ok(Unwrapping { under, class, template })
    }

    /// The same for C_UnwrapKeyAuthenticated: the tag is in the parameter.
    ///
    /// # Errors
    /// As [`Unwrapping::new`].
    pub fn authenticated(
        slot: &Slot,
        kind: CK_MECHANISM_TYPE,
        parameter: &GcmMessageParameter<'_>,
        aad: &[u8],
        unwrapping: &Arc<Object>,
        class: CK_OBJECT_CLASS,
        template: Template,
    ) -> Result<Unwrapping> {
        let mechanism = key::check(slot, kind, unwrapping, UNWRAP).map_err(for_unwrapping_key)?;
        let key = GcmKey::new(slot, mechanism, unwrapping, Cargo::Key);
        let key = key.map_err(for_unwrapping_key)?;
        let tag_len = tag_len(parameter.tag_bits)?;
        key.check(Direction::Decrypt, &parameter.iv, tag_len)?;
        let opening = Opening {
            iv: parameter.iv.given.bytes()?.to_vec(),
            aad: aad.to_vec(),
            tag_len,
            tag: Some(parameter.tag.bytes()?.to_vec()),
        };
        check_template(mechanism, class, &template)?;
        Ok(Unwrapping { under: Under::Gcm(key, opening), class, template })
    }

    /// Unwraps and gives back the handle of the new key.
    ///
    /// # Errors
    /// CKR_WRAPPED_KEY_LEN_RANGE; CKR_WRAPPED_KEY_INVALID without saying why;
    /// CKR_TEMPLATE_INCOMPLETE for AES-CBC without CKA_VALUE_LEN; docs/errors.md.
    pub fn run(
        self,
        slot: &Slot,
        wrapped: &[u8],
        session: CK_SESSION_HANDLE,
    ) -> Result<CK_OBJECT_HANDLE> {
        let Unwrapping { under, class, template } = &self;
        if let Under::Transfer(kek, arrival) = under {
            return transfer::transfer(slot, kek, arrival, wrapped, template);
        }
        let plain = under.open(slot, wrapped, template).map_err(for_wrapped_key)?;
        let object = match *class {
            CKO_PRIVATE_KEY => {
                let key = PrivateKey::from_pkcs8(&plain).map_err(|_| invalid())?;
                session_key::unwrapped(&key, template, session, slot)?
            }
            _ => {
                session_secret::check_unwrapped(template, plain.len())?;
                session_secret::unwrapped(plain, template, session, slot)?
            }
        };
        Ok(slot.store.add(object))
    }
}

/// What a template for a key unwrapped into the session must have.
fn check_template(
    mechanism: &Mechanism,
    class: CK_OBJECT_CLASS,
    template: &Template,
) -> Result<()> {
    if template.on_token() {
        return Err(in_clear());
    }
    template.without(&[CKA_VALUE])?;
    match class {
        CKO_SECRET_KEY => session_secret::check_type(template),
        CKO_PRIVATE_KEY if takes_private_keys(mechanism.scheme) => Ok(()),
        _ => Err(inconsistent(format!(
            "{} does not unwrap an object of class {class:#x}",
            mechanism.name
        ))),
    }
}

impl Under {
    fn new(
        slot: &Slot,
        mechanism: &Mechanism,
        parameter: &Parameter<'_>,
        unwrapping: &Object,
    ) -> Result<Under> {
        parameter::none(mechanism, parameter)?;
        let rsa = || match &unwrapping.material {
            Material::Private(key) => Ok(Rsa::Here(key.clone())),
            Material::Vault(key) => Ok(Rsa::Vault(Arc::clone(key))),
            _ => Err(super::sign::wrong_key(mechanism, unwrapping)),
        };
        let oaep = |rsa: Rsa, oaep: Oaep| match rsa {
            Rsa::Here(_) => Ok((rsa, oaep)),
            Rsa::Vault(_) => oaep.for_service().map(|oaep| (rsa, oaep)),
        };
        Ok(match (mechanism.scheme, &unwrapping.material) {
            (Scheme::Pkcs1(None), _) => Under::Pkcs1(rsa()?),
            (Scheme::Oaep, _) => {
                let (rsa, oaep) = oaep(rsa()?, Oaep::parse(parameter)?)?;
                Under::Oaep(rsa, oaep)
            }
            (Scheme::RsaAesWrap, _) => {
                let with = RsaAesWrap::parse(parameter)?;
                let (rsa, oaep) = oaep(rsa()?, with.oaep)?;
                Under::RsaAes(rsa, RsaAesWrap { oaep, ..with })
            }
            (Scheme::AesWrap(method), Material::Secret(key)) => Under::KeyWrap(key.clone(), method),
            (Scheme::AesWrap(method), Material::Vault(key)) => {
                Under::Service(Arc::clone(key), service_algorithm(slot, key, method)?)
            }
            (Scheme::Aes(AesMode::Gcm), _) => {
                let key = GcmKey::new(slot, mechanism, unwrapping, Cargo::Key)?;
                Under::Gcm(key, Opening::parse(parameter)?).checked()?
            }
            (Scheme::Aes(mode), Material::Secret(key)) => {
                let mode = parameter::aes(mode, parameter)?;
                Under::Cipher(key.clone(), mode)
            }
            _ => return Err(super::sign::wrong_key(mechanism, unwrapping)),
        })
    }

    /// Refuses IVs and tags that the key cannot use.
    fn checked(self) -> Result<Under> {
        if let Under::Gcm(key, Opening { iv, tag_len, .. }) = &self {
            key.check_lengths(iv.len(), *tag_len)?;
        }
        Ok(self)
    }

    /// The bytes that were wrapped.
    fn open(&self, slot: &Slot, wrapped: &[u8], template: &Template) -> Result<Zeroizing<Vec<u8>>> {
        match self {
            Under::Pkcs1(rsa) => rsa.unwrap_pkcs1(slot, wrapped, template),
            Under::Oaep(rsa, oaep) => {
                if wrapped.len() != rsa.modulus() {
                    return Err(length(wrapped));
                }
                rsa.unwrap_oaep(slot, oaep, wrapped)
            }
            Under::RsaAes(rsa, with) => {
                let parts = wrapped.split_at_checked(rsa.modulus());
                let (encrypted, rest) = parts.ok_or_else(|| length(wrapped))?;
                let aes = rsa.unwrap_oaep(slot, &with.oaep, encrypted)?;
                if aes.len() != with.aes {
                    return Err(invalid());
                }
                symmetric::unwrap(KeyWrap::Rfc5649, &aes, rest)
            }
            Under::KeyWrap(key, method) => symmetric::unwrap(*method, key.bytes(), wrapped),
            Under::Cipher(key, mode) => {
                let plain = Cipher::once(Direction::Decrypt, mode.clone(), key.bytes(), wrapped)?;
                match mode {
                    Mode::Cbc { .. } => without_filling(plain, template),
                    _ => Ok(plain),
                }
            }
            Under::Service(key, algorithm) => {
                let within = (BLOCK..=slot.token.max_aes_payload).contains(&wrapped.len());
                if !within || !wrapped.len().is_multiple_of(8) {
                    return Err(length(wrapped));
                }
                let input = vault::Cipher { value: wrapped, ..vault::Cipher::default() };
                let key = key.reference();
                slot.note(slot.vault.unwrap_key(key, *algorithm, &input))
            }
            Under::Gcm(key, opening) => {
                let (ciphertext, tag) = match &opening.tag {
                    Some(tag) => (wrapped, tag.as_slice()),
                    None => {
                        let whole = wrapped.len().checked_sub(opening.tag_len);
                        wrapped.split_at(whole.ok_or_else(|| length(wrapped))?)
                    }
                };
                if ciphertext.is_empty() || ciphertext.len() > key.most() {
                    return Err(length(wrapped));
                }
                key.open(slot, &opening.iv, &opening.aad, ciphertext, tag)
            }
            Under::Transfer(..) => Err(Error::new(CKR_GENERAL_ERROR, "a key transfer in clear")),
        }
    }
}

impl Opening {
    /// CK_GCM_PARAMS, or CK_GCM_WRAP_PARAMS as C_WrapKey filled it.
    fn parse(parameter: &Parameter<'_>) -> Result<Opening> {
        let (iv, aad, tag_bits) = match parameter.is_gcm_wrap() {
            true => {
                let given = parameter.gcm_wrap()?;
                (given.iv.given.bytes()?, given.aad, given.tag_bits)
            }
            false => {
                let given = parameter.gcm()?;
                (given.iv, given.aad, given.tag_bits)
            }
        };
        Ok(Opening { iv: iv.to_vec(), aad: aad.to_vec(), tag_len: tag_len(tag_bits)?, tag: None })
    }
}

/// The key in whole blocks that were filled up with zeros (PKCS#11 3.2, clause 6.10.4): only
/// CKA_VALUE_LEN tells where it ends, unless no other end is possible.
fn without_filling(
    mut plain: Zeroizing<Vec<u8>>,
    template: &Template,
) -> Result<Zeroizing<Vec<u8>>> {
    let most = plain.len();
    let possible: Vec<usize> = session_secret::possible_lengths(template, MAX_SECRET)?
        .into_iter()
        .filter(|length| length.next_multiple_of(BLOCK) == most)
        .collect();
    match possible[..] {
        [length] => {
            plain.truncate(length);
            Ok(plain)
        }
        [] => Err(Error::new(
            CKR_WRAPPED_KEY_LEN_RANGE,
            format!("{most} bytes of whole blocks are no such key"),
        )),
        _ => Err(Error::new(
            CKR_TEMPLATE_INCOMPLETE,
            "CKA_VALUE_LEN is missing: AES-CBC does not keep the length of a key",
        )),
    }
}

fn invalid() -> Error {
    Error::new(CKR_WRAPPED_KEY_INVALID, "the wrapped key cannot be unwrapped")
}

fn length(wrapped: &[u8]) -> Error {
    let sentence = format!("{} bytes are no wrapped key", wrapped.len());
    Error::new(CKR_WRAPPED_KEY_LEN_RANGE, sentence)
}

fn in_clear() -> Error {
    inconsistent(
        "onto the token only CKM_RSA_AES_KEY_WRAP with a key of the service unwraps: anything \
         else would pass in clear",
    )
}

/// Complaints about a ciphertext, as they are worded for a wrapped key; of whatever is wrong
/// inside no more than that something is.
fn for_wrapped_key(error: Error) -> Error {
    match error.rv() {
        CKR_ENCRYPTED_DATA_LEN_RANGE => {
            Error::new(CKR_WRAPPED_KEY_LEN_RANGE, error.sentence().to_owned())
        }
        CKR_ENCRYPTED_DATA_INVALID => invalid(),
        _ => error,
    }
}

/// Complaints about the key of an operation, as they are worded for an unwrapping key.
fn for_unwrapping_key(error: Error) -> Error {
    let rv = match error.rv() {
        CKR_KEY_TYPE_INCONSISTENT => CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT,
        CKR_KEY_SIZE_RANGE => CKR_UNWRAPPING_KEY_SIZE_RANGE,
        _ => return error,
    };
    Error::new(rv, error.sentence().to_owned())
}
