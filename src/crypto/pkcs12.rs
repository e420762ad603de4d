//! Certificates of a PKCS#12 file without password (RFC 7292), as the secret behind a vault's
//! certificate is one. Keys in it are neither decrypted nor copied: everything here borrows from
//! the caller's buffer, and what is decrypted is wiped.

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2;
use cbc::cipher::{BlockCipher, BlockDecryptMut, InnerIvInit, KeyInit, block_padding::Pkcs7};
use cryptoki_sys::{CKR_DEVICE_ERROR, CKR_FUNCTION_NOT_SUPPORTED};
use der::{
    AnyRef, Decode, Sequence,
    asn1::{ObjectIdentifier, OctetStringRef},
};
use pkcs5::pbes2;
use pkcs12::{kdf, pbe_params::Pkcs12PbeParams};
use sha1::Sha1;
use spki::AlgorithmIdentifierRef;
use zeroize::Zeroizing;

use super::symmetric::{Cipher, Direction, Mode};
use crate::error::{Error, Result};

const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const ENCRYPTED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.6");
const CERTIFICATE_BAG: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.10.1.3");
const X509: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.22.1");
const TRIPLE_DES: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.1.3");
const RC2_40: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.12.1.6");
const PBES2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.5.13");

/// More would only keep the caller waiting: a service uses 2,000, careful people 600,000.
const MOST_ITERATIONS: u32 = 2_000_000;
/// And each encrypted part costs so many: writers make one, of certificates, and perhaps one of keys.
const MOST_ENCRYPTED: usize = 4;

/// The certificates of a file in DER, each in DER, in the file's order. The MAC is not looked at:
/// the file came over TLS from whom it should, and certificates speak for themselves.
///
/// # Errors
/// CKR_DEVICE_ERROR for what is no such file or has a password, CKR_FUNCTION_NOT_SUPPORTED for an
/// encryption that is not known here.
pub fn certificates(file: &[u8]) -> Result<Vec<Vec<u8>>> {
    let pfx = Pfx::from_der(file).map_err(malformed)?;
    let safe = pfx.safe.octets(DATA)?;
    let (mut found, mut encrypted_parts) = (Vec::new(), 0);
    for part in Vec::<ContentInfo<'_>>::from_der(safe).map_err(malformed)? {
        match part.content_type {
            DATA => collect(part.octets(DATA)?, &mut found)?,
            ENCRYPTED_DATA => {
                encrypted_parts += 1;
                if encrypted_parts > MOST_ENCRYPTED {
                    return Err(unsupported(&format!(
                        "more than {MOST_ENCRYPTED} encrypted parts"
                    )));
                }
                let encrypted: EncryptedData<'_> = part.content.decode_as().map_err(malformed)?;
                collect(&encrypted.content.decrypted()?, &mut found)?;
            }
            other => return Err(unsupported(&format!("a part of type {other}"))),
        }
    }
    Ok(found)
}

/// PFX, clause 4.
#[derive(Sequence)]
struct Pfx<'a> {
    version: u8,
    safe: ContentInfo<'a>,
    mac: Option<AnyRef<'a>>,
}

/// ContentInfo of PKCS#7.
#[derive(Sequence)]
struct ContentInfo<'a> {
    content_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    content: AnyRef<'a>,
}

impl<'a> ContentInfo<'a> {
    fn octets(&self, wanted: ObjectIdentifier) -> Result<&'a [u8]> {
        if self.content_type != wanted {
            return Err(unsupported(&format!("content of type {}", self.content_type)));
        }
        self.content.decode_as::<OctetStringRef<'a>>().map(|o| o.as_bytes()).map_err(malformed)
    }
}

/// EncryptedData of PKCS#7.
#[derive(Sequence)]
struct EncryptedData<'a> {
    version: u8,
    content: EncryptedContent<'a>,
}

#[derive(Sequence)]
struct EncryptedContent<'a> {
    content_type: ObjectIdentifier,
    algorithm: AlgorithmIdentifierRef<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    content: OctetStringRef<'a>,
}

/// SafeBag, clause 4.2.
#[derive(Sequence)]
struct SafeBag<'a> {
    kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    value: AnyRef<'a>,
    attributes: Option<AnyRef<'a>>,
}

/// CertBag, clause 4.2.3.
#[derive(Sequence)]
struct CertificateBag<'a> {
    kind: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    value: AnyRef<'a>,
}

/// The certificates among the bags of one part; other bags are passed over unseen.
fn collect(contents: &[u8], found: &mut Vec<Vec<u8>>) -> Result<()> {
    for bag in Vec::<SafeBag<'_>>::from_der(contents).map_err(malformed)? {
        if bag.kind != CERTIFICATE_BAG {
            continue;
        }
        let certificate: CertificateBag<'_> = bag.value.decode_as().map_err(malformed)?;
        if certificate.kind == X509 {
            let der: OctetStringRef<'_> = certificate.value.decode_as().map_err(malformed)?;
            found.push(der.as_bytes().to_vec());
        }
    }
    Ok(())
}

impl EncryptedContent<'_> {
    /// Decrypted with the empty password, which PKCS#12 knows in two forms: a terminating zero
    /// alone, and nothing at all.
    fn decrypted(&self) -> Result<Zeroizing<Vec<u8>>> {
        let parameters = self.algorithm.parameters.ok_or_else(|| {
            unsupported(&format!("encryption {} without parameters", self.algorithm.oid))
        })?;
        let ciphertext = self.content.as_bytes();
        if self.algorithm.oid == PBES2 {
            return pbes2(parameters, ciphertext);
        }
        let pbe: Pkcs12PbeParams = parameters.decode_as().map_err(malformed)?;
        check(u32::try_from(pbe.iterations).unwrap_or(u32::MAX))?;
        let passwords: [&[u8]; 2] = [&[0, 0], &[]];
        let plaintext = passwords.into_iter().find_map(|password| {
            let derived = |id, length| {
                let salt = pbe.salt.as_bytes();
                let rounds = pbe.iterations;
                Zeroizing::new(kdf::derive_key::<Sha1>(password, salt, id, rounds, length))
            };
            let length = if self.algorithm.oid == TRIPLE_DES { 24 } else { 5 };
            let key = derived(kdf::Pkcs12KeyType::EncryptionKey, length);
            let iv = derived(kdf::Pkcs12KeyType::Iv, 8);
            let plaintext = match self.algorithm.oid {
                TRIPLE_DES => cbc_pad(des::TdesEde3::new_from_slice(&key).ok()?, &iv, ciphertext),
                RC2_40 => cbc_pad(rc2::Rc2::new_with_eff_key_len(&key, 40), &iv, ciphertext),
                _ => None,
            };
            // Padding fits by chance once in 256 times: what is a SEQUENCE is it.
            plaintext.filter(|plaintext| AnyRef::from_der(plaintext).is_ok())
        });
        match self.algorithm.oid {
            TRIPLE_DES | RC2_40 => plaintext.ok_or_else(|| refused("it has a password")),
            other => Err(unsupported(&format!("encryption {other}"))),
        }
    }
}

fn cbc_pad<C: BlockCipher + BlockDecryptMut>(
    cipher: C,
    iv: &[u8],
    ciphertext: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let mut buffer = Zeroizing::new(ciphertext.to_vec());
    let decryptor = cbc::Decryptor::inner_iv_slice_init(cipher, iv).ok()?;
    let length = decryptor.decrypt_padded_mut::<Pkcs7>(&mut buffer).ok()?.len();
    buffer.truncate(length);
    Some(buffer)
}

/// PBES2 with PBKDF2 and AES-CBC (RFC 8018, 6.2); the password is nothing at all there.
fn pbes2(parameters: AnyRef<'_>, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let parameters: pbes2::Parameters<'_> = parameters.decode_as().map_err(malformed)?;
    let pbes2::Kdf::Pbkdf2(pbkdf2) = &parameters.kdf else {
        return Err(unsupported("another key derivation than PBKDF2"));
    };
    check(pbkdf2.iteration_count)?;
    let algorithm = match pbkdf2.prf {
        pbes2::Pbkdf2Prf::HmacWithSha1 => pbkdf2::PBKDF2_HMAC_SHA1,
        pbes2::Pbkdf2Prf::HmacWithSha256 => pbkdf2::PBKDF2_HMAC_SHA256,
        pbes2::Pbkdf2Prf::HmacWithSha384 => pbkdf2::PBKDF2_HMAC_SHA384,
        pbes2::Pbkdf2Prf::HmacWithSha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        _ => return Err(unsupported("PBKDF2 with another hash")),
    };
    let (length, iv) = match &parameters.encryption {
        pbes2::EncryptionScheme::Aes128Cbc { iv } => (16, iv),
        pbes2::EncryptionScheme::Aes192Cbc { iv } => (24, iv),
        pbes2::EncryptionScheme::Aes256Cbc { iv } => (32, iv),
        _ => return Err(unsupported("another cipher than AES-CBC")),
    };
    let rounds = NonZeroU32::new(pbkdf2.iteration_count).unwrap_or(NonZeroU32::MIN);
    let mut key = Zeroizing::new(vec![0; length]);
    pbkdf2::derive(algorithm, rounds, pbkdf2.salt, b"", &mut key);
    Cipher::once(Direction::Decrypt, Mode::CbcPad { iv: **iv }, &key, ciphertext)
        .map_err(|_| refused("it has a password"))
}

fn check(iterations: u32) -> Result<()> {
    if (1..=MOST_ITERATIONS).contains(&iterations) {
        return Ok(());
    }
    Err(unsupported(&format!("{iterations} iterations of key derivation")))
}

fn malformed(error: der::Error) -> Error {
    refused(&format!("it is malformed: {error}"))
}

fn refused(why: &str) -> Error {
    Error::new(CKR_DEVICE_ERROR, format!("a PKCS#12 file that cannot be read: {why}"))
}

fn unsupported(what: &str) -> Error {
    let sentence = format!("a PKCS#12 file with {what}, which is not known here");
    Error::new(CKR_FUNCTION_NOT_SUPPORTED, sentence)
}

#[cfg(test)]
mod tests {
    use der::Encode;

    use super::*;

    #[test]
    fn a_file_cannot_ask_for_key_derivations_without_end() {
        let file = include_bytes!("../../fuzz/samples/pbes2.p12");
        let safe = Pfx::from_der(file).unwrap().safe.octets(DATA).unwrap();
        let parts = Vec::<ContentInfo<'_>>::from_der(safe).unwrap();
        let encrypted = parts.iter().find(|part| part.content_type == ENCRYPTED_DATA).unwrap();
        let with = |count: usize| {
            let one = encrypted.to_der().unwrap();
            let parts: Vec<_> = (0..count).map(|_| ContentInfo::from_der(&one).unwrap()).collect();
            let safe = parts.to_der().unwrap();
            let safe = OctetStringRef::new(&safe).unwrap();
            let safe = ContentInfo { content_type: DATA, content: safe.into() };
            certificates(&Pfx { version: 3, safe, mac: None }.to_der().unwrap())
        };
        assert_eq!(with(MOST_ENCRYPTED).unwrap().len(), MOST_ENCRYPTED);
        assert_eq!(with(MOST_ENCRYPTED + 1).unwrap_err().rv(), CKR_FUNCTION_NOT_SUPPORTED);
    }
}
