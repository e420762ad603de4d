//! Output buffers: one protocol for every function that returns output of variable length.

use cryptoki_sys::*;

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
            title: "C_DigestEncryptUpdate and C_DecryptDigestUpdate: a query and a short buffer take \
                    nothing, and both operations get the data once.",
            run: dual,
        },
        Case {
            id: "null-length",
            clause: "5.2",
            title: "Without a place for the length: CKR_ARGUMENTS_BAD.",
            run: null_length,
        },
    ],
};

/// One function, tried: how an operation begins, and the call that ends it.
struct Subject<'a> {
    begin: &'a dyn Fn() -> Outcome,
    call: &'a dyn Fn(Room) -> Output,
    /// Whether a buffer of the exact length must do: not for decryption, whose length may be
    /// unknown before its end.
    exact: bool,
}

impl Subject<'_> {
    /// The operation is still there, and gives its output.
    fn goes_on(&self, after: &str) -> Outcome<Vec<u8>> {
        need((self.call)(PLENTY).result(), &format!("the call after {after}"))
    }

    fn ended(&self, after: &str) -> Outcome {
        let output = (self.call)(PLENTY);
        is(output.result(), CKR_OPERATION_NOT_INITIALIZED, &format!("the call after {after}"))
    }

    fn holds(&self) -> Outcome {
        (self.begin)()?;
        let size = self.goes_on("Init")?.len();
        self.ended("the output")?;

        (self.begin)()?;
        for _ in 0..2 {
            let query = (self.call)(Room::Query);
            is(check(query.rv), CKR_OK, "NULL_PTR")?;
            ensure(query.length >= size, || {
                format!("NULL_PTR: told {}, {size} are needed", query.length)
            })?;
            ensure(query.length <= 2 * size + 1024, || {
                format!("NULL_PTR: told {}, {size} are needed", query.length)
            })?;
        }
        self.goes_on("NULL_PTR")?;
        self.ended("the output")?;

        let mut short = vec![0, 1, size / 2, size.saturating_sub(1)];
        short.retain(|room| *room < size);
        short.dedup();
        for room in short {
            (self.begin)()?;
            let output = (self.call)(Room::Bytes(room));
            let what = format!("{room} of {size} bytes");
            is(check(output.rv), CKR_BUFFER_TOO_SMALL, &what)?;
            ensure(!output.overrun, || format!("{what}: written beyond the buffer"))?;
            ensure(output.length >= size, || format!("{what}: told {}", output.length))?;
            let told = output.length;
            let output = (self.call)(Room::Bytes(told));
            need(output.result(), &format!("the length told after {what}"))?;
            self.ended("the output")?;
        }

        (self.begin)()?;
        let enough = if self.exact { size } else { (self.call)(Room::Query).length };
        self.goes_on("NULL_PTR")?;
        for room in [enough, enough + 1, enough + 500] {
            (self.begin)()?;
            let output = (self.call)(Room::Bytes(room));
            let what = format!("{room} bytes for {size}");
            is(check(output.rv), CKR_OK, &what)?;
            ensure(!output.overrun, || format!("{what}: written beyond the buffer"))?;
            ensure(output.length == size, || format!("{what}: told {}", output.length))?;
            self.ended("the output")?;
        }
        Ok(())
    }
}

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
    Subject { begin: &begin, call: &call, exact: family != Family::Decrypt }.holds()
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
    Subject {
        begin: &|| begin(session, C_SignRecoverInit, mechanism, key.private),
        call: &|room| take(session, C_SignRecover, data, room),
        exact: true,
    }
    .holds()
}

fn verify_recover(session: Session, mechanism: &Mechanism, key: &Key, data: &[u8]) -> Outcome {
    let Some(public) = key.public else { return skip("the key has no public half") };
    begin(session, C_SignRecoverInit, mechanism, key.private)?;
    let signature = take(session, C_SignRecover, data, PLENTY).result();
    let signature = need(signature, "C_SignRecover")?;
    begin(session, C_VerifyRecoverInit, mechanism, public)?;
    let told =
        need(take(session, C_VerifyRecover, &signature, PLENTY).result(), "C_VerifyRecover")?;
    ensure(told == data, || "something else than was signed comes back".to_owned())?;
    Subject {
        begin: &|| begin(session, C_VerifyRecoverInit, mechanism, public),
        call: &|room| take(session, C_VerifyRecover, &signature, room),
        exact: false,
    }
    .holds()
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

fn dual(context: &mut Context) -> Outcome {
    let block = |scheme: Scheme| matches!(scheme, Scheme::Aes(Mode::Cbc | Mode::Ecb));
    let both = [(C_DigestEncryptUpdate, Family::Encrypt), (C_DecryptDigestUpdate, Family::Decrypt)];
    for (function, family) in both {
        let pair = pairs(context, family)?;
        let Some((kind, key)) = pair.into_iter().find(|(kind, _)| scheme(*kind).is_some_and(block))
        else {
            return skip("neither CKM_AES_CBC nor CKM_AES_ECB is offered");
        };
        context.each(function.row().name, |context| {
            let session = context.user()?;
            let data = [0x42; 32];
            let query = take(session, function, &data, Room::Query);
            supported(&query, &[CKR_FUNCTION_NOT_SUPPORTED], function.row().name)?;
            is(check(query.rv), CKR_OPERATION_NOT_INITIALIZED, "without operations")?;
            need(session.init(family, &Mechanism::usual(kind), key.private), "Init")?;
            need(session.init(Family::Digest, &Mechanism::plain(CKM_SHA256), 0), "C_DigestInit")?;
            let query = take(session, function, &data, Room::Query);
            is(check(query.rv), CKR_OK, "NULL_PTR")?;
            let short = take(session, function, &data, Room::Bytes(31));
            is(check(short.rv), CKR_BUFFER_TOO_SMALL, "31 of 32 bytes")?;
            ensure(!short.overrun, || "written beyond the buffer".to_owned())?;
            let out = need(take(session, function, &data, PLENTY).result(), "the output")?;
            ensure(out.len() == 32, || format!("{} bytes for 32", out.len()))?;
            let digested = if family == Family::Encrypt { data.to_vec() } else { out };
            need(session.last(family), "Final")?;
            let digest = need(session.last(Family::Digest), "C_DigestFinal")?;
            ensure(digest == HASHES[2].digest(&digested), || "another digest".to_owned())
        });
    }
    Ok(())
}

fn null_length(context: &mut Context) -> Outcome {
    let session = context.session()?;
    let offered = context.offered(CKF_DIGEST)?;
    if !offered.iter().any(|(kind, _)| *kind == CKM_SHA256) {
        return skip("CKM_SHA256 is not offered");
    }
    for function in [C_Digest, C_DigestFinal] {
        context.each(function.row().name, |_| {
            need(session.init_null(Family::Digest).or(Ok(())), "cancel")?;
            let begun = session.init(Family::Digest, &Mechanism::plain(CKM_SHA256), 0);
            if !matches!(begun, Ok(()) | Err(CKR_OPERATION_ACTIVE)) {
                need(begun, "C_DigestInit")?;
            }
            let rv = match function {
                C_Digest => session.call(function, &[NULL, 0.into(), NULL, NULL]),
                _ => session.call(function, &[NULL, NULL]),
            };
            is(check(rv), CKR_ARGUMENTS_BAD, function.row().name)
        });
    }
    Ok(())
}
