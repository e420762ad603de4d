//! Claims challenges: by continuous access evaluation or Conditional Access a service refuses a
//! token that is good otherwise, and says with which claims another one has to be asked for.
//! (<https://learn.microsoft.com/entra/identity-platform/claims-challenge>)

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use reqwest::Url;
use serde_json::{Map, Value, json};

use crate::net::Response;

/// What tells the authority that the client answers claims challenges. Without it a service sends
/// none, and tokens live for an hour.
pub(super) const CAPABILITY: &str = "cp1";
/// Of a challenge, this many characters are read.
const LONGEST: usize = 16 << 10;

/// The claims that a service asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// As the service sent them: base64 of a claims request's JSON. No secret.
    text: String,
    claims: Map<String, Value>,
}

impl Challenge {
    /// The claims that an answer asks for; None for any other answer, and for claims that make no
    /// sense.
    pub fn of(answer: &Response) -> Option<Challenge> {
        let mut found = None;
        if answer.status == 401 {
            answer.headers.each(|name, value| {
                if found.is_none() && name.eq_ignore_ascii_case("www-authenticate") {
                    found = Challenge::in_header(value);
                }
            });
        }
        found
    }

    fn in_header(header: &str) -> Option<Challenge> {
        let header = header.get(..LONGEST).unwrap_or(header);
        let parameter = |wanted: &str| {
            parameters(header).find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, v)| v)
        };
        parameter("error")
            .filter(|error| matches!(*error, "insufficient_claims" | "invalid_token"))?;
        let text = parameter("claims")?;
        match serde_json::from_slice(&lenient(text)?).ok()? {
            Value::Object(claims) => Some(Challenge { text: text.to_owned(), claims }),
            _ => None,
        }
    }

    /// As the service sent them, for `az login --claims-challenge`.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// `claims=…` of a token request, form-encoded: what a challenge asks for, if there is one, and
/// that challenges are understood.
pub(super) fn form_field(challenge: Option<&Challenge>) -> String {
    let mut claims = challenge.map(|challenge| challenge.claims.clone()).unwrap_or_default();
    let access = claims.entry("access_token").or_insert_with(|| json!({}));
    if let Value::Object(access) = access {
        access.insert("xms_cc".into(), json!({ "values": [CAPABILITY] }));
    }
    let claims = Value::Object(claims).to_string();
    let encoded = Url::parse_with_params("http://x", [("claims", claims)]);
    encoded.ok().and_then(|url| url.query().map(str::to_owned)).unwrap_or_default()
}

/// Base64 of either alphabet, with padding or without: services differ.
fn lenient(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let decode = |alphabet| GeneralPurpose::new(alphabet, config).decode(text.trim()).ok();
    decode(&alphabet::STANDARD).or_else(|| decode(&alphabet::URL_SAFE))
}

/// The parameters `name="value"` and `name=value` of challenges, in their order (RFC 9110, 11.2).
pub fn parameters(header: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = header;
    std::iter::from_fn(move || {
        let (before, after) = rest.split_once('=')?;
        // The scheme, or the parameter before, ends with a space or a comma.
        let name = before.trim_end().rsplit([' ', ',', '\t']).next().unwrap_or_default();
        let value = match after.trim_start().strip_prefix('"') {
            Some(quoted) => {
                let (value, behind) = quoted.split_once('"').unwrap_or((quoted, ""));
                rest = behind;
                value
            }
            None => {
                let end = after.find([',', ' ']).unwrap_or(after.len());
                rest = &after[end..];
                &after[..end]
            }
        };
        Some((name, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{"access_token":{"nbf":{"essential":true,"value":"1"}}}`
    const CLAIMS: &str =
        "eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjp7ImVzc2VudGlhbCI6dHJ1ZSwidmFsdWUiOiIxIn19fQ==";

    fn answer(status: u16, header: &str) -> Response {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.append("www-authenticate", "PoP nonce=\"error=x\"".parse().unwrap());
        headers.append("www-authenticate", header.parse().unwrap());
        Response { status, headers: headers.into(), body: Vec::new().into() }
    }

    #[test]
    fn claims_are_found_in_a_challenge_and_nowhere_else() {
        let full = |claims: &str| {
            format!(
                "Bearer realm=\"\", authorization_uri=\"https://login.example/common/authorize?a=b\", \
                 error=\"insufficient_claims\", claims=\"{claims}\""
            )
        };
        for header in [
            full(CLAIMS),
            full(CLAIMS.trim_end_matches('=')),
            format!("Bearer error=invalid_token,claims={}", CLAIMS.trim_end_matches('=')),
        ] {
            let challenge = Challenge::of(&answer(401, &header)).expect(&header);
            assert_eq!(challenge.claims["access_token"]["nbf"]["value"], "1");
            assert_eq!(challenge.text().trim_end_matches('='), CLAIMS.trim_end_matches('='));
            assert_eq!(Challenge::of(&answer(403, &header)), None);
        }
        for header in [
            "Bearer authorization=\"https://login.example/t\", resource=\"https://vault.azure.net\"",
            "Bearer error=\"insufficient_claims\"",
            &format!("Bearer error=\"other\", claims=\"{CLAIMS}\""),
            &full("no base64!"),
            &full("W10="),
            "Bearer claims=\"",
            "=",
            "",
        ] {
            assert_eq!(Challenge::of(&answer(401, header)), None, "{header}");
        }
    }

    #[test]
    fn a_token_request_says_what_is_understood_and_what_was_asked_for() {
        let decoded = |challenge: Option<&Challenge>| -> Value {
            let url = Url::parse(&format!("http://x/?{}", form_field(challenge))).unwrap();
            let (name, value) = url.query_pairs().next().unwrap();
            assert_eq!(name, "claims");
            serde_json::from_str(&value).unwrap()
        };
        assert_eq!(decoded(None), json!({"access_token": {"xms_cc": {"values": ["cp1"]}}}));
        let header = format!("Bearer error=\"insufficient_claims\", claims=\"{CLAIMS}\"");
        let challenge = Challenge::of(&answer(401, &header)).unwrap();
        let nbf = json!({"essential": true, "value": "1"});
        assert_eq!(
            decoded(Some(&challenge)),
            json!({"access_token": {"nbf": nbf, "xms_cc": {"values": ["cp1"]}}})
        );
    }
}
