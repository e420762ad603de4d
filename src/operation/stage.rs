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
mod tests {
    use cryptoki_sys::CKR_DATA_INVALID;

    use super::*;

    const INPUT: &[u8] = b"input";
    const SMALL: Room = Room::Bytes(3);
    const EXACT: Room = Room::Bytes(4);
    const LARGE: Room = Room::Bytes(9);

    fn active() -> Stage<Vec<u8>> {
        let mut stage = Stage::Idle;
        stage.begin(|| Ok(vec![])).unwrap();
        stage
    }

    fn ok(_: Vec<u8>) -> Result<Zeroizing<Vec<u8>>> {
        Ok(Zeroizing::new(b"four".to_vec()))
    }

    fn bad(_: Vec<u8>) -> Result<Zeroizing<Vec<u8>>> {
        Err(Error::new(CKR_DATA_INVALID, "bad"))
    }

    fn never(_: Vec<u8>) -> Result<Zeroizing<Vec<u8>>> {
        panic!("a query or a short buffer must not carry out the operation")
    }

    fn rv<A: std::fmt::Debug>(result: Result<A>) -> cryptoki_sys::CK_RV {
        result.unwrap_err().rv()
    }

    fn bytes(answer: &Answer) -> &[u8] {
        match answer {
            Answer::Bytes(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_works_before_begin_and_nothing_after_the_end() {
        let mut stage: Stage<Vec<u8>> = Stage::Idle;
        for round in 0..2 {
            assert_eq!(rv(stage.update(|_| Ok(()))), CKR_OPERATION_NOT_INITIALIZED, "{round}");
            assert_eq!(
                rv(stage.one_shot(LARGE, INPUT, |_| Ok(Size::Exact(4)), never)),
                CKR_OPERATION_NOT_INITIALIZED
            );
            assert_eq!(
                rv(stage.last(Room::Query, |_| Ok(Size::Exact(4)), never)),
                CKR_OPERATION_NOT_INITIALIZED
            );
            assert_eq!(
                rv(stage.step(LARGE, |_| Ok(1), |_| Ok(Zeroizing::new(vec![])))),
                CKR_OPERATION_NOT_INITIALIZED
            );
            assert_eq!(rv(stage.take(true)), CKR_OPERATION_NOT_INITIALIZED);
            assert_eq!(rv(stage.active()), CKR_OPERATION_NOT_INITIALIZED);
            stage = active();
            stage.one_shot(LARGE, INPUT, |_| Ok(Size::Exact(4)), ok).unwrap();
        }
    }

    #[test]
    fn a_second_begin_is_refused_and_keeps_the_first() {
        let mut stage = active();
        assert_eq!(rv(stage.begin(|| panic!("not made"))), CKR_OPERATION_ACTIVE);
        assert!(stage.is_active());
        stage.cancel();
        assert!(!stage.is_active());
        stage.cancel();
        assert_eq!(rv(stage.begin(|| Err(Error::new(CKR_DATA_INVALID, "")))), CKR_DATA_INVALID);
        assert!(!stage.is_active());
    }

    #[test]
    fn exact_size_is_answered_without_running() {
        for final_call in [false, true] {
            let mut stage = active();
            let mut call = |room, run: fn(Vec<u8>) -> _| {
                if final_call {
                    stage.last(room, |_| Ok(Size::Exact(4)), run)
                } else {
                    stage.one_shot(room, INPUT, |_| Ok(Size::Exact(4)), run)
                }
            };
            assert_eq!(call(Room::Query, never).unwrap(), Answer::Length(4));
            assert_eq!(call(SMALL, never).unwrap(), Answer::TooSmall(4));
            assert_eq!(call(Room::Bytes(0), never).unwrap(), Answer::TooSmall(4));
            assert_eq!(bytes(&call(EXACT, ok).unwrap()), b"four");
            assert_eq!(rv(call(EXACT, never)), CKR_OPERATION_NOT_INITIALIZED);
        }
    }

    #[test]
    fn inexact_result_is_made_once_and_kept_for_the_same_input() {
        let bound = |_: &Vec<u8>| Ok(Size::AtMost(8));
        let mut stage = active();
        assert_eq!(
            stage.one_shot(Room::Query, INPUT, bound, never).unwrap(),
            Answer::Length(8),
            "a query gives the bound"
        );
        assert_eq!(stage.one_shot(SMALL, INPUT, bound, ok).unwrap(), Answer::TooSmall(4));
        assert_eq!(stage.one_shot(Room::Query, INPUT, bound, never).unwrap(), Answer::Length(4));
        assert_eq!(stage.one_shot(SMALL, INPUT, bound, never).unwrap(), Answer::TooSmall(4));
        assert_eq!(bytes(&stage.one_shot(EXACT, INPUT, bound, never).unwrap()), b"four");
        assert!(!stage.is_active());
    }

    #[test]
    fn a_kept_result_is_not_given_for_other_input() {
        let bound = |_: &Vec<u8>| Ok(Size::AtMost(8));
        let mut stage = active();
        stage.one_shot(SMALL, INPUT, bound, ok).unwrap();
        assert_eq!(
            rv(stage.one_shot(LARGE, b"other", bound, never)),
            CKR_OPERATION_NOT_INITIALIZED
        );
        assert!(!stage.is_active(), "other input discards it");

        let mut stage = active();
        stage.one_shot(SMALL, INPUT, bound, ok).unwrap();
        assert_eq!(rv(stage.last(LARGE, bound, never)), CKR_OPERATION_NOT_INITIALIZED);

        let mut stage = active();
        stage.update(|_| Ok(())).unwrap();
        stage.last(SMALL, bound, ok).unwrap();
        assert_eq!(bytes(&stage.last(LARGE, bound, never).unwrap()), b"four");
    }

    #[test]
    fn an_inexact_result_that_fits_below_its_bound_is_given_at_once() {
        let mut stage = active();
        let answer = stage.one_shot(EXACT, INPUT, |_| Ok(Size::AtMost(8)), ok).unwrap();
        assert_eq!(bytes(&answer), b"four");
    }

    #[test]
    fn every_error_ends_the_operation() {
        let exact = |_: &Vec<u8>| Ok(Size::Exact(4));
        let mut stage = active();
        assert_eq!(rv(stage.one_shot(LARGE, INPUT, exact, bad)), CKR_DATA_INVALID);
        assert!(!stage.is_active());

        let mut stage = active();
        assert_eq!(
            rv(stage.one_shot(
                Room::Query,
                INPUT,
                |_| Err(Error::new(CKR_DATA_INVALID, "")),
                never
            )),
            CKR_DATA_INVALID
        );
        assert!(!stage.is_active());

        let mut stage = active();
        assert_eq!(rv(stage.update(|_| Err(Error::new(CKR_DATA_INVALID, "")))), CKR_DATA_INVALID);
        assert!(!stage.is_active());

        let mut stage = active();
        assert_eq!(
            rv(stage.one_shot(LARGE, INPUT, |_| Ok(Size::Exact(5)), ok)),
            CKR_GENERAL_ERROR,
            "a result of another length than announced never leaves"
        );
        assert!(!stage.is_active());
    }

    #[test]
    fn a_one_shot_call_cannot_end_a_multi_part_operation() {
        let mut stage = active();
        stage
            .update(|fed| {
                fed.push(1);
                Ok(())
            })
            .unwrap();
        assert_eq!(
            rv(stage.one_shot(LARGE, INPUT, |_| Ok(Size::Exact(4)), never)),
            CKR_OPERATION_NOT_INITIALIZED
        );
        assert!(!stage.is_active());
        let mut stage = active();
        stage.update(|_| Ok(())).unwrap();
        assert_eq!(rv(stage.take(true)), CKR_OPERATION_NOT_INITIALIZED);
        assert!(!stage.is_active());
        let mut stage = active();
        stage.update(|_| Ok(())).unwrap();
        assert!(stage.take(false).is_ok());
        assert!(!stage.is_active());
    }

    #[test]
    fn a_step_feeds_nothing_until_its_output_fits() {
        let mut stage = active();
        let feed = |fed: &mut Vec<u8>| {
            fed.push(1);
            Ok(Zeroizing::new(fed.clone()))
        };
        assert_eq!(stage.step(Room::Query, |_| Ok(1), feed).unwrap(), Answer::Length(1));
        assert_eq!(stage.step(Room::Bytes(0), |_| Ok(1), feed).unwrap(), Answer::TooSmall(1));
        assert!(matches!(stage, Stage::Active(_)), "still a one-shot call is possible");
        assert_eq!(bytes(&stage.step(SMALL, |_| Ok(1), feed).unwrap()), [1]);
        assert_eq!(bytes(&stage.step(SMALL, |_| Ok(2), feed).unwrap()), [1, 1]);
        assert!(matches!(stage, Stage::Updating(_)));
        assert_eq!(
            rv(stage.step(SMALL, |_| Ok(1), |_| Err(Error::new(CKR_DATA_INVALID, "")))),
            CKR_DATA_INVALID
        );
        assert!(!stage.is_active());
    }

    #[test]
    fn arguments_that_cannot_be_read_end_the_operation() {
        let mut stage: Stage<Vec<u8>> = Stage::Idle;
        let bad = || -> Result<()> { Err(Error::new(CKR_DATA_INVALID, "")) };
        assert_eq!(rv(stage.arguments(bad)), CKR_OPERATION_NOT_INITIALIZED);
        let mut stage = active();
        assert_eq!(stage.arguments(|| Ok(1)).unwrap(), 1);
        assert!(stage.is_active());
        assert_eq!(rv(stage.arguments(bad)), CKR_DATA_INVALID);
        assert!(!stage.is_active());
    }

    #[test]
    fn a_panic_leaves_the_stage_idle() {
        let mut stage = active();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            stage.one_shot(LARGE, INPUT, |_| Ok(Size::Exact(4)), |_| panic!("inside"))
        }));
        assert!(panicked.is_err());
        assert!(!stage.is_active());
    }
}
