//! One operation's request, and the loop that gets it answered within one deadline.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cryptoki_sys::{CKR_ARGUMENTS_BAD, CKR_DEVICE_ERROR, CKR_GENERAL_ERROR};
use reqwest::{
    Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT},
};
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::{KeyRef, Operation, Vault, backoff, errors};
use crate::{
    config::TokenConfig,
    credential::Token,
    error::{Error, Result},
    net::{NetError, Request, Response},
};

const AGENT: &str = concat!("akv-pkcs11/", env!("CARGO_PKG_VERSION"));
const JSON: &str = "application/json";
/// Where nobody can be connected to, a host waits for this many attempts and not for its deadline.
const CONNECT_ATTEMPTS: u32 = 3;

/// One operation on one object, as it will be sent.
pub(super) struct Call<'a> {
    pub operation: Operation,
    pub key: Option<KeyRef<'a>>,
    action: Option<&'static str>,
    body: Option<Bytes>,
    /// A page of a listing instead of its beginning.
    page: Option<Url>,
}

impl<'a> Call<'a> {
    /// An operation on a key or certificate.
    ///
    /// # Errors
    /// CKR_ARGUMENTS_BAD for a name or version that cannot exist, since an empty or odd one would
    /// address something else.
    pub fn new(operation: Operation, key: KeyRef<'a>) -> Result<Self> {
        let legal = |text: &str, most: usize| {
            (1..=most).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if !legal(key.name, 127) || !key.version.is_none_or(|version| legal(version, 64)) {
            return Err(Error::new(
                CKR_ARGUMENTS_BAD,
                format!("{:?} cannot name a key: letters, digits and '-' only", key.name),
            ));
        }
        Ok(Call { key: Some(key), ..Call::bare(operation) })
    }

    /// An operation on the service as a whole.
    pub fn bare(operation: Operation) -> Self {
        Call { operation, key: None, action: None, body: None, page: None }
    }

    pub fn with_action(self, action: &'static str) -> Self {
        Call { action: Some(action), ..self }
    }

    /// Serializes the body into memory that is wiped.
    pub fn with_json(self, body: &impl Serialize) -> Result<Self> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(1024));
        serde_json::to_writer(&mut *bytes, body).map_err(|error| {
            Error::new(CKR_GENERAL_ERROR, format!("the request cannot be written: {error}"))
        })?;
        Ok(Call { body: Some(Bytes::from_owner(bytes)), ..self })
    }

    pub fn at_page(self, page: Option<Url>) -> Self {
        Call { page, ..self }
    }
}

/// The URL all requests start with, and the Host header where it must differ: the client lets a
/// port in the URL win over the port of `address`, so that then the URL has none.
pub(super) fn origin(config: &TokenConfig) -> Result<(Url, Option<HeaderValue>)> {
    let (host, port) = (&config.endpoint.host, config.endpoint.port);
    let unusable = |what: String| Error::new(CKR_GENERAL_ERROR, format!("endpoint: {what}"));
    let named = format!("{host}:{port}");
    let direct = config.address.is_some() && config.proxy.is_none();
    let url = match direct {
        true => format!("https://{host}/"),
        false => format!("https://{named}/"),
    };
    let url = Url::parse(&url).map_err(|error| unusable(format!("{named:?}: {error}")))?;
    let header = match direct && port != 443 {
        true => Some(
            HeaderValue::from_str(&named)
                .map_err(|_| unusable(format!("{named:?} is no Host header")))?,
        ),
        false => None,
    };
    Ok((url, header))
}

impl Vault {
    /// Calls and reads the answer's JSON.
    pub(super) fn json<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T> {
        let answer = self.call(&call)?;
        parse(&call, &answer)
    }

    /// Calls within the token's deadline; Ok is a 2xx.
    pub(super) fn call(&self, call: &Call<'_>) -> Result<Response> {
        self.call_by(call, self.deadline())
    }

    /// Calls, repeating what may be repeated, until `deadline`.
    pub(super) fn call_by(&self, call: &Call<'_>, deadline: Instant) -> Result<Response> {
        self.learn_tenant(deadline)?;
        let id = request_id()?;
        let mut token = self.credential.token(deadline)?;
        let mut renewed = false;
        let mut attempt = 0;
        let mut last = None;
        loop {
            attempt += 1;
            self.wait(call, deadline)?;
            let request = self.request(call, &token, &id);
            let started = Instant::now();
            let answer = self.net.send(&request, deadline);
            self.note(call, &answer, started, attempt, &id);
            if let Ok(refused) = &answer
                && refused.status == 401
                && !renewed
            {
                renewed = true;
                token = self.credential.replacement(&token, deadline)?;
                continue;
            }
            if matches!(answer, Err(NetError::Timeout))
                && call.operation.row().repeatable
                && let Some(cause) = last
            {
                // Why it came to a last attempt tells more than that the attempt ran out of time.
                return Err(cause);
            }
            let error = match self.judge(call, answer, attempt) {
                ControlFlow::Break(done) => return done,
                ControlFlow::Continue(error) => error,
            };
            if Instant::now() >= deadline {
                return Err(error);
            }
            last = Some(error.clone());
            // The last answer tells more than "the deadline would pass while waiting".
            self.backoff.wait(deadline).map_err(|_| error)?;
        }
    }

    /// The request as it is sent, once.
    pub(super) fn request(&self, call: &Call<'_>, token: &Token, id: &HeaderValue) -> Request {
        let mut request = self.anonymous(call, id);
        request.headers.insert(AUTHORIZATION, token.header().clone());
        request
    }

    /// Decides about an answer: done, or worth another attempt because of this error.
    pub(super) fn judge(
        &self,
        call: &Call<'_>,
        answer: std::result::Result<Response, NetError>,
        attempt: u32,
    ) -> ControlFlow<Result<Response>, Error> {
        let repeatable = call.operation.row().repeatable;
        match answer {
            Ok(answer) if (200..300).contains(&answer.status) => {
                self.backoff.succeeded();
                ControlFlow::Break(Ok(answer))
            }
            Ok(answer) => {
                let error = errors::from_response(call.operation, call.key, self.service, &answer);
                let again = match answer.status {
                    // Refused before anything was done: that may be repeated for everything.
                    429 => true,
                    408 | 500 | 502 | 503 | 504 => repeatable,
                    _ => false,
                };
                if !again {
                    return ControlFlow::Break(Err(error));
                }
                self.backoff.failed(backoff::retry_after(&answer));
                ControlFlow::Continue(error)
            }
            Err(failed) => {
                let error = errors::from_net(call.operation, call.key, &failed);
                let hopeless = failed.unsent() && attempt >= CONNECT_ATTEMPTS;
                if !failed.transient() || hopeless || !(repeatable || failed.unsent()) {
                    return ControlFlow::Break(Err(error));
                }
                // A connection that died while idle is nobody's fault: the first repeat is at once.
                if attempt > 1 || failed.unsent() {
                    self.backoff.failed(None);
                }
                ControlFlow::Continue(error)
            }
        }
    }

    /// One line at debug for each attempt. Names and numbers only.
    pub(super) fn note(
        &self,
        call: &Call<'_>,
        answer: &std::result::Result<Response, NetError>,
        started: Instant,
        attempt: u32,
        id: &HeaderValue,
    ) {
        if !log::log_enabled!(log::Level::Debug) {
            return;
        }
        let what = errors::subject(call.operation, call.key);
        let milliseconds = started.elapsed().as_millis();
        let id = id.to_str().unwrap_or_default();
        match answer {
            Ok(answer) => log::debug!(
                "{what}: {}, {milliseconds} ms, attempt {attempt}, x-ms-request-id {}, \
                 x-ms-client-request-id {id}",
                answer.status,
                answer.header("x-ms-request-id").unwrap_or("none"),
            ),
            Err(error) => log::debug!(
                "{what}: {error}, {milliseconds} ms, attempt {attempt}, \
                 x-ms-client-request-id {id}"
            ),
        }
    }

    /// Waits while the service asked to be left alone.
    pub(super) fn wait(&self, call: &Call<'_>, deadline: Instant) -> Result<()> {
        self.backoff.wait(deadline).map_err(|left| {
            let left = Duration::from_secs(left.as_secs() + 1);
            Error::new(
                CKR_DEVICE_ERROR,
                format!(
                    "{}: not sent, because the service asked this process to pause and {left:?} \
                     of that are left, which is beyond the deadline; spread the load over more \
                     keys or vaults, or raise `timeout`",
                    errors::subject(call.operation, call.key)
                ),
            )
        })
    }

    /// Takes the tenant from the service's challenge, where the configuration names none and the
    /// credential needs one: one request without a token, once.
    pub(super) fn learn_tenant(&self, deadline: Instant) -> Result<()> {
        if !self.credential.needs_tenant() {
            return Ok(());
        }
        let call = Call::bare(Operation::ListKeys);
        let id = request_id()?;
        let mut attempt = 0;
        loop {
            attempt += 1;
            self.wait(&call, deadline)?;
            let started = Instant::now();
            let answer = self.net.send(&self.anonymous(&call, &id), deadline);
            self.note(&call, &answer, started, attempt, &id);
            if let Ok(challenge) = &answer
                && challenge.status == 401
            {
                let tenant = challenge.header("www-authenticate").and_then(tenant_of);
                let Some(tenant) = tenant else {
                    return Err(Error::new(
                        CKR_DEVICE_ERROR,
                        "the service's challenge names no tenant: set `tenant`",
                    ));
                };
                self.credential.learn_tenant(&tenant);
                return Ok(());
            }
            match self.judge(&call, answer, attempt) {
                ControlFlow::Continue(error) => {
                    self.backoff.wait(deadline).map_err(|_| error)?;
                }
                ControlFlow::Break(Err(error)) => return Err(error),
                ControlFlow::Break(Ok(_)) => {
                    return Err(Error::new(
                        CKR_DEVICE_ERROR,
                        "the service answered a request without a token instead of asking for \
                         one: is the endpoint a Key Vault? Set `tenant`",
                    ));
                }
            }
        }
    }

    /// Asks without a token, once, and gives back the `WWW-Authenticate` header of the service's
    /// 401: proof that name, route, TLS and endpoint are right. Nothing is kept of it.
    ///
    /// # Errors
    /// CKR_DEVICE_ERROR when no answer comes or it is no challenge; `docs/errors.md`.
    pub fn challenge(&self) -> Result<String> {
        let call = Call::bare(Operation::ListKeys);
        let id = request_id()?;
        let started = Instant::now();
        let answer = self.net.send(&self.anonymous(&call, &id), self.deadline());
        self.note(&call, &answer, started, 1, &id);
        let answer = answer.map_err(|failed| errors::from_net(call.operation, None, &failed))?;
        match answer.header("www-authenticate").filter(|_| answer.status == 401) {
            Some(challenge) => Ok(challenge.to_owned()),
            None if (200..300).contains(&answer.status) => {
                let why = "no request for a token";
                Err(errors::nonsense(call.operation, None, why))
            }
            None => Err(errors::from_response(call.operation, None, self.service, &answer)),
        }
    }

    fn anonymous(&self, call: &Call<'_>, id: &HeaderValue) -> Request {
        let row = call.operation.row();
        let mut request = Request::new(row.method.clone(), self.url(call));
        let headers = &mut request.headers;
        headers.insert(ACCEPT, HeaderValue::from_static(JSON));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert("x-ms-client-request-id", id.clone());
        if let Some(host) = &self.host {
            headers.insert(HOST, host.clone());
        }
        if call.body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        }
        request.body = call.body.clone();
        request
    }

    fn url(&self, call: &Call<'_>) -> Url {
        let mut url = self.base.clone();
        if let Some(page) = &call.page {
            url.set_path(page.path());
            url.set_query(page.query());
        } else {
            let name = call.key.map(|key| key.name);
            let version = call.key.and_then(|key| key.version);
            let action = match call.operation {
                Operation::ListKeyVersions => Some("versions"),
                _ => call.action,
            };
            let segments = [Some(call.operation.row().collection), name, version, action];
            if let Ok(mut path) = url.path_segments_mut() {
                path.clear().extend(segments.into_iter().flatten());
            }
        }
        if !url.query_pairs().any(|(name, _)| name == "api-version") {
            url.query_pairs_mut().append_pair("api-version", &self.api_version);
        }
        url
    }
}

/// Reads an answer's JSON.
pub(super) fn parse<T: DeserializeOwned>(call: &Call<'_>, answer: &Response) -> Result<T> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        // serde_json's text may quote the value it stumbled over; the position is enough.
        let why = match error.classify() {
            serde_json::error::Category::Data => "JSON of another shape",
            _ => "no JSON",
        };
        errors::nonsense(call.operation, call.key, why)
    })
}

/// A random UUID (version 4) for x-ms-client-request-id.
pub(super) fn request_id() -> Result<HeaderValue> {
    let mut bytes = [0; 16];
    let failed = || Error::new(CKR_GENERAL_ERROR, "no random bytes for a request id");
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| failed())?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    let id = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
    HeaderValue::from_str(&id).map_err(|_| failed())
}

/// The tenant of a challenge: the first path segment of the authorization URL. The URL's host is
/// ignored: tokens are asked for at the configured authority only.
fn tenant_of(challenge: &str) -> Option<String> {
    let (_, rest) = challenge
        .split_once("authorization=\"")
        .or_else(|| challenge.split_once("authorization_uri=\""))?;
    let url = Url::parse(rest.split('"').next()?).ok()?;
    let tenant = url.path_segments()?.next()?;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    (!tenant.is_empty() && tenant.bytes().all(legal)).then(|| tenant.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tenant_is_taken_from_a_challenge() {
        let told = |url| format!("Bearer authorization=\"{url}\", resource=\"https://x\"");
        for (challenge, tenant) in [
            (told("https://login.microsoftonline.com/contoso.example"), Some("contoso.example")),
            (told("https://evil.example/11111111-2222/oauth2"), Some("11111111-2222")),
            (told("https://login.windows.net/"), None),
            (told("https://login.windows.net/a%2Fb"), None),
            ("Bearer authorization_uri=\"https://adfs/adfs\"".into(), Some("adfs")),
            ("Basic realm=\"x\"".into(), None),
        ] {
            assert_eq!(tenant_of(&challenge).as_deref(), tenant, "{challenge}");
        }
    }

    #[test]
    fn names_that_would_address_something_else_are_refused() {
        for (name, version) in [("", None), ("a/b", None), ("a?b", None), ("a", Some(""))] {
            let key = KeyRef { name, version };
            let refused = Call::new(Operation::GetKey, key).err().map(|error| error.rv());
            assert_eq!(refused, Some(CKR_ARGUMENTS_BAD), "{key:?}");
        }
        assert!(Call::new(Operation::GetKey, KeyRef::version("a-1", "0f")).is_ok());
    }

    #[test]
    fn request_ids_are_random_uuids() {
        let one = request_id().expect("id");
        let text = one.to_str().expect("ASCII");
        assert_eq!((text.len(), text.as_bytes()[14]), (36, b'4'));
        assert_ne!(one, request_id().expect("id"));
    }
}
