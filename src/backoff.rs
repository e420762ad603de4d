//! When to ask again: one pause for all threads, for an endpoint of a token and for its authority.

use std::{
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::net::{NetError, Response};

/// The first pause; doubled with each failure.
const BASE: Duration = Duration::from_millis(100);
/// The longest pause that is ours to choose.
const LONGEST: Duration = Duration::from_secs(5);
/// The longest pause that an answer can ask for. The services ask for seconds; what a broken proxy
/// says must neither silence a token for days nor end beyond what an [`Instant`] can hold.
const MOST_ASKED: Duration = Duration::from_secs(3600);
/// Where nobody can be connected to, a host waits for this many attempts (and at least as long as a
/// connection may take) and not for its deadline. So many are made while a port is closed; of attempts
/// that take their time, as with a server that is slow in greeting, the deadline lets fewer be made.
const CONNECT_ATTEMPTS: u32 = 5;

/// A pause. While a server asks to be left alone, no thread of this process asks it.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Failures in a row; those of one pause count once.
    failures: u32,
    not_before: Option<Instant>,
    /// The server has chosen the pause.
    asked: bool,
}

/// A pause that ends too late for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pause {
    /// What is left of it.
    pub left: Duration,
    /// The server asked for it; else it follows failures.
    pub asked: bool,
}

impl Pause {
    /// Why `server` is not asked.
    pub fn reason(self, server: &str) -> String {
        let left = Duration::from_secs(self.left.as_secs() + 1);
        match self.asked {
            true => format!(
                "{server} asked this process to pause and {left:?} of that are left, which is \
                 beyond the deadline"
            ),
            false => format!(
                "after the failures before this one {server} is tried again in {left:?}, which is \
                 beyond the deadline"
            ),
        }
    }
}

impl Backoff {
    /// Waits until the service may be asked.
    ///
    /// # Errors
    /// The pause, when it ends past `deadline`; then nobody has waited.
    pub fn wait(&self, deadline: Instant) -> Result<(), Pause> {
        let (until, asked) = {
            let state = self.lock();
            let Some(until) = state.not_before else { return Ok(()) };
            (until, state.asked)
        };
        let now = Instant::now();
        let left = until.saturating_duration_since(now);
        if left.is_zero() {
            return Ok(());
        }
        if until >= deadline {
            return Err(Pause { left, asked });
        }
        // Those who waited together do not come back in the same instant, and half of the time
        // that the pause has left them is the request's.
        let spread = (left.mul_f32(0.2)).min((deadline - until) / 2);
        thread::sleep(left + spread.mul_f32(random_fraction()));
        Ok(())
    }

    /// Whether nobody needs to wait at `now`.
    pub fn is_over(&self, now: Instant) -> bool {
        self.until().is_none_or(|until| until <= now)
    }

    /// When the last pause ends or ended.
    pub fn until(&self) -> Option<Instant> {
        self.lock().not_before
    }

    /// Notes a failure that a pause may cure: as long as `asked` by the service, else longer each
    /// time.
    pub fn failed(&self, asked: Option<Duration>) {
        let mut state = self.lock();
        let now = Instant::now();
        let paused = state.not_before.is_some_and(|until| until > now);
        if !paused {
            state.failures = state.failures.saturating_add(1);
        }
        let until = now + asked.unwrap_or_else(|| jittered(state.failures));
        if (!paused || asked.is_some()) && state.not_before < Some(until) {
            state.not_before = Some(until);
            state.asked = asked.is_some();
        }
    }

    /// Notes that the service works.
    pub fn succeeded(&self) {
        let mut state = self.lock();
        if state.failures > 0 && state.not_before.is_none_or(|until| until <= Instant::now()) {
            *state = State::default();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pause an answer asks for: `retry-after-ms` or `x-ms-retry-after-ms` in milliseconds,
/// `Retry-After` in seconds; at most an hour. (Neither service sends its date form.)
pub fn retry_after(answer: &Response) -> Option<Duration> {
    let number = |name| answer.header(name)?.trim().parse::<u64>().ok();
    number("retry-after-ms")
        .or_else(|| number("x-ms-retry-after-ms"))
        .map(Duration::from_millis)
        .or_else(|| number("retry-after").map(Duration::from_secs))
        .map(|pause| pause.min(MOST_ASKED))
}

/// The attempts of one call to get a connection.
#[derive(Debug)]
pub(crate) struct Connecting {
    patience: Duration,
    /// Failures in a row, and when the first of them ended.
    failures: u32,
    since: Instant,
}

impl Connecting {
    /// For as long as a connection may take.
    pub fn new(patience: Duration) -> Connecting {
        Connecting { patience, failures: 0, since: Instant::now() }
    }

    /// Notes how an attempt ended, None with an answer. True when nobody is there: a server that is
    /// started again is back by then.
    pub fn is_hopeless_after(&mut self, failed: Option<&NetError>) -> bool {
        if !failed.is_some_and(NetError::unsent) {
            self.failures = 0;
            return false;
        }
        if self.failures == 0 {
            self.since = Instant::now();
        }
        self.failures += 1;
        self.failures >= CONNECT_ATTEMPTS && self.since.elapsed() >= self.patience
    }
}

/// The pause after `failures` in a row: doubled each time up to five seconds, half of it random.
fn jittered(failures: u32) -> Duration {
    let doubled = BASE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST);
    doubled.mul_f32(0.5 + 0.5 * random_fraction())
}

/// 0…1. From aws-lc, which reseeds in a forked child: children must not pause in step.
pub(crate) fn random_fraction() -> f32 {
    let mut bytes = [0; 2];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => f32::from(u16::from_be_bytes(bytes)) / f32::from(u16::MAX),
        Err(_) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

    use super::*;

    fn answer(headers: &[(&'static str, &'static str)]) -> Response {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        Response { status: 429, headers: headers.into(), body: Vec::new().into() }
    }

    #[test]
    fn reads_all_three_forms_of_the_pause() {
        assert_eq!(retry_after(&answer(&[("retry-after", "2")])), Some(Duration::from_secs(2)));
        let exact = answer(&[("retry-after", "2"), ("x-ms-retry-after-ms", "150")]);
        assert_eq!(retry_after(&exact), Some(Duration::from_millis(150)));
        assert_eq!(retry_after(&answer(&[("retry-after-ms", "7")])).unwrap().as_millis(), 7);
        assert_eq!(retry_after(&answer(&[("retry-after", "soon")])), None);
        assert_eq!(retry_after(&answer(&[])), None);
    }

    #[test]
    fn a_pause_without_end_is_an_hour() {
        for header in ["retry-after", "retry-after-ms", "x-ms-retry-after-ms"] {
            let asked = retry_after(&answer(&[(header, "18446744073709551615")]));
            assert_eq!(asked, Some(MOST_ASKED), "{header}");
            Backoff::default().failed(asked);
        }
    }

    #[test]
    fn pauses_grow_and_stay_bounded() {
        for failures in 0..64 {
            let pause = jittered(failures);
            assert!(pause <= LONGEST && pause >= BASE / 2, "{failures}: {pause:?}");
        }
        assert!(jittered(5) >= Duration::from_millis(800));
    }

    #[test]
    fn one_pause_holds_for_everybody_and_failures_within_it_count_once() {
        let backoff = Backoff::default();
        assert_eq!(backoff.wait(Instant::now()), Ok(()));
        for _ in 0..16 {
            backoff.failed(None);
        }
        assert_eq!(backoff.lock().failures, 1);
        backoff.failed(Some(Duration::from_secs(30)));
        let soon = Instant::now() + Duration::from_secs(1);
        let pause = backoff.wait(soon).unwrap_err();
        assert!(pause.left > Duration::from_secs(29) && pause.asked, "{pause:?}");
        backoff.succeeded();
        assert!(backoff.wait(soon).is_err(), "an answer on its way does not end the pause");
    }

    #[test]
    fn connecting_is_given_up_after_some_attempts_in_a_row_and_some_time() {
        let refused = NetError::Connect("refused".into());
        let lost = NetError::Lost("broke".into());
        let mut connecting = Connecting::new(Duration::from_millis(30));
        assert!((0..10).all(|_| !connecting.is_hopeless_after(Some(&refused))), "too early");
        thread::sleep(Duration::from_millis(40));
        assert!(connecting.is_hopeless_after(Some(&refused)));
        for other in [Some(&lost), None] {
            assert!(!connecting.is_hopeless_after(other));
            thread::sleep(Duration::from_millis(40));
            assert!(!connecting.is_hopeless_after(Some(&refused)), "the first in a row");
        }
    }

    #[test]
    fn waits_out_a_short_pause() {
        let backoff = Backoff::default();
        let started = Instant::now();
        backoff.failed(Some(Duration::from_millis(30)));
        assert_eq!(backoff.wait(started + Duration::from_secs(5)), Ok(()));
        assert!(started.elapsed() >= Duration::from_millis(30));
    }
}
