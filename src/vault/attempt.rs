//! The loop that gets a call answered: tokens, repeats, pauses, one deadline.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use cryptoki_sys::CKR_DEVICE_ERROR;
use reqwest::{Url, header::HeaderValue};
use serde::de::DeserializeOwned;

use super::{
    Operation, Vault, backoff,
    call::{Call, parse, request_id},
    errors,
};
use crate::{
    error::{Error, Result},
    net::{NetError, Response},
};

/// Where nobody can be connected to, a host waits for this many attempts and not for its deadline.
const CONNECT_ATTEMPTS: u32 = 3;

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

    /// Waits while the service is to be left alone.
    pub(super) fn wait(&self, call: &Call<'_>, deadline: Instant) -> Result<()> {
        self.backoff.wait(deadline).map_err(|pause| {
            let left = Duration::from_secs(pause.left.as_secs() + 1);
            let why = match pause.asked {
                true => format!(
                    "the service asked this process to pause and {left:?} of that are left, which \
                     is beyond the deadline; spread the load over more keys or vaults, or raise \
                     `timeout`"
                ),
                false => format!(
                    "after the failures before this one the service is tried again in {left:?}, \
                     which is beyond the deadline"
                ),
            };
            let subject = errors::subject(call.operation, call.key);
            Error::new(CKR_DEVICE_ERROR, format!("{subject}: not sent, because {why}"))
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
}
