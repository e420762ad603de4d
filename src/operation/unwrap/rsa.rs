//! RSA, in this process or at the service.

use std::sync::Arc;

use akv_wire::EncryptionAlgorithm;
use cryptoki_sys::*;
use zeroize::Zeroizing;

use super::length;
use crate::{
    crypto::{Hash, PrivateKey},
    error::Result,
    mechanism::parameter::Oaep,
    object::{VaultKey, session_secret, template::Template},
    slot::Slot,
    vault::{self},
};

/// A private key that unwraps.
#[derive(Debug)]
pub enum Rsa {
    /// Of this process.
    Here(PrivateKey),
    /// Of the service.
    Vault(Arc<VaultKey>),
}

impl Rsa {
    /// Bytes of the modulus.
    pub fn modulus(&self) -> usize {
        let public = match self {
            Rsa::Vault(key) => key.public().cloned(),
            Rsa::Here(key) => Some(key.public()),
        };
        public.and_then(|public| public.modulus_len()).unwrap_or_default()
    }

    /// RSAES-PKCS1-v1_5 with implicit rejection: never tells whether the padding was good.
    ///
    /// # Errors
    /// CKR_WRAPPED_KEY_LEN_RANGE; docs/errors.md.
    pub fn unwrap_pkcs1(
        &self,
        slot: &Slot,
        wrapped: &[u8],
        template: &Template,
    ) -> Result<Zeroizing<Vec<u8>>> {
        let modulus = self.modulus();
        if wrapped.len() != modulus {
            return Err(length(wrapped));
        }
        let lengths = session_secret::possible_lengths(template, modulus.saturating_sub(11))?;
        match self {
            Rsa::Here(key) => key.decrypt_pkcs1_implicit(wrapped, &lengths),
            Rsa::Vault(key) => {
                let input = vault::Cipher { value: wrapped, ..vault::Cipher::default() };
                let reference = key.reference();
                let answer = slot.vault.unwrap_key(reference, EncryptionAlgorithm::Rsa15, &input);
                let plain = match answer {
                    // Not noted either: CK_SESSION_INFO would tell.
                    Err(error) if error.rv() == CKR_WRAPPED_KEY_INVALID => Zeroizing::default(),
                    other => slot.note(other)?,
                };
                let input = [key.id.as_bytes(), wrapped].concat();
                Ok(slot.rejection.choose(&input, &plain, &lengths))
            }
        }
    }

    /// RSAES-OAEP.
    ///
    /// # Errors
    /// CKR_ENCRYPTED_DATA_INVALID here, CKR_WRAPPED_KEY_INVALID from the service; docs/errors.md.
    pub fn unwrap_oaep(
        &self,
        slot: &Slot,
        oaep: &Oaep,
        wrapped: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        match self {
            Rsa::Here(key) => key.decrypt_oaep(oaep.hash, oaep.mgf, &oaep.label, wrapped),
            Rsa::Vault(key) => {
                let algorithm = match oaep.hash {
                    Hash::Sha1 => EncryptionAlgorithm::RsaOaep,
                    _ => EncryptionAlgorithm::RsaOaep256,
                };
                let input = vault::Cipher { value: wrapped, ..vault::Cipher::default() };
                let key = key.reference();
                slot.note(slot.vault.unwrap_key(key, algorithm, &input))
            }
        }
    }
}
