//! The Prometheus text format (version 0.0.4).

use std::{
    fmt::{self, Write},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{BUCKETS, KINDS, Metrics, RETURN_VALUES, TokenMetrics};
use crate::vault::Operation;

/// What every line is labelled with: which process it is.
pub struct Program {
    pub pid: u32,
    /// The inode of the process id's name space: containers that share a directory may share
    /// process ids.
    pub pid_namespace: u64,
    /// What the program is called.
    pub name: String,
}

/// The whole file. Counters that are zero are left out, their families are not.
pub fn of(metrics: &Metrics, program: &Program) -> String {
    let mut text = String::with_capacity(8 * 1024);
    // Writing to a String does not fail.
    let _ = write(&mut text, metrics, program);
    text
}

fn write(text: &mut String, metrics: &Metrics, program: &Program) -> fmt::Result {
    let process = format!(
        "pid=\"{}\",pidns=\"{}\",program=\"{}\"",
        program.pid,
        program.pid_namespace,
        escaped(&program.name)
    );
    family(text, "info", "gauge", "Version of the module in the process, always 1.")?;
    let version = env!("CARGO_PKG_VERSION");
    writeln!(text, "akv_pkcs11_info{{{process},version=\"{version}\"}} 1")?;
    family(text, "calls_total", "counter", "Calls of PKCS#11 functions.")?;
    for (calls, (function, _)) in metrics.calls.iter().zip(metrics.functions) {
        let name = "calls_total";
        count(text, name, &format!("{process},function=\"{function}\""), calls)?;
    }
    family(text, "call_errors_total", "counter", "Calls that did not return CKR_OK.")?;
    let names = RETURN_VALUES.iter().map(|(name, _)| *name).chain(["other"]);
    for (errors, rv) in metrics.errors.iter().zip(names) {
        count(text, "call_errors_total", &format!("{process},rv=\"{rv}\""), errors)?;
    }
    let tokens: Vec<(String, &TokenMetrics)> = metrics
        .tokens
        .iter()
        .map(|token| (format!("{process},token=\"{}\"", escaped(&token.label)), &**token))
        .collect();
    family(text, "retries_total", "counter", "Requests that repeat another of the same call.")?;
    for (token, metrics) in &tokens {
        for (operation, name) in metrics.operations.iter().zip(operations()) {
            let labels = format!("{token},operation=\"{name}\"");
            count(text, "retries_total", &labels, &operation.retries)?;
        }
    }
    family(text, "request_errors_total", "counter", "Requests without success, by kind.")?;
    for (token, metrics) in &tokens {
        for (errors, kind) in metrics.errors.iter().zip(KINDS) {
            count(text, "request_errors_total", &format!("{token},kind=\"{kind}\""), errors)?;
        }
    }
    let name = "request_duration_seconds";
    family(text, name, "histogram", "Requests to the service and for access tokens.")?;
    for (token, metrics) in &tokens {
        for (operation, of) in metrics.operations.iter().zip(operations()) {
            let counts = operation.buckets.each_ref().map(|bucket| bucket.load(Relaxed));
            let total: u64 = counts.iter().sum();
            if total == 0 {
                continue;
            }
            let labels = format!("{token},operation=\"{of}\"");
            let mut so_far = 0;
            for (end, counted) in BUCKETS.iter().zip(counts) {
                so_far += counted;
                let end = seconds(*end);
                writeln!(text, "akv_pkcs11_{name}_bucket{{{labels},le=\"{end}\"}} {so_far}")?;
            }
            writeln!(text, "akv_pkcs11_{name}_bucket{{{labels},le=\"+Inf\"}} {total}")?;
            let sum = seconds(operation.microseconds.load(Relaxed));
            writeln!(text, "akv_pkcs11_{name}_sum{{{labels}}} {sum}")?;
            writeln!(text, "akv_pkcs11_{name}_count{{{labels}}} {total}")?;
        }
    }
    Ok(())
}

fn operations() -> impl Iterator<Item = &'static str> {
    Operation::all().map(Operation::name).chain(["get access token"])
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(text, "# HELP akv_pkcs11_{name} {help}\n# TYPE akv_pkcs11_{name} {kind}")
}

fn count(text: &mut String, name: &str, labels: &str, counter: &AtomicU64) -> fmt::Result {
    match counter.load(Relaxed) {
        0 => Ok(()),
        counted => writeln!(text, "akv_pkcs11_{name}{{{labels}}} {counted}"),
    }
}

fn seconds(microseconds: u64) -> String {
    let (whole, rest) = (microseconds / 1_000_000, microseconds % 1_000_000);
    format!("{whole}.{rest:06}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A label's value: backslash, quote and line break are escaped.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
