//! What secrets leave on the stack: a value that is moved stays where it was, too. aws-lc-rs keeps an
//! expanded AES key inside its objects; TLS and JSON copy what the service decrypts. So a call that
//! has touched such bytes wipes the stack below it when it ends.

use std::{cell::Cell, hint};

/// Bytes that are wiped: secrets are moved less deep below (tests/c/wiped.c reads the stack). Without
/// optimisation frames are several times as large.
const DEPTH: usize = if cfg!(debug_assertions) { 64 << 10 } else { 16 << 10 };

thread_local! {
    /// Whether this thread has touched a secret since it wiped. Without destructor, so that it
    /// can be used while the thread ends.
    static TOUCHED: Cell<bool> = const { Cell::new(false) };
}

/// To be called wherever the bytes of a local key, or what only the client may see, are taken or
/// given.
pub(crate) fn touched() {
    let _ = TOUCHED.try_with(|touched| touched.set(true));
}

/// Part of what has a key inside: the end of it counts as a touch, since it was moved there.
pub(crate) struct Trace;

impl Drop for Trace {
    fn drop(&mut self) {
        touched();
    }
}

/// Wipes what functions have left on the stack below the caller's, if they touched a secret.
pub fn wipe() {
    if TOUCHED.try_with(|touched| touched.replace(false)).unwrap_or(true) {
        overwrite();
    }
}

#[inline(never)]
fn overwrite() {
    hint::black_box(&mut [0_u8; DEPTH]);
}
