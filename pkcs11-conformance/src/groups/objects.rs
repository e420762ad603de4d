//! Objects: copied, changed, destroyed, and gone with their session.

use cryptoki_sys::*;

use super::find;
use crate::{
    case::{Case, Group, Outcome, ensure, skip},
    client::{Rv, Session, flag},
    context::{Context, is, need, one_of},
    keys::{Kind, secret, value},
    names,
};

/// The group.
pub const GROUP: Group = Group {
    name: "objects",
    title: "copying and destroying objects",
    patience: 60,
    cases: &[
        Case {
            id: "copy",
            clause: "5.7 C_CopyObject",
            title: "A copy is another object, with the template's values and else the same.",
            run: copy,
        },
        Case {
            id: "copy-independent",
            clause: "5.7 C_CopyObject",
            title: "What is done to a copy is not done to its original.",
            run: copy_independent,
        },
        Case {
            id: "copy-wrong",
            clause: "5.7 C_CopyObject, 4.1.3",
            title: "A copy has no other class, key type or value, nor an unknown attribute.",
            run: copy_wrong,
        },
        Case {
            id: "copy-sensitive",
            clause: "4.10, 4.11",
            title: "A copy of a sensitive, unextractable key is no less so.",
            run: copy_sensitive,
        },
        Case {
            id: "not-copyable",
            clause: "4.4 CKA_COPYABLE",
            title: "With CKA_COPYABLE false: CKR_ACTION_PROHIBITED, and it stays false.",
            run: not_copyable,
        },
        Case {
            id: "not-modifiable",
            clause: "4.4 CKA_MODIFIABLE",
            title: "With CKA_MODIFIABLE false nothing can be changed: CKR_ACTION_PROHIBITED.",
            run: not_modifiable,
        },
        Case {
            id: "not-destroyable",
            clause: "4.4 CKA_DESTROYABLE",
            title: "With CKA_DESTROYABLE false: CKR_ACTION_PROHIBITED.",
            run: not_destroyable,
        },
        Case {
            id: "one-way",
            clause: "4.10, 4.11",
            title: "CKA_SENSITIVE goes to true only, CKA_EXTRACTABLE to false only.",
            run: one_way,
        },
        Case {
            id: "template-kept",
            clause: "4.1.1",
            title: "A value of the template is the object's, or the template is refused: none is \
                    ignored.",
            run: template_kept,
        },
        Case {
            id: "with-session",
            clause: "5.6 C_CloseSession",
            title: "A session object is seen by other sessions, and gone with its own.",
            run: with_session,
        },
        Case {
            id: "private-after-logout",
            clause: "5.6 C_Logout",
            title: "After C_Logout handles of private session objects are invalid.",
            run: private_after_logout,
        },
    ],
};

/// What cannot be changed, by one of these.
const REFUSED: [CK_RV; 5] = [
    CKR_ATTRIBUTE_READ_ONLY,
    CKR_TEMPLATE_INCONSISTENT,
    CKR_ATTRIBUTE_TYPE_INVALID,
    CKR_ATTRIBUTE_VALUE_INVALID,
    CKR_ACTION_PROHIBITED,
];

/// A copy; a module that copies nothing is not tried further.
fn copied(session: Session, object: CK_OBJECT_HANDLE) -> Outcome<CK_OBJECT_HANDLE> {
    match session.copy(object, &vec![(CKA_LABEL, b"a copy".to_vec())]) {
        Err(CKR_FUNCTION_NOT_SUPPORTED) => skip("C_CopyObject is not supported"),
        copy => need(copy, "C_CopyObject"),
    }
}

fn copy(context: &mut Context) -> Outcome {
    let session = context.user()?;
    let original = find::object(session)?;
    let copy = copied(session, original)?;
    ensure(copy != original, || "the copy has the handle of its original".to_owned())?;
    for kind in [CKA_CLASS, CKA_KEY_TYPE, CKA_MODULUS, CKA_ID, CKA_TOKEN, CKA_VERIFY] {
        let (ours, theirs) = (session.value(copy, kind), session.value(original, kind));
        ensure(ours.is_ok() && ours == theirs, || format!("{} differs", names::attribute(kind)))?;
    }
    let label = session.value(copy, CKA_LABEL);
    ensure(label == Ok(b"a copy".to_vec()), || format!("CKA_LABEL is {label:?}"))?;
    let found = need(session.find(&vec![(CKA_LABEL, b"a copy".to_vec())]), "C_FindObjects")?;
    ensure(found.contains(&copy), || "the copy is not found".to_owned())?;
    let again = need(session.copy(original, &Vec::new()), "C_CopyObject without template")?;
    let label = (session.value(again, CKA_LABEL), session.value(original, CKA_LABEL));
    ensure(label.0 == label.1, || "CKA_LABEL differs without a template".to_owned())
}

fn copy_independent(context: &mut Context) -> Outcome {
    let session = context.user()?;
    let original = find::object(session)?;
    let copy = copied(session, original)?;
    let before = session.value(original, CKA_LABEL);
    let other = vec![(CKA_LABEL, b"changed".to_vec())];
    need(session.set(copy, &other), "C_SetAttributeValue")?;
    ensure(session.value(original, CKA_LABEL) == before, || "the label changed".to_owned())?;
    need(session.destroy(copy), "C_DestroyObject")?;
    need(session.value(original, CKA_CLASS), "the original's CKA_CLASS")?;
    let rv = session.copy(copy, &Vec::new());
    is(rv, CKR_OBJECT_HANDLE_INVALID, "C_CopyObject of what is destroyed")
}

fn copy_wrong(context: &mut Context) -> Outcome {
    let session = context.user()?;
    let original = find::object(session)?;
    copied(session, original)?;
    for (kind, bytes) in [
        (CKA_CLASS, crate::client::number(CKO_DATA)),
        (CKA_KEY_TYPE, crate::client::number(CKK_EC)),
        (CKA_MODULUS, vec![0xd1; 256]),
        (CKA_VENDOR_DEFINED | 0x7654_3210, vec![1]),
    ] {
        context.each(names::attribute(kind), |_| {
            one_of(session.copy(original, &vec![(kind, bytes)]), &REFUSED, "C_CopyObject")
        });
    }
    Ok(())
}

/// An AES key with more in its template.
fn key(session: Session, more: &[(CK_ATTRIBUTE_TYPE, bool)]) -> Rv<CK_OBJECT_HANDLE> {
    let mut template = secret(Kind::Aes(16), &value(16));
    template.retain(|(kind, _)| more.iter().all(|(one, _)| one != kind));
    template.extend(more.iter().map(|(kind, on)| (*kind, flag(*on))));
    session.create(&template)
}

/// The same as a case asks for it; where no secret key can be made, the case is skipped.
fn some_key(session: Session, more: &[(CK_ATTRIBUTE_TYPE, bool)]) -> Outcome<CK_OBJECT_HANDLE> {
    match key(session, &[]) {
        Ok(_) => need(key(session, more), "C_CreateObject"),
        Err(rv) => skip(format!("no secret key can be imported: {}", names::rv(rv))),
    }
}

fn copy_sensitive(context: &mut Context) -> Outcome {
    let session = context.user()?;
    let original = some_key(session, &[])?;
    let copy = copied(session, original)?;
    is(session.value(copy, CKA_VALUE), CKR_ATTRIBUTE_SENSITIVE, "CKA_VALUE of a copy")?;
    for (kind, on) in [(CKA_SENSITIVE, false), (CKA_EXTRACTABLE, true)] {
        let rv = session.copy(original, &vec![(kind, flag(on))]);
        one_of(rv, &REFUSED, &format!("a copy with another {}", names::attribute(kind)))?;
    }
    Ok(())
}

fn not_copyable(context: &mut Context) -> Outcome {
    let session = context.user()?;
    let object = some_key(session, &[(CKA_COPYABLE, false)])?;
    copied(session, some_key(session, &[])?)?;
    is(session.copy(object, &Vec::new()), CKR_ACTION_PROHIBITED, "C_CopyObject")?;
    let rv = session.set(object, &vec![(CKA_COPYABLE, flag(true))]);
    one_of(rv, &REFUSED, "CKA_COPYABLE made true")
}

fn not_modifiable(context: &mut Context) -> Outcome {
    let session = context.user()?;
    let object = some_key(session, &[(CKA_MODIFIABLE, false)])?;
    let rv = session.set(object, &vec![(CKA_LABEL, b"other".to_vec())]);
    is(rv, CKR_ACTION_PROHIBITED, "C_SetAttributeValue")
}

fn not_destroyable(context: &mut Context) -> Outcome {
    let session = context.user()?;
    let object = some_key(session, &[(CKA_DESTROYABLE, false)])?;
    is(session.destroy(object), CKR_ACTION_PROHIBITED, "C_DestroyObject")
}

fn one_way(context: &mut Context) -> Outcome {
    let session = context.user()?;
    let object = some_key(session, &[(CKA_SENSITIVE, false), (CKA_EXTRACTABLE, true)])?;
    ensure(session.value(object, CKA_VALUE) == Ok(value(16)), || {
        "CKA_VALUE of a key that is neither cannot be read".to_owned()
    })?;
    let changes = [(CKA_SENSITIVE, true), (CKA_EXTRACTABLE, false)];
    for (kind, on) in changes {
        need(session.set(object, &vec![(kind, flag(on))]), &names::attribute(kind))?;
        let back = session.set(object, &vec![(kind, flag(!on))]);
        one_of(back, &REFUSED, &format!("{} back", names::attribute(kind)))?;
    }
    is(session.value(object, CKA_VALUE), CKR_ATTRIBUTE_SENSITIVE, "CKA_VALUE afterwards")?;
    for kind in [CKA_ALWAYS_SENSITIVE, CKA_NEVER_EXTRACTABLE] {
        let told = session.value(object, kind);
        ensure(told == Ok(flag(false)), || format!("{}: {told:?}", names::attribute(kind)))?;
    }
    Ok(())
}

fn template_kept(context: &mut Context) -> Outcome {
    for kind in [
        CKA_PRIVATE,
        CKA_SENSITIVE,
        CKA_EXTRACTABLE,
        CKA_MODIFIABLE,
        CKA_COPYABLE,
        CKA_DESTROYABLE,
        CKA_ENCRYPT,
        CKA_DECRYPT,
    ] {
        for on in [true, false] {
            context.each(format!("{} {on}", names::attribute(kind)), |context| {
                let session = context.user()?;
                some_key(session, &[])?;
                let object = match key(session, &[(kind, on)]) {
                    Ok(object) => object,
                    // Or it is for nobody who has not logged in.
                    Err(CKR_USER_NOT_LOGGED_IN) => return Ok(()),
                    rv => return one_of(rv, &REFUSED, "C_CreateObject"),
                };
                let told = need(session.value(object, kind), &names::attribute(kind))?;
                ensure(told == flag(on), || format!("the object has {told:?}"))
            });
        }
    }
    Ok(())
}

fn with_session(context: &mut Context) -> Outcome {
    let (own, other) = (context.user()?, context.session()?);
    let object = find::object(own)?;
    need(other.value(object, CKA_CLASS), "CKA_CLASS, by another session")?;
    context.forget(own);
    need(own.close(), "C_CloseSession")?;
    is(other.value(object, CKA_CLASS), CKR_OBJECT_HANDLE_INVALID, "after C_CloseSession")
}

fn private_after_logout(context: &mut Context) -> Outcome {
    context.has_login()?;
    // The group's own login would end with this one: its keys are of no use here.
    let session = context.user()?;
    let object = some_key(session, &[(CKA_PRIVATE, true)])?;
    if session.value(object, CKA_PRIVATE) == Ok(flag(false)) {
        return skip("a key made with CKA_PRIVATE true is not private: see objects/template-kept");
    }
    need(session.logout(), "C_Logout")?;
    let rv = session.value(object, CKA_CLASS);
    let after = is(rv, CKR_OBJECT_HANDLE_INVALID, "CKA_CLASS after C_Logout");
    context.user()?;
    after?;
    is(session.value(object, CKA_CLASS), CKR_OBJECT_HANDLE_INVALID, "after another C_Login")
}
