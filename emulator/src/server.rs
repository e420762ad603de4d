//! Listeners: HTTPS for services and authority, plain HTTP for control; HTTP/1.1 with keep-alive.

use std::convert::Infallible;
use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::HOST;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::service::{Call, Reply};

/// Largest body that is read.
const MAX_BODY: usize = 2 * 1024 * 1024;
/// A body that goes on beyond this ends the connection.
const MAX_DISCARDED: usize = 64 * 1024 * 1024;
/// A handshake that takes longer is given up.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// Listens on 127.0.0.1.
pub async fn bind(port: u16) -> Result<TcpListener, String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|error| format!("127.0.0.1:{port}: {error}"))
}

/// Answers every request of every connection with `answer`, until the runtime ends.
pub async fn serve<A, F>(listener: TcpListener, tls: Option<TlsAcceptor>, answer: A)
where
    A: Fn(Call) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let answer = Arc::new(answer);
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
        let (tls, answer) = (tls.clone(), Arc::clone(&answer));
        tokio::spawn(async move {
            match tls {
                None => connection(stream, answer).await,
                Some(tls) => {
                    // A client that does not trust the certificate hangs up: nothing to tell.
                    if let Ok(Ok(stream)) =
                        tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await
                    {
                        connection(stream, answer).await;
                    }
                }
            }
        });
    }
}

async fn connection<S, A, F>(stream: S, answer: Arc<A>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Call) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = Arc::clone(&answer);
        async move {
            let reply = match read(request).await {
                Some(call) => answer(call).await,
                None => Reply { status: 400, headers: Default::default(), body: Vec::new() },
            };
            Ok::<_, Infallible>(response(reply))
        }
    });
    // A connection that breaks concerns its client only.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
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

fn response(reply: Reply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() =
        StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = reply.headers;
    response
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
