//! ECDSA on P-521 where the digest's leftmost 521 bits are a number of more than 512: aws-lc-rs
//! signs and verifies what its own hashes can be, whose longest has 64 bytes.

use cryptoki_sys::{CKR_DATA_LEN_RANGE, CKR_FUNCTION_FAILED};
use p521::ecdsa::{
    Signature, SigningKey, VerifyingKey,
    signature::hazmat::{PrehashVerifier, RandomizedPrehashSigner},
};
use rsa::rand_core::OsRng;

use super::{curve::Curve, to_length};
use crate::error::{Error, Result};

/// Signs an integer ([`ecdsa_integer`](super::curve::ecdsa_integer)) with the private value
/// `secret`; r||s of 66 bytes each. The signature's k is random, and the operating system's.
///
/// # Errors
/// `CKR_DATA_LEN_RANGE` on another curve, where no digest is too long.
pub(super) fn sign(curve: Curve, secret: &[u8], integer: &[u8]) -> Result<Vec<u8>> {
    let failed =
        |_| Error::new(CKR_FUNCTION_FAILED, "a P-521 key cannot sign that it could be made of");
    let signer = SigningKey::from_slice(secret).map_err(failed)?;
    let integer = whole(curve, integer)?;
    let signature: Signature =
        signer.sign_prehash_with_rng(&mut OsRng, &integer).map_err(failed)?;
    Ok(signature.to_bytes().to_vec())
}

/// Whether r||s of 66 bytes each is a signature of an integer with the key at `point` (04||X||Y).
///
/// # Errors
/// As [`sign`].
pub(super) fn verifies(
    curve: Curve,
    point: &[u8],
    integer: &[u8],
    signature: &[u8],
) -> Result<bool> {
    let integer = whole(curve, integer)?;
    let signature = Signature::from_slice(signature);
    let key = VerifyingKey::from_sec1_bytes(point);
    Ok(matches!((key, signature), (Ok(key), Ok(sig)) if key.verify_prehash(&integer, &sig).is_ok()))
}

/// The integer as long as the order is: the crate takes its bytes as they are.
fn whole(curve: Curve, integer: &[u8]) -> Result<Vec<u8>> {
    let fits = to_length(integer, curve.field_bytes()).filter(|_| curve == Curve::P521);
    fits.ok_or_else(|| {
        let sentence = format!("{} bytes for ECDSA on {}", integer.len(), curve.name());
        Error::new(CKR_DATA_LEN_RANGE, sentence)
    })
}
