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
    let result = expected("hsm1", "akv-hsm-all.toml", ALL);
    assert!(result.passed().len() > 4000, "{}", result.text);
}

/// The configuration of such a token.
const ALL: &[(&str, &str)] =
    &[("AKV_PKCS11_CONFIG", "none"), ("AKV_PKCS11_LABEL", "hsm1"), ("AKV_PKCS11_MECHANISMS", "+*")];

fn run(token: &str, with: &[(&str, &str)]) -> Run {
    let run = Run::of(&support::akv_module()).emulator(token, with).arg("--token").arg(token);
    let run = run.env("PKCS11_CONFORMANCE_PIN", "0000");
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
    // Three minutes on a machine that does nothing else (docs/conformance.md says how many it
    // were); here others may be at work.
    assert!(result.seconds() < 1800.0, "{} s", result.seconds());
    eprintln!("{}", result.text);
    result
}

/// A vault with a certificate, whose key is in it too.
const CERTIFICATE: &str = r#"
[[certificates]]
name = "web"
subject = "CN=web.example"
dns_names = ["web.example"]
"#;

/// Each profile alone, by our sequence and by its own test case where that is there: nothing else
/// is tried.
#[test]
fn each_profile_alone() {
    let cases = support::root().join("../shared/oasis").is_dir();
    let folder = tempfile::tempdir().expect("folder");
    let certificate = folder.path().join("seed.toml");
    fs::write(&certificate, CERTIFICATE).expect("seed");
    for (name, file) in [
        ("baseline", "BL-M-1-32.xml"),
        ("extended", "EXT-M-1-32.xml"),
        ("authentication", "AUTH-M-1-32.xml"),
        ("certificates", "CERT-M-1-32.xml"),
    ] {
        let run = run("kv1", &[]).arg("--profile").arg(name);
        let result = match name {
            "certificates" => run.seed(&certificate).go(),
            _ => run.go(),
        };
        assert_eq!(result.failed().len(), 0, "{name}: {}", result.text);
        let passed = result.passed();
        for wanted in ["profiles/claimed", "profiles/sequences"] {
            let wanted = format!("{wanted}[{name}]");
            assert!(passed.contains(&wanted), "{wanted}: {}", result.text);
        }
        let own = format!("profiles/{name}");
        assert!(passed.iter().any(|id| id.starts_with(&own)), "{name}: {}", result.text);
        let case = format!("profiles/test-cases[{file}");
        // The keys of that test case have labels that no other token's have.
        if cases && name != "authentication" {
            assert!(passed.contains(&format!("{case}]")), "{name}: {}", result.text);
        }
        let mine = [own, case, format!("[{name}"), "profiles/claims".to_owned()];
        let others: Vec<&String> =
            passed.iter().filter(|id| !mine.iter().any(|mine| id.contains(mine))).collect();
        assert_eq!(others, Vec::<&String>::new(), "{name}");
    }
    let none = support::fails(&["run", "--module", "none.so", "--profile", "nothing"]);
    assert!(none.contains("baseline, extended, authentication, certificates"), "{none}");
}

/// The values that the profiles' test cases fix, of a token with the configuration that they
/// assume, as far as this module has it.
#[test]
fn a_token_with_a_pin_is_that_of_the_test_cases() {
    if !support::root().join("../shared/oasis").is_dir() {
        return eprintln!("the profiles' own test cases are absent");
    }
    // Of 1234.
    let hash = "$argon2id$v=19$m=8,t=1,p=1$Y29uZm9ybWFuY2Utc2FsdA\
                $GPZv1nLoW62FIMNsai8q9m8Lcj4hwZiEKbgLk3cH6R0";
    let token = [
        ("AKV_PKCS11_CONFIG", "none"),
        ("AKV_PKCS11_LABEL", "kv1"),
        ("AKV_PKCS11_LOGIN", "pin"),
        ("PIN_HASH", hash),
        ("AKV_PKCS11_PIN_HASH", "env:PIN_HASH"),
    ];
    let run = run("kv1", &token).arg("--group").arg("profiles");
    let result = run.env("PKCS11_CONFORMANCE_PIN", "1234").go();
    assert_eq!(result.failed().len(), 0, "{}", result.text);
    let differing = |file: &str| -> Vec<String> {
        let begins = format!("profiles/test-cases[{file}, ");
        let skipped = result.skipped();
        skipped.iter().filter_map(|id| Some(id.strip_prefix(&begins)?.to_owned())).collect()
    };
    // PINs of 4 to 255 bytes, memory of which nothing is known to be 0, and
    // CKF_RESTORE_KEY_NOT_NEEDED without a state that can be saved are the test case's own.
    let own = [
        "Flags",
        "FreePrivateMemory",
        "FreePublicMemory",
        "MaxPinLen",
        "MinPinLen",
        "TotalPrivateMemory",
        "TotalPublicMemory",
    ];
    for file in ["BL-M-1-32.xml", "EXT-M-1-32.xml"] {
        let passed = result.passed();
        assert!(passed.contains(&format!("profiles/test-cases[{file}]")), "{}", result.text);
        for field in ["MaxSessionCount", "SessionCount", "MaxRwSessionCount", "RwSessionCount"] {
            let id = format!("profiles/test-cases[{file}, call 6 TokenInfo/{field}]");
            assert!(passed.contains(&id), "{id}: {}", result.text);
        }
        let token = differing(file).into_iter().filter(|one| one.starts_with("call 6 "));
        let own = own.map(|field| format!("call 6 TokenInfo/{field}]"));
        assert_eq!(token.collect::<Vec<_>>(), own, "{file}");
    }
}

/// A read-only run writes nothing to the service, in any group.
#[test]
fn read_only_asks_the_service_for_no_change() {
    for service in ["kv1", "hsm1"] {
        let result = run(service, &[]).arg("--read-only").counted().go();
        assert!(result.passed().len() > 2000, "{}", result.text);
        let counts = result.counts(service);
        assert!(counts.get("keys/sign").is_some_and(|count| *count > 0), "{counts:?}");
        let reads = [
            "get",
            "list",
            "versions",
            "sign",
            "verify",
            "encrypt",
            "decrypt",
            "wrapkey",
            "unwrapkey",
            "rng",
        ];
        let other: Vec<&String> = counts
            .keys()
            .filter(|what| !reads.iter().any(|read| what.rsplit('/').next() == Some(read)))
            .collect();
        assert_eq!(other, Vec::<&String>::new(), "{counts:?}");
    }
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
        ("with all mechanisms", expected("hsm1", "akv-hsm-all.toml", ALL)),
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
