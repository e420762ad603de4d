//! A point of a curve, and ECDSA verification with it.

use aws_lc_rs::signature::ParsedPublicKey;
use cryptoki_sys::{CKR_PUBLIC_KEY_INVALID, CKR_SIGNATURE_INVALID, CKR_SIGNATURE_LEN_RANGE};
use once_cell::race::OnceBox;

use super::{
    curve::{Curve, ecdsa_integer},
    long_digest, to_length, without_leading_zeros,
};
use crate::{
    error::{Error, Result},
    refuse,
};

pub(super) struct EcPublic {
    curve: Curve,
    /// 04||X||Y.
    point: Box<[u8]>,
    /// Made when it is needed: of thousands of keys that a search finds, few are used.
    parsed: OnceBox<ParsedPublicKey>,
}

impl EcPublic {
    pub(super) fn new(curve: Curve, x: &[u8], y: &[u8]) -> Result<EcPublic> {
        let mut point = vec![4];
        for (name, coordinate) in [("x", x), ("y", y)] {
            let Some(padded) = to_length(coordinate, curve.field_bytes()) else {
                refuse!(
                    CKR_PUBLIC_KEY_INVALID,
                    "the coordinate {name} has {} significant bytes, a coordinate of {} at most {}",
                    without_leading_zeros(coordinate).len(),
                    curve.name(),
                    curve.field_bytes()
                );
            };
            point.extend_from_slice(&padded);
        }
        // Checks that the coordinates are below the prime and that the point is on the curve.
        parse(curve, &point)?;
        Ok(EcPublic { curve, point: point.into(), parsed: OnceBox::new() })
    }

    pub(super) fn curve(&self) -> Curve {
        self.curve
    }

    /// 04||X||Y.
    pub(super) fn point(&self) -> Vec<u8> {
        self.point.to_vec()
    }

    pub(super) fn coordinates(&self) -> (&[u8], &[u8]) {
        self.point[1..].split_at(self.curve.field_bytes())
    }

    pub(super) fn verify(&self, digest: &[u8], signature: &[u8]) -> Result<()> {
        let field = self.curve.field_bytes();
        if signature.is_empty() || signature.len() % 2 == 1 || signature.len() > 2 * field {
            refuse!(
                CKR_SIGNATURE_LEN_RANGE,
                "an ECDSA signature of {} has {} bytes, got {}",
                self.curve.name(),
                2 * field,
                signature.len()
            );
        }
        let integer = ecdsa_integer(self.curve, digest)?;
        let (r, s) = signature.split_at(signature.len() / 2);
        let invalid = || {
            Error::new(
                CKR_SIGNATURE_INVALID,
                format!("the ECDSA signature does not match the {} key", self.curve.name()),
            )
        };
        let fixed = [r, s]
            .into_iter()
            .map(|half| to_length(half, field))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(invalid)?
            .concat();
        let good = match to_length(&integer, self.curve.digest_bytes()) {
            Some(digest) => {
                let digest = self.curve.import_digest(&digest)?;
                let parsed =
                    self.parsed.get_or_try_init(|| parse(self.curve, &self.point).map(Box::new))?;
                parsed.verify_digest_sig(&digest, &fixed).is_ok()
            }
            None => long_digest::verifies(self.curve, &self.point, &integer, &fixed)?,
        };
        if good { Ok(()) } else { Err(invalid()) }
    }
}

fn parse(curve: Curve, point: &[u8]) -> Result<ParsedPublicKey> {
    ParsedPublicKey::new(curve.verification(), point).map_err(|_| {
        let sentence = format!("the coordinates are no point of {}", curve.name());
        Error::new(CKR_PUBLIC_KEY_INVALID, sentence)
    })
}

impl PartialEq for EcPublic {
    fn eq(&self, other: &Self) -> bool {
        self.curve == other.curve && self.point == other.point
    }
}

impl Eq for EcPublic {}
