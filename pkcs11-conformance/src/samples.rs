//! Operations that work: which mechanism takes which key, and data that it takes.

use cryptoki_sys::*;

use crate::{
    case::{Outcome, Stop, fail, skip},
    client::{Family, Session},
    context::{Context, need},
    keys::{Key, Kind},
    mechanism::{HASHES, IV, Mechanism, Mode, Scheme, scheme},
    oracle::{self, aes},
};

/// The mechanisms of a family that one of the keys can carry out, with that key. A key of the
/// token that the module refuses at Init is left out: `mechanisms/works` fails for it.
pub fn pairs(context: &mut Context, family: Family) -> Outcome<Vec<(CK_MECHANISM_TYPE, Key)>> {
    let mut pairs = pairs_for(context, family.flag())?;
    let slot = context.slot()?;
    let mut usable = Vec::new();
    for (kind, key) in pairs.drain(..) {
        if key.origin == "session" || begins(context, slot, family, kind, &key)? {
            usable.push((kind, key));
        }
    }
    Ok(usable)
}

/// Whether Init takes mechanism and key, in a session for that alone.
fn begins(
    context: &mut Context,
    slot: CK_SLOT_ID,
    family: Family,
    kind: CK_MECHANISM_TYPE,
    key: &Key,
) -> Outcome<bool> {
    let session = need(Session::open(context.module, slot, CKF_SERIAL_SESSION), "C_OpenSession")?;
    let begun = session.init(family, &Mechanism::usual(kind), key.used_for(family));
    need(session.close(), "C_CloseSession")?;
    Ok(!matches!(begun, Err(CKR_MECHANISM_INVALID | CKR_KEY_FUNCTION_NOT_PERMITTED)))
}

/// The same for the mechanisms that have this flag.
pub fn pairs_for(context: &mut Context, flag: CK_FLAGS) -> Outcome<Vec<(CK_MECHANISM_TYPE, Key)>> {
    let keys = context.keys()?;
    let mut pairs = Vec::new();
    for (kind, info) in context.offered(flag)? {
        for key in &keys {
            if fits(kind, key, &info) {
                pairs.push((kind, key.clone()));
            }
        }
    }
    match pairs.is_empty() {
        true => skip("no mechanism of this program's for a key of the token's"),
        false => Ok(pairs),
    }
}

/// Whether the mechanism takes the key, of this size, and the key allows the mechanism.
pub fn fits(kind: CK_MECHANISM_TYPE, key: &Key, info: &CK_MECHANISM_INFO) -> bool {
    let Some(scheme) = scheme(kind) else { return false };
    let (right, size) = match key.kind {
        Kind::Rsa(bits) => (scheme.is_rsa(), bits),
        Kind::Ec(curve) => (scheme.is_ec(), curve.bits),
        Kind::Aes(bytes) => (matches!(scheme, Scheme::Aes(_)), bytes),
        Kind::Generic(bytes) => (matches!(scheme, Scheme::Hmac(_) | Scheme::GeneralHmac(_)), bytes),
    };
    let range = info.ulMinKeySize..=info.ulMaxKeySize;
    right && key.allows(kind) && (info.ulMaxKeySize == 0 || range.contains(&(size as CK_ULONG)))
}

/// Data that the scheme signs with the key.
pub fn to_sign(scheme: Scheme, key: &Key) -> Vec<u8> {
    let sha256 = &HASHES[2];
    let digest = sha256.digest(b"data");
    match scheme {
        Scheme::Pkcs1(None) => sha256.digest_info(&digest),
        Scheme::Pss(None) | Scheme::Ecdsa(None) => digest,
        Scheme::Raw => {
            let mut block = vec![0; key.kind.signature()];
            block[1..33].copy_from_slice(&digest);
            block
        }
        _ => b"data".to_vec(),
    }
}

/// Data that the scheme encrypts: for raw RSA, a block.
pub fn to_encrypt(scheme: Scheme, key: &Key) -> Vec<u8> {
    match scheme {
        Scheme::Raw => to_sign(scheme, key),
        _ => b"sixteen bytes ..".to_vec(),
    }
}

/// The setting that `Mechanism::usual` gives AES.
pub fn usual(mode: Mode) -> aes::Setting<'static> {
    match mode {
        Mode::Gcm => aes::Setting { iv: &IV[..12], aad: b"aad", tag: 16 },
        _ => aes::Setting { iv: &IV, aad: &[], tag: 0 },
    }
}

/// The data, encrypted by OpenSSL with the mechanism's usual parameter.
pub fn encrypted(scheme: Scheme, key: &Key, data: &[u8]) -> Outcome<Vec<u8>> {
    let sha1 = &HASHES[0];
    let cipher = match scheme {
        Scheme::Pkcs1(_) => oracle::pkcs1_encrypt(key.oracle()?, data),
        Scheme::Oaep => oracle::oaep_encrypt(key.oracle()?, sha1, sha1, &[], data),
        Scheme::Raw => oracle::raw_public(key.oracle()?, data),
        Scheme::Aes(mode) => {
            let Some(value) = &key.value else { return skip("the key's value is not known") };
            aes::seal(mode, value, usual(mode), data)
        }
        _ => return fail("this mechanism does not encrypt"),
    };
    cipher.map_err(broken)
}

/// OpenSSL fails where it must not.
pub fn broken(error: openssl::error::ErrorStack) -> Stop {
    Stop::Fail(format!("OpenSSL: {error}"))
}
