//! A way to the service that breaks: a relay that closes connections in the middle of what the
//! client writes.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// A relay on a port of its own; it ends with the process.
pub struct Relay {
    /// Where clients connect to.
    pub address: SocketAddr,
    broken: Arc<AtomicU64>,
}

impl Relay {
    /// Relays to `service`. Each connection is closed after so many bytes of the client's, another
    /// number each time; of three, one lives for some requests.
    pub fn to(service: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let broken = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&broken);
        thread::spawn(move || {
            for (turn, client) in (0_u64..).zip(listener.incoming()) {
                let Ok(client) = client else { continue };
                let count = Arc::clone(&count);
                thread::spawn(move || relay(&client, service, turn, &count));
            }
        });
        Relay { address, broken }
    }

    /// How many connections it has broken.
    pub fn broken(&self) -> u64 {
        self.broken.load(Ordering::Relaxed)
    }
}

fn relay(client: &TcpStream, service: SocketAddr, turn: u64, count: &AtomicU64) {
    let Ok(server) = TcpStream::connect(service) else { return };
    // Long enough for a handshake; the rest is in the middle of a large request.
    let more = if turn % 3 == 2 { 1_000_000 } else { 0 };
    let most = 3_000 + more + turn.wrapping_mul(7_919) % 150_000;
    thread::scope(|scope| {
        scope.spawn(|| {
            pump(&server, client, u64::MAX);
            let _ = client.shutdown(Shutdown::Both);
        });
        if pump(client, &server, most) {
            count.fetch_add(1, Ordering::Relaxed);
            // The end comes first, and what is written after it is answered with a reset.
            let _ = client.shutdown(Shutdown::Write);
            if turn.is_multiple_of(2) {
                thread::sleep(Duration::from_millis(2));
            }
            let _ = client.shutdown(Shutdown::Both);
        }
        let _ = server.shutdown(Shutdown::Both);
    });
}

/// Copies at most so many bytes; whether it stopped because of that.
fn pump(mut from: &TcpStream, mut to: &TcpStream, most: u64) -> bool {
    let mut buffer = [0; 16 * 1024];
    let mut copied = 0;
    while copied < most {
        let room = usize::try_from(most - copied).unwrap_or(usize::MAX).min(buffer.len());
        match from.read(&mut buffer[..room]) {
            Ok(0) | Err(_) => return false,
            Ok(read) if to.write_all(&buffer[..read]).is_err() => return false,
            Ok(read) => copied += read as u64,
        }
    }
    true
}
