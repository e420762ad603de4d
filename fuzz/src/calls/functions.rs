//! Every C function by its number, called with words.

use std::{ffi::c_void, sync::LazyLock};

use akv_pkcs11::abi::{ARGUMENTS, C_GetInterface, FUNCTIONS};
use cryptoki_sys::*;

/// One argument, before the C type is known.
#[derive(Clone, Copy, Debug)]
pub enum Word {
    /// A handle, a length, flags.
    Number(u64),
    /// Anything behind a pointer.
    Pointer(*mut c_void),
}

/// A C function.
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// Whether the module carries it out.
    pub supported: bool,
    /// What its arguments are, in their order.
    pub roles: Vec<Role>,
    call: unsafe fn(&CK_FUNCTION_LIST_3_2, &[Word]) -> CK_RV,
}

/// What an argument, or a pair of them, is for: as `src/abi/table.rs` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// CK_SESSION_HANDLE.
    Session,
    /// CK_SLOT_ID.
    Slot,
    /// Bytes to read, and their length.
    In,
    /// Bytes to write, and the address of their length.
    Out,
    /// Bytes to write, and their length.
    Bytes,
    /// Attributes and their count.
    Template,
    /// CK_MECHANISM.
    Mechanism,
    /// A message's parameter and its length.
    Parameter,
    /// Room for handles, and for how many.
    Handles,
    /// Room for values of this many bytes, and the address of their count.
    List(usize),
    /// A pointer to one value of this C type.
    Place(&'static str),
    /// A number of this C type.
    Plain(&'static str),
}

impl Function {
    /// Calls the module.
    ///
    /// # Safety
    /// The words are what a C caller may pass, in number and kind as [`Role`] says.
    pub unsafe fn call(&self, words: &[Word]) -> CK_RV {
        // SAFETY: this function's contract.
        unsafe { (self.call)(LIST.0, words) }
    }

    /// The function of this name.
    pub fn named(name: &str) -> (usize, &'static Function) {
        let at = ALL.iter().position(|function| function.name == name).expect("a function");
        (at, &ALL[at])
    }
}

/// The function list of 3.2, from the module as its clients get it.
static LIST: LazyLock<List> = LazyLock::new(|| {
    let mut interface = std::ptr::null_mut();
    let mut version = CK_VERSION { major: 3, minor: 2 };
    let (name, version) = (c"PKCS 11".as_ptr().cast_mut().cast(), &raw mut version);
    // SAFETY: a name, a version and room for a pointer.
    let rv = unsafe { C_GetInterface(name, version, &raw mut interface, 0) };
    assert_eq!(rv, CKR_OK);
    // SAFETY: the module's own interface, a static of it.
    let list = unsafe { (*interface).pFunctionList };
    // SAFETY: the list of the version that was asked for, another static.
    List(unsafe { &*list.cast() })
});

struct List(&'static CK_FUNCTION_LIST_3_2);

// SAFETY: function pointers and a version, which nobody writes.
unsafe impl Sync for List {}
// SAFETY: as above.
unsafe impl Send for List {}

macro_rules! functions {
    ($($name:ident)*) => {
        /// Every function, in the order of the list.
        pub static ALL: LazyLock<Vec<Function>> = LazyLock::new(|| {
            let calls: &[(&str, unsafe fn(&CK_FUNCTION_LIST_3_2, &[Word]) -> CK_RV)] = &[$((
                stringify!($name),
                // SAFETY: the contract of `Function::call`.
                |list, words| unsafe { list.$name.expect("every function is there").with(words) },
            )),*];
            assert_eq!(calls.len(), FUNCTIONS.len(), "a function is missing here");
            let rows = FUNCTIONS.iter().zip(ARGUMENTS).zip(calls);
            rows.map(|(((name, supported), arguments), (called, call))| {
                assert_eq!(name, called, "the order of the module's table");
                Function { name, supported: *supported, roles: roles(arguments), call: *call }
            })
            .collect()
        });
    };
}

functions! {
    C_Initialize C_Finalize C_GetInfo C_GetFunctionList C_GetSlotList C_GetSlotInfo C_GetTokenInfo
    C_GetMechanismList C_GetMechanismInfo C_InitToken C_InitPIN C_SetPIN C_OpenSession
    C_CloseSession C_CloseAllSessions C_GetSessionInfo C_GetOperationState C_SetOperationState
    C_Login C_Logout C_CreateObject C_CopyObject C_DestroyObject C_GetObjectSize
    C_GetAttributeValue C_SetAttributeValue C_FindObjectsInit C_FindObjects C_FindObjectsFinal
    C_EncryptInit C_Encrypt C_EncryptUpdate C_EncryptFinal C_DecryptInit C_Decrypt C_DecryptUpdate
    C_DecryptFinal C_DigestInit C_Digest C_DigestUpdate C_DigestKey C_DigestFinal C_SignInit
    C_Sign C_SignUpdate C_SignFinal C_SignRecoverInit C_SignRecover C_VerifyInit C_Verify
    C_VerifyUpdate C_VerifyFinal C_VerifyRecoverInit C_VerifyRecover C_DigestEncryptUpdate
    C_DecryptDigestUpdate C_SignEncryptUpdate C_DecryptVerifyUpdate C_GenerateKey
    C_GenerateKeyPair C_WrapKey C_UnwrapKey C_DeriveKey C_SeedRandom C_GenerateRandom
    C_GetFunctionStatus C_CancelFunction C_WaitForSlotEvent C_GetInterfaceList C_GetInterface
    C_LoginUser C_SessionCancel C_MessageEncryptInit C_EncryptMessage C_EncryptMessageBegin
    C_EncryptMessageNext C_MessageEncryptFinal C_MessageDecryptInit C_DecryptMessage
    C_DecryptMessageBegin C_DecryptMessageNext C_MessageDecryptFinal C_MessageSignInit
    C_SignMessage C_SignMessageBegin C_SignMessageNext C_MessageSignFinal C_MessageVerifyInit
    C_VerifyMessage C_VerifyMessageBegin C_VerifyMessageNext C_MessageVerifyFinal C_EncapsulateKey
    C_DecapsulateKey C_VerifySignatureInit C_VerifySignature C_VerifySignatureUpdate
    C_VerifySignatureFinal C_GetSessionValidationFlags C_AsyncComplete C_AsyncGetID C_AsyncJoin
    C_WrapKeyAuthenticated C_UnwrapKeyAuthenticated
}

/// Roles from the text of a row: `(session: Session, (data, data_len): In, key: CK_OBJECT_HANDLE)`.
fn roles(arguments: &'static str) -> Vec<Role> {
    let inner = arguments.trim().trim_start_matches('(').trim_end();
    let inner = inner.strip_suffix(')').unwrap_or(inner);
    // The parentheses of a pair were taken off with those around all.
    inner.split(':').skip(1).map(role).collect()
}

/// What stands behind a colon: the role, and perhaps the names of the next argument.
fn role(text: &'static str) -> Role {
    let end = text.find([',', ')', '(']).unwrap_or(text.len());
    let kind = text[..end].trim();
    match kind {
        "Session" => Role::Session,
        "Slot" => Role::Slot,
        "In" => Role::In,
        "Out" => Role::Out,
        "Bytes" => Role::Bytes,
        "Template" => Role::Template,
        "Mechanism" => Role::Mechanism,
        "Parameter" => Role::Parameter,
        "Handles" => Role::Handles,
        "List<CK_SLOT_ID>" | "List<CK_MECHANISM_TYPE>" => Role::List(size_of::<CK_ULONG>()),
        "List<CK_INTERFACE>" => Role::List(size_of::<CK_INTERFACE>()),
        _ => match kind.strip_prefix("Place<") {
            Some(inner) => Role::Place(inner.strip_suffix('>').unwrap_or(inner)),
            None => Role::Plain(kind),
        },
    }
}

/// A C type that a word can be.
trait Argument {
    fn of(word: Word) -> Self;
}

impl Argument for u64 {
    fn of(word: Word) -> u64 {
        match word {
            Word::Number(number) => number,
            Word::Pointer(pointer) => panic!("{pointer:?} where a number is needed"),
        }
    }
}

impl Argument for u8 {
    fn of(word: Word) -> u8 {
        u64::of(word) as u8
    }
}

impl<T> Argument for *mut T {
    fn of(word: Word) -> *mut T {
        match word {
            Word::Pointer(pointer) => pointer.cast(),
            Word::Number(number) => panic!("{number:#x} where a pointer is needed"),
        }
    }
}

/// CK_NOTIFY: no call of ours wants to be called.
impl<F> Argument for Option<F> {
    fn of(_: Word) -> Option<F> {
        None
    }
}

/// A C function of any number of arguments.
trait Call {
    /// # Safety
    /// As [`Function::call`].
    unsafe fn with(self, words: &[Word]) -> CK_RV;
}

macro_rules! arities {
    ($($($argument:ident)*;)*) => {$(
        impl<$($argument: Argument),*> Call for unsafe extern "C" fn($($argument),*) -> CK_RV {
            #[allow(non_snake_case)]
            unsafe fn with(self, words: &[Word]) -> CK_RV {
                let mut words = words.iter().copied();
                $(let $argument = $argument::of(words.next().expect("an argument for each"));)*
                assert!(words.next().is_none(), "no argument too many");
                // SAFETY: this function's contract.
                unsafe { self($($argument),*) }
            }
        }
    )*};
}

arities! {
    A;
    A B;
    A B C;
    A B C D;
    A B C D E;
    A B C D E F;
    A B C D E F G;
    A B C D E F G H;
    A B C D E F G H I;
    A B C D E F G H I J;
}
