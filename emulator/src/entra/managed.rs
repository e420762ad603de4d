//! Managed identities: the metadata service of a virtual machine, the endpoint of an App Service
//! and the agent of Azure Arc, over plain HTTP as the real ones.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use hyper::Method;
use hyper::header::{HeaderValue, WWW_AUTHENTICATE};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{Client, Entra, json_reply};
use crate::dialect::uuid;
use crate::service::{Call, Reply};

/// The three places: path, name in counters and orders of trouble, oldest api-version.
const PLACES: &[(&str, &str, &str)] = &[
    ("/metadata/identity/oauth2/token", "imds", "2018-02-01"),
    ("/msi/token", "app-service", "2019-08-01"),
    ("/arc/metadata/identity/oauth2/token", "arc", "2019-11-01"),
];

/// What the agent of Azure Arc proves that a client is on its machine with: a file that only the
/// machine's own can read.
pub struct ArcAgent {
    /// Where the files are.
    folder: PathBuf,
    /// Files whose content has not been shown yet: path and content.
    open: Mutex<Vec<(PathBuf, String)>>,
}

impl Entra {
    /// Answers the requests of managed identities; `None` for any other path.
    pub async fn answer_managed(&self, call: &Call) -> Option<Reply> {
        let (_, name, oldest) = PLACES.iter().find(|(path, ..)| *path == call.path)?;
        let well = |life| async move {
            self.counters.count("entra", name);
            self.managed(name, oldest, call, life)
        };
        Some(match self.faults.hit("entra", name, "") {
            None => well(None).await,
            Some(fault) => {
                let life = fault.token_lifetime;
                fault.befall(well(life)).await
            }
        })
    }

    fn managed(&self, name: &str, oldest: &str, call: &Call, life: Option<i64>) -> Reply {
        let header = |name: &str| call.headers.get(name).and_then(|value| value.to_str().ok());
        if call.method != Method::GET {
            return refusal(405, "method_not_allowed", "Only GET is allowed.");
        }
        if name == "app-service" {
            if header("x-identity-header") != Some(self.identity_header.as_str()) {
                return refusal(401, "unauthorized", "X-IDENTITY-HEADER is missing or wrong");
            }
        } else {
            if !header("metadata").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
                let words = "Required metadata header not specified";
                return refusal(400, "invalid_request", words);
            }
            if header("x-forwarded-for").is_some() {
                let words = "Requests through a proxy are not allowed";
                return refusal(400, "invalid_request", words);
            }
        }
        if call.parameter("api-version").is_none_or(|version| version < oldest) {
            return refusal(400, "invalid_request", "api-version is missing or not supported");
        }
        let Some(resource) = call.parameter("resource") else {
            return refusal(400, "invalid_request", "resource is missing");
        };
        if name == "arc" && !self.arc.knows(header("authorization")) {
            return self.arc.challenge();
        }
        let Some(client) = self.identity(call) else {
            return refusal(400, "invalid_request", "Identity not found");
        };
        let audience = match self.audience("", resource) {
            Ok(audience) => audience,
            Err(error) => return refusal(400, error.error, &error.message),
        };
        let requested = match name {
            "app-service" => {
                let refused = call.parameter("token_sha256_to_refresh");
                self.requested_for(refused, call.parameter("xms_cc"))
            }
            _ => Value::Null,
        };
        match self.access_token(&self.tenant, client, audience, requested, life) {
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

impl ArcAgent {
    /// An agent that puts its files there; the folder is made when it is needed.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, open: Mutex::default() }
    }

    /// Whether this is the content of an open file. It is good once.
    fn knows(&self, authorization: Option<&str>) -> bool {
        let Some(given) = authorization.and_then(|text| text.strip_prefix("Basic ")) else {
            return false;
        };
        let mut open = self.open.lock();
        let Some(at) = open.iter().position(|(_, content)| content == given.trim()) else {
            return false;
        };
        let (path, _) = open.remove(at);
        // Somebody may have tidied up before us.
        let _ = std::fs::remove_file(path);
        true
    }

    /// 401 that names a new file.
    fn challenge(&self) -> Reply {
        let path = self.folder.join(format!("{}.key", uuid()));
        let content = uuid();
        let written = std::fs::create_dir_all(&self.folder).and_then(|()| {
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(content.as_bytes())
        });
        if let Err(error) = written {
            let words = format!("{}: {error}", path.display());
            return refusal(500, "server_error", &words);
        }
        let mut reply = refusal(401, "unauthorized", "Show what is in the file of the challenge.");
        if let Ok(value) = HeaderValue::from_str(&format!("Basic realm={}", path.display())) {
            reply.headers.insert(WWW_AUTHENTICATE, value);
        }
        self.open.lock().push((path, content));
        reply
    }
}

fn refusal(status: u16, error: &str, words: &str) -> Reply {
    json_reply(status, &json!({"error": error, "error_description": words}))
}
