//! Digests and MACs, against OpenSSL.

use cryptoki_sys::*;

use crate::{
    case::{Case, Group, Outcome, Stop, ensure, skip},
    client::{Family, Session, flag, number},
    context::{Context, is, need},
    mechanism::{Mechanism, Scheme, clause, scheme},
    names, oracle,
};

/// The group.
pub const GROUP: Group = Group {
    name: "digests",
    title: "digests and MACs, checked by OpenSSL",
    patience: 60,
    cases: &[
        Case {
            id: "digests",
            clause: "6.20 to 6.31",
            title: "Messages around each block's end have the digest that OpenSSL says.",
            run: digests,
        },
        Case {
            id: "parts",
            clause: "5.12 C_DigestUpdate",
            title: "A message in parts, empty ones too, has the same digest.",
            run: parts,
        },
        Case {
            id: "hmac",
            clause: "6.20.4 to 6.31.4",
            title: "HMACs with an imported key are those that OpenSSL says.",
            run: hmacs,
        },
        Case {
            id: "hmac-general",
            clause: "6.20.3 to 6.31.3",
            title: "A general-length HMAC is the beginning of the HMAC; one longer than the hash is \
                    CKR_MECHANISM_PARAM_INVALID.",
            run: general_hmacs,
        },
    ],
};

fn digests(context: &mut Context) -> Outcome {
    for (kind, _) in context.offered(CKF_DIGEST)? {
        let Some(Scheme::Digest(hash)) = scheme(kind) else { continue };
        context.each_of(clause(kind), names::mechanism(kind), |context| {
            let session = context.session()?;
            let block = hash.block;
            let around = [block - 18, block - 17, block - 16, block - 9, block - 8, block - 1];
            let sizes = around.into_iter().chain([0, 1, block, block + 1, 2 * block, 10_000]);
            for size in sizes {
                let message: Vec<u8> = (0..size).map(|n| n as u8).collect();
                let told = session.run(Family::Digest, &Mechanism::plain(kind), 0, &message);
                let told = need(told, &format!("C_Digest of {size} bytes"))?;
                ensure(told == hash.digest(&message), || format!("wrong for {size} bytes"))?;
            }
            Ok(())
        });
    }
    Ok(())
}

fn parts(context: &mut Context) -> Outcome {
    let message: Vec<u8> = (0..1000_u32).map(|n| (n * 7) as u8).collect();
    for (kind, _) in context.offered(CKF_DIGEST)? {
        let Some(Scheme::Digest(hash)) = scheme(kind) else { continue };
        context.each(names::mechanism(kind), |context| {
            let session = context.session()?;
            for size in [1, 63, 64, 65, 128, 999] {
                need(session.init(Family::Digest, &Mechanism::plain(kind), 0), "C_DigestInit")?;
                for part in message.chunks(size) {
                    need(session.update(Family::Digest, part), "C_DigestUpdate")?;
                    need(session.update(Family::Digest, &[]), "C_DigestUpdate of nothing")?;
                }
                let told = need(session.last(Family::Digest), "C_DigestFinal")?;
                ensure(told == hash.digest(&message), || format!("wrong for parts of {size}"))?;
            }
            Ok(())
        });
    }
    Ok(())
}

/// A secret key of the session with this value, that signs and verifies.
fn signing_secret(session: Session, value: &[u8]) -> Outcome<CK_OBJECT_HANDLE> {
    let template = vec![
        (CKA_CLASS, number(CKO_SECRET_KEY)),
        (CKA_KEY_TYPE, number(CKK_GENERIC_SECRET)),
        (CKA_TOKEN, flag(false)),
        (CKA_SIGN, flag(true)),
        (CKA_VERIFY, flag(true)),
        (CKA_VALUE, value.to_vec()),
    ];
    session.create(&template).or_else(|_| skip("no secret key can be imported"))
}

fn general_hmacs(context: &mut Context) -> Outcome {
    let mut tried = false;
    for (kind, _) in context.offered(CKF_SIGN)? {
        let Some(Scheme::GeneralHmac(hash)) = scheme(kind) else { continue };
        tried = true;
        context.each_of(clause(kind), names::mechanism(kind), |context| {
            let session = context.user()?;
            let value: Vec<u8> = (0..hash.block).map(|n| (n + 1) as u8).collect();
            let key = signing_secret(session, &value)?;
            let whole = oracle::hmac(hash, &value, b"data")
                .map_err(|error| Stop::Fail(error.to_string()))?;
            let of = |length: usize| Mechanism::bytes(kind, &number(length as CK_ULONG));
            for length in [1, hash.size / 2, hash.size] {
                let told = session.run(Family::Sign, &of(length), key, b"data");
                let told = need(told, &format!("C_Sign of {length} bytes"))?;
                ensure(told == whole[..length], || format!("wrong with {length} bytes"))?;
                need(session.verify(&of(length), key, b"data", &told), "C_Verify")?;
                let other = session.verify(&of(length), key, b"Data", &told);
                // One byte is right by chance now and then.
                ensure(length == 1 || other.is_err(), || format!("{length} bytes fit other data"))?;
            }
            let refused = session.init(Family::Sign, &of(hash.size + 1), key);
            is(refused, CKR_MECHANISM_PARAM_INVALID, "longer than the hash")
        });
    }
    if tried { Ok(()) } else { skip("no general-length HMAC is offered") }
}

fn hmacs(context: &mut Context) -> Outcome {
    let offered = context.offered(CKF_SIGN)?;
    let mut tried = false;
    for (kind, _) in offered {
        let Some(Scheme::Hmac(hash)) = scheme(kind) else { continue };
        tried = true;
        context.each_of(clause(kind), names::mechanism(kind), |context| {
            let session = context.user()?;
            for size in [hash.size, hash.block, hash.block + 1] {
                let value: Vec<u8> = (0..size).map(|n| (n + 1) as u8).collect();
                let key = signing_secret(session, &value)?;
                for message in [&b""[..], b"data", &[7; 300]] {
                    let mechanism = Mechanism::plain(kind);
                    let told = session.run(Family::Sign, &mechanism, key, message);
                    let told = need(told, &format!("C_Sign with {size} bytes of key"))?;
                    let wanted = oracle::hmac(hash, &value, message)
                        .map_err(|error| Stop::Fail(error.to_string()))?;
                    ensure(told == wanted, || format!("wrong with {size} bytes of key"))?;
                    need(session.verify(&mechanism, key, message, &told), "C_Verify")?;
                }
            }
            Ok(())
        });
    }
    if tried { Ok(()) } else { skip("no HMAC is offered") }
}
