//! A lane: a runtime without threads and a client, driven by whoever holds it.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::{header::HOST, redirect};
use tokio::runtime::{Builder, Handle, Runtime};

use super::{
    NetError, Request, Response,
    message::Body,
    resolver::{LaneResolver, Resolver},
    tls::Tls,
};
use crate::process::SigpipeGuard;

/// A connection idle for longer is not trusted to be alive, and a lane idle for longer is
/// dropped: below the four minutes after which Azure's load balancers forget a flow.
pub(super) const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// The same for the lane of searches. A firewall may have forgotten its connections, which shows
/// only when nothing that was sent is acknowledged for as long as a connection may take: they are
/// kept for the pages and rounds of one search, and new ones cost a search little.
pub(super) const WIDE_IDLE_LIMIT: Duration = Duration::from_secs(5);

/// What every lane of a token is built from.
pub(super) struct LanePlan {
    pub tls: Tls,
    pub resolver: Arc<Resolver>,
    pub proxy: Option<reqwest::Proxy>,
    pub connect_timeout: Duration,
    /// For so long a working connection may leave what is sent on it unacknowledged.
    pub acknowledge_timeout: Duration,
}

/// A tokio current_thread runtime and a client whose connections live on it. Nothing happens on a
/// lane unless a caller drives it.
pub(super) struct Lane {
    // Before the runtime: the client's connections are tasks of it.
    client: reqwest::Client,
    runtime: Runtime,
    connect_timeout: Duration,
    pub last_used: Instant,
}

impl LanePlan {
    /// A lane that keeps at most `connections` connections per host.
    pub fn build(&self, connections: usize) -> Result<Lane, NetError> {
        let resources = |error: &dyn std::error::Error| NetError::Resources(error.to_string());
        let tls = self.tls.config()?;
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured((*tls).clone())
            // The client would take HTTPS_PROXY from the environment otherwise.
            .no_proxy()
            .http1_only()
            .redirect(redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .dns_resolver(Arc::new(LaneResolver(self.resolver.clone())))
            .pool_max_idle_per_host(connections)
            .pool_idle_timeout(IDLE_LIMIT)
            .connect_timeout(self.connect_timeout)
            // As for direct connections that are not used yet.
            .tcp_user_timeout(self.connect_timeout);
        let builder = match &self.proxy {
            Some(proxy) => builder.proxy(proxy.clone()),
            None => builder,
        };
        let client = builder.build().map_err(|error| resources(&error))?;
        Ok(Lane {
            client,
            runtime: runtime()?,
            connect_timeout: self.connect_timeout,
            last_used: Instant::now(),
        })
    }
}

impl Lane {
    /// Sends one request and reads its answer, on the calling thread.
    pub fn send(&mut self, request: &Request, deadline: Instant) -> Result<Response, NetError> {
        let client = self.client.clone();
        let sent = exchange(client, request.clone(), deadline, self.connect_timeout);
        self.drive(sent)
    }

    /// Sends many requests, `width` at a time and at most `rate` each second (0 = unpaced).
    /// Answers arrive in any order, each with the index of its request and when that was sent. Each
    /// request has `limit`, all of them `deadline`.
    pub fn send_all(
        &mut self,
        requests: Vec<Request>,
        pace: Pace,
        deadline: Instant,
        mut answered: impl FnMut(usize, Instant, Result<Response, NetError>),
    ) {
        let client = self.client.clone();
        let connect_timeout = self.connect_timeout;
        self.drive(async move {
            let mut flying = tokio::task::JoinSet::new();
            let mut start = Instant::now();
            let mut waiting = requests.into_iter().enumerate();
            loop {
                while flying.len() < pace.width.max(1) {
                    let Some((index, request)) = waiting.next() else { break };
                    let client = client.clone();
                    let at = start;
                    start = at.max(Instant::now()) + pace.interval();
                    flying.spawn(async move {
                        tokio::time::sleep_until(at.into()).await;
                        let sent = Instant::now();
                        let until = deadline.min(sent + pace.limit);
                        (index, sent, exchange(client, request, until, connect_timeout).await)
                    });
                }
                match flying.join_next().await {
                    Some(Ok((index, sent, answer))) => answered(index, sent, answer),
                    // A task that panicked has no index; its caller misses the answer and asks
                    // again, which is what happens to a lost one too.
                    Some(Err(_)) => {}
                    None => return,
                }
            }
        });
    }

    /// Idle for longer than [`IDLE_LIMIT`].
    pub fn stale(&self, now: Instant) -> bool {
        self.idle_at(now) > IDLE_LIMIT
    }

    /// How long nobody has used it.
    pub fn idle_at(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_used)
    }

    /// Runs `future` on this thread with SIGPIPE kept away from the host.
    fn drive<F: Future>(&mut self, future: F) -> F::Output {
        let _guard = SigpipeGuard::new();
        let output = self.runtime.block_on(async {
            // One turn of the runtime before the request: a connection that the server closed
            // while nobody drove this lane is seen now, and replaced, instead of written to.
            tokio::task::yield_now().await;
            future.await
        });
        self.last_used = Instant::now();
        output
    }
}

/// How fast many requests go out.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Requests in flight at once, at least 1.
    pub width: usize,
    /// Requests started in a second, 0 = as fast as they go.
    pub rate: u32,
    /// Time for one request.
    pub limit: Duration,
}

impl Pace {
    fn interval(&self) -> Duration {
        match self.rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs(1) / rate,
        }
    }
}

/// The addresses of a name that DNS has to be asked for, until `limit`.
pub(super) fn look_up(
    resolver: &Resolver,
    host: &str,
    limit: Instant,
) -> Result<Vec<SocketAddr>, NetError> {
    usable_thread()?;
    let _guard = SigpipeGuard::new();
    let found = runtime()?
        .block_on(async { tokio::time::timeout_at(limit.into(), resolver.resolve(host)).await });
    match found {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            Err(NetError::UnknownHost(error.to_string()))
        }
        Ok(Err(error)) => Err(NetError::Connect(error.to_string())),
        Err(_) => Err(NetError::Connect(format!("DNS: no answer about {host} in time"))),
    }
}

fn runtime() -> Result<Runtime, NetError> {
    Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| NetError::Resources(error.to_string()))
}

/// Refuses where tokio would panic: in an exit handler of a thread whose thread-locals are gone,
/// and on a thread that a runtime of the host's is driving.
pub(super) fn usable_thread() -> Result<(), NetError> {
    match Handle::try_current() {
        Ok(_) => Err(NetError::InsideRuntime),
        Err(error) if error.is_thread_local_destroyed() => Err(NetError::ThreadEnding),
        Err(_) => Ok(()),
    }
}

async fn exchange(
    client: reqwest::Client,
    request: Request,
    deadline: Instant,
    connect_timeout: Duration,
) -> Result<Response, NetError> {
    let failed = |error| NetError::from_client(error, connect_timeout);
    let whole = async {
        stumble!("net");
        let url = request.origin.url(&request.target);
        let url = url.ok_or_else(|| NetError::Connect("the request has no URL".into()))?;
        let mut outgoing = reqwest::Request::new(request.method, url);
        let headers = outgoing.headers_mut();
        headers.extend(request.headers);
        if let Some(host) = request.origin.renamed() {
            headers.insert(HOST, host.clone());
        }
        *outgoing.body_mut() = request.body.map(reqwest::Body::from);
        let mut answer = client.execute(outgoing).await.map_err(failed)?;
        stumble!("net");
        let announced = answer.content_length().unwrap_or(0);
        let mut body = Body::with_room(usize::try_from(announced).unwrap_or(usize::MAX))?;
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            body.push(&chunk)?;
        }
        Ok(Response {
            status: answer.status().as_u16(),
            headers: std::mem::take(answer.headers_mut()).into(),
            body: body.0,
        })
    };
    match tokio::time::timeout_at(deadline.into(), whole).await {
        Ok(answer) => answer,
        Err(_) => Err(NetError::Timeout),
    }
}
