//! Session secret keys: AES and HMAC with key bytes that live in this process.

mod cipher;
mod ctr;
mod gcm;
mod mac;
mod secret;
mod wrap;

pub use self::secret::SecretKey;
pub use cipher::{Cipher, Direction, Mode};
pub use mac::Hmac;
pub use wrap::{KeyWrap, unwrap, wrap, wrapped_len};

use aws_lc_rs::cipher::{AES_128, AES_192, AES_256, Algorithm, UnboundCipherKey};
use cryptoki_sys::{CKR_FUNCTION_FAILED, CKR_KEY_SIZE_RANGE};

use crate::error::{Error, Result};

/// Bytes of an AES block, of an IV for CBC and of a counter block.
pub const BLOCK: usize = 16;

/// The AES of a key's length, with the key: once for each cipher object that needs it.
fn aes(key: &[u8]) -> Result<UnboundCipherKey> {
    let algorithm: &'static Algorithm = match key.len() {
        16 => &AES_128,
        24 => &AES_192,
        32 => &AES_256,
        _ => return Err(key_size(key.len())),
    };
    UnboundCipherKey::new(algorithm, key).map_err(|_| key_size(key.len()))
}

fn key_size(len: usize) -> Error {
    Error::new(CKR_KEY_SIZE_RANGE, format!("an AES key has 16, 24 or 32 bytes, this one has {len}"))
}

/// aws-lc refused what the checks before it had accepted.
fn failed(why: impl std::fmt::Display) -> Error {
    Error::new(CKR_FUNCTION_FAILED, format!("local operation with a secret key failed: {why}"))
}
