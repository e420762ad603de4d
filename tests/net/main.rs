//! Rooms 4 and 5 against a server that misbehaves on command: lanes, deadlines, repeats, tokens,
//! pages. What the real services answer is the emulator's business (tests/it).

mod claims;
mod credentials;
mod emulator;
mod lanes;
mod listing;
mod process;
mod repeats;
mod server;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use akv_pkcs11::{
    config::{Config, Env, TokenConfig},
    net::Surroundings,
    vault::{Carried, KeyRef, Vault},
};
use akv_wire::SignatureAlgorithm;

use crate::server::{Reply, Seen, Server};

const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const SECRET: &str = "the-client-secret";

/// The configuration of a token whose service and authority are `server`.
fn config(server: &Server) -> TokenConfig {
    let text = format!(
        "[[token]]\n\
         endpoint = 'https://localhost:{port}'\n\
         service = 'vault'\n\
         authority = 'https://localhost:{port}'\n\
         scope = 'https://vault.azure.net/.default'\n\
         tenant = '{TENANT}'\n\
         credential = {{ type = 'client-secret', client_id = 'app', secret = '{SECRET}' }}\n\
         timeout = '5s'\n",
        port = server.address.port()
    );
    let mut token = Config::parse(&text, "test", &Env::empty()).unwrap().tokens.remove(0);
    token.ca = Some(server.ca.clone());
    token
}

fn vault(config: &TokenConfig) -> Vault {
    Vault::new(config, Carried::default()).unwrap()
}

/// A server whose authority works, and whose service is `handler`.
fn service(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Server {
    Server::https(move |seen| match seen.path.ends_with("/oauth2/v2.0/token") {
        true => token_reply("token-1", 3600),
        false => handler(seen),
    })
}

fn token_reply(token: &str, seconds: u64) -> Reply {
    Reply::json(format!(
        r#"{{"token_type":"Bearer","expires_in":{seconds},"ext_expires_in":{seconds},"access_token":"{token}"}}"#
    ))
}

fn token_requests(server: &Server) -> Vec<Seen> {
    let all = server.seen().into_iter();
    all.filter(|seen| seen.path.ends_with("/oauth2/v2.0/token")).collect()
}

/// An application/x-www-form-urlencoded body.
fn form(seen: &Seen) -> HashMap<String, String> {
    let url = format!("http://x/?{}", String::from_utf8_lossy(&seen.body));
    reqwest::Url::parse(&url).unwrap().query_pairs().into_owned().collect()
}

/// What a signing request is answered with.
fn signature() -> Reply {
    Reply::json(r#"{"kid":"https://localhost/keys/web/0f","value":"c2lnbmF0dXJl"}"#)
}

fn sign(vault: &Vault) -> akv_pkcs11::error::Result<Vec<u8>> {
    vault.sign(KeyRef::version("web", "0f"), SignatureAlgorithm::Rs256, &[7; 32])
}

const SIGN_PATH: &str = "/keys/web/0f/sign";

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

#[test]
fn a_signature_is_one_request_with_everything_it_needs() {
    let server = service(|_| signature());
    let vault = vault(&config(&server));
    assert_eq!(sign(&vault).unwrap(), b"signature");
    let seen = &server.seen_at(SIGN_PATH)[0];
    assert_eq!((seen.method.as_str(), seen.query.as_str()), ("POST", "api-version=7.4"));
    assert_eq!(seen.headers["authorization"], "Bearer token-1");
    assert_eq!(seen.headers["host"], format!("localhost:{}", server.address.port()));
    assert_eq!(seen.headers["content-type"], "application/json");
    assert!(seen.headers["user-agent"].starts_with("akv-pkcs11/"));
    assert_eq!(seen.headers["x-ms-client-request-id"].len(), 36);
    let body: serde_json::Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(body["alg"], "RS256");
    // Tenant and scope are configured: no request without a token comes first.
    let asked = form(&token_requests(&server)[0]);
    assert_eq!(server.seen().len(), 2);
    assert_eq!(asked["client_secret"], SECRET);
    assert_eq!(asked["scope"], "https://vault.azure.net/.default");
    assert!(token_requests(&server)[0].path.starts_with(&format!("/{TENANT}/")));
}

#[test]
fn the_configured_address_is_used_and_the_names_stay() {
    let server = service(|_| signature());
    let mut config = config(&server);
    config.endpoint.port = 8443;
    config.address = Some(server.address);
    let vault = vault(&config);
    assert_eq!(sign(&vault).unwrap(), b"signature");
    assert_eq!(server.seen_at(SIGN_PATH)[0].headers["host"], "localhost:8443");
}

#[test]
fn a_child_of_a_fork_goes_on_with_its_parents_token() {
    let server = service(|_| signature());
    let config = config(&server);
    let parent = vault(&config);
    sign(&parent).unwrap();
    let child = Vault::new(&config, parent.carried()).unwrap();
    sign(&child).unwrap();
    assert_eq!(token_requests(&server).len(), 1);
}

#[test]
fn surroundings_are_read_from_the_machine() {
    let read = Surroundings::read(&Env::empty(), None);
    assert!(!read.hosts.is_empty());
    let carried = Carried::from(Arc::new(read));
    assert!(carried.may_run_programs);
}
