//! Clients that prove themselves with a signed assertion: by their certificate, or by a token that
//! another authority gave them.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::x509::X509;
use serde_json::json;

use super::jwt::{self, Jwt};
use super::{Client, Entra, OAuthError, PUBLIC_HOST};

/// Audience that a federated token must have.
const EXCHANGE: &str = "api://AzureADTokenExchange";
/// Subject of the workload that the emulator makes tokens for.
const SUBJECT: &str = "system:serviceaccount:default:emulator";
/// Life of the workload's token in seconds.
const WORKLOAD_LIFE: i64 = 86_400;

impl Entra {
    /// Checks a client assertion of either kind.
    pub(super) fn check_assertion(
        &self,
        client: &Client,
        assertion: &str,
        authority: &str,
    ) -> Result<(), OAuthError> {
        let jwt = Jwt::parse(assertion)
            .ok_or_else(|| refused(50027, "JWT token is invalid or malformed."))?;
        if jwt.text("iss") == self.workload_issuer() {
            self.check_federated(&jwt)
        } else {
            self.check_certificate(client, &jwt, authority)
        }
    }

    fn check_certificate(
        &self,
        client: &Client,
        jwt: &Jwt,
        authority: &str,
    ) -> Result<(), OAuthError> {
        let known = client.certificate.as_ref().filter(|known| names(jwt, known).unwrap_or(false));
        let known = known.ok_or_else(|| {
            refused(
                700_027,
                "The certificate with identifier used to sign the client assertion is not \
                 registered on application.",
            )
        })?;
        if !jwt.is_signed_by(&known.public_key()?) {
            return Err(refused(
                700_027,
                "Client assertion failed signature validation. [Reason - The key used is not the \
                 certificate's.]",
            ));
        }
        let id = client.grants.id.as_str();
        if jwt.text("iss") != id || jwt.text("sub") != id {
            return Err(refused(
                700_021,
                "Client assertion application identifier doesn't match 'client_id' parameter.",
            ));
        }
        // The endpoint as the client knows it: here, or in the public cloud.
        let audience = jwt.text("aud");
        let hosts = [authority, PUBLIC_HOST];
        let ours = hosts.iter().any(|host| {
            let base = format!("https://{host}/{}", self.tenant);
            ["oauth2/v2.0/token", "oauth2/token", "v2.0", ""].iter().any(|end| {
                audience.trim_end_matches('/') == format!("{base}/{end}").trim_end_matches('/')
            })
        });
        if !ours {
            return Err(refused(
                700_023,
                "Client assertion audience claim does not match Realm issuer.",
            ));
        }
        self.check_time(jwt)
    }

    fn check_federated(&self, jwt: &Jwt) -> Result<(), OAuthError> {
        if jwt.alg() != "RS256" || !jwt.is_signed_by(&self.key) {
            return Err(refused(50013, "Assertion failed signature validation."));
        }
        if jwt.text("sub") != SUBJECT || jwt.text("aud") != EXCHANGE {
            return Err(refused(
                70021,
                "No matching federated identity record found for presented assertion.",
            ));
        }
        self.check_time(jwt)
    }

    fn check_time(&self, jwt: &Jwt) -> Result<(), OAuthError> {
        if jwt.is_current(self.clock.now()) {
            return Ok(());
        }
        Err(refused(700_024, "Client assertion is not within its valid time range."))
    }

    /// The token of the emulator's own workload: what `AZURE_FEDERATED_TOKEN_FILE` holds.
    pub fn workload_token(&self) -> Result<String, ErrorStack> {
        let now = self.clock.now();
        let claims = json!({
            "iss": self.workload_issuer(),
            "sub": SUBJECT,
            "aud": EXCHANGE,
            "iat": now,
            "nbf": now,
            "exp": now + WORKLOAD_LIFE,
        });
        jwt::sign(&self.key, &self.key_id, &claims)
    }

    fn workload_issuer(&self) -> String {
        format!("{}/workload", self.url)
    }
}

/// Whether the header names this certificate, by SHA-1 or SHA-256.
fn names(jwt: &Jwt, certificate: &X509) -> Result<bool, ErrorStack> {
    let is = |member: &str, digest| -> Result<Option<bool>, ErrorStack> {
        let Some(given) = jwt.header[member].as_str() else { return Ok(None) };
        let print = BASE64_URL_SAFE_NO_PAD.encode(certificate.digest(digest)?);
        Ok(Some(print == given.trim_end_matches('=')))
    };
    let prints = [is("x5t", MessageDigest::sha1())?, is("x5t#S256", MessageDigest::sha256())?];
    Ok(prints.contains(&Some(true)) && !prints.contains(&Some(false)))
}

fn refused(code: u32, message: &str) -> OAuthError {
    OAuthError { status: 401, error: "invalid_client", code, message: message.to_owned() }
}
