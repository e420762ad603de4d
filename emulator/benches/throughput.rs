//! Signatures per second over warm TLS, emulator and clients on this machine's cores together:
//! `cargo bench -p akv-emulator`. The figure tells whether a benchmark of the module would
//! measure the emulator instead.

#![allow(clippy::print_stdout, reason = "the figures are what the output is for")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use akv_emulator::config::{Config, ServiceConfig};
use akv_emulator::{Emulator, Options, Ready, Seed};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Connections, each with one request under way.
const CLIENTS: usize = 8;
const SECONDS: u64 = 5;
const DIGEST: &str = "ltYuKr0-Qt5fUDMPuO_ExVmYNSeAd7IemqCzPB3wehw";

fn main() {
    let config = Config {
        vault: vec![ServiceConfig { name: "bench".into(), port: 0 }],
        ..Config::default()
    };
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let options = Options { config, seeds: vec![Seed::demo()], ca_file: None };
    let emulator = runtime.block_on(Emulator::start(options)).expect("start");
    let tls = tls(&emulator.ready().ca_file);
    let token = token(&tls, emulator.ready());
    for (key, alg) in [("rsa2048", "RS256"), ("p256", "ES256"), ("rsa4096", "RS256")] {
        let rate = measure(&tls, emulator.ready(), &token, key, alg);
        println!("{key} {alg}: {rate:.0} signatures/s over {CLIENTS} warm TLS connections");
    }
}

fn measure(tls: &Arc<ClientConfig>, ready: &Ready, token: &str, key: &str, alg: &str) -> f64 {
    let body = format!(r#"{{"alg":"{alg}","value":"{DIGEST}"}}"#);
    let request = format!(
        "POST /keys/{key}/sign?api-version=7.4 HTTP/1.1\r\nHost: localhost\r\nAuthorization: \
         Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let done = AtomicU64::new(0);
    let (port, start) = (ready.services[0].port, Instant::now());
    let end = start + Duration::from_secs(SECONDS);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut stream = connect(tls, port);
                while Instant::now() < end {
                    let (status, _) = exchange(&mut stream, &request);
                    assert_eq!(status, 200);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    done.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}

fn token(tls: &Arc<ClientConfig>, ready: &Ready) -> String {
    let port = ready.authority.rsplit(':').next().and_then(|port| port.parse().ok());
    let form = format!(
        "grant_type=client_credentials&client_id={}&client_secret={}&scope=https://vault.azure.net/.default",
        ready.client_id, ready.client_secret
    );
    let request = format!(
        "POST /{}/oauth2/v2.0/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{form}",
        ready.tenant,
        form.len()
    );
    let (status, body) = exchange(&mut connect(tls, port.expect("port")), &request);
    assert_eq!(status, 200, "{body}");
    let json: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    json["access_token"].as_str().expect("token").to_owned()
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn connect(tls: &Arc<ClientConfig>, port: u16) -> Stream {
    let name = ServerName::try_from("localhost").expect("name");
    let socket = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    socket.set_nodelay(true).expect("nodelay");
    StreamOwned::new(ClientConnection::new(Arc::clone(tls), name).expect("TLS"), socket)
}

/// One request and its answer: status and body.
fn exchange(stream: &mut Stream, request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).expect("write");
    let (mut bytes, mut chunk) = (Vec::new(), [0; 8192]);
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.and_then(|text| text.parse().ok()).unwrap_or(0) {
                let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
                return (status.expect("status"), body.to_owned());
            }
        }
        let read = stream.read(&mut chunk).expect("read");
        assert!(read > 0, "the connection ended");
        bytes.extend_from_slice(&chunk[..read]);
    }
}

fn tls(ca_file: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca_file).expect("CA file")).expect("root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}
