//! `CKM_RSA_AES_KEY_WRAP`: RSA-OAEP of an AES-256 key, then AES key wrap with padding of the
//! payload (PKCS#8 for a pair, the bytes of a secret key).

use akv_wire::{Digest, EncryptionAlgorithm, KeyType};
use openssl::pkey::{PKey, Public};
use openssl::pkey_ctx::PkeyCtx;
use openssl::rsa::Padding;
use zeroize::Zeroizing;

use super::{CipherInput, Fault, JwkFault, Material, aes, jwk, md, random};

const AES_KEY: usize = 32;

/// Unwraps a blob made for `kek`.
pub fn unwrap(kek: &Material, kind: KeyType, ciphertext: &[u8]) -> Result<Material, JwkFault> {
    let Material::Rsa { len, .. } = kek else {
        return Err(JwkFault::Transfer);
    };
    let (wrapped_key, payload) = ciphertext.split_at_checked(*len).ok_or(JwkFault::Transfer)?;
    let input = CipherInput { value: wrapped_key, iv: None, aad: None, tag: None };
    let aes_key = kek
        .decrypt(EncryptionAlgorithm::RsaOaep, input)
        .map(Zeroizing::new)
        .map_err(|_| JwkFault::Transfer)?;
    let bytes = aes::wrap_with_padding(&aes_key, payload, false)
        .map(Zeroizing::new)
        .map_err(|_| JwkFault::Transfer)?;
    if kind.is_oct() {
        return match bytes.len() {
            16 | 24 | 32 => Ok(Material::Oct(bytes)),
            other => Err(JwkFault::Size(other as u32 * 8)),
        };
    }
    let pair = PKey::private_key_from_pkcs8(&bytes).map_err(|_| JwkFault::Transfer)?;
    let material = jwk::adopt(pair)?;
    if material.key_type(true) == kind.hsm() { Ok(material) } else { Err(JwkFault::KeyType) }
}

/// Wraps `key` for the holder of `target`.
pub fn wrap(key: &Material, target: &PKey<Public>, digest: Digest) -> Result<Vec<u8>, Fault> {
    let aes_key = Zeroizing::new(random(AES_KEY)?);
    let mut ctx = PkeyCtx::new(target)?;
    ctx.encrypt_init()?;
    ctx.set_rsa_padding(Padding::PKCS1_OAEP)?;
    ctx.set_rsa_oaep_md(md(digest))?;
    ctx.set_rsa_mgf1_md(md(digest))?;
    let mut blob = Vec::new();
    ctx.encrypt_to_vec(&aes_key, &mut blob)?;
    blob.extend(aes::wrap_with_padding(&aes_key, &key.to_private_bytes()?, true)?);
    Ok(blob)
}
