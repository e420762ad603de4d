//! `pkcs11-conformance`: tells the truth about any PKCS#11 module.
//!
//! [`groups`] has the cases, each with its clause; [`runner`] gives each group a process of its
//! own; [`ffi`] is the one unsafe room; the oracle of all cryptography is OpenSSL.

mod case;
mod cli;
mod client;
mod context;
mod ffi;
mod functions;
mod groups;
mod keys;
mod mechanism;
mod names;
mod oracle;
mod report;
mod runner;
mod samples;

use std::{
    fs,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::Instant,
};

use clap::Parser;

use crate::{
    case::Status,
    cli::{Alone, Cli, Command, Run},
    groups::GROUPS,
    report::{Expected, Report},
};

/// How many failures of a group are shown while it runs.
const SHOWN: usize = 10;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(options) => run(&options),
        Command::List => list(),
        Command::Compare { before, after } => compare(&before, &after),
        Command::Table { columns } => table(&columns),
        Command::Group { name, first, out, target } => match groups::find(&name) {
            Some(group) => runner::inside(group, first, target, &out).map(|()| true),
            None => Err(format!("no group is named {name}")),
        },
        Command::Check(Alone { out, target }) => runner::check_inside(target, &out).map(|()| true),
        Command::Tidy(Alone { out, target }) => runner::tidy_inside(target, &out).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(text) => {
            eprintln!("pkcs11-conformance: {text}");
            ExitCode::from(2)
        }
    }
}

fn say(text: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").map_err(|error| error.to_string())
}

fn run(options: &Run) -> Result<bool, String> {
    for name in &options.group {
        if groups::find(name).is_none() {
            return Err(format!("no group is named {name}: `pkcs11-conformance list` shows them"));
        }
    }
    let expected = match &options.expected {
        Some(path) => {
            let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
            Some(
                toml::from_str::<Expected>(&text)
                    .map_err(|e| format!("{}: {e}", path.display()))?,
            )
        }
        None => None,
    };
    let start = Instant::now();
    runner::check(&options.target)?;
    let mut results = Vec::new();
    for group in GROUPS {
        let asked = options.group.is_empty() && options.target.profile.is_empty()
            || options.group.iter().any(|name| name == group.name)
            || !options.target.profile.is_empty() && group.name == "profiles";
        if !asked {
            continue;
        }
        let began = Instant::now();
        eprint!("{:<14} ", group.name);
        let records = runner::run(group, &options.target, options.patience)?;
        let count = |status| records.iter().filter(|record| record.status == status).count();
        eprintln!(
            "{:>5} passed {:>4} failed {:>4} skipped  {:>6.1} s",
            count(Status::Passed),
            count(Status::Failed),
            count(Status::Skipped),
            began.elapsed().as_secs_f64()
        );
        let failed: Vec<_> = records.iter().filter(|one| one.status == Status::Failed).collect();
        for record in failed.iter().take(SHOWN) {
            eprintln!("  {} ({}): {}", record.id, record.clause, record.detail);
        }
        if failed.len() > SHOWN {
            eprintln!("  … and {} more: --markdown has them all", failed.len() - SHOWN);
        }
        results.extend(records);
    }
    if !options.target.read_only {
        for left in runner::tidy(&options.target)? {
            eprintln!("{left}");
        }
    }
    let name = options.target.module.file_name().unwrap_or_default();
    let report = Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        module: name.to_string_lossy().into_owned(),
        token: options.target.token.clone(),
        seconds: start.elapsed().as_secs_f64(),
        results,
    };
    report.unique()?;
    let write = |path: &Path, text: String| {
        fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    if let Some(path) = &options.json {
        write(path, report.json()?)?;
    }
    if let Some(path) = &options.junit {
        write(path, report.junit())?;
    }
    if let Some(path) = &options.markdown {
        write(path, report.markdown())?;
    }
    let counts = report.counts();
    let good = match &expected {
        Some(expected) => {
            let surprises = report.surprises(expected);
            for surprise in &surprises {
                eprintln!("{surprise}");
            }
            surprises.is_empty()
        }
        None => counts.failed == 0,
    };
    eprintln!("{:.1} s", report.seconds);
    say(&counts.to_string())?;
    Ok(good && counts.passed > 0)
}

fn list() -> Result<bool, String> {
    for group in GROUPS {
        say(&format!("{}: {}", group.name, group.title))?;
        for case in group.cases {
            say(&format!("  {}/{} ({}) {}", group.name, case.id, case.clause, case.title))?;
        }
    }
    Ok(true)
}

fn compare(before: &Path, after: &Path) -> Result<bool, String> {
    let (before, after) = (Report::load(before)?, Report::load(after)?);
    let (lines, worse) = report::compare(&before, &after);
    for line in lines {
        say(&line)?;
    }
    say(&format!("before: {}", before.counts()))?;
    say(&format!("after: {}", after.counts()))?;
    Ok(!worse)
}

fn table(columns: &[String]) -> Result<bool, String> {
    let mut loaded = Vec::new();
    for column in columns {
        let Some((name, path)) = column.split_once('=') else {
            return Err(format!("{column}: NAME=FILE is meant"));
        };
        loaded.push((name.to_owned(), Report::load(Path::new(path))?));
    }
    let columns: Vec<_> = loaded.iter().map(|(name, report)| (name.clone(), report)).collect();
    say(report::table(&columns).trim_end())?;
    Ok(true)
}
