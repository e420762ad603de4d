//! IVs for AES-GCM with session keys (PKCS#11 3.2, clause 6.13.4).

use cryptoki_sys::*;

use crate::{
    abi::arg::GcmIv,
    crypto::{self, symmetric::SecretKey},
    error::Result,
    mechanism::parameter::invalid,
};

/// Random IVs come twice too soon with fewer free bits: then they are counted.
const RANDOM_BITS: usize = 64;

/// Makes IVs.
#[derive(Debug, Default)]
pub struct Maker {
    /// What CKG_GENERATE_COUNTER_XOR counts upon: the first IV that came, since the caller's buffer
    /// holds the last one made from then on.
    base: Option<Vec<u8>>,
}

/// How the free bits of an IV are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    AsGiven,
    Random,
    Counter,
    Xor,
}

impl Maker {
    /// Refuses what no IV or tag can be made for.
    ///
    /// # Errors
    /// CKR_MECHANISM_PARAM_INVALID.
    pub fn check(iv: &GcmIv<'_>, tag_len: usize) -> Result<()> {
        let length = iv.given.bytes()?.len();
        if !(1..=256).contains(&length) {
            return Err(invalid(format!("an IV of {length} bytes")));
        }
        if !matches!(tag_len, 4 | 8 | 12..=16) {
            return Err(invalid(format!("a tag of {tag_len} bytes")));
        }
        way(iv, length).map(drop)
    }

    /// The IV of the next message.
    ///
    /// # Errors
    /// CKR_MECHANISM_PARAM_INVALID, also when the free bits have counted to their end.
    pub fn make(&mut self, key: &SecretKey, iv: &GcmIv<'_>) -> Result<Vec<u8>> {
        let given = iv.given.bytes()?;
        let (way, free) = way(iv, given.len())?;
        let mut value = vec![0; given.len()];
        match way {
            Way::AsGiven => return Ok(given.to_vec()),
            Way::Random => crypto::random(&mut value)?,
            Way::Counter | Way::Xor => {
                let number = key.next_message();
                if free < 64 && number >> free != 0 {
                    return Err(invalid(format!("{free} free bits of the IV are all used up")));
                }
                for (byte, digit) in value.iter_mut().rev().zip(number.to_le_bytes()) {
                    *byte = digit;
                }
            }
        }
        if way == Way::Xor {
            let base = self.base.get_or_insert_with(|| given.to_vec());
            if base.len() != given.len() {
                return Err(invalid("an IV of another length than the first one".to_owned()));
            }
            return Ok(base.iter().zip(value).map(|(base, value)| base ^ value).collect());
        }
        let kept = given.len() * 8 - free;
        Ok(given
            .iter()
            .zip(value)
            .enumerate()
            .map(|(at, (given, value))| {
                let mask = match kept.saturating_sub(at * 8) {
                    0 => 0xff,
                    kept @ 1..=7 => 0xff >> kept,
                    _ => 0,
                };
                (given & !mask) | (value & mask)
            })
            .collect())
    }
}

/// How an IV of `length` bytes is made, and how many of its bits.
fn way(iv: &GcmIv<'_>, length: usize) -> Result<(Way, usize)> {
    let fixed = usize::try_from(iv.fixed_bits).unwrap_or(usize::MAX);
    let free = match iv.generator {
        CKG_NO_GENERATE => return Ok((Way::AsGiven, 0)),
        _ => (length * 8).checked_sub(fixed).filter(|free| *free > 0),
    };
    let Some(free) = free else {
        return Err(invalid(format!("{fixed} fixed bits of an IV of {length} bytes")));
    };
    let way = match iv.generator {
        CKG_GENERATE if free < RANDOM_BITS => Way::Counter,
        CKG_GENERATE | CKG_GENERATE_RANDOM => Way::Random,
        CKG_GENERATE_COUNTER => Way::Counter,
        CKG_GENERATE_COUNTER_XOR => Way::Xor,
        other => return Err(invalid(format!("generator {other} is not known"))),
    };
    Ok((way, free))
}
