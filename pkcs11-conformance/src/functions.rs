//! Every C function once: its name, the list it came with, and what its arguments are.
//!
//! The order is that of the function lists. The precedence cases are made from the roles: which
//! function takes a session, which a slot, which a buffer, is written nowhere else.

use std::mem::offset_of;

use cryptoki_sys::*;

/// What one argument, or one pair of arguments, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A session handle.
    Session,
    /// A slot id.
    Slot,
    /// Any other number: handle of an object, flags, type.
    Word,
    /// A pointer that may be, or must be, NULL.
    Pointer,
    /// A pointer to a place that is read or written.
    Place,
    /// A CK_MECHANISM.
    Mechanism,
    /// Bytes read: pointer and length.
    In,
    /// Bytes written by the protocol of 5.2: pointer and pointer to a length.
    Out,
    /// The same, where NULL for both says that more parts follow.
    Last,
    /// Bytes written, as many as the length says: pointer and length.
    Fill,
    /// A template: pointer and count.
    Template,
    /// Handles or numbers written: pointer and pointer to a count.
    List,
    /// Handles written: pointer, room, pointer to a count.
    Handles,
}

/// What a function has to do with the operations of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    Stands,
    /// It begins one.
    Begins,
    /// It goes on with one, and there must be one.
    Continues,
    /// It is not tried with arguments that are wrong one by one: it would cost a try of a PIN, wait
    /// for an event, or has a group of its own.
    Apart,
}

/// One row of the table.
#[derive(Debug)]
pub struct Row {
    /// Its name in the standard.
    pub name: &'static str,
    /// Its clause of PKCS#11 3.2.
    pub clause: &'static str,
    /// The version whose list has it first.
    pub since: (u8, u8),
    /// Its arguments.
    pub roles: &'static [Role],
    /// Its part in operations.
    pub state: State,
}

macro_rules! functions {
    ($($since:tt $clause:literal { $($name:ident ($($role:ident)*) $state:ident)* })*) => {
        /// A C function: its place in the function list.
        #[allow(non_camel_case_types, clippy::enum_variant_names, reason = "the standard's names")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Function { $($($name,)*)* }

        /// All functions, in the order of the 3.2 list.
        pub const FUNCTIONS: &[(Function, Row)] = &[$($((Function::$name, Row {
            name: stringify!($name),
            clause: $clause,
            since: functions!(@since $since),
            roles: &[$(Role::$role),*],
            state: State::$state,
        }),)*)*];

        // Entry n of the table is entry n of the C structure: FIRST bytes, then one pointer each.
        const _: () = { $($(assert!(
            offset_of!(CK_FUNCTION_LIST_3_2, $name)
                == FIRST + Function::$name as usize * size_of::<usize>()
        );)*)* };
    };
    (@since v2_40) => { (2, 40) };
    (@since v3_0) => { (3, 0) };
    (@since v3_2) => { (3, 2) };
}

/// Where the first pointer of a function list is: after the version, aligned.
pub const FIRST: usize = size_of::<usize>();

/// A handle and an id that no module gives out.
pub const NOBODY: CK_ULONG = 0x7fff_fff1;

impl Function {
    /// Its row.
    pub fn row(self) -> &'static Row {
        &FUNCTIONS[self as usize].1
    }

    /// The flag of a mechanism that says that this function works: it is no stub then.
    pub fn flag(self) -> CK_FLAGS {
        use Function::*;
        match self {
            C_EncryptInit | C_Encrypt => CKF_ENCRYPT,
            C_DecryptInit | C_Decrypt => CKF_DECRYPT,
            C_DigestInit | C_Digest => CKF_DIGEST,
            C_SignInit | C_Sign => CKF_SIGN,
            C_SignRecoverInit | C_SignRecover => CKF_SIGN_RECOVER,
            C_VerifyInit | C_Verify => CKF_VERIFY,
            C_VerifyRecoverInit | C_VerifyRecover => CKF_VERIFY_RECOVER,
            C_GenerateKey => CKF_GENERATE,
            C_GenerateKeyPair => CKF_GENERATE_KEY_PAIR,
            C_WrapKey => CKF_WRAP,
            C_UnwrapKey => CKF_UNWRAP,
            C_DeriveKey => CKF_DERIVE,
            C_EncapsulateKey => CKF_ENCAPSULATE,
            C_DecapsulateKey => CKF_DECAPSULATE,
            C_MessageEncryptInit | C_EncryptMessage | C_MessageEncryptFinal => CKF_MESSAGE_ENCRYPT,
            C_MessageDecryptInit | C_DecryptMessage | C_MessageDecryptFinal => CKF_MESSAGE_DECRYPT,
            C_MessageSignInit | C_SignMessage | C_MessageSignFinal => CKF_MESSAGE_SIGN,
            C_MessageVerifyInit | C_VerifyMessage | C_MessageVerifyFinal => CKF_MESSAGE_VERIFY,
            _ => 0,
        }
    }
}

/// How many functions a list of this version has.
pub fn count(version: (u8, u8)) -> usize {
    FUNCTIONS.iter().filter(|(_, row)| row.since <= version.max((2, 40))).count()
}

functions! {
    v2_40 "5.4" {
        C_Initialize(Pointer) Apart
        C_Finalize(Pointer) Apart
        C_GetInfo(Place) Stands
        C_GetFunctionList(Place) Apart
    }
    v2_40 "5.5" {
        C_GetSlotList(Word List) Stands
        C_GetSlotInfo(Slot Place) Stands
        C_GetTokenInfo(Slot Place) Stands
        C_GetMechanismList(Slot List) Stands
        C_GetMechanismInfo(Slot Word Place) Stands
        C_InitToken(Slot In Place) Apart
        C_InitPIN(Session In) Apart
        C_SetPIN(Session In In) Apart
    }
    v2_40 "5.6" {
        C_OpenSession(Slot Word Pointer Pointer Place) Stands
        C_CloseSession(Session) Stands
        C_CloseAllSessions(Slot) Stands
        C_GetSessionInfo(Session Place) Stands
        C_GetOperationState(Session Out) Stands
        C_SetOperationState(Session In Word Word) Stands
        C_Login(Session Word In) Apart
        C_Logout(Session) Stands
    }
    v2_40 "5.7" {
        C_CreateObject(Session Template Place) Stands
        C_CopyObject(Session Word Template Place) Stands
        C_DestroyObject(Session Word) Stands
        C_GetObjectSize(Session Word Place) Stands
        C_GetAttributeValue(Session Word Template) Stands
        C_SetAttributeValue(Session Word Template) Stands
        C_FindObjectsInit(Session Template) Begins
        C_FindObjects(Session Handles) Continues
        C_FindObjectsFinal(Session) Continues
    }
    v2_40 "5.8" {
        C_EncryptInit(Session Mechanism Word) Begins
        C_Encrypt(Session In Out) Continues
        C_EncryptUpdate(Session In Out) Continues
        C_EncryptFinal(Session Out) Continues
    }
    v2_40 "5.10" {
        C_DecryptInit(Session Mechanism Word) Begins
        C_Decrypt(Session In Out) Continues
        C_DecryptUpdate(Session In Out) Continues
        C_DecryptFinal(Session Out) Continues
    }
    v2_40 "5.12" {
        C_DigestInit(Session Mechanism) Begins
        C_Digest(Session In Out) Continues
        C_DigestUpdate(Session In) Continues
        C_DigestKey(Session Word) Continues
        C_DigestFinal(Session Out) Continues
    }
    v2_40 "5.13" {
        C_SignInit(Session Mechanism Word) Begins
        C_Sign(Session In Out) Continues
        C_SignUpdate(Session In) Continues
        C_SignFinal(Session Out) Continues
        C_SignRecoverInit(Session Mechanism Word) Begins
        C_SignRecover(Session In Out) Continues
    }
    v2_40 "5.15" {
        C_VerifyInit(Session Mechanism Word) Begins
        C_Verify(Session In In) Continues
        C_VerifyUpdate(Session In) Continues
        C_VerifyFinal(Session In) Continues
        C_VerifyRecoverInit(Session Mechanism Word) Begins
        C_VerifyRecover(Session In Out) Continues
    }
    v2_40 "5.17" {
        C_DigestEncryptUpdate(Session In Out) Continues
        C_DecryptDigestUpdate(Session In Out) Continues
        C_SignEncryptUpdate(Session In Out) Continues
        C_DecryptVerifyUpdate(Session In Out) Continues
    }
    v2_40 "5.18" {
        C_GenerateKey(Session Mechanism Template Place) Stands
        C_GenerateKeyPair(Session Mechanism Template Template Place Place) Stands
        C_WrapKey(Session Mechanism Word Word Out) Stands
        C_UnwrapKey(Session Mechanism Word In Template Place) Stands
        C_DeriveKey(Session Mechanism Word Template Place) Stands
    }
    v2_40 "5.19" {
        C_SeedRandom(Session In) Stands
        C_GenerateRandom(Session Fill) Stands
    }
    v2_40 "5.20" {
        C_GetFunctionStatus(Session) Stands
        C_CancelFunction(Session) Stands
    }
    v2_40 "5.5" {
        C_WaitForSlotEvent(Word Place Pointer) Apart
    }
    v3_0 "5.4" {
        C_GetInterfaceList(List) Apart
        C_GetInterface(Pointer Pointer Place Word) Apart
    }
    v3_0 "5.6" {
        C_LoginUser(Session Word In In) Apart
        C_SessionCancel(Session Word) Stands
    }
    v3_0 "5.9" {
        C_MessageEncryptInit(Session Mechanism Word) Begins
        C_EncryptMessage(Session In In In Out) Continues
        C_EncryptMessageBegin(Session In In) Continues
        C_EncryptMessageNext(Session In In Out Word) Continues
        C_MessageEncryptFinal(Session) Continues
    }
    v3_0 "5.11" {
        C_MessageDecryptInit(Session Mechanism Word) Begins
        C_DecryptMessage(Session In In In Out) Continues
        C_DecryptMessageBegin(Session In In) Continues
        C_DecryptMessageNext(Session In In Out Word) Continues
        C_MessageDecryptFinal(Session) Continues
    }
    v3_0 "5.14" {
        C_MessageSignInit(Session Mechanism Word) Begins
        C_SignMessage(Session In In Out) Continues
        C_SignMessageBegin(Session In) Continues
        C_SignMessageNext(Session In In Last) Continues
        C_MessageSignFinal(Session) Continues
    }
    v3_0 "5.16" {
        C_MessageVerifyInit(Session Mechanism Word) Begins
        C_VerifyMessage(Session In In In) Continues
        C_VerifyMessageBegin(Session In) Continues
        C_VerifyMessageNext(Session In In Pointer Word) Continues
        C_MessageVerifyFinal(Session) Continues
    }
    v3_2 "5.18" {
        C_EncapsulateKey(Session Mechanism Word Template Out Place) Stands
        C_DecapsulateKey(Session Mechanism Word Template In Place) Stands
    }
    v3_2 "5.15" {
        C_VerifySignatureInit(Session Mechanism Word In) Begins
        C_VerifySignature(Session In) Continues
        C_VerifySignatureUpdate(Session In) Continues
        C_VerifySignatureFinal(Session) Continues
    }
    v3_2 "5.6" {
        C_GetSessionValidationFlags(Session Word Place) Stands
    }
    v3_2 "5.21" {
        C_AsyncComplete(Session Place Place) Stands
        C_AsyncGetID(Session Place Place) Stands
        C_AsyncJoin(Session Place Word In) Stands
    }
    v3_2 "5.18" {
        C_WrapKeyAuthenticated(Session Mechanism Word Word In Out) Stands
        C_UnwrapKeyAuthenticated(Session Mechanism Word In Template In Place) Stands
    }
}
