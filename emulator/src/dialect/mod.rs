//! The two services differ in words, not in deeds: each dialect says how refusals read, what
//! headers an answer has, how JSON is laid out, how versions and pages are named.

mod hsm;
mod vault;

use akv_wire::{ErrorBody, ErrorDetail, InnerError, KeyType};
use hyper::header::HeaderMap;
use serde::Serialize;
use serde_json::Value;

use crate::config::{ServiceKind, Switches};
use crate::refusal::{Noun, Refusal};

/// What a dialect needs to know about the request it answers.
pub struct Context<'a> {
    /// `host[:port]` the client used.
    pub authority: &'a str,
    /// Path of the request, without query.
    pub path: &'a str,
    /// The service's name.
    pub service: &'a str,
    /// Identifier of this request: `x-ms-request-id`, and the activity id in words.
    pub request_id: &'a str,
    /// Value of the challenge's `authorization`.
    pub authorization: &'a str,
    /// Milliseconds spent.
    pub latency_ms: u128,
    /// What is unknown of the services.
    pub switches: &'a Switches,
}

/// Status and body of a refusal.
pub struct ErrorReply {
    /// HTTP status.
    pub status: u16,
    /// Body bytes.
    pub body: Vec<u8>,
    /// Media type.
    pub content_type: &'static str,
}

/// Where the next page starts.
pub struct NextPage<'a> {
    /// Path of the collection.
    pub path: &'a str,
    /// `api-version` of this request, verbatim; `None` on a link that came without.
    pub api_version: Option<&'a str>,
    /// `maxresults`, where the request had it.
    pub max_results: Option<usize>,
    /// The object the next page begins with: `NAME` or `NAME/VERSION`, upper-cased.
    pub marker: &'a str,
    /// Word of the collection's storage rows: `key`, `secret`, `certificate`.
    pub noun: &'a str,
    /// Rank of that object in order of creation.
    pub sequence: u64,
    /// Objects shown so far.
    pub shown: usize,
}

/// A position parsed back from `$skiptoken`.
pub enum Position {
    /// Begin with the first object whose upper-cased marker is not below this.
    Marker(String),
    /// Begin with the first object whose rank is not below this; objects shown so far.
    Sequence(u64, usize),
}

/// One of the two ways of speaking.
pub trait Dialect: Sync {
    /// Status, code and words of a refusal.
    fn refusal(&self, refusal: &Refusal, context: &Context<'_>) -> ErrorReply;
    /// Headers every answer has, besides length and type.
    fn headers(&self, headers: &mut HeaderMap, context: &Context<'_>);
    /// A new version identifier: 32 hex digits.
    fn version_id(&self) -> String;
    /// The type a key gets that was asked for as `asked`; `None` when the service has no such.
    fn created_type(&self, asked: KeyType, switches: &Switches) -> Option<KeyType>;
    /// Operations of a key that was made without any being named.
    fn default_ops(&self, kty: KeyType) -> Vec<String>;
    /// URL of the next page.
    fn next_link(&self, authority: &str, next: &NextPage<'_>) -> String;
    /// Reads `$skiptoken`.
    fn position(&self, token: &str) -> Option<Position>;
    /// Whether listings are in order of creation (else by upper-cased name).
    fn by_creation(&self) -> bool;
}

/// The dialect of a service.
pub fn of(kind: ServiceKind) -> &'static dyn Dialect {
    match kind {
        ServiceKind::Vault => &vault::Vault,
        ServiceKind::ManagedHsm => &hsm::ManagedHsm,
    }
}

/// Lays a body out: a vault keeps the order of declaration, a Managed HSM sorts members, leaves
/// out nulls and shuffles `key_ops`.
pub fn render<T: Serialize>(kind: ServiceKind, body: &T) -> Vec<u8> {
    let rendered = match kind {
        ServiceKind::Vault => serde_json::to_vec(body),
        ServiceKind::ManagedHsm => {
            serde_json::to_value(body).and_then(|value| serde_json::to_vec(&hsm::laid_out(value)))
        }
    };
    // The types of the contract have string keys and finite numbers only: they always render.
    rendered.unwrap_or_default()
}

fn error_reply(
    kind: ServiceKind,
    status: u16,
    code: &str,
    message: String,
    inner: Option<&str>,
) -> ErrorReply {
    let innererror = inner.map(|code| InnerError { code: code.to_owned(), innererror: None });
    let error = ErrorDetail { code: code.to_owned(), message, innererror };
    ErrorReply {
        status,
        body: render(kind, &ErrorBody { error }),
        content_type: "application/json; charset=utf-8",
    }
}

/// The inner code of a refusal to use an object: a vault's, and an HSM's where it is switched on.
fn inner_code(refusal: &Refusal, switches: &Switches) -> Option<&'static str> {
    let of_time = |code| Some(code).filter(|_| switches.time_inner_codes);
    match refusal {
        Refusal::OperationForbidden(_) => Some("KeyOperationForbidden"),
        Refusal::Disabled { noun: Noun::Secret, .. } => Some("SecretDisabled"),
        Refusal::Disabled { .. } => Some("KeyDisabled"),
        Refusal::Expired { .. } => of_time("KeyExpired"),
        Refusal::NotYetValid { .. } => of_time("KeyNotYetValid"),
        _ => None,
    }
}

/// The page that the front end of either service gives for a request it cannot parse.
fn front_end_page() -> ErrorReply {
    ErrorReply {
        status: 400,
        body: b"<!DOCTYPE html>\r\n<html>\r\n<head><title>Bad Request</title></head>\r\n<body>\
            <h2>Bad Request</h2>\r\n<p>The request URL could not be understood.</p></body>\r\n\
            </html>\r\n"
            .to_vec(),
        content_type: "text/html; charset=utf-8",
    }
}

/// `len` random bytes as lower-case hex digits.
fn hex(len: usize) -> String {
    let bytes = crate::crypto::random(len).unwrap_or_else(|_| vec![0; len]);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A random UUID of version 4.
pub fn uuid() -> String {
    let digits = uuid4_digits();
    format!(
        "{}-{}-{}-{}-{}",
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..]
    )
}

fn uuid4_digits() -> String {
    let mut digits = hex(16).into_bytes();
    digits[12] = b'4';
    digits[16] = b"89ab"[usize::from(digits[16]) % 4];
    digits.iter().map(|digit| char::from(*digit)).collect()
}

/// Sorts members at every depth.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> =
                members.into_iter().filter(|(_, value)| !value.is_null()).collect();
            members.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(members.into_iter().map(|(name, value)| (name, sorted(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}
