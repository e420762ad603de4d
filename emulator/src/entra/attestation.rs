//! An attestation authority that says of an environment whatever a test wants, and the check that
//! key release makes of its statements.

use openssl::error::ErrorStack;
use serde_json::{Value, json};

use super::Entra;
use super::jwt::{self, Jwt};

/// Life of an attestation in seconds.
const LIFE: i64 = 28_800;

impl Entra {
    /// A token with these claims. `iss` may be any authority: the services trust this one's key
    /// under every name, because a policy names authorities that do not exist here.
    pub fn attest(&self, mut claims: Value) -> Result<String, ErrorStack> {
        let now = self.clock.now();
        if let Value::Object(members) = &mut claims {
            members.entry("iss").or_insert_with(|| json!(format!("{}/attestation", self.url)));
            members.entry("iat").or_insert_with(|| json!(now));
            members.entry("nbf").or_insert_with(|| json!(now));
            members.entry("exp").or_insert_with(|| json!(now + LIFE));
        }
        jwt::sign(&self.key, &self.key_id, &claims)
    }

    /// The claims of a current attestation.
    pub fn attested(&self, token: &str) -> Option<Value> {
        let jwt = Jwt::parse(token)?;
        let good = jwt.is_signed_by(&self.key) && jwt.is_current(self.clock.now());
        good.then_some(jwt.claims)
    }

    /// A statement of the service itself, signed.
    pub fn sign_statement(&self, payload: &Value) -> Result<String, ErrorStack> {
        jwt::sign(&self.key, &self.key_id, payload)
    }
}
