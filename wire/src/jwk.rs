//! JSON web keys as the service writes them, quirks included.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base64url::Base64Url;
use crate::names::names;

/// secp256k1 as versions before 7.0 called it.
pub const LEGACY_CURVE: &str = "SECP256K1";

names! {
    /// `kty`. A Managed HSM turns every kind into its `-HSM` form.
    KeyType, "key type" {
        /// RSA, software-protected.
        Rsa = "RSA",
        /// RSA, HSM-protected.
        RsaHsm = "RSA-HSM",
        /// Elliptic curve, software-protected.
        Ec = "EC",
        /// Elliptic curve, HSM-protected.
        EcHsm = "EC-HSM",
        /// Secret key, software-protected (2026 previews of the vault; answered as `oct-HSM` by a
        /// Managed HSM).
        Oct = "oct",
        /// Secret key, HSM-protected.
        OctHsm = "oct-HSM",
    }
}

names! {
    /// `crv`.
    Curve, "curve" {
        /// NIST P-256.
        P256 = "P-256",
        /// secp256k1; `SECP256K1` on keys made before 7.0.
        P256K = "P-256K" | "SECP256K1",
        /// NIST P-384.
        P384 = "P-384",
        /// NIST P-521.
        P521 = "P-521",
    }
}

impl KeyType {
    /// The `-HSM` form of the same kind.
    pub const fn hsm(self) -> Self {
        match self {
            Self::Rsa | Self::RsaHsm => Self::RsaHsm,
            Self::Ec | Self::EcHsm => Self::EcHsm,
            Self::Oct | Self::OctHsm => Self::OctHsm,
        }
    }

    /// Whether the key lives in an HSM.
    pub const fn is_hsm(self) -> bool {
        matches!(self, Self::RsaHsm | Self::EcHsm | Self::OctHsm)
    }

    /// Whether this is RSA, of either protection.
    pub const fn is_rsa(self) -> bool {
        matches!(self, Self::Rsa | Self::RsaHsm)
    }

    /// Whether this is an elliptic-curve key, of either protection.
    pub const fn is_ec(self) -> bool {
        matches!(self, Self::Ec | Self::EcHsm)
    }

    /// Whether this is a secret key, of either protection.
    pub const fn is_oct(self) -> bool {
        matches!(self, Self::Oct | Self::OctHsm)
    }
}

impl Curve {
    /// Bytes of a field element: of each coordinate, and of each half of a signature.
    pub const fn field_len(self) -> usize {
        match self {
            Self::P256 | Self::P256K => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

/// A JSON web key: public members in responses, private ones in imports.
///
/// Integers are unsigned big-endian. Responses may pad them with leading zeros or drop zeros
/// (`e` = 00 01 00 01, `n` with a sign byte, coordinates one byte too long or too short): read
/// them through [`JsonWebKey::modulus`], [`JsonWebKey::exponent`] and [`JsonWebKey::point`].
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JsonWebKey {
    /// Key identifier: `https://{host}/keys/{name}/{version}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// Key type, an open set; see [`JsonWebKey::key_type`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kty: Option<String>,
    /// Allowed operations: an open set in no particular order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_ops: Option<Vec<String>>,
    /// RSA modulus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<Base64Url>,
    /// RSA public exponent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub e: Option<Base64Url>,
    /// Curve name, an open set; see [`JsonWebKey::curve`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crv: Option<String>,
    /// X coordinate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x: Option<Base64Url>,
    /// Y coordinate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub y: Option<Base64Url>,
    /// RSA private exponent or EC private scalar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub d: Option<Base64Url>,
    /// d mod (p - 1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dp: Option<Base64Url>,
    /// d mod (q - 1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dq: Option<Base64Url>,
    /// The inverse of q modulo p.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qi: Option<Base64Url>,
    /// First prime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p: Option<Base64Url>,
    /// Second prime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub q: Option<Base64Url>,
    /// Value of a secret key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k: Option<Base64Url>,
    /// "Bring your own key": a JSON transfer blob under a key encryption key of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_hsm: Option<Base64Url>,
}

impl JsonWebKey {
    /// `kty`, when it is one this contract knows.
    pub fn key_type(&self) -> Option<KeyType> {
        self.kty.as_deref()?.parse().ok()
    }

    /// `crv`, when it is one this contract knows.
    pub fn curve(&self) -> Option<Curve> {
        self.crv.as_deref()?.parse().ok()
    }

    /// Whether it is a key on secp256k1 from before 7.0: it shows the curve as `SECP256K1`, and
    /// signs with [`SignatureAlgorithm::Ecdsa256`](crate::SignatureAlgorithm) only.
    pub fn is_legacy(&self) -> bool {
        self.crv.as_deref() == Some(LEGACY_CURVE)
    }

    /// The RSA modulus without leading zero bytes.
    pub fn modulus(&self) -> Option<&[u8]> {
        self.n.as_ref().map(|n| without_leading_zeros(n.as_bytes()))
    }

    /// The RSA public exponent without leading zero bytes.
    pub fn exponent(&self) -> Option<&[u8]> {
        self.e.as_ref().map(|e| without_leading_zeros(e.as_bytes()))
    }

    /// The public point, each coordinate exactly [`Curve::field_len`] bytes; `None` when the
    /// curve is unknown or a coordinate is missing or too long.
    pub fn point(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let len = self.curve()?.field_len();
        let x = fixed_width(self.x.as_ref()?.as_bytes(), len)?;
        let y = fixed_width(self.y.as_ref()?.as_bytes(), len)?;
        Some((x, y))
    }

    /// The name and version in `kid`, the version empty where `kid` has none.
    pub fn name_and_version(&self) -> Option<(&str, &str)> {
        crate::key::name_and_version(self.kid.as_deref()?)
    }
}

impl fmt::Debug for JsonWebKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonWebKey")
            .field("kid", &self.kid)
            .field("kty", &self.kty)
            .field("crv", &self.crv)
            .field("key_ops", &self.key_ops)
            .finish_non_exhaustive()
    }
}

/// Strips leading zero bytes of a big-endian unsigned integer (zero becomes empty).
pub fn without_leading_zeros(integer: &[u8]) -> &[u8] {
    let zeros = integer.iter().take_while(|byte| **byte == 0).count();
    &integer[zeros..]
}

/// A big-endian unsigned integer as exactly `len` bytes: zeros stripped or added on the left.
/// `None` when the value does not fit.
pub fn fixed_width(integer: &[u8], len: usize) -> Option<Vec<u8>> {
    let digits = without_leading_zeros(integer);
    let mut bytes = vec![0; len.checked_sub(digits.len())?];
    bytes.extend_from_slice(digits);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_lose_and_gain_zeros() {
        assert_eq!(without_leading_zeros(&[0, 1, 0, 1]), [1, 0, 1]);
        assert!(without_leading_zeros(&[0, 0]).is_empty());
        assert_eq!(fixed_width(&[0, 5], 1), Some(vec![5]));
        assert_eq!(fixed_width(&[5], 3), Some(vec![0, 0, 5]));
        assert_eq!(fixed_width(&[5, 6], 1), None);
    }

    #[test]
    fn recorded_quirks_are_read() {
        let key: JsonWebKey = serde_json::from_str(
            r#"{"kid":"https://h/keys/n/v","kty":"RSA-HSM","e":"AAEAAQ","n":"AP8","new":{}}"#,
        )
        .expect("unknown members are ignored");
        assert_eq!(key.key_type(), Some(KeyType::RsaHsm));
        assert_eq!(key.exponent(), Some(&[1, 0, 1][..]));
        assert_eq!(key.modulus(), Some(&[0xff][..]));
        assert_eq!(key.name_and_version(), Some(("n", "v")));

        let key = JsonWebKey {
            kty: Some("AKP".into()),
            crv: Some("SECP256K1".into()),
            x: Some(Base64Url::new([7])),
            y: Some(Base64Url::new([0; 33])),
            ..JsonWebKey::default()
        };
        assert_eq!(key.key_type(), None);
        let (x, y) = key.point().expect("point");
        assert_eq!((x.len(), y.len(), x[31]), (32, 32, 7));
    }

    #[test]
    fn absent_members_are_omitted() {
        let key = JsonWebKey { kty: Some("EC".into()), ..JsonWebKey::default() };
        assert_eq!(serde_json::to_string(&key).expect("json"), r#"{"kty":"EC"}"#);
    }

    #[test]
    fn debug_hides_private_members() {
        let key = JsonWebKey { d: Some(Base64Url::new(*b"private")), ..JsonWebKey::default() };
        assert!(!format!("{key:?}").contains("private") && !format!("{key:?}").contains(" d:"));
    }
}
