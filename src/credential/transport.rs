//! azure_identity's requests on our lanes.
//!
//! The future blocks inside its poll: a lane is made, driven and dropped by the calling thread, so
//! there is no pairing of credential and lane to get wrong.

use std::{
    fmt,
    future::ready,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
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
};
use reqwest::{
    Method, Url,
    header::{HeaderName, HeaderValue},
};
use zeroize::Zeroizing;

use super::challenge::CAPABILITY;
use crate::{
    config::ManagedIdentityEndpoint,
    metrics::TokenMetrics,
    net::{self, Net, NetError},
    vault::backoff,
};

const IDENTITY_HEADER: &str = "x-identity-header";
/// Attempts at one token request.
const ATTEMPTS: u32 = 4;

/// One token request's way to the network.
pub(super) struct LaneTransport {
    net: Net,
    deadline: Instant,
    to: Destination,
    metrics: Option<Arc<TokenMetrics>>,
    /// The status of the last answer, or why there was none.
    last: Mutex<Option<Result<u16, NetError>>>,
}

/// Whom a token is asked of, and what azure_identity has no way to ask for.
pub(super) enum Destination {
    /// The authority, at the URL of the request, with this field more in the form.
    Authority(String),
    /// The endpoint of a managed identity; the SHA-256 of a token that the service refuses to take
    /// without other claims.
    Identity(ManagedIdentityEndpoint, Option<String>),
}

impl LaneTransport {
    pub fn new(
        net: Net,
        deadline: Instant,
        to: Destination,
        metrics: Option<Arc<TokenMetrics>>,
    ) -> Self {
        LaneTransport { net, deadline, to, metrics, last: Mutex::new(None) }
    }

    /// The status of the last answer, or why there was none; None if nothing was asked.
    pub fn last(&self) -> Option<Result<u16, NetError>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn exchange(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let request = self.translate(request)?;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let started = Instant::now();
            let answer = self.net.send_to_authority(&request, self.deadline);
            if let Some(metrics) = &self.metrics {
                metrics.requested(None, &answer, started.elapsed(), attempt);
            }
            let told = match &answer {
                Ok(answer) => answer.status.to_string(),
                Err(error) => error.to_string(),
            };
            log::debug!(
                "token request to {}: {told}, {} ms, attempt {attempt}",
                request.origin.host(),
                started.elapsed().as_millis()
            );
            let again = match &answer {
                Ok(answer) => self.repeats(answer.status),
                Err(error) => error.transient(),
            };
            let asked = answer.as_ref().ok().and_then(backoff::retry_after);
            let pause = asked.unwrap_or_else(|| backoff::jittered(attempt));
            if again && attempt < ATTEMPTS && Instant::now() + pause < self.deadline {
                thread::sleep(pause);
                continue;
            }
            let last = answer.as_ref().map(|answer| answer.status).map_err(NetError::clone);
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
            return match answer {
                Ok(answer) => raw(&answer),
                Err(error) => Err(Error::with_message(ErrorKind::Io, error.to_string())),
            };
        }
    }

    fn repeats(&self, status: u16) -> bool {
        match status {
            408 | 429 | 500..=599 => true,
            // The metadata service while it starts or is updated.
            404 | 410 => matches!(self.to, Destination::Identity(..)),
            _ => false,
        }
    }

    fn translate(&self, request: &Request) -> azure_core::Result<net::Request> {
        let other = |what: &str| Error::with_message(ErrorKind::Other, what.to_owned());
        let mut url = Url::parse(request.url().as_str())
            .map_err(|_| other("the token request's URL cannot be parsed"))?;
        let method = Method::from_bytes(request.method().as_str().as_bytes())
            .map_err(|_| other("unknown HTTP method"))?;
        match &self.to {
            // azure_identity takes the address from the environment of the moment. Ours was read
            // at C_Initialize, and not at all in a set-uid process.
            Destination::Identity(endpoint, refused) => {
                url = redirected(&url, endpoint, refused.as_deref())
                    .ok_or_else(|| other("the managed identity's endpoint is no URL"))?;
            }
            Destination::Authority(_) if url.scheme() != "https" => {
                return Err(other("a token request must not leave over plain HTTP"));
            }
            Destination::Authority(_) => {}
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
        translated.headers.retain(|(name, _)| name != IDENTITY_HEADER);
        if let Destination::Identity(ManagedIdentityEndpoint { header: Some(secret), .. }, _) =
            &self.to
        {
            let mut value = HeaderValue::from_str(secret)
                .map_err(|_| other("IDENTITY_HEADER is no header value"))?;
            value.set_sensitive(true);
            translated.set_header(HeaderName::from_static(IDENTITY_HEADER), value);
        }
        match request.body() {
            Body::Bytes(bytes) if bytes.is_empty() => {}
            Body::Bytes(bytes) => {
                let field = match &self.to {
                    Destination::Authority(field) => field.as_str(),
                    Destination::Identity(..) => "",
                };
                let mut form = Zeroizing::new(Vec::with_capacity(bytes.len() + field.len() + 1));
                form.extend_from_slice(bytes);
                if !field.is_empty() {
                    form.push(b'&');
                    form.extend_from_slice(field.as_bytes());
                }
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

/// The metadata service's request in the form `endpoint` takes: the same query for another
/// metadata service, another api-version and another name of the resource id for App Service.
/// That can be told which token was `refused`; a metadata service cannot, and gives the same token
/// until it ends.
fn redirected(url: &Url, endpoint: &ManagedIdentityEndpoint, refused: Option<&str>) -> Option<Url> {
    let mut target = Url::parse(&endpoint.url).ok()?;
    let app_service = endpoint.header.is_some();
    target.query_pairs_mut().clear().extend_pairs(url.query_pairs().map(
        |(name, value)| match &*name {
            "api-version" if app_service => (name, "2019-08-01".into()),
            "msi_res_id" if app_service => ("mi_res_id".into(), value),
            _ => (name, value),
        },
    ));
    if let Some(refused) = refused.filter(|_| app_service) {
        let told = [("xms_cc", CAPABILITY), ("token_sha256_to_refresh", refused)];
        target.query_pairs_mut().extend_pairs(told);
    }
    Some(target)
}

fn raw(answer: &net::Response) -> azure_core::Result<AsyncRawResponse> {
    let mut headers = Headers::new();
    answer.headers.each(|name, value| headers.insert(name.to_owned(), value.to_owned()));
    let status = StatusCode::from(answer.status);
    Ok(AsyncRawResponse::from_bytes(status, headers, answer.body.to_vec()))
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
    fn a_metadata_request_is_rewritten_for_app_service() {
        let asked = "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01\
                     &resource=https%3A%2F%2Fvault.azure.net&msi_res_id=%2Fsubscriptions%2Fs";
        let url = Url::parse(asked).expect("URL");
        let app_service = ManagedIdentityEndpoint {
            url: "http://127.0.0.1:41741/msi/token/".into(),
            header: Some("h".to_owned().into()),
        };
        assert_eq!(
            redirected(&url, &app_service, None).expect("URL").as_str(),
            "http://127.0.0.1:41741/msi/token/?api-version=2019-08-01\
             &resource=https%3A%2F%2Fvault.azure.net&mi_res_id=%2Fsubscriptions%2Fs"
        );
        let pod = ManagedIdentityEndpoint {
            url: "http://127.0.0.1:1/metadata/identity/oauth2/token".into(),
            header: None,
        };
        let redirected = redirected(&url, &pod, Some("00")).expect("URL");
        assert_eq!(redirected.query(), url.query());
        assert_eq!(redirected.port(), Some(1));
    }
}
