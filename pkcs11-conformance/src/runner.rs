//! Runs groups, each in a process of its own: a crash or a hang of the module is a result.
//!
//! A group's process tells what began and what ended through a file. Where it ends too early, what
//! was open is recorded with how it ended, and another process goes on after it, within the same
//! case where that has more to try.

use std::{
    collections::BTreeSet,
    env, fs,
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    case::{Group, Line, Record, Status},
    cli::{PIN, SO_PIN, Target},
    context::Context,
    keys,
};

/// How often a process is looked at.
const PACE: Duration = Duration::from_millis(10);
/// How long the processes that try no case may be silent.
const PATIENCE: u64 = 60;
/// After so many hangs the rest of a group is not tried: each costs its patience.
const HANGS: usize = 3;

/// Runs one group, and gives its results. `limit` replaces the group's patience.
pub fn run(group: &Group, target: &Target, limit: Option<u64>) -> Result<Vec<Record>, String> {
    let folder = Folder::new()?;
    let (mut first, mut hangs) = (0, 0);
    loop {
        let args = ["group", group.name, "--first", &first.to_string()].map(str::to_owned);
        let ended = folder.process(&args, target, limit.unwrap_or(group.patience))?;
        let (mut told, open) = folder.told();
        let process = Record {
            id: format!("{}/process", group.name),
            clause: "5.4".to_owned(),
            title: "The group's process runs to its end.".to_owned(),
            status: Status::Failed,
            detail: ended.how.clone(),
            milliseconds: 0,
        };
        if told.done {
            // What the module does when it is unloaded counts too.
            told.records.extend((!ended.well).then_some(process));
            return Ok(told.records);
        }
        let Some(open) = open else {
            told.records.push(process);
            return Ok(told.records);
        };
        let case = open.id.split(['/', '[']).nth(1).unwrap_or_default();
        first = group.cases.iter().position(|one| one.id == case).unwrap_or(group.cases.len());
        let record = Record { status: Status::Failed, detail: ended.how.clone(), ..open };
        folder.append(&Line::End(record.clone()))?;
        told.records.push(record);
        hangs += usize::from(ended.hung);
        if hangs == HANGS {
            let detail = format!("no answer for the {HANGS}th time: the rest is not tried");
            told.records.push(Record { detail, ..process });
            return Ok(told.records);
        }
    }
}

/// Whether the run can be made: the module is loaded and initialised, the token found, the PIN
/// taken. A crash or a hang there is no reason against it: the groups record it.
pub fn check(target: &Target) -> Result<(), String> {
    let folder = Folder::new()?;
    folder.process(&["check".to_owned()], target, PATIENCE)?;
    match folder.told().0.refused {
        Some(why) => Err(why),
        None => Ok(()),
    }
}

/// Destroys what the run made on the token; gives a sentence for each object that stayed.
pub fn tidy(target: &Target) -> Result<Vec<String>, String> {
    let folder = Folder::new()?;
    let ended = folder.process(&["tidy".to_owned()], target, PATIENCE)?;
    let told = folder.told().0;
    let mut left = told.left;
    if !told.done {
        let why = told.refused.unwrap_or(ended.how);
        left.push(format!("what {} labels was not looked for: {why}", target.label));
    }
    Ok(left)
}

/// Where a process writes.
struct Folder {
    folder: tempfile::TempDir,
}

/// What processes have told.
#[derive(Default)]
struct Told {
    records: Vec<Record>,
    refused: Option<String>,
    left: Vec<String>,
    done: bool,
}

/// How a process ended.
struct Ended {
    how: String,
    hung: bool,
    /// By itself, with success.
    well: bool,
}

impl Folder {
    fn new() -> Result<Folder, String> {
        let folder = tempfile::tempdir().map_err(|error| format!("temporary folder: {error}"))?;
        let folder = Folder { folder };
        File::create(folder.out()).map_err(|error| format!("temporary file: {error}"))?;
        Ok(folder)
    }

    fn out(&self) -> std::path::PathBuf {
        self.folder.path().join("out")
    }

    fn append(&self, line: &Line) -> Result<(), String> {
        let mut file = appending(&self.out())?;
        let text = serde_json::to_string(line).map_err(|error| error.to_string())?;
        writeln!(file, "{text}").map_err(|error| error.to_string())
    }

    /// Runs this program with these arguments, until it ends or tells nothing for so many seconds.
    fn process(&self, args: &[String], target: &Target, patience: u64) -> Result<Ended, String> {
        let log = self.folder.path().join("log");
        let log_file = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let again = log_file.try_clone().map_err(|error| error.to_string())?;
        let mut command = Command::new(env::current_exe().map_err(|error| error.to_string())?);
        command.args(args).arg("--out").arg(self.out()).args(target.args());
        for (name, pin) in [(PIN, &target.pin), (SO_PIN, &target.so_pin)] {
            match pin {
                Some(pin) => command.env(name, pin),
                None => command.env_remove(name),
            };
        }
        // The module may print: what it says is shown where it ends badly, and nowhere else.
        command.stdin(Stdio::null()).stdout(log_file).stderr(again);
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let (mut size, mut since) = (0, Instant::now());
        let ended = loop {
            if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
                break Some(status);
            }
            let told = fs::metadata(self.out()).map_or(0, |file| file.len());
            if told != size {
                (size, since) = (told, Instant::now());
            }
            if since.elapsed() > Duration::from_secs(patience) {
                // It is gone by itself, or now.
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            thread::sleep(PACE);
        };
        let how = match ended {
            None => format!("no answer for {patience} s: the process was ended"),
            Some(status) => match status.signal() {
                Some(signal) => format!("the process ended by signal {signal}"),
                None => format!("the process ended with {}", status.code().unwrap_or_default()),
            },
        };
        let said = fs::read(log).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let last: Vec<&str> = said.lines().rev().take(5).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        let how = match last.is_empty() {
            true => how,
            false => format!("{how}; it said last: {}", last.join(" | ")),
        };
        let well = ended.is_some_and(|status| status.success());
        Ok(Ended { how, hung: ended.is_none(), well })
    }

    /// What was told, and the innermost of what began and did not end.
    fn told(&self) -> (Told, Option<Record>) {
        let (mut told, mut open) = (Told::default(), Vec::<Record>::new());
        for line in lines(&self.out()) {
            match line {
                Line::Begin(record) => {
                    open.retain(|one| record.id.starts_with(&format!("{}[", one.id)));
                    open.push(record);
                }
                Line::End(record) => {
                    open.retain(|one| one.id != record.id);
                    told.records.push(record);
                }
                Line::Refused(why) => told.refused = Some(why),
                Line::Left(what) => told.left.push(what),
                Line::Done => told.done = true,
            }
        }
        (told, open.pop())
    }
}

fn lines(out: &Path) -> impl Iterator<Item = Line> {
    let lines = File::open(out).map(BufReader::new).into_iter().flat_map(BufRead::lines);
    lines.map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok())
}

fn appending(out: &Path) -> Result<File, String> {
    let file = OpenOptions::new().append(true).open(out);
    file.map_err(|error| format!("{}: {error}", out.display()))
}

/// The group's own process: tries its cases, beginning with the one of this index, without what
/// an earlier process has told the end of.
pub fn inside(group: &Group, first: usize, target: Target, out: &Path) -> Result<(), String> {
    let ended = lines(out).filter_map(|line| match line {
        Line::End(record) => Some(record.id),
        _ => None,
    });
    let ended: BTreeSet<String> = ended.collect();
    let mut context = Context::new(target, appending(out)?)?.without(ended);
    for case in group.cases.iter().skip(first) {
        context.run(group.name, case);
    }
    context.tell(&Line::Done);
    Ok(())
}

/// The process that finds out whether a run can be made.
pub fn check_inside(target: Target, out: &Path) -> Result<(), String> {
    tell(target, out, |context| context.usable())
}

/// The process that destroys what a run made.
pub fn tidy_inside(target: Target, out: &Path) -> Result<(), String> {
    tell(target, out, |context| {
        context.usable()?;
        for left in keys::tidy(context)? {
            context.tell(&Line::Left(left));
        }
        Ok(())
    })
}

fn tell(
    target: Target,
    out: &Path,
    work: impl FnOnce(&mut Context) -> Result<(), String>,
) -> Result<(), String> {
    let mut file = appending(out)?;
    let told = match Context::new(target, file.try_clone().map_err(|error| error.to_string())?) {
        Ok(mut context) => work(&mut context),
        Err(why) => Err(why),
    };
    let line = told.map_or_else(Line::Refused, |()| Line::Done);
    let text = serde_json::to_string(&line).map_err(|error| error.to_string())?;
    writeln!(file, "{text}").map_err(|error| error.to_string())
}
