//! Output buffers: one protocol for every function that returns output of variable length.

use cryptoki_sys::*;

use super::protocol::{Protocol, ended};
use crate::{
    case::{Case, Group, Outcome, ensure, skip},
    client::{Family, Output, PLENTY, Room, Session, check, flag},
    context::{Context, is, need},
    ffi::{NULL, length, read},
    functions::Function::{self, *},
    keys::{Key, templates},
    mechanism::{HASHES, Mechanism, Mode, Scheme, scheme},
    names,
    samples::{encrypted, pairs, pairs_for, to_encrypt, to_sign},
};

/// The group.
pub const GROUP: Group = Group {
    name: "buffers",
    title: "output buffers",
    patience: 120,
    cases: &[
        Case {
            id: "digest",
            clause: "5.2, 5.12 C_Digest",
            title: "C_Digest keeps the protocol.",
            run: |context| digests(context, false),
        },
        Case {
            id: "digest-final",
            clause: "5.2, 5.12 C_DigestFinal",
            title: "C_DigestFinal keeps the protocol.",
            run: |context| digests(context, true),
        },
        Case {
            id: "sign",
            clause: "5.2, 5.13 C_Sign",
            title: "C_Sign keeps the protocol.",
            run: |context| signatures(context, false),
        },
        Case {
            id: "sign-final",
            clause: "5.2, 5.13 C_SignFinal",
            title: "C_SignFinal keeps the protocol.",
            run: |context| signatures(context, true),
        },
        Case {
            id: "encrypt",
            clause: "5.2, 5.8 C_Encrypt",
            title: "C_Encrypt keeps the protocol.",
            run: encryptions,
        },
        Case {
            id: "decrypt",
            clause: "5.2, 5.10 C_Decrypt",
            title: "C_Decrypt keeps the protocol; it may ask for more than it needs.",
            run: decryptions,
        },
        Case {
            id: "sign-recover",
            clause: "5.2, 5.13 C_SignRecover",
            title: "C_SignRecover keeps the protocol.",
            run: |context| recoveries(context, CKF_SIGN_RECOVER, sign_recover),
        },
        Case {
            id: "verify-recover",
            clause: "5.2, 5.15 C_VerifyRecover",
            title: "C_VerifyRecover keeps the protocol, and gives what was signed; it may ask for more \
                    than it needs.",
            run: |context| recoveries(context, CKF_VERIFY_RECOVER, verify_recover),
        },
        Case {
            id: "operation-state",
            clause: "5.2, 5.6 C_GetOperationState",
            title: "C_GetOperationState keeps the protocol, and leaves the operation as it was.",
            run: operation_state,
        },
        Case {
            id: "dual",
            clause: "5.2, 5.17",
            title: "The dual functions keep the protocol, and both operations get the data once.",
            run: dual,
        },
        Case {
            id: "null-length",
            clause: "5.2, 5.8, 5.10, 5.12, 5.13",
            title: "Without a place for the length: CKR_ARGUMENTS_BAD, which ends the operation.",
            run: null_length,
        },
    ],
};

fn digests(context: &mut Context, last: bool) -> Outcome {
    for (kind, _) in context.offered(CKF_DIGEST)? {
        let Some(Scheme::Digest(_)) = scheme(kind) else { continue };
        context.each(names::mechanism(kind), |context| {
            let session = context.session()?;
            let mechanism = Mechanism::plain(kind);
            one(session, Family::Digest, &mechanism, 0, b"data", last)
        });
    }
    Ok(())
}

fn one(
    session: Session,
    family: Family,
    mechanism: &Mechanism,
    key: CK_OBJECT_HANDLE,
    data: &[u8],
    last: bool,
) -> Outcome {
    let begin = || {
        need(session.init(family, mechanism, key), "Init")?;
        if last {
            need(session.update(family, data), "Update")?;
        }
        Ok(())
    };
    let call = |room| match last {
        true => session.last_in(family, room),
        false => session.one_shot_in(family, data, room),
    };
    let then = |_: &[u8]| ended(call(PLENTY).result(), "the output");
    Protocol { begin: &begin, call: &call, then: &then, exact: family != Family::Decrypt }.holds()
}

fn signatures(context: &mut Context, last: bool) -> Outcome {
    for (kind, key) in pairs(context, Family::Sign)? {
        let Some(scheme) = scheme(kind) else { continue };
        if last && !scheme.is_multi_part() {
            continue;
        }
        context.each(format!("{}, {key}", names::mechanism(kind)), |context| {
            let session = context.user()?;
            let data = to_sign(scheme, &key);
            one(session, Family::Sign, &Mechanism::usual(kind), key.private, &data, last)
        });
    }
    Ok(())
}

fn encryptions(context: &mut Context) -> Outcome {
    for (kind, key) in pairs(context, Family::Encrypt)? {
        let (Some(scheme), Some(public)) = (scheme(kind), key.public) else { continue };
        context.each(format!("{}, {key}", names::mechanism(kind)), |context| {
            let session = context.user()?;
            let data = to_encrypt(scheme, &key);
            one(session, Family::Encrypt, &Mechanism::usual(kind), public, &data, false)
        });
    }
    Ok(())
}

fn decryptions(context: &mut Context) -> Outcome {
    for (kind, key) in pairs(context, Family::Decrypt)? {
        let Some(scheme) = scheme(kind) else { continue };
        context.each(format!("{}, {key}", names::mechanism(kind)), |context| {
            let session = context.user()?;
            let mechanism = Mechanism::usual(kind);
            let cipher = encrypted(scheme, &key, &to_encrypt(scheme, &key))?;
            one(session, Family::Decrypt, &mechanism, key.private, &cipher, false)
        });
    }
    Ok(())
}

fn recoveries(
    context: &mut Context,
    use_flag: CK_FLAGS,
    attempt: fn(Session, &Mechanism, &Key, &[u8]) -> Outcome,
) -> Outcome {
    for (kind, key) in pairs_for(context, use_flag)? {
        let Some(scheme) = scheme(kind) else { continue };
        context.each(format!("{}, {key}", names::mechanism(kind)), |context| {
            let session = context.user()?;
            let key = recovering(session, &key)?;
            attempt(session, &Mechanism::usual(kind), &key, &to_sign(scheme, &key))
        });
    }
    Ok(())
}

/// The key, or one like it that may be used with recovery: whoever makes a key asks for that.
fn recovering(session: Session, key: &Key) -> Outcome<Key> {
    if session.value(key.private, CKA_SIGN_RECOVER) == Ok(flag(true)) {
        return Ok(key.clone());
    }
    if key.origin != "session" {
        return skip("CKA_SIGN_RECOVER of the key is not CK_TRUE");
    }
    let (mechanism, mut public, mut private) = templates(key.kind, false, "pkcs11-conformance");
    public.push((CKA_VERIFY_RECOVER, flag(true)));
    private.push((CKA_SIGN_RECOVER, flag(true)));
    let made = session.generate_pair(&mechanism, &public, &private);
    let (public, private) = need(made, "C_GenerateKeyPair")?;
    let mut key = key.clone();
    (key.public, key.private) = (Some(public), private);
    Ok(key)
}

fn begin(
    session: Session,
    function: Function,
    mechanism: &Mechanism,
    key: CK_OBJECT_HANDLE,
) -> Outcome {
    let rv = mechanism.with(|raw| session.call(function, &[raw, key.into()]));
    need(check(rv), function.row().name)
}

/// A function that takes data and gives output.
fn take(session: Session, function: Function, data: &[u8], room: Room) -> Output {
    Output::of(room, |out, size| session.call(function, &[read(data), length(data), out, size]))
}

fn sign_recover(session: Session, mechanism: &Mechanism, key: &Key, data: &[u8]) -> Outcome {
    let call = |room| take(session, C_SignRecover, data, room);
    Protocol {
        begin: &|| begin(session, C_SignRecoverInit, mechanism, key.private),
        call: &call,
        then: &|_| ended(call(PLENTY).result(), "the output"),
        exact: true,
    }
    .holds()
}

fn verify_recover(session: Session, mechanism: &Mechanism, key: &Key, data: &[u8]) -> Outcome {
    let Some(public) = key.public else { return skip("the key has no public half") };
    begin(session, C_SignRecoverInit, mechanism, key.private)?;
    let signature = take(session, C_SignRecover, data, PLENTY).result();
    let signature = need(signature, "C_SignRecover")?;
    let call = |room| take(session, C_VerifyRecover, &signature, room);
    Protocol {
        begin: &|| begin(session, C_VerifyRecoverInit, mechanism, public),
        call: &call,
        then: &|told| {
            ensure(told == data, || "something else than was signed comes back".to_owned())?;
            ended(call(PLENTY).result(), "the output")
        },
        exact: false,
    }
    .holds()?;
    // What is wrong with a signature comes before a buffer that is too small (5.15).
    let mut faults = vec![("a shorter", signature[1..].to_vec(), CKR_SIGNATURE_LEN_RANGE)];
    if scheme(mechanism.kind) != Some(Scheme::Raw) {
        let mut changed = signature.clone();
        changed[signature.len() - 1] ^= 1;
        faults.push(("a changed", changed, CKR_SIGNATURE_INVALID));
    }
    for (what, signature, wanted) in faults {
        begin(session, C_VerifyRecoverInit, mechanism, public)?;
        let out = take(session, C_VerifyRecover, &signature, Room::Bytes(0));
        is(out.result(), wanted, &format!("{what} signature and no room"))?;
    }
    Ok(())
}

/// Goes on unless the module says that it has no such thing.
fn supported(output: &Output, refused: &[CK_RV], what: &str) -> Outcome {
    match refused.contains(&output.rv) {
        true => skip(format!("{what}: {}", names::rv(output.rv))),
        false => Ok(()),
    }
}

fn operation_state(context: &mut Context) -> Outcome {
    let session = context.session()?;
    let sha256 = Mechanism::plain(CKM_SHA256);
    need(session.init(Family::Digest, &sha256, 0), "C_DigestInit")?;
    need(session.update(Family::Digest, b"da"), "C_DigestUpdate")?;
    let ask = |room| Output::of(room, |out, size| session.call(C_GetOperationState, &[out, size]));
    let query = ask(Room::Query);
    supported(&query, &[CKR_FUNCTION_NOT_SUPPORTED, CKR_STATE_UNSAVEABLE], "C_GetOperationState")?;
    is(check(query.rv), CKR_OK, "NULL_PTR")?;
    for room in [0, query.length.saturating_sub(1)] {
        let short = ask(Room::Bytes(room));
        if query.length > room {
            is(check(short.rv), CKR_BUFFER_TOO_SMALL, &format!("{room} bytes"))?;
            ensure(!short.overrun, || format!("{room} bytes: written beyond the buffer"))?;
        }
    }
    let state = need(ask(Room::Bytes(query.length)).result(), "the length told")?;
    ensure(state.len() <= query.length, || format!("{} bytes of state", state.len()))?;
    need(session.update(Family::Digest, b"ta"), "C_DigestUpdate after it")?;
    let digest = need(session.last(Family::Digest), "C_DigestFinal after it")?;
    ensure(digest == HASHES[2].digest(b"data"), || "another digest".to_owned())
}

/// A mechanism of the family with a session key that fits the condition.
fn session_pair(
    context: &mut Context,
    family: Family,
    wanted: impl Fn(Scheme) -> bool,
) -> Outcome<Option<(CK_MECHANISM_TYPE, Key)>> {
    Ok(pairs(context, family)?
        .into_iter()
        .find(|(kind, key)| key.origin == "session" && scheme(*kind).is_some_and(&wanted)))
}

/// The functions of 5.17, the two families that each serves.
const DUAL: [(Function, Family, Family); 4] = [
    (C_DigestEncryptUpdate, Family::Encrypt, Family::Digest),
    (C_DecryptDigestUpdate, Family::Decrypt, Family::Digest),
    (C_SignEncryptUpdate, Family::Encrypt, Family::Sign),
    (C_DecryptVerifyUpdate, Family::Decrypt, Family::Verify),
];

fn dual(context: &mut Context) -> Outcome {
    let block = |scheme: Scheme| matches!(scheme, Scheme::Aes(Mode::Cbc | Mode::Ecb));
    for (function, family, other) in DUAL {
        let name = function.row().name;
        let Some((kind, key)) = session_pair(context, family, block)? else {
            context.each(name, |_| skip("neither CKM_AES_CBC nor CKM_AES_ECB is offered"));
            continue;
        };
        let signing = match other {
            Family::Digest => None,
            _ => session_pair(context, other, |scheme| scheme.hash().is_some())?,
        };
        context.each(name, |context| {
            let session = context.user()?;
            let data = [0x42; 32];
            let query = take(session, function, &data, Room::Query);
            supported(&query, &[CKR_FUNCTION_NOT_SUPPORTED], name)?;
            is(check(query.rv), CKR_OPERATION_NOT_INITIALIZED, "without operations")?;
            let cipher = Mechanism::usual(kind);
            let (mechanism, private, public) = match (&signing, other) {
                (_, Family::Digest) => (Mechanism::plain(CKM_SHA256), 0, 0),
                (Some((kind, key)), _) => {
                    (Mechanism::usual(*kind), key.private, key.public.unwrap_or(key.private))
                }
                _ => return skip("no mechanism hashes and signs with a session key"),
            };
            let own = if other == Family::Verify { public } else { private };
            // What the other operation gets: the plaintext.
            let plain = match family {
                Family::Encrypt => data.to_vec(),
                _ => need(session.run(family, &cipher, key.private, &data), "C_Decrypt")?,
            };
            let signature = match other {
                Family::Verify => {
                    need(session.run(Family::Sign, &mechanism, private, &plain), "C_Sign")?
                }
                _ => Vec::new(),
            };
            let begin = || {
                need(session.init(family, &cipher, key.private), "Init")?;
                need(session.init(other, &mechanism, own), "the other Init")
            };
            let then = |out: &[u8]| {
                ensure(out.len() == 32, || format!("{} bytes for 32", out.len()))?;
                ensure(family == Family::Encrypt || out == plain, || "other bytes".to_owned())?;
                need(session.last(family), "Final")?;
                if other == Family::Verify {
                    return need(session.verify_last(&signature), "C_VerifyFinal");
                }
                let told = need(session.last(other), "the other Final")?;
                match other {
                    Family::Sign => {
                        need(session.verify(&mechanism, public, &plain, &told), "C_Verify")
                    }
                    _ => ensure(told == HASHES[2].digest(&plain), || "another digest".to_owned()),
                }
            };
            let call = |room| take(session, function, &data, room);
            Protocol { begin: &begin, call: &call, then: &then, exact: true }.holds()
        });
    }
    Ok(())
}

fn null_length(context: &mut Context) -> Outcome {
    for family in [Family::Digest, Family::Sign, Family::Encrypt, Family::Decrypt] {
        let [_, one_shot, _, last] = family.functions();
        let digest = || (family == Family::Digest).then_some((CKM_SHA256, None));
        let found = match digest() {
            Some(found) => {
                context.offered(CKF_DIGEST)?.iter().any(|(k, _)| *k == CKM_SHA256).then_some(found)
            }
            None => session_pair(context, family, Scheme::is_multi_part)?
                .map(|(kind, key)| (kind, Some(key))),
        };
        for function in [one_shot, last] {
            context.each(function.row().name, |context| {
                let session = context.user()?;
                let Some((kind, key)) = &found else { return skip("no mechanism for this") };
                let key = match (key, family) {
                    (None, _) => CK_INVALID_HANDLE,
                    (Some(key), Family::Encrypt) => key.public.unwrap_or(key.private),
                    (Some(key), _) => key.private,
                };
                need(session.init(family, &Mechanism::usual(*kind), key), "Init")?;
                let data = [0x42; 32];
                let rv = match function == last {
                    true => session.call(function, &[NULL, NULL]),
                    false => session.call(function, &[read(&data), length(&data), NULL, NULL]),
                };
                is(check(rv), CKR_ARGUMENTS_BAD, function.row().name)?;
                // Each call but a query and one in too small a buffer ends the operation.
                ended(session.last(family), "CKR_ARGUMENTS_BAD")
            });
        }
    }
    Ok(())
}
