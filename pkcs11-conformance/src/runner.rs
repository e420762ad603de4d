//! Runs groups, each in a process of its own: a crash or a hang of the module is a result.

use std::{
    env, fs,
    fs::{File, OpenOptions},
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    case::{Group, Line, Record, Status},
    cli::Target,
    context::Context,
};

/// The variable that carries the PIN to the group's process.
const PIN: &str = "PKCS11_CONFORMANCE_PIN";
/// How often a group's process is looked at.
const PACE: Duration = Duration::from_millis(10);

/// Runs one group in a process of its own, and gives its results. Where that ends within a case,
/// another process tries the cases after it.
pub fn run(group: &Group, target: &Target, limit: Option<u64>) -> Result<Vec<Record>, String> {
    let (mut records, mut first) = (Vec::new(), 0);
    loop {
        let (more, broken) = run_from(group, first, target, limit)?;
        records.extend(more);
        let Some(broken) = broken else { return Ok(records) };
        let at = group.cases.iter().position(|case| case.id == broken);
        first = at.map_or(group.cases.len(), |at| at + 1);
        if first >= group.cases.len() {
            return Ok(records);
        }
    }
}

/// Results, and the case in which the process ended, if it did.
type Part = (Vec<Record>, Option<String>);

fn run_from(
    group: &Group,
    first: usize,
    target: &Target,
    limit: Option<u64>,
) -> Result<Part, String> {
    let folder = tempfile::tempdir().map_err(|error| format!("temporary folder: {error}"))?;
    let (out, log) = (folder.path().join("out"), folder.path().join("log"));
    let open = |path: &Path| File::create(path).map_err(|e| format!("{}: {e}", path.display()));
    open(&out)?;
    let log_file = open(&log)?;
    let again = log_file.try_clone().map_err(|error| error.to_string())?;
    let mut command = Command::new(env::current_exe().map_err(|error| error.to_string())?);
    command.arg("group").arg(group.name).arg("--out").arg(&out);
    command.arg("--first").arg(first.to_string());
    command.arg("--module").arg(&target.module);
    if let Some(token) = &target.token {
        command.arg("--token").arg(token);
    }
    if target.read_only {
        command.arg("--read-only");
    }
    if let Some(profiles) = &target.profiles {
        command.arg("--profiles").arg(profiles);
    }
    for profile in &target.profile {
        command.arg("--profile").arg(profile);
    }
    match &target.pin {
        Some(pin) => command.env(PIN, pin),
        None => command.env_remove(PIN),
    };
    // The module may print: what it says is shown where it ends badly, and nowhere else.
    command.stdin(Stdio::null()).stdout(log_file).stderr(again);
    let mut child = command.spawn().map_err(|error| format!("{}: {error}", group.name))?;
    let patience = limit.map_or(group.patience, |limit| limit.min(group.patience));
    let deadline = Instant::now() + Duration::from_secs(patience);
    let ended = loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            break Some(status);
        }
        if Instant::now() > deadline {
            // It is gone by itself, or now.
            let _ = child.kill();
            let _ = child.wait();
            break None;
        }
        thread::sleep(PACE);
    };
    let how = match ended {
        None => format!("no answer after {patience} s: the group was ended"),
        Some(status) => match status.signal() {
            Some(signal) => format!("the process ended by signal {signal}"),
            None => format!("the process ended with {}", status.code().unwrap_or_default()),
        },
    };
    Ok(collect(group, &out, &log, how))
}

/// The results in the file; where the group did not come to its end, `how` it ended is one.
fn collect(group: &Group, out: &Path, log: &Path, how: String) -> Part {
    let mut records = Vec::new();
    let mut open: Vec<Record> = Vec::new();
    let mut done = false;
    let lines = File::open(out).map(BufReader::new).into_iter().flat_map(BufRead::lines);
    for line in lines.map_while(Result::ok) {
        match serde_json::from_str(&line) {
            Ok(Line::Begin(record)) => {
                open.retain(|one| record.id.starts_with(&one.id));
                open.push(record);
            }
            Ok(Line::End(record)) => {
                open.retain(|one| one.id != record.id);
                records.push(record);
            }
            Ok(Line::Done) => done = true,
            Err(_) => {}
        }
    }
    if done {
        return (records, None);
    }
    let said = fs::read(log).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let last: Vec<&str> = said.lines().rev().take(5).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    let mut record = open.pop().unwrap_or_else(|| Record {
        id: format!("{}/process", group.name),
        clause: "5.4".to_owned(),
        title: "The group's process runs to its end.".to_owned(),
        status: Status::Failed,
        detail: String::new(),
        milliseconds: 0,
    });
    record.status = Status::Failed;
    record.detail = match last.is_empty() {
        true => how,
        false => format!("{how}; it said last: {}", last.join(" | ")),
    };
    let case = record.id.split(['/', '[']).nth(1).unwrap_or_default().to_owned();
    records.push(record);
    (records, Some(case))
}

/// The group's own process: tries its cases, beginning with the one of this index.
pub fn inside(group: &Group, first: usize, target: Target, out: &Path) -> Result<(), String> {
    let file = OpenOptions::new().append(true).open(out);
    let file = file.map_err(|error| format!("{}: {error}", out.display()))?;
    let mut context = Context::new(target, file)?;
    for case in group.cases.iter().skip(first) {
        context.run(group.name, case);
    }
    context.drop_keys();
    context.tell(&Line::Done);
    Ok(())
}
