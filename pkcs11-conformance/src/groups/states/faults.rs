//! Faults of callers: each has its code, and ends the operation.

use cryptoki_sys::*;

use super::{NO, NOBODY, Operation, operations};
use crate::{
    case::{Outcome, skip},
    client::Family,
    context::{Context, PARAMETER_REFUSED, is, need, one_of},
    keys::Kind,
    mechanism::{Mechanism, Scheme, scheme},
    names,
    samples::pairs,
};

pub fn mechanism_invalid(context: &mut Context, operation: &Operation) -> Outcome {
    let session = context.user()?;
    let rv = session.init(operation.family, &Mechanism::plain(NOBODY), operation.key);
    is(rv, CKR_MECHANISM_INVALID, "an unknown mechanism")?;
    let other = match operation.family {
        Family::Digest => CKM_RSA_PKCS,
        _ => CKM_SHA256,
    };
    let rv = session.init(operation.family, &Mechanism::plain(other), operation.key);
    is(rv, CKR_MECHANISM_INVALID, &names::mechanism(other))
}

pub fn key_invalid(context: &mut Context, operation: &Operation) -> Outcome {
    if operation.family == Family::Digest {
        return skip("digests take no key");
    }
    let session = context.user()?;
    for key in [CK_INVALID_HANDLE, 0x7fff_fff1] {
        let rv = session.init(operation.family, &operation.mechanism, key);
        one_of(rv, &[CKR_KEY_HANDLE_INVALID, CKR_OBJECT_HANDLE_INVALID], &format!("key {key:#x}"))?;
    }
    Ok(())
}

pub fn key_wrong(context: &mut Context, operation: &Operation) -> Outcome {
    if operation.family == Family::Digest {
        return skip("digests take no key");
    }
    let session = context.user()?;
    let refused = [
        CKR_KEY_FUNCTION_NOT_PERMITTED,
        CKR_KEY_TYPE_INCONSISTENT,
        CKR_KEY_HANDLE_INVALID,
        CKR_OBJECT_HANDLE_INVALID,
    ];
    if let Some(other) = operation.other_key {
        let rv = session.init(operation.family, &operation.mechanism, other);
        one_of(rv, &refused, "the pair's other key")?;
    }
    let foreign = match scheme(operation.mechanism.kind).is_some_and(|scheme| scheme.is_rsa()) {
        true => CKM_ECDSA,
        false => CKM_RSA_PKCS,
    };
    let offered = context.offered(operation.family.flag())?;
    if offered.iter().any(|(kind, _)| *kind == foreign) {
        let rv = session.init(operation.family, &Mechanism::plain(foreign), operation.key);
        is(rv, CKR_KEY_TYPE_INCONSISTENT, &format!("{} with the key", names::mechanism(foreign)))?;
    }
    Ok(())
}

pub fn signature_wrong(context: &mut Context) -> Outcome {
    for (name, operation) in operations(context, Family::Verify)? {
        context.each(name, |context| {
            let session = context.user()?;
            let mut changed = operation.signature.clone();
            if let Some(last) = changed.last_mut() {
                *last ^= 1;
            }
            need(operation.init(session), "C_VerifyInit")?;
            let rv = session.verify_data(&operation.data, &changed);
            is(rv, CKR_SIGNATURE_INVALID, "a changed signature")?;
            is(operation.one_shot(session), NO, "C_Verify after it")?;
            let longer = [&operation.signature[..], &[0]].concat();
            let shorter = &operation.signature[1..];
            for (what, signature) in [("shorter", shorter), ("longer", &longer)] {
                need(operation.init(session), "C_VerifyInit")?;
                let rv = session.verify_data(&operation.data, signature);
                is(rv, CKR_SIGNATURE_LEN_RANGE, &format!("a {what} signature"))?;
                is(operation.one_shot(session), NO, "C_Verify after it")?;
            }
            if operation.multi_part {
                need(operation.init(session), "C_VerifyInit")?;
                need(operation.update(session), "C_VerifyUpdate")?;
                is(
                    session.verify_last(&changed),
                    CKR_SIGNATURE_INVALID,
                    "a changed one, in parts",
                )?;
                is(operation.last(session), NO, "C_VerifyFinal after it")?;
            }
            Ok(())
        });
    }
    Ok(())
}

pub fn parameter_wrong(context: &mut Context) -> Outcome {
    for (family, kind) in [
        (Family::Sign, CKM_RSA_PKCS_PSS),
        (Family::Sign, CKM_SHA256_RSA_PKCS_PSS),
        (Family::Decrypt, CKM_RSA_PKCS_OAEP),
    ] {
        let pair = pairs(context, family)?.into_iter().find(|(one, _)| *one == kind);
        let Some((_, key)) = pair else { continue };
        for (what, mechanism) in [
            ("none", Mechanism::plain(kind)),
            ("short", Mechanism::bytes(kind, &[0; 4])),
            ("of zeros", Mechanism::bytes(kind, &[0; 40])),
            ("of an unknown hash", Mechanism::bytes(kind, &[0x7e; 24])),
        ] {
            context.each(format!("{}, {what}", names::mechanism(kind)), |context| {
                let session = context.user()?;
                let rv = session.init(family, &mechanism, key.private);
                one_of(rv, &PARAMETER_REFUSED, "Init")
            });
        }
    }
    Ok(())
}

pub fn data_too_long(context: &mut Context) -> Outcome {
    for family in [Family::Sign, Family::Encrypt] {
        let pair = pairs(context, family)?.into_iter().find(|(one, _)| *one == CKM_RSA_PKCS);
        let Some((kind, key)) = pair else { continue };
        context.each(format!("{family:?}"), |context| {
            let session = context.user()?;
            let mechanism = Mechanism::plain(kind);
            let handle = if family == Family::Sign { Some(key.private) } else { key.public };
            let Some(handle) = handle else { return skip("the public key is not there") };
            let data = vec![1; key.kind.signature() - 10];
            need(session.init(family, &mechanism, handle), "Init")?;
            is(session.one_shot(family, &data), CKR_DATA_LEN_RANGE, "the call")?;
            is(session.one_shot(family, &data), NO, "the call after it")
        });
    }
    Ok(())
}

pub fn ciphertext_wrong(context: &mut Context) -> Outcome {
    for (kind, key) in pairs(context, Family::Decrypt)? {
        let Kind::Rsa(bits) = key.kind else { continue };
        if scheme(kind) == Some(Scheme::Raw) {
            continue;
        }
        context.each(format!("{}, {key}", names::mechanism(kind)), |context| {
            let session = context.user()?;
            let mechanism = Mechanism::usual(kind);
            let refused = [CKR_ENCRYPTED_DATA_INVALID, CKR_ENCRYPTED_DATA_LEN_RANGE];
            for (what, data) in [("short", vec![1; bits / 8 - 1]), ("long", vec![1; bits / 8 + 1])]
            {
                need(session.init(Family::Decrypt, &mechanism, key.private), "C_DecryptInit")?;
                let rv = session.one_shot(Family::Decrypt, &data);
                is(rv, CKR_ENCRYPTED_DATA_LEN_RANGE, &format!("a ciphertext too {what}"))?;
                is(session.one_shot(Family::Decrypt, &data), NO, "C_Decrypt after it")?;
            }
            need(session.init(Family::Decrypt, &mechanism, key.private), "C_DecryptInit")?;
            let rv = session.one_shot(Family::Decrypt, &vec![1; bits / 8]);
            // Implicit rejection of bad PKCS #1 v1.5 padding gives random bytes.
            match (kind, rv) {
                (CKM_RSA_PKCS, Ok(_)) => Ok(()),
                (_, rv) => one_of(rv, &refused, "a ciphertext of nothing"),
            }
        });
    }
    Ok(())
}
