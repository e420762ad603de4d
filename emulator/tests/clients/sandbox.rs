//! Runs a client with the emulator in a network and a mount namespace of its own.
//!
//! In there, port 443 of every loopback address is free, /etc/hosts is the emulator's, and no other
//! network exists: `https://kv1.vault.azure.net` is the emulator, and a client that asks for
//! anything else fails. The client gets the variables of docs/emulator.md and
//!
//! | variable | value |
//! |---|---|
//! | `AKV_MODULE` | absolute path of the module under test |
//! | `AKV_CLIENTS` | absolute path of this folder |
//! | `HOME` | a fresh, empty folder, also the working directory |

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, geteuid, kill_process_group};

/// The vault that [`Client::vault`] starts: `https://kv1.vault.azure.net`.
pub const VAULT: &str = "kv1";
/// The Managed HSM that [`Client::hsm`] starts: `https://hsm1.managedhsm.azure.net`.
pub const HSM: &str = "hsm1";

const EMULATOR: &str = env!("CARGO_BIN_EXE_akv-emulator");
/// A client hung is a client failed: generous, because a machine may be busy.
const PATIENCE: Duration = Duration::from_secs(600);
/// What an operator or a developer may have set for himself, and what a client must not see.
const FOREIGN: &[&str] =
    &["AKV_", "AZURE_", "ARM_", "IDENTITY_", "MSI_", "OPENSSL_", "PYTHON", "NODE_", "SSL_CERT_"];
/// The same for the way to the network: in the namespace there is none.
const PROXIES: &[&str] = &["http_proxy", "https_proxy", "all_proxy", "no_proxy"];

/// This folder.
pub fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// The folder that cargo builds into, `target/debug`.
pub fn built() -> &'static Path {
    Path::new(EMULATOR).parent().expect("a program is in a folder")
}

/// `command` must be on the PATH; it comes with the Debian package `package`.
pub fn require(command: &str, package: &str) {
    let mut path = env::var_os("PATH").unwrap_or_default();
    // `ip` lives where only root looks.
    path.push(":/usr/sbin:/sbin");
    let there = env::split_paths(&path).any(|folder| folder.join(command).is_file());
    assert!(there, "'{command}' is not installed: `apt-get install {package}`, or `make deps`");
}

/// A client and the services it is to have.
#[must_use = "nothing runs before run()"]
pub struct Client {
    services: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
}

impl Client {
    /// With the names of the public cloud, and without any service.
    pub fn new() -> Self {
        Self { services: vec!["--public-names".into()], variables: Vec::new() }
    }

    /// As most will use the emulator: all of it at 127.0.0.1, and no service yet.
    pub fn at_localhost() -> Self {
        Self { services: Vec::new(), variables: Vec::new() }
    }

    /// Starts the vault [`VAULT`], which is also a token of that label.
    pub fn vault(self) -> Self {
        self.option("--vault", VAULT)
    }

    /// Starts the Managed HSM [`HSM`], which is also a token of that label.
    pub fn hsm(self) -> Self {
        self.option("--hsm", HSM)
    }

    /// A switch of the emulator's command line, with its value.
    pub fn option(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.services.extend([name.into(), value.as_ref().to_owned()]);
        self
    }

    /// A variable that the client gets.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Runs this program; returns what it printed, both streams as they came.
    ///
    /// # Panics
    ///
    /// With all the output, unless the program ends with 0 in good time.
    pub fn run<A: AsRef<OsStr>>(self, program: impl AsRef<OsStr>, arguments: &[A]) -> String {
        let folder = tempfile::Builder::new().prefix("akv-client-").tempdir().expect("a folder");
        let work = folder.path().join("work");
        fs::create_dir(&work).expect("a folder in a fresh folder");
        let log = folder.path().join("output");
        let output = File::create(&log).expect("a file in a fresh folder");

        let mut command = namespace();
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            let foreign = FOREIGN.iter().any(|start| text.starts_with(start));
            let proxy = PROXIES.contains(&text.to_lowercase().as_str());
            // The log level is the developer's wish: AKV_PKCS11_LOG=debug cargo test …
            if (foreign || proxy) && text != "AKV_PKCS11_LOG" {
                command.env_remove(&name);
            }
        }
        command
            .args(["sh", "-eu"])
            .arg(clients().join("enter.sh"))
            .args([EMULATOR, "exec"])
            .args(&self.services)
            .args(["--", "sh", "-eu"])
            .arg(clients().join("names.sh"))
            .arg(program.as_ref())
            .args(arguments)
            .env("AKV_MODULE", module(folder.path()))
            .env("AKV_CLIENTS", clients())
            .env("HOME", &work)
            .env("LC_ALL", "C.UTF-8")
            .envs(self.variables)
            .current_dir(&work)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle of the output"))
            .stderr(output)
            .process_group(0);
        let ended = watch(command.spawn().expect("unshare starts"));

        let output = String::from_utf8_lossy(&fs::read(&log).expect("the output")).into_owned();
        let program = program.as_ref().display();
        match ended {
            Some(status) if status.success() => output,
            Some(status) => panic!("{program}: {}\n{output}", end(status)),
            None => panic!("{program}: hung\n{output}"),
        }
    }
}

/// The module under test, at a path of its own: a build meanwhile must not take it away.
fn module(folder: &Path) -> PathBuf {
    let built = built().join("libakv_pkcs11.so");
    let why = "run `cargo build --workspace` first";
    assert!(built.is_file(), "{} is missing: {why}", built.display());
    let library = folder.join("libakv_pkcs11.so");
    if fs::hard_link(&built, &library).is_err() {
        fs::copy(&built, &library).expect("a copy of the module");
    }
    library
}

/// The command that runs another one in new namespaces.
///
/// # Panics
///
/// Where the kernel does not let this user have them.
fn namespace() -> Command {
    static NEW_USER: OnceLock<bool> = OnceLock::new();
    let new_user = *NEW_USER.get_or_init(|| {
        require("unshare", "util-linux");
        require("ip", "iproute2");
        let attempts = if geteuid().is_root() { &[false, true][..] } else { &[true] };
        let mut refusals = String::new();
        for &new_user in attempts {
            let Output { status, stderr, .. } =
                unshare(new_user).arg("true").output().expect("unshare starts");
            if status.success() {
                return new_user;
            }
            refusals += &String::from_utf8_lossy(&stderr);
        }
        panic!(
            "Official clients are tested in a network and a mount namespace of their own, which \
             the kernel refuses to this user: run as root, or allow unprivileged user namespaces \
             (sysctl kernel.unprivileged_userns_clone=1, or \
             kernel.apparmor_restrict_unprivileged_userns=0); a container needs CAP_SYS_ADMIN.\n\
             {refusals}"
        );
    });
    unshare(new_user)
}

fn unshare(new_user: bool) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net"]);
    if new_user {
        command.args(["--user", "--map-root-user"]);
    }
    command
}

/// Waits, and leaves no process of the group behind. None if it had to be ended.
fn watch(mut child: Child) -> Option<ExitStatus> {
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
