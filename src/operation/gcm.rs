//! AES-GCM where the IV may be made: for messages and for wrapped keys. A session key encrypts
//! here, a key of the service there, where the service makes the IV.

mod iv;

use std::sync::Arc;

use akv_wire::{EncryptionAlgorithm, SymmetricMode};
use cryptoki_sys::*;
use zeroize::Zeroizing;

use self::iv::Maker;
use super::{
    crypt::{GCM_IV, GCM_TAG, algorithm, check_gcm},
    sign::wrong_key,
};
use crate::{
    abi::arg::GcmIv,
    crypto::symmetric::{Cipher, Direction, Mode, SecretKey},
    error::{Error, Result},
    mechanism::{AesMode, Mechanism, Scheme, parameter::invalid},
    object::{Material, Object, VaultKey},
    slot::Slot,
    vault::{self},
};

/// Most bytes with a session key.
const MOST: usize = 1 << 30;

/// What is encrypted: the service has an operation and a permission for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cargo {
    /// Data: encrypt and decrypt.
    Data,
    /// A key: wrapkey and unwrapkey.
    Key,
}

/// A key for AES-GCM.
#[derive(Debug)]
pub struct GcmKey {
    place: Place,
    cargo: Cargo,
    most: usize,
}

#[derive(Debug)]
enum Place {
    Here(SecretKey, Maker),
    Service(Arc<VaultKey>, EncryptionAlgorithm),
}

/// What an encryption makes.
#[derive(Debug)]
pub struct Sealed {
    /// As long as the plaintext.
    pub ciphertext: Zeroizing<Vec<u8>>,
    /// The IV it was made with.
    pub iv: Vec<u8>,
    /// As long as asked for.
    pub tag: Vec<u8>,
}

impl GcmKey {
    /// The key of an object that was checked against its mechanism.
    ///
    /// # Errors
    /// CKR_KEY_TYPE_INCONSISTENT, CKR_KEY_SIZE_RANGE.
    pub fn new(
        slot: &Slot,
        mechanism: &Mechanism,
        object: &Object,
        cargo: Cargo,
    ) -> Result<GcmKey> {
        let (place, most) = match (&object.material, mechanism.scheme) {
            (Material::Secret(key), Scheme::Aes(AesMode::Gcm)) => {
                (Place::Here(key.clone(), Maker::default()), MOST)
            }
            (Material::Vault(key), Scheme::Aes(AesMode::Gcm)) => {
                let algorithm = algorithm(key, SymmetricMode::Gcm)?;
                (Place::Service(Arc::clone(key), algorithm), slot.token.max_aes_payload)
            }
            _ => return Err(wrong_key(mechanism, object)),
        };
        Ok(GcmKey { place, cargo, most })
    }

    /// Most bytes that one encryption takes.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Refuses an IV and a tag that key and direction cannot use.
    ///
    /// # Errors
    /// CKR_MECHANISM_PARAM_INVALID.
    pub fn check(&self, direction: Direction, iv: &GcmIv<'_>, tag_len: usize) -> Result<()> {
        match (&self.place, direction) {
            (Place::Here(..), Direction::Encrypt) => Maker::check(iv, tag_len),
            (_, Direction::Decrypt) => self.check_lengths(iv.given.bytes()?.len(), tag_len),
            (Place::Service(..), Direction::Encrypt) => {
                check_gcm(iv.given.bytes()?.len(), tag_len)?;
                let makes_all = matches!(iv.generator, CKG_GENERATE | CKG_GENERATE_RANDOM);
                if makes_all && iv.fixed_bits == 0 {
                    return Ok(());
                }
                Err(invalid(format!(
                    "generator {} with {} fixed bits: the service makes the whole IV at random \
                     (CKG_GENERATE, CKG_GENERATE_RANDOM)",
                    iv.generator, iv.fixed_bits
                )))
            }
        }
    }

    /// Refuses an IV and a tag of lengths that the key cannot decrypt with.
    ///
    /// # Errors
    /// CKR_MECHANISM_PARAM_INVALID.
    pub fn check_lengths(&self, iv_len: usize, tag_len: usize) -> Result<()> {
        match &self.place {
            Place::Here(..) => Ok(()),
            Place::Service(..) => check_gcm(iv_len, tag_len),
        }
    }

    /// The IV of the next encryption, made as `iv` says; None where the service will make it.
    ///
    /// # Errors
    /// CKR_MECHANISM_PARAM_INVALID, CKR_RANDOM_NO_RNG.
    pub fn next_iv(&mut self, iv: &GcmIv<'_>) -> Result<Option<Vec<u8>>> {
        match &mut self.place {
            Place::Here(key, maker) => maker.make(key, iv).map(Some),
            Place::Service(..) => Ok(None),
        }
    }

    /// Encrypts with the IV that [`GcmKey::next_iv`] gave.
    ///
    /// # Errors
    /// docs/errors.md.
    pub fn seal(
        &self,
        slot: &Slot,
        iv: Option<Vec<u8>>,
        aad: &[u8],
        data: &[u8],
        tag_len: usize,
    ) -> Result<Sealed> {
        match (&self.place, iv) {
            (Place::Here(key, _), Some(iv)) => {
                let mode = Mode::Gcm { iv: iv.clone(), aad: aad.to_vec(), tag_len };
                let mut ciphertext = Cipher::once(Direction::Encrypt, mode, key.bytes(), data)?;
                let tag = ciphertext.split_off(data.len());
                Ok(Sealed { ciphertext, iv, tag })
            }
            (Place::Service(key, algorithm), None) => {
                self.seal_at_service(slot, key, *algorithm, aad, data)
            }
            (Place::Here(..), None) | (Place::Service(..), Some(_)) => {
                Err(Error::new(CKR_GENERAL_ERROR, "an IV that somebody else makes"))
            }
        }
    }

    fn seal_at_service(
        &self,
        slot: &Slot,
        key: &VaultKey,
        algorithm: EncryptionAlgorithm,
        aad: &[u8],
        data: &[u8],
    ) -> Result<Sealed> {
        let input = vault::Cipher {
            value: data,
            aad: (!aad.is_empty()).then_some(aad),
            ..vault::Cipher::default()
        };
        let reference = key.reference();
        let made = slot.note(match self.cargo {
            Cargo::Data => slot.vault.encrypt(reference, algorithm, &input),
            Cargo::Key => slot.vault.wrap_key(reference, algorithm, &input),
        })?;
        let (iv, tag) = (made.iv.unwrap_or_default(), made.tag.unwrap_or_default());
        if (made.value.len(), iv.len(), tag.len()) == (data.len(), GCM_IV, GCM_TAG) {
            return Ok(Sealed { ciphertext: Zeroizing::new(made.value), iv, tag });
        }
        Err(Error::new(
            CKR_DEVICE_ERROR,
            format!(
                "the service sent {} bytes of ciphertext for {}, an IV of {} and a tag of {}",
                made.value.len(),
                data.len(),
                iv.len(),
                tag.len()
            ),
        ))
    }

    /// Decrypts, if the tag is right.
    ///
    /// # Errors
    /// CKR_ENCRYPTED_DATA_INVALID (CKR_WRAPPED_KEY_INVALID from the service for a key);
    /// docs/errors.md.
    pub fn open(
        &self,
        slot: &Slot,
        iv: &[u8],
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        match &self.place {
            Place::Here(key, _) => {
                let mode = Mode::Gcm { iv: iv.to_vec(), aad: aad.to_vec(), tag_len: tag.len() };
                let sealed = [ciphertext, tag].concat();
                Cipher::once(Direction::Decrypt, mode, key.bytes(), &sealed)
            }
            Place::Service(key, algorithm) => {
                let input = vault::Cipher {
                    value: ciphertext,
                    iv: Some(iv),
                    aad: (!aad.is_empty()).then_some(aad),
                    tag: Some(tag),
                };
                let key = key.reference();
                slot.note(match self.cargo {
                    Cargo::Data => slot.vault.decrypt(key, *algorithm, &input),
                    Cargo::Key => slot.vault.unwrap_key(key, *algorithm, &input),
                })
            }
        }
    }
}
