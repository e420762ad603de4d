//! A client of the module: the C functions of the shared object, as a C program calls them, in
//! safe Rust.
//!
//! Each [`Module`] is a copy of the shared object, loaded for itself: statics, C_Initialize and
//! C_Finalize of one test are nothing to another's in the same process. And each logs at level
//! trace into a file of its own, in which nothing may be that it was told in confidence.

#![allow(unsafe_code)]

use std::{env, ffi::CString, fs, os::unix::ffi::OsStrExt, process::Command, ptr, thread};

use cryptoki_sys::*;

pub use crate::{arguments::*, session::*};
use crate::{confidence::Confidence, support};

/// A result whose error is the CK_RV.
pub type Rv<T = ()> = Result<T, CK_RV>;

/// A template: types and encoded values.
pub type Template = Vec<(CK_ATTRIBUTE_TYPE, Vec<u8>)>;

/// Calls one function of the module's 3.2 list.
macro_rules! call {
    ($module:expr, $function:ident($($argument:expr),* $(,)?)) => {{
        let function = $module.functions().$function.expect(stringify!($function));
        // SAFETY: the module's contract is PKCS#11's; each test passes what a C caller may pass.
        unsafe { function($($argument),*) }
    }};
}
pub(crate) use call;

/// One loaded copy of the module. Finalized when dropped, never unloaded.
pub struct Module {
    list: &'static CK_FUNCTION_LIST_3_2,
    /// What it must not tell.
    pub confidence: Confidence,
}

impl Module {
    /// A fresh copy on which nothing has been called.
    pub fn load() -> Module {
        let folder = tempfile::tempdir().expect("folder");
        let copy = folder.path().join("module.so");
        fs::copy(support::module(), &copy).expect("copy of the module");
        let path = CString::new(copy.as_os_str().as_bytes()).expect("path");
        // SAFETY: loading runs nothing but the module's own constructors.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!library.is_null(), "{}", copy.display());
        // SAFETY: a handle that dlopen gave, and a NUL-terminated name.
        let symbol = unsafe { libc::dlsym(library, c"C_GetInterface".as_ptr()) };
        assert!(!symbol.is_null());
        // SAFETY: the function of this name has this type (PKCS#11 3.2, pkcs11f.h).
        let get: CK_C_GetInterface = unsafe { std::mem::transmute(symbol) };
        let mut interface = ptr::null_mut();
        let mut version = CK_VERSION { major: 3, minor: 2 };
        let get = get.expect("C_GetInterface");
        // SAFETY: NULL asks for the default name; the others are live.
        let rv = unsafe { get(ptr::null_mut(), &raw mut version, &raw mut interface, 0) };
        assert_eq!(rv, CKR_OK);
        // SAFETY: CKR_OK promises a CK_INTERFACE that lives as long as the module.
        let interface: &CK_INTERFACE = unsafe { &*interface };
        // SAFETY: the interface of version 3.2 has this list.
        let list = unsafe { &*interface.pFunctionList.cast::<CK_FUNCTION_LIST_3_2>() };
        Module { list, confidence: Confidence::new() }
    }

    /// A fresh copy, initialised with this configuration.
    pub fn start(toml: &str) -> Module {
        let module = Module::load();
        assert_eq!(module.initialize(toml), Ok(()), "{toml}");
        module
    }

    /// C_Initialize with a configuration in pReserved. Its lines go to a file, unless
    /// AKV_PKCS11_LOG says otherwise: tests provoke refusals.
    pub fn initialize(&self, toml: &str) -> Rv {
        self.initialize_as_is(&format!("{}{toml}", self.confidence.log()))
    }

    /// C_Initialize with exactly this configuration.
    pub fn initialize_as_is(&self, toml: &str) -> Rv {
        self.confidence.keep_configuration(toml);
        let text = CString::new(format!("akv-pkcs11:{toml}")).expect("no NUL");
        let mut args = CK_C_INITIALIZE_ARGS {
            flags: CKF_OS_LOCKING_OK,
            pReserved: text.as_ptr().cast_mut().cast(),
            ..CK_C_INITIALIZE_ARGS::default()
        };
        check(call!(self, C_Initialize((&raw mut args).cast())))
    }

    /// C_Finalize.
    pub fn finalize(&self) -> Rv {
        check(call!(self, C_Finalize(ptr::null_mut())))
    }

    /// The functions, for calls that no method here makes.
    pub fn functions(&self) -> &'static CK_FUNCTION_LIST_3_2 {
        self.list
    }

    /// C_GetSlotList.
    pub fn slots(&self) -> Vec<CK_SLOT_ID> {
        let mut slots = vec![0; 64];
        let mut count = slots.len() as CK_ULONG;
        let rv = call!(self, C_GetSlotList(CK_TRUE, slots.as_mut_ptr(), &raw mut count));
        assert_eq!(rv, CKR_OK);
        slots.truncate(count as usize);
        slots
    }

    /// C_GetTokenInfo.
    pub fn token_info(&self, slot: CK_SLOT_ID) -> Rv<CK_TOKEN_INFO> {
        let mut info = CK_TOKEN_INFO::default();
        check(call!(self, C_GetTokenInfo(slot, &raw mut info)))?;
        Ok(info)
    }

    /// C_GetMechanismList.
    pub fn mechanisms(&self, slot: CK_SLOT_ID) -> Vec<CK_MECHANISM_TYPE> {
        let mut list = vec![0; 256];
        let mut count = list.len() as CK_ULONG;
        let rv = call!(self, C_GetMechanismList(slot, list.as_mut_ptr(), &raw mut count));
        assert_eq!(rv, CKR_OK);
        list.truncate(count as usize);
        list
    }

    /// C_GetMechanismInfo.
    pub fn mechanism_info(
        &self,
        slot: CK_SLOT_ID,
        kind: CK_MECHANISM_TYPE,
    ) -> Rv<CK_MECHANISM_INFO> {
        let mut info = CK_MECHANISM_INFO::default();
        check(call!(self, C_GetMechanismInfo(slot, kind, &raw mut info)))?;
        Ok(info)
    }

    /// A read/write session.
    pub fn open(&self, slot: CK_SLOT_ID) -> Session<'_> {
        self.open_with(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION).expect("C_OpenSession")
    }

    /// C_OpenSession.
    pub fn open_with(&self, slot: CK_SLOT_ID, flags: CK_FLAGS) -> Rv<Session<'_>> {
        let mut handle = 0;
        check(call!(self, C_OpenSession(slot, flags, ptr::null_mut(), None, &raw mut handle)))?;
        Ok(Session { module: self, handle })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let _ = self.finalize();
        if !thread::panicking() {
            self.confidence.check();
        }
    }
}

/// Whether this is the process of its own that a test asked for: the test binary again, with this
/// one test, on its main thread. Where it is not yet, that process is run, and must succeed.
pub fn is_alone(test: &str, env: &[(&str, &str)]) -> bool {
    const MARK: &str = "AKV_TEST_ALONE";
    if env::var_os(MARK).is_some() {
        return true;
    }
    // Not by its path: a build meanwhile may have put another there.
    let output = Command::new("/proc/self/exe")
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(MARK, "1")
        .envs(env.iter().copied())
        .output()
        .expect("this binary again");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{:?}\n{out}\n{err}", output.status);
    assert!(out.contains("1 passed"), "no test is named {test}:\n{out}");
    // What it counted, for --nocapture.
    eprint!("{err}");
    false
}

/// Whether this is the process that a test asked for to be root of name spaces of its own, for
/// network and mounts. Where it is not yet, that process is run, and must succeed; `preparation` is
/// what a shell does there first, in a fresh folder.
pub fn is_apart(test: &str, preparation: &str) -> bool {
    const MARK: &str = "AKV_TEST_APART";
    if env::var_os(MARK).is_some() {
        return true;
    }
    let folder = tempfile::tempdir().expect("folder");
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "--net", "sh", "-ec"])
        .arg(format!("{preparation}\nexec \"$0\" --exact \"$1\" --nocapture"))
        .arg(env::current_exe().expect("the test knows its own path"))
        .arg(test)
        .current_dir(&folder)
        .env(MARK, "1")
        .output()
        .expect("unshare (util-linux)");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "run this as root, or allow user namespaces: {text}"
    );
    false
}

/// How many threads the process has.
pub fn threads() -> usize {
    fs::read_dir("/proc/self/task").expect("/proc").count()
}

/// CKR_OK or an error.
pub fn check(rv: CK_RV) -> Rv {
    if rv == CKR_OK { Ok(()) } else { Err(rv) }
}
