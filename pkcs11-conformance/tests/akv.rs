//! This project's module against the emulator: a vault and a Managed HSM.

mod support;

use std::{fs, path::PathBuf};

use support::{Outcome, Run, SoftHsm};

#[test]
fn vault() {
    expected("kv1", "akv-vault.toml");
}

#[test]
fn managed_hsm() {
    expected("hsm1", "akv-hsm.toml");
}

fn run(token: &str) -> Run {
    let run = Run::of(&support::akv_module()).emulator().arg("--token").arg(token).arg("--pin");
    let run = run.arg("0000");
    let oasis = support::root().join("../shared/oasis");
    match oasis.is_dir() {
        true => run.arg("--profiles").arg(oasis),
        false => {
            eprintln!("{} is absent: the profiles' own test cases are skipped", oasis.display());
            run
        }
    }
}

fn expected(token: &str, file: &str) -> Outcome {
    let result = run(token).expecting(file).go();
    assert!(result.success, "{}", result.text);
    assert!(result.passed() > 1500, "{}", result.text);
    result
}

/// With UPDATE_DOCS set, docs/conformance.md gets the results of today.
#[test]
fn docs() {
    let path: PathBuf = support::root().join("docs/conformance.md");
    let text = fs::read_to_string(&path).expect("docs/conformance.md");
    const BEGIN: &str = "<!-- generated: UPDATE_DOCS=1 cargo test -p pkcs11-conformance docs -->\n";
    let (head, rest) = text.split_once(BEGIN).expect("the mark of what is generated");
    if std::env::var_os("UPDATE_DOCS").is_none() {
        assert!(rest.contains("| **all** |"), "{} has no results", path.display());
        return;
    }
    let softhsm = SoftHsm::new();
    let results = [
        ("vault", expected("kv1", "akv-vault.toml")),
        ("Managed HSM", expected("hsm1", "akv-hsm.toml")),
        ("SoftHSM2", Run::of(&support::softhsm_module()).softhsm(&softhsm).go()),
    ];
    let columns: Vec<std::ffi::OsString> = results
        .iter()
        .map(|(name, result)| format!("{name}={}", result.json.display()).into())
        .collect();
    let mut args = vec!["table".as_ref()];
    args.extend(columns.iter().map(|column| column.as_os_str()));
    let (good, table) = support::program(&args);
    assert!(good, "{table}");
    let version = env!("CARGO_PKG_VERSION");
    let date = support::output("date", &["-u", "+%Y-%m-%d"]);
    let softhsm = support::output("softhsm2-util", &["--version"]);
    let line = format!(
        "\nPassed / failed / skipped. akv-pkcs11 {version} against the emulator, SoftHSM2 {}, {}.\n\n",
        softhsm.trim(),
        date.trim()
    );
    fs::write(&path, format!("{head}{BEGIN}{line}{table}")).expect("docs/conformance.md");
}
