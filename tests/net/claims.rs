//! Claims challenges: a token that was revoked, or that Conditional Access wants more of.

use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
};

use akv_pkcs11::{
    config::{CredentialConfig, SecretSource},
    vault::{KeyRef, Vault},
};
use akv_wire::SignatureAlgorithm;
use base64::{Engine, prelude::BASE64_STANDARD};
use cryptoki_sys::CKR_USER_NOT_LOGGED_IN;
use openssl::{pkey::PKey, rsa::Rsa};
use serde_json::{Value, json};

use crate::{
    SIGN_PATH, config,
    emulator::Emulator,
    form,
    server::{Reply, Server, certificate},
    service, sign, signature, token_reply, token_requests, vault,
};

const CLAIMS: &str = r#"{"access_token":{"nbf":{"essential":true,"value":"1603742800"}}}"#;

/// 401 with the claims.
pub fn challenge() -> Reply {
    let claims = BASE64_STANDARD.encode(CLAIMS);
    let header = format!(
        "Bearer realm=\"\", authorization_uri=\"https://evil.example/authorize\", \
         error=\"insufficient_claims\", claims=\"{claims}\""
    );
    Reply::status(401, "").with("www-authenticate", header)
}

fn claims(seen: &crate::server::Seen) -> Value {
    serde_json::from_str(&form(seen)["claims"]).expect("JSON")
}

/// Every grant that goes to the authority says that challenges are understood, and answers one.
#[test]
fn one_challenge_is_one_token_request_with_its_claims() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    fs::write(&token_file, "federated.token.here\n").unwrap();
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let mut pem = key.private_key_to_pem_pkcs8().unwrap();
    pem.extend(certificate("app", &key, None).to_pem().unwrap());
    let client_id = || "app".to_owned();
    for credential in [
        CredentialConfig::ClientSecret {
            client_id: client_id(),
            secret: SecretSource::Value(b"secret".to_vec().into()),
        },
        CredentialConfig::ClientCertificate {
            client_id: client_id(),
            pem: SecretSource::Value(pem.into()),
            send_chain: false,
        },
        CredentialConfig::WorkloadIdentity {
            client_id: client_id(),
            token_file: SecretSource::File { path: token_file, copy: Vec::new().into() },
        },
    ] {
        let issued = AtomicUsize::new(0);
        let server = Server::https(move |seen| match seen.path.ends_with("/token") {
            true => token_reply(&format!("token-{}", issued.fetch_add(1, SeqCst)), 3600),
            false if seen.headers["authorization"] == "Bearer token-0" => challenge(),
            false => signature(),
        });
        let mut config = config(&server);
        config.credential = credential.clone();
        let vault = vault(&config);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(sign(&vault).unwrap(), b"signature"));
            }
        });
        let asked = token_requests(&server);
        assert_eq!(asked.len(), 2, "{credential:?}: the rejected threads share one");
        let able = json!({ "values": ["cp1"] });
        assert_eq!(claims(&asked[0]), json!({ "access_token": { "xms_cc": able } }));
        let nbf = json!({ "essential": true, "value": "1603742800" });
        assert_eq!(claims(&asked[1]), json!({ "access_token": { "nbf": nbf, "xms_cc": able } }));
    }
}

#[test]
fn a_second_challenge_for_the_new_token_is_told_and_not_answered_for_ever() {
    let server = service(|_| challenge());
    let error = sign(&vault(&config(&server))).unwrap_err();
    assert_eq!(error.rv(), CKR_USER_NOT_LOGGED_IN);
    for part in ["with other claims", "Conditional Access", &BASE64_STANDARD.encode(CLAIMS)] {
        assert!(error.sentence().contains(part), "{part} in {error}");
    }
    assert_eq!((server.seen_at(SIGN_PATH).len(), token_requests(&server).len()), (2, 2));
}

/// A token may have ended and its successor lack claims: two refusals for two reasons.
#[test]
fn an_ended_token_and_a_challenge_are_both_answered() {
    let turn = AtomicUsize::new(0);
    let server = service(move |_| match turn.fetch_add(1, SeqCst) {
        0 => Reply::status(401, ""),
        1 => challenge(),
        _ => signature(),
    });
    assert_eq!(sign(&vault(&config(&server))).unwrap(), b"signature");
    assert_eq!((server.seen_at(SIGN_PATH).len(), token_requests(&server).len()), (3, 3));
}

fn sign_with(vault: &Vault) -> akv_pkcs11::error::Result<Vec<u8>> {
    vault.sign(KeyRef::current("p256"), SignatureAlgorithm::Es256, &[7; 32])
}

#[test]
fn what_the_service_demands_is_asked_for_and_taken() {
    let emulator = Emulator::start();
    let (vault, hsm) = (emulator.vault(), emulator.hsm());
    for round in ["c1", "c2"] {
        let listed = hsm.keys(crate::soon()).unwrap();
        sign_with(&vault).unwrap();
        let demanded = json!({ "acrs": { "essential": true, "value": round } });
        emulator.control("POST", "/claims", &demanded.to_string());
        emulator.control("POST", "/counters/reset", "");
        assert_eq!(sign_with(&vault).unwrap().len(), 64);
        // Many at once, as a search fetches them.
        let wanted: Vec<_> = listed.iter().map(|item| item.name_and_version().unwrap().0).collect();
        let wanted: Vec<_> = wanted.into_iter().map(KeyRef::current).collect();
        let fetched = hsm.fetch_many(&wanted, crate::soon()).unwrap();
        assert!(fetched.iter().all(Result::is_ok), "{round}");
        let counters: Value =
            serde_json::from_str(&emulator.control("GET", "/counters", "")).unwrap();
        assert_eq!(counters["entra"]["token"], 2, "one for each of two vaults: {counters}");
        assert_eq!(counters["vault:kv1"]["401"], 1);
    }
}

/// An App Service can be told that a token is refused. A virtual machine's metadata service
/// cannot: the operator has to know.
#[test]
fn a_managed_identity_is_told_where_it_can_be() {
    let emulator = Emulator::start();
    let header = emulator.identity_header.clone();
    let machine = emulator.with_identity("/metadata/identity/oauth2/token", None);
    let app = emulator.with_identity("/msi/token", Some(&header));
    for vault in [&machine, &app] {
        sign_with(vault).unwrap();
    }
    let demanded = json!({ "acrs": { "essential": true, "value": "c1" } });
    emulator.control("POST", "/claims", &demanded.to_string());
    assert_eq!(sign_with(&app).unwrap().len(), 64);
    let error = sign_with(&machine).unwrap_err();
    assert_eq!(error.rv(), CKR_USER_NOT_LOGGED_IN);
    assert!(error.sentence().contains("metadata service"), "{error}");
    emulator.control("DELETE", "/claims", "");
    sign_with(&machine).unwrap();
}
