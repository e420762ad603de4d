//! Searches.

use std::collections::BTreeSet;

use cryptoki_sys::*;

use super::imports::rsa_nobody;
use crate::{
    case::{Case, Group, Outcome, ensure, skip},
    client::{Session, Template, check, number},
    context::{Context, is, need},
    ffi::{NULL, place, write},
    functions::Function::*,
    names,
};

/// The group.
pub const GROUP: Group = Group {
    name: "find",
    title: "searches",
    patience: 60,
    cases: &[
        Case {
            id: "protocol",
            clause: "5.7 C_FindObjectsInit",
            title: "A second Init is CKR_OPERATION_ACTIVE; after Final there is no search.",
            run: protocol,
        },
        Case {
            id: "null-template",
            clause: "5.7 C_FindObjectsInit",
            title: "A NULL_PTR template of more than no attributes is CKR_ARGUMENTS_BAD.",
            run: null_template,
        },
        Case {
            id: "null-places",
            clause: "5.7 C_FindObjects",
            title: "Without places for handles or their number: CKR_ARGUMENTS_BAD.",
            run: null_places,
        },
        Case {
            id: "paging",
            clause: "5.7 C_FindObjects",
            title: "One at a time finds what many at a time find; no object is found twice.",
            run: paging,
        },
        Case {
            id: "end",
            clause: "5.7 C_FindObjects",
            title: "After the last object, no object, again and again.",
            run: end,
        },
        Case {
            id: "no-match",
            clause: "5.7 C_FindObjectsInit",
            title: "Values that no object has, attributes that no object has: nothing is found.",
            run: no_match,
        },
        Case {
            id: "match",
            clause: "5.7 C_FindObjectsInit",
            title: "Each object is found by its own attributes, and only objects that match are.",
            run: matching,
        },
        Case {
            id: "classes",
            clause: "5.7 C_FindObjectsInit",
            title: "A search by class finds objects of that class.",
            run: classes,
        },
        Case {
            id: "created-during",
            clause: "5.7 C_FindObjects",
            title: "While one object is made and another destroyed, a search finds each that stays once.",
            run: created_during,
        },
        Case {
            id: "destroyed-object",
            clause: "5.7 C_DestroyObject",
            title: "A destroyed object's handle is CKR_OBJECT_HANDLE_INVALID, and not found.",
            run: destroyed_object,
        },
        Case {
            id: "two-sessions",
            clause: "5.7 C_FindObjectsInit",
            title: "Searches of two sessions are independent.",
            run: two_sessions,
        },
        Case {
            id: "cancel",
            clause: "5.6 C_SessionCancel",
            title: "CKF_FIND_OBJECTS ends a search.",
            run: cancel,
        },
    ],
};

const NONE: Template = Vec::new();

fn protocol(context: &mut Context) -> Outcome {
    let session = context.user()?;
    is(session.find_next(1).map(|_| ()), CKR_OPERATION_NOT_INITIALIZED, "C_FindObjects first")?;
    is(session.find_final(), CKR_OPERATION_NOT_INITIALIZED, "C_FindObjectsFinal first")?;
    need(session.find_init(&NONE), "C_FindObjectsInit")?;
    is(session.find_init(&NONE), CKR_OPERATION_ACTIVE, "C_FindObjectsInit again")?;
    need(session.find_next(1), "C_FindObjects")?;
    need(session.find_final(), "C_FindObjectsFinal")?;
    is(session.find_next(1).map(|_| ()), CKR_OPERATION_NOT_INITIALIZED, "C_FindObjects after")?;
    need(session.find_init(&NONE), "C_FindObjectsInit after")?;
    need(session.find_final(), "C_FindObjectsFinal without C_FindObjects")
}

fn null_template(context: &mut Context) -> Outcome {
    let session = context.user()?;
    let rv = check(session.call(C_FindObjectsInit, &[NULL, 1.into()]));
    if rv.is_ok() {
        session.find_final().ok();
    }
    is(rv, CKR_ARGUMENTS_BAD, "C_FindObjectsInit(NULL_PTR, 1)")?;
    need(
        check(session.call(C_FindObjectsInit, &[NULL, 0.into()])),
        "C_FindObjectsInit(NULL_PTR, 0)",
    )?;
    need(session.find_final(), "C_FindObjectsFinal")
}

fn null_places(context: &mut Context) -> Outcome {
    let session = context.user()?;
    need(session.find_init(&NONE), "C_FindObjectsInit")?;
    let mut handles: [CK_OBJECT_HANDLE; 2] = [0; 2];
    let mut count: CK_ULONG = 0;
    let one = check(session.call(C_FindObjects, &[write(&mut handles), 2.into(), NULL]));
    let other = check(session.call(C_FindObjects, &[NULL, 2.into(), place(&mut count)]));
    session.find_final().ok();
    is(one, CKR_ARGUMENTS_BAD, "no place for the number")?;
    is(other, CKR_ARGUMENTS_BAD, "no place for handles")
}

/// A session in which there is something to find, where the module can make it.
fn populated(context: &mut Context) -> Outcome<Session> {
    let session = context.user()?;
    for _ in 0..3 {
        // A module that cannot has the token's objects alone.
        let _ = object(session);
    }
    Ok(session)
}

/// Goes on where there is enough to find.
fn some(objects: &[CK_OBJECT_HANDLE]) -> Outcome {
    match objects.len() {
        0 | 1 => skip(format!("{} objects are there, and no more can be made", objects.len())),
        _ => Ok(()),
    }
}

fn paging(context: &mut Context) -> Outcome {
    let session = populated(context)?;
    let many = need(session.find_by(&NONE, 100), "C_FindObjects")?;
    some(&many)?;
    let single = need(session.find_by(&NONE, 1), "C_FindObjects")?;
    let set = |list: &[CK_OBJECT_HANDLE]| list.iter().copied().collect::<BTreeSet<_>>();
    ensure(set(&many).len() == many.len(), || "an object is found twice".to_owned())?;
    ensure(single.len() == many.len() && set(&many) == set(&single), || {
        format!("{} objects by one, {} by 100", single.len(), many.len())
    })
}

fn end(context: &mut Context) -> Outcome {
    let session = populated(context)?;
    need(session.find_init(&NONE), "C_FindObjectsInit")?;
    while !need(session.find_next(50), "C_FindObjects")?.is_empty() {}
    for _ in 0..3 {
        let more = need(session.find_next(1), "C_FindObjects")?;
        ensure(more.is_empty(), || "an object comes after the end".to_owned())?;
    }
    need(session.find_final(), "C_FindObjectsFinal")
}

fn no_match(context: &mut Context) -> Outcome {
    let session = context.user()?;
    let label: Template = vec![(CKA_LABEL, b"no object has this label, surely".to_vec())];
    let foreign: Template = vec![(CKA_VENDOR_DEFINED | 0x1234_5678, vec![1])];
    let class: Template = vec![(CKA_CLASS, number(CKO_VENDOR_DEFINED | 0x77))];
    for (what, template) in [("label", label), ("attribute", foreign), ("class", class)] {
        context.each(what, |_| {
            let found = need(session.find(&template), "the search")?;
            ensure(found.is_empty(), || format!("{} objects", found.len()))
        });
    }
    Ok(())
}

fn matching(context: &mut Context) -> Outcome {
    let session = populated(context)?;
    let objects = need(session.find(&NONE), "C_FindObjects")?;
    if objects.is_empty() {
        return skip("the token has no objects");
    }
    for (n, object) in objects.into_iter().take(12).enumerate() {
        for kind in [CKA_LABEL, CKA_ID, CKA_KEY_TYPE, CKA_UNIQUE_ID, CKA_TOKEN] {
            let (Ok(class), Ok(value)) =
                (session.value(object, CKA_CLASS), session.value(object, kind))
            else {
                continue;
            };
            context.each(format!("object {n} by {}", names::attribute(kind)), |_| {
                let wanted = vec![(CKA_CLASS, class.clone()), (kind, value.clone())];
                let found = need(session.find(&wanted), "C_FindObjects")?;
                ensure(found.contains(&object), || "it is not found".to_owned())?;
                for one in found {
                    let theirs = need(session.value(one, kind), "C_GetAttributeValue")?;
                    ensure(theirs == value, || "an object that does not match".to_owned())?;
                }
                Ok(())
            });
        }
    }
    Ok(())
}

fn classes(context: &mut Context) -> Outcome {
    let session = populated(context)?;
    for class in [
        CKO_DATA,
        CKO_CERTIFICATE,
        CKO_PUBLIC_KEY,
        CKO_PRIVATE_KEY,
        CKO_SECRET_KEY,
        CKO_HW_FEATURE,
        CKO_MECHANISM,
        CKO_PROFILE,
        CKO_VALIDATION,
    ] {
        context.each(names::class(class), |_| {
            let found = need(session.find(&vec![(CKA_CLASS, number(class))]), "C_FindObjects")?;
            if found.is_empty() {
                return skip("no object of the class is there");
            }
            for object in found {
                let theirs = need(session.ulong(object, CKA_CLASS), "CKA_CLASS")?;
                ensure(theirs == class, || format!("an object of {}", names::class(theirs)))?;
            }
            Ok(())
        });
    }
    Ok(())
}

/// A session object that most modules can make.
pub fn object(session: Session) -> Outcome<CK_OBJECT_HANDLE> {
    let mut template = rsa_nobody();
    template.push((CKA_LABEL, b"pkcs11-conformance".to_vec()));
    template.push((CKA_ID, b"conformance".to_vec()));
    match session.create(&template) {
        Ok(object) => Ok(object),
        Err(rv) => skip(format!("no session object can be created: {}", names::rv(rv))),
    }
}

fn created_during(context: &mut Context) -> Outcome {
    let session = context.user()?;
    let stay = [object(session)?, object(session)?];
    let gone = object(session)?;
    let wanted = vec![(CKA_LABEL, b"pkcs11-conformance".to_vec())];
    need(session.find_init(&wanted), "C_FindObjectsInit")?;
    let mut found = need(session.find_next(1), "C_FindObjects")?;
    let new = object(session)?;
    need(session.destroy(gone), "C_DestroyObject")?;
    loop {
        let more = need(session.find_next(1), "C_FindObjects")?;
        if more.is_empty() {
            break;
        }
        found.extend(more);
        ensure(found.len() < 1000, || "the search does not end".to_owned())?;
    }
    need(session.find_final(), "C_FindObjectsFinal")?;
    let times = |object| found.iter().filter(|one| **one == object).count();
    for object in stay {
        ensure(times(object) == 1, || {
            format!("an object that stays is found {} times", times(object))
        })?;
    }
    ensure(times(gone) <= 1 && times(new) <= 1, || "an object is found twice".to_owned())?;
    let known = [stay[0], stay[1], gone, new];
    let strangers = found.iter().filter(|one| !known.contains(one));
    // Keys of the group have the same label.
    for stranger in strangers {
        let label = session.value(*stranger, CKA_LABEL);
        ensure(label == Ok(b"pkcs11-conformance".to_vec()), || {
            "one that does not match".to_owned()
        })?;
    }
    Ok(())
}

fn destroyed_object(context: &mut Context) -> Outcome {
    let session = context.user()?;
    let gone = object(session)?;
    need(session.destroy(gone), "C_DestroyObject")?;
    is(session.value(gone, CKA_CLASS), CKR_OBJECT_HANDLE_INVALID, "C_GetAttributeValue")?;
    is(session.destroy(gone), CKR_OBJECT_HANDLE_INVALID, "C_DestroyObject again")?;
    let wanted = vec![(CKA_LABEL, b"pkcs11-conformance".to_vec())];
    let found = need(session.find(&wanted), "C_FindObjects")?;
    ensure(!found.contains(&gone), || "it is still found".to_owned())
}

fn two_sessions(context: &mut Context) -> Outcome {
    let (first, second) = (populated(context)?, context.session()?);
    let all = need(first.find(&NONE), "C_FindObjects")?;
    some(&all)?;
    need(first.find_init(&NONE), "C_FindObjectsInit")?;
    need(second.find_init(&vec![(CKA_LABEL, b"nobody".to_vec())]), "the other's Init")?;
    let none = need(second.find_next(10), "the other's C_FindObjects")?;
    let mut some = Vec::new();
    loop {
        let more = need(first.find_next(64), "C_FindObjects")?;
        if more.is_empty() {
            break;
        }
        some.extend(more);
    }
    need(second.find_final(), "the other's Final")?;
    need(first.find_final(), "C_FindObjectsFinal")?;
    ensure(none.is_empty() && some.len() == all.len(), || {
        format!("{} and {} objects instead of 0 and {}", none.len(), some.len(), all.len())
    })
}

fn cancel(context: &mut Context) -> Outcome {
    context.needs(C_SessionCancel)?;
    let session = context.user()?;
    need(session.find_init(&NONE), "C_FindObjectsInit")?;
    let rv = check(session.call(C_SessionCancel, &[CKF_FIND_OBJECTS.into()]));
    if rv == Err(CKR_FUNCTION_NOT_SUPPORTED) {
        session.find_final().ok();
        return skip("not supported");
    }
    is(rv, CKR_OK, "C_SessionCancel")?;
    is(session.find_next(1), CKR_OPERATION_NOT_INITIALIZED, "C_FindObjects after it")
}
