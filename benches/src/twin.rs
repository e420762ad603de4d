//! The transport twin of a vault: the service's bytes without its cryptography.
//!
//! It speaks TLS 1.3 with a chain as long as the service's (RSA-4096, RSA-4096, RSA-2048), wants
//! a token of 1.6 kB, answers with fourteen headers, and does so after a delay that can be
//! changed. Each connection has a thread. It remembers how long each request was with it, from
//! its last byte to the first of its answer, so that a client's overhead can be told from the
//! delay. The same process serves a plain TCP ping-pong of the same bytes and delay: what the
//! machine itself needs.
//!
//! The twin is a process of its own, driven over its standard input, one command a line:
//! `delay MICROSECONDS`, `reset`, `report` (answers one line of JSON, [`Report`]).

mod answers;

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

use self::answers::Answers;
pub use self::answers::{TENANT, WEB};
use crate::{pki::Pki, stats::Latencies};

/// Bytes of one ping and one pong: a signature request and its answer, within TLS.
pub const PING: usize = 1840;
/// See [`PING`].
pub const PONG: usize = 1250;

/// Where a twin listens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ports {
    /// HTTPS.
    pub https: u16,
    /// Plain TCP ping-pong.
    pub ping: u16,
}

/// What a twin saw since the last `reset`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// How long requests were with it, microseconds: the median.
    pub served_p50: f64,
    /// Requests by kind: `token`, `challenge`, `list`, `get`, `sign`.
    pub counts: BTreeMap<String, u64>,
}

/// A running twin; ends when dropped.
pub struct Twin {
    child: Child,
    commands: ChildStdin,
    answers: io::BufReader<ChildStdout>,
    /// Where it listens.
    pub ports: Ports,
}

impl Twin {
    /// Starts one with the certificates of `folder` and this many keys.
    pub fn start(folder: &Path, keys: usize) -> io::Result<Twin> {
        let mut child = Command::new("/proc/self/exe")
            .arg("twin")
            .arg(folder)
            .arg(keys.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let missing = || io::Error::other("no pipe");
        let commands = child.stdin.take().ok_or_else(missing)?;
        let mut answers = io::BufReader::new(child.stdout.take().ok_or_else(missing)?);
        let ports = line(&mut answers)?;
        Ok(Twin { child, commands, answers, ports })
    }

    /// Answers from now on after this long.
    pub fn delay(&mut self, delay: Duration) -> io::Result<()> {
        self.command(&format!("delay {}", delay.as_micros())).map(drop)
    }

    /// Forgets what it saw.
    pub fn reset(&mut self) -> io::Result<()> {
        self.command("reset").map(drop)
    }

    /// What it saw.
    pub fn report(&mut self) -> io::Result<Report> {
        self.command("report")
    }

    fn command(&mut self, command: &str) -> io::Result<Report> {
        writeln!(self.commands, "{command}")?;
        line(&mut self.answers)
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line<T: for<'a> Deserialize<'a>>(from: &mut impl BufRead) -> io::Result<T> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    serde_json::from_str(&line).map_err(|error| io::Error::other(format!("{line:?}: {error}")))
}

/// The twin's own process. Ends with its standard input.
pub fn serve(folder: &Path, keys: usize) -> io::Result<()> {
    let https = TcpListener::bind(("127.0.0.1", 0))?;
    let ping = TcpListener::bind(("127.0.0.1", 0))?;
    let ports = Ports { https: https.local_addr()?.port(), ping: ping.local_addr()?.port() };
    let pki = Pki::load(folder)?;
    let shared = Arc::new(Shared {
        tls: tls(&pki)?,
        answers: Answers::new(keys, ports.https, &pki)?,
        delay: AtomicU64::new(0),
        seen: Mutex::default(),
    });
    let (one, two) = (Arc::clone(&shared), Arc::clone(&shared));
    thread::spawn(move || accept(&https, &one, Shared::requests));
    thread::spawn(move || accept(&ping, &two, Shared::pings));
    let mut out = io::stdout();
    writeln!(out, "{}", serde_json::to_string(&ports)?)?;
    for command in io::stdin().lines() {
        let command = command?;
        let mut report = Report::default();
        match command.split_once(' ') {
            Some(("delay", microseconds)) => {
                let microseconds = microseconds.parse().map_err(io::Error::other)?;
                shared.delay.store(microseconds, Ordering::Relaxed);
            }
            _ if command == "reset" => *shared.seen() = Seen::default(),
            _ => report = shared.seen().report(),
        }
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    }
    Ok(())
}

struct Shared {
    tls: Arc<ServerConfig>,
    answers: Answers,
    /// Microseconds.
    delay: AtomicU64,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    served: Latencies,
    counts: BTreeMap<&'static str, u64>,
}

impl Seen {
    fn report(&mut self) -> Report {
        let counts = self.counts.iter().map(|(kind, count)| ((*kind).to_owned(), *count));
        Report { served_p50: self.served.percentile(50.0), counts: counts.collect() }
    }
}

impl Shared {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn pause(&self) {
        let delay = self.delay.load(Ordering::Relaxed);
        if delay > 0 {
            thread::sleep(Duration::from_micros(delay));
        }
    }

    /// One HTTPS connection, until its peer closes it.
    fn requests(&self, socket: TcpStream) -> io::Result<()> {
        let tls = ServerConnection::new(Arc::clone(&self.tls)).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(tls, socket);
        let mut bytes = Vec::with_capacity(8192);
        let mut answer = Vec::with_capacity(16384);
        loop {
            let Some(length) = read_request(&mut stream, &mut bytes)? else { return Ok(()) };
            let arrived = Instant::now();
            answer.clear();
            let kind = self.answers.write(&bytes[..length], &mut answer)?;
            if kind != "token" {
                self.pause();
            }
            let served = arrived.elapsed();
            stream.write_all(&answer)?;
            stream.flush()?;
            bytes.drain(..length);
            let mut seen = self.seen();
            seen.served.add(served);
            *seen.counts.entry(kind).or_default() += 1;
        }
    }

    /// One plain connection.
    fn pings(&self, mut socket: TcpStream) -> io::Result<()> {
        let (mut ping, pong) = ([0; PING], [0; PONG]);
        loop {
            socket.read_exact(&mut ping)?;
            let arrived = Instant::now();
            self.pause();
            let served = arrived.elapsed();
            socket.write_all(&pong)?;
            self.seen().served.add(served);
        }
    }
}

fn accept(
    listener: &TcpListener,
    shared: &Arc<Shared>,
    serve: fn(&Shared, TcpStream) -> io::Result<()>,
) {
    for socket in listener.incoming().flatten() {
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // A sleep may otherwise last 50 µs longer, which is more than what is measured.
            let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
            let _ = socket.set_nodelay(true);
            // A client that goes away is the usual end of a connection.
            let _ = serve(&shared, socket);
        });
    }
}

/// Reads until one whole request is at the start of `bytes`; its length, None at a clean end.
fn read_request(stream: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<Option<usize>> {
    let mut chunk = [0; 8192];
    loop {
        if let Some(length) = answers::request_length(bytes) {
            return Ok(Some(length));
        }
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(None),
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

fn tls(pki: &Pki) -> io::Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(pki.chain.clone(), PrivatePkcs8KeyDer::from(pki.key.clone()).into())
        .map(Arc::new)
        .map_err(io::Error::other)
}

/// The address of a port here.
pub fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}
