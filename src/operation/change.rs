//! C_SetAttributeValue, C_CopyObject, C_DestroyObject.

use std::{borrow::Cow, sync::Arc};

use akv_wire::{KeyAttributes, KeyUpdateParameters};
use cryptoki_sys::*;

use super::{
    create::file_name,
    find, import,
    making::{MAX_TAGS, SECRET},
};
use crate::{
    error::{Error, Result},
    object::{
        Material, Object, VaultKey,
        attribute::{name_of, row_of},
        dates, session_key,
        store::Origin,
        tag::{TAG, Tag},
        template::{Template, inconsistent},
    },
    slot::Slot,
    vault::{KeyRef, is_lost_answer, is_not_found},
};

/// Changes attributes of an object.
///
/// # Errors
/// CKR_ACTION_PROHIBITED for an object that is not modifiable, CKR_ATTRIBUTE_READ_ONLY for what
/// its owner cannot change, be it to the value that it has (clause 4.1.1: a template that
/// "specifies a value for a read-only attribute"), CKR_ATTRIBUTE_TYPE_INVALID,
/// CKR_ATTRIBUTE_VALUE_INVALID; docs/errors.md.
pub fn set(
    slot: &Slot,
    handle: CK_OBJECT_HANDLE,
    object: &Arc<Object>,
    given: &[(CK_ATTRIBUTE_TYPE, Cow<'_, [u8]>)],
) -> Result<()> {
    let changes = |kind, value: &[u8]| object.attributes.bytes(kind) != Some(value);
    let key = vault_key_of(slot, object);
    for (kind, value) in given {
        // Of a key of the service nothing is kept here.
        let hides = key.is_none() && hides(*kind, value) && changes(*kind, value);
        if row_of(*kind).is_some_and(|row| !row.is_owners(object.class())) && !hides {
            return Err(Error::new(
                CKR_ATTRIBUTE_READ_ONLY,
                format!("{} of '{}' cannot be changed", name_of(*kind), object.label()),
            ));
        }
    }
    let template = Template::new(object.class(), given)?;
    let changed: Vec<_> = template.iter().filter(|(kind, value)| changes(*kind, value)).collect();
    if changed.is_empty() {
        return Ok(());
    }
    let template = Template::new(object.class(), &changed)?;
    if !object.attributes.is(CKA_MODIFIABLE) {
        return Err(Error::new(
            CKR_ACTION_PROHIBITED,
            format!("'{}' cannot be changed (CKA_MODIFIABLE is false)", object.label()),
        ));
    }
    match key {
        Some(key) => set_at_service(slot, &key, &template),
        None => {
            let mut changed = Object::clone(object);
            for (kind, value) in template.iter() {
                changed.attributes.set(kind, value);
            }
            keep_secrets(&mut changed);
            slot.store.replace(handle, changed)
        }
    }
}

/// The key version at the service that an object belongs to: a token public key's too.
fn vault_key_of(slot: &Slot, object: &Object) -> Option<Arc<VaultKey>> {
    if let Some(key) = object.vault_key() {
        return Some(Arc::clone(key));
    }
    let unique = object.attributes.bytes(CKA_UNIQUE_ID)?.strip_suffix(b"#pub")?;
    let private = [unique, b"#priv"].concat();
    slot.store.known(&private)?.vault_key().cloned()
}

/// Label and id go into our tag, dates and usages into the key's attributes. Tags are read,
/// changed and written: a change that somebody else makes in between is lost.
fn set_at_service(slot: &Slot, key: &VaultKey, template: &Template) -> Result<()> {
    let identity = [CKA_LABEL, CKA_ID].into_iter().find(|kind| template.bytes(*kind).is_some());
    if let Some(kind) = identity
        && !find::is_meant(slot, &key.name, &key.version)
    {
        return Err(Error::new(
            CKR_ATTRIBUTE_READ_ONLY,
            format!(
                "{} of '{}' follows from its name and version: an older version has none of its own",
                name_of(kind),
                key.id
            ),
        ));
    }
    let reference = key.reference();
    let bundle = slot.note(slot.vault.key(reference))?;
    let mut tags = bundle.tags.clone().unwrap_or_default();
    let mut tag = tags.get(TAG).map(|value| Tag::parse(value)).unwrap_or_default();
    if let Some(label) = template.text(CKA_LABEL)? {
        tag.label = (label != key.name).then(|| label.to_owned());
    }
    if let Some(id) = template.bytes(CKA_ID) {
        tag.id = (!id.is_empty()).then(|| id.to_vec());
    }
    let value = tag.to_value().ok_or_else(|| {
        Error::new(
            CKR_ATTRIBUTE_VALUE_INVALID,
            "CKA_LABEL and CKA_ID together are longer than the 256 characters of a tag",
        )
    })?;
    tags.insert(TAG.to_owned(), value);
    if tags.len() > MAX_TAGS {
        return Err(inconsistent(format!(
            "key '{}' has {MAX_TAGS} tags already: there is no room for ours",
            key.name
        )));
    }
    let (nbf, exp) = dates::bounds(template)?;
    let attributes = (nbf.is_some() || exp.is_some()).then(|| KeyAttributes {
        nbf,
        exp,
        ..KeyAttributes::default()
    });
    let parameters = KeyUpdateParameters {
        key_ops: changed_operations(bundle.key.key_ops.as_deref(), template),
        attributes,
        tags: Some(tags),
        ..KeyUpdateParameters::default()
    };
    let updated = slot.note(slot.vault.update_key(reference, &parameters))?;
    find::show_updated(slot, &key.name, &updated, slot.vault.find_deadline());
    Ok(())
}

/// key_ops after the usages in a template; None where it changes none.
fn changed_operations(operations: Option<&[String]>, template: &Template) -> Option<Vec<String>> {
    let before = operations.unwrap_or_default().to_vec();
    let mut after = before.clone();
    for (usage, operation) in SECRET {
        match template.flag(*usage) {
            Some(true) if !after.iter().any(|known| known == operation) => {
                after.push((*operation).to_owned());
            }
            Some(false) => after.retain(|known| known != operation),
            _ => {}
        }
    }
    (after != before).then_some(after)
}

/// Copies a session object within the session, or a private or secret key of the session
/// onto the token: an import.
///
/// # Errors
/// CKR_TEMPLATE_INCONSISTENT for another object onto the token, CKR_ATTRIBUTE_READ_ONLY for a
/// copy that would disclose what its original keeps; docs/errors.md.
pub fn copy(
    slot: &Slot,
    object: &Object,
    template: &Template,
    session: CK_SESSION_HANDLE,
) -> Result<CK_OBJECT_HANDLE> {
    if template.on_token() {
        return match &object.material {
            Material::Private(key) => {
                import::private_key(slot, key, &import::template_of_copy(object, template)?)
            }
            Material::Secret(key) => {
                let kind = object.key_type().unwrap_or(CK_ULONG::MAX);
                let template = import::template_of_copy(object, template)?;
                import::secret_key(slot, kind, key.bytes(), &template)
            }
            Material::Public(_) => import::beside_private(slot, object),
            Material::Vault(_) | Material::None => Err(inconsistent(format!(
                "'{}' of class {:#x} cannot be copied onto the token",
                object.label(),
                object.class()
            ))),
        };
    }
    let mut copy = object.clone();
    copy.owner = Some(session);
    for (kind, value) in template.iter() {
        let may = match kind {
            CKA_TOKEN | CKA_PRIVATE | CKA_MODIFIABLE | CKA_COPYABLE | CKA_DESTROYABLE => true,
            _ => {
                hides(kind, value) || row_of(kind).is_some_and(|row| row.is_owners(object.class()))
            }
        };
        if !may && object.attributes.bytes(kind) != Some(value) {
            return Err(Error::new(
                CKR_ATTRIBUTE_READ_ONLY,
                format!("{} cannot be changed in a copy", name_of(kind)),
            ));
        }
        copy.attributes.set(kind, value);
    }
    let private = session_key::is_private(slot, template, object.is_private());
    copy.attributes.set_bool(CKA_PRIVATE, private);
    keep_secrets(&mut copy);
    Ok(slot.store.add(copy))
}

/// Whether a change only takes away what could be done: sensitive and "wrap with trusted" can
/// become true, extractable and copyable false, and none can go back (footnotes 11 and 12 of the
/// attribute tables; clause 4.4).
fn hides(kind: CK_ATTRIBUTE_TYPE, value: &[u8]) -> bool {
    match kind {
        CKA_SENSITIVE | CKA_WRAP_WITH_TRUSTED => value == [CK_TRUE],
        CKA_EXTRACTABLE | CKA_COPYABLE => value == [CK_FALSE],
        _ => false,
    }
}

/// Drops the key material from the attributes of a key that must not give it out.
fn keep_secrets(object: &mut Object) {
    if matches!(object.material, Material::Private(_) | Material::Secret(_))
        && (object.attributes.is(CKA_SENSITIVE) || !object.attributes.is(CKA_EXTRACTABLE))
    {
        object.attributes.withdraw_secrets();
    }
}

/// Destroys an object. A key of the service is soft-deleted with all its versions, if the
/// configuration allows it at all.
///
/// # Errors
/// CKR_ACTION_PROHIBITED; docs/errors.md.
pub fn destroy(slot: &Slot, handle: CK_OBJECT_HANDLE, object: &Object) -> Result<()> {
    let prohibited = |sentence: String| Err(Error::new(CKR_ACTION_PROHIBITED, sentence));
    if object.class() == CKO_CERTIFICATE && object.owner.is_none() {
        return destroy_certificate(slot, handle, object);
    }
    if !object.attributes.is(CKA_DESTROYABLE) {
        return prohibited(format!(
            "'{}' cannot be destroyed: keys of the service are only with `allow_delete = true`, \
             and never the key of a certificate",
            object.label()
        ));
    }
    let Some(key) = vault_key_of(slot, object) else {
        return slot.store.remove(handle).map(drop);
    };
    let deadline = slot.vault.find_deadline();
    let versions = slot.note(slot.vault.key_versions(&key.name, deadline))?;
    if versions.len() > 1 {
        return prohibited(format!(
            "key '{}' has {} versions, and deleting it would delete them all: use the service's \
             own tools",
            key.name,
            versions.len()
        ));
    }
    slot.note(delete(slot, &key.name))?;
    slot.store.remove_name(&key.name);
    Ok(())
}

/// Deletes a key, once: whether a deletion whose answer was lost has happened is looked at.
fn delete(slot: &Slot, name: &str) -> Result<()> {
    let lost = match slot.vault.delete_key(name) {
        Ok(_) => return Ok(()),
        Err(error) if is_lost_answer(&error) => error,
        Err(error) => return Err(error),
    };
    match slot.vault.key(KeyRef::current(name)) {
        Err(error) if is_not_found(&error) => Ok(()),
        Ok(_) => Err(lost),
        Err(error) => Err(Error::new(
            CKR_DEVICE_ERROR,
            format!(
                "whether key '{name}' was deleted cannot be told ({lost}; {error}): look at it \
                 before you delete it again"
            ),
        )),
    }
}

/// A certificate in the certificate directory goes with its file; one that the configuration
/// names, or the vault has, stays.
fn destroy_certificate(slot: &Slot, handle: CK_OBJECT_HANDLE, object: &Object) -> Result<()> {
    let prohibited = || {
        Error::new(
            CKR_ACTION_PROHIBITED,
            format!("certificate '{}' is not from the certificate directory", object.label()),
        )
    };
    let directory = slot.token.certificate_dir.as_ref().ok_or_else(prohibited)?;
    let certificate = slot.store.certificate(handle, &Origin::Configured).ok_or_else(prohibited)?;
    let path = directory.join(format!("{}.pem", file_name(&certificate)));
    std::fs::remove_file(&path).map_err(|error| {
        let sentence = format!("{}: {error}", path.display());
        match error.kind() {
            std::io::ErrorKind::NotFound => prohibited(),
            _ => Error::new(CKR_DEVICE_ERROR, sentence),
        }
    })?;
    slot.store.remove_certificate(handle);
    Ok(())
}
