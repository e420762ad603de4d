//! AES by OpenSSL.

use openssl::{
    cipher::Cipher,
    cipher_ctx::{CipherCtx, CipherCtxFlags},
    error::ErrorStack,
};

use crate::mechanism::Mode;

/// What AES is told beside key and data.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// IV, or first counter block; unused by ECB and key wrap.
    pub iv: &'a [u8],
    /// Additional data; GCM alone has any.
    pub aad: &'a [u8],
    /// Bytes of the tag behind the ciphertext; GCM alone has one.
    pub tag: usize,
}

fn context(
    mode: Mode,
    key: &[u8],
    setting: Setting<'_>,
    seals: bool,
) -> Result<CipherCtx, ErrorStack> {
    let name = match mode {
        Mode::Ecb => "ECB",
        Mode::Cbc | Mode::CbcPad => "CBC",
        Mode::Ctr => "CTR",
        Mode::Gcm => "GCM",
        Mode::Kw => "WRAP",
        Mode::Kwp => "WRAP-PAD",
    };
    let cipher = Cipher::fetch(None, &format!("AES-{}-{name}", 8 * key.len()), None)?;
    let mut context = CipherCtx::new()?;
    context.set_flags(CipherCtxFlags::FLAG_WRAP_ALLOW);
    let iv = match mode {
        Mode::Ecb | Mode::Kw | Mode::Kwp => None,
        _ => Some(setting.iv),
    };
    match seals {
        true => context.encrypt_init(Some(&cipher), None, None)?,
        false => context.decrypt_init(Some(&cipher), None, None)?,
    }
    if mode == Mode::Gcm {
        context.set_iv_length(setting.iv.len())?;
    }
    match seals {
        true => context.encrypt_init(None, Some(key), iv)?,
        false => context.decrypt_init(None, Some(key), iv)?,
    }
    context.set_padding(mode == Mode::CbcPad);
    if mode == Mode::Gcm && !setting.aad.is_empty() {
        context.cipher_update(setting.aad, None)?;
    }
    Ok(context)
}

/// Encrypts; the tag of GCM is at the end.
pub fn seal(
    mode: Mode,
    key: &[u8],
    setting: Setting<'_>,
    data: &[u8],
) -> Result<Vec<u8>, ErrorStack> {
    let mut context = context(mode, key, setting, true)?;
    let mut out = Vec::new();
    if !data.is_empty() {
        context.cipher_update_vec(data, &mut out)?;
    }
    if !matches!(mode, Mode::Kw | Mode::Kwp) {
        context.cipher_final_vec(&mut out)?;
    }
    if mode == Mode::Gcm {
        let mut tag = vec![0; setting.tag];
        context.tag(&mut tag)?;
        out.extend(tag);
    }
    Ok(out)
}

/// Decrypts what [`seal`] made.
pub fn open(
    mode: Mode,
    key: &[u8],
    setting: Setting<'_>,
    data: &[u8],
) -> Result<Vec<u8>, ErrorStack> {
    let mut context = context(mode, key, setting, false)?;
    let mut out = Vec::new();
    let (data, tag) = match mode {
        Mode::Gcm => data.split_at(data.len().saturating_sub(setting.tag)),
        _ => (data, &[][..]),
    };
    if !data.is_empty() {
        context.cipher_update_vec(data, &mut out)?;
    }
    if mode == Mode::Gcm {
        context.set_tag(tag)?;
    }
    if !matches!(mode, Mode::Kw | Mode::Kwp) {
        context.cipher_final_vec(&mut out)?;
    }
    Ok(out)
}
