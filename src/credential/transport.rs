//! azure_identity's requests on our lanes.
//!
//! The future blocks inside its poll: a lane is made, driven and dropped by the calling thread, so
//! there is no pairing of credential and lane to get wrong.

use std::{
    fmt,
    future::ready,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use async_trait::async_trait;
use azure_core::{
    Error,
    async_runtime::{AbortableTask, AsyncRuntime, SpawnedTask, TaskFuture},
    error::ErrorKind,
    http::{
        AsyncRawResponse, Body, Context, HttpClient, Request, StatusCode,
        headers::Headers,
        policies::{Policy, PolicyResult},
    },
    time::OffsetDateTime,
};
use reqwest::{
    Method, Url,
    header::{HeaderName, HeaderValue},
};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::asker::{Asker, Unanswered};
use crate::net;

/// One token request's way to the authority, at the URL of the request.
pub(super) struct LaneTransport {
    asker: Asker,
    /// What azure_identity has no way to ask for: one more field of the form.
    field: String,
    ended: Mutex<Option<Ended>>,
}

/// How a request ended: with an answer of this status, or without one.
pub(super) type Ended = Result<u16, Unanswered>;

impl LaneTransport {
    pub fn new(asker: Asker, field: String) -> Self {
        LaneTransport { asker, field, ended: Mutex::new(None) }
    }

    /// How the last request ended; None if there was none.
    pub fn ended(&self) -> Option<Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn exchange(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let answer = self.asker.ask(&self.translate(request)?, |_| false);
        let ended = answer.as_ref().map(|answer| answer.status).map_err(Unanswered::clone);
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
        match answer {
            Ok(answer) => match endless(&answer.body) {
                Some(seconds) => Err(Error::with_message(
                    ErrorKind::Other,
                    format!(
                        "a token that lives for {seconds} s, which no clock counts: is `authority` right?"
                    ),
                )),
                None => raw(&answer),
            },
            Err(_) => Err(Error::with_message(ErrorKind::Io, "no answer")),
        }
    }

    fn translate(&self, request: &Request) -> azure_core::Result<net::Request> {
        let other = |what: &str| Error::with_message(ErrorKind::Other, what.to_owned());
        let url = Url::parse(request.url().as_str())
            .map_err(|_| other("the token request's URL cannot be parsed"))?;
        let method = Method::from_bytes(request.method().as_str().as_bytes())
            .map_err(|_| other("unknown HTTP method"))?;
        if url.scheme() != "https" {
            return Err(other("a token request must not leave over plain HTTP"));
        }
        let mut translated = net::Request::new(method, &url);
        for (name, value) in request.headers().iter() {
            let (Ok(name), Ok(value)) = (
                HeaderName::from_bytes(name.as_str().as_bytes()),
                HeaderValue::from_str(value.as_str()),
            ) else {
                return Err(other("a header of the token request cannot be sent"));
            };
            translated.set_header(name, value);
        }
        match request.body() {
            Body::Bytes(bytes) if bytes.is_empty() => {}
            Body::Bytes(bytes) => {
                let field = &self.field;
                let mut form = Zeroizing::new(Vec::with_capacity(bytes.len() + field.len() + 1));
                form.extend_from_slice(bytes);
                form.push(b'&');
                form.extend_from_slice(field.as_bytes());
                translated = translated.with_body(form);
            }
            Body::SeekableStream(_) => return Err(other("a token request must not be a stream")),
        }
        Ok(translated)
    }
}

#[async_trait]
impl HttpClient for LaneTransport {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        self.exchange(request)
    }
}

#[async_trait]
impl Policy for LaneTransport {
    /// Does not call `next`: the policies behind this one would only repeat the request.
    async fn send(
        &self,
        _: &Context,
        request: &mut Request,
        _: &[Arc<dyn Policy>],
    ) -> PolicyResult {
        self.exchange(request)
    }
}

impl fmt::Debug for LaneTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneTransport").finish_non_exhaustive()
    }
}

fn raw(answer: &net::Response) -> azure_core::Result<AsyncRawResponse> {
    let mut headers = Headers::new();
    answer.headers.each(|name, value| headers.insert(name.to_owned(), value.to_owned()));
    let status = StatusCode::from(answer.status);
    Ok(AsyncRawResponse::from_bytes(status, headers, answer.body.to_vec()))
}

/// The lifetime in an answer, seconds, if it cannot be added to the time it is now: azure_identity
/// adds it unseen, and would panic.
fn endless(body: &[u8]) -> Option<i64> {
    #[derive(Deserialize)]
    struct Lifetime {
        expires_in: i64,
    }
    let seconds = serde_json::from_slice::<Lifetime>(body).ok()?.expires_in;
    let end = OffsetDateTime::now_utc().checked_add(azure_core::time::Duration::seconds(seconds));
    end.is_none().then_some(seconds)
}

/// azure_core's clock: sleeps where it is polled and spawns nothing.
pub(super) struct SleepHere;

impl AsyncRuntime for SleepHere {
    fn spawn(&self, _: TaskFuture) -> SpawnedTask {
        Box::pin(Refused)
    }

    fn sleep(&self, duration: azure_core::time::Duration) -> TaskFuture {
        Box::pin(async move { thread::sleep(Duration::try_from(duration).unwrap_or_default()) })
    }

    fn yield_now(&self) -> TaskFuture {
        Box::pin(ready(()))
    }
}

/// What a task that would need a thread becomes.
struct Refused;

impl Future for Refused {
    type Output = Result<(), Box<dyn std::error::Error + Send>>;

    fn poll(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        let refused = Error::with_message(ErrorKind::Other, "no task is spawned in this process");
        std::task::Poll::Ready(Err(Box::new(refused)))
    }
}

impl AbortableTask for Refused {
    fn abort(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_that_cannot_be_added_are_seen() {
        let answer = |lifetime: &str| format!(r#"{{"access_token":"t","expires_in":{lifetime}}}"#);
        for lifetime in ["0", "-1", "3599", "100000000000"] {
            assert_eq!(endless(answer(lifetime).as_bytes()), None, "{lifetime}");
        }
        for lifetime in ["1000000000000", "9223372036854775807", "-9223372036854775808"] {
            assert_eq!(endless(answer(lifetime).as_bytes()), lifetime.parse().ok(), "{lifetime}");
        }
        // What is no such answer is judged by azure_identity, which tells what is wrong with it.
        for other in ["", "<html>", "{}", r#"{"error":"invalid_client"}"#, r#"{"expires_in":"x"}"#]
        {
            assert_eq!(endless(other.as_bytes()), None, "{other}");
        }
    }
}
