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
    backoff::{self, Backoff, Pause},
    config::ManagedIdentityEndpoint,
    metrics::TokenMetrics,
    net::{self, Net, NetError, Response},
};

const IDENTITY_HEADER: &str = "x-identity-header";

/// One token request's way to the network.
pub(super) struct LaneTransport {
    net: Net,
    deadline: Instant,
    to: Destination,
    pauses: Arc<Backoff>,
    metrics: Option<Arc<TokenMetrics>>,
    ended: Mutex<Option<Ended>>,
}

/// How a token request ended.
#[derive(Clone, Debug)]
pub(super) enum Ended {
    /// With an answer of this status.
    Status(u16),
    /// Without one.
    Failed(NetError),
    /// Nobody was asked: an earlier request left a pause that ends too late.
    Paused(Pause),
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
        pauses: Arc<Backoff>,
        metrics: Option<Arc<TokenMetrics>>,
    ) -> Self {
        LaneTransport { net, deadline, to, pauses, metrics, ended: Mutex::new(None) }
    }

    /// How the last request ended; None if there was none.
    pub fn ended(&self) -> Option<Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn exchange(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let request = self.translate(request)?;
        let answer = self.insist(&request);
        let (ended, answer) = match answer {
            Ok(answer) => (Ended::Status(answer.status), raw(&answer)),
            Err(ended) => {
                let error = Error::with_message(ErrorKind::Io, "the token request failed");
                (ended, Err(error))
            }
        };
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
        answer
    }

    /// Asks until there is an answer that another attempt would not better, or no time for one.
    fn insist(&self, request: &net::Request) -> Result<Response, Ended> {
        let mut last = None;
        let mut attempt = 0;
        loop {
            if let Err(pause) = self.pauses.wait(self.deadline) {
                return last.unwrap_or(Err(Ended::Paused(pause)));
            }
            attempt += 1;
            let answer = self.send(request, attempt);
            let again = match &answer {
                Ok(answer) => self.repeats(answer.status),
                Err(failed) => failed.transient() && !backoff::hopeless(failed, attempt),
            };
            let asked = answer.as_ref().ok().and_then(backoff::retry_after);
            match answer {
                Ok(answer) if !again => {
                    self.pauses.succeeded();
                    return Ok(answer);
                }
                // Why it came to a last attempt tells more than that the attempt ran out of time.
                Err(NetError::Timeout) => {
                    return last.unwrap_or(Err(Ended::Failed(NetError::Timeout)));
                }
                Err(failed) if !again => return Err(Ended::Failed(failed)),
                answer => last = Some(answer.map_err(Ended::Failed)),
            }
            self.pauses.failed(asked);
        }
    }

    /// Sends it once.
    fn send(&self, request: &net::Request, attempt: u32) -> Result<Response, NetError> {
        let started = Instant::now();
        let answer = self.net.send_to_authority(request, self.deadline);
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
        answer
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
