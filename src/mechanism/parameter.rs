//! Mechanism parameters as types: one that exists can be carried out by the service or here.

use cryptoki_sys::*;

use super::{AesMode, Mechanism, Scheme, hash_of};
use crate::{
    abi::arg::{GcmParameter, OaepParameter, Parameter, PssParameter},
    crypto::{
        Hash, check_oaep_label,
        symmetric::{BLOCK, Mode},
    },
    error::{Error, Result},
};

/// RSASSA-PSS parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pss {
    /// The hash of the data.
    pub hash: Hash,
    /// The hash of MGF1.
    pub mgf: Hash,
    /// Bytes of salt.
    pub salt: usize,
}

/// RSAES-OAEP parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oaep {
    /// The hash of the label.
    pub hash: Hash,
    /// The hash of MGF1.
    pub mgf: Hash,
    /// The label, most often empty.
    pub label: Vec<u8>,
}

impl Pss {
    /// Reads CK_RSA_PKCS_PSS_PARAMS; `fixed` is the hash in the mechanism's name.
    ///
    /// # Errors
    /// CKR_MECHANISM_PARAM_INVALID for an unknown hash or MGF, another hash than the fixed one, or
    /// another hash in MGF1.
    pub fn parse(parameter: &Parameter<'_>, fixed: Option<Hash>) -> Result<Pss> {
        let PssParameter { hash, mgf, salt } = parameter.pss()?;
        let named = hash_of(hash)
            .ok_or_else(|| invalid(format!("hashAlg {hash:#x} is no hash that is known")))?;
        if fixed.is_some_and(|fixed| fixed != named) {
            return Err(invalid(format!("hashAlg {} is not the mechanism's", named.name())));
        }
        let mgf = mgf_of(mgf).ok_or_else(|| invalid(format!("mgf {mgf:#x} is not known")))?;
        if mgf != named {
            // Neither the service nor the session keys' implementation has two hashes.
            let (hash, mgf) = (named.name(), mgf.name());
            return Err(invalid(format!("PSS with {hash} and MGF1 {mgf}: one hash for both")));
        }
        let salt = usize::try_from(salt).ok().filter(|salt| *salt <= MAX_SALT);
        let salt = salt.ok_or_else(|| invalid("a salt longer than any RSA key".to_owned()))?;
        Ok(Pss { hash: named, mgf, salt })
    }

    /// What the service can do: MGF1 with the same hash, a salt as long as the hash, and
    /// SHA-256, SHA-384 or SHA-512.
    ///
    /// # Errors
    /// CKR_MECHANISM_PARAM_INVALID for anything else.
    pub fn for_service(self) -> Result<Pss> {
        let Pss { hash, mgf, salt } = self;
        let known = matches!(hash, Hash::Sha256 | Hash::Sha384 | Hash::Sha512);
        if known && mgf == hash && salt == hash.len() {
            return Ok(self);
        }
        Err(invalid(format!(
            "PSS with {}, MGF1 {} and a salt of {salt} bytes: the service signs with SHA-256, \
             SHA-384 or SHA-512, the same hash in MGF1 and a salt of the hash's length",
            hash.name(),
            mgf.name(),
        )))
    }
}

/// Bytes of the largest modulus anybody uses: no salt is longer.
const MAX_SALT: usize = 2048;

impl Oaep {
    /// Reads CK_RSA_PKCS_OAEP_PARAMS. An MGF of 0 means the one with the same hash, a hash of 0
    /// SHA-1: pkcs11-provider leaves them out. libp11 leaves the source of the label out; all of
    /// them nobody does.
    ///
    /// # Errors
    /// CKR_MECHANISM_PARAM_INVALID for an unknown hash or MGF, or a label that cannot be used.
    pub fn parse(parameter: &Parameter<'_>) -> Result<Oaep> {
        let OaepParameter { hash, mgf, source, label } = parameter.oaep()?;
        let hash = match hash {
            0 if source == CKZ_DATA_SPECIFIED => Hash::Sha1,
            _ => hash_of(hash)
                .ok_or_else(|| invalid(format!("hashAlg {hash:#x} is no hash that is known")))?,
        };
        let mgf = match mgf {
            0 => hash,
            _ => mgf_of(mgf).ok_or_else(|| invalid(format!("mgf {mgf:#x} is not known")))?,
        };
        check_oaep_label(hash, mgf, label)?;
        Ok(Oaep { hash, mgf, label: label.to_vec() })
    }

    /// What the service can do: SHA-1 or SHA-256, the same in MGF1, no label.
    ///
    /// # Errors
    /// CKR_MECHANISM_PARAM_INVALID for anything else.
    pub fn for_service(self) -> Result<Oaep> {
        let known = matches!(self.hash, Hash::Sha1 | Hash::Sha256);
        if known && self.mgf == self.hash && self.label.is_empty() {
            return Ok(self);
        }
        Err(invalid(format!(
            "OAEP with {}, MGF1 {} and a label of {} bytes: the service has SHA-1 or SHA-256, the \
             same hash in MGF1, and no label",
            self.hash.name(),
            self.mgf.name(),
            self.label.len(),
        )))
    }
}

/// Reads the parameter of an AES mechanism.
///
/// # Errors
/// CKR_MECHANISM_PARAM_INVALID for one that no AES could use.
pub fn aes(mode: AesMode, parameter: &Parameter<'_>) -> Result<Mode> {
    let iv = || {
        let iv = parameter.bytes().unwrap_or_default();
        iv.try_into().map_err(|_| invalid(format!("an IV of {} bytes, not {BLOCK}", iv.len())))
    };
    Ok(match mode {
        AesMode::Ecb => Mode::Ecb,
        AesMode::Cbc => Mode::Cbc { iv: iv()? },
        AesMode::CbcPad => Mode::CbcPad { iv: iv()? },
        AesMode::Ctr => {
            let (bits, block) = parameter.ctr()?;
            let counter_bits = u32::try_from(bits).unwrap_or(u32::MAX);
            Mode::Ctr { counter_bits, block }
        }
        AesMode::Gcm => {
            let GcmParameter { iv, aad, tag_bits } = parameter.gcm()?;
            Mode::Gcm { iv: iv.to_vec(), aad: aad.to_vec(), tag_len: tag_len(tag_bits)? }
        }
    })
}

/// Bytes of a tag of so many bits.
///
/// # Errors
/// CKR_MECHANISM_PARAM_INVALID for bits that are no bytes, and for more than 128.
pub fn tag_len(bits: CK_ULONG) -> Result<usize> {
    match bits {
        8..=128 if bits.is_multiple_of(8) => Ok(bits as usize / 8),
        _ => Err(invalid(format!("a tag of {bits} bits"))),
    }
}

/// Bytes of the result of an HMAC: all, or what CK_MAC_GENERAL_PARAMS says.
///
/// # Errors
/// CKR_MECHANISM_PARAM_INVALID for none, and for more than the hash has.
pub fn mac_len(hash: Hash, general: bool, parameter: &Parameter<'_>) -> Result<usize> {
    if !general {
        return Ok(hash.len());
    }
    let wanted = parameter.number()?;
    let len = usize::try_from(wanted).ok().filter(|len| (1..=hash.len()).contains(len));
    len.ok_or_else(|| invalid(format!("{wanted} bytes of an HMAC with {}", hash.name())))
}

/// CKM_RSA_AES_KEY_WRAP parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RsaAesWrap {
    /// Bytes of the temporary AES key: 16, 24 or 32.
    pub aes: usize,
    /// How that key is encrypted.
    pub oaep: Oaep,
}

impl RsaAesWrap {
    /// Reads CK_RSA_AES_KEY_WRAP_PARAMS.
    ///
    /// # Errors
    /// CKR_MECHANISM_PARAM_INVALID for another size of AES key, or as [`Oaep::parse`].
    pub fn parse(parameter: &Parameter<'_>) -> Result<RsaAesWrap> {
        let (bits, oaep) = parameter.rsa_aes()?;
        let aes = match bits {
            128 | 192 | 256 => bits as usize / 8,
            _ => return Err(invalid(format!("an AES key of {bits} bits"))),
        };
        Ok(RsaAesWrap { aes, oaep: Oaep::parse(&oaep)? })
    }

    /// What a transfer blob must be made with (BYOK specification): AES-256, OAEP with SHA-1.
    ///
    /// # Errors
    /// CKR_MECHANISM_PARAM_INVALID.
    pub fn for_transfer(&self) -> Result<()> {
        let sha1 = Oaep { hash: Hash::Sha1, mgf: Hash::Sha1, label: vec![] };
        if self.aes == 32 && self.oaep == sha1 {
            return Ok(());
        }
        Err(invalid(format!(
            "a key transfer is made with an AES key of 256 bits and OAEP with SHA-1, not {self:?}"
        )))
    }
}

/// Refuses a parameter where the mechanism has none.
///
/// # Errors
/// CKR_MECHANISM_PARAM_INVALID.
pub fn none(mechanism: &Mechanism, parameter: &Parameter<'_>) -> Result<()> {
    let takes_one = match mechanism.scheme {
        Scheme::Pss(_) | Scheme::Oaep | Scheme::RsaAesWrap | Scheme::Hmac(_, true) => true,
        Scheme::Aes(mode) => mode != AesMode::Ecb,
        _ => false,
    };
    if takes_one || parameter.is_empty() {
        return Ok(());
    }
    Err(invalid(format!("{} takes no parameter", mechanism.name)))
}

/// The hash of a CKG_MGF1_….
fn mgf_of(mgf: CK_ULONG) -> Option<Hash> {
    Some(match mgf {
        CKG_MGF1_SHA1 => Hash::Sha1,
        CKG_MGF1_SHA224 => Hash::Sha224,
        CKG_MGF1_SHA256 => Hash::Sha256,
        CKG_MGF1_SHA384 => Hash::Sha384,
        CKG_MGF1_SHA512 => Hash::Sha512,
        CKG_MGF1_SHA3_224 => Hash::Sha3_224,
        CKG_MGF1_SHA3_256 => Hash::Sha3_256,
        CKG_MGF1_SHA3_384 => Hash::Sha3_384,
        CKG_MGF1_SHA3_512 => Hash::Sha3_512,
        _ => return None,
    })
}

/// CKR_MECHANISM_PARAM_INVALID with a sentence.
pub fn invalid(sentence: String) -> Error {
    Error::new(CKR_MECHANISM_PARAM_INVALID, sentence)
}
