//! How often each service did what: tests assert "exactly one request" with it.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde::Serialize;

/// Counts by service and operation.
#[derive(Default)]
pub struct Counters {
    counts: Mutex<BTreeMap<String, BTreeMap<String, u64>>>,
}

/// A copy of the counts: `{"vault:NAME":{"requests":4,"401":1,"keys/sign":3},"entra":{…}}`.
#[derive(Serialize)]
#[serde(transparent)]
pub struct Snapshot(pub BTreeMap<String, BTreeMap<String, u64>>);

impl Counters {
    /// Counts one request of `service` as `operation`.
    pub fn count(&self, service: &str, operation: &str) {
        let mut counts = self.counts.lock();
        let rows = counts.entry(service.to_owned()).or_default();
        *rows.entry("requests".to_owned()).or_default() += 1;
        *rows.entry(operation.to_owned()).or_default() += 1;
    }

    /// What was counted so far.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.counts.lock().clone())
    }

    /// Starts again at nothing.
    pub fn reset(&self) {
        self.counts.lock().clear();
    }
}
