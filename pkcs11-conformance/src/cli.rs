//! The command line.

use std::{
    collections::hash_map::RandomState,
    ffi::OsString,
    hash::{BuildHasher, Hasher},
    path::PathBuf,
};

use clap::{Args, Parser, Subcommand, builder::PossibleValuesParser};

use crate::groups::profile_names;

/// The variable of the user's PIN, which also carries it to the groups' processes.
pub const PIN: &str = "PKCS11_CONFORMANCE_PIN";
/// The same of the security officer's.
pub const SO_PIN: &str = "PKCS11_CONFORMANCE_SO_PIN";

/// Tells the truth about a PKCS#11 module: tries the standard's rules, each by its clause.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Try a module. No token is initialised, and nothing is deleted that was not made here.
    Run(Run),
    /// List the groups and cases, with their clauses.
    List,
    /// Show what changed from one result to another; fails where something got worse.
    Compare {
        /// The result of --json before.
        before: PathBuf,
        /// The result of --json after.
        after: PathBuf,
    },
    /// Put results side by side, per group, in Markdown.
    Table {
        /// A column's name, `=`, and a result of --json.
        #[arg(required = true, value_name = "NAME=FILE")]
        columns: Vec<String>,
    },
    /// One group, for the parent process.
    #[command(hide = true)]
    Group {
        /// Its name.
        name: String,
        /// The index of the first case to try.
        #[arg(long, default_value_t = 0)]
        first: usize,
        /// Where results go.
        #[arg(long)]
        out: PathBuf,
        /// The module.
        #[command(flatten)]
        target: Target,
    },
    /// Whether a run can be made, for the parent process.
    #[command(hide = true)]
    Check(Alone),
    /// Destroy what a run made, for the parent process.
    #[command(hide = true)]
    Tidy(Alone),
}

/// A process that tries no case.
#[derive(Args, Debug)]
pub struct Alone {
    /// Where it tells.
    #[arg(long)]
    pub out: PathBuf,
    /// The module.
    #[command(flatten)]
    pub target: Target,
}

/// What is tried, and how.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// The shared object.
    #[arg(long, value_name = "PATH")]
    pub module: PathBuf,
    /// The label of the token; without it, the first that is initialised.
    #[arg(long, value_name = "LABEL")]
    pub token: Option<String>,
    /// The user's PIN. On the command line every user of the machine can see it.
    #[arg(long, env = PIN, hide_env_values = true)]
    pub pin: Option<String>,
    /// The security officer's PIN; without it nothing is tried as one.
    #[arg(long, env = SO_PIN, hide_env_values = true)]
    pub so_pin: Option<String>,
    /// Make no token objects and write nothing to the token.
    #[arg(long)]
    pub read_only: bool,
    /// A folder with the profiles' own test cases (BL-M-1-32.xml …), executed where present.
    #[arg(long, value_name = "FOLDER")]
    pub profiles: Option<PathBuf>,
    /// Only the cases of this profile, whether the token claims it or not.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(profile_names()))]
    pub profile: Vec<String>,
    /// CKA_LABEL of what the run makes on the token.
    #[arg(long, hide = true, default_value_t = own_label(), value_parser = run_label)]
    pub label: String,
}

/// How labels of this program's objects begin.
pub const LABEL: &str = "pkcs11-conformance";

/// A label that no other run has: two containers count the same process ids.
fn own_label() -> String {
    // Its keys are random in each process.
    let random = RandomState::new().build_hasher().finish();
    format!("{LABEL}-{}-{random:016x}", std::process::id())
}

/// What this label marks is destroyed: it must be one of this program's, and one run's.
fn run_label(label: &str) -> Result<String, String> {
    let own = label.strip_prefix(LABEL).and_then(|rest| rest.strip_prefix('-'));
    match own.is_some_and(|run| !run.is_empty()) {
        true => Ok(label.to_owned()),
        false => Err(format!("it does not begin with {LABEL}- and have a run's name behind it")),
    }
}

impl Target {
    /// The label of the secret key that the run makes on the token; pairs have `label`.
    pub fn secret_label(&self) -> String {
        format!("{}-secret", self.label)
    }

    /// Whether an object of this label is one that the run made on the token.
    pub fn made(&self, label: &[u8]) -> bool {
        label == self.label.as_bytes() || label == self.secret_label().as_bytes()
    }

    /// The arguments that mean the same to another process; PINs go by their variables.
    pub fn args(&self) -> Vec<OsString> {
        let mut args = vec!["--module".into(), self.module.clone().into_os_string()];
        args.extend(["--label".into(), self.label.clone().into()]);
        for (name, value) in [
            ("--token", self.token.as_ref().map(OsString::from)),
            ("--profiles", self.profiles.clone().map(PathBuf::into_os_string)),
        ] {
            args.extend(value.into_iter().flat_map(|value| [name.into(), value]));
        }
        args.extend(self.read_only.then(|| "--read-only".into()));
        args.extend(self.profile.iter().flat_map(|one| ["--profile".into(), one.into()]));
        args
    }
}

/// `run`.
#[derive(Args, Debug)]
pub struct Run {
    /// The module and how it is tried.
    #[command(flatten)]
    pub target: Target,
    /// Only these groups (see `list`).
    #[arg(long, value_name = "NAME")]
    pub group: Vec<String>,
    /// Write the result as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the result as JUnit XML.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write the result as Markdown.
    #[arg(long, value_name = "FILE")]
    pub markdown: Option<PathBuf>,
    /// Ends a group's process that tells nothing for so many seconds, instead of its own limit.
    #[arg(long, value_name = "SECONDS")]
    pub patience: Option<u64>,
    /// Failures that are known, TOML; any other failure, or one that is gone, fails the run.
    #[arg(long, value_name = "FILE")]
    pub expected: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{Cli, Command, Target};

    fn target(label: &[&str]) -> Option<Target> {
        let args = ["pkcs11-conformance", "run", "--module", "none.so"];
        let parsed = Cli::try_parse_from(args.iter().chain(label)).ok()?;
        match parsed.command {
            Command::Run(run) => Some(run.target),
            _ => None,
        }
    }

    #[test]
    fn a_label_is_one_of_this_program_and_of_one_run() {
        for label in ["", "x", "pkcs11-conformance", "pkcs11-conformance-", "pkcs11-conformancex"] {
            assert!(target(&["--label", label]).is_none(), "{label:?}");
        }
        assert!(target(&["--label", "pkcs11-conformance-12"]).is_some());
        assert!(target(&[]).is_some(), "and the default is taken");
    }

    #[test]
    fn what_another_run_made_is_not_this_ones() {
        let run = target(&["--label", "pkcs11-conformance-12"]).expect("a label");
        for (label, own) in [
            ("pkcs11-conformance-12", true),
            ("pkcs11-conformance-12-secret", true),
            ("pkcs11-conformance-123", false),
            ("pkcs11-conformance-123-secret", false),
            ("pkcs11-conformance-12-secret-2", false),
            ("pkcs11-conformance", false),
            ("", false),
        ] {
            assert_eq!(run.made(label.as_bytes()), own, "{label:?}");
        }
    }
}
