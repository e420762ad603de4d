//! Names, resolved on the lane that asks, so that the deadline interrupts a lookup as well.
//!
//! The C library's resolver blocks and cannot be interrupted; resolver crates keep background
//! tasks on the runtime of whoever came first. This one is a stub: hosts and resolv.conf as they
//! were read at C_Initialize, one socket per lookup, a cache per token that honours the TTL, and
//! the last known addresses while DNS is down. Names are asked as they stand before any search
//! domain, because a service's host name is always a full one.

use std::{
    collections::HashMap,
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{Surroundings, dns};

/// A TTL longer than this is not waited for: a failover must be noticed within the hour.
const MAX_TTL: Duration = Duration::from_secs(3600);
/// For answers with a TTL of 0: the requests of one operation share a lookup.
const MIN_TTL: Duration = Duration::from_secs(1);
/// How long stale addresses are served before DNS is asked again.
const STALE_FOR: Duration = Duration::from_secs(10);
/// How long a caller who has stale addresses waits for fresh ones.
const STALE_PATIENCE: Duration = Duration::from_millis(700);

/// Name resolution of one token.
pub(super) struct Resolver {
    hosts: HashMap<String, Vec<IpAddr>>,
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    attempts: u32,
    /// `address` of the configuration: these hosts are there, DNS is not asked.
    fixed: HashMap<String, SocketAddr>,
    /// A part of the connect limit, so that there is time left to use the answer.
    patience: Duration,
    cache: Mutex<HashMap<String, Known>>,
}

#[derive(Clone)]
struct Known {
    addresses: Vec<IpAddr>,
    until: Instant,
}

/// What lookups over the network ended with.
pub(super) enum Looked {
    /// Addresses, and how long they hold.
    Found(Vec<IpAddr>, Duration),
    /// The name does not exist or has no address.
    Nothing,
    /// No server gave an answer; the text says which and why.
    Failed(String),
}

impl Resolver {
    pub fn new(
        surroundings: &Surroundings,
        fixed: HashMap<String, SocketAddr>,
        connect_timeout: Duration,
    ) -> Self {
        // A file that cannot be parsed is like none: the server is this machine (resolv.conf(5)).
        let conf = resolv_conf::Config::parse(&surroundings.resolv_conf).unwrap_or_default();
        let mut servers: Vec<SocketAddr> = conf
            .nameservers
            .iter()
            .map(|server| SocketAddr::new(IpAddr::from(server), 53))
            .collect();
        if servers.is_empty() {
            servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53));
        }
        Resolver {
            hosts: parse_hosts(&surroundings.hosts),
            servers,
            search: conf.get_last_search_or_domain().cloned().collect(),
            attempts: conf.attempts.clamp(1, 5),
            fixed,
            patience: connect_timeout.mul_f32(0.7),
            cache: Mutex::new(HashMap::new()),
        }
    }

    /// The addresses of `host`, with port 0 for "the URL's".
    pub async fn resolve(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        match self.at_hand(host) {
            Some(found) => Ok(found),
            None => self.asked(&canonical(host)).await.map(without_port),
        }
    }

    /// The same where nobody has to be asked: a configured address, a literal one, the hosts
    /// file, or a lookup that still holds.
    pub fn at_hand(&self, host: &str) -> Option<Vec<SocketAddr>> {
        let host = canonical(host);
        if let Some(address) = self.fixed.get(&host) {
            return Some(vec![*address]);
        }
        if let Ok(literal) = host.parse() {
            return Some(without_port(vec![literal]));
        }
        if let Some(known) = self.hosts.get(&host) {
            return Some(without_port(known.clone()));
        }
        if host == "localhost" || host.ends_with(".localhost") {
            return Some(without_port(vec![
                Ipv4Addr::LOCALHOST.into(),
                Ipv6Addr::LOCALHOST.into(),
            ]));
        }
        let fresh = self.known(&host).filter(|known| known.until > Instant::now());
        fresh.map(|known| without_port(known.addresses))
    }

    async fn asked(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let known = self.known(host);
        let patience = match known {
            Some(_) => self.patience.min(STALE_PATIENCE),
            None => self.patience,
        };
        match (self.look_up(host, patience).await, known) {
            (Looked::Found(addresses, ttl), _) => {
                self.keep(host, &addresses, ttl.clamp(MIN_TTL, MAX_TTL));
                Ok(addresses)
            }
            (Looked::Failed(why), Some(stale)) => {
                log::info!("DNS: {why}; using the last known addresses of {host}");
                self.keep(host, &stale.addresses, STALE_FOR);
                Ok(stale.addresses)
            }
            (Looked::Failed(why), None) => Err(io::Error::other(format!("DNS: {why}"))),
            (Looked::Nothing, _) => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("DNS: the name {host} does not exist or has no address"),
            )),
        }
    }

    async fn look_up(&self, host: &str, patience: Duration) -> Looked {
        let deadline = Instant::now() + patience;
        let searched = self.search.iter().map(|domain| format!("{host}.{domain}"));
        let candidates = std::iter::once(host.to_owned()).chain(searched);
        let mut failed = None;
        for candidate in candidates {
            match self.ask_servers(&candidate, deadline).await {
                Looked::Nothing => {}
                found @ Looked::Found(..) => return found,
                // A server that is down for this name is down for the next one too.
                Looked::Failed(why) => {
                    failed = Some(why);
                    break;
                }
            }
        }
        failed.map_or(Looked::Nothing, Looked::Failed)
    }

    async fn ask_servers(&self, name: &str, deadline: Instant) -> Looked {
        let rounds = self.attempts as usize * self.servers.len();
        let mut why = format!("no answer about {name}");
        for (round, server) in self.servers.iter().cycle().take(rounds).enumerate() {
            let now = Instant::now();
            let Some(left) = deadline.checked_duration_since(now).filter(|left| !left.is_zero())
            else {
                break;
            };
            // What is left is shared by the rounds to come, so that a dead server at the head of
            // the list does not eat the time of the one behind it.
            let rounds_left = u32::try_from(rounds - round).unwrap_or(1);
            let share = (left / rounds_left).max(Duration::from_millis(250)).min(left);
            match dns::ask(*server, name, now + share).await {
                Ok(Looked::Failed(reason)) => why = reason,
                Ok(answer) => return answer,
                Err(error) => why = format!("server {server} about {name}: {error}"),
            }
        }
        Looked::Failed(why)
    }

    fn known(&self, host: &str) -> Option<Known> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }

    fn keep(&self, host: &str, addresses: &[IpAddr], ttl: Duration) {
        let known = Known { addresses: addresses.to_vec(), until: Instant::now() + ttl };
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned(), known);
    }
}

fn canonical(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

fn without_port(addresses: Vec<IpAddr>) -> Vec<SocketAddr> {
    addresses.into_iter().map(|address| SocketAddr::new(address, 0)).collect()
}

/// The client's view of the resolver.
pub(super) struct LaneResolver(pub Arc<Resolver>);

impl Resolve for LaneResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.0.clone();
        let resolving: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(async move {
            let addresses = resolver.resolve(name.as_str()).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        });
        resolving
    }
}

/// hosts(5): an address, then its names; `#` starts a comment. Lines that are none are skipped.
fn parse_hosts(file: &[u8]) -> HashMap<String, Vec<IpAddr>> {
    let mut hosts = HashMap::<String, Vec<IpAddr>>::new();
    for line in String::from_utf8_lossy(file).lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
        for name in words {
            hosts.entry(name.to_ascii_lowercase()).or_default().push(address);
        }
    }
    hosts
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{Message, MessageType, ResponseCode},
        rr::{RData, Record, RecordType, rdata},
    };
    use tokio::net::UdpSocket;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(1500);

    fn on_lane<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(future)
    }

    fn resolver(servers: Vec<SocketAddr>) -> Resolver {
        let mut resolver = Resolver::new(&Surroundings::default(), HashMap::new(), LIMIT);
        resolver.servers = servers;
        resolver.attempts = 1;
        resolver
    }

    /// Answers one query for A with `answer`, those for AAAA with nothing, for `rounds` lookups.
    async fn serve(socket: UdpSocket, rounds: usize, ttl: u32, code: ResponseCode) -> UdpSocket {
        let mut buffer = [0; 512];
        for _ in 0..2 * rounds {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let mut message = Message::from_vec(&buffer[..length]).unwrap();
            message.metadata.message_type = MessageType::Response;
            message.metadata.response_code = code;
            let query = message.queries[0].clone();
            if query.query_type() == RecordType::A && code == ResponseCode::NoError {
                let real = hickory_proto::rr::Name::from_ascii("real.example.").unwrap();
                let alias = RData::CNAME(rdata::CNAME(real.clone()));
                message.add_answer(Record::from_rdata(query.name().clone(), ttl, alias));
                let address = RData::A(rdata::A(Ipv4Addr::new(192, 0, 2, 7)));
                message.add_answer(Record::from_rdata(real, ttl, address));
            }
            socket.send_to(&message.to_vec().unwrap(), from).await.unwrap();
        }
        socket
    }

    #[test]
    fn needs_no_dns_for_literals_localhost_hosts_and_the_configured_address() {
        let surroundings = Surroundings {
            hosts: b"# none\n192.0.2.1 Kv.Example other # tail\nnonsense\n".to_vec(),
            ..Default::default()
        };
        let fixed = "198.51.100.1:8443".parse().unwrap();
        let fixed = HashMap::from([("fixed.example".to_owned(), fixed)]);
        let resolver = Resolver::new(&surroundings, fixed, LIMIT);
        on_lane(async {
            for (host, expected) in [
                ("192.0.2.9", "192.0.2.9:0"),
                ("localhost", "127.0.0.1:0"),
                ("a.localhost", "127.0.0.1:0"),
                ("kv.example.", "192.0.2.1:0"),
                ("FIXED.example", "198.51.100.1:8443"),
            ] {
                let found = resolver.resolve(host).await.unwrap();
                assert_eq!(found[0], expected.parse().unwrap(), "{host}");
            }
        });
    }

    #[test]
    fn follows_an_alias_keeps_the_ttl_and_serves_stale_addresses_while_dns_is_down() {
        on_lane(async {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let resolver = resolver(vec![socket.local_addr().unwrap()]);
            let server = tokio::spawn(serve(socket, 1, 1, ResponseCode::NoError));
            let first = resolver.resolve("kv.example").await.unwrap();
            assert_eq!(first, vec!["192.0.2.7:0".parse().unwrap()]);
            server.await.unwrap();
            // The server is gone: within the TTL nobody asks, afterwards the old answer is used.
            assert_eq!(resolver.resolve("kv.example").await.unwrap(), first);
            tokio::time::sleep(MIN_TTL + Duration::from_millis(50)).await;
            let asked = Instant::now();
            assert_eq!(resolver.resolve("kv.example").await.unwrap(), first);
            assert!(asked.elapsed() < LIMIT, "stale addresses must not wait for long");
        });
    }

    #[test]
    fn passes_over_a_silent_server_and_tells_a_missing_name_from_a_failure() {
        on_lane(async {
            let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let servers = vec![silent.local_addr().unwrap(), socket.local_addr().unwrap()];
            let resolver = resolver(servers);
            let server = tokio::spawn(async move {
                let socket = serve(socket, 1, 60, ResponseCode::ServFail).await;
                serve(socket, 1, 60, ResponseCode::NXDomain).await;
            });
            let error = resolver.resolve("no.example").await.unwrap_err();
            assert!(error.to_string().contains("Server Failure"), "{error}");
            let error = resolver.resolve("no.example").await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
            server.await.unwrap();
            let error = resolver.resolve("no.example").await.unwrap_err();
            assert_ne!(error.kind(), io::ErrorKind::NotFound, "{error}");
        });
    }

    /// A server that knows no AAAA and says so in the wrong words, before and after the address.
    #[test]
    fn a_name_that_has_an_address_exists_whatever_is_said_of_the_other_family() {
        for first in [RecordType::A, RecordType::AAAA] {
            on_lane(async {
                let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                let resolver = resolver(vec![socket.local_addr().unwrap()]);
                let server = tokio::spawn(async move {
                    let mut questions = Vec::new();
                    let mut buffer = [0; 512];
                    for _ in 0..2 {
                        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                        questions.push((Message::from_vec(&buffer[..length]).unwrap(), from));
                    }
                    let kind = |message: &Message| message.queries[0].query_type();
                    questions.sort_by_key(|(message, _)| kind(message) != first);
                    for (mut message, from) in questions {
                        message.metadata.message_type = MessageType::Response;
                        if kind(&message) == RecordType::A {
                            let name = message.queries[0].name().clone();
                            let address = RData::A(rdata::A(Ipv4Addr::new(192, 0, 2, 7)));
                            message.add_answer(Record::from_rdata(name, 60, address));
                        } else {
                            message.metadata.response_code = ResponseCode::NXDomain;
                        }
                        socket.send_to(&message.to_vec().unwrap(), from).await.unwrap();
                    }
                });
                let found = resolver.resolve("kv.example").await.unwrap();
                assert_eq!(found, vec!["192.0.2.7:0".parse().unwrap()], "{first} first");
                server.await.unwrap();
            });
        }
    }

    #[test]
    fn asks_over_tcp_when_the_answer_is_cut_off() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        on_lane(async {
            let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = tcp.local_addr().unwrap();
            let udp = UdpSocket::bind(address).await.unwrap();
            let server = tokio::spawn(async move {
                let mut buffer = [0; 512];
                for _ in 0..2 {
                    let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
                    let mut message = Message::from_vec(&buffer[..length]).unwrap();
                    message.metadata.message_type = MessageType::Response;
                    message.metadata.truncation =
                        message.queries[0].query_type() == RecordType::AAAA;
                    udp.send_to(&message.to_vec().unwrap(), from).await.unwrap();
                }
                let (mut stream, _) = tcp.accept().await.unwrap();
                let mut question = vec![0; usize::from(stream.read_u16().await.unwrap())];
                stream.read_exact(&mut question).await.unwrap();
                let mut message = Message::from_vec(&question).unwrap();
                message.metadata.message_type = MessageType::Response;
                let name = message.queries[0].name().clone();
                let address = RData::AAAA(rdata::AAAA("2001:db8::7".parse().unwrap()));
                message.add_answer(Record::from_rdata(name, 60, address));
                let answer = message.to_vec().unwrap();
                stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            });
            let found = resolver(vec![address]).resolve("kv.example").await.unwrap();
            assert_eq!(found, vec!["[2001:db8::7]:0".parse().unwrap()]);
            server.await.unwrap();
        });
    }
}
