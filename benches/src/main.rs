//! What the module costs beside the wire itself: `make bench`, or `make bench-quick`.
//!
//! One run measures everything side by side, so that its ratios mean something on any machine.
//! Each process that is measured is this program again, in another role.

#![allow(clippy::print_stdout, reason = "the figures are what the output is for")]

mod caller;
mod finding;
mod host;
mod instructions;
mod local;
mod pki;
mod report;
mod setup;
mod startup;
mod stats;
mod transport;
mod twin;
mod web;
mod worker;

use std::{io, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use self::{host::Target, report::Report, setup::Setup, twin::Ports};

/// Measures a PKCS#11 module beside the plain wire and a bare TLS client.
#[derive(Parser)]
struct Cli {
    /// Under a minute instead of five.
    #[arg(long)]
    quick: bool,
    /// Only these parts; all if not said.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// The module to measure; the one built beside this program if not said.
    #[arg(long, value_name = "PATH")]
    module: Option<PathBuf>,
    /// Another provider to measure beside it, configured by its own environment.
    #[arg(long, value_name = "PATH", requires = "other_key")]
    other: Option<PathBuf>,
    /// Label of its token.
    #[arg(long, value_name = "LABEL", requires = "other")]
    other_token: Option<String>,
    /// Label of a P-256 private key on it.
    #[arg(long, value_name = "LABEL", requires = "other")]
    other_key: Option<String>,
    /// PIN of its token.
    #[arg(long, value_name = "PIN", requires = "other")]
    other_pin: Option<String>,
    /// Writes all figures here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Replaces the generated part of this document.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    #[command(subcommand)]
    role: Option<Role>,
}

/// A part of the bench.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Signatures beside the wire and a bare client.
    Sign,
    /// Calls that need no request.
    Local,
    /// Searches.
    Find,
    /// The start of a process.
    Start,
    /// nginx.
    Nginx,
}

#[derive(Subcommand)]
enum Role {
    /// Counts instructions with callgrind and compares them with a file.
    Instructions {
        /// The file.
        #[arg(long, value_name = "FILE")]
        recorded: PathBuf,
        /// Writes the file instead.
        #[arg(long)]
        update: bool,
    },
    #[command(hide = true)]
    Twin { folder: PathBuf, keys: usize },
    #[command(hide = true)]
    Worker {
        client: String,
        #[arg(long, default_value = "")]
        folder: PathBuf,
        #[arg(long)]
        ports: Option<String>,
        #[command(flatten)]
        target: TargetArgs,
    },
    #[command(hide = true)]
    Calls {
        calls: usize,
        #[command(flatten)]
        target: TargetArgs,
    },
    #[command(hide = true)]
    First(TargetArgs),
    #[command(hide = true)]
    Second(TargetArgs),
    #[command(hide = true)]
    NoRequest(TargetArgs),
    #[command(hide = true)]
    Known(TargetArgs),
    #[command(hide = true)]
    Local(TargetArgs),
    #[command(hide = true)]
    FindLabel(TargetArgs),
    #[command(hide = true)]
    FindAll(TargetArgs),
    #[command(hide = true)]
    FindTwice(TargetArgs),
}

#[derive(Args)]
struct TargetArgs {
    #[arg(long)]
    module: PathBuf,
    #[arg(long)]
    token: Option<String>,
    #[arg(long)]
    key: String,
    #[arg(long)]
    pin: Option<String>,
}

impl From<TargetArgs> for Target {
    fn from(args: TargetArgs) -> Self {
        Target { module: args.module, token: args.token, key: args.key, pin: args.pin }
    }
}

fn main() -> ExitCode {
    let mut cli = Cli::parse();
    let done = match cli.role.take() {
        None => measure(cli),
        Some(role) => play(role, cli.module),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("akv-pkcs11-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn setup_of(module: Option<PathBuf>) -> io::Result<Setup> {
    Setup::new(match module {
        Some(path) => setup::existing(&path)?,
        None => setup::built_module()?,
    })
}

fn measure(cli: Cli) -> io::Result<()> {
    let setup = setup_of(cli.module)?;
    let other = cli.other.map(|module| Target {
        module,
        token: cli.other_token,
        key: cli.other_key.unwrap_or_default(),
        pin: cli.other_pin,
    });
    let mut report = Report::default();
    let plan = if cli.quick { transport::QUICK } else { transport::FULL };
    let (processes, seconds) = if cli.quick { (9, 1) } else { (25, 4) };
    let wanted = |part| cli.only.is_empty() || cli.only.contains(&part);
    if wanted(Part::Sign) {
        transport::run(&setup, &plan, other.as_ref(), &mut report)?;
    }
    if wanted(Part::Local) {
        local::run(&setup, &mut report)?;
    }
    if wanted(Part::Find) {
        finding::run(&setup, &mut report)?;
    }
    if wanted(Part::Start) {
        startup::run(&setup, processes, &mut report)?;
    }
    if wanted(Part::Nginx) {
        web::run(&setup, plan.rounds, Duration::from_secs(seconds), &mut report)?;
    }
    let (goals, missed) = report.goals();
    println!("bench: {goals} goals, {missed} missed");
    if let Some(path) = cli.json {
        report.write_json(&path)?;
    }
    if let Some(path) = cli.markdown {
        let command = if cli.quick { "make bench-quick" } else { "make bench" };
        report.write_markdown(&path, command)?;
    }
    Ok(())
}

fn play(role: Role, module: Option<PathBuf>) -> io::Result<()> {
    match role {
        Role::Instructions { recorded, update } => {
            instructions::run(&setup_of(module)?, &recorded, update)
        }
        Role::Twin { folder, keys } => twin::serve(&folder, keys),
        Role::Worker { client, folder, ports, target } => {
            let target = Target::from(target);
            let ports: Ports = match ports {
                Some(json) => serde_json::from_str(&json)?,
                None => Ports { https: 0, ping: 0 },
            };
            match client.as_str() {
                "ping" => worker::work(&caller::Ping(ports)),
                "bare" => worker::work(&caller::Bare::new(ports, &folder, &target.key)?),
                "host" => worker::work(&caller::Nothing),
                _ => worker::work(&caller::Signers::new(target)?),
            }
        }
        Role::Calls { calls, target } => instructions::calls(&target.into(), calls),
        Role::First(target) => startup::start(&target.into(), 1),
        Role::Second(target) => startup::start(&target.into(), 2),
        Role::NoRequest(target) => startup::no_request(&target.into()),
        Role::Known(target) => startup::known(&target.into()),
        Role::Local(target) => local::measure(&target.into()),
        Role::FindLabel(target) => finding::search(&target.into(), Some("key-04321"), 1),
        Role::FindAll(target) => finding::search(&target.into(), None, 1),
        Role::FindTwice(target) => finding::search(&target.into(), None, 2),
    }
}
