//! AES-GCM (NIST SP 800-38D) with IVs of any length and short tags.
//!
//! aws-lc-rs seals and opens with nonces of 12 bytes and tags of 16. Everything else is made of
//! the same two tools, its GCM and its counter mode, so that no arithmetic of ours is involved:
//! sealing under a nonce of our own what decrypts to a given ciphertext tells the GHASH of that
//! ciphertext, and a GHASH is all that is missing.

use aws_lc_rs::{
    aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    constant_time::verify_slices_are_equal,
};
use cryptoki_sys::{
    CKR_ENCRYPTED_DATA_INVALID, CKR_ENCRYPTED_DATA_LEN_RANGE, CKR_MECHANISM_PARAM_INVALID,
};
use zeroize::Zeroizing;

use super::{BLOCK, ctr::Ctr, failed, key_size};
use crate::{
    error::{Error, Result},
    refuse,
};

/// Bytes of a tag that is not cut short.
const TAG: usize = BLOCK;
/// Bytes of an IV (PKCS#11 3.1, 6.13.3: ulIvLen).
const IV: std::ops::RangeInclusive<usize> = 1..=256;

/// An encryption or decryption whose data is still being collected.
pub(super) struct Gcm {
    gcm: LessSafeKey,
    /// For the counter mode.
    key: Zeroizing<Vec<u8>>,
    iv: Vec<u8>,
    aad: Vec<u8>,
    tag_len: usize,
    data: Zeroizing<Vec<u8>>,
}

impl Gcm {
    pub(super) fn new(iv: Vec<u8>, aad: Vec<u8>, tag_len: usize, key: &[u8]) -> Result<Gcm> {
        if !IV.contains(&iv.len()) {
            refuse!(
                CKR_MECHANISM_PARAM_INVALID,
                "an AES-GCM IV of {} bytes; {} to {} are supported, 12 is best",
                iv.len(),
                IV.start(),
                IV.end()
            );
        }
        if !matches!(tag_len, 4 | 8 | 12..=TAG) {
            refuse!(
                CKR_MECHANISM_PARAM_INVALID,
                "an AES-GCM tag of {tag_len} bytes; 4, 8 and 12 to {TAG} are supported"
            );
        }
        let algorithm = match key.len() {
            16 => &AES_128_GCM,
            24 => &AES_192_GCM,
            32 => &AES_256_GCM,
            other => return Err(key_size(other)),
        };
        Ok(Gcm {
            gcm: LessSafeKey::new(UnboundKey::new(algorithm, key).map_err(failed)?),
            key: Zeroizing::new(key.to_vec()),
            iv,
            aad,
            tag_len,
            data: Zeroizing::default(),
        })
    }

    pub(super) fn update(&mut self, data: &[u8]) {
        let needed = self.data.len().saturating_add(data.len());
        if needed > self.data.capacity() {
            // By hand, so that the buffer that is left behind is wiped.
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.saturating_mul(2)));
            larger.extend_from_slice(&self.data);
            self.data = larger;
        }
        self.data.extend_from_slice(data);
    }

    /// Bytes collected.
    pub(super) fn len(&self) -> usize {
        self.data.len()
    }

    pub(super) fn tag_len(&self) -> usize {
        self.tag_len
    }

    /// Ciphertext and tag.
    pub(super) fn seal(mut self) -> Result<Zeroizing<Vec<u8>>> {
        let mut data = std::mem::take(&mut self.data);
        let tag = match self.iv.as_slice().try_into() {
            Ok(nonce) => self.seal_with(nonce, &self.aad, &mut data)?,
            Err(_) => {
                let (mask, ciphertext) = self.crypt(self.counter()?, &data)?;
                data = ciphertext;
                xor(self.ghash(&self.aad, &data)?, mask)
            }
        };
        // A ciphertext may move without leaving anything secret behind.
        data.extend_from_slice(&tag[..self.tag_len]);
        Ok(data)
    }

    /// The plaintext, if the tag is right.
    pub(super) fn open(mut self) -> Result<Zeroizing<Vec<u8>>> {
        let mut data = std::mem::take(&mut self.data);
        let Some(length) = data.len().checked_sub(self.tag_len) else {
            refuse!(
                CKR_ENCRYPTED_DATA_LEN_RANGE,
                "{} bytes are shorter than the AES-GCM tag of {}",
                data.len(),
                self.tag_len
            );
        };
        if let (TAG, Ok(nonce)) = (self.tag_len, self.iv.as_slice().try_into()) {
            let nonce = Nonce::assume_unique_for_key(nonce);
            self.gcm.open_in_place(nonce, Aad::from(&self.aad), &mut data).map_err(|_| forged())?;
            data.truncate(length);
            return Ok(data);
        }
        let (ciphertext, tag) = data.split_at(length);
        let (mask, plaintext) = self.crypt(self.counter()?, ciphertext)?;
        let expected = xor(self.ghash(&self.aad, ciphertext)?, mask);
        verify_slices_are_equal(&expected[..self.tag_len], tag).map_err(|_| forged())?;
        Ok(plaintext)
    }

    /// J0: the counter block that masks the tag; the data follows it (7.1, step 2).
    fn counter(&self) -> Result<[u8; BLOCK]> {
        match <[u8; NONCE_LEN]>::try_from(self.iv.as_slice()) {
            Ok(nonce) => Ok(first_counter(nonce)),
            // The padding and the lengths of GHASH are those that J0 asks for.
            Err(_) => self.ghash(&[], &self.iv),
        }
    }

    /// The encrypted counter block, and `data` with the key stream after it.
    fn crypt(
        &self,
        counter: [u8; BLOCK],
        data: &[u8],
    ) -> Result<([u8; BLOCK], Zeroizing<Vec<u8>>)> {
        let mut ctr = Ctr::wrapping(counter, &self.key)?;
        let mask = ctr.apply(&[0; BLOCK])?;
        Ok((mask.as_slice().try_into().map_err(failed)?, ctr.apply(data)?))
    }

    /// GHASH over `aad` and `ciphertext` with their lengths (6.4, 7.1 step 5).
    ///
    /// Nothing that depends on the nonce comes out: its mask is taken off the tag again.
    fn ghash(&self, aad: &[u8], ciphertext: &[u8]) -> Result<[u8; BLOCK]> {
        let nonce = [0; NONCE_LEN];
        let (mask, mut data) = self.crypt(first_counter(nonce), ciphertext)?;
        Ok(xor(self.seal_with(nonce, aad, &mut data)?, mask))
    }

    /// Encrypts in place and gives the whole tag.
    fn seal_with(&self, nonce: [u8; NONCE_LEN], aad: &[u8], data: &mut [u8]) -> Result<[u8; TAG]> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag =
            self.gcm.seal_in_place_separate_tag(nonce, Aad::from(aad), data).map_err(failed)?;
        tag.as_ref().try_into().map_err(failed)
    }
}

fn first_counter(nonce: [u8; NONCE_LEN]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..NONCE_LEN].copy_from_slice(&nonce);
    block[BLOCK - 1] = 1;
    block
}

fn xor(left: [u8; BLOCK], right: [u8; BLOCK]) -> [u8; BLOCK] {
    (u128::from_be_bytes(left) ^ u128::from_be_bytes(right)).to_be_bytes()
}

fn forged() -> Error {
    Error::new(CKR_ENCRYPTED_DATA_INVALID, "the ciphertext does not decrypt with this AES key")
}
