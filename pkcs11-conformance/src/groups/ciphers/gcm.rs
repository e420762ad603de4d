//! AES-GCM: its settings, and what is forged.

use cryptoki_sys::*;

use super::Subject;
use crate::{
    case::{Outcome, ensure, skip},
    client::Family,
    context::{Context, is, need, one_of},
    mechanism::{Mechanism, Mode},
    oracle::aes::{self, Setting},
    samples::{broken, usual},
};

/// The GCM subjects of a direction, one per key.
fn subjects(context: &mut Context, family: Family) -> Outcome<Vec<(String, Subject)>> {
    let mut all = super::subjects(context, family)?;
    all.retain(|(_, subject)| subject.mode == Mode::Gcm);
    if all.is_empty() { skip("CKM_AES_GCM is not offered for this") } else { Ok(all) }
}

pub fn settings(context: &mut Context) -> Outcome {
    for family in [Family::Encrypt, Family::Decrypt] {
        let all = match subjects(context, family) {
            Err(crate::case::Stop::Skip(why)) => {
                context.each(format!("{family:?}"), |_| skip(why));
                continue;
            }
            all => all?,
        };
        let Some((_, subject)) = all.into_iter().next() else { continue };
        let settings = [1, 8, 11, 12, 13, 16, 60, 128].into_iter().flat_map(|iv| {
            [(0, 16), (1, 16), (20, 15), (300, 14), (16, 13), (5, 12), (7, 8), (9, 4)]
                .map(|(aad, tag)| (iv, aad, tag))
        });
        for (iv, aad, tag) in settings {
            let name = format!("{family:?}, IV {iv}, AAD {aad}, tag {tag}");
            context.each(name, |context| {
                let session = context.user()?;
                let (iv, aad) = (vec![0x1f; iv], vec![0xaa; aad]);
                let mechanism = Mechanism::gcm(&iv, &aad, 8 * tag);
                match session.init(family, &mechanism, subject.handle) {
                    Err(CKR_MECHANISM_PARAM_INVALID) => return skip("refused at Init"),
                    rv => need(rv, "Init")?,
                }
                let plain = vec![0x42; 37];
                let setting = Setting { iv: &iv, aad: &aad, tag };
                let sealed = aes::seal(Mode::Gcm, &subject.value, setting, &plain);
                let sealed = sealed.map_err(broken)?;
                let (input, wanted) = match family {
                    Family::Encrypt => (plain, sealed),
                    _ => (sealed, plain),
                };
                let told = need(session.one_shot(family, &input), "the call")?;
                ensure(told == wanted, || "not what OpenSSL makes of it".to_owned())
            });
        }
    }
    Ok(())
}

pub fn forged(context: &mut Context) -> Outcome {
    let refused =
        [CKR_ENCRYPTED_DATA_INVALID, CKR_ENCRYPTED_DATA_LEN_RANGE, CKR_AEAD_DECRYPT_FAILED];
    for (name, subject) in subjects(context, Family::Decrypt)? {
        context.each(name, |context| {
            let session = context.user()?;
            let (sealed, _) = subject.known(50)?;
            let usual = usual(Mode::Gcm);
            let changed = |at: usize| {
                let mut bytes = sealed.clone();
                bytes[at] ^= 0x80;
                bytes
            };
            let mut iv = usual.iv.to_vec();
            iv[11] ^= 1;
            let same = || Mechanism::gcm(usual.iv, usual.aad, 128);
            let cases = [
                ("the ciphertext", changed(3), same()),
                ("the tag", changed(65), same()),
                ("the tag's begin", changed(50), same()),
                ("the length", sealed[..65].to_vec(), same()),
                ("everything but the tag", sealed[50..].to_vec(), same()),
                ("all", Vec::new(), same()),
                ("the IV", sealed.clone(), Mechanism::gcm(&iv, usual.aad, 128)),
                ("the AAD", sealed.clone(), Mechanism::gcm(usual.iv, b"other", 128)),
            ];
            for (what, data, mechanism) in cases {
                let begin = session.init(Family::Decrypt, &mechanism, subject.handle);
                need(begin, "C_DecryptInit")?;
                let rv = session.one_shot(Family::Decrypt, &data);
                one_of(rv, &refused, &format!("C_Decrypt with {what} changed"))?;
                let after = session.one_shot(Family::Decrypt, &data);
                is(after, CKR_OPERATION_NOT_INITIALIZED, "C_Decrypt after it")?;
                let begin = session.init(Family::Decrypt, &mechanism, subject.handle);
                need(begin, "C_DecryptInit")?;
                for part in data.chunks(16) {
                    let out = need(session.update(Family::Decrypt, part), "C_DecryptUpdate")?;
                    ensure(out.is_empty(), || "plaintext before the tag is known".to_owned())?;
                }
                let rv = session.last(Family::Decrypt);
                one_of(rv, &refused, &format!("C_DecryptFinal with {what} changed"))?;
            }
            Ok(())
        });
    }
    Ok(())
}
