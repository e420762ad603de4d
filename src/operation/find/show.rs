//! Puts what the service says of a key in the store, as the objects that searches find.

use std::{borrow::Cow, time::Instant};

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
/// the others.
///
/// # Errors
/// Why the service could not be asked for other versions.
pub(super) fn show(slot: &Slot, name: &str, bundle: &KeyBundle, deadline: Instant) -> Result<()> {
    let meant = Meant::of(slot, name, bundle, deadline)?;
    let others = meant.others(slot, name, deadline)?;
    put(slot, name, &meant, Some(&others));
    Ok(())
}

/// Shows a version of a key that the service has just made or changed. That is not undone by a
/// failure to ask for other versions: what is known stays, and the next search asks again. Gives back
/// the handles of this version's objects, which may not be those that its name means.
pub fn show_changed(
    slot: &Slot,
    name: &str,
    bundle: &KeyBundle,
    deadline: Instant,
) -> Vec<CK_OBJECT_HANDLE> {
    let unknown = |error| {
        log::warn!("the other versions of key '{name}' are not shown for now: {error}");
    };
    match Meant::of(slot, name, bundle, deadline) {
        Ok(meant) => {
            let others = meant.others(slot, name, deadline).map_err(unknown).ok();
            let handles = put(slot, name, &meant, others.as_deref());
            if version_of(meant.version()) == version_of(bundle) {
                return handles;
            }
        }
        Err(error) => {
            unknown(error);
            slot.store.doubt(name);
        }
    }
    put_aside(slot, bundle)
}

/// [`show_changed`] for a version that may be an older one.
pub fn show_updated(slot: &Slot, name: &str, bundle: &KeyBundle, deadline: Instant) {
    if is_meant(slot, name, &version_of(bundle)) {
        show_changed(slot, name, bundle, deadline);
    } else {
        put_aside(slot, bundle);
    }
}

/// Gives handles to a version that no name means, or puts it in the place of what was known of it.
fn put_aside(slot: &Slot, bundle: &KeyBundle) -> Vec<CK_OBJECT_HANDLE> {
    let standing = match slot.token.versions {
        Versions::Enabled => Standing::Other,
        Versions::Current => Standing::Meant,
    };
    match project::objects(&sized(slot, bundle), &slot.token, standing) {
        Ok(objects) => slot.store.put_aside(objects),
        Err(error) => {
            let id = bundle.key.kid.as_deref().unwrap_or_default();
            log::info!("version '{id}' is left out: {error}");
            Vec::new()
        }
    }
}

/// Whether a version is the one that its name means, as far as is known. An empty one always is.
pub fn is_meant(slot: &Slot, name: &str, version: &str) -> bool {
    let meant = slot.store.last_found(name).and_then(|found| found.versions.into_iter().next());
    version.is_empty() || meant.is_none_or(|meant| meant == version)
}

fn version_of(bundle: &KeyBundle) -> String {
    bundle.key.name_and_version().map(|(_, version)| version.to_owned()).unwrap_or_default()
}

/// Which version a name means.
struct Meant<'a> {
    /// The current one, or the one that stands for it.
    current: Cow<'a, KeyBundle>,
    /// The one that a configured certificate speaks of, where that is another.
    by_certificate: Option<KeyBundle>,
}

impl<'a> Meant<'a> {
    fn of(slot: &Slot, name: &str, current: &'a KeyBundle, deadline: Instant) -> Result<Meant<'a>> {
        let stands_in = version_before_lost(slot, name, current, deadline)?;
        let current = stands_in.map_or(Cow::Borrowed(current), Cow::Owned);
        let by_certificate = version_of_certificate(slot, name, &current, deadline)?;
        Ok(Meant { current, by_certificate })
    }

    fn version(&self) -> &KeyBundle {
        self.by_certificate.as_ref().unwrap_or(&self.current)
    }

    /// The other versions that are to be shown.
    fn others(&self, slot: &Slot, name: &str, deadline: Instant) -> Result<Vec<KeyBundle>> {
        match slot.token.versions {
            Versions::Enabled => {
                other_versions(slot, name, &[version_of(self.version())], deadline)
            }
            Versions::Current => Ok(Vec::new()),
        }
    }
}

/// `others` is None where they could not be asked for.
fn put(
    slot: &Slot,
    name: &str,
    choice: &Meant<'_>,
    others: Option<&[KeyBundle]>,
) -> Vec<CK_OBJECT_HANDLE> {
    let meant = sized(slot, choice.version());
    let meant = meant.as_ref();
    let mut objects = match project::objects(meant, &slot.token, Standing::Meant) {
        Ok(objects) => objects,
        Err(error) => {
            log::info!("key '{name}' is left out: {error}");
            Vec::new()
        }
    };
    let pinned = choice.by_certificate.as_ref().map(version_of);
    let pinned = pinned.or_else(|| slot.store.last_found(name)?.pinned);
    let mut versions = vec![version_of(meant)];
    for other in others.unwrap_or_default() {
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
        updated: choice.current.attributes.updated,
        managed: meant.managed.unwrap_or(false),
        versions,
        pinned,
        is_partial: others.is_none(),
        ..Finding::default()
    };
    slot.store.put_name(name, finding, objects)
}
