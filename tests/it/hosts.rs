//! Host programs in C, each a process of its own: what they must not notice of the module, and
//! what the module must stand from them. The programs are in tests/c.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    service::{Emulator, VAULT},
    support,
};

const SEED: &str = "
keys = [
    { name = 'ec', kty = 'EC', curve = 'P-256' },
    { name = 'rsa', kty = 'RSA', size = 2048 },
]";
/// A host that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// A compiled host in a folder of its own, with a copy of the module beside it.
pub struct Host {
    program: PathBuf,
    /// The wrapper and its arguments, if any.
    under: Vec<String>,
    env: Vec<(&'static str, String)>,
    folder: tempfile::TempDir,
}

impl Host {
    /// Compiles a program of tests/c; `options` go to the compiler.
    pub fn compile(source: &str, options: &[&str]) -> Host {
        let folder = tempfile::tempdir().expect("folder");
        let program = folder.path().join(source.trim_end_matches(".c"));
        let output = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()))
            .args(["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-g", "-O1"])
            .arg("-o")
            .arg(&program)
            .arg(support::root().join("tests/c").join(source))
            .args(["-pthread", "-ldl"])
            .args(options)
            .output()
            .expect("a C compiler (cc, or what CC names)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let host = Host { program, under: Vec::new(), env: Vec::new(), folder };
        fs::copy(support::module(), host.module()).expect("a copy of the module");
        host
    }

    /// The module it loads: a build meanwhile does not touch it.
    pub fn module(&self) -> PathBuf {
        self.folder.path().join("module.so")
    }

    /// A second copy, which a process loads for itself.
    fn copy(&self) -> PathBuf {
        let copy = self.folder.path().join("copy.so");
        fs::copy(self.module(), &copy).expect("a copy of the module");
        copy
    }

    /// Runs it to its end, which must be a good one; what it printed.
    ///
    /// # Panics
    /// With all it said, if it fails, says anything on standard error, or hangs.
    pub fn run(&self, arguments: &[&str]) -> String {
        let (out, err) = self.run_and_say(arguments);
        assert_eq!(err, "", "a host in good order is quiet");
        out
    }

    /// The same, with what it and its wrapper said on standard error.
    pub fn run_and_say(&self, arguments: &[&str]) -> (String, String) {
        let output = self.end(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {:?}\n{out}\n{err}", output.status);
        (out, err)
    }

    fn end(&self, arguments: &[&str]) -> Output {
        let mut words = self.under.iter().map(PathBuf::from).collect::<Vec<_>>();
        words.push(self.program.clone());
        let (out, err) = (self.folder.path().join("out"), self.folder.path().join("err"));
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .arg(self.module())
            .args(arguments)
            .env_remove("AKV_PKCS11_LOG")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(fs::File::create(&out).expect("file"))
            .stderr(fs::File::create(&err).expect("file"))
            .spawn()
            .expect("the host starts");
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().expect("waiting") {
                break status;
            }
            if Instant::now() > deadline {
                child.kill().expect("kill");
                panic!("{arguments:?} hangs\n{}", fs::read_to_string(&err).expect("text"));
            }
            thread::sleep(Duration::from_millis(5));
        };
        let read = |path: &Path| fs::read(path).expect("what it said");
        Output { status, stdout: read(&out), stderr: read(&err) }
    }
}

/// What goes to `pReserved`: this configuration, and silence.
pub fn reserved(toml: &str) -> String {
    format!("akv-pkcs11:log.level = 'off'\n{toml}")
}

/// The numbers of a line of words and numbers.
fn numbers(line: &str) -> Vec<i64> {
    line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Parent and children, who sign while the parent forks: nobody's request is lost or sent twice.
#[test]
fn a_parent_of_two_hundred_children_notices_none() {
    let emulator = Emulator::start(SEED);
    let host = Host::compile("forks.c", &[]);
    let copy = host.copy().display().to_string();
    let out = host.run(&[&copy, &reserved(&emulator.token(VAULT, "")), "200"]);
    eprint!("{out}");
    let [signatures, fds, fds_late, threads, threads_late, kib, kib_late] = numbers(&out)[..]
    else {
        panic!("{out}")
    };
    assert_eq!(emulator.counts(VAULT)["keys/sign"], u64::try_from(signatures).unwrap());
    assert!(signatures > 400, "that was no load: {out}");
    // A lane more or less is the moment's: the searcher's, or one that was given up.
    assert!(fds_late <= fds + 8 && threads_late == threads, "{out}");
    assert!(kib_late < kib + 1024, "{out}");
}

/// A daemon's children, without files, environment, descriptors and privileges, use what their
/// parent has read: configuration, secret, CA, hosts and the system's roots.
#[test]
fn children_in_an_empty_jail_use_what_their_parent_read() {
    let emulator = Emulator::start(SEED);
    let mut host = Host::compile("jail.c", &[]);
    let folder = tempfile::tempdir().expect("folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let empty = file("empty");
    fs::create_dir(&empty).expect("folder");
    fs::write(file("hosts"), "127.0.0.1 localhost kv1.vault.azure.net\n").expect("file");
    let ca = emulator.folder.path().join("ca.pem");
    fs::copy(&ca, file("ca.pem")).expect("file");
    let (_, secret) = emulator.client_and_secret();
    fs::write(file("secret"), &secret).expect("file");
    let token = emulator
        .token(VAULT, "")
        .replace("endpoint = 'https://127.0.0.1:", "endpoint = 'https://kv1.vault.azure.net:")
        .replace(&format!("'{secret}'"), "'file:secret'");
    assert!(token.contains("kv1.vault.azure.net") && token.contains("file:secret"), "{token}");
    let line = token.lines().find(|line| line.starts_with("ca_file")).expect("a CA file");
    for (ca, of_system) in [("ca_file = 'ca.pem'", false), ("", true)] {
        let config = file("config.toml");
        fs::write(&config, token.replace(line, ca)).expect("file");
        for name in ["config.toml", "secret"] {
            fs::set_permissions(file(name), fs::Permissions::from_mode(0o600)).expect("mode");
        }
        host.env = vec![("AKV_PKCS11_CONFIG", config)];
        if of_system {
            host.env.push(("SSL_CERT_FILE", file("ca.pem")));
        }
        host.run(&[&file("hosts"), &empty]);
    }
}

#[test]
fn a_host_may_load_and_finalize_a_thousand_times() {
    let emulator = Emulator::start(SEED);
    let host = Host::compile("loads.c", &["-lcrypto"]);
    let out = host.run(&[&reserved(&emulator.token(VAULT, "")), "cycles", "1000"]);
    eprint!("{out}");
    let [fds, fds_late, threads, threads_late, kib, kib_late] = numbers(&out)[..] else {
        panic!("{out}")
    };
    assert_eq!((fds, threads), (fds_late, threads_late), "{out}");
    assert!(kib_late < kib + 512, "{out}");
}

/// With calls under way in other threads, and calls of the exit handlers' own.
#[test]
fn a_host_may_end_in_any_way() {
    let emulator = Emulator::start(SEED);
    let host = Host::compile("loads.c", &["-lcrypto"]);
    emulator.trouble(r#"{"operation": "keys/sign", "delay_ms": 150}"#);
    for way in ["return", "atexit", "openssl", "destructor", "quick", "thread"] {
        let out = host.run(&[&reserved(&emulator.token(VAULT, "")), "exits", way]);
        assert_eq!(out, "", "{way}: nothing goes to standard output");
    }
}

#[test]
fn copies_and_strangers_in_one_process_keep_to_themselves() {
    let emulator = Emulator::start(SEED);
    let host = Host::compile("loads.c", &["-lcrypto"]);
    let stranger = host.folder.path().join("stranger.so");
    let output = Command::new("rustc")
        .args(["--edition", "2024", "--crate-type", "cdylib", "-A", "non_snake_case", "-o"])
        .arg(&stranger)
        .arg(support::root().join("tests/c/stranger.rs"))
        .output()
        .expect("rustc");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (copy, stranger) = (host.copy().display().to_string(), stranger.display().to_string());
    host.run(&[&reserved(&emulator.token(VAULT, "")), "beside", &copy, &stranger]);
}
