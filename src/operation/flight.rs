//! Single flight: of several threads that want the same finding, one asks, and the others wait and
//! share what it hears. What cannot be learnt anew just now is not asked for again by each search.

use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use cryptoki_sys::CKR_DEVICE_ERROR;

use crate::error::{Error, Result};

/// For so long after a failure what is known is shown without asking.
const STALE_FOR: Duration = Duration::from_secs(5);

/// The requests under way, by what they will find.
#[derive(Debug, Default)]
pub struct Flights {
    state: Mutex<State>,
    landed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    under_way: HashMap<String, Arc<Outcome>>,
    /// What failed in the last [`STALE_FOR`], when, and why.
    failed: HashMap<String, (Instant, Error)>,
}

/// What those who wait are given; empty after a panic of the one who asked.
type Outcome = OnceLock<Result<()>>;

/// How much is known of what a search wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing that could be shown: an answer has to be waited for.
    Nothing,
    /// Something older, which is better than to wait for a service that is down.
    Stale,
    /// All, and recently.
    Fresh,
}

impl Known {
    /// `is_fresh`, else whether there is something to show.
    pub fn of(is_fresh: bool, has_stale: bool) -> Known {
        match (is_fresh, has_stale) {
            (true, _) => Known::Fresh,
            (false, true) => Known::Stale,
            (false, false) => Known::Nothing,
        }
    }
}

impl Flights {
    /// Makes sure that `what` is known, by asking or by waiting for who asks already. Nothing is
    /// done where it is known freshly; where something older is, another's asking is not waited
    /// for, and a failure of the last seconds is not repeated.
    ///
    /// # Errors
    /// Those of `ask`, here or in the thread that was waited for; CKR_DEVICE_ERROR when that one has
    /// heard nothing at `deadline`.
    pub fn share(
        &self,
        what: &str,
        deadline: Instant,
        known: impl Fn() -> Known,
        ask: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let mut state = self.lock();
        let outcome = loop {
            let known = known();
            match known {
                Known::Fresh => return Ok(()),
                Known::Stale => state.failed_lately(what)?,
                Known::Nothing => {}
            }
            let Some(other) = state.under_way.get(what).cloned() else {
                let outcome = Arc::<Outcome>::default();
                state.under_way.insert(what.to_owned(), Arc::clone(&outcome));
                break outcome;
            };
            if known == Known::Stale {
                return Ok(());
            }
            while state.under_way.get(what).is_some_and(|flight| Arc::ptr_eq(flight, &other)) {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(Error::new(
                        CKR_DEVICE_ERROR,
                        format!("{what}: no answer within the deadline to the thread that asked"),
                    ));
                }
                let woken = self.landed.wait_timeout(state, left);
                state = woken.unwrap_or_else(PoisonError::into_inner).0;
            }
            if let Some(heard) = other.get() {
                return heard.clone();
            }
        };
        drop(state);
        let flight = Flight { flights: self, what, outcome };
        let heard = ask();
        // Nobody else sets it.
        let _ = flight.outcome.set(heard.clone());
        heard
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn failed_lately(&self, what: &str) -> Result<()> {
        match self.failed.get(what) {
            Some((failed, error)) if failed.elapsed() < STALE_FOR => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

/// The right to ask; ends when dropped, also by a panic.
struct Flight<'a> {
    flights: &'a Flights,
    what: &'a str,
    outcome: Arc<Outcome>,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut state = self.flights.lock();
        state.under_way.remove(self.what);
        match self.outcome.get() {
            Some(Err(error)) => {
                state.failed.retain(|_, (failed, _)| failed.elapsed() < STALE_FOR);
                state.failed.insert(self.what.to_owned(), (Instant::now(), error.clone()));
            }
            Some(Ok(())) => drop(state.failed.remove(self.what)),
            None => {}
        }
        drop(state);
        self.flights.landed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        sync::{
            Barrier,
            atomic::{AtomicU32, Ordering::SeqCst},
        },
        thread,
    };

    use super::*;

    const CALLERS: u32 = 8;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn refused() -> Result<()> {
        Err(Error::new(CKR_DEVICE_ERROR, "down"))
    }

    /// What 8 callers at once are given, and how many of them asked.
    fn together(answer: impl Fn() -> Result<()> + Sync) -> (Vec<Result<()>>, u32) {
        let (flights, asked) = (Flights::default(), AtomicU32::new(0));
        let start = Barrier::new(CALLERS as usize);
        let call = || {
            start.wait();
            flights.share(
                "name",
                soon(),
                || Known::Nothing,
                || {
                    asked.fetch_add(1, SeqCst);
                    thread::sleep(Duration::from_millis(100));
                    answer()
                },
            )
        };
        let heard = thread::scope(|scope| {
            let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(call)).collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).collect()
        });
        (heard, asked.into_inner())
    }

    #[test]
    fn one_asks_and_all_who_waited_share_what_it_heard() {
        let (heard, asked) = together(|| Ok(()));
        assert!(asked == 1 && heard.iter().all(Result::is_ok), "{asked}: {heard:?}");
        let (heard, asked) = together(refused);
        assert!(asked == 1 && heard.iter().all(Result::is_err), "{asked}: {heard:?}");
    }

    #[test]
    fn who_comes_after_a_failure_asks_anew_unless_something_is_known() {
        let flights = Flights::default();
        let asked = AtomicU32::new(0);
        let ask = |known, answer: fn() -> Result<()>| {
            flights.share(
                "name",
                soon(),
                || known,
                || {
                    asked.fetch_add(1, SeqCst);
                    answer()
                },
            )
        };
        ask(Known::Stale, refused).unwrap_err();
        ask(Known::Stale, || Ok(())).unwrap_err();
        assert_eq!(asked.load(SeqCst), 1, "not within the next seconds");
        ask(Known::Fresh, refused).unwrap();
        ask(Known::Nothing, || Ok(())).unwrap();
        assert_eq!(asked.load(SeqCst), 2);
        ask(Known::Stale, || Ok(())).unwrap();
        assert_eq!(asked.load(SeqCst), 3, "the success ended it");
        ask(Known::Stale, refused).unwrap_err();
        let long_ago = Instant::now().checked_sub(STALE_FOR).expect("an uptime");
        flights.lock().failed.values_mut().for_each(|(failed, _)| *failed = long_ago);
        ask(Known::Stale, || Ok(())).unwrap();
        assert_eq!(asked.load(SeqCst), 5);
    }

    #[test]
    fn what_is_known_and_what_is_different_does_not_wait_and_a_deadline_ends_the_wait() {
        let flights = Flights::default();
        let nested = |what: &str, known: Known| {
            let until = Instant::now() + Duration::from_millis(10);
            flights.share(what, until, || known, || Ok(()))
        };
        let outcome = flights.share(
            "a",
            soon(),
            || Known::Nothing,
            || {
                nested("b", Known::Nothing).unwrap();
                nested("a", Known::Stale).unwrap();
                nested("a", Known::Nothing)
            },
        );
        assert_eq!(outcome.unwrap_err().rv(), CKR_DEVICE_ERROR);
    }

    #[test]
    fn after_a_panic_another_one_asks() {
        let flights = Flights::default();
        let asking = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                let panics = || -> Result<()> {
                    asking.wait();
                    thread::sleep(Duration::from_millis(100));
                    panic!("in the middle")
                };
                let share = || flights.share("a", soon(), || Known::Nothing, panics);
                catch_unwind(AssertUnwindSafe(share)).unwrap_err();
            });
            asking.wait();
            flights.share("a", soon(), || Known::Nothing, || Ok(())).unwrap();
        });
    }
}
