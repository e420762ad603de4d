//! RSA with the digest in hand.

use akv_wire::{Base64Url, EncryptionAlgorithm, JsonWebKey, SignatureAlgorithm};
use openssl::bn::BigNum;
use openssl::error::ErrorStack;
use openssl::pkey::{HasPublic, PKey, Private};
use openssl::pkey_ctx::{PkeyCtx, PkeyCtxRef};
use openssl::rsa::{Padding, Rsa};
use openssl::sign::RsaPssSaltlen;

use super::{Encrypted, Fault, Material, md};

/// Makes a pair.
pub fn generate(bits: u32, exponent: u64) -> Result<Material, ErrorStack> {
    let exponent = BigNum::from_slice(&exponent.to_be_bytes())?;
    from_pair(Rsa::generate_with_e(bits, &exponent)?)
}

/// Wraps a pair, its public integers in their shortest form.
pub fn from_pair(pair: Rsa<Private>) -> Result<Material, ErrorStack> {
    let public = JsonWebKey {
        n: Some(Base64Url::from(pair.n().to_vec())),
        e: Some(Base64Url::from(pair.e().to_vec())),
        ..JsonWebKey::default()
    };
    let len = pair.size() as usize;
    Ok(Material::Rsa { key: PKey::from_rsa(pair)?, public, len })
}

/// Signs.
pub fn sign(key: &PKey<Private>, alg: SignatureAlgorithm, digest: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut ctx = PkeyCtx::new(key)?;
    ctx.sign_init()?;
    set_signature_padding(&mut ctx, alg)?;
    let mut signature = Vec::new();
    ctx.sign_to_vec(digest, &mut signature)?;
    Ok(signature)
}

/// Verifies; a signature of any other shape is simply not good.
pub fn verify<T: HasPublic>(
    key: &PKey<T>,
    alg: SignatureAlgorithm,
    digest: &[u8],
    signature: &[u8],
) -> Result<bool, Fault> {
    // OpenSSL's PSS takes a signature whose leading zeros are missing; PKCS#1 says it is none.
    if signature.len() != key.size() {
        return Ok(false);
    }
    if alg.digest().is_none() {
        let mut content = vec![0; key.size()];
        let recovered = key.rsa()?.public_decrypt(signature, &mut content, Padding::PKCS1);
        return Ok(recovered.is_ok_and(|len| &content[..len] == digest));
    }
    let mut ctx = PkeyCtx::new(key)?;
    ctx.verify_init()?;
    set_signature_padding(&mut ctx, alg)?;
    // OpenSSL reports a malformed signature as an error, the service as "not good".
    Ok(ctx.verify(digest, signature).unwrap_or(false))
}

/// Encrypts.
pub fn encrypt(
    key: &PKey<Private>,
    len: usize,
    alg: EncryptionAlgorithm,
    plaintext: &[u8],
) -> Result<Encrypted, Fault> {
    let overhead = alg.oaep_digest().map_or(11, |digest| 2 * digest.output_len() + 2);
    if plaintext.len() + overhead > len {
        return Err(Fault::Length { member: "value", given: plaintext.len(), want: None });
    }
    let mut ctx = PkeyCtx::new(key)?;
    ctx.encrypt_init()?;
    set_encryption_padding(&mut ctx, alg)?;
    let mut value = Vec::new();
    ctx.encrypt_to_vec(plaintext, &mut value)?;
    Ok(Encrypted { value, ..Encrypted::default() })
}

/// Decrypts.
pub fn decrypt(
    key: &PKey<Private>,
    len: usize,
    alg: EncryptionAlgorithm,
    ciphertext: &[u8],
) -> Result<Vec<u8>, Fault> {
    if ciphertext.len() != len {
        return Err(Fault::Length { member: "value", given: ciphertext.len(), want: Some(len) });
    }
    let mut ctx = PkeyCtx::new(key)?;
    ctx.decrypt_init()?;
    set_encryption_padding(&mut ctx, alg)?;
    let mut plaintext = Vec::new();
    ctx.decrypt_to_vec(ciphertext, &mut plaintext).map_err(|_| Fault::Undecryptable)?;
    Ok(plaintext)
}

fn set_signature_padding<T>(
    ctx: &mut PkeyCtxRef<T>,
    alg: SignatureAlgorithm,
) -> Result<(), ErrorStack> {
    use SignatureAlgorithm::{Ps256, Ps384, Ps512};
    let Some(digest) = alg.digest() else {
        // RSNULL: type 1 padding of the caller's bytes, no DigestInfo.
        return ctx.set_rsa_padding(Padding::PKCS1);
    };
    if matches!(alg, Ps256 | Ps384 | Ps512) {
        ctx.set_rsa_padding(Padding::PKCS1_PSS)?;
        ctx.set_signature_md(md(digest))?;
        ctx.set_rsa_mgf1_md(md(digest))?;
        ctx.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)
    } else {
        ctx.set_rsa_padding(Padding::PKCS1)?;
        ctx.set_signature_md(md(digest))
    }
}

fn set_encryption_padding<T>(
    ctx: &mut PkeyCtxRef<T>,
    alg: EncryptionAlgorithm,
) -> Result<(), ErrorStack> {
    let Some(digest) = alg.oaep_digest() else {
        return ctx.set_rsa_padding(Padding::PKCS1);
    };
    ctx.set_rsa_padding(Padding::PKCS1_OAEP)?;
    ctx.set_rsa_oaep_md(md(digest))?;
    ctx.set_rsa_mgf1_md(md(digest))
}
