//! The endpoints of a token: one, or several that hold the same keys (`[[token.replica]]`).
//!
//! The first endpoint that is well is asked. One that cannot be reached rests: it is left alone
//! for `failover_interval`, after which one caller tries it again, for no longer than a connection
//! may take, while the others stay with its stand-in. One that answers but fails is left alone as
//! long as its back-off says. With one endpoint all of this is that endpoint's back-off.

use std::{
    net::SocketAddr,
    ops::Index,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{Operation, call, replica::Matches};
use crate::{
    backoff::Backoff,
    config::{Endpoint, TokenConfig},
    error::Result,
    net::Origin,
};

/// One endpoint.
pub(super) struct Site {
    /// `host`, or `host:port` where that is not 443: for messages.
    pub name: String,
    /// Whom requests go to.
    pub origin: Arc<Origin>,
    /// Host name and port, which a nextLink must have.
    pub endpoint: (String, u16),
    pub pauses: Pauses,
    rest: Mutex<Option<Instant>>,
}

/// The endpoints of a token, the configured one first. Never empty.
pub(super) struct Sites {
    all: Vec<Site>,
    pub label: String,
    interval: Duration,
    pub connect_timeout: Duration,
    /// Which version is which key, for failover between them.
    pub matches: Mutex<Matches>,
}

/// An endpoint's pauses. Requests that use keys have one of their own: a listing that fails does
/// not hold up signatures with keys that are known.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    using: Backoff,
    looking: Backoff,
}

impl Pauses {
    /// The pause that holds for an operation.
    pub fn of(&self, operation: Operation) -> &Backoff {
        match operation.uses_a_key() {
            true => &self.using,
            false => &self.looking,
        }
    }

    /// Notes a failure of the whole endpoint, for requests of all kinds.
    pub fn all_failed(&self, asked: Option<Duration>) {
        self.using.failed(asked);
        self.looking.failed(asked);
    }
}

/// What a call has tried.
#[derive(Debug)]
pub(super) struct Tries {
    operation: Operation,
    /// The endpoints that may be asked, one bit each.
    allowed: u32,
    /// Those that failed in this round.
    failed: u32,
    /// Times that every endpoint failed, plus one.
    pub round: u32,
    /// Requests sent so far.
    pub attempts: u32,
    /// The connection broke once: that is repeated at the same endpoint.
    lost: bool,
}

/// Which endpoint to ask now, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub site: usize,
    pub until: Instant,
}

impl Sites {
    /// # Errors
    /// CKR_GENERAL_ERROR for an endpoint that makes no URL.
    pub fn new(config: &TokenConfig, matches: Matches) -> Result<Sites> {
        let first = (&config.endpoint, config.address);
        let others = config.replicas.iter().map(|replica| (&replica.endpoint, replica.address));
        let through_proxy = config.proxy.is_some();
        let all = std::iter::once(first)
            .chain(others)
            .map(|(endpoint, address)| Site::new(endpoint, address, through_proxy))
            .collect::<Result<_>>()?;
        Ok(Sites {
            all,
            label: config.label.clone(),
            interval: config.failover_interval,
            connect_timeout: config.connect_timeout,
            matches: Mutex::new(matches.with_given(config)),
        })
    }

    /// The configured endpoint.
    pub fn first(&self) -> &Site {
        &self.all[0]
    }

    /// Whether there is a choice.
    pub fn many(&self) -> bool {
        self.all.len() > 1
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// The tries of a call that has not begun: at all endpoints where the operation changes
    /// nothing, else at the first alone, so that the copies stay copies.
    pub fn tries(&self, operation: Operation) -> Tries {
        match operation.on_replicas() {
            true => Tries::at(operation, u32::MAX >> (32 - self.all.len().min(32))),
            false => Tries::only(operation, 0),
        }
    }

    /// The endpoint to ask now: the first that is well, else the one that will be so first.
    pub fn turn(&self, tries: &mut Tries, deadline: Instant) -> Turn {
        if tries.allowed.is_power_of_two() {
            tries.next_round_if_needed();
            return Turn { site: tries.allowed.trailing_zeros() as usize, until: deadline };
        }
        tries.next_round_if_needed();
        let (now, operation) = (Instant::now(), tries.operation);
        let untried = |site: &usize| tries.open() & (1 << site) != 0;
        let candidates: Vec<usize> = (0..self.all.len()).filter(untried).collect();
        let resting = |site: usize| (*self.all[site].rest()).is_some_and(|until| until > now);
        let pause = |site: usize| self.all[site].pauses.of(operation);
        let well = |site: &&usize| !resting(**site) && pause(**site).is_over(now);
        let others = |chosen: usize| candidates.iter().any(|s| *s != chosen && !resting(*s));
        let Some(site) = candidates.iter().find(well).copied() else {
            let soonest = |site: &&usize| {
                let rest = (*self.all[**site].rest()).filter(|until| *until > now);
                (rest.is_some(), rest.max(pause(**site).until()))
            };
            let site = candidates.iter().min_by_key(soonest).copied().unwrap_or(0);
            return Turn { site, until: deadline };
        };
        // Where others are left to ask, one endpoint gets half of the time.
        let until = match others(site) {
            true => now + deadline.saturating_duration_since(now) / 2,
            false => deadline,
        };
        // After its rest one caller tries it, and costs itself no more than a connection may.
        let mut rest = self.all[site].rest();
        match *rest {
            Some(_) => {
                *rest = Some(now + self.interval);
                let patience = until.min(now + self.connect_timeout);
                Turn { site, until: if others(site) { patience } else { until } }
            }
            None => Turn { site, until },
        }
    }

    /// Notes that an endpoint gave no answer: it rests.
    pub fn unreachable(&self, site: usize, why: &dyn std::fmt::Display) {
        let until = Instant::now() + self.interval;
        let before = self.all[site].rest().replace(until);
        if before.is_none() {
            log::warn!(
                "token '{}': endpoint {} is left alone for {:?}: {why}",
                self.label,
                self.all[site].name,
                self.interval
            );
        }
    }

    /// Notes that an endpoint answered.
    pub fn answers(&self, site: usize) {
        if self.many() && self.all[site].rest().take().is_some() {
            log::warn!("token '{}': endpoint {} answers again", self.label, self.all[site].name);
        }
    }
}

impl Index<usize> for Sites {
    type Output = Site;

    fn index(&self, site: usize) -> &Site {
        &self.all[site]
    }
}

impl Site {
    fn new(endpoint: &Endpoint, address: Option<SocketAddr>, through_proxy: bool) -> Result<Site> {
        let origin = call::origin(endpoint, address.is_some() && !through_proxy)?;
        let name = match endpoint.port {
            443 => endpoint.host.clone(),
            port => format!("{}:{port}", endpoint.host),
        };
        let endpoint = (endpoint.host.clone(), endpoint.port);
        let (pauses, rest) = (Pauses::default(), Mutex::new(None));
        Ok(Site { name, origin: Arc::new(origin), endpoint, pauses, rest })
    }

    /// Left alone until then.
    fn rest(&self) -> MutexGuard<'_, Option<Instant>> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tries {
    fn at(operation: Operation, allowed: u32) -> Tries {
        Tries { operation, allowed, failed: 0, round: 1, attempts: 0, lost: false }
    }

    /// At one endpoint, whatever becomes of it.
    pub fn only(operation: Operation, site: usize) -> Tries {
        Tries::at(operation, 1 << site)
    }

    /// Whether another endpoint than `site` is left to ask in this round.
    pub fn others(&self, site: usize) -> bool {
        self.open() & !(1 << site) != 0
    }

    /// Notes that an endpoint failed. A connection that broke (`lost`) may have died while it was
    /// idle: that is repeated at the same endpoint, once.
    pub fn failed(&mut self, site: usize, lost: bool) {
        if lost && !self.lost {
            self.lost = true;
        } else {
            self.failed |= 1 << site;
        }
    }

    fn open(&self) -> u32 {
        self.allowed & !self.failed
    }

    fn next_round_if_needed(&mut self) {
        if self.open() == 0 {
            self.failed = 0;
            self.round += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Env};

    fn sites(interval: &str) -> Sites {
        let text = format!(
            "[[token]]\nendpoint = 'https://a.vault.azure.net'\ncredential = 'managed-identity'\n\
             failover_interval = '{interval}'\nconnect_timeout = '1s'\n\
             replica = [{{ endpoint = 'https://b.vault.azure.net' }}, \
             {{ endpoint = 'https://c.vault.azure.net:8443' }}]\n"
        );
        let config = Config::parse(&text, "test", &Env::empty()).expect("config");
        Sites::new(&config.tokens[0], Matches::default()).expect("sites")
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn site_of(sites: &Sites, tries: &mut Tries) -> usize {
        sites.turn(tries, soon()).site
    }

    #[test]
    fn the_first_that_is_well_is_asked_and_others_in_turn() {
        let sites = sites("1h");
        assert_eq!(sites[2].name, "c.vault.azure.net:8443");
        let mut tries = sites.tries(Operation::Sign);
        let deadline = soon();
        let turn = sites.turn(&mut tries, deadline);
        assert_eq!(turn.site, 0);
        assert!(
            turn.until < deadline - Duration::from_secs(4),
            "others are left: half of the time"
        );
        sites.unreachable(0, &"test");
        tries.failed(0, false);
        assert_eq!(site_of(&sites, &mut tries), 1);
        sites[1].pauses.all_failed(Some(Duration::from_secs(60)));
        tries.failed(1, false);
        let turn = sites.turn(&mut tries, deadline);
        assert_eq!((turn.site, turn.until), (2, deadline), "the last one gets what is left");
        tries.failed(2, false);
        // The next round begins with the one that is well.
        assert_eq!((site_of(&sites, &mut tries), tries.round), (2, 2));
        assert_eq!(site_of(&sites, &mut sites.tries(Operation::GetKey)), 2);
        // Resting is worse than failing.
        tries.failed(2, false);
        assert_eq!(site_of(&sites, &mut tries), 1);
    }

    #[test]
    fn changes_are_made_at_the_first_endpoint_only() {
        let sites = sites("1h");
        sites.unreachable(0, &"test");
        let mut tries = sites.tries(Operation::CreateKey);
        assert_eq!(site_of(&sites, &mut tries), 0);
        assert!(!tries.others(0));
        tries.failed(0, false);
        assert_eq!((site_of(&sites, &mut tries), tries.round), (0, 2));
    }

    #[test]
    fn after_its_rest_one_caller_tries_an_endpoint_and_no_longer_than_a_connection_takes() {
        let sites = sites("100ms");
        sites.unreachable(0, &"test");
        let ask = || {
            let started = Instant::now();
            let turn = sites.turn(&mut sites.tries(Operation::Sign), soon());
            (turn.site, turn.until - started < Duration::from_millis(1100))
        };
        assert_eq!(ask(), (1, false));
        std::thread::sleep(Duration::from_millis(120));
        assert_eq!(ask(), (0, true), "the one");
        assert_eq!(ask(), (1, false), "the next");
        sites.answers(0);
        assert_eq!(ask(), (0, false));
    }

    #[test]
    fn a_broken_connection_is_repeated_once_at_the_same_endpoint() {
        let sites = sites("1h");
        let mut tries = sites.tries(Operation::Sign);
        tries.failed(0, true);
        assert_eq!(site_of(&sites, &mut tries), 0);
        tries.failed(0, true);
        assert_eq!(site_of(&sites, &mut tries), 1);
    }

    #[test]
    fn a_listing_that_fails_holds_up_no_signature_and_a_throttled_endpoint_both() {
        let pauses = Pauses::default();
        pauses.of(Operation::ListKeys).failed(Some(Duration::from_secs(30)));
        assert!(pauses.of(Operation::Sign).is_over(Instant::now()));
        assert!(!pauses.of(Operation::GetKey).is_over(Instant::now()));
        pauses.all_failed(Some(Duration::from_secs(30)));
        assert!(!pauses.of(Operation::Decrypt).is_over(Instant::now()));
    }
}
