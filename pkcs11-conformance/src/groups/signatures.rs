//! Signatures, each checked by OpenSSL, and OpenSSL's, checked by the module.

use std::collections::BTreeSet;

use cryptoki_sys::*;
use openssl::{
    pkey::{PKey, Private},
    rsa::Rsa,
};

use crate::{
    case::{Case, Group, Outcome, ensure, fail, skip},
    client::{Family, Session, check, flag, number},
    context::{Context, need, one_of},
    ffi::{length, read},
    functions::Function::*,
    keys::{Key, Kind},
    mechanism::{HASHES, Hash, Mechanism, Scheme, scheme},
    names,
    oracle::{self, CURVES, Curve},
    samples::{broken, fits, pairs, to_sign},
};

/// The group.
pub const GROUP: Group = Group {
    name: "signatures",
    title: "signatures, checked by OpenSSL",
    patience: 180,
    cases: &[
        Case {
            id: "hashing",
            clause: "6.1.14, 6.1.15, 6.3.13",
            title: "A mechanism that hashes signs messages of any length, whole and in parts.",
            run: hashing,
        },
        Case {
            id: "digest-info",
            clause: "6.1.6",
            title: "CKM_RSA_PKCS signs any bytes: each hash's DigestInfo, and no DigestInfo.",
            run: digest_info,
        },
        Case {
            id: "pss",
            clause: "6.1.10",
            title: "Each hash, MGF and salt is signed as asked for, or refused at Init.",
            run: pss,
        },
        Case {
            id: "pss-digest-length",
            clause: "6.1.10",
            title: "A digest of another length than its hash's is refused.",
            run: pss_digest_length,
        },
        Case {
            id: "ecdsa-lengths",
            clause: "6.3.12",
            title: "Digests of 1 to 128 bytes are signed as FIPS 186 says: their leftmost bits.",
            run: ecdsa_lengths,
        },
        Case {
            id: "verifies-rsa",
            clause: "5.15 C_Verify",
            title: "OpenSSL's RSA signatures are valid to the module, changed ones are not.",
            run: verifies_rsa,
        },
        Case {
            id: "verifies-ecdsa",
            clause: "5.15 C_Verify",
            title: "OpenSSL's ECDSA signatures are valid to the module; r or s of 0, of the \
                    order, or swapped are not.",
            run: verifies_ecdsa,
        },
        Case {
            id: "signature-first",
            clause: "5.15 C_VerifySignatureInit",
            title: "With the signature given first, data whole and in parts is verified, and each \
                    answer ends the operation.",
            run: signature_first,
        },
    ],
};

/// Whether OpenSSL accepts a signature of a message, by what the mechanism says it is.
fn accepted(key: &Key, scheme: Scheme, hash: &Hash, message: &[u8], sig: &[u8]) -> Outcome {
    let digest = hash.digest(message);
    let right = match scheme {
        Scheme::Pkcs1(_) => {
            oracle::pkcs1_recover(key.oracle()?, sig).map(|told| told == hash.digest_info(&digest))
        }
        Scheme::Pss(_) => oracle::pss_verify(key.oracle()?, hash, hash, hash.size, &digest, sig),
        _ => oracle::ecdsa_verify(key.oracle()?, &digest, sig),
    };
    match right {
        Ok(true) => Ok(()),
        Ok(false) => fail(format!("OpenSSL refuses the signature of {} bytes", message.len())),
        Err(error) => Err(broken(error)),
    }
}

fn hashing(context: &mut Context) -> Outcome {
    let keys = context.keys()?;
    for (kind, info) in context.offered(CKF_SIGN)? {
        let Some(scheme) = scheme(kind) else { continue };
        let (Some(hash), true) = (scheme.hash(), scheme.is_rsa() || scheme.is_ec()) else {
            continue;
        };
        for key in keys.iter().filter(|key| fits(kind, key, &info)) {
            context.each(format!("{}, {key}", names::mechanism(kind)), |context| {
                let session = context.user()?;
                let mechanism = Mechanism::usual(kind);
                for size in [0, 1, 63, 1000] {
                    let message = vec![0x61; size];
                    let sig = session.run(Family::Sign, &mechanism, key.private, &message);
                    let sig = need(sig, &format!("C_Sign of {size} bytes"))?;
                    ensure(sig.len() == key.kind.signature(), || format!("{} bytes", sig.len()))?;
                    accepted(key, scheme, hash, &message, &sig)?;
                }
                let message = vec![0x62; 500];
                need(session.init(Family::Sign, &mechanism, key.private), "C_SignInit")?;
                for part in message.chunks(77) {
                    need(session.update(Family::Sign, part), "C_SignUpdate")?;
                }
                let sig = need(session.last(Family::Sign), "C_SignFinal")?;
                accepted(key, scheme, hash, &message, &sig)
            });
        }
    }
    Ok(())
}

/// RSA keys that a mechanism signs with.
fn rsa_keys(context: &mut Context, kind: CK_MECHANISM_TYPE) -> Outcome<Vec<Key>> {
    let offered = context.offered(CKF_SIGN)?;
    if !offered.iter().any(|(one, _)| *one == kind) {
        return skip(format!("{} does not sign", names::mechanism(kind)));
    }
    let keys = context.keys()?;
    Ok(keys.into_iter().filter(|key| matches!(key.kind, Kind::Rsa(_))).collect())
}

fn digest_info(context: &mut Context) -> Outcome {
    for key in rsa_keys(context, CKM_RSA_PKCS)? {
        let mut inputs: Vec<(String, Vec<u8>)> = HASHES
            .iter()
            .map(|hash| (hash.name.to_owned(), hash.digest_info(&hash.digest(b"data"))))
            .collect();
        // TLS before 1.2: MD5 and SHA-1, bare.
        inputs.push(("bare 36 bytes".to_owned(), vec![0x5a; 36]));
        inputs.push(("1 byte".to_owned(), vec![7]));
        inputs.push(("the most".to_owned(), vec![9; key.kind.signature() - 11]));
        let sha256 = &HASHES[2];
        let mut absent = sha256.digest_info(&sha256.digest(b"data"));
        // Without the NULL of its algorithm's parameters.
        absent.drain(15..17);
        absent[1] -= 2;
        absent[3] -= 2;
        inputs.push(("SHA-256 without NULL".to_owned(), absent));
        for (name, data) in inputs {
            context.each(format!("{name}, {key}"), |context| {
                let session = context.user()?;
                let mechanism = Mechanism::plain(CKM_RSA_PKCS);
                let sig = session.run(Family::Sign, &mechanism, key.private, &data);
                let sig = need(sig, "C_Sign")?;
                let told = oracle::pkcs1_recover(key.oracle()?, &sig).map_err(broken)?;
                ensure(told == data, || "the signature holds something else".to_owned())
            });
        }
    }
    Ok(())
}

fn pss(context: &mut Context) -> Outcome {
    for key in rsa_keys(context, CKM_RSA_PKCS_PSS)? {
        for hash in &HASHES[..5] {
            for mgf in &HASHES[..5] {
                for salt in BTreeSet::from([0, 20, 64, hash.size]) {
                    let name = format!("{}, MGF1 {}, salt {salt}, {key}", hash.name, mgf.name);
                    context.each(name, |context| {
                        let session = context.user()?;
                        let mechanism = Mechanism::pss(CKM_RSA_PKCS_PSS, hash, mgf, salt);
                        match session.init(Family::Sign, &mechanism, key.private) {
                            Err(CKR_MECHANISM_PARAM_INVALID) => return skip("refused at Init"),
                            rv => need(rv, "C_SignInit")?,
                        }
                        let digest = hash.digest(b"data");
                        let sig = need(session.one_shot(Family::Sign, &digest), "C_Sign")?;
                        let right =
                            oracle::pss_verify(key.oracle()?, hash, mgf, salt, &digest, &sig);
                        ensure(right.map_err(broken)?, || "OpenSSL refuses it".to_owned())
                    });
                }
            }
        }
    }
    Ok(())
}

fn pss_digest_length(context: &mut Context) -> Outcome {
    let refused = [CKR_DATA_LEN_RANGE, CKR_DATA_INVALID];
    for key in rsa_keys(context, CKM_RSA_PKCS_PSS)? {
        context.each(&key, |context| {
            let session = context.user()?;
            for size in [0, 20, 31, 33, 64] {
                let sha256 = &HASHES[2];
                let mechanism = Mechanism::pss(CKM_RSA_PKCS_PSS, sha256, sha256, 32);
                let data = vec![1; size];
                let rv = session.run(Family::Sign, &mechanism, key.private, &data);
                one_of(rv, &refused, &format!("C_Sign of {size} bytes as SHA-256"))?;
            }
            Ok(())
        });
    }
    Ok(())
}

fn ecdsa_lengths(context: &mut Context) -> Outcome {
    let offered = context.offered(CKF_SIGN)?;
    if !offered.iter().any(|(kind, _)| *kind == CKM_ECDSA) {
        return skip("CKM_ECDSA does not sign");
    }
    for key in context.keys()? {
        let Kind::Ec(curve) = key.kind else { continue };
        context.each(&key, |context| {
            let session = context.user()?;
            let mut refused = Vec::new();
            for size in 1..=128_usize {
                let digest: Vec<u8> = (0..size).map(|n| 0xff - n as u8).collect();
                let mechanism = Mechanism::plain(CKM_ECDSA);
                let sig = match session.run(Family::Sign, &mechanism, key.private, &digest) {
                    Ok(sig) => sig,
                    // A service that has no larger hash than SHA-512 takes no more than 64 bytes,
                    // which leave out none of the leftmost bits on any other curve.
                    Err(CKR_DATA_LEN_RANGE)
                        if size > 64 && curve.bits > 512 && key.origin == "token" =>
                    {
                        refused.push(size);
                        continue;
                    }
                    rv => need(rv, &format!("C_Sign of {size} bytes"))?,
                };
                ensure(sig.len() == 2 * curve.size(), || format!("{} bytes", sig.len()))?;
                let right = oracle::ecdsa_verify(key.oracle()?, &digest, &sig).map_err(broken)?;
                ensure(right, || format!("OpenSSL refuses the signature of {size} bytes"))?;
                if let Some(public) = key.public {
                    let rv = session.verify(&mechanism, public, &digest, &sig);
                    need(rv, &format!("C_Verify of {size} bytes"))?;
                }
            }
            ensure(refused.is_empty() || refused.last() == Some(&128), || {
                format!("refused: {refused:?}")
            })
        });
    }
    Ok(())
}

/// A public key of OpenSSL's as a session object.
fn imported(
    session: Session,
    key: &PKey<Private>,
    curve: Option<&Curve>,
) -> Outcome<CK_OBJECT_HANDLE> {
    let mut template = vec![
        (CKA_CLASS, number(CKO_PUBLIC_KEY)),
        (CKA_TOKEN, flag(false)),
        (CKA_VERIFY, flag(true)),
    ];
    match curve {
        Some(curve) => template.extend([
            (CKA_KEY_TYPE, number(CKK_EC)),
            (CKA_EC_PARAMS, curve.oid.to_vec()),
            (CKA_EC_POINT, oracle::ec_point(key).map_err(broken)?),
        ]),
        None => {
            let rsa = key.rsa().map_err(broken)?;
            template.extend([
                (CKA_KEY_TYPE, number(CKK_RSA)),
                (CKA_ENCRYPT, flag(true)),
                (CKA_MODULUS, rsa.n().to_vec()),
                (CKA_PUBLIC_EXPONENT, rsa.e().to_vec()),
            ]);
        }
    }
    match session.create(&template) {
        Ok(object) => Ok(object),
        Err(rv) => skip(format!("a public key cannot be imported: {}", names::rv(rv))),
    }
}

fn verifies_rsa(context: &mut Context) -> Outcome {
    let own = Rsa::generate(2048).and_then(PKey::from_rsa).map_err(broken)?;
    for (kind, _) in context.offered(CKF_VERIFY)? {
        let Some(scheme) = scheme(kind) else { continue };
        let hash = scheme.hash().unwrap_or(&HASHES[2]);
        let digest = hash.digest(b"data");
        let (data, sig) = match scheme {
            Scheme::Pkcs1(of) => {
                let info = hash.digest_info(&digest);
                let sig = oracle::pkcs1_sign(&own, &info);
                (if of.is_some() { b"data".to_vec() } else { info }, sig)
            }
            Scheme::Pss(of) => {
                let sig = oracle::pss_sign(&own, hash, hash, hash.size, &digest);
                (if of.is_some() { b"data".to_vec() } else { digest }, sig)
            }
            _ => continue,
        };
        let sig = sig.map_err(broken)?;
        context.each(names::mechanism(kind), |context| {
            let session = context.user()?;
            let key = imported(session, &own, None)?;
            let mechanism = Mechanism::usual(kind);
            need(session.verify(&mechanism, key, &data, &sig), "C_Verify")?;
            let invalid = [CKR_SIGNATURE_INVALID, CKR_SIGNATURE_LEN_RANGE];
            for at in [0, 1, 100, 255] {
                let mut changed = sig.clone();
                changed[at] ^= 0x10;
                let rv = session.verify(&mechanism, key, &data, &changed);
                one_of(rv, &invalid, &format!("C_Verify, byte {at} changed"))?;
            }
            let mut other = data.clone();
            other[0] ^= 1;
            let rv = session.verify(&mechanism, key, &other, &sig);
            one_of(rv, &invalid, "C_Verify of other data")?;
            let rv = session.verify(&mechanism, key, &data, &[0; 256]);
            one_of(rv, &invalid, "C_Verify of zeros")?;
            let rv = session.verify(&mechanism, key, &data, &[0xff; 256]);
            one_of(rv, &invalid, "C_Verify of more than the modulus")
        });
    }
    Ok(())
}

fn verifies_ecdsa(context: &mut Context) -> Outcome {
    let offered = context.offered(CKF_VERIFY)?;
    if !offered.iter().any(|(kind, _)| *kind == CKM_ECDSA) {
        return skip("CKM_ECDSA does not verify");
    }
    for curve in CURVES {
        context.each(curve.name, |context| {
            let session = context.user()?;
            let own = oracle::ec_pair(curve).map_err(broken)?;
            let Ok(key) = imported(session, &own, Some(curve)) else {
                return skip("a key on this curve cannot be imported");
            };
            let mechanism = Mechanism::plain(CKM_ECDSA);
            let half = curve.size();
            let order = {
                let key = own.ec_key().map_err(broken)?;
                let mut order = openssl::bn::BigNum::new().map_err(broken)?;
                let mut context = openssl::bn::BigNumContext::new().map_err(broken)?;
                key.group().order(&mut order, &mut context).map_err(broken)?;
                order.to_vec_padded(half as i32).map_err(broken)?
            };
            for size in [20, 32, 48, 64] {
                let digest = vec![0xc3; size];
                let sig = oracle::ecdsa_sign(curve, &own, &digest).map_err(broken)?;
                need(session.verify(&mechanism, key, &digest, &sig), "C_Verify")?;
                let (r, s) = sig.split_at(half);
                for (what, forged) in [
                    ("r = 0", [&vec![0; half], s].concat()),
                    ("s = 0", [r, &vec![0; half]].concat()),
                    ("r = s = 0", vec![0; 2 * half]),
                    ("r = the order", [&order[..], s].concat()),
                    ("s = the order", [r, &order[..]].concat()),
                    ("r and s swapped", [s, r].concat()),
                ] {
                    let rv = session.verify(&mechanism, key, &digest, &forged);
                    let invalid = [CKR_SIGNATURE_INVALID, CKR_SIGNATURE_LEN_RANGE];
                    one_of(rv, &invalid, &format!("C_Verify with {what}"))?;
                }
            }
            Ok(())
        });
    }
    Ok(())
}

fn signature_first(context: &mut Context) -> Outcome {
    context.needs(C_VerifySignatureInit)?;
    for (kind, key) in pairs(context, Family::Verify)? {
        let (Some(scheme), Some(public)) = (scheme(kind), key.public) else { continue };
        context.each(format!("{}, {key}", names::mechanism(kind)), |context| {
            let session = context.user()?;
            let (mechanism, data) = (Mechanism::usual(kind), to_sign(scheme, &key));
            let sig = match session.run(Family::Sign, &mechanism, key.private, &data) {
                Err(CKR_MECHANISM_INVALID) => return skip("the mechanism verifies only"),
                sig => need(sig, "C_Sign")?,
            };
            let init = |sig: &[u8]| {
                check(mechanism.with(|raw| {
                    let args = [raw, public.into(), read(sig), length(sig)];
                    session.call(C_VerifySignatureInit, &args)
                }))
            };
            let whole =
                |data: &[u8]| check(session.call(C_VerifySignature, &[read(data), length(data)]));
            match init(&sig) {
                Err(CKR_FUNCTION_NOT_SUPPORTED) => return skip("not supported"),
                rv => need(rv, "C_VerifySignatureInit")?,
            }
            need(whole(&data), "C_VerifySignature")?;
            one_of(whole(&data), &[CKR_OPERATION_NOT_INITIALIZED], "C_VerifySignature again")?;
            let mut changed = sig.clone();
            changed[sig.len() / 2] ^= 1;
            need(init(&changed), "C_VerifySignatureInit")?;
            one_of(whole(&data), &[CKR_SIGNATURE_INVALID], "a changed signature")?;
            if !scheme.is_multi_part() {
                return Ok(());
            }
            need(init(&sig), "C_VerifySignatureInit")?;
            for part in data.chunks(3) {
                let args = [read(part), length(part)];
                need(check(session.call(C_VerifySignatureUpdate, &args)), "Update")?;
            }
            need(check(session.call(C_VerifySignatureFinal, &[])), "C_VerifySignatureFinal")
        });
    }
    Ok(())
}
