//! The four curves of the service, and what ECDSA makes of a digest of another length.

use aws_lc_rs::{
    digest,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P256K1_SHA256_FIXED,
        ECDSA_P256K1_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
        ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING,
        EcdsaSigningAlgorithm, EcdsaVerificationAlgorithm,
    },
};
use cryptoki_sys::{CKR_CURVE_NOT_SUPPORTED, CKR_DATA_LEN_RANGE, CKR_DOMAIN_PARAMS_INVALID};
use der::{
    Decode, Encode, Tag, Tagged,
    asn1::{AnyRef, ObjectIdentifier, PrintableStringRef},
};

use super::to_length;
use crate::{
    error::{Error, Result},
    refuse,
};

/// A curve of the service: NIST P-256, P-384, P-521, and secp256k1 (`P-256K`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[allow(missing_docs, reason = "the variants are the names of the service")]
pub enum Curve {
    P256,
    P256K,
    P384,
    P521,
}

struct Row {
    curve: Curve,
    /// As in the `crv` member of a JWK, then the other names in use.
    names: &'static [&'static str],
    oid: ObjectIdentifier,
    /// Bits of a coordinate and of the order: equal on all four curves.
    bits: usize,
    /// Bytes of the digest the service signs.
    digest: usize,
}

const ROWS: [Row; 4] = [
    Row {
        curve: Curve::P256,
        names: &["P-256", "secp256r1", "prime256v1"],
        oid: ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7"),
        bits: 256,
        digest: 32,
    },
    Row {
        curve: Curve::P256K,
        names: &["P-256K", "secp256k1", "SECP256K1"],
        oid: ObjectIdentifier::new_unwrap("1.3.132.0.10"),
        bits: 256,
        digest: 32,
    },
    Row {
        curve: Curve::P384,
        names: &["P-384", "secp384r1"],
        oid: ObjectIdentifier::new_unwrap("1.3.132.0.34"),
        bits: 384,
        digest: 48,
    },
    Row {
        curve: Curve::P521,
        names: &["P-521", "secp521r1"],
        oid: ObjectIdentifier::new_unwrap("1.3.132.0.35"),
        bits: 521,
        digest: 64,
    },
];

// `row` indexes by discriminant.
const _: () = {
    let mut index = 0;
    while index < ROWS.len() {
        assert!(ROWS[index].curve as usize == index);
        index += 1;
    }
};

impl Curve {
    /// Every curve, in the order of the table.
    pub const ALL: [Curve; 4] = [Curve::P256, Curve::P256K, Curve::P384, Curve::P521];

    const fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// The name in a JWK: `P-256`, `P-256K`, `P-384`, `P-521`.
    pub const fn name(self) -> &'static str {
        self.row().names[0]
    }

    /// The curve of a JWK's `crv`, of OpenSSL's names and of SEC's.
    pub fn from_name(name: &str) -> Option<Curve> {
        ROWS.iter().find(|row| row.names.contains(&name)).map(|row| row.curve)
    }

    /// The object identifier of the named curve.
    pub const fn oid(self) -> ObjectIdentifier {
        self.row().oid
    }

    /// The curve with this object identifier.
    pub fn from_oid(oid: &ObjectIdentifier) -> Option<Curve> {
        ROWS.iter().find(|row| row.oid == *oid).map(|row| row.curve)
    }

    /// Bits of a coordinate, which is also the size of the key: 256, 256, 384, 521.
    pub const fn bits(self) -> usize {
        self.row().bits
    }

    /// Bytes of a coordinate, of the private value, and of each half of a signature:
    /// 32, 32, 48, 66.
    pub const fn field_bytes(self) -> usize {
        self.row().bits.div_ceil(8)
    }

    /// Bytes of the digest that the service signs: 32, 32, 48, 64.
    pub const fn digest_bytes(self) -> usize {
        self.row().digest
    }

    /// CKA_EC_PARAMS: the DER of the named curve's object identifier.
    pub fn params_der(self) -> Vec<u8> {
        // An OBJECT IDENTIFIER of a constant has no way to fail.
        self.oid().to_der().unwrap_or_default()
    }

    /// The curve of a CKA_EC_PARAMS: a named-curve object identifier or, as PKCS#11 3.0 also
    /// allows, a PrintableString with the curve's name.
    ///
    /// # Errors
    /// `CKR_CURVE_NOT_SUPPORTED` for another curve and for explicit parameters,
    /// `CKR_DOMAIN_PARAMS_INVALID` for bytes that are no EC parameters at all.
    pub fn from_params(params: &[u8]) -> Result<Curve> {
        let invalid =
            |_| Error::new(CKR_DOMAIN_PARAMS_INVALID, "CKA_EC_PARAMS is not the DER of a curve");
        let any = AnyRef::from_der(params).map_err(invalid)?;
        match any.tag() {
            Tag::ObjectIdentifier => {
                let oid = any.decode_as::<ObjectIdentifier>().map_err(invalid)?;
                Curve::from_oid(&oid).ok_or_else(|| unsupported(&oid.to_string()))
            }
            Tag::PrintableString => {
                let name = any.decode_as::<PrintableStringRef<'_>>().map_err(invalid)?;
                Curve::from_name(name.as_str()).ok_or_else(|| unsupported(name.as_str()))
            }
            Tag::Sequence => Err(unsupported("given by explicit parameters")),
            tag => refuse!(
                CKR_DOMAIN_PARAMS_INVALID,
                "CKA_EC_PARAMS is a {tag}; it must be the object identifier of a named curve"
            ),
        }
    }

    pub(super) fn verification(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Curve::P256 => &ECDSA_P256_SHA256_FIXED,
            Curve::P256K => &ECDSA_P256K1_SHA256_FIXED,
            Curve::P384 => &ECDSA_P384_SHA384_FIXED,
            Curve::P521 => &ECDSA_P521_SHA512_FIXED,
        }
    }

    pub(super) fn signing(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Curve::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Curve::P256K => &ECDSA_P256K1_SHA256_FIXED_SIGNING,
            Curve::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
            Curve::P521 => &ECDSA_P521_SHA512_FIXED_SIGNING,
        }
    }

    /// `digest`, already of the service's length, under the hash that [`Curve::signing`] names.
    pub(super) fn import_digest(self, digest: &[u8]) -> Result<digest::Digest> {
        let algorithm = match self {
            Curve::P256 | Curve::P256K => &digest::SHA256,
            Curve::P384 => &digest::SHA384,
            Curve::P521 => &digest::SHA512,
        };
        digest::Digest::import_less_safe(digest, algorithm).map_err(|_| {
            Error::new(
                CKR_DATA_LEN_RANGE,
                format!("{} bytes are no digest for ECDSA on {}", digest.len(), self.name()),
            )
        })
    }
}

/// The integer that ECDSA (FIPS 186-5, 6.4.1) makes of a digest: its leftmost bits, as many as the
/// order has. Big-endian, at most [`Curve::field_bytes`] long.
///
/// # Errors
/// `CKR_DATA_LEN_RANGE` for an empty digest.
pub(super) fn ecdsa_integer(curve: Curve, digest: &[u8]) -> Result<Vec<u8>> {
    if digest.is_empty() {
        refuse!(CKR_DATA_LEN_RANGE, "ECDSA on {} needs a digest, got 0 bytes", curve.name());
    }
    let (order, cut) = (curve.field_bytes(), curve.field_bytes() * 8 - curve.bits());
    Ok(match digest.get(..order) {
        Some(leftmost) => shift_right(leftmost, cut),
        None => digest.to_vec(),
    })
}

/// The digest that gives the same ECDSA signature on `curve` as `digest` does, in exactly the
/// length that the service takes ([`Curve::digest_bytes`]).
///
/// Only the integer of the leftmost bits counts. A longer digest can therefore be cut and a shorter
/// one padded with zero bytes on the left without changing the signature. P-521 is the odd one: its
/// order has 521 bits and the service takes 64 bytes, so up to 64 bytes are padded, and of a longer
/// digest the integer of the leftmost 521 bits must happen to fit 512 bits.
///
/// # Errors
/// `CKR_DATA_LEN_RANGE` for an empty digest, and on P-521 for one whose leftmost 521 bits do not
/// fit 64 bytes.
pub fn ecdsa_input(curve: Curve, digest: &[u8]) -> Result<Vec<u8>> {
    to_length(&ecdsa_integer(curve, digest)?, curve.digest_bytes()).ok_or_else(|| {
        Error::new(
            CKR_DATA_LEN_RANGE,
            format!(
                "the leftmost {} bits of these {} bytes do not fit the {} bytes that the service \
                 signs with {}; use a hash of at most {} bytes",
                curve.bits(),
                digest.len(),
                curve.digest_bytes(),
                curve.name(),
                curve.digest_bytes(),
            ),
        )
    })
}

/// The big-endian integer `bytes` shifted right by `bits`, which is less than 8.
fn shift_right(bytes: &[u8], bits: usize) -> Vec<u8> {
    let mut above = 0u16;
    bytes
        .iter()
        .map(|byte| {
            let pair = (above << 8) | u16::from(*byte);
            above = u16::from(*byte);
            // The low byte of the pair is what is wanted.
            ((pair >> bits) & 0xff) as u8
        })
        .collect()
}

fn unsupported(curve: &str) -> Error {
    let known: Vec<_> = Curve::ALL.iter().map(|curve| curve.name()).collect();
    Error::new(
        CKR_CURVE_NOT_SUPPORTED,
        format!("the curve {curve} is not supported; the service has {}", known.join(", ")),
    )
}
