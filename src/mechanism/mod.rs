//! The mechanisms: one row each. C_GetMechanismList, C_GetMechanismInfo, every Init function,
//! docs/mechanisms.md and the tests iterate the same table.

pub mod parameter;

use cryptoki_sys::*;

use crate::{config::TokenConfig, crypto::Hash};

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
    /// ECDSA over the caller's digest (None) or over the data with this hash.
    Ecdsa(Option<Hash>),
    /// An AES key wraps the key with padding (RFC 5649), and RSAES-OAEP the AES key.
    RsaAesWrap,
    /// RSA key pair generation.
    GenerateRsa,
    /// EC key pair generation.
    GenerateEc,
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
    /// What it can be used for: CKF_SIGN, CKF_VERIFY, … (CK_MECHANISM_INFO.flags).
    pub uses: CK_FLAGS,
    /// Smallest and largest key in bits; 0 where there is no key.
    pub sizes: (CK_ULONG, CK_ULONG),
}

const SIGN: CK_FLAGS = CKF_SIGN | CKF_VERIFY;
const WRAP: CK_FLAGS = CKF_WRAP | CKF_UNWRAP;
const CRYPT: CK_FLAGS = CKF_ENCRYPT | CKF_DECRYPT;
/// Named curves over prime fields, points uncompressed.
const CURVES: CK_FLAGS = CKF_EC_F_P | CKF_EC_NAMEDCURVE | CKF_EC_UNCOMPRESS;
/// What Key Vault and Managed HSM make and import.
const RSA: (CK_ULONG, CK_ULONG) = (2048, 4096);
const EC: (CK_ULONG, CK_ULONG) = (256, 521);
const NO_KEY: (CK_ULONG, CK_ULONG) = (0, 0);

macro_rules! mechanism {
    ($kind:ident, $scheme:expr, $uses:expr, $sizes:expr) => {
        Mechanism {
            kind: $kind,
            name: stringify!($kind),
            scheme: $scheme,
            uses: $uses,
            sizes: $sizes,
        }
    };
}

use Scheme::{Digest, Ecdsa, GenerateEc, GenerateRsa, Oaep, Pkcs1, Pss, RsaAesWrap};

/// Every mechanism, sorted by its number.
#[rustfmt::skip]
pub static MECHANISMS: &[Mechanism] = &[
    mechanism!(CKM_RSA_PKCS_KEY_PAIR_GEN, GenerateRsa, CKF_GENERATE_KEY_PAIR, RSA),
    mechanism!(CKM_RSA_PKCS, Pkcs1(None), SIGN | CKF_VERIFY_RECOVER | CRYPT, RSA),
    mechanism!(CKM_SHA1_RSA_PKCS, Pkcs1(Some(Hash::Sha1)), SIGN, RSA),
    mechanism!(CKM_RSA_PKCS_OAEP, Oaep, CRYPT, RSA),
    mechanism!(CKM_RSA_PKCS_PSS, Pss(None), SIGN, RSA),
    mechanism!(CKM_SHA256_RSA_PKCS, Pkcs1(Some(Hash::Sha256)), SIGN, RSA),
    mechanism!(CKM_SHA384_RSA_PKCS, Pkcs1(Some(Hash::Sha384)), SIGN, RSA),
    mechanism!(CKM_SHA512_RSA_PKCS, Pkcs1(Some(Hash::Sha512)), SIGN, RSA),
    mechanism!(CKM_SHA256_RSA_PKCS_PSS, Pss(Some(Hash::Sha256)), SIGN, RSA),
    mechanism!(CKM_SHA384_RSA_PKCS_PSS, Pss(Some(Hash::Sha384)), SIGN, RSA),
    mechanism!(CKM_SHA512_RSA_PKCS_PSS, Pss(Some(Hash::Sha512)), SIGN, RSA),
    mechanism!(CKM_SHA224_RSA_PKCS, Pkcs1(Some(Hash::Sha224)), SIGN, RSA),
    mechanism!(CKM_SHA_1, Digest(Hash::Sha1), CKF_DIGEST, NO_KEY),
    mechanism!(CKM_SHA256, Digest(Hash::Sha256), CKF_DIGEST, NO_KEY),
    mechanism!(CKM_SHA224, Digest(Hash::Sha224), CKF_DIGEST, NO_KEY),
    mechanism!(CKM_SHA384, Digest(Hash::Sha384), CKF_DIGEST, NO_KEY),
    mechanism!(CKM_SHA512, Digest(Hash::Sha512), CKF_DIGEST, NO_KEY),
    mechanism!(CKM_EC_KEY_PAIR_GEN, GenerateEc, CKF_GENERATE_KEY_PAIR | CURVES, EC),
    mechanism!(CKM_ECDSA, Ecdsa(None), SIGN | CURVES, EC),
    mechanism!(CKM_ECDSA_SHA1, Ecdsa(Some(Hash::Sha1)), SIGN | CURVES, EC),
    mechanism!(CKM_ECDSA_SHA224, Ecdsa(Some(Hash::Sha224)), SIGN | CURVES, EC),
    mechanism!(CKM_ECDSA_SHA256, Ecdsa(Some(Hash::Sha256)), SIGN | CURVES, EC),
    mechanism!(CKM_ECDSA_SHA384, Ecdsa(Some(Hash::Sha384)), SIGN | CURVES, EC),
    mechanism!(CKM_ECDSA_SHA512, Ecdsa(Some(Hash::Sha512)), SIGN | CURVES, EC),
    mechanism!(CKM_RSA_AES_KEY_WRAP, RsaAesWrap, WRAP, RSA),
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

    /// The type of key it works with, None for digests.
    pub fn key_type(&self) -> Option<CK_KEY_TYPE> {
        match self.scheme {
            Digest(_) => None,
            Pkcs1(_) | Pss(_) | Oaep | RsaAesWrap | GenerateRsa => Some(CKK_RSA),
            Ecdsa(_) | GenerateEc => Some(CKK_EC),
        }
    }

    /// What it can be used for on this token; 0 where the token does not offer it.
    pub fn uses_on(&self, token: &TokenConfig) -> CK_FLAGS {
        let mut uses = self.uses;
        match self.scheme {
            // Only RSNULL signs a DigestInfo other than those of SHA-256, SHA-384 and SHA-512.
            Pkcs1(Some(Hash::Sha1 | Hash::Sha224)) if !token.rsnull => uses &= !CKF_SIGN,
            Pkcs1(None) if !token.rsa_pkcs1_decrypt => uses &= !CKF_DECRYPT,
            _ => {}
        }
        uses
    }
}

/// The hash of a CKM_SHA… given as `hashAlg`.
pub fn hash_of(kind: CK_MECHANISM_TYPE) -> Option<Hash> {
    Some(match kind {
        CKM_SHA_1 => Hash::Sha1,
        CKM_SHA224 => Hash::Sha224,
        CKM_SHA256 => Hash::Sha256,
        CKM_SHA384 => Hash::Sha384,
        CKM_SHA512 => Hash::Sha512,
        CKM_SHA3_224 => Hash::Sha3_224,
        CKM_SHA3_256 => Hash::Sha3_256,
        CKM_SHA3_384 => Hash::Sha3_384,
        CKM_SHA3_512 => Hash::Sha3_512,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    const USES: &[(CK_FLAGS, &str)] = &[
        (CKF_SIGN, "sign"),
        (CKF_VERIFY, "verify"),
        (CKF_VERIFY_RECOVER, "verify recover"),
        (CKF_ENCRYPT, "encrypt"),
        (CKF_DECRYPT, "decrypt"),
        (CKF_DIGEST, "digest"),
        (CKF_WRAP, "wrap"),
        (CKF_UNWRAP, "unwrap"),
        (CKF_GENERATE_KEY_PAIR, "generate key pair"),
    ];

    /// The service's algorithms, in words.
    fn at_service(scheme: Scheme) -> &'static str {
        match scheme {
            Digest(_) => "(local)",
            Pkcs1(Some(Hash::Sha256)) => "RS256",
            Pkcs1(Some(Hash::Sha384)) => "RS384",
            Pkcs1(Some(Hash::Sha512)) => "RS512",
            Pkcs1(Some(_)) => "RSNULL",
            Pkcs1(None) => "RS256, RS384, RS512, RSNULL; RSA1_5",
            Pss(Some(Hash::Sha384)) => "PS384",
            Pss(Some(Hash::Sha512)) => "PS512",
            Pss(Some(_)) => "PS256",
            Pss(None) => "PS256, PS384, PS512",
            Oaep => "RSA-OAEP, RSA-OAEP-256",
            Ecdsa(_) => "ES256, ES256K, ES384, ES512, by the curve",
            RsaAesWrap => "RSA-OAEP; BYOK import",
            GenerateRsa => "create RSA, RSA-HSM",
            GenerateEc => "create EC, EC-HSM",
        }
    }

    #[test]
    fn the_documentation_shows_this_table() {
        let mut text =
            String::from("| mechanism | functions | bits | at the service |\n|---|---|---|---|\n");
        for row in MECHANISMS {
            let uses: Vec<_> = USES
                .iter()
                .filter(|(flag, _)| row.uses & flag != 0)
                .map(|(_, name)| *name)
                .collect();
            let bits = match row.sizes {
                (0, 0) => String::new(),
                (least, most) => format!("{least}–{most}"),
            };
            let service = at_service(row.scheme);
            writeln!(text, "| {} | {} | {bits} | {service} |", row.name, uses.join(", ")).unwrap();
        }
        crate::documents::hold("mechanisms.md", &text);
    }

    #[test]
    fn every_row_has_a_use_that_fits_its_scheme() {
        for row in MECHANISMS {
            assert_ne!(row.uses, 0, "{}", row.name);
            let keyless = row.key_type().is_none();
            assert_eq!(keyless, row.uses & CKF_DIGEST != 0, "{}", row.name);
            assert_eq!(keyless, row.sizes == (0, 0), "{}", row.name);
        }
    }
}
