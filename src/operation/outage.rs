//! What searches could not learn of the service. While that lasts, what was known before is shown,
//! and the operator is told once that it is so, and once that it is over.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::error::Error;

/// The service has answered, and would answer the same if it were asked again: no outage.
pub fn is_refusal(error: &Error) -> bool {
    error.remote().is_some_and(|remote| {
        (400..500).contains(&remote.status) && !matches!(remote.status, 401 | 408 | 429)
    })
}

/// Nothing was heard of the service.
pub fn is_silence(error: &Error) -> bool {
    error.remote().is_none_or(|remote| remote.status == 0)
}

/// What failed so long ago, and was not asked for since, says nothing of the service any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// A token's outage: from the first thing that cannot be learnt to the last that can be again.
#[derive(Debug, Default)]
pub struct Outage {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What could not be learnt, and when that failed last.
    failing: HashMap<String, Instant>,
    told: bool,
}

impl Outage {
    /// Notes that `what` could not be learnt; true if it is news.
    pub fn failed(&self, what: &str) -> bool {
        let mut state = self.lock();
        let now = Instant::now();
        state.failing.retain(|_, failed| now.duration_since(*failed) < FORGOTTEN_AFTER);
        if state.failing.is_empty() {
            state.told = false;
        }
        state.failing.insert(what.to_owned(), now).is_none()
    }

    /// Notes that the service told `what`; true if that ends an outage the operator was told of.
    pub fn succeeded(&self, what: &str) -> bool {
        let mut state = self.lock();
        let ends = state.failing.remove(what).is_some() && state.failing.is_empty();
        ends && std::mem::take(&mut state.told)
    }

    /// Whether the operator has to be told that what is shown may be stale: once in an outage.
    pub fn is_to_be_told(&self) -> bool {
        !std::mem::replace(&mut self.lock().told, true)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_once_and_ends_with_the_last_thing_that_failed() {
        let outage = Outage::default();
        assert!(outage.failed("all keys") && outage.is_to_be_told());
        assert!(!outage.failed("all keys") && !outage.is_to_be_told());
        assert!(outage.failed("key a") && !outage.is_to_be_told());
        assert!(!outage.succeeded("all keys"), "one key still cannot be had");
        assert!(!outage.succeeded("key b"), "that never failed");
        assert!(outage.succeeded("key a"));
        assert!(!outage.succeeded("key a"), "over already");
        assert!(outage.failed("key a") && outage.is_to_be_told(), "the next one");
    }

    #[test]
    fn what_nobody_was_told_of_ends_in_silence() {
        let outage = Outage::default();
        outage.failed("key a");
        assert!(!outage.succeeded("key a"));
    }

    #[test]
    fn what_failed_long_ago_does_not_hide_the_next_outage() {
        let outage = Outage::default();
        outage.failed("key a");
        assert!(outage.is_to_be_told());
        let long_ago = Instant::now().checked_sub(FORGOTTEN_AFTER).expect("an uptime");
        outage.lock().failing.insert("key a".into(), long_ago);
        assert!(outage.failed("all keys") && outage.is_to_be_told());
        assert!(outage.succeeded("all keys"));
    }
}
