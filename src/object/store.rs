//! The objects of one token that this process knows: handles, and look-up by label and id. What is
//! known of each name is in [`names`], certificates and the keys they belong to in
//! [`certificates`]. Never asks the service; `operation::find` does and puts its findings here.

mod certificates;
mod index;
mod names;
mod secrets;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    time::Instant,
};

use cryptoki_sys::*;

pub use self::{
    certificates::Origin,
    names::{Found, Knowledge},
};
use self::{certificates::StoredCertificate, index::Index, names::Known};
use super::{Attributes, Object, certificate::Certificate, profile};
use crate::error::{Error, Result};

/// A template as the store compares it: type and value.
pub type Wanted = Vec<(CK_ATTRIBUTE_TYPE, Vec<u8>)>;

/// The objects of one token.
#[derive(Debug)]
pub struct Store {
    inner: Mutex<Inner>,
}

#[derive(Clone, Debug, Default)]
struct Inner {
    next_handle: CK_OBJECT_HANDLE,
    /// Every object a handle was given for, found by searches or not.
    objects: BTreeMap<CK_OBJECT_HANDLE, Arc<Object>>,
    /// What searches find.
    shown: BTreeSet<CK_OBJECT_HANDLE>,
    /// What searches for its class find, and no others.
    profiles: BTreeSet<CK_OBJECT_HANDLE>,
    /// Of what is shown.
    by_label: Index,
    by_id: Index,
    /// Of every object: one that comes back has the handle it had.
    by_unique: Index,
    /// Values that many objects have alike.
    alike: Vec<Arc<Attributes>>,
    /// What is known of each name, by the name in lower case.
    names: HashMap<String, Known>,
    /// When all names were listed last.
    listed: Option<Instant>,
    certificates: Vec<StoredCertificate>,
    /// The secrets shown.
    secrets: Vec<CK_OBJECT_HANDLE>,
    /// When the secrets were listed last.
    secrets_listed: Option<Instant>,
}

impl Store {
    /// A store that shows the certificates of the files that the configuration names. The first of
    /// a file is a leaf, even if it is a CA's: what it says of itself does not tell a CA's own
    /// certificate, or one that is signed by its own key, from an issuer's.
    pub fn new(files: Vec<Vec<Certificate>>, first_handle: CK_OBJECT_HANDLE) -> Store {
        let mut inner = Inner { next_handle: first_handle, ..Inner::default() };
        for profile in profile::objects() {
            let handle = inner.show(profile);
            inner.hide(handle);
            inner.profiles.insert(handle);
        }
        for file in files {
            for (place, certificate) in file.into_iter().enumerate() {
                let handle = inner.add_certificate(certificate, Origin::Configured);
                let mut stored = inner.certificates.iter_mut();
                if let Some(first) = stored.find(|s| place == 0 && Some(s.handle) == handle) {
                    first.is_leaf = true;
                }
            }
        }
        Store { inner: Mutex::new(inner) }
    }

    /// A copy for a forked child; None when the lock was held at the fork by another thread.
    pub fn carried_over(&self) -> Option<Store> {
        match self.inner.try_lock() {
            Ok(inner) => Some(Store { inner: Mutex::new(inner.clone()) }),
            Err(TryLockError::Poisoned(poisoned)) => {
                Some(Store { inner: Mutex::new(poisoned.into_inner().clone()) })
            }
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Holds the lock, for the time of a fork.
    pub fn hold(&self) -> impl Sized + use<'_> {
        self.lock()
    }

    /// The object of a handle.
    ///
    /// # Errors
    /// CKR_OBJECT_HANDLE_INVALID.
    pub fn object(&self, handle: CK_OBJECT_HANDLE) -> Result<Arc<Object>> {
        self.lock().objects.get(&handle).cloned().ok_or_else(|| unknown(handle))
    }

    /// Handles of the shown objects that match `wanted` and that `visible` lets through, in the
    /// order they became known.
    pub fn find(
        &self,
        wanted: &Wanted,
        visible: impl Fn(&Object) -> bool,
    ) -> Vec<CK_OBJECT_HANDLE> {
        let inner = self.lock();
        let value_of = |kind| wanted.iter().find(|(k, _)| *k == kind).map(|(_, value)| value);
        let matches = |handle: &CK_OBJECT_HANDLE| {
            let object = inner.objects.get(handle);
            object.is_some_and(|object| visible(object) && object.attributes.match_all(wanted))
        };
        if value_of(CKA_CLASS).is_some_and(|v| *v == CKO_PROFILE.to_ne_bytes()) {
            return inner.profiles.iter().copied().filter(matches).collect();
        }
        match (value_of(CKA_ID), value_of(CKA_LABEL)) {
            (Some(id), _) => inner.by_id.of(id).filter(matches).collect(),
            (None, Some(label)) => inner.by_label.of(label).filter(matches).collect(),
            (None, None) => inner.shown.iter().copied().filter(matches).collect(),
        }
    }

    /// The object with this CKA_UNIQUE_ID, whether searches find it or not.
    pub fn known(&self, unique: &[u8]) -> Option<Arc<Object>> {
        let inner = self.lock();
        inner.objects.get(&inner.handle_of(unique)?).cloned()
    }

    /// Gives handles to objects of other versions than their names show, which no search finds. One
    /// that is known is replaced, under its handle, and is found afterwards where it was before.
    pub fn put_aside(&self, objects: Vec<Object>) -> Vec<CK_OBJECT_HANDLE> {
        let mut inner = self.lock();
        let place = |object: Object| {
            let known = object.unique_id().and_then(|unique| inner.handle_of(unique));
            let is_shown = known.is_some_and(|handle| inner.shown.contains(&handle));
            let handle = inner.show(object);
            if !is_shown {
                inner.hide(handle);
            }
            handle
        };
        objects.into_iter().map(place).collect()
    }

    /// Adds a session object.
    pub fn add(&self, object: Object) -> CK_OBJECT_HANDLE {
        self.lock().show(object)
    }

    /// Puts a changed object in the place of the one with this handle.
    ///
    /// # Errors
    /// CKR_OBJECT_HANDLE_INVALID.
    pub fn replace(&self, handle: CK_OBJECT_HANDLE, object: Object) -> Result<()> {
        let mut inner = self.lock();
        if !inner.objects.contains_key(&handle) {
            return Err(unknown(handle));
        }
        inner.replace(handle, object);
        Ok(())
    }

    /// Forgets an object; its handle is unknown from now on.
    ///
    /// # Errors
    /// CKR_OBJECT_HANDLE_INVALID.
    pub fn remove(&self, handle: CK_OBJECT_HANDLE) -> Result<Arc<Object>> {
        self.lock().remove(handle).ok_or_else(|| unknown(handle))
    }

    /// Forgets the session objects that `which` picks (a session that closes, a logout).
    pub fn remove_where(&self, which: impl Fn(&Object) -> bool) {
        let mut inner = self.lock();
        let gone: Vec<_> = inner
            .objects
            .iter()
            .filter(|(_, object)| object.owner.is_some() && which(object))
            .map(|(handle, _)| *handle)
            .collect();
        for handle in gone {
            inner.remove(handle);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        stumble!("store");
        inner
    }
}

impl Inner {
    /// Makes an object findable, under the handle it had if it was known before.
    fn show(&mut self, object: Object) -> CK_OBJECT_HANDLE {
        let known = object.unique_id().and_then(|unique| self.handle_of(unique));
        let handle = known.unwrap_or(self.next_handle);
        self.next_handle = self.next_handle.max(handle + 1);
        self.replace(handle, object);
        handle
    }

    /// The handle of the object with this CKA_UNIQUE_ID.
    fn handle_of(&self, unique: &[u8]) -> Option<CK_OBJECT_HANDLE> {
        self.by_unique.of(unique).find(|handle| {
            self.objects.get(handle).and_then(|object| object.unique_id()) == Some(unique)
        })
    }

    fn replace(&mut self, handle: CK_OBJECT_HANDLE, object: Object) {
        self.hide(handle);
        let value = |kind| object.attributes.bytes(kind).unwrap_or_default();
        self.by_label.insert(value(CKA_LABEL), handle);
        self.by_id.insert(value(CKA_ID), handle);
        if let Some(before) = self.objects.get(&handle).and_then(|before| before.unique_id()) {
            self.by_unique.remove(before, handle);
        }
        if let Some(unique) = object.unique_id() {
            self.by_unique.insert(unique, handle);
        }
        self.shown.insert(handle);
        self.objects.insert(handle, Arc::new(object));
    }

    /// Takes an object out of searches; its handle goes on working.
    fn hide(&mut self, handle: CK_OBJECT_HANDLE) {
        if !self.shown.remove(&handle) {
            return;
        }
        if let Some(object) = self.objects.get(&handle) {
            let value = |kind| object.attributes.bytes(kind).unwrap_or_default();
            self.by_label.remove(value(CKA_LABEL), handle);
            self.by_id.remove(value(CKA_ID), handle);
        }
    }

    fn remove(&mut self, handle: CK_OBJECT_HANDLE) -> Option<Arc<Object>> {
        self.hide(handle);
        let object = self.objects.remove(&handle)?;
        if let Some(unique) = object.unique_id() {
            self.by_unique.remove(unique, handle);
        }
        Some(object)
    }
}

fn unknown(handle: CK_OBJECT_HANDLE) -> Error {
    Error::new(CKR_OBJECT_HANDLE_INVALID, format!("object handle {handle} is not known"))
}
