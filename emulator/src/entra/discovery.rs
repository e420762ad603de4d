//! What clients ask before they ask for a token.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Entra, OAuthError, PUBLIC_HOST};
use crate::service::Call;

impl Entra {
    pub(super) fn discovery(&self, tenant: &str, authority: &str) -> Result<Value, OAuthError> {
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

    pub(super) fn instance(&self, call: &Call) -> Value {
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

    pub(super) fn signing_keys(&self) -> Result<Value, OAuthError> {
        let rsa = self.key.rsa()?;
        let encode = |bytes: Vec<u8>| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        Ok(json!({"keys": [{
            "kty": "RSA",
            "use": "sig",
            "kid": self.key_id,
            "n": encode(rsa.n().to_vec()),
            "e": encode(rsa.e().to_vec()),
        }]}))
    }
}
