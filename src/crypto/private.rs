//! Private keys of this process: session key pairs, and keys on their way into the service.

use std::{fmt, sync::Arc};

use cryptoki_sys::{CKR_ATTRIBUTE_VALUE_INVALID, CKR_KEY_TYPE_INCONSISTENT};
use der::{Decode, Encode};
use zeroize::Zeroizing;

use super::{
    curve::Curve, ec_private::EcPrivate, hash::Hash, public::PublicKey, rsa_private::RsaPrivate,
};
use crate::{
    error::{Error, Result},
    refuse, stack,
};

/// A private key that was checked when it was made; a clone shares it, the last one wipes it.
///
/// An operation of the other key type is `CKR_KEY_TYPE_INCONSISTENT`.
#[derive(Clone)]
pub struct PrivateKey(Arc<Material>);

enum Material {
    Rsa(Box<RsaPrivate>),
    Ec(EcPrivate),
}

/// Big-endian integers of an RSA private key, as a template or a JWK has them; leading zero bytes
/// are ignored.
#[derive(Clone, Copy, Default)]
pub struct RsaInput<'a> {
    /// CKA_MODULUS.
    pub n: &'a [u8],
    /// CKA_PUBLIC_EXPONENT.
    pub e: &'a [u8],
    /// CKA_PRIVATE_EXPONENT.
    pub d: &'a [u8],
    /// CKA_PRIME_1. Both primes or none; without them they are computed from n, e and d.
    pub p: Option<&'a [u8]>,
    /// CKA_PRIME_2.
    pub q: Option<&'a [u8]>,
    /// CKA_EXPONENT_1: d mod (p - 1). Like the other two it is computed, and compared if given.
    pub dp: Option<&'a [u8]>,
    /// CKA_EXPONENT_2: d mod (q - 1).
    pub dq: Option<&'a [u8]>,
    /// CKA_COEFFICIENT: 1 / q mod p.
    pub qi: Option<&'a [u8]>,
}

/// All integers of an RSA private key, big-endian without leading zero bytes: the members of a
/// JWK for import.
#[allow(missing_docs, reason = "the members of the JWK (RFC 7518, 6.3), as in `RsaInput`")]
pub struct RsaComponents {
    pub n: Vec<u8>,
    pub e: Vec<u8>,
    pub d: Zeroizing<Vec<u8>>,
    pub p: Zeroizing<Vec<u8>>,
    pub q: Zeroizing<Vec<u8>>,
    pub dp: Zeroizing<Vec<u8>>,
    pub dq: Zeroizing<Vec<u8>>,
    pub qi: Zeroizing<Vec<u8>>,
}

/// Making and encoding.
impl PrivateKey {
    /// A new RSA key of 2048, 3072 or 4096 bits with the public exponent 65537, which is
    /// big-endian with any number of leading zero bytes.
    ///
    /// Another exponent is refused: aws-lc-rs and the service generate with 65537 only, and a
    /// second generator would be code for a request that nobody has.
    ///
    /// # Errors
    /// `CKR_KEY_SIZE_RANGE`, `CKR_ATTRIBUTE_VALUE_INVALID` (the exponent).
    pub fn generate_rsa(bits: usize, public_exponent: &[u8]) -> Result<PrivateKey> {
        Ok(RsaPrivate::generate(bits, public_exponent)?.into())
    }

    /// A new key on `curve`.
    pub fn generate_ec(curve: Curve) -> Result<PrivateKey> {
        Ok(EcPrivate::generate(curve)?.into())
    }

    /// The RSA key of 2048 to 8192 bits with these integers; what is missing is computed.
    ///
    /// # Errors
    /// `CKR_KEY_SIZE_RANGE`; `CKR_ATTRIBUTE_VALUE_INVALID` for integers that are no key or do not
    /// belong together, and without primes for an exponent below 65537.
    pub fn from_rsa_components(components: RsaInput<'_>) -> Result<PrivateKey> {
        Ok(RsaPrivate::from_components(components)?.into())
    }

    /// The key on `curve` with the private value `d`, big-endian, padded or stripped to the
    /// curve's length; the public point is computed.
    ///
    /// # Errors
    /// `CKR_ATTRIBUTE_VALUE_INVALID` for zero and for a value not below the order.
    pub fn from_ec(curve: Curve, d: &[u8]) -> Result<PrivateKey> {
        Ok(EcPrivate::from_secret(curve, d)?.into())
    }

    /// The key of an unencrypted PrivateKeyInfo (PKCS#8, RFC 5208) in DER.
    ///
    /// # Errors
    /// `CKR_ATTRIBUTE_VALUE_INVALID` for bytes that are none and for another algorithm;
    /// `CKR_KEY_SIZE_RANGE`; what [`Curve::from_params`] refuses.
    pub fn from_pkcs8(der: &[u8]) -> Result<PrivateKey> {
        let invalid =
            |_| Error::new(CKR_ATTRIBUTE_VALUE_INVALID, "the private key is not PKCS#8 in DER");
        let info = rsa::pkcs8::PrivateKeyInfo::from_der(der).map_err(invalid)?;
        match info.algorithm.oid {
            rsa::pkcs1::ALGORITHM_OID => Ok(RsaPrivate::from_pkcs8(der)?.into()),
            super::public::EC_PUBLIC_KEY => {
                let params = info.algorithm.parameters.map(|params| params.to_der());
                let params = params.transpose().map_err(invalid)?.unwrap_or_default();
                Ok(EcPrivate::from_pkcs8(Curve::from_params(&params)?, der)?.into())
            }
            other => refuse!(
                CKR_ATTRIBUTE_VALUE_INVALID,
                "a private key of the algorithm {other} is neither RSA nor EC"
            ),
        }
    }

    /// The unencrypted PrivateKeyInfo (PKCS#8, RFC 5208) in DER: what C_WrapKey wraps.
    pub fn pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>> {
        match self.material() {
            Material::Rsa(key) => key.pkcs8_der(),
            Material::Ec(key) => key.pkcs8_der(),
        }
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        match &*self.0 {
            Material::Rsa(key) => key.public().clone(),
            Material::Ec(key) => key.public().clone(),
        }
    }

    /// All integers of an RSA key.
    pub fn rsa_components(&self) -> Result<RsaComponents> {
        self.as_rsa()?.components()
    }

    /// The private value of an EC key, big-endian, [`Curve::field_bytes`] long: `d` of a JWK and
    /// CKA_VALUE.
    pub fn ec_secret(&self) -> Result<Zeroizing<Vec<u8>>> {
        self.as_ec()?.secret()
    }
}

/// Using. A length that does not fit is `CKR_DATA_LEN_RANGE`, of a ciphertext
/// `CKR_ENCRYPTED_DATA_LEN_RANGE`; a ciphertext that does not decrypt is always the same
/// `CKR_ENCRYPTED_DATA_INVALID`, whatever was wrong with it.
impl PrivateKey {
    /// RSASSA-PKCS1-v1_5 over `content` of at most `k - 11` bytes as it is: a DigestInfo, or
    /// anything else (CKM_RSA_PKCS).
    pub fn sign_pkcs1(&self, content: &[u8]) -> Result<Vec<u8>> {
        self.as_rsa()?.sign_pkcs1(content)
    }

    /// RSASSA-PSS over `digest`, which is a digest of `hash`, with a salt of `salt_len` bytes.
    ///
    /// # Errors
    /// Also `CKR_MECHANISM_PARAM_INVALID` when `mgf` is not `hash` or the salt does not fit.
    pub fn sign_pss(
        &self,
        hash: Hash,
        mgf: Hash,
        salt_len: usize,
        digest: &[u8],
    ) -> Result<Vec<u8>> {
        self.as_rsa()?.sign_pss(hash, mgf, salt_len, digest)
    }

    /// ECDSA over a digest of any length but 0; r||s, each [`Curve::field_bytes`] long.
    pub fn sign_ecdsa(&self, digest: &[u8]) -> Result<Vec<u8>> {
        self.as_ec()?.sign(digest)
    }

    /// RSAES-PKCS1-v1_5 decryption.
    ///
    /// The caller must answer every failure alike: telling a bad padding apart is the oracle of
    /// Bleichenbacher. For unwrapping use [`PrivateKey::decrypt_pkcs1_implicit`].
    pub fn decrypt_pkcs1(&self, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        self.as_rsa()?.decrypt_pkcs1(ciphertext)
    }

    /// RSAES-PKCS1-v1_5 decryption of a key of one of `lengths` bytes with implicit rejection: a
    /// ciphertext with bad padding or another length gives bytes of one of those lengths that look
    /// random and are the same each time.
    pub fn decrypt_pkcs1_implicit(
        &self,
        ciphertext: &[u8],
        lengths: &[usize],
    ) -> Result<Zeroizing<Vec<u8>>> {
        self.as_rsa()?.decrypt_pkcs1_implicit(ciphertext, lengths)
    }

    /// RSAES-OAEP decryption.
    ///
    /// # Errors
    /// Also `CKR_MECHANISM_PARAM_INVALID` as [`PublicKey::encrypt_oaep`].
    pub fn decrypt_oaep(
        &self,
        hash: Hash,
        mgf: Hash,
        label: &[u8],
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        self.as_rsa()?.decrypt_oaep(hash, mgf, label, ciphertext)
    }

    /// The bare RSA operation of CKM_RSA_X_509 for signing and decryption: `block`, at most `k`
    /// bytes, to the power of the private exponent, as `k` bytes.
    ///
    /// # Errors
    /// `CKR_DATA_LEN_RANGE` for a longer block, `CKR_DATA_INVALID` for one that is not smaller
    /// than the modulus.
    pub fn raw(&self, block: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        self.as_rsa()?.raw(block)
    }

    fn as_rsa(&self) -> Result<&RsaPrivate> {
        match self.material() {
            Material::Rsa(key) => Ok(key),
            Material::Ec(_) => refuse!(CKR_KEY_TYPE_INCONSISTENT, "RSA with {self:?}"),
        }
    }

    fn as_ec(&self) -> Result<&EcPrivate> {
        match self.material() {
            Material::Ec(key) => Ok(key),
            Material::Rsa(_) => refuse!(CKR_KEY_TYPE_INCONSISTENT, "ECDSA with {self:?}"),
        }
    }

    fn of(material: Material) -> PrivateKey {
        stack::touched();
        PrivateKey(Arc::new(material))
    }

    fn material(&self) -> &Material {
        stack::touched();
        &self.0
    }
}

impl From<RsaPrivate> for PrivateKey {
    fn from(key: RsaPrivate) -> Self {
        PrivateKey::of(Material::Rsa(Box::new(key)))
    }
}

impl From<EcPrivate> for PrivateKey {
    fn from(key: EcPrivate) -> Self {
        PrivateKey::of(Material::Ec(key))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let public = self.public();
        match public.curve() {
            None => write!(f, "PrivateKey(RSA {})", public.size_bits()),
            Some(curve) => write!(f, "PrivateKey({})", curve.name()),
        }
    }
}

impl fmt::Debug for RsaInput<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RsaInput").finish_non_exhaustive()
    }
}

impl fmt::Debug for RsaComponents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RsaComponents").finish_non_exhaustive()
    }
}
