//! Public keys: their encodings, their identity, and what is done with them here.

use std::{fmt, sync::Arc};

use akv_wire::JsonWebKey;
use cryptoki_sys::{CKR_KEY_TYPE_INCONSISTENT, CKR_PUBLIC_KEY_INVALID};
use der::{
    Decode, Encode,
    asn1::{AnyRef, BitStringRef, ObjectIdentifier, OctetStringRef},
};
use spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

use super::{curve::Curve, ec_public::EcPublic, hash::Hash, rsa_public::RsaPublic};
use crate::{
    error::{Error, Result},
    refuse,
};

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
pub(super) const EC_PUBLIC_KEY: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

/// A public key that was checked when it was made; a clone shares it.
///
/// An operation of the other key type is `CKR_KEY_TYPE_INCONSISTENT`.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(Arc<Material>);

#[derive(PartialEq, Eq)]
enum Material {
    /// Four times as large as the other.
    Rsa(Box<RsaPublic>),
    Ec(EcPublic),
}

/// Making and encoding.
impl PublicKey {
    /// An RSA key of 1024 to 16384 bits from big-endian integers; leading zero bytes, which the
    /// service sends in both, are dropped.
    ///
    /// # Errors
    /// `CKR_KEY_SIZE_RANGE` for another size; `CKR_PUBLIC_KEY_INVALID` for an even modulus or an
    /// exponent that is even, below 3 or above 33 bits.
    pub fn rsa(n: &[u8], e: &[u8]) -> Result<PublicKey> {
        Ok(PublicKey(Arc::new(Material::Rsa(Box::new(RsaPublic::new(n, e)?)))))
    }

    /// A point of `curve` from big-endian coordinates, padded or stripped to the size of the
    /// field: the service sends them as they were imported, a byte long or short.
    ///
    /// # Errors
    /// `CKR_PUBLIC_KEY_INVALID` for a coordinate that is too large or a point off the curve.
    pub fn ec(curve: Curve, x: &[u8], y: &[u8]) -> Result<PublicKey> {
        Ok(PublicKey(Arc::new(Material::Ec(EcPublic::new(curve, x, y)?))))
    }

    /// The public key of a JSON Web Key; None for a secret key.
    ///
    /// # Errors
    /// `CKR_KEY_TYPE_INCONSISTENT` for a type or curve this module does not know, and what
    /// [`PublicKey::rsa`] and [`PublicKey::ec`] refuse.
    pub fn from_jwk(jwk: &JsonWebKey) -> Result<Option<PublicKey>> {
        let unknown = || {
            let sentence = format!("a key of a type this module does not know: {jwk:?}");
            Error::new(CKR_KEY_TYPE_INCONSISTENT, sentence)
        };
        let key_type = jwk.key_type().ok_or_else(unknown)?;
        if key_type.is_rsa() {
            let (Some(n), Some(e)) = (jwk.modulus(), jwk.exponent()) else { return Err(unknown()) };
            return PublicKey::rsa(n, e).map(Some);
        }
        if key_type.is_ec() {
            let curve = jwk.crv.as_deref().and_then(Curve::from_name).ok_or_else(unknown)?;
            let (x, y) = jwk.point().ok_or_else(unknown)?;
            return PublicKey::ec(curve, &x, &y).map(Some);
        }
        Ok(None)
    }

    /// A point of `curve` from 04||X||Y (SEC 1, 2.3.4), optionally inside the DER OCTET STRING
    /// that CKA_EC_POINT has around it.
    ///
    /// # Errors
    /// `CKR_PUBLIC_KEY_INVALID` for anything else, compressed points included.
    pub fn from_ec_point(curve: Curve, point: &[u8]) -> Result<PublicKey> {
        let size = curve.field_bytes();
        // 04 is both the tag of an OCTET STRING and the mark of an uncompressed point: the
        // length tells them apart.
        let bare = match OctetStringRef::from_der(point) {
            Ok(inner) if point.len() != 1 + 2 * size => inner.as_bytes(),
            _ => point,
        };
        PublicKey::from_bare_point(curve, bare)
    }

    /// The key of a SubjectPublicKeyInfo (RFC 5280, 4.1) in DER.
    ///
    /// # Errors
    /// `CKR_PUBLIC_KEY_INVALID` for bytes that are none and for another algorithm, and what
    /// [`PublicKey::rsa`], [`PublicKey::from_ec_point`] and [`Curve::from_params`] refuse.
    pub fn from_spki_der(der: &[u8]) -> Result<PublicKey> {
        let invalid = |_| {
            Error::new(
                CKR_PUBLIC_KEY_INVALID,
                "the SubjectPublicKeyInfo is not DER as RFC 5280 asks",
            )
        };
        let spki = SubjectPublicKeyInfoRef::from_der(der).map_err(invalid)?;
        let bits = spki.subject_public_key.as_bytes().ok_or_else(|| {
            Error::new(
                CKR_PUBLIC_KEY_INVALID,
                "the subjectPublicKey is not a whole number of bytes",
            )
        })?;
        match spki.algorithm.oid {
            // RFC 3279, 2.3.1: parameters are NULL; some writers leave them out.
            RSA_ENCRYPTION if spki.algorithm.parameters.is_none_or(|any| any == AnyRef::NULL) => {
                let key = rsa::pkcs1::RsaPublicKey::from_der(bits).map_err(invalid)?;
                PublicKey::rsa(key.modulus.as_bytes(), key.public_exponent.as_bytes())
            }
            EC_PUBLIC_KEY => {
                let params = spki.algorithm.parameters.map(|params| params.to_der());
                let params = params.transpose().map_err(invalid)?.unwrap_or_default();
                PublicKey::from_bare_point(Curve::from_params(&params)?, bits)
            }
            other => refuse!(
                CKR_PUBLIC_KEY_INVALID,
                "a public key of the algorithm {other}, or its parameters, is neither RSA nor EC"
            ),
        }
    }

    /// The SubjectPublicKeyInfo in DER: CKA_PUBLIC_KEY_INFO, and what PEM files hold.
    pub fn spki_der(&self) -> Vec<u8> {
        let bits = self.subject_public_key_bits();
        let curve = self.curve().map(Curve::oid);
        let algorithm = match &curve {
            Some(oid) => {
                AlgorithmIdentifierRef { oid: EC_PUBLIC_KEY, parameters: Some(AnyRef::from(oid)) }
            }
            None => AlgorithmIdentifierRef { oid: RSA_ENCRYPTION, parameters: Some(AnyRef::NULL) },
        };
        // DER only fails beyond 256 MiB; the largest key has 4 KiB.
        BitStringRef::from_bytes(&bits)
            .and_then(|subject_public_key| {
                SubjectPublicKeyInfoRef { algorithm, subject_public_key }.to_der()
            })
            .unwrap_or_default()
    }

    /// The content of the subjectPublicKey BIT STRING: RSAPublicKey in DER, or 04||X||Y.
    pub fn subject_public_key_bits(&self) -> Vec<u8> {
        match &*self.0 {
            Material::Rsa(key) => key.pkcs1_der(),
            Material::Ec(key) => key.point(),
        }
    }

    /// The subject key identifier of RFC 5280, 4.2.1.2 (1): SHA-1 of
    /// [`PublicKey::subject_public_key_bits`]. It is the CKA_ID of the key and its certificate.
    pub fn key_id(&self) -> [u8; 20] {
        use sha1::Digest as _;
        sha1::Sha1::digest(self.subject_public_key_bits()).into()
    }

    /// Whether this is an RSA key; it is an EC key otherwise.
    pub fn is_rsa(&self) -> bool {
        matches!(&*self.0, Material::Rsa(_))
    }

    /// The curve of an EC key.
    pub fn curve(&self) -> Option<Curve> {
        match &*self.0 {
            Material::Rsa(_) => None,
            Material::Ec(key) => Some(key.curve()),
        }
    }

    /// CKA_EC_POINT of an EC key: the DER OCTET STRING around 04||X||Y.
    pub fn ec_point_der(&self) -> Option<Vec<u8>> {
        self.curve()?;
        OctetStringRef::new(&self.subject_public_key_bits()).and_then(|point| point.to_der()).ok()
    }

    /// X and Y of an EC key, each [`Curve::field_bytes`] long.
    pub fn coordinates(&self) -> Option<(&[u8], &[u8])> {
        match &*self.0 {
            Material::Rsa(_) => None,
            Material::Ec(key) => Some(key.coordinates()),
        }
    }

    /// CKA_MODULUS of an RSA key: big-endian, no leading zero bytes.
    pub fn modulus(&self) -> Option<&[u8]> {
        match &*self.0 {
            Material::Rsa(key) => Some(key.modulus()),
            Material::Ec(_) => None,
        }
    }

    /// CKA_PUBLIC_EXPONENT of an RSA key: big-endian, no leading zero bytes.
    pub fn exponent(&self) -> Option<&[u8]> {
        match &*self.0 {
            Material::Rsa(key) => Some(key.exponent()),
            Material::Ec(_) => None,
        }
    }

    /// Bits of the modulus, or of the curve.
    pub fn size_bits(&self) -> usize {
        match &*self.0 {
            Material::Rsa(key) => key.size_bits(),
            Material::Ec(key) => key.curve().bits(),
        }
    }

    /// Bytes of an RSA modulus (`k` of RFC 8017): the length of a ciphertext and of a signature.
    pub fn modulus_len(&self) -> Option<usize> {
        self.modulus().map(<[u8]>::len)
    }

    /// Bytes of a signature: those of the modulus, or r and s of the curve.
    pub fn signature_len(&self) -> usize {
        match &*self.0 {
            Material::Rsa(key) => key.modulus().len(),
            Material::Ec(key) => 2 * key.curve().field_bytes(),
        }
    }
}

/// Using. Every length rule that does not hold is `CKR_DATA_LEN_RANGE` for the input and
/// `CKR_SIGNATURE_LEN_RANGE` for the signature; a signature that is none is
/// `CKR_SIGNATURE_INVALID`.
impl PublicKey {
    /// Verifies what CKM_RSA_PKCS signed: `content` is a DigestInfo or anything else of at most
    /// `k - 11` bytes, compared whole.
    pub fn verify_pkcs1(&self, content: &[u8], signature: &[u8]) -> Result<()> {
        self.as_rsa()?.verify_pkcs1(content, signature)
    }

    /// Verifies an RSASSA-PSS signature over `digest`, which is a digest of `hash`; the salt has
    /// exactly `salt_len` bytes.
    ///
    /// # Errors
    /// Also `CKR_MECHANISM_PARAM_INVALID` when `mgf` is not `hash` or the salt does not fit.
    pub fn verify_pss(
        &self,
        hash: Hash,
        mgf: Hash,
        salt_len: usize,
        digest: &[u8],
        signature: &[u8],
    ) -> Result<()> {
        self.as_rsa()?.verify_pss(hash, mgf, salt_len, digest, signature)
    }

    /// Verifies an ECDSA signature over a digest of any length but 0; `signature` is r||s in halves
    /// of equal length, at most [`Curve::field_bytes`] each, as PKCS#11 allows shorter ones here.
    pub fn verify_ecdsa(&self, digest: &[u8], signature: &[u8]) -> Result<()> {
        match &*self.0 {
            Material::Ec(key) => key.verify(digest, signature),
            Material::Rsa(_) => refuse!(CKR_KEY_TYPE_INCONSISTENT, "ECDSA with {self:?}"),
        }
    }

    /// What a CKM_RSA_PKCS signature was made over (C_VerifyRecover): the content behind the
    /// type-1 padding.
    pub fn recover_pkcs1(&self, signature: &[u8]) -> Result<Vec<u8>> {
        self.as_rsa()?.recover_pkcs1(signature)
    }

    /// The bare RSA operation of CKM_RSA_X_509: `block`, at most `k` bytes and padded with zero
    /// bytes on the left, to the power of the exponent, as `k` bytes.
    ///
    /// # Errors
    /// `CKR_DATA_LEN_RANGE` for a longer block, `CKR_DATA_INVALID` for one that is not smaller
    /// than the modulus.
    pub fn raw(&self, block: &[u8]) -> Result<Vec<u8>> {
        self.as_rsa()?.raw(block)
    }

    /// RSAES-PKCS1-v1_5 encryption of at most `k - 11` bytes.
    pub fn encrypt_pkcs1(&self, data: &[u8]) -> Result<Vec<u8>> {
        self.as_rsa()?.encrypt_pkcs1(data)
    }

    /// RSAES-OAEP encryption of at most `k - 2 * hash.len() - 2` bytes.
    ///
    /// # Errors
    /// Also `CKR_MECHANISM_PARAM_INVALID` for a label that is no UTF-8 where `mgf` is not `hash`
    /// or `hash` is SHA-224 or a SHA-3.
    pub fn encrypt_oaep(
        &self,
        hash: Hash,
        mgf: Hash,
        label: &[u8],
        data: &[u8],
    ) -> Result<Vec<u8>> {
        self.as_rsa()?.encrypt_oaep(hash, mgf, label, data)
    }

    /// A point from 04||X||Y.
    fn from_bare_point(curve: Curve, point: &[u8]) -> Result<PublicKey> {
        let size = curve.field_bytes();
        match point.split_first() {
            Some((4, coordinates)) if coordinates.len() == 2 * size => {
                let (x, y) = coordinates.split_at(size);
                PublicKey::ec(curve, x, y)
            }
            _ => refuse!(
                CKR_PUBLIC_KEY_INVALID,
                "{} bytes are no uncompressed point of {}; it has {} bytes, the first is 04",
                point.len(),
                curve.name(),
                1 + 2 * size
            ),
        }
    }

    fn as_rsa(&self) -> Result<&RsaPublic> {
        match &*self.0 {
            Material::Rsa(key) => Ok(key),
            Material::Ec(_) => refuse!(CKR_KEY_TYPE_INCONSISTENT, "RSA with {self:?}"),
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.curve() {
            None => write!(f, "PublicKey(RSA {})", self.size_bits()),
            Some(curve) => write!(f, "PublicKey({})", curve.name()),
        }
    }
}
