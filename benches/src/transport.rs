//! Part one: C_SignInit + C_Sign beside the plain wire and a bare client, at several delays and
//! numbers of callers, interleaved round by round.

use std::{io, time::Duration};

use crate::{
    host::Target,
    report::{Goal, Report},
    setup::{Setup, arguments},
    stats::median,
    twin::Twin,
    worker::{Order, Outcome, Worker},
};

/// How much is measured.
pub struct Plan {
    /// Milliseconds the twin takes.
    pub delays: &'static [u64],
    /// Callers.
    pub threads: &'static [usize],
    /// Of each client at each of those.
    pub rounds: usize,
    /// Of one round.
    pub milliseconds: u64,
}

/// The five minutes' plan.
pub const FULL: Plan =
    Plan { delays: &[0, 5, 20], threads: &[1, 8, 32, 64, 128], rounds: 5, milliseconds: 400 };
/// The one minute's.
pub const QUICK: Plan =
    Plan { delays: &[0, 5], threads: &[1, 8, 32, 64], rounds: 3, milliseconds: 150 };

const PING: usize = 0;
const BARE: usize = 1;
const MODULE: usize = 2;
const NAMES: [&str; 5] = ["ping", "bare", "module", "host", "other"];

/// Measures; `other` is another provider's key, with its configuration in the environment.
pub fn run(
    setup: &Setup,
    plan: &Plan,
    other: Option<&Target>,
    report: &mut Report,
) -> io::Result<()> {
    let mut twin = setup.twin(0, "max_connections = 256")?;
    report.section("C_SignInit + C_Sign over TLS, beside a plain ping-pong and a bare client");
    for &delay in plan.delays {
        // Afresh for each delay, so that connections are those of as many callers, not of more
        // that were there before.
        let mut workers = workers(setup, &twin, other)?;
        for &threads in plan.threads {
            let order = Order { threads, milliseconds: plan.milliseconds };
            twin.delay(Duration::from_millis(delay))?;
            let rounds = measure(&mut twin, &mut workers, order, plan.rounds)?;
            tell(report, delay, threads, &rounds);
        }
    }
    Ok(())
}

fn workers(setup: &Setup, twin: &Twin, other: Option<&Target>) -> io::Result<Vec<Worker>> {
    let mut workers = Vec::new();
    for name in &NAMES[..4] {
        workers.push(worker(setup, twin, name)?);
    }
    if let Some(other) = other {
        let mut command = std::process::Command::new("/proc/self/exe");
        workers.push(Worker::start(command.args(["worker", "other"]).args(arguments(other)))?);
    }
    Ok(workers)
}

fn worker(setup: &Setup, twin: &Twin, name: &str) -> io::Result<Worker> {
    let ports = serde_json::to_string(&twin.ports)?;
    let mut command = setup.again(&["worker", name]);
    command.arg("--folder").arg(setup.folder.path()).args(["--ports", &ports]);
    Worker::start(command.args(arguments(&setup.target())))
}

/// Latency of the bare client with one caller, microseconds: what one request needs.
pub fn bare_request(setup: &Setup, twin: &Twin) -> io::Result<f64> {
    let mut worker = worker(setup, twin, NAMES[BARE])?;
    let order = Order { threads: 1, milliseconds: 500 };
    Ok(worker.round(order)?.p50)
}

/// One client's rounds, each with what the twin itself took.
#[derive(Default)]
struct Rounds(Vec<(Outcome, f64)>);

impl Rounds {
    fn median(&self, of: impl Fn(&Outcome) -> f64) -> f64 {
        median(self.0.iter().map(|(outcome, _)| of(outcome)))
    }

    /// Latency that is not the twin's.
    fn overhead(&self) -> f64 {
        median(self.0.iter().map(|(outcome, served)| outcome.p50 - served))
    }
}

fn measure(
    twin: &mut Twin,
    workers: &mut [Worker],
    order: Order,
    rounds: usize,
) -> io::Result<Vec<Rounds>> {
    let mut all: Vec<Rounds> = workers.iter().map(|_| Rounds::default()).collect();
    for _ in 0..rounds {
        for (worker, rounds) in workers.iter_mut().zip(&mut all) {
            twin.reset()?;
            let outcome = worker.round(order)?;
            rounds.0.push((outcome, twin.report()?.served_p50));
        }
    }
    Ok(all)
}

fn tell(report: &mut Report, delay: u64, threads: usize, rounds: &[Rounds]) {
    let at = format!("{delay}ms.{threads}thr");
    let [ping, bare, module, host] = [&rounds[PING], &rounds[BARE], &rounds[MODULE], &rounds[3]];
    let ratio = |of: fn(&Outcome) -> f64| module.median(of) / bare.median(of);
    for (name, rounds) in NAMES.iter().zip(rounds).filter(|(name, _)| **name != "host") {
        report.figure(format!("sign.{at}.{name}.overhead_p50"), rounds.overhead(), "us");
        report.figure(format!("sign.{at}.{name}.p99"), rounds.median(|one| one.p99), "us");
        report.figure(format!("sign.{at}.{name}.rate"), rounds.median(|one| one.rate), "ops/s");
        report.figure(format!("sign.{at}.{name}.cpu"), rounds.median(|one| one.cpu), "us/op");
    }
    if threads == 1 {
        let most = if delay == 5 { 1.6 } else { 1.5 };
        let over = module.overhead() / ping.overhead();
        report.goal(format!("sign.{at}.overhead_over_ping"), over, "ratio", Goal::AtMost(most));
        let over = module.overhead() / bare.overhead();
        report.goal(format!("sign.{at}.overhead_over_bare"), over, "ratio", Goal::AtMost(1.4));
    }
    if matches!(threads, 8 | 32 | 64) {
        let rate = ratio(|one| one.rate);
        report.goal(format!("sign.{at}.rate_over_bare"), rate, "ratio", Goal::AtLeast(0.9));
    }
    if (delay, threads) == (5, 32) {
        let cpu = ratio(|one| one.cpu);
        report.goal(format!("sign.{at}.cpu_over_bare"), cpu, "ratio", Goal::AtMost(2.0));
    }
    if (delay, threads) == (5, 64) {
        let p99 = ratio(|one| one.p99);
        report.goal(format!("sign.{at}.p99_over_bare"), p99, "ratio", Goal::AtMost(1.2));
        let memory =
            module.median(|one| one.resident as f64) - host.median(|one| one.resident as f64);
        let memory = memory / 1024.0;
        report.goal(format!("sign.{at}.resident"), memory, "MB above the host", Goal::AtMost(12.0));
    }
    if delay == 5 {
        let added = module.median(|one| one.threads_added as f64);
        report.goal(format!("sign.{at}.threads_added"), added, "threads", Goal::Exactly(0.0));
        let sockets = module.median(|one| one.sockets as f64);
        let callers = Goal::AtMost(threads as f64);
        report.goal(format!("sign.{at}.sockets"), sockets, "sockets", callers);
    }
}
