//! What every Init function asks of its mechanism and its key.

use std::sync::Arc;

use cryptoki_sys::*;

use crate::{
    error::{Error, Result},
    mechanism::{Home, Mechanism},
    object::{Object, attribute::name_of},
    slot::Slot,
};

/// What an operation needs of its key.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// CKF_SIGN, … : what the mechanism must be offered for.
    pub flag: CK_FLAGS,
    /// CKA_SIGN, … : what the key must allow.
    pub usage: CK_ATTRIBUTE_TYPE,
    /// The classes of key that can do it.
    pub classes: &'static [CK_OBJECT_CLASS],
}

/// C_SignInit.
pub const SIGN: Need =
    Need { flag: CKF_SIGN, usage: CKA_SIGN, classes: &[CKO_PRIVATE_KEY, CKO_SECRET_KEY] };
/// C_VerifyInit, C_VerifySignatureInit.
pub const VERIFY: Need =
    Need { flag: CKF_VERIFY, usage: CKA_VERIFY, classes: &[CKO_PUBLIC_KEY, CKO_SECRET_KEY] };
/// C_VerifyRecoverInit.
pub const VERIFY_RECOVER: Need =
    Need { flag: CKF_VERIFY_RECOVER, usage: CKA_VERIFY_RECOVER, classes: &[CKO_PUBLIC_KEY] };
/// C_EncryptInit.
pub const ENCRYPT: Need =
    Need { flag: CKF_ENCRYPT, usage: CKA_ENCRYPT, classes: &[CKO_PUBLIC_KEY, CKO_SECRET_KEY] };
/// C_DecryptInit.
pub const DECRYPT: Need =
    Need { flag: CKF_DECRYPT, usage: CKA_DECRYPT, classes: &[CKO_PRIVATE_KEY, CKO_SECRET_KEY] };

/// C_SignRecoverInit.
pub const SIGN_RECOVER: Need =
    Need { flag: CKF_SIGN_RECOVER, usage: CKA_SIGN_RECOVER, classes: &[CKO_PRIVATE_KEY] };
/// C_MessageEncryptInit.
pub const MESSAGE_ENCRYPT: Need =
    Need { flag: CKF_MESSAGE_ENCRYPT, usage: CKA_ENCRYPT, classes: &[CKO_SECRET_KEY] };
/// C_MessageDecryptInit.
pub const MESSAGE_DECRYPT: Need =
    Need { flag: CKF_MESSAGE_DECRYPT, usage: CKA_DECRYPT, classes: &[CKO_SECRET_KEY] };
/// C_WrapKey.
pub const WRAP: Need =
    Need { flag: CKF_WRAP, usage: CKA_WRAP, classes: &[CKO_PUBLIC_KEY, CKO_SECRET_KEY] };
/// C_UnwrapKey.
pub const UNWRAP: Need =
    Need { flag: CKF_UNWRAP, usage: CKA_UNWRAP, classes: &[CKO_PRIVATE_KEY, CKO_SECRET_KEY] };

/// The mechanism's row, if this token, this key and this use go together.
///
/// # Errors
/// CKR_MECHANISM_INVALID, CKR_KEY_TYPE_INCONSISTENT, CKR_KEY_FUNCTION_NOT_PERMITTED.
pub fn check(
    slot: &Slot,
    kind: CK_MECHANISM_TYPE,
    key: &Arc<Object>,
    need: Need,
) -> Result<&'static Mechanism> {
    let (mechanism, _) = slot.mechanism(kind)?;
    let refuse = |rv, sentence: String| Err(Error::new(rv, sentence));
    let home = if key.owner.is_none() { Home::Service } else { Home::Session };
    if mechanism.uses_with(home, &slot.token) & need.flag == 0 {
        let whose = match home {
            Home::Service => "keys of the service",
            Home::Session => "session keys",
        };
        return refuse(
            CKR_MECHANISM_INVALID,
            format!(
                "token '{}' does not offer {} for this with {whose}",
                slot.token.label, mechanism.name
            ),
        );
    }
    let fits = key.key_type().is_some_and(|key_type| mechanism.takes(key_type));
    if !fits || !need.classes.contains(&key.class()) {
        return refuse(
            CKR_KEY_TYPE_INCONSISTENT,
            format!(
                "{} with key '{}' of class {:#x} and type {:#x}",
                mechanism.name,
                key.label(),
                key.class(),
                key.key_type().unwrap_or(CK_ULONG::MAX)
            ),
        );
    }
    if !key.attributes.is(need.usage) {
        return refuse(
            CKR_KEY_FUNCTION_NOT_PERMITTED,
            format!(
                "key '{}' has {} false: its key_ops at the service, or its template, leave it out, \
                 or it is disabled",
                key.label(),
                name_of(need.usage)
            ),
        );
    }
    // Of a key of the service the list says no more than the rows do.
    let allowed = key.attributes.mechanisms(CKA_ALLOWED_MECHANISMS);
    let allowed = allowed.filter(|_| home == Home::Session);
    if allowed.is_some_and(|allowed| !allowed.contains(&kind)) {
        return refuse(
            CKR_MECHANISM_INVALID,
            format!("CKA_ALLOWED_MECHANISMS of key '{}' leave {} out", key.label(), mechanism.name),
        );
    }
    Ok(mechanism)
}
