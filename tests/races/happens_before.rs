//! Tells ThreadSanitizer what it cannot see: locks of the standard library that were taken after
//! waiting. The toolchain's own standard library is not instrumented; its fast paths are compiled into
//! whoever uses them, which is, but a lock that somebody has to wait for is taken inside it.
//!
//! `scripts/races` puts the names of those functions into this file (`@lock@` and so on) and links it
//! between the module and the standard library (`ld --wrap`).

#![crate_type = "staticlib"]
#![allow(improper_ctypes)]

use std::{ffi::c_void, sync::OnceState, time::Duration};

type Address = *const c_void;

unsafe extern "C" {
    fn __tsan_acquire(address: Address);
    fn __tsan_release(address: Address);
}

unsafe extern "Rust" {
    #[link_name = "__real_@lock@"]
    fn lock(mutex: Address);
    #[link_name = "__real_@read@"]
    fn read(lock: Address);
    #[link_name = "__real_@write@"]
    fn write(lock: Address);
    #[link_name = "__real_@wait@"]
    fn wait(condition: Address, mutex: Address);
    #[link_name = "__real_@wait_timeout@"]
    fn wait_timeout(condition: Address, mutex: Address, limit: Duration) -> bool;
    // The last one is where it was called from.
    #[link_name = "__real_@once@"]
    fn once(once: Address, poisoned: bool, run: &mut dyn FnMut(&OnceState), caller: Address);
}

#[unsafe(export_name = "__wrap_@lock@")]
fn lock_seen(mutex: Address) {
    // SAFETY: the arguments are those of the function whose place this takes, here and below.
    unsafe {
        lock(mutex);
        __tsan_acquire(mutex);
    }
}

#[unsafe(export_name = "__wrap_@read@")]
fn read_seen(state: Address) {
    // SAFETY: as above.
    unsafe {
        read(state);
        __tsan_acquire(state);
    }
}

#[unsafe(export_name = "__wrap_@write@")]
fn write_seen(state: Address) {
    // SAFETY: as above.
    unsafe {
        write(state);
        __tsan_acquire(state);
    }
}

#[unsafe(export_name = "__wrap_@wait@")]
fn wait_seen(condition: Address, mutex: Address) {
    // SAFETY: as above.
    unsafe {
        __tsan_release(mutex);
        wait(condition, mutex);
        __tsan_acquire(mutex);
    }
}

#[unsafe(export_name = "__wrap_@wait_timeout@")]
fn wait_timeout_seen(condition: Address, mutex: Address, limit: Duration) -> bool {
    // SAFETY: as above.
    unsafe {
        __tsan_release(mutex);
        let told = wait_timeout(condition, mutex, limit);
        __tsan_acquire(mutex);
        told
    }
}

#[unsafe(export_name = "__wrap_@once@")]
fn once_seen(
    state: Address,
    poisoned: bool,
    run: &mut dyn FnMut(&OnceState),
    caller: Address,
) {
    let mut seen = |told: &OnceState| {
        run(told);
        // SAFETY: an address and nothing more.
        unsafe { __tsan_release(state) };
    };
    // SAFETY: as above.
    unsafe {
        once(state, poisoned, &mut seen, caller);
        __tsan_acquire(state);
    }
}
