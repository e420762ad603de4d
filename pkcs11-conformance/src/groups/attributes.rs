//! Reading and writing attributes.

mod others;

use cryptoki_sys::*;

use super::find::object;
use crate::{
    case::{Case, Group, Outcome, ensure, skip},
    client::{check, flag, number},
    context::{Context, is, need, one_of},
    ffi::{NULL, place},
    functions::Function::*,
    keys::{Key, Kind},
    names,
};

/// The group.
pub const GROUP: Group = Group {
    name: "attributes",
    title: "reading attributes",
    patience: 90,
    cases: &[
        Case {
            id: "lengths",
            clause: "5.7 C_GetAttributeValue",
            title: "NULL_PTR asks for the length; a buffer of that length or more is filled, and \
                    ulValueLen is the exact length.",
            run: lengths,
        },
        Case {
            id: "short-buffer",
            clause: "5.7 C_GetAttributeValue",
            title: "A short buffer is CKR_BUFFER_TOO_SMALL, with CK_UNAVAILABLE_INFORMATION, and \
                    the others are read all the same.",
            run: short_buffer,
        },
        Case {
            id: "unknown",
            clause: "5.7 C_GetAttributeValue",
            title: "An attribute that the object lacks is CKR_ATTRIBUTE_TYPE_INVALID, with \
                    CK_UNAVAILABLE_INFORMATION, and the others are read all the same, in any order.",
            run: unknown,
        },
        Case {
            id: "sensitive",
            clause: "5.7 C_GetAttributeValue",
            title: "A private key's secrets are CKR_ATTRIBUTE_SENSITIVE, with \
                    CK_UNAVAILABLE_INFORMATION, and the others are read all the same.",
            run: sensitive,
        },
        Case {
            id: "mixed",
            clause: "5.7 C_GetAttributeValue",
            title: "Several faults at once give one of their codes, and each its own length.",
            run: mixed,
        },
        Case {
            id: "no-object",
            clause: "5.7 C_GetAttributeValue",
            title: "A handle that is none is CKR_OBJECT_HANDLE_INVALID.",
            run: no_object,
        },
        Case {
            id: "null-template",
            clause: "5.7 C_GetAttributeValue",
            title: "A NULL_PTR template of more than no attributes is CKR_ARGUMENTS_BAD.",
            run: null_template,
        },
        Case {
            id: "required",
            clause: "4.4, 4.8, 4.9, 4.10, 4.11",
            title: "Keys have the attributes of their class, with values of the right length.",
            run: required,
        },
        Case {
            id: "values",
            clause: "4.8, 4.9, 4.10, 4.11, 6.1, 6.3",
            title: "A pair's attributes say what its keys are.",
            run: values,
        },
        Case {
            id: "origin",
            clause: "4.8 CKA_KEY_GEN_MECHANISM",
            title: "Of a key that was not made here CKA_LOCAL is false and CKA_KEY_GEN_MECHANISM is \
                    CK_UNAVAILABLE_INFORMATION.",
            run: others::origin,
        },
        Case {
            id: "unique-id",
            clause: "4.4.1 CKA_UNIQUE_ID",
            title: "CKA_UNIQUE_ID in a template, a copy or a change is CKR_ATTRIBUTE_READ_ONLY.",
            run: others::unique_id,
        },
        Case {
            id: "other-objects",
            clause: "4.6, 4.13",
            title: "Certificates and profiles have the attributes of their class.",
            run: others::other_objects,
        },
        Case {
            id: "arrays",
            clause: "4.8 CKA_ALLOWED_MECHANISMS, 5.7 C_GetAttributeValue",
            title: "An array's length is that of whole elements; a short buffer is refused.",
            run: others::arrays,
        },
        Case {
            id: "read-only",
            clause: "5.7 C_SetAttributeValue",
            title: "What may not be changed is refused: CKA_CLASS, CKA_LOCAL, an unknown one.",
            run: read_only,
        },
        Case {
            id: "change",
            clause: "5.7 C_SetAttributeValue",
            title: "A session object's label can be changed, and is then found by the new one.",
            run: change,
        },
        Case {
            id: "size",
            clause: "5.7 C_GetObjectSize",
            title: "An object has a size, or it is unavailable.",
            run: size,
        },
    ],
};

const UNKNOWN: CK_ATTRIBUTE_TYPE = CKA_VENDOR_DEFINED | 0x7654_3210;

/// Tries each key of the group's: its private or secret key, and its public one.
fn objects(
    context: &mut Context,
    attempt: fn(&mut Context, CK_OBJECT_HANDLE) -> Outcome,
) -> Outcome {
    let keys = context.keys()?;
    if keys.is_empty() {
        return skip("no key pair can be made or found");
    }
    for key in keys {
        let what = if key.is_secret() { "secret" } else { "private" };
        context.each(format!("{key}, {what}"), |context| attempt(context, key.private));
        if let Some(public) = key.public.filter(|_| !key.is_secret()) {
            context.each(format!("{key}, public"), |context| attempt(context, public));
        }
    }
    Ok(())
}

fn lengths(context: &mut Context) -> Outcome {
    objects(context, |context, object| {
        let session = context.user()?;
        for kind in [CKA_CLASS, CKA_LABEL, CKA_KEY_TYPE, CKA_TOKEN, CKA_ID] {
            let name = names::attribute(kind);
            let (rv, told) = session.attributes(object, &[(kind, None)]);
            need(check(rv), &format!("{name}, query"))?;
            let exact = told[0].length as usize;
            for room in [exact, exact + 7] {
                let (rv, told) = session.attributes(object, &[(kind, Some(room))]);
                need(check(rv), &format!("{name}, {room} bytes"))?;
                let length = told[0].length as usize;
                ensure(length == exact, || format!("{name}: {length} instead of {exact}"))?;
            }
        }
        Ok(())
    })
}

fn short_buffer(context: &mut Context) -> Outcome {
    objects(context, |context, object| {
        let session = context.user()?;
        let wanted = [(CKA_CLASS, Some(8)), (CKA_KEY_TYPE, Some(3)), (CKA_TOKEN, Some(1))];
        let (rv, told) = session.attributes(object, &wanted);
        is(check(rv), CKR_BUFFER_TOO_SMALL, "C_GetAttributeValue")?;
        ensure(told[1].length == CK_UNAVAILABLE_INFORMATION, || {
            format!("ulValueLen of the short one is {}", told[1].length)
        })?;
        ensure(told[1].value == [0; 3], || "the short buffer was written".to_owned())?;
        ensure(told[0].length == 8 && told[2].length == 1, || "the others were not read".to_owned())
    })
}

fn unknown(context: &mut Context) -> Outcome {
    objects(context, |context, object| {
        let session = context.user()?;
        let mut wanted = vec![(CKA_CLASS, Some(8)), (UNKNOWN, Some(8)), (CKA_TOKEN, Some(1))];
        for _ in 0..3 {
            wanted.rotate_left(1);
            let (rv, told) = session.attributes(object, &wanted);
            is(check(rv), CKR_ATTRIBUTE_TYPE_INVALID, "C_GetAttributeValue")?;
            for ((kind, room), told) in wanted.iter().zip(&told) {
                let right = match *kind {
                    UNKNOWN => CK_UNAVAILABLE_INFORMATION,
                    _ => room.unwrap_or(0) as CK_ULONG,
                };
                let (name, length) = (names::attribute(*kind), told.length);
                ensure(length == right, || format!("ulValueLen of {name} is {length}"))?;
            }
        }
        Ok(())
    })
}

fn secret(key: &Key) -> CK_ATTRIBUTE_TYPE {
    match key.kind {
        Kind::Rsa(_) => CKA_PRIVATE_EXPONENT,
        _ => CKA_VALUE,
    }
}

/// What else tells an RSA key; an object need not have them.
const PARTS: [CK_ATTRIBUTE_TYPE; 5] =
    [CKA_PRIME_1, CKA_PRIME_2, CKA_EXPONENT_1, CKA_EXPONENT_2, CKA_COEFFICIENT];

fn sensitive(context: &mut Context) -> Outcome {
    for key in context.keys()? {
        context.each(&key, |context| {
            let session = context.user()?;
            for room in [None, Some(1024)] {
                let wanted = [(CKA_CLASS, Some(8)), (secret(&key), room), (CKA_TOKEN, Some(1))];
                let (rv, told) = session.attributes(key.private, &wanted);
                is(check(rv), CKR_ATTRIBUTE_SENSITIVE, "C_GetAttributeValue")?;
                let length = told[1].length;
                ensure(length == CK_UNAVAILABLE_INFORMATION, || format!("ulValueLen {length}"))?;
                ensure(told[1].value.iter().all(|byte| *byte == 0), || {
                    "the buffer was written".to_owned()
                })?;
                ensure(told[0].length == 8 && told[2].length == 1, || {
                    "the others were not read".to_owned()
                })?;
            }
            let parts = if matches!(key.kind, Kind::Rsa(_)) { &PARTS[..] } else { &[] };
            for kind in parts {
                let refused = [CKR_ATTRIBUTE_SENSITIVE, CKR_ATTRIBUTE_TYPE_INVALID];
                one_of(session.value(key.private, *kind), &refused, &names::attribute(*kind))?;
            }
            Ok(())
        });
    }
    Ok(())
}

fn mixed(context: &mut Context) -> Outcome {
    for key in context.keys()? {
        context.each(&key, |context| {
            let session = context.user()?;
            let wanted = [
                (UNKNOWN, None),
                (secret(&key), None),
                (CKA_KEY_TYPE, Some(1)),
                (CKA_CLASS, None),
                (CKA_CLASS, Some(8)),
            ];
            let (rv, told) = session.attributes(key.private, &wanted);
            let any = [CKR_ATTRIBUTE_TYPE_INVALID, CKR_ATTRIBUTE_SENSITIVE, CKR_BUFFER_TOO_SMALL];
            one_of(check(rv), &any, "C_GetAttributeValue")?;
            let lengths: Vec<CK_ULONG> = told.iter().map(|one| one.length).collect();
            let no = CK_UNAVAILABLE_INFORMATION;
            ensure(lengths == [no, no, no, 8, 8], || format!("ulValueLen: {lengths:x?}"))
        });
    }
    Ok(())
}

fn no_object(context: &mut Context) -> Outcome {
    let session = context.user()?;
    for handle in [CK_INVALID_HANDLE, 0x7fff_fff1] {
        let (rv, _) = session.attributes(handle, &[(CKA_CLASS, Some(8))]);
        is(check(rv), CKR_OBJECT_HANDLE_INVALID, "C_GetAttributeValue")?;
    }
    Ok(())
}

fn null_template(context: &mut Context) -> Outcome {
    let Some(key) = context.keys()?.pop() else { return skip("no key") };
    let session = context.user()?;
    let rv = check(session.call(C_GetAttributeValue, &[key.private.into(), NULL, 1.into()]));
    is(rv, CKR_ARGUMENTS_BAD, "C_GetAttributeValue(NULL_PTR, 1)")?;
    // Nothing is asked for: the standard does not say that this is wrong.
    let rv = check(session.call(C_GetAttributeValue, &[key.private.into(), NULL, 0.into()]));
    one_of(rv, &[CKR_OK, CKR_ARGUMENTS_BAD], "C_GetAttributeValue(NULL_PTR, 0)")
}

/// Of every key: type and length.
const OF_KEYS: &[(CK_ATTRIBUTE_TYPE, usize)] = &[
    (CKA_CLASS, 8),
    (CKA_TOKEN, 1),
    (CKA_PRIVATE, 1),
    (CKA_MODIFIABLE, 1),
    (CKA_COPYABLE, 1),
    (CKA_DESTROYABLE, 1),
    (CKA_KEY_TYPE, 8),
    (CKA_DERIVE, 1),
    (CKA_LOCAL, 1),
    (CKA_KEY_GEN_MECHANISM, 8),
];
const OF_PUBLIC: &[(CK_ATTRIBUTE_TYPE, usize)] =
    &[(CKA_ENCRYPT, 1), (CKA_VERIFY, 1), (CKA_VERIFY_RECOVER, 1), (CKA_WRAP, 1), (CKA_TRUSTED, 1)];
const OF_PRIVATE: &[(CK_ATTRIBUTE_TYPE, usize)] = &[
    (CKA_SENSITIVE, 1),
    (CKA_DECRYPT, 1),
    (CKA_SIGN, 1),
    (CKA_SIGN_RECOVER, 1),
    (CKA_UNWRAP, 1),
    (CKA_EXTRACTABLE, 1),
    (CKA_ALWAYS_SENSITIVE, 1),
    (CKA_NEVER_EXTRACTABLE, 1),
    (CKA_WRAP_WITH_TRUSTED, 1),
    (CKA_ALWAYS_AUTHENTICATE, 1),
];
const OF_SECRET: &[(CK_ATTRIBUTE_TYPE, usize)] = &[
    (CKA_SENSITIVE, 1),
    (CKA_ENCRYPT, 1),
    (CKA_DECRYPT, 1),
    (CKA_SIGN, 1),
    (CKA_VERIFY, 1),
    (CKA_WRAP, 1),
    (CKA_UNWRAP, 1),
    (CKA_EXTRACTABLE, 1),
    (CKA_ALWAYS_SENSITIVE, 1),
    (CKA_NEVER_EXTRACTABLE, 1),
    (CKA_WRAP_WITH_TRUSTED, 1),
    (CKA_TRUSTED, 1),
];

fn required(context: &mut Context) -> Outcome {
    objects(context, |context, object| {
        let session = context.user()?;
        let class = need(session.ulong(object, CKA_CLASS), "CKA_CLASS")?;
        let own = match class {
            CKO_PRIVATE_KEY => OF_PRIVATE,
            CKO_SECRET_KEY => OF_SECRET,
            _ => OF_PUBLIC,
        };
        for (kind, length) in OF_KEYS.iter().chain(own) {
            let value = need(session.value(object, *kind), &names::attribute(*kind))?;
            ensure(value.len() == *length, || {
                format!("{} has {} bytes", names::attribute(*kind), value.len())
            })?;
            ensure(*length != 1 || value[0] <= 1, || {
                format!("{} is {}", names::attribute(*kind), value[0])
            })?;
        }
        let subject = (class != CKO_SECRET_KEY).then_some(CKA_SUBJECT);
        for kind in [CKA_LABEL, CKA_ID, CKA_START_DATE, CKA_END_DATE].into_iter().chain(subject) {
            need(session.value(object, kind), &names::attribute(kind))?;
        }
        Ok(())
    })
}

fn values(context: &mut Context) -> Outcome {
    for key in context.keys()? {
        context.each(&key, |context| {
            let session = context.user()?;
            let is_true = |object, kind| session.value(object, kind) == Ok(flag(true));
            ensure(is_true(key.private, CKA_SENSITIVE), || "CKA_SENSITIVE is off".to_owned())?;
            ensure(is_true(key.private, CKA_TOKEN) == (key.origin == "token"), || {
                "CKA_TOKEN is not what was asked for".to_owned()
            })?;
            let Some(public) = key.public else { return Ok(()) };
            let shared: &[CK_ATTRIBUTE_TYPE] = match key.kind {
                Kind::Rsa(_) => &[CKA_KEY_TYPE, CKA_MODULUS, CKA_PUBLIC_EXPONENT],
                Kind::Ec(_) => &[CKA_KEY_TYPE, CKA_EC_PARAMS],
                Kind::Aes(bytes) | Kind::Generic(bytes) => {
                    let told = need(session.ulong(key.private, CKA_VALUE_LEN), "CKA_VALUE_LEN")?;
                    return ensure(told == bytes as CK_ULONG, || {
                        format!("CKA_VALUE_LEN is {told}")
                    });
                }
            };
            for kind in shared {
                let name = names::attribute(*kind);
                let (ours, theirs) =
                    (session.value(public, *kind), session.value(key.private, *kind));
                ensure(ours.is_ok() && ours == theirs, || format!("{name} differs in the pair"))?;
            }
            if let Kind::Rsa(bits) = key.kind {
                let told = need(session.ulong(public, CKA_MODULUS_BITS), "CKA_MODULUS_BITS")?;
                ensure(told == bits as CK_ULONG, || format!("CKA_MODULUS_BITS is {told}"))?;
                let modulus = need(session.value(public, CKA_MODULUS), "CKA_MODULUS")?;
                ensure(modulus.first() != Some(&0), || "CKA_MODULUS begins with 0".to_owned())?;
            } else {
                let point = need(session.value(public, CKA_EC_POINT), "CKA_EC_POINT")?;
                let wanted = crate::oracle::ec_point(key.oracle()?).unwrap_or_default();
                ensure(point == wanted, || "CKA_EC_POINT is not a DER OCTET STRING".to_owned())?;
            }
            Ok(())
        });
    }
    Ok(())
}

fn read_only(context: &mut Context) -> Outcome {
    let session = context.user()?;
    let own = object(session)?;
    let refused = [
        CKR_ATTRIBUTE_READ_ONLY,
        CKR_ATTRIBUTE_TYPE_INVALID,
        CKR_TEMPLATE_INCONSISTENT,
        CKR_ATTRIBUTE_VALUE_INVALID,
        CKR_ACTION_PROHIBITED,
    ];
    for (kind, value) in
        [(CKA_CLASS, number(CKO_DATA)), (CKA_LOCAL, flag(true)), (UNKNOWN, vec![1, 2])]
    {
        context.each(names::attribute(kind), |_| {
            let rv = session.set(own, &vec![(kind, value)]);
            if rv == Err(CKR_FUNCTION_NOT_SUPPORTED) {
                return skip("not supported");
            }
            one_of(rv, &refused, "C_SetAttributeValue")
        });
    }
    Ok(())
}

fn change(context: &mut Context) -> Outcome {
    let session = context.user()?;
    let own = object(session)?;
    let label = vec![(CKA_LABEL, b"pkcs11-conformance, renamed".to_vec())];
    match session.set(own, &label) {
        Err(CKR_FUNCTION_NOT_SUPPORTED) => return skip("not supported"),
        rv => need(rv, "C_SetAttributeValue")?,
    }
    let found = need(session.find(&label), "C_FindObjects")?;
    ensure(found == [own], || format!("{} objects are found by the new label", found.len()))
}

fn size(context: &mut Context) -> Outcome {
    objects(context, |context, object| {
        let session = context.user()?;
        let mut size: CK_ULONG = 0;
        let rv = check(session.call(C_GetObjectSize, &[object.into(), place(&mut size)]));
        let fine = [CKR_OK, CKR_INFORMATION_SENSITIVE, CKR_FUNCTION_NOT_SUPPORTED];
        one_of(rv, &fine, "C_GetObjectSize")
    })
}
