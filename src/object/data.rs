//! Data objects: secrets of a vault, whose value is no part of the object and asked for when it is
//! read (`operation::secret`); and what clients make for a session, which has its value.

use cryptoki_sys::*;

use super::{
    Attributes, Material, Object,
    session_key::{is_private, storage},
    template::Template,
};
use crate::{
    config::{Login, TokenConfig},
    slot::Slot,
};

/// CKA_APPLICATION of every secret.
const APPLICATION: &str = "Azure Key Vault";
/// The end of a secret's CKA_UNIQUE_ID, which is its name and this.
const MARK: &str = "#data";

/// The object of the secret with this name.
pub fn object(name: &str, token: &TokenConfig) -> Object {
    let mut attributes = Attributes::default();
    attributes
        .set_ulong(CKA_CLASS, CKO_DATA)
        .set_bool(CKA_TOKEN, true)
        .set_bool(CKA_PRIVATE, token.login != Login::None)
        .set_bool(CKA_MODIFIABLE, false)
        .set_bool(CKA_COPYABLE, false)
        .set_bool(CKA_DESTROYABLE, false)
        .set(CKA_LABEL, name)
        .set(CKA_UNIQUE_ID, format!("{name}{MARK}"))
        .set(CKA_APPLICATION, APPLICATION)
        .set(CKA_OBJECT_ID, "");
    Object { attributes, material: Material::None, owner: None }
}

/// C_CreateObject for the session (clause 4.5): private as secrets are, unless the template says
/// otherwise.
pub fn brought(template: &Template, session: CK_SESSION_HANDLE, slot: &Slot) -> Object {
    let mut attributes = storage(template);
    attributes
        .set_ulong(CKA_CLASS, CKO_DATA)
        .set_bool(CKA_PRIVATE, is_private(slot, template, true));
    for kind in [CKA_APPLICATION, CKA_OBJECT_ID, CKA_VALUE] {
        attributes.set(kind, template.bytes(kind).unwrap_or_default());
    }
    Object { attributes, material: Material::None, owner: Some(session) }
}

/// The name of the secret that an object stands for; None for any other object.
pub fn secret_name(object: &Object) -> Option<&str> {
    let unique = object.attributes.bytes(CKA_UNIQUE_ID).filter(|_| object.class() == CKO_DATA)?;
    std::str::from_utf8(unique).ok()?.strip_suffix(MARK)
}
