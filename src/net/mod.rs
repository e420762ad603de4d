//! ROOM 5: HTTPS, and the only place that waits for a future.
//!
//! A token's [`Net`] is a pool of connections, last in first out. A caller takes one, drives its
//! request on its own thread and puts it back; no thread is ever started, and callers share
//! nothing while they wait. What most calls go over is a *direct* connection, a socket and rustls;
//! searches, token requests and proxies use a *lane*, a tokio current_thread runtime with a
//! client. After a fork the child forgets (never drops) its parent's `Net` and makes its own.

mod direct;
mod dns;
pub mod http1;
mod lane;
mod message;
mod origin;
mod resolver;
mod surroundings;
mod tls;

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cryptoki_sys::CKR_GENERAL_ERROR;

use self::{
    direct::Direct,
    lane::{Lane, LanePlan},
    resolver::Resolver,
    tls::Tls,
};
pub use self::{
    lane::Pace,
    message::{Headers, MAX_BODY, NetError, Request, Response},
    origin::Origin,
    surroundings::Surroundings,
};
use crate::{
    config::TokenConfig,
    error::{Error, Result},
};

/// What is sent on a connection that has brought answers is acknowledged within this time, or the
/// connection is dead: time for at least two repetitions by TCP, whose first comes after 200 ms
/// (docs/adr/004-direct-connections.md).
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(1);

/// One token's way to the network. Cheap to clone; clones share the lanes.
#[derive(Clone)]
pub struct Net {
    inner: Arc<Inner>,
}

struct Inner {
    plan: LanePlan,
    max_connections: usize,
    pool: Mutex<Pool>,
    /// Told when a way came back or was given up.
    freed: Condvar,
    /// The lane of open searches, with as many connections as those are wide; they do not count
    /// as some of `max_connections`. A second search at the same time builds its own.
    wide: Mutex<Option<Lane>>,
}

struct Pool {
    /// The one used last is at the end and taken first, so that the others can grow stale.
    idle: Vec<Way>,
    /// Idle and taken.
    existing: usize,
    /// Callers that wait for one. Telling nobody costs a system call, too.
    waiting: usize,
}

/// One connection to the service, there or to be made.
enum Way {
    /// What everything goes over that can.
    Direct(Box<Direct>),
    /// Through a proxy.
    Lane(Lane),
}

impl Way {
    fn new(plan: &LanePlan) -> std::result::Result<Way, NetError> {
        Ok(match plan.proxy {
            None => Way::Direct(Box::new(Direct::new())),
            Some(_) => Way::Lane(plan.build(1)?),
        })
    }

    fn send(
        &mut self,
        plan: &LanePlan,
        request: &Request,
        deadline: Instant,
    ) -> std::result::Result<Response, NetError> {
        match self {
            Way::Direct(direct) => direct.send(plan, request, deadline),
            Way::Lane(lane) => {
                if request.fresh {
                    *lane = plan.build(1)?;
                }
                lane.send(request, deadline)
            }
        }
    }

    fn stale(&self, now: Instant) -> bool {
        match self {
            Way::Direct(direct) => direct.stale(now),
            Way::Lane(lane) => lane.stale(now),
        }
    }
}

impl Net {
    /// Makes no request and opens no descriptor.
    ///
    /// # Errors
    /// CKR_GENERAL_ERROR for a CA file without certificates or an unusable proxy URL.
    pub fn new(config: &TokenConfig, surroundings: Arc<Surroundings>) -> Result<Self> {
        let first = (&config.endpoint, config.address);
        let others = config.replicas.iter().map(|replica| (&replica.endpoint, replica.address));
        let fixed = std::iter::once(first)
            .chain(others)
            .filter_map(|(endpoint, address)| Some((endpoint.host.clone(), address?)))
            .collect();
        let plan = LanePlan {
            resolver: Arc::new(Resolver::new(&surroundings, fixed, config.connect_timeout)),
            tls: Tls::new(config.ca.as_deref(), surroundings)?,
            proxy: config.proxy.as_deref().map(explicit_proxy).transpose()?,
            connect_timeout: config.connect_timeout,
            acknowledge_timeout: ACKNOWLEDGED_WITHIN
                .min(config.connect_timeout)
                .min(config.timeout / 3),
        };
        let pool = Mutex::new(Pool { idle: Vec::new(), existing: 0, waiting: 0 });
        let inner = Inner {
            plan,
            max_connections: config.max_connections.max(1),
            pool,
            freed: Condvar::new(),
            wide: Mutex::new(None),
        };
        Ok(Net { inner: Arc::new(inner) })
    }

    /// Sends one request to the service and waits for its whole answer, whatever its status.
    ///
    /// # Errors
    /// [`NetError`]; nothing is repeated here.
    pub fn send(
        &self,
        request: &Request,
        deadline: Instant,
    ) -> std::result::Result<Response, NetError> {
        if self.inner.plan.proxy.is_some() {
            lane::usable_thread()?;
        }
        let mut taken = self.take(deadline)?;
        stumble!("net");
        let answer = taken.way()?.send(&self.inner.plan, request, deadline);
        match answer {
            // A connection in an unknown state goes with its way, so that its socket is closed
            // now and not whenever the way is driven again.
            Err(NetError::Timeout | NetError::TooLong) => drop(taken),
            _ => {
                taken.way.iter().for_each(|way| self.inner.drop_forgotten(way));
                taken.give_back();
            }
        }
        answer
    }

    /// Sends one request to whom tokens are asked for, on a connection of its own that is closed
    /// at once: there is about one such request in an hour.
    ///
    /// # Errors
    /// [`NetError`]; nothing is repeated here.
    pub fn send_to_authority(
        &self,
        request: &Request,
        deadline: Instant,
    ) -> std::result::Result<Response, NetError> {
        lane::usable_thread()?;
        self.inner.plan.build(0)?.send(request, deadline)
    }

    /// Sends many requests from one wide lane; `answered` gets each index with the time its request
    /// was sent and its answer, in the order of arrival. A request whose index never comes was not
    /// answered.
    ///
    /// # Errors
    /// [`NetError`] when the lane itself could not be had or driven.
    pub fn send_all(
        &self,
        requests: Vec<Request>,
        pace: Pace,
        deadline: Instant,
        answered: impl FnMut(usize, Instant, std::result::Result<Response, NetError>),
    ) -> std::result::Result<(), NetError> {
        lane::usable_thread()?;
        self.inner.drop_stale_wide_lane();
        let kept = locked(&self.inner.wide).take();
        let mut lane = match kept {
            Some(lane) => lane,
            None => self.inner.plan.build(pace.width)?,
        };
        lane.send_all(requests, pace, deadline, answered);
        let replaced = locked(&self.inner.wide).replace(lane);
        drop(replaced);
        Ok(())
    }

    /// The addresses requests to `host` go to, with port 0 for the URL's: `address` of the
    /// configuration, the hosts file or DNS. Behind a proxy nobody asks this.
    ///
    /// # Errors
    /// [`NetError::UnknownHost`] or [`NetError::Connect`] with the reason.
    pub fn addresses(&self, host: &str) -> std::result::Result<Vec<SocketAddr>, NetError> {
        let LanePlan { resolver, connect_timeout, .. } = &self.inner.plan;
        let limit = Instant::now() + *connect_timeout;
        resolver.at_hand(host).map_or_else(|| lane::look_up(resolver, host, limit), Ok)
    }

    fn take(&self, deadline: Instant) -> std::result::Result<Taken<'_>, NetError> {
        let inner = &*self.inner;
        inner.drop_stale_wide_lane();
        let mut pool = locked(&inner.pool);
        loop {
            let now = Instant::now();
            let stale = pool.idle.iter().take_while(|way| way.stale(now)).count();
            let dropped: Vec<Way> = pool.idle.drain(..stale).collect();
            pool.existing -= dropped.len();
            if let Some(way) = pool.idle.pop() {
                drop(pool);
                drop(dropped);
                return Ok(Taken { inner, way: Some(way) });
            }
            if pool.existing < inner.max_connections {
                pool.existing += 1;
                drop(pool);
                drop(dropped);
                // From here on `Taken` keeps the count right, should building fail.
                return Ok(Taken { inner, way: None });
            }
            let Some(left) = deadline.checked_duration_since(now).filter(|left| !left.is_zero())
            else {
                return Err(NetError::Busy);
            };
            pool.waiting += 1;
            pool = inner.freed.wait_timeout(pool, left).unwrap_or_else(PoisonError::into_inner).0;
            pool.waiting -= 1;
        }
    }
}

impl Inner {
    /// What was idle longer than a connection that somebody between has forgotten is forgotten
    /// too: the next caller does not have to find that out.
    fn drop_forgotten(&self, way: &Way) {
        let since = match way {
            Way::Direct(direct) if direct.forgotten => direct.last_used,
            _ => return,
        };
        let mut pool = locked(&self.pool);
        let (dropped, kept) = std::mem::take(&mut pool.idle)
            .into_iter()
            .partition(|way| matches!(way, Way::Direct(direct) if direct.last_used <= since));
        let dropped: Vec<Way> = dropped;
        pool.idle = kept;
        pool.existing -= dropped.len();
        drop(pool);
        drop(dropped);
        self.freed.notify_all();
    }

    /// The last search may have been the only one, and its connections are many.
    fn drop_stale_wide_lane(&self) {
        let stale = match self.wide.try_lock() {
            Ok(mut wide) => {
                wide.take_if(|lane| lane.idle_at(Instant::now()) > lane::WIDE_IDLE_LIMIT)
            }
            Err(_) => None,
        };
        drop(stale);
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").finish_non_exhaustive()
    }
}

/// A place in the pool, with its way once it is built. Dropped with the way unless given back.
struct Taken<'a> {
    inner: &'a Inner,
    way: Option<Way>,
}

impl Taken<'_> {
    fn way(&mut self) -> std::result::Result<&mut Way, NetError> {
        if self.way.is_none() {
            self.way = Some(Way::new(&self.inner.plan)?);
        }
        self.way.as_mut().ok_or(NetError::Busy)
    }

    fn give_back(mut self) {
        if let Some(way) = self.way.take() {
            let mut pool = locked(&self.inner.pool);
            pool.idle.push(way);
            // `drop` below takes one off for a way that is gone; this one is not.
            pool.existing += 1;
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        drop(self.way.take());
        let mut pool = locked(&self.inner.pool);
        pool.existing -= 1;
        let waited_for = pool.waiting > 0;
        drop(pool);
        if waited_for {
            self.inner.freed.notify_one();
        }
    }
}

/// A panic elsewhere leaves the pool as it was between two statements, each of which keeps it
/// whole: poison means nothing here.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For TLS only, which is everything but the identity endpoints of a machine: those are link-local
/// or loopback, and no proxy can reach them.
fn explicit_proxy(url: &str) -> Result<reqwest::Proxy> {
    reqwest::Proxy::https(url).map_err(|error| {
        let error = error.without_url();
        Error::new(CKR_GENERAL_ERROR, format!("proxy = {url:?} is no usable URL: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Env};

    fn net() -> Net {
        let text = "[[token]]\nendpoint = 'https://contoso.vault.azure.net'\n\
                    max_connections = 3\ncredential = 'managed-identity'\n";
        let mut token =
            Config::parse(text, "test", &Env::empty()).expect("config").tokens.remove(0);
        token.ca = Some(tls::tests::ca());
        Net::new(&token, Arc::default()).expect("net")
    }

    #[test]
    fn the_way_used_last_is_taken_first_and_stale_ones_go() {
        let net = net();
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut taken: Vec<_> = (0..3).map(|_| net.take(deadline).expect("place")).collect();
        for each in &mut taken {
            each.way().expect("way");
        }
        assert_eq!(net.take(Instant::now()).err(), Some(NetError::Busy));
        for each in taken {
            each.give_back();
        }
        let long_ago = Instant::now() - lane::IDLE_LIMIT - Duration::from_secs(1);
        for way in &mut locked(&net.inner.pool).idle[..2] {
            match way {
                Way::Direct(direct) => direct.last_used = long_ago,
                Way::Lane(lane) => lane.last_used = long_ago,
            }
        }
        let mut wide = net.inner.plan.build(8).expect("lane");
        wide.last_used = long_ago;
        *locked(&net.inner.wide) = Some(wide);
        let taken = net.take(deadline).expect("place");
        assert!(taken.way.is_some(), "the one that is still fresh");
        assert!(locked(&net.inner.wide).is_none());
        let pool = locked(&net.inner.pool);
        assert_eq!((pool.idle.len(), pool.existing), (0, 1));
    }

    #[test]
    fn a_place_given_up_is_free_again() {
        let net = net();
        for _ in 0..10 {
            drop(net.take(Instant::now()).expect("place"));
        }
        assert_eq!(locked(&net.inner.pool).existing, 0);
    }
}
