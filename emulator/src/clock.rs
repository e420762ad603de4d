//! The emulator's idea of now: the system's, moved and stopped as tests ask.

use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// A clock that can be moved and stopped.
#[derive(Default)]
pub struct Clock {
    state: Mutex<State>,
}

#[derive(Clone, Copy)]
enum State {
    /// As many seconds ahead of the system's.
    Going(i64),
    /// Unix seconds.
    Stopped(i64),
}

impl Default for State {
    fn default() -> Self {
        Self::Going(0)
    }
}

impl Clock {
    /// Unix seconds.
    pub fn now(&self) -> i64 {
        match *self.state.lock() {
            State::Going(ahead) => system() + ahead,
            State::Stopped(now) => now,
        }
    }

    /// Moves the clock by `seconds`, on top of earlier moves.
    pub fn advance(&self, seconds: i64) {
        match &mut *self.state.lock() {
            State::Going(time) | State::Stopped(time) => *time += seconds,
        }
    }

    /// Stops it; it can still be moved.
    pub fn stop(&self) {
        let mut state = self.state.lock();
        if let State::Going(ahead) = *state {
            *state = State::Stopped(system() + ahead);
        }
    }

    /// Lets it go on from where it stopped.
    pub fn go(&self) {
        let mut state = self.state.lock();
        if let State::Stopped(now) = *state {
            *state = State::Going(now - system());
        }
    }
}

fn system() -> i64 {
    let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(real.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_moves_stops_and_goes_on() {
        let clock = Clock::default();
        clock.advance(1_000);
        assert!((system() + 1_000 - clock.now()).abs() <= 1);
        clock.stop();
        let stopped = clock.now();
        std::thread::sleep(std::time::Duration::from_millis(1_100));
        assert_eq!(clock.now(), stopped);
        clock.advance(-5);
        assert_eq!(clock.now(), stopped - 5);
        clock.go();
        assert!((stopped - 5 - clock.now()).abs() <= 1);
    }
}
