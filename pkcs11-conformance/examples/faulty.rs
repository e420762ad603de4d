//! A PKCS#11 module with one fault, for this program's tests: another module behind a function
//! list in which some entries are ours. `FAULTY_MODULE` is that module's path, `FAULTY` the name
//! of the fault: a row of [`FAULTS`]. Of that module's lists the one of 3.2 is changed, where it has
//! one, and that of 2.40, which is its beginning.

#![allow(unsafe_code, non_snake_case, clippy::missing_safety_doc)]

use std::{
    env, ptr, slice,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use cryptoki_sys::*;
use libloading::Library;

struct Lists {
    real: CK_FUNCTION_LIST_3_2,
    ours_2_40: CK_FUNCTION_LIST,
    /// That of 3.2, and the real module's C_GetInterface for all others.
    interface: Option<(CK_INTERFACE, CK_C_GetInterface)>,
}

// SAFETY: the interface points at a name and a list that are never changed or freed.
unsafe impl Sync for Lists {}
// SAFETY: as above.
unsafe impl Send for Lists {}

static LISTS: OnceLock<Option<Lists>> = OnceLock::new();

/// A fault's name, and what it does to the list.
type Fault = (&'static str, fn(&mut CK_FUNCTION_LIST_3_2));

const FAULTS: &[Fault] = &[
    ("none", |_| {}),
    ("null-entry", |list| list.C_GetFunctionStatus = None),
    ("info-before-initialize", |list| list.C_GetInfo = Some(info_any_time)),
    ("wrong-precedence", |list| list.C_Sign = Some(sign_operation_first)),
    ("crash", |list| list.C_GetSlotInfo = Some(slot_info_crash)),
    ("hang", |list| list.C_GetSlotInfo = Some(slot_info_hang)),
    ("state-never-changes", |list| list.C_GetSessionInfo = Some(session_info_public)),
    ("found-twice", |list| list.C_FindObjects = Some(find_twice)),
    ("secret-read", |list| list.C_GetAttributeValue = Some(attributes_secret)),
    ("length-not-told", |list| list.C_Sign = Some(sign_length_not_told)),
    ("beyond-the-buffer", |list| list.C_Digest = Some(digest_overrun)),
    ("query-ends", |list| list.C_Digest = Some(digest_query_ends)),
    ("kept-after-output", |list| {
        list.C_DigestInit = Some(digest_init_noted);
        list.C_Digest = Some(digest_kept);
    }),
    ("init-twice", |list| list.C_SignInit = Some(sign_init_twice)),
    ("advertised-but-failing", |list| list.C_DigestInit = Some(digest_init_no_sha384)),
    ("wrong-digest", |list| list.C_Digest = Some(digest_wrong)),
    ("wrong-signature", |list| list.C_Sign = Some(sign_wrong)),
    ("accepts-any-signature", |list| list.C_Verify = Some(verify_anything)),
    ("constant-random", |list| list.C_GenerateRandom = Some(random_constant)),
    ("part-lost", |list| list.C_EncryptUpdate = Some(encrypt_update_lost)),
    ("wrong-ciphertext", |list| list.C_Encrypt = Some(encrypt_wrong)),
    ("wraps-anything", |list| list.C_WrapKey = Some(wrap_anything)),
    ("copy-forgets", |list| list.C_CopyObject = Some(copy_forgets)),
    ("wrong-code", |list| list.C_GenerateKeyPair = Some(pair_general_error)),
    ("fork-breaks", |list| list.C_Initialize = Some(initialize_once)),
    ("reserved-ignored", |list| list.C_Initialize = Some(initialize_reserved)),
    ("accepts-any-message", |list| list.C_VerifyMessage = Some(verify_message_anything)),
    ("login-user-missing", |list| list.C_LoginUser = Some(login_user_not)),
    ("crash-within", |list| list.C_GetMechanismInfo = Some(mechanism_info_crash_once)),
    ("slow", |list| list.C_GetMechanismInfo = Some(mechanism_info_slow)),
    ("stubs", |list| {
        list.C_Sign = Some(sign_stub);
        list.C_SeedRandom = Some(seed_stub);
    }),
    ("crash-at-exit", |_| at_exit()),
    ("destroys-nothing", |list| list.C_DestroyObject = Some(destroy_refused)),
    ("length-of-minus-one", |list| list.C_GetAttributeValue = Some(attributes_minus_one)),
    ("reserved-flags", |list| list.C_GetInfo = Some(info_flags)),
    ("kept-after-wrong-signature", |list| {
        list.C_VerifyInit = Some(verify_init_noted);
        list.C_Verify = Some(verify_kept);
    }),
    ("session-cancel-ignored", |list| list.C_SessionCancel = Some(session_cancel_ignored)),
    ("null-mechanism-ignored", |list| list.C_SignInit = Some(sign_init_null_ignored)),
    ("oaep-label-ignored", |list| list.C_DecryptInit = Some(decrypt_init_no_label)),
    ("oaep-mgf-ignored", |list| list.C_DecryptInit = Some(decrypt_init_mgf_sha1)),
    ("gcm-tag-ignored", |list| list.C_Decrypt = Some(decrypt_tag_ignored)),
    ("object-outlives-session", |list| list.C_CloseSession = Some(close_session_not)),
    ("unlisted-works", |list| list.C_GetMechanismList = Some(mechanism_list_short)),
    ("mutex-leaked", |list| list.C_Initialize = Some(initialize_mutex_leaked)),
];

/// The list of 2.40, with the fault.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(place: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    let Some(lists) = LISTS.get_or_init(load) else { return CKR_GENERAL_ERROR };
    if place.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    // SAFETY: the caller promises a place, which is not NULL.
    unsafe { place.write(ptr::from_ref(&lists.ours_2_40).cast_mut()) };
    CKR_OK
}

/// The real module's answer, but for the list of 3.2, which has the fault.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetInterface(
    name: *mut CK_UTF8CHAR,
    version: *mut CK_VERSION,
    place: *mut *mut CK_INTERFACE,
    flags: CK_FLAGS,
) -> CK_RV {
    let lists = LISTS.get_or_init(load).as_ref();
    let Some((ours, Some(real))) = lists.and_then(|lists| lists.interface.as_ref()) else {
        return CKR_FUNCTION_NOT_SUPPORTED;
    };
    // SAFETY: the arguments are the caller's.
    let rv = unsafe { real(name, version, place, flags) };
    if rv == CKR_OK {
        // SAFETY: CKR_OK promises an interface there.
        let at = unsafe { *place };
        // SAFETY: as above.
        let found = unsafe { *at };
        // SAFETY: whose list begins with its version.
        let version = unsafe { *found.pFunctionList.cast::<CK_VERSION>() };
        if (version.major, version.minor) == (3, 2) {
            // SAFETY: the caller promises a place, and the real module has written there.
            unsafe { place.write(ptr::from_ref(ours).cast_mut()) };
        }
    }
    rv
}

fn load() -> Option<Lists> {
    let name = env::var("FAULTY").unwrap_or_else(|_| "none".to_owned());
    let (_, fault) = FAULTS.iter().find(|(one, _)| *one == name)?;
    // SAFETY: the test names a PKCS#11 module.
    let library = unsafe { Library::new(env::var_os("FAULTY_MODULE")?) }.ok()?;
    let library = Box::leak(Box::new(library));
    // SAFETY: the function of this name has this type (pkcs11f.h).
    let get = unsafe { library.get::<CK_C_GetFunctionList>(b"C_GetFunctionList\0") }.ok()?;
    let mut list = ptr::null_mut();
    // SAFETY: the place is live.
    let rv = unsafe { (*get)?(&raw mut list) };
    if rv != CKR_OK {
        return None;
    }
    // SAFETY: CKR_OK promises a list that lives as long as the module, which is never unloaded.
    let older = unsafe { *list };
    let mut real = CK_FUNCTION_LIST_3_2::default();
    // SAFETY: the list of 3.2 begins with that of 2.40 (PKCS#11 3.2, 3.6).
    unsafe { ptr::from_mut(&mut real).cast::<CK_FUNCTION_LIST>().write(older) };
    // SAFETY: the function of this name has this type (pkcs11f.h).
    let get = unsafe { library.get::<CK_C_GetInterface>(b"C_GetInterface\0") };
    let get = get.ok().and_then(|get| *get);
    let mut interface = None;
    if let Some(function) = get {
        let mut version = CK_VERSION { major: 3, minor: 2 };
        let mut found: *mut CK_INTERFACE = ptr::null_mut();
        // SAFETY: both places are live, and NULL is the standard's own interface.
        let rv = unsafe { function(ptr::null_mut(), &raw mut version, &raw mut found, 0) };
        if rv == CKR_OK {
            // SAFETY: CKR_OK promises an interface that lives as long as the module.
            let it = unsafe { *found };
            // SAFETY: whose list has the version that was asked for.
            real = unsafe { *it.pFunctionList.cast::<CK_FUNCTION_LIST_3_2>() };
            interface = Some((it, get));
        }
    }
    let mut ours = CK_FUNCTION_LIST_3_2 {
        C_GetFunctionList: Some(C_GetFunctionList),
        C_GetInterface: get.and(Some(C_GetInterface)),
        ..real
    };
    fault(&mut ours);
    // SAFETY: as above: its beginning is a list of 2.40.
    let mut ours_2_40 = unsafe { *ptr::from_ref(&ours).cast::<CK_FUNCTION_LIST>() };
    ours_2_40.version = older.version;
    // Leaked, so that the interface can point into it before it is returned.
    let ours: &'static CK_FUNCTION_LIST_3_2 = Box::leak(Box::new(ours));
    let interface = interface.map(|(it, get)| {
        let pFunctionList = ptr::from_ref(ours).cast_mut().cast();
        (CK_INTERFACE { pFunctionList, ..it }, get)
    });
    Some(Lists { real, ours_2_40, interface })
}

macro_rules! real {
    ($function:ident($($argument:expr),*)) => {
        match LISTS.get().and_then(Option::as_ref).and_then(|lists| lists.real.$function) {
            // SAFETY: the arguments are the caller's, or as the real module's contract asks.
            Some(function) => unsafe { function($($argument),*) },
            None => CKR_GENERAL_ERROR,
        }
    };
}

macro_rules! entries {
    ($($name:ident($($argument:ident: $type:ty),*) $body:block)*) => {
        $(unsafe extern "C" fn $name($($argument: $type),*) -> CK_RV $body)*
    };
}

/// What C_DigestInit was given last.
static LAST: AtomicU64 = AtomicU64::new(0);
/// And the key that C_VerifyInit was given.
static KEY: AtomicU64 = AtomicU64::new(0);
/// The process that initialised first.
static FIRST: AtomicU64 = AtomicU64::new(0);

type Bytes = *mut CK_BYTE;
type Length = *mut CK_ULONG;

fn read(place: Length) -> CK_ULONG {
    // SAFETY: the caller of the entry promises a length there, or NULL.
    if place.is_null() { 0 } else { unsafe { *place } }
}

fn set(place: Length, value: CK_ULONG) {
    if !place.is_null() {
        // SAFETY: the caller of the entry promises a length there.
        unsafe { *place = value };
    }
}

fn spoil(rv: CK_RV, out: Bytes, length: Length) -> CK_RV {
    if rv == CKR_OK && !out.is_null() && read(length) > 0 {
        // SAFETY: the real module has just written as many bytes there.
        let bytes = unsafe { slice_of(out, read(length)) };
        bytes[0] ^= 1;
    }
    rv
}

#[allow(clippy::disallowed_methods, reason = "this is the C edge of the fixture")]
unsafe fn slice_of<'a>(start: Bytes, length: CK_ULONG) -> &'a mut [u8] {
    // SAFETY: the caller says that so many bytes are there.
    unsafe { slice::from_raw_parts_mut(start, length as usize) }
}

#[allow(clippy::disallowed_methods, reason = "this is the C edge of the fixture")]
unsafe fn mechanisms<'a>(start: *mut CK_MECHANISM_TYPE, count: CK_ULONG) -> &'a mut [CK_ULONG] {
    // SAFETY: the caller says that so many are there.
    unsafe { slice::from_raw_parts_mut(start, count as usize) }
}

/// A mechanism's OAEP parameter, changed.
struct Oaep {
    parameter: CK_RSA_PKCS_OAEP_PARAMS,
    mechanism: Option<CK_MECHANISM>,
}

impl Oaep {
    fn with(mechanism: *mut CK_MECHANISM, change: fn(&mut CK_RSA_PKCS_OAEP_PARAMS)) -> Oaep {
        let mut oaep = Oaep { parameter: CK_RSA_PKCS_OAEP_PARAMS::default(), mechanism: None };
        // SAFETY: the caller of the entry promises a mechanism, or NULL.
        let Some(given) = (unsafe { mechanism.as_ref() }) else { return oaep };
        let size = size_of::<CK_RSA_PKCS_OAEP_PARAMS>() as CK_ULONG;
        if given.mechanism == CKM_RSA_PKCS_OAEP && given.ulParameterLen == size {
            // SAFETY: a parameter of this length is of this type.
            oaep.parameter = unsafe { given.pParameter.cast::<CK_RSA_PKCS_OAEP_PARAMS>().read() };
            change(&mut oaep.parameter);
            oaep.mechanism = Some(*given);
        }
        oaep
    }

    fn mechanism(&mut self, given: *mut CK_MECHANISM) -> *mut CK_MECHANISM {
        match &mut self.mechanism {
            Some(mechanism) => {
                mechanism.pParameter = ptr::from_mut(&mut self.parameter).cast();
                mechanism
            }
            None => given,
        }
    }
}

entries! {
    info_any_time(info: *mut CK_INFO) {
        match real!(C_GetInfo(info)) {
            CKR_CRYPTOKI_NOT_INITIALIZED => CKR_OK,
            rv => rv,
        }
    }
    sign_operation_first(h: CK_SESSION_HANDLE, d: Bytes, n: CK_ULONG, out: Bytes, l: Length) {
        match real!(C_Sign(h, d, n, out, l)) {
            CKR_SESSION_HANDLE_INVALID => CKR_OPERATION_NOT_INITIALIZED,
            rv => rv,
        }
    }
    slot_info_crash(_slot: CK_SLOT_ID, _info: *mut CK_SLOT_INFO) { std::process::abort() }
    slot_info_hang(_slot: CK_SLOT_ID, _info: *mut CK_SLOT_INFO) {
        loop {
            std::thread::park();
        }
    }
    session_info_public(h: CK_SESSION_HANDLE, info: *mut CK_SESSION_INFO) {
        let rv = real!(C_GetSessionInfo(h, info));
        if rv == CKR_OK {
            // SAFETY: the real module has just written there.
            unsafe { (*info).state = CKS_RO_PUBLIC_SESSION };
        }
        rv
    }
    find_twice(h: CK_SESSION_HANDLE, out: *mut CK_OBJECT_HANDLE, max: CK_ULONG, count: Length) {
        let rv = real!(C_FindObjects(h, out, max, count));
        if rv == CKR_OK && read(count) >= 1 && read(count) < max {
            let told = read(count) as usize;
            // SAFETY: a handle was found, and is there.
            let first = unsafe { out.read() };
            // SAFETY: there is room for `max` handles, more than were found.
            unsafe { out.wrapping_add(told).write(first) };
            set(count, told as CK_ULONG + 1);
        }
        rv
    }
    attributes_secret(h: CK_SESSION_HANDLE, o: CK_OBJECT_HANDLE, t: *mut CK_ATTRIBUTE,
        n: CK_ULONG) {
        match real!(C_GetAttributeValue(h, o, t, n)) {
            CKR_ATTRIBUTE_SENSITIVE => CKR_OK,
            rv => rv,
        }
    }
    sign_length_not_told(h: CK_SESSION_HANDLE, d: Bytes, n: CK_ULONG, out: Bytes, l: Length) {
        let before = read(l);
        let rv = real!(C_Sign(h, d, n, out, l));
        if rv == CKR_BUFFER_TOO_SMALL {
            set(l, before);
        }
        rv
    }
    digest_overrun(h: CK_SESSION_HANDLE, d: Bytes, n: CK_ULONG, out: Bytes, l: Length) {
        let before = read(l);
        let rv = real!(C_Digest(h, d, n, out, l));
        if rv == CKR_BUFFER_TOO_SMALL && !out.is_null() {
            // SAFETY: this is the fault: the test's buffer has a guard behind it.
            unsafe { out.wrapping_add(before as usize).write(0) };
        }
        rv
    }
    digest_query_ends(h: CK_SESSION_HANDLE, d: Bytes, n: CK_ULONG, out: Bytes, l: Length) {
        let rv = real!(C_Digest(h, d, n, out, l));
        if rv == CKR_OK && out.is_null() {
            let (mut room, mut size) = ([0; 64], 64);
            let _ = real!(C_Digest(h, d, n, room.as_mut_ptr(), &raw mut size));
        }
        rv
    }
    digest_init_noted(h: CK_SESSION_HANDLE, m: *mut CK_MECHANISM) {
        let rv = real!(C_DigestInit(h, m));
        if rv == CKR_OK && !m.is_null() {
            // SAFETY: the real module has just read it.
            LAST.store(unsafe { (*m).mechanism }, Ordering::SeqCst);
        }
        rv
    }
    digest_kept(h: CK_SESSION_HANDLE, d: Bytes, n: CK_ULONG, out: Bytes, l: Length) {
        let rv = real!(C_Digest(h, d, n, out, l));
        if rv == CKR_OK && !out.is_null() {
            let kind = LAST.load(Ordering::SeqCst);
            let mut mechanism = CK_MECHANISM { mechanism: kind, ..CK_MECHANISM::default() };
            let _ = real!(C_DigestInit(h, &raw mut mechanism));
        }
        rv
    }
    sign_init_twice(h: CK_SESSION_HANDLE, m: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE) {
        match real!(C_SignInit(h, m, key)) {
            CKR_OPERATION_ACTIVE => CKR_OK,
            rv => rv,
        }
    }
    digest_init_no_sha384(h: CK_SESSION_HANDLE, m: *mut CK_MECHANISM) {
        // SAFETY: the caller promises a mechanism, or NULL.
        if !m.is_null() && unsafe { (*m).mechanism } == CKM_SHA384 {
            return CKR_MECHANISM_INVALID;
        }
        real!(C_DigestInit(h, m))
    }
    digest_wrong(h: CK_SESSION_HANDLE, d: Bytes, n: CK_ULONG, out: Bytes, l: Length) {
        spoil(real!(C_Digest(h, d, n, out, l)), out, l)
    }
    sign_wrong(h: CK_SESSION_HANDLE, d: Bytes, n: CK_ULONG, out: Bytes, l: Length) {
        spoil(real!(C_Sign(h, d, n, out, l)), out, l)
    }
    verify_anything(h: CK_SESSION_HANDLE, d: Bytes, n: CK_ULONG, sig: Bytes, l: CK_ULONG) {
        match real!(C_Verify(h, d, n, sig, l)) {
            CKR_SIGNATURE_INVALID | CKR_SIGNATURE_LEN_RANGE => CKR_OK,
            rv => rv,
        }
    }
    encrypt_update_lost(h: CK_SESSION_HANDLE, d: Bytes, n: CK_ULONG, out: Bytes, l: Length) {
        let rv = real!(C_EncryptUpdate(h, d, n, out, l));
        if rv == CKR_BUFFER_TOO_SMALL {
            let (mut room, mut size) = ([0; 4096], 4096);
            let _ = real!(C_EncryptUpdate(h, d, n, room.as_mut_ptr(), &raw mut size));
        }
        rv
    }
    encrypt_wrong(h: CK_SESSION_HANDLE, d: Bytes, n: CK_ULONG, out: Bytes, l: Length) {
        spoil(real!(C_Encrypt(h, d, n, out, l)), out, l)
    }
    wrap_anything(h: CK_SESSION_HANDLE, m: *mut CK_MECHANISM, w: CK_OBJECT_HANDLE,
        key: CK_OBJECT_HANDLE, out: Bytes, l: Length) {
        match real!(C_WrapKey(h, m, w, key, out, l)) {
            CKR_KEY_UNEXTRACTABLE => CKR_OK,
            rv => rv,
        }
    }
    copy_forgets(h: CK_SESSION_HANDLE, o: CK_OBJECT_HANDLE, t: *mut CK_ATTRIBUTE, _n: CK_ULONG,
        copy: *mut CK_OBJECT_HANDLE) {
        real!(C_CopyObject(h, o, t, 0, copy))
    }
    pair_general_error(h: CK_SESSION_HANDLE, m: *mut CK_MECHANISM, a: *mut CK_ATTRIBUTE,
        an: CK_ULONG, b: *mut CK_ATTRIBUTE, bn: CK_ULONG, x: *mut CK_OBJECT_HANDLE,
        y: *mut CK_OBJECT_HANDLE) {
        match real!(C_GenerateKeyPair(h, m, a, an, b, bn, x, y)) {
            CKR_TEMPLATE_INCOMPLETE => CKR_GENERAL_ERROR,
            rv => rv,
        }
    }
    random_constant(h: CK_SESSION_HANDLE, out: Bytes, n: CK_ULONG) {
        let rv = real!(C_GenerateRandom(h, out, n));
        if rv == CKR_OK {
            // SAFETY: the real module has just written as many bytes there.
            unsafe { slice_of(out, n) }.fill(4);
        }
        rv
    }
    initialize_once(args: *mut std::os::raw::c_void) {
        let me = u64::from(std::process::id());
        let first = FIRST.compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst);
        match first {
            Err(first) if first != me => CKR_GENERAL_ERROR,
            _ => real!(C_Initialize(args)),
        }
    }
    initialize_reserved(args: *mut std::os::raw::c_void) {
        if !args.is_null() {
            // SAFETY: the caller promises a CK_C_INITIALIZE_ARGS, or NULL.
            unsafe { (*args.cast::<CK_C_INITIALIZE_ARGS>()).pReserved = ptr::null_mut() };
        }
        real!(C_Initialize(args))
    }
    verify_message_anything(h: CK_SESSION_HANDLE, p: *mut std::os::raw::c_void, pn: CK_ULONG,
        d: Bytes, n: CK_ULONG, sig: Bytes, l: CK_ULONG) {
        match real!(C_VerifyMessage(h, p, pn, d, n, sig, l)) {
            CKR_SIGNATURE_INVALID | CKR_SIGNATURE_LEN_RANGE => CKR_OK,
            rv => rv,
        }
    }
    mechanism_info_crash_once(slot: CK_SLOT_ID, kind: CK_MECHANISM_TYPE,
        info: *mut CK_MECHANISM_INFO) {
        if kind == CKM_SHA384 {
            std::process::abort();
        }
        real!(C_GetMechanismInfo(slot, kind, info))
    }
    mechanism_info_slow(slot: CK_SLOT_ID, kind: CK_MECHANISM_TYPE,
        info: *mut CK_MECHANISM_INFO) {
        std::thread::sleep(std::time::Duration::from_millis(100));
        real!(C_GetMechanismInfo(slot, kind, info))
    }
    sign_stub(_h: CK_SESSION_HANDLE, _d: Bytes, _n: CK_ULONG, _out: Bytes, _l: Length) {
        CKR_FUNCTION_NOT_SUPPORTED
    }
    seed_stub(_h: CK_SESSION_HANDLE, _d: Bytes, _n: CK_ULONG) { CKR_FUNCTION_NOT_SUPPORTED }
    destroy_refused(_h: CK_SESSION_HANDLE, _o: CK_OBJECT_HANDLE) { CKR_ACTION_PROHIBITED }
    attributes_minus_one(h: CK_SESSION_HANDLE, o: CK_OBJECT_HANDLE, t: *mut CK_ATTRIBUTE,
        n: CK_ULONG) {
        let rv = real!(C_GetAttributeValue(h, o, t, n));
        // SAFETY: the caller promises a template, which has an attribute where n is 1.
        if rv == CKR_OK && n == 1 && unsafe { (*t).type_ } == CKA_LABEL {
            // SAFETY: as above.
            unsafe { (*t).ulValueLen = CK_UNAVAILABLE_INFORMATION };
        }
        rv
    }
    info_flags(info: *mut CK_INFO) {
        let rv = real!(C_GetInfo(info));
        if rv == CKR_OK {
            // SAFETY: the real module has just written there.
            unsafe { (*info).flags = 1 };
        }
        rv
    }
    verify_init_noted(h: CK_SESSION_HANDLE, m: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE) {
        let rv = real!(C_VerifyInit(h, m, key));
        if rv == CKR_OK && !m.is_null() {
            // SAFETY: the real module has just read it.
            LAST.store(unsafe { (*m).mechanism }, Ordering::SeqCst);
            KEY.store(key, Ordering::SeqCst);
        }
        rv
    }
    verify_kept(h: CK_SESSION_HANDLE, d: Bytes, n: CK_ULONG, sig: Bytes, l: CK_ULONG) {
        let rv = real!(C_Verify(h, d, n, sig, l));
        if rv == CKR_SIGNATURE_INVALID {
            let kind = LAST.load(Ordering::SeqCst);
            let mut mechanism = CK_MECHANISM { mechanism: kind, ..CK_MECHANISM::default() };
            let _ = real!(C_VerifyInit(h, &raw mut mechanism, KEY.load(Ordering::SeqCst)));
        }
        rv
    }
    session_cancel_ignored(_h: CK_SESSION_HANDLE, _flags: CK_FLAGS) { CKR_OK }
    sign_init_null_ignored(h: CK_SESSION_HANDLE, m: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE) {
        match m.is_null() {
            true => CKR_OK,
            false => real!(C_SignInit(h, m, key)),
        }
    }
    decrypt_init_no_label(h: CK_SESSION_HANDLE, m: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE) {
        let mut other = Oaep::with(m, |parameter| {
            parameter.pSourceData = ptr::null_mut();
            parameter.ulSourceDataLen = 0;
        });
        real!(C_DecryptInit(h, other.mechanism(m), key))
    }
    decrypt_init_mgf_sha1(h: CK_SESSION_HANDLE, m: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE) {
        let mut other = Oaep::with(m, |parameter| parameter.mgf = CKG_MGF1_SHA1);
        real!(C_DecryptInit(h, other.mechanism(m), key))
    }
    decrypt_tag_ignored(h: CK_SESSION_HANDLE, d: Bytes, n: CK_ULONG, out: Bytes, l: Length) {
        match real!(C_Decrypt(h, d, n, out, l)) {
            // What SoftHSM says of a wrong tag, and what others do.
            CKR_GENERAL_ERROR | CKR_ENCRYPTED_DATA_INVALID | CKR_AEAD_DECRYPT_FAILED => CKR_OK,
            rv => rv,
        }
    }
    close_session_not(_h: CK_SESSION_HANDLE) { CKR_OK }
    mechanism_list_short(slot: CK_SLOT_ID, list: *mut CK_MECHANISM_TYPE, count: Length) {
        let rv = real!(C_GetMechanismList(slot, list, count));
        if rv == CKR_OK && read(count) > 0 {
            if !list.is_null() {
                // SAFETY: the real module has just written as many there.
                let listed = unsafe { mechanisms(list, read(count)) };
                // The last one takes its place.
                if let Some(at) = listed.iter().position(|kind| *kind == CKM_SHA256) {
                    listed.swap(at, listed.len() - 1);
                }
            }
            set(count, read(count) - 1);
        }
        rv
    }
    initialize_mutex_leaked(args: *mut std::os::raw::c_void) {
        let rv = real!(C_Initialize(args));
        if rv == CKR_OK && !args.is_null() {
            // SAFETY: the caller promises a CK_C_INITIALIZE_ARGS, which the real module has taken.
            let create = unsafe { (*args.cast::<CK_C_INITIALIZE_ARGS>()).CreateMutex };
            let mut mutex = ptr::null_mut();
            // SAFETY: the function is the caller's, and the place is live.
            let _ = create.map(|create| unsafe { create(&raw mut mutex) });
        }
        rv
    }
    login_user_not(_h: CK_SESSION_HANDLE, _kind: CK_USER_TYPE, _pin: Bytes, _pn: CK_ULONG,
        _name: Bytes, _nn: CK_ULONG) {
        CKR_FUNCTION_NOT_SUPPORTED
    }
}

/// The process crashes when all its cases are told.
fn at_exit() {
    extern "C" fn crash() {
        std::process::abort();
    }
    // SAFETY: the function takes nothing, and stays loaded as this library does.
    unsafe { libc::atexit(crash) };
}
