//! Listings page by page, and many keys in one wide drive.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use akv_wire::{CertificateItem, DeletedKeyItem, KeyBundle, KeyItem, Page, SecretItem};
use cryptoki_sys::CKR_DEVICE_ERROR;
use reqwest::Url;
use serde::de::DeserializeOwned;

use super::{
    KeyRef, Operation, Vault,
    attempt::Standing,
    call::{self, Call},
    errors,
    site::{Tries, Turn},
};
use crate::{
    credential::{Challenge, Rejected},
    error::{Error, Result},
};

/// A listing ends here even if the service never says so: 25 items a page, 5,000 keys a pool.
const MAX_PAGES: usize = 20_000;
/// Requests of one wide drive per connection, before throttling and a rejected token are looked
/// at again.
const PER_CONNECTION: usize = 8;
/// Rounds for requests that failed in a way that another round may cure.
const ROUNDS: u32 = 6;

impl Vault {
    /// When an open search that begins now must end.
    pub fn find_deadline(&self) -> Instant {
        Instant::now() + self.find_timeout
    }

    /// All keys, without versions, in the service's order (which is no order to rely on).
    ///
    /// # Errors
    /// CKR_FUNCTION_REJECTED without the permission to list; `docs/errors.md`.
    pub fn keys(&self, deadline: Instant) -> Result<Vec<KeyItem>> {
        self.pages(|| Ok(Call::bare(Operation::ListKeys)), deadline)
    }

    /// All versions of a key, in no order of time; empty for a name that does not exist.
    ///
    /// # Errors
    /// As [`Vault::keys`].
    pub fn key_versions(&self, name: &str, deadline: Instant) -> Result<Vec<KeyItem>> {
        let key = KeyRef::current(name);
        self.pages(|| Call::new(Operation::ListKeyVersions, key), deadline)
    }

    /// All deleted keys that can still be recovered.
    ///
    /// # Errors
    /// As [`Vault::keys`].
    pub fn deleted_keys(&self, deadline: Instant) -> Result<Vec<DeletedKeyItem>> {
        self.pages(|| Ok(Call::bare(Operation::ListDeletedKeys)), deadline)
    }

    /// All certificates, without versions. A Managed HSM has none and must not be asked.
    ///
    /// # Errors
    /// As [`Vault::keys`].
    pub fn list_certificates(&self, deadline: Instant) -> Result<Vec<CertificateItem>> {
        self.pages(|| Ok(Call::bare(Operation::ListCertificates)), deadline)
    }

    /// All secrets, without versions and values. A Managed HSM has none and must not be asked.
    ///
    /// # Errors
    /// As [`Vault::keys`].
    pub fn secrets(&self, deadline: Instant) -> Result<Vec<SecretItem>> {
        self.pages(|| Ok(Call::bare(Operation::ListSecrets)), deadline)
    }

    /// Many keys at once, paced as the configuration says; one result for each, in their order.
    ///
    /// # Errors
    /// What concerns all of them: no token, no lane. What concerns one key is its own result.
    pub fn fetch_many(
        &self,
        wanted: &[KeyRef<'_>],
        deadline: Instant,
    ) -> Result<Vec<Result<KeyBundle>>> {
        let calls = wanted
            .iter()
            .map(|key| Call::new(Operation::GetKey, *key))
            .collect::<Result<Vec<_>>>()?;
        let mut results: Vec<Option<Result<KeyBundle>>> = wanted.iter().map(|_| None).collect();
        let mut failed: Vec<Option<Error>> = wanted.iter().map(|_| None).collect();
        let mut renewed = false;
        let mut open: Vec<usize> = (0..wanted.len()).collect();
        'rounds: for round in 1..=ROUNDS {
            let mut again = Vec::new();
            for chunk in open.chunks(self.pace.width.max(1) * PER_CONNECTION) {
                let mut tries = self.sites.tries(Operation::GetKey);
                let soon = deadline.min(Instant::now() + self.timeout);
                let Turn { site, until } = self.sites.turn(&mut tries, soon);
                let pause = self.sites[site].pauses.of(Operation::GetKey);
                // Past the deadline, or throttled beyond it: what was fetched is kept.
                if Instant::now() >= deadline || pause.wait(deadline).is_err() {
                    break 'rounds;
                }
                let token = self.token(deadline)?;
                let ids = chunk.iter().map(|_| call::request_id()).collect::<Result<Vec<_>>>()?;
                let requests = chunk
                    .iter()
                    .zip(&ids)
                    .map(|(at, id)| self.request(&calls[*at], &self.sites[site], None, &token, id))
                    .collect();
                let mut pace = self.pace;
                if tries.others(site) {
                    pace.limit = pace.limit.min(until.saturating_duration_since(Instant::now()));
                }
                let others = self.sites.many() && round < ROUNDS;
                let standing = Standing { site, attempt: round, others, hopeless: false };
                let mut rejected = None;
                self.net
                    .send_all(requests, pace, deadline, |index, sent, answer| {
                        let at = chunk[index];
                        let call = &calls[at];
                        self.note(call, site, &answer, sent, (&ids[index], round));
                        if answer.as_ref().is_ok_and(|answer| answer.status == 401) && !renewed {
                            rejected = answer.as_ref().ok().map(Challenge::of);
                            again.push(at);
                            return;
                        }
                        // Another round would hear the same from a stand-in.
                        let absent = answer.as_ref().is_ok_and(|answer| answer.status == 404);
                        let standing = Standing { others: others && !absent, ..standing };
                        match self.judge(call, answer, standing) {
                            ControlFlow::Break(done) => {
                                let parsed = done.and_then(|answer| call::parse(call, &answer));
                                results[at] = Some(parsed);
                            }
                            ControlFlow::Continue(error) => {
                                failed[at] = Some(error);
                                again.push(at);
                            }
                        }
                    })
                    .map_err(|error| errors::from_net(Operation::GetKey, None, &error))?;
                if let Some(challenge) = rejected {
                    renewed = true;
                    let rejected = Rejected { token: &token, challenge };
                    self.replacement(&rejected, deadline)?;
                }
            }
            open = again;
            if open.is_empty() {
                break;
            }
        }
        let unasked = |key: &KeyRef<'_>| too_late(Operation::GetKey, Some(*key));
        Ok(results
            .into_iter()
            .zip(failed)
            .zip(wanted)
            .map(|((result, failed), key)| {
                result.unwrap_or_else(|| Err(failed.unwrap_or_else(|| unasked(key))))
            })
            .collect())
    }

    /// All pages of a listing, from one endpoint: where that fails midway, from another.
    fn pages<'a, T: DeserializeOwned>(
        &self,
        first: impl Fn() -> Result<Call<'a>>,
        deadline: Instant,
    ) -> Result<Vec<T>> {
        for _ in 1..self.sites.len() {
            match self.pages_once(&first, deadline) {
                Err(error) if error.rv() == CKR_DEVICE_ERROR && Instant::now() < deadline => {}
                done => return done,
            }
        }
        self.pages_once(&first, deadline)
    }

    fn pages_once<'a, T: DeserializeOwned>(
        &self,
        first: &impl Fn() -> Result<Call<'a>>,
        deadline: Instant,
    ) -> Result<Vec<T>> {
        let mut items = Vec::new();
        let mut next: Option<(Url, usize)> = None;
        for _ in 0..MAX_PAGES {
            let call = first()?;
            let (call, tries) = match &next {
                Some((link, site)) => {
                    let tries = Tries::only(call.operation, *site);
                    (call.at_page(link.clone()), tries)
                }
                None => {
                    let tries = self.sites.tries(call.operation);
                    (call, tries)
                }
            };
            // A page has the deadline of a request, the listing its own.
            let (answer, site) =
                self.call_at(&call, tries, deadline.min(Instant::now() + self.timeout))?;
            let page: Page<T> = call::parse(&call, &answer)?;
            items.extend(page.value);
            let Some(link) = page.next_link.filter(|link| !link.is_empty()) else {
                return Ok(items);
            };
            let link = self.own_link(&call, &link, site)?;
            if next.as_ref().is_some_and(|(last, _)| *last == link) {
                return Err(errors::nonsense(
                    call.operation,
                    call.key,
                    "a nextLink that leads back to its own page",
                ));
            }
            if deadline.saturating_duration_since(Instant::now()) == Duration::ZERO {
                return Err(too_late(call.operation, call.key));
            }
            next = Some((link, site));
        }
        Err(errors::nonsense(Operation::ListKeys, None, "pages without end"))
    }

    /// A nextLink, if it stays on the configured host: the bearer token goes nowhere else. A vault
    /// writes the port (`:443`), a Managed HSM does not.
    fn own_link(&self, call: &Call<'_>, link: &str, site: usize) -> Result<Url> {
        let (own_host, own_port) = &self.sites[site].endpoint;
        let url = Url::parse(link).ok().filter(|url| {
            url.scheme() == "https"
                && url.host_str().is_some_and(|host| host.eq_ignore_ascii_case(own_host))
                && url.port_or_known_default() == Some(*own_port)
                && url.username().is_empty()
        });
        url.ok_or_else(|| {
            let host = Url::parse(link).ok().and_then(|url| url.host_str().map(str::to_owned));
            let host = host.unwrap_or_else(|| "something that is no URL".into());
            let why = format!("a nextLink to {host}, which is not the configured host");
            errors::nonsense(call.operation, call.key, &why)
        })
    }
}

fn too_late(operation: Operation, key: Option<KeyRef<'_>>) -> Error {
    let what = errors::subject(operation, key);
    let sentence = format!("{what}: the search's deadline passed; raise `find_timeout`");
    Error::new(CKR_DEVICE_ERROR, sentence)
}
