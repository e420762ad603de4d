//! The arguments of C functions as safe values. Raw pointers are read and written here only.
//!
//! Each type is made by an `unsafe fn promised`, called by the entry functions of `table.rs`
//! alone: the promise is the C caller's, as the function's description in the standard words it.
//! A NULL where the promise needs a pointer is no broken promise but CKR_ARGUMENTS_BAD, found
//! when the value is used, so that a bad handle is reported first.

mod parameter;
mod template;

use std::{marker::PhantomData, ptr, slice};

use cryptoki_sys::{
    CK_BBOOL, CK_BYTE, CK_MECHANISM, CK_MECHANISM_TYPE, CK_OBJECT_HANDLE, CK_ULONG,
    CKR_ARGUMENTS_BAD, CKR_BUFFER_TOO_SMALL,
};

pub use parameter::{
    GcmIv, GcmMessageParameter, GcmParameter, GcmWrapParameter, OaepParameter, Parameter,
    PssParameter,
};
pub use template::{Asked, CK_UNAVAILABLE_INFORMATION, Template};

use crate::{
    error::{Error, Result},
    operation::{Answer, Room},
};

/// The longest buffer a caller can have: the address space of a process on x86-64 Linux, which
/// hands out no more than 47 bits unless asked to. A longer one is a mistake of the caller, that
/// would otherwise be read until the end of what is mapped.
const MAX_LENGTH: usize = 1 << 47;

/// A length that a buffer can have.
fn possible(length: CK_ULONG) -> Result<usize> {
    usize::try_from(length)
        .ok()
        .filter(|n| *n <= MAX_LENGTH)
        .ok_or_else(|| Error::new(CKR_ARGUMENTS_BAD, format!("a length of {length} bytes")))
}

/// Bytes the caller gives: a pointer and a length.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    start: *const CK_BYTE,
    length: CK_ULONG,
    call: PhantomData<&'a [u8]>,
}

impl<'a> Input<'a> {
    /// # Safety
    /// For the time of the call `start` is NULL or points to `length` readable bytes.
    pub unsafe fn promised(start: *const CK_BYTE, length: CK_ULONG) -> Self {
        Input { start, length, call: PhantomData }
    }

    /// The bytes; NULL with length 0 is the empty string.
    pub fn bytes(&self) -> Result<&'a [u8]> {
        // SAFETY: `promised`'s contract.
        unsafe { bytes_at(self.start, self.length) }
    }

    /// Whether the pointer is NULL (C_Login's protected authentication path).
    pub fn is_null(&self) -> bool {
        self.start.is_null()
    }
}

/// # Safety
/// `start` is NULL or points to `length` bytes that stay readable for `'a`.
#[allow(clippy::disallowed_methods)] // the one place that reads the caller's bytes
unsafe fn bytes_at<'a>(start: *const u8, length: CK_ULONG) -> Result<&'a [u8]> {
    match length {
        0 => Ok(&[]),
        _ if start.is_null() => Err(null("a buffer with a length")),
        _ => {
            let length = possible(length)?;
            // SAFETY: not NULL, no longer than an allocation can be; readable by the contract.
            Ok(unsafe { slice::from_raw_parts(start, length) })
        }
    }
}

fn null(what: &str) -> Error {
    Error::new(CKR_ARGUMENTS_BAD, format!("NULL where {what} is needed"))
}

/// A buffer for a result of variable length (PKCS#11 3.2, clause 5.2).
pub struct Output<'a> {
    start: *mut CK_BYTE,
    length: *mut CK_ULONG,
    call: PhantomData<&'a mut [u8]>,
}

impl Output<'_> {
    /// # Safety
    /// For the time of the call `length` is NULL or points to a CK_ULONG, and `start` is NULL or
    /// points to `*length` writable bytes.
    pub unsafe fn promised(start: *mut CK_BYTE, length: *mut CK_ULONG) -> Self {
        Output { start, length, call: PhantomData }
    }

    /// How much room there is, or that only the length is asked for.
    pub fn room(&self) -> Result<Room> {
        if self.length.is_null() {
            return Err(null("the length of the output"));
        }
        if self.start.is_null() {
            return Ok(Room::Query);
        }
        // SAFETY: not NULL, and a CK_ULONG by `promised`'s contract.
        let capacity = unsafe { self.length.read_unaligned() };
        Ok(Room::Bytes(usize::try_from(capacity).unwrap_or(usize::MAX)))
    }

    /// Whether there is a place for the length: C_SignMessageNext gives none while parts follow.
    pub fn is_wanted(&self) -> bool {
        !self.length.is_null()
    }

    /// Hands an operation's answer to the caller: a length, CKR_BUFFER_TOO_SMALL or bytes.
    pub fn deliver(self, answer: Answer) -> Result<()> {
        let room = self.room()?;
        // SAFETY: `room` has seen that the length is not NULL.
        let store = |n: usize| unsafe { self.length.write_unaligned(n as CK_ULONG) };
        let bytes = match answer {
            Answer::Length(n) => {
                store(n);
                return Ok(());
            }
            Answer::TooSmall(n) => {
                store(n);
                return Err(too_small(n, room));
            }
            Answer::Bytes(bytes) => bytes,
        };
        match room {
            Room::Bytes(capacity) if bytes.len() <= capacity => {
                // SAFETY: the caller promised `capacity` writable bytes.
                unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.start, bytes.len()) };
                store(bytes.len());
                Ok(())
            }
            _ => {
                store(bytes.len());
                Err(too_small(bytes.len(), room))
            }
        }
    }
}

fn too_small(needed: usize, room: Room) -> Error {
    Error::new(CKR_BUFFER_TOO_SMALL, format!("{needed} bytes are needed, there is {room:?}"))
}

/// A buffer of fixed length to be filled (C_GenerateRandom).
pub struct Bytes<'a> {
    start: *mut CK_BYTE,
    length: CK_ULONG,
    call: PhantomData<&'a mut [u8]>,
}

impl<'a> Bytes<'a> {
    /// # Safety
    /// For the time of the call `start` is NULL or points to `length` writable bytes.
    pub unsafe fn promised(start: *mut CK_BYTE, length: CK_ULONG) -> Self {
        Bytes { start, length, call: PhantomData }
    }

    /// How many bytes are wanted.
    pub fn wanted(&self) -> Result<usize> {
        if self.start.is_null() && self.length != 0 {
            return Err(null("a buffer with a length"));
        }
        possible(self.length)
    }

    /// Writes `bytes` at `offset`; what does not fit is left out.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> Result<()> {
        let room = self.wanted()?.saturating_sub(offset).min(bytes.len());
        if room > 0 {
            // SAFETY: `offset + room` is within the buffer, so within its allocation.
            let start = unsafe { self.start.add(offset) };
            // SAFETY: `room` bytes at `start` are writable by `promised`'s contract.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), start, room) };
        }
        Ok(())
    }
}

/// Room for one value.
pub struct Place<'a, T> {
    at: *mut T,
    call: PhantomData<&'a mut T>,
}

impl<T> Place<'_, T> {
    /// # Safety
    /// For the time of the call `at` is NULL or points to a writable `T`.
    pub unsafe fn promised(at: *mut T) -> Self {
        Place { at, call: PhantomData }
    }

    /// Refuses NULL before any work is done.
    pub fn needed(&self) -> Result<()> {
        if self.at.is_null() { Err(null("room for a result")) } else { Ok(()) }
    }

    /// Stores the result.
    pub fn put(&self, value: T) -> Result<()> {
        self.needed()?;
        // SAFETY: not NULL, and writable by `promised`'s contract.
        unsafe { self.at.write_unaligned(value) };
        Ok(())
    }

    /// The address, for the caller's own purposes (C_Initialize's arguments, reserved pointers).
    pub fn address(&self) -> *mut T {
        self.at
    }
}

impl<T: Copy> Place<'_, T> {
    /// The value that is there; NULL is None.
    pub fn value(&self) -> Option<T> {
        if self.at.is_null() {
            return None;
        }
        // SAFETY: not NULL, and a `T` by `promised`'s contract.
        Some(unsafe { self.at.read_unaligned() })
    }
}

impl Place<'_, u8> {
    /// The NUL-terminated string that is there, of at most `most` bytes.
    pub fn c_string(&self, most: usize) -> Option<Vec<u8>> {
        if self.at.is_null() {
            return None;
        }
        let mut text = Vec::new();
        for i in 0..most {
            // SAFETY: the string goes on: no NUL has been met before `i`.
            let at = unsafe { self.at.add(i) };
            // SAFETY: readable, since the caller promised a NUL-terminated string.
            match unsafe { at.read_unaligned() } {
                0 => return Some(text),
                byte => text.push(byte),
            }
        }
        None
    }
}

/// A list of values to be returned with its count (C_GetSlotList, C_GetMechanismList).
pub struct List<'a, T> {
    start: *mut T,
    count: *mut CK_ULONG,
    call: PhantomData<&'a mut [T]>,
}

impl<T: Copy> List<'_, T> {
    /// # Safety
    /// For the time of the call `count` is NULL or points to a CK_ULONG, and `start` is NULL or
    /// points to room for `*count` values.
    pub unsafe fn promised(start: *mut T, count: *mut CK_ULONG) -> Self {
        List { start, count, call: PhantomData }
    }

    /// The count, CKR_BUFFER_TOO_SMALL with the count, or the values (clause 5.2).
    pub fn deliver(&self, values: &[T]) -> Result<()> {
        if self.count.is_null() {
            return Err(null("the count of a list"));
        }
        // SAFETY: not NULL, and a CK_ULONG by `promised`'s contract.
        let capacity = unsafe { self.count.read_unaligned() };
        // SAFETY: as above.
        unsafe { self.count.write_unaligned(values.len() as CK_ULONG) };
        if self.start.is_null() {
            return Ok(());
        }
        if (values.len() as CK_ULONG) > capacity {
            return Err(Error::new(
                CKR_BUFFER_TOO_SMALL,
                format!("{} values, room for {capacity}", values.len()),
            ));
        }
        for (i, value) in values.iter().enumerate() {
            // SAFETY: `i` is below the capacity the caller promised.
            let at = unsafe { self.start.add(i) };
            // SAFETY: writable by the same promise.
            unsafe { at.write_unaligned(*value) };
        }
        Ok(())
    }
}

/// Room for object handles (C_FindObjects).
pub struct Handles<'a> {
    start: *mut CK_OBJECT_HANDLE,
    max: CK_ULONG,
    call: PhantomData<&'a mut [CK_OBJECT_HANDLE]>,
}

impl Handles<'_> {
    /// # Safety
    /// For the time of the call `start` is NULL or points to room for `max` handles.
    pub unsafe fn promised(start: *mut CK_OBJECT_HANDLE, max: CK_ULONG) -> Self {
        Handles { start, max, call: PhantomData }
    }

    /// How many handles there is room for.
    pub fn capacity(&self) -> Result<usize> {
        if self.start.is_null() && self.max != 0 {
            return Err(null("room for object handles"));
        }
        Ok(usize::try_from(self.max).unwrap_or(usize::MAX))
    }

    /// Stores the handles; there are no more than [`Handles::capacity`] said.
    pub fn put(&self, handles: &[CK_OBJECT_HANDLE]) {
        for (i, handle) in handles.iter().take(self.max as usize).enumerate() {
            // SAFETY: `i` is below `max`.
            let at = unsafe { self.start.add(i) };
            // SAFETY: writable by `promised`'s contract.
            unsafe { at.write_unaligned(*handle) };
        }
    }
}

/// A mechanism and its parameter.
pub struct Mechanism<'a> {
    at: *const CK_MECHANISM,
    call: PhantomData<&'a CK_MECHANISM>,
}

impl<'a> Mechanism<'a> {
    /// # Safety
    /// For the time of the call `at` is NULL or points to a CK_MECHANISM, whose parameter is
    /// NULL or points to `ulParameterLen` bytes and what the mechanism's description says.
    pub unsafe fn promised(at: *const CK_MECHANISM) -> Self {
        Mechanism { at, call: PhantomData }
    }

    /// The mechanism, or None for NULL: the cancelling form of the Init functions (3.0 on).
    pub fn read(&self) -> Option<(CK_MECHANISM_TYPE, Parameter<'a>)> {
        if self.at.is_null() {
            return None;
        }
        // SAFETY: not NULL, and a CK_MECHANISM by `promised`'s contract.
        let mechanism = unsafe { self.at.read_unaligned() };
        // SAFETY: the same contract.
        let parameter =
            unsafe { Parameter::promised(mechanism.pParameter, mechanism.ulParameterLen) };
        Some((mechanism.mechanism, parameter))
    }

    /// The mechanism where NULL has no meaning.
    pub fn required(&self) -> Result<(CK_MECHANISM_TYPE, Parameter<'a>)> {
        self.read().ok_or_else(|| null("a mechanism"))
    }
}

/// CK_TRUE or CK_FALSE from one byte.
pub fn is_true(value: CK_BBOOL) -> bool {
    value != 0
}
