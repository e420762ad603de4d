//! HMAC in parts.

use std::fmt;

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    hmac::{
        Context, HMAC_SHA1_FOR_LEGACY_USE_ONLY, HMAC_SHA224, HMAC_SHA256, HMAC_SHA384, HMAC_SHA512,
        Key,
    },
};
use cryptoki_sys::{CKR_MECHANISM_INVALID, CKR_SIGNATURE_INVALID, CKR_SIGNATURE_LEN_RANGE};

use crate::{
    crypto::hash::Hash,
    error::{Error, Result},
    refuse,
};

/// An HMAC in the making; a clone continues on its own.
#[derive(Clone)]
pub struct Hmac {
    hash: Hash,
    context: Context,
}

impl Hmac {
    /// An HMAC with SHA-1 or SHA-2 and a key of any length.
    ///
    /// # Errors
    /// `CKR_MECHANISM_INVALID` for SHA-3.
    pub fn new(hash: Hash, key: &[u8]) -> Result<Hmac> {
        let algorithm = match hash {
            Hash::Sha1 => HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha224 => HMAC_SHA224,
            Hash::Sha256 => HMAC_SHA256,
            Hash::Sha384 => HMAC_SHA384,
            Hash::Sha512 => HMAC_SHA512,
            _ => refuse!(CKR_MECHANISM_INVALID, "HMAC with {hash} is not supported"),
        };
        Ok(Hmac { hash, context: Context::with_key(&Key::new(algorithm, key)) })
    }

    /// Which hash it uses; the tag has [`Hash::len`] bytes.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Takes the next bytes of the message.
    pub fn update(&mut self, data: &[u8]) {
        self.context.update(data);
    }

    /// The tag.
    pub fn finish(self) -> Vec<u8> {
        self.context.sign().as_ref().to_vec()
    }

    /// Compares the tag in constant time.
    ///
    /// # Errors
    /// `CKR_SIGNATURE_LEN_RANGE`, `CKR_SIGNATURE_INVALID`.
    pub fn verify(self, tag: &[u8]) -> Result<()> {
        let hash = self.hash;
        if tag.len() != hash.len() {
            refuse!(
                CKR_SIGNATURE_LEN_RANGE,
                "an HMAC with {hash} has {} bytes, got {}",
                hash.len(),
                tag.len()
            );
        }
        verify_slices_are_equal(&self.finish(), tag).map_err(|_| {
            Error::new(CKR_SIGNATURE_INVALID, format!("the HMAC with {hash} does not match"))
        })
    }
}

impl fmt::Debug for Hmac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hmac").field("hash", &self.hash).finish_non_exhaustive()
    }
}
