//! Another Rust library in the same process: it exports the names of PKCS#11, panics and catches
//! it under a hook of its own, and has a thread with a thread-local that has a destructor.
//! Compiled by tests/it/hosts.rs with rustc alone.

use std::{
    cell::RefCell,
    panic, ptr,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

#[repr(C)]
struct List {
    version: [u8; 2],
    calls: [Option<extern "C" fn(*mut u8) -> u64>; 68],
}

static LIST: List = List { version: [2, 40], calls: [Some(C_Initialize); 68] };

struct Local(&'static AtomicU32);

impl Drop for Local {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

static DROPPED: AtomicU32 = AtomicU32::new(0);
static PANICS: AtomicU32 = AtomicU32::new(0);

thread_local!(static LOCAL: RefCell<Vec<Local>> = const { RefCell::new(Vec::new()) });

/// 0 if a panic came to our hook and was caught, and a thread's local was dropped.
#[unsafe(no_mangle)]
pub extern "C" fn C_Initialize(_: *mut u8) -> u64 {
    let (dropped, panics) = (DROPPED.load(Ordering::SeqCst), PANICS.load(Ordering::SeqCst));
    panic::set_hook(Box::new(|_| drop(PANICS.fetch_add(1, Ordering::SeqCst))));
    let caught = panic::catch_unwind(|| panic!("ours")).is_err();
    let joined = thread::spawn(|| LOCAL.with_borrow_mut(|local| local.push(Local(&DROPPED)))).join();
    let counted = (DROPPED.load(Ordering::SeqCst), PANICS.load(Ordering::SeqCst));
    u64::from(!caught || joined.is_err() || counted != (dropped + 1, panics + 1))
}

#[unsafe(no_mangle)]
pub extern "C" fn C_Sign(_: *mut u8) -> u64 {
    1
}

/// # Safety
/// `place` is where the caller wants the list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(place: *mut *const List) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { place.write(ptr::from_ref(&LIST)) };
    0
}
