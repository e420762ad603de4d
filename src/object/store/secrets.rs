//! Which secrets there are, and since when that is known. Their values are never here.

use std::time::{Duration, Instant};

use super::Store;
use crate::object::Object;

impl Store {
    /// Whether the secrets were listed within `ttl`.
    pub fn secrets_are_listed(&self, ttl: Duration) -> bool {
        self.lock().secrets_listed.is_some_and(|listed| listed.elapsed() < ttl)
    }

    /// Whether a listing ever succeeded: what it found is shown while the service is unreachable.
    pub fn has_secrets(&self) -> bool {
        self.lock().secrets_listed.is_some()
    }

    /// Shows these objects as the secrets that there are now. One that is gone is found no more; its
    /// handle goes on working, and reading it tells what happened.
    pub fn put_secrets(&self, objects: Vec<Object>) {
        let mut inner = self.lock();
        for handle in std::mem::take(&mut inner.secrets) {
            inner.hide(handle);
        }
        inner.secrets = objects.into_iter().map(|object| inner.show(object)).collect();
        inner.secrets_listed = Some(Instant::now());
    }
}
