//! What goes over a lane: a request, an answer, or the reason there is none.

use std::{fmt, io, iter, sync::Arc, time::Duration};

use bytes::Bytes;
use reqwest::{
    Method, Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use zeroize::Zeroizing;

use super::{Origin, http1};

/// Answers longer than this are refused, bytes. A full page of keys is about 20 kB, a certificate
/// with its policy 5 kB.
pub const MAX_BODY: usize = 4 << 20;

/// One HTTP request. Cloning shares the body, so that a repeat costs nothing.
#[derive(Clone)]
pub struct Request {
    /// The HTTP method.
    pub method: Method,
    /// Whom it goes to. Plain `http` is for the link-local identity endpoints only.
    pub origin: Arc<Origin>,
    /// Path and query, as they are sent.
    pub target: String,
    /// Headers, each name once, complete but for Host, Content-Length and Accept.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body; see [`Request::with_body`].
    pub body: Option<Bytes>,
    /// Not on a connection that was used before: such a one may turn out dead when the request is
    /// on its way, and then nobody knows whether it was carried out.
    pub fresh: bool,
}

impl Request {
    /// A request without headers and body, for an absolute URL.
    pub fn new(method: Method, url: &Url) -> Self {
        let query = url.query().map(|query| ["?", query]).unwrap_or_default();
        let target = [url.path(), query[0], query[1]].concat();
        Request::to(method, Arc::new(Origin::new(url, None)), target)
    }

    /// The same for path and query at an origin.
    pub fn to(method: Method, origin: Arc<Origin>, target: String) -> Self {
        // Room for what every request to the service has.
        Request { method, origin, target, headers: Vec::with_capacity(6), body: None, fresh: false }
    }

    /// Adds or replaces a header.
    pub fn set_header(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value));
    }

    /// Sets the body. Its bytes are wiped when the last clone of the request is gone; what the
    /// TLS layer copies from them is not ours to wipe.
    pub fn with_body(mut self, body: Zeroizing<Vec<u8>>) -> Self {
        self.body = Some(Bytes::from_owner(body));
        self
    }
}

impl fmt::Debug for Request {
    /// Method, host and path: queries, headers and bodies may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split('?').next().unwrap_or_default();
        write!(f, "{} {}{path}", self.method, self.origin.host())
    }
}

/// An HTTP answer, read to its end.
pub struct Response {
    /// Status code.
    pub status: u16,
    /// All headers.
    pub headers: Headers,
    /// The body, at most [`MAX_BODY`] bytes, wiped on drop.
    pub body: Zeroizing<Vec<u8>>,
}

impl Response {
    /// A header as text; None when absent or not visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.find(name)
    }
}

/// An answer's headers. Most answers are asked for none of theirs, so what came over a direct
/// connection is kept as it came and parsed when somebody asks.
pub enum Headers {
    /// Parsed by the client of a lane.
    Map(HeaderMap),
    /// Status line and headers, a whole and valid head.
    Head(Box<[u8]>),
}

impl Headers {
    /// All that are visible ASCII, in the order they came.
    pub fn each(&self, mut with: impl FnMut(&str, &str)) {
        match self {
            Headers::Map(map) => {
                for (name, value) in map {
                    if let Ok(value) = value.to_str() {
                        with(name.as_str(), value);
                    }
                }
            }
            Headers::Head(head) => {
                http1::each_header(head, |name, value| with(&name.to_ascii_lowercase(), value));
            }
        }
    }

    fn find(&self, wanted: &str) -> Option<&str> {
        match self {
            Headers::Map(map) => map.get(wanted).and_then(|value| value.to_str().ok()),
            Headers::Head(head) => {
                let mut found = None;
                http1::each_header(head, |name, value| {
                    if found.is_none() && name.eq_ignore_ascii_case(wanted) {
                        found = Some(value);
                    }
                });
                found
            }
        }
    }
}

impl From<HeaderMap> for Headers {
    fn from(map: HeaderMap) -> Self {
        Headers::Map(map)
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {} ({} bytes)", self.status, self.body.len())
    }
}

/// An answer's body that leaves no copy behind when it grows.
pub(super) struct Body(pub Zeroizing<Vec<u8>>);

impl Body {
    /// Empty, with room for as much as was announced.
    pub fn with_room(announced: usize) -> Result<Self, NetError> {
        match announced {
            0..=MAX_BODY => Ok(Body(Zeroizing::new(Vec::with_capacity(announced)))),
            _ => Err(NetError::TooLong),
        }
    }

    /// Appends; [`NetError::TooLong`] beyond [`MAX_BODY`].
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), NetError> {
        let needed = self.0.len() + chunk.len();
        if needed > MAX_BODY {
            return Err(NetError::TooLong);
        }
        if needed > self.0.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity((2 * needed).min(MAX_BODY)));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(chunk);
        Ok(())
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetError {
    /// All `max_connections` lanes were in use until the deadline. Not sent.
    Busy,
    /// The host name does not exist, or has no address. Not sent.
    UnknownHost(String),
    /// No connection: no answer from DNS, TCP or TLS. Not sent.
    Connect(String),
    /// The peer's certificate was refused. Not sent.
    Untrusted(String),
    /// The deadline passed. It may have been sent.
    Timeout,
    /// The connection broke after the request was on its way. It may have been carried out.
    Lost(String),
    /// The answer was longer than [`MAX_BODY`]. It was carried out.
    TooLong,
    /// This process may not open what a lane needs (descriptors, memory). Not sent.
    Resources(String),
    /// The calling thread is ending (an exit handler): its runtime is gone. Not sent.
    ThreadEnding,
    /// The calling thread is inside an asynchronous runtime, where waiting is forbidden. Not sent.
    InsideRuntime,
}

impl NetError {
    /// The request certainly never reached the service.
    pub fn unsent(&self) -> bool {
        match self {
            NetError::Busy
            | NetError::UnknownHost(_)
            | NetError::Connect(_)
            | NetError::Untrusted(_)
            | NetError::Resources(_)
            | NetError::ThreadEnding
            | NetError::InsideRuntime => true,
            NetError::Timeout | NetError::Lost(_) | NetError::TooLong => false,
        }
    }

    /// Another attempt may succeed within the same deadline.
    pub fn transient(&self) -> bool {
        matches!(self, NetError::Connect(_) | NetError::Lost(_))
    }

    /// It tells something about the endpoint, and not about this process or this thread.
    pub fn of_endpoint(&self) -> bool {
        match self {
            NetError::UnknownHost(_)
            | NetError::Connect(_)
            | NetError::Untrusted(_)
            | NetError::Timeout
            | NetError::Lost(_) => true,
            NetError::Busy
            | NetError::TooLong
            | NetError::Resources(_)
            | NetError::ThreadEnding
            | NetError::InsideRuntime => false,
        }
    }

    /// Sorts an error of the HTTP client.
    pub(super) fn from_client(error: reqwest::Error, connect_timeout: Duration) -> Self {
        let error = error.without_url();
        let causes = || causes(&error);
        let tls = causes().find_map(|cause| cause.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::InvalidCertificate(reason)) = tls {
            return NetError::Untrusted(reason.to_string());
        }
        let unknown = causes().find(|cause| {
            cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::NotFound)
        });
        if let Some(unknown) = unknown {
            return NetError::UnknownHost(unknown.to_string());
        }
        if error.is_connect() && error.is_timeout() {
            return NetError::Connect(format!("no connection within {connect_timeout:?}"));
        }
        let reason = chain(&error);
        match error.is_connect() || error.is_builder() {
            true => NetError::Connect(reason),
            false => NetError::Lost(reason),
        }
    }
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetError::Busy => f.write_str("all connections were in use until the deadline"),
            NetError::UnknownHost(reason) | NetError::Connect(reason) => {
                write!(f, "no connection: {reason}")
            }
            NetError::Untrusted(reason) => {
                write!(f, "the server's certificate is not trusted: {reason}")
            }
            NetError::Timeout => f.write_str("no answer within the deadline"),
            NetError::Lost(reason) => write!(f, "the connection broke: {reason}"),
            NetError::TooLong => write!(f, "the answer is longer than {MAX_BODY} bytes"),
            NetError::Resources(reason) => write!(f, "cannot open a connection: {reason}"),
            NetError::ThreadEnding => f.write_str("the calling thread is ending"),
            NetError::InsideRuntime => {
                f.write_str("called from inside an asynchronous runtime's thread")
            }
        }
    }
}

impl std::error::Error for NetError {}

/// What caused an error, outermost first. An io::Error is not the source of what it holds, so that
/// comes before its source.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    iter::successors(std::error::Error::source(error), |cause| {
        let held = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match held {
            Some(held) => Some(held),
            None => cause.source(),
        }
    })
}

/// The error and its causes in one line, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let cause = inner.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = inner.source();
    }
    text
}
