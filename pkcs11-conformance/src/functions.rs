//! Every C function once: its name, the list it came with, and what its arguments are.
//!
//! The order is that of the function lists. The precedence cases are made from the roles: which
//! function takes a session, which a slot, which a buffer, is written nowhere else.

use std::mem::offset_of;

use cryptoki_sys::CK_FUNCTION_LIST_3_2;

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
    /// Bytes written, as many as the length says: pointer and length.
    Fill,
    /// A template: pointer and count.
    Template,
    /// Handles or numbers written: pointer and pointer to a count.
    List,
    /// Handles written: pointer, room, pointer to a count.
    Handles,
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
}

macro_rules! functions {
    ($($since:tt $clause:literal { $($name:ident ($($role:ident)*))* })*) => {
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

impl Function {
    /// Its row.
    pub fn row(self) -> &'static Row {
        &FUNCTIONS[self as usize].1
    }
}

/// How many functions a list of this version has.
pub fn count(version: (u8, u8)) -> usize {
    FUNCTIONS.iter().filter(|(_, row)| row.since <= version.max((2, 40))).count()
}

functions! {
    v2_40 "5.4" {
        C_Initialize(Pointer)
        C_Finalize(Pointer)
        C_GetInfo(Place)
        C_GetFunctionList(Place)
    }
    v2_40 "5.5" {
        C_GetSlotList(Word List)
        C_GetSlotInfo(Slot Place)
        C_GetTokenInfo(Slot Place)
        C_GetMechanismList(Slot List)
        C_GetMechanismInfo(Slot Word Place)
        C_InitToken(Slot In Place)
        C_InitPIN(Session In)
        C_SetPIN(Session In In)
    }
    v2_40 "5.6" {
        C_OpenSession(Slot Word Pointer Pointer Place)
        C_CloseSession(Session)
        C_CloseAllSessions(Slot)
        C_GetSessionInfo(Session Place)
        C_GetOperationState(Session Out)
        C_SetOperationState(Session In Word Word)
        C_Login(Session Word In)
        C_Logout(Session)
    }
    v2_40 "5.7" {
        C_CreateObject(Session Template Place)
        C_CopyObject(Session Word Template Place)
        C_DestroyObject(Session Word)
        C_GetObjectSize(Session Word Place)
        C_GetAttributeValue(Session Word Template)
        C_SetAttributeValue(Session Word Template)
        C_FindObjectsInit(Session Template)
        C_FindObjects(Session Handles)
        C_FindObjectsFinal(Session)
    }
    v2_40 "5.8" {
        C_EncryptInit(Session Mechanism Word)
        C_Encrypt(Session In Out)
        C_EncryptUpdate(Session In Out)
        C_EncryptFinal(Session Out)
    }
    v2_40 "5.10" {
        C_DecryptInit(Session Mechanism Word)
        C_Decrypt(Session In Out)
        C_DecryptUpdate(Session In Out)
        C_DecryptFinal(Session Out)
    }
    v2_40 "5.12" {
        C_DigestInit(Session Mechanism)
        C_Digest(Session In Out)
        C_DigestUpdate(Session In)
        C_DigestKey(Session Word)
        C_DigestFinal(Session Out)
    }
    v2_40 "5.13" {
        C_SignInit(Session Mechanism Word)
        C_Sign(Session In Out)
        C_SignUpdate(Session In)
        C_SignFinal(Session Out)
        C_SignRecoverInit(Session Mechanism Word)
        C_SignRecover(Session In Out)
    }
    v2_40 "5.15" {
        C_VerifyInit(Session Mechanism Word)
        C_Verify(Session In In)
        C_VerifyUpdate(Session In)
        C_VerifyFinal(Session In)
        C_VerifyRecoverInit(Session Mechanism Word)
        C_VerifyRecover(Session In Out)
    }
    v2_40 "5.17" {
        C_DigestEncryptUpdate(Session In Out)
        C_DecryptDigestUpdate(Session In Out)
        C_SignEncryptUpdate(Session In Out)
        C_DecryptVerifyUpdate(Session In Out)
    }
    v2_40 "5.18" {
        C_GenerateKey(Session Mechanism Template Place)
        C_GenerateKeyPair(Session Mechanism Template Template Place Place)
        C_WrapKey(Session Mechanism Word Word Out)
        C_UnwrapKey(Session Mechanism Word In Template Place)
        C_DeriveKey(Session Mechanism Word Template Place)
    }
    v2_40 "5.19" {
        C_SeedRandom(Session In)
        C_GenerateRandom(Session Fill)
    }
    v2_40 "5.20" {
        C_GetFunctionStatus(Session)
        C_CancelFunction(Session)
    }
    v2_40 "5.5" {
        C_WaitForSlotEvent(Word Place Pointer)
    }
    v3_0 "5.4" {
        C_GetInterfaceList(List)
        C_GetInterface(Pointer Pointer Place Word)
    }
    v3_0 "5.6" {
        C_LoginUser(Session Word In In)
        C_SessionCancel(Session Word)
    }
    v3_0 "5.9" {
        C_MessageEncryptInit(Session Mechanism Word)
        C_EncryptMessage(Session In In In Out)
        C_EncryptMessageBegin(Session In In)
        C_EncryptMessageNext(Session In In Out Word)
        C_MessageEncryptFinal(Session)
    }
    v3_0 "5.11" {
        C_MessageDecryptInit(Session Mechanism Word)
        C_DecryptMessage(Session In In In Out)
        C_DecryptMessageBegin(Session In In)
        C_DecryptMessageNext(Session In In Out Word)
        C_MessageDecryptFinal(Session)
    }
    v3_0 "5.14" {
        C_MessageSignInit(Session Mechanism Word)
        C_SignMessage(Session In In Out)
        C_SignMessageBegin(Session In)
        C_SignMessageNext(Session In In Out)
        C_MessageSignFinal(Session)
    }
    v3_0 "5.16" {
        C_MessageVerifyInit(Session Mechanism Word)
        C_VerifyMessage(Session In In In)
        C_VerifyMessageBegin(Session In)
        C_VerifyMessageNext(Session In In In)
        C_MessageVerifyFinal(Session)
    }
    v3_2 "5.18" {
        C_EncapsulateKey(Session Mechanism Word Template Out Place)
        C_DecapsulateKey(Session Mechanism Word Template In Place)
    }
    v3_2 "5.15" {
        C_VerifySignatureInit(Session Mechanism Word In)
        C_VerifySignature(Session In)
        C_VerifySignatureUpdate(Session In)
        C_VerifySignatureFinal(Session)
    }
    v3_2 "5.6" {
        C_GetSessionValidationFlags(Session Word Place)
    }
    v3_2 "5.21" {
        C_AsyncComplete(Session Place Place)
        C_AsyncGetID(Session Place Place)
        C_AsyncJoin(Session Place Word In)
    }
    v3_2 "5.18" {
        C_WrapKeyAuthenticated(Session Mechanism Word Word In Out)
        C_UnwrapKeyAuthenticated(Session Mechanism Word In Template In Place)
    }
}
