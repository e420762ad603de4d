//! Headers that decide what is done next: the challenge of a 401, and the pause of a 429.

use std::time::{Duration, Instant};

use akv_pkcs11::{
    backoff::retry_after,
    credential::Challenge,
    net::{Headers, Response},
    vault::tenant_of,
};

use crate::Seed;

/// A pause above this is none that a service asks for.
const MOST: Duration = Duration::from_secs(3600);

/// The input is an answer's head, or the value of a WWW-Authenticate header.
pub fn run(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        check(text);
    }
    let headers = Headers::Head(input.into());
    let answer = Response { status: 401, headers, body: Vec::new().into() };
    if let Some(challenge) = answer.header("www-authenticate") {
        check(challenge);
    }
    if let Some(claims) = Challenge::of(&answer) {
        // It is repeated to the operator, as an argument of a command.
        assert!(!claims.text().contains(['"', '\r', '\n']), "{:?}", claims.text());
    }
    if let Some(pause) = retry_after(&answer) {
        assert!(pause <= MOST, "{pause:?}");
        assert!(Instant::now().checked_add(pause).is_some(), "{pause:?} has no end");
    }
}

/// A tenant goes into the path of a URL: nothing may leave that segment.
fn check(challenge: &str) {
    if let Some(tenant) = tenant_of(challenge) {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
        assert!(!tenant.is_empty() && tenant.bytes().all(legal), "tenant {tenant:?}");
        assert!(tenant != "." && tenant != "..", "a segment that leaves its folder");
    }
}

/// Challenges of a vault, a Managed HSM and others, and pauses.
pub fn seeds() -> Vec<Seed> {
    let bearer = "Bearer authorization=\"https://login.example/11111111-2222-3333-4444-\
                  555555555555\", resource=\"https://vault.azure.net\"";
    let mut seeds = vec![
        Seed::new("vault", bearer),
        Seed::new("adfs", "Bearer authorization_uri=\"https://adfs/adfs\", error=\"x\""),
        Seed::new("dots", "Bearer authorization=\"https://h/..\""),
        Seed::new("basic", "Basic realm=\"authorization\""),
        Seed::new("open", "Bearer authorization=\"https://login.example/a"),
    ];
    for (name, header) in [
        ("challenged", format!("WWW-Authenticate: {bearer}")),
        (
            "claims",
            "WWW-Authenticate: PoP a=b\r\nWWW-Authenticate: Bearer error=\"insufficient_claims\", \
             claims=\"eyJhY2Nlc3NfdG9rZW4iOnt9fQ==\""
                .to_owned(),
        ),
        ("seconds", "Retry-After: 10".to_owned()),
        ("milliseconds", "x-ms-retry-after-ms: 250".to_owned()),
        ("without-end", "Retry-After: 18446744073709551615".to_owned()),
        ("date", "Retry-After: Sun, 22 Nov 2026 00:00:00 GMT".to_owned()),
    ] {
        seeds.push(Seed::new(name, format!("HTTP/1.1 401 No\r\n{header}\r\n\r\n")));
    }
    seeds
}
