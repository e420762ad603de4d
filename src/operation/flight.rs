//! Single flight: of several threads that want the same finding, one asks and the others wait.

use std::{
    collections::HashSet,
    sync::{Condvar, Mutex, PoisonError},
    time::Instant,
};

/// The requests under way, by what they will find.
#[derive(Debug, Default)]
pub struct Flights {
    under_way: Mutex<HashSet<String>>,
    landed: Condvar,
}

/// The right to ask; ends when dropped, also by a panic.
pub struct Flight<'a> {
    flights: &'a Flights,
    what: String,
}

impl Flights {
    /// Waits until nobody asks for `what`, then gives the right to ask, unless `is_known` finds
    /// that the wait has made it unnecessary. After `deadline` it is given all the same: the
    /// caller's own deadline decides what comes of it.
    pub fn take(
        &self,
        what: &str,
        deadline: Instant,
        is_known: impl Fn() -> bool,
    ) -> Option<Flight<'_>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if is_known() {
                return None;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if under_way.insert(what.to_owned()) || left.is_zero() {
                return Some(Flight { flights: self, what: what.to_owned() });
            }
            under_way =
                self.landed.wait_timeout(under_way, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut under_way = self.flights.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.remove(&self.what);
        self.flights.landed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        thread,
        time::Duration,
    };

    use super::*;

    #[test]
    fn one_asks_and_the_others_wait() {
        let (flights, asked, known) = (Flights::default(), AtomicU32::new(0), AtomicU32::new(0));
        let deadline = Instant::now() + Duration::from_secs(20);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let is_known = || known.load(Ordering::SeqCst) == 1;
                    if let Some(flight) = flights.take("name", deadline, is_known) {
                        asked.fetch_add(1, Ordering::SeqCst);
                        thread::sleep(Duration::from_millis(20));
                        known.store(1, Ordering::SeqCst);
                        drop(flight);
                    }
                });
            }
        });
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn different_findings_do_not_wait_and_a_deadline_ends_the_wait() {
        let flights = Flights::default();
        let soon = Instant::now() + Duration::from_millis(10);
        let _first = flights.take("a", soon, || false).unwrap();
        assert!(flights.take("b", soon, || false).is_some());
        assert!(flights.take("a", soon, || false).is_some());
    }
}
