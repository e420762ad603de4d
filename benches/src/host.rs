//! A host program: loads a PKCS#11 module and calls its C functions.
//!
//! The version 2.40 list is used, which every module has.

#![allow(unsafe_code, reason = "the C interface is what is measured")]

use std::{ffi::CString, fmt, io, os::unix::ffi::OsStrExt, path::Path, ptr};

use cryptoki_sys::*;

/// Which token and key of which module.
#[derive(Clone, Debug)]
pub struct Target {
    /// The shared object.
    pub module: std::path::PathBuf,
    /// Token label; None for the first token there is.
    pub token: Option<String>,
    /// CKA_LABEL of a P-256 private key.
    pub key: String,
    /// Logs in with it.
    pub pin: Option<String>,
}

/// A function that did not answer CKR_OK.
#[derive(Debug)]
pub struct Failed(pub &'static str, pub CK_RV);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answered {:#x}", self.0, self.1)
    }
}

impl std::error::Error for Failed {}

impl From<Failed> for io::Error {
    fn from(failed: Failed) -> Self {
        io::Error::other(failed)
    }
}

/// Calls a function of the list.
macro_rules! call {
    ($list:expr, $name:ident($($argument:expr),* $(,)?)) => {
        match $list.$name {
            None => Err(Failed(stringify!($name), CKR_FUNCTION_NOT_SUPPORTED)),
            // SAFETY: the arguments are what PKCS#11 asks of this function; pointers outlive it.
            Some(function) => match unsafe { function($($argument),*) } {
                CKR_OK => Ok(()),
                rv => Err(Failed(stringify!($name), rv)),
            },
        }
    };
}

/// A loaded module.
#[derive(Clone, Copy)]
pub struct Module(&'static CK_FUNCTION_LIST);

impl Module {
    /// dlopen and C_GetFunctionList.
    ///
    /// # Errors
    /// What dlopen says.
    pub fn load(path: &Path) -> io::Result<Module> {
        let text = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: loading runs the module's constructors, which is what a host does.
        let library = unsafe { libc::dlopen(text.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if library.is_null() {
            return Err(io::Error::other(format!("{} cannot be loaded", path.display())));
        }
        // SAFETY: a handle of dlopen and a C string.
        let symbol = unsafe { libc::dlsym(library, c"C_GetFunctionList".as_ptr()) };
        if symbol.is_null() {
            return Err(io::Error::other(format!("{} is no PKCS#11 module", path.display())));
        }
        // SAFETY: the function of this name has this type (PKCS#11 2.40, 5.4).
        let get: CK_C_GetFunctionList = unsafe { std::mem::transmute(symbol) };
        let mut list = ptr::null_mut();
        // SAFETY: a live pointer.
        let rv = get.map(|get| unsafe { get(&raw mut list) });
        // SAFETY: CKR_OK promises a list that lives as long as the module, which is never unloaded.
        match (rv, unsafe { list.as_ref() }) {
            (Some(CKR_OK), Some(list)) => Ok(Module(list)),
            _ => Err(io::Error::other("C_GetFunctionList failed")),
        }
    }

    /// C_Initialize with CKF_OS_LOCKING_OK.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn initialize(self) -> Result<(), Failed> {
        let mut arguments =
            CK_C_INITIALIZE_ARGS { flags: CKF_OS_LOCKING_OK, ..CK_C_INITIALIZE_ARGS::default() };
        call!(self.0, C_Initialize((&raw mut arguments).cast()))
    }

    /// The slot of a token.
    ///
    /// # Errors
    /// [`Failed`]; CKR_TOKEN_NOT_PRESENT where no token has the label.
    pub fn slot(self, label: Option<&str>) -> Result<CK_SLOT_ID, Failed> {
        let mut slots = [0; 64];
        let mut count = slots.len() as CK_ULONG;
        call!(self.0, C_GetSlotList(CK_TRUE, slots.as_mut_ptr(), &raw mut count))?;
        for slot in &slots[..slots.len().min(count as usize)] {
            let mut info = CK_TOKEN_INFO::default();
            call!(self.0, C_GetTokenInfo(*slot, &raw mut info))?;
            let found = String::from_utf8_lossy(&info.label);
            if label.is_none_or(|label| found.trim_end() == label) {
                return Ok(*slot);
            }
        }
        Err(Failed("C_GetSlotList", CKR_TOKEN_NOT_PRESENT))
    }

    /// C_OpenSession, and C_Login where there is a PIN.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn open(self, slot: CK_SLOT_ID, pin: Option<&str>) -> Result<Session, Failed> {
        let mut handle = 0;
        let opened = &raw mut handle;
        call!(self.0, C_OpenSession(slot, CKF_SERIAL_SESSION, ptr::null_mut(), None, opened))?;
        let session = Session { list: self.0, handle };
        if let Some(pin) = pin {
            let (bytes, length) = (pin.as_ptr().cast_mut(), pin.len() as CK_ULONG);
            match call!(self.0, C_Login(handle, CKU_USER, bytes, length)) {
                Ok(()) | Err(Failed(_, CKR_USER_ALREADY_LOGGED_IN)) => {}
                Err(failed) => return Err(failed),
            }
        }
        Ok(session)
    }
}

/// An open session; never closed, for the process ends soon.
#[derive(Clone, Copy)]
pub struct Session {
    list: &'static CK_FUNCTION_LIST,
    handle: CK_SESSION_HANDLE,
}

impl Session {
    /// The objects that match: class (none for any) and one more attribute, CKA_LABEL or CKA_ID
    /// (none for any), at most 20,000.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn find(
        &self,
        class: Option<CK_OBJECT_CLASS>,
        named: Option<(CK_ATTRIBUTE_TYPE, &[u8])>,
    ) -> Result<Vec<CK_OBJECT_HANDLE>, Failed> {
        let mut class_value = class.unwrap_or_default();
        let mut template = Vec::with_capacity(2);
        if class.is_some() {
            template.push(attribute(
                CKA_CLASS,
                (&raw mut class_value).cast(),
                size_of_val(&class_value),
            ));
        }
        if let Some((kind, value)) = named {
            template.push(attribute(kind, value.as_ptr().cast_mut().cast(), value.len()));
        }
        let length = template.len() as CK_ULONG;
        call!(self.list, C_FindObjectsInit(self.handle, template.as_mut_ptr(), length))?;
        let mut found = Vec::new();
        loop {
            let mut page = [0; 512];
            let mut count = 0;
            let most = page.len() as CK_ULONG;
            let read = &raw mut count;
            call!(self.list, C_FindObjects(self.handle, page.as_mut_ptr(), most, read))?;
            found.extend_from_slice(&page[..count as usize]);
            if count == 0 || named.is_some() || found.len() >= 20_000 {
                break;
            }
        }
        call!(self.list, C_FindObjectsFinal(self.handle))?;
        Ok(found)
    }

    /// The private key of a label.
    ///
    /// # Errors
    /// [`Failed`]; CKR_OBJECT_HANDLE_INVALID where there is none.
    pub fn private_key(&self, label: &str) -> Result<CK_OBJECT_HANDLE, Failed> {
        let found = self.find(Some(CKO_PRIVATE_KEY), Some(labelled(label)))?;
        found.first().copied().ok_or(Failed("C_FindObjects", CKR_OBJECT_HANDLE_INVALID))
    }

    /// C_SignInit with CKM_ECDSA.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn sign_init(&self, key: CK_OBJECT_HANDLE) -> Result<(), Failed> {
        let mut mechanism = CK_MECHANISM { mechanism: CKM_ECDSA, ..CK_MECHANISM::default() };
        call!(self.list, C_SignInit(self.handle, &raw mut mechanism, key))
    }

    /// C_SignInit and C_Sign of a digest with CKM_ECDSA and P-256.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn sign(&self, key: CK_OBJECT_HANDLE, digest: &[u8; 32]) -> Result<[u8; 64], Failed> {
        self.sign_init(key)?;
        let mut signature = [0; 64];
        let mut length = signature.len() as CK_ULONG;
        let data = digest.as_ptr().cast_mut();
        let (out, size) = (signature.as_mut_ptr(), &raw mut length);
        call!(self.list, C_Sign(self.handle, data, 32, out, size))?;
        Ok(signature)
    }

    /// The size a signature needs: C_Sign with no buffer, which leaves the operation active.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn signature_size(&self, digest: &[u8; 32]) -> Result<CK_ULONG, Failed> {
        let mut length = 0;
        let data = digest.as_ptr().cast_mut();
        call!(self.list, C_Sign(self.handle, data, 32, ptr::null_mut(), &raw mut length))?;
        Ok(length)
    }

    /// C_VerifyInit and C_Verify.
    ///
    /// # Errors
    /// [`Failed`]; CKR_SIGNATURE_INVALID.
    pub fn verify(
        &self,
        kind: CK_MECHANISM_TYPE,
        key: CK_OBJECT_HANDLE,
        data: &[u8],
        signature: &[u8],
    ) -> Result<(), Failed> {
        let mut mechanism = CK_MECHANISM { mechanism: kind, ..CK_MECHANISM::default() };
        call!(self.list, C_VerifyInit(self.handle, &raw mut mechanism, key))?;
        let (data_at, data_length) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
        let (at, length) = (signature.as_ptr().cast_mut(), signature.len() as CK_ULONG);
        call!(self.list, C_Verify(self.handle, data_at, data_length, at, length))
    }

    /// C_EncryptInit and C_Encrypt with CKM_RSA_PKCS.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn encrypt(&self, key: CK_OBJECT_HANDLE, data: &[u8]) -> Result<Vec<u8>, Failed> {
        let mut mechanism = CK_MECHANISM { mechanism: CKM_RSA_PKCS, ..CK_MECHANISM::default() };
        call!(self.list, C_EncryptInit(self.handle, &raw mut mechanism, key))?;
        let mut out = vec![0; 1024];
        let mut length = out.len() as CK_ULONG;
        let (at, size) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
        let result = &raw mut length;
        call!(self.list, C_Encrypt(self.handle, at, size, out.as_mut_ptr(), result))?;
        out.truncate(length as usize);
        Ok(out)
    }

    /// C_DigestInit and C_Digest with SHA-256.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn digest(&self, data: &[u8]) -> Result<[u8; 32], Failed> {
        let mut mechanism = CK_MECHANISM { mechanism: CKM_SHA256, ..CK_MECHANISM::default() };
        call!(self.list, C_DigestInit(self.handle, &raw mut mechanism))?;
        let mut digest = [0; 32];
        let mut length = digest.len() as CK_ULONG;
        let (at, size) = (data.as_ptr().cast_mut(), data.len() as CK_ULONG);
        let out = digest.as_mut_ptr();
        call!(self.list, C_Digest(self.handle, at, size, out, &raw mut length))?;
        Ok(digest)
    }

    /// C_GenerateRandom.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn random(&self, out: &mut [u8]) -> Result<(), Failed> {
        let length = out.len() as CK_ULONG;
        call!(self.list, C_GenerateRandom(self.handle, out.as_mut_ptr(), length))
    }

    /// C_GetSessionInfo.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn info(&self) -> Result<CK_SESSION_INFO, Failed> {
        let mut info = CK_SESSION_INFO::default();
        call!(self.list, C_GetSessionInfo(self.handle, &raw mut info))?;
        Ok(info)
    }

    /// C_GetAttributeValue of CKA_CLASS, CKA_KEY_TYPE and CKA_LABEL; the length of the label.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn attributes(&self, object: CK_OBJECT_HANDLE) -> Result<CK_ULONG, Failed> {
        let (mut class, mut kind, mut label): (CK_ULONG, CK_ULONG, [u8; 128]) = (0, 0, [0; 128]);
        let mut template = [
            attribute(CKA_CLASS, (&raw mut class).cast(), size_of::<CK_ULONG>()),
            attribute(CKA_KEY_TYPE, (&raw mut kind).cast(), size_of::<CK_ULONG>()),
            attribute(CKA_LABEL, label.as_mut_ptr().cast(), label.len()),
        ];
        let length = template.len() as CK_ULONG;
        call!(self.list, C_GetAttributeValue(self.handle, object, template.as_mut_ptr(), length))?;
        Ok(template[2].ulValueLen)
    }

    /// C_GetAttributeValue of CKA_ID, at most 64 bytes.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn id(&self, object: CK_OBJECT_HANDLE) -> Result<Vec<u8>, Failed> {
        let mut id = vec![0; 64];
        let mut asked = attribute(CKA_ID, id.as_mut_ptr().cast(), id.len());
        call!(self.list, C_GetAttributeValue(self.handle, object, &raw mut asked, 1))?;
        id.truncate(asked.ulValueLen as usize);
        Ok(id)
    }

    /// C_CreateObject of a session public key: its class-specific attributes, encoded.
    ///
    /// # Errors
    /// [`Failed`].
    pub fn public_key(
        &self,
        mut kind: CK_KEY_TYPE,
        parts: &mut [(CK_ATTRIBUTE_TYPE, Vec<u8>)],
    ) -> Result<CK_OBJECT_HANDLE, Failed> {
        let (mut class, mut yes) = (CKO_PUBLIC_KEY, CK_TRUE);
        let mut template = vec![
            attribute(CKA_CLASS, (&raw mut class).cast(), size_of::<CK_ULONG>()),
            attribute(CKA_KEY_TYPE, (&raw mut kind).cast(), size_of::<CK_ULONG>()),
            attribute(CKA_VERIFY, (&raw mut yes).cast(), 1),
        ];
        for (name, value) in parts {
            template.push(attribute(*name, value.as_mut_ptr().cast(), value.len()));
        }
        let length = template.len() as CK_ULONG;
        let mut handle = 0;
        let made = &raw mut handle;
        call!(self.list, C_CreateObject(self.handle, template.as_mut_ptr(), length, made))?;
        Ok(handle)
    }
}

/// CKA_LABEL with this value, for [`Session::find`].
pub fn labelled(label: &str) -> (CK_ATTRIBUTE_TYPE, &[u8]) {
    (CKA_LABEL, label.as_bytes())
}

fn attribute(kind: CK_ATTRIBUTE_TYPE, value: CK_VOID_PTR, length: usize) -> CK_ATTRIBUTE {
    CK_ATTRIBUTE { type_: kind, pValue: value, ulValueLen: length as CK_ULONG }
}
