//! RSA: encryption with public keys, here; decryption where the private key is.

use std::sync::Arc;

use akv_wire::EncryptionAlgorithm;
use cryptoki_sys::*;
use zeroize::Zeroizing;

use super::super::{Size, gather::Gather};
use crate::{
    abi::arg::Parameter,
    crypto::{Hash, PrivateKey, PublicKey},
    error::{Error, Result},
    mechanism::{Mechanism, Scheme, parameter::Oaep},
    object::{Material, Object, VaultKey},
    slot::Slot,
    vault::Cipher,
};

/// The padding of an RSA encryption.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Padding {
    /// RSAES-PKCS1-v1_5.
    Pkcs1,
    /// RSAES-OAEP.
    Oaep(Oaep),
    /// None: CKM_RSA_X_509.
    Raw,
}

impl Padding {
    fn new(mechanism: &Mechanism, parameter: &Parameter<'_>) -> Result<Padding> {
        match mechanism.scheme {
            Scheme::Pkcs1(None) => Ok(Padding::Pkcs1),
            Scheme::Oaep => Ok(Padding::Oaep(Oaep::parse(parameter)?)),
            Scheme::RawRsa => Ok(Padding::Raw),
            _ => Err(Error::new(
                CKR_MECHANISM_INVALID,
                format!("{} does not encrypt", mechanism.name),
            )),
        }
    }

    /// Bytes of plaintext that fit a modulus of so many bytes.
    fn most(&self, modulus: usize) -> Result<usize> {
        let overhead = match self {
            Padding::Pkcs1 => 11,
            Padding::Oaep(oaep) => 2 * oaep.hash.len() + 2,
            Padding::Raw => 0,
        };
        modulus.checked_sub(overhead).ok_or_else(|| {
            Error::new(CKR_KEY_SIZE_RANGE, format!("a key of {modulus} bytes for {self:?}"))
        })
    }
}

fn modulus_of(key: &PublicKey, object: &Object) -> Result<usize> {
    key.modulus_len().ok_or_else(|| {
        Error::new(CKR_KEY_TYPE_INCONSISTENT, format!("'{}' is no RSA key", object.label()))
    })
}

/// An encryption in the making.
#[derive(Clone, Debug)]
pub struct Encrypting {
    key: PublicKey,
    padding: Padding,
    data: Gather,
    size: usize,
}

impl Encrypting {
    /// Checks parameter and key.
    ///
    /// # Errors
    /// CKR_MECHANISM_PARAM_INVALID, CKR_KEY_TYPE_INCONSISTENT, CKR_KEY_SIZE_RANGE.
    pub fn new(
        mechanism: &Mechanism,
        parameter: &Parameter<'_>,
        object: &Object,
    ) -> Result<Encrypting> {
        let padding = Padding::new(mechanism, parameter)?;
        let Material::Public(key) = &object.material else {
            return Err(Error::new(
                CKR_KEY_TYPE_INCONSISTENT,
                format!("{} with '{}', which is no public key", mechanism.name, object.label()),
            ));
        };
        let size = modulus_of(key, object)?;
        let data = Gather::raw(padding.most(size)?);
        Ok(Encrypting { key: key.clone(), padding, data, size })
    }

    /// Bytes of the ciphertext.
    pub fn size(&self) -> Size {
        Size::Exact(self.size)
    }

    /// Takes the next bytes of the plaintext.
    ///
    /// # Errors
    /// CKR_DATA_LEN_RANGE.
    pub fn feed(&mut self, part: &[u8]) -> Result<()> {
        self.data.feed(part)
    }

    /// Encrypts.
    ///
    /// # Errors
    /// CKR_DATA_LEN_RANGE; CKR_RANDOM_NO_RNG.
    pub fn finish(self) -> Result<Zeroizing<Vec<u8>>> {
        let (_, data) = self.data.finish();
        let ciphertext = match &self.padding {
            Padding::Pkcs1 => self.key.encrypt_pkcs1(&data),
            Padding::Oaep(oaep) => self.key.encrypt_oaep(oaep.hash, oaep.mgf, &oaep.label, &data),
            Padding::Raw => self.key.raw(&data),
        }?;
        Ok(ciphertext.into())
    }
}

/// A decryption in the making.
#[derive(Clone, Debug)]
pub struct Decrypting {
    key: Decrypter,
    padding: Padding,
    data: Gather,
    size: usize,
}

#[derive(Clone, Debug)]
enum Decrypter {
    Vault(Arc<VaultKey>),
    Here(PrivateKey),
}

impl Decrypting {
    /// Checks parameter and key.
    ///
    /// # Errors
    /// CKR_MECHANISM_PARAM_INVALID, CKR_KEY_TYPE_INCONSISTENT, CKR_KEY_SIZE_RANGE.
    pub fn new(
        mechanism: &Mechanism,
        parameter: &Parameter<'_>,
        object: &Object,
    ) -> Result<Decrypting> {
        let mut padding = Padding::new(mechanism, parameter)?;
        let wrong = || {
            Error::new(
                CKR_KEY_TYPE_INCONSISTENT,
                format!("{} with key '{}'", mechanism.name, object.label()),
            )
        };
        let (key, public) = match &object.material {
            Material::Vault(key) => {
                if let Padding::Oaep(oaep) = padding {
                    padding = Padding::Oaep(oaep.for_service()?);
                }
                let public = key.public().cloned().ok_or_else(wrong)?;
                (Decrypter::Vault(Arc::clone(key)), public)
            }
            Material::Private(key) => (Decrypter::Here(key.clone()), key.public()),
            Material::Secret(_) | Material::Public(_) | Material::None => return Err(wrong()),
        };
        let size = modulus_of(&public, object)?;
        padding.most(size)?;
        Ok(Decrypting { key, padding, data: Gather::raw(size), size })
    }

    /// A bound of the plaintext's length: the modulus's, as clients allocate it.
    pub fn size(&self) -> Size {
        Size::AtMost(self.size)
    }

    /// Takes the next bytes of the ciphertext.
    ///
    /// # Errors
    /// CKR_ENCRYPTED_DATA_LEN_RANGE.
    pub fn feed(&mut self, part: &[u8]) -> Result<()> {
        self.data
            .feed(part)
            .map_err(|error| Error::new(CKR_ENCRYPTED_DATA_LEN_RANGE, error.sentence().to_owned()))
    }

    /// Decrypts: one request for a key of the service. Every ciphertext that does not decrypt
    /// fails alike (no padding oracle).
    ///
    /// # Errors
    /// CKR_ENCRYPTED_DATA_LEN_RANGE, CKR_ENCRYPTED_DATA_INVALID; docs/errors.md.
    pub fn finish(self, slot: &Slot) -> Result<Zeroizing<Vec<u8>>> {
        let (_, data) = self.data.finish();
        if data.len() != self.size {
            return Err(Error::new(
                CKR_ENCRYPTED_DATA_LEN_RANGE,
                format!("{} bytes of ciphertext, not {}", data.len(), self.size),
            ));
        }
        match (&self.key, &self.padding) {
            (Decrypter::Here(key), Padding::Pkcs1) => key.decrypt_pkcs1(&data),
            (Decrypter::Here(key), Padding::Oaep(oaep)) => {
                key.decrypt_oaep(oaep.hash, oaep.mgf, &oaep.label, &data)
            }
            (Decrypter::Here(key), Padding::Raw) => key.raw(&data),
            (Decrypter::Vault(key), padding) => {
                let algorithm = match padding {
                    Padding::Pkcs1 => EncryptionAlgorithm::Rsa15,
                    // The service has none, and Init has said so.
                    Padding::Raw => {
                        let sentence = "the service has no bare RSA operation";
                        return Err(Error::new(CKR_MECHANISM_INVALID, sentence));
                    }
                    Padding::Oaep(oaep) if oaep.hash == Hash::Sha1 => EncryptionAlgorithm::RsaOaep,
                    Padding::Oaep(_) => EncryptionAlgorithm::RsaOaep256,
                };
                let input = Cipher { value: &data, ..Cipher::default() };
                let key = key.reference();
                slot.note(slot.vault.decrypt(key, algorithm, &input))
            }
        }
    }
}
