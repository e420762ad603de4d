//! C_Digest…: local, always.

use zeroize::Zeroizing;

use super::{Operation, Size};
use crate::{
    crypto::{Hash, Hasher},
    error::Result,
    mechanism::{Mechanism, Scheme},
    session::{Family, Session},
    slot::Slot,
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
}

impl Operation for Digesting {
    fn family(session: &Session) -> &Family<Self> {
        &session.digest
    }

    fn size(&self) -> Result<Size> {
        Ok(Size::Exact(self.hash.len()))
    }

    fn feed(&mut self, part: &[u8]) -> Result<()> {
        self.hasher.update(part);
        Ok(())
    }

    fn finish(self, _: &Slot) -> Result<Zeroizing<Vec<u8>>> {
        Ok(self.hasher.finish().into())
    }
}
