//! A direct connection: one socket and rustls, driven by blocking waits on the calling thread.
//!
//! What most calls go over. Beside a lane it has no runtime, so that it works in exit handlers and
//! on threads of a host's own runtime, and costs about a third of a lane's processor time
//! (docs/adr/004-direct-connections.md). Sending never raises SIGPIPE.

use std::{
    io::{self, IoSlice, Read, Write},
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, connect,
        ipproto, recv, send, sendmsg, socket_with, sockopt,
    },
};
use rustls::{ClientConnection, pki_types::ServerName};
use zeroize::{Zeroizing, zeroize_bytes};

use super::{
    NetError, Origin, Request, Response,
    http1::{self, Source},
    lane::{self, IDLE_LIMIT, LanePlan},
};

/// The next address is tried too when the one before has not answered for this long (RFC 8305
/// recommends 250 ms).
const STAGGER: Duration = Duration::from_millis(250);

/// A place for one connection.
pub(super) struct Direct {
    connection: Option<Connection>,
    pub last_used: Instant,
    /// The last request went over a connection that had been idle, and nothing of it was
    /// acknowledged: somebody between has forgotten the connection.
    pub forgotten: bool,
}

impl Direct {
    /// Without a connection yet.
    pub fn new() -> Self {
        Direct { connection: None, last_used: Instant::now(), forgotten: false }
    }

    /// Sends one request and reads its answer, connecting first where needed.
    pub fn send(
        &mut self,
        plan: &LanePlan,
        request: &Request,
        deadline: Instant,
    ) -> Result<Response, NetError> {
        let origin = &request.origin;
        let usable = !request.fresh && !self.stale(Instant::now());
        let kept = self.connection.take_if(|kept| usable && kept.leads_to(origin) && kept.alive());
        let mut connection = match kept {
            Some(kept) => kept,
            None => {
                self.connection = None;
                Connection::open(plan, Arc::clone(origin), deadline)?
            }
        };
        let answer = connection.exchange(request, deadline);
        self.forgotten = connection.used && connection.socket.unacknowledged;
        let answer = answer?;
        self.last_used = Instant::now();
        if answer.reusable {
            connection.expect_acknowledgement(plan);
            self.connection = Some(connection);
        }
        Ok(answer.response)
    }

    /// Idle for longer than [`IDLE_LIMIT`].
    pub fn stale(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_used) > IDLE_LIMIT
    }
}

struct Connection {
    origin: Arc<Origin>,
    tls: ClientConnection,
    socket: Socket,
    /// It has brought an answer before.
    used: bool,
    /// The request, and its answer: empty between requests, and kept for their room.
    outgoing: Zeroizing<Vec<u8>>,
    incoming: Zeroizing<Vec<u8>>,
}

/// More room than this is not kept, bytes; a signature's answer has 1,300.
const KEPT_ROOM: usize = 16 << 10;

impl Connection {
    fn open(
        plan: &LanePlan,
        origin: Arc<Origin>,
        deadline: Instant,
    ) -> Result<Connection, NetError> {
        if !origin.is_https() {
            return Err(NetError::Connect("not an https URL".into()));
        }
        let limit = (Instant::now() + plan.connect_timeout).min(deadline);
        let found = match plan.resolver.at_hand(origin.host()) {
            Some(found) => found,
            None => lane::look_up(&plan.resolver, origin.host(), limit)?,
        };
        let with_port = |mut address: SocketAddr| {
            if address.port() == 0 {
                address.set_port(origin.port());
            }
            address
        };
        let addresses: Vec<SocketAddr> = found.into_iter().map(with_port).collect();
        // When the time for a connection is over, the call's own may be, too.
        let too_slow = || match Instant::now() < deadline {
            true => NetError::Connect(format!("no connection within {:?}", plan.connect_timeout)),
            false => NetError::Connect("no connection within the call's deadline".into()),
        };
        let in_time = |error| if error == NetError::Timeout { too_slow() } else { error };
        let socket = Socket::connect(&addresses, limit, plan.connect_timeout).map_err(in_time)?;
        let name = ServerName::try_from(origin.host().to_owned());
        let name = name.map_err(|_| NetError::Connect("the host has no valid name".into()))?;
        let tls = ClientConnection::new(plan.tls.config()?, name).map_err(refused)?;
        let mut connection = Connection {
            origin,
            tls,
            socket,
            used: false,
            outgoing: Zeroizing::default(),
            incoming: Zeroizing::default(),
        };
        connection.handshake(limit).map_err(in_time)?;
        Ok(connection)
    }

    fn handshake(&mut self, limit: Instant) -> Result<(), NetError> {
        let gone = |error: io::Error| NetError::Connect(format!("TLS handshake: {error}"));
        while self.tls.is_handshaking() {
            if self.tls.wants_write() {
                match self.tls.write_tls(&mut self.socket) {
                    Ok(_) => {}
                    Err(error) if again(&error) => self.socket.wait(PollFlags::OUT, limit)?,
                    Err(error) => return Err(gone(error)),
                }
                continue;
            }
            self.socket.wait(PollFlags::IN, limit)?;
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => return Err(gone(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {
                    if let Err(error) = self.tls.process_new_packets() {
                        // The alert that tells the server why; whether it goes out matters to
                        // nobody here.
                        let _ = self.tls.write_tls(&mut self.socket);
                        return Err(refused(error));
                    }
                }
                Err(error) if again(&error) => {}
                Err(error) => return Err(gone(error)),
            }
        }
        Ok(())
    }

    /// From now on it may be idle between two requests, while a firewall forgets it and drops
    /// what is sent. It works: what is sent on it will be acknowledged soon, or never.
    fn expect_acknowledgement(&mut self, plan: &LanePlan) {
        if !std::mem::replace(&mut self.used, true) {
            // If that fails, the time for a new connection holds.
            let _ = self.socket.limit_unacknowledged(plan.acknowledge_timeout);
        }
    }

    fn leads_to(&self, origin: &Arc<Origin>) -> bool {
        Arc::ptr_eq(&self.origin, origin) || self.origin == *origin
    }

    /// Whether nothing has ended it while it was idle. Reads what came meanwhile: session tickets.
    fn alive(&mut self) -> bool {
        loop {
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => return false,
                Ok(_) => match self.tls.process_new_packets() {
                    Ok(state)
                        if !state.peer_has_closed() && state.plaintext_bytes_to_read() == 0 => {}
                    _ => return false,
                },
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }

    fn exchange(
        &mut self,
        request: &Request,
        deadline: Instant,
    ) -> Result<http1::Answer, NetError> {
        http1::write_request(&mut self.outgoing, request);
        stumble!("net");
        let sent = self.write(deadline);
        empty(&mut self.outgoing);
        stumble!("net");
        // A server may answer, and close, before it has read everything.
        if let Err(lost @ (NetError::Timeout | NetError::Connect(_))) = sent {
            return Err(lost);
        }
        let mut bytes = std::mem::take(&mut self.incoming);
        let mut incoming = Incoming { connection: self, deadline };
        let answer = http1::read_answer(&mut incoming, &mut bytes, &request.method);
        empty(&mut bytes);
        self.incoming = bytes;
        // Never more than "would block".
        let _ = self.tls.read_tls(&mut Wipe);
        match (answer, sent) {
            (Err(NetError::Lost(_)), Err(lost)) => Err(lost),
            (answer, _) => answer,
        }
    }

    fn write(&mut self, deadline: Instant) -> Result<(), NetError> {
        let (mut done, mut left) = (0, self.outgoing.len());
        while left > 0 || self.tls.wants_write() {
            if left > 0 {
                let start = self.outgoing.len() - left;
                let taken = self.tls.writer().write(&self.outgoing[start..]).map_err(lost)?;
                left -= taken;
            }
            match self.tls.write_tls(&mut self.socket) {
                Ok(sent) => done += sent,
                Err(error) if again(&error) => self.socket.wait(PollFlags::OUT, deadline)?,
                Err(error) if done == 0 => {
                    return Err(NetError::Connect(format!(
                        "closed before anything was sent: {error}"
                    )));
                }
                Err(error) => return Err(lost(error)),
            }
        }
        Ok(())
    }
}

/// A connection that an answer is read from.
struct Incoming<'a> {
    connection: &'a mut Connection,
    deadline: Instant,
}

impl Source for Incoming<'_> {
    fn more(&mut self, into: &mut Zeroizing<Vec<u8>>) -> Result<bool, NetError> {
        let Connection { tls, socket, .. } = &mut *self.connection;
        loop {
            let state =
                tls.process_new_packets().map_err(|error| NetError::Lost(error.to_string()))?;
            let (filled, ready) = (into.len(), state.plaintext_bytes_to_read());
            if ready > 0 {
                make_room(into, ready);
                into.resize(filled + ready, 0);
                tls.reader().read_exact(&mut into[filled..]).map_err(lost)?;
                return Ok(true);
            }
            if state.peer_has_closed() {
                return Ok(false);
            }
            socket.wait(PollFlags::IN, self.deadline)?;
            match tls.read_tls(socket) {
                // The end without TLS saying so: somebody may have cut the answer.
                Ok(0) => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) if again(&error) => {}
                Err(error) => return Err(lost(error)),
            }
        }
    }
}

/// Wipes what is there. (`Vec::zeroize` does so byte by byte, and the room that never had any.)
fn empty(bytes: &mut Zeroizing<Vec<u8>>) {
    zeroize_bytes(bytes);
    bytes.clear();
    if bytes.capacity() > KEPT_ROOM {
        *bytes = Zeroizing::default();
    }
}

/// Makes room for so much more without leaving a copy behind.
fn make_room(vector: &mut Zeroizing<Vec<u8>>, more: usize) {
    if vector.capacity() - vector.len() < more {
        let mut larger = Zeroizing::new(Vec::with_capacity(2 * (vector.len() + more)));
        larger.extend_from_slice(vector);
        *vector = larger;
    }
}

/// A connected socket that never blocks and never raises SIGPIPE.
struct Socket {
    fd: OwnedFd,
    /// It ended because what was sent was not acknowledged in time.
    unacknowledged: bool,
}

impl Socket {
    /// Connects to the first address that answers, each started [`STAGGER`] after the one before;
    /// [`NetError::Timeout`] at `limit`. `patience` is for what is not acknowledged on it.
    fn connect(
        addresses: &[SocketAddr],
        limit: Instant,
        patience: Duration,
    ) -> Result<Socket, NetError> {
        let mut waiting = addresses.iter();
        let mut trying: Vec<(SocketAddr, OwnedFd)> = Vec::with_capacity(addresses.len());
        let mut failed = NetError::Connect("the name has no address".into());
        loop {
            if let Some(address) = waiting.next() {
                match start(*address) {
                    Ok((fd, true)) => return Socket::ready(fd, patience),
                    Ok((fd, false)) => trying.push((*address, fd)),
                    Err(error) => {
                        failed = unreachable(*address, error);
                        continue;
                    }
                }
            } else if trying.is_empty() {
                return Err(failed);
            }
            let pause = match waiting.len() {
                0 => limit,
                _ => limit.min(Instant::now() + STAGGER),
            };
            let mut polled: Vec<PollFd<'_>> =
                trying.iter().map(|(_, fd)| PollFd::new(fd, PollFlags::OUT)).collect();
            let happened = wait(&mut polled, pause)?;
            let done: Vec<bool> = polled.iter().map(|one| !one.revents().is_empty()).collect();
            if !happened && Instant::now() >= limit {
                return Err(NetError::Timeout);
            }
            let mut done = done.into_iter();
            let (ended, still) = trying.into_iter().partition(|_| done.next() == Some(true));
            trying = still;
            let ended: Vec<(SocketAddr, OwnedFd)> = ended;
            for (address, fd) in ended {
                match sockopt::socket_error(&fd) {
                    Ok(Ok(())) => return Socket::ready(fd, patience),
                    Ok(Err(error)) | Err(error) => failed = unreachable(address, error),
                }
            }
        }
    }

    fn ready(fd: OwnedFd, patience: Duration) -> Result<Socket, NetError> {
        let socket = Socket { fd, unacknowledged: false };
        let set = sockopt::set_tcp_nodelay(&socket.fd, true)
            .and_then(|()| socket.limit_unacknowledged(patience));
        set.map_err(|error| NetError::Connect(error.to_string()))?;
        Ok(socket)
    }

    /// Ends the connection when something sent on it is not acknowledged for so long. An answer
    /// may take longer: the other end's system acknowledges a request that is being worked on.
    fn limit_unacknowledged(&self, limit: Duration) -> Result<(), Errno> {
        // 0 would be the system's default of many minutes.
        let milliseconds = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX).max(1);
        sockopt::set_tcp_user_timeout(&self.fd, milliseconds)
    }

    fn failed(&mut self, error: Errno) -> io::Error {
        self.unacknowledged |= error == Errno::TIMEDOUT;
        error.into()
    }

    /// Waits until the socket may be read or written, or is broken. Past the deadline it may be
    /// neither, or a peer that never stops sending would hold the thread for ever.
    fn wait(&self, what: PollFlags, deadline: Instant) -> Result<(), NetError> {
        if Instant::now() >= deadline {
            return Err(NetError::Timeout);
        }
        match wait(&mut [PollFd::new(&self.fd, what)], deadline)? {
            true => Ok(()),
            false => Err(NetError::Timeout),
        }
    }
}

/// Starts connecting; true if it is done already.
fn start(address: SocketAddr) -> Result<(OwnedFd, bool), Errno> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    match connect(&fd, &address) {
        Ok(()) => Ok((fd, true)),
        // An interrupted connect goes on by itself.
        Err(Errno::INPROGRESS | Errno::INTR) => Ok((fd, false)),
        Err(error) => Err(error),
    }
}

/// Polls until something happened (true) or the deadline passed, whatever signals come.
fn wait(polled: &mut [PollFd<'_>], deadline: Instant) -> Result<bool, NetError> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
        let timeout = Timespec { tv_sec: seconds, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(polled, Some(&timeout)) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(NetError::Resources(error.to_string())),
        }
    }
}

/// Reads nothing, and wipes the room for it: rustls decrypts a record where it was read to, and would
/// keep the answer there until the next one comes.
struct Wipe;

impl Read for Wipe {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        into.fill(0);
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match recv(&self.fd, into, RecvFlags::empty()) {
            Ok((read, _)) => Ok(read),
            Err(error) => Err(self.failed(error)),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        send(&self.fd, from, SendFlags::NOSIGNAL).map_err(|error| self.failed(error))
    }

    fn write_vectored(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut control = SendAncillaryBuffer::default();
        let sent = sendmsg(&self.fd, from, &mut control, SendFlags::NOSIGNAL);
        sent.map_err(|error| self.failed(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn lost(error: io::Error) -> NetError {
    NetError::Lost(error.to_string())
}

fn refused(error: rustls::Error) -> NetError {
    match error {
        rustls::Error::InvalidCertificate(reason) => NetError::Untrusted(reason.to_string()),
        other => NetError::Connect(format!("TLS handshake: {other}")),
    }
}

fn unreachable(address: SocketAddr, error: Errno) -> NetError {
    match error {
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS => {
            NetError::Resources(error.to_string())
        }
        _ => NetError::Connect(format!("{address}: {error}")),
    }
}
