//! C_Initialize and C_Finalize: every argument a host may pass, and any number of times.

#![allow(unsafe_code)]

use std::{ffi::c_void, fs, ptr, sync::Barrier, thread};

use cryptoki_sys::*;

use crate::{
    service::{Emulator, VAULT},
    token::{Module, call, check, is_alone, threads},
};

const ENDPOINT: &str = "https://contoso.vault.azure.net";
/// The configuration comes from the environment, which belongs to a whole process.
const ENVIRONMENT: &[(&str, &str)] =
    &[("AKV_PKCS11_CONFIG", "none"), ("AKV_PKCS11_ENDPOINT", ENDPOINT)];

unsafe extern "C" fn create(_: *mut *mut c_void) -> CK_RV {
    panic!("the module needs no mutex of its host")
}

unsafe extern "C" fn touch(_: *mut c_void) -> CK_RV {
    panic!("the module needs no mutex of its host")
}

fn args(callbacks: u32, flags: CK_FLAGS, reserved: *mut c_void) -> CK_C_INITIALIZE_ARGS {
    let has = |bit: u32| callbacks & bit != 0;
    CK_C_INITIALIZE_ARGS {
        CreateMutex: has(1).then_some(create),
        DestroyMutex: has(2).then_some(touch),
        LockMutex: has(4).then_some(touch),
        UnlockMutex: has(8).then_some(touch),
        flags,
        pReserved: reserved,
    }
}

#[test]
fn all_ways_of_locking_are_taken() {
    if !is_alone("init::all_ways_of_locking_are_taken", ENVIRONMENT) {
        return;
    }
    let module = Module::load();
    let before = threads();
    assert_eq!(check(call!(module, C_Initialize(ptr::null_mut()))), Ok(()));
    module.finalize().unwrap();
    for callbacks in 0..16 {
        for flags in 0..4 {
            let mut args = args(callbacks, flags, ptr::null_mut());
            let outcome = check(call!(module, C_Initialize((&raw mut args).cast())));
            match callbacks {
                0 | 15 => {
                    assert_eq!(outcome, Ok(()), "{callbacks:#b}, flags {flags}");
                    let again = check(call!(module, C_Initialize((&raw mut args).cast())));
                    assert_eq!(again, Err(CKR_CRYPTOKI_ALREADY_INITIALIZED));
                    module.open(0);
                    module.finalize().unwrap();
                }
                _ => assert_eq!(outcome, Err(CKR_ARGUMENTS_BAD), "{callbacks:#b}, flags {flags}"),
            }
            assert_eq!(module.finalize(), Err(CKR_CRYPTOKI_NOT_INITIALIZED));
        }
    }
    assert_eq!(threads(), before);
}

/// A page that can be read, and behind it one that cannot.
struct Edge(*mut u8);

const PAGE: usize = 4096;

impl Edge {
    fn new() -> Edge {
        let (access, kind) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: an anonymous mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(ptr::null_mut(), 2 * PAGE, access, kind, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        let start = start.cast::<u8>();
        // SAFETY: within the mapping.
        let second = unsafe { start.add(PAGE) };
        // SAFETY: the second page of the mapping, which nothing refers to.
        assert_eq!(unsafe { libc::munmap(second.cast(), PAGE) }, 0);
        Edge(start)
    }

    /// The text at the very end of the readable page.
    fn ending_with(&self, text: &[u8]) -> *mut c_void {
        // SAFETY: the first page is mapped, and the text is shorter.
        let at = unsafe { self.0.add(PAGE - text.len()) };
        // SAFETY: as above; a fresh mapping overlaps nothing.
        unsafe { ptr::copy_nonoverlapping(text.as_ptr(), at, text.len()) };
        at.cast()
    }

    fn beyond(&self) -> *mut c_void {
        self.0.wrapping_add(PAGE).cast()
    }
}

#[test]
fn reserved_is_ours_or_bad_and_never_a_crash() {
    let module = Module::load();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    fs::write(&file, format!("log.level = 'off'\n[[token]]\nendpoint = '{ENDPOINT}'\n")).unwrap();
    let named = format!("akv-pkcs11:{}\0", file.display());
    let inline = format!("akv-pkcs11:token = [{{ endpoint = '{ENDPOINT}' }}]\0");
    let long =
        format!("akv-pkcs11:token = [{{ endpoint = '{ENDPOINT}' }}]{}\0", " ".repeat(70_000));
    let (first, second) = (Edge::new(), Edge::new());
    let text = |text: &str| text.as_ptr().cast_mut().cast::<c_void>();
    for (what, reserved, wanted) in [
        ("a path", text(&named), CKR_OK),
        ("TOML", text(&inline), CKR_OK),
        ("TOML up to the end of the memory", first.ending_with(inline.as_bytes()), CKR_OK),
        ("1", ptr::without_provenance_mut(1), CKR_ARGUMENTS_BAD),
        ("the last address", ptr::without_provenance_mut(usize::MAX), CKR_ARGUMENTS_BAD),
        ("not canonical", ptr::without_provenance_mut(1 << 63), CKR_ARGUMENTS_BAD),
        ("unmapped", first.beyond(), CKR_ARGUMENTS_BAD),
        ("no NUL before the end", second.ending_with(b"akv-pkcs11:token = []"), CKR_ARGUMENTS_BAD),
        ("somebody else's", text("configdir='sql:/db'\0"), CKR_ARGUMENTS_BAD),
        ("the empty string", text("\0"), CKR_ARGUMENTS_BAD),
        ("almost ours", text("akv-pkcs11\0"), CKR_ARGUMENTS_BAD),
        ("not UTF-8", c"akv-pkcs11:\xff\xfe".as_ptr().cast_mut().cast(), CKR_ARGUMENTS_BAD),
        ("no file", text("akv-pkcs11:/nonexistent\0"), CKR_ARGUMENTS_BAD),
        ("nothing behind the colon", text("akv-pkcs11:\0"), CKR_ARGUMENTS_BAD),
        ("no TOML", text("akv-pkcs11:token = [\n\0"), CKR_ARGUMENTS_BAD),
        ("longer than any configuration", text(&long), CKR_ARGUMENTS_BAD),
    ] {
        let mut args = args(0, CKF_OS_LOCKING_OK, reserved);
        let rv = call!(module, C_Initialize((&raw mut args).cast()));
        assert_eq!(rv, wanted, "{what}");
        let ended = if wanted == CKR_OK { Ok(()) } else { Err(CKR_CRYPTOKI_NOT_INITIALIZED) };
        assert_eq!(module.finalize(), ended, "{what}");
    }
}

#[test]
fn beginning_and_ending_a_thousand_times_leaves_nothing_behind() {
    const TEST: &str = "init::beginning_and_ending_a_thousand_times_leaves_nothing_behind";
    if !is_alone(TEST, &[]) {
        return;
    }
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let toml = format!("[[token]]\nendpoint = '{ENDPOINT}'\n");
    let module = Module::start(&toml);
    module.finalize().unwrap();
    let before = (threads(), descriptors());
    for _ in 0..1000 {
        module.initialize(&toml).unwrap();
        assert_eq!(module.initialize(&toml), Err(CKR_CRYPTOKI_ALREADY_INITIALIZED));
        module.open(0);
        module.finalize().unwrap();
        assert_eq!(module.finalize(), Err(CKR_CRYPTOKI_NOT_INITIALIZED));
    }
    assert_eq!((threads(), descriptors()), before);
}

#[test]
fn finalize_takes_no_argument() {
    let module = Module::start(&format!("[[token]]\nendpoint = '{ENDPOINT}'\n"));
    let mut something = 0u8;
    let refused = check(call!(module, C_Finalize((&raw mut something).cast())));
    assert_eq!(refused, Err(CKR_ARGUMENTS_BAD));
    module.open(0);
}

#[test]
fn of_many_who_begin_at_once_one_does() {
    const CALLERS: usize = 16;
    let module = Module::load();
    let toml = format!("[[token]]\nendpoint = '{ENDPOINT}'\n");
    for _ in 0..20 {
        let start = Barrier::new(CALLERS);
        let outcomes: Vec<_> = thread::scope(|scope| {
            let begin = || {
                start.wait();
                module.initialize(&toml)
            };
            let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(begin)).collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).collect()
        });
        let began = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(began, 1);
        let refused = Err(CKR_CRYPTOKI_ALREADY_INITIALIZED);
        assert_eq!(outcomes.iter().filter(|o| **o == refused).count(), CALLERS - 1);
        module.finalize().unwrap();
    }
}

/// What was there before C_Finalize is not there after the next C_Initialize.
#[test]
fn handles_do_not_outlive_finalize() {
    let emulator = Emulator::start("keys = [{ name = 'ec', kty = 'EC', curve = 'P-256' }]");
    let toml = emulator.token(VAULT, "");
    let module = Module::start(&toml);
    let old = module.open(0);
    old.object(CKO_PRIVATE_KEY, "ec");
    old.find_init(&[]).unwrap();
    module.finalize().unwrap();
    assert_eq!(old.find_next(1), Err(CKR_CRYPTOKI_NOT_INITIALIZED));
    module.initialize(&toml).unwrap();
    assert_eq!(old.find_next(1), Err(CKR_SESSION_HANDLE_INVALID));
    let new = module.open(0);
    let key = new.object(CKO_PRIVATE_KEY, "ec");
    new.sign(&crate::token::Mechanism::plain(CKM_ECDSA), key, &[1; 32]).unwrap();
}

/// Slots, labels and serials come from the configuration, never from the network.
#[test]
fn tokens_are_the_configurations() {
    let module = Module::start(&format!(
        "[[token]]\nlabel = 'Schlüssel'\nendpoint = '{ENDPOINT}'\nslot = 17\nserial = 'S-1'\n\
         [[token]]\nendpoint = 'https://fabrikam.managedhsm.azure.net'\nlogin = 'client-secret'\n"
    ));
    assert_eq!(module.slots(), [17, 1]);
    let info = module.token_info(17).unwrap();
    assert_eq!(info.label, *b"Schl\xc3\xbcssel                      ");
    assert_eq!(&info.serialNumber, b"S-1             ");
    assert_eq!(&info.model, b"Key Vault       ");
    let other = module.token_info(1).unwrap();
    assert_eq!(&other.label[..8], b"fabrikam");
    assert_eq!(&other.model, b"Managed HSM     ");
    let common = CKF_RNG | CKF_TOKEN_INITIALIZED | CKF_USER_PIN_INITIALIZED;
    assert_eq!((info.flags, other.flags), (common, common | CKF_LOGIN_REQUIRED));
    for field in [&info.label[..], &info.manufacturerID, &info.model, &info.serialNumber] {
        assert!(!field.contains(&0), "blank-padded, without NUL");
    }
    assert_eq!(module.token_info(0).map(drop), Err(CKR_SLOT_ID_INVALID));
    assert_eq!(
        module.open_with(17, CKF_RW_SESSION).map(drop),
        Err(CKR_SESSION_PARALLEL_NOT_SUPPORTED)
    );
    let info = module.open(17).info().unwrap();
    assert_eq!((info.slotID, info.state), (17, CKS_RW_PUBLIC_SESSION));
    let read_only = module.open_with(17, CKF_SERIAL_SESSION).unwrap();
    assert_eq!(read_only.info().unwrap().state, CKS_RO_PUBLIC_SESSION);
    let counts = module.token_info(17).unwrap();
    assert_eq!((counts.ulSessionCount, counts.ulRwSessionCount), (2, 1));
}
