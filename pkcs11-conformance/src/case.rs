//! What a case is, and what comes of one.

use serde::{Deserialize, Serialize};

use crate::context::Context;

/// Why a case ended before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It does not apply to this module, token or way of running; why.
    Skip(String),
    /// The module broke the clause; how.
    Fail(String),
}

/// What a case gives. `Ok` passes.
pub type Outcome<T = ()> = Result<T, Stop>;

/// Ends the case: it does not apply.
pub fn skip<T>(why: impl Into<String>) -> Outcome<T> {
    Err(Stop::Skip(why.into()))
}

/// Ends the case: the clause is broken.
pub fn fail<T>(how: impl Into<String>) -> Outcome<T> {
    Err(Stop::Fail(how.into()))
}

/// Fails with the text unless the condition holds.
pub fn ensure(condition: bool, how: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(Stop::Fail(how())) }
}

/// One rule of the standard, tried.
pub struct Case {
    /// Its name within the group: words joined by `-`.
    pub id: &'static str,
    /// The clause of PKCS#11 3.2, or of a profile.
    pub clause: &'static str,
    /// The rule.
    pub title: &'static str,
    /// Tries it. Each [`Context::each`] in it is a result of its own.
    pub run: fn(&mut Context) -> Outcome,
}

/// Cases that share a process.
pub struct Group {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is about.
    pub title: &'static str,
    /// After how many seconds without a line from its process that is ended.
    pub patience: u64,
    /// Its cases, in order.
    pub cases: &'static [Case],
}

/// What came of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The rule holds.
    Passed,
    /// It does not.
    Failed,
    /// It could not be tried.
    Skipped,
}

/// One result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// `group/case`, or `group/case[instance]`.
    pub id: String,
    /// The clause.
    pub clause: String,
    /// The rule.
    pub title: String,
    /// What came of it.
    pub status: Status,
    /// Why it failed or was skipped.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// How long it took.
    pub milliseconds: u64,
}

impl Record {
    /// The group's name.
    pub fn group(&self) -> &str {
        self.id.split('/').next().unwrap_or_default()
    }
}

/// A line of the file through which a group's process tells its parent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// A case, or an instance of one, begins: a crash after this line is its result.
    Begin(Record),
    /// A result.
    End(Record),
    /// The run cannot be made; why.
    Refused(String),
    /// What was made and stays on the token; a sentence.
    Left(String),
    /// All that was to be done is done.
    Done,
}
