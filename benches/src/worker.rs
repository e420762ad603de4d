//! A process that calls, with as many threads as it is told, and says what it cost.
//!
//! Each kind of client has a process of its own, so that CPU time, memory, sockets and threads
//! are its own. Between rounds it waits; its connections stay.

use std::{
    io::{self, BufRead, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    caller::{Caller, Clients},
    stats::{self, Latencies},
};

/// One round, as it is ordered.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Callers.
    pub threads: usize,
    /// How long each calls.
    pub milliseconds: u64,
}

/// What a round measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Median latency of a call, microseconds.
    pub p50: f64,
    /// Latency that one call in a hundred exceeds, microseconds.
    pub p99: f64,
    /// Calls per second of all threads together.
    pub rate: f64,
    /// CPU time for one call, microseconds.
    pub cpu: f64,
    /// Sockets of the process half-way.
    pub sockets: usize,
    /// Threads of the process half-way, beyond the callers and the one that waits for them.
    pub threads_added: i64,
    /// Resident memory of the process half-way, kilobytes.
    pub resident: u64,
}

/// A worker's process; ends when dropped.
pub struct Worker {
    child: Child,
    orders: ChildStdin,
    outcomes: io::BufReader<ChildStdout>,
}

impl Worker {
    /// This program again, with these arguments.
    pub fn start(command: &mut Command) -> io::Result<Worker> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let missing = || io::Error::other("no pipe");
        let orders = child.stdin.take().ok_or_else(missing)?;
        let outcomes = io::BufReader::new(child.stdout.take().ok_or_else(missing)?);
        Ok(Worker { child, orders, outcomes })
    }

    /// One round.
    pub fn round(&mut self, order: Order) -> io::Result<Outcome> {
        writeln!(self.orders, "{}", serde_json::to_string(&order)?)?;
        let mut line = String::new();
        self.outcomes.read_line(&mut line)?;
        serde_json::from_str(&line)
            .map_err(|error| io::Error::other(format!("a worker's {line:?}: {error}")))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The worker's own process: rounds as they are ordered, until standard input ends.
pub fn work(clients: &dyn Clients) -> io::Result<()> {
    let mut callers = Vec::new();
    for line in io::stdin().lines() {
        let order: Order = serde_json::from_str(&line?)?;
        let outcome = round(clients, &mut callers, order)?;
        writeln!(io::stdout(), "{}", serde_json::to_string(&outcome)?)?;
    }
    Ok(())
}

fn round(
    clients: &dyn Clients,
    callers: &mut Vec<Box<dyn Caller>>,
    order: Order,
) -> io::Result<Outcome> {
    while callers.len() < order.threads {
        callers.push(clients.caller()?);
    }
    let length = Duration::from_millis(order.milliseconds);
    let start = Barrier::new(order.threads + 1);
    thread::scope(|scope| {
        let calling = callers.iter_mut().take(order.threads);
        let calling: Vec<_> = calling
            .map(|caller| {
                let start = &start;
                scope.spawn(move || -> io::Result<Latencies> {
                    // Connections are made here, and caches filled.
                    let warm = caller.call();
                    start.wait();
                    warm?;
                    let (end, mut seen) = (Instant::now() + length, Latencies::default());
                    loop {
                        let began = Instant::now();
                        if began >= end {
                            return Ok(seen);
                        }
                        caller.call()?;
                        seen.add(began.elapsed());
                    }
                })
            })
            .collect();
        start.wait();
        let (began, cpu) = (Instant::now(), stats::cpu());
        thread::sleep(length / 2);
        let callers_and_main = i64::try_from(order.threads + 1).unwrap_or(i64::MAX);
        let threads = i64::try_from(stats::threads()).unwrap_or(0);
        let (sockets, resident) = (stats::sockets(), stats::resident());
        let mut all = Latencies::default();
        for thread in calling {
            all.merge(thread.join().map_err(|_| io::Error::other("a caller panicked"))??);
        }
        let (elapsed, cpu) = (began.elapsed(), stats::cpu() - cpu);
        let count = all.count().max(1) as f64;
        Ok(Outcome {
            p50: all.percentile(50.0),
            p99: all.percentile(99.0),
            rate: count / elapsed.as_secs_f64(),
            cpu: cpu.as_secs_f64() * 1e6 / count,
            sockets,
            threads_added: threads - callers_and_main,
            resident,
        })
    })
}
