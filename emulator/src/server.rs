//! Listeners: HTTPS for services and authority, plain HTTP for control; HTTP/1.1 with keep-alive,
//! HTTP/2 where the client asks for it and the listener has it.

use std::convert::Infallible;
use std::future::Future;
use std::io::IoSlice;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{HOST, HeaderMap};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::fault::{Ending, Faults, HANDSHAKE_OPERATION};
use crate::service::{Call, Close, Reply};
use crate::tls::Listening;

/// Largest body that is read.
const MAX_BODY: usize = 2 * 1024 * 1024;
/// A body that goes on beyond this ends the connection.
const MAX_DISCARDED: usize = 64 * 1024 * 1024;
/// Time for the first half of a truncated body to leave.
const FLUSH: Duration = Duration::from_millis(50);
/// A handshake that takes longer is given up.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// Listens there.
pub async fn bind(address: Ipv4Addr, port: u16) -> Result<TcpListener, String> {
    TcpListener::bind((address, port)).await.map_err(|error| format!("{address}:{port}: {error}"))
}

/// What stands before a listener's answers.
pub struct Front {
    /// Its name in orders of trouble, for example `vault:NAME`.
    pub label: String,
    /// TLS; plain HTTP without.
    pub tls: Option<Listening>,
    /// Trouble on order, for handshakes.
    pub faults: Arc<Faults>,
    /// How long a connection of HTTP/1.1 may wait for its next request; for ever if zero.
    pub idle: Duration,
}

/// Answers every request of every connection with `answer`, until the runtime ends.
pub async fn serve<A, F>(listener: TcpListener, front: Front, answer: A)
where
    A: Fn(Call) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let (front, answer) = (Arc::new(front), Arc::new(answer));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: others may be given back meanwhile.
                eprintln!("akv-emulator: accept: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Small answers must not wait for acknowledgements; without it they are just slower.
        let _ = stream.set_nodelay(true);
        let Ok(socket) = stream.as_fd().try_clone_to_owned() else {
            continue; // out of descriptors: as if the client had not come
        };
        let (front, answer) = (Arc::clone(&front), Arc::clone(&answer));
        tokio::spawn(async move {
            let Some(tls) = &front.tls else {
                return connection(stream, socket, front.idle, false, answer).await;
            };
            let Some(config) = greeting(&front, tls, &stream, &socket).await else { return };
            let acceptor = TlsAcceptor::from(config);
            // A client that does not trust the certificate hangs up: nothing to tell.
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                connection(stream, socket, front.idle, http2, answer).await;
            }
        });
    }
}

/// What the handshake is made with; nothing where it shall not succeed.
async fn greeting(
    front: &Front,
    tls: &Listening,
    stream: &TcpStream,
    socket: &OwnedFd,
) -> Option<Arc<rustls::ServerConfig>> {
    let Some(fault) = front.faults.hit(&front.label, HANDSHAKE_OPERATION, "") else {
        return Some(Arc::clone(&tls.current));
    };
    tokio::time::sleep(Duration::from_millis(fault.delay_ms)).await;
    match fault.connection {
        Some(Ending::ExpiredCertificate) => Some(Arc::clone(&tls.expired)),
        Some(Ending::HandshakeFailure) => {
            let _ = tokio::time::timeout(HANDSHAKE, refuse_handshake(stream)).await;
            None
        }
        Some(Ending::CloseBefore) => None,
        Some(_) => {
            reset_when_closed(socket);
            None
        }
        None => Some(Arc::clone(&tls.current)),
    }
}

/// Reads the client's greeting and answers with the alert `handshake_failure` (RFC 8446, 6.2).
async fn refuse_handshake(stream: &TcpStream) -> std::io::Result<()> {
    const ALERT: &[u8] = &[21, 3, 3, 0, 2, 2, 40];
    stream.readable().await?;
    let mut greeting = [0; 16 * 1024];
    let _ = stream.try_read(&mut greeting)?;
    stream.writable().await?;
    stream.try_write(ALERT).map(drop)
}

/// Closing sends RST instead of FIN; if not, a test will tell.
fn reset_when_closed(socket: &OwnedFd) {
    let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

async fn connection<S, A, F>(
    stream: S,
    socket: OwnedFd,
    idle: Duration,
    http2: bool,
    answer: Arc<A>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Call) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let (end, mut ended) = tokio::sync::mpsc::channel(1);
    let service = service_fn(move |request| {
        let (answer, end) = (Arc::clone(&answer), end.clone());
        async move {
            let reply = match read(request).await {
                Some(call) => answer(call).await,
                None => Reply::new(400, HeaderMap::new(), Vec::new()),
            };
            if let Some(close) = reply.close {
                // The connection goes away under this future.
                let _ = end.send(close).await;
                std::future::pending::<()>().await;
            }
            Ok::<_, Infallible>(response(reply))
        }
    });
    let stream = Held(Arc::new(Mutex::new(stream)));
    let io = TokioIo::new(stream.clone());
    let serving = async {
        if http2 {
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .auto_date_header(false)
                .serve_connection(io, service)
                .await
        } else {
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout((!idle.is_zero()).then_some(idle))
                .auto_date_header(false)
                .serve_connection(io, service)
                .await
        }
    };
    let close = tokio::select! {
        // A connection that breaks concerns its client only.
        _ = serving => return,
        close = ended.recv() => close,
    };
    match close {
        Some(Close::Reset) => reset_when_closed(&socket),
        Some(Close::Notified) => {
            let mut stream = stream;
            // TLS says goodbye first; a client that is gone does not hear it.
            let _ = tokio::time::timeout(FLUSH, stream.shutdown()).await;
        }
        Some(Close::Abrupt) | None => {}
    }
}

/// A stream that can still be closed properly when the connection over it is given up.
struct Held<S>(Arc<Mutex<S>>);

impl<S> Clone for Held<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Held<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Held<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut *self.0.lock()).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.0.lock()).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut *self.0.lock()).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.lock().is_write_vectored()
    }
}

async fn read(request: hyper::Request<Incoming>) -> Option<Call> {
    let (parts, body) = request.into_parts();
    let method = parts
        .headers
        .get("x-http-method")
        .filter(|_| parts.method == Method::POST)
        .and_then(|name| Method::from_bytes(name.as_bytes()).ok())
        .unwrap_or(parts.method);
    let authority = match parts.headers.get(HOST) {
        Some(host) => host.to_str().ok()?.to_owned(),
        None => parts.uri.authority()?.to_string(),
    };
    let (body, body_too_large) = read_body(body).await?;
    Some(Call {
        method,
        path: parts.uri.path().to_owned(),
        query: query_pairs(parts.uri.query().unwrap_or_default()),
        headers: parts.headers,
        authority,
        body,
        body_too_large,
    })
}

/// The body, and whether it was too large. What is too large is read on and dropped for a while,
/// so that a client that is still writing gets to see the answer.
async fn read_body(mut body: Incoming) -> Option<(Vec<u8>, bool)> {
    let (mut kept, mut seen) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        seen += data.len();
        if seen <= MAX_BODY {
            kept.extend_from_slice(&data);
        } else if seen > MAX_DISCARDED {
            return None;
        }
    }
    Some((kept, seen > MAX_BODY))
}

fn response(reply: Reply) -> Response<Trickle> {
    let len = reply.body.len();
    let body = Trickle {
        end: if reply.truncated { len / 2 } else { len },
        truncated: reply.truncated,
        pause: reply.pause,
        waiting: None,
        at: 0,
        bytes: Bytes::from(reply.body),
    };
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = reply.headers;
    response
}

/// A body that comes whole, or byte by byte, or not to its end.
struct Trickle {
    bytes: Bytes,
    at: usize,
    end: usize,
    truncated: bool,
    pause: Duration,
    waiting: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Body for Trickle {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.at == self.end {
            if !self.truncated {
                return Poll::Ready(None);
            }
            // What was given so far has to be on its way first.
            let sleep = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(FLUSH)));
            std::task::ready!(sleep.as_mut().poll(context));
            return Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionAborted.into())));
        }
        let step = if self.pause.is_zero() { self.end - self.at } else { 1 };
        if !self.pause.is_zero() {
            let pause = self.pause;
            let sleep = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
            std::task::ready!(sleep.as_mut().poll(context));
            self.waiting = None;
        }
        let data = self.bytes.slice(self.at..self.at + step);
        self.at += step;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.at == self.end && !self.truncated
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact((self.bytes.len() - self.at) as u64)
    }
}

/// `a=b&c=d`, decoded; `+` is a space.
pub fn query_pairs(query: &str) -> Vec<(String, String)> {
    let decoded = |text: &str| {
        let text = text.replace('+', " ");
        percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
    };
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::query_pairs;

    #[test]
    fn queries_are_decoded() {
        assert_eq!(
            query_pairs("api-version=7.4&%24skiptoken=a%2Bb+c&flag"),
            [("api-version", "7.4"), ("$skiptoken", "a+b c"), ("flag", "")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }
}
