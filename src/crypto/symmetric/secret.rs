//! The key of a session: bytes that live in this process and nowhere else.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use zeroize::Zeroizing;

use super::{BLOCK, Cipher, Direction, Mode};
use crate::{crypto::Hash, error::Result, stack};

/// A secret key of any length. A clone is the same key; the bytes are wiped with the last one.
#[derive(Clone)]
pub struct SecretKey(Arc<Secret>);

struct Secret {
    bytes: Zeroizing<Vec<u8>>,
    /// Messages whose IV was made by counting: per key, so that no IV comes twice.
    messages: AtomicU64,
}

impl SecretKey {
    /// A key with these bytes.
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> SecretKey {
        stack::touched();
        SecretKey(Arc::new(Secret { bytes, messages: AtomicU64::new(0) }))
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        stack::touched();
        &self.0.bytes
    }

    /// A number that no earlier call with this key gave, from 0 on.
    pub fn next_message(&self) -> u64 {
        self.0.messages.fetch_add(1, Ordering::Relaxed)
    }

    /// CKA_CHECK_VALUE of an AES key: the first three bytes of a block of zeros, encrypted
    /// (PKCS#11 3.2, clause 4.10.2).
    ///
    /// # Errors
    /// CKR_KEY_SIZE_RANGE for bytes that are no AES key.
    pub fn aes_check_value(&self) -> Result<Vec<u8>> {
        let block = Cipher::once(Direction::Encrypt, Mode::Ecb, self.bytes(), &[0; BLOCK])?;
        Ok(block[..3].to_vec())
    }

    /// CKA_CHECK_VALUE of a generic secret: the first three bytes of its SHA-1.
    pub fn generic_check_value(&self) -> Vec<u8> {
        Hash::Sha1.digest(self.bytes())[..3].to_vec()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({} bytes)", self.bytes().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_are_the_standards() {
        let key = SecretKey::new(vec![0; 16].into());
        // FIPS 197: AES-128 of zeros with the key of zeros begins with 66 e9 4b.
        assert_eq!(key.aes_check_value().unwrap(), [0x66, 0xe9, 0x4b]);
        let abc = SecretKey::new(b"abc".to_vec().into());
        assert_eq!(abc.generic_check_value(), [0xa9, 0x99, 0x3e]);
        assert!(abc.aes_check_value().is_err());
        assert_eq!(format!("{abc:?}"), "SecretKey(3 bytes)");
        assert_eq!((abc.next_message(), abc.clone().next_message()), (0, 1));
    }
}
