//! What local keys leave on the stack: aws-lc-rs keeps an expanded AES key inside its objects, which
//! are moved, and a move leaves the bytes where they were. So a call that has touched the bytes of
//! a local key wipes the stack below it when it ends.

use std::{cell::Cell, hint};

/// Bytes that are wiped: keys are moved less deep below (tests/c/wiped.c reads the stack). Without
/// optimisation frames are several times as large.
const DEPTH: usize = if cfg!(debug_assertions) { 64 << 10 } else { 16 << 10 };

thread_local! {
    /// Whether this thread has touched a local key since it wiped. Without destructor, so that it
    /// can be used while the thread ends.
    static TOUCHED: Cell<bool> = const { Cell::new(false) };
}

/// To be called wherever the bytes of a local key are taken or given.
pub(super) fn touched() {
    let _ = TOUCHED.try_with(|touched| touched.set(true));
}

/// Part of what has a key inside: the end of it counts as a touch, since it was moved there.
pub(super) struct Trace;

impl Drop for Trace {
    fn drop(&mut self) {
        touched();
    }
}

/// Wipes what functions have left on the stack below the caller's, if they touched a local key.
pub fn wipe() {
    if TOUCHED.try_with(|touched| touched.replace(false)).unwrap_or(true) {
        overwrite();
    }
}

#[inline(never)]
fn overwrite() {
    hint::black_box(&mut [0_u8; DEPTH]);
}
