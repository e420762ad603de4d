//! What is known of each name of the service, and since when.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use cryptoki_sys::*;

use super::{Inner, Store};
use crate::object::Object;

/// A name that exists, as it was seen last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// `attributes.updated`, to tell from a listing whether the name has changed.
    pub updated: Option<i64>,
    /// The key backs a certificate of the vault.
    pub managed: bool,
    /// The versions shown, the meant one first.
    pub versions: Vec<String>,
    /// The version that a configured certificate belongs to, where that is not the current one.
    pub pinned: Option<String>,
    /// Whether other versions could not be asked for: the next search has to ask.
    pub is_partial: bool,
    /// Whether the vault was asked for the certificate of this version already.
    pub certificate_seen: bool,
    /// Handles of its objects, as [`Store::put_name`] gave them.
    pub handles: Vec<CK_OBJECT_HANDLE>,
}

/// How much is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// Nothing, or nothing recent; the last finding, if any, is still shown.
    Stale,
    /// It exists, and its objects are here.
    Fresh(Found),
    /// It does not exist.
    Missing,
}

/// What is known of one name.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) seen: Instant,
    /// `attributes.updated` of the version shown; None for a name that does not exist.
    pub(super) found: Option<Box<Found>>,
}

/// How long a name that was not found is not asked for again.
const MISSING_TTL: Duration = Duration::from_secs(3);

impl Store {
    /// What is known of a name.
    pub fn knowledge(&self, name: &str, ttl: Duration) -> Knowledge {
        let inner = self.lock();
        match inner.names.get(&name.to_ascii_lowercase()) {
            Some(Known { seen, found: Some(found) })
                if seen.elapsed() < ttl && !found.is_partial =>
            {
                Knowledge::Fresh(Found::clone(found))
            }
            Some(Known { seen, found: None }) if seen.elapsed() < ttl.min(MISSING_TTL) => {
                Knowledge::Missing
            }
            _ => Knowledge::Stale,
        }
    }

    /// The last finding of a name, however old.
    pub fn last_found(&self, name: &str) -> Option<Found> {
        self.lock().names.get(&name.to_ascii_lowercase())?.found.as_deref().cloned()
    }

    /// Whether all names were listed within `ttl`.
    pub fn is_listed(&self, ttl: Duration) -> bool {
        self.lock().listed.is_some_and(|listed| listed.elapsed() < ttl)
    }

    /// Whether anything was ever found: then it is shown while the service is unreachable.
    pub fn has_keys(&self) -> bool {
        self.lock().names.values().any(|known| known.found.is_some())
    }

    /// Shows `objects` as what `name` has now; what it had before is found no more, but its
    /// handles go on working. Gives back the handles, in the order of `objects`.
    pub fn put_name(
        &self,
        name: &str,
        found: Found,
        objects: Vec<Object>,
    ) -> Vec<CK_OBJECT_HANDLE> {
        let mut inner = self.lock();
        let before = inner.forget(name);
        let certificate_seen = match before {
            Some(before) if before.versions == found.versions => before.certificate_seen,
            _ => {
                inner.remove_certificate_of(name);
                false
            }
        };
        let mut handles = Vec::with_capacity(objects.len());
        for mut object in objects {
            object.attributes.share(&mut inner.alike);
            handles.push(inner.show(object));
        }
        for handle in &handles {
            inner.match_certificates(*handle);
        }
        let found = Found { handles: handles.clone(), certificate_seen, ..found };
        let known = Known { seen: Instant::now(), found: Some(Box::new(found)) };
        inner.names.insert(name.to_ascii_lowercase(), known);
        handles
    }

    /// Remembers that a name does not exist.
    pub fn put_missing(&self, name: &str) {
        let mut inner = self.lock();
        inner.forget(name);
        inner.remove_certificate_of(name);
        let known = Known { seen: Instant::now(), found: None };
        inner.names.insert(name.to_ascii_lowercase(), known);
    }

    /// Confirms that a name is as it was seen last.
    pub fn touch(&self, name: &str) {
        if let Some(known) = self.lock().names.get_mut(&name.to_ascii_lowercase()) {
            known.seen = Instant::now();
        }
    }

    /// Remembers that more of a name has to be asked for, until which it shows what it did.
    pub fn doubt(&self, name: &str) {
        let mut inner = self.lock();
        if let Some(known) = inner.names.get_mut(&name.to_ascii_lowercase())
            && let Some(found) = &mut known.found
        {
            found.is_partial = true;
        }
    }

    /// Remembers that the next use of a name must ask the service.
    pub fn outdate(&self, name: &str) {
        let mut inner = self.lock();
        if let Some(known) = inner.names.get_mut(&name.to_ascii_lowercase())
            && known.found.is_none()
        {
            inner.names.remove(&name.to_ascii_lowercase());
        }
        inner.listed = None;
    }

    /// Remembers that exactly `names` existed when they were listed, at `begun` or later: what was
    /// seen since then, a key that was made meanwhile, may be missing in the listing.
    pub fn put_listing<'a>(&self, names: impl Iterator<Item = &'a str>, begun: Instant) {
        let mut inner = self.lock();
        let names: BTreeSet<String> = names.map(str::to_ascii_lowercase).collect();
        let is_gone = |(name, known): &(&String, &Known)| {
            known.seen < begun && !names.contains(name.as_str())
        };
        let gone: Vec<String> =
            inner.names.iter().filter(is_gone).map(|(name, _)| name.clone()).collect();
        for name in gone {
            inner.forget(&name);
            inner.names.remove(&name);
        }
        inner.listed = Some(Instant::now());
    }

    /// Forgets all objects of a name (it was deleted).
    pub fn remove_name(&self, name: &str) {
        let mut inner = self.lock();
        let prefix = format!("{}/", name.to_ascii_lowercase());
        let gone: Vec<_> = inner
            .objects
            .iter()
            .filter(|(_, object)| {
                object.owner.is_none()
                    && object.class() != CKO_CERTIFICATE
                    && object.attributes.bytes(CKA_UNIQUE_ID).is_some_and(|unique| {
                        unique.to_ascii_lowercase().starts_with(prefix.as_bytes())
                    })
            })
            .map(|(handle, _)| *handle)
            .collect();
        for handle in gone {
            inner.remove(handle);
        }
        inner.names.remove(&name.to_ascii_lowercase());
    }
}

impl Inner {
    /// Takes what a name shows out of searches, and gives back what was known of it.
    fn forget(&mut self, name: &str) -> Option<Found> {
        let found = self.names.get(&name.to_ascii_lowercase())?.found.as_deref().cloned()?;
        for handle in &found.handles {
            self.hide(*handle);
        }
        Some(found)
    }
}
