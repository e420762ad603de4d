//! What the mechanism list promises, against what works.

use cryptoki_sys::*;

use crate::{
    case::{Case, Group, Outcome, ensure, fail, skip},
    client::{Family, Session, flag, number},
    context::{Context, is, need, one_of},
    keys::{Key, Kind, known, templates},
    mechanism::{KNOWN, Mechanism, Scheme, scheme},
    names,
    oracle::CURVES,
    samples::{encrypted, fits, to_encrypt, to_sign},
};

/// The group.
pub const GROUP: Group = Group {
    name: "mechanisms",
    title: "what is advertised, against what works",
    patience: 180,
    cases: &[
        Case {
            id: "works",
            clause: "5.5 C_GetMechanismInfo",
            title: "Each use that a mechanism's flags advertise works with each kind of key.",
            run: works,
        },
        Case {
            id: "not-advertised",
            clause: "5.5 C_GetMechanismInfo",
            title: "A use that a listed mechanism's flags lack is refused: CKR_MECHANISM_INVALID, \
                    or the key is not for it.",
            run: not_advertised,
        },
        Case {
            id: "unlisted",
            clause: "5.5 C_GetMechanismList",
            title: "A mechanism that is not listed does not work.",
            run: unlisted,
        },
        Case {
            id: "generates",
            clause: "5.18 C_GenerateKeyPair",
            title: "Key pairs are made within the advertised sizes, and say what they are.",
            run: generates,
        },
        Case {
            id: "sizes",
            clause: "5.18 C_GenerateKeyPair",
            title: "Key pairs beyond the advertised sizes are refused, and none is made.",
            run: sizes,
        },
        Case {
            id: "curves",
            clause: "6.3",
            title: "EC mechanisms say which curves they take: fields, parameters, points, sizes.",
            run: curves,
        },
        Case {
            id: "secret-keys",
            clause: "5.18 C_GenerateKey",
            title: "Secret keys are made within the advertised sizes.",
            run: secret_keys,
        },
    ],
};

fn works(context: &mut Context) -> Outcome {
    let keys = context.keys()?;
    for family in Family::ALL {
        for (kind, info) in context.offered(family.flag())? {
            let name = names::mechanism(kind);
            let Some(scheme) = scheme(kind) else {
                context.each(format!("{name}, {family:?}"), |_| skip("not known to this program"));
                continue;
            };
            if family == Family::Digest {
                context.each(format!("{name}, {family:?}"), |context| {
                    let session = context.session()?;
                    let rv = session.run(family, &Mechanism::plain(kind), 0, b"data");
                    need(rv, "the operation").map(|_| ())
                });
                continue;
            }
            let fitting = |key: &&Key| fits(kind, key, &info);
            for key in keys.iter().filter(fitting) {
                let Some(public) = key.public else { continue };
                context.each(format!("{name}, {family:?}, {key}"), |context| {
                    let session = context.user()?;
                    let mechanism = Mechanism::usual(kind);
                    let own = match family {
                        Family::Sign | Family::Decrypt => key.private,
                        _ => public,
                    };
                    need(session.init(family, &mechanism, own), "Init")?;
                    end(session, family);
                    match family {
                        Family::Sign => {
                            let data = to_sign(scheme, key);
                            need(session.run(family, &mechanism, key.private, &data), "C_Sign")?;
                        }
                        Family::Verify => {
                            let data = to_sign(scheme, key);
                            let signed = session.run(Family::Sign, &mechanism, key.private, &data);
                            match signed {
                                Ok(signature) => {
                                    let rv = session.verify(&mechanism, public, &data, &signature);
                                    need(rv, "C_Verify")?;
                                }
                                Err(_) => {
                                    need(session.init(family, &mechanism, public), "C_VerifyInit")?
                                }
                            }
                        }
                        Family::Encrypt => {
                            let data = to_encrypt(scheme, key);
                            need(session.run(family, &mechanism, public, &data), "C_Encrypt")?;
                        }
                        _ => {
                            let data = to_encrypt(scheme, key);
                            let cipher = match encrypted(scheme, key, &data) {
                                Ok(cipher) => cipher,
                                // A secret key of the token, whose value is not known.
                                Err(_) => {
                                    let mine =
                                        session.run(Family::Encrypt, &mechanism, public, &data);
                                    mine.or_else(|_| skip("nothing encrypts for this key"))?
                                }
                            };
                            let back = session.run(family, &mechanism, key.private, &cipher);
                            let back = need(back, "C_Decrypt")?;
                            ensure(back == data, || "another plaintext comes back".to_owned())?;
                        }
                    }
                    Ok(())
                });
            }
        }
    }
    Ok(())
}

/// Ends an operation that has only begun, in a module of any version.
fn end(session: Session, family: Family) {
    // What it says does not matter: an error ends the operation, too.
    let _ = match family {
        Family::Verify => session.verify_data(&[], &[]).map(|()| Vec::new()),
        family => session.one_shot(family, &[]),
    };
}

fn not_advertised(context: &mut Context) -> Outcome {
    let keys = context.keys()?;
    let listed = context.mechanisms()?;
    for kind in listed {
        if scheme(kind).is_none() {
            continue;
        }
        let info = need(context.mechanism_info(kind)?, "C_GetMechanismInfo")?;
        let sizes = CK_MECHANISM_INFO { ulMaxKeySize: 0, ..info };
        // A digest, or a mechanism for keys that are not there, refuses any key.
        let fitting = keys.iter().find(|key| fits(kind, key, &sizes));
        let mut refused =
            vec![CKR_MECHANISM_INVALID, CKR_FUNCTION_NOT_SUPPORTED, CKR_KEY_FUNCTION_NOT_PERMITTED];
        if fitting.is_none() {
            refused.push(CKR_KEY_TYPE_INCONSISTENT);
        }
        let key = fitting.or(keys.first());
        let Some(key) = key else { return skip("there is no key") };
        for family in Family::ALL {
            if info.flags & family.flag() != 0 {
                continue;
            }
            context.each(format!("{}, {family:?}", names::mechanism(kind)), |context| {
                let session = context.user()?;
                let own = match family {
                    Family::Sign | Family::Decrypt => Some(key.private),
                    _ => key.public,
                };
                let Some(own) = own else { return skip("no public key") };
                let rv = session.init(family, &Mechanism::usual(kind), own);
                one_of(rv, &refused, "Init")
            });
        }
    }
    Ok(())
}

fn unlisted(context: &mut Context) -> Outcome {
    let keys = context.keys()?;
    let listed = context.mechanisms()?;
    for (kind, name, _, scheme) in KNOWN {
        if listed.contains(kind) {
            continue;
        }
        let key = keys.iter().find(|key| fits(*kind, key, &CK_MECHANISM_INFO::default()));
        context.each(name, |context| {
            let session = context.user()?;
            let (family, handle) = match (scheme, key) {
                (Scheme::Digest(_), _) => (Family::Digest, CK_INVALID_HANDLE),
                (Scheme::Oaep | Scheme::Aes(_), Some(key)) => (Family::Decrypt, key.private),
                (_, Some(key)) => (Family::Sign, key.private),
                (_, None) => return skip("no key of that type"),
            };
            let rv = session.init(family, &Mechanism::usual(*kind), handle);
            is(rv, CKR_MECHANISM_INVALID, "Init")
        });
    }
    Ok(())
}

/// What is made of RSA; more would take minutes.
const RSA_BITS: [CK_ULONG; 4] = [1024, 2048, 3072, 4096];

fn generates(context: &mut Context) -> Outcome {
    let session = context.user()?;
    for (kind, info) in context.offered(CKF_GENERATE_KEY_PAIR)? {
        let kinds: Vec<Kind> = match scheme(kind) {
            Some(Scheme::RsaPair) => RSA_BITS
                .iter()
                .filter(|bits| (info.ulMinKeySize..=info.ulMaxKeySize).contains(*bits))
                .map(|bits| Kind::Rsa(*bits as usize))
                .collect(),
            Some(Scheme::EcPair) => CURVES.iter().map(Kind::Ec).collect(),
            _ => {
                context.each(names::mechanism(kind), |_| skip("not known to this program"));
                continue;
            }
        };
        for wanted in kinds {
            context.each(format!("{}, {wanted}", names::mechanism(kind)), |_| {
                let (mechanism, public, private) = templates(wanted, false, "pkcs11-conformance");
                let pair = session.generate_pair(&mechanism, &public, &private);
                if matches!(wanted, Kind::Ec(_)) && pair == Err(CKR_CURVE_NOT_SUPPORTED) {
                    return skip("CKR_CURVE_NOT_SUPPORTED");
                }
                let (public, private) = need(pair, "C_GenerateKeyPair")?;
                let key = known("session", session, Some(public), private)?;
                ensure(key.kind == wanted, || format!("the pair is {}", key.kind))?;
                let local = session.value(private, CKA_LOCAL);
                ensure(local == Ok(flag(true)), || format!("CKA_LOCAL: {local:?}"))?;
                let by = session.ulong(private, CKA_KEY_GEN_MECHANISM);
                ensure(by == Ok(kind), || format!("CKA_KEY_GEN_MECHANISM: {by:?}"))
            });
        }
    }
    Ok(())
}

fn sizes(context: &mut Context) -> Outcome {
    let session = context.user()?;
    let offered = context.offered(CKF_GENERATE_KEY_PAIR)?;
    let Some((_, info)) = offered.iter().find(|(kind, _)| *kind == CKM_RSA_PKCS_KEY_PAIR_GEN)
    else {
        return skip("CKM_RSA_PKCS_KEY_PAIR_GEN is not offered");
    };
    let refused = [CKR_KEY_SIZE_RANGE, CKR_ATTRIBUTE_VALUE_INVALID, CKR_TEMPLATE_INCONSISTENT];
    // Nothing is longer than the greatest number, where a module tells that.
    let longer = info.ulMaxKeySize.checked_add(64);
    for bits in [Some(info.ulMinKeySize / 2), longer].into_iter().flatten() {
        context.each(format!("RSA {bits}"), |_| {
            let (mechanism, public, private) =
                templates(Kind::Rsa(bits as usize), false, "pkcs11-conformance, refused");
            let rv = session.generate_pair(&mechanism, &public, &private);
            one_of(rv, &refused, "C_GenerateKeyPair")?;
            let label = vec![(CKA_LABEL, b"pkcs11-conformance, refused".to_vec())];
            let left = need(session.find(&label), "C_FindObjects")?;
            ensure(left.is_empty(), || "an object was made all the same".to_owned())
        });
    }
    Ok(())
}

fn secret_keys(context: &mut Context) -> Outcome {
    let session = context.user()?;
    for (kind, info) in context.offered(CKF_GENERATE)? {
        let name = names::mechanism(kind);
        let (uses, sizes) = match kind {
            CKM_AES_KEY_GEN => (CKA_ENCRYPT, [16, 24, 32]),
            CKM_GENERIC_SECRET_KEY_GEN => (CKA_SIGN, [20, 32, 64]),
            _ => {
                context.each(name, |_| skip("not known to this program"));
                continue;
            }
        };
        // Some give the sizes of generic secrets in bits (6.8.3).
        let unit = if kind == CKM_AES_KEY_GEN || info.ulMaxKeySize < 512 { 1 } else { 8 };
        let range = info.ulMinKeySize..=info.ulMaxKeySize;
        for bytes in sizes.into_iter().filter(|bytes| range.contains(&(bytes * unit))) {
            context.each(format!("{name}, {} bits", 8 * bytes), |_| {
                let template = vec![
                    (CKA_TOKEN, flag(false)),
                    (CKA_VALUE_LEN, number(bytes)),
                    (uses, flag(true)),
                    (CKA_SENSITIVE, flag(true)),
                ];
                let key = session.generate(&Mechanism::plain(kind), &template);
                let key = need(key, "C_GenerateKey")?;
                let told = need(session.ulong(key, CKA_VALUE_LEN), "CKA_VALUE_LEN")?;
                ensure(told == bytes, || format!("CKA_VALUE_LEN is {told}"))?;
                let by = session.ulong(key, CKA_KEY_GEN_MECHANISM);
                ensure(by == Ok(kind), || format!("CKA_KEY_GEN_MECHANISM: {by:x?}"))?;
                match session.value(key, CKA_VALUE) {
                    Err(CKR_ATTRIBUTE_SENSITIVE) => Ok(()),
                    _ => fail("CKA_VALUE of a sensitive key can be read"),
                }
            });
        }
    }
    Ok(())
}

/// The flags of which an EC mechanism sets one at least (6.3).
const FIELDS: CK_FLAGS = CKF_EC_F_P | CKF_EC_F_2M;
const PARAMETERS: CK_FLAGS = CKF_EC_ECPARAMETERS | CKF_EC_OID | CKF_EC_CURVENAME;
const POINTS: CK_FLAGS = CKF_EC_UNCOMPRESS | CKF_EC_COMPRESS;

fn curves(context: &mut Context) -> Outcome {
    let keys = context.keys()?;
    let mut tried = false;
    for kind in context.mechanisms()? {
        let of = scheme(kind);
        if of != Some(Scheme::EcPair) && !of.is_some_and(Scheme::is_ec) && kind != CKM_ECDH1_DERIVE
        {
            continue;
        }
        tried = true;
        let info = need(context.mechanism_info(kind)?, "C_GetMechanismInfo")?;
        context.each(names::mechanism(kind), |_| {
            for (what, flags) in [("field", FIELDS), ("domain", PARAMETERS), ("point", POINTS)] {
                ensure(info.flags & flags != 0, || {
                    format!("no flag of the {what}'s forms is set")
                })?;
            }
            for key in keys.iter() {
                let Kind::Ec(curve) = key.kind else { continue };
                let range = info.ulMinKeySize..=info.ulMaxKeySize;
                ensure(range.contains(&(curve.bits as CK_ULONG)), || {
                    format!("{} is not within {range:?} bits", curve.name)
                })?;
            }
            Ok(())
        });
    }
    if tried { Ok(()) } else { skip("no EC mechanism is listed") }
}
