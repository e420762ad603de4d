//! The Microsoft Entra authority: tokens for client secrets, client certificates, federated
//! workloads and managed identities, the check that the data plane makes of a token, and what a
//! login asks of the resource manager.

mod assertion;
mod attestation;
mod demand;
mod discovery;
mod jwt;
mod managed;
pub mod manager;
mod token;

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::Method;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::X509;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::clock::Clock;
use crate::config::{ClientConfig, Config, ServiceKind};
use crate::counters::Counters;
use crate::dialect::uuid;
use crate::fault::Faults;
use crate::principal::Principal;
use crate::refusal::TokenFault;
use crate::service::{Call, Reply};
use jwt::Jwt;
pub use managed::ArcAgent;

/// Host of the public cloud's authority.
pub const PUBLIC_HOST: &str = "login.microsoftonline.com";

/// An application that may ask for tokens.
struct Client {
    grants: Arc<ClientConfig>,
    object_id: String,
    /// What signs its assertions, where it has a certificate.
    certificate: Option<X509>,
}

/// The authority of one tenant.
pub struct Entra {
    tenant: String,
    other_tenants: Vec<String>,
    clients: Vec<Client>,
    lifetime: i64,
    key: PKey<Private>,
    key_id: String,
    url: String,
    /// What an App Service gives its application to prove itself with.
    identity_header: String,
    arc: ArcAgent,
    clock: Arc<Clock>,
    counters: Arc<Counters>,
    faults: Arc<Faults>,
    /// Signatures that were found good, so that a token is verified once.
    verified: Mutex<BTreeMap<String, Arc<Claims>>>,
    /// Claims that tokens must have been asked for with.
    demanded: Mutex<Option<Map<String, Value>>>,
}

/// What a token says.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Claims {
    aud: String,
    iss: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    appid: String,
    oid: String,
    tid: String,
    ver: String,
    /// What the token was asked for with. (Real tokens show it in many ways.)
    #[serde(default, skip_serializing_if = "Value::is_null")]
    requested: Value,
}

/// An OAuth error.
struct OAuthError {
    status: u16,
    error: &'static str,
    code: u32,
    message: String,
}

impl Entra {
    /// The authority of `config`'s tenant, reachable at `url`; `mighty` is the client that may do
    /// everything.
    pub fn new(
        config: &Config,
        mighty: ClientConfig,
        url: String,
        arc: ArcAgent,
        clock: Arc<Clock>,
        counters: Arc<Counters>,
        faults: Arc<Faults>,
    ) -> Result<Self, ErrorStack> {
        let mut clients = Vec::new();
        for grants in std::iter::once(mighty).chain(config.client.iter().cloned()) {
            let certificate = grants.certificate.as_deref().map(str::as_bytes);
            let certificate = certificate.map(X509::from_pem).transpose()?;
            clients.push(Client { grants: Arc::new(grants), object_id: uuid(), certificate });
        }
        Ok(Self {
            tenant: config.tenant.clone(),
            other_tenants: config.other_tenants.clone(),
            clients,
            lifetime: config.token_lifetime,
            key: PKey::from_rsa(Rsa::generate(2048)?)?,
            key_id: uuid().replace('-', ""),
            url,
            identity_header: uuid(),
            arc,
            clock,
            counters,
            faults,
            verified: Mutex::default(),
            demanded: Mutex::default(),
        })
    }

    /// What an App Service gives its application: `IDENTITY_HEADER`.
    pub fn identity_header(&self) -> &str {
        &self.identity_header
    }

    /// What a challenge names: the public authority to a client that used a public host name,
    /// this one to all others.
    pub fn authorization_url(&self, authority: &str) -> String {
        let public = [ServiceKind::Vault, ServiceKind::ManagedHsm]
            .iter()
            .any(|kind| authority.ends_with(kind.suffix()));
        if public {
            format!("https://{PUBLIC_HOST}/{}", self.tenant)
        } else {
            format!("{}/{}", self.url, self.tenant)
        }
    }

    /// Who sends this request.
    pub fn authenticate(
        &self,
        headers: &HeaderMap,
        kind: ServiceKind,
    ) -> Result<Principal, TokenFault> {
        let claims = self.claims(headers, &[kind.resource()])?;
        self.check_demand(&claims.requested)?;
        let client = self.clients.iter().find(|client| client.grants.id == claims.appid);
        let client = client.ok_or(TokenFault::Invalid)?;
        Ok(Principal::new(&client.object_id, &self.issuer(), Arc::clone(&client.grants)))
    }

    /// What the token of a request says, provided it is good for one of these audiences.
    fn claims(&self, headers: &HeaderMap, audiences: &[&str]) -> Result<Arc<Claims>, TokenFault> {
        let header = headers.get(AUTHORIZATION).ok_or(TokenFault::Missing)?;
        let header = header.to_str().map_err(|_| TokenFault::Invalid)?;
        let token = match header.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => return Err(TokenFault::Missing),
        };
        let claims = self.verified_claims(token)?;
        let issuer = self.issuer();
        if claims.iss != issuer {
            let found = claims.iss.clone();
            return Err(TokenFault::Issuer { expected: issuer, found });
        }
        if !audiences.contains(&claims.aud.trim_end_matches('/')) {
            return Err(TokenFault::Audience(claims.aud.clone()));
        }
        let now = self.clock.now();
        if now >= claims.exp || now < claims.nbf {
            return Err(TokenFault::Expired);
        }
        Ok(claims)
    }

    /// Answers a request to the authority, or lets it meet the trouble ordered for it.
    pub async fn answer(&self, call: Call) -> Reply {
        let operation = if call.path.ends_with("/token") { "token" } else { "discovery" };
        match self.faults.hit("entra", operation, "") {
            None => self.answer_well(&call, None),
            Some(fault) => {
                let life = fault.token_lifetime;
                fault.befall(async { self.answer_well(&call, life) }).await
            }
        }
    }

    fn answer_well(&self, call: &Call, life: Option<i64>) -> Reply {
        if let Some((name, reply)) = self.manage(call) {
            self.counters.count("entra", name);
            return reply;
        }
        let segments: Vec<&str> = call.path.trim_matches('/').split('/').collect();
        let (name, outcome) = match segments.as_slice() {
            [tenant, "oauth2", "v2.0", "token"] | [tenant, "oauth2", "token"]
                if call.method == Method::POST =>
            {
                ("token", self.token(tenant, call, life))
            }
            [tenant, "v2.0", ".well-known", "openid-configuration"]
            | [tenant, ".well-known", "openid-configuration"] => {
                ("openid-configuration", self.discovery(tenant, &call.authority))
            }
            [_, "discovery", "instance"] => ("discovery/instance", Ok(self.instance(call))),
            [_, "discovery", "v2.0", "keys"] => ("discovery/keys", self.signing_keys()),
            _ => (
                "unknown",
                Err(OAuthError {
                    status: 404,
                    error: "invalid_request",
                    code: 90002,
                    message: format!("There is nothing at '{}'.", call.path),
                }),
            ),
        };
        self.counters.count("entra", name);
        match outcome {
            Ok(body) => json_reply(200, &body),
            Err(error) => json_reply(error.status, &self.error_body(&error)),
        }
    }

    fn error_body(&self, error: &OAuthError) -> Value {
        let (trace, correlation) = (uuid(), uuid());
        json!({
            "error": error.error,
            "error_description": format!(
                "AADSTS{}: {} Trace ID: {trace} Correlation ID: {correlation}",
                error.code, error.message
            ),
            "error_codes": [error.code],
            "timestamp": httpdate::fmt_http_date(std::time::SystemTime::now()),
            "trace_id": trace,
            "correlation_id": correlation,
        })
    }

    /// The issuer whose tokens the services take.
    fn issuer(&self) -> String {
        issuer(&self.tenant)
    }

    /// The claims of a token that this authority signed.
    fn verified_claims(&self, token: &str) -> Result<Arc<Claims>, TokenFault> {
        if let Some(claims) = self.verified.lock().get(token) {
            return Ok(Arc::clone(claims));
        }
        let claims = Jwt::parse(token)
            .filter(|jwt| jwt.alg() == "RS256" && jwt.is_signed_by(&self.key))
            .and_then(|jwt| serde_json::from_value(jwt.claims).ok())
            .ok_or(TokenFault::Invalid)?;
        let claims = Arc::new(claims);
        let mut verified = self.verified.lock();
        if verified.len() >= 1_000 {
            verified.clear();
        }
        verified.insert(token.to_owned(), Arc::clone(&claims));
        Ok(claims)
    }
}

fn issuer(tenant: &str) -> String {
    format!("https://sts.windows.net/{tenant}/")
}

fn json_reply(status: u16, body: &Value) -> Reply {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-type", "application/json; charset=utf-8"),
        ("cache-control", "no-store, no-cache"),
        ("pragma", "no-cache"),
        ("x-content-type-options", "nosniff"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    Reply::new(status, headers, body.to_string().into_bytes())
}

impl From<ErrorStack> for OAuthError {
    fn from(stack: ErrorStack) -> Self {
        let message = format!("OpenSSL: {stack}");
        Self { status: 500, error: "server_error", code: 90014, message }
    }
}
