//! Trouble on order: a test says which request shall go wrong, and how.

use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use hyper::header::{
    CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::service::{Close, Reply};

/// The operation of a TLS handshake; only an order that names it concerns handshakes.
pub const HANDSHAKE_OPERATION: &str = "handshake";
/// The operations that give tokens.
const TOKEN_OPERATIONS: &[&str] = &["token", "imds", "app-service", "arc"];
/// The operation of a DNS query, likewise.
pub const DNS_OPERATION: &str = "dns";

/// One piece of trouble. It applies to requests that match, after the first `skip` of them, and is
/// used up after `times`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fault {
    /// Only this service: `vault:NAME`, `managed-hsm:NAME` or `entra`.
    pub service: Option<String>,
    /// Only this operation, as the counters name it, for example `keys/sign` or `token`;
    /// `handshake` and `dns` are meant only where they are named.
    pub operation: Option<String>,
    /// Only the object of this name; for `dns` the host.
    pub name: Option<String>,
    /// Requests that match and are left alone first.
    pub skip: u32,
    /// Requests it applies to; 0 for all.
    pub times: u32,
    /// Milliseconds to wait before the request is looked at.
    pub delay_ms: u64,
    /// Answer with this status instead of carrying the request out.
    pub status: Option<u16>,
    /// Error code and words of that answer.
    pub code: Option<String>,
    /// `Retry-After` of that answer, seconds.
    pub retry_after: Option<u32>,
    /// That answer is an HTML page, as front ends give.
    pub html: bool,
    /// That answer is a redirection to this URL.
    pub redirect: Option<String>,
    /// Value of `WWW-Authenticate` in that answer.
    pub challenge: Option<String>,
    /// How the connection ends.
    pub connection: Option<Ending>,
    /// Host that `nextLink` of the answer is changed to.
    pub next_link_host: Option<String>,
    /// Milliseconds between two bytes of the answer's body.
    pub slow_ms: u64,
    /// What DNS says instead.
    pub dns: Option<DnsTrouble>,
    /// Seconds that the tokens of this answer live, whatever they say about themselves.
    pub token_lifetime: Option<i64>,
}

/// What DNS says instead of the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DnsTrouble {
    /// Nothing at all.
    Silent,
    /// There is no such name.
    NxDomain,
    /// The name is there and has no address.
    NoData,
    /// The server cannot tell.
    ServFail,
    /// The server does not talk to this client.
    Refused,
    /// The answer does not fit, and it has to be asked over TCP.
    Truncated,
    /// Another address.
    #[serde(untagged)]
    Address(IpAddr),
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Reset before the request is carried out.
    ResetBefore,
    /// Reset after the request was carried out, without an answer.
    ResetAfter,
    /// Closed before the request is carried out, without a word of TLS.
    CloseBefore,
    /// Closed after the request was carried out, without an answer or a word of TLS.
    CloseAfter,
    /// Closed before the request is carried out, TLS saying goodbye (`close_notify`).
    NotifyBefore,
    /// Closed after the request was carried out, without an answer, TLS saying goodbye.
    NotifyAfter,
    /// Closed in the middle of the answer's body.
    Truncate,
    /// The handshake is refused with an alert.
    HandshakeFailure,
    /// The handshake is made with a certificate that expired yesterday.
    ExpiredCertificate,
}

impl Ending {
    /// How the connection closes, where it does so instead of an answer; whether before the
    /// request is carried out.
    fn close(self) -> Option<(Close, bool)> {
        match self {
            Self::ResetBefore => Some((Close::Reset, true)),
            Self::ResetAfter => Some((Close::Reset, false)),
            Self::CloseBefore => Some((Close::Abrupt, true)),
            Self::CloseAfter => Some((Close::Abrupt, false)),
            Self::NotifyBefore => Some((Close::Notified, true)),
            Self::NotifyAfter => Some((Close::Notified, false)),
            Self::Truncate | Self::HandshakeFailure | Self::ExpiredCertificate => None,
        }
    }

    fn is_of_a_handshake(self) -> bool {
        use Ending::{CloseBefore, ExpiredCertificate, HandshakeFailure, ResetBefore};
        matches!(self, CloseBefore | ExpiredCertificate | HandshakeFailure | ResetBefore)
    }
}

/// What has been ordered and is not used up yet.
#[derive(Default)]
pub struct Faults {
    ordered: Mutex<Vec<Fault>>,
}

impl Faults {
    /// Orders trouble; the error says why it cannot happen as ordered.
    pub fn order(&self, fault: Fault) -> Result<(), String> {
        fault.check()?;
        self.ordered.lock().push(fault);
        Ok(())
    }

    /// Cancels all orders.
    pub fn clear(&self) {
        self.ordered.lock().clear();
    }

    /// What is still to come.
    pub fn list(&self) -> Vec<Fault> {
        self.ordered.lock().clone()
    }

    /// The trouble this request is in: the first order that matches.
    pub fn hit(&self, service: &str, operation: &str, name: &str) -> Option<Fault> {
        let is = |wanted: &Option<String>, given: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(given))
        };
        let below_http = matches!(operation, HANDSHAKE_OPERATION | DNS_OPERATION);
        let mut ordered = self.ordered.lock();
        let at = ordered.iter().position(|fault| {
            (fault.operation.is_some() || !below_http)
                && is(&fault.service, service)
                && is(&fault.operation, operation)
                && is(&fault.name, name)
        })?;
        let fault = &mut ordered[at];
        if fault.skip > 0 {
            fault.skip -= 1;
            return None;
        }
        let hit = fault.clone();
        match fault.times {
            0 => {}
            1 => drop(ordered.remove(at)),
            _ => fault.times -= 1,
        }
        Some(hit)
    }
}

impl Fault {
    /// Whether this can happen where it is ordered.
    fn check(&self) -> Result<(), String> {
        let operation = self.operation.as_deref().unwrap_or_default();
        let is = |name: &str| operation.eq_ignore_ascii_case(name);
        let members = Self {
            service: None,
            operation: None,
            name: None,
            skip: 0,
            times: 0,
            delay_ms: 0,
            ..self.clone()
        };
        let only = |kept: Self| members == kept;
        let ending = self.connection;
        let handshakes = ending.is_none_or(Ending::is_of_a_handshake);
        if is(DNS_OPERATION) {
            let kept = Self { dns: self.dns, ..Self::default() };
            if !only(kept) {
                return Err("'dns' takes 'delay_ms' and 'dns' only".to_owned());
            }
        } else if self.dns.is_some() {
            return Err("'dns' needs the operation 'dns'".to_owned());
        } else if is(HANDSHAKE_OPERATION) {
            let kept = Self { connection: ending, ..Self::default() };
            if !handshakes || !only(kept) {
                return Err(
                    "'handshake' takes 'delay_ms' and 'connection' only, and of its values \
                            reset-before, close-before, handshake-failure, expired-certificate"
                        .to_owned(),
                );
            }
        } else if self.token_lifetime.is_some() && !TOKEN_OPERATIONS.iter().any(|name| is(name)) {
            return Err(format!("'token_lifetime' needs an operation of {TOKEN_OPERATIONS:?}"));
        } else if matches!(ending, Some(Ending::HandshakeFailure | Ending::ExpiredCertificate)) {
            return Err("this 'connection' needs the operation 'handshake'".to_owned());
        }
        Ok(())
    }

    /// Lets the trouble happen around `well`, which is what would happen without it.
    pub async fn befall(self, well: impl Future<Output = Reply>) -> Reply {
        tokio::time::sleep(Duration::from_millis(self.delay_ms)).await;
        let close = self.connection.and_then(Ending::close);
        if let Some((close, true)) = close {
            return Reply { close: Some(close), ..Reply::new(500, HeaderMap::new(), Vec::new()) };
        }
        let mut reply = match self.answer() {
            Some(reply) => reply,
            None => well.await,
        };
        if let Some(host) = &self.next_link_host {
            reply.body = change_link(&reply.body, host);
        }
        reply.pause = Duration::from_millis(self.slow_ms);
        reply.close = close.map(|(close, _)| close);
        reply.truncated = self.connection == Some(Ending::Truncate);
        reply
    }

    /// The answer that replaces the real one.
    fn answer(&self) -> Option<Reply> {
        let redirected = self.redirect.as_ref().map(|_| 307);
        let status = self.status.or(redirected)?;
        let mut headers = HeaderMap::new();
        let mut set = |name, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        if let Some(seconds) = self.retry_after {
            set(RETRY_AFTER, &seconds.to_string());
        }
        if let Some(url) = &self.redirect {
            set(LOCATION, url);
        }
        if let Some(challenge) = &self.challenge {
            set(WWW_AUTHENTICATE, challenge);
        }
        let body = if self.html {
            set(CONTENT_TYPE, "text/html");
            format!("<html><head><title>{status}</title></head><body>{status}</body></html>")
        } else {
            set(CONTENT_TYPE, "application/json; charset=utf-8");
            let code = self.code.as_deref().unwrap_or("InjectedFault");
            json!({"error": {"code": code, "message": "A fault that was asked for."}}).to_string()
        };
        Some(Reply::new(status, headers, body.into_bytes()))
    }
}

/// The body with `nextLink` leading to another host; anything else unchanged.
fn change_link(body: &[u8], host: &str) -> Vec<u8> {
    let Ok(mut page) = serde_json::from_slice::<Value>(body) else {
        return body.to_vec();
    };
    if let Some(Value::String(link)) = page.get_mut("nextLink")
        && let Some((_, rest)) = link.split_once("://")
    {
        let path = rest.find('/').map_or("", |slash| &rest[slash..]);
        *link = format!("https://{host}{path}");
    }
    page.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_skipped_used_and_gone() {
        let faults = Faults::default();
        let fault =
            Fault { operation: Some("keys/sign".into()), skip: 1, times: 2, ..Fault::default() };
        faults.order(fault).expect("order");
        let hits = |operation| faults.hit("vault:kv", operation, "k").is_some();
        assert!(!hits("keys/get"));
        assert_eq!([0; 4].map(|_| hits("keys/sign")), [false, true, true, false]);
        assert!(faults.list().is_empty());
    }

    #[test]
    fn an_order_without_number_stays() {
        let faults = Faults::default();
        faults.order(Fault { name: Some("K".into()), ..Fault::default() }).expect("order");
        for _ in 0..3 {
            assert!(faults.hit("entra", "token", "k").is_some());
        }
        assert!(faults.hit("entra", "token", "").is_none());
        faults.clear();
        assert!(faults.hit("entra", "token", "k").is_none());
    }

    #[test]
    fn handshakes_and_dns_are_left_alone_unless_named() {
        let faults = Faults::default();
        faults.order(Fault::default()).expect("order");
        assert!(faults.hit("vault:kv", HANDSHAKE_OPERATION, "").is_none());
        assert!(faults.hit("dns", DNS_OPERATION, "kv.vault.azure.net").is_none());
        assert!(faults.hit("vault:kv", "keys/get", "k").is_some());
    }

    #[test]
    fn what_cannot_happen_is_refused() {
        for text in [
            r#"{"connection":"expired-certificate"}"#,
            r#"{"operation":"keys/get","connection":"handshake-failure"}"#,
            r#"{"operation":"handshake","connection":"truncate"}"#,
            r#"{"operation":"handshake","status":500}"#,
            r#"{"operation":"dns","status":500}"#,
            r#"{"dns":"silent"}"#,
            r#"{"operation":"keys/get","token_lifetime":1}"#,
        ] {
            let fault: Fault = serde_json::from_str(text).expect(text);
            assert!(Faults::default().order(fault).is_err(), "{text}");
        }
        for text in [r#"{"operation":"dns","dns":"gone"}"#, r#"{"connection":"melt"}"#] {
            assert!(serde_json::from_str::<Fault>(text).is_err(), "{text}");
        }
    }
}
