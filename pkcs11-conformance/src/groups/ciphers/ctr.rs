//! AES-CTR: where its counter ends.

use cryptoki_sys::*;

use super::{Subject, subjects};
use crate::{
    case::{Outcome, ensure, skip},
    client::{Family, Session},
    context::{Context, need, one_of},
    mechanism::{IV, Mechanism, Mode},
    oracle::aes::{self, Setting},
    samples::broken,
};

/// Bits of the counter, and how many of its values are left.
const COUNTERS: [(usize, u128); 7] = [(128, 2), (64, 2), (32, 2), (16, 2), (2, 3), (2, 1), (1, 1)];

pub fn overflow(context: &mut Context) -> Outcome {
    for family in [Family::Encrypt, Family::Decrypt] {
        let all = subjects(context, family)?;
        let Some((_, subject)) = all.into_iter().find(|(_, one)| one.mode == Mode::Ctr) else {
            context.each(format!("{family:?}"), |_| skip("CKM_AES_CTR is not offered"));
            continue;
        };
        for (bits, left) in COUNTERS {
            let name = format!("{family:?}, {bits} bits, {left} blocks left");
            context.each(name, |context| ends(context.user()?, &subject, bits, left));
        }
    }
    Ok(())
}

fn ends(session: Session, subject: &Subject, bits: usize, left: u128) -> Outcome {
    let family = subject.family;
    let mask = u128::MAX >> (128 - bits);
    let block = (u128::from_be_bytes(IV) & !mask) | (mask - left + 1);
    let input = vec![0x10; 16 * left as usize];
    let setting = Setting { iv: &block.to_be_bytes(), aad: &[], tag: 0 };
    let wanted = aes::seal(Mode::Ctr, &subject.value, setting, &input).map_err(broken)?;
    let mechanism = Mechanism::ctr(bits, block.to_be_bytes());
    match session.init(family, &mechanism, subject.handle) {
        Err(CKR_MECHANISM_PARAM_INVALID) => return skip("refused at Init"),
        rv => need(rv, "Init")?,
    }
    let told = need(session.one_shot(family, &input), "the last counter")?;
    ensure(told == wanted, || "not what OpenSSL makes of it".to_owned())?;

    // C_Decrypt lists no CKR_DATA_LEN_RANGE, which 6.11.3 asks for (5.10).
    let refused: &[CK_RV] = match family {
        Family::Encrypt => &[CKR_DATA_LEN_RANGE],
        _ => &[CKR_DATA_LEN_RANGE, CKR_ENCRYPTED_DATA_LEN_RANGE],
    };
    let more = [&input[..], &[0x10]].concat();
    need(session.init(family, &mechanism, subject.handle), "Init")?;
    one_of(session.one_shot(family, &more), refused, "a byte after the last counter")?;
    need(session.init(family, &mechanism, subject.handle), "Init")?;
    let told = need(session.update(family, &input), "Update to the last counter")?;
    ensure(told == wanted, || "not what OpenSSL makes of it, in parts".to_owned())?;
    one_of(session.update(family, &[0x10]), refused, "a byte in another part")?;
    one_of(session.last(family), &[CKR_OPERATION_NOT_INITIALIZED], "Final after it")
}
