//! What AES mechanisms must refuse: lengths, padding, parameters.

use cryptoki_sys::*;

use super::subjects;
use crate::{
    case::Outcome,
    client::Family,
    context::{Context, PARAMETER_REFUSED, is, need, one_of},
    mechanism::{IV, Mechanism, Mode},
    oracle::aes,
    samples::{broken, usual},
};

pub fn lengths_wrong(context: &mut Context) -> Outcome {
    for family in [Family::Encrypt, Family::Decrypt] {
        for (name, subject) in subjects(context, family)? {
            let refused = match (family, subject.mode) {
                (_, Mode::Ctr | Mode::Gcm) => continue,
                (Family::Encrypt, Mode::CbcPad | Mode::Kwp) => continue,
                (Family::Encrypt, _) => [CKR_DATA_LEN_RANGE, CKR_DATA_LEN_RANGE],
                (_, Mode::Kw | Mode::Kwp) => {
                    [CKR_ENCRYPTED_DATA_LEN_RANGE, CKR_ENCRYPTED_DATA_INVALID]
                }
                _ => [CKR_ENCRYPTED_DATA_LEN_RANGE, CKR_ENCRYPTED_DATA_LEN_RANGE],
            };
            context.each(format!("{family:?}, {name}"), |context| {
                let session = context.user()?;
                for size in [1, 15, 17, 33] {
                    subject.init(session)?;
                    let rv = session.one_shot(family, &vec![7; size]);
                    one_of(rv, &refused, &format!("{size} bytes"))?;
                    let after = session.one_shot(family, &[7; 16]);
                    is(after, CKR_OPERATION_NOT_INITIALIZED, "the call after it")?;
                    if !subject.mode.is_multi_part() {
                        continue;
                    }
                    subject.init(session)?;
                    need(session.update(family, &vec![7; size]), "Update")?;
                    one_of(session.last(family), &refused, &format!("Final after {size} bytes"))?;
                    let after = session.last(family);
                    is(after, CKR_OPERATION_NOT_INITIALIZED, "Final after it")?;
                }
                Ok(())
            });
        }
    }
    Ok(())
}

pub fn padding_wrong(context: &mut Context) -> Outcome {
    for (name, subject) in subjects(context, Family::Decrypt)? {
        if subject.mode != Mode::CbcPad {
            continue;
        }
        context.each(name, |context| {
            let session = context.user()?;
            let refused = [CKR_ENCRYPTED_DATA_INVALID, CKR_ENCRYPTED_DATA_LEN_RANGE];
            let ends: [&[u8]; 6] = [&[0], &[17], &[255], &[1, 2], &[2, 3, 3], &[3, 2, 3, 3, 4]];
            for end in ends {
                let plain = [&vec![0x55; 32 - end.len()][..], end].concat();
                let sealed = aes::seal(Mode::Cbc, &subject.value, usual(Mode::Cbc), &plain);
                let sealed = sealed.map_err(broken)?;
                subject.init(session)?;
                let rv = session.one_shot(Family::Decrypt, &sealed);
                one_of(rv, &refused, &format!("padding that ends with {end:?}"))?;
                subject.init(session)?;
                need(session.update(Family::Decrypt, &sealed), "C_DecryptUpdate")?;
                let rv = session.last(Family::Decrypt);
                one_of(rv, &refused, &format!("C_DecryptFinal, {end:?}"))?;
            }
            subject.init(session)?;
            one_of(session.one_shot(Family::Decrypt, &[]), &refused, "no ciphertext")
        });
    }
    Ok(())
}

pub fn parameter_wrong(context: &mut Context) -> Outcome {
    for family in [Family::Encrypt, Family::Decrypt] {
        for (name, subject) in subjects(context, family)? {
            if subject.value.len() != 16 {
                continue;
            }
            let kind = subject.kind;
            let wrong = match subject.mode {
                Mode::Cbc | Mode::CbcPad => vec![
                    Mechanism::plain(kind),
                    Mechanism::bytes(kind, &IV[..15]),
                    Mechanism::bytes(kind, &[&IV[..], &[1]].concat()),
                ],
                Mode::Ctr => vec![
                    Mechanism::plain(kind),
                    Mechanism::bytes(kind, &IV),
                    Mechanism::ctr(0, IV),
                    Mechanism::ctr(129, IV),
                ],
                Mode::Gcm => vec![
                    Mechanism::plain(kind),
                    Mechanism::bytes(kind, &IV),
                    Mechanism::gcm(&IV[..12], &[], 129),
                    Mechanism::gcm(&IV[..12], &[], 1000),
                    Mechanism::gcm(&[], &[], 128),
                ],
                Mode::Kw => vec![Mechanism::bytes(kind, &IV[..7])],
                Mode::Kwp => vec![Mechanism::bytes(kind, &IV[..7])],
                Mode::Ecb => continue,
            };
            context.each(format!("{family:?}, {name}"), |context| {
                let session = context.user()?;
                for mechanism in wrong {
                    let rv = session.init(family, &mechanism, subject.handle);
                    one_of(rv, &PARAMETER_REFUSED, &format!("Init with {mechanism:?}"))?;
                }
                Ok(())
            });
        }
    }
    Ok(())
}
