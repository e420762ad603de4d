//! ROOM 5: HTTPS, and the only place that waits for a future.
//!
//! A token's [`Net`] is a pool of lanes, last in first out. A lane is a tokio current_thread
//! runtime and a client with one connection. A caller takes a lane, drives its request on its own
//! thread and puts the lane back; no thread is ever started, and callers share nothing while they
//! wait. After a fork the child forgets (never drops) its parent's `Net` and makes its own.

mod dns;
mod lane;
mod message;
mod resolver;
mod surroundings;
mod tls;

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use cryptoki_sys::CKR_GENERAL_ERROR;

pub use self::{
    lane::Pace,
    message::{MAX_BODY, NetError, Request, Response},
    surroundings::Surroundings,
};
use self::{
    lane::{Lane, LanePlan},
    resolver::Resolver,
    tls::Tls,
};
use crate::{
    config::TokenConfig,
    error::{Error, Result},
};

/// One token's way to the network. Cheap to clone; clones share the lanes.
#[derive(Clone)]
pub struct Net {
    inner: Arc<Inner>,
}

struct Inner {
    plan: LanePlan,
    max_lanes: usize,
    pool: Mutex<Pool>,
    /// Told when a lane came back or was given up.
    freed: Condvar,
    /// The lane of open searches, with as many connections as those are wide; it does not count
    /// as one of `max_lanes`. A second search at the same time builds its own.
    wide: Mutex<Option<Lane>>,
}

struct Pool {
    /// The one used last is at the end and taken first, so that the others can grow stale.
    idle: Vec<Lane>,
    /// Idle and taken.
    existing: usize,
}

impl Net {
    /// Makes no request and opens no descriptor.
    ///
    /// # Errors
    /// CKR_GENERAL_ERROR for a CA file without certificates or an unusable proxy URL.
    pub fn new(config: &TokenConfig, surroundings: Arc<Surroundings>) -> Result<Self> {
        let plan = LanePlan {
            resolver: Arc::new(Resolver::new(
                &surroundings,
                config.address.map(|address| (config.endpoint.host.clone(), address)),
                config.connect_timeout,
            )),
            tls: Tls::new(config.ca.as_deref(), surroundings)?,
            proxy: config.proxy.as_deref().map(explicit_proxy).transpose()?,
            connect_timeout: config.connect_timeout,
        };
        let pool = Mutex::new(Pool { idle: Vec::new(), existing: 0 });
        let inner = Inner {
            plan,
            max_lanes: config.max_connections.max(1),
            pool,
            freed: Condvar::new(),
            wide: Mutex::new(None),
        };
        Ok(Net { inner: Arc::new(inner) })
    }

    /// Sends one request and waits for its whole answer, whatever its status.
    ///
    /// # Errors
    /// [`NetError`]; nothing is repeated here.
    pub fn send(
        &self,
        request: &Request,
        deadline: Instant,
    ) -> std::result::Result<Response, NetError> {
        lane::usable_thread()?;
        let mut taken = self.take(deadline)?;
        let answer = taken.lane()?.send(request, deadline);
        match answer {
            // A connection in an unknown state goes with its lane, so that its socket is closed
            // now and not whenever the lane is driven again.
            Err(NetError::Timeout | NetError::TooLong) => drop(taken),
            _ => taken.give_back(),
        }
        answer
    }

    /// Sends many requests from one wide lane; `answered` gets each index with its answer, in the
    /// order of arrival. A request whose index never comes was not answered.
    ///
    /// # Errors
    /// [`NetError`] when the lane itself could not be had or driven.
    pub fn send_all(
        &self,
        requests: Vec<Request>,
        pace: Pace,
        deadline: Instant,
        answered: impl FnMut(usize, std::result::Result<Response, NetError>),
    ) -> std::result::Result<(), NetError> {
        lane::usable_thread()?;
        let kept = locked(&self.inner.wide).take().filter(|lane| !lane.stale(Instant::now()));
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
    /// [`NetError::Connect`] with the reason.
    pub fn addresses(
        &self,
        host: &str,
        deadline: Instant,
    ) -> std::result::Result<Vec<SocketAddr>, NetError> {
        lane::usable_thread()?;
        let mut taken = self.take(deadline)?;
        let resolved = taken.lane()?.resolve(&self.inner.plan.resolver, host);
        taken.give_back();
        resolved
    }

    fn take(&self, deadline: Instant) -> std::result::Result<Taken<'_>, NetError> {
        let inner = &*self.inner;
        inner.drop_stale_wide_lane();
        let mut pool = locked(&inner.pool);
        loop {
            let now = Instant::now();
            let stale = pool.idle.iter().take_while(|lane| lane.stale(now)).count();
            let dropped: Vec<Lane> = pool.idle.drain(..stale).collect();
            pool.existing -= dropped.len();
            if let Some(lane) = pool.idle.pop() {
                drop(pool);
                drop(dropped);
                return Ok(Taken { inner, lane: Some(lane) });
            }
            if pool.existing < inner.max_lanes {
                pool.existing += 1;
                drop(pool);
                drop(dropped);
                // From here on `Taken` keeps the count right, should building fail.
                return Ok(Taken { inner, lane: None });
            }
            let Some(left) = deadline.checked_duration_since(now).filter(|left| !left.is_zero())
            else {
                return Err(NetError::Busy);
            };
            pool = inner.freed.wait_timeout(pool, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Inner {
    /// The last search may have been the only one, and its connections are many.
    fn drop_stale_wide_lane(&self) {
        let stale = match self.wide.try_lock() {
            Ok(mut wide) => wide.take_if(|lane| lane.stale(Instant::now())),
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

/// A place in the pool, with its lane once it is built. Dropped with the lane unless given back.
struct Taken<'a> {
    inner: &'a Inner,
    lane: Option<Lane>,
}

impl Taken<'_> {
    fn lane(&mut self) -> std::result::Result<&mut Lane, NetError> {
        if self.lane.is_none() {
            self.lane = Some(self.inner.plan.build(1)?);
        }
        self.lane.as_mut().ok_or(NetError::Busy)
    }

    fn give_back(mut self) {
        if let Some(lane) = self.lane.take() {
            let mut pool = locked(&self.inner.pool);
            pool.idle.push(lane);
            // `drop` below takes one off for a lane that is gone; this one is not.
            pool.existing += 1;
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        drop(self.lane.take());
        locked(&self.inner.pool).existing -= 1;
        self.inner.freed.notify_one();
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
    use std::time::Duration;

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
    fn the_lane_used_last_is_taken_first_and_stale_ones_go() {
        let net = net();
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut taken: Vec<_> = (0..3).map(|_| net.take(deadline).expect("place")).collect();
        for each in &mut taken {
            each.lane().expect("lane");
        }
        assert_eq!(net.take(Instant::now()).err(), Some(NetError::Busy));
        for each in taken {
            each.give_back();
        }
        let long_ago = Instant::now() - lane::IDLE_LIMIT - Duration::from_secs(1);
        locked(&net.inner.pool).idle[..2].iter_mut().for_each(|lane| lane.last_used = long_ago);
        let mut wide = net.inner.plan.build(8).expect("lane");
        wide.last_used = long_ago;
        *locked(&net.inner.wide) = Some(wide);
        let taken = net.take(deadline).expect("place");
        assert!(taken.lane.is_some(), "the one that is still fresh");
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
