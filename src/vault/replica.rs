//! Which version at another endpoint is the same key.
//!
//! A version is a text that each endpoint makes for itself; only a restored backup keeps it. So a
//! key pair is looked for by its public key, which the answers that made it known have told, and
//! a secret key by its name and version, or by the pair that the configuration names. The finding
//! is kept: it costs one request per key and endpoint.

use std::{
    collections::HashMap,
    sync::{MutexGuard, PoisonError, TryLockError},
    time::Instant,
};

use akv_wire::{KeyBundle, KeyItem, Page};
use reqwest::header::HeaderValue;

use super::{KeyRef, Operation, Vault, call::Call, site::Sites};
use crate::{
    config::{Replica, TokenConfig},
    credential::Token,
    crypto::PublicKey,
    net::{NetError, Response},
};

/// A key looked for among the versions of its name: so many at most, newest first.
const MOST_VERSIONS: usize = 25;

/// Name and version in lower case.
type Version = (String, String);

/// What is known of versions at several endpoints: plain data, carried into a forked child.
#[derive(Clone, Debug, Default)]
pub struct Matches {
    /// The public keys that answers told.
    public: HashMap<Version, PublicKey>,
    /// By endpoint: the version there, or since when there is none.
    there: HashMap<(usize, Version), Result<String, Instant>>,
}

/// What an endpoint made of a request.
pub(super) enum Heard {
    /// An answer, or none.
    Answer(Result<Response, NetError>),
    /// It does not hold the key.
    Missing,
}

impl Matches {
    /// With what the configuration tells: whose public key a version has, and that it is there.
    #[must_use]
    pub fn with_given(mut self, token: &TokenConfig) -> Matches {
        for given in &token.public_keys {
            let Some(version) = &given.key.version else { continue };
            let told = (given.key.name.to_ascii_lowercase(), version.to_ascii_lowercase());
            self.public.insert(told.clone(), given.public.clone());
            self.there.insert((0, told), Ok(version.clone()));
        }
        self
    }
}

impl Sites {
    /// Holds the lock of what [`Sites::carried_matches`] copies.
    pub fn hold(&self) -> impl Sized {
        self.known()
    }

    /// A copy for a forked child; empty when the lock was held at a fork past our handlers.
    pub fn carried_matches(&self) -> Matches {
        match self.matches.try_lock() {
            Ok(matches) => matches.clone(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().clone(),
            Err(TryLockError::WouldBlock) => Matches::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Matches> {
        self.matches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vault {
    /// Sends a request to an endpoint, for the key that is meant whatever its version is there.
    pub(super) fn ask(
        &self,
        call: &Call<'_>,
        site: usize,
        token: &Token,
        (id, attempt): (&HeaderValue, u32),
        until: Instant,
    ) -> Heard {
        let version = match call.key {
            Some(KeyRef { name, version: Some(version) })
                if self.sites.many() && call.operation.uses_a_key() =>
            {
                let wanted = (name.to_ascii_lowercase(), version.to_ascii_lowercase());
                match self.version_at(site, wanted, token, (id, attempt), until) {
                    Ok(Some(there)) => Some(there),
                    Ok(None) => return Heard::Missing,
                    Err(answer) => return Heard::Answer(*answer),
                }
            }
            _ => None,
        };
        Heard::Answer(self.send(call, site, version.as_deref(), token, (id, attempt), until))
    }

    /// Remembers which key an answer at `site` was about, so that it can be found elsewhere.
    pub(super) fn learn(&self, call: &Call<'_>, site: usize, answer: &Response) {
        if !self.sites.many() || !call.operation.tells_a_key() {
            return;
        }
        let Ok(bundle) = serde_json::from_slice::<KeyBundle>(&answer.body) else { return };
        let Some((name, version)) = bundle.key.name_and_version() else { return };
        let told = (name.to_ascii_lowercase(), version.to_ascii_lowercase());
        let mut known = self.sites.known();
        if let Ok(Some(public)) = PublicKey::from_jwk(&bundle.key) {
            known.public.insert(told.clone(), public);
        }
        known.there.insert((site, told), Ok(version.to_owned()));
    }

    /// The version at `site` that is the key `wanted` elsewhere; None if it does not hold the key.
    /// Err: the answer that ended the search.
    fn version_at(
        &self,
        site: usize,
        wanted: Version,
        token: &Token,
        sent: (&HeaderValue, u32),
        until: Instant,
    ) -> Result<Option<String>, Unhelpful> {
        let place = (site, wanted.clone());
        let public = {
            let known = self.sites.known();
            match known.there.get(&place) {
                Some(Ok(version)) => return Ok(Some(version.clone())),
                Some(Err(since)) if since.elapsed() < self.failover_interval => return Ok(None),
                _ => known.public.get(&wanted).cloned(),
            }
        };
        let (name, version) = &wanted;
        let same = |bundle: &KeyBundle| match &public {
            Some(public) => {
                PublicKey::from_jwk(&bundle.key).ok().flatten().as_ref() == Some(public)
            }
            None => matches!(PublicKey::from_jwk(&bundle.key), Ok(None)),
        };
        let paired = paired(&self.replicas, site, name, version);
        let mut found = None;
        let mut candidates = vec![Some(paired)];
        if public.is_some() {
            candidates.push(None);
        }
        for candidate in candidates {
            let key = KeyRef { name, version: candidate.as_deref() };
            match self.look(key, site, token, sent, until)? {
                Looked::Bundle(bundle) if same(&bundle) => found = version_of(&bundle),
                Looked::Bundle(_) | Looked::Nothing => {}
                // Without permission to look, the version's text is all there is to go by.
                Looked::Forbidden => found = candidate,
            }
            if found.is_some() {
                break;
            }
        }
        if found.is_none() && public.is_some() {
            for version in self.versions_at(site, name, token, sent, until)? {
                let key = KeyRef::version(name, &version);
                if let Looked::Bundle(bundle) = self.look(key, site, token, sent, until)?
                    && same(&bundle)
                {
                    found = version_of(&bundle);
                    break;
                }
            }
        }
        let finding = found.clone().ok_or_else(Instant::now);
        self.sites.known().there.insert(place, finding);
        Ok(found)
    }

    fn look(
        &self,
        key: KeyRef<'_>,
        site: usize,
        token: &Token,
        sent: (&HeaderValue, u32),
        until: Instant,
    ) -> Result<Looked, Unhelpful> {
        let Ok(call) = Call::new(Operation::GetKey, key) else { return Ok(Looked::Nothing) };
        let answer = self.send(&call, site, None, token, sent, until);
        match answer {
            Ok(answer) if answer.status == 200 => {
                let bundle = serde_json::from_slice(&answer.body);
                Ok(bundle.map_or(Looked::Nothing, |bundle| Looked::Bundle(Box::new(bundle))))
            }
            Ok(answer) if answer.status == 404 => Ok(Looked::Nothing),
            Ok(answer) if answer.status == 403 => Ok(Looked::Forbidden),
            other => Err(Box::new(other)),
        }
    }

    /// The versions of a name at `site`, newest first; of the first page, which is all but ever.
    fn versions_at(
        &self,
        site: usize,
        name: &str,
        token: &Token,
        sent: (&HeaderValue, u32),
        until: Instant,
    ) -> Result<Vec<String>, Unhelpful> {
        let key = KeyRef::current(name);
        let Ok(call) = Call::new(Operation::ListKeyVersions, key) else { return Ok(Vec::new()) };
        let answer = self.send(&call, site, None, token, sent, until);
        let Ok(answer) = &answer else { return Err(Box::new(answer)) };
        let Ok(page) = serde_json::from_slice::<Page<KeyItem>>(&answer.body) else {
            return Ok(Vec::new());
        };
        let mut items = page.value;
        items.sort_by_key(|item| std::cmp::Reverse(item.attributes.created));
        let versions = items.iter().filter_map(|item| Some(item.name_and_version()?.1.to_owned()));
        Ok(versions.take(MOST_VERSIONS).collect())
    }
}

/// The answer that ended a search.
type Unhelpful = Box<Result<Response, NetError>>;

enum Looked {
    Bundle(Box<KeyBundle>),
    Nothing,
    Forbidden,
}

fn version_of(bundle: &KeyBundle) -> Option<String> {
    bundle.key.name_and_version().map(|(_, version)| version.to_owned())
}

/// What the configuration says that a version is called at `site` (0 is the token's endpoint),
/// else the version itself. The version may be that of any endpoint: objects that were found
/// while the first was away bear the text of its stand-in.
fn paired(replicas: &[Replica], site: usize, name: &str, version: &str) -> String {
    let pairs = || replicas.iter().flat_map(|replica| &replica.versions);
    let of_name = |pair: &&(String, String, String)| pair.0 == name;
    let first = pairs()
        .filter(of_name)
        .find(|(_, _, there)| there == version)
        .map_or(version, |(_, first, _)| first);
    let there = site.checked_sub(1).and_then(|replica| replicas.get(replica));
    let there = there.and_then(|replica| {
        replica.versions.iter().filter(of_name).find(|(_, here, _)| here == first)
    });
    there.map_or(first, |(_, _, there)| there).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Endpoint, Service};

    #[test]
    fn a_pair_is_found_from_either_side() {
        let replica = |there: &str| Replica {
            endpoint: Endpoint { host: there.into(), port: 443, service: Service::ManagedHsm },
            address: None,
            versions: vec![("kek".into(), "a0".into(), there.into())],
        };
        let replicas = [replica("b1"), replica("c2")];
        for from in ["a0", "b1", "c2"] {
            let all = [0, 1, 2].map(|site| paired(&replicas, site, "kek", from));
            assert_eq!(all, ["a0", "b1", "c2"], "from {from}");
        }
        assert_eq!(paired(&replicas, 1, "kek", "other"), "other");
        assert_eq!(paired(&replicas, 1, "other", "a0"), "a0");
    }
}
