//! One question to one DNS server: A and AAAA over UDP, over TCP when the answer is cut off.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout_at,
};

use super::resolver::Looked;

/// How much longer than the first address family the other one is waited for: some servers drop
/// one of two questions, and one family is enough to connect.
const SECOND_FAMILY: Duration = Duration::from_millis(200);

/// Aliases followed within one answer. Private-link names need two or three.
const MAX_ALIASES: usize = 16;

/// Asks `server` for both address families of `name` (absolute, without the final dot).
///
/// # Errors
/// What the sockets say, `TimedOut` at `deadline`, `InvalidInput` for a name that is none.
pub(super) async fn ask(server: SocketAddr, name: &str, deadline: Instant) -> io::Result<Looked> {
    let name = Name::from_ascii(format!("{name}."))
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
    let mut open =
        vec![Question::new(&name, RecordType::A)?, Question::new(&name, RecordType::AAAA)?];
    let local: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // A port of the kernel's choice and a connected socket: strangers' datagrams do not arrive.
    let socket = UdpSocket::bind((local, 0)).await?;
    socket.connect(server).await?;
    for question in &open {
        socket.send(&question.bytes).await?;
    }
    let mut found = Vec::new();
    let mut shortest: Option<Duration> = None;
    let mut until = deadline;
    let mut failed = None;
    let mut buffer = vec![0; 4096];
    while !open.is_empty() {
        let length = match timeout_at(until.into(), socket.recv(&mut buffer)).await {
            Ok(received) => received?,
            Err(_) if !found.is_empty() => break,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        };
        let Ok(message) = Message::from_vec(&buffer[..length]) else { continue };
        let Some(at) = open.iter().position(|question| question.answered_by(&message)) else {
            continue;
        };
        let question = open.swap_remove(at);
        let message = match message.metadata.truncation {
            true => over_tcp(server, &question, until).await?,
            false => message,
        };
        match message.metadata.response_code {
            ResponseCode::NoError => {}
            // Some servers say so of a family that a name merely has no address of.
            ResponseCode::NXDomain => continue,
            other => {
                failed = Some(format!("server {server} answered {other} about {name}"));
                continue;
            }
        }
        if let Some((addresses, ttl)) = addresses(&message, &name) {
            found.extend(addresses);
            shortest = Some(shortest.map_or(ttl, |shortest| shortest.min(ttl)));
            until = deadline.min(Instant::now() + SECOND_FAMILY);
        }
    }
    // IPv4 first: a host without IPv6 would waste its connect limit on the other.
    found.sort_by_key(IpAddr::is_ipv6);
    Ok(match (shortest, failed) {
        (Some(ttl), _) => Looked::Found(found, ttl),
        (None, Some(why)) => Looked::Failed(why),
        (None, None) => Looked::Nothing,
    })
}

struct Question {
    id: u16,
    query: Query,
    bytes: Vec<u8>,
}

impl Question {
    fn new(name: &Name, kind: RecordType) -> io::Result<Self> {
        // aws-lc's generator, because a fork duplicates the state of others.
        let mut id = [0; 2];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| io::Error::other("no random bytes"))?;
        let id = u16::from_be_bytes(id);
        let query = Query::query(name.clone(), kind);
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(query.clone());
        let bytes = message.to_vec().map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Question { id, query, bytes })
    }

    fn answered_by(&self, message: &Message) -> bool {
        message.metadata.message_type == MessageType::Response
            && message.metadata.id == self.id
            && message.queries.first().is_some_and(|query| {
                query.query_type() == self.query.query_type() && query.name() == self.query.name()
            })
    }
}

async fn over_tcp(
    server: SocketAddr,
    question: &Question,
    deadline: Instant,
) -> io::Result<Message> {
    let length = u16::try_from(question.bytes.len()).map_err(io::Error::other)?;
    let whole = async {
        let mut stream = TcpStream::connect(server).await?;
        let framed = [&length.to_be_bytes()[..], &question.bytes].concat();
        stream.write_all(&framed).await?;
        let mut answer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut answer).await?;
        Message::from_vec(&answer).map_err(|error| io::Error::other(error.to_string()))
    };
    let message = timeout_at(deadline.into(), whole)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    match question.answered_by(&message) {
        true => Ok(message),
        false => Err(io::Error::other("the answer over TCP is to another question")),
    }
}

/// The addresses `name` has in the answer, through its aliases, and the shortest TTL on the way.
fn addresses(message: &Message, name: &Name) -> Option<(Vec<IpAddr>, Duration)> {
    let mut owner = name.clone();
    let mut ttl = u32::MAX;
    for _ in 0..MAX_ALIASES {
        let alias = message.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == owner => Some((target.0.clone(), record.ttl)),
            _ => None,
        });
        let Some((target, alias_ttl)) = alias else { break };
        owner = target;
        ttl = ttl.min(alias_ttl);
    }
    let mut found = Vec::new();
    for record in message.answers.iter().filter(|record| record.name == owner) {
        let address: IpAddr = match &record.data {
            RData::A(address) => address.0.into(),
            RData::AAAA(address) => address.0.into(),
            _ => continue,
        };
        found.push(address);
        ttl = ttl.min(record.ttl);
    }
    (!found.is_empty()).then(|| (found, Duration::from_secs(ttl.into())))
}
