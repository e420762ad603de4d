//! Output buffers: one protocol for every function that returns output of variable length.

use cryptoki_sys::*;

use crate::{
    case::{Case, Group, Outcome, ensure, skip},
    client::{Family, Output, PLENTY, Room, Session, check},
    context::{Context, is, need},
    ffi::NULL,
    functions::Function::*,
    mechanism::{Mechanism, Scheme, scheme},
    names,
    samples::{encrypted, pairs, to_encrypt, to_sign},
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
