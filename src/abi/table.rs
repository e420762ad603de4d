//! Every C function once: its name, its arguments, what carries it out.
//!
//! One row makes the entry function, its slot in each function list and its name in
//! [`FUNCTIONS`]. An argument is written with the role it plays (`Session`, `In`, `Out`, …): the
//! role decides its C type or types, is turned into the safe type of `arg.rs` that carries the
//! caller's promise, and fixes the order of complaints: not initialised, bad handle, the rest.
//! A row without a handler answers CKR_FUNCTION_NOT_SUPPORTED, after the same complaints. `=>`
//! names a handler that gets the initialised module, `=>>` one that works without.

use std::os::raw::c_void;

use cryptoki_sys::*;

use super::{
    arg, digest, family, general, key, message, object, random, search, session, slot, verify,
};
use crate::operation::{
    crypt::{Decrypting, Encrypting},
    digest::Digesting,
    recover::{Recovering, SigningRecoverably},
    sign::Signing,
};

/// The value of an argument, made from the C arguments of one call.
macro_rules! value {
    ($m:ident (Session $h:ident)) => {
        $m.session($h)?
    };
    ($m:ident (Slot $id:ident)) => {
        $m.slot_by_id($id)?
    };
    ($m:ident (Plain $v:ident)) => {
        $v
    };
    ($m:ident (In $p:ident $l:ident)) => {
        // SAFETY: the caller promises `l` readable bytes at `p` (the function's description).
        unsafe { arg::Input::promised($p, $l) }
    };
    ($m:ident (Out $p:ident $l:ident)) => {
        // SAFETY: the caller promises `*l` writable bytes at `p`, unless NULL (clause 5.2).
        unsafe { arg::Output::promised($p, $l) }
    };
    ($m:ident (Template $p:ident $n:ident)) => {
        // SAFETY: the caller promises `n` attributes at `p`, each with a valid value pointer.
        unsafe { arg::Template::promised($p, $n) }
    };
    ($m:ident (Mechanism $p:ident)) => {
        // SAFETY: the caller promises a CK_MECHANISM at `p` and its parameter behind it.
        unsafe { arg::Mechanism::promised($p) }
    };
    ($m:ident (Parameter $p:ident $l:ident)) => {
        // SAFETY: the caller promises a mechanism parameter of `l` bytes at `p`.
        unsafe { arg::Parameter::promised($p, $l) }
    };
    ($m:ident (Place $p:ident)) => {
        // SAFETY: the caller promises room for one value at `p`.
        unsafe { arg::Place::promised($p) }
    };
    ($m:ident (List $p:ident $n:ident)) => {
        // SAFETY: the caller promises room for `*n` values at `p`, unless NULL.
        unsafe { arg::List::promised($p, $n) }
    };
    ($m:ident (Bytes $p:ident $l:ident)) => {
        // SAFETY: the caller promises `l` writable bytes at `p`.
        unsafe { arg::Bytes::promised($p, $l) }
    };
    ($m:ident (Handles $p:ident $max:ident)) => {
        // SAFETY: the caller promises room for `max` handles at `p`.
        unsafe { arg::Handles::promised($p, $max) }
    };
}

/// The handle checks of a function that is not supported.
macro_rules! check {
    ($m:ident (Session $h:ident)) => {
        $m.session($h)?;
    };
    ($m:ident (Slot $id:ident)) => {
        $m.slot_by_id($id)?;
    };
    ($m:ident ($role:ident $($c:ident)+)) => {
        $(let _ = $c;)+
    };
}

/// The label of the token that a call is about, if its handle tells. Some calls are about none.
macro_rules! label {
    ($m:ident (Session $h:ident) $($rest:tt)*) => {
        $m.session($h).ok().map(|session| $m.slot(&session).token.label.as_str())
    };
    ($m:ident (Slot $id:ident) $($rest:tt)*) => {
        $m.slot_by_id($id).ok().map(|slot| slot.token.label.as_str())
    };
    ($m:ident $($rest:tt)*) => {
        None
    };
}

/// One entry function: roles become C parameters and values, one at a time.
macro_rules! entry {
    (@args $f:ident [$($p:tt)*] [$($v:tt)*] ($h:ident: Session $(, $($r:tt)*)?) $($do:tt)*) => {
        entry!(@args $f [$($p)* $h: CK_SESSION_HANDLE,] [$($v)* (Session $h)] ($($($r)*)?) $($do)*);
    };
    (@args $f:ident [$($p:tt)*] [$($v:tt)*] ($h:ident: Slot $(, $($r:tt)*)?) $($do:tt)*) => {
        entry!(@args $f [$($p)* $h: CK_SLOT_ID,] [$($v)* (Slot $h)] ($($($r)*)?) $($do)*);
    };
    (@args $f:ident [$($p:tt)*] [$($v:tt)*] ($a:ident: Mechanism $(, $($r:tt)*)?) $($do:tt)*) => {
        entry!(@args $f [$($p)* $a: *mut CK_MECHANISM,] [$($v)* (Mechanism $a)]
            ($($($r)*)?) $($do)*);
    };
    (@args $f:ident [$($p:tt)*] [$($v:tt)*] ($a:ident: Place<$t:ty> $(, $($r:tt)*)?)
        $($do:tt)*) => {
        entry!(@args $f [$($p)* $a: *mut $t,] [$($v)* (Place $a)] ($($($r)*)?) $($do)*);
    };
    (@args $f:ident [$($p:tt)*] [$($v:tt)*] (($a:ident, $l:ident): In $(, $($r:tt)*)?)
        $($do:tt)*) => {
        entry!(@args $f [$($p)* $a: *mut CK_BYTE, $l: CK_ULONG,] [$($v)* (In $a $l)]
            ($($($r)*)?) $($do)*);
    };
    (@args $f:ident [$($p:tt)*] [$($v:tt)*] (($a:ident, $l:ident): Bytes $(, $($r:tt)*)?)
        $($do:tt)*) => {
        entry!(@args $f [$($p)* $a: *mut CK_BYTE, $l: CK_ULONG,] [$($v)* (Bytes $a $l)]
            ($($($r)*)?) $($do)*);
    };
    (@args $f:ident [$($p:tt)*] [$($v:tt)*] (($a:ident, $l:ident): Out $(, $($r:tt)*)?)
        $($do:tt)*) => {
        entry!(@args $f [$($p)* $a: *mut CK_BYTE, $l: *mut CK_ULONG,] [$($v)* (Out $a $l)]
            ($($($r)*)?) $($do)*);
    };
    (@args $f:ident [$($p:tt)*] [$($v:tt)*] (($a:ident, $l:ident): Template $(, $($r:tt)*)?)
        $($do:tt)*) => {
        entry!(@args $f [$($p)* $a: *mut CK_ATTRIBUTE, $l: CK_ULONG,] [$($v)* (Template $a $l)]
            ($($($r)*)?) $($do)*);
    };
    (@args $f:ident [$($p:tt)*] [$($v:tt)*] (($a:ident, $l:ident): Parameter $(, $($r:tt)*)?)
        $($do:tt)*) => {
        entry!(@args $f [$($p)* $a: *mut c_void, $l: CK_ULONG,] [$($v)* (Parameter $a $l)]
            ($($($r)*)?) $($do)*);
    };
    (@args $f:ident [$($p:tt)*] [$($v:tt)*] (($a:ident, $l:ident): Handles $(, $($r:tt)*)?)
        $($do:tt)*) => {
        entry!(@args $f [$($p)* $a: *mut CK_OBJECT_HANDLE, $l: CK_ULONG,] [$($v)* (Handles $a $l)]
            ($($($r)*)?) $($do)*);
    };
    (@args $f:ident [$($p:tt)*] [$($v:tt)*] (($a:ident, $l:ident): List<$t:ty> $(, $($r:tt)*)?)
        $($do:tt)*) => {
        entry!(@args $f [$($p)* $a: *mut $t, $l: *mut CK_ULONG,] [$($v)* (List $a $l)]
            ($($($r)*)?) $($do)*);
    };
    // Anything else is a plain value of its C type.
    (@args $f:ident [$($p:tt)*] [$($v:tt)*] ($a:ident: $t:ty $(, $($r:tt)*)?) $($do:tt)*) => {
        entry!(@args $f [$($p)* $a: $t,] [$($v)* (Plain $a)] ($($($r)*)?) $($do)*);
    };

    // Needs no C_Initialize before it.
    (@args $f:ident [$($p:tt)*] [$($v:tt)*] () =>> $handler:path) => {
        pub(in crate::abi) unsafe extern "C" fn $f($($p)*) -> CK_RV {
            super::super::boundary(stringify!($f), || $handler($(value!(none $v)),*))
        }
    };
    (@args $f:ident [$($p:tt)*] [$($v:tt)*] () => $handler:path) => {
        pub(in crate::abi) unsafe extern "C" fn $f($($p)*) -> CK_RV {
            super::super::boundary(stringify!($f), || {
                let module = crate::process::module()?;
                let label = || label!(module $($v)*);
                super::super::counted(&module, Function::$f as usize, label, || {
                    $handler(&module, $(value!(module $v)),*)
                })
            })
        }
    };
    (@args $f:ident [$($p:tt)*] [$($v:tt)*] ()) => {
        pub(in crate::abi) unsafe extern "C" fn $f($($p)*) -> CK_RV {
            super::super::boundary(stringify!($f), || {
                let module = crate::process::module()?;
                let label = || label!(module $($v)*);
                super::super::counted(&module, Function::$f as usize, label, || {
                    $(check!(module $v);)*
                    Err(super::super::not_supported(stringify!($f)))
                })
            })
        }
    };
}

macro_rules! cryptoki {
    (
        v2_40 { $($n2:ident $a2:tt $(=> $h2:path)? $(=>> $p2:path)?;)* }
        v3_0 { $($n3:ident $a3:tt $(=> $h3:path)? $(=>> $p3:path)?;)* }
        v3_2 { $($n4:ident $a4:tt $(=> $h4:path)? $(=>> $p4:path)?;)* }
    ) => {
        /// All functions, by their position in [`FUNCTIONS`].
        #[allow(non_camel_case_types, clippy::enum_variant_names)]
        // Those that need no initialised module are not counted.
        #[allow(dead_code)]
        #[derive(Clone, Copy)]
        enum Function { $($n2,)* $($n3,)* $($n4,)* }

        /// The private entry functions: what the lists point at (an exported `C_Sign` would be
        /// captured by another module under RTLD_GLOBAL).
        #[allow(non_snake_case, clippy::missing_safety_doc)]
        pub(super) mod entry {
            use super::*;
            $(entry!(@args $n2 [] [] $a2 $(=> $h2)? $(=>> $p2)?);)*
            $(entry!(@args $n3 [] [] $a3 $(=> $h3)? $(=>> $p3)?);)*
            $(entry!(@args $n4 [] [] $a4 $(=> $h4)? $(=>> $p4)?);)*
        }

        /// The function list of PKCS#11 2.40.
        pub(super) static V2_40: CK_FUNCTION_LIST = CK_FUNCTION_LIST {
            version: CK_VERSION { major: 2, minor: 40 },
            $($n2: Some(entry::$n2),)*
        };
        /// The function list of PKCS#11 3.0.
        pub(super) static V3_0: CK_FUNCTION_LIST_3_0 = CK_FUNCTION_LIST_3_0 {
            version: CK_VERSION { major: 3, minor: 0 },
            $($n2: Some(entry::$n2),)*
            $($n3: Some(entry::$n3),)*
        };
        /// The function list of PKCS#11 3.2.
        pub(super) static V3_2: CK_FUNCTION_LIST_3_2 = CK_FUNCTION_LIST_3_2 {
            version: CK_VERSION { major: 3, minor: 2 },
            $($n2: Some(entry::$n2),)*
            $($n3: Some(entry::$n3),)*
            $($n4: Some(entry::$n4),)*
        };

        /// The names of all functions, in the order of the 3.2 list, and whether each is
        /// carried out (false: CKR_FUNCTION_NOT_SUPPORTED).
        pub const FUNCTIONS: &[(&str, bool)] = &[
            $((stringify!($n2), cryptoki!(@has $($h2)? $($p2)?)),)*
            $((stringify!($n3), cryptoki!(@has $($h3)? $($p3)?)),)*
            $((stringify!($n4), cryptoki!(@has $($h4)? $($p4)?)),)*
        ];

        /// The arguments of each, in the same order, as this table writes them: for programs that
        /// make calls up (fuzz/).
        pub const ARGUMENTS: &[&str] =
            &[$(stringify!($a2),)* $(stringify!($a3),)* $(stringify!($a4),)*];
    };
    (@has) => { false };
    (@has $handler:path) => { true };
}

cryptoki! {
    v2_40 {
        C_Initialize(args: Place<c_void>) =>> general::initialize;
        C_Finalize(reserved: Place<c_void>) =>> general::finalize;
        C_GetInfo(info: Place<CK_INFO>) => general::info;
        C_GetFunctionList(list: Place<*mut CK_FUNCTION_LIST>) =>> general::function_list;
        C_GetSlotList(present: CK_BBOOL, (slots, count): List<CK_SLOT_ID>) => slot::list;
        C_GetSlotInfo(id: Slot, info: Place<CK_SLOT_INFO>) => slot::info;
        C_GetTokenInfo(id: Slot, info: Place<CK_TOKEN_INFO>) => slot::token_info;
        C_GetMechanismList(id: Slot, (list, count): List<CK_MECHANISM_TYPE>)
            => slot::mechanism_list;
        C_GetMechanismInfo(id: Slot, kind: CK_MECHANISM_TYPE, info: Place<CK_MECHANISM_INFO>)
            => slot::mechanism_info;
        C_InitToken(id: Slot, (pin, pin_len): In, label: Place<CK_UTF8CHAR>);
        C_InitPIN(session: Session, (pin, pin_len): In);
        C_SetPIN(session: Session, (old, old_len): In, (new, new_len): In);
        C_OpenSession(id: Slot, flags: CK_FLAGS, application: Place<c_void>, notify: CK_NOTIFY,
            session: Place<CK_SESSION_HANDLE>) => session::open;
        C_CloseSession(session: Session) => session::close;
        C_CloseAllSessions(id: Slot) => session::close_all;
        C_GetSessionInfo(session: Session, info: Place<CK_SESSION_INFO>) => session::info;
        C_GetOperationState(session: Session, (state, state_len): Out);
        C_SetOperationState(session: Session, (state, state_len): In,
            encryption: CK_OBJECT_HANDLE, authentication: CK_OBJECT_HANDLE);
        C_Login(session: Session, user: CK_USER_TYPE, (pin, pin_len): In) => session::login;
        C_Logout(session: Session) => session::logout;
        C_CreateObject(session: Session, (template, count): Template,
            object: Place<CK_OBJECT_HANDLE>) => object::create;
        C_CopyObject(session: Session, object: CK_OBJECT_HANDLE, (template, count): Template,
            copy: Place<CK_OBJECT_HANDLE>) => object::copy;
        C_DestroyObject(session: Session, object: CK_OBJECT_HANDLE) => object::destroy;
        C_GetObjectSize(session: Session, object: CK_OBJECT_HANDLE, size: Place<CK_ULONG>)
            => object::size;
        C_GetAttributeValue(session: Session, object: CK_OBJECT_HANDLE,
            (template, count): Template) => object::attributes;
        C_SetAttributeValue(session: Session, object: CK_OBJECT_HANDLE,
            (template, count): Template) => object::set_attributes;
        C_FindObjectsInit(session: Session, (template, count): Template) => search::init;
        C_FindObjects(session: Session, (objects, max): Handles, count: Place<CK_ULONG>)
            => search::next;
        C_FindObjectsFinal(session: Session) => search::end;
        C_EncryptInit(session: Session, mechanism: Mechanism, key: CK_OBJECT_HANDLE)
            => family::init::<Encrypting>;
        C_Encrypt(session: Session, (data, data_len): In, (out, out_len): Out)
            => family::one_shot::<Encrypting>;
        C_EncryptUpdate(session: Session, (part, part_len): In, (out, out_len): Out)
            => family::stream::<Encrypting>;
        C_EncryptFinal(session: Session, (out, out_len): Out) => family::last::<Encrypting>;
        C_DecryptInit(session: Session, mechanism: Mechanism, key: CK_OBJECT_HANDLE)
            => family::init::<Decrypting>;
        C_Decrypt(session: Session, (data, data_len): In, (out, out_len): Out)
            => family::one_shot::<Decrypting>;
        C_DecryptUpdate(session: Session, (part, part_len): In, (out, out_len): Out)
            => family::stream::<Decrypting>;
        C_DecryptFinal(session: Session, (out, out_len): Out) => family::last::<Decrypting>;
        C_DigestInit(session: Session, mechanism: Mechanism) => digest::init;
        C_Digest(session: Session, (data, data_len): In, (out, out_len): Out) => family::one_shot::<Digesting>;
        C_DigestUpdate(session: Session, (part, part_len): In) => family::update::<Digesting>;
        C_DigestKey(session: Session, key: CK_OBJECT_HANDLE) => digest::key;
        C_DigestFinal(session: Session, (out, out_len): Out) => family::last::<Digesting>;
        C_SignInit(session: Session, mechanism: Mechanism, key: CK_OBJECT_HANDLE) => family::init::<Signing>;
        C_Sign(session: Session, (data, data_len): In, (out, out_len): Out) => family::one_shot::<Signing>;
        C_SignUpdate(session: Session, (part, part_len): In) => family::update::<Signing>;
        C_SignFinal(session: Session, (out, out_len): Out) => family::last::<Signing>;
        C_SignRecoverInit(session: Session, mechanism: Mechanism, key: CK_OBJECT_HANDLE)
            => family::init::<SigningRecoverably>;
        C_SignRecover(session: Session, (data, data_len): In, (out, out_len): Out)
            => family::one_shot::<SigningRecoverably>;
        C_VerifyInit(session: Session, mechanism: Mechanism, key: CK_OBJECT_HANDLE)
            => verify::init;
        C_Verify(session: Session, (data, data_len): In, (signature, signature_len): In)
            => verify::one_shot;
        C_VerifyUpdate(session: Session, (part, part_len): In) => verify::update;
        C_VerifyFinal(session: Session, (signature, signature_len): In) => verify::last;
        C_VerifyRecoverInit(session: Session, mechanism: Mechanism, key: CK_OBJECT_HANDLE)
            => family::init::<Recovering>;
        C_VerifyRecover(session: Session, (signature, signature_len): In, (out, out_len): Out)
            => family::one_shot::<Recovering>;
        C_DigestEncryptUpdate(session: Session, (part, part_len): In, (out, out_len): Out);
        C_DecryptDigestUpdate(session: Session, (part, part_len): In, (out, out_len): Out);
        C_SignEncryptUpdate(session: Session, (part, part_len): In, (out, out_len): Out);
        C_DecryptVerifyUpdate(session: Session, (part, part_len): In, (out, out_len): Out);
        C_GenerateKey(session: Session, mechanism: Mechanism, (template, count): Template,
            key: Place<CK_OBJECT_HANDLE>) => key::generate;
        C_GenerateKeyPair(session: Session, mechanism: Mechanism,
            (public, public_count): Template, (private, private_count): Template,
            public_key: Place<CK_OBJECT_HANDLE>, private_key: Place<CK_OBJECT_HANDLE>)
            => key::generate_pair;
        C_WrapKey(session: Session, mechanism: Mechanism, wrapping: CK_OBJECT_HANDLE,
            key: CK_OBJECT_HANDLE, (wrapped, wrapped_len): Out) => key::wrap;
        C_UnwrapKey(session: Session, mechanism: Mechanism, unwrapping: CK_OBJECT_HANDLE,
            (wrapped, wrapped_len): In, (template, count): Template,
            key: Place<CK_OBJECT_HANDLE>) => key::unwrap;
        C_DeriveKey(session: Session, mechanism: Mechanism, base: CK_OBJECT_HANDLE,
            (template, count): Template, key: Place<CK_OBJECT_HANDLE>);
        C_SeedRandom(session: Session, (seed, seed_len): In) => random::seed;
        C_GenerateRandom(session: Session, (out, out_len): Bytes) => random::generate;
        C_GetFunctionStatus(session: Session) => general::not_parallel;
        C_CancelFunction(session: Session) => general::not_parallel;
        C_WaitForSlotEvent(flags: CK_FLAGS, slot: Place<CK_SLOT_ID>, reserved: Place<c_void>)
            => slot::wait_for_event;
    }
    v3_0 {
        C_GetInterfaceList((interfaces, count): List<CK_INTERFACE>)
            =>> general::interface_list;
        C_GetInterface(name: Place<CK_UTF8CHAR>, version: Place<CK_VERSION>,
            interface: Place<*mut CK_INTERFACE>, flags: CK_FLAGS) =>> general::interface;
        C_LoginUser(session: Session, user: CK_USER_TYPE, (pin, pin_len): In,
            (name, name_len): In) => session::login_user;
        C_SessionCancel(session: Session, flags: CK_FLAGS) => session::cancel;
        C_MessageEncryptInit(session: Session, mechanism: Mechanism, key: CK_OBJECT_HANDLE)
            => message::encrypt_init;
        C_EncryptMessage(session: Session, (parameter, parameter_len): Parameter,
            (aad, aad_len): In, (data, data_len): In, (out, out_len): Out) => message::encrypt;
        C_EncryptMessageBegin(session: Session, (parameter, parameter_len): Parameter,
            (aad, aad_len): In) => message::encrypt_begin;
        C_EncryptMessageNext(session: Session, (parameter, parameter_len): Parameter,
            (data, data_len): In, (out, out_len): Out, flags: CK_FLAGS) => message::encrypt_next;
        C_MessageEncryptFinal(session: Session) => message::encrypt_end;
        C_MessageDecryptInit(session: Session, mechanism: Mechanism, key: CK_OBJECT_HANDLE)
            => message::decrypt_init;
        C_DecryptMessage(session: Session, (parameter, parameter_len): Parameter,
            (aad, aad_len): In, (data, data_len): In, (out, out_len): Out) => message::decrypt;
        C_DecryptMessageBegin(session: Session, (parameter, parameter_len): Parameter,
            (aad, aad_len): In) => message::decrypt_begin;
        C_DecryptMessageNext(session: Session, (parameter, parameter_len): Parameter,
            (data, data_len): In, (out, out_len): Out, flags: CK_FLAGS) => message::decrypt_next;
        C_MessageDecryptFinal(session: Session) => message::decrypt_end;
        C_MessageSignInit(session: Session, mechanism: Mechanism, key: CK_OBJECT_HANDLE)
            => message::sign_init;
        C_SignMessage(session: Session, (parameter, parameter_len): Parameter,
            (data, data_len): In, (out, out_len): Out) => message::sign;
        C_SignMessageBegin(session: Session, (parameter, parameter_len): Parameter)
            => message::sign_begin;
        C_SignMessageNext(session: Session, (parameter, parameter_len): Parameter,
            (data, data_len): In, (out, out_len): Out) => message::sign_next;
        C_MessageSignFinal(session: Session) => message::sign_end;
        C_MessageVerifyInit(session: Session, mechanism: Mechanism, key: CK_OBJECT_HANDLE)
            => message::verify_init;
        C_VerifyMessage(session: Session, (parameter, parameter_len): Parameter,
            (data, data_len): In, (signature, signature_len): In) => message::verify;
        C_VerifyMessageBegin(session: Session, (parameter, parameter_len): Parameter)
            => message::verify_begin;
        C_VerifyMessageNext(session: Session, (parameter, parameter_len): Parameter,
            (data, data_len): In, (signature, signature_len): In) => message::verify_next;
        C_MessageVerifyFinal(session: Session) => message::verify_end;
    }
    v3_2 {
        C_EncapsulateKey(session: Session, mechanism: Mechanism, public: CK_OBJECT_HANDLE,
            (template, count): Template, (out, out_len): Out, key: Place<CK_OBJECT_HANDLE>);
        C_DecapsulateKey(session: Session, mechanism: Mechanism, private: CK_OBJECT_HANDLE,
            (template, count): Template, (data, data_len): In, key: Place<CK_OBJECT_HANDLE>);
        C_VerifySignatureInit(session: Session, mechanism: Mechanism, key: CK_OBJECT_HANDLE,
            (signature, signature_len): In) => verify::signature_init;
        C_VerifySignature(session: Session, (data, data_len): In) => verify::signature_one_shot;
        C_VerifySignatureUpdate(session: Session, (part, part_len): In)
            => verify::signature_update;
        C_VerifySignatureFinal(session: Session) => verify::signature_last;
        C_GetSessionValidationFlags(session: Session, kind: CK_SESSION_VALIDATION_FLAGS_TYPE,
            flags: Place<CK_FLAGS>) => session::validation_flags;
        C_AsyncComplete(session: Session, function: Place<CK_UTF8CHAR>,
            result: Place<CK_ASYNC_DATA>);
        C_AsyncGetID(session: Session, function: Place<CK_UTF8CHAR>, id: Place<CK_ULONG>);
        C_AsyncJoin(session: Session, function: Place<CK_UTF8CHAR>, id: CK_ULONG,
            (data, data_len): In);
        C_WrapKeyAuthenticated(session: Session, mechanism: Mechanism,
            wrapping: CK_OBJECT_HANDLE, key: CK_OBJECT_HANDLE, (aad, aad_len): In,
            (wrapped, wrapped_len): Out) => key::wrap_authenticated;
        C_UnwrapKeyAuthenticated(session: Session, mechanism: Mechanism,
            unwrapping: CK_OBJECT_HANDLE, (wrapped, wrapped_len): In,
            (template, count): Template, (aad, aad_len): In, key: Place<CK_OBJECT_HANDLE>)
            => key::unwrap_authenticated;
    }
}
