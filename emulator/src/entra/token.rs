//! The token endpoint.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Claims, Client, Entra, OAuthError, issuer, jwt, manager};
use crate::config::ServiceKind;
use crate::service::Call;

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

impl Entra {
    /// POST `/{tenant}/oauth2/v2.0/token`, and v1 without `v2.0`. `life` is how many seconds the
    /// token lives, whatever the answer says.
    pub(super) fn token(
        &self,
        tenant: &str,
        call: &Call,
        life: Option<i64>,
    ) -> Result<Value, OAuthError> {
        let tenant = self.check_tenant(tenant)?;
        let form = form(&call.body);
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
        match field("client_assertion") {
            "" => check_secret(client, field("client_secret"))?,
            assertion => {
                if field("client_assertion_type") != ASSERTION_TYPE {
                    return Err(OAuthError {
                        status: 400,
                        error: "invalid_request",
                        code: 900_144,
                        message: format!("'client_assertion_type' must be '{ASSERTION_TYPE}'."),
                    });
                }
                self.check_assertion(client, assertion, &call.authority)?;
            }
        }
        let audience = self.audience(field("scope"), field("resource"))?;
        let requested = Self::requested(field("claims"))?;
        let access_token = self.access_token(tenant, client, audience, requested, life)?;
        Ok(json!({
            "token_type": "Bearer",
            "expires_in": self.lifetime,
            "ext_expires_in": self.lifetime,
            "access_token": access_token,
        }))
    }

    /// A token of `tenant` for `client` to use at `audience`, asked for with `requested` claims.
    pub(super) fn access_token(
        &self,
        tenant: &str,
        client: &Client,
        audience: String,
        requested: Value,
        life: Option<i64>,
    ) -> Result<String, OAuthError> {
        let now = self.clock.now();
        let claims = Claims {
            aud: audience,
            iss: issuer(tenant),
            iat: now,
            nbf: now - 300,
            exp: now + life.unwrap_or(self.lifetime),
            appid: client.grants.id.clone(),
            oid: client.object_id.clone(),
            tid: tenant.to_owned(),
            ver: "1.0".to_owned(),
            requested,
        };
        Ok(jwt::sign(&self.key, &self.key_id, &claims)?)
    }

    /// The audience of a v2 scope (`…/.default`) or a v1 resource.
    pub(super) fn audience(&self, scope: &str, resource: &str) -> Result<String, OAuthError> {
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
        if known || manager::RESOURCES.contains(&asked) {
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

    /// The tenant as the configuration writes it, where the authority has it.
    pub(super) fn check_tenant(&self, tenant: &str) -> Result<&str, OAuthError> {
        let known = std::iter::once(&self.tenant).chain(&self.other_tenants);
        let found = known.into_iter().find(|known| known.eq_ignore_ascii_case(tenant));
        found.map(String::as_str).ok_or_else(|| OAuthError {
            status: 400,
            error: "invalid_request",
            code: 90002,
            message: format!("Tenant '{tenant}' not found."),
        })
    }
}

fn check_secret(client: &Client, given: &str) -> Result<(), OAuthError> {
    let (given, expected) = (given.as_bytes(), client.grants.secret.as_bytes());
    if given.len() == expected.len() && openssl::memcmp::eq(given, expected) {
        return Ok(());
    }
    Err(OAuthError {
        status: 401,
        error: "invalid_client",
        code: 7_000_215,
        message: format!(
            "Invalid client secret provided. Ensure the secret being sent in the request is the \
             client secret value, not the client secret ID, for a secret added to app '{}'.",
            client.grants.id
        ),
    })
}

/// Reads `application/x-www-form-urlencoded`.
fn form(body: &[u8]) -> BTreeMap<String, String> {
    crate::server::query_pairs(&String::from_utf8_lossy(body)).into_iter().collect()
}
