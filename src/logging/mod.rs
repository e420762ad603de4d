//! Where the lines of the `log` facade go: standard error, a file or syslog.
//!
//! A host calls us in forked children, from exit handlers and after it closed descriptors it does
//! not know. So nothing here waits: no thread-local, no lock but by `try_`, and a line that cannot
//! be written at once is dropped. Only lines of this crate are taken: at `trace` the HTTP and TLS
//! crates below would print tokens.

mod line;
mod sink;

use std::sync::{
    RwLock, TryLockError,
    atomic::{AtomicUsize, Ordering},
};

use log::{LevelFilter, Log, Metadata, Record};

use self::{line::Line, sink::Sink};
use crate::config::LogConfig;

/// The value behind the `log` crate's own process-wide registration, which can be made only once.
static LOGGER: Logger = Logger::new();

/// Spare places for the state: one that a fork left locked is passed over for ever.
const SLOTS: usize = 8;

/// Writes as `config` says, from the next line on; each C_Initialize calls it. A file that cannot
/// be opened is told on standard error, where the lines then go.
pub fn configure(config: &LogConfig) {
    // An error means that a logger is there: ours from an earlier C_Initialize, or that of a
    // program which links this crate, and then the lines are that program's.
    let _ = log::set_logger(&LOGGER);
    let sink = LOGGER.with(|state| Sink::open(&config.sink, &state.sink));
    let sink = sink.unwrap_or_else(|| Sink::open(&config.sink, &Sink::Nowhere));
    LOGGER.replace(State { level: config.level, sink });
    log::set_max_level(config.level);
}

/// Writes one line to standard error, whatever is configured: for C_Initialize, which has nobody
/// else to tell why there is no configuration.
pub fn last_resort(sentence: &str) {
    sink::write_stderr(Line::plain(sentence).as_bytes(), None);
}

struct Logger {
    slots: [RwLock<State>; SLOTS],
    current: AtomicUsize,
}

struct State {
    level: LevelFilter,
    sink: Sink,
}

impl Logger {
    const fn new() -> Self {
        Logger { slots: [const { RwLock::new(State::OFF) }; SLOTS], current: AtomicUsize::new(0) }
    }

    fn replace(&self, mut state: State) {
        let before = self.current.load(Ordering::Acquire);
        for step in 1..SLOTS {
            let next = (before + step) % SLOTS;
            match self.put(next, state) {
                Ok(()) => {
                    self.current.store(next, Ordering::Release);
                    // Refused while a line is being written there: it closes one round later.
                    let _ = self.put(before, State::OFF);
                    return;
                }
                Err(back) => state = back,
            }
        }
    }

    fn put(&self, slot: usize, state: State) -> Result<(), State> {
        match self.slots[slot].try_write() {
            Ok(mut guard) => *guard = state,
            Err(TryLockError::Poisoned(poisoned)) => *poisoned.into_inner() = state,
            Err(TryLockError::WouldBlock) => return Err(state),
        }
        Ok(())
    }

    /// Readers share the lock, so one that a fork left behind hinders no line.
    fn with<T>(&self, read: impl FnOnce(&State) -> T) -> Option<T> {
        match self.slots[self.current.load(Ordering::Acquire)].try_read() {
            Ok(state) => Some(read(&state)),
            Err(TryLockError::Poisoned(poisoned)) => Some(read(&poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl State {
    const OFF: State = State { level: LevelFilter::Off, sink: Sink::Nowhere };

    fn takes(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level && is_ours(metadata.target())
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.with(|state| state.takes(metadata)).unwrap_or(false)
    }

    fn log(&self, record: &Record<'_>) {
        self.with(|state| {
            if state.takes(record.metadata()) {
                state.sink.write(record);
            }
        });
    }

    fn flush(&self) {}
}

fn is_ours(target: &str) -> bool {
    let rest = target.strip_prefix(env!("CARGO_CRATE_NAME"));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests;
