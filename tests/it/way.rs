//! A way to a service that a test can block: connections are refused, or go unanswered.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
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
    over: AtomicBool,
    accepted: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
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
        // The acceptor closes or opens its port.
        thread::sleep(5 * LOOK);
        if state == State::Refused {
            self.break_connections();
        }
    }

    /// Ends what is open: the service, or something between, restarts.
    pub fn break_connections(&self) {
        for stream in self.shared.open.lock().expect("lock").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
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

impl Shared {
    fn is(&self, state: State) -> bool {
        self.state.load(SeqCst) == state as u8
    }

    fn accept(self: Arc<Self>, listener: TcpListener, port: u16) {
        let mut listener = Some(listener);
        while !self.over.load(SeqCst) {
            if self.is(State::Refused) {
                listener = None;
            } else if listener.is_none() {
                listener = Some(listen(port));
            }
            match listener.as_ref().map(TcpListener::accept) {
                Some(Ok((client, _))) => self.lead(client),
                _ => thread::sleep(LOOK),
            }
        }
    }

    fn lead(self: &Arc<Self>, client: TcpStream) {
        self.accepted.fetch_add(1, SeqCst);
        let service = TcpStream::connect(("127.0.0.1", self.target)).expect("the service");
        for stream in [&client, &service] {
            stream.set_nonblocking(false).expect("blocking");
            stream.set_nodelay(true).expect("no delay");
        }
        let copy = |stream: &TcpStream| stream.try_clone().expect("a second handle");
        self.open.lock().expect("lock").extend([copy(&client), copy(&service)]);
        for (from, to) in [(copy(&client), copy(&service)), (service, client)] {
            let shared = Arc::clone(self);
            thread::spawn(move || shared.pass(from, to));
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
