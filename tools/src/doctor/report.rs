//! What the doctor found, for people and for programs.

use std::{fmt::Write, time::Instant};

use akv_pkcs11::config::Service;
use serde::Serialize;

use super::remedy::Remedy;

#[derive(Serialize)]
pub struct Report {
    pub configuration: Check,
    pub tokens: Vec<TokenReport>,
    /// No check failed.
    pub ok: bool,
}

#[derive(Serialize)]
pub struct TokenReport {
    /// Its label.
    pub token: String,
    pub endpoint: String,
    pub service: &'static str,
    pub checks: Vec<Check>,
}

/// One step and its outcome.
#[derive(Serialize)]
pub struct Check {
    pub check: &'static str,
    pub status: Status,
    /// What was found, or what is wrong and what to do.
    pub detail: String,
    /// How long it took.
    pub milliseconds: Option<f64>,
    /// The permission that is missing.
    pub remedy: Option<Remedy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Ok,
    Warning,
    Failed,
    Skipped,
}

impl Check {
    pub fn ok(check: &'static str, detail: impl Into<String>) -> Check {
        let detail = detail.into();
        Check { check, status: Status::Ok, detail, milliseconds: None, remedy: None }
    }

    pub fn warning(check: &'static str, detail: impl Into<String>) -> Check {
        Check { status: Status::Warning, ..Check::ok(check, detail) }
    }

    pub fn failed(check: &'static str, detail: impl Into<String>) -> Check {
        Check { status: Status::Failed, ..Check::ok(check, detail) }
    }

    pub fn skipped(check: &'static str, detail: impl Into<String>) -> Check {
        Check { status: Status::Skipped, ..Check::ok(check, detail) }
    }

    /// The same with the time since `started`.
    pub fn since(self, started: Instant) -> Check {
        let tenths = (started.elapsed().as_secs_f64() * 10_000.0).round();
        Check { milliseconds: Some(tenths / 10.0), ..self }
    }

    pub fn with_remedy(self, remedy: Option<Remedy>) -> Check {
        Check { remedy, ..self }
    }
}

impl Report {
    /// Every check with its place, as in "the configuration" or "`dns` of token 'kv1'".
    pub fn places(&self) -> impl Iterator<Item = (String, &Check)> {
        let of_tokens = self.tokens.iter().flat_map(|token| {
            let name = |check: &Check| format!("`{}` of token '{}'", check.check, token.token);
            token.checks.iter().map(move |check| (name(check), check))
        });
        std::iter::once(("the configuration".to_owned(), &self.configuration)).chain(of_tokens)
    }

    /// One line for each check, a missing permission below it.
    pub fn for_people(report: &Report) -> String {
        let mut text = String::new();
        line(&mut text, &report.configuration);
        for token in &report.tokens {
            let _ =
                writeln!(text, "\ntoken '{}': {}, {}", token.token, token.service, token.endpoint);
            for check in &token.checks {
                line(&mut text, check);
            }
        }
        text
    }
}

/// As the report and docs/tool.md call it.
pub fn service_name(service: Service) -> &'static str {
    match service {
        Service::Vault => "Key Vault",
        Service::ManagedHsm => "Managed HSM",
    }
}

fn line(text: &mut String, check: &Check) {
    let status = match check.status {
        Status::Ok => "ok",
        Status::Warning => "warning",
        Status::Failed => "FAILED",
        Status::Skipped => "skipped",
    };
    let took = check.milliseconds.map(|took| format!("{took:.1} ms")).unwrap_or_default();
    let first = format!("  {:<13}  {status:<7}  {took:>10}  ", check.check);
    let below = " ".repeat(first.len());
    let options = textwrap::Options::new(100)
        .initial_indent(&first)
        .subsequent_indent(&below)
        // Commands, addresses and identifiers stay whole, for whoever copies or searches them.
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
        .break_words(false);
    let _ = writeln!(text, "{}", textwrap::fill(&check.detail, options));
    let Some(remedy) = &check.remedy else { return };
    let rows = [
        ("missing", remedy.permission.as_deref()),
        ("role", remedy.role),
        ("grant it", Some(remedy.command.as_str())),
    ];
    for (name, value) in rows.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        let _ = writeln!(text, "{below}{name:<8}  {value}");
    }
}
