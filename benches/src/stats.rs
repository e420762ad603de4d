//! Medians and percentiles, and what the kernel knows of a process.

use std::{fs, time::Duration};

/// Latencies of one kind of event.
#[derive(Default)]
pub struct Latencies {
    /// Nanoseconds.
    all: Vec<u64>,
    sorted: bool,
}

impl Latencies {
    /// One more.
    pub fn add(&mut self, one: Duration) {
        self.all.push(u64::try_from(one.as_nanos()).unwrap_or(u64::MAX));
        self.sorted = false;
    }

    /// Those of another too.
    pub fn merge(&mut self, other: Latencies) {
        self.all.extend(other.all);
        self.sorted = false;
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Microseconds below which this many in a hundred are; 0 of none.
    pub fn percentile(&mut self, percent: f64) -> f64 {
        if !self.sorted {
            self.all.sort_unstable();
            self.sorted = true;
        }
        let last = self.all.len().saturating_sub(1);
        let at = (last as f64 * percent / 100.0).round() as usize;
        self.all.get(at).map_or(0.0, |nanoseconds| *nanoseconds as f64 / 1000.0)
    }
}

/// The median of what rounds measured; 0 of none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

/// CPU time of this process, user and system.
pub fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Resident memory of this process, kilobytes.
pub fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

/// Sockets this process has open.
pub fn sockets() -> usize {
    let links = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let targets = links.filter_map(|link| fs::read_link(link.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

/// Threads of this process.
pub fn threads() -> usize {
    fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}
