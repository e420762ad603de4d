//! An RSA public key and the operations of RFC 8017 with it.

use aws_lc_rs::{
    digest,
    rsa::{
        OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384, OAEP_SHA512_MGF1SHA512,
        OaepAlgorithm, OaepPublicEncryptingKey, Pkcs1PublicEncryptingKey, PublicEncryptingKey,
        PublicKeyComponents,
    },
    signature::{
        RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256,
        RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
        RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    },
};
use cryptoki_sys::{
    CKR_DATA_INVALID, CKR_DATA_LEN_RANGE, CKR_ENCRYPTED_DATA_LEN_RANGE, CKR_FUNCTION_FAILED,
    CKR_KEY_SIZE_RANGE, CKR_MECHANISM_PARAM_INVALID, CKR_PUBLIC_KEY_INVALID, CKR_SIGNATURE_INVALID,
    CKR_SIGNATURE_LEN_RANGE,
};
use once_cell::race::OnceBox;
use rsa::{
    BigUint, Oaep, Pkcs1v15Encrypt, Pkcs1v15Sign, Pss, RsaPublicKey, hazmat,
    pkcs1::EncodeRsaPublicKey, rand_core::OsRng, traits::PublicKeyParts,
};

use super::{
    digest_info,
    hash::{Hash, with_digest},
    to_length, without_leading_zeros,
};
use crate::{
    error::{Error, Result},
    refuse,
};

/// Bits of a modulus that is accepted, for keys as they are found.
const SIZES: std::ops::RangeInclusive<usize> = 1024..=16384;

pub(super) struct RsaPublic {
    n: Vec<u8>,
    e: Vec<u8>,
    key: RsaPublicKey,
    /// Made when it is needed; `None` outside of the 2048 to 8192 bits that aws-lc-rs takes.
    encrypting: OnceBox<Option<PublicEncryptingKey>>,
}

impl RsaPublic {
    pub(super) fn new(n: &[u8], e: &[u8]) -> Result<RsaPublic> {
        let (n, e) = (without_leading_zeros(n), without_leading_zeros(e));
        // Before any arithmetic: the work grows with the cube of the length.
        if n.len() > SIZES.end() / 8 {
            return Err(size_range(n.len() * 8));
        }
        let modulus = BigUint::from_bytes_be(n);
        if !SIZES.contains(&modulus.bits()) {
            return Err(size_range(modulus.bits()));
        }
        let exponent = BigUint::from_bytes_be(e);
        let key =
            RsaPublicKey::new_with_max_size(modulus, exponent, *SIZES.end()).map_err(|why| {
                Error::new(
                    CKR_PUBLIC_KEY_INVALID,
                    format!("the RSA public key is not usable: {why}"),
                )
            })?;
        Ok(RsaPublic { n: n.to_vec(), e: e.to_vec(), key, encrypting: OnceBox::new() })
    }

    pub(super) fn modulus(&self) -> &[u8] {
        &self.n
    }

    pub(super) fn exponent(&self) -> &[u8] {
        &self.e
    }

    pub(super) fn size_bits(&self) -> usize {
        self.key.n().bits()
    }

    /// RSAPublicKey of RFC 8017, A.1.1.
    pub(super) fn pkcs1_der(&self) -> Vec<u8> {
        // DER only fails beyond 256 MiB.
        self.key.to_pkcs1_der().map(|der| der.into_vec()).unwrap_or_default()
    }

    pub(super) fn verify_pkcs1(&self, content: &[u8], signature: &[u8]) -> Result<()> {
        self.check_content(content)?;
        self.check_signature(signature)?;
        if let Some(parsed) = digest_info::parse(content)
            && parsed.canonical
            && let Some((parameters, algorithm)) = parsed.hash.and_then(pkcs1_parameters)
            && let Some(verdict) = self.verify_with(parameters, algorithm, parsed.digest, signature)
        {
            return verdict;
        }
        self.key
            .verify(Pkcs1v15Sign::new_unprefixed(), content, signature)
            .map_err(|_| self.mismatch("PKCS#1 v1.5"))
    }

    pub(super) fn verify_pss(
        &self,
        hash: Hash,
        mgf: Hash,
        salt_len: usize,
        digest: &[u8],
        signature: &[u8],
    ) -> Result<()> {
        check_pss(self.size_bits(), hash, mgf, salt_len, digest)?;
        self.check_signature(signature)?;
        if salt_len == hash.len()
            && let Some((parameters, algorithm)) = pss_parameters(hash)
            && let Some(verdict) = self.verify_with(parameters, algorithm, digest, signature)
        {
            return verdict;
        }
        let mismatch = || self.mismatch("PSS");
        // RFC 8017, 5.2.2 step 1, which `rsa` leaves out here: s + n would verify as well as s.
        if BigUint::from_bytes_be(signature) >= *self.key.n() {
            return Err(mismatch());
        }
        let scheme = with_digest!(hash, D => Pss::new_with_salt::<D>(salt_len));
        self.key.verify(scheme, digest, signature).map_err(|_| mismatch())
    }

    pub(super) fn recover_pkcs1(&self, signature: &[u8]) -> Result<Vec<u8>> {
        self.check_signature(signature)?;
        let s = BigUint::from_bytes_be(signature);
        if s >= *self.key.n() {
            return Err(self.mismatch("PKCS#1 v1.5"));
        }
        let block = self.power(&s)?;
        // RFC 8017, 9.2: 00 01 FF…FF 00 content, at least eight FF.
        let content = block
            .strip_prefix(&[0, 1])
            .and_then(|rest| {
                let padding = rest.iter().take_while(|byte| **byte == 0xff).count();
                (padding >= 8).then(|| &rest[padding..])
            })
            .and_then(|rest| rest.strip_prefix(&[0]));
        content.map(<[u8]>::to_vec).ok_or_else(|| self.mismatch("PKCS#1 v1.5"))
    }

    pub(super) fn raw(&self, block: &[u8]) -> Result<Vec<u8>> {
        let m = check_block(self.key.n(), block)?;
        self.power(&m)
    }

    pub(super) fn encrypt_pkcs1(&self, data: &[u8]) -> Result<Vec<u8>> {
        self.check_content(data)?;
        let Some(key) = self.encrypting() else {
            return self.key.encrypt(&mut OsRng, Pkcs1v15Encrypt, data).map_err(failed);
        };
        let key = Pkcs1PublicEncryptingKey::new(key.clone()).map_err(failed)?;
        let mut ciphertext = vec![0; key.ciphertext_size()];
        key.encrypt(data, &mut ciphertext).map_err(failed)?;
        Ok(ciphertext)
    }

    pub(super) fn encrypt_oaep(
        &self,
        hash: Hash,
        mgf: Hash,
        label: &[u8],
        data: &[u8],
    ) -> Result<Vec<u8>> {
        let room = self.n.len().checked_sub(2 * hash.len() + 2);
        if room.is_none_or(|room| data.len() > room) {
            refuse!(
                CKR_DATA_LEN_RANGE,
                "{} bytes do not fit RSA {} with OAEP and {hash}: at most {}",
                data.len(),
                self.size_bits(),
                room.unwrap_or(0)
            );
        }
        if let (Some(key), Some(algorithm)) = (self.encrypting(), oaep_algorithm(hash, mgf)) {
            let key = OaepPublicEncryptingKey::new(key.clone()).map_err(failed)?;
            let mut ciphertext = vec![0; key.ciphertext_size()];
            key.encrypt(algorithm, data, &mut ciphertext, some_label(label)).map_err(failed)?;
            return Ok(ciphertext);
        }
        self.key.encrypt(&mut OsRng, oaep_scheme(hash, mgf, label)?, data).map_err(failed)
    }

    fn encrypting(&self) -> Option<&PublicEncryptingKey> {
        let make = || Box::new(components(&self.n, &self.e).try_into().ok());
        self.encrypting.get_or_init(make).as_ref()
    }

    /// The verdict of aws-lc-rs; `None` if it does not take the key.
    fn verify_with(
        &self,
        parameters: &'static RsaParameters,
        algorithm: &'static digest::Algorithm,
        digest: &[u8],
        signature: &[u8],
    ) -> Option<Result<()>> {
        self.encrypting()?;
        let key = components(&self.n, &self.e).to_parsed_public_key(parameters).ok()?;
        let digest = digest::Digest::import_less_safe(digest, algorithm).ok()?;
        Some(key.verify_digest_sig(&digest, signature).map_err(|_| self.mismatch("RSA")))
    }

    fn power(&self, base: &BigUint) -> Result<Vec<u8>> {
        let power = hazmat::rsa_encrypt(&self.key, base).map_err(failed)?;
        to_length(&power.to_bytes_be(), self.n.len()).ok_or_else(|| failed("too long"))
    }

    fn check_content(&self, content: &[u8]) -> Result<()> {
        check_content(self.size_bits(), self.n.len(), content)
    }

    fn check_signature(&self, signature: &[u8]) -> Result<()> {
        if signature.len() != self.n.len() {
            refuse!(
                CKR_SIGNATURE_LEN_RANGE,
                "a signature of RSA {} has {} bytes, got {}",
                self.size_bits(),
                self.n.len(),
                signature.len()
            );
        }
        Ok(())
    }

    fn mismatch(&self, scheme: &str) -> Error {
        let bits = self.size_bits();
        Error::new(
            CKR_SIGNATURE_INVALID,
            format!("the {scheme} signature does not match the RSA {bits} key"),
        )
    }
}

impl PartialEq for RsaPublic {
    fn eq(&self, other: &Self) -> bool {
        self.n == other.n && self.e == other.e
    }
}

impl Eq for RsaPublic {}

/// At most `k - 11` bytes fit the PKCS#1 v1.5 padding, of either type.
pub(super) fn check_content(bits: usize, k: usize, content: &[u8]) -> Result<()> {
    if content.len() + 11 > k {
        refuse!(
            CKR_DATA_LEN_RANGE,
            "{} bytes do not fit RSA {bits} with PKCS#1 v1.5: at most {}",
            content.len(),
            k.saturating_sub(11)
        );
    }
    Ok(())
}

/// `block` as an integer below `n`, for the bare operation.
pub(super) fn check_block(n: &BigUint, block: &[u8]) -> Result<BigUint> {
    let k = n.bits().div_ceil(8);
    if block.len() > k {
        refuse!(CKR_DATA_LEN_RANGE, "a raw RSA block has at most {k} bytes, got {}", block.len());
    }
    let integer = BigUint::from_bytes_be(block);
    if integer >= *n {
        refuse!(CKR_DATA_INVALID, "a raw RSA block must be a smaller number than the modulus");
    }
    Ok(integer)
}

/// A ciphertext has as many bytes as the modulus.
pub(super) fn check_ciphertext(bits: usize, k: usize, ciphertext: &[u8]) -> Result<()> {
    if ciphertext.len() != k {
        refuse!(
            CKR_ENCRYPTED_DATA_LEN_RANGE,
            "a ciphertext of RSA {bits} has {k} bytes, got {}",
            ciphertext.len()
        );
    }
    Ok(())
}

/// The lengths that PSS asks for (RFC 8017, 9.1.1), and the parameters that are supported.
pub(super) fn check_pss(
    bits: usize,
    hash: Hash,
    mgf: Hash,
    salt_len: usize,
    digest: &[u8],
) -> Result<()> {
    if mgf != hash {
        refuse!(
            CKR_MECHANISM_PARAM_INVALID,
            "PSS with {hash} and MGF1 with {mgf}: only the same hash for both is supported"
        );
    }
    if digest.len() != hash.len() {
        refuse!(
            CKR_DATA_LEN_RANGE,
            "PSS with {hash} signs {} bytes, got {}",
            hash.len(),
            digest.len()
        );
    }
    // The encoded message has one bit less than the modulus.
    let room = (bits - 1).div_ceil(8).checked_sub(hash.len() + 2);
    if room.is_none_or(|room| salt_len > room) {
        refuse!(
            CKR_MECHANISM_PARAM_INVALID,
            "a PSS salt of {salt_len} bytes does not fit RSA {bits} with {hash}: at most {}",
            room.unwrap_or(0)
        );
    }
    Ok(())
}

/// The scheme of aws-lc-rs, which has one hash for both and takes a label of any bytes.
pub(super) fn oaep_algorithm(hash: Hash, mgf: Hash) -> Option<&'static OaepAlgorithm> {
    match hash {
        _ if hash != mgf => None,
        Hash::Sha1 => Some(&OAEP_SHA1_MGF1SHA1),
        Hash::Sha256 => Some(&OAEP_SHA256_MGF1SHA256),
        Hash::Sha384 => Some(&OAEP_SHA384_MGF1SHA384),
        Hash::Sha512 => Some(&OAEP_SHA512_MGF1SHA512),
        _ => None,
    }
}

/// Whether these hashes take this label.
///
/// # Errors
/// CKR_MECHANISM_PARAM_INVALID: the hashes are `rsa`'s, which takes labels as text only.
pub fn check_oaep_label(hash: Hash, mgf: Hash, label: &[u8]) -> Result<()> {
    match oaep_algorithm(hash, mgf) {
        Some(_) => Ok(()),
        None => text_label(hash, mgf, label).map(|_| ()),
    }
}

fn text_label(hash: Hash, mgf: Hash, label: &[u8]) -> Result<&str> {
    let Ok(label) = std::str::from_utf8(label) else {
        refuse!(
            CKR_MECHANISM_PARAM_INVALID,
            "an OAEP label of other bytes than UTF-8 is not supported with {hash} and MGF1 {mgf}"
        );
    };
    Ok(label)
}

/// The scheme of `rsa`, for the other hashes.
pub(super) fn oaep_scheme(hash: Hash, mgf: Hash, label: &[u8]) -> Result<Oaep> {
    let label = text_label(hash, mgf, label)?;
    Ok(with_digest!(hash, D => with_digest!(mgf, M => if label.is_empty() {
        Oaep::new_with_mgf_hash::<D, M>()
    } else {
        Oaep::new_with_mgf_hash_and_label::<D, M, _>(label)
    })))
}

/// An empty label is the default label.
pub(super) fn some_label(label: &[u8]) -> Option<&[u8]> {
    (!label.is_empty()).then_some(label)
}

/// A library refused what the checks before it had accepted.
pub(super) fn failed(why: impl std::fmt::Display) -> Error {
    Error::new(CKR_FUNCTION_FAILED, format!("local RSA operation failed: {why}"))
}

fn size_range(bits: usize) -> Error {
    Error::new(
        CKR_KEY_SIZE_RANGE,
        format!(
            "an RSA modulus of {bits} bits; {} to {} are supported",
            SIZES.start(),
            SIZES.end()
        ),
    )
}

fn components<'a>(n: &'a [u8], e: &'a [u8]) -> PublicKeyComponents<&'a [u8]> {
    PublicKeyComponents { n, e }
}

fn pkcs1_parameters(hash: Hash) -> Option<(&'static RsaParameters, &'static digest::Algorithm)> {
    match hash {
        Hash::Sha1 => {
            Some((&RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, &digest::SHA1_FOR_LEGACY_USE_ONLY))
        }
        Hash::Sha256 => Some((&RSA_PKCS1_2048_8192_SHA256, &digest::SHA256)),
        Hash::Sha384 => Some((&RSA_PKCS1_2048_8192_SHA384, &digest::SHA384)),
        Hash::Sha512 => Some((&RSA_PKCS1_2048_8192_SHA512, &digest::SHA512)),
        _ => None,
    }
}

fn pss_parameters(hash: Hash) -> Option<(&'static RsaParameters, &'static digest::Algorithm)> {
    match hash {
        Hash::Sha256 => Some((&RSA_PSS_2048_8192_SHA256, &digest::SHA256)),
        Hash::Sha384 => Some((&RSA_PSS_2048_8192_SHA384, &digest::SHA384)),
        Hash::Sha512 => Some((&RSA_PSS_2048_8192_SHA512, &digest::SHA512)),
        _ => None,
    }
}
