//! Claims that the services demand of tokens: what continuous access evaluation does when a
//! session was revoked, or Conditional Access wants more than a token shows.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use openssl::hash::{MessageDigest, hash};
use serde_json::{Map, Value, json};

use super::{Entra, OAuthError};
use crate::refusal::TokenFault;

/// What a client says it can do: repeat the token request with the claims of a challenge.
const CAPABILITY: &str = "cp1";

impl Entra {
    /// From now on the services take only tokens that were asked for with these claims, as
    /// `access_token` of an OpenID Connect claims request has them; `None` takes all again.
    pub fn demand(&self, claims: Option<Map<String, Value>>) {
        *self.demanded.lock() = claims;
    }

    /// Whether a token that was asked for with `requested` has what is demanded.
    pub(super) fn check_demand(&self, requested: &Value) -> Result<(), TokenFault> {
        let demanded = self.demanded.lock();
        let Some(demanded) = &*demanded else { return Ok(()) };
        if demanded.iter().all(|(name, value)| requested.get(name) == Some(value)) {
            return Ok(());
        }
        let claims = json!({ "access_token": demanded }).to_string();
        Err(TokenFault::Claims(BASE64_STANDARD.encode(claims)))
    }

    /// What a token request's `claims` ask of the access token.
    pub(super) fn requested(claims: &str) -> Result<Value, OAuthError> {
        if claims.is_empty() {
            return Ok(Value::Null);
        }
        match serde_json::from_str::<Value>(claims) {
            Ok(Value::Object(mut members)) => {
                Ok(members.remove("access_token").unwrap_or_default())
            }
            _ => Err(OAuthError {
                status: 400,
                error: "invalid_request",
                code: 900_027,
                message: "The claims parameter is not a JSON object.".to_owned(),
            }),
        }
    }

    /// What a managed identity's endpoint asks of the token: an App Service that is told which
    /// token was refused, by a client that can be challenged, asks for what is demanded.
    pub(super) fn requested_for(&self, refused: Option<&str>, capabilities: Option<&str>) -> Value {
        let able = capabilities.is_some_and(|list| list.split(',').any(|one| one == CAPABILITY));
        let known = refused.is_some_and(|refused| self.has_verified(refused));
        match (&*self.demanded.lock(), able && known) {
            (Some(demanded), true) => Value::Object(demanded.clone()),
            _ => Value::Null,
        }
    }

    /// Whether a service was shown the token with this SHA-256 (64 hex digits).
    fn has_verified(&self, digest: &str) -> bool {
        let of = |token: &str| hash(MessageDigest::sha256(), token.as_bytes());
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let verified = self.verified.lock();
        verified.keys().any(|token| of(token).is_ok_and(|sum| hex(&sum) == digest))
    }
}
