//! The state of one operation family of one session: what may be called, what a result's length
//! is, when an operation ends. PKCS#11 3.2, clauses 5.2 (functions returning a variable-length
//! output) and 5.8–5.16 (the Init / one-shot / Update / Final families), written once.
//!
//! An operation is a value of type `T`. It is in a `Stage` while it is active, `finish` takes it
//! out, and nothing but `Stage` can put it back: an operation that ended cannot be used again.

use cryptoki_sys::{CKR_GENERAL_ERROR, CKR_OPERATION_ACTIVE, CKR_OPERATION_NOT_INITIALIZED};
use zeroize::Zeroizing;

use crate::{
    crypto::hash::Hash,
    error::{Error, Result},
};

/// The room a caller offers for a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// None: a NULL buffer asks for the length only.
    Query,
    /// So many bytes.
    Bytes(usize),
}

impl Room {
    fn fits(self, length: usize) -> bool {
        matches!(self, Room::Bytes(capacity) if length <= capacity)
    }
}

/// What goes back to the caller of a function with a variable-length output.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The length (or a bound of it), asked for by a NULL buffer.
    Length(usize),
    /// CKR_BUFFER_TOO_SMALL with the length that is needed.
    TooSmall(usize),
    /// The result.
    Bytes(Zeroizing<Vec<u8>>),
}

/// How long a result will be, known before it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Exactly so many bytes (a signature, a digest).
    Exact(usize),
    /// At most so many (decrypted data).
    AtMost(usize),
}

/// One operation family of one session.
#[derive(Debug, Default)]
pub enum Stage<T> {
    /// No operation.
    #[default]
    Idle,
    /// Initialised, no data yet: the one-shot call, Update and Final are possible.
    Active(T),
    /// Data has come by Update: only Update and Final are possible.
    Updating(T),
    /// A result of inexact length was made and did not fit: it waits for a bigger buffer.
    Produced(Kept),
}

/// A result that waits, and for whom.
#[derive(Debug)]
pub struct Kept {
    result: Zeroizing<Vec<u8>>,
    /// SHA-256 of the one-shot call's input; None = the result of a Final.
    input: Option<Vec<u8>>,
}

impl<T> Stage<T> {
    /// Starts an operation. `make` is not called while one is active.
    ///
    /// # Errors
    /// CKR_OPERATION_ACTIVE, or whatever `make` refuses with.
    pub fn begin(&mut self, make: impl FnOnce() -> Result<T>) -> Result<()> {
        match self {
            Stage::Idle => {
                *self = Stage::Active(make()?);
                Ok(())
            }
            _ => self.idle(),
        }
    }

    /// Refuses to begin while an operation is active, as [`Stage::begin`] does.
    ///
    /// # Errors
    /// CKR_OPERATION_ACTIVE.
    pub fn idle(&self) -> Result<()> {
        match self.is_active() {
            true => Err(Error::new(CKR_OPERATION_ACTIVE, "an operation of this kind is active")),
            false => Ok(()),
        }
    }

    /// Ends whatever is active; nothing active is no error.
    pub fn cancel(&mut self) {
        *self = Stage::Idle;
    }

    /// Whether an operation is active.
    pub fn is_active(&self) -> bool {
        !matches!(self, Stage::Idle)
    }

    /// The active operation, to be looked at without ending it (C_FindObjects).
    ///
    /// # Errors
    /// CKR_OPERATION_NOT_INITIALIZED.
    pub fn active(&mut self) -> Result<&mut T> {
        match self {
            Stage::Active(operation) | Stage::Updating(operation) => Ok(operation),
            _ => Err(not_initialized()),
        }
    }

    /// Reads the arguments of a call. One that cannot be read ends the operation like any other
    /// error (clause 5.2), unless there is none: that is reported first.
    ///
    /// # Errors
    /// CKR_OPERATION_NOT_INITIALIZED, or whatever `read` refuses with.
    pub fn arguments<A>(&mut self, read: impl FnOnce() -> Result<A>) -> Result<A> {
        if !self.is_active() {
            return Err(not_initialized());
        }
        read().inspect_err(|_| self.cancel())
    }

    /// Feeds a part (C_SignUpdate …). A failure ends the operation.
    ///
    /// # Errors
    /// CKR_OPERATION_NOT_INITIALIZED, or whatever `feed` refuses with.
    pub fn update(&mut self, feed: impl FnOnce(&mut T) -> Result<()>) -> Result<()> {
        match std::mem::take(self) {
            Stage::Active(mut operation) | Stage::Updating(mut operation) => {
                feed(&mut operation)?;
                *self = Stage::Updating(operation);
                Ok(())
            }
            Stage::Produced(_) | Stage::Idle => Err(not_initialized()),
        }
    }

    /// Feeds a part and returns output for it (C_EncryptUpdate …): `size` says how many bytes
    /// the part will yield, exactly. A query and a too small buffer feed nothing.
    ///
    /// # Errors
    /// CKR_OPERATION_NOT_INITIALIZED, or whatever the closures refuse with; those end it.
    pub fn step(
        &mut self,
        room: Room,
        size: impl FnOnce(&T) -> Result<usize>,
        feed: impl FnOnce(&mut T) -> Result<Zeroizing<Vec<u8>>>,
    ) -> Result<Answer> {
        match std::mem::take(self) {
            was @ (Stage::Active(_) | Stage::Updating(_)) => {
                let (mut operation, updating) = match was {
                    Stage::Active(operation) => (operation, false),
                    Stage::Updating(operation) => (operation, true),
                    _ => return Err(not_initialized()),
                };
                let length = size(&operation)?;
                if !room.fits(length) {
                    *self = if updating {
                        Stage::Updating(operation)
                    } else {
                        Stage::Active(operation)
                    };
                    return Ok(short(room, length));
                }
                let result = feed(&mut operation)?;
                *self = Stage::Updating(operation);
                Ok(Answer::Bytes(result))
            }
            Stage::Produced(_) | Stage::Idle => Err(not_initialized()),
        }
    }

    /// The one-shot call (C_Sign …) with its `input`.
    ///
    /// # Errors
    /// CKR_OPERATION_NOT_INITIALIZED where nothing is active or data has come by Update;
    /// whatever `size` or `run` refuse with. All of them end the operation.
    pub fn one_shot(
        &mut self,
        room: Room,
        input: &[u8],
        size: impl FnOnce(&T) -> Result<Size>,
        run: impl FnOnce(T) -> Result<Zeroizing<Vec<u8>>>,
    ) -> Result<Answer> {
        match std::mem::take(self) {
            Stage::Active(operation) => {
                self.produce(room, Some(input), operation, Stage::Active, size, run)
            }
            Stage::Produced(kept) => self.hand_out(room, Some(input), kept),
            Stage::Updating(_) => Err(Error::new(
                CKR_OPERATION_NOT_INITIALIZED,
                "the one-shot call cannot end an operation that was fed by Update",
            )),
            Stage::Idle => Err(not_initialized()),
        }
    }

    /// The Final call.
    ///
    /// # Errors
    /// As [`Stage::one_shot`], but data fed by Update is what it is for.
    pub fn last(
        &mut self,
        room: Room,
        size: impl FnOnce(&T) -> Result<Size>,
        run: impl FnOnce(T) -> Result<Zeroizing<Vec<u8>>>,
    ) -> Result<Answer> {
        match std::mem::take(self) {
            Stage::Active(operation) => {
                self.produce(room, None, operation, Stage::Active, size, run)
            }
            Stage::Updating(operation) => {
                self.produce(room, None, operation, Stage::Updating, size, run)
            }
            Stage::Produced(kept) => self.hand_out(room, None, kept),
            Stage::Idle => Err(not_initialized()),
        }
    }

    /// A call that ends the operation whatever it finds (C_Verify, C_VerifyFinal): takes the
    /// operation out. `one_shot` tells whether earlier Updates forbid the call.
    ///
    /// # Errors
    /// CKR_OPERATION_NOT_INITIALIZED.
    pub fn take(&mut self, one_shot: bool) -> Result<T> {
        match std::mem::take(self) {
            Stage::Active(operation) => Ok(operation),
            Stage::Updating(operation) if !one_shot => Ok(operation),
            Stage::Updating(_) => Err(Error::new(
                CKR_OPERATION_NOT_INITIALIZED,
                "the one-shot call cannot end an operation that was fed by Update",
            )),
            Stage::Produced(_) | Stage::Idle => Err(not_initialized()),
        }
    }

    fn produce(
        &mut self,
        room: Room,
        input: Option<&[u8]>,
        operation: T,
        back: impl FnOnce(T) -> Self,
        size: impl FnOnce(&T) -> Result<Size>,
        run: impl FnOnce(T) -> Result<Zeroizing<Vec<u8>>>,
    ) -> Result<Answer> {
        let size = size(&operation)?;
        let (Size::Exact(bound) | Size::AtMost(bound)) = size;
        let must_wait = match size {
            Size::Exact(length) => !room.fits(length),
            Size::AtMost(_) => room == Room::Query,
        };
        if must_wait {
            *self = back(operation);
            return Ok(short(room, bound));
        }
        let result = run(operation)?;
        match size {
            Size::Exact(length) if result.len() != length => Err(Error::new(
                CKR_GENERAL_ERROR,
                format!("a result of {} bytes where {length} were due", result.len()),
            )),
            _ if room.fits(result.len()) => Ok(Answer::Bytes(result)),
            _ => {
                let length = result.len();
                *self = Stage::Produced(Kept { result, input: input.map(fingerprint) });
                Ok(Answer::TooSmall(length))
            }
        }
    }

    fn hand_out(&mut self, room: Room, input: Option<&[u8]>, kept: Kept) -> Result<Answer> {
        if kept.input != input.map(fingerprint) {
            return Err(Error::new(
                CKR_OPERATION_NOT_INITIALIZED,
                "a result is waiting for a bigger buffer, and this call has other input",
            ));
        }
        if room.fits(kept.result.len()) {
            return Ok(Answer::Bytes(kept.result));
        }
        let answer = short(room, kept.result.len());
        *self = Stage::Produced(kept);
        Ok(answer)
    }
}

fn short(room: Room, length: usize) -> Answer {
    match room {
        Room::Query => Answer::Length(length),
        Room::Bytes(_) => Answer::TooSmall(length),
    }
}

fn fingerprint(input: &[u8]) -> Vec<u8> {
    Hash::Sha256.digest(input)
}

fn not_initialized() -> Error {
    Error::new(CKR_OPERATION_NOT_INITIALIZED, "no operation of this kind is active")
}

#[cfg(test)]
mod tests;
