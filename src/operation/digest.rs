//! C_Digest…: local, always.

use crate::{
    crypto::{Hash, Hasher},
    mechanism::{Mechanism, Scheme},
};

/// A running digest.
#[derive(Clone, Debug)]
pub struct Digesting {
    hash: Hash,
    hasher: Hasher,
}

impl Digesting {
    /// A digest of nothing yet; None for a mechanism that is no digest.
    pub fn new(mechanism: &Mechanism) -> Option<Digesting> {
        match mechanism.scheme {
            Scheme::Digest(hash) => Some(Digesting { hash, hasher: hash.hasher() }),
            _ => None,
        }
    }

    /// Bytes of the result.
    pub fn size(&self) -> usize {
        self.hash.len()
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, part: &[u8]) {
        self.hasher.update(part);
    }

    /// The digest.
    pub fn finish(self) -> Vec<u8> {
        self.hasher.finish()
    }
}
