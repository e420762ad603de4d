//! The mechanisms: one row each. C_GetMechanismList, C_GetMechanismInfo, every Init function,
//! docs/mechanisms.md and the tests iterate the same table.

pub mod choice;
pub mod parameter;

use akv_wire::Feature;
use cryptoki_sys::*;

use crate::{
    config::{Service, TokenConfig},
    crypto::{Hash, symmetric::KeyWrap},
};

/// What a mechanism does, with what is fixed by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// A hash function, computed here.
    Digest(Hash),
    /// RSASSA-PKCS1-v1_5 over the caller's bytes (None) or over their DigestInfo with this hash;
    /// without hash also RSAES-PKCS1-v1_5.
    Pkcs1(Option<Hash>),
    /// RSASSA-PSS over the caller's digest (None) or over the data with this hash.
    Pss(Option<Hash>),
    /// RSAES-OAEP.
    Oaep,
    /// The bare RSA operation.
    RawRsa,
    /// ECDSA over the caller's digest (None) or over the data with this hash.
    Ecdsa(Option<Hash>),
    /// HMAC; with true cut to the length the parameter asks for.
    Hmac(Hash, bool),
    /// AES in a mode.
    Aes(AesMode),
    /// AES key wrap.
    AesWrap(KeyWrap),
    /// An AES key wraps the key with padding (RFC 5649), and RSAES-OAEP the AES key.
    RsaAesWrap,
    /// RSA key pair generation.
    GenerateRsa,
    /// EC key pair generation.
    GenerateEc,
    /// AES key generation.
    GenerateAes,
    /// Generic secret key generation.
    GenerateGeneric,
    /// Generation of keys for the HMAC with this hash.
    GenerateHmac(Hash),
}

/// The modes of AES.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AesMode {
    /// Each block on its own.
    Ecb,
    /// Chained blocks.
    Cbc,
    /// Chained blocks with PKCS#7 padding.
    CbcPad,
    /// Counter.
    Ctr,
    /// Galois/counter.
    Gcm,
}

/// Where the key of an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// At the service, with its public half shown as an object of the token.
    Service,
    /// In this process.
    Session,
}

/// One mechanism.
#[derive(Debug)]
pub struct Mechanism {
    /// CKM_….
    pub kind: CK_MECHANISM_TYPE,
    /// Its name in the standard.
    pub name: &'static str,
    /// What it does.
    pub scheme: Scheme,
    /// What it can be used for with a key of the service, where the service has all it can have:
    /// CKF_SIGN, CKF_VERIFY, … as in CK_MECHANISM_INFO.flags.
    pub service: CK_FLAGS,
    /// What it can be used for with a session key.
    pub session: CK_FLAGS,
    /// Smallest and largest key, in bits; of AES and HMAC in bytes; 0 where there is no key.
    pub sizes: (CK_ULONG, CK_ULONG),
}

const SIGNING: CK_FLAGS = CKF_SIGN | CKF_MESSAGE_SIGN;
const VERIFYING: CK_FLAGS = CKF_VERIFY | CKF_MESSAGE_VERIFY | CKF_MULTI_MESSAGE;
const SIGN: CK_FLAGS = SIGNING | VERIFYING;
const WRAP: CK_FLAGS = CKF_WRAP | CKF_UNWRAP;
const DECIPHER: CK_FLAGS = CKF_DECRYPT | CKF_UNWRAP;
const CRYPT: CK_FLAGS = CKF_ENCRYPT | CKF_DECRYPT;
const RECOVER: CK_FLAGS = CKF_SIGN_RECOVER | CKF_VERIFY_RECOVER;
const MESSAGES: CK_FLAGS = CKF_MESSAGE_ENCRYPT | CKF_MESSAGE_DECRYPT | CKF_MULTI_MESSAGE;
const PUBLIC: CK_FLAGS = VERIFYING | CKF_ENCRYPT | CKF_VERIFY_RECOVER;
const PAIR: CK_FLAGS = CKF_GENERATE_KEY_PAIR;
const NONE: CK_FLAGS = 0;
/// Named curves over prime fields, points uncompressed.
const CURVES: CK_FLAGS = CKF_EC_F_P | CKF_EC_NAMEDCURVE | CKF_EC_UNCOMPRESS;
/// What Key Vault and Managed HSM make and import.
const RSA: (CK_ULONG, CK_ULONG) = (2048, 4096);
const EC: (CK_ULONG, CK_ULONG) = (256, 521);
const AES: (CK_ULONG, CK_ULONG) = (16, 32);
/// Generic secrets in bytes: what C_GenerateKey and C_CreateObject take.
const SECRET: (CK_ULONG, CK_ULONG) = (1, MAX_SECRET as CK_ULONG);
const NO_KEY: (CK_ULONG, CK_ULONG) = (0, 0);

/// Bytes of the longest generic secret.
pub const MAX_SECRET: usize = 512;

macro_rules! mechanism {
    ($kind:ident, $scheme:expr, $service:expr, $session:expr, $sizes:expr) => {
        Mechanism {
            kind: $kind,
            name: stringify!($kind),
            scheme: $scheme,
            service: $service,
            session: $session,
            sizes: $sizes,
        }
    };
}

use AesMode::{Cbc, CbcPad, Ctr, Ecb, Gcm};
use Hash::{Sha1, Sha3_224, Sha3_256, Sha3_384, Sha3_512, Sha224, Sha256, Sha384, Sha512};
use KeyWrap::{Rfc3394, Rfc5649};
use Scheme::{
    Aes, AesWrap, Digest, Ecdsa, GenerateAes, GenerateEc, GenerateGeneric, GenerateHmac,
    GenerateRsa, Hmac, Oaep, Pkcs1, Pss, RawRsa, RsaAesWrap,
};

/// Every mechanism, sorted by its number: name, what it does, uses with keys of the service, uses
/// with session keys, sizes.
#[rustfmt::skip]
pub static MECHANISMS: &[Mechanism] = &[
    mechanism!(CKM_RSA_PKCS_KEY_PAIR_GEN, GenerateRsa, PAIR, PAIR, RSA),
    mechanism!(CKM_RSA_PKCS, Pkcs1(None), SIGN | CRYPT | RECOVER | WRAP, SIGN | CRYPT | RECOVER | WRAP, RSA),
    mechanism!(CKM_RSA_X_509, RawRsa, PUBLIC, SIGN | CRYPT | RECOVER, RSA),
    mechanism!(CKM_SHA1_RSA_PKCS, Pkcs1(Some(Sha1)), SIGN, SIGN, RSA),
    mechanism!(CKM_RSA_PKCS_OAEP, Oaep, CRYPT | WRAP, CRYPT | WRAP, RSA),
    mechanism!(CKM_RSA_PKCS_PSS, Pss(None), SIGN, SIGN, RSA),
    mechanism!(CKM_SHA1_RSA_PKCS_PSS, Pss(Some(Sha1)), VERIFYING, SIGN, RSA),
    mechanism!(CKM_SHA256_RSA_PKCS, Pkcs1(Some(Sha256)), SIGN, SIGN, RSA),
    mechanism!(CKM_SHA384_RSA_PKCS, Pkcs1(Some(Sha384)), SIGN, SIGN, RSA),
    mechanism!(CKM_SHA512_RSA_PKCS, Pkcs1(Some(Sha512)), SIGN, SIGN, RSA),
    mechanism!(CKM_SHA256_RSA_PKCS_PSS, Pss(Some(Sha256)), SIGN, SIGN, RSA),
    mechanism!(CKM_SHA384_RSA_PKCS_PSS, Pss(Some(Sha384)), SIGN, SIGN, RSA),
    mechanism!(CKM_SHA512_RSA_PKCS_PSS, Pss(Some(Sha512)), SIGN, SIGN, RSA),
    mechanism!(CKM_SHA224_RSA_PKCS, Pkcs1(Some(Sha224)), SIGN, SIGN, RSA),
    mechanism!(CKM_SHA224_RSA_PKCS_PSS, Pss(Some(Sha224)), VERIFYING, SIGN, RSA),
    mechanism!(CKM_SHA3_256_RSA_PKCS, Pkcs1(Some(Sha3_256)), SIGN, SIGN, RSA),
    mechanism!(CKM_SHA3_384_RSA_PKCS, Pkcs1(Some(Sha3_384)), SIGN, SIGN, RSA),
    mechanism!(CKM_SHA3_512_RSA_PKCS, Pkcs1(Some(Sha3_512)), SIGN, SIGN, RSA),
    mechanism!(CKM_SHA3_256_RSA_PKCS_PSS, Pss(Some(Sha3_256)), VERIFYING, SIGN, RSA),
    mechanism!(CKM_SHA3_384_RSA_PKCS_PSS, Pss(Some(Sha3_384)), VERIFYING, SIGN, RSA),
    mechanism!(CKM_SHA3_512_RSA_PKCS_PSS, Pss(Some(Sha3_512)), VERIFYING, SIGN, RSA),
    mechanism!(CKM_SHA3_224_RSA_PKCS, Pkcs1(Some(Sha3_224)), SIGN, SIGN, RSA),
    mechanism!(CKM_SHA3_224_RSA_PKCS_PSS, Pss(Some(Sha3_224)), VERIFYING, SIGN, RSA),
    mechanism!(CKM_SHA_1, Digest(Sha1), CKF_DIGEST, NONE, NO_KEY),
    mechanism!(CKM_SHA_1_HMAC, Hmac(Sha1, false), NONE, SIGN, SECRET),
    mechanism!(CKM_SHA_1_HMAC_GENERAL, Hmac(Sha1, true), NONE, SIGN, SECRET),
    mechanism!(CKM_SHA256, Digest(Sha256), CKF_DIGEST, NONE, NO_KEY),
    mechanism!(CKM_SHA256_HMAC, Hmac(Sha256, false), SIGN, SIGN, SECRET),
    mechanism!(CKM_SHA256_HMAC_GENERAL, Hmac(Sha256, true), NONE, SIGN, SECRET),
    mechanism!(CKM_SHA224, Digest(Sha224), CKF_DIGEST, NONE, NO_KEY),
    mechanism!(CKM_SHA224_HMAC, Hmac(Sha224, false), NONE, SIGN, SECRET),
    mechanism!(CKM_SHA224_HMAC_GENERAL, Hmac(Sha224, true), NONE, SIGN, SECRET),
    mechanism!(CKM_SHA384, Digest(Sha384), CKF_DIGEST, NONE, NO_KEY),
    mechanism!(CKM_SHA384_HMAC, Hmac(Sha384, false), SIGN, SIGN, SECRET),
    mechanism!(CKM_SHA384_HMAC_GENERAL, Hmac(Sha384, true), NONE, SIGN, SECRET),
    mechanism!(CKM_SHA512, Digest(Sha512), CKF_DIGEST, NONE, NO_KEY),
    mechanism!(CKM_SHA512_HMAC, Hmac(Sha512, false), SIGN, SIGN, SECRET),
    mechanism!(CKM_SHA512_HMAC_GENERAL, Hmac(Sha512, true), NONE, SIGN, SECRET),
    mechanism!(CKM_SHA3_256, Digest(Sha3_256), CKF_DIGEST, NONE, NO_KEY),
    mechanism!(CKM_SHA3_224, Digest(Sha3_224), CKF_DIGEST, NONE, NO_KEY),
    mechanism!(CKM_SHA3_384, Digest(Sha3_384), CKF_DIGEST, NONE, NO_KEY),
    mechanism!(CKM_SHA3_512, Digest(Sha3_512), CKF_DIGEST, NONE, NO_KEY),
    mechanism!(CKM_GENERIC_SECRET_KEY_GEN, GenerateGeneric, CKF_GENERATE, CKF_GENERATE, (8, 8 * SECRET.1)),
    mechanism!(CKM_EC_KEY_PAIR_GEN, GenerateEc, PAIR | CURVES, PAIR | CURVES, EC),
    mechanism!(CKM_ECDSA, Ecdsa(None), SIGN | CURVES, SIGN | CURVES, EC),
    mechanism!(CKM_ECDSA_SHA1, Ecdsa(Some(Sha1)), SIGN | CURVES, SIGN | CURVES, EC),
    mechanism!(CKM_ECDSA_SHA224, Ecdsa(Some(Sha224)), SIGN | CURVES, SIGN | CURVES, EC),
    mechanism!(CKM_ECDSA_SHA256, Ecdsa(Some(Sha256)), SIGN | CURVES, SIGN | CURVES, EC),
    mechanism!(CKM_ECDSA_SHA384, Ecdsa(Some(Sha384)), SIGN | CURVES, SIGN | CURVES, EC),
    mechanism!(CKM_ECDSA_SHA512, Ecdsa(Some(Sha512)), SIGN | CURVES, SIGN | CURVES, EC),
    mechanism!(CKM_ECDSA_SHA3_224, Ecdsa(Some(Sha3_224)), SIGN | CURVES, SIGN | CURVES, EC),
    mechanism!(CKM_ECDSA_SHA3_256, Ecdsa(Some(Sha3_256)), SIGN | CURVES, SIGN | CURVES, EC),
    mechanism!(CKM_ECDSA_SHA3_384, Ecdsa(Some(Sha3_384)), SIGN | CURVES, SIGN | CURVES, EC),
    mechanism!(CKM_ECDSA_SHA3_512, Ecdsa(Some(Sha3_512)), SIGN | CURVES, SIGN | CURVES, EC),
    mechanism!(CKM_RSA_AES_KEY_WRAP, RsaAesWrap, WRAP, WRAP, RSA),
    mechanism!(CKM_AES_KEY_GEN, GenerateAes, CKF_GENERATE, CKF_GENERATE, AES),
    mechanism!(CKM_AES_ECB, Aes(Ecb), NONE, CRYPT, AES),
    mechanism!(CKM_AES_CBC, Aes(Cbc), CRYPT, CRYPT | WRAP, AES),
    mechanism!(CKM_AES_CBC_PAD, Aes(CbcPad), CRYPT, CRYPT | WRAP, AES),
    mechanism!(CKM_AES_CTR, Aes(Ctr), NONE, CRYPT, AES),
    mechanism!(CKM_AES_GCM, Aes(Gcm), CKF_DECRYPT | MESSAGES | WRAP, CRYPT | MESSAGES | WRAP, AES),
    mechanism!(CKM_AES_KEY_WRAP, AesWrap(Rfc3394), WRAP, CRYPT | WRAP, AES),
    mechanism!(CKM_AES_KEY_WRAP_PAD, AesWrap(Rfc5649), WRAP, CRYPT | WRAP, AES),
    mechanism!(CKM_AES_KEY_WRAP_KWP, AesWrap(Rfc5649), WRAP, CRYPT | WRAP, AES),
    mechanism!(CKM_SHA_1_KEY_GEN, GenerateHmac(Sha1), NONE, CKF_GENERATE, SECRET),
    mechanism!(CKM_SHA224_KEY_GEN, GenerateHmac(Sha224), NONE, CKF_GENERATE, SECRET),
    mechanism!(CKM_SHA256_KEY_GEN, GenerateHmac(Sha256), NONE, CKF_GENERATE, SECRET),
    mechanism!(CKM_SHA384_KEY_GEN, GenerateHmac(Sha384), NONE, CKF_GENERATE, SECRET),
    mechanism!(CKM_SHA512_KEY_GEN, GenerateHmac(Sha512), NONE, CKF_GENERATE, SECRET),
];

/// Rows are looked up by binary search, and one with a use has sizes that make sense.
const _: () = {
    let mut i = 0;
    while i < MECHANISMS.len() {
        let row = &MECHANISMS[i];
        assert!(i == 0 || MECHANISMS[i - 1].kind < row.kind, "MECHANISMS is not sorted");
        assert!(row.sizes.0 <= row.sizes.1, "a mechanism's sizes are the wrong way round");
        i += 1;
    }
};

impl Mechanism {
    /// The row of a mechanism.
    pub fn find(kind: CK_MECHANISM_TYPE) -> Option<&'static Mechanism> {
        MECHANISMS.binary_search_by_key(&kind, |row| row.kind).ok().map(|i| &MECHANISMS[i])
    }

    /// The type of key it works with or makes, None for digests. HMACs take another one, too:
    /// [`Mechanism::takes`].
    pub fn key_type(&self) -> Option<CK_KEY_TYPE> {
        match self.scheme {
            Digest(_) => None,
            Pkcs1(_) | Pss(_) | Oaep | RawRsa | RsaAesWrap | GenerateRsa => Some(CKK_RSA),
            Ecdsa(_) | GenerateEc => Some(CKK_EC),
            Aes(_) | AesWrap(_) | GenerateAes => Some(CKK_AES),
            Hmac(..) | GenerateGeneric => Some(CKK_GENERIC_SECRET),
            GenerateHmac(hash) => hmac_type(hash),
        }
    }

    /// Whether it works with keys of this type, or makes them. An HMAC takes generic secrets and
    /// keys that are for nothing else (clauses 6.20.4 and its like).
    pub fn takes(&self, key_type: CK_KEY_TYPE) -> bool {
        let own = match self.scheme {
            Hmac(hash, _) => hmac_type(hash),
            _ => None,
        };
        self.key_type() == Some(key_type) || own == Some(key_type)
    }

    /// What it can be used for on this token with a key that is there; 0 where it is not offered.
    pub fn uses_with(&self, home: Home, token: &TokenConfig) -> CK_FLAGS {
        match home {
            _ if !self.is_allowed(token) => 0,
            Home::Service => self.at_service(token),
            Home::Session => self.in_session(token),
        }
    }

    /// What C_GetMechanismInfo tells: what it can be used for with some key, of the service or of
    /// the session; 0 where the token does not offer it. What one key can do of it is in its
    /// CKA_ALLOWED_MECHANISMS.
    pub fn uses_on(&self, token: &TokenConfig) -> CK_FLAGS {
        self.uses_with(Home::Service, token) | self.uses_with(Home::Session, token)
    }

    fn in_session(&self, token: &TokenConfig) -> CK_FLAGS {
        let uses = match self.scheme {
            Pkcs1(None) if !token.rsa_pkcs1_decrypt => self.session & !DECIPHER,
            _ => self.session,
        };
        // Clients choose by the flags where they encrypt: more than the service can do has to be
        // asked for by name.
        let named = token.mechanisms.decides(self.kind) == Some(true);
        match self.is_of_secret_keys() && !named {
            true => uses & self.at_service(token),
            false => uses,
        }
    }

    /// A mechanism that only session keys can use is offered where the configuration names it: a
    /// client that prefers this module to its own cryptography (a Java with SunPKCS11 first) would
    /// otherwise move its TLS records here.
    fn is_allowed(&self, token: &TokenConfig) -> bool {
        token.mechanisms.decides(self.kind).unwrap_or_else(|| self.at_service(token) != 0)
    }

    fn at_service(&self, token: &TokenConfig) -> CK_FLAGS {
        let has_secret_keys = token.endpoint.service == Service::ManagedHsm;
        let has_hmac = || token.hmac && token.has(Feature::Hmac);
        match self.scheme {
            // Only RSNULL signs a DigestInfo other than those of SHA-256, SHA-384 and SHA-512.
            Pkcs1(Some(hash)) if !is_of_service(hash) && !token.rsnull => self.service & !SIGNING,
            Pkcs1(None) if !token.rsa_pkcs1_decrypt => self.service & !DECIPHER,
            Hmac(..) | GenerateGeneric if !has_hmac() => 0,
            AesWrap(Rfc5649) if !token.has(Feature::CkmKeyWrap) => 0,
            _ if self.is_of_secret_keys() && !has_secret_keys => 0,
            _ => self.service,
        }
    }

    fn is_of_secret_keys(&self) -> bool {
        self.key_type().is_some_and(is_secret)
    }
}

/// The type of the keys that are for the HMAC with this hash, where it is offered.
fn hmac_type(hash: Hash) -> Option<CK_KEY_TYPE> {
    match hash {
        Sha1 => Some(CKK_SHA_1_HMAC),
        Sha224 => Some(CKK_SHA224_HMAC),
        Sha256 => Some(CKK_SHA256_HMAC),
        Sha384 => Some(CKK_SHA384_HMAC),
        Sha512 => Some(CKK_SHA512_HMAC),
        Sha3_224 | Sha3_256 | Sha3_384 | Sha3_512 => None,
    }
}

/// Whether secret keys have this type: some mechanism takes them.
pub fn is_secret(key_type: CK_KEY_TYPE) -> bool {
    matches!(key_type, CKK_AES | CKK_GENERIC_SECRET)
        || Hash::ALL.iter().any(|hash| hmac_type(*hash) == Some(key_type))
}

/// Whether the service signs with this hash.
fn is_of_service(hash: Hash) -> bool {
    matches!(hash, Sha256 | Sha384 | Sha512)
}

/// What keys of a class can be used for at all: the halves of a pair have each their own.
pub fn uses_of_class(class: CK_OBJECT_CLASS) -> CK_FLAGS {
    let public = VERIFYING | CKF_VERIFY_RECOVER | CKF_ENCRYPT | CKF_WRAP | CKF_MESSAGE_ENCRYPT;
    let private = SIGNING | CKF_SIGN_RECOVER | CKF_DECRYPT | CKF_UNWRAP | CKF_MESSAGE_DECRYPT;
    match class {
        CKO_PUBLIC_KEY => public & !CKF_MULTI_MESSAGE,
        CKO_PRIVATE_KEY => private,
        CKO_SECRET_KEY => (public | private) & !CKF_MULTI_MESSAGE,
        _ => NONE,
    }
}

/// The hash of a CKM_SHA… given as `hashAlg`.
pub fn hash_of(kind: CK_MECHANISM_TYPE) -> Option<Hash> {
    match Mechanism::find(kind)?.scheme {
        Digest(hash) => Some(hash),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
