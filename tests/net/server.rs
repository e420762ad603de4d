//! An HTTPS server that does exactly what a test tells it to, faults included, and remembers what
//! it was sent. (The emulator is the fake of the service; this is the fake of a broken network.)

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use openssl::{
    asn1::Asn1Time,
    bn::{BigNum, MsbOption},
    ec::{EcGroup, EcKey},
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    x509::{
        X509, X509NameBuilder,
        extension::{BasicConstraints, SubjectAlternativeName},
    },
};
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivatePkcs8KeyDer};

/// Threads of servers bear this name, so that tests can count the others.
pub const THREAD: &str = "test-server";

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which request of that connection it is, from 0.
    pub turn: usize,
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

/// What happens to a request.
pub enum Reply {
    /// Status, headers and body; the connection stays.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// The same after a pause.
    Late(Duration, Box<Reply>),
    /// The same, and then the connection is closed.
    ThenClose(Box<Reply>),
    /// 200 and this body in chunks of seven bytes, without a length.
    Chunked(String),
    /// 200, half of what was announced, and the connection is closed.
    CutOff,
    /// The connection is closed without an answer.
    Close,
    /// Nothing, for this long.
    Silence(Duration),
    /// This, and then that again and again, for as long as anybody takes it.
    Forever(&'static str, String),
}

impl Reply {
    pub fn json(body: impl ToString) -> Self {
        Reply::status(200, body)
    }

    pub fn status(status: u16, body: impl ToString) -> Self {
        let kind = ("content-type", "application/json".to_owned());
        Reply::Answer(status, vec![kind], body.to_string())
    }

    pub fn with(self, name: &'static str, value: impl ToString) -> Self {
        match self {
            Reply::Answer(status, mut headers, body) => {
                headers.push((name, value.to_string()));
                Reply::Answer(status, headers, body)
            }
            other => other,
        }
    }
}

/// A server on a port of its own, until the process ends.
pub struct Server {
    pub address: SocketAddr,
    /// PEM of the CA that signed its certificate (for `localhost` and `127.0.0.1`).
    pub ca: Vec<u8>,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Mutex<usize>>,
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

impl Server {
    pub fn https(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let (ca, config) = certificates();
        Server::start(ca, Some(Arc::new(config)), Arc::new(handler))
    }

    pub fn plain(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Server::start(Vec::new(), None, Arc::new(handler))
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Requests to a path.
    pub fn seen_at(&self, path: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.path == path).collect()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }

    fn start(ca: Vec<u8>, tls: Option<Arc<ServerConfig>>, handler: Arc<Handler>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server {
            address: listener.local_addr().unwrap(),
            ca,
            seen: Arc::default(),
            connections: Arc::default(),
        };
        let (seen, connections) = (server.seen.clone(), server.connections.clone());
        spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                *connections.lock().unwrap() += 1;
                let (tls, handler, seen) = (tls.clone(), handler.clone(), seen.clone());
                // A client that goes away in the middle is what many tests are about.
                spawn(move || drop(connection(stream, tls, &*handler, &seen)));
            }
        });
        server
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name(THREAD.into()).spawn(work).unwrap();
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn connection(
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    handler: &Handler,
    log: &Mutex<Vec<Seen>>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream: Box<dyn Stream> = match tls {
        Some(config) => {
            let session = ServerConnection::new(config).map_err(io::Error::other)?;
            Box::new(StreamOwned::new(session, stream))
        }
        None => Box::new(stream),
    };
    let mut stream = BufReader::new(stream);
    for turn in 0.. {
        let seen = request(&mut stream, turn)?;
        log.lock().unwrap().push(seen.clone());
        if !reply(stream.get_mut(), handler(&seen))? {
            return Ok(());
        }
    }
    Ok(())
}

/// Returns whether the connection stays.
fn reply(stream: &mut dyn Stream, what: Reply) -> io::Result<bool> {
    match what {
        Reply::Answer(status, headers, body) => {
            let mut text = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
            for (name, value) in headers {
                text += &format!("{name}: {value}\r\n");
            }
            stream.write_all(format!("{text}\r\n{body}").as_bytes())?;
            stream.flush()?;
            Ok(true)
        }
        Reply::Late(pause, then) => {
            thread::sleep(pause);
            reply(stream, *then)
        }
        Reply::ThenClose(then) => reply(stream, *then).map(|_| false),
        Reply::Chunked(body) => {
            stream.write_all(b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n")?;
            for chunk in body.as_bytes().chunks(7) {
                write!(stream, "{:x}\r\n", chunk.len())?;
                stream.write_all(chunk)?;
                stream.write_all(b"\r\n")?;
                stream.flush()?;
            }
            stream.write_all(b"0\r\n\r\n")?;
            stream.flush()?;
            Ok(true)
        }
        Reply::CutOff => {
            stream.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 20\r\n\r\n{\"kid\":\"k\"")?;
            stream.flush()?;
            Ok(false)
        }
        Reply::Close => Ok(false),
        Reply::Silence(pause) => {
            thread::sleep(pause);
            Ok(false)
        }
        Reply::Forever(start, again) => {
            stream.write_all(start.as_bytes())?;
            let many = again.repeat(16);
            loop {
                stream.write_all(many.as_bytes())?;
            }
        }
    }
}

fn request(stream: &mut impl BufRead, turn: usize) -> io::Result<Seen> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut words = line.split_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (path, query) = (path.to_owned(), query.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap_or(0));
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Seen { turn, method, path, query, headers, body })
}

/// A CA made for this server, and a leaf of it for this machine.
fn certificates() -> (Vec<u8>, ServerConfig) {
    let ca_key = key();
    let ca = certificate("test CA", &ca_key, None);
    let leaf_key = key();
    let leaf = certificate("localhost", &leaf_key, Some((&ca, &ca_key)));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.to_der().unwrap().into()],
            PrivatePkcs8KeyDer::from(leaf_key.private_key_to_pkcs8().unwrap()).into(),
        )
        .unwrap();
    (ca.to_pem().unwrap(), config)
}

fn key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

/// A certificate for `name`, self-signed CA or leaf of `issuer`.
pub fn certificate(
    name: &str,
    key: &PKey<Private>,
    issuer: Option<(&X509, &PKey<Private>)>,
) -> X509 {
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_nid(Nid::COMMONNAME, name).unwrap();
    let subject = subject.build();
    let mut serial = BigNum::new().unwrap();
    serial.rand(120, MsbOption::MAYBE_ZERO, false).unwrap();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_issuer_name(issuer.map_or(&subject, |(ca, _)| ca.subject_name())).unwrap();
    builder.set_pubkey(key).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
    if issuer.is_none() {
        let basic = BasicConstraints::new().critical().ca().build().unwrap();
        builder.append_extension(basic).unwrap();
    } else {
        let context = builder.x509v3_context(issuer.map(|(ca, _)| &**ca), None);
        let names =
            SubjectAlternativeName::new().dns("localhost").ip("127.0.0.1").build(&context).unwrap();
        builder.append_extension(names).unwrap();
    }
    builder.sign(issuer.map_or(key, |(_, key)| key), MessageDigest::sha256()).unwrap();
    builder.build()
}
