//! Algorithm names (`JsonWebKeySignatureAlgorithm`, `JsonWebKeyEncryptionAlgorithm`) and what
//! each one fixes.

use crate::jwk::Curve;
use crate::names::names;

names! {
    /// `alg` of sign and verify.
    SignatureAlgorithm, "signature algorithm" {
        /// RSASSA-PKCS1-v1_5, SHA-256; the service builds the DigestInfo.
        Rs256 = "RS256",
        /// RSASSA-PKCS1-v1_5, SHA-384.
        Rs384 = "RS384",
        /// RSASSA-PKCS1-v1_5, SHA-512.
        Rs512 = "RS512",
        /// RSASSA-PSS, SHA-256, MGF1 with the same hash, salt of the hash's length.
        Ps256 = "PS256",
        /// RSASSA-PSS, SHA-384.
        Ps384 = "PS384",
        /// RSASSA-PSS, SHA-512.
        Ps512 = "PS512",
        /// PKCS#1 v1.5 type 1 padding of the caller's bytes: no DigestInfo is added.
        RsNull = "RSNULL",
        /// ECDSA on P-256 with a 32-byte digest; signature r‖s of 64 bytes.
        Es256 = "ES256",
        /// ECDSA on P-384 with a 48-byte digest; 96 bytes.
        Es384 = "ES384",
        /// ECDSA on P-521 with a 64-byte digest; 132 bytes.
        Es512 = "ES512",
        /// ECDSA on P-256K with a 32-byte digest; 64 bytes.
        Es256k = "ES256K",
        /// The same, for keys that show their curve as `SECP256K1` (made before 7.0).
        Ecdsa256 = "ECDSA256",
        /// HMAC with SHA-256 (7.6).
        Hs256 = "HS256",
        /// HMAC with SHA-384 (7.6).
        Hs384 = "HS384",
        /// HMAC with SHA-512 (7.6).
        Hs512 = "HS512",
    }
}

names! {
    /// `alg` of encrypt, decrypt, wrapkey and unwrapkey.
    EncryptionAlgorithm, "encryption algorithm" {
        /// RSAES-PKCS1-v1_5.
        Rsa15 = "RSA1_5",
        /// RSAES-OAEP, SHA-1, MGF1 with SHA-1, no label.
        RsaOaep = "RSA-OAEP",
        /// RSAES-OAEP, SHA-256, MGF1 with SHA-256, no label.
        RsaOaep256 = "RSA-OAEP-256",
        /// AES-128-GCM; the service makes the 12-byte IV, the tag has 16 bytes.
        A128Gcm = "A128GCM",
        /// AES-192-GCM.
        A192Gcm = "A192GCM",
        /// AES-256-GCM.
        A256Gcm = "A256GCM",
        /// AES-128 key wrap (RFC 3394).
        A128Kw = "A128KW",
        /// AES-192 key wrap.
        A192Kw = "A192KW",
        /// AES-256 key wrap.
        A256Kw = "A256KW",
        /// AES-128-CBC; the service fills a short last block with zeros.
        A128Cbc = "A128CBC",
        /// AES-192-CBC.
        A192Cbc = "A192CBC",
        /// AES-256-CBC.
        A256Cbc = "A256CBC",
        /// AES-128-CBC with PKCS#7 padding.
        A128CbcPad = "A128CBCPAD",
        /// AES-192-CBC with PKCS#7 padding.
        A192CbcPad = "A192CBCPAD",
        /// AES-256-CBC with PKCS#7 padding.
        A256CbcPad = "A256CBCPAD",
        /// AES key wrap (RFC 3394) with a key of any size (7.6).
        CkmAesKeyWrap = "CKM_AES_KEY_WRAP",
        /// AES key wrap with padding (RFC 5649) with a key of any size (7.6).
        CkmAesKeyWrapPad = "CKM_AES_KEY_WRAP_PAD",
    }
}

names! {
    /// A hash function of the contract.
    Digest, "hash function" {
        /// SHA-1: only inside RSA-OAEP.
        Sha1 = "SHA-1",
        /// SHA-256.
        Sha256 = "SHA-256",
        /// SHA-384.
        Sha384 = "SHA-384",
        /// SHA-512.
        Sha512 = "SHA-512",
    }
}

/// What an AES algorithm does with the block cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymmetricMode {
    /// Galois/counter mode.
    Gcm,
    /// Cipher block chaining; whole blocks.
    Cbc,
    /// Cipher block chaining with PKCS#7 padding.
    CbcPad,
    /// RFC 3394.
    KeyWrap,
    /// RFC 5649.
    KeyWrapPad,
}

impl Digest {
    /// Length of the hash value in bytes.
    pub const fn output_len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

impl SignatureAlgorithm {
    /// The hash the algorithm is defined with; `None` for RSNULL.
    pub const fn digest(self) -> Option<Digest> {
        match self {
            Self::Rs256
            | Self::Ps256
            | Self::Es256
            | Self::Es256k
            | Self::Ecdsa256
            | Self::Hs256 => Some(Digest::Sha256),
            Self::Rs384 | Self::Ps384 | Self::Es384 | Self::Hs384 => Some(Digest::Sha384),
            Self::Rs512 | Self::Ps512 | Self::Es512 | Self::Hs512 => Some(Digest::Sha512),
            Self::RsNull => None,
        }
    }

    /// Bytes that `value` (sign) or `digest` (verify) must have; `None` where the service takes
    /// any length: RSNULL (at most the modulus length less 11) and, where it allows so, HMAC.
    pub const fn digest_len(self) -> Option<usize> {
        match self {
            Self::RsNull | Self::Hs256 | Self::Hs384 | Self::Hs512 => None,
            _ => match self.digest() {
                Some(digest) => Some(digest.output_len()),
                None => None,
            },
        }
    }

    /// The one curve an ECDSA algorithm works with; `None` for RSA and HMAC.
    pub const fn curve(self) -> Option<Curve> {
        match self {
            Self::Es256 => Some(Curve::P256),
            Self::Es384 => Some(Curve::P384),
            Self::Es512 => Some(Curve::P521),
            Self::Es256k | Self::Ecdsa256 => Some(Curve::P256K),
            _ => None,
        }
    }

    /// Whether the algorithm needs an RSA key.
    pub const fn is_rsa(self) -> bool {
        !self.is_hmac() && self.curve().is_none()
    }

    /// Whether the algorithm needs a secret key.
    pub const fn is_hmac(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }
}

impl EncryptionAlgorithm {
    /// Whether the algorithm needs an RSA key; all others need AES.
    pub const fn is_rsa(self) -> bool {
        self.mode().is_none()
    }

    /// The AES mode; `None` for RSA.
    pub const fn mode(self) -> Option<SymmetricMode> {
        match self {
            Self::Rsa15 | Self::RsaOaep | Self::RsaOaep256 => None,
            Self::A128Gcm | Self::A192Gcm | Self::A256Gcm => Some(SymmetricMode::Gcm),
            Self::A128Cbc | Self::A192Cbc | Self::A256Cbc => Some(SymmetricMode::Cbc),
            Self::A128CbcPad | Self::A192CbcPad | Self::A256CbcPad => Some(SymmetricMode::CbcPad),
            Self::A128Kw | Self::A192Kw | Self::A256Kw | Self::CkmAesKeyWrap => {
                Some(SymmetricMode::KeyWrap)
            }
            Self::CkmAesKeyWrapPad => Some(SymmetricMode::KeyWrapPad),
        }
    }

    /// The AES key size the name fixes, in bits; `None` for RSA and for the two that take any.
    pub const fn key_bits(self) -> Option<u32> {
        match self {
            Self::A128Gcm | Self::A128Kw | Self::A128Cbc | Self::A128CbcPad => Some(128),
            Self::A192Gcm | Self::A192Kw | Self::A192Cbc | Self::A192CbcPad => Some(192),
            Self::A256Gcm | Self::A256Kw | Self::A256Cbc | Self::A256CbcPad => Some(256),
            _ => None,
        }
    }

    /// The hash of OAEP (and of its MGF1); `None` for everything else.
    pub const fn oaep_digest(self) -> Option<Digest> {
        match self {
            Self::RsaOaep => Some(Digest::Sha1),
            Self::RsaOaep256 => Some(Digest::Sha256),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_written() {
        for alg in SignatureAlgorithm::ALL {
            assert_eq!(alg.as_str().parse(), Ok(*alg));
        }
        for alg in EncryptionAlgorithm::ALL {
            assert_eq!(alg.as_str().parse(), Ok(*alg));
        }
        let unknown = "ES257".parse::<SignatureAlgorithm>().expect_err("unknown");
        assert_eq!(unknown.to_string(), "unknown signature algorithm 'ES257'");
    }

    #[test]
    fn every_encryption_algorithm_is_rsa_or_has_a_mode() {
        for alg in EncryptionAlgorithm::ALL {
            assert_eq!(alg.is_rsa(), alg.as_str().starts_with("RSA"), "{alg}");
            if let Some(bits) = alg.key_bits() {
                assert!(alg.as_str().contains(&bits.to_string()), "{alg}");
            }
        }
    }

    #[test]
    fn signature_families_do_not_overlap() {
        for alg in SignatureAlgorithm::ALL {
            let families = [alg.is_rsa(), alg.is_hmac(), alg.curve().is_some()];
            let count = families.iter().filter(|is| **is).count();
            assert_eq!(count, 1, "{alg}");
        }
    }
}
