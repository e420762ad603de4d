//! AES in the contract's modes.

use akv_wire::{EncryptionAlgorithm, SymmetricMode};
use openssl::cipher::{Cipher, CipherRef};
use openssl::cipher_ctx::{CipherCtx, CipherCtxFlags};
use openssl::error::ErrorStack;

use super::{CipherInput, Encrypted, Fault, random};

const BLOCK: usize = 16;
const GCM_IV: usize = 12;
const GCM_TAG: usize = 16;

/// Encrypts or wraps. GCM makes its own IV, CBC needs the caller's.
pub fn encrypt(
    key: &[u8],
    alg: EncryptionAlgorithm,
    input: CipherInput<'_>,
) -> Result<Encrypted, Fault> {
    let mode = mode(key, alg)?;
    let value = input.value;
    match mode {
        SymmetricMode::Gcm => {
            let iv = random(GCM_IV)?;
            let mut ctx = CipherCtx::new()?;
            ctx.encrypt_init(Some(gcm(key)?), Some(key), Some(&iv))?;
            if let Some(aad) = input.aad {
                ctx.cipher_update(aad, None)?;
            }
            let mut ciphertext = Vec::new();
            ctx.cipher_update_vec(value, &mut ciphertext)?;
            ctx.cipher_final_vec(&mut ciphertext)?;
            let mut tag = vec![0; GCM_TAG];
            ctx.tag(&mut tag)?;
            Ok(Encrypted { value: ciphertext, iv: Some(iv), tag: Some(tag) })
        }
        SymmetricMode::Cbc | SymmetricMode::CbcPad => {
            let iv = cbc_iv(input)?;
            let mut plaintext = value.to_vec();
            if mode == SymmetricMode::Cbc {
                // Recorded: the service fills a short last block with zeros.
                plaintext.resize(value.len().next_multiple_of(BLOCK), 0);
            }
            let ciphertext = cbc(key, iv, &plaintext, mode, true)?;
            Ok(Encrypted { value: ciphertext, iv: Some(iv.to_vec()), tag: None })
        }
        SymmetricMode::KeyWrap => {
            if value.len() < 16 || !value.len().is_multiple_of(8) {
                return Err(Fault::Length { member: "value", given: value.len(), want: None });
            }
            let wrapped = wrap(kw(key)?, key, value, true)?;
            Ok(Encrypted { value: wrapped, ..Encrypted::default() })
        }
        SymmetricMode::KeyWrapPad => {
            if value.is_empty() {
                return Err(Fault::Length { member: "value", given: 0, want: None });
            }
            let wrapped = wrap(kwp(key)?, key, value, true)?;
            Ok(Encrypted { value: wrapped, ..Encrypted::default() })
        }
    }
}

/// Decrypts or unwraps.
pub fn decrypt(
    key: &[u8],
    alg: EncryptionAlgorithm,
    input: CipherInput<'_>,
) -> Result<Vec<u8>, Fault> {
    let mode = mode(key, alg)?;
    let value = input.value;
    match mode {
        SymmetricMode::Gcm => {
            let iv = input.iv.ok_or(Fault::Missing("iv"))?;
            let tag = input.tag.ok_or(Fault::Missing("tag"))?;
            expect_len("iv", iv, GCM_IV)?;
            expect_len("tag", tag, GCM_TAG)?;
            let mut ctx = CipherCtx::new()?;
            ctx.decrypt_init(Some(gcm(key)?), Some(key), Some(iv))?;
            if let Some(aad) = input.aad {
                ctx.cipher_update(aad, None)?;
            }
            let mut plaintext = Vec::new();
            ctx.cipher_update_vec(value, &mut plaintext)?;
            ctx.set_tag(tag)?;
            ctx.cipher_final_vec(&mut plaintext).map_err(|_| Fault::Undecryptable)?;
            Ok(plaintext)
        }
        SymmetricMode::Cbc | SymmetricMode::CbcPad => {
            let iv = cbc_iv(input)?;
            if value.is_empty() || !value.len().is_multiple_of(BLOCK) {
                return Err(Fault::Length { member: "value", given: value.len(), want: None });
            }
            cbc(key, iv, value, mode, false).map_err(|_| Fault::Undecryptable)
        }
        SymmetricMode::KeyWrap | SymmetricMode::KeyWrapPad => {
            let (shortest, cipher) = match mode {
                SymmetricMode::KeyWrap => (24, kw(key)?),
                _ => (16, kwp(key)?),
            };
            if value.len() < shortest || !value.len().is_multiple_of(8) {
                return Err(Fault::Length { member: "value", given: value.len(), want: None });
            }
            wrap(cipher, key, value, false).map_err(|_| Fault::Undecryptable)
        }
    }
}

/// RFC 5649 with the alternative initial value of the standard.
pub fn wrap_with_padding(key: &[u8], value: &[u8], encrypt: bool) -> Result<Vec<u8>, Fault> {
    Ok(wrap(kwp(key)?, key, value, encrypt)?)
}

/// The mode, provided the algorithm's key size is this key's.
fn mode(key: &[u8], alg: EncryptionAlgorithm) -> Result<SymmetricMode, Fault> {
    match alg.key_bits() {
        Some(bits) if bits as usize != key.len() * 8 => Err(Fault::WrongKey),
        _ => alg.mode().ok_or(Fault::WrongKey),
    }
}

fn cbc_iv(input: CipherInput<'_>) -> Result<&[u8], Fault> {
    let iv = input.iv.ok_or(Fault::Missing("iv"))?;
    expect_len("iv", iv, BLOCK)?;
    Ok(iv)
}

fn expect_len(member: &'static str, bytes: &[u8], want: usize) -> Result<(), Fault> {
    if bytes.len() == want {
        Ok(())
    } else {
        Err(Fault::Length { member, given: bytes.len(), want: Some(want) })
    }
}

fn cbc(
    key: &[u8],
    iv: &[u8],
    input: &[u8],
    mode: SymmetricMode,
    encrypt: bool,
) -> Result<Vec<u8>, Fault> {
    let cipher = match key.len() {
        16 => Cipher::aes_128_cbc(),
        24 => Cipher::aes_192_cbc(),
        32 => Cipher::aes_256_cbc(),
        _ => return Err(Fault::WrongKey),
    };
    let mut ctx = CipherCtx::new()?;
    if encrypt {
        ctx.encrypt_init(Some(cipher), Some(key), Some(iv))?;
    } else {
        ctx.decrypt_init(Some(cipher), Some(key), Some(iv))?;
    }
    ctx.set_padding(mode == SymmetricMode::CbcPad);
    let mut output = Vec::new();
    ctx.cipher_update_vec(input, &mut output)?;
    ctx.cipher_final_vec(&mut output)?;
    Ok(output)
}

fn wrap(
    cipher: &CipherRef,
    key: &[u8],
    input: &[u8],
    encrypt: bool,
) -> Result<Vec<u8>, ErrorStack> {
    let mut ctx = CipherCtx::new()?;
    ctx.set_flags(CipherCtxFlags::FLAG_WRAP_ALLOW);
    if encrypt {
        ctx.encrypt_init(Some(cipher), Some(key), None)?;
    } else {
        ctx.decrypt_init(Some(cipher), Some(key), None)?;
    }
    // As long as the input and more: OpenSSL wipes that many bytes of the output when what it
    // unwraps is damaged, although the result itself is shorter.
    let mut output = vec![0; input.len() + 2 * BLOCK];
    let length = ctx.cipher_update(input, Some(&mut output))?;
    output.truncate(length);
    ctx.cipher_final_vec(&mut output)?;
    Ok(output)
}

fn gcm(key: &[u8]) -> Result<&'static CipherRef, Fault> {
    match key.len() {
        16 => Ok(Cipher::aes_128_gcm()),
        24 => Ok(Cipher::aes_192_gcm()),
        32 => Ok(Cipher::aes_256_gcm()),
        _ => Err(Fault::WrongKey),
    }
}

fn kw(key: &[u8]) -> Result<&'static CipherRef, Fault> {
    match key.len() {
        16 => Ok(Cipher::aes_128_wrap()),
        24 => Ok(Cipher::aes_192_wrap()),
        32 => Ok(Cipher::aes_256_wrap()),
        _ => Err(Fault::WrongKey),
    }
}

fn kwp(key: &[u8]) -> Result<&'static CipherRef, Fault> {
    match key.len() {
        16 => Ok(Cipher::aes_128_wrap_pad()),
        24 => Ok(Cipher::aes_192_wrap_pad()),
        32 => Ok(Cipher::aes_256_wrap_pad()),
        _ => Err(Fault::WrongKey),
    }
}
