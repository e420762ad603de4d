//! The control endpoint: plain HTTP on loopback, for tests.

use std::sync::Arc;

use hyper::Method;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::counters::Counters;
use crate::entra::Entra;
use crate::fault::Faults;
use crate::service::{Call, Reply};

/// What the control endpoint reaches.
pub struct Control {
    /// What was counted.
    pub counters: Arc<Counters>,
    /// The clock of all services.
    pub clock: Arc<Clock>,
    /// Gives tokens to managed identities, which come over plain HTTP, too.
    pub entra: Arc<Entra>,
    /// Trouble on order.
    pub faults: Arc<Faults>,
    /// Rung to end the emulator.
    pub shutdown: Arc<Notify>,
}

impl Control {
    /// Answers a request.
    pub async fn answer(&self, call: &Call) -> Reply {
        if let Some(reply) = self.entra.answer_managed(call).await {
            return reply;
        }
        let (status, body) = match (&call.method, call.path.trim_end_matches('/')) {
            (&Method::GET, "/counters") => {
                (200, serde_json::to_value(self.counters.snapshot()).unwrap_or_default())
            }
            (&Method::POST, "/counters/reset") => {
                self.counters.reset();
                (200, json!({}))
            }
            (&Method::POST, "/clock/advance") => {
                match call.parameter("seconds").and_then(|text| text.parse().ok()) {
                    Some(seconds) => {
                        self.clock.advance(seconds);
                        (200, json!({"now": self.clock.now()}))
                    }
                    None => (400, json!({"error": "seconds=N is needed"})),
                }
            }
            (&Method::POST, "/clock/stop") => {
                self.clock.stop();
                (200, json!({"now": self.clock.now()}))
            }
            (&Method::POST, "/clock/go") => {
                self.clock.go();
                (200, json!({"now": self.clock.now()}))
            }
            (&Method::GET, "/clock") => (200, json!({"now": self.clock.now()})),
            (&Method::GET, "/faults") => {
                (200, serde_json::to_value(self.faults.list()).unwrap_or_default())
            }
            (&Method::DELETE, "/faults") => {
                self.faults.clear();
                (200, json!({}))
            }
            (&Method::POST, "/faults") => match serde_json::from_slice(&call.body) {
                Ok(fault) => match self.faults.order(fault) {
                    Ok(()) => (200, json!({})),
                    Err(why) => (400, json!({"error": why})),
                },
                Err(error) => (400, json!({"error": error.to_string()})),
            },
            (&Method::POST, "/claims") => match serde_json::from_slice(&call.body) {
                Ok(Value::Object(claims)) => {
                    self.entra.demand(Some(claims));
                    (200, json!({}))
                }
                _ => (400, json!({"error": "the claims are a JSON object"})),
            },
            (&Method::DELETE, "/claims") => {
                self.entra.demand(None);
                (200, json!({}))
            }
            (&Method::POST, "/attest") => match serde_json::from_slice(&call.body) {
                Ok(claims @ Value::Object(_)) => match self.entra.attest(claims) {
                    Ok(token) => (200, json!({"token": token})),
                    Err(stack) => (500, json!({"error": stack.to_string()})),
                },
                _ => (400, json!({"error": "the claims are a JSON object"})),
            },
            (&Method::POST, "/shutdown") => {
                self.shutdown.notify_one();
                (200, json!({}))
            }
            (method, path) => (404, json!({"error": format!("no {method} {path} here")})),
        };
        let mut headers = HeaderMap::new();
        headers.insert(
            HeaderName::from_static("content-type"),
            HeaderValue::from_static("application/json"),
        );
        Reply::new(status, headers, body.to_string().into_bytes())
    }
}
