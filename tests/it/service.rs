//! The emulator as a test's own service: started for one test, asked what was asked of it, and
//! changed behind the module's back.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use akv_pkcs11::{
    config::{Config, Env},
    vault::{Carried, Vault},
};
use serde_json::Value;

use crate::support;

/// Name of the vault, and label of its token.
pub const VAULT: &str = "kv1";
/// Name of the Managed HSM, and label of its token.
pub const HSM: &str = "hsm1";

/// A running emulator with one vault and one Managed HSM; ends when dropped, or with the process.
pub struct Emulator {
    child: Child,
    ready: Value,
    /// Files of the test: seeds, certificates.
    pub folder: tempfile::TempDir,
}

impl Emulator {
    /// Starts one with the keys of `seed`, a seed file's text.
    pub fn start(seed: &str) -> Emulator {
        Emulator::with(seed, "")
    }

    /// The same with lines for the emulator's `[switches]`.
    pub fn with(seed: &str, switches: &str) -> Emulator {
        let services = format!("[[vault]]\nname = '{VAULT}'\n[[hsm]]\nname = '{HSM}'\n");
        Emulator::configured(seed, &format!("{services}[switches]\n{switches}"))
    }

    /// The same with this configuration file of the emulator.
    pub fn configured(seed: &str, config: &str) -> Emulator {
        let folder = tempfile::tempdir().expect("folder");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("write");
            path
        };
        let seed = file("seed.toml", seed);
        let config = file("emulator.toml", config);
        // The shell ends the emulator when its own standard input does: when this test's end of
        // it is closed, by drop or because the process is gone.
        let mut child = Command::new("sh")
            .args(["-c", "\"$@\" </dev/null & cat >/dev/null; kill $!; wait $!", "sh"])
            .arg(support::emulator())
            .arg("run")
            .arg("--seed")
            .arg(seed)
            .arg("--config")
            .arg(config)
            .arg("--ca-file")
            .arg(folder.path().join("ca.pem"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the emulator starts");
        let mut line = String::new();
        let output = child.stdout.take().expect("standard output");
        BufReader::new(output).read_line(&mut line).expect("a ready line");
        let ready = serde_json::from_str(&line).expect("a ready line of JSON");
        Emulator { child, ready, folder }
    }

    /// The `[[token]]` of a service, with more lines for it.
    pub fn token(&self, name: &str, more: &str) -> String {
        let url = self.service(name)["url"].as_str().expect("text");
        self.token_at(url, name, more)
    }

    /// The port of a service.
    pub fn port(&self, name: &str) -> u16 {
        let port = self.service(name)["port"].as_u64().expect("a number");
        port.try_into().expect("a port")
    }

    /// The port of the authority that gives tokens.
    pub fn authority_port(&self) -> u16 {
        let url = self.ready["authority"].as_str().expect("text");
        let port = url.trim_end_matches('/').rsplit(':').next().expect("a last part");
        port.parse().expect("a port")
    }

    fn service(&self, name: &str) -> &Value {
        let services = self.ready["services"].as_array().expect("services");
        services.iter().find(|one| one["name"] == name).expect("a service")
    }

    /// The `[[token]]` of a service that is asked at another URL than its own.
    pub fn token_at(&self, url: &str, name: &str, more: &str) -> String {
        let service = self.service(name);
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let ready = |key: &str| text(&self.ready[key]);
        let (client, secret) = (ready("client_id"), ready("client_secret"));
        let credential = match more.contains("login = \"client-secret\"") {
            true => String::new(),
            false => format!(
                "credential = {{ type = 'client-secret', client_id = '{client}', secret = '{secret}' }}\n"
            ),
        };
        format!(
            "[[token]]\nlabel = '{name}'\nendpoint = '{url}'\nservice = '{}'\nscope = '{}'\n\
             authority = '{}'\ntenant = '{}'\nca_file = '{}'\n{credential}{more}\n",
            text(&service["kind"]),
            text(&service["scope"]),
            ready("authority"),
            ready("tenant"),
            ready("ca_file"),
        )
    }

    /// The tokens of both services: slot 0 is the vault, slot 1 the HSM.
    pub fn tokens(&self) -> String {
        self.token(VAULT, "") + &self.token(HSM, "")
    }

    /// The client id and its secret, as `login = "client-secret"` takes them.
    pub fn client_and_secret(&self) -> (String, String) {
        let text = |key: &str| self.ready[key].as_str().expect("text").to_owned();
        (text("client_id"), text("client_secret"))
    }

    /// A client of the service that is not the module: for changes behind its back.
    pub fn vault(&self, name: &str) -> Vault {
        let config = Config::parse(&self.token(name, ""), "test", &Env::empty()).expect("config");
        Vault::new(&config.tokens[0], Carried::default()).expect("vault")
    }

    /// How often a service did what, since the last [`Emulator::reset`]; without the totals.
    pub fn counts(&self, name: &str) -> BTreeMap<String, u64> {
        let counters: Value =
            serde_json::from_str(&self.control("GET", "/counters")).expect("JSON");
        let all = counters.as_object().expect("an object");
        let rows = all.iter().filter(|(key, _)| key.rsplit(':').next() == Some(name));
        let rows = rows.filter_map(|(_, rows)| rows.as_object()).flatten();
        rows.filter(|(key, _)| *key != "requests")
            .map(|(key, count)| (key.clone(), count.as_u64().expect("a count")))
            .collect()
    }

    /// How often a service was asked anything.
    pub fn requests(&self, name: &str) -> u64 {
        self.counts(name).values().sum()
    }

    /// Counts from nothing again.
    pub fn reset(&self) {
        self.control("POST", "/counters/reset");
    }

    /// Lets the service's time go on: its tokens end, the module's clock does not.
    pub fn advance(&self, seconds: u64) {
        self.control("POST", &format!("/clock/advance?seconds={seconds}"));
    }

    /// Orders trouble: a fault of docs/emulator.md, in JSON.
    pub fn trouble(&self, fault: &str) {
        self.control_with("POST", "/faults", fault);
    }

    /// How often ordered trouble with this service is still to come.
    pub fn trouble_left(&self, service: &str) -> u64 {
        let ordered: Value = serde_json::from_str(&self.control("GET", "/faults")).expect("JSON");
        let ordered = ordered.as_array().expect("an array");
        let left = ordered.iter().filter(|fault| fault["service"] == service);
        left.map(|fault| fault["times"].as_u64().expect("a count")).sum()
    }

    /// The operations for which trouble is still to come.
    pub fn troubles(&self) -> Vec<String> {
        let ordered: Value = serde_json::from_str(&self.control("GET", "/faults")).expect("JSON");
        let ordered = ordered.as_array().expect("an array");
        ordered.iter().filter_map(|fault| fault["operation"].as_str().map(str::to_owned)).collect()
    }

    /// Cancels all trouble.
    pub fn no_trouble(&self) {
        self.control("DELETE", "/faults");
    }

    fn control(&self, method: &str, path: &str) -> String {
        self.control_with(method, path, "")
    }

    fn control_with(&self, method: &str, path: &str, body: &str) -> String {
        let url = self.ready["control"].as_str().expect("text");
        let address = url.strip_prefix("http://").expect("plain HTTP");
        let mut stream = TcpStream::connect(address).expect("the control endpoint");
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{body}",
            body.len()
        )
        .expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
        assert!(head.starts_with("HTTP/1.1 20"), "{head}");
        body.to_owned()
    }

    /// Ends the service: nothing answers any more.
    pub fn stop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().expect("the shell ends");
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.stop();
    }
}
