//! AES key wrap without (RFC 3394) and with padding (RFC 5649).

use aes_kw::KekAes192;
use aws_lc_rs::key_wrap::{AES_128, AES_256, AesKek, KeyWrap as _, KeyWrapPadded as _};
use cryptoki_sys::{CKR_DATA_LEN_RANGE, CKR_ENCRYPTED_DATA_INVALID, CKR_ENCRYPTED_DATA_LEN_RANGE};
use zeroize::Zeroizing;

use super::{failed, key_size};
use crate::{
    error::{Error, Result},
    refuse,
};

/// Bytes of the integrity check value, and the unit of both methods.
const HALF: usize = 8;

/// How a key is wrapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyWrap {
    /// CKM_AES_KEY_WRAP: 16 bytes or more, a multiple of 8.
    Rfc3394,
    /// CKM_AES_KEY_WRAP_KWP: 1 byte or more.
    Rfc5649,
}

/// The bytes that [`wrap`] makes of `len` bytes, `None` where it refuses the length.
pub fn wrapped_len(method: KeyWrap, len: usize) -> Option<usize> {
    match method {
        KeyWrap::Rfc3394 if len < 2 * HALF || !len.is_multiple_of(HALF) => None,
        // The length is a 32-bit number in the check value.
        KeyWrap::Rfc5649 if len == 0 || u32::try_from(len).is_err() => None,
        _ => len.checked_next_multiple_of(HALF)?.checked_add(HALF),
    }
}

/// Wraps `plaintext` with `kek` of 16, 24 or 32 bytes.
///
/// # Errors
/// `CKR_KEY_SIZE_RANGE` for the `kek`, `CKR_DATA_LEN_RANGE` for the plaintext.
pub fn wrap(method: KeyWrap, kek: &[u8], plaintext: &[u8]) -> Result<Vec<u8>> {
    let Some(length) = wrapped_len(method, plaintext.len()) else {
        refuse!(
            CKR_DATA_LEN_RANGE,
            "{} bytes cannot be wrapped: AES key wrap takes multiples of {HALF} from {} on, with \
             padding 1 byte or more",
            plaintext.len(),
            2 * HALF
        );
    };
    let mut wrapped = vec![0; length];
    match Kek::new(kek)? {
        Kek::AwsLc(kek) => {
            match method {
                KeyWrap::Rfc3394 => kek.wrap(plaintext, &mut wrapped),
                KeyWrap::Rfc5649 => kek.wrap_with_padding(plaintext, &mut wrapped),
            }
            .map_err(failed)?;
        }
        Kek::Aes192(kek) => {
            match method {
                KeyWrap::Rfc3394 => kek.wrap(plaintext, &mut wrapped),
                KeyWrap::Rfc5649 => kek.wrap_with_padding(plaintext, &mut wrapped),
            }
            .map_err(failed)?;
        }
    }
    Ok(wrapped)
}

/// Unwraps `wrapped` with `kek` and checks its integrity.
///
/// # Errors
/// `CKR_KEY_SIZE_RANGE` for the `kek`, `CKR_ENCRYPTED_DATA_LEN_RANGE` for a length that cannot be,
/// `CKR_ENCRYPTED_DATA_INVALID` when it was wrapped with another key or changed. C_UnwrapKey says
/// `CKR_WRAPPED_KEY_LEN_RANGE` and `CKR_WRAPPED_KEY_INVALID` instead.
pub fn unwrap(method: KeyWrap, kek: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let shortest = match method {
        KeyWrap::Rfc3394 => 3 * HALF,
        KeyWrap::Rfc5649 => 2 * HALF,
    };
    if wrapped.len() < shortest || !wrapped.len().is_multiple_of(HALF) {
        refuse!(
            CKR_ENCRYPTED_DATA_LEN_RANGE,
            "a wrapped key has a multiple of {HALF} bytes from {shortest} on, got {}",
            wrapped.len()
        );
    }
    // aws-lc asks for as much room as the wrapped key has.
    let mut buffer = Zeroizing::new(vec![0; wrapped.len()]);
    let length = match Kek::new(kek)? {
        Kek::AwsLc(kek) => match method {
            KeyWrap::Rfc3394 => kek.unwrap(wrapped, &mut buffer),
            KeyWrap::Rfc5649 => kek.unwrap_with_padding(wrapped, &mut buffer),
        }
        .map(|plaintext| plaintext.len())
        .map_err(|_| damaged())?,
        Kek::Aes192(kek) => match method {
            KeyWrap::Rfc3394 => {
                let length = wrapped.len() - HALF;
                kek.unwrap(wrapped, &mut buffer[..length]).map(|()| length)
            }
            KeyWrap::Rfc5649 => {
                let room = wrapped.len() - HALF;
                kek.unwrap_with_padding(wrapped, &mut buffer[..room]).map(<[u8]>::len)
            }
        }
        .map_err(|_| damaged())?,
    };
    Ok(Zeroizing::new(buffer[..length].to_vec()))
}

/// aws-lc-rs wraps with 128 and 256 bits, `aes-kw` steps in for 192.
enum Kek {
    AwsLc(AesKek),
    Aes192(Box<KekAes192>),
}

impl Kek {
    fn new(key: &[u8]) -> Result<Kek> {
        match key.len() {
            16 => AesKek::new(&AES_128, key).map(Kek::AwsLc).map_err(failed),
            32 => AesKek::new(&AES_256, key).map(Kek::AwsLc).map_err(failed),
            24 => KekAes192::try_from(key).map(Box::new).map(Kek::Aes192).map_err(failed),
            other => Err(key_size(other)),
        }
    }
}

fn damaged() -> Error {
    Error::new(CKR_ENCRYPTED_DATA_INVALID, "the wrapped key does not unwrap with this AES key")
}
