//! A host program of tests/c: compiled with the C compiler, run as a process of its own.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{confidence::Confidence, support};

/// A host that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// A compiled host in a folder of its own, with a copy of the module beside it.
pub struct Host {
    program: PathBuf,
    /// The wrapper and its arguments, if any.
    pub under: Vec<String>,
    /// Variables of its environment, beside the test's own.
    pub env: Vec<(&'static str, String)>,
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

    /// The folder, which goes with it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A second copy, which a process loads for itself.
    pub fn copy(&self) -> PathBuf {
        let copy = self.folder.path().join("copy.so");
        fs::copy(self.module(), &copy).expect("a copy of the module");
        copy
    }

    /// Runs it to its end, which must be a good one; what it printed.
    ///
    /// # Panics
    /// With all it said, if it fails, says anything on standard error, or hangs.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.end(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        let confidence = Confidence::new();
        for argument in arguments {
            let toml = argument.strip_prefix("akv-pkcs11:").unwrap_or_default();
            confidence.keep_configuration(toml);
        }
        confidence.check();
        for said in [&out, &err] {
            confidence.check_output(&self.program, said);
        }
        assert!(output.status.success(), "{arguments:?}: {:?}\n{out}\n{err}", output.status);
        assert_eq!(err, "", "a host in good order is quiet");
        out
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
pub fn numbers(line: &str) -> Vec<i64> {
    line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}
