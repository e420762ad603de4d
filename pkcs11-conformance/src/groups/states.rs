//! What may follow what: the state of an operation.

use cryptoki_sys::*;

use crate::{
    case::{Case, Group, Outcome, ensure, fail, skip},
    client::{Family, Rv, Session, check},
    context::{Context, is, need, one_of},
    functions::Function::*,
    keys::Kind,
    mechanism::{Mechanism, scheme},
    names, oracle,
    samples::{encrypted, pairs, to_encrypt, to_sign},
};

/// The group.
pub const GROUP: Group = Group {
    name: "states",
    title: "the state of an operation",
    patience: 120,
    cases: &[
        Case {
            id: "init-twice",
            clause: "5.8, 5.10, 5.12, 5.13, 5.15",
            title: "A second Init is CKR_OPERATION_ACTIVE, and the first operation goes on.",
            run: |context| families(context, init_twice),
        },
        Case {
            id: "ends-with-output",
            clause: "5.8, 5.10, 5.12, 5.13, 5.15",
            title: "The one-shot call ends the operation: Update and Final find none.",
            run: |context| families(context, ends_with_output),
        },
        Case {
            id: "ends-with-final",
            clause: "5.8, 5.10, 5.12, 5.13, 5.15",
            title: "Final ends the operation, and gives what the one-shot call gives.",
            run: |context| families(context, ends_with_final),
        },
        Case {
            id: "one-shot-after-update",
            clause: "5.8, 5.10, 5.12, 5.13, 5.15",
            title: "The one-shot call does not end what Update began: it fails.",
            run: |context| families(context, one_shot_after_update),
        },
        Case {
            id: "cancel-by-null",
            clause: "5.8, 5.10, 5.12, 5.13, 5.15",
            title: "Init with NULL_PTR for the mechanism ends the operation.",
            run: |context| families(context, cancel_by_null),
        },
        Case {
            id: "cancel-by-session",
            clause: "5.6 C_SessionCancel",
            title: "C_SessionCancel with the operation's flag ends it, and no other.",
            run: |context| families(context, cancel_by_session),
        },
        Case {
            id: "two-sessions",
            clause: "5.8, 5.10, 5.12, 5.13, 5.15",
            title: "Operations of two sessions are independent.",
            run: |context| families(context, two_sessions),
        },
        Case {
            id: "failed-init",
            clause: "5.8, 5.10, 5.12, 5.13, 5.15",
            title: "After an Init that failed no operation is active.",
            run: |context| families(context, failed_init),
        },
        Case {
            id: "mechanism-invalid",
            clause: "5.8, 5.10, 5.12, 5.13, 5.15",
            title: "A mechanism that is not listed, or not for this, is CKR_MECHANISM_INVALID.",
            run: |context| families(context, mechanism_invalid),
        },
        Case {
            id: "key-invalid",
            clause: "5.8, 5.10, 5.13, 5.15",
            title: "A handle that is no key is CKR_KEY_HANDLE_INVALID.",
            run: |context| families(context, key_invalid),
        },
        Case {
            id: "key-wrong",
            clause: "5.8, 5.10, 5.13, 5.15",
            title: "The pair's other key, or a key of another type, is refused at Init.",
            run: |context| families(context, key_wrong),
        },
        Case {
            id: "signature-wrong",
            clause: "5.15 C_Verify",
            title: "A changed signature is CKR_SIGNATURE_INVALID, a shorter or longer one that or \
                    CKR_SIGNATURE_LEN_RANGE; each ends the operation.",
            run: signature_wrong,
        },
        Case {
            id: "parameter-wrong",
            clause: "6.1.8, 6.1.10",
            title: "A mechanism parameter that is missing, short, or none: \
                    CKR_MECHANISM_PARAM_INVALID.",
            run: parameter_wrong,
        },
        Case {
            id: "data-too-long",
            clause: "6.1.6",
            title: "More than CKM_RSA_PKCS can pad is CKR_DATA_LEN_RANGE, and ends the operation.",
            run: data_too_long,
        },
        Case {
            id: "ciphertext-wrong",
            clause: "5.10 C_Decrypt",
            title: "A ciphertext of the wrong length or of nothing is refused as such.",
            run: ciphertext_wrong,
        },
    ],
};

/// An operation that works, of some family.
struct Operation {
    family: Family,
    mechanism: Mechanism,
    key: CK_OBJECT_HANDLE,
    other_key: Option<CK_OBJECT_HANDLE>,
    multi_part: bool,
    data: Vec<u8>,
    /// What is verified.
    signature: Vec<u8>,
}

impl Operation {
    fn init(&self, session: Session) -> Rv {
        session.init(self.family, &self.mechanism, self.key)
    }

    fn one_shot(&self, session: Session) -> Rv<Vec<u8>> {
        match self.family {
            Family::Verify => session.verify_data(&self.data, &self.signature).map(|()| Vec::new()),
            family => session.one_shot(family, &self.data),
        }
    }

    fn update(&self, session: Session) -> Rv {
        session.update(self.family, &self.data).map(|_| ())
    }

    fn last(&self, session: Session) -> Rv<Vec<u8>> {
        match self.family {
            Family::Verify => session.verify_last(&self.signature).map(|()| Vec::new()),
            family => session.last(family),
        }
    }
}

/// One operation per family, scheme and kind of key.
fn operations(context: &mut Context, family: Family) -> Outcome<Vec<(String, Operation)>> {
    let mut operations = Vec::new();
    if family == Family::Digest {
        for (kind, _) in context.offered(CKF_DIGEST)?.into_iter().take(3) {
            let operation = Operation {
                family,
                mechanism: Mechanism::plain(kind),
                key: CK_INVALID_HANDLE,
                other_key: None,
                multi_part: true,
                data: b"data".to_vec(),
                signature: Vec::new(),
            };
            operations.push((names::mechanism(kind), operation));
        }
        return Ok(operations);
    }
    for (kind, key) in pairs(context, family)? {
        let Some(scheme) = scheme(kind) else { continue };
        // One key of each type says what the others would.
        let usual = match key.kind {
            Kind::Rsa(_) | Kind::Generic(_) => true,
            Kind::Ec(curve) => curve == &oracle::CURVES[0],
            Kind::Aes(bytes) => bytes == 16,
        };
        let (Some(public), true) = (key.public, usual) else { continue };
        let mechanism = Mechanism::usual(kind);
        let private = key.private;
        let (own, other) = match family {
            Family::Sign | Family::Decrypt => (private, public),
            _ => (public, private),
        };
        // A secret key has no other half.
        let other = (own != other).then_some(other);
        let data = match family {
            Family::Sign | Family::Verify => to_sign(scheme, &key),
            _ => to_encrypt(scheme, &key),
        };
        let session = context.user()?;
        let (data, signature) = match family {
            Family::Verify => {
                let Ok(signature) = session.run(Family::Sign, &mechanism, private, &data) else {
                    continue;
                };
                (data, signature)
            }
            Family::Decrypt => {
                let Ok(data) = encrypted(scheme, &key, &data) else { continue };
                (data, Vec::new())
            }
            _ => (data, Vec::new()),
        };
        let operation = Operation {
            family,
            mechanism,
            key: own,
            other_key: other,
            multi_part: scheme.is_multi_part(),
            data,
            signature,
        };
        operations.push((format!("{}, {key}", names::mechanism(kind)), operation));
    }
    Ok(operations)
}

fn families(context: &mut Context, attempt: fn(&mut Context, &Operation) -> Outcome) -> Outcome {
    for family in Family::ALL {
        let operations = match operations(context, family) {
            Err(crate::case::Stop::Skip(why)) => {
                context.each(format!("{family:?}"), |_| skip(why));
                continue;
            }
            operations => operations?,
        };
        for (name, operation) in operations {
            context.each(format!("{family:?}, {name}"), |context| attempt(context, &operation));
        }
    }
    Ok(())
}

const NO: CK_RV = CKR_OPERATION_NOT_INITIALIZED;

fn init_twice(context: &mut Context, operation: &Operation) -> Outcome {
    let session = context.user()?;
    need(operation.init(session), "Init")?;
    is(operation.init(session), CKR_OPERATION_ACTIVE, "Init again")?;
    need(operation.one_shot(session), "the first operation").map(|_| ())
}

fn ends_with_output(context: &mut Context, operation: &Operation) -> Outcome {
    let session = context.user()?;
    need(operation.init(session), "Init")?;
    need(operation.one_shot(session), "the operation")?;
    is(operation.one_shot(session), NO, "the one-shot call again")?;
    is(operation.update(session), NO, "Update after it")?;
    is(operation.last(session), NO, "Final after it")
}

fn ends_with_final(context: &mut Context, operation: &Operation) -> Outcome {
    if !operation.multi_part {
        return skip("the mechanism is single-part");
    }
    let session = context.user()?;
    need(operation.init(session), "Init")?;
    let mut whole = Vec::new();
    for part in operation.data.chunks(3) {
        whole.extend(need(session.update(operation.family, part), "Update")?);
    }
    whole.extend(need(operation.last(session), "Final")?);
    is(operation.last(session), NO, "Final again")?;
    is(operation.update(session), NO, "Update after Final")?;
    if operation.family == Family::Digest || operation.family.streams() {
        need(operation.init(session), "Init")?;
        let single = need(operation.one_shot(session), "the one-shot call")?;
        ensure(whole == single, || "parts give another result".to_owned())?;
    }
    Ok(())
}

fn one_shot_after_update(context: &mut Context, operation: &Operation) -> Outcome {
    if !operation.multi_part {
        return skip("the mechanism is single-part");
    }
    let session = context.user()?;
    need(operation.init(session), "Init")?;
    need(operation.update(session), "Update")?;
    match operation.one_shot(session) {
        Ok(_) => fail("the one-shot call after Update is CKR_OK"),
        Err(_) => Ok(()),
    }
}

fn cancel_by_null(context: &mut Context, operation: &Operation) -> Outcome {
    if context.module.list.version < (3, 0) {
        return skip("a module of before 3.0");
    }
    let session = context.user()?;
    need(operation.init(session), "Init")?;
    is(session.init_null(operation.family), CKR_OK, "Init with NULL_PTR")?;
    is(operation.one_shot(session), NO, "the one-shot call after it")?;
    need(operation.init(session), "Init after it")?;
    need(operation.one_shot(session), "the operation").map(|_| ())
}

fn cancel_by_session(context: &mut Context, operation: &Operation) -> Outcome {
    context.needs(C_SessionCancel)?;
    let session = context.user()?;
    need(operation.init(session), "Init")?;
    let others = Family::ALL.iter().filter(|family| **family != operation.family);
    let flags = others.fold(CKF_FIND_OBJECTS, |flags, family| flags | family.flag());
    let rv = check(session.call(C_SessionCancel, &[flags.into()]));
    if rv == Err(CKR_FUNCTION_NOT_SUPPORTED) {
        return skip("not supported");
    }
    is(rv, CKR_OK, "C_SessionCancel of the others")?;
    is(operation.init(session), CKR_OPERATION_ACTIVE, "Init after it")?;
    let rv = check(session.call(C_SessionCancel, &[operation.family.flag().into()]));
    is(rv, CKR_OK, "C_SessionCancel")?;
    is(operation.one_shot(session), NO, "the one-shot call after it")
}

fn two_sessions(context: &mut Context, operation: &Operation) -> Outcome {
    let (first, second) = (context.user()?, context.session()?);
    need(operation.init(first), "Init")?;
    is(operation.one_shot(second), NO, "the other session's call")?;
    need(operation.init(second), "the other session's Init")?;
    need(operation.one_shot(second), "the other session's operation")?;
    need(operation.one_shot(first), "the first session's operation").map(|_| ())
}

/// A mechanism that no module has.
const NOBODY: CK_MECHANISM_TYPE = 0x7ffe_1234;

fn failed_init(context: &mut Context, operation: &Operation) -> Outcome {
    let session = context.user()?;
    let rv = session.init(operation.family, &Mechanism::plain(NOBODY), operation.key);
    ensure(rv.is_err(), || "Init with an unknown mechanism is CKR_OK".to_owned())?;
    is(operation.one_shot(session), NO, "the one-shot call after it")?;
    need(operation.init(session), "Init after it")
}

fn mechanism_invalid(context: &mut Context, operation: &Operation) -> Outcome {
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

fn key_invalid(context: &mut Context, operation: &Operation) -> Outcome {
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

fn key_wrong(context: &mut Context, operation: &Operation) -> Outcome {
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
        one_of(rv, &refused, &format!("{} with the key", names::mechanism(foreign)))?;
    }
    Ok(())
}

fn signature_wrong(context: &mut Context) -> Outcome {
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
                let both = [CKR_SIGNATURE_LEN_RANGE, CKR_SIGNATURE_INVALID];
                one_of(rv, &both, &format!("a {what} signature"))?;
                is(operation.one_shot(session), NO, "C_Verify after it")?;
            }
            Ok(())
        });
    }
    Ok(())
}

fn parameter_wrong(context: &mut Context) -> Outcome {
    let refused = [CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD];
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
                one_of(rv, &refused, "Init")
            });
        }
    }
    Ok(())
}

fn data_too_long(context: &mut Context) -> Outcome {
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

fn ciphertext_wrong(context: &mut Context) -> Outcome {
    for (kind, key) in pairs(context, Family::Decrypt)? {
        let Kind::Rsa(bits) = key.kind else { continue };
        if scheme(kind) == Some(crate::mechanism::Scheme::Raw) {
            continue;
        }
        context.each(names::mechanism(kind), |context| {
            let session = context.user()?;
            let mechanism = Mechanism::usual(kind);
            let refused = [CKR_ENCRYPTED_DATA_INVALID, CKR_ENCRYPTED_DATA_LEN_RANGE];
            for (what, data) in [("short", vec![1; bits / 8 - 1]), ("long", vec![1; bits / 8 + 1])]
            {
                need(session.init(Family::Decrypt, &mechanism, key.private), "C_DecryptInit")?;
                let rv = session.one_shot(Family::Decrypt, &data);
                one_of(rv, &refused, &format!("a ciphertext too {what}"))?;
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
