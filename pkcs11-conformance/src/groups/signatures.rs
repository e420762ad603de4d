//! Signatures, each checked by OpenSSL, and OpenSSL's, checked by the module.

use std::collections::BTreeSet;

use super::imports::{imported, own_rsa};
use crate::{
    case::{Case, Group, Outcome, ensure, fail, skip},
    client::{Family, check},
    context::{Context, PARAMETER_REFUSED, is, need, one_of},
    ffi::{length, read},
    functions::Function::*,
    keys::{Key, Kind},
    mechanism::{HASHES, Hash, Mechanism, Scheme, clause, scheme},
    names,
    oracle::{self, CURVES},
    samples::{broken, fits, pairs, to_sign},
};
use cryptoki_sys::*;

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
            id: "raw",
            clause: "6.1.12",
            title: "CKM_RSA_X_509 signs a block below the modulus as it is; shorter data is padded \
                    with zeros in front.",
            run: raw,
        },
        Case {
            id: "pss",
            clause: "6.1.10",
            title: "Each hash, MGF and salt is signed as asked for, or refused at Init.",
            run: pss,
        },
        Case {
            id: "pss-salt",
            clause: "6.1.10",
            title: "The longest salt that the key has room for is taken, a longer one is \
                    CKR_MECHANISM_PARAM_INVALID.",
            run: pss_salt,
        },
        Case {
            id: "pss-digest-length",
            clause: "6.1.10, 5.1.6",
            title: "A digest of another length than its hash's is CKR_DATA_LEN_RANGE.",
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
            let name = format!("{}, {key}", names::mechanism(kind));
            context.each_of(clause(kind), name, |context| {
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

fn raw(context: &mut Context) -> Outcome {
    for key in rsa_keys(context, CKM_RSA_X_509)? {
        if !key.allows(CKM_RSA_X_509) {
            continue;
        }
        context.each(&key, |context| {
            let session = context.user()?;
            let size = key.kind.signature();
            for data in [vec![0x42; size], vec![0x99; 20], vec![1]] {
                let mut block = vec![0; size - data.len()];
                block.extend_from_slice(&data);
                let mechanism = Mechanism::plain(CKM_RSA_X_509);
                let sig = session.run(Family::Sign, &mechanism, key.private, &data);
                let sig = need(sig, &format!("C_Sign of {} bytes", data.len()))?;
                let told = oracle::raw_public(key.oracle()?, &sig).map_err(broken)?;
                ensure(told == block, || "the signature holds something else".to_owned())?;
            }
            Ok(())
        });
    }
    Ok(())
}

fn pss(context: &mut Context) -> Outcome {
    for key in rsa_keys(context, CKM_RSA_PKCS_PSS)? {
        let (mut refused, mut tried) = (0, 0);
        for hash in HASHES {
            for mgf in HASHES {
                for salt in BTreeSet::from([0, 20, 64, hash.size]) {
                    tried += 1;
                    let session = context.user()?;
                    let mechanism = Mechanism::pss(CKM_RSA_PKCS_PSS, hash, mgf, salt);
                    let begun = session.init(Family::Sign, &mechanism, key.private);
                    if begun.is_err_and(|rv| PARAMETER_REFUSED.contains(&rv)) {
                        refused += 1;
                        need(session.close(), "C_CloseSession")?;
                        context.forget(session);
                        continue;
                    }
                    let name = format!("{}, MGF1 {}, salt {salt}, {key}", hash.name, mgf.name);
                    context.each(name, |_| {
                        need(begun, "C_SignInit")?;
                        let digest = hash.digest(b"data");
                        let sig = need(session.one_shot(Family::Sign, &digest), "C_Sign")?;
                        let right =
                            oracle::pss_verify(key.oracle()?, hash, mgf, salt, &digest, &sig);
                        ensure(right.map_err(broken)?, || "OpenSSL refuses it".to_owned())
                    });
                    need(session.close(), "C_CloseSession")?;
                    context.forget(session);
                }
            }
        }
        if refused > 0 {
            let why = format!("{refused} of {tried} settings are refused at Init");
            context.each(format!("refused, {key}"), |_| skip(why));
        }
    }
    Ok(())
}

fn pss_salt(context: &mut Context) -> Outcome {
    for key in rsa_keys(context, CKM_RSA_PKCS_PSS)? {
        let sha256 = &HASHES[2];
        let most = key.kind.signature() - 2 - sha256.size;
        let with = |salt| Mechanism::pss(CKM_RSA_PKCS_PSS, sha256, sha256, salt);
        context.each(&key, |context| {
            let session = context.user()?;
            let digest = sha256.digest(b"data");
            match session.init(Family::Sign, &with(most), key.private) {
                // A key may take salts of the hash's length only.
                Err(CKR_MECHANISM_PARAM_INVALID) if key.origin == "token" => {}
                rv => {
                    need(rv, "C_SignInit with the longest salt")?;
                    let sig = need(session.one_shot(Family::Sign, &digest), "C_Sign")?;
                    let right =
                        oracle::pss_verify(key.oracle()?, sha256, sha256, most, &digest, &sig);
                    ensure(right.map_err(broken)?, || "OpenSSL refuses it".to_owned())?;
                }
            }
            let longer = session.init(Family::Sign, &with(most + 1), key.private);
            is(longer, CKR_MECHANISM_PARAM_INVALID, "C_SignInit with a longer salt")
        });
    }
    Ok(())
}

fn pss_digest_length(context: &mut Context) -> Outcome {
    for key in rsa_keys(context, CKM_RSA_PKCS_PSS)? {
        context.each(&key, |context| {
            let session = context.user()?;
            for size in [0, 20, 31, 33, 64] {
                let sha256 = &HASHES[2];
                let mechanism = Mechanism::pss(CKM_RSA_PKCS_PSS, sha256, sha256, 32);
                let data = vec![1; size];
                let rv = session.run(Family::Sign, &mechanism, key.private, &data);
                is(rv, CKR_DATA_LEN_RANGE, &format!("C_Sign of {size} bytes as SHA-256"))?;
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
            for size in 1..=128_usize {
                let digest: Vec<u8> = (0..size).map(|n| 0xff - n as u8).collect();
                let mechanism = Mechanism::plain(CKM_ECDSA);
                let sig = session.run(Family::Sign, &mechanism, key.private, &digest);
                let sig = need(sig, &format!("C_Sign of {size} bytes"))?;
                ensure(sig.len() == 2 * curve.size(), || format!("{} bytes", sig.len()))?;
                let right = oracle::ecdsa_verify(key.oracle()?, &digest, &sig).map_err(broken)?;
                ensure(right, || format!("OpenSSL refuses the signature of {size} bytes"))?;
                if let Some(public) = key.public {
                    let rv = session.verify(&mechanism, public, &digest, &sig);
                    need(rv, &format!("C_Verify of {size} bytes"))?;
                }
            }
            Ok(())
        });
    }
    Ok(())
}

fn verifies_rsa(context: &mut Context) -> Outcome {
    let own = own_rsa()?;
    for (kind, _) in context.offered(CKF_VERIFY)? {
        let Some(scheme) = scheme(kind) else { continue };
        let hash = scheme.hash().unwrap_or(&HASHES[2]);
        let digest = hash.digest(b"data");
        let (data, sig) = match scheme {
            Scheme::Pkcs1(of) => {
                let info = hash.digest_info(&digest);
                let sig = oracle::pkcs1_sign(own, &info);
                (if of.is_some() { b"data".to_vec() } else { info }, sig)
            }
            Scheme::Pss(of) => {
                let sig = oracle::pss_sign(own, hash, hash, hash.size, &digest);
                (if of.is_some() { b"data".to_vec() } else { digest }, sig)
            }
            _ => continue,
        };
        let sig = sig.map_err(broken)?;
        context.each(names::mechanism(kind), |context| {
            let session = context.user()?;
            let key = imported(session, own, None)?;
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
