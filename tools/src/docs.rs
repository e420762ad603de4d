//! docs/tool.md holds the reference that is made of the command line's definition.

use std::{env, fmt::Write, fs, path::Path};

use clap::{Arg, Command, CommandFactory};

use crate::cli::Cli;

/// The line under which the generated part begins.
const BEGIN: &str =
    "<!-- generated from the source: UPDATE_DOCS=1 cargo test -p akv-pkcs11-tools rewrites -->\n";

#[test]
fn the_reference_is_that_of_the_command_line() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tool.md");
    let current = fs::read_to_string(&path).expect("docs/tool.md");
    let (prose, _) = current.split_once(BEGIN).expect("the line of the generated part");
    let mut command = Cli::command();
    command.build();
    let mut wanted = format!("{prose}{BEGIN}");
    wanted.push_str("\n## Everywhere\n\n");
    options(&mut wanted, command.get_arguments().filter(|arg| arg.is_global_set()));
    for subcommand in command.get_subcommands().filter(|each| each.get_name() != "help") {
        chapter(&mut wanted, subcommand, 2, "akv-pkcs11");
    }
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, wanted).expect("write docs/tool.md");
    } else {
        assert!(current == wanted, "docs/tool.md is stale: UPDATE_DOCS=1 cargo test");
    }
}

fn chapter(text: &mut String, command: &Command, depth: usize, parents: &str) {
    let name = format!("{parents} {}", command.get_name());
    let heading = "#".repeat(depth.min(3));
    let _ = write!(text, "\n{heading} `{name}`\n\n");
    let about = command.get_long_about().or(command.get_about());
    let _ = writeln!(text, "{}", about.map(ToString::to_string).unwrap_or_default());
    let own: Vec<_> = command.get_arguments().filter(|arg| !arg.is_global_set()).collect();
    if own.iter().any(|arg| is_shown(arg)) {
        text.push('\n');
        options(text, own.into_iter());
    }
    for subcommand in command.get_subcommands().filter(|each| each.get_name() != "help") {
        chapter(text, subcommand, depth + 1, &name);
    }
}

fn is_shown(arg: &Arg) -> bool {
    !matches!(arg.get_id().as_str(), "help" | "version")
}

fn options<'a>(text: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    text.push_str("| option | meaning |\n|---|---|\n");
    for arg in arguments.filter(|arg| is_shown(arg)) {
        let value = arg.get_value_names().and_then(|names| names.first());
        let takes = arg.get_action().takes_values();
        let name = match (arg.get_long(), value) {
            (Some(long), Some(value)) if takes => format!("--{long} {value}"),
            (Some(long), _) => format!("--{long}"),
            (None, Some(value)) => value.to_string(),
            (None, None) => arg.get_id().to_string().to_uppercase(),
        };
        let mut meaning = arg.get_help().map(|help| format!("{help}.")).unwrap_or_default();
        let choices = arg.get_possible_values();
        if takes && !choices.is_empty() {
            let names: Vec<_> =
                choices.iter().map(|choice| format!("`{}`", choice.get_name())).collect();
            let _ = write!(meaning, " One of {}.", names.join(", "));
        }
        if let Some(default) = arg.get_default_values().first().filter(|_| takes) {
            let _ = write!(meaning, " Default: `{}`.", default.display());
        }
        let _ = writeln!(text, "| `{name}` | {} |", meaning.trim().replace('|', "\\|"));
    }
}
