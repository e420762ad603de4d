//! Room 3: the operations. Init refuses, the operation only carries out.

pub mod change;
pub mod create;
pub mod crypt;
pub mod digest;
pub mod find;
pub mod flight;
pub mod gather;
pub mod gcm;
pub mod generate;
pub mod generate_secret;
pub mod import;
pub mod key;
pub mod making;
pub mod message;
pub mod outage;
pub mod recover;
pub mod secret;
pub mod sign;
pub mod stage;
pub mod transfer;
pub mod unwrap;
pub mod verify;
pub mod wrap;

use std::sync::Arc;

use cryptoki_sys::CK_MECHANISM_TYPE;
use zeroize::Zeroizing;

pub use stage::{Answer, Room, Size, Stage};

use crate::{
    abi::arg::Parameter,
    error::Result,
    object::Object,
    session::{Family, Session},
    slot::Slot,
};

/// An operation that takes data, at once or in parts, and ends with a result. A value of the type
/// was checked when it was made and can be carried out; only what depends on the data itself can
/// still be refused.
pub trait Operation: Sized {
    /// Where a session keeps operations of this kind.
    fn family(session: &Session) -> &Family<Self>;

    /// The length of what [`Operation::finish`] gives.
    ///
    /// # Errors
    /// Data so far that makes no whole result.
    fn size(&self) -> Result<Size>;

    /// Takes the next bytes.
    ///
    /// # Errors
    /// Data that cannot be processed, mostly its length.
    fn feed(&mut self, part: &[u8]) -> Result<()>;

    /// Ends the operation and gives its result.
    ///
    /// # Errors
    /// Data that cannot be processed; docs/errors.md.
    fn finish(self, slot: &Slot) -> Result<Zeroizing<Vec<u8>>>;

    /// The length of what [`Operation::one_shot`] gives for `data`.
    ///
    /// # Errors
    /// As [`Operation::size`].
    fn one_shot_size(&self, _data: &[u8]) -> Result<Size> {
        self.size()
    }

    /// All of it in one call.
    ///
    /// # Errors
    /// As [`Operation::feed`] and [`Operation::finish`].
    fn one_shot(mut self, data: &[u8], slot: &Slot) -> Result<Zeroizing<Vec<u8>>> {
        self.feed(data)?;
        stumble!("operation");
        self.finish(slot)
    }
}

/// An operation that needs a key.
pub trait Keyed: Operation {
    /// Checks mechanism, parameter and key.
    ///
    /// # Errors
    /// As [`key::check`]; CKR_MECHANISM_PARAM_INVALID, CKR_KEY_SIZE_RANGE.
    fn new(
        slot: &Slot,
        kind: CK_MECHANISM_TYPE,
        parameter: &Parameter<'_>,
        key: &Arc<Object>,
    ) -> Result<Self>;
}

/// An operation that may give output for each part (C_EncryptUpdate, C_DecryptUpdate). By default
/// it collects, and gives all of it at the end.
pub trait Streaming: Operation {
    /// How many bytes [`Streaming::part`] will give for `part`, exactly.
    ///
    /// # Errors
    /// A part that cannot be processed.
    fn part_size(&self, _part: &[u8]) -> Result<usize> {
        Ok(0)
    }

    /// Takes the next bytes and gives what is ready.
    ///
    /// # Errors
    /// As [`Operation::feed`].
    fn part(&mut self, part: &[u8], _slot: &Slot) -> Result<Zeroizing<Vec<u8>>> {
        self.feed(part)?;
        Ok(Zeroizing::default())
    }
}
