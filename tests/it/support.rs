//! Runs a client's script under the emulator: what every `clients_*.rs` needs.
//!
//! A client test is a shell script in `tests/clients/<client>/`. It runs in a fresh, empty folder,
//! in a process group of its own, under `akv-emulator exec`, with the variables of
//! docs/emulator.md and
//!
//! | variable | value |
//! |---|---|
//! | `AKV_MODULE` | absolute path of the module under test |
//! | `AKV_CLIENTS` | absolute path of `tests/clients`; `. "$AKV_CLIENTS/lib.sh"` has the helpers |
//! | `AKV_ROOT` | absolute path of the workspace |
//!
//! It fails by exit code; the test then shows all it printed.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::confidence::Confidence;

/// The name of the vault that [`Client::vault`] starts, and its token's label.
pub const VAULT: &str = "kv1";
/// The name of the Managed HSM that [`Client::hsm`] starts, and its token's label.
pub const HSM: &str = "hsm1";

/// A client hung is a client failed: generous, because a machine may be busy.
const PATIENCE: Duration = Duration::from_secs(600);

/// Keeps what the client was told in confidence in a file, and runs the script.
const KEEP: &str = "printf %s \"$AZURE_CLIENT_SECRET\" >\"$0\" && exec sh -eu \"$@\"";

/// What an operator or a developer may have set for himself, and what a test must not see.
const FOREIGN: &[&str] = &["AKV_PKCS11_", "AKV_EMULATOR_", "AZURE_", "IDENTITY_", "OPENSSL_"];

/// The folder of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The module under test: the one cargo has just built for this test, in `target/…/deps`. The
/// copy above it is only as new as the last `cargo build`.
pub fn module() -> PathBuf {
    built(deps().join("libakv_pkcs11.so"))
}

/// The emulator's binary.
pub fn emulator() -> PathBuf {
    let above = deps().parent().expect("deps has a parent").to_owned();
    built(above.join("akv-emulator"))
}

/// The folder of this executable.
fn deps() -> PathBuf {
    let exe = env::current_exe().expect("the test knows its own path");
    exe.parent().expect("an executable is in a folder").to_owned()
}

fn built(path: PathBuf) -> PathBuf {
    // Another cargo may be linking it this very moment: it is not there for seconds then.
    for _ in 0..300 {
        if path.is_file() {
            return path;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("{} is missing: run `cargo build --workspace` first", path.display());
}

/// One run of one client's script.
#[must_use = "nothing runs before run()"]
pub struct Client {
    name: &'static str,
    services: Vec<OsString>,
    tools: Vec<(&'static str, &'static str)>,
    script: Option<(&'static str, Vec<OsString>)>,
    reads_log: bool,
}

impl Client {
    /// `name` is a folder of `tests/clients`.
    pub fn new(name: &'static str) -> Self {
        Self { name, services: Vec::new(), tools: Vec::new(), script: None, reads_log: false }
    }

    /// Starts a vault, [`VAULT`]. Tokens come in the order of these calls' kinds: vaults first.
    pub fn vault(self) -> Self {
        self.option("--vault", VAULT)
    }

    /// Starts a Managed HSM, [`HSM`].
    pub fn hsm(self) -> Self {
        self.option("--hsm", HSM)
    }

    /// `demo`, or a file below `tests/clients/<client>`.
    pub fn seed(self, seed: &str) -> Self {
        let file = self.folder().join(seed);
        match seed {
            "demo" => self.option("--seed", seed),
            _ => self.option("--seed", file),
        }
    }

    /// A switch of the emulator's command line, with its value.
    pub fn option(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.services.extend([name.into(), value.as_ref().to_owned()]);
        self
    }

    /// `command` must be on the PATH; it comes with the Debian package `package`.
    pub fn needs(mut self, command: &'static str, package: &'static str) -> Self {
        self.tools.push((command, package));
        self
    }

    /// The script looks at what the module logs, where the client has it: it stays there. Without
    /// this everything is logged into a file, and nothing may be in it that is secret.
    pub fn reads_log(self) -> Self {
        Self { reads_log: true, ..self }
    }

    /// The script, a file of `tests/clients/<client>`, and its arguments.
    pub fn script(mut self, file: &'static str, arguments: &[&str]) -> Self {
        self.script = Some((file, arguments.iter().map(OsString::from).collect()));
        self
    }

    /// Runs it; returns what it printed, both streams as they came.
    ///
    /// # Panics
    ///
    /// With all the output, unless the script ends with 0 in good time.
    pub fn run(self) -> String {
        for (command, package) in &self.tools {
            require(command, package);
        }
        let (file, arguments) = self.script.as_ref().expect("a client test has a script");
        let script = self.folder().join(file);
        assert!(script.is_file(), "{} is missing", script.display());

        let folder = tempfile::Builder::new().prefix("akv-client-").tempdir().expect("a folder");
        let work = folder.path().join("work");
        fs::create_dir(&work).expect("a folder in a fresh folder");
        // A module of its own: a build meanwhile must not take it away between two programs.
        let library = folder.path().join("libakv_pkcs11.so");
        let built = module();
        if fs::hard_link(&built, &library).is_err() {
            fs::copy(&built, &library).expect("a copy of the module");
        }
        let log = folder.path().join("output");
        let output = File::create(&log).expect("a file in a fresh folder");

        let confidence = Confidence::new();
        let kept = folder.path().join("kept");
        let mut command = Command::new(emulator());
        if !self.reads_log && env::var_os("AKV_PKCS11_LOG").is_none() {
            command.env("AKV_PKCS11_LOG", confidence.sink_for_anybody());
        }
        for (name, _) in env::vars_os() {
            let foreign = FOREIGN.iter().any(|start| name.to_string_lossy().starts_with(start));
            // The log level is the developer's wish: AKV_PKCS11_LOG=debug cargo test …
            if foreign && name != "AKV_PKCS11_LOG" {
                command.env_remove(name);
            }
        }
        command
            .arg("exec")
            .args(&self.services)
            .args(["--", "sh", "-c", KEEP])
            .args([&kept, &script])
            .args(arguments)
            .env("AKV_MODULE", &library)
            .env("AKV_CLIENTS", clients())
            .env("AKV_ROOT", root())
            .env("HOME", &work)
            .env("LC_ALL", "C")
            .current_dir(&work)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle of the output"))
            .stderr(output)
            .process_group(0);
        let ended = watch(command);

        let output = String::from_utf8_lossy(&fs::read(&log).expect("the output")).into_owned();
        match ended {
            Some(status) if status.success() => {
                confidence.keep(&fs::read(&kept).expect("the client's secret"));
                confidence.check();
                confidence.check_output(Path::new("the output"), &output);
                confidence.check_logs_below(&work);
                output
            }
            Some(status) => panic!("{} {file} {arguments:?}: {}\n{output}", self.name, end(status)),
            None => panic!("{} {file} {arguments:?}: hung\n{output}", self.name),
        }
    }

    fn folder(&self) -> PathBuf {
        clients().join(self.name)
    }
}

fn clients() -> PathBuf {
    root().join("tests/clients")
}

/// Fails with the sentence that helps if `command` is not there: a client that was not run is
/// not a client that works.
pub fn require(command: &str, package: &str) {
    let mut path = env::var_os("PATH").unwrap_or_default();
    // nginx lives where only root looks.
    path.push(":/usr/sbin:/sbin");
    let there = env::split_paths(&path).any(|folder| folder.join(command).is_file());
    assert!(there, "'{command}' is not installed: `apt-get install {package}`, or `make deps`");
}

/// Waits, and leaves no process of the group behind. None if it had to be ended.
fn watch(mut command: Command) -> Option<ExitStatus> {
    let mut child = command.spawn().expect("the emulator starts");
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
    let deadline = Instant::now() + PATIENCE;
    let ended = loop {
        if let Some(status) = child.try_wait().expect("waiting for a child") {
            break Some(status);
        }
        if Instant::now() > deadline {
            break None;
        }
        thread::sleep(Duration::from_millis(20));
    };
    // What is left of the group, if anything; with everything ended this finds nobody.
    let _ = kill_process_group(group, Signal::KILL);
    if ended.is_none() {
        let _ = child.wait();
    }
    ended
}

fn end(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, signal) => format!("ended by signal {signal:?}"),
    }
}
