//! AES with session keys.

use cryptoki_sys::CKR_ENCRYPTED_DATA_LEN_RANGE;
use zeroize::Zeroizing;

use super::{Size, length_range, output, wrapped};
use crate::{
    crypto::symmetric::{Cipher, Direction, KeyWrap, Mode, SecretKey, unwrap, wrap},
    error::{Error, Result},
    operation::gather::Gather,
};

/// AES in a mode, in parts.
#[derive(Debug)]
pub struct Ciphering {
    cipher: Cipher,
    direction: Direction,
    mode: Mode,
    taken: usize,
    given: usize,
}

impl Ciphering {
    /// # Errors
    /// CKR_MECHANISM_PARAM_INVALID for what the mode cannot use.
    pub fn new(direction: Direction, mode: Mode, key: &SecretKey) -> Result<Ciphering> {
        let cipher = Cipher::new(direction, mode.clone(), key.bytes())?;
        Ok(Ciphering { cipher, direction, mode, taken: 0, given: 0 })
    }

    pub fn size(&self, more: usize) -> Result<Size> {
        // What was given out already is less than the whole: the last block stays back.
        Ok(match output(self.direction, &self.mode, self.taken.saturating_add(more))? {
            Size::Exact(whole) => Size::Exact(whole.saturating_sub(self.given)),
            Size::AtMost(whole) => Size::AtMost(whole.saturating_sub(self.given)),
        })
    }

    pub fn update_size(&self, more: usize) -> usize {
        self.cipher.update_len(more)
    }

    pub fn feed(&mut self, part: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let bytes = self.cipher.update(part)?;
        self.taken = self.taken.saturating_add(part.len());
        self.given = self.given.saturating_add(bytes.len());
        Ok(bytes)
    }

    pub fn finish(self) -> Result<Zeroizing<Vec<u8>>> {
        self.cipher.finish()
    }
}

/// AES key wrap of data, at its end.
#[derive(Debug)]
pub struct Wrapping {
    key: SecretKey,
    direction: Direction,
    method: KeyWrap,
    data: Gather,
}

impl Wrapping {
    pub fn new(direction: Direction, method: KeyWrap, key: &SecretKey, most: usize) -> Wrapping {
        Wrapping { key: key.clone(), direction, method, data: Gather::raw(most) }
    }

    pub fn size(&self, more: usize) -> Result<Size> {
        wrapped(self.direction, self.method, self.data.kept().saturating_add(more))
    }

    pub fn feed(&mut self, part: &[u8]) -> Result<()> {
        self.data
            .feed(part)
            .map_err(|error| Error::new(length_range(self.direction), error.sentence().to_owned()))
    }

    pub fn finish(self) -> Result<Zeroizing<Vec<u8>>> {
        let (_, data) = self.data.finish();
        match self.direction {
            Direction::Encrypt => wrap(self.method, self.key.bytes(), &data).map(Zeroizing::new),
            Direction::Decrypt if data.is_empty() => {
                Err(Error::new(CKR_ENCRYPTED_DATA_LEN_RANGE, "nothing to unwrap"))
            }
            Direction::Decrypt => unwrap(self.method, self.key.bytes(), &data),
        }
    }
}
