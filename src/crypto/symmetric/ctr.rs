//! AES in counter mode, in parts of any length.

use aws_lc_rs::{
    cipher::{EncryptingKey, EncryptionContext},
    iv::FixedLength,
};
use cryptoki_sys::{CKR_DATA_LEN_RANGE, CKR_MECHANISM_PARAM_INVALID};
use zeroize::Zeroizing;

use super::{BLOCK, aes, failed};
use crate::{error::Result, refuse};

/// A key stream and where it stands.
pub(super) struct Ctr {
    key: EncryptingKey,
    /// The bits of the counter block that do not count.
    fixed: u128,
    /// The bits that count, as a number below `mask + 1`.
    counter: u128,
    mask: u128,
    /// Bytes of the current block that are used up, below [`BLOCK`].
    offset: usize,
    /// Blocks that may still be used, the current one included; `None`: 2^128.
    left: Option<u128>,
}

impl Ctr {
    /// CKM_AES_CTR: the counter must not overflow (6.11.3).
    pub(super) fn new(counter_bits: u32, block: [u8; BLOCK], key: &[u8]) -> Result<Ctr> {
        let mask = match counter_bits {
            1..=127 => (1u128 << counter_bits) - 1,
            128 => u128::MAX,
            _ => refuse!(
                CKR_MECHANISM_PARAM_INVALID,
                "{counter_bits} counter bits; a counter block has 1 to 128"
            ),
        };
        let block = u128::from_be_bytes(block);
        Ok(Ctr {
            key: EncryptingKey::ctr(aes(key)?).map_err(failed)?,
            fixed: block & !mask,
            counter: block & mask,
            mask,
            offset: 0,
            left: (mask - (block & mask)).checked_add(1),
        })
    }

    /// As GCM counts: 32 bits, from any value on, each value once (SP 800-38D, 6.5).
    pub(super) fn wrapping(block: [u8; BLOCK], key: &[u8]) -> Result<Ctr> {
        let ctr = Ctr::new(32, block, key)?;
        Ok(Ctr { left: ctr.mask.checked_add(1), ..ctr })
    }

    /// `data` with the next bytes of the key stream; nothing is used up when it fails.
    pub(super) fn apply(&mut self, data: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let needed = (self.offset + data.len()).div_ceil(BLOCK) as u128;
        if self.left.is_some_and(|left| needed > left) {
            refuse!(
                CKR_DATA_LEN_RANGE,
                "{} more bytes overflow the counter of this key stream",
                data.len()
            );
        }
        let mut output = Zeroizing::new(Vec::with_capacity(data.len()));
        let mut rest = data;
        while !rest.is_empty() {
            // aws-lc carries into all 128 bits: stop where the counting bits wrap.
            let until_wrap = (self.mask - self.counter).saturating_add(1);
            let room = usize::try_from(until_wrap.saturating_mul(BLOCK as u128))
                .unwrap_or(usize::MAX)
                - self.offset;
            let (now, later) = rest.split_at(rest.len().min(room));
            // Whole counter blocks only: the part of the block that is used up comes along.
            let mut part = Zeroizing::new(Vec::with_capacity(self.offset + now.len()));
            part.resize(self.offset, 0);
            part.extend_from_slice(now);
            let block = (self.fixed | self.counter).to_be_bytes();
            self.key
                .less_safe_encrypt(&mut part, EncryptionContext::Iv128(FixedLength::from(block)))
                .map_err(failed)?;
            output.extend_from_slice(&part[self.offset..]);
            let blocks = (part.len() / BLOCK) as u128;
            self.counter = self.counter.wrapping_add(blocks) & self.mask;
            self.left = self.left.map(|left| left - blocks);
            self.offset = part.len() % BLOCK;
            rest = later;
        }
        Ok(output)
    }
}
