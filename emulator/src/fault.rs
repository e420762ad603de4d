//! Trouble on order: a test says which request shall go wrong, and how.

use std::future::Future;
use std::time::Duration;

use hyper::header::{
    CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::service::Reply;

/// One piece of trouble. It applies to requests that match, after the first `skip` of them, and is
/// used up after `times`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fault {
    /// Only this service: `vault:NAME`, `managed-hsm:NAME` or `entra`.
    pub service: Option<String>,
    /// Only this operation, as the counters name it, for example `keys/sign` or `token`.
    pub operation: Option<String>,
    /// Only the object of this name.
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
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Reset before the request is carried out.
    ResetBefore,
    /// Reset after the request was carried out, without an answer.
    ResetAfter,
    /// Closed after the request was carried out, without an answer.
    CloseAfter,
    /// Closed in the middle of the answer's body.
    Truncate,
}

/// What has been ordered and is not used up yet.
#[derive(Default)]
pub struct Faults {
    ordered: Mutex<Vec<Fault>>,
}

impl Faults {
    /// Orders trouble.
    pub fn order(&self, fault: Fault) {
        self.ordered.lock().push(fault);
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
        let mut ordered = self.ordered.lock();
        let at = ordered.iter().position(|fault| {
            is(&fault.service, service) && is(&fault.operation, operation) && is(&fault.name, name)
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
    /// Lets the trouble happen around `well`, which is what would happen without it.
    pub async fn befall(self, well: impl Future<Output = Reply>) -> Reply {
        tokio::time::sleep(Duration::from_millis(self.delay_ms)).await;
        if self.connection == Some(Ending::ResetBefore) {
            return Reply { ends: Some(true), ..Reply::new(500, HeaderMap::new(), Vec::new()) };
        }
        let mut reply = match self.answer() {
            Some(reply) => reply,
            None => well.await,
        };
        if let Some(host) = &self.next_link_host {
            reply.body = change_link(&reply.body, host);
        }
        reply.pause = Duration::from_millis(self.slow_ms);
        match self.connection {
            Some(Ending::ResetAfter) => reply.ends = Some(true),
            Some(Ending::CloseAfter) => reply.ends = Some(false),
            Some(Ending::Truncate) => reply.truncated = true,
            Some(Ending::ResetBefore) | None => {}
        }
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
        faults.order(Fault {
            operation: Some("keys/sign".into()),
            skip: 1,
            times: 2,
            ..Fault::default()
        });
        let hits = |operation| faults.hit("vault:kv", operation, "k").is_some();
        assert!(!hits("keys/get"));
        assert_eq!([0; 4].map(|_| hits("keys/sign")), [false, true, true, false]);
        assert!(faults.list().is_empty());
    }

    #[test]
    fn an_order_without_number_stays() {
        let faults = Faults::default();
        faults.order(Fault { name: Some("K".into()), ..Fault::default() });
        for _ in 0..3 {
            assert!(faults.hit("entra", "token", "k").is_some());
        }
        assert!(faults.hit("entra", "token", "").is_none());
        faults.clear();
        assert!(faults.hit("entra", "token", "k").is_none());
    }
}
