//! What may follow what: the state of an operation.

mod faults;
mod others;

use cryptoki_sys::*;

use crate::{
    case::{Case, Group, Outcome, ensure, fail, skip},
    client::{Family, Output, PLENTY, Rv, Session, check},
    context::{Context, is, need},
    ffi::NULL,
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
            title: "The one-shot call does not give the output of what Update began: it fails, \
                    and the operation is over.",
            run: |context| families(context, one_shot_after_update),
        },
        Case {
            id: "failed-update",
            clause: "5.8, 5.10, 5.12, 5.13, 5.15",
            title: "An Update that fails ends the operation.",
            run: |context| families(context, failed_update),
        },
        Case {
            id: "cancel-by-null",
            clause: "5.8, 5.10, 5.12, 5.13, 5.15",
            title: "Init with NULL_PTR for the mechanism ends the operation.",
            run: |context| families(context, cancel_by_null),
        },
        Case {
            id: "cancel-others-by-null",
            clause: "5.9, 5.11, 5.13, 5.14, 5.15, 5.16",
            title: "So does it with recovery, with messages, and with the signature given first.",
            run: others::cancel_by_null,
        },
        Case {
            id: "dual-flag",
            clause: "5.5 C_GetTokenInfo, 5.17",
            title: "CKF_DUAL_CRYPTO_OPERATIONS says whether the dual functions work.",
            run: others::dual_flag,
        },
        Case {
            id: "during-search",
            clause: "5.1.6 CKR_OPERATION_ACTIVE",
            title: "During a search another Init is CKR_OPERATION_ACTIVE, or both go on.",
            run: others::during_search,
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
            run: |context| families(context, faults::mechanism_invalid),
        },
        Case {
            id: "key-invalid",
            clause: "5.8, 5.10, 5.13, 5.15",
            title: "A handle that is no key is CKR_KEY_HANDLE_INVALID.",
            run: |context| families(context, faults::key_invalid),
        },
        Case {
            id: "key-wrong",
            clause: "5.8, 5.10, 5.13, 5.15",
            title: "The pair's other key, or a key of another type, is refused at Init.",
            run: |context| families(context, faults::key_wrong),
        },
        Case {
            id: "key-type-first",
            clause: "5.1.6 CKR_KEY_TYPE_INCONSISTENT",
            title: "A key of another type that may not be used so either is \
                    CKR_KEY_TYPE_INCONSISTENT.",
            run: others::key_type_first,
        },
        Case {
            id: "signature-wrong",
            clause: "5.15 C_Verify, 5.1.6",
            title: "A changed signature is CKR_SIGNATURE_INVALID, a shorter or longer one \
                    CKR_SIGNATURE_LEN_RANGE; each ends the operation, whole and in parts.",
            run: faults::signature_wrong,
        },
        Case {
            id: "parameter-wrong",
            clause: "6.1.8, 6.1.10",
            title: "A mechanism parameter that is missing, short, or none: \
                    CKR_MECHANISM_PARAM_INVALID.",
            run: faults::parameter_wrong,
        },
        Case {
            id: "data-too-long",
            clause: "6.1.6",
            title: "More than CKM_RSA_PKCS can pad is CKR_DATA_LEN_RANGE, and ends the operation.",
            run: faults::data_too_long,
        },
        Case {
            id: "ciphertext-wrong",
            clause: "5.10 C_Decrypt, 5.1.6",
            title: "A ciphertext of the wrong length is CKR_ENCRYPTED_DATA_LEN_RANGE, one of \
                    nothing is refused.",
            run: faults::ciphertext_wrong,
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
        for (kind, _) in context.offered(CKF_DIGEST)? {
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
        Err(_) => is(operation.last(session), NO, "Final after the one-shot call that failed"),
    }
}

fn failed_update(context: &mut Context, operation: &Operation) -> Outcome {
    if !operation.multi_part {
        return skip("the mechanism is single-part");
    }
    let session = context.user()?;
    let [_, _, update, _] = operation.family.functions();
    need(operation.init(session), "Init")?;
    need(operation.update(session), "Update")?;
    let rv = match operation.family.streams() {
        true => {
            Output::of(PLENTY, |out, size| session.call(update, &[NULL, 5.into(), out, size])).rv
        }
        false => session.call(update, &[NULL, 5.into()]),
    };
    is(check(rv), CKR_ARGUMENTS_BAD, "Update of five bytes at NULL_PTR")?;
    is(operation.last(session), NO, "Final after it")
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
