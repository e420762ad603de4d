//! Puts what the service says of a key in the store, as the objects that searches find.

use std::time::Instant;

use akv_wire::KeyBundle;
use cryptoki_sys::CK_OBJECT_HANDLE;

use super::versions::{other_versions, sized, version_before_lost, version_of_certificate};
use crate::{
    config::Versions,
    error::Result,
    object::{
        project::{self, Standing},
        store::Found as Finding,
    },
    slot::Slot,
};

/// Puts a name's objects in the store: the version that is meant, and with `versions = "enabled"`
/// the others. Gives back their handles, the meant version's first.
///
/// # Errors
/// Why the service could not be asked for other versions.
pub(super) fn show(
    slot: &Slot,
    name: &str,
    bundle: &KeyBundle,
    deadline: Instant,
) -> Result<Vec<CK_OBJECT_HANDLE>> {
    let stands_in = version_before_lost(slot, name, bundle, deadline)?;
    let bundle = stands_in.as_ref().unwrap_or(bundle);
    let by_certificate = version_of_certificate(slot, name, bundle, deadline)?;
    let meant = by_certificate.as_ref().unwrap_or(bundle);
    let others = Some(match slot.token.versions {
        Versions::Enabled => other_versions(slot, name, &[version_of(meant)], deadline)?,
        Versions::Current => Vec::new(),
    });
    let pinned = by_certificate.as_ref().map(version_of);
    let pinned = pinned.or_else(|| slot.store.last_found(name)?.pinned);
    Ok(put(slot, name, &Shown { updated: bundle.attributes.updated, meant, others, pinned }))
}

/// Shows the version of a key that the service has just made or changed. That is not undone by a
/// failure to ask for other versions: the name shows what is known, and the next search asks again.
/// Gives back the handles of its objects.
pub fn show_changed(
    slot: &Slot,
    name: &str,
    bundle: &KeyBundle,
    deadline: Instant,
) -> Vec<CK_OBJECT_HANDLE> {
    show(slot, name, bundle, deadline).unwrap_or_else(|error| {
        log::warn!("the other versions of key '{name}' are not shown for now: {error}");
        let pinned = slot.store.last_found(name).and_then(|found| found.pinned);
        put(slot, name, &Shown { meant: bundle, others: None, pinned, updated: None })
    })
}

/// [`show_changed`] for a version that may not be the one its name means.
pub fn show_updated(slot: &Slot, name: &str, bundle: &KeyBundle, deadline: Instant) {
    if is_meant(slot, name, &version_of(bundle)) {
        show_changed(slot, name, bundle, deadline);
        return;
    }
    let standing = match slot.token.versions {
        Versions::Enabled => Standing::Other,
        Versions::Current => Standing::Meant,
    };
    match project::objects(&sized(slot, bundle), &slot.token, standing) {
        Ok(objects) => slot.store.put_again(objects),
        Err(error) => log::info!("a version of '{name}' is left out: {error}"),
    }
}

/// Whether a version is the one that its name means, as far as is known.
pub fn is_meant(slot: &Slot, name: &str, version: &str) -> bool {
    let found = slot.store.last_found(name);
    found.is_none_or(|found| found.versions.first().is_none_or(|meant| meant == version))
}

fn version_of(bundle: &KeyBundle) -> String {
    bundle.key.name_and_version().map(|(_, version)| version.to_owned()).unwrap_or_default()
}

/// The versions of one name that are to be shown.
struct Shown<'a> {
    /// `attributes.updated` of the current version, which the next listing may tell again.
    updated: Option<i64>,
    meant: &'a KeyBundle,
    /// None where they could not be asked for.
    others: Option<Vec<KeyBundle>>,
    /// The version that a configured certificate speaks of.
    pinned: Option<String>,
}

fn put(slot: &Slot, name: &str, shown: &Shown<'_>) -> Vec<CK_OBJECT_HANDLE> {
    let meant = sized(slot, shown.meant);
    let meant = meant.as_ref();
    let mut objects = match project::objects(meant, &slot.token, Standing::Meant) {
        Ok(objects) => objects,
        Err(error) => {
            log::info!("key '{name}' is left out: {error}");
            Vec::new()
        }
    };
    let mut versions = vec![version_of(meant)];
    for other in shown.others.iter().flatten() {
        match project::objects(&sized(slot, other), &slot.token, Standing::Other) {
            // The same material in several versions is shown once, as the meant one.
            Ok(more) if more.iter().all(|new| !objects.iter().any(|o| new.is_twin(o))) => {
                objects.extend(more);
                versions.push(version_of(other));
            }
            Ok(_) => {}
            Err(error) => log::info!("a version of '{name}' is left out: {error}"),
        }
    }
    let finding = Finding {
        updated: shown.updated,
        managed: meant.managed.unwrap_or(false),
        versions,
        pinned: shown.pinned.clone(),
        is_partial: shown.others.is_none(),
        ..Finding::default()
    };
    slot.store.put_name(name, finding, objects)
}
