//! The Microsoft Entra authority: discovery, tokens for client secrets, and the check that the
//! data plane makes of a token.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hyper::Method;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::{Signer, Verifier};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::config::{ClientConfig, Config, ServiceKind};
use crate::counters::Counters;
use crate::dialect::uuid;
use crate::fault::Faults;
use crate::principal::Principal;
use crate::refusal::TokenFault;
use crate::service::{Call, Reply};

/// Host of the public cloud's authority.
pub const PUBLIC_HOST: &str = "login.microsoftonline.com";

/// An application that may ask for tokens.
struct Client {
    grants: Arc<ClientConfig>,
    object_id: String,
}

/// The authority of one tenant.
pub struct Entra {
    tenant: String,
    clients: Vec<Client>,
    lifetime: i64,
    key: PKey<Private>,
    key_id: String,
    url: String,
    clock: Arc<Clock>,
    counters: Arc<Counters>,
    faults: Arc<Faults>,
    /// Signatures that were found good, so that a token is verified once.
    verified: Mutex<BTreeMap<String, Arc<Claims>>>,
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
}

/// An OAuth error.
struct OAuthError {
    status: u16,
    error: &'static str,
    code: u32,
    message: String,
}

impl Entra {
    /// The authority of `config`'s tenant, reachable at `url`.
    pub fn new(
        config: &Config,
        secret: &str,
        url: String,
        clock: Arc<Clock>,
        counters: Arc<Counters>,
        faults: Arc<Faults>,
    ) -> Result<Self, ErrorStack> {
        let key = PKey::from_rsa(Rsa::generate(2048)?)?;
        let mighty = ClientConfig {
            id: config.client_id.clone(),
            secret: secret.to_owned(),
            ..ClientConfig::default()
        };
        let clients = std::iter::once(mighty)
            .chain(config.client.iter().cloned())
            .map(|grants| Client { grants: Arc::new(grants), object_id: uuid() })
            .collect();
        Ok(Self {
            tenant: config.tenant.clone(),
            clients,
            lifetime: config.token_lifetime,
            key,
            key_id: uuid().replace('-', ""),
            url,
            clock,
            counters,
            faults,
            verified: Mutex::default(),
        })
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
        let header = headers.get(AUTHORIZATION).ok_or(TokenFault::Missing)?;
        let header = header.to_str().map_err(|_| TokenFault::Invalid)?;
        let token = match header.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => return Err(TokenFault::Missing),
        };
        let claims = self.verified_claims(token)?;
        let issuer = self.issuer();
        if claims.iss != issuer {
            return Err(TokenFault::Issuer(claims.iss.clone()));
        }
        if claims.aud.trim_end_matches('/') != kind.resource() {
            return Err(TokenFault::Audience(claims.aud.clone()));
        }
        let now = self.clock.now();
        if now >= claims.exp || now < claims.nbf {
            return Err(TokenFault::Expired);
        }
        let client = self.clients.iter().find(|client| client.grants.id == claims.appid);
        let client = client.ok_or(TokenFault::Invalid)?;
        Ok(Principal::new(&client.object_id, &issuer, Arc::clone(&client.grants)))
    }

    /// Answers a request to the authority, or lets it meet the trouble ordered for it.
    pub async fn answer(&self, call: Call) -> Reply {
        let operation = if call.path.ends_with("/token") { "token" } else { "discovery" };
        match self.faults.hit("entra", operation, "") {
            None => self.answer_well(&call),
            Some(fault) => fault.befall(async { self.answer_well(&call) }).await,
        }
    }

    fn answer_well(&self, call: &Call) -> Reply {
        let segments: Vec<&str> = call.path.trim_matches('/').split('/').collect();
        let (name, outcome) = match segments.as_slice() {
            [tenant, "oauth2", "v2.0", "token"] | [tenant, "oauth2", "token"]
                if call.method == Method::POST =>
            {
                ("token", self.token(tenant, &call.body))
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
        let (status, body) = match outcome {
            Ok(body) => (200, body),
            Err(error) => (error.status, self.error_body(&error)),
        };
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

    fn token(&self, tenant: &str, body: &[u8]) -> Result<Value, OAuthError> {
        self.check_tenant(tenant)?;
        let form = form(body);
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        if field("grant_type") != "client_credentials" {
            return Err(OAuthError {
                status: 400,
                error: "unsupported_grant_type",
                code: 70003,
                message: format!(
                    "The app requested an unsupported grant type '{}'.",
                    field("grant_type")
                ),
            });
        }
        let client = self.clients.iter().find(|client| client.grants.id == field("client_id"));
        let client = client.ok_or_else(|| OAuthError {
            status: 400,
            error: "unauthorized_client",
            code: 700_016,
            message: format!(
                "Application with identifier '{}' was not found in the directory '{}'.",
                field("client_id"),
                self.tenant
            ),
        })?;
        let given = field("client_secret").as_bytes();
        let expected = client.grants.secret.as_bytes();
        if given.len() != expected.len() || !openssl::memcmp::eq(given, expected) {
            return Err(OAuthError {
                status: 401,
                error: "invalid_client",
                code: 7_000_215,
                message: format!(
                    "Invalid client secret provided. Ensure the secret being sent in the request \
                     is the client secret value, not the client secret ID, for a secret added to \
                     app '{}'.",
                    client.grants.id
                ),
            });
        }
        let audience = self.audience(field("scope"), field("resource"))?;
        let now = self.clock.now();
        let claims = Claims {
            aud: audience,
            iss: self.issuer(),
            iat: now,
            nbf: now - 300,
            exp: now + self.lifetime,
            appid: client.grants.id.clone(),
            oid: client.object_id.clone(),
            tid: self.tenant.clone(),
            ver: "1.0".to_owned(),
        };
        let access_token = self.signed(&claims).map_err(|stack| OAuthError {
            status: 500,
            error: "server_error",
            code: 90014,
            message: format!("OpenSSL: {stack}"),
        })?;
        Ok(json!({
            "token_type": "Bearer",
            "expires_in": self.lifetime,
            "ext_expires_in": self.lifetime,
            "access_token": access_token,
        }))
    }

    /// The audience of a v2 scope (`…/.default`) or a v1 resource.
    fn audience(&self, scope: &str, resource: &str) -> Result<String, OAuthError> {
        let asked = if resource.is_empty() {
            let default =
                scope.split_ascii_whitespace().find_map(|scope| scope.strip_suffix("/.default"));
            default.ok_or_else(|| OAuthError {
                status: 400,
                error: "invalid_scope",
                code: 1_002_012,
                message: format!(
                    "The provided value for scope '{scope}' is not valid. Client credential flows \
                     must have a scope value with /.default suffixed to the resource identifier."
                ),
            })?
        } else {
            resource
        };
        let asked = asked.trim_end_matches('/');
        let known = [ServiceKind::Vault, ServiceKind::ManagedHsm]
            .iter()
            .any(|kind| kind.resource() == asked);
        if known || asked == "https://management.azure.com" {
            Ok(asked.to_owned())
        } else {
            Err(OAuthError {
                status: 400,
                error: "invalid_resource",
                code: 500_011,
                message: format!(
                    "The resource principal named {asked} was not found in the tenant named {}.",
                    self.tenant
                ),
            })
        }
    }

    fn check_tenant(&self, tenant: &str) -> Result<(), OAuthError> {
        if tenant.eq_ignore_ascii_case(&self.tenant) {
            return Ok(());
        }
        Err(OAuthError {
            status: 400,
            error: "invalid_request",
            code: 90002,
            message: format!("Tenant '{tenant}' not found."),
        })
    }

    fn discovery(&self, tenant: &str, authority: &str) -> Result<Value, OAuthError> {
        if !matches!(tenant, "common" | "organizations") {
            self.check_tenant(tenant)?;
        }
        let base = format!("https://{authority}/{tenant}");
        Ok(json!({
            "token_endpoint": format!("{base}/oauth2/v2.0/token"),
            "token_endpoint_auth_methods_supported":
                ["client_secret_post", "private_key_jwt", "client_secret_basic"],
            "jwks_uri": format!("{base}/discovery/v2.0/keys"),
            "response_modes_supported": ["query", "fragment", "form_post"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "issuer": format!("{base}/v2.0"),
            "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
            "device_authorization_endpoint": format!("{base}/oauth2/v2.0/devicecode"),
            "end_session_endpoint": format!("{base}/oauth2/v2.0/logout"),
            "tenant_region_scope": "EU",
            "cloud_instance_name": "microsoftonline.com",
        }))
    }

    fn instance(&self, call: &Call) -> Value {
        json!({
            "tenant_discovery_endpoint": format!(
                "https://{}/{}/v2.0/.well-known/openid-configuration",
                call.authority, self.tenant
            ),
            "api-version": "1.1",
            "metadata": [{
                "preferred_network": call.authority,
                "preferred_cache": call.authority,
                "aliases": [call.authority, PUBLIC_HOST],
            }],
        })
    }

    fn signing_keys(&self) -> Result<Value, OAuthError> {
        let rsa = self.key.rsa().map_err(|stack| OAuthError {
            status: 500,
            error: "server_error",
            code: 90014,
            message: format!("OpenSSL: {stack}"),
        })?;
        let encode = |bytes: Vec<u8>| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        Ok(json!({"keys": [{
            "kty": "RSA",
            "use": "sig",
            "kid": self.key_id,
            "n": encode(rsa.n().to_vec()),
            "e": encode(rsa.e().to_vec()),
        }]}))
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

    fn issuer(&self) -> String {
        format!("https://sts.windows.net/{}/", self.tenant)
    }

    fn signed(&self, claims: &Claims) -> Result<String, ErrorStack> {
        let header = json!({
            "typ": "JWT", "alg": "RS256", "x5t": self.key_id, "kid": self.key_id,
        });
        let claims = serde_json::to_vec(claims).unwrap_or_default();
        let text = format!(
            "{}.{}",
            BASE64_URL_SAFE_NO_PAD.encode(header.to_string()),
            BASE64_URL_SAFE_NO_PAD.encode(claims)
        );
        let mut signer = Signer::new(MessageDigest::sha256(), &self.key)?;
        let signature = signer.sign_oneshot_to_vec(text.as_bytes())?;
        Ok(format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The claims of a token that this authority signed.
    fn verified_claims(&self, token: &str) -> Result<Arc<Claims>, TokenFault> {
        if let Some(claims) = self.verified.lock().get(token) {
            return Ok(Arc::clone(claims));
        }
        let claims = Arc::new(self.read_token(token).ok_or(TokenFault::Invalid)?);
        let mut verified = self.verified.lock();
        if verified.len() >= 1_000 {
            verified.clear();
        }
        verified.insert(token.to_owned(), Arc::clone(&claims));
        Ok(claims)
    }

    fn read_token(&self, token: &str) -> Option<Claims> {
        let (text, signature) = token.rsplit_once('.')?;
        let (header, claims) = text.split_once('.')?;
        let header: Value =
            serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        if header.get("alg")?.as_str()? != "RS256" {
            return None;
        }
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        let mut verifier = Verifier::new(MessageDigest::sha256(), &self.key).ok()?;
        if !verifier.verify_oneshot(&signature, text.as_bytes()).unwrap_or(false) {
            return None;
        }
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }
}

/// Reads `application/x-www-form-urlencoded`.
fn form(body: &[u8]) -> BTreeMap<String, String> {
    crate::server::query_pairs(&String::from_utf8_lossy(body)).into_iter().collect()
}
