//! A client of the module: the C functions of the shared object, as a C program calls them, in
//! safe Rust.
//!
//! Each [`Module`] is a copy of the shared object, loaded for itself: statics, C_Initialize and
//! C_Finalize of one test are nothing to another's in the same process.

#![allow(unsafe_code)]

use std::{
    ffi::{CString, c_void},
    fs,
    os::unix::ffi::OsStrExt,
    process::Command,
    ptr,
};

use cryptoki_sys::*;

use crate::support;

/// A result whose error is the CK_RV.
pub type Rv<T = ()> = Result<T, CK_RV>;

/// A template: types and encoded values.
pub type Template = Vec<(CK_ATTRIBUTE_TYPE, Vec<u8>)>;

/// What a search without match finds.
pub const NOTHING: [CK_OBJECT_HANDLE; 0] = [];

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
        Module { list: unsafe { &*interface.pFunctionList.cast::<CK_FUNCTION_LIST_3_2>() } }
    }

    /// A fresh copy, initialised with this configuration.
    pub fn start(toml: &str) -> Module {
        let module = Module::load();
        assert_eq!(module.initialize(toml), Ok(()), "{toml}");
        module
    }

    /// C_Initialize with a configuration in pReserved. It logs nothing, unless AKV_PKCS11_LOG
    /// says so: tests provoke refusals.
    pub fn initialize(&self, toml: &str) -> Rv {
        self.initialize_as_is(&format!("log.level = 'off'\n{toml}"))
    }

    /// C_Initialize with exactly this configuration.
    pub fn initialize_as_is(&self, toml: &str) -> Rv {
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
    }
}

/// Whether this is the process of its own that a test asked for: the test binary again, with this
/// one test, on its main thread. Where it is not yet, that process is run, and must succeed.
pub fn is_alone(test: &str, env: &[(&str, &str)]) -> bool {
    const MARK: &str = "AKV_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
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

/// A family of functions that share their protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// C_Digest….
    Digest,
    /// C_Sign….
    Sign,
    /// C_Verify….
    Verify,
    /// C_Encrypt….
    Encrypt,
    /// C_Decrypt….
    Decrypt,
}

/// What a test passes for an output buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// NULL: a query.
    Query,
    /// So many bytes.
    Bytes(usize),
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The CK_RV.
    pub rv: CK_RV,
    /// The length that was stored.
    pub length: usize,
    /// As many bytes of the buffer, where there was one and the call succeeded.
    pub bytes: Vec<u8>,
}

impl Output {
    /// Calls with a buffer, behind which nothing may be written.
    pub fn of(room: Room, call: impl FnOnce(*mut CK_BYTE, *mut CK_ULONG) -> CK_RV) -> Output {
        const GUARD: u8 = 0xA5;
        let capacity = match room {
            Room::Query => 0,
            Room::Bytes(n) => n,
        };
        let mut buffer = vec![GUARD; capacity + 32];
        let mut length = capacity as CK_ULONG;
        let start = if room == Room::Query { ptr::null_mut() } else { buffer.as_mut_ptr() };
        let rv = call(start, &raw mut length);
        assert!(buffer[capacity..].iter().all(|byte| *byte == GUARD), "written beyond {room:?}");
        if rv != CKR_OK {
            assert!(buffer.iter().all(|byte| *byte == GUARD), "written on failure {rv:#x}");
        }
        let length = length as usize;
        let bytes = match (rv, room) {
            (CKR_OK, Room::Bytes(_)) => buffer[..length].to_vec(),
            _ => Vec::new(),
        };
        Output { rv, length, bytes }
    }

    /// The bytes, or the error.
    pub fn result(self) -> Rv<Vec<u8>> {
        check(self.rv).map(|()| self.bytes)
    }
}

/// A mechanism with its parameter.
#[derive(Clone, Debug)]
pub struct Mechanism {
    /// CKM_….
    pub kind: CK_MECHANISM_TYPE,
    /// What comes with it.
    pub parameter: Parameter,
}

/// A mechanism's parameter.
#[derive(Clone, Debug)]
pub enum Parameter {
    /// NULL.
    None,
    /// CK_RSA_PKCS_PSS_PARAMS.
    Pss {
        /// hashAlg.
        hash: CK_MECHANISM_TYPE,
        /// mgf.
        mgf: CK_ULONG,
        /// sLen.
        salt: CK_ULONG,
    },
    /// CK_RSA_PKCS_OAEP_PARAMS.
    Oaep {
        /// hashAlg.
        hash: CK_MECHANISM_TYPE,
        /// mgf.
        mgf: CK_ULONG,
        /// source.
        source: CK_ULONG,
        /// pSourceData.
        label: Vec<u8>,
    },
    /// CK_GCM_PARAMS.
    Gcm {
        /// pIv.
        iv: Vec<u8>,
        /// pAAD.
        aad: Vec<u8>,
        /// ulTagBits.
        tag_bits: CK_ULONG,
    },
    /// CK_RSA_AES_KEY_WRAP_PARAMS with OAEP of SHA-1.
    RsaAes {
        /// ulAESKeyBits.
        bits: CK_ULONG,
    },
    /// Any bytes.
    Bytes(Vec<u8>),
}

impl Mechanism {
    /// Without parameter.
    pub fn plain(kind: CK_MECHANISM_TYPE) -> Mechanism {
        Mechanism { kind, parameter: Parameter::None }
    }

    /// RSASSA-PSS.
    pub fn pss(
        kind: CK_MECHANISM_TYPE,
        hash: CK_MECHANISM_TYPE,
        mgf: CK_ULONG,
        salt: usize,
    ) -> Mechanism {
        let salt = salt as CK_ULONG;
        Mechanism { kind, parameter: Parameter::Pss { hash, mgf, salt } }
    }

    /// RSAES-OAEP without label.
    pub fn oaep(hash: CK_MECHANISM_TYPE, mgf: CK_ULONG) -> Mechanism {
        let parameter =
            Parameter::Oaep { hash, mgf, source: CKZ_DATA_SPECIFIED, label: Vec::new() };
        Mechanism { kind: CKM_RSA_PKCS_OAEP, parameter }
    }

    /// Calls with the mechanism as C has it.
    pub fn with<T>(&self, call: impl FnOnce(*mut CK_MECHANISM) -> T) -> T {
        let mut raw =
            CK_MECHANISM { mechanism: self.kind, pParameter: ptr::null_mut(), ulParameterLen: 0 };
        let mut pss = CK_RSA_PKCS_PSS_PARAMS::default();
        let mut oaep = CK_RSA_PKCS_OAEP_PARAMS::default();
        let mut gcm = CK_GCM_PARAMS::default();
        let mut rsa_aes = CK_RSA_AES_KEY_WRAP_PARAMS::default();
        match &self.parameter {
            Parameter::None => {}
            Parameter::Pss { hash, mgf, salt } => {
                pss = CK_RSA_PKCS_PSS_PARAMS { hashAlg: *hash, mgf: *mgf, sLen: *salt };
                raw.pParameter = (&raw mut pss).cast();
                raw.ulParameterLen = size_of_val(&pss) as CK_ULONG;
            }
            Parameter::Oaep { hash, mgf, source, label } => {
                oaep = CK_RSA_PKCS_OAEP_PARAMS {
                    hashAlg: *hash,
                    mgf: *mgf,
                    source: *source,
                    pSourceData: match label.is_empty() {
                        true => ptr::null_mut(),
                        false => label.as_ptr().cast_mut().cast(),
                    },
                    ulSourceDataLen: label.len() as CK_ULONG,
                };
                raw.pParameter = (&raw mut oaep).cast();
                raw.ulParameterLen = size_of_val(&oaep) as CK_ULONG;
            }
            Parameter::Gcm { iv, aad, tag_bits } => {
                gcm = CK_GCM_PARAMS {
                    pIv: iv.as_ptr().cast_mut(),
                    ulIvLen: iv.len() as CK_ULONG,
                    ulIvBits: 8 * iv.len() as CK_ULONG,
                    pAAD: aad.as_ptr().cast_mut(),
                    ulAADLen: aad.len() as CK_ULONG,
                    ulTagBits: *tag_bits,
                };
                raw.pParameter = (&raw mut gcm).cast();
                raw.ulParameterLen = size_of_val(&gcm) as CK_ULONG;
            }
            Parameter::RsaAes { bits } => {
                oaep.hashAlg = CKM_SHA_1;
                oaep.mgf = CKG_MGF1_SHA1;
                oaep.source = CKZ_DATA_SPECIFIED;
                rsa_aes.ulAESKeyBits = *bits;
                rsa_aes.pOAEPParams = &raw mut oaep;
                raw.pParameter = (&raw mut rsa_aes).cast();
                raw.ulParameterLen = size_of_val(&rsa_aes) as CK_ULONG;
            }
            Parameter::Bytes(bytes) => {
                raw.pParameter = bytes.as_ptr().cast_mut().cast();
                raw.ulParameterLen = bytes.len() as CK_ULONG;
            }
        }
        let result = call(&raw mut raw);
        // The parameters live until here.
        let _ = (pss, oaep, gcm, rsa_aes);
        result
    }
}

/// A session. It is closed with its module, or by [`Session::close`].
#[derive(Clone, Copy)]
pub struct Session<'m> {
    /// Its module.
    pub module: &'m Module,
    /// Its handle.
    pub handle: CK_SESSION_HANDLE,
}

impl Session<'_> {
    /// C_CloseSession.
    pub fn close(self) -> Rv {
        check(call!(self.module, C_CloseSession(self.handle)))
    }

    /// C_GetSessionInfo.
    pub fn info(&self) -> Rv<CK_SESSION_INFO> {
        let mut info = CK_SESSION_INFO::default();
        check(call!(self.module, C_GetSessionInfo(self.handle, &raw mut info)))?;
        Ok(info)
    }

    /// C_Login.
    pub fn login(&self, user: CK_USER_TYPE, pin: &str) -> Rv {
        let (start, length) = input(pin.as_bytes());
        check(call!(self.module, C_Login(self.handle, user, start, length)))
    }

    /// C_LoginUser.
    pub fn login_user(&self, user: CK_USER_TYPE, pin: &str, name: &str) -> Rv {
        let ((pin, pin_len), (name, name_len)) = (input(pin.as_bytes()), input(name.as_bytes()));
        check(call!(self.module, C_LoginUser(self.handle, user, pin, pin_len, name, name_len)))
    }

    /// C_Logout.
    pub fn logout(&self) -> Rv {
        check(call!(self.module, C_Logout(self.handle)))
    }

    /// C_SessionCancel.
    pub fn cancel(&self, flags: CK_FLAGS) -> Rv {
        check(call!(self.module, C_SessionCancel(self.handle, flags)))
    }

    /// C_…Init. Digests take no key.
    pub fn init(&self, family: Family, mechanism: &Mechanism, key: CK_OBJECT_HANDLE) -> Rv {
        mechanism.with(|raw| self.init_raw(family, raw, key))
    }

    /// C_…Init with NULL for a mechanism: cancels.
    pub fn init_null(&self, family: Family) -> Rv {
        self.init_raw(family, ptr::null_mut(), 0)
    }

    fn init_raw(&self, family: Family, raw: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE) -> Rv {
        let (m, h) = (self.module, self.handle);
        check(match family {
            Family::Digest => call!(m, C_DigestInit(h, raw)),
            Family::Sign => call!(m, C_SignInit(h, raw, key)),
            Family::Verify => call!(m, C_VerifyInit(h, raw, key)),
            Family::Encrypt => call!(m, C_EncryptInit(h, raw, key)),
            Family::Decrypt => call!(m, C_DecryptInit(h, raw, key)),
        })
    }

    /// C_Digest, C_Sign, C_Encrypt, C_Decrypt with a buffer.
    pub fn one_shot_in(&self, family: Family, data: &[u8], room: Room) -> Output {
        let (m, h, (start, length)) = (self.module, self.handle, input(data));
        Output::of(room, |out, len| match family {
            Family::Digest => call!(m, C_Digest(h, start, length, out, len)),
            Family::Sign => call!(m, C_Sign(h, start, length, out, len)),
            Family::Encrypt => call!(m, C_Encrypt(h, start, length, out, len)),
            Family::Decrypt => call!(m, C_Decrypt(h, start, length, out, len)),
            Family::Verify => panic!("C_Verify has no output"),
        })
    }

    /// The same with a buffer that is large enough for anything.
    pub fn one_shot(&self, family: Family, data: &[u8]) -> Rv<Vec<u8>> {
        self.one_shot_in(family, data, Room::Bytes(1024)).result()
    }

    /// C_DigestUpdate, C_SignUpdate, C_VerifyUpdate; C_EncryptUpdate and C_DecryptUpdate, whose
    /// output is given back.
    pub fn update(&self, family: Family, part: &[u8]) -> Rv<Vec<u8>> {
        let (m, h, (start, length)) = (self.module, self.handle, input(part));
        let silent = match family {
            Family::Digest => call!(m, C_DigestUpdate(h, start, length)),
            Family::Sign => call!(m, C_SignUpdate(h, start, length)),
            Family::Verify => call!(m, C_VerifyUpdate(h, start, length)),
            Family::Encrypt | Family::Decrypt => {
                return self.update_in(family, part, Room::Bytes(1024)).result();
            }
        };
        check(silent).map(|()| Vec::new())
    }

    /// C_EncryptUpdate, C_DecryptUpdate with a buffer.
    pub fn update_in(&self, family: Family, part: &[u8], room: Room) -> Output {
        let (m, h, (start, length)) = (self.module, self.handle, input(part));
        Output::of(room, |out, len| match family {
            Family::Encrypt => call!(m, C_EncryptUpdate(h, start, length, out, len)),
            Family::Decrypt => call!(m, C_DecryptUpdate(h, start, length, out, len)),
            _ => panic!("{family:?} has no output on update"),
        })
    }

    /// C_DigestFinal, C_SignFinal, C_EncryptFinal, C_DecryptFinal with a buffer.
    pub fn last_in(&self, family: Family, room: Room) -> Output {
        let (m, h) = (self.module, self.handle);
        Output::of(room, |out, len| match family {
            Family::Digest => call!(m, C_DigestFinal(h, out, len)),
            Family::Sign => call!(m, C_SignFinal(h, out, len)),
            Family::Encrypt => call!(m, C_EncryptFinal(h, out, len)),
            Family::Decrypt => call!(m, C_DecryptFinal(h, out, len)),
            Family::Verify => panic!("C_VerifyFinal has no output"),
        })
    }

    /// The same with a buffer that is large enough for anything.
    pub fn last(&self, family: Family) -> Rv<Vec<u8>> {
        self.last_in(family, Room::Bytes(1024)).result()
    }

    /// C_Verify.
    pub fn verify_data(&self, data: &[u8], signature: &[u8]) -> Rv {
        let ((data, data_len), (sig, sig_len)) = (input(data), input(signature));
        check(call!(self.module, C_Verify(self.handle, data, data_len, sig, sig_len)))
    }

    /// C_VerifyFinal.
    pub fn verify_last(&self, signature: &[u8]) -> Rv {
        let (start, length) = input(signature);
        check(call!(self.module, C_VerifyFinal(self.handle, start, length)))
    }

    /// C_VerifyRecoverInit.
    pub fn recover_init(&self, mechanism: &Mechanism, key: CK_OBJECT_HANDLE) -> Rv {
        mechanism.with(|raw| check(call!(self.module, C_VerifyRecoverInit(self.handle, raw, key))))
    }

    /// C_VerifyRecover with a buffer.
    pub fn recover(&self, signature: &[u8], room: Room) -> Output {
        let (start, length) = input(signature);
        Output::of(room, |out, len| {
            call!(self.module, C_VerifyRecover(self.handle, start, length, out, len))
        })
    }

    /// Init and the one-shot call.
    pub fn run(
        &self,
        family: Family,
        mechanism: &Mechanism,
        key: CK_OBJECT_HANDLE,
        data: &[u8],
    ) -> Rv<Vec<u8>> {
        self.init(family, mechanism, key)?;
        self.one_shot(family, data)
    }

    /// C_SignInit and C_Sign.
    pub fn sign(&self, mechanism: &Mechanism, key: CK_OBJECT_HANDLE, data: &[u8]) -> Rv<Vec<u8>> {
        self.run(Family::Sign, mechanism, key, data)
    }

    /// C_VerifyInit and C_Verify.
    pub fn verify(
        &self,
        mechanism: &Mechanism,
        key: CK_OBJECT_HANDLE,
        data: &[u8],
        signature: &[u8],
    ) -> Rv {
        self.init(Family::Verify, mechanism, key)?;
        self.verify_data(data, signature)
    }

    /// C_FindObjectsInit.
    pub fn find_init(&self, template: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)]) -> Rv {
        with_template(template, |start, count| {
            check(call!(self.module, C_FindObjectsInit(self.handle, start, count)))
        })
    }

    /// C_FindObjects for at most `most` handles.
    pub fn find_next(&self, most: usize) -> Rv<Vec<CK_OBJECT_HANDLE>> {
        let mut handles = vec![0; most];
        let mut count = 0;
        let (start, max) = (handles.as_mut_ptr(), most as CK_ULONG);
        check(call!(self.module, C_FindObjects(self.handle, start, max, &raw mut count)))?;
        handles.truncate(count as usize);
        Ok(handles)
    }

    /// C_FindObjectsFinal.
    pub fn find_final(&self) -> Rv {
        check(call!(self.module, C_FindObjectsFinal(self.handle)))
    }

    /// A whole search.
    pub fn find(&self, template: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)]) -> Rv<Vec<CK_OBJECT_HANDLE>> {
        self.find_init(template)?;
        let mut all = Vec::new();
        loop {
            let some = self.find_next(7)?;
            if some.is_empty() {
                self.find_final()?;
                return Ok(all);
            }
            all.extend(some);
        }
    }

    /// The only object of a class with a label.
    pub fn object(&self, class: CK_OBJECT_CLASS, label: &str) -> CK_OBJECT_HANDLE {
        let template = [number(CKA_CLASS, class), bytes(CKA_LABEL, label)];
        let found = self.find(&template).expect("a search");
        assert_eq!(found.len(), 1, "objects of class {class:#x} named {label}");
        found[0]
    }

    /// The private and the public key of a label.
    pub fn pair(&self, label: &str) -> (CK_OBJECT_HANDLE, CK_OBJECT_HANDLE) {
        (self.object(CKO_PRIVATE_KEY, label), self.object(CKO_PUBLIC_KEY, label))
    }

    /// C_GetAttributeValue for one attribute: length, then value.
    pub fn value(&self, object: CK_OBJECT_HANDLE, kind: CK_ATTRIBUTE_TYPE) -> Rv<Vec<u8>> {
        let mut asked = [Asked::length(kind)];
        check(self.values(object, &mut asked))?;
        let mut asked = [Asked::room(kind, asked[0].length as usize)];
        check(self.values(object, &mut asked))?;
        let [Asked { length, value, .. }] = asked;
        let mut value = value.expect("room");
        value.truncate(length as usize);
        Ok(value)
    }

    /// A CK_BBOOL.
    pub fn flag(&self, object: CK_OBJECT_HANDLE, kind: CK_ATTRIBUTE_TYPE) -> Rv<bool> {
        let value = self.value(object, kind)?;
        match value[..] {
            [CK_FALSE] => Ok(false),
            [CK_TRUE] => Ok(true),
            _ => panic!("attribute {kind:#x} is no CK_BBOOL: {value:?}"),
        }
    }

    /// A CK_ULONG.
    pub fn number(&self, object: CK_OBJECT_HANDLE, kind: CK_ATTRIBUTE_TYPE) -> Rv<CK_ULONG> {
        let value = self.value(object, kind)?;
        Ok(CK_ULONG::from_ne_bytes(value.try_into().expect("a CK_ULONG")))
    }

    /// A text.
    pub fn text(&self, object: CK_OBJECT_HANDLE, kind: CK_ATTRIBUTE_TYPE) -> Rv<String> {
        Ok(String::from_utf8(self.value(object, kind)?).expect("UTF-8"))
    }

    /// C_GetAttributeValue for several attributes; lengths and values are stored in `asked`.
    pub fn values(&self, object: CK_OBJECT_HANDLE, asked: &mut [Asked]) -> CK_RV {
        let mut raw: Vec<CK_ATTRIBUTE> = asked
            .iter_mut()
            .map(|one| CK_ATTRIBUTE {
                type_: one.kind,
                pValue: one.value.as_mut().map_or(ptr::null_mut(), |v| v.as_mut_ptr().cast()),
                ulValueLen: one.length,
            })
            .collect();
        let (start, count) = (raw.as_mut_ptr(), raw.len() as CK_ULONG);
        let rv = call!(self.module, C_GetAttributeValue(self.handle, object, start, count));
        for (one, raw) in asked.iter_mut().zip(&raw) {
            one.length = raw.ulValueLen;
        }
        rv
    }

    /// C_SetAttributeValue.
    pub fn set(&self, object: CK_OBJECT_HANDLE, template: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)]) -> Rv {
        with_template(template, |start, count| {
            check(call!(self.module, C_SetAttributeValue(self.handle, object, start, count)))
        })
    }

    /// C_CreateObject.
    pub fn create(&self, template: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)]) -> Rv<CK_OBJECT_HANDLE> {
        let mut object = 0;
        with_template(template, |start, count| {
            check(call!(self.module, C_CreateObject(self.handle, start, count, &raw mut object)))
        })?;
        Ok(object)
    }

    /// C_CopyObject.
    pub fn copy(
        &self,
        object: CK_OBJECT_HANDLE,
        template: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)],
    ) -> Rv<CK_OBJECT_HANDLE> {
        let mut copy = 0;
        with_template(template, |start, count| {
            check(call!(
                self.module,
                C_CopyObject(self.handle, object, start, count, &raw mut copy)
            ))
        })?;
        Ok(copy)
    }

    /// C_WrapKey, its length asked for first.
    pub fn wrap(
        &self,
        mechanism: &Mechanism,
        wrapping: CK_OBJECT_HANDLE,
        key: CK_OBJECT_HANDLE,
    ) -> Rv<Vec<u8>> {
        mechanism.with(|mechanism| {
            let call = |start: *mut u8, length: &mut CK_ULONG| {
                check(call!(
                    self.module,
                    C_WrapKey(self.handle, mechanism, wrapping, key, start, length)
                ))
            };
            let mut length = 0;
            call(ptr::null_mut(), &mut length)?;
            let mut wrapped = vec![0; length as usize];
            let mut short = length - 1;
            assert_eq!(call(wrapped.as_mut_ptr(), &mut short), Err(CKR_BUFFER_TOO_SMALL));
            call(wrapped.as_mut_ptr(), &mut length)?;
            wrapped.truncate(length as usize);
            Ok(wrapped)
        })
    }

    /// C_UnwrapKey.
    pub fn unwrap(
        &self,
        mechanism: &Mechanism,
        unwrapping: CK_OBJECT_HANDLE,
        wrapped: &[u8],
        template: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)],
    ) -> Rv<CK_OBJECT_HANDLE> {
        let mut key = 0;
        mechanism.with(|mechanism| {
            with_template(template, |start, count| {
                let bytes = (wrapped.as_ptr().cast_mut(), wrapped.len() as CK_ULONG);
                check(call!(
                    self.module,
                    C_UnwrapKey(
                        self.handle,
                        mechanism,
                        unwrapping,
                        bytes.0,
                        bytes.1,
                        start,
                        count,
                        &raw mut key
                    )
                ))
            })
        })?;
        Ok(key)
    }

    /// C_DestroyObject.
    pub fn destroy(&self, object: CK_OBJECT_HANDLE) -> Rv {
        check(call!(self.module, C_DestroyObject(self.handle, object)))
    }

    /// C_GenerateKeyPair: the public key's handle, the private key's.
    pub fn generate(
        &self,
        mechanism: &Mechanism,
        public: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)],
        private: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)],
    ) -> Rv<(CK_OBJECT_HANDLE, CK_OBJECT_HANDLE)> {
        let (m, h) = (self.module, self.handle);
        let (mut public_key, mut private_key) = (0, 0);
        mechanism.with(|raw| {
            with_template(public, |pub_start, pub_count| {
                with_template(private, |start, count| {
                    let (a, b) = (&raw mut public_key, &raw mut private_key);
                    check(call!(
                        m,
                        C_GenerateKeyPair(h, raw, pub_start, pub_count, start, count, a, b)
                    ))
                })
            })
        })?;
        Ok((public_key, private_key))
    }

    /// C_GenerateKey.
    pub fn generate_key(
        &self,
        mechanism: &Mechanism,
        template: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)],
    ) -> Rv<CK_OBJECT_HANDLE> {
        let (m, h, mut key) = (self.module, self.handle, 0);
        mechanism.with(|raw| {
            with_template(template, |start, count| {
                check(call!(m, C_GenerateKey(h, raw, start, count, &raw mut key)))
            })
        })?;
        Ok(key)
    }

    /// C_GenerateRandom.
    pub fn random(&self, count: usize) -> Rv<Vec<u8>> {
        let mut bytes = vec![0; count];
        let (start, length) = (bytes.as_mut_ptr(), count as CK_ULONG);
        check(call!(self.module, C_GenerateRandom(self.handle, start, length)))?;
        Ok(bytes)
    }
}

/// One entry of a template that asks for values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// CKA_….
    pub kind: CK_ATTRIBUTE_TYPE,
    /// ulValueLen, before and after the call.
    pub length: CK_ULONG,
    /// pValue; None is NULL.
    pub value: Option<Vec<u8>>,
}

impl Asked {
    /// Asks for the length only.
    pub fn length(kind: CK_ATTRIBUTE_TYPE) -> Asked {
        Asked { kind, length: 0, value: None }
    }

    /// Offers room.
    pub fn room(kind: CK_ATTRIBUTE_TYPE, room: usize) -> Asked {
        Asked { kind, length: room as CK_ULONG, value: Some(vec![0xA5; room]) }
    }
}

/// A CK_BBOOL of a template.
pub fn flag(kind: CK_ATTRIBUTE_TYPE, value: bool) -> (CK_ATTRIBUTE_TYPE, Vec<u8>) {
    (kind, vec![CK_BBOOL::from(value)])
}

/// A CK_ULONG of a template.
pub fn number(kind: CK_ATTRIBUTE_TYPE, value: CK_ULONG) -> (CK_ATTRIBUTE_TYPE, Vec<u8>) {
    (kind, value.to_ne_bytes().to_vec())
}

/// Bytes of a template.
pub fn bytes(kind: CK_ATTRIBUTE_TYPE, value: impl AsRef<[u8]>) -> (CK_ATTRIBUTE_TYPE, Vec<u8>) {
    (kind, value.as_ref().to_vec())
}

/// Calls with a template as C has it.
pub fn with_template<T>(
    template: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)],
    call: impl FnOnce(*mut CK_ATTRIBUTE, CK_ULONG) -> T,
) -> T {
    let mut raw: Vec<CK_ATTRIBUTE> = template
        .iter()
        .map(|(kind, value)| CK_ATTRIBUTE {
            type_: *kind,
            pValue: value.as_ptr().cast_mut().cast::<c_void>(),
            ulValueLen: value.len() as CK_ULONG,
        })
        .collect();
    call(raw.as_mut_ptr(), raw.len() as CK_ULONG)
}

/// Pointer and length of an input; the empty one is NULL.
pub fn input(data: &[u8]) -> (*mut CK_BYTE, CK_ULONG) {
    let start = if data.is_empty() { ptr::null_mut() } else { data.as_ptr().cast_mut() };
    (start, data.len() as CK_ULONG)
}
