//! One operation's request: its URL, its headers, its body, and the shape of its answer.

use std::sync::Arc;

use akv_wire::ApiVersion;
use bytes::Bytes;
use cryptoki_sys::{CKR_ARGUMENTS_BAD, CKR_GENERAL_ERROR};
use reqwest::{
    Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT},
};
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::{KeyRef, Operation, Vault, errors, site::Site};
use crate::{
    config::Endpoint,
    credential::Token,
    error::{Error, Result},
    hex,
    net::{Origin, Request, Response},
};

const AGENT: &str = concat!("akv-pkcs11/", env!("CARGO_PKG_VERSION"));
const JSON: &str = "application/json";
const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");
/// Bytes; a name has at most 127.
const TARGET_ROOM: usize = 256;

/// One operation on one object, as it will be sent.
pub(super) struct Call<'a> {
    pub operation: Operation,
    pub key: Option<KeyRef<'a>>,
    action: Option<&'static str>,
    body: Option<Bytes>,
    /// A page of a listing instead of its beginning.
    page: Option<Url>,
    /// Another api-version than the configured one.
    version: Option<ApiVersion>,
}

impl<'a> Call<'a> {
    /// An operation on a key or certificate.
    ///
    /// # Errors
    /// CKR_ARGUMENTS_BAD for a name or version that cannot exist, since an empty or odd one would
    /// address something else.
    pub fn new(operation: Operation, key: KeyRef<'a>) -> Result<Self> {
        let legal = |text: &str, most: usize| {
            (1..=most).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if !legal(key.name, 127) || !key.version.is_none_or(|version| legal(version, 64)) {
            return Err(Error::new(
                CKR_ARGUMENTS_BAD,
                format!("{:?} cannot name a key: letters, digits and '-' only", key.name),
            ));
        }
        Ok(Call { key: Some(key), ..Call::bare(operation) })
    }

    /// An operation on the service as a whole.
    pub fn bare(operation: Operation) -> Self {
        Call { operation, key: None, action: None, body: None, page: None, version: None }
    }

    pub fn in_version(self, version: ApiVersion) -> Self {
        Call { version: Some(version), ..self }
    }

    pub fn with_action(self, action: &'static str) -> Self {
        Call { action: Some(action), ..self }
    }

    /// Serializes the body into memory that is wiped.
    pub fn with_json(self, body: &impl Serialize) -> Result<Self> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(1024));
        serde_json::to_writer(&mut *bytes, body).map_err(|error| {
            Error::new(CKR_GENERAL_ERROR, format!("the request cannot be written: {error}"))
        })?;
        Ok(Call { body: Some(Bytes::from_owner(bytes)), ..self })
    }

    pub fn at_page(self, page: Url) -> Self {
        Call { page: Some(page), ..self }
    }
}

/// Whom requests to an endpoint go to. The client lets a port in the URL win over the port of
/// `address`, so that a `direct` one has none, and a Host header that differs.
pub(super) fn origin(endpoint: &Endpoint, direct: bool) -> Result<Origin> {
    let (host, port) = (&endpoint.host, endpoint.port);
    let unusable = |what: String| Error::new(CKR_GENERAL_ERROR, format!("endpoint: {what}"));
    let named = format!("{host}:{port}");
    let url = match direct {
        true => format!("https://{host}/"),
        false => format!("https://{named}/"),
    };
    let url = Url::parse(&url).map_err(|error| unusable(format!("{named:?}: {error}")))?;
    let header = match direct && port != 443 {
        true => Some(
            HeaderValue::from_str(&named)
                .map_err(|_| unusable(format!("{named:?} is no Host header")))?,
        ),
        false => None,
    };
    Ok(Origin::new(&url, header))
}

impl Vault {
    /// The request as it is sent to an endpoint, once; `version` is the key's there, where that
    /// is another one.
    pub(super) fn request(
        &self,
        call: &Call<'_>,
        site: &Site,
        version: Option<&str>,
        token: &Token,
        id: &HeaderValue,
    ) -> Request {
        let mut request = self.anonymous(call, site, version, id);
        request.headers.push((AUTHORIZATION, token.header().clone()));
        request
    }

    /// The request without a token.
    pub(super) fn anonymous(
        &self,
        call: &Call<'_>,
        site: &Site,
        version: Option<&str>,
        id: &HeaderValue,
    ) -> Request {
        let row = call.operation.row();
        let origin = Arc::clone(&site.origin);
        let mut request = Request::to(row.method.clone(), origin, self.target(call, version));
        request.headers.extend([
            (ACCEPT, HeaderValue::from_static(JSON)),
            (USER_AGENT, HeaderValue::from_static(AGENT)),
            (REQUEST_ID, id.clone()),
        ]);
        if call.body.is_some() {
            request.headers.push((CONTENT_TYPE, HeaderValue::from_static(JSON)));
        }
        request.body = call.body.clone();
        // A connection that died while it was idle must not leave that in doubt.
        request.fresh = !row.repeatable;
        request
    }

    /// Path and query.
    fn target(&self, call: &Call<'_>, version: Option<&str>) -> String {
        let api_version =
            call.version.map_or(self.api_version.as_str(), |version| version.as_str());
        let mut target = String::with_capacity(TARGET_ROOM);
        if let Some(page) = &call.page {
            target.push_str(page.path());
            let query = page.query().unwrap_or_default();
            target.extend(["?", query]);
            if page.query_pairs().any(|(name, _)| name == "api-version") {
                return target;
            }
            target.push_str(if query.is_empty() { "" } else { "&" });
        } else {
            let name = call.key.map(|key| key.name);
            let version = version.or_else(|| call.key.and_then(|key| key.version));
            let action = match call.operation {
                Operation::ListKeyVersions => Some("versions"),
                _ => call.action,
            };
            for segment in
                [Some(call.operation.row().collection), name, version, action].into_iter().flatten()
            {
                target.push('/');
                push_encoded(&mut target, segment);
            }
            target.push('?');
        }
        target.push_str("api-version=");
        push_encoded(&mut target, api_version);
        target
    }
}

/// Appends a text as it stands in a path or query (RFC 3986, 2.1). What the service calls its keys
/// and versions needs no encoding.
fn push_encoded(target: &mut String, text: &str) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if text.bytes().all(plain) {
        target.push_str(text);
        return;
    }
    for byte in text.bytes() {
        match plain(byte) {
            true => target.push(char::from(byte)),
            false => target.extend(["%", &hex::encode(&[byte]).to_ascii_uppercase()]),
        }
    }
}

/// Reads an answer's JSON.
pub(super) fn parse<T: DeserializeOwned>(call: &Call<'_>, answer: &Response) -> Result<T> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        // serde_json's text may quote the value it stumbled over; the position is enough.
        let why = match error.classify() {
            serde_json::error::Category::Data => "JSON of another shape",
            _ => "no JSON",
        };
        errors::nonsense(call.operation, call.key, why)
    })
}

/// A random UUID (version 4) for x-ms-client-request-id.
pub(super) fn request_id() -> Result<HeaderValue> {
    let mut bytes = [0; 16];
    let failed = || Error::new(CKR_GENERAL_ERROR, "no random bytes for a request id");
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| failed())?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = [b'-'; 36];
    let mut place = 0;
    for (index, byte) in bytes.into_iter().enumerate() {
        place += usize::from(matches!(index, 4 | 6 | 8 | 10));
        text[place..place + 2].copy_from_slice(&hex::pair(byte));
        place += 2;
    }
    HeaderValue::from_bytes(&text).map_err(|_| failed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_address_something_else_are_refused() {
        for (name, version) in [("", None), ("a/b", None), ("a?b", None), ("a", Some(""))] {
            let key = KeyRef { name, version };
            let refused = Call::new(Operation::GetKey, key).err().map(|error| error.rv());
            assert_eq!(refused, Some(CKR_ARGUMENTS_BAD), "{key:?}");
        }
        assert!(Call::new(Operation::GetKey, KeyRef::version("a-1", "0f")).is_ok());
    }

    #[test]
    fn what_is_no_name_is_encoded() {
        let encoded = |text: &str| {
            let mut target = String::from("/");
            push_encoded(&mut target, text);
            target
        };
        assert_eq!(encoded("key-1"), "/key-1");
        assert_eq!(encoded("../a?b#é"), "/..%2Fa%3Fb%23%C3%A9");
    }

    #[test]
    fn request_ids_are_random_uuids() {
        let one = request_id().expect("id");
        let text = one.to_str().expect("ASCII");
        let lengths: Vec<usize> = text.split('-').map(str::len).collect();
        assert_eq!((lengths, text.as_bytes()[14]), (vec![8, 4, 4, 4, 12], b'4'));
        assert!(text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()));
        assert_ne!(one, request_id().expect("id"));
    }
}
