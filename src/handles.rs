//! Handles: numbers for C callers that stand for values here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cryptoki_sys::{CK_RV, CK_ULONG};

use crate::error::{Error, Result};

/// A map of handles to shared values that knows which CK_RV an unknown handle means.
///
/// A handle is never 0 (CK_INVALID_HANDLE) and never given twice in the life of the map. Its lock
/// is held for a look-up only: callers get an [`Arc`] and let go.
#[derive(Debug)]
pub struct Handles<T> {
    inner: Mutex<Inner<T>>,
    unknown: CK_RV,
}

#[derive(Debug)]
struct Inner<T> {
    next: CK_ULONG,
    values: HashMap<CK_ULONG, Arc<T>>,
}

impl<T> Handles<T> {
    /// An empty map that gives handles from `first` on; `unknown` is what a look-up of a handle
    /// that is not there answers.
    pub fn new(unknown: CK_RV, first: CK_ULONG) -> Self {
        Handles { inner: Mutex::new(Inner { next: first, values: HashMap::new() }), unknown }
    }

    /// Stores the value that `make` builds for its new handle.
    pub fn insert_with(&self, make: impl FnOnce(CK_ULONG) -> T) -> (CK_ULONG, Arc<T>) {
        let mut inner = self.lock();
        let handle = inner.next;
        inner.next += 1;
        let value = Arc::new(make(handle));
        inner.values.insert(handle, Arc::clone(&value));
        (handle, value)
    }

    /// The value of a handle.
    ///
    /// # Errors
    /// The CK_RV given at construction.
    pub fn resolve(&self, handle: CK_ULONG) -> Result<Arc<T>> {
        self.lock().values.get(&handle).cloned().ok_or_else(|| self.unknown_handle(handle))
    }

    /// Forgets a handle and gives its value back.
    ///
    /// # Errors
    /// The CK_RV given at construction.
    pub fn remove(&self, handle: CK_ULONG) -> Result<Arc<T>> {
        self.lock().values.remove(&handle).ok_or_else(|| self.unknown_handle(handle))
    }

    /// Forgets all values that `which` picks and gives them back.
    pub fn remove_where(&self, mut which: impl FnMut(&T) -> bool) -> Vec<Arc<T>> {
        self.lock().values.extract_if(|_, value| which(value)).map(|(_, value)| value).collect()
    }

    /// How many values `which` picks.
    pub fn count(&self, mut which: impl FnMut(&T) -> bool) -> usize {
        self.lock().values.values().filter(|value| which(value)).count()
    }

    /// All values, in no order.
    pub fn all(&self) -> Vec<Arc<T>> {
        self.lock().values.values().cloned().collect()
    }

    /// A copy of the map that shares the values `keep` picks, for a forked child. None when the
    /// lock cannot be had: it was held at the fork by a thread that is not here.
    pub fn carried_over(&self, mut keep: impl FnMut(&T) -> bool) -> Option<Self> {
        let inner = match self.inner.try_lock() {
            Ok(inner) => inner,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return None,
        };
        let values = inner
            .values
            .iter()
            .filter(|(_, value)| keep(value))
            .map(|(handle, value)| (*handle, Arc::clone(value)))
            .collect();
        let next = inner.next;
        Some(Handles { inner: Mutex::new(Inner { next, values }), unknown: self.unknown })
    }

    /// Holds the lock, for the time of a fork.
    pub fn hold(&self) -> impl Sized + use<'_, T> {
        self.lock()
    }

    fn unknown_handle(&self, handle: CK_ULONG) -> Error {
        Error::new(self.unknown, format!("handle {handle} is not known"))
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        stumble!("handles");
        inner
    }
}

#[cfg(test)]
mod tests {
    use cryptoki_sys::{CKR_OBJECT_HANDLE_INVALID, CKR_SESSION_HANDLE_INVALID};

    use super::*;

    #[test]
    fn handles_are_not_zero_and_never_reused() {
        let handles = Handles::new(CKR_SESSION_HANDLE_INVALID, 1);
        let (first, value) = handles.insert_with(|handle| handle);
        assert_ne!(first, 0);
        assert_eq!(*value, first);
        assert_eq!(*handles.remove(first).unwrap(), first);
        let (second, _) = handles.insert_with(|handle| handle);
        assert_ne!(first, second);
    }

    #[test]
    fn an_unknown_handle_means_what_construction_said() {
        for rv in [CKR_SESSION_HANDLE_INVALID, CKR_OBJECT_HANDLE_INVALID] {
            let handles: Handles<()> = Handles::new(rv, 1);
            for handle in [0, 1, 2, CK_ULONG::MAX] {
                assert_eq!(handles.resolve(handle).unwrap_err().rv(), rv);
                assert_eq!(handles.remove(handle).unwrap_err().rv(), rv);
            }
        }
    }

    #[test]
    fn a_resolved_value_outlives_its_handle() {
        let handles = Handles::new(CKR_OBJECT_HANDLE_INVALID, 1);
        let (handle, _) = handles.insert_with(|_| String::from("key"));
        let value = handles.resolve(handle).unwrap();
        assert_eq!(handles.remove_where(|v| v == "key").len(), 1);
        assert_eq!(*value, "key");
        assert_eq!(handles.count(|_| true), 0);
    }

    #[test]
    fn a_copy_for_a_child_is_refused_while_the_lock_is_held() {
        let handles = Handles::new(CKR_OBJECT_HANDLE_INVALID, 1);
        let (kept, _) = handles.insert_with(|_| 1);
        let (left, _) = handles.insert_with(|_| 2);
        let copy = handles.carried_over(|v| *v == 1).unwrap();
        assert!(copy.resolve(kept).is_ok());
        assert!(copy.resolve(left).is_err());
        let (new, _) = copy.insert_with(|_| 3);
        assert!(new > left);
        let held = handles.hold();
        assert!(handles.carried_over(|_| true).is_none());
        drop(held);
    }
}
