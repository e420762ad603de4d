//! AES with keys of the service: CBC of any length by chaining requests, GCM of one request.

use std::sync::Arc;

use akv_wire::{EncryptionAlgorithm, SymmetricMode};
use cryptoki_sys::*;
use zeroize::Zeroizing;

use super::{Size, joined, length_range, output};
use crate::{
    crypto::symmetric::{BLOCK, Direction, Mode},
    error::{Error, Result},
    mechanism::parameter::invalid,
    object::{VaultKey, VaultKeyKind},
    operation::gather::Gather,
    slot::Slot,
    vault::Cipher,
};

/// Bytes of the IV that the service makes and takes for GCM.
pub const GCM_IV: usize = 12;
/// Bytes of the tag that it makes and takes.
pub const GCM_TAG: usize = 16;

/// The service's name for AES in a mode with this key: the size is part of it.
///
/// # Errors
/// CKR_KEY_SIZE_RANGE where the size is not known.
pub fn algorithm(key: &VaultKey, mode: SymmetricMode) -> Result<EncryptionAlgorithm> {
    let size = match key.kind {
        VaultKeyKind::Secret(size) => size,
        VaultKeyKind::Rsa(_) | VaultKeyKind::Ec(..) => None,
    };
    EncryptionAlgorithm::ALL
        .iter()
        .copied()
        .find(|algorithm| {
            algorithm.mode() == Some(mode)
                && algorithm.key_bits().is_some()
                && algorithm.key_bits() == size
        })
        .ok_or_else(|| {
            Error::new(
                CKR_KEY_SIZE_RANGE,
                format!(
                    "the size of AES key '{}' is not known: the service tells it from \
                     `api_version` 2025-07-01 on",
                    key.name
                ),
            )
        })
}

/// AES-CBC, in parts. A part costs one request per `chunk` bytes of whole blocks; the next
/// request's IV is the last block of ciphertext.
#[derive(Debug)]
pub struct Chaining {
    key: Arc<VaultKey>,
    direction: Direction,
    mode: Mode,
    plain: EncryptionAlgorithm,
    padded: Option<EncryptionAlgorithm>,
    iv: [u8; BLOCK],
    /// Less than a block, or one block that may be the padding.
    pending: Zeroizing<Vec<u8>>,
    chunk: usize,
}

impl Chaining {
    /// # Errors
    /// CKR_KEY_SIZE_RANGE.
    pub fn new(
        slot: &Slot,
        direction: Direction,
        padded: bool,
        iv: [u8; BLOCK],
        key: &Arc<VaultKey>,
    ) -> Result<Chaining> {
        let last = match padded {
            true => Some(algorithm(key, SymmetricMode::CbcPad)?),
            false => None,
        };
        Ok(Chaining {
            key: Arc::clone(key),
            direction,
            mode: if padded { Mode::CbcPad { iv } } else { Mode::Cbc { iv } },
            plain: algorithm(key, SymmetricMode::Cbc)?,
            padded: last,
            iv,
            pending: Zeroizing::new(Vec::with_capacity(BLOCK)),
            chunk: (slot.token.max_aes_payload / BLOCK).max(1) * BLOCK,
        })
    }

    pub fn size(&self, more: usize) -> Result<Size> {
        output(self.direction, &self.mode, self.pending.len().saturating_add(more))
    }

    /// Whole blocks, but for the one that may hold the padding.
    pub fn update_size(&self, more: usize) -> usize {
        let available = self.pending.len().saturating_add(more);
        let kept = match (self.direction, self.padded) {
            (Direction::Decrypt, Some(_)) => available.min(1),
            _ => 0,
        };
        (available - kept) / BLOCK * BLOCK
    }

    pub fn feed(&mut self, slot: &Slot, part: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let ready = self.update_size(part.len());
        if ready == 0 {
            self.pending.extend_from_slice(part);
            return Ok(Zeroizing::default());
        }
        let (now, later) = part.split_at(ready - self.pending.len());
        let blocks = Zeroizing::new([self.pending.as_slice(), now].concat());
        self.pending.clear();
        self.pending.extend_from_slice(later);
        self.run(slot, &blocks)
    }

    /// What is left, with `data` behind it.
    pub fn finish(mut self, slot: &Slot, data: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let all = match self.pending.is_empty() {
            true => Zeroizing::new(data.to_vec()),
            false => Zeroizing::new([self.pending.as_slice(), data].concat()),
        };
        // Nothing is sent of data whose end cannot be right.
        output(self.direction, &self.mode, all.len())?;
        let Some(padded) = self.padded else { return self.run(slot, &all) };
        if all.is_empty() {
            // The block of nothing but padding: the service may refuse an empty value.
            return self.run(slot, &[BLOCK as u8; BLOCK]);
        }
        // The last request has the padding in it, so it is never empty.
        let (head, tail) = all.split_at((all.len() - 1) / self.chunk * self.chunk);
        let first = self.run(slot, head)?;
        let rest = self.request(slot, padded, tail)?;
        Ok(joined(first, rest))
    }

    /// Whole blocks, in as many requests as they need.
    fn run(&mut self, slot: &Slot, blocks: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let mut result = Zeroizing::new(Vec::with_capacity(blocks.len()));
        for chunk in blocks.chunks(self.chunk) {
            let bytes = self.request(slot, self.plain, chunk)?;
            if bytes.len() != chunk.len() {
                return Err(Error::new(
                    CKR_DEVICE_ERROR,
                    format!("the service made {} bytes of {}", bytes.len(), chunk.len()),
                ));
            }
            let ciphertext: &[u8] = match self.direction {
                Direction::Encrypt => &bytes,
                Direction::Decrypt => chunk,
            };
            self.iv = ciphertext.last_chunk().copied().unwrap_or(self.iv);
            result.extend_from_slice(&bytes);
        }
        Ok(result)
    }

    fn request(
        &self,
        slot: &Slot,
        algorithm: EncryptionAlgorithm,
        value: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        let input = Cipher { value, iv: Some(&self.iv), ..Cipher::default() };
        let key = self.key.reference();
        match self.direction {
            Direction::Encrypt => {
                let made = slot.note(slot.vault.encrypt(key, algorithm, &input))?;
                Ok(Zeroizing::new(made.value))
            }
            Direction::Decrypt => slot.note(slot.vault.decrypt(key, algorithm, &input)),
        }
    }
}

/// AES-GCM decryption: ciphertext and tag, in one request.
#[derive(Debug)]
pub struct Opening {
    key: Arc<VaultKey>,
    algorithm: EncryptionAlgorithm,
    iv: Vec<u8>,
    aad: Vec<u8>,
    data: Gather,
    most: usize,
}

impl Opening {
    /// # Errors
    /// CKR_MECHANISM_PARAM_INVALID for an IV or a tag that the service does not take,
    /// CKR_KEY_SIZE_RANGE.
    pub fn new(
        slot: &Slot,
        key: &Arc<VaultKey>,
        iv: &[u8],
        aad: &[u8],
        tag_len: usize,
    ) -> Result<Opening> {
        check_gcm(iv.len(), tag_len)?;
        let most = slot.token.max_aes_payload;
        Ok(Opening {
            key: Arc::clone(key),
            algorithm: algorithm(key, SymmetricMode::Gcm)?,
            iv: iv.to_vec(),
            aad: aad.to_vec(),
            data: Gather::raw(most.saturating_add(GCM_TAG)),
            most,
        })
    }

    pub fn size(&self, more: usize) -> Result<Size> {
        let length = self.data.kept().saturating_add(more);
        match length.checked_sub(GCM_TAG) {
            Some(plaintext) if plaintext <= self.most => Ok(Size::Exact(plaintext)),
            _ => Err(Error::new(
                CKR_ENCRYPTED_DATA_LEN_RANGE,
                format!(
                    "{length} bytes of ciphertext and tag; {GCM_TAG} to {} are possible \
                     (`max_aes_payload`)",
                    self.most.saturating_add(GCM_TAG)
                ),
            )),
        }
    }

    pub fn feed(&mut self, part: &[u8]) -> Result<()> {
        self.data.feed(part).map_err(|error| {
            Error::new(length_range(Direction::Decrypt), error.sentence().to_owned())
        })
    }

    pub fn finish(self, slot: &Slot) -> Result<Zeroizing<Vec<u8>>> {
        self.size(0)?;
        let (_, data) = self.data.finish();
        let (ciphertext, tag) = data.split_at(data.len() - GCM_TAG);
        open(slot, &self.key, self.algorithm, &self.iv, &self.aad, ciphertext, tag)
    }
}

/// One AES-GCM decryption at the service.
///
/// # Errors
/// CKR_ENCRYPTED_DATA_INVALID; docs/errors.md.
fn open(
    slot: &Slot,
    key: &VaultKey,
    algorithm: EncryptionAlgorithm,
    iv: &[u8],
    aad: &[u8],
    ciphertext: &[u8],
    tag: &[u8],
) -> Result<Zeroizing<Vec<u8>>> {
    let input = Cipher {
        value: ciphertext,
        iv: Some(iv),
        aad: (!aad.is_empty()).then_some(aad),
        tag: Some(tag),
    };
    let key = key.reference();
    slot.note(slot.vault.decrypt(key, algorithm, &input))
}

/// Whether the service can do GCM with an IV and a tag of so many bytes.
///
/// # Errors
/// CKR_MECHANISM_PARAM_INVALID.
pub fn check_gcm(iv_len: usize, tag_len: usize) -> Result<()> {
    if (iv_len, tag_len) == (GCM_IV, GCM_TAG) {
        return Ok(());
    }
    Err(invalid(format!(
        "an IV of {iv_len} bytes and a tag of {tag_len}: the service has {GCM_IV} and {GCM_TAG}"
    )))
}
