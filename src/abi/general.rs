//! C_Initialize, C_Finalize, C_GetInfo, and the three ways to the function lists.

use std::{ffi::c_void, ptr, sync::Arc};

use cryptoki_sys::*;

use super::{
    arg::{List, Place},
    table::{V2_40, V3_0, V3_2},
};
use crate::{
    config::{Config, Env, RESERVED_PREFIX},
    error::{Error, Result},
    logging,
    module::{Heritage, Module},
    net::Surroundings,
    process,
    session::Session,
};

/// Longest configuration text or path taken from `pReserved`.
const MAX_RESERVED: usize = 64 * 1024;

pub(super) fn initialize(args: Place<'_, c_void>) -> Result<()> {
    super::quiet_panics_once();
    let reserved = reserved_text(&args)?;
    let outcome =
        process::initialize(|parents| begin(reserved.as_deref(), may_run_programs(&args), parents));
    if let Err(error) = &outcome
        && error.rv() != CKR_CRYPTOKI_ALREADY_INITIALIZED
    {
        logging::last_resort(&format!("C_Initialize: {error}"));
    }
    outcome
}

/// The module, from the configuration as it is now; a forked child that can no longer read what
/// its parent read goes on with that.
fn begin(
    reserved: Option<&str>,
    may_run_programs: bool,
    parents: Option<Heritage>,
) -> Result<Module> {
    let secure = process::is_secure();
    let env = if secure { Env::empty() } else { Env::Process };
    let known = parents.as_ref().map(|parents| &*parents.surroundings);
    let surroundings = Arc::new(Surroundings::read(&env, known));
    let (config, inherited) = match (Config::load(reserved, &env, secure), &parents) {
        (Ok(config), None) => (Arc::new(config), false),
        // What the child names itself, or the same file as it is now; but not whatever is found
        // where its parent was given something else.
        (Ok(config), Some(parents))
            if reserved.is_some() || config.source == parents.config.source =>
        {
            (Arc::new(config), true)
        }
        (_, Some(parents)) => (Arc::clone(&parents.config), true),
        (Err(error), None) => return Err(error),
    };
    logging::configure(&config.log);
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    let heritage = match parents {
        Some(parents) => parents.for_child(config, surroundings, may_run_programs),
        None => Heritage { config, surroundings, credentials: Vec::new(), may_run_programs },
    };
    let module = Module::new(heritage, process::epoch())?;
    Ok(if inherited { module.with_parents_configuration() } else { module })
}

/// Whether CK_C_INITIALIZE_ARGS leave threads to the library: one that is told to make none starts
/// no program either.
fn may_run_programs(args: &Place<'_, c_void>) -> bool {
    initialize_args(args).is_none_or(|args| args.flags & CKF_LIBRARY_CANT_CREATE_OS_THREADS == 0)
}

fn initialize_args(args: &Place<'_, c_void>) -> Option<CK_C_INITIALIZE_ARGS> {
    // SAFETY: a non-NULL argument of C_Initialize points to a CK_C_INITIALIZE_ARGS.
    let args = unsafe { Place::promised(args.address() as *mut CK_C_INITIALIZE_ARGS) };
    args.value()
}

/// Checks CK_C_INITIALIZE_ARGS (clause 5.4) and gives back the text behind `pReserved`.
fn reserved_text(args: &Place<'_, c_void>) -> Result<Option<String>> {
    let bad = |sentence: &'static str| Err(Error::new(CKR_ARGUMENTS_BAD, sentence));
    let Some(args) = initialize_args(args) else { return Ok(None) };
    let callbacks = [
        args.CreateMutex.is_some(),
        args.DestroyMutex.is_some(),
        args.LockMutex.is_some(),
        args.UnlockMutex.is_some(),
    ];
    // The module needs no mutex of its caller: the operating system's do, on any thread.
    if callbacks.contains(&true) && callbacks.contains(&false) {
        return bad("some mutex callbacks are given and some are not");
    }
    if args.pReserved.is_null() {
        return Ok(None);
    }
    let text = process::readable_c_string(args.pReserved, MAX_RESERVED)
        .and_then(|text| String::from_utf8(text).ok())
        .filter(|text| text.starts_with(RESERVED_PREFIX));
    match text {
        Some(text) => Ok(Some(text)),
        None => bad("pReserved is neither NULL nor a string that begins with 'akv-pkcs11:'"),
    }
}

pub(super) fn finalize(reserved: Place<'_, c_void>) -> Result<()> {
    if !reserved.address().is_null() {
        return Err(Error::new(CKR_ARGUMENTS_BAD, "pReserved of C_Finalize is not NULL"));
    }
    process::finalize()
}

pub(super) fn info(_: &Module, info: Place<'_, CK_INFO>) -> Result<()> {
    info.put(CK_INFO {
        cryptokiVersion: CK_VERSION { major: 3, minor: 2 },
        manufacturerID: padded("akv-pkcs11"),
        flags: 0,
        libraryDescription: padded("Azure Key Vault and Managed HSM"),
        libraryVersion: library_version(),
    })
}

pub(super) fn function_list(list: Place<'_, *mut CK_FUNCTION_LIST>) -> Result<()> {
    list.put(ptr::from_ref(&V2_40).cast_mut())
}

pub(super) fn interface_list(interfaces: List<'_, CK_INTERFACE>) -> Result<()> {
    let all: Vec<CK_INTERFACE> = INTERFACES.iter().map(|interface| interface.0).collect();
    interfaces.deliver(&all)
}

pub(super) fn interface(
    name: Place<'_, CK_UTF8CHAR>,
    version: Place<'_, CK_VERSION>,
    interface: Place<'_, *mut CK_INTERFACE>,
    flags: CK_FLAGS,
) -> Result<()> {
    interface.needed()?;
    let right_name = name.address().is_null()
        || name.c_string(NAME.len()).as_deref() == Some(&NAME[..NAME.len() - 1]);
    let right = |(_, wanted): &(&Shared, CK_VERSION)| {
        right_name
            && flags & !CKF_INTERFACE_FORK_SAFE == 0
            && version.value().is_none_or(|v| v.major == wanted.major && v.minor == wanted.minor)
    };
    let versions = [V3_2.version, V3_0.version, V2_40.version];
    match INTERFACES.iter().zip(versions).find(right) {
        Some((found, _)) => interface.put(ptr::from_ref(&found.0).cast_mut()),
        None => Err(Error::new(CKR_FUNCTION_FAILED, "there is no such interface")),
    }
}

/// C_GetFunctionStatus, C_CancelFunction: relics of parallel functions (clause 5.20).
pub(super) fn not_parallel(_: &Module, _: Arc<Session>) -> Result<()> {
    Err(Error::new(CKR_FUNCTION_NOT_PARALLEL, "functions do not run in parallel"))
}

const NAME: &[u8; 8] = b"PKCS 11\0";

/// A CK_INTERFACE, whose pointers make it neither Send nor Sync by itself.
#[repr(transparent)]
pub(super) struct Shared(CK_INTERFACE);

// SAFETY: the pointers are to statics of this library that nobody writes to.
unsafe impl Sync for Shared {}

const fn interface_of<T>(list: &'static T) -> Shared {
    Shared(CK_INTERFACE {
        pInterfaceName: NAME.as_ptr().cast_mut(),
        pFunctionList: ptr::from_ref(list) as *mut c_void,
        flags: CKF_INTERFACE_FORK_SAFE,
    })
}

/// The default first.
static INTERFACES: [Shared; 3] = [interface_of(&V3_2), interface_of(&V3_0), interface_of(&V2_40)];

/// Text padded with blanks, cut at a character where it is too long; never NUL-terminated.
pub(super) fn padded<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    let mut end = text.len().min(N);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    field[..end].copy_from_slice(&text.as_bytes()[..end]);
    field
}

/// The version of this library, from Cargo.toml.
pub(super) fn library_version() -> CK_VERSION {
    let number = |text: &str| text.parse().unwrap_or(0);
    CK_VERSION {
        major: number(env!("CARGO_PKG_VERSION_MAJOR")),
        minor: number(env!("CARGO_PKG_VERSION_MINOR")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_padded_with_blanks_and_cut_at_a_character() {
        assert_eq!(&padded::<4>("ab"), b"ab  ");
        assert_eq!(&padded::<4>("abcdef"), b"abcd");
        assert_eq!(&padded::<4>("abcé"), b"abc ");
    }
}
