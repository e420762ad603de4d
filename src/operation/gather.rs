//! The data of a signature or a verification, one-shot or in parts: hashed as it comes, or
//! collected up to what the mechanism can take.

use cryptoki_sys::CKR_DATA_LEN_RANGE;
use zeroize::Zeroizing;

use crate::{
    crypto::{Hash, Hasher},
    error::{Error, Result},
};

/// Data on its way into an operation.
#[derive(Clone, Debug)]
pub enum Gather {
    /// Hashed here; its length does not matter.
    Hash(Hash, Box<Hasher>),
    /// Kept as it is.
    Raw {
        /// So far.
        data: Zeroizing<Vec<u8>>,
        /// The most that the mechanism can take with this key, in bytes.
        most: usize,
    },
}

impl Gather {
    /// For a mechanism that hashes.
    pub fn hashing(hash: Hash) -> Gather {
        Gather::Hash(hash, Box::new(hash.hasher()))
    }

    /// For a mechanism that takes at most `most` bytes as they are.
    pub fn raw(most: usize) -> Gather {
        Gather::Raw { data: Zeroizing::default(), most }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// CKR_DATA_LEN_RANGE beyond what the mechanism can take.
    pub fn feed(&mut self, part: &[u8]) -> Result<()> {
        match self {
            Gather::Hash(_, hasher) => hasher.update(part),
            Gather::Raw { data, most } => {
                if part.len() > most.saturating_sub(data.len()) {
                    return Err(Error::new(
                        CKR_DATA_LEN_RANGE,
                        format!(
                            "{} bytes of data, at most {most} possible",
                            data.len() + part.len()
                        ),
                    ));
                }
                data.extend_from_slice(part);
            }
        }
        Ok(())
    }

    /// The hash in the mechanism's name, and the digest or the data.
    pub fn finish(self) -> (Option<Hash>, Zeroizing<Vec<u8>>) {
        match self {
            Gather::Hash(hash, hasher) => (Some(hash), Zeroizing::new(hasher.finish())),
            Gather::Raw { data, .. } => (None, data),
        }
    }
}
