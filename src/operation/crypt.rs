//! C_Encrypt… with public keys, here; C_Decrypt… where the private key is.

use std::sync::Arc;

use akv_wire::EncryptionAlgorithm;
use cryptoki_sys::*;
use zeroize::Zeroizing;

use super::{
    Keyed, Operation, Size, Streaming,
    gather::Gather,
    key::{self, DECRYPT, ENCRYPT},
};
use crate::{
    abi::arg::Parameter,
    crypto::{Hash, PrivateKey, PublicKey},
    error::{Error, Result},
    mechanism::{
        Mechanism, Scheme,
        parameter::{self, Oaep},
    },
    object::{Material, Object, VaultKey},
    session::{Family, Session},
    slot::Slot,
    vault::{Cipher, KeyRef},
};

/// The padding of an RSA encryption.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Padding {
    /// RSAES-PKCS1-v1_5.
    Pkcs1,
    /// RSAES-OAEP.
    Oaep(Oaep),
}

impl Padding {
    fn new(mechanism: &Mechanism, parameter: &Parameter<'_>) -> Result<Padding> {
        match mechanism.scheme {
            Scheme::Pkcs1(None) => Ok(Padding::Pkcs1),
            Scheme::Oaep => Ok(Padding::Oaep(Oaep::parse(parameter)?)),
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

impl Keyed for Encrypting {
    fn new(
        slot: &Slot,
        kind: CK_MECHANISM_TYPE,
        parameter: &Parameter<'_>,
        object: &Arc<Object>,
    ) -> Result<Encrypting> {
        let mechanism = key::check(slot, kind, object, ENCRYPT)?;
        parameter::none(mechanism, parameter)?;
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
}

impl Streaming for Encrypting {}

impl Operation for Encrypting {
    fn family(session: &Session) -> &Family<Self> {
        &session.encrypt
    }

    fn size(&self) -> Result<Size> {
        Ok(Size::Exact(self.size))
    }

    fn feed(&mut self, part: &[u8]) -> Result<()> {
        self.data.feed(part)
    }

    fn finish(self, _: &Slot) -> Result<Zeroizing<Vec<u8>>> {
        let (_, data) = self.data.finish();
        let ciphertext = match &self.padding {
            Padding::Pkcs1 => self.key.encrypt_pkcs1(&data),
            Padding::Oaep(oaep) => self.key.encrypt_oaep(oaep.hash, oaep.mgf, &oaep.label, &data),
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

impl Keyed for Decrypting {
    fn new(
        slot: &Slot,
        kind: CK_MECHANISM_TYPE,
        parameter: &Parameter<'_>,
        object: &Arc<Object>,
    ) -> Result<Decrypting> {
        let mechanism = key::check(slot, kind, object, DECRYPT)?;
        parameter::none(mechanism, parameter)?;
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
            Material::Public(_) | Material::None => return Err(wrong()),
        };
        let size = modulus_of(&public, object)?;
        padding.most(size)?;
        Ok(Decrypting { key, padding, data: Gather::raw(size), size })
    }
}

impl Streaming for Decrypting {}

impl Operation for Decrypting {
    fn family(session: &Session) -> &Family<Self> {
        &session.decrypt
    }

    /// A bound of the plaintext's length: the modulus's, as clients allocate it.
    fn size(&self) -> Result<Size> {
        Ok(Size::AtMost(self.size))
    }

    fn feed(&mut self, part: &[u8]) -> Result<()> {
        self.data
            .feed(part)
            .map_err(|error| Error::new(CKR_ENCRYPTED_DATA_LEN_RANGE, error.sentence().to_owned()))
    }

    /// One request for a key of the service. Every ciphertext that does not decrypt fails alike (no
    /// padding oracle).
    fn finish(self, slot: &Slot) -> Result<Zeroizing<Vec<u8>>> {
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
            (Decrypter::Vault(key), padding) => {
                let algorithm = match padding {
                    Padding::Pkcs1 => EncryptionAlgorithm::Rsa15,
                    Padding::Oaep(oaep) if oaep.hash == Hash::Sha1 => EncryptionAlgorithm::RsaOaep,
                    Padding::Oaep(_) => EncryptionAlgorithm::RsaOaep256,
                };
                let input = Cipher { value: &data, ..Cipher::default() };
                let key = KeyRef::version(&key.name, &key.version);
                slot.note(slot.vault.decrypt(key, algorithm, &input))
            }
        }
    }
}
