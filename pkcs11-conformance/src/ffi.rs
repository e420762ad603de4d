//! The one unsafe room: the shared object, its function lists, calls through them, and fork.
//!
//! A function is called by its place in the list, with words: every argument of every function
//! of PKCS#11 is a pointer or an integer no wider than one. [`Word`] is made from live Rust
//! values only, and borrows them for as long as the call lasts. Whether a module keeps within
//! the lengths it is given is what this program asks; a group's process is where it may fail to.

#![allow(unsafe_code)]

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    marker::PhantomData,
    path::Path,
    ptr,
    sync::atomic::{AtomicUsize, Ordering},
};

use cryptoki_sys::*;
use libloading::{Library, Symbol};

use crate::functions::{FIRST, Function, count};

/// One argument of a call.
#[derive(Clone, Copy)]
pub struct Word<'a>(usize, PhantomData<&'a ()>);

/// NULL_PTR.
pub const NULL: Word<'static> = Word(0, PhantomData);

impl From<CK_ULONG> for Word<'_> {
    fn from(value: CK_ULONG) -> Self {
        Word(value as usize, PhantomData)
    }
}

/// A value that is read or written in place.
pub fn place<T: Copy>(value: &mut T) -> Word<'_> {
    Word((&raw mut *value).expose_provenance(), PhantomData)
}

/// Bytes to be read. Those of an empty slice are not NULL.
pub fn read(bytes: &[u8]) -> Word<'_> {
    let bytes = if bytes.is_empty() { b"\0" } else { bytes };
    Word(bytes.as_ptr().expose_provenance(), PhantomData)
}

/// Values to be written, or read and written.
pub fn write<T: Copy>(values: &mut [T]) -> Word<'_> {
    Word(values.as_mut_ptr().expose_provenance(), PhantomData)
}

/// A length, as C has it.
pub fn length<T>(values: &[T]) -> Word<'static> {
    Word(values.len(), PhantomData)
}

/// An attribute over these bytes: ulValueLen is their number.
pub fn attribute(kind: CK_ATTRIBUTE_TYPE, value: &mut [u8]) -> CK_ATTRIBUTE {
    CK_ATTRIBUTE {
        type_: kind,
        pValue: if value.is_empty() { ptr::null_mut() } else { value.as_mut_ptr().cast() },
        ulValueLen: value.len() as CK_ULONG,
    }
}

/// The address of some bytes, as a parameter structure holds it. They must outlive its use.
pub fn address(bytes: &[u8]) -> usize {
    if bytes.is_empty() { 0 } else { bytes.as_ptr().expose_provenance() }
}

/// The same of bytes that the module may write.
pub fn address_mut(bytes: &mut [u8]) -> usize {
    if bytes.is_empty() { 0 } else { bytes.as_mut_ptr().expose_provenance() }
}

/// A function list, as read from the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// What the list says its version is.
    pub version: (u8, u8),
    /// Where it is.
    pub address: usize,
    /// The functions' addresses, 0 for NULL.
    pub functions: Vec<usize>,
}

/// An interface, as C_GetInterfaceList or C_GetInterface tells it.
#[derive(Clone, Debug)]
pub struct Interface {
    /// pInterfaceName.
    pub name: String,
    /// flags.
    pub flags: CK_FLAGS,
    /// What pFunctionList points at, of an interface named "PKCS 11".
    pub list: Option<List>,
}

/// The module under test.
pub struct Module {
    library: Library,
    /// The list with the most functions.
    pub list: List,
}

type Getter = unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV;

impl Module {
    /// Loads the shared object and asks for its function lists. Nothing is initialised.
    pub fn load(path: &Path) -> Result<Module, String> {
        // SAFETY: loading runs the module's constructors, which is what the user asked for.
        let library = unsafe { Library::new(path) }.map_err(|error| error.to_string())?;
        let mut module =
            Module { library, list: List { version: (0, 0), address: 0, functions: Vec::new() } };
        module.list = module.function_list()?;
        for minor in [0, 1, 2] {
            if let Some(Ok(Interface { list: Some(list), .. })) =
                module.interface(None, Some((3, minor)), 0)
            {
                module.list = list;
            }
        }
        Ok(module)
    }

    /// The list that the exported C_GetFunctionList gives.
    pub fn function_list(&self) -> Result<List, String> {
        // SAFETY: the exported function of this name has this type (pkcs11f.h).
        let get: Symbol<'_, Getter> = unsafe { self.library.get(b"C_GetFunctionList\0") }
            .map_err(|error| error.to_string())?;
        let mut list = ptr::null_mut();
        // SAFETY: the place is live.
        let rv = unsafe { get(&raw mut list) };
        if rv != CKR_OK || list.is_null() {
            return Err(format!("C_GetFunctionList: {rv:#x}, list {list:p}"));
        }
        Ok(Module::read_list(list.cast()))
    }

    /// C_GetFunctionList(NULL_PTR).
    pub fn function_list_of_null(&self) -> Option<CK_RV> {
        // SAFETY: as above.
        let get: Symbol<'_, Getter> = unsafe { self.library.get(b"C_GetFunctionList\0") }.ok()?;
        // SAFETY: NULL is what a careless caller passes; the module must refuse it.
        Some(unsafe { get(ptr::null_mut()) })
    }

    /// C_GetInterface as exported; None where it is not.
    pub fn interface(
        &self,
        name: Option<&CStr>,
        version: Option<(u8, u8)>,
        flags: CK_FLAGS,
    ) -> Option<Result<Interface, CK_RV>> {
        // SAFETY: the exported function of this name has this type (pkcs11f.h).
        let get: Symbol<'_, CK_C_GetInterface> =
            unsafe { self.library.get(b"C_GetInterface\0") }.ok()?;
        let get = (*get)?;
        let mut version = version.map(|(major, minor)| CK_VERSION { major, minor });
        let version: *mut CK_VERSION =
            version.as_mut().map_or(ptr::null_mut(), |version| &raw mut *version);
        let name = name.map_or(ptr::null_mut(), |name| name.as_ptr().cast_mut().cast());
        let mut found: *mut CK_INTERFACE = ptr::null_mut();
        // SAFETY: each place is live, or NULL where the standard takes NULL.
        let rv = unsafe { get(name, version, &raw mut found, flags) };
        if rv != CKR_OK || found.is_null() {
            return Some(Err(if rv == CKR_OK { CKR_GENERAL_ERROR } else { rv }));
        }
        // SAFETY: CKR_OK promises an interface that lives as long as the module.
        Some(Ok(Module::read_interface(unsafe { &*found })))
    }

    /// C_GetInterfaceList as exported; None where it is not.
    pub fn interfaces(&self, room: Option<usize>) -> Option<(CK_RV, usize, Vec<Interface>)> {
        // SAFETY: the exported function of this name has this type (pkcs11f.h).
        let get: Symbol<'_, CK_C_GetInterfaceList> =
            unsafe { self.library.get(b"C_GetInterfaceList\0") }.ok()?;
        let get = (*get)?;
        let mut list = vec![CK_INTERFACE::default(); room.unwrap_or(0) + 1];
        let mut size = room.unwrap_or(0) as CK_ULONG;
        let start = if room.is_some() { list.as_mut_ptr() } else { ptr::null_mut() };
        // SAFETY: as many places as `size` says, or NULL to ask how many.
        let rv = unsafe { get(start, &raw mut size) };
        let known = if rv == CKR_OK && room.is_some() { size as usize } else { 0 };
        let interfaces = list.iter().take(known).map(Module::read_interface).collect();
        Some((rv, size as usize, interfaces))
    }

    /// C_GetInterfaceList(NULL_PTR, NULL_PTR).
    pub fn interfaces_of_null(&self) -> Option<CK_RV> {
        // SAFETY: as above.
        let get: Symbol<'_, CK_C_GetInterfaceList> =
            unsafe { self.library.get(b"C_GetInterfaceList\0") }.ok()?;
        let get = (*get)?;
        // SAFETY: NULL is what a careless caller passes; the module must refuse it.
        Some(unsafe { get(ptr::null_mut(), ptr::null_mut()) })
    }

    fn read_interface(interface: &CK_INTERFACE) -> Interface {
        let name: *const c_char = interface.pInterfaceName.cast();
        let name = match name.is_null() {
            true => String::new(),
            // SAFETY: an interface's name is a NUL-terminated string (clause 3.5).
            false => unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned(),
        };
        let list = (name == "PKCS 11" && !interface.pFunctionList.is_null())
            .then(|| Module::read_list(interface.pFunctionList.cast()));
        Interface { name, flags: interface.flags, list }
    }

    fn read_list(list: *const u8) -> List {
        // SAFETY: a function list begins with its version.
        let version = unsafe { list.cast::<CK_VERSION>().read_unaligned() };
        let version = (version.major, version.minor);
        let functions = (0..count(version))
            .map(|n| {
                let entry = list.wrapping_add(FIRST + n * size_of::<usize>());
                // SAFETY: a list of this version has so many pointers after its version.
                unsafe { entry.cast::<usize>().read_unaligned() }
            })
            .collect();
        List { version, address: list.expose_provenance(), functions }
    }

    /// Whether the fullest list has the function.
    pub fn has(&self, function: Function) -> bool {
        self.list.functions.get(function as usize).is_some_and(|address| *address != 0)
    }

    /// Calls a function of the fullest list. One that the list lacks is not supported.
    pub fn call(&self, function: Function, args: &[Word<'_>]) -> CK_RV {
        match self.list.functions.get(function as usize) {
            Some(address) if *address != 0 => invoke(*address, args),
            _ => CKR_FUNCTION_NOT_SUPPORTED,
        }
    }
}

macro_rules! by_arity {
    ($address:ident, $args:ident; $($n:literal => ($($i:literal)*))*) => {
        match $args.len() {
            $($n => {
                type Entry = unsafe extern "C" fn($(by_arity!(@word $i)),*) -> CK_RV;
                let entry = ptr::with_exposed_provenance::<()>($address);
                // SAFETY: a non-NULL entry of a function list is a function of that name, which
                // takes this many pointers and integers; each fits a register of this width.
                let entry = unsafe { std::mem::transmute::<*const (), Entry>(entry) };
                // SAFETY: pointers are NULL or borrowed for this call, lengths are the caller's.
                unsafe { entry($($args[$i].0),*) }
            })*
            n => unreachable!("no function has {n} arguments"),
        }
    };
    (@word $i:literal) => { usize };
}

fn invoke(address: usize, args: &[Word<'_>]) -> CK_RV {
    by_arity!(address, args;
        1 => (0)
        2 => (0 1)
        3 => (0 1 2)
        4 => (0 1 2 3)
        5 => (0 1 2 3 4)
        6 => (0 1 2 3 4 5)
        7 => (0 1 2 3 4 5 6)
        8 => (0 1 2 3 4 5 6 7)
        9 => (0 1 2 3 4 5 6 7 8)
        10 => (0 1 2 3 4 5 6 7 8 9)
        11 => (0 1 2 3 4 5 6 7 8 9 10)
        12 => (0 1 2 3 4 5 6 7 8 9 10 11))
}

/// Mutexes that a module made with our callbacks and has not destroyed.
pub static MUTEXES: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn create_mutex(place: *mut *mut c_void) -> CK_RV {
    let mutex = Box::into_raw(Box::new(std::sync::atomic::AtomicBool::new(false)));
    MUTEXES.fetch_add(1, Ordering::SeqCst);
    // SAFETY: the caller promises a place for the new mutex (clause 3.7).
    unsafe { place.write(mutex.cast()) };
    CKR_OK
}

unsafe extern "C" fn destroy_mutex(mutex: *mut c_void) -> CK_RV {
    MUTEXES.fetch_sub(1, Ordering::SeqCst);
    // SAFETY: the caller promises a mutex that create_mutex made, once.
    drop(unsafe { Box::from_raw(mutex.cast::<std::sync::atomic::AtomicBool>()) });
    CKR_OK
}

unsafe extern "C" fn lock_mutex(mutex: *mut c_void) -> CK_RV {
    // SAFETY: the caller promises a live mutex of create_mutex.
    let locked = unsafe { &*mutex.cast::<std::sync::atomic::AtomicBool>() };
    while locked.swap(true, Ordering::Acquire) {
        std::thread::yield_now();
    }
    CKR_OK
}

unsafe extern "C" fn unlock_mutex(mutex: *mut c_void) -> CK_RV {
    // SAFETY: the caller promises a live mutex of create_mutex.
    let locked = unsafe { &*mutex.cast::<std::sync::atomic::AtomicBool>() };
    match locked.swap(false, Ordering::Release) {
        true => CKR_OK,
        false => CKR_MUTEX_NOT_LOCKED,
    }
}

/// CK_C_INITIALIZE_ARGS with those of the four mutex functions whose bit is set, and `reserved`
/// behind pReserved.
pub fn init_args(flags: CK_FLAGS, callbacks: u8, reserved: Option<&CStr>) -> CK_C_INITIALIZE_ARGS {
    CK_C_INITIALIZE_ARGS {
        CreateMutex: (callbacks & 1 != 0).then_some(create_mutex),
        DestroyMutex: (callbacks & 2 != 0).then_some(destroy_mutex),
        LockMutex: (callbacks & 4 != 0).then_some(lock_mutex),
        UnlockMutex: (callbacks & 8 != 0).then_some(unlock_mutex),
        flags,
        pReserved: reserved.map_or(ptr::null_mut(), |text| text.as_ptr().cast_mut().cast()),
    }
}

/// Runs `child` in a forked process, which ends with its answer, and gives how it ended: an exit
/// code, or the negative number of the signal that killed it (SIGALRM after `seconds`).
pub fn in_fork(seconds: u32, child: impl FnOnce() -> u8) -> Result<i32, String> {
    // SAFETY: the child runs `child` only and leaves by _exit; the calling thread is the only one
    // of this process, so no lock can be held by a thread that is gone.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(std::io::Error::last_os_error().to_string()),
        0 => {
            // SAFETY: sets a timer of this process; its signal ends it.
            unsafe { libc::alarm(seconds) };
            let code = child();
            // SAFETY: ends this process without its parent's exit handlers.
            unsafe { libc::_exit(c_int::from(code)) }
        }
        pid => {
            let mut status = 0;
            // SAFETY: waits for the child just made; the place is live.
            if unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0 {
                return Err(std::io::Error::last_os_error().to_string());
            }
            Ok(match libc::WIFEXITED(status) {
                true => libc::WEXITSTATUS(status),
                false => -libc::WTERMSIG(status),
            })
        }
    }
}
