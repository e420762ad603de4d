//! Attributes that only the module gives, arrays, and objects that are no keys.

use cryptoki_sys::*;

use super::super::{find::object, imports::rsa_nobody};
use crate::{
    case::{Outcome, ensure, skip},
    client::{check, flag, number},
    context::{Context, is, need},
    keys::{Kind, secret, value},
    names,
};

pub fn origin(context: &mut Context) -> Outcome {
    let templates = [
        ("public", rsa_nobody()),
        ("AES", secret(Kind::Aes(16), &value(16))),
        ("generic secret", secret(Kind::Generic(20), &value(20))),
    ];
    for (name, template) in templates {
        context.each(name, |context| {
            let session = context.user()?;
            let key = match session.create(&template) {
                Ok(key) => key,
                Err(rv) => return skip(format!("C_CreateObject: {}", names::rv(rv))),
            };
            let local = session.value(key, CKA_LOCAL);
            ensure(local == Ok(flag(false)), || format!("CKA_LOCAL: {local:?}"))?;
            let by = session.ulong(key, CKA_KEY_GEN_MECHANISM);
            ensure(by == Ok(CK_UNAVAILABLE_INFORMATION), || format!("the mechanism: {by:x?}"))
        });
    }
    Ok(())
}

pub fn unique_id(context: &mut Context) -> Outcome {
    if context.module.list.version < (3, 0) {
        return skip("a module of before 3.0");
    }
    let session = context.user()?;
    let own = object(session)?;
    let id = vec![(CKA_UNIQUE_ID, b"mine".to_vec())];
    context.each("C_CreateObject", |_| {
        let rv = session.create(&[rsa_nobody(), id.clone()].concat());
        is(rv, CKR_ATTRIBUTE_READ_ONLY, "C_CreateObject")
    });
    context.each("C_SetAttributeValue", |_| match session.set(own, &id) {
        Err(CKR_FUNCTION_NOT_SUPPORTED) => skip("not supported"),
        rv => is(rv, CKR_ATTRIBUTE_READ_ONLY, "C_SetAttributeValue"),
    });
    context.each("C_CopyObject", |_| match session.copy(own, &id) {
        Err(CKR_FUNCTION_NOT_SUPPORTED) => skip("not supported"),
        rv => is(rv, CKR_ATTRIBUTE_READ_ONLY, "C_CopyObject"),
    });
    Ok(())
}

/// Of X.509 certificates, and of profiles: type, and length where it has one.
const OF_CERTIFICATES: &[(CK_ATTRIBUTE_TYPE, Option<usize>)] = &[
    (CKA_TOKEN, Some(1)),
    (CKA_PRIVATE, Some(1)),
    (CKA_MODIFIABLE, Some(1)),
    (CKA_LABEL, None),
    (CKA_CERTIFICATE_TYPE, Some(8)),
    (CKA_TRUSTED, Some(1)),
    (CKA_CERTIFICATE_CATEGORY, Some(8)),
    (CKA_SUBJECT, None),
    (CKA_ID, None),
    (CKA_ISSUER, None),
    (CKA_SERIAL_NUMBER, None),
    (CKA_VALUE, None),
];
const OF_PROFILES: &[(CK_ATTRIBUTE_TYPE, Option<usize>)] = &[(CKA_PROFILE_ID, Some(8))];

pub fn other_objects(context: &mut Context) -> Outcome {
    let session = context.user()?;
    for (class, wanted) in [(CKO_CERTIFICATE, OF_CERTIFICATES), (CKO_PROFILE, OF_PROFILES)] {
        let found = need(session.find(&vec![(CKA_CLASS, number(class))]), "C_FindObjects")?;
        if found.is_empty() {
            context.each(names::class(class), |_| skip("no object of the class is there"));
        }
        for (n, object) in found.into_iter().take(10).enumerate() {
            context.each(format!("{} {n}", names::class(class)), |_| {
                for (kind, length) in wanted {
                    let name = names::attribute(*kind);
                    let value = need(session.value(object, *kind), &name)?;
                    ensure(length.is_none_or(|length| length == value.len()), || {
                        format!("{name} has {} bytes", value.len())
                    })?;
                }
                Ok(())
            });
        }
    }
    Ok(())
}

pub fn arrays(context: &mut Context) -> Outcome {
    for key in context.keys()? {
        context.each(&key, |context| {
            let session = context.user()?;
            let kind = CKA_ALLOWED_MECHANISMS;
            let value = match session.value(key.private, kind) {
                Err(CKR_ATTRIBUTE_TYPE_INVALID) => return skip("the key has none"),
                value => need(value, "CKA_ALLOWED_MECHANISMS")?,
            };
            let element = size_of::<CK_ULONG>();
            ensure(value.len() % element == 0, || format!("{} bytes", value.len()))?;
            if value.is_empty() {
                return skip("the key allows any");
            }
            let room = Some(value.len() - element);
            let (rv, told) = session.attributes(key.private, &[(kind, room)]);
            is(check(rv), CKR_BUFFER_TOO_SMALL, "room for one less")?;
            ensure(told[0].length == CK_UNAVAILABLE_INFORMATION, || {
                format!("ulValueLen is {}", told[0].length)
            })
        });
    }
    Ok(())
}
