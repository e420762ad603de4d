//! An emulator of one's own, the tool run against it, and output held in files.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use regex::Regex;
use serde_json::Value;
use tempfile::TempDir;

/// The client that may do everything; every output is searched for its secret.
pub const SECRET: &str = "tool-test-secret-0123456789";
/// A client without most permissions, as tests configure it.
pub const LIMITED: &str = "22222222-3333-4444-8555-666666666666";
/// Its secret.
pub const LIMITED_SECRET: &str = "limited-test-secret-9876543210";

/// One RSA and one EC key, which are enough for most tests and quickly made.
pub const SEED: &str = r#"
[[keys]]
name = "rsa"
kty = "RSA"
size = 2048

[[keys]]
name = "ec"
kty = "EC"
curve = "P-256"
"#;

/// A vault `kv1` and a Managed HSM `hsm1`, gone with this value.
pub struct World {
    emulator: Child,
    ready: Value,
    folder: TempDir,
}

/// How a run of the tool ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl World {
    /// With the keys of [`SEED`].
    pub fn new() -> World {
        World::with("", SEED)
    }

    /// With more of the emulator's configuration and other keys.
    pub fn with(config: &str, seed: &str) -> World {
        let folder = tempfile::Builder::new().prefix("akv-tool-").tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let config = format!("client_secret = \"{SECRET}\"\n{config}");
        fs::write(path("emulator.toml"), config).expect("write the configuration");
        fs::write(path("seed.toml"), seed).expect("write the seed");
        let mut emulator = Command::new(built("akv-emulator"))
            .args(["run", "--vault", "kv1", "--hsm", "hsm1", "--config"])
            .arg(path("emulator.toml"))
            .arg("--seed")
            .arg(path("seed.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the emulator starts");
        let mut line = String::new();
        let stdout = emulator.stdout.take().expect("its standard output");
        BufReader::new(stdout).read_line(&mut line).expect("its ready line");
        let ready = serde_json::from_str(&line).unwrap_or_else(|error| {
            panic!("the emulator's ready line {line:?}: {error}");
        });
        World { emulator, ready, folder }
    }

    /// A file of this world's folder, which is where the tool runs.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file there.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, contents).expect("write a file of the test");
        path
    }

    /// The module's configuration with both tokens, changed.
    pub fn config(&self, change: impl FnOnce(String) -> String) -> PathBuf {
        let path = self.ready["module_config"].as_str().expect("module_config");
        let text = fs::read_to_string(path).expect("the module's configuration");
        let changed = change(text.clone());
        assert_ne!(text, changed, "the change of a test must change something");
        self.write("config.toml", changed)
    }

    /// That configuration with the client [`LIMITED`].
    pub fn limited(&self) -> PathBuf {
        let client = self.ready["client_id"].as_str().expect("client_id").to_owned();
        self.config(|text| {
            text.replace(&client, LIMITED).replace("env:AZURE_CLIENT_SECRET", "env:LIMITED")
        })
    }

    /// Runs the tool on one token; the arguments are split at blanks.
    pub fn on(&self, token: &str, arguments: &str) -> Ran {
        self.run(["--token", token].into_iter().chain(arguments.split_whitespace()))
    }

    /// Runs the tool.
    pub fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Ran {
        self.run_with(arguments, b"")
    }

    /// Runs the tool with something on its standard input.
    pub fn run_with<'a>(&self, arguments: impl IntoIterator<Item = &'a str>, input: &[u8]) -> Ran {
        let mut command = self.command();
        command.args(arguments);
        let mut child = command.spawn().expect("the tool starts");
        let mut stdin = child.stdin.take().expect("its standard input");
        // A tool that reads nothing closes it.
        let _ = stdin.write_all(input);
        drop(stdin);
        let output = child.wait_with_output().expect("the tool ends");
        let ran = Ran {
            code: output.status.code().expect("no signal"),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).expect("text on standard error"),
        };
        for secret in [SECRET, LIMITED_SECRET] {
            let printed = ran.text().contains(secret) || ran.stderr.contains(secret);
            assert!(!printed, "a secret was printed: {ran:?}");
        }
        ran
    }

    /// The tool, with the environment of this world and no other.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_akv-pkcs11"));
        command
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("AKV_PKCS11_CONFIG", self.ready["module_config"].as_str().expect("a path"))
            .env("AZURE_CLIENT_SECRET", SECRET)
            .env("LIMITED", LIMITED_SECRET)
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// How often the service did something, for example `keys/sign`.
    pub fn counter(&self, service: &str, operation: &str) -> u64 {
        let counters: Value =
            serde_json::from_str(&self.control("GET", "/counters", "")).expect("JSON");
        counters[service][operation].as_u64().unwrap_or(0)
    }

    /// An attestation that key release believes.
    pub fn attestation(&self, claims: &Value) -> String {
        let answer = self.control("POST", "/attest", &claims.to_string());
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        answer["token"].as_str().expect("a token").to_owned()
    }

    fn control(&self, method: &str, path: &str, body: &str) -> String {
        let url = self.ready["control"].as_str().expect("control");
        let host = url.trim_start_matches("http://").trim_end_matches('/');
        let mut stream = TcpStream::connect(host).expect("the control endpoint");
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("send");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Its own end removes its temporary folder; a kill would leave that behind.
        self.control("POST", "/shutdown", "");
        let _ = self.emulator.wait();
    }
}

impl Ran {
    /// Standard output as text; bytes that are none as U+FFFD.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard output, after success.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}\n{}", self.text(), self.stderr);
        assert_eq!(self.stderr, "", "a success says nothing on standard error");
        self.text()
    }

    /// Standard output with single blanks and without durations: the doctor's words.
    pub fn words(&self) -> String {
        let words = self.text().split_whitespace().collect::<Vec<_>>().join(" ");
        Regex::new(r" \d+\.\d ms").expect("a pattern").replace_all(&words, "").into_owned()
    }

    /// Standard output as JSON, after success.
    #[track_caller]
    pub fn json(self) -> Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The sentence of a failure with this exit code: one line, with nothing on standard output.
    #[track_caller]
    pub fn refused(self, code: i32) -> String {
        assert_eq!(self.code, code, "{}\n{}", self.text(), self.stderr);
        assert_eq!(self.text(), "", "a refusal writes no half result");
        let sentence = self.stderr.strip_prefix("akv-pkcs11: ").unwrap_or_else(|| {
            panic!("{}", self.stderr);
        });
        assert_eq!(sentence.lines().count(), 1, "one sentence: {sentence}");
        sentence.trim_end().to_owned()
    }

    /// Holds output, standard error and exit code in `tests/golden/{name}.txt`, with whatever
    /// differs from run to run made the same. UPDATE_GOLDEN=1 writes the file.
    #[track_caller]
    pub fn golden(&self, world: &World, name: &str) {
        let whole = format!("{}{}exit code {}\n", self.text(), self.stderr, self.code);
        let folder = world.folder.path().display().to_string();
        let same = normalised(&unbroken(&whole.replace(&folder, "FOLDER")));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.txt"));
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, same).expect("write the golden file");
            return;
        }
        let wanted = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            same == wanted,
            "{} is not what the tool says now (UPDATE_GOLDEN=1 rewrites it):\n{same}",
            path.display()
        );
    }
}

/// The doctor's sentences in one line each: where they are broken depends on ports and paths.
fn unbroken(text: &str) -> String {
    let rows = ["missing   ", "role      ", "grant it  "];
    text.lines().fold(String::new(), |mut text, line| {
        match line.strip_prefix(&" ".repeat(38)) {
            Some(rest) if !rows.iter().any(|row| rest.starts_with(row)) => {
                text.pop();
                text.push(' ');
                text.push_str(rest);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
        text
    })
}

/// Times, ports, versions, identifiers and temporary paths, each as one word.
fn normalised(text: &str) -> String {
    [
        (r" +\d+\.\d ms", " MS ms"),
        (r#""milliseconds": \d+\.\d+"#, r#""milliseconds": MS"#),
        (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME"),
        (r"/[^\s:']*/akv-emulator-[^/]*/", "EMULATOR/"),
        (r"(Trace|Correlation|Activity) ID: [0-9a-fA-F-]+", "$1 ID: GUID"),
        (r"x-ms-request-id [0-9a-f-]{36}", "x-ms-request-id GUID"),
        (r"oid=[0-9a-f-]{36}", "oid=GUID"),
        (r"object-id [0-9a-f-]{36}", "object-id GUID"),
        (r"/usr/[a-z0-9_/-]*/libakv_pkcs11\.so", "MODULE"),
        (r"\b[0-9a-f]{40}\b", "ID"),
        (r"\b[0-9a-f]{32}\b", "VERSION"),
        (r"akv-p11=(.*?)r=[0-9a-f]{16}", "akv-p11=${1}r=MARK"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (pattern, word)| {
        Regex::new(pattern).expect("a pattern").replace_all(&text, *word).into_owned()
    })
}

/// A binary of the workspace beside the tool.
pub fn built(name: &str) -> PathBuf {
    let tool = Path::new(env!("CARGO_BIN_EXE_akv-pkcs11"));
    let path = tool.parent().expect("a folder").join(name);
    assert!(path.is_file(), "{} is missing: run `cargo build --workspace`", path.display());
    path
}
