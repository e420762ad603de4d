//! Key material and what can be done with it, by OpenSSL.
//!
//! Every function takes the contract's algorithm names and the bytes of the request, and answers
//! bytes of the response. Nothing here knows about names, versions, permissions or JSON.

mod aes;
mod ec;
mod jwk;
mod rsa;
mod stored;
mod transfer;
pub mod x509;

use akv_wire::{
    Curve, Digest, EncryptionAlgorithm, JsonWebKey, KeyType, LEGACY_CURVE, SignatureAlgorithm,
};
use openssl::bn::BigNum;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::md::{Md, MdRef};
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use zeroize::Zeroizing;

pub use jwk::JwkFault;
pub use x509::add_months;

/// A private or secret key.
pub enum Material {
    /// RSA pair; the public integers exactly as they were given or made.
    Rsa {
        /// The pair.
        key: PKey<Private>,
        /// Modulus and exponent as they are shown.
        public: JsonWebKey,
        /// Modulus length in bytes.
        len: usize,
    },
    /// Elliptic-curve pair; the coordinates exactly as they were given or made.
    Ec {
        /// The pair.
        key: PKey<Private>,
        /// Coordinates as they are shown.
        public: JsonWebKey,
        /// The curve.
        curve: Curve,
    },
    /// Secret bytes.
    Oct(Zeroizing<Vec<u8>>),
}

/// Why the material refuses.
#[derive(Debug)]
pub enum Fault {
    /// The algorithm is not one of this kind of key.
    WrongKey,
    /// An ECDSA algorithm of another curve.
    WrongCurve {
        /// The key's curve.
        key: Curve,
    },
    /// The input has a length the algorithm does not take.
    Length {
        /// The request member.
        member: &'static str,
        /// Bytes given.
        given: usize,
        /// Bytes wanted, where it is one number.
        want: Option<usize>,
    },
    /// A request member the algorithm needs is missing.
    Missing(&'static str),
    /// The ciphertext does not decrypt under this key.
    Undecryptable,
    /// OpenSSL failed where it should not.
    Internal(ErrorStack),
}

/// What an encryption produces.
#[derive(Default)]
pub struct Encrypted {
    /// Ciphertext.
    pub value: Vec<u8>,
    /// Initialisation vector used.
    pub iv: Option<Vec<u8>>,
    /// Authentication tag.
    pub tag: Option<Vec<u8>>,
}

/// Input of an encryption or decryption.
#[derive(Clone, Copy)]
pub struct CipherInput<'a> {
    /// Plaintext or ciphertext.
    pub value: &'a [u8],
    /// Initialisation vector.
    pub iv: Option<&'a [u8]>,
    /// Additional data.
    pub aad: Option<&'a [u8]>,
    /// Authentication tag.
    pub tag: Option<&'a [u8]>,
}

impl From<ErrorStack> for Fault {
    fn from(stack: ErrorStack) -> Self {
        Self::Internal(stack)
    }
}

impl Material {
    /// Makes an RSA pair of `bits` with public exponent `exponent`.
    pub fn generate_rsa(bits: u32, exponent: u64) -> Result<Self, ErrorStack> {
        rsa::generate(bits, exponent)
    }

    /// Makes a pair on `curve`.
    pub fn generate_ec(curve: Curve) -> Result<Self, ErrorStack> {
        ec::generate(curve)
    }

    /// Makes a secret key of `bits`.
    pub fn generate_oct(bits: u32) -> Result<Self, ErrorStack> {
        Ok(Self::Oct(Zeroizing::new(random(bits as usize / 8)?)))
    }

    /// The same key, its curve shown by the name that 7.0 replaced.
    pub fn with_legacy_curve(mut self) -> Self {
        if let Self::Ec { public, .. } = &mut self {
            public.crv = Some(LEGACY_CURVE.to_owned());
        }
        self
    }

    /// Reads the private members of a JSON web key.
    pub fn from_jwk(key: &JsonWebKey) -> Result<Self, JwkFault> {
        jwk::read(key)
    }

    /// Takes an RSA or EC pair over, as it comes out of PEM, PKCS#8 or PKCS#12.
    pub fn from_private_key(key: PKey<Private>) -> Result<Self, JwkFault> {
        jwk::adopt(key)
    }

    /// Unwraps a "bring your own key" transfer blob (`CKM_RSA_AES_KEY_WRAP`) with this key.
    pub fn unwrap_transfer(&self, kind: KeyType, ciphertext: &[u8]) -> Result<Self, JwkFault> {
        transfer::unwrap(self, kind, ciphertext)
    }

    /// Wraps `other` for transfer to the holder of `target` (`CKM_RSA_AES_KEY_WRAP`).
    pub fn wrap_transfer(
        &self,
        target: &PKey<openssl::pkey::Public>,
        digest: Digest,
    ) -> Result<Vec<u8>, Fault> {
        transfer::wrap(self, target, digest)
    }

    /// PKCS#8 of a pair, the bytes of a secret key.
    pub fn to_private_bytes(&self) -> Result<Zeroizing<Vec<u8>>, ErrorStack> {
        match self {
            Self::Rsa { key, .. } | Self::Ec { key, .. } => {
                key.private_key_to_pkcs8().map(Zeroizing::new)
            }
            Self::Oct(bytes) => Ok(bytes.clone()),
        }
    }

    /// The pair; `None` for a secret key.
    pub fn private_key(&self) -> Option<&PKey<Private>> {
        match self {
            Self::Rsa { key, .. } | Self::Ec { key, .. } => Some(key),
            Self::Oct(_) => None,
        }
    }

    /// The public key, SubjectPublicKeyInfo; `None` for a secret key.
    pub fn public_der(&self) -> Result<Option<Vec<u8>>, ErrorStack> {
        self.private_key().map(|key| key.public_key_to_der()).transpose()
    }

    /// The public members `n`, `e` or `crv`, `x`, `y`; nothing for a secret key.
    pub fn public(&self) -> JsonWebKey {
        match self {
            Self::Rsa { public, .. } | Self::Ec { public, .. } => public.clone(),
            Self::Oct(_) => JsonWebKey::default(),
        }
    }

    /// The size in bits that the service shows as `key_size`; `None` for EC.
    pub fn bits(&self) -> Option<u32> {
        match self {
            Self::Rsa { len, .. } => Some(*len as u32 * 8),
            Self::Ec { .. } => None,
            Self::Oct(bytes) => Some(bytes.len() as u32 * 8),
        }
    }

    /// The key type, in its software or HSM form.
    pub fn key_type(&self, hsm: bool) -> KeyType {
        let kind = match self {
            Self::Rsa { .. } => KeyType::Rsa,
            Self::Ec { .. } => KeyType::Ec,
            Self::Oct(_) => KeyType::Oct,
        };
        if hsm { kind.hsm() } else { kind }
    }

    /// Signs a digest (RSNULL: the bytes to pad; HMAC: the message).
    pub fn sign(&self, alg: SignatureAlgorithm, digest: &[u8]) -> Result<Vec<u8>, Fault> {
        self.check_signature(alg, "value", digest)?;
        match self {
            Self::Rsa { key, .. } => rsa::sign(key, alg, digest),
            Self::Ec { key, curve, .. } => ec::sign(key, *curve, digest),
            Self::Oct(bytes) => hmac(bytes, alg, digest),
        }
    }

    /// Whether `signature` is one of this key over `digest`.
    pub fn verify(
        &self,
        alg: SignatureAlgorithm,
        digest: &[u8],
        signature: &[u8],
    ) -> Result<bool, Fault> {
        self.check_signature(alg, "digest", digest)?;
        match self {
            Self::Rsa { key, .. } => rsa::verify(key, alg, digest, signature),
            Self::Ec { key, curve, .. } => ec::verify(key, *curve, digest, signature),
            Self::Oct(bytes) => {
                let expected = hmac(bytes, alg, digest)?;
                Ok(expected.len() == signature.len() && openssl::memcmp::eq(&expected, signature))
            }
        }
    }

    /// Encrypts or wraps.
    pub fn encrypt(
        &self,
        alg: EncryptionAlgorithm,
        input: CipherInput<'_>,
    ) -> Result<Encrypted, Fault> {
        match self {
            Self::Rsa { key, len, .. } if alg.is_rsa() => rsa::encrypt(key, *len, alg, input.value),
            Self::Oct(bytes) if !alg.is_rsa() => aes::encrypt(bytes, alg, input),
            _ => Err(Fault::WrongKey),
        }
    }

    /// Decrypts or unwraps.
    pub fn decrypt(
        &self,
        alg: EncryptionAlgorithm,
        input: CipherInput<'_>,
    ) -> Result<Vec<u8>, Fault> {
        match self {
            Self::Rsa { key, len, .. } if alg.is_rsa() => rsa::decrypt(key, *len, alg, input.value),
            Self::Oct(bytes) if !alg.is_rsa() => aes::decrypt(bytes, alg, input),
            _ => Err(Fault::WrongKey),
        }
    }

    /// Algorithm against key, then digest length against algorithm.
    fn check_signature(
        &self,
        alg: SignatureAlgorithm,
        member: &'static str,
        digest: &[u8],
    ) -> Result<(), Fault> {
        match self {
            Self::Rsa { .. } if alg.is_rsa() => {}
            Self::Oct(_) if alg.is_hmac() => {}
            Self::Ec { curve, .. } => match alg.curve() {
                Some(wanted) if wanted == *curve => {}
                Some(_) => return Err(Fault::WrongCurve { key: *curve }),
                None => return Err(Fault::WrongKey),
            },
            _ => return Err(Fault::WrongKey),
        }
        let longest = match (self, alg) {
            (Self::Rsa { len, .. }, SignatureAlgorithm::RsNull) => Some(len - 11),
            _ => None,
        };
        match (alg.digest_len(), longest) {
            (Some(want), _) if digest.len() != want => {
                Err(Fault::Length { member, given: digest.len(), want: Some(want) })
            }
            (None, Some(longest)) if digest.len() > longest => {
                Err(Fault::Length { member, given: digest.len(), want: None })
            }
            _ => Ok(()),
        }
    }
}

/// Whether `signature` is one over `digest` under the public members of a JSON web key.
pub fn verify_public(
    key: &JsonWebKey,
    alg: SignatureAlgorithm,
    digest: &[u8],
    signature: &[u8],
) -> Result<bool, JwkFault> {
    let internal = |fault| match fault {
        Fault::Internal(stack) => JwkFault::Internal(stack),
        _ => JwkFault::Inconsistent,
    };
    if let Some(curve) = key.curve() {
        let (x, y) = key.point().ok_or(JwkFault::Inconsistent)?;
        return ec::verify(&ec::public(curve, &x, &y)?, curve, digest, signature).map_err(internal);
    }
    let n = BigNum::from_slice(key.modulus().ok_or(JwkFault::Missing("n"))?)?;
    let e = BigNum::from_slice(key.exponent().ok_or(JwkFault::Missing("e"))?)?;
    let key = PKey::from_rsa(Rsa::from_public_components(n, e)?)?;
    rsa::verify(&key, alg, digest, signature).map_err(internal)
}

/// Random bytes of OpenSSL's generator.
pub fn random(len: usize) -> Result<Vec<u8>, ErrorStack> {
    let mut bytes = vec![0; len];
    openssl::rand::rand_bytes(&mut bytes)?;
    Ok(bytes)
}

fn hmac(key: &[u8], alg: SignatureAlgorithm, message: &[u8]) -> Result<Vec<u8>, Fault> {
    let digest = match alg.digest().ok_or(Fault::WrongKey)? {
        Digest::Sha1 => MessageDigest::sha1(),
        Digest::Sha256 => MessageDigest::sha256(),
        Digest::Sha384 => MessageDigest::sha384(),
        Digest::Sha512 => MessageDigest::sha512(),
    };
    let key = PKey::hmac(key)?;
    Ok(Signer::new(digest, &key)?.sign_oneshot_to_vec(message)?)
}

fn md(digest: Digest) -> &'static MdRef {
    match digest {
        Digest::Sha1 => Md::sha1(),
        Digest::Sha256 => Md::sha256(),
        Digest::Sha384 => Md::sha384(),
        Digest::Sha512 => Md::sha512(),
    }
}
