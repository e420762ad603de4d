//! An emulator of this test's own, and a client that speaks to it over real TLS.

#![allow(dead_code, reason = "every test file uses another part of it")]

use std::cell::RefCell;
use std::sync::Arc;

use akv_emulator::config::{Config, ServiceConfig};
use akv_emulator::{Emulator, Options, Ready, Seed};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use reqwest::Method;
use reqwest::blocking::{Client, ClientBuilder, Response};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

/// A running emulator and its runtime.
pub struct World {
    runtime: tokio::runtime::Runtime,
    emulator: Emulator,
    pub http: Client,
}

/// A client of one service, with a token.
pub struct Session<'a> {
    pub world: &'a World,
    pub url: String,
    pub token: RefCell<String>,
    pub version: RefCell<String>,
}

/// Status, headers and JSON of an answer.
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
    pub json: Value,
}

/// One vault `kv` and one HSM `hsm`, empty, with the default configuration.
pub fn world() -> World {
    world_with(Config::default(), Vec::new())
}

/// The same, configured and seeded.
pub fn world_with(mut config: Config, seeds: Vec<Seed>) -> World {
    config.vault.push(ServiceConfig { name: "kv".into(), port: 0 });
    config.hsm.push(ServiceConfig { name: "hsm".into(), port: 0 });
    World::start(config, seeds)
}

/// A client that trusts the emulator's authority and nobody else.
pub fn https(ca_file: &std::path::Path) -> Client {
    client(ca_file).build().expect("client")
}

/// The same, but it shows a redirection instead of following it.
pub fn https_without_redirects(ca_file: &std::path::Path) -> Client {
    client(ca_file).redirect(reqwest::redirect::Policy::none()).build().expect("client")
}

fn client(ca_file: &std::path::Path) -> ClientBuilder {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca_file).expect("CA file") {
        roots.add(certificate.expect("PEM")).expect("root");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder().tls_backend_preconfigured(tls).no_proxy()
}

impl World {
    pub fn start(config: Config, seeds: Vec<Seed>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("runtime");
        let options = Options { config, seeds, ca_file: None };
        let emulator = runtime.block_on(Emulator::start(options)).expect("start");
        let http = https(&emulator.ready().ca_file);
        Self { runtime, emulator, http }
    }

    pub fn ready(&self) -> &Ready {
        self.emulator.ready()
    }

    pub fn vault(&self) -> Session<'_> {
        self.session(0)
    }

    pub fn hsm(&self) -> Session<'_> {
        self.session(1)
    }

    /// A session with the service at this place of the ready line.
    pub fn session(&self, at: usize) -> Session<'_> {
        let service = &self.ready().services[at];
        let token = self.token(&service.scope);
        Session {
            world: self,
            url: service.url.clone(),
            token: RefCell::new(token),
            version: RefCell::new("7.6".into()),
        }
    }

    /// A token for this scope.
    pub fn token(&self, scope: &str) -> String {
        let ready = self.ready();
        let answer = self.ask_token(&[
            ("grant_type", "client_credentials"),
            ("client_id", &ready.client_id),
            ("client_secret", &ready.client_secret),
            ("scope", scope),
        ]);
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json["access_token"].as_str().expect("token").to_owned()
    }

    /// The same within a runtime, where this client would block.
    pub async fn token_in(&self, scope: &str) -> String {
        std::thread::scope(|threads| threads.spawn(|| self.token(scope)).join().expect("token"))
    }

    /// A token of a client of the configuration.
    pub fn token_of(&self, id: &str, secret: &str, scope: &str) -> String {
        let answer = self.ask_token(&[
            ("grant_type", "client_credentials"),
            ("client_id", id),
            ("client_secret", secret),
            ("scope", scope),
        ]);
        answer.json["access_token"].as_str().expect("token").to_owned()
    }

    /// Posts this form to the token endpoint.
    pub fn ask_token(&self, form: &[(&str, &str)]) -> Answer {
        let ready = self.ready();
        let url = format!("{}/{}/oauth2/v2.0/token", ready.authority, ready.tenant);
        Answer::read(self.http.post(url).form(form).send().expect("token endpoint"))
    }

    pub fn counters(&self) -> Value {
        let url = format!("{}/counters", self.ready().control);
        Answer::read(self.http.get(url).send().expect("control")).json
    }

    pub fn reset_counters(&self) {
        let url = format!("{}/counters/reset", self.ready().control);
        assert_eq!(self.http.post(url).send().expect("control").status(), 200);
    }

    /// Stops the clock and says where.
    pub fn stop_clock(&self) -> i64 {
        let url = format!("{}/clock/stop", self.ready().control);
        let clock = Answer::read(self.http.post(url).send().expect("control")).ok();
        clock["now"].as_i64().expect("now")
    }

    pub fn advance_clock(&self, seconds: i64) {
        let url = format!("{}/clock/advance?seconds={seconds}", self.ready().control);
        assert_eq!(self.http.post(url).send().expect("control").status(), 200);
    }
}

impl Session<'_> {
    pub fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let mark = if path.contains('?') { '&' } else { '?' };
        let url = format!("{}{path}{mark}api-version={}", self.url, self.version.borrow());
        self.send(method, &url, body)
    }

    /// The same with a whole URL, as page links are.
    pub fn send(&self, method: &str, url: &str, body: Option<Value>) -> Answer {
        let method: Method = method.parse().expect("method");
        let mut request = self.world.http.request(method, url);
        if !self.token.borrow().is_empty() {
            request = request.bearer_auth(self.token.borrow());
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        Answer::read(request.send().expect("request"))
    }

    pub fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None)
    }

    pub fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, Some(body))
    }

    /// Makes a key and returns its JWK.
    pub fn create(&self, name: &str, body: Value) -> Value {
        let answer = self.post(&format!("/keys/{name}/create"), body);
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json["key"].clone()
    }

    pub fn is_hsm(&self) -> bool {
        let services = &self.world.ready().services;
        services.iter().any(|one| one.url == self.url && one.kind == "managed-hsm")
    }
}

impl Answer {
    pub fn read(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().expect("body");
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self { status, headers, text, json }
    }

    /// Asserts a refusal.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.json["error"]["code"], code, "{}", self.text);
    }

    #[track_caller]
    pub fn inner(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.json["error"]["innererror"]["code"], code, "{}", self.text);
    }

    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json
    }

    /// A base64url member.
    #[track_caller]
    pub fn bytes(&self, member: &str) -> Vec<u8> {
        assert_eq!(self.status, 200, "{}", self.text);
        decode(&self.json[member])
    }

    pub fn message(&self) -> &str {
        self.json["error"]["message"].as_str().unwrap_or_default()
    }
}

pub fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[track_caller]
pub fn decode(value: &Value) -> Vec<u8> {
    BASE64_URL_SAFE_NO_PAD.decode(value.as_str().expect("text")).expect("base64url")
}

/// `{"alg":…,"value":…}`.
pub fn operation(alg: &str, value: &[u8]) -> Value {
    json!({"alg": alg, "value": encode(value)})
}
