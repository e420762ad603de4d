//! Managed identities: the metadata service of a virtual machine and the endpoint of an App
//! Service, over plain HTTP as the real ones.

use hyper::Method;
use serde_json::{Value, json};

use super::{Client, Entra, json_reply};
use crate::service::{Call, Reply};

impl Entra {
    /// Answers `/metadata/identity/oauth2/token` and `/msi/token`; `None` for any other path.
    pub async fn answer_managed(&self, call: &Call) -> Option<Reply> {
        let name = match call.path.as_str() {
            "/metadata/identity/oauth2/token" => "imds",
            "/msi/token" => "app-service",
            _ => return None,
        };
        let well = async {
            self.counters.count("entra", name);
            self.managed(name, call)
        };
        Some(match self.faults.hit("entra", name, "") {
            None => well.await,
            Some(fault) => fault.befall(well).await,
        })
    }

    fn managed(&self, name: &str, call: &Call) -> Reply {
        let header = |name: &str| call.headers.get(name).and_then(|value| value.to_str().ok());
        if call.method != Method::GET {
            return refusal(405, "method_not_allowed", "Only GET is allowed.");
        }
        if name == "imds" {
            if !header("metadata").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
                let words = "Required metadata header not specified";
                return refusal(400, "invalid_request", words);
            }
            if header("x-forwarded-for").is_some() {
                let words = "Requests through a proxy are not allowed";
                return refusal(400, "invalid_request", words);
            }
        } else if header("x-identity-header") != Some(self.identity_header.as_str()) {
            return refusal(401, "unauthorized", "X-IDENTITY-HEADER is missing or wrong");
        }
        let expected = if name == "imds" { "2018-02-01" } else { "2019-08-01" };
        if call.parameter("api-version").is_none_or(|version| version < expected) {
            return refusal(400, "invalid_request", "api-version is missing or not supported");
        }
        let Some(resource) = call.parameter("resource") else {
            return refusal(400, "invalid_request", "resource is missing");
        };
        let Some(client) = self.identity(call) else {
            return refusal(400, "invalid_request", "Identity not found");
        };
        let audience = match self.audience("", resource) {
            Ok(audience) => audience,
            Err(error) => return refusal(400, error.error, &error.message),
        };
        match self.access_token(client, audience) {
            Ok(token) => json_reply(200, &self.managed_token(client, resource, &token)),
            Err(error) => refusal(500, error.error, &error.message),
        }
    }

    /// The system-assigned identity is the first client; a user-assigned one is named.
    fn identity(&self, call: &Call) -> Option<&Client> {
        if let Some(id) = call.parameter("client_id") {
            return self.clients.iter().find(|client| client.grants.id == id);
        }
        let object = call.parameter("object_id").or_else(|| call.parameter("principal_id"));
        if let Some(id) = object {
            return self.clients.iter().find(|client| client.object_id == id);
        }
        let resource = call.parameter("msi_res_id").or_else(|| call.parameter("mi_res_id"));
        if let Some(id) = resource {
            return self.clients.iter().find(|client| {
                client.grants.resource_id.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(id))
            });
        }
        self.clients.first()
    }

    /// All values are strings.
    fn managed_token(&self, client: &Client, resource: &str, token: &str) -> Value {
        let now = self.clock.now();
        json!({
            "access_token": token,
            "client_id": client.grants.id,
            "expires_in": self.lifetime.to_string(),
            "expires_on": (now + self.lifetime).to_string(),
            "ext_expires_in": self.lifetime.to_string(),
            "not_before": (now - 300).to_string(),
            "resource": resource,
            "token_type": "Bearer",
        })
    }
}

fn refusal(status: u16, error: &str, words: &str) -> Reply {
    json_reply(status, &json!({"error": error, "error_description": words}))
}
