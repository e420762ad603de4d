//! A way to a service that a test can block: connections are refused, go unanswered, or are
//! forgotten while they are idle, as by a firewall.

#![allow(unsafe_code)]

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// What becomes of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// They lead to the service.
    Open,
    /// Those that exist are reset, new ones refused: the machine is there, the service is not.
    Refused,
    /// Nothing is said any more, on old connections and new ones.
    Silent,
    /// New connections come to nothing: what asks for them is dropped on the way.
    Unanswered,
}

/// A loopback port that leads to another one.
pub struct Way {
    pub port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    target: u16,
    state: AtomicU8,
    /// The state that the acceptor has acted on.
    seen: AtomicU8,
    over: AtomicBool,
    accepted: AtomicUsize,
    open: Mutex<Vec<Lead>>,
}

/// One connection that leads to the service.
struct Lead {
    /// Which of those that were accepted.
    number: usize,
    client: TcpStream,
    service: TcpStream,
}

/// How soon a change of state is seen.
const LOOK: Duration = Duration::from_millis(2);

impl Way {
    pub fn to(target: u16) -> Way {
        let listener = listen(0);
        let port = listener.local_addr().expect("address").port();
        let shared = Arc::new(Shared {
            target,
            state: AtomicU8::new(State::Open as u8),
            seen: AtomicU8::new(State::Open as u8),
            over: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            open: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        let acceptor = thread::spawn(move || accepting.accept(listener, port));
        Way { port, shared, acceptor: Some(acceptor) }
    }

    /// The URL that leads here.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// Changes what becomes of connections, from now on.
    pub fn set(&self, state: State) {
        self.shared.state.store(state as u8, SeqCst);
        // The acceptor closes or opens its port, or makes it deaf; a busy machine takes its time.
        while self.shared.seen.load(SeqCst) != state as u8 {
            thread::sleep(LOOK);
        }
        if state == State::Refused {
            self.break_connections();
        }
    }

    /// Ends what is open: the service, or something between, restarts.
    pub fn break_connections(&self) {
        for lead in self.shared.open.lock().expect("lock").drain(..) {
            let _ = lead.client.shutdown(Shutdown::Both);
            let _ = lead.service.shutdown(Shutdown::Both);
        }
    }

    /// Whatever is sent on connections that are open now is dropped on the way, and nobody is told:
    /// a firewall has forgotten them. New ones work.
    pub fn forget_connections(&self) {
        for lead in self.shared.open.lock().expect("lock").iter() {
            drop_what_comes(&lead.client);
        }
    }

    /// Descriptors of this process that are the way's.
    pub fn descriptors(&self) -> usize {
        // Both sockets of a connection, in each direction and to break it; and the listener.
        6 * self.shared.open.lock().expect("lock").len() + 1
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(SeqCst)
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.shared.over.store(true, SeqCst);
        self.break_connections();
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn listen(port: u16) -> TcpListener {
    // The port is free again at once: the standard library sets SO_REUSEADDR.
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port");
    listener.set_nonblocking(true).expect("nonblocking");
    listener
}

/// Lets the kernel drop each packet for a socket when it arrives: nothing is acknowledged, nothing
/// refused. It is where a firewall's drop would be, seen from the other end, and needs no rights.
fn drop_what_comes(socket: &impl AsRawFd) {
    let code = u16::try_from(libc::BPF_RET | libc::BPF_K).expect("a code");
    let mut keep_nothing = libc::sock_filter { code, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut keep_nothing };
    // SAFETY: SO_ATTACH_FILTER takes a sock_fprog of this size and copies the filter it points to.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    assert_eq!(outcome, 0, "SO_ATTACH_FILTER: {}", std::io::Error::last_os_error());
}

impl Shared {
    fn is(&self, state: State) -> bool {
        self.state.load(SeqCst) == state as u8
    }

    fn accept(self: Arc<Self>, listener: TcpListener, port: u16) {
        let mut listener = Some(listener);
        let mut deaf = false;
        while !self.over.load(SeqCst) {
            let state = self.state.load(SeqCst);
            let is = |one: State| state == one as u8;
            if is(State::Refused) || deaf && !is(State::Unanswered) {
                listener = None;
                deaf = false;
            } else if let Some(listener) = listener.as_ref().filter(|_| is(State::Unanswered)) {
                if !deaf {
                    drop_what_comes(listener);
                    deaf = true;
                }
            } else if listener.is_none() {
                listener = Some(listen(port));
            }
            self.seen.store(state, SeqCst);
            match listener.as_ref().map(TcpListener::accept) {
                Some(Ok((client, _))) => self.lead(client),
                _ => thread::sleep(LOOK),
            }
        }
    }

    fn lead(self: &Arc<Self>, client: TcpStream) {
        let number = self.accepted.fetch_add(1, SeqCst);
        let service = TcpStream::connect(("127.0.0.1", self.target)).expect("the service");
        for stream in [&client, &service] {
            stream.set_nonblocking(false).expect("blocking");
            stream.set_nodelay(true).expect("no delay");
        }
        let copy = |stream: &TcpStream| stream.try_clone().expect("a second handle");
        let lead = Lead { number, client: copy(&client), service: copy(&service) };
        self.open.lock().expect("lock").push(lead);
        for (from, to) in [(copy(&client), copy(&service)), (service, client)] {
            let shared = Arc::clone(self);
            thread::spawn(move || {
                shared.pass(from, to);
                // One direction that has ended ends the other.
                shared.open.lock().expect("lock").retain(|lead| lead.number != number);
            });
        }
    }

    fn pass(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            while self.is(State::Silent) && !self.over.load(SeqCst) {
                thread::sleep(LOOK);
            }
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
}
