//! AES-GCM with a 12-byte nonce.

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

/// An encryption or decryption whose data is still being collected.
pub(super) struct Gcm {
    key: LessSafeKey,
    /// Runs over the data: the counter block after the one that masks the tag.
    ctr: Ctr,
    nonce: [u8; NONCE_LEN],
    aad: Vec<u8>,
    tag_len: usize,
    data: Zeroizing<Vec<u8>>,
}

impl Gcm {
    pub(super) fn new(iv: &[u8], aad: Vec<u8>, tag_len: usize, key: &[u8]) -> Result<Gcm> {
        let Ok(nonce) = <[u8; NONCE_LEN]>::try_from(iv) else {
            refuse!(
                CKR_MECHANISM_PARAM_INVALID,
                "an AES-GCM IV of {} bytes; only {NONCE_LEN} are supported",
                iv.len()
            );
        };
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
        // NIST SP 800-38D, 7.1: the data is encrypted with the nonce and a 32-bit counter from 2.
        let mut block = [0; BLOCK];
        block[..NONCE_LEN].copy_from_slice(&nonce);
        block[BLOCK - 1] = 2;
        Ok(Gcm {
            key: LessSafeKey::new(UnboundKey::new(algorithm, key).map_err(failed)?),
            ctr: Ctr::new(32, block, key)?,
            nonce,
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
        let tag = self.encrypt(&mut data)?;
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
        if self.tag_len == TAG {
            let nonce = Nonce::assume_unique_for_key(self.nonce);
            self.key.open_in_place(nonce, Aad::from(&self.aad), &mut data).map_err(|_| forged())?;
            data.truncate(length);
            return Ok(data);
        }
        // aws-lc-rs opens with whole tags only: encrypt again and compare what there is.
        let (ciphertext, tag) = data.split_at(length);
        let plaintext = self.ctr.apply(ciphertext)?;
        let expected = self.encrypt(&mut Zeroizing::new(plaintext.to_vec()))?;
        verify_slices_are_equal(&expected[..self.tag_len], tag).map_err(|_| forged())?;
        Ok(plaintext)
    }

    /// Encrypts in place and gives the whole tag.
    fn encrypt(&self, data: &mut [u8]) -> Result<[u8; TAG]> {
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(&self.aad), data)
            .map_err(failed)?;
        tag.as_ref().try_into().map_err(failed)
    }
}

fn forged() -> Error {
    Error::new(CKR_ENCRYPTED_DATA_INVALID, "the ciphertext does not decrypt with this AES key")
}
