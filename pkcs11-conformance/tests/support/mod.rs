//! Runs the program, on SoftHSM, on the faulty module, on ours under the emulator.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_pkcs11-conformance");
const LABEL: &str = "conformance";
const PIN: &str = "1234";
const SO_PIN: &str = "12345678";

/// Runs a command, and then asks the emulator what it was asked.
const COUNTED: &str = r#"
"$0" "$@"
code=$?
address=${AKV_EMULATOR_CONTROL#http://}
exec 3<>"/dev/tcp/${address%:*}/${address##*:}" || exit 99
printf 'GET /counters HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$address" >&3
cat <&3 >"$COUNTERS"
exit $code
"#;

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
            .args(["--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", SO_PIN])
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
    seed: OsString,
    counted: bool,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
}

/// What came of it.
pub struct Outcome {
    /// Whether the exit code was 0.
    pub success: bool,
    /// The exit code.
    pub code: Option<i32>,
    /// What it printed.
    pub text: String,
    /// Its result.
    pub json: PathBuf,
    /// What the service did, where that was counted.
    counters: Option<String>,
    _folder: tempfile::TempDir,
}

impl Run {
    /// Of this module.
    pub fn of(module: &Path) -> Run {
        let args = vec!["run".into(), "--module".into(), module.into()];
        Run { emulated: None, seed: "demo".into(), counted: false, args, env: Vec::new() }
    }

    /// On this token.
    pub fn softhsm(self, softhsm: &SoftHsm) -> Run {
        self.softhsm_token(softhsm, LABEL)
    }

    /// On the token of this label there.
    pub fn softhsm_token(self, softhsm: &SoftHsm, label: &str) -> Run {
        let run = self.env("SOFTHSM2_CONF", softhsm.config());
        let run = run.env("PKCS11_CONFORMANCE_SO_PIN", SO_PIN);
        run.env("PKCS11_CONFORMANCE_PIN", PIN).arg("--token").arg(label)
    }

    /// Under the emulator of a vault `kv1` or a Managed HSM `hsm1`, with these variables.
    pub fn emulator(mut self, service: &str, with: &[(&str, &str)]) -> Run {
        let with = with.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.emulated = Some((service.to_owned(), with.collect()));
        self
    }

    /// With other keys and certificates in the service: a file.
    pub fn seed(mut self, seed: &Path) -> Run {
        self.seed = seed.into();
        self
    }

    /// The service's counters are read when the program has ended.
    pub fn counted(mut self) -> Run {
        self.counted = true;
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
        let counters = folder.path().join("counters");
        let mut command = match self.emulated {
            Some((service, with)) => {
                let mut command = Command::new(built(target().join("akv-emulator")));
                let kind = if service.starts_with("kv") { "--vault" } else { "--hsm" };
                command.args(["exec", kind, &service, "--seed"]).arg(self.seed);
                command.args(["--", "env"]);
                // The emulator sets variables of its own: these come after them.
                command.args(with.iter().map(|(name, value)| format!("{name}={value}")));
                if self.counted {
                    command.env("COUNTERS", &counters).args(["bash", "-c", COUNTED]);
                }
                command.arg(PROGRAM);
                command
            }
            None => Command::new(PROGRAM),
        };
        command.args(&self.args).arg("--json").arg(&json).envs(self.env);
        let output = command.output().expect("the program runs");
        let text = [output.stderr, output.stdout].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let counters = fs::read_to_string(counters).unwrap_or_default();
        let counters = counters.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        let (success, code) = (output.status.success(), output.status.code());
        Outcome { success, code, text, json, counters, _folder: folder }
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
        let ids: BTreeSet<&str> = results.iter().filter_map(|one| one["id"].as_str()).collect();
        assert_eq!(ids.len(), results.len(), "two results share an id");
        let of = results.into_iter().filter(|one| one["status"] == status && fits(one));
        of.filter_map(|one| one["id"].as_str().map(str::to_owned)).collect()
    }

    /// How often the service did what, without the totals.
    pub fn counts(&self, service: &str) -> BTreeMap<String, u64> {
        let text = self.counters.as_ref().expect("counters");
        let counters: Value = serde_json::from_str(text).expect("JSON");
        let all = counters.as_object().expect("an object");
        let rows = all.iter().filter(|(key, _)| key.rsplit(':').next() == Some(service));
        let rows = rows.filter_map(|(_, rows)| rows.as_object()).flatten();
        rows.filter(|(key, _)| *key != "requests")
            .map(|(key, count)| (key.clone(), count.as_u64().expect("a count")))
            .collect()
    }

    /// All results' ids.
    pub fn all(&self) -> BTreeSet<String> {
        ["passed", "failed", "skipped"].iter().flat_map(|status| self.ids(status)).collect()
    }

    /// How long the run took, in seconds.
    pub fn seconds(&self) -> f64 {
        let text = fs::read(&self.json).unwrap_or_else(|_| panic!("no result:\n{}", self.text));
        let value: Value = serde_json::from_slice(&text).expect("JSON");
        value["seconds"].as_f64().expect("seconds")
    }

    /// What was skipped.
    pub fn skipped(&self) -> BTreeSet<String> {
        self.ids("skipped")
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
    assert_eq!(output.status.code(), Some(2), "{args:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a command prints.
pub fn output(command: &str, args: &[&str]) -> String {
    let output = Command::new(command).args(args).output().expect("the command runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
