//! Files made from the command line's own definition: completions and man pages.

use std::{fs, io, path::Path};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{cli::Cli, failure::Failure, output::Output};

/// A shell's completions, to standard output.
pub fn completions(shell: Shell, output: &mut Output) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "akv-pkcs11", &mut bytes);
    output.raw(&bytes);
    Ok(())
}

/// The man page of the whole, to standard output; with `dir` one page for each subcommand too,
/// into that folder, which is made if need be.
pub fn man(dir: Option<&Path>, output: &mut Output) -> Result<(), Failure> {
    let Some(dir) = dir else {
        let mut bytes = Vec::new();
        let written = clap_mangen::Man::new(Cli::command()).render(&mut bytes);
        output.raw(&bytes);
        return written.map_err(|error| failed(Path::new("-"), &error));
    };
    fs::create_dir_all(dir).map_err(|error| failed(dir, &error))?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(|error| failed(dir, &error))
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("the man pages cannot be written to {}: {error}", path.display()))
}
