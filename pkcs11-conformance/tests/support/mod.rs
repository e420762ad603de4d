//! Runs the program, on SoftHSM, on the faulty module, on ours under the emulator.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_pkcs11-conformance");
const LABEL: &str = "conformance";
const PIN: &str = "1234";

/// The workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn target() -> &'static Path {
    Path::new(PROGRAM).parent().expect("a program is in a folder")
}

fn built(path: PathBuf) -> PathBuf {
    let why = "run `cargo build --workspace --all-targets` first";
    assert!(path.is_file(), "{} is missing: {why}", path.display());
    path
}

/// This project's module.
pub fn akv_module() -> PathBuf {
    built(target().join("libakv_pkcs11.so"))
}

/// The module with a fault.
pub fn faulty_module() -> PathBuf {
    built(target().join("examples/libfaulty.so"))
}

/// Debian's SoftHSM.
pub fn softhsm_module() -> PathBuf {
    let places = ["/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so"];
    let found = places.iter().map(PathBuf::from).find(|path| path.is_file());
    found.expect("SoftHSM is not installed: apt-get install softhsm2")
}

/// A SoftHSM token in a folder of its own.
pub struct SoftHsm {
    folder: tempfile::TempDir,
}

impl SoftHsm {
    /// Makes one, with Debian's configuration.
    pub fn new() -> SoftHsm {
        SoftHsm::with("")
    }

    /// Makes one, with more lines of configuration.
    pub fn with(more: &str) -> SoftHsm {
        let folder = tempfile::tempdir().expect("folder");
        let tokens = folder.path().join("tokens");
        fs::create_dir(&tokens).expect("folder");
        let tokens = tokens.display();
        let config =
            format!("directories.tokendir = {tokens}\nobjectstore.backend = file\n{more}\n");
        fs::write(folder.path().join("softhsm2.conf"), config).expect("configuration");
        let softhsm = SoftHsm { folder };
        let output = Command::new("softhsm2-util")
            .args([
                "--init-token",
                "--free",
                "--label",
                LABEL,
                "--pin",
                PIN,
                "--so-pin",
                "12345678",
            ])
            .env("SOFTHSM2_CONF", softhsm.config())
            .output()
            .expect("softhsm2-util is not installed: apt-get install softhsm2");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        softhsm
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("softhsm2.conf")
    }

    /// The names of all files of the token: each object is one.
    pub fn files(&self) -> BTreeSet<OsString> {
        let tokens = fs::read_dir(self.folder.path().join("tokens")).expect("tokens");
        let folders = tokens.map(|entry| entry.expect("entry").path());
        let files = folders.flat_map(|folder| fs::read_dir(folder).expect("token"));
        files.map(|entry| entry.expect("entry").file_name()).collect()
    }
}

/// A run of the program.
pub struct Run {
    /// The service, and what the module is told beside what the emulator tells it.
    emulated: Option<(String, Vec<(String, String)>)>,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
}

/// What came of it.
pub struct Outcome {
    /// Whether the exit code was 0.
    pub success: bool,
    /// What it printed.
    pub text: String,
    /// Its result.
    pub json: PathBuf,
    _folder: tempfile::TempDir,
}

impl Run {
    /// Of this module.
    pub fn of(module: &Path) -> Run {
        let args = vec!["run".into(), "--module".into(), module.into()];
        Run { emulated: None, args, env: Vec::new() }
    }

    /// On this token.
    pub fn softhsm(self, softhsm: &SoftHsm) -> Run {
        let run = self.env("SOFTHSM2_CONF", softhsm.config());
        run.env("PKCS11_CONFORMANCE_PIN", PIN).arg("--token").arg(LABEL)
    }

    /// Under the emulator of a vault `kv1` or a Managed HSM `hsm1`, with these variables.
    pub fn emulator(mut self, service: &str, with: &[(&str, &str)]) -> Run {
        let with = with.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.emulated = Some((service.to_owned(), with.collect()));
        self
    }

    /// With one more argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Run {
        self.args.push(arg.as_ref().into());
        self
    }

    /// With a variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Run {
        self.env.push((name.into(), value.as_ref().into()));
        self
    }

    /// With a file of `expected/`.
    pub fn expecting(self, file: &str) -> Run {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("expected").join(file);
        self.arg("--expected").arg(path)
    }

    /// Runs it.
    pub fn go(self) -> Outcome {
        let folder = tempfile::tempdir().expect("folder");
        let json = folder.path().join("result.json");
        let mut command = match self.emulated {
            Some((service, with)) => {
                let mut command = Command::new(built(target().join("akv-emulator")));
                let kind = if service.starts_with("kv") { "--vault" } else { "--hsm" };
                command.args(["exec", kind, &service, "--seed", "demo", "--", "env"]);
                // The emulator sets variables of its own: these come after them.
                command.args(with.iter().map(|(name, value)| format!("{name}={value}")));
                command.arg(PROGRAM);
                command
            }
            None => Command::new(PROGRAM),
        };
        command.args(&self.args).arg("--json").arg(&json).envs(self.env);
        let output = command.output().expect("the program runs");
        let text = [output.stderr, output.stdout].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        Outcome { success: output.status.success(), text, json, _folder: folder }
    }
}

impl Outcome {
    fn ids(&self, status: &str) -> BTreeSet<String> {
        self.ids_of(status, |_| true)
    }

    fn ids_of(&self, status: &str, fits: impl Fn(&Value) -> bool) -> BTreeSet<String> {
        let text = fs::read(&self.json).unwrap_or_else(|_| panic!("no result:\n{}", self.text));
        let value: Value = serde_json::from_slice(&text).expect("JSON");
        let results = value["results"].as_array().expect("results").clone();
        let of = results.into_iter().filter(|one| one["status"] == status && fits(one));
        of.filter_map(|one| one["id"].as_str().map(str::to_owned)).collect()
    }

    /// What was skipped with a reason that has these words.
    pub fn skipped_for(&self, words: &str) -> BTreeSet<String> {
        self.ids_of("skipped", |one| one["detail"].as_str().is_some_and(|it| it.contains(words)))
    }

    /// What failed.
    pub fn failed(&self) -> BTreeSet<String> {
        self.ids("failed")
    }

    /// What passed.
    pub fn passed(&self) -> BTreeSet<String> {
        self.ids("passed")
    }
}

/// Runs the program with these arguments: whether it succeeded, and what it printed.
pub fn program(args: &[&OsStr]) -> (bool, String) {
    let output = Command::new(PROGRAM).args(args).output().expect("the program runs");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs the program with arguments that it refuses: what it says of them.
pub fn fails(args: &[&str]) -> String {
    let output = Command::new(PROGRAM).args(args).output().expect("the program runs");
    assert!(!output.status.success(), "{args:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a command prints.
pub fn output(command: &str, args: &[&str]) -> String {
    let output = Command::new(command).args(args).output().expect("the command runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
