//! The clients that are compared: the machine's own ping-pong, a bare TLS client, the module.
//!
//! A [`Caller`] is one thread's client: it makes one call after the other.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    path::Path,
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use crate::{
    host::{Module, Session, Target},
    twin::{PING, PONG, Ports, local},
};

/// What is signed.
pub const DIGEST: [u8; 32] = [0x5a; 32];

/// One thread's client.
pub trait Caller: Send {
    /// One call, to its answer.
    fn call(&mut self) -> io::Result<()>;
}

/// Makes callers of one kind.
pub trait Clients {
    /// One more.
    fn caller(&self) -> io::Result<Box<dyn Caller>>;
}

/// Threads that do nothing but wait: what the host itself needs.
pub struct Nothing;

impl Clients for Nothing {
    fn caller(&self) -> io::Result<Box<dyn Caller>> {
        Ok(Box::new(Nothing))
    }
}

impl Caller for Nothing {
    fn call(&mut self) -> io::Result<()> {
        std::thread::sleep(std::time::Duration::from_millis(5));
        Ok(())
    }
}

/// Plain TCP: the bytes of a request and of its answer, without TLS and HTTP.
pub struct Ping(pub Ports);

impl Clients for Ping {
    fn caller(&self) -> io::Result<Box<dyn Caller>> {
        let socket = TcpStream::connect(local(self.0.ping))?;
        socket.set_nodelay(true)?;
        Ok(Box::new(socket))
    }
}

impl Caller for TcpStream {
    fn call(&mut self) -> io::Result<()> {
        self.write_all(&[0; PING])?;
        self.read_exact(&mut [0; PONG])
    }
}

/// Blocking rustls: a request made beforehand, written at once, its answer read by its length.
pub struct Bare {
    ports: Ports,
    tls: Arc<ClientConfig>,
    request: Vec<u8>,
}

impl Bare {
    /// For a key of the twin, with the roots of `folder`.
    pub fn new(ports: Ports, folder: &Path, key: &str) -> io::Result<Bare> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(folder.join("ca.pem"));
        let ca = ca.map_err(|error| io::Error::other(format!("{error:?}")))?;
        roots.add(ca).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let body = r#"{"alg":"ES256","value":"WlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlpaWlo"}"#;
        let request = format!(
            "POST /keys/{key}/0123456789abcdef0123456789abcdef/sign?api-version=7.4 HTTP/1.1\r\n\
             Host: localhost:{}\r\nAccept: application/json\r\nUser-Agent: bench\r\n\
             x-ms-client-request-id: 8c2cf0b8-9fc8-11ee-8c90-0242ac120002\r\n\
             Authorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            ports.https,
            "t".repeat(1600),
            body.len()
        );
        Ok(Bare { ports, tls: Arc::new(tls), request: request.into_bytes() })
    }
}

impl Clients for Bare {
    fn caller(&self) -> io::Result<Box<dyn Caller>> {
        let socket = TcpStream::connect(local(self.ports.https))?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let tls = ClientConnection::new(Arc::clone(&self.tls), name).map_err(io::Error::other)?;
        let stream = StreamOwned::new(tls, socket);
        Ok(Box::new(BareCaller { stream, request: self.request.clone() }))
    }
}

struct BareCaller {
    stream: StreamOwned<ClientConnection, TcpStream>,
    request: Vec<u8>,
}

impl Caller for BareCaller {
    fn call(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.request)?;
        self.stream.flush()?;
        let (mut answer, mut filled) = ([0; 8192], 0);
        loop {
            filled += self.stream.read(&mut answer[filled..])?;
            let read = &answer[..filled];
            let Some(head) = read.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            let text = std::str::from_utf8(&read[..head]).map_err(io::Error::other)?;
            if !text.starts_with("HTTP/1.1 200 ") {
                return Err(io::Error::other(text.to_owned()));
            }
            let length = text.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            let length: usize = length.and_then(|text| text.parse().ok()).unwrap_or(0);
            if filled >= head + 4 + length {
                return Ok(());
            }
        }
    }
}

/// C_SignInit and C_Sign of a module, each thread in a session of its own.
pub struct Signers {
    module: Module,
    target: Target,
    slot: u64,
}

impl Signers {
    /// Loads and initialises the module.
    pub fn new(target: Target) -> io::Result<Signers> {
        let module = Module::load(&target.module)?;
        module.initialize()?;
        let slot = module.slot(target.token.as_deref())?;
        Ok(Signers { module, target, slot })
    }
}

impl Clients for Signers {
    fn caller(&self) -> io::Result<Box<dyn Caller>> {
        let session = self.module.open(self.slot, self.target.pin.as_deref())?;
        let key = session.private_key(&self.target.key)?;
        Ok(Box::new(Signer { session, key }))
    }
}

struct Signer {
    session: Session,
    key: u64,
}

impl Caller for Signer {
    fn call(&mut self) -> io::Result<()> {
        self.session.sign(self.key, &DIGEST)?;
        Ok(())
    }
}
