//! The protocol of 5.2 for output of variable length, tried whole on any function that keeps it.

use cryptoki_sys::*;

use crate::{
    case::{Outcome, ensure},
    client::{Output, PLENTY, Room, Rv, check},
    context::{is, need},
};

/// A function, and the operation around one call of it.
pub struct Protocol<'a> {
    /// Makes ready for the call.
    pub begin: &'a dyn Fn() -> Outcome,
    /// The call.
    pub call: &'a dyn Fn(Room) -> Output,
    /// What must hold of its output and after it: that the operation is over, or goes on.
    pub then: &'a dyn Fn(&[u8]) -> Outcome,
    /// Whether a buffer of the exact length must do: not for decryption, whose length may be
    /// unknown before its end.
    pub exact: bool,
}

/// Nothing begins before a call that needs no operation.
pub fn nothing() -> Outcome {
    Ok(())
}

/// There is no operation any more.
pub fn ended<T>(call: Rv<T>, after: &str) -> Outcome {
    is(call, CKR_OPERATION_NOT_INITIALIZED, &format!("the call after {after}"))
}

impl Protocol<'_> {
    /// The output, in room enough, and what follows it.
    fn gives(&self, room: Room, what: &str) -> Outcome<usize> {
        let output = (self.call)(room);
        ensure(!output.overrun, || format!("{what}: written beyond the buffer"))?;
        let length = output.length;
        let bytes = need(output.result(), what)?;
        ensure(bytes.len() == length, || format!("{what}: told {length}"))?;
        (self.then)(&bytes)?;
        Ok(length)
    }

    /// What a query tells, for an output of this size.
    fn query(&self, size: usize) -> Outcome<usize> {
        let query = (self.call)(Room::Query);
        is(check(query.rv), CKR_OK, "NULL_PTR")?;
        let told = query.length;
        ensure((size..=2 * size + 1024).contains(&told), || {
            format!("NULL_PTR: told {told}, {size} are needed")
        })?;
        Ok(told)
    }

    /// Tries it: a query, buffers that are too short, exact, and longer.
    pub fn holds(&self) -> Outcome {
        (self.begin)()?;
        let size = self.gives(PLENTY, "the call")?;

        (self.begin)()?;
        self.query(size)?;
        let told = self.query(size)?;
        self.gives(PLENTY, "the call after NULL_PTR")?;

        let mut short = vec![0, 1, size / 2, size.saturating_sub(1)];
        short.retain(|room| *room < size);
        short.sort_unstable();
        short.dedup();
        for room in short {
            (self.begin)()?;
            let output = (self.call)(Room::Bytes(room));
            let what = format!("{room} of {size} bytes");
            is(check(output.rv), CKR_BUFFER_TOO_SMALL, &what)?;
            ensure(!output.overrun, || format!("{what}: written beyond the buffer"))?;
            ensure(output.length >= size, || format!("{what}: told {}", output.length))?;
            let told = output.length;
            self.gives(Room::Bytes(told), &format!("the length told after {what}"))?;
        }

        let enough = if self.exact { size } else { told };
        for room in [enough, enough + 1, enough + 500] {
            (self.begin)()?;
            let what = format!("{room} bytes for {size}");
            let given = self.gives(Room::Bytes(room), &what)?;
            ensure(given == size, || format!("{what}: told {given}"))?;
        }
        Ok(())
    }
}
