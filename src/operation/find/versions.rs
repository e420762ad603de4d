//! Which version of a key a name means, and what other versions there are.

use std::{borrow::Cow, time::Instant};

use akv_wire::KeyBundle;
use cryptoki_sys::*;

use crate::{
    error::Result,
    object::{
        Object,
        naming::name_of_label,
        project::{self, Standing},
        store::{Knowledge, Wanted},
        tag::Tag,
    },
    operation::outage::is_refusal,
    slot::Slot,
    vault::KeyRef,
};

/// The version that a name means when it is not the current one: pinned in the configuration, or
/// found earlier to be the one of a configured certificate.
pub(super) fn pinned_version(slot: &Slot, name: &str) -> Option<String> {
    let configured = slot.token.keys.as_ref().and_then(|keys| {
        keys.iter().find(|key| key.name.eq_ignore_ascii_case(name))?.version.clone()
    });
    configured.or_else(|| slot.store.last_found(name)?.pinned)
}

/// The bundle with the size of its AES key, which the service tells from api-version 2025-07-01 on
/// only: asked for once per version. Without it the key is shown, but not used.
pub(super) fn sized<'b>(slot: &Slot, bundle: &'b KeyBundle) -> Cow<'b, KeyBundle> {
    let Some((name, version)) = bundle.key.name_and_version() else { return Cow::Borrowed(bundle) };
    if !project::lacks_size(bundle) {
        return Cow::Borrowed(bundle);
    }
    let size = match slot.store.known(format!("{name}/{version}#sec").as_bytes()) {
        Some(object) => object.attributes.ulong(CKA_VALUE_LEN).map(|bytes| 8 * bytes as u32),
        None => match slot.vault.key_with_size(KeyRef::version(name, version)) {
            Ok(asked) => asked.and_then(|asked| asked.attributes.key_size),
            Err(error) => {
                log::info!("the size of key '{name}' cannot be asked for: {error}");
                None
            }
        },
    };
    if size.is_none() {
        log::info!(
            "key '{name}' is shown without its AES mechanisms: the service does not tell its size"
        );
    }
    let mut bundle = bundle.clone();
    bundle.attributes.key_size = size;
    Cow::Owned(bundle)
}

/// The version that stands for a name whose current one lost a race (`Making::settle_race`).
pub(super) fn version_before_lost(
    slot: &Slot,
    name: &str,
    bundle: &KeyBundle,
    deadline: Instant,
) -> Result<Option<KeyBundle>> {
    let is_lost = |bundle: &KeyBundle| Tag::of(bundle.tags.as_ref()).lost;
    let (_, version) = bundle.key.name_and_version().unwrap_or_default();
    if !is_lost(bundle) {
        return Ok(None);
    }
    let others = other_versions(slot, name, &[version.to_owned()], deadline)?;
    Ok(others.into_iter().find(|other| !is_lost(other)))
}

/// The version of a name whose public key is in a configured certificate, if that is not the one
/// at hand: after a rotation the certificate, and what it is used with, stay with the old version.
pub(super) fn version_of_certificate(
    slot: &Slot,
    name: &str,
    bundle: &KeyBundle,
    deadline: Instant,
) -> Result<Option<KeyBundle>> {
    let key_id = |bundle: &KeyBundle| project::key_id(&bundle.key);
    let Some(current) = key_id(bundle) else { return Ok(None) };
    let leaves = slot.store.leaves_open_to(name);
    if leaves.is_empty() || slot.store.has_configured_certificate(&current) {
        return Ok(None);
    }
    let is_it = |other: &KeyBundle| key_id(other).is_some_and(|id| leaves.contains(&id));
    // Most likely the one shown until now, which needs no permission to list versions.
    let earlier = slot.store.last_found(name).and_then(|found| found.versions.first().cloned());
    if let Some(earlier) = earlier {
        match slot.vault.key(KeyRef::version(name, &earlier)) {
            Ok(shown) if is_it(&shown) => return Ok(Some(shown)),
            Err(error) if !is_refusal(&error) => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    let (_, version) = bundle.key.name_and_version().unwrap_or_default();
    let others = match other_versions(slot, name, &[version.to_owned()], deadline) {
        Ok(others) => others,
        // What cannot be told for now must not make the name mean another version meanwhile.
        Err(error) if !is_refusal(&error) => return Err(error),
        Err(error) => {
            log::info!(
                "whether a configured certificate belongs to an older version of '{name}' cannot \
                 be told: {error}"
            );
            return Ok(None);
        }
    };
    Ok(others.into_iter().find(is_it))
}

/// All enabled versions of a name but those in `known`, newest first.
pub(super) fn other_versions(
    slot: &Slot,
    name: &str,
    known: &[String],
    deadline: Instant,
) -> Result<Vec<KeyBundle>> {
    let mut items = slot.vault.key_versions(name, deadline)?;
    items.retain(|item| item.attributes.enabled.unwrap_or(true));
    items.sort_by_key(|item| std::cmp::Reverse(item.attributes.created));
    let versions: Vec<String> = items
        .iter()
        .filter_map(|item| item.name_and_version().map(|(_, version)| version.to_owned()))
        .filter(|version| !known.contains(version))
        .collect();
    let references: Vec<_> =
        versions.iter().map(|version| KeyRef::version(name, version)).collect();
    slot.vault.fetch_many(&references, deadline)?.into_iter().collect()
}

/// An older version of a key, asked for by label and CKA_ID together: that is how a program which
/// remembers a key looks it up again in a forked worker, perhaps after the key was rotated. Such a
/// version is in no other search, so that a label alone still means one key.
///
/// # Errors
/// Why the service could not be asked.
pub(super) fn find_older(slot: &Slot, wanted: &Wanted) -> Result<Vec<CK_OBJECT_HANDLE>> {
    let value = |kind| wanted.iter().find(|(k, _)| *k == kind).map(|(_, v)| v.as_slice());
    let (Some(id), Some(label)) = (value(CKA_ID), value(CKA_LABEL)) else { return Ok(Vec::new()) };
    let name = name_of_label(&String::from_utf8_lossy(label));
    let mark = format!("version:{name}:{}", crate::hex::encode(id));
    let Some(current) = slot.store.last_found(&name) else { return Ok(Vec::new()) };
    let is_pinned = pinned_version(slot, &name).is_some() && current.pinned.is_none()
        || slot.token.given_key(&name).is_some();
    if is_pinned || slot.store.knowledge(&mark, slot.ttl()) == Knowledge::Missing {
        return Ok(Vec::new());
    }
    let older = other_versions(slot, &name, &current.versions, slot.vault.find_deadline());
    let objects = older.and_then(|older| {
        let is_it = |bundle: &&KeyBundle| project::key_id(&bundle.key).is_some_and(|k| k == id);
        match older.iter().find(is_it) {
            Some(bundle) => project::objects(bundle, &slot.token, Standing::Meant),
            None => Ok(Vec::new()),
        }
    });
    let matching = |object: &Object| slot.shows(object) && object.attributes.match_all(wanted);
    match objects {
        Ok(mut objects) => {
            objects.retain(matching);
            if objects.is_empty() {
                slot.store.put_missing(&mark);
            }
            Ok(slot.store.put_aside(objects))
        }
        Err(error) if is_refusal(&error) => {
            log::info!("whether an older version of key '{name}' is meant cannot be told: {error}");
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}
