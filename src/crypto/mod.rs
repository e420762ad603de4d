//! Local cryptography: everything that never costs a request.
//!
//! Verification, public-key encryption, digests, session keys. Bytes in, bytes out; nothing here
//! knows sessions, templates or HTTP. Errors carry the `CK_RV` the caller of the C function gets.
//!
//! `aws-lc-rs` does the work wherever it has a door: it is in the tree for TLS, it is constant
//! time where that matters and it is fast. The `rsa` crate steps in for what `aws-lc-rs` does not
//! offer (raw blocks, SHA-224 and SHA-3, salts of other lengths, MGF1 with another hash, moduli
//! outside 2048 to 8192 bits); its private operations are always blinded. RUSTSEC-2023-0071 says
//! that its timing may leak the private key to an observer who can measure many operations: it
//! touches session keys of this process only, never a key of the service, and each place says so.
//! `p521` is for the digests that are too long for aws-lc-rs (`long_digest`).

pub mod curve;
pub mod digest_info;
mod ec_private;
mod ec_public;
pub mod hash;
mod implicit;
mod long_digest;
pub mod pkcs12;
pub mod private;
pub mod public;
mod rsa_private;
mod rsa_public;
pub mod symmetric;
#[cfg(test)]
mod tests;

pub use curve::{Curve, ecdsa_input};
pub use digest_info::DigestInfo;
pub use hash::{Hash, Hasher};
pub use implicit::Rejection;
pub use private::{PrivateKey, RsaComponents, RsaInput};
pub use public::PublicKey;
pub use rsa_public::check_oaep_label;

use cryptoki_sys::CKR_RANDOM_NO_RNG;
use rsa::rand_core::{OsRng, RngCore};

use crate::error::{Error, Result};

/// Fills `out` from the operating system's generator.
///
/// The kernel holds the state, so a forked child never repeats its parent's bytes.
///
/// # Errors
/// `CKR_RANDOM_NO_RNG` when the operating system gives none.
pub fn random(out: &mut [u8]) -> Result<()> {
    OsRng.try_fill_bytes(out).map_err(|error| {
        Error::new(
            CKR_RANDOM_NO_RNG,
            format!(
                "the operating system gave no random bytes ({error}); is getrandom(2) blocked?"
            ),
        )
    })
}

/// `bytes` without its leading zero bytes: the form of a big-endian integer in DER and in
/// CKA_MODULUS. Zero is the empty slice.
fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}

/// `integer` as exactly `length` bytes, padded or stripped on the left; `None` if it is larger.
fn to_length(integer: &[u8], length: usize) -> Option<Vec<u8>> {
    let digits = without_leading_zeros(integer);
    let mut padded = vec![0; length.checked_sub(digits.len())?];
    padded.extend_from_slice(digits);
    Some(padded)
}
