//! Templates: what makes an object, and what does not.

use cryptoki_sys::*;

use crate::{
    case::{Case, Group, Outcome, ensure, skip},
    client::{Session, Template, check, flag, number},
    context::{Context, is, need, one_of},
    ffi::{NULL, place, write},
    functions::Function::*,
    keys::{Kind, templates},
    mechanism::Mechanism,
    names,
    oracle::CURVES,
};

/// The group.
pub const GROUP: Group = Group {
    name: "templates",
    title: "templates of new objects",
    patience: 60,
    cases: &[
        Case {
            id: "pair-incomplete",
            clause: "4.1.1",
            title: "A template that lacks what only it can say is CKR_TEMPLATE_INCOMPLETE.",
            run: pair_incomplete,
        },
        Case {
            id: "pair-wrong",
            clause: "4.1.1",
            title: "Unknown attributes, values that are none, and contradictions are refused, and \
                    nothing is made.",
            run: pair_wrong,
        },
        Case {
            id: "pair-same",
            clause: "4.1.1",
            title: "CKA_CLASS and CKA_KEY_TYPE that say what the mechanism says are taken.",
            run: pair_same,
        },
        Case {
            id: "pair-null",
            clause: "5.18 C_GenerateKeyPair",
            title: "NULL_PTR for templates with attributes, or for handles, is CKR_ARGUMENTS_BAD.",
            run: pair_null,
        },
        Case {
            id: "create-wrong",
            clause: "4.1.1",
            title: "C_CreateObject without class, of a class that is none, or incomplete fails.",
            run: create_wrong,
        },
        Case {
            id: "create-public",
            clause: "4.8, 6.1.2, 6.3.3",
            title: "A public key made as a session object has the values of its template.",
            run: create_public,
        },
    ],
};

const LABEL: &[u8] = b"pkcs11-conformance, never made";

/// Mechanism and templates of a pair that would be made, as a session object.
fn pair(context: &mut Context) -> Outcome<Vec<(Mechanism, Template, Template)>> {
    let offered = context.offered(CKF_GENERATE_KEY_PAIR)?;
    let pairs: Vec<_> = [Kind::Rsa(2048), Kind::Ec(&CURVES[0])]
        .into_iter()
        .map(|kind| templates(kind, false, std::str::from_utf8(LABEL).unwrap_or_default()))
        .filter(|(mechanism, ..)| offered.iter().any(|(kind, _)| *kind == mechanism.kind))
        .collect();
    if pairs.is_empty() { skip("no key pair can be made") } else { Ok(pairs) }
}

fn refused(
    session: Session,
    mechanism: &Mechanism,
    public: &Template,
    private: &Template,
    wanted: &[CK_RV],
) -> Outcome {
    let label = vec![(CKA_LABEL, LABEL.to_vec())];
    let before = need(session.find(&label), "C_FindObjects")?;
    let rv = session.generate_pair(mechanism, public, private);
    one_of(rv, wanted, "C_GenerateKeyPair")?;
    let after = need(session.find(&label), "C_FindObjects")?;
    ensure(before.len() == after.len(), || "an object was made all the same".to_owned())
}

fn pair_incomplete(context: &mut Context) -> Outcome {
    for (mechanism, public, private) in pair(context)? {
        context.each(names::mechanism(mechanism.kind), |context| {
            let session = context.user()?;
            let mut public = public.clone();
            public.retain(|(kind, _)| ![CKA_MODULUS_BITS, CKA_EC_PARAMS].contains(kind));
            refused(session, &mechanism, &public, &private, &[CKR_TEMPLATE_INCOMPLETE])
        });
    }
    Ok(())
}

fn pair_wrong(context: &mut Context) -> Outcome {
    let vendor = CKA_VENDOR_DEFINED | 0x0bad_cafe;
    let inconsistent = vec![CKR_TEMPLATE_INCONSISTENT, CKR_ATTRIBUTE_VALUE_INVALID];
    let read_only = vec![
        CKR_ATTRIBUTE_READ_ONLY,
        CKR_TEMPLATE_INCONSISTENT,
        CKR_ATTRIBUTE_VALUE_INVALID,
        CKR_ATTRIBUTE_TYPE_INVALID,
    ];
    let cases: Vec<(&str, CK_ATTRIBUTE_TYPE, Vec<u8>, Vec<CK_RV>)> = vec![
        ("unknown attribute", vendor, vec![1], vec![CKR_ATTRIBUTE_TYPE_INVALID]),
        ("another class", CKA_CLASS, number(CKO_DATA), inconsistent.clone()),
        ("another key type", CKA_KEY_TYPE, number(CKK_AES), inconsistent.clone()),
        ("a flag of two bytes", CKA_SIGN, vec![1, 1], inconsistent.clone()),
        ("a class of two bytes", CKA_CLASS, vec![3, 0], inconsistent),
        ("CKA_LOCAL", CKA_LOCAL, flag(true), read_only.clone()),
        ("CKA_NEVER_EXTRACTABLE", CKA_NEVER_EXTRACTABLE, flag(true), read_only),
    ];
    for (mechanism, public, private) in pair(context)? {
        for (what, kind, value, wanted) in &cases {
            let name = format!("{}, {what}", names::mechanism(mechanism.kind));
            context.each(name, |context| {
                let session = context.user()?;
                let mut private = private.clone();
                private.retain(|(one, _)| one != kind);
                private.push((*kind, value.clone()));
                refused(session, &mechanism, &public, &private, wanted)
            });
        }
    }
    Ok(())
}

fn pair_same(context: &mut Context) -> Outcome {
    for (mechanism, mut public, mut private) in pair(context)? {
        let key_type = match mechanism.kind {
            CKM_EC_KEY_PAIR_GEN => CKK_EC,
            _ => CKK_RSA,
        };
        public.push((CKA_CLASS, number(CKO_PUBLIC_KEY)));
        public.push((CKA_KEY_TYPE, number(key_type)));
        private.push((CKA_CLASS, number(CKO_PRIVATE_KEY)));
        private.push((CKA_KEY_TYPE, number(key_type)));
        context.each(names::mechanism(mechanism.kind), |context| {
            let session = context.user()?;
            let made = session.generate_pair(&mechanism, &public, &private);
            let (public, private) = need(made, "C_GenerateKeyPair")?;
            need(session.destroy(public), "C_DestroyObject")?;
            need(session.destroy(private), "C_DestroyObject")
        });
    }
    Ok(())
}

fn pair_null(context: &mut Context) -> Outcome {
    let (mechanism, ..) = pair(context)?.swap_remove(0);
    let session = context.user()?;
    let (mut first, mut second): (CK_OBJECT_HANDLE, CK_OBJECT_HANDLE) = (0, 0);
    mechanism.with(|raw| {
        let args = [raw, NULL, 3.into(), NULL, 0.into(), place(&mut first), place(&mut second)];
        is(check(session.call(C_GenerateKeyPair, &args)), CKR_ARGUMENTS_BAD, "a NULL_PTR template")
    })?;
    mechanism.with(|raw| {
        let mut none: [CK_ATTRIBUTE; 1] = [CK_ATTRIBUTE::default()];
        let start = write(&mut none);
        let args = [raw, start, 0.into(), start, 0.into(), NULL, place(&mut second)];
        let wanted = [CKR_ARGUMENTS_BAD, CKR_TEMPLATE_INCOMPLETE];
        one_of(check(session.call(C_GenerateKeyPair, &args)), &wanted, "no place for a handle")
    })
}

fn create_wrong(context: &mut Context) -> Outcome {
    let session = context.user()?;
    let common = vec![(CKA_TOKEN, flag(false)), (CKA_LABEL, LABEL.to_vec())];
    let with = |more: Template| [common.clone(), more].concat();
    let incomplete = [CKR_TEMPLATE_INCOMPLETE, CKR_TEMPLATE_INCONSISTENT];
    let none = [
        CKR_ATTRIBUTE_VALUE_INVALID,
        CKR_TEMPLATE_INCONSISTENT,
        CKR_ATTRIBUTE_TYPE_INVALID,
        CKR_TEMPLATE_INCOMPLETE,
    ];
    let class = number(CKO_VENDOR_DEFINED | 0x77);
    let key = (CKA_CLASS, number(CKO_PUBLIC_KEY));
    for (what, template, wanted) in [
        ("no class", with(vec![(CKA_KEY_TYPE, number(CKK_RSA))]), &incomplete[..]),
        ("a class that is none", with(vec![(CKA_CLASS, class)]), &none[..]),
        ("a key without type", with(vec![key.clone()]), &incomplete[..]),
        (
            "an RSA key without modulus",
            with(vec![key, (CKA_KEY_TYPE, number(CKK_RSA)), (CKA_PUBLIC_EXPONENT, vec![3])]),
            &incomplete[..],
        ),
    ] {
        context.each(what, |_| {
            let rv = session.create(&template);
            if rv == Err(CKR_FUNCTION_NOT_SUPPORTED) {
                return skip("not supported");
            }
            one_of(rv, wanted, "C_CreateObject")
        });
    }
    Ok(())
}

fn create_public(context: &mut Context) -> Outcome {
    let session = context.user()?;
    let mut modulus = vec![0xc5; 256];
    modulus[255] = 0x2b;
    let template = vec![
        (CKA_CLASS, number(CKO_PUBLIC_KEY)),
        (CKA_KEY_TYPE, number(CKK_RSA)),
        (CKA_TOKEN, flag(false)),
        (CKA_LABEL, b"pkcs11-conformance".to_vec()),
        (CKA_ID, vec![0, 1, 2, 0xff]),
        (CKA_MODULUS, modulus),
        (CKA_PUBLIC_EXPONENT, vec![1, 0, 1]),
    ];
    let object = match session.create(&template) {
        Ok(object) => object,
        Err(rv) => return skip(format!("C_CreateObject: {}", names::rv(rv))),
    };
    for (kind, value) in template {
        let told = need(session.value(object, kind), &names::attribute(kind))?;
        ensure(told == value, || format!("{} is another", names::attribute(kind)))?;
    }
    let bits = need(session.ulong(object, CKA_MODULUS_BITS), "CKA_MODULUS_BITS")?;
    ensure(bits == 2048, || format!("CKA_MODULUS_BITS is {bits}"))?;
    let local = session.value(object, CKA_LOCAL);
    ensure(local == Ok(flag(false)), || format!("CKA_LOCAL is {local:?}"))
}
