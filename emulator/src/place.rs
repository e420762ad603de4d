//! Where things listen, and what they are called there.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use tokio::net::TcpListener;

use crate::server;

/// The port that a URL of the public cloud means.
const HTTPS: u16 = 443;
/// With public names: the authority's address. Those of the services follow.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Hands out addresses: 127.0.0.1 to all, or one each under its public name.
pub struct Places {
    public: bool,
    next: Ipv4Addr,
    names: Vec<(String, Ipv4Addr)>,
}

/// Where one of them is.
pub struct Place {
    /// URL without a path.
    pub url: String,
    /// Its port.
    pub port: u16,
}

impl Places {
    pub fn new(public: bool) -> Self {
        Self { public, next: FIRST, names: Vec::new() }
    }

    /// A listener for what the public cloud calls `host`, and `others`. Port 0 is any, or 443 where
    /// it goes by these names.
    pub async fn listen(
        &mut self,
        host: &str,
        others: &[&str],
        port: u16,
    ) -> Result<(TcpListener, Place), String> {
        let mut name = |address| {
            for name in [host].iter().chain(others) {
                self.names.push((name.to_ascii_lowercase(), address));
            }
        };
        if !self.public {
            name(Ipv4Addr::LOCALHOST);
            let listener = server::bind(Ipv4Addr::LOCALHOST, port).await?;
            let address = listener.local_addr().map_err(|error| error.to_string())?;
            let place = Place { url: format!("https://{address}"), port: address.port() };
            return Ok((listener, place));
        }
        let port = if port == 0 { HTTPS } else { port };
        let address = self.next;
        self.next = Ipv4Addr::from_bits(address.to_bits() + 1);
        let listener = server::bind(address, port).await?;
        name(address);
        let url = match port {
            HTTPS => format!("https://{host}"),
            _ => format!("https://{host}:{port}"),
        };
        Ok((listener, Place { url, port }))
    }

    /// The public names handed out so far, in lower case, and where each is.
    pub fn names(&self) -> BTreeMap<String, Ipv4Addr> {
        self.names.iter().cloned().collect()
    }

    /// What a hosts file has to say of them.
    pub fn hosts(&self) -> String {
        let mut hosts = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
        for (name, address) in self.names.iter().filter(|_| self.public) {
            hosts.push_str(&format!("{address} {name}\n"));
        }
        hosts
    }
}
