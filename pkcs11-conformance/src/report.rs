//! What is made of results: the summary, JSON, JUnit, Markdown, a comparison.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{
    case::{Record, Status},
    groups::GROUPS,
};

/// A run's results.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// This program's version.
    pub version: String,
    /// The module's file name.
    pub module: String,
    /// The token's label, where one was asked for.
    pub token: Option<String>,
    /// How long the run took.
    pub seconds: f64,
    /// All results, in order.
    pub results: Vec<Record>,
}

/// How many passed, failed, were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Skipped.
    pub skipped: usize,
}

impl Counts {
    fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Counts {
        let mut counts = Counts::default();
        for record in records {
            match record.status {
                Status::Passed => counts.passed += 1,
                Status::Failed => counts.failed += 1,
                Status::Skipped => counts.skipped += 1,
            }
        }
        counts
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// What is allowed to fail, `--expected`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// The failures.
    #[serde(default)]
    pub failure: Vec<ExpectedFailure>,
}

/// Failures that are known, for one reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedFailure {
    /// The results' ids; `*` at the end of one stands for anything.
    pub ids: Vec<String>,
    /// The clauses that are broken: each is one of the results', or what one begins with.
    pub clause: String,
    /// Why, in a sentence.
    #[allow(dead_code, reason = "read by people")]
    pub reason: String,
}

fn covers(pattern: &str, id: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => id.starts_with(start),
        None => id == pattern,
    }
}

impl ExpectedFailure {
    fn covers(&self, record: &Record) -> bool {
        self.ids.iter().any(|id| covers(id, &record.id))
    }

    fn names_clause_of(&self, record: &Record) -> bool {
        let begins = |one: &str, part: &str| {
            one.strip_prefix(part)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '.']))
        };
        let named = |part: &str| record.clause.split(", ").any(|one| begins(one, part));
        self.clause.split(", ").all(named)
    }
}

impl Report {
    /// Reads what `--json` wrote.
    pub fn load(path: &Path) -> Result<Report, String> {
        let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Fails where two results have one id: a comparison, and a list of what is expected, could not
    /// tell them apart.
    pub fn unique(&self) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        let twice = self.results.iter().filter(|record| !seen.insert(record.id.as_str()));
        let twice: BTreeSet<&str> = twice.map(|record| record.id.as_str()).collect();
        match twice.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "results that share an id, which is a bug of this program: {}",
                twice.into_iter().collect::<Vec<_>>().join(", ")
            )),
        }
    }

    /// The counts of all.
    pub fn counts(&self) -> Counts {
        Counts::of(&self.results)
    }

    fn failures(&self) -> impl Iterator<Item = &Record> {
        self.results.iter().filter(|record| record.status == Status::Failed)
    }

    /// What differs from the expected failures, a sentence each.
    pub fn surprises(&self, expected: &Expected) -> Vec<String> {
        let mut surprises = Vec::new();
        for record in self.failures() {
            let mut entries = expected.failure.iter().filter(|one| one.covers(record)).peekable();
            if entries.peek().is_none() {
                surprises.push(format!("{} fails and is not expected to", record.id));
            } else if let Some(one) = entries.find(|one| !one.names_clause_of(record)) {
                let (id, is, said) = (&record.id, &record.clause, &one.clause);
                surprises.push(format!("{id} breaks {is}, and is expected to break {said}"));
            }
        }
        let known: Vec<&String> = expected.failure.iter().flat_map(|one| &one.ids).collect();
        let tried: BTreeSet<&str> = self.results.iter().map(|record| record.group()).collect();
        for id in known {
            let group = id.split('/').next().unwrap_or_default();
            if tried.contains(group) && !self.failures().any(|record| covers(id, &record.id)) {
                surprises.push(format!("{id} is expected to fail and does not"));
            }
        }
        surprises
    }

    /// JSON.
    pub fn json(&self) -> Result<String, String> {
        serde_json::to_string_pretty(self).map_err(|error| error.to_string())
    }

    /// JUnit XML: a suite per group.
    pub fn junit(&self) -> String {
        let counts = self.counts();
        let mut xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites tests=\"{}\" \
             failures=\"{}\" skipped=\"{}\">\n",
            self.results.len(),
            counts.failed,
            counts.skipped
        );
        for (group, records) in self.groups() {
            let counts = Counts::of(records.iter().copied());
            let _ = writeln!(
                xml,
                "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\">",
                escape(group),
                records.len(),
                counts.failed,
                counts.skipped
            );
            for record in records {
                let name = record.id.split_once('/').map_or("", |(_, name)| name);
                let _ = write!(
                    xml,
                    "    <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\">",
                    escape(group),
                    escape(name),
                    record.milliseconds as f64 / 1000.0
                );
                let what = format!("{} {}: {}", record.clause, record.title, record.detail);
                match record.status {
                    Status::Passed => {}
                    Status::Failed => {
                        let _ = write!(xml, "<failure message=\"{}\"/>", escape(&what));
                    }
                    Status::Skipped => {
                        let _ = write!(xml, "<skipped message=\"{}\"/>", escape(&record.detail));
                    }
                }
                xml.push_str("</testcase>\n");
            }
            xml.push_str("  </testsuite>\n");
        }
        xml.push_str("</testsuites>\n");
        xml
    }

    /// Markdown: the counts per group, then the failures and what was skipped.
    pub fn markdown(&self) -> String {
        let mut text = format!("# {}\n\n{}, {:.1} s\n\n", self.module, self.counts(), self.seconds);
        text.push_str(&table(&[("result".to_owned(), self)]));
        for (title, status) in [("Failed", Status::Failed), ("Skipped", Status::Skipped)] {
            let records: Vec<_> = self.results.iter().filter(|r| r.status == status).collect();
            if records.is_empty() {
                continue;
            }
            let _ =
                write!(text, "\n## {title}\n\n| case | clause | rule | why |\n|---|---|---|---|\n");
            for record in records {
                let _ = writeln!(
                    text,
                    "| {} | {} | {} | {} |",
                    cell(&record.id),
                    cell(&record.clause),
                    cell(&record.title),
                    cell(&record.detail)
                );
            }
        }
        text
    }

    fn groups(&self) -> Vec<(&str, Vec<&Record>)> {
        let mut groups: Vec<(&str, Vec<&Record>)> = Vec::new();
        for record in &self.results {
            match groups.iter_mut().find(|(group, _)| *group == record.group()) {
                Some((_, records)) => records.push(record),
                None => groups.push((record.group(), vec![record])),
            }
        }
        groups
    }
}

/// Results side by side, a row per group: passed / failed / skipped.
pub fn table(columns: &[(String, &Report)]) -> String {
    let mut text = String::from("| group | clauses |");
    for (name, _) in columns {
        let _ = write!(text, " {} |", cell(name));
    }
    text.push_str("\n|---|---|");
    text.push_str(&"---|".repeat(columns.len()));
    text.push('\n');
    for group in GROUPS {
        let all = columns.iter().flat_map(|(_, report)| &report.results);
        let mine: Vec<&Record> = all.filter(|record| record.group() == group.name).collect();
        if mine.is_empty() {
            continue;
        }
        let clauses: BTreeMap<(u32, u32, &str), &str> =
            mine.iter().map(|record| (order(&record.clause), head(&record.clause))).collect();
        let mut clauses: Vec<&str> = clauses.into_values().collect();
        clauses.dedup();
        let _ = write!(text, "| {}: {} | {} |", group.name, group.title, clauses.join(", "));
        for (_, report) in columns {
            let counts =
                Counts::of(report.results.iter().filter(|record| record.group() == group.name));
            let _ = write!(text, " {} / {} / {} |", counts.passed, counts.failed, counts.skipped);
        }
        text.push('\n');
    }
    text.push_str("| **all** | |");
    for (_, report) in columns {
        let counts = report.counts();
        let _ = write!(text, " **{} / {} / {}** |", counts.passed, counts.failed, counts.skipped);
    }
    text.push_str("\n| seconds | |");
    for (_, report) in columns {
        let _ = write!(text, " {:.0} |", report.seconds);
    }
    text.push('\n');
    text
}

/// A clause's first two numbers, or what else it says first.
fn head(clause: &str) -> &str {
    let first = clause.split([' ', ',']).next().unwrap_or(clause);
    match first.match_indices('.').nth(1) {
        Some((end, _)) => &first[..end],
        None => first,
    }
}

fn order(clause: &str) -> (u32, u32, &str) {
    let head = head(clause);
    let mut numbers = head.split('.').map(|part| part.parse().unwrap_or(u32::MAX));
    (numbers.next().unwrap_or(u32::MAX), numbers.next().unwrap_or(0), head)
}

/// What changed, a line each, and whether anything got worse.
pub fn compare(before: &Report, after: &Report) -> (Vec<String>, bool) {
    let of = |report: &Report| -> BTreeMap<String, Status> {
        report.results.iter().map(|record| (record.id.clone(), record.status)).collect()
    };
    let (before, after) = (of(before), of(after));
    let (mut lines, mut worse) = (Vec::new(), false);
    for (id, status) in &after {
        let (word, bad) = match (before.get(id), status) {
            (Some(before), after) if before == after => continue,
            (_, Status::Failed) => ("now fails", true),
            (Some(Status::Failed), Status::Passed) => ("is mended", false),
            (Some(Status::Passed), Status::Skipped) => ("passed, is now skipped", true),
            (Some(_), Status::Passed) => ("now passes", false),
            (Some(_), Status::Skipped) => ("is now skipped", false),
            (None, _) => ("is new", false),
        };
        worse |= bad;
        lines.push(format!("{id} {word}"));
    }
    for (id, status) in &before {
        if !after.contains_key(id) {
            worse |= *status == Status::Passed;
            lines.push(format!("{id} is gone"));
        }
    }
    (lines, worse)
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn escape(text: &str) -> String {
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let text: String = text.chars().map(visible).collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(id: &str, clause: &str) -> Record {
        Record {
            id: id.to_owned(),
            clause: clause.to_owned(),
            title: String::new(),
            status: Status::Failed,
            detail: String::new(),
            milliseconds: 0,
        }
    }

    fn report(results: Vec<Record>) -> Report {
        let (version, module) = (String::new(), String::new());
        Report { version, module, token: None, seconds: 0.0, results }
    }

    #[test]
    fn results_that_share_an_id_are_refused() {
        let once = report(vec![failed("a/b[1]", "5"), failed("a/b[2]", "5")]);
        assert_eq!(once.unique(), Ok(()));
        let twice =
            report(vec![failed("a/b[1]", "5"), failed("a/b[2]", "5"), failed("a/b[1]", "5")]);
        let error = twice.unique().expect_err("an id stands twice");
        assert!(error.ends_with(": a/b[1]"), "{error}");
    }

    #[test]
    fn an_expected_failure_breaks_the_clause_that_it_names() {
        let report = report(vec![failed("a/b", "5.1.7, 5.7 C_CopyObject")]);
        let surprises = |clause: &str| {
            let (ids, reason) = (vec!["a/b".to_owned()], String::new());
            let failure = vec![ExpectedFailure { ids, clause: clause.to_owned(), reason }];
            report.surprises(&Expected { failure })
        };
        for right in ["5.1.7", "5.1", "5.7", "5.7 C_CopyObject", "5.1.7, 5.7 C_CopyObject"] {
            assert_eq!(surprises(right), Vec::<String>::new(), "{right}");
        }
        for wrong in ["5.2", "5.7 C_Copy", "5.1.7, 5.8", "5.1.70"] {
            assert_eq!(surprises(wrong).len(), 1, "{wrong}");
        }
    }
}
