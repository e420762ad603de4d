//! What the twin answers: the service's status lines, headers and members, from tables made
//! beforehand.

use std::{collections::HashMap, fmt::Write as _, io};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use openssl::{
    bn::{BigNum, BigNumContext},
    ec::{EcGroup, EcKey},
    ecdsa::EcdsaSig,
    nid::Nid,
    pkey::Private,
};
use serde::Deserialize;

use crate::pki::Pki;

/// The name of the key whose signatures are real: that of the web server's certificate.
pub const WEB: &str = "web";
/// Entra's tenant of the twin.
pub const TENANT: &str = "72f988bf-0000-4000-8000-2d7cd011db47";

const VERSION: &str = "0123456789abcdef0123456789abcdef";
const PAGE: usize = 25;
/// As many characters as an access token has.
const TOKEN: usize = 1600;
/// What the service sends with each answer besides type and length.
const HEADERS: &str = "Cache-Control: no-cache\r\nPragma: no-cache\r\nExpires: -1\r\n\
    x-ms-keyvault-region: northeurope\r\n\
    x-ms-client-request-id: 8c2cf0b8-9fc8-11ee-8c90-0242ac120002\r\n\
    x-ms-request-id: 0a9b6e1e-3f0d-4d5e-a4b1-8c2cf0b89fc8\r\n\
    x-ms-keyvault-service-version: 1.9.1116.1\r\n\
    x-ms-keyvault-network-info: conn_type=Ipv4;addr=127.0.0.1;act_addr_fam=InterNetwork;\r\n\
    X-Content-Type-Options: nosniff\r\n\
    Strict-Transport-Security: max-age=31536000;includeSubDomains\r\n\
    Date: Sun, 22 Nov 2026 12:00:00 GMT\r\n";

/// Everything the twin can say.
pub struct Answers {
    origin: String,
    keys: Vec<Key>,
    index: HashMap<String, usize>,
    web: EcKey<Private>,
    token: String,
}

struct Key {
    name: String,
    /// Base64url.
    x: String,
    y: String,
}

/// The body of a signature request, as far as the twin reads it.
#[derive(Deserialize)]
struct SignParameters<'a> {
    value: &'a str,
}

impl Answers {
    /// This many P-256 keys `key-00000` …, and [`WEB`].
    pub fn new(keys: usize, port: u16, pki: &Pki) -> io::Result<Answers> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        let mut made = vec![Key::of(WEB.to_owned(), &pki.web)?];
        for number in 0..keys {
            made.push(Key::of(format!("key-{number:05}"), &EcKey::generate(&group)?)?);
        }
        let index = made.iter().enumerate().map(|(at, key)| (key.name.clone(), at)).collect();
        Ok(Answers {
            origin: format!("https://localhost:{port}"),
            keys: made,
            index,
            web: pki.web.clone(),
            token: "t".repeat(TOKEN),
        })
    }

    /// Appends the whole answer to a whole request; says what kind of request it was.
    pub fn write(&self, request: &[u8], out: &mut Vec<u8>) -> io::Result<&'static str> {
        let end = head_end(request).ok_or_else(|| io::Error::other("no head"))?;
        let head = std::str::from_utf8(&request[..end]).map_err(io::Error::other)?;
        let target = head.split(' ').nth(1).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if path.ends_with("/oauth2/v2.0/token") {
            let token = &self.token;
            let body = format!(
                r#"{{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"access_token":"{token}"}}"#
            );
            respond(out, "200 OK", "", &body);
            return Ok("token");
        }
        if header(head, "authorization").is_none() {
            let challenge = format!(
                "WWW-Authenticate: Bearer authorization=\"{}/{TENANT}\", \
                 resource=\"https://vault.azure.net\"\r\n",
                self.origin
            );
            respond(out, "401 Unauthorized", &challenge, &error("Unauthorized", "AKV10000"));
            return Ok("challenge");
        }
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let (kind, body) = match *segments.as_slice() {
            ["keys"] => {
                let skip = query.split('&').find_map(|pair| pair.strip_prefix("$skiptoken="));
                ("list", self.page(skip.and_then(|text| text.parse().ok()).unwrap_or(0)))
            }
            ["keys", name, _, "sign"] if self.find(name).is_some() => {
                ("sign", self.sign(name, &request[end..])?)
            }
            ["keys", name] | ["keys", name, _] if self.find(name).is_some() => {
                ("get", self.bundle(name))
            }
            _ => {
                respond(out, "404 Not Found", "", &error("KeyNotFound", "A key was not found"));
                return Ok("missing");
            }
        };
        respond(out, "200 OK", "", &body);
        Ok(kind)
    }

    fn find(&self, name: &str) -> Option<&Key> {
        self.index.get(name).map(|at| &self.keys[*at])
    }

    fn kid(&self, name: &str) -> String {
        format!("{}/keys/{name}/{VERSION}", self.origin)
    }

    fn bundle(&self, name: &str) -> String {
        let (x, y) = self.find(name).map_or(("", ""), |key| (&key.x, &key.y));
        let kid = self.kid(name);
        format!(
            r#"{{"key":{{"kid":"{kid}","kty":"EC","key_ops":["sign","verify"],"crv":"P-256","x":"{x}","y":"{y}"}},"attributes":{{"enabled":true,"created":1700000000,"updated":1700000000,"recoveryLevel":"Recoverable+Purgeable","recoverableDays":90,"exportable":false}}}}"#
        )
    }

    fn page(&self, from: usize) -> String {
        let mut body = String::from(r#"{"value":["#);
        let origin = &self.origin;
        for (number, key) in self.keys.iter().skip(from).take(PAGE).enumerate() {
            let comma = if number > 0 { "," } else { "" };
            let name = &key.name;
            let _ = write!(
                body,
                r#"{comma}{{"kid":"{origin}/keys/{name}","attributes":{{"enabled":true,"created":1700000000,"updated":1700000000,"recoveryLevel":"Recoverable+Purgeable","recoverableDays":90}}}}"#
            );
        }
        let skip = from + PAGE;
        let next = match skip < self.keys.len() {
            true => {
                format!(r#""{origin}/keys?api-version=7.4&$skiptoken={skip}&maxresults={PAGE}""#)
            }
            false => "null".to_owned(),
        };
        let _ = write!(body, r#"],"nextLink":{next}}}"#);
        body
    }

    /// A signature of the right shape; that of [`WEB`] is one.
    fn sign(&self, name: &str, body: &[u8]) -> io::Result<String> {
        let mut signature = [0x11; 64];
        if name == WEB {
            let parameters: SignParameters<'_> = serde_json::from_slice(body)?;
            let digest = URL_SAFE_NO_PAD.decode(parameters.value).map_err(io::Error::other)?;
            let made = EcdsaSig::sign(&digest, &self.web)?;
            signature[..32].copy_from_slice(&made.r().to_vec_padded(32)?);
            signature[32..].copy_from_slice(&made.s().to_vec_padded(32)?);
        }
        let (kid, value) = (self.kid(name), URL_SAFE_NO_PAD.encode(signature));
        Ok(format!(r#"{{"kid":"{kid}","value":"{value}"}}"#))
    }
}

impl Key {
    fn of(name: String, key: &EcKey<Private>) -> io::Result<Key> {
        let (mut context, mut x, mut y) = (BigNumContext::new()?, BigNum::new()?, BigNum::new()?);
        key.public_key().affine_coordinates(key.group(), &mut x, &mut y, &mut context)?;
        let encode =
            |number: &BigNum| Ok::<_, io::Error>(URL_SAFE_NO_PAD.encode(number.to_vec_padded(32)?));
        Ok(Key { name, x: encode(&x)?, y: encode(&y)? })
    }
}

/// The length of the request at the start of `bytes`, once it is whole.
pub fn request_length(bytes: &[u8]) -> Option<usize> {
    let end = head_end(bytes)?;
    let head = std::str::from_utf8(&bytes[..end]).unwrap_or_default();
    let body = header(head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    (bytes.len() >= end + body).then_some(end + body)
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn respond(out: &mut Vec<u8>, status: &str, more: &str, body: &str) {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\
         Content-Type: application/json; charset=utf-8\r\n{HEADERS}{more}\r\n",
        body.len()
    );
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(body.as_bytes());
}

fn error(code: &str, message: &str) -> String {
    format!(r#"{{"error":{{"code":"{code}","message":"{message}"}}}}"#)
}
