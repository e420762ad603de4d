//! The state of operations beside the five families, of several at once, and which of two faults
//! comes first.

use cryptoki_sys::*;

use super::NO;
use crate::{
    case::{Outcome, ensure, skip},
    client::{Family, Output, PLENTY, check, flag},
    context::{Context, is, need},
    ffi::{NULL, Word, length, read},
    functions::Function::{self, *},
    keys::{Kind, secret, value},
    mechanism::{HASHES, Mechanism, scheme},
    names,
    samples::{pairs_for, to_sign},
};

/// An Init, the flag of the mechanisms it takes, and a call that needs what it began.
const OTHERS: [(Function, CK_FLAGS, Function); 7] = [
    (C_SignRecoverInit, CKF_SIGN_RECOVER, C_SignRecover),
    (C_VerifyRecoverInit, CKF_VERIFY_RECOVER, C_VerifyRecover),
    (C_MessageEncryptInit, CKF_MESSAGE_ENCRYPT, C_MessageEncryptFinal),
    (C_MessageDecryptInit, CKF_MESSAGE_DECRYPT, C_MessageDecryptFinal),
    (C_MessageSignInit, CKF_MESSAGE_SIGN, C_MessageSignFinal),
    (C_MessageVerifyInit, CKF_MESSAGE_VERIFY, C_MessageVerifyFinal),
    (C_VerifySignatureInit, CKF_VERIFY, C_VerifySignatureFinal),
];

pub fn cancel_by_null(context: &mut Context) -> Outcome {
    let version = context.module.list.version;
    for (init, flag, next) in OTHERS {
        let pair = match pairs_for(context, flag) {
            Ok(pairs) => pairs.into_iter().find(|(_, key)| key.origin == "session"),
            Err(_) => None,
        };
        context.each(init.row().name, |context| {
            if version < (3, 0) {
                return skip("a module of before 3.0");
            }
            context.needs(init)?;
            let Some((kind, key)) = pair else { return skip("no mechanism and key for it") };
            let session = context.user()?;
            let mechanism = Mechanism::usual(kind);
            let signature = match (init, scheme(kind)) {
                (C_VerifySignatureInit, Some(scheme)) => {
                    let data = to_sign(scheme, &key);
                    let made = session.run(Family::Sign, &mechanism, key.private, &data);
                    need(made, "C_Sign")?
                }
                _ => Vec::new(),
            };
            let own = match init {
                C_SignRecoverInit | C_MessageDecryptInit | C_MessageSignInit => key.private,
                _ => key.public.unwrap_or(key.private),
            };
            let begin = |raw: Word<'_>, own: CK_OBJECT_HANDLE| {
                let (bytes, size) = (read(&signature), length(&signature));
                check(match init {
                    C_VerifySignatureInit => session.call(init, &[raw, own.into(), bytes, size]),
                    _ => session.call(init, &[raw, own.into()]),
                })
            };
            match mechanism.with(|raw| begin(raw, own)) {
                Err(CKR_FUNCTION_NOT_SUPPORTED) => return skip("not supported"),
                Err(CKR_KEY_FUNCTION_NOT_PERMITTED) => return skip("the key is not for it"),
                rv => need(rv, "Init")?,
            }
            need(begin(NULL, CK_INVALID_HANDLE), "Init with NULL_PTR")?;
            let rv = match next {
                C_SignRecover | C_VerifyRecover => {
                    let data = [1; 16];
                    let call = |out: Word<'_>, size: Word<'_>| {
                        session.call(next, &[read(&data), length(&data), out, size])
                    };
                    Output::of(PLENTY, call).rv
                }
                _ => session.call(next, &[]),
            };
            is(check(rv), NO, next.row().name)?;
            need(mechanism.with(|raw| begin(raw, own)), "Init after it")
        });
    }
    Ok(())
}

pub fn dual_flag(context: &mut Context) -> Outcome {
    let slot = context.slot()?;
    let flags = need(context.token_info(slot), "C_GetTokenInfo")?.flags;
    let offered = context.offered(CKF_ENCRYPT)?;
    if !offered.iter().any(|(kind, _)| *kind == CKM_AES_CBC) {
        return skip("CKM_AES_CBC is not offered");
    }
    let keys = context.keys()?;
    let aes = |kind| matches!(kind, Kind::Aes(_));
    let Some(key) = keys.iter().find(|key| key.origin == "session" && aes(key.kind)) else {
        return skip("no AES key can be imported");
    };
    let session = context.user()?;
    let sha256 = Mechanism::plain(CKM_SHA256);
    need(session.init(Family::Digest, &sha256, CK_INVALID_HANDLE), "C_DigestInit")?;
    let second = session.init(Family::Encrypt, &Mechanism::usual(CKM_AES_CBC), key.private);
    let data = [7; 16];
    let both = Output::of(PLENTY, |out, size| {
        session.call(C_DigestEncryptUpdate, &[read(&data), length(&data), out, size])
    });
    match flags & CKF_DUAL_CRYPTO_OPERATIONS != 0 {
        true => {
            is(second, CKR_OK, "C_EncryptInit beside a digest")?;
            is(both.result(), CKR_OK, "C_DigestEncryptUpdate")
        }
        false => ensure(both.rv != CKR_OK, || {
            "C_DigestEncryptUpdate works, but the flag is not set".to_owned()
        }),
    }
}

pub fn during_search(context: &mut Context) -> Outcome {
    let session = context.user()?;
    let all = need(session.find(&Vec::new()), "C_FindObjects")?;
    need(session.find_init(&Vec::new()), "C_FindObjectsInit")?;
    match session.init(Family::Digest, &Mechanism::plain(CKM_SHA256), CK_INVALID_HANDLE) {
        Err(CKR_OPERATION_ACTIVE) => {}
        Err(CKR_MECHANISM_INVALID) => return skip("CKM_SHA256 is not offered"),
        rv => {
            need(rv, "C_DigestInit")?;
            let digest = need(session.one_shot(Family::Digest, b"data"), "C_Digest")?;
            ensure(digest == HASHES[2].digest(b"data"), || "another digest".to_owned())?;
        }
    }
    let mut found = Vec::new();
    loop {
        let more = need(session.find_next(16), "C_FindObjects")?;
        if more.is_empty() {
            break;
        }
        found.extend(more);
    }
    need(session.find_final(), "C_FindObjectsFinal")?;
    ensure(found.len() == all.len(), || format!("{} of {} objects", found.len(), all.len()))
}

pub fn key_type_first(context: &mut Context) -> Outcome {
    let session = context.user()?;
    for (family, kind, uses) in [
        (Family::Encrypt, Kind::Aes(16), [CKA_ENCRYPT, CKA_DECRYPT]),
        (Family::Decrypt, Kind::Aes(16), [CKA_ENCRYPT, CKA_DECRYPT]),
        (Family::Sign, Kind::Generic(32), [CKA_SIGN, CKA_VERIFY]),
        (Family::Verify, Kind::Generic(32), [CKA_SIGN, CKA_VERIFY]),
    ] {
        let offered = context.offered(family.flag())?;
        let foreign = offered.iter().any(|(kind, _)| *kind == CKM_RSA_PKCS);
        context.each(format!("{family:?}"), |_| {
            if !foreign {
                return skip("CKM_RSA_PKCS is not offered");
            }
            let (Kind::Aes(bytes) | Kind::Generic(bytes)) = kind else { return Ok(()) };
            let mut template = secret(kind, &value(bytes));
            template.retain(|(kind, _)| !uses.contains(kind));
            template.extend(uses.map(|kind| (kind, flag(false))));
            let key = match session.create(&template) {
                Ok(key) => key,
                Err(rv) => return skip(format!("C_CreateObject: {}", names::rv(rv))),
            };
            let rv = session.init(family, &Mechanism::plain(CKM_RSA_PKCS), key);
            is(rv, CKR_KEY_TYPE_INCONSISTENT, "Init")
        });
    }
    Ok(())
}
