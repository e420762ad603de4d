//! This project's module against the emulator: a vault and a Managed HSM.

mod support;

use std::{fs, path::PathBuf};

use support::{Outcome, Run, SoftHsm};

#[test]
fn vault() {
    expected("kv1", "akv-vault.toml", &[]);
}

#[test]
fn managed_hsm() {
    expected("hsm1", "akv-hsm.toml", &[]);
}

/// A Managed HSM whose token offers every mechanism, for session keys.
#[test]
fn managed_hsm_with_all_mechanisms() {
    let result = expected("hsm1", "akv-hsm.toml", ALL);
    assert!(result.passed().len() > 4000, "{}", result.text);
}

/// The configuration of such a token.
const ALL: &[(&str, &str)] =
    &[("AKV_PKCS11_CONFIG", "none"), ("AKV_PKCS11_LABEL", "hsm1"), ("AKV_PKCS11_MECHANISMS", "+*")];

fn run(token: &str, with: &[(&str, &str)]) -> Run {
    let run = Run::of(&support::akv_module()).emulator(token, with).arg("--token").arg(token);
    let run = run.arg("--pin").arg("0000");
    let oasis = support::root().join("../shared/oasis");
    match oasis.is_dir() {
        true => run.arg("--profiles").arg(oasis),
        false => {
            eprintln!("{} is absent: the profiles' own test cases are skipped", oasis.display());
            run
        }
    }
}

fn expected(token: &str, file: &str, with: &[(&str, &str)]) -> Outcome {
    let result = run(token, with).expecting(file).go();
    assert!(result.success, "{}", result.text);
    assert!(result.passed().len() > 3000, "{}", result.text);
    eprintln!("{}", result.text);
    result
}

/// Each profile alone, by its own test case where that is there: nothing else is tried.
#[test]
fn each_profile_alone() {
    let cases = support::root().join("../shared/oasis").is_dir();
    for (name, file) in [
        ("baseline", "BL-M-1-32.xml"),
        ("extended", "EXT-M-1-32.xml"),
        ("authentication", "AUTH-M-1-32.xml"),
        ("certificates", "CERT-M-1-32.xml"),
    ] {
        let result = run("kv1", &[]).arg("--profile").arg(name).go();
        // The token has no certificate: what its profile says of them can only be skipped.
        let tried = result.passed().into_iter().chain(result.skipped_for("certificate"));
        let tried: Vec<String> = tried.filter(|id| !id.starts_with("profiles/claims")).collect();
        let own = format!("profiles/{name}");
        assert!(tried.iter().any(|id| id.starts_with(&own)), "{name}: {}", result.text);
        let case = format!("profiles/test-cases[{file}]");
        assert!(tried.iter().all(|id| id.starts_with(&own) || *id == case), "{name}: {tried:?}");
        let unasked = result.skipped_for("not asked for");
        assert!(!unasked.contains(&case) || !cases, "{name}: {}", result.text);
        assert_eq!(result.failed().len(), 0, "{name}: {}", result.text);
    }
    let none = support::fails(&["run", "--module", "none.so", "--profile", "nothing"]);
    assert!(none.contains("baseline, extended, authentication, certificates"), "{none}");
}

/// README's line: the counts of the last row of docs/conformance.md.
fn badge(results: &str) -> String {
    let row = results.lines().find(|line| line.starts_with("| **all** |")).expect("a last row");
    let mut counts = row.split("**").filter(|part| part.contains(" / "));
    let mut count = || {
        let cell = counts.next().expect("a count for each service");
        let mut numbers = cell.split(" / ");
        let (passed, failed) = (numbers.next().expect("passed"), numbers.next().expect("failed"));
        format!("{passed} passed, {failed} failed")
    };
    let (vault, hsm) = (count(), count());
    format!("[PKCS#11 3.2 conformance](docs/conformance.md): Key Vault {vault}; Managed HSM {hsm}.")
}

/// With UPDATE_DOCS set, docs/conformance.md gets the results of today, and README.md their counts.
#[test]
fn docs() {
    let path: PathBuf = support::root().join("docs/conformance.md");
    let text = fs::read_to_string(&path).expect("docs/conformance.md");
    const BEGIN: &str = "<!-- generated: UPDATE_DOCS=1 cargo test -p pkcs11-conformance docs -->\n";
    let (head, rest) = text.split_once(BEGIN).expect("the mark of what is generated");
    if std::env::var_os("UPDATE_DOCS").is_none() {
        let badge = badge(rest);
        let readme = fs::read_to_string(support::root().join("README.md")).expect("README.md");
        assert!(readme.contains(&badge), "README.md lacks the line of today's counts: {badge}");
        return;
    }
    let softhsm = SoftHsm::new();
    let results = [
        ("vault", expected("kv1", "akv-vault.toml", &[])),
        ("Managed HSM", expected("hsm1", "akv-hsm.toml", &[])),
        ("with all mechanisms", expected("hsm1", "akv-hsm.toml", ALL)),
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
    let readme = support::root().join("README.md");
    let text = fs::read_to_string(&readme).expect("README.md");
    let begins = "[PKCS#11 3.2 conformance](";
    let lines = text.lines().map(|line| match line.starts_with(begins) {
        true => badge(&table),
        false => line.to_owned(),
    });
    let lines: Vec<String> = lines.collect();
    assert!(lines.iter().any(|line| line.starts_with(begins)), "README.md has no line of counts");
    fs::write(&readme, lines.join("\n") + "\n").expect("README.md");
}
