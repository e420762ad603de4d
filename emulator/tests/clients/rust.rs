//! azure_security_keyvault_keys and azure_security_keyvault_certificates with azure_identity, of
//! crates.io, on a vault and on a Managed HSM.
//!
//! Each test runs this program again in the sandbox, and only there does what its name says.

mod certificates;
mod keys;
mod operations;

use std::{env, fs, process::Command, sync::Arc};

use azure_core::{
    credentials::{Secret, TokenCredential},
    error::ErrorKind,
    http::{
        AsyncRawResponse, ClientOptions, HttpClient, Method, Request, StatusCode, Transport,
        headers::Headers, request::Body,
    },
};
use azure_identity::{ClientSecretCredential, ClientSecretCredentialOptions};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::sandbox::{Client, HSM, VAULT, clients};

/// Both services: URL, token of PKCS#11, whether it is a Managed HSM.
const SERVICES: [(&str, &str, bool); 2] = [
    ("https://kv1.vault.azure.net", VAULT, false),
    ("https://hsm1.managedhsm.azure.net", HSM, true),
];
const INSIDE: &str = "AKV_CLIENT_INSIDE";

/// Runs the test of this name, `module::function`, in the sandbox; there, runs `test`.
fn in_sandbox<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F) {
    if env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        return runtime.expect("runtime").block_on(test());
    }
    let name = format!("rust::{name}");
    let this = env::current_exe().expect("the test knows its own path");
    let client = Client::new().vault().hsm().option("--config", clients().join("emulator.toml"));
    let output = client.env(INSIDE, "1").run(this, &["--exact", &name, "--nocapture"]);
    assert!(output.contains("1 passed"), "{output}");
}

/// What the crates are given instead of their default transport, which this workspace builds
/// without: reqwest, which is inside of that, too.
#[derive(Debug)]
struct Https(reqwest::Client);

#[async_trait::async_trait]
impl HttpClient for Https {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let failed = |error| azure_core::Error::new(ErrorKind::Io, error);
        let method = match request.method() {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Patch => reqwest::Method::PATCH,
            Method::Delete => reqwest::Method::DELETE,
            other => panic!("{other:?}: no operation of the services"),
        };
        let mut asked = self.0.request(method, request.url().as_str());
        for (name, value) in request.headers().iter() {
            asked = asked.header(name.as_str(), value.as_str());
        }
        if let Body::Bytes(bytes) = request.body() {
            asked = asked.body(bytes.clone());
        }
        let answer = asked.send().await.map_err(failed)?;
        let status = StatusCode::from(answer.status().as_u16());
        let mut headers = Headers::new();
        for (name, value) in answer.headers() {
            let value = value.to_str().expect("headers of the services are text").to_owned();
            headers.insert(name.as_str().to_owned(), value);
        }
        let body = answer.bytes().await.map_err(failed)?;
        Ok(AsyncRawResponse::from_bytes(status, headers, body))
    }
}

fn options() -> ClientOptions {
    let file = env::var("CURL_CA_BUNDLE").expect("a variable of `exec`");
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).expect("CA file") {
        roots.add(certificate.expect("PEM")).expect("root");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).build();
    let transport = Transport::new(Arc::new(Https(client.expect("client"))));
    ClientOptions { transport: Some(transport), ..ClientOptions::default() }
}

/// The client that may do everything.
fn credential() -> Arc<dyn TokenCredential> {
    let variable = |name| env::var(name).expect("a variable of `exec`");
    credential_of(variable("AZURE_CLIENT_ID"), variable("AZURE_CLIENT_SECRET"))
}

/// The client that may do nothing.
fn stranger() -> Arc<dyn TokenCredential> {
    credential_of("22222222-0000-4000-8000-000000000002".into(), "may-nothing".into())
}

fn credential_of(id: String, secret: String) -> Arc<dyn TokenCredential> {
    let tenant = env::var("AZURE_TENANT_ID").expect("a variable of `exec`");
    let options = ClientSecretCredentialOptions { client_options: options() };
    ClientSecretCredential::new(&tenant, id, Secret::new(secret), Some(options))
        .expect("a credential")
}

/// Asserts that the service refused, with this status and this code. The code is read from the
/// answer itself: azure_core 1.1 finds none where the message has an escape, as `\r\n`.
#[track_caller]
fn refused<T>(answer: azure_core::Result<T>, status: u16, code: &str) {
    let Err(error) = answer else { panic!("not refused with {status} {code}") };
    let ErrorKind::HttpResponse { status: found, raw_response: Some(raw), .. } = error.kind()
    else {
        panic!("{error}");
    };
    let told: serde_json::Value = serde_json::from_slice(raw.body()).expect("JSON");
    assert_eq!((u16::from(*found), told["error"]["code"].as_str()), (status, Some(code)), "{told}");
}

/// The model in the answer of a request.
macro_rules! answer {
    ($call:expr) => {
        $call.await.expect("an answer").into_model().expect("the model")
    };
}
use answer;

/// A model as a request's content.
macro_rules! content {
    ($model:expr) => {
        $model.try_into().expect("JSON")
    };
}
use content;

/// Runs pkcs11-tool on this token; returns what it printed.
fn pkcs11(token: &str, arguments: &[&str]) -> String {
    let module = env::var("AKV_MODULE").expect("a variable of the sandbox");
    let output = Command::new("pkcs11-tool")
        .args(["--module", &module, "--token-label", token])
        .args(arguments)
        .output()
        .expect("pkcs11-tool starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// CKA_ID of the private key of this label: pkcs11-tool uses keys by their ids.
fn pkcs11_id(token: &str, label: &str) -> String {
    let listed = pkcs11(token, &["-O", "--type", "privkey"]);
    let wanted = format!("label:{label}");
    let compact = |line: &str| line.replace(' ', "");
    let mut lines = listed.lines().map(compact).skip_while(|line| *line != wanted);
    let id = lines.find_map(|line| line.strip_prefix("ID:").map(str::to_owned));
    id.unwrap_or_else(|| panic!("no key {label}: {listed}"))
}

/// The same for what makes a file of a file: `--sign`, `--decrypt`; returns its bytes.
fn pkcs11_file(token: &str, content: &[u8], arguments: &[&str]) -> Vec<u8> {
    fs::write("input", content).expect("a file in the working directory");
    let files = ["--input-file", "input", "--output-file", "output"];
    pkcs11(token, &[arguments, &files].concat());
    fs::read("output").expect("what pkcs11-tool made")
}
