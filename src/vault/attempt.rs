//! The loop that gets a call answered: tokens, repeats, pauses, one deadline.

use std::{ops::ControlFlow, sync::Arc, time::Instant};

use cryptoki_sys::CKR_DEVICE_ERROR;
use reqwest::{Url, header::HeaderValue};
use serde::de::DeserializeOwned;

use super::{
    Operation, Vault,
    call::{Call, parse, request_id},
    errors,
    replica::Heard,
    site::{Tries, Turn},
};
use crate::{
    backoff::{self, Connecting},
    credential::{Challenge, Rejected, Token, parameters},
    error::{Error, Result},
    net::{NetError, Response},
};

/// How an attempt stands among those of its call.
#[derive(Clone, Copy)]
pub(super) struct Standing {
    pub site: usize,
    /// From 1; with several endpoints a round over all of them.
    pub attempt: u32,
    /// Other endpoints are left to ask.
    pub others: bool,
    /// Nobody is there, after all attempts to connect.
    pub hopeless: bool,
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
        let tries = self.sites.tries(call.operation);
        self.call_at(call, tries, deadline).map(|(answer, _)| answer)
    }

    /// Calls at the endpoints that `tries` allows; also tells which of them answered.
    pub(super) fn call_at(
        &self,
        call: &Call<'_>,
        mut tries: Tries,
        deadline: Instant,
    ) -> Result<(Response, usize)> {
        let id = request_id()?;
        let mut token = self.token(deadline)?;
        let mut connecting = Vec::new();
        let (mut renewed, mut challenged) = (false, false);
        let mut last: Option<Error> = None;
        loop {
            let Turn { site, until } = self.sites.turn(&mut tries, deadline);
            if let Err(error) = self.wait(call, site, until) {
                // The last answer tells more than "the deadline would pass while waiting".
                return Err(last.unwrap_or(error));
            }
            tries.attempts += 1;
            let answer = match self.ask(call, site, &token, (&id, tries.attempts), until) {
                Heard::Answer(answer) => answer,
                Heard::Missing => {
                    let error = self.missing(call, site);
                    if !tries.others(site) {
                        return Err(error);
                    }
                    tries.failed(site, false);
                    last = Some(error);
                    continue;
                }
            };
            if let Ok(refused) = &answer
                && refused.status == 401
            {
                let challenge = Challenge::of(refused);
                // Each kind of refusal is answered once, claims last: they are for a good token.
                if !challenged && (challenge.is_some() || !renewed) {
                    renewed = true;
                    challenged = challenge.is_some();
                    let rejected = Rejected { token: &token, challenge };
                    token = self.replacement(&rejected, deadline)?;
                    continue;
                }
            }
            if matches!(answer, Err(NetError::Timeout | NetError::Connect(_)))
                && call.operation.row().repeatable
                && Instant::now() >= deadline
                && let Some(cause) = last
            {
                // Why it came to a last attempt tells more than that the attempt ran out of time.
                return Err(cause);
            }
            let lost = matches!(answer, Err(NetError::Lost(_)));
            let standing = Standing {
                site,
                attempt: tries.round,
                others: tries.others(site),
                hopeless: self.is_hopeless(&mut connecting, site, answer.as_ref().err()),
            };
            let error = match self.judge(call, answer, standing) {
                ControlFlow::Break(done) => return done.map(|answer| (answer, site)),
                ControlFlow::Continue(error) => error,
            };
            if Instant::now() >= deadline {
                return Err(error);
            }
            tries.failed(site, lost);
            last = Some(error);
        }
    }

    /// Notes how an attempt ended, None with an answer, among those of a call to get a connection: by
    /// endpoint, of those that failed. True when nobody is there.
    fn is_hopeless(
        &self,
        connecting: &mut Vec<(usize, Connecting)>,
        site: usize,
        failed: Option<&NetError>,
    ) -> bool {
        if let Some((_, known)) = connecting.iter_mut().find(|(known, _)| *known == site) {
            return known.is_hopeless_after(failed);
        }
        if failed.is_some() {
            let mut first = Connecting::new(self.sites.connect_timeout);
            first.is_hopeless_after(failed);
            connecting.push((site, first));
        }
        false
    }

    /// Sends one request to one endpoint, once, and notes what came of it.
    pub(super) fn send(
        &self,
        call: &Call<'_>,
        site: usize,
        version: Option<&str>,
        token: &Token,
        (id, attempt): (&HeaderValue, u32),
        until: Instant,
    ) -> std::result::Result<Response, NetError> {
        let request = self.request(call, &self.sites[site], version, token, id);
        let started = Instant::now();
        stumble!("vault");
        let answer = self.net.send(&request, until);
        stumble!("vault");
        self.note(call, site, &answer, started, (id, attempt));
        answer
    }

    /// Decides about an answer: done, or worth another attempt because of this error.
    pub(super) fn judge(
        &self,
        call: &Call<'_>,
        answer: std::result::Result<Response, NetError>,
        standing: Standing,
    ) -> ControlFlow<Result<Response>, Error> {
        let Standing { site, attempt, others, hopeless } = standing;
        let repeatable = call.operation.row().repeatable;
        let pauses = &self.sites[site].pauses;
        let decided = |again: bool, error: Error| match again {
            true => ControlFlow::Continue(error),
            false => ControlFlow::Break(Err(error)),
        };
        match answer {
            Ok(answer) if (200..300).contains(&answer.status) => {
                pauses.of(call.operation).succeeded();
                self.sites.answers(site);
                self.learn(call, site, &answer);
                ControlFlow::Break(Ok(answer))
            }
            // What a stand-in lacks says nothing about the first endpoint.
            Ok(answer) if site > 0 && answer.status == 404 => {
                self.sites.answers(site);
                decided(others, self.missing(call, site))
            }
            Ok(answer) => {
                let error = errors::from_response(call.operation, call.key, self.service, &answer);
                let error = self.placed(error, site);
                let again = match answer.status {
                    // Refused before anything was done: that may be repeated for everything.
                    429 => true,
                    408 | 500 | 502 | 503 | 504 => repeatable,
                    // A stand-in may refuse what the next one does.
                    401 | 403 if site > 0 => return decided(others, error),
                    _ => false,
                };
                match backoff::retry_after(&answer) {
                    _ if !again => self.sites.answers(site),
                    None if answer.status != 429 => pauses.of(call.operation).failed(None),
                    asked => pauses.all_failed(asked),
                }
                decided(again, error)
            }
            Err(failed) => {
                let error = errors::from_net(call.operation, call.key, &failed);
                let error = self.placed(error, site);
                let lost = matches!(failed, NetError::Lost(_));
                if self.sites.many() && failed.of_endpoint() && !lost {
                    self.sites.unreachable(site, &failed);
                }
                let elsewhere = others && repeatable && failed.of_endpoint();
                let here = failed.transient() && !hopeless && (repeatable || failed.unsent());
                // A connection that died while idle is nobody's fault: the first repeat is at once.
                if here && !elsewhere && (attempt > 1 || failed.unsent()) {
                    pauses.all_failed(None);
                }
                decided(here || elsewhere, error)
            }
        }
    }

    /// The error with its endpoint, where there are several.
    fn placed(&self, error: Error, site: usize) -> Error {
        match self.sites.many() {
            true => error.at(&self.sites[site].name),
            false => error,
        }
    }

    /// That an endpoint other than the first was asked for what it does not have.
    fn missing(&self, call: &Call<'_>, site: usize) -> Error {
        let subject = errors::subject(call.operation, call.key);
        let sentence = format!(
            "{subject}: it is not there, and the others do not answer; are all keys of the token \
             at each endpoint?"
        );
        Error::new(CKR_DEVICE_ERROR, sentence).at(&self.sites[site].name)
    }

    /// Counts an attempt, and writes one line at debug: token, operation, key, endpoint where
    /// there are several, status, the service's code where it refuses, time, attempt, both ids.
    /// Names and numbers only.
    pub(super) fn note(
        &self,
        call: &Call<'_>,
        site: usize,
        answer: &std::result::Result<Response, NetError>,
        started: Instant,
        (id, attempt): (&HeaderValue, u32),
    ) {
        if let Some(metrics) = &self.metrics {
            metrics.requested(Some(call.operation), answer, started.elapsed(), attempt);
        }
        if !log::log_enabled!(log::Level::Debug) {
            return;
        }
        let mut what =
            format!("token '{}': {}", self.sites.label, errors::subject(call.operation, call.key));
        if self.sites.many() {
            what = format!("{what} at {}", self.sites[site].name);
        }
        let milliseconds = started.elapsed().as_millis();
        let id = id.to_str().unwrap_or_default();
        match answer {
            Ok(answer) => log::debug!(
                "{what}: {}{}, {milliseconds} ms, attempt {attempt}, x-ms-request-id {}, \
                 x-ms-client-request-id {id}",
                answer.status,
                errors::code(call.operation, answer)
                    .map(|code| format!(" {code}"))
                    .unwrap_or_default(),
                answer.header("x-ms-request-id").unwrap_or("none"),
            ),
            Err(error) => log::debug!(
                "{what}: {error}, {milliseconds} ms, attempt {attempt}, \
                 x-ms-client-request-id {id}"
            ),
        }
    }

    /// Waits while an endpoint is to be left alone.
    pub(super) fn wait(&self, call: &Call<'_>, site: usize, deadline: Instant) -> Result<()> {
        self.sites[site].pauses.of(call.operation).wait(deadline).map_err(|pause| {
            let advice = match pause.asked {
                true => "; spread the load over more keys or vaults, or raise `timeout`",
                false => "",
            };
            let why = pause.reason("the service");
            let subject = errors::subject(call.operation, call.key);
            Error::new(CKR_DEVICE_ERROR, format!("{subject}: not sent, because {why}{advice}"))
        })
    }

    /// A token for a request, [`Credential::token`](crate::credential::Credential::token).
    pub(super) fn token(&self, deadline: Instant) -> Result<Arc<Token>> {
        self.credential.token(deadline, &|deadline| self.tenant(deadline))
    }

    /// A token instead of one that the service refused.
    pub(super) fn replacement(
        &self,
        rejected: &Rejected<'_>,
        deadline: Instant,
    ) -> Result<Arc<Token>> {
        self.credential.replacement(rejected, deadline, &|deadline| self.tenant(deadline))
    }

    /// The tenant as the service's challenge names it: one request without a token. (For a
    /// credential that needs one, where the configuration names none.)
    pub(super) fn tenant(&self, deadline: Instant) -> Result<String> {
        let call = Call::bare(Operation::ListKeys);
        let id = request_id()?;
        let mut tries = self.sites.tries(call.operation);
        let mut connecting = Vec::new();
        let mut last: Option<Error> = None;
        loop {
            let Turn { site, until } = self.sites.turn(&mut tries, deadline);
            if let Err(error) = self.wait(&call, site, until) {
                return Err(last.unwrap_or(error));
            }
            tries.attempts += 1;
            let started = Instant::now();
            let request = self.anonymous(&call, &self.sites[site], None, &id);
            let answer = self.net.send(&request, until);
            self.note(&call, site, &answer, started, (&id, tries.attempts));
            if let Ok(challenge) = &answer
                && challenge.status == 401
            {
                let tenant = challenge.header("www-authenticate").and_then(tenant_of);
                return tenant.ok_or_else(|| {
                    let sentence = "the service's challenge names no tenant: set `tenant`";
                    Error::new(CKR_DEVICE_ERROR, sentence)
                });
            }
            let lost = matches!(answer, Err(NetError::Lost(_)));
            let standing = Standing {
                site,
                attempt: tries.round,
                others: tries.others(site),
                hopeless: self.is_hopeless(&mut connecting, site, answer.as_ref().err()),
            };
            match self.judge(&call, answer, standing) {
                ControlFlow::Continue(error) => {
                    tries.failed(site, lost);
                    last = Some(error);
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
        let request = self.anonymous(&call, self.sites.first(), None, &id);
        let answer = self.net.send(&request, self.deadline());
        self.note(&call, 0, &answer, started, (&id, 1));
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
pub fn tenant_of(challenge: &str) -> Option<String> {
    let named = |wanted| parameters(challenge).find(|(name, _)| *name == wanted);
    let (_, url) = named("authorization").or_else(|| named("authorization_uri"))?;
    let url = Url::parse(url).ok()?;
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
