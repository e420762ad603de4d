//! Operations with a key: what goes in and what comes out.

use akv_wire::{
    Base64Url, EncryptionAlgorithm, KeyOperationParameters, KeyOperationResult,
    KeyVerifyParameters, KeyVerifyResult, RandomBytes, RandomParameters, SignatureAlgorithm,
};
use cryptoki_sys::CKR_ARGUMENTS_BAD;
use zeroize::Zeroizing;

use super::{KeyRef, Operation, Vault, call::Call};
use crate::{error::Result, refuse, stack};

/// Most bytes one request for random bytes may ask for.
pub const MAX_RANDOM: usize = 128;

/// Input of encrypt, decrypt, wrap and unwrap.
#[derive(Clone, Copy, Default)]
pub struct Cipher<'a> {
    /// Plaintext or ciphertext.
    pub value: &'a [u8],
    /// CBC: 16 bytes. GCM: 12 bytes, to decrypt only (to encrypt the service makes one).
    pub iv: Option<&'a [u8]>,
    /// Additional authenticated data of GCM.
    pub aad: Option<&'a [u8]>,
    /// Tag of GCM, 16 bytes, to decrypt only.
    pub tag: Option<&'a [u8]>,
}

/// Output of encrypt and wrap.
pub struct Ciphered {
    /// Ciphertext.
    pub value: Vec<u8>,
    /// The IV that was used (AES-CBC and AES-GCM).
    pub iv: Option<Vec<u8>>,
    /// Tag of GCM, 16 bytes.
    pub tag: Option<Vec<u8>>,
}

impl Vault {
    /// Signs a digest (for HMAC: the message; for RSNULL: what is to be padded). Signatures of
    /// elliptic curves are r‖s.
    ///
    /// # Errors
    /// `docs/errors.md`.
    pub fn sign(
        &self,
        key: KeyRef<'_>,
        algorithm: SignatureAlgorithm,
        digest: &[u8],
    ) -> Result<Vec<u8>> {
        let input = Cipher { value: digest, ..Cipher::default() };
        let result = self.operate(Operation::Sign, "sign", key, algorithm.as_str(), &input)?;
        Ok(result.value.into_bytes())
    }

    /// Verifies an HMAC of `message`. (Signatures of key pairs are verified here, without asking.)
    ///
    /// # Errors
    /// `docs/errors.md`; that the HMAC is another one is no error.
    pub fn verify(
        &self,
        key: KeyRef<'_>,
        algorithm: SignatureAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<bool> {
        let parameters = KeyVerifyParameters {
            alg: algorithm.as_str().to_owned(),
            digest: Base64Url::new(message),
            value: Base64Url::new(signature),
        };
        let call = Call::new(Operation::Verify, key)?.with_action("verify");
        let result: KeyVerifyResult = self.json(call.with_json(&parameters)?)?;
        Ok(result.value)
    }

    /// Encrypts.
    ///
    /// # Errors
    /// `docs/errors.md`.
    pub fn encrypt(
        &self,
        key: KeyRef<'_>,
        algorithm: EncryptionAlgorithm,
        input: &Cipher<'_>,
    ) -> Result<Ciphered> {
        stack::touched();
        self.operate(Operation::Encrypt, "encrypt", key, algorithm.as_str(), input)
            .map(Ciphered::from)
    }

    /// Decrypts.
    ///
    /// # Errors
    /// CKR_ENCRYPTED_DATA_INVALID for whatever is wrong with the ciphertext, never saying what;
    /// `docs/errors.md`.
    pub fn decrypt(
        &self,
        key: KeyRef<'_>,
        algorithm: EncryptionAlgorithm,
        input: &Cipher<'_>,
    ) -> Result<Zeroizing<Vec<u8>>> {
        stack::touched();
        self.operate(Operation::Decrypt, "decrypt", key, algorithm.as_str(), input)
            .map(|result| result.value.into_bytes().into())
    }

    /// Wraps key bytes.
    ///
    /// # Errors
    /// `docs/errors.md`.
    pub fn wrap_key(
        &self,
        key: KeyRef<'_>,
        algorithm: EncryptionAlgorithm,
        input: &Cipher<'_>,
    ) -> Result<Ciphered> {
        stack::touched();
        self.operate(Operation::WrapKey, "wrapkey", key, algorithm.as_str(), input)
            .map(Ciphered::from)
    }

    /// Unwraps key bytes.
    ///
    /// # Errors
    /// CKR_WRAPPED_KEY_INVALID for whatever is wrong with the wrapped key, never saying what;
    /// `docs/errors.md`.
    pub fn unwrap_key(
        &self,
        key: KeyRef<'_>,
        algorithm: EncryptionAlgorithm,
        input: &Cipher<'_>,
    ) -> Result<Zeroizing<Vec<u8>>> {
        stack::touched();
        self.operate(Operation::UnwrapKey, "unwrapkey", key, algorithm.as_str(), input)
            .map(|result| result.value.into_bytes().into())
    }

    /// Random bytes of a Managed HSM, 1…[`MAX_RANDOM`]. A vault has no such operation.
    ///
    /// # Errors
    /// CKR_ARGUMENTS_BAD for another count; `docs/errors.md`.
    pub fn random(&self, count: usize) -> Result<Zeroizing<Vec<u8>>> {
        let Some(wanted) = u32::try_from(count).ok().filter(|_| (1..=MAX_RANDOM).contains(&count))
        else {
            refuse!(CKR_ARGUMENTS_BAD, "{count} random bytes asked for, 1…{MAX_RANDOM} possible");
        };
        stack::touched();
        let call = Call::bare(Operation::Random).with_json(&RandomParameters { count: wanted })?;
        let bytes: RandomBytes = self.json(call)?;
        let bytes = Zeroizing::new(bytes.value.into_bytes());
        if bytes.len() != count {
            return Err(super::errors::nonsense(
                Operation::Random,
                None,
                &format!("{} random bytes instead of {count}", bytes.len()),
            ));
        }
        Ok(bytes)
    }

    fn operate(
        &self,
        operation: Operation,
        action: &'static str,
        key: KeyRef<'_>,
        algorithm: &str,
        input: &Cipher<'_>,
    ) -> Result<KeyOperationResult> {
        let coded = |bytes: Option<&[u8]>| bytes.map(Base64Url::new);
        let parameters = KeyOperationParameters {
            alg: algorithm.to_owned(),
            value: Base64Url::new(input.value),
            iv: coded(input.iv),
            aad: coded(input.aad),
            tag: coded(input.tag),
        };
        self.json(Call::new(operation, key)?.with_action(action).with_json(&parameters)?)
    }
}

impl From<KeyOperationResult> for Ciphered {
    fn from(result: KeyOperationResult) -> Self {
        Ciphered {
            value: result.value.into_bytes(),
            iv: result.iv.map(Base64Url::into_bytes),
            tag: result.tag.map(Base64Url::into_bytes),
        }
    }
}
