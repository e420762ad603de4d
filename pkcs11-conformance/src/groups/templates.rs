//! Templates: what makes an object, and what does not.

use cryptoki_sys::*;

use super::imports::rsa_nobody;
use crate::{
    case::{Case, Group, Outcome, ensure, skip},
    client::{Session, Template, check, flag, number},
    context::{Context, is, need, one_of},
    ffi::{NULL, attribute, length, place, write},
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
            id: "pair-parameters",
            clause: "6.1.4, 6.3.3",
            title: "An exponent or a curve that is none is refused, and nothing is made.",
            run: pair_parameters,
        },
        Case {
            id: "secret-wrong",
            clause: "4.1.1, 6.10.3",
            title: "Templates of C_GenerateKey are held to the same rules.",
            run: secret_wrong,
        },
        Case {
            id: "null-value",
            clause: "4.1.1, 5.7 C_CreateObject",
            title: "NULL_PTR for a value of some bytes is refused.",
            run: null_value,
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
            clause: "4.9, 6.1.2",
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
        ("a class of two bytes", CKA_CLASS, vec![3, 0], inconsistent.clone()),
        ("CKA_LOCAL", CKA_LOCAL, flag(true), read_only.clone()),
        ("CKA_NEVER_EXTRACTABLE", CKA_NEVER_EXTRACTABLE, flag(true), read_only.clone()),
    ];
    let vendor = ("unknown attribute", vendor, vec![1], vec![CKR_ATTRIBUTE_TYPE_INVALID]);
    let of_public = [
        vendor,
        ("another class", CKA_CLASS, number(CKO_PRIVATE_KEY), inconsistent.clone()),
        ("a flag of two bytes", CKA_VERIFY, vec![1, 1], inconsistent),
        ("CKA_LOCAL", CKA_LOCAL, flag(true), read_only),
    ];
    let with = |template: &Template, kind: CK_ATTRIBUTE_TYPE, value: &[u8]| {
        let mut template = template.clone();
        template.retain(|(one, _)| *one != kind);
        template.push((kind, value.to_vec()));
        template
    };
    for (mechanism, public, private) in pair(context)? {
        let name = names::mechanism(mechanism.kind);
        for (what, kind, value, wanted) in &cases {
            context.each(format!("{name}, {what}"), |context| {
                let private = with(&private, *kind, value);
                refused(context.user()?, &mechanism, &public, &private, wanted)
            });
        }
        for (what, kind, value, wanted) in &of_public {
            context.each(format!("{name}, {what} of the public key"), |context| {
                let public = with(&public, *kind, value);
                refused(context.user()?, &mechanism, &public, &private, wanted)
            });
        }
        for of in ["public", "private"] {
            context.each(format!("{name}, two labels of the {of} key"), |context| {
                let (mut public, mut private) = (public.clone(), private.clone());
                let template = if of == "public" { &mut public } else { &mut private };
                template.push((CKA_LABEL, b"pkcs11-conformance, another".to_vec()));
                let wanted = [CKR_TEMPLATE_INCONSISTENT];
                refused(context.user()?, &mechanism, &public, &private, &wanted)
            });
        }
    }
    Ok(())
}

/// What is wrong, of which pair, in which attribute, with which value, and the codes for it.
type Fault<'a> = (&'a str, CK_MECHANISM_TYPE, CK_ATTRIBUTE_TYPE, &'a [u8], &'a [CK_RV]);

fn pair_parameters(context: &mut Context) -> Outcome {
    let exponent = [CKR_ATTRIBUTE_VALUE_INVALID, CKR_TEMPLATE_INCONSISTENT];
    let unknown = [CKR_CURVE_NOT_SUPPORTED, CKR_DOMAIN_PARAMS_INVALID];
    let none = [CKR_CURVE_NOT_SUPPORTED, CKR_DOMAIN_PARAMS_INVALID, CKR_ATTRIBUTE_VALUE_INVALID];
    let empty = [&none[..], &[CKR_TEMPLATE_INCOMPLETE]].concat();
    let (rsa, ec) = (CKM_RSA_PKCS_KEY_PAIR_GEN, CKM_EC_KEY_PAIR_GEN);
    let (e, params) = (CKA_PUBLIC_EXPONENT, CKA_EC_PARAMS);
    let cases: [Fault<'_>; 8] = [
        ("exponent 0", rsa, e, &[0], &exponent),
        ("exponent 1", rsa, e, &[1], &exponent),
        ("exponent 2", rsa, e, &[2], &exponent),
        ("an even exponent", rsa, e, &[1, 0, 0], &exponent),
        // 1.2.3.4.5.
        ("a curve of nobody", ec, params, &[6, 4, 0x2a, 3, 4, 5], &unknown),
        ("no curve", ec, params, &[], &empty),
        ("half an identifier", ec, params, &[6, 8, 0x2a, 0x86], &none),
        ("something else", ec, params, &[0x30, 3, 2, 1, 1], &none),
    ];
    let pairs = pair(context)?;
    for (what, mechanism, kind, value, wanted) in cases {
        let found = pairs.iter().find(|(one, ..)| one.kind == mechanism);
        let Some((mechanism, public, private)) = found else { continue };
        context.each(format!("{}, {what}", names::mechanism(mechanism.kind)), |context| {
            let mut public = public.clone();
            public.retain(|(one, _)| *one != kind);
            public.push((kind, value.to_vec()));
            refused(context.user()?, mechanism, &public, private, wanted)
        });
    }
    Ok(())
}

fn secret_wrong(context: &mut Context) -> Outcome {
    let offered = context.offered(CKF_GENERATE)?;
    if !offered.iter().any(|(kind, _)| *kind == CKM_AES_KEY_GEN) {
        return skip("CKM_AES_KEY_GEN is not offered");
    }
    let common = vec![(CKA_TOKEN, flag(false)), (CKA_LABEL, LABEL.to_vec())];
    let length = |bytes| (CKA_VALUE_LEN, number(bytes));
    let sizes = [CKR_ATTRIBUTE_VALUE_INVALID, CKR_KEY_SIZE_RANGE, CKR_TEMPLATE_INCONSISTENT];
    let given = [CKR_TEMPLATE_INCONSISTENT, CKR_ATTRIBUTE_READ_ONLY, CKR_ATTRIBUTE_TYPE_INVALID];
    let vendor = CKA_VENDOR_DEFINED | 0x0bad_cafe;
    let label = (CKA_LABEL, b"pkcs11-conformance, another".to_vec());
    let cases: [(&str, Template, &[CK_RV]); 7] = [
        ("no length", vec![], &[CKR_TEMPLATE_INCOMPLETE]),
        ("17 bytes", vec![length(17)], &sizes),
        ("0 bytes", vec![length(0)], &sizes),
        ("unknown attribute", vec![length(16), (vendor, vec![1])], &[CKR_ATTRIBUTE_TYPE_INVALID]),
        ("a value", vec![length(16), (CKA_VALUE, vec![1; 16])], &given),
        ("two labels", vec![length(16), label], &[CKR_TEMPLATE_INCONSISTENT]),
        (
            "another class",
            vec![length(16), (CKA_CLASS, number(CKO_PUBLIC_KEY))],
            &[CKR_TEMPLATE_INCONSISTENT, CKR_ATTRIBUTE_VALUE_INVALID],
        ),
    ];
    for (what, more, wanted) in cases {
        context.each(what, |context| {
            let session = context.user()?;
            let label = vec![(CKA_LABEL, LABEL.to_vec())];
            let before = need(session.find(&label), "C_FindObjects")?.len();
            let template = [common.clone(), more].concat();
            let rv = session.generate(&Mechanism::plain(CKM_AES_KEY_GEN), &template);
            one_of(rv, wanted, "C_GenerateKey")?;
            let after = need(session.find(&label), "C_FindObjects")?.len();
            ensure(before == after, || "a key was made all the same".to_owned())
        });
    }
    Ok(())
}

fn null_value(context: &mut Context) -> Outcome {
    let session = context.user()?;
    let mut template = rsa_nobody();
    let mut list: Vec<CK_ATTRIBUTE> =
        template.iter_mut().map(|(kind, value)| attribute(*kind, value)).collect();
    list.push(CK_ATTRIBUTE { ulValueLen: 4, ..attribute(CKA_LABEL, &mut []) });
    let (count, mut object) = (length(&list), CK_INVALID_HANDLE);
    let rv = session.call(C_CreateObject, &[write(&mut list), count, place(&mut object)]);
    if rv == CKR_FUNCTION_NOT_SUPPORTED {
        return skip("not supported");
    }
    one_of(check(rv), &[CKR_ATTRIBUTE_VALUE_INVALID, CKR_ARGUMENTS_BAD], "C_CreateObject")
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
    let (mechanism, public, private) = pair(context)?.swap_remove(0);
    let session = context.user()?;
    let (mut first, mut second): (CK_OBJECT_HANDLE, CK_OBJECT_HANDLE) = (0, 0);
    mechanism.with(|raw| {
        let args = [raw, NULL, 3.into(), NULL, 0.into(), place(&mut first), place(&mut second)];
        is(check(session.call(C_GenerateKeyPair, &args)), CKR_ARGUMENTS_BAD, "a NULL_PTR template")
    })?;
    let (mut public, mut private) = (public, private);
    let list = |template: &mut Template| -> Vec<CK_ATTRIBUTE> {
        template.iter_mut().map(|(kind, value)| attribute(*kind, value)).collect()
    };
    let (mut public, mut private) = (list(&mut public), list(&mut private));
    let (ours, theirs) = (length(&public), length(&private));
    mechanism.with(|raw| {
        let (public, private) = (write(&mut public), write(&mut private));
        let args = [raw, public, ours, private, theirs, NULL, place(&mut second)];
        let rv = check(session.call(C_GenerateKeyPair, &args));
        is(rv, CKR_ARGUMENTS_BAD, "no place for the public key's handle")?;
        let args = [raw, public, ours, private, theirs, place(&mut first), NULL];
        let rv = check(session.call(C_GenerateKeyPair, &args));
        is(rv, CKR_ARGUMENTS_BAD, "no place for the private key's handle")
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
    let mut template = rsa_nobody();
    template.push((CKA_LABEL, b"pkcs11-conformance".to_vec()));
    template.push((CKA_ID, vec![0, 1, 2, 0xff]));
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
