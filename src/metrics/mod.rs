//! Counters of this process, as a Prometheus text file in `metrics_dir` (docs/metrics.md).
//!
//! Counting is a few relaxed atomics. The file is written by whoever calls, at most every ten
//! seconds and at C_Finalize; nobody waits for another who writes. A forked child counts from
//! zero in a file of its own. Without `metrics_dir` there is nothing of all this.

mod file;
mod text;

#[cfg(test)]
mod tests;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use cryptoki_sys::*;

use self::file::Folder;
use crate::{
    net::{NetError, Response},
    vault::Operation,
};

/// Between two writings.
const INTERVAL: Duration = Duration::from_secs(10);

/// Upper ends of the latency histogram's buckets, in microseconds; the last bucket has none.
const BUCKETS: [u64; 14] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000,
];

/// Return values that have a counter of their own; the others share one.
macro_rules! return_values {
    ($($name:ident)*) => {
        const RETURN_VALUES: &[(&str, CK_RV)] = &[$((stringify!($name), $name)),*];
    };
}

return_values! {
    CKR_GENERAL_ERROR CKR_FUNCTION_FAILED CKR_HOST_MEMORY CKR_DEVICE_ERROR CKR_DEVICE_MEMORY
    CKR_ARGUMENTS_BAD CKR_ATTRIBUTE_TYPE_INVALID CKR_ATTRIBUTE_VALUE_INVALID
    CKR_ATTRIBUTE_SENSITIVE CKR_BUFFER_TOO_SMALL CKR_DATA_INVALID CKR_DATA_LEN_RANGE
    CKR_ENCRYPTED_DATA_INVALID CKR_ENCRYPTED_DATA_LEN_RANGE CKR_FUNCTION_NOT_SUPPORTED
    CKR_FUNCTION_REJECTED CKR_KEY_FUNCTION_NOT_PERMITTED CKR_KEY_HANDLE_INVALID
    CKR_KEY_SIZE_RANGE CKR_KEY_TYPE_INCONSISTENT CKR_MECHANISM_INVALID
    CKR_MECHANISM_PARAM_INVALID CKR_OBJECT_HANDLE_INVALID CKR_OPERATION_ACTIVE
    CKR_OPERATION_NOT_INITIALIZED CKR_PIN_INCORRECT CKR_SESSION_HANDLE_INVALID
    CKR_SIGNATURE_INVALID CKR_SIGNATURE_LEN_RANGE CKR_SLOT_ID_INVALID CKR_TEMPLATE_INCOMPLETE
    CKR_TEMPLATE_INCONSISTENT CKR_USER_ALREADY_LOGGED_IN CKR_USER_NOT_LOGGED_IN
    CKR_WRAPPED_KEY_INVALID
}

/// Why a request failed: an answer that is no success, or none.
const KINDS: [&str; 15] = [
    "401", "403", "404", "409", "429", "4xx", "5xx", "3xx", "name", "connect", "tls", "timeout",
    "lost", "answer", "local",
];

/// The counters of one process.
pub struct Metrics {
    folder: Folder,
    functions: &'static [(&'static str, bool)],
    calls: Vec<AtomicU64>,
    /// As [`RETURN_VALUES`], and one more for the rest.
    errors: Vec<AtomicU64>,
    tokens: Vec<Arc<TokenMetrics>>,
    begun: Instant,
    /// Milliseconds after `begun` at which the file is written next.
    due: AtomicU64,
}

/// The counters of one token's requests.
#[derive(Debug)]
pub struct TokenMetrics {
    label: String,
    /// By operation, and one more for access tokens.
    operations: Vec<OperationMetrics>,
    /// As [`KINDS`].
    errors: [AtomicU64; KINDS.len()],
}

#[derive(Debug, Default)]
struct OperationMetrics {
    retries: AtomicU64,
    microseconds: AtomicU64,
    buckets: [AtomicU64; BUCKETS.len() + 1],
}

impl Metrics {
    /// Counters at zero for these tokens. Nothing is written yet. None where the process has
    /// nothing to write with; the log says why.
    pub fn new<'a>(
        dir: &Path,
        functions: &'static [(&'static str, bool)],
        labels: impl Iterator<Item = &'a str>,
    ) -> Metrics {
        Metrics {
            folder: Folder::new(dir),
            functions,
            calls: counters(functions.len()),
            errors: counters(RETURN_VALUES.len() + 1),
            tokens: labels.map(|label| Arc::new(TokenMetrics::new(label))).collect(),
            begun: Instant::now(),
            due: AtomicU64::new(0),
        }
    }

    /// The counters of the token at a position of the configuration.
    pub fn token(&self, position: usize) -> Option<Arc<TokenMetrics>> {
        self.tokens.get(position).cloned()
    }

    /// Counts a call of the function at this position of the list, and writes the file if it is
    /// time.
    pub fn called(&self, function: usize, rv: CK_RV) {
        if let Some(calls) = self.calls.get(function) {
            calls.fetch_add(1, Relaxed);
        }
        if rv != CKR_OK {
            let known = RETURN_VALUES.iter().position(|(_, value)| *value == rv);
            self.errors[known.unwrap_or(RETURN_VALUES.len())].fetch_add(1, Relaxed);
        }
        self.write_if_due(self.begun.elapsed());
    }

    /// Writes the file if the last writing is long enough ago; `now` is since the counters began.
    fn write_if_due(&self, now: Duration) {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let due = self.due.load(Relaxed);
        let next = milliseconds(now + INTERVAL);
        // One of those who come at once writes.
        if milliseconds(now) >= due
            && self.due.compare_exchange(due, next, Relaxed, Relaxed).is_ok()
        {
            self.write();
        }
    }

    /// Writes the file now.
    pub fn write(&self) {
        self.folder.write(|program| text::of(self, program));
    }
}

impl TokenMetrics {
    fn new(label: &str) -> TokenMetrics {
        let operations = Operation::all().count() + 1;
        TokenMetrics {
            label: label.to_owned(),
            operations: (0..operations).map(|_| OperationMetrics::default()).collect(),
            errors: Default::default(),
        }
    }

    /// Counts one request: None asks for an access token. `attempt` counts from 1.
    pub fn requested(
        &self,
        operation: Option<Operation>,
        answer: &Result<Response, NetError>,
        took: Duration,
        attempt: u32,
    ) {
        let row = operation.map_or(self.operations.len() - 1, |operation| operation as usize);
        let Some(row) = self.operations.get(row) else { return };
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.iter().position(|end| took <= *end).unwrap_or(BUCKETS.len());
        row.buckets[bucket].fetch_add(1, Relaxed);
        row.microseconds.fetch_add(took, Relaxed);
        if attempt > 1 {
            row.retries.fetch_add(1, Relaxed);
        }
        if let Some(kind) = kind_of(answer)
            && let Some(at) = KINDS.iter().position(|known| *known == kind)
        {
            self.errors[at].fetch_add(1, Relaxed);
        }
    }
}

fn kind_of(answer: &Result<Response, NetError>) -> Option<&'static str> {
    Some(match answer {
        Ok(answer) => match answer.status {
            200..=299 => return None,
            401 => "401",
            403 => "403",
            404 => "404",
            409 => "409",
            429 => "429",
            400..=499 => "4xx",
            500..=599 => "5xx",
            _ => "3xx",
        },
        Err(NetError::UnknownHost(_)) => "name",
        Err(NetError::Connect(_)) => "connect",
        Err(NetError::Untrusted(_)) => "tls",
        Err(NetError::Timeout) => "timeout",
        Err(NetError::Lost(_)) => "lost",
        Err(NetError::TooLong) => "answer",
        Err(
            NetError::Busy
            | NetError::Resources(_)
            | NetError::ThreadEnding
            | NetError::InsideRuntime,
        ) => "local",
    })
}

fn counters(count: usize) -> Vec<AtomicU64> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}
