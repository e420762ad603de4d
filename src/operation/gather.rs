//! The data of a signature or a verification, one-shot or in parts: hashed as it comes, or
//! collected up to what the mechanism can take.

use cryptoki_sys::CKR_DATA_LEN_RANGE;
use zeroize::Zeroizing;

use crate::{
    crypto::{
        Hash, Hasher,
        symmetric::{Hmac, SecretKey},
    },
    error::{Error, Result},
};

/// Data on its way into an operation.
#[derive(Clone, Debug)]
pub enum Gather {
    /// Hashed here; its length does not matter.
    Hash(Hash, Box<Hasher>),
    /// Taken into an HMAC with a session key.
    Mac(Box<Hmac>),
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

    /// For an HMAC with a session key.
    ///
    /// # Errors
    /// CKR_MECHANISM_INVALID for a hash without HMAC.
    pub fn mac(hash: Hash, key: &SecretKey) -> Result<Gather> {
        Ok(Gather::Mac(Box::new(Hmac::new(hash, key.bytes())?)))
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
            Gather::Mac(hmac) => hmac.update(part),
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

    /// Bytes kept so far.
    pub fn kept(&self) -> usize {
        match self {
            Gather::Hash(..) | Gather::Mac(_) => 0,
            Gather::Raw { data, .. } => data.len(),
        }
    }

    /// The hash in the mechanism's name, and the digest, the HMAC or the data.
    pub fn finish(self) -> (Option<Hash>, Zeroizing<Vec<u8>>) {
        match self {
            Gather::Hash(hash, hasher) => (Some(hash), Zeroizing::new(hasher.finish())),
            Gather::Mac(hmac) => (None, Zeroizing::new(hmac.finish())),
            Gather::Raw { data, .. } => (None, data),
        }
    }
}
