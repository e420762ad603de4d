//! What of Azure Resource Manager a login asks: where everything is, and which subscriptions there
//! are. None: the emulator has no control plane, and says so.

use hyper::header::{HeaderValue, WWW_AUTHENTICATE};
use serde_json::{Value, json};

use super::{Entra, json_reply};
use crate::config::ServiceKind;
use crate::service::{Call, Reply};

/// Host of the public cloud's resource manager.
pub const PUBLIC_HOST: &str = "management.azure.com";
/// Its names as a resource, the audience of its tokens. `az login` asks for the older one.
pub const RESOURCES: [&str; 2] =
    ["https://management.core.windows.net", "https://management.azure.com"];

impl Entra {
    /// The counters' name of a request to the resource manager, and its answer; None if this is no
    /// such request.
    pub(super) fn manage(&self, call: &Call) -> Option<(&'static str, Reply)> {
        let segments: Vec<&str> = call.path.trim_matches('/').split('/').collect();
        match segments.as_slice() {
            ["metadata", "endpoints"] => {
                Some(("metadata/endpoints", json_reply(200, &endpoints(&call.authority))))
            }
            ["subscriptions", ..] => Some(("subscriptions", self.subscriptions(call, &segments))),
            _ => None,
        }
    }

    fn subscriptions(&self, call: &Call, segments: &[&str]) -> Reply {
        if self.claims(&call.headers, &RESOURCES).is_err() {
            let challenge = format!(
                "Bearer authorization_uri=\"https://{}/{}\", error=\"invalid_token\", \
                 error_description=\"The authentication failed because of missing or wrong \
                 'Authorization' header.\"",
                call.authority, self.tenant
            );
            let message = "Authentication failed. A token for the resource manager is missing.";
            let mut reply = json_reply(401, &error("AuthenticationFailed", message));
            if let Ok(challenge) = HeaderValue::from_str(&challenge) {
                reply.headers.insert(WWW_AUTHENTICATE, challenge);
            }
            return reply;
        }
        match segments {
            [_] => json_reply(200, &json!({"value": [], "count": {"type": "Total", "value": 0}})),
            [_, id, ..] => {
                let message = format!(
                    "The subscription '{id}' could not be found: akv-emulator has no control plane."
                );
                json_reply(404, &error("SubscriptionNotFound", &message))
            }
            [] => json_reply(404, &error("NotFound", "There is nothing here.")),
        }
    }
}

/// The description of a cloud, for `az cloud register --endpoint-resource-manager`.
fn endpoints(authority: &str) -> Value {
    let here = format!("https://{authority}");
    json!({
        "name": "akv-emulator",
        "portal": here,
        "authentication": {
            "loginEndpoint": here,
            "audiences": RESOURCES.map(|resource| format!("{resource}/")),
            "tenant": "common",
            "identityProvider": "AAD",
        },
        "resourceManager": here,
        "suffixes": {
            "keyVaultDns": ServiceKind::Vault.suffix(),
            "mhsmDns": ServiceKind::ManagedHsm.suffix(),
        },
    })
}

fn error(code: &str, message: &str) -> Value {
    json!({"error": {"code": code, "message": message}})
}
