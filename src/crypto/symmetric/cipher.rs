//! AES encryption and decryption in parts: ECB, CBC, CBC with PKCS#7 padding, CTR, GCM.

use std::fmt;

use aws_lc_rs::{
    cipher::{DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext},
    iv::FixedLength,
};
use cryptoki_sys::{CKR_DATA_LEN_RANGE, CKR_ENCRYPTED_DATA_INVALID, CKR_ENCRYPTED_DATA_LEN_RANGE};
use subtle::{Choice, ConstantTimeEq, ConstantTimeGreater, ConstantTimeLess};
use zeroize::Zeroizing;

use super::{BLOCK, aes, ctr::Ctr, failed, gcm::Gcm};
use crate::{
    error::{Error, Result},
    refuse,
    stack::{self, Trace},
};

/// Which way a [`Cipher`] runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Direction {
    Encrypt,
    Decrypt,
}

/// The mode of operation with its parameters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mode {
    /// CKM_AES_ECB: whole blocks, each on its own.
    Ecb,
    /// CKM_AES_CBC: whole blocks, chained.
    Cbc {
        /// The initialisation vector.
        iv: [u8; BLOCK],
    },
    /// CKM_AES_CBC_PAD: CBC with PKCS#7 padding, any length.
    CbcPad {
        /// The initialisation vector.
        iv: [u8; BLOCK],
    },
    /// CKM_AES_CTR: any length, encryption and decryption are the same.
    Ctr {
        /// How many of the rightmost bits of `block` count, 1 to 128; the others stay.
        counter_bits: u32,
        /// The first counter block.
        block: [u8; BLOCK],
    },
    /// CKM_AES_GCM: the tag follows the ciphertext.
    Gcm {
        /// The IV: 1 to 256 bytes; 12 is what everybody uses and the fast one.
        iv: Vec<u8>,
        /// Additional authenticated data, any length.
        aad: Vec<u8>,
        /// Bytes of the tag: 4, 8, or 12 to 16 (NIST SP 800-38D, 5.2.1.2).
        tag_len: usize,
    },
}

/// An encryption or decryption in parts.
///
/// ECB, CBC and CTR give each block out as soon as it is complete (CBC with padding keeps the last
/// one back when it decrypts). GCM gives nothing before [`Cipher::finish`]: a plaintext is not
/// released before its tag was checked.
pub struct Cipher {
    direction: Direction,
    engine: Engine,
    _key: Trace,
}

enum Engine {
    Blocks(Blocks),
    Ctr(Ctr),
    Gcm(Gcm),
}

impl Cipher {
    /// A cipher with `key` of 16, 24 or 32 bytes.
    ///
    /// # Errors
    /// `CKR_KEY_SIZE_RANGE`; `CKR_MECHANISM_PARAM_INVALID` for parameters beyond those of [`Mode`].
    pub fn new(direction: Direction, mode: Mode, key: &[u8]) -> Result<Cipher> {
        let engine = match mode {
            Mode::Ecb => Engine::Blocks(Blocks::new(direction, None, false, key)?),
            Mode::Cbc { iv } => Engine::Blocks(Blocks::new(direction, Some(iv), false, key)?),
            Mode::CbcPad { iv } => Engine::Blocks(Blocks::new(direction, Some(iv), true, key)?),
            Mode::Ctr { counter_bits, block } => Engine::Ctr(Ctr::new(counter_bits, block, key)?),
            Mode::Gcm { iv, aad, tag_len } => Engine::Gcm(Gcm::new(iv, aad, tag_len, key)?),
        };
        Ok(Cipher { direction, engine, _key: Trace })
    }

    /// Takes the next bytes; gives [`Cipher::update_len`] bytes out.
    ///
    /// # Errors
    /// `CKR_DATA_LEN_RANGE` (`CKR_ENCRYPTED_DATA_LEN_RANGE`) when the counter of CTR would overflow.
    pub fn update(&mut self, data: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        stack::touched();
        match &mut self.engine {
            Engine::Blocks(blocks) => blocks.update(data),
            Engine::Ctr(ctr) => ctr.apply(data).map_err(|error| length(self.direction, error)),
            Engine::Gcm(gcm) => {
                gcm.update(data);
                Ok(Zeroizing::default())
            }
        }
    }

    /// Gives the rest out.
    ///
    /// # Errors
    /// `CKR_DATA_LEN_RANGE` (`CKR_ENCRYPTED_DATA_LEN_RANGE`) when the data was not whole blocks or
    /// too short for a tag; `CKR_ENCRYPTED_DATA_INVALID` for bad padding and for a wrong tag.
    pub fn finish(self) -> Result<Zeroizing<Vec<u8>>> {
        match self.engine {
            Engine::Blocks(blocks) => blocks.finish(),
            Engine::Ctr(_) => Ok(Zeroizing::default()),
            Engine::Gcm(gcm) => match self.direction {
                Direction::Encrypt => gcm.seal(),
                Direction::Decrypt => gcm.open(),
            },
        }
    }

    /// Exactly how many bytes [`Cipher::update`] gives out for `len` more bytes.
    pub fn update_len(&self, len: usize) -> usize {
        match &self.engine {
            Engine::Blocks(blocks) => blocks.ready(blocks.pending.len().saturating_add(len)),
            Engine::Ctr(_) => len,
            Engine::Gcm(_) => 0,
        }
    }

    /// At most how many bytes [`Cipher::finish`] gives out now.
    pub fn finish_len(&self) -> usize {
        match &self.engine {
            Engine::Blocks(blocks) if blocks.padded => BLOCK,
            Engine::Blocks(_) | Engine::Ctr(_) => 0,
            Engine::Gcm(gcm) => match self.direction {
                Direction::Encrypt => gcm.len().saturating_add(gcm.tag_len()),
                Direction::Decrypt => gcm.len().saturating_sub(gcm.tag_len()),
            },
        }
    }

    /// All of `data` at once.
    ///
    /// # Errors
    /// Those of [`Cipher::new`], [`Cipher::update`] and [`Cipher::finish`].
    pub fn once(
        direction: Direction,
        mode: Mode,
        key: &[u8],
        data: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        let mut cipher = Cipher::new(direction, mode, key)?;
        let output = cipher.update(data)?;
        let rest = cipher.finish()?;
        if output.is_empty() {
            return Ok(rest);
        }
        // Appending might move the plaintext and leave the old copy unwiped.
        Ok(Zeroizing::new([output.as_slice(), rest.as_slice()].concat()))
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cipher").field("direction", &self.direction).finish_non_exhaustive()
    }
}

/// ECB and CBC.
struct Blocks {
    key: Key,
    /// The last ciphertext block, `None` for ECB.
    chain: Option<[u8; BLOCK]>,
    padded: bool,
    /// Less than a block, or one block that may be the padding.
    pending: Zeroizing<Vec<u8>>,
}

enum Key {
    Encrypting(EncryptingKey),
    Decrypting(DecryptingKey),
}

impl Blocks {
    fn new(
        direction: Direction,
        iv: Option<[u8; BLOCK]>,
        padded: bool,
        key: &[u8],
    ) -> Result<Blocks> {
        let aes = aes(key)?;
        let key = match (direction, iv) {
            (Direction::Encrypt, None) => EncryptingKey::ecb(aes).map(Key::Encrypting),
            (Direction::Encrypt, Some(_)) => EncryptingKey::cbc(aes).map(Key::Encrypting),
            (Direction::Decrypt, None) => DecryptingKey::ecb(aes).map(Key::Decrypting),
            (Direction::Decrypt, Some(_)) => DecryptingKey::cbc(aes).map(Key::Decrypting),
        };
        let pending = Zeroizing::new(Vec::with_capacity(BLOCK));
        Ok(Blocks { key: key.map_err(failed)?, chain: iv, padded, pending })
    }

    /// How many of `available` bytes can be given out before the end is known.
    fn ready(&self, available: usize) -> usize {
        let kept = match &self.key {
            Key::Decrypting(_) if self.padded => available.min(1),
            _ => 0,
        };
        (available - kept) / BLOCK * BLOCK
    }

    fn update(&mut self, data: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let ready = self.ready(self.pending.len().saturating_add(data.len()));
        if ready == 0 {
            self.pending.extend_from_slice(data);
            return Ok(Zeroizing::default());
        }
        let (now, later) = data.split_at(ready - self.pending.len());
        let mut output = Zeroizing::new([self.pending.as_slice(), now].concat());
        self.pending.clear();
        self.pending.extend_from_slice(later);
        self.run(&mut output)?;
        Ok(output)
    }

    fn finish(mut self) -> Result<Zeroizing<Vec<u8>>> {
        match (&self.key, self.padded, self.pending.len()) {
            (Key::Encrypting(_), true, pending) => {
                let padding = BLOCK - pending;
                let mut last = Zeroizing::new(vec![padding as u8; BLOCK]);
                last[..pending].copy_from_slice(&self.pending);
                self.run(&mut last)?;
                Ok(last)
            }
            (Key::Decrypting(_), true, BLOCK) => {
                let mut last = std::mem::take(&mut self.pending);
                self.run(&mut last)?;
                unpad(last)
            }
            (_, false, 0) => Ok(Zeroizing::default()),
            (Key::Encrypting(_), false, rest) => refuse!(
                CKR_DATA_LEN_RANGE,
                "the data is {rest} bytes longer than whole blocks of {BLOCK}; use \
                 CKM_AES_CBC_PAD for any length"
            ),
            (Key::Decrypting(_), _, rest) => refuse!(
                CKR_ENCRYPTED_DATA_LEN_RANGE,
                "the ciphertext must be whole blocks of {BLOCK} bytes, {rest} are left over"
            ),
        }
    }

    /// En- or decrypts whole blocks in place and moves the chain on.
    fn run(&mut self, blocks: &mut [u8]) -> Result<()> {
        match &self.key {
            Key::Encrypting(key) => {
                let context = match self.chain {
                    Some(iv) => EncryptionContext::Iv128(FixedLength::from(iv)),
                    None => EncryptionContext::None,
                };
                key.less_safe_encrypt(blocks, context).map_err(failed)?;
                self.chain = self.chain.map(|iv| blocks.last_chunk().copied().unwrap_or(iv));
            }
            Key::Decrypting(key) => {
                let next = blocks.last_chunk().copied();
                let context = match self.chain {
                    Some(iv) => DecryptionContext::Iv128(FixedLength::from(iv)),
                    None => DecryptionContext::None,
                };
                key.decrypt(blocks, context).map_err(failed)?;
                self.chain = self.chain.map(|iv| next.unwrap_or(iv));
            }
        }
        Ok(())
    }
}

/// Takes the PKCS#7 padding (RFC 5652, 6.3) off the last block. Which byte is wrong cannot be told
/// from the time it takes.
fn unpad(mut last: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>> {
    let padding = last.last().copied().unwrap_or(0);
    let mut good = padding.ct_gt(&0) & padding.ct_lt(&(BLOCK as u8 + 1));
    for (from_end, byte) in (0u8..).zip(last.iter().rev()) {
        let outside: Choice = !from_end.ct_lt(&padding);
        good &= outside | byte.ct_eq(&padding);
    }
    if !bool::from(good) {
        refuse!(CKR_ENCRYPTED_DATA_INVALID, "the ciphertext does not decrypt with this AES key");
    }
    last.truncate(BLOCK - usize::from(padding));
    Ok(last)
}

/// CTR and its errors are the same both ways, except for the name of the length error.
fn length(direction: Direction, error: Error) -> Error {
    match direction {
        Direction::Decrypt if error.rv() == CKR_DATA_LEN_RANGE => {
            Error::new(CKR_ENCRYPTED_DATA_LEN_RANGE, error.sentence().to_owned())
        }
        _ => error,
    }
}
