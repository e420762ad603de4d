//! Whom requests go to: made once for an endpoint, shared by its requests.

use reqwest::{Url, header::HeaderValue};

/// Scheme, host and port (RFC 6454), and what the Host header says.
#[derive(Debug, PartialEq, Eq)]
pub struct Origin {
    /// `scheme://host[:port]`
    url: String,
    is_https: bool,
    host: String,
    port: u16,
    named: HeaderValue,
    /// The Host header is not what a client would make of the URL.
    is_renamed: bool,
}

impl Origin {
    /// That of a URL, with another Host header where one is given.
    pub fn new(url: &Url, named: Option<HeaderValue>) -> Origin {
        let host = url.host_str().unwrap_or_default();
        let is_renamed = named.is_some();
        let as_in_url = || match url.port() {
            Some(port) => HeaderValue::from_str(&format!("{host}:{port}")),
            None => HeaderValue::from_str(host),
        };
        Origin {
            url: url.origin().ascii_serialization(),
            is_https: url.scheme() == "https",
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port_or_known_default().unwrap_or(0),
            // The host of a URL is ASCII.
            named: named.unwrap_or_else(|| as_in_url().unwrap_or(HeaderValue::from_static(""))),
            is_renamed,
        }
    }

    /// The URL of a target (path and query) there; None where that is none.
    pub(super) fn url(&self, target: &str) -> Option<Url> {
        Url::parse(&[&self.url, target].concat()).ok()
    }

    pub(super) fn is_https(&self) -> bool {
        self.is_https
    }

    /// As it stands in the URL, without the brackets of an IPv6 address; empty where the URL has
    /// none.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The Host header.
    pub(super) fn named(&self) -> &HeaderValue {
        &self.named
    }

    /// The Host header, where a client would not make it of the URL.
    pub(super) fn renamed(&self) -> Option<&HeaderValue> {
        self.is_renamed.then_some(&self.named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_header_says_what_the_url_says_or_what_is_given() {
        let origin = |url: &str| Origin::new(&Url::parse(url).unwrap(), None);
        for (url, host, port, named) in [
            ("https://contoso.vault.azure.net/x?y", "contoso.vault.azure.net", 443, None),
            ("https://[::1]:8443/", "::1", 8443, Some("[::1]:8443")),
            ("http://169.254.169.254/", "169.254.169.254", 80, None),
        ] {
            let origin = origin(url);
            assert_eq!((origin.host(), origin.port()), (host, port));
            assert_eq!(origin.named(), named.unwrap_or(host));
            assert_eq!(origin.renamed(), None);
            assert_eq!(origin.is_https(), url.starts_with("https"));
        }
        let url = Url::parse("https://contoso.vault.azure.net/").unwrap();
        let renamed = Origin::new(&url, Some(HeaderValue::from_static("contoso:8443")));
        assert_eq!(renamed.renamed().map(HeaderValue::as_bytes), Some(&b"contoso:8443"[..]));
        let whole = renamed.url("/keys?a=b").map(String::from);
        assert_eq!(whole.as_deref(), Some("https://contoso.vault.azure.net/keys?a=b"));
        assert_eq!(origin("data:text").host(), "");
    }
}
