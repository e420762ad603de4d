//! Part three: searches in a vault of 5,000 keys, at 5 ms a request.

use std::{
    io,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    host::{Module, Target, labelled},
    local::KEYS,
    report::{Goal, Report},
    setup::Setup,
    stats, transport,
    twin::Report as Seen,
};

/// Requests in flight at once, as configured by default.
const WIDTH: f64 = 32.0;

/// What the searching process saw.
#[derive(Serialize, Deserialize)]
struct Search {
    /// Objects that the open search found.
    found: usize,
    /// Of the open search.
    milliseconds: f64,
    /// Kilobytes that it added.
    resident: u64,
}

/// Measures.
pub fn run(setup: &Setup, report: &mut Report) -> io::Result<()> {
    report.section("Searches among 5,000 keys, 5 ms a request, without pacing");
    let mut twin = setup.twin(KEYS, "find_rate = 0\ncache_ttl = '1h'")?;
    twin.delay(Duration::from_millis(5))?;
    let count = |seen: &Seen, kind: &str| seen.counts.get(kind).copied().unwrap_or(0) as f64;

    let _: Search = setup.ask("find-label")?;
    let seen = twin.report()?;
    let asked = count(&seen, "get") + count(&seen, "list");
    report.goal("find.by_label_cold", asked, "requests", Goal::Exactly(1.0));

    twin.reset()?;
    let search: Search = setup.ask("find-all")?;
    let seen = twin.report()?;
    if search.found < KEYS {
        return Err(io::Error::other(format!("{} objects of {KEYS} keys", search.found)));
    }
    let request = transport::bare_request(setup, &twin)?;
    let (pages, parts) = (count(&seen, "list"), count(&seen, "get"));
    let best = (pages + (parts / WIDTH).ceil()) * request / 1000.0;
    report.figure("find.open.requests", pages + parts, "requests");
    report.figure("find.open.time", search.milliseconds, "ms");
    report.figure("find.open.best", best, "ms");
    let over = search.milliseconds / best;
    report.goal("find.open.over_best", over, "ratio", Goal::AtMost(1.3));
    let memory = search.resident as f64 / 1024.0;
    report.goal("find.open.resident", memory, "MB", Goal::AtMost(15.0));

    twin.reset()?;
    let _: Search = setup.ask("find-twice")?;
    let asked = count(&twin.report()?, "list") - pages;
    report.goal("find.again.requests", asked, "requests", Goal::Exactly(0.0));
    Ok(())
}

/// The searching process: `label` once, or everything `times` times.
pub fn search(target: &Target, label: Option<&str>, times: usize) -> io::Result<()> {
    let module = Module::load(&target.module)?;
    module.initialize()?;
    let session = module.open(module.slot(target.token.as_deref())?, target.pin.as_deref())?;
    let (before, began) = (stats::resident(), Instant::now());
    let mut found = 0;
    for _ in 0..times {
        found = session.find(None, label.map(labelled))?.len();
    }
    let milliseconds = began.elapsed().as_secs_f64() * 1000.0;
    let resident = stats::resident().saturating_sub(before);
    println!("{}", serde_json::to_string(&Search { found, milliseconds, resident })?);
    Ok(())
}
