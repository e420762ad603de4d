//! Mechanisms: what this program knows of them, and their parameters in memory.

use cryptoki_sys::*;
use openssl::hash::MessageDigest;

use crate::ffi::{Word, address, place};

/// A hash function under its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    /// Name.
    pub name: &'static str,
    /// CKM_….
    pub kind: CK_MECHANISM_TYPE,
    /// CKG_MGF1_….
    pub mgf: CK_ULONG,
    /// Bytes of a digest.
    pub size: usize,
    /// Bytes of a block.
    pub block: usize,
    /// DER of the DigestInfo before the digest.
    pub prefix: &'static [u8],
}

macro_rules! sha2_prefix {
    ($last:literal, $size:literal) => {
        &[
            0x30,
            0x11 + $size,
            0x30,
            0x0d,
            0x06,
            0x09,
            0x60,
            0x86,
            0x48,
            0x01,
            0x65,
            0x03,
            0x04,
            0x02,
            $last,
            0x05,
            0x00,
            0x04,
            $size,
        ]
    };
}

/// All of them.
#[rustfmt::skip]
pub const HASHES: &[Hash] = &[
    Hash { name: "SHA-1", kind: CKM_SHA_1, mgf: CKG_MGF1_SHA1, size: 20, block: 64, prefix:
        &[0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14] },
    Hash { name: "SHA-224", kind: CKM_SHA224, mgf: CKG_MGF1_SHA224, size: 28, block: 64, prefix: sha2_prefix!(4, 28) },
    Hash { name: "SHA-256", kind: CKM_SHA256, mgf: CKG_MGF1_SHA256, size: 32, block: 64, prefix: sha2_prefix!(1, 32) },
    Hash { name: "SHA-384", kind: CKM_SHA384, mgf: CKG_MGF1_SHA384, size: 48, block: 128, prefix: sha2_prefix!(2, 48) },
    Hash { name: "SHA-512", kind: CKM_SHA512, mgf: CKG_MGF1_SHA512, size: 64, block: 128, prefix: sha2_prefix!(3, 64) },
    Hash { name: "SHA3-224", kind: CKM_SHA3_224, mgf: CKG_MGF1_SHA3_224, size: 28, block: 144, prefix: sha2_prefix!(7, 28) },
    Hash { name: "SHA3-256", kind: CKM_SHA3_256, mgf: CKG_MGF1_SHA3_256, size: 32, block: 136, prefix: sha2_prefix!(8, 32) },
    Hash { name: "SHA3-384", kind: CKM_SHA3_384, mgf: CKG_MGF1_SHA3_384, size: 48, block: 104, prefix: sha2_prefix!(9, 48) },
    Hash { name: "SHA3-512", kind: CKM_SHA3_512, mgf: CKG_MGF1_SHA3_512, size: 64, block: 72, prefix: sha2_prefix!(10, 64) },
];

impl Hash {
    /// OpenSSL's.
    pub fn openssl(&self) -> MessageDigest {
        match self.kind {
            CKM_SHA_1 => MessageDigest::sha1(),
            CKM_SHA224 => MessageDigest::sha224(),
            CKM_SHA256 => MessageDigest::sha256(),
            CKM_SHA384 => MessageDigest::sha384(),
            CKM_SHA512 => MessageDigest::sha512(),
            CKM_SHA3_224 => MessageDigest::sha3_224(),
            CKM_SHA3_256 => MessageDigest::sha3_256(),
            CKM_SHA3_384 => MessageDigest::sha3_384(),
            _ => MessageDigest::sha3_512(),
        }
    }

    /// The digest, by OpenSSL.
    pub fn digest(&self, data: &[u8]) -> Vec<u8> {
        openssl::hash::hash(self.openssl(), data).map(|bytes| bytes.to_vec()).unwrap_or_default()
    }

    /// The DER of a DigestInfo with this digest.
    pub fn digest_info(&self, digest: &[u8]) -> Vec<u8> {
        [self.prefix, digest].concat()
    }
}

/// How AES is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Electronic code book.
    Ecb,
    /// Cipher block chaining of whole blocks.
    Cbc,
    /// The same with PKCS #7 padding.
    CbcPad,
    /// Counter.
    Ctr,
    /// Galois/counter.
    Gcm,
    /// Key wrap, RFC 3394.
    Kw,
    /// Key wrap with padding, RFC 5649.
    Kwp,
}

impl Mode {
    /// Whether the data must be whole blocks of so many bytes.
    pub fn block(self) -> Option<usize> {
        match self {
            Mode::Ecb | Mode::Cbc => Some(16),
            Mode::Kw => Some(8),
            _ => None,
        }
    }

    /// Whether data may come in parts.
    pub fn is_multi_part(self) -> bool {
        !matches!(self, Mode::Kw | Mode::Kwp)
    }
}

/// What a mechanism does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// A digest.
    Digest(&'static Hash),
    /// RSASSA-PKCS1-v1_5; without hash: of what it is given; and RSAES-PKCS1-v1_5.
    Pkcs1(Option<&'static Hash>),
    /// RSASSA-PSS; without hash: of a digest.
    Pss(Option<&'static Hash>),
    /// RSAES-OAEP.
    Oaep,
    /// Raw RSA.
    Raw,
    /// ECDSA; without hash: of a digest.
    Ecdsa(Option<&'static Hash>),
    /// HMAC.
    Hmac(&'static Hash),
    /// The beginning of an HMAC, as long as its parameter says.
    GeneralHmac(&'static Hash),
    /// AES.
    Aes(Mode),
    /// Makes RSA key pairs.
    RsaPair,
    /// Makes EC key pairs.
    EcPair,
}

impl Scheme {
    /// Whether it takes an RSA key.
    pub fn is_rsa(self) -> bool {
        matches!(self, Scheme::Pkcs1(_) | Scheme::Pss(_) | Scheme::Oaep | Scheme::Raw)
    }

    /// Whether it takes an EC key.
    pub fn is_ec(self) -> bool {
        matches!(self, Scheme::Ecdsa(_))
    }

    /// Whether it takes parts: it hashes what it is given.
    pub fn is_multi_part(self) -> bool {
        matches!(
            self,
            Scheme::Digest(_)
                | Scheme::Hmac(_)
                | Scheme::GeneralHmac(_)
                | Scheme::Pkcs1(Some(_))
                | Scheme::Pss(Some(_))
                | Scheme::Ecdsa(Some(_))
        ) || matches!(self, Scheme::Aes(mode) if mode.is_multi_part())
    }

    /// The hash, where it has one of its own.
    pub fn hash(self) -> Option<&'static Hash> {
        match self {
            Scheme::Digest(hash) | Scheme::Hmac(hash) | Scheme::GeneralHmac(hash) => Some(hash),
            Scheme::Pkcs1(hash) | Scheme::Pss(hash) | Scheme::Ecdsa(hash) => hash,
            _ => None,
        }
    }
}

macro_rules! known {
    ($($name:ident $clause:literal $scheme:expr;)*) => {
        /// The mechanisms that are tried, with their clause: the number of its heading in chapter 6
        /// of the sources of PKCS#11 3.2 (oasis-tcs/pkcs11, working/doc/spec), where a hash is not
        /// a heading of its own but a row (6.1.14, 6.1.15, 6.3.13).
        pub const KNOWN: &[(CK_MECHANISM_TYPE, &str, &str, Scheme)] =
            &[$(($name, stringify!($name), $clause, $scheme),)*];
    };
}

known! {
    CKM_SHA_1 "6.20" Scheme::Digest(&HASHES[0]);
    CKM_SHA224 "6.21" Scheme::Digest(&HASHES[1]);
    CKM_SHA256 "6.22" Scheme::Digest(&HASHES[2]);
    CKM_SHA384 "6.23" Scheme::Digest(&HASHES[3]);
    CKM_SHA512 "6.24" Scheme::Digest(&HASHES[4]);
    CKM_SHA3_224 "6.28" Scheme::Digest(&HASHES[5]);
    CKM_SHA3_256 "6.29" Scheme::Digest(&HASHES[6]);
    CKM_SHA3_384 "6.30" Scheme::Digest(&HASHES[7]);
    CKM_SHA3_512 "6.31" Scheme::Digest(&HASHES[8]);
    CKM_RSA_PKCS_KEY_PAIR_GEN "6.1.4" Scheme::RsaPair;
    CKM_EC_KEY_PAIR_GEN "6.3.9" Scheme::EcPair;
    CKM_RSA_PKCS "6.1.6" Scheme::Pkcs1(None);
    CKM_SHA1_RSA_PKCS "6.1.14" Scheme::Pkcs1(Some(&HASHES[0]));
    CKM_SHA224_RSA_PKCS "6.1.14" Scheme::Pkcs1(Some(&HASHES[1]));
    CKM_SHA256_RSA_PKCS "6.1.14" Scheme::Pkcs1(Some(&HASHES[2]));
    CKM_SHA384_RSA_PKCS "6.1.14" Scheme::Pkcs1(Some(&HASHES[3]));
    CKM_SHA512_RSA_PKCS "6.1.14" Scheme::Pkcs1(Some(&HASHES[4]));
    CKM_SHA3_224_RSA_PKCS "6.1.14" Scheme::Pkcs1(Some(&HASHES[5]));
    CKM_SHA3_256_RSA_PKCS "6.1.14" Scheme::Pkcs1(Some(&HASHES[6]));
    CKM_SHA3_384_RSA_PKCS "6.1.14" Scheme::Pkcs1(Some(&HASHES[7]));
    CKM_SHA3_512_RSA_PKCS "6.1.14" Scheme::Pkcs1(Some(&HASHES[8]));
    CKM_RSA_PKCS_OAEP "6.1.8" Scheme::Oaep;
    CKM_RSA_X_509 "6.1.12" Scheme::Raw;
    CKM_RSA_PKCS_PSS "6.1.10" Scheme::Pss(None);
    CKM_SHA1_RSA_PKCS_PSS "6.1.15" Scheme::Pss(Some(&HASHES[0]));
    CKM_SHA224_RSA_PKCS_PSS "6.1.15" Scheme::Pss(Some(&HASHES[1]));
    CKM_SHA256_RSA_PKCS_PSS "6.1.15" Scheme::Pss(Some(&HASHES[2]));
    CKM_SHA384_RSA_PKCS_PSS "6.1.15" Scheme::Pss(Some(&HASHES[3]));
    CKM_SHA512_RSA_PKCS_PSS "6.1.15" Scheme::Pss(Some(&HASHES[4]));
    CKM_SHA3_224_RSA_PKCS_PSS "6.1.15" Scheme::Pss(Some(&HASHES[5]));
    CKM_SHA3_256_RSA_PKCS_PSS "6.1.15" Scheme::Pss(Some(&HASHES[6]));
    CKM_SHA3_384_RSA_PKCS_PSS "6.1.15" Scheme::Pss(Some(&HASHES[7]));
    CKM_SHA3_512_RSA_PKCS_PSS "6.1.15" Scheme::Pss(Some(&HASHES[8]));
    CKM_ECDSA "6.3.12" Scheme::Ecdsa(None);
    CKM_ECDSA_SHA1 "6.3.13" Scheme::Ecdsa(Some(&HASHES[0]));
    CKM_ECDSA_SHA224 "6.3.13" Scheme::Ecdsa(Some(&HASHES[1]));
    CKM_ECDSA_SHA256 "6.3.13" Scheme::Ecdsa(Some(&HASHES[2]));
    CKM_ECDSA_SHA384 "6.3.13" Scheme::Ecdsa(Some(&HASHES[3]));
    CKM_ECDSA_SHA512 "6.3.13" Scheme::Ecdsa(Some(&HASHES[4]));
    CKM_ECDSA_SHA3_224 "6.3.13" Scheme::Ecdsa(Some(&HASHES[5]));
    CKM_ECDSA_SHA3_256 "6.3.13" Scheme::Ecdsa(Some(&HASHES[6]));
    CKM_ECDSA_SHA3_384 "6.3.13" Scheme::Ecdsa(Some(&HASHES[7]));
    CKM_ECDSA_SHA3_512 "6.3.13" Scheme::Ecdsa(Some(&HASHES[8]));
    CKM_SHA_1_HMAC "6.20.4" Scheme::Hmac(&HASHES[0]);
    CKM_SHA224_HMAC "6.21.4" Scheme::Hmac(&HASHES[1]);
    CKM_SHA256_HMAC "6.22.4" Scheme::Hmac(&HASHES[2]);
    CKM_SHA384_HMAC "6.23.4" Scheme::Hmac(&HASHES[3]);
    CKM_SHA512_HMAC "6.24.4" Scheme::Hmac(&HASHES[4]);
    CKM_SHA3_224_HMAC "6.28.4" Scheme::Hmac(&HASHES[5]);
    CKM_SHA3_256_HMAC "6.29.4" Scheme::Hmac(&HASHES[6]);
    CKM_SHA3_384_HMAC "6.30.4" Scheme::Hmac(&HASHES[7]);
    CKM_SHA3_512_HMAC "6.31.4" Scheme::Hmac(&HASHES[8]);
    CKM_SHA_1_HMAC_GENERAL "6.20.3" Scheme::GeneralHmac(&HASHES[0]);
    CKM_SHA224_HMAC_GENERAL "6.21.3" Scheme::GeneralHmac(&HASHES[1]);
    CKM_SHA256_HMAC_GENERAL "6.22.3" Scheme::GeneralHmac(&HASHES[2]);
    CKM_SHA384_HMAC_GENERAL "6.23.3" Scheme::GeneralHmac(&HASHES[3]);
    CKM_SHA512_HMAC_GENERAL "6.24.3" Scheme::GeneralHmac(&HASHES[4]);
    CKM_SHA3_224_HMAC_GENERAL "6.28.3" Scheme::GeneralHmac(&HASHES[5]);
    CKM_SHA3_256_HMAC_GENERAL "6.29.3" Scheme::GeneralHmac(&HASHES[6]);
    CKM_SHA3_384_HMAC_GENERAL "6.30.3" Scheme::GeneralHmac(&HASHES[7]);
    CKM_SHA3_512_HMAC_GENERAL "6.31.3" Scheme::GeneralHmac(&HASHES[8]);
    CKM_AES_ECB "6.10.4" Scheme::Aes(Mode::Ecb);
    CKM_AES_CBC "6.10.5" Scheme::Aes(Mode::Cbc);
    CKM_AES_CBC_PAD "6.10.6" Scheme::Aes(Mode::CbcPad);
    CKM_AES_CTR "6.11.3" Scheme::Aes(Mode::Ctr);
    CKM_AES_GCM "6.13.2" Scheme::Aes(Mode::Gcm);
    CKM_AES_KEY_WRAP "6.16.3" Scheme::Aes(Mode::Kw);
    CKM_AES_KEY_WRAP_KWP "6.16.3" Scheme::Aes(Mode::Kwp);
    CKM_AES_KEY_WRAP_PAD "6.16.3" Scheme::Aes(Mode::Kwp);
}

/// What is known of a mechanism.
pub fn scheme(kind: CK_MECHANISM_TYPE) -> Option<Scheme> {
    KNOWN.iter().find(|(known, ..)| *known == kind).map(|(.., scheme)| *scheme)
}

/// The clause of a mechanism that is known.
pub fn clause(kind: CK_MECHANISM_TYPE) -> &'static str {
    KNOWN.iter().find(|(known, ..)| *known == kind).map_or("6", |(_, _, clause, _)| clause)
}

/// A mechanism with its parameter.
#[derive(Clone, Debug)]
pub struct Mechanism {
    /// CKM_….
    pub kind: CK_MECHANISM_TYPE,
    parameter: Parameter,
}

#[derive(Clone, Debug)]
enum Parameter {
    None,
    Pss { hash: CK_MECHANISM_TYPE, mgf: CK_ULONG, salt: CK_ULONG },
    Oaep { hash: CK_MECHANISM_TYPE, mgf: CK_ULONG, source: CK_ULONG, label: Vec<u8> },
    Ecdh { kdf: CK_EC_KDF_TYPE, shared: Vec<u8>, point: Vec<u8> },
    Gcm { iv: Vec<u8>, aad: Vec<u8>, tag_bits: CK_ULONG },
    Ctr { bits: CK_ULONG, block: [u8; 16] },
    Bytes(Vec<u8>),
}

/// The IV, or first counter block, where nothing is said of it.
pub const IV: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

impl Mechanism {
    /// Without parameter.
    pub fn plain(kind: CK_MECHANISM_TYPE) -> Mechanism {
        Mechanism { kind, parameter: Parameter::None }
    }

    /// With any bytes.
    pub fn bytes(kind: CK_MECHANISM_TYPE, bytes: &[u8]) -> Mechanism {
        Mechanism { kind, parameter: Parameter::Bytes(bytes.to_vec()) }
    }

    /// RSASSA-PSS: message hash, MGF1's hash, bytes of salt.
    pub fn pss(kind: CK_MECHANISM_TYPE, hash: &Hash, mgf: &Hash, salt: usize) -> Mechanism {
        let (hash, mgf, salt) = (hash.kind, mgf.mgf, salt as CK_ULONG);
        Mechanism { kind, parameter: Parameter::Pss { hash, mgf, salt } }
    }

    /// RSAES-OAEP: hash, MGF1's hash, label.
    pub fn oaep(hash: &Hash, mgf: &Hash, label: &[u8]) -> Mechanism {
        let (hash, mgf, label) = (hash.kind, mgf.mgf, label.to_vec());
        let parameter = Parameter::Oaep { hash, mgf, source: CKZ_DATA_SPECIFIED, label };
        Mechanism { kind: CKM_RSA_PKCS_OAEP, parameter }
    }

    /// ECDH with a key derivation function, what it is given beside, and the peer's point.
    pub fn ecdh(kdf: CK_EC_KDF_TYPE, shared: &[u8], point: &[u8]) -> Mechanism {
        let (shared, point) = (shared.to_vec(), point.to_vec());
        Mechanism { kind: CKM_ECDH1_DERIVE, parameter: Parameter::Ecdh { kdf, shared, point } }
    }

    /// AES-GCM.
    pub fn gcm(iv: &[u8], aad: &[u8], tag_bits: usize) -> Mechanism {
        let (iv, aad, tag_bits) = (iv.to_vec(), aad.to_vec(), tag_bits as CK_ULONG);
        Mechanism { kind: CKM_AES_GCM, parameter: Parameter::Gcm { iv, aad, tag_bits } }
    }

    /// AES-CTR with a counter of so many bits at the end of its first block.
    pub fn ctr(bits: usize, block: [u8; 16]) -> Mechanism {
        let bits = bits as CK_ULONG;
        Mechanism { kind: CKM_AES_CTR, parameter: Parameter::Ctr { bits, block } }
    }

    /// With the parameter that is used where nothing is said of it.
    pub fn usual(kind: CK_MECHANISM_TYPE) -> Mechanism {
        let sha256 = &HASHES[2];
        match scheme(kind) {
            Some(Scheme::Pss(hash)) => {
                let hash = hash.unwrap_or(sha256);
                Mechanism::pss(kind, hash, hash, hash.size)
            }
            Some(Scheme::Oaep) => Mechanism::oaep(&HASHES[0], &HASHES[0], &[]),
            Some(Scheme::GeneralHmac(hash)) => {
                Mechanism::bytes(kind, &(hash.size as CK_ULONG).to_ne_bytes())
            }
            Some(Scheme::Aes(Mode::Cbc | Mode::CbcPad)) => Mechanism::bytes(kind, &IV),
            Some(Scheme::Aes(Mode::Ctr)) => Mechanism::ctr(128, IV),
            Some(Scheme::Aes(Mode::Gcm)) => Mechanism::gcm(&IV[..12], b"aad", 128),
            _ => Mechanism::plain(kind),
        }
    }

    /// Calls with it in memory.
    pub fn with<T>(&self, call: impl FnOnce(Word<'_>) -> T) -> T {
        let words: Vec<usize> = match &self.parameter {
            Parameter::Pss { hash, mgf, salt } => {
                vec![*hash as usize, *mgf as usize, *salt as usize]
            }
            Parameter::Oaep { hash, mgf, source, label } => {
                let (hash, mgf, source) = (*hash as usize, *mgf as usize, *source as usize);
                vec![hash, mgf, source, address(label), label.len()]
            }
            Parameter::Ecdh { kdf, shared, point } => {
                let (data, peer) = (address(shared), address(point));
                vec![*kdf as usize, shared.len(), data, point.len(), peer]
            }
            Parameter::Gcm { iv, aad, tag_bits } => {
                let bits = 8 * iv.len();
                vec![address(iv), iv.len(), bits, address(aad), aad.len(), *tag_bits as usize]
            }
            Parameter::None | Parameter::Bytes(_) | Parameter::Ctr { .. } => Vec::new(),
        };
        let bytes: Vec<u8> = match &self.parameter {
            Parameter::Bytes(bytes) => bytes.clone(),
            Parameter::Ctr { bits, block } => [&bits.to_ne_bytes()[..], block].concat(),
            _ => words.iter().flat_map(|word| word.to_ne_bytes()).collect(),
        };
        // Structures of words are aligned like one.
        let mut aligned = vec![0_usize; bytes.len().div_ceil(size_of::<usize>())];
        for (place, chunk) in aligned.iter_mut().zip(bytes.chunks(size_of::<usize>())) {
            let mut word = [0; size_of::<usize>()];
            word[..chunk.len()].copy_from_slice(chunk);
            *place = usize::from_ne_bytes(word);
        }
        let mut raw = CK_MECHANISM {
            mechanism: self.kind,
            pParameter: match aligned.is_empty() {
                true => std::ptr::null_mut(),
                false => aligned.as_mut_ptr().cast(),
            },
            ulParameterLen: bytes.len() as CK_ULONG,
        };
        let result = call(place(&mut raw));
        drop(aligned);
        result
    }
}
