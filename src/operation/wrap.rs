//! C_WrapKey and C_WrapKeyAuthenticated. A key that lives in this process is wrapped: here, or
//! under a secret key of the service there. What is at the service never leaves it.

use std::sync::Arc;

use akv_wire::{EncryptionAlgorithm, Feature, SymmetricMode};
use cryptoki_sys::*;
use zeroize::Zeroizing;

use super::{
    Answer, Room, Size, Stage, crypt,
    gcm::{Cargo, GcmKey},
    key::{self, WRAP},
};
use crate::{
    abi::arg::{GcmIv, GcmMessageParameter, GcmWrapParameter, Parameter},
    crypto::{
        self, PublicKey,
        symmetric::{self, BLOCK, Cipher, Direction, KeyWrap, Mode, SecretKey, wrapped_len},
    },
    error::{Error, Result},
    mechanism::{
        AesMode, Mechanism, Scheme,
        parameter::{self, Oaep, RsaAesWrap, tag_len},
    },
    object::{Material, Object, VaultKey, VaultKeyKind, nested},
    slot::Slot,
    vault::{self},
};

/// A key about to be wrapped: refused by [`Wrapping::new`] or it can be.
#[derive(Debug)]
pub struct Wrapping {
    under: Under,
    plain: Plain,
    size: usize,
}

/// With what a key is wrapped.
#[derive(Debug)]
enum Under {
    Pkcs1(PublicKey),
    Oaep(PublicKey, Oaep),
    RsaAes(PublicKey, RsaAesWrap),
    KeyWrap(SecretKey, KeyWrap),
    Cipher(SecretKey, Mode),
    Service(Arc<VaultKey>, EncryptionAlgorithm),
}

/// Key bytes that are not printed.
struct Plain(Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Wrapping {
    /// Checks mechanism, parameter and both keys; nothing is asked of the service.
    ///
    /// # Errors
    /// As [`key::check`], in the words for a wrapping key; CKR_MECHANISM_PARAM_INVALID;
    /// CKR_KEY_UNEXTRACTABLE for a key of the service or one that says so, CKR_KEY_NOT_WRAPPABLE,
    /// CKR_KEY_SIZE_RANGE.
    pub fn new(
        slot: &Slot,
        kind: CK_MECHANISM_TYPE,
        parameter: &Parameter<'_>,
        wrapping: &Arc<Object>,
        object: &Object,
    ) -> Result<Wrapping> {
        let mechanism = key::check(slot, kind, wrapping, WRAP).map_err(for_wrapping_key)?;
        let under = Under::new(slot, mechanism, parameter, wrapping).map_err(for_wrapping_key)?;
        let plain = plain(mechanism, wrapping, object)?;
        let size = under.size(plain.0.len()).filter(|size| under.is_within(slot, *size));
        let size = size.ok_or_else(|| too_long(mechanism, object, plain.0.len()))?;
        Ok(Wrapping { under, plain, size })
    }

    /// Bytes of the wrapped key.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Wraps.
    ///
    /// # Errors
    /// CKR_RANDOM_NO_RNG, CKR_KEY_SIZE_RANGE for an RSA key too small for the hash;
    /// docs/errors.md.
    pub fn finish(self, slot: &Slot) -> Result<Zeroizing<Vec<u8>>> {
        let plain = &self.plain.0;
        match self.under {
            Under::Pkcs1(key) => key.encrypt_pkcs1(plain).map(Zeroizing::new),
            Under::Oaep(key, oaep) => {
                key.encrypt_oaep(oaep.hash, oaep.mgf, &oaep.label, plain).map(Zeroizing::new)
            }
            Under::RsaAes(key, with) => {
                // RSAES-OAEP of a fresh AES key, then the key under that (3.2, clause 6.1.28).
                let mut aes = Zeroizing::new(vec![0; with.aes]);
                crypto::random(&mut aes)?;
                let Oaep { hash, mgf, label } = &with.oaep;
                let mut wrapped = key.encrypt_oaep(*hash, *mgf, label, &aes)?;
                wrapped.extend(symmetric::wrap(KeyWrap::Rfc5649, &aes, plain)?);
                Ok(wrapped.into())
            }
            Under::KeyWrap(key, method) => {
                symmetric::wrap(method, key.bytes(), plain).map(Zeroizing::new)
            }
            Under::Cipher(key, mode) => {
                // CBC fills up with zeros: who unwraps knows the length (3.2, clause 6.10.4).
                let padded = match mode {
                    Mode::Cbc { .. } => plain.len().next_multiple_of(BLOCK),
                    _ => plain.len(),
                };
                let mut padded = Zeroizing::new(vec![0; padded]);
                padded[..plain.len()].copy_from_slice(plain);
                Cipher::once(Direction::Encrypt, mode, key.bytes(), &padded)
            }
            Under::Service(key, algorithm) => {
                let input = vault::Cipher { value: plain, ..vault::Cipher::default() };
                let key = key.reference();
                let made = slot.note(slot.vault.wrap_key(key, algorithm, &input))?;
                Ok(made.value.into())
            }
        }
    }
}

impl Under {
    fn new(
        slot: &Slot,
        mechanism: &Mechanism,
        parameter: &Parameter<'_>,
        wrapping: &Object,
    ) -> Result<Under> {
        parameter::none(mechanism, parameter)?;
        Ok(match (mechanism.scheme, &wrapping.material) {
            (Scheme::Pkcs1(None), Material::Public(key)) => Under::Pkcs1(key.clone()),
            (Scheme::Oaep, Material::Public(key)) => {
                Under::Oaep(key.clone(), Oaep::parse(parameter)?)
            }
            (Scheme::RsaAesWrap, Material::Public(key)) => {
                Under::RsaAes(key.clone(), RsaAesWrap::parse(parameter)?)
            }
            (Scheme::AesWrap(method), Material::Secret(key)) => Under::KeyWrap(key.clone(), method),
            (Scheme::AesWrap(method), Material::Vault(key)) => {
                Under::Service(Arc::clone(key), service_algorithm(slot, key, method)?)
            }
            (Scheme::Aes(mode), Material::Secret(key)) => {
                let mode = parameter::aes(mode, parameter)?;
                // Refuses what only the cipher itself knows to be wrong.
                Cipher::new(Direction::Encrypt, mode.clone(), key.bytes())?;
                Under::Cipher(key.clone(), mode)
            }
            (Scheme::Aes(AesMode::Gcm), Material::Vault(_)) => {
                return Err(parameter::invalid(
                    "an IV of the caller: the service makes it, so CK_GCM_WRAP_PARAMS or \
                     C_WrapKeyAuthenticated are needed"
                        .to_owned(),
                ));
            }
            _ => return Err(super::sign::wrong_key(mechanism, wrapping)),
        })
    }

    /// Bytes of the wrapped key; None for a key that is too long, or of the wrong length.
    fn size(&self, plain: usize) -> Option<usize> {
        let modulus = |key: &PublicKey, overhead: usize| {
            key.modulus_len().filter(|modulus| plain.saturating_add(overhead) <= *modulus)
        };
        match self {
            Under::Pkcs1(key) => modulus(key, 11),
            Under::Oaep(key, oaep) => modulus(key, 2 * oaep.hash.len() + 2),
            Under::RsaAes(key, _) => {
                Some(key.modulus_len()? + wrapped_len(KeyWrap::Rfc5649, plain)?)
            }
            Under::KeyWrap(_, method) => wrapped_len(*method, plain),
            Under::Service(_, algorithm) => {
                let method = match algorithm.mode() {
                    Some(SymmetricMode::KeyWrapPad) => KeyWrap::Rfc5649,
                    _ => KeyWrap::Rfc3394,
                };
                wrapped_len(method, plain)
            }
            Under::Cipher(_, mode) => Some(match mode {
                Mode::CbcPad { .. } => (plain / BLOCK + 1) * BLOCK,
                Mode::Gcm { tag_len, .. } => plain + tag_len,
                Mode::Ecb | Mode::Cbc { .. } | Mode::Ctr { .. } => plain.next_multiple_of(BLOCK),
            }),
        }
    }

    fn is_within(&self, slot: &Slot, size: usize) -> bool {
        match self {
            Under::Service(..) => size <= slot.token.max_aes_payload,
            _ => true,
        }
    }
}

/// C_WrapKeyAuthenticated: IV and tag are written into the parameter when the wrapped key is.
///
/// # Errors
/// As [`Wrapping::new`] and [`Wrapping::finish`].
pub fn authenticated(
    slot: &Slot,
    kind: CK_MECHANISM_TYPE,
    mut parameter: GcmMessageParameter<'_>,
    (wrapping, object): (&Arc<Object>, &Object),
    aad: &[u8],
    room: Room,
) -> Result<Answer> {
    let tag_len = tag_len(parameter.tag_bits)?;
    let sealing = Sealing::new(slot, kind, &parameter.iv, tag_len, (wrapping, object))?;
    let mut stage = Stage::Idle;
    stage.begin(|| Ok(sealing))?;
    let size = |sealing: &Sealing| Ok(Size::Exact(sealing.plain.0.len()));
    stage.one_shot(room, &[], size, |sealing| {
        let (ciphertext, tag) = sealing.finish(slot, &mut parameter.iv, aad, tag_len)?;
        parameter.tag_out.write(0, &tag)?;
        Ok(ciphertext)
    })
}

/// C_WrapKey with CK_GCM_WRAP_PARAMS: the IV is written into the parameter, the tag follows the
/// wrapped key.
///
/// # Errors
/// As [`authenticated`].
pub fn with_iv_made(
    slot: &Slot,
    kind: CK_MECHANISM_TYPE,
    mut parameter: GcmWrapParameter<'_>,
    (wrapping, object): (&Arc<Object>, &Object),
    room: Room,
) -> Result<Answer> {
    let tag_len = tag_len(parameter.tag_bits)?;
    let sealing = Sealing::new(slot, kind, &parameter.iv, tag_len, (wrapping, object))?;
    let mut stage = Stage::Idle;
    stage.begin(|| Ok(sealing))?;
    let size = |sealing: &Sealing| Ok(Size::Exact(sealing.plain.0.len() + tag_len));
    stage.one_shot(room, &[], size, |sealing| {
        let (ciphertext, tag) = sealing.finish(slot, &mut parameter.iv, parameter.aad, tag_len)?;
        Ok(Zeroizing::new([ciphertext.as_slice(), &tag].concat()))
    })
}

/// A key about to be wrapped with AES-GCM, whose IV may be made.
#[derive(Debug)]
struct Sealing {
    key: GcmKey,
    plain: Plain,
}

impl Sealing {
    fn new(
        slot: &Slot,
        kind: CK_MECHANISM_TYPE,
        iv: &GcmIv<'_>,
        tag_len: usize,
        (wrapping, object): (&Arc<Object>, &Object),
    ) -> Result<Sealing> {
        let mechanism = key::check(slot, kind, wrapping, WRAP).map_err(for_wrapping_key)?;
        let key = GcmKey::new(slot, mechanism, wrapping, Cargo::Key).map_err(for_wrapping_key)?;
        key.check(Direction::Encrypt, iv, tag_len)?;
        let plain = plain(mechanism, wrapping, object)?;
        match plain.0.len() <= key.most() {
            true => Ok(Sealing { key, plain }),
            false => Err(too_long(mechanism, object, plain.0.len())),
        }
    }

    /// Ciphertext and tag.
    fn finish(
        mut self,
        slot: &Slot,
        iv: &mut GcmIv<'_>,
        aad: &[u8],
        tag_len: usize,
    ) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>)> {
        let next = self.key.next_iv(iv)?;
        let sealed = self.key.seal(slot, next, aad, &self.plain.0, tag_len)?;
        iv.made.write(0, &sealed.iv)?;
        Ok((sealed.ciphertext, sealed.tag))
    }
}

/// The service's algorithm for AES key wrap with a key: the one named after the key's size, or
/// the one that takes any (api-version 7.6 on).
///
/// # Errors
/// CKR_KEY_SIZE_RANGE where neither can be named.
pub fn service_algorithm(
    slot: &Slot,
    key: &VaultKey,
    method: KeyWrap,
) -> Result<EncryptionAlgorithm> {
    match method {
        KeyWrap::Rfc5649 => Ok(EncryptionAlgorithm::CkmAesKeyWrapPad),
        KeyWrap::Rfc3394 if is_of_unknown_size(key) && slot.token.has(Feature::CkmKeyWrap) => {
            Ok(EncryptionAlgorithm::CkmAesKeyWrap)
        }
        KeyWrap::Rfc3394 => crypt::algorithm(key, SymmetricMode::KeyWrap),
    }
}

fn is_of_unknown_size(key: &VaultKey) -> bool {
    matches!(key.kind, VaultKeyKind::Secret(None))
}

/// Whether a mechanism wraps private keys, too, as PKCS#8: those that keep any length.
pub fn takes_private_keys(scheme: Scheme) -> bool {
    matches!(
        scheme,
        Scheme::RsaAesWrap | Scheme::AesWrap(_) | Scheme::Aes(AesMode::CbcPad | AesMode::Gcm)
    )
}

/// What is wrapped of a key: the bytes of a secret one, PKCS#8 of a private one.
fn plain(mechanism: &Mechanism, wrapping: &Object, object: &Object) -> Result<Plain> {
    let refuse = |rv, why: &str| {
        Err(Error::new(rv, format!("{} of '{}': {why}", mechanism.name, object.label())))
    };
    if !matches!(object.class(), CKO_PRIVATE_KEY | CKO_SECRET_KEY) {
        return refuse(CKR_KEY_NOT_WRAPPABLE, "only private and secret keys are wrapped");
    }
    if !object.attributes.is(CKA_EXTRACTABLE) {
        return refuse(CKR_KEY_UNEXTRACTABLE, "the key never leaves where it is");
    }
    if object.attributes.is(CKA_WRAP_WITH_TRUSTED) && !wrapping.attributes.is(CKA_TRUSTED) {
        return refuse(
            CKR_KEY_NOT_WRAPPABLE,
            "CKA_WRAP_WITH_TRUSTED is true, and the wrapping key is not CKA_TRUSTED",
        );
    }
    let wanted = wrapping.attributes.bytes(CKA_WRAP_TEMPLATE).unwrap_or_default();
    let fits = |(kind, value)| object.attributes.bytes(kind) == Some(value);
    if !nested::decode(wanted)?.into_iter().all(fits) {
        return refuse(
            CKR_KEY_HANDLE_INVALID,
            "CKA_WRAP_TEMPLATE of the wrapping key leaves it out",
        );
    }
    match &object.material {
        Material::Secret(key) => Ok(Plain(Zeroizing::new(key.bytes().to_vec()))),
        Material::Private(key) if takes_private_keys(mechanism.scheme) => {
            key.pkcs8_der().map(Plain)
        }
        Material::Private(_) | Material::Vault(_) | Material::Public(_) | Material::None => {
            refuse(CKR_KEY_NOT_WRAPPABLE, "the mechanism wraps no such key")
        }
    }
}

fn too_long(mechanism: &Mechanism, object: &Object, length: usize) -> Error {
    Error::new(
        CKR_KEY_SIZE_RANGE,
        format!("{} cannot wrap '{}' of {length} bytes", mechanism.name, object.label()),
    )
}

/// Complaints about the key of an operation, as they are worded for a wrapping key.
fn for_wrapping_key(error: Error) -> Error {
    let rv = match error.rv() {
        CKR_KEY_TYPE_INCONSISTENT => CKR_WRAPPING_KEY_TYPE_INCONSISTENT,
        CKR_KEY_SIZE_RANGE => CKR_WRAPPING_KEY_SIZE_RANGE,
        _ => return error,
    };
    Error::new(rv, error.sentence().to_owned())
}
