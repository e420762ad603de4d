//! A name server for the emulator's public names, so that tests can order trouble with DNS.
//!
//! UDP and TCP on one port of 127.0.0.1. It knows the services' host names and the authority's
//! (A records only) and nothing else. Nobody has to use it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType, rdata};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::counters::Counters;
use crate::fault::{DNS_OPERATION, DnsTrouble, Faults};

/// Its name in counters and orders of trouble.
pub const LABEL: &str = "dns";
/// How often a free port is looked for that both UDP and TCP have.
const TRIES: usize = 20;
/// A TCP client that says nothing for so long is left.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the server knows.
pub struct NameServer {
    /// Lower-case names without final dot, and where each is.
    pub names: BTreeMap<String, Ipv4Addr>,
    /// Seconds that an answer holds.
    pub ttl: u32,
    /// Trouble on order.
    pub faults: Arc<Faults>,
    /// Where queries are counted, as `A`, `AAAA` and so on.
    pub counters: Arc<Counters>,
}

/// Binds both sockets to one port; 0 for any.
pub async fn bind(port: u16) -> Result<(UdpSocket, TcpListener), String> {
    let told = |error: std::io::Error| format!("DNS on 127.0.0.1:{port}: {error}");
    for _ in 0..TRIES {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(told)?;
        let taken = tcp.local_addr().map_err(told)?;
        match UdpSocket::bind(taken).await {
            Ok(udp) => return Ok((udp, tcp)),
            Err(_) if port == 0 => {} // the number is taken for UDP: another one
            Err(error) => return Err(told(error)),
        }
    }
    Err("DNS: no port is free for both UDP and TCP".to_owned())
}

impl NameServer {
    /// Answers until the runtime ends.
    pub async fn serve(self: Arc<Self>, udp: UdpSocket, tcp: TcpListener) {
        let over_udp = Arc::clone(&self).serve_udp(Arc::new(udp));
        tokio::join!(over_udp, self.serve_tcp(tcp));
    }

    async fn serve_udp(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let mut buffer = [0; 4096];
        loop {
            // An error here is about an earlier client that is gone.
            let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
            let (server, socket) = (Arc::clone(&self), Arc::clone(&socket));
            let query = buffer[..length].to_vec();
            tokio::spawn(async move {
                if let Some(answer) = server.answer(&query, false).await {
                    let _ = socket.send_to(&answer, client).await;
                }
            });
        }
    }

    async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            tokio::spawn(Arc::clone(&self).talk(stream));
        }
    }

    /// Queries and answers with a length before each (RFC 1035, 4.2.2).
    async fn talk(self: Arc<Self>, mut stream: TcpStream) -> Option<()> {
        loop {
            let length = tokio::time::timeout(PATIENCE, stream.read_u16()).await.ok()?.ok()?;
            let mut query = vec![0; length.into()];
            tokio::time::timeout(PATIENCE, stream.read_exact(&mut query)).await.ok()?.ok()?;
            let answer = self.answer(&query, true).await?;
            stream.write_u16(u16::try_from(answer.len()).ok()?).await.ok()?;
            stream.write_all(&answer).await.ok()?;
        }
    }

    /// The answer to a query, or none: to what is no query, and where silence was ordered.
    async fn answer(&self, query: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let mut message = Message::from_vec(query).ok()?;
        if message.metadata.message_type != MessageType::Query {
            return None;
        }
        let query = message.queries.first()?.clone();
        let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
        self.counters.count(LABEL, &query.query_type().to_string());
        let fault = self.faults.hit(LABEL, DNS_OPERATION, &name).unwrap_or_default();
        tokio::time::sleep(Duration::from_millis(fault.delay_ms)).await;
        message.metadata.message_type = MessageType::Response;
        message.metadata.authoritative = true;
        message.metadata.recursion_available = true;
        let address = match fault.dns {
            Some(DnsTrouble::Silent) => return None,
            Some(DnsTrouble::NxDomain) => Err(ResponseCode::NXDomain),
            Some(DnsTrouble::ServFail) => Err(ResponseCode::ServFail),
            Some(DnsTrouble::Refused) => Err(ResponseCode::Refused),
            Some(DnsTrouble::NoData) => Ok(None),
            Some(DnsTrouble::Address(address)) => Ok(Some(address)),
            Some(DnsTrouble::Truncated) if !tcp => {
                message.metadata.truncation = true;
                Ok(None)
            }
            Some(DnsTrouble::Truncated) | None => match self.names.get(&name) {
                Some(address) => Ok(Some(IpAddr::V4(*address))),
                None => Err(ResponseCode::NXDomain),
            },
        };
        match address {
            Err(code) => message.metadata.response_code = code,
            Ok(address) => {
                if let Some(data) = address.and_then(|address| data(&query, address)) {
                    let owner = query.name().clone();
                    message.add_answer(Record::from_rdata(owner, self.ttl, data));
                }
            }
        }
        message.to_vec().ok()
    }
}

/// The address, where the query is for its family.
fn data(query: &Query, address: IpAddr) -> Option<RData> {
    match (query.query_type(), address) {
        (RecordType::A, IpAddr::V4(address)) => Some(RData::A(rdata::A(address))),
        (RecordType::AAAA, IpAddr::V6(address)) => Some(RData::AAAA(rdata::AAAA(address))),
        _ => None,
    }
}
