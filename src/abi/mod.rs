//! Room 1: the C ABI. Pointers become safe values here, and errors become CK_RV; with
//! `process.rs` this is the only place with unsafe code.

#![allow(unsafe_code)]

pub mod arg;
mod digest;
mod family;
mod general;
mod key;
mod message;
mod object;
mod random;
mod search;
mod session;
mod slot;
mod table;
#[cfg(test)]
mod tests;
mod verify;

use std::{
    cell::Cell,
    panic::{self, AssertUnwindSafe},
};

use cryptoki_sys::*;
use once_cell::race::OnceBool;

pub use table::{ARGUMENTS, FUNCTIONS};

use crate::{
    error::{Error, Result},
    module::Module,
    stack,
};

/// Runs the body of a C function: a panic is CKR_GENERAL_ERROR, an error is logged and becomes
/// its CK_RV. At level trace every call is logged, by name alone.
fn boundary(function: &'static str, body: impl FnOnce() -> Result<()>) -> CK_RV {
    let inside = INSIDE.try_with(|inside| inside.replace(true)).unwrap_or(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        Err(Error::new(CKR_GENERAL_ERROR, "a mistake in this module, not in its caller (a panic)"))
    });
    let _ = INSIDE.try_with(|cell| cell.set(inside));
    stack::wipe();
    // The logger runs inside the boundary too: even its failure must not leave.
    let _ = panic::catch_unwind(AssertUnwindSafe(|| match &outcome {
        Ok(()) => log::trace!("{function}"),
        Err(error) => log::log!(error.level(), "{function}: {error} [CKR {:#x}]", error.rv()),
    }));
    outcome.map_or_else(|error| error.rv(), |()| CKR_OK)
}

/// Runs the body of a C function of an initialised module, and counts the call. An error that is
/// logged gets the token's label, which is looked up only then.
fn counted<'m>(
    module: &Module,
    function: usize,
    label: impl FnOnce() -> Option<&'m str>,
    body: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let outcome = body();
    module.count(function, outcome.as_ref().map_or_else(Error::rv, |()| CKR_OK));
    outcome.map_err(|error| {
        let label = if log::log_enabled!(error.level()) { label() } else { None };
        match label {
            Some(label) => error.of_token(label),
            None => error,
        }
    })
}

thread_local! {
    /// Whether this thread is inside [`boundary`]: its panics are ours to report. Without
    /// destructor, so that it can be used while the thread ends.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Reports panics inside the boundary to the log instead of printing them; others (of a test that
/// links this crate) go to the hook that was there. A host's own hook is another copy of the
/// standard library's and is not touched.
fn quiet_panics_once() {
    static DONE: OnceBool = OnceBool::new();
    if DONE.get().is_some() || DONE.set(true).is_err() {
        return;
    }
    let earlier = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if INSIDE.try_with(Cell::get).unwrap_or(true) {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            log::error!("panic at {place}");
        } else {
            earlier(panic);
        }
    }));
}

fn not_supported(function: &str) -> Error {
    Error::new(CKR_FUNCTION_NOT_SUPPORTED, format!("{function} is not supported"))
}

/// The three entry points that clients look up by name. Nothing else is exported.
mod export {
    #![allow(non_snake_case, clippy::missing_safety_doc)]

    use super::*;

    /// PKCS#11 2.40 on, 5.4: the function list of version 2.40.
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
        // SAFETY: the same contract, passed on.
        unsafe { table::entry::C_GetFunctionList(list) }
    }

    /// PKCS#11 3.0 on, 5.4: the interfaces this module has.
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn C_GetInterfaceList(
        interfaces: *mut CK_INTERFACE,
        count: *mut CK_ULONG,
    ) -> CK_RV {
        // SAFETY: the same contract, passed on.
        unsafe { table::entry::C_GetInterfaceList(interfaces, count) }
    }

    /// PKCS#11 3.0 on, 5.4: one interface by name, version and flags.
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn C_GetInterface(
        name: *mut CK_UTF8CHAR,
        version: *mut CK_VERSION,
        interface: *mut *mut CK_INTERFACE,
        flags: CK_FLAGS,
    ) -> CK_RV {
        // SAFETY: the same contract, passed on.
        unsafe { table::entry::C_GetInterface(name, version, interface, flags) }
    }
}

pub use export::{C_GetFunctionList, C_GetInterface, C_GetInterfaceList};
