//! `akv-pkcs11`: what an operator needs beside the PKCS#11 module (docs/tool.md).
//!
//! Everything it knows of the service, the configuration and the mechanisms is the module's own
//! library; here are the command line, the sentences and the tables.

mod cli;
#[cfg(test)]
mod docs;
mod doctor;
mod failure;
mod files;
mod generated;
mod init;
mod key;
mod mechanisms;
mod output;
mod target;
mod uri;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use failure::Failure;
use output::Output;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut output = Output::new(cli.common.json);
    let outcome = run(&cli, &mut output).and_then(|()| output.finish());
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(cli: &Cli, output: &mut Output) -> Result<(), Failure> {
    let common = &cli.common;
    match &cli.command {
        Command::Doctor(args) => doctor::run(common, args, output),
        Command::Key { command } => key::run(common, command.as_ref(), output),
        Command::Uri(args) => uri::run(common, args, output),
        Command::Init(args) => init::run(args, output),
        Command::Mechanisms(args) => mechanisms::run(common, args, output),
        Command::Completions { shell } => generated::completions(*shell, output),
        Command::Man { dir } => generated::man(dir.as_deref(), output),
    }
}
