//! The other ways to prove who one is: certificate, federated workload, managed identity.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::{Padding, Rsa};
use openssl::sign::{RsaPssSaltlen, Signer};
use openssl::x509::X509;
use serde_json::{Value, json};

use crate::support::{Answer, World, encode, world};

const SCOPE: &str = "https://vault.azure.net/.default";
const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

struct Certificate {
    key: PKey<Private>,
    leaf: X509,
}

fn certificate(world: &World) -> Certificate {
    let pem = std::fs::read(&world.ready().client_certificate).expect("certificate");
    Certificate {
        key: PKey::private_key_from_pem(&pem).expect("key"),
        leaf: X509::from_pem(&pem).expect("leaf"),
    }
}

fn assertion(key: &PKey<Private>, header: &Value, claims: &Value) -> String {
    let text = format!(
        "{}.{}",
        encode(header.to_string().as_bytes()),
        encode(claims.to_string().as_bytes())
    );
    let mut signer = Signer::new(MessageDigest::sha256(), key).expect("signer");
    if header["alg"] == "PS256" {
        signer.set_rsa_padding(Padding::PKCS1_PSS).expect("padding");
        signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).expect("salt");
    }
    format!("{text}.{}", encode(&signer.sign_oneshot_to_vec(text.as_bytes()).expect("sign")))
}

fn exchange(world: &World, assertion: &str) -> Answer {
    world.ask_token(&[
        ("grant_type", "client_credentials"),
        ("client_id", &world.ready().client_id),
        ("client_assertion_type", TYPE),
        ("client_assertion", assertion),
        ("scope", SCOPE),
    ])
}

fn now(world: &World) -> i64 {
    let url = format!("{}/clock", world.ready().control);
    let clock = Answer::read(world.http.get(url).send().expect("clock")).ok();
    clock["now"].as_i64().expect("now")
}

#[test]
fn a_client_certificate_signs_assertions() {
    let world = world();
    let Certificate { key, leaf } = certificate(&world);
    let ready = world.ready().clone();
    let print = |digest| encode(&leaf.digest(digest).expect("digest"));
    let (sha1, sha256) = (print(MessageDigest::sha1()), print(MessageDigest::sha256()));
    let endpoint = format!("{}/{}/oauth2/v2.0/token", ready.authority, ready.tenant);
    let public = format!("https://login.microsoftonline.com/{}/oauth2/v2.0/token", ready.tenant);
    let at = now(&world);
    let claims = json!({
        "aud": endpoint, "iss": ready.client_id, "sub": ready.client_id, "jti": "1",
        "nbf": at, "exp": at + 600,
    });
    let with = |member: &str, value: Value| {
        let mut claims = claims.clone();
        claims[member] = value;
        claims
    };
    for header in [
        json!({"alg": "RS256", "typ": "JWT", "x5t": sha1}),
        json!({"alg": "PS256", "typ": "JWT", "x5t#S256": sha256}),
        json!({"alg": "RS256", "typ": "JWT", "x5t": sha1, "x5t#S256": sha256}),
    ] {
        for claims in [claims.clone(), with("aud", json!(public))] {
            let answer = exchange(&world, &assertion(&key, &header, &claims));
            assert_eq!(answer.status, 200, "{header}: {}", answer.text);
            let vault = world.vault();
            vault.token.replace(answer.json["access_token"].as_str().expect("token").to_owned());
            assert_eq!(vault.get("/keys").status, 200);
        }
    }
    let header = json!({"alg": "RS256", "typ": "JWT", "x5t": sha1});
    let stranger = PKey::from_rsa(Rsa::generate(2048).expect("RSA")).expect("key");
    for (assertion, code) in [
        (assertion(&stranger, &header, &claims), 700_027),
        (assertion(&key, &json!({"alg": "RS256", "x5t": sha256}), &claims), 700_027),
        (assertion(&key, &json!({"alg": "RS256"}), &claims), 700_027),
        (assertion(&key, &header, &with("sub", json!("other"))), 700_021),
        (assertion(&key, &header, &with("aud", json!("https://example.com"))), 700_023),
        (assertion(&key, &header, &with("exp", json!(at))), 700_024),
        ("nonsense".to_owned(), 50027),
    ] {
        let answer = exchange(&world, &assertion);
        assert_eq!(answer.status, 401, "{}", answer.text);
        assert_eq!(answer.json["error"], "invalid_client");
        assert_eq!(answer.json["error_codes"], json!([code]));
    }
}

#[test]
fn a_federated_workload_exchanges_its_token() {
    let world = world();
    let file = &world.ready().federated_token_file;
    let token = std::fs::read_to_string(file).expect("token");
    let answer = exchange(&world, &token);
    assert_eq!(answer.status, 200, "{}", answer.text);
    let mut changed = token.clone().into_bytes();
    let at = changed.len() - 20;
    changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).expect("text");
    let other = crate::support::world();
    let foreign = std::fs::read_to_string(&other.ready().federated_token_file).expect("token");
    for bad in [changed, foreign] {
        assert_eq!(exchange(&world, &bad).status, 401);
    }
    world.advance_clock(86_400);
    assert_eq!(exchange(&world, &token).json["error_codes"], json!([700_024]));
}

#[test]
fn the_resource_manager_describes_the_cloud_and_knows_no_subscription() {
    let world = world();
    let authority = &world.ready().authority;
    let get = |path: &str, token: Option<String>| {
        let request = world.http.get(format!("{authority}{path}?api-version=2022-12-01"));
        let request = match token {
            None => request,
            Some(token) => request.bearer_auth(token),
        };
        Answer::read(request.send().expect("the resource manager"))
    };
    let cloud = get("/metadata/endpoints", None).ok();
    assert_eq!(cloud["authentication"]["loginEndpoint"], json!(authority));
    assert_eq!(cloud["resourceManager"], json!(authority));
    for audience in cloud["authentication"]["audiences"].as_array().expect("audiences") {
        let scope = format!("{}/.default", audience.as_str().expect("text"));
        let none = get("/subscriptions", Some(world.token(&scope))).ok();
        assert_eq!(none["value"], json!([]));
        let path = "/subscriptions/s/providers/Microsoft.KeyVault/vaults";
        get(path, Some(world.token(&scope))).refused(404, "SubscriptionNotFound");
    }
    for token in [None, Some(world.token(SCOPE)), Some("nonsense".to_owned())] {
        get("/subscriptions", token).refused(401, "AuthenticationFailed");
    }
}

#[test]
fn the_metadata_service_gives_tokens_to_machines() {
    let world = world();
    let base = format!("{}/metadata/identity/oauth2/token", world.ready().control);
    let ask = |query: &str, header: Option<(&str, &str)>| {
        let mut request = world.http.get(format!("{base}?{query}"));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        Answer::read(request.send().expect("send"))
    };
    let metadata = Some(("Metadata", "true"));
    let good = "api-version=2018-02-01&resource=https://managedhsm.azure.net";
    let answer = ask(good, metadata).ok();
    assert!(answer["expires_on"].is_string() && answer["expires_in"] == "3599");
    let hsm = world.hsm();
    hsm.token.replace(answer["access_token"].as_str().expect("token").to_owned());
    assert_eq!(hsm.get("/keys").status, 200);
    let id = &world.ready().client_id;
    assert_eq!(ask(&format!("{good}&client_id={id}"), metadata).status, 200);
    for (query, header) in [
        (good.to_owned(), None),
        (format!("{good}&client_id=nobody"), metadata),
        (format!("{good}&msi_res_id=/subscriptions/x"), metadata),
        ("resource=https://managedhsm.azure.net".to_owned(), metadata),
        ("api-version=2018-02-01".to_owned(), metadata),
        ("api-version=2018-02-01&resource=https://example.com".to_owned(), metadata),
    ] {
        assert_eq!(ask(&query, header).status, 400, "{query}");
    }
    // Its phases are trouble on order.
    for status in [404, 410, 429] {
        let fault = json!({"operation": "imds", "times": 1, "status": status});
        let url = format!("{}/faults", world.ready().control);
        world.http.post(url).json(&fault).send().expect("control");
        assert_eq!(ask(good, metadata).status, status);
    }
    assert_eq!(ask(good, metadata).status, 200);
    assert_eq!(world.counters()["entra"]["imds"], 9);
}

#[test]
fn the_app_service_endpoint_wants_its_header() {
    let world = world();
    let ready = world.ready();
    let query = "api-version=2019-08-01&resource=https://vault.azure.net";
    let url = format!("{}/msi/token?{query}", ready.control);
    let ask = |header: &str| {
        let request = world.http.get(&url).header("X-IDENTITY-HEADER", header);
        Answer::read(request.send().expect("send"))
    };
    assert_eq!(ask("wrong").status, 401);
    let answer = ask(&ready.identity_header).ok();
    let vault = world.vault();
    vault.token.replace(answer["access_token"].as_str().expect("token").to_owned());
    assert_eq!(vault.get("/keys").status, 200);
}

#[test]
fn the_agent_of_arc_wants_to_see_a_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("folder");
    let tokens = folder.path().join("tokens");
    let config =
        akv_emulator::config::Config { arc_folder: Some(tokens.clone()), ..Default::default() };
    for (world, place) in
        [(world(), None), (crate::support::world_with(config, Vec::new()), Some(tokens))]
    {
        let query = "api-version=2020-06-01&resource=https://vault.azure.net";
        let base = format!("{}/arc/metadata/identity/oauth2/token", world.ready().control);
        let ask = |query: &str, content: Option<&str>| {
            let mut request = world.http.get(format!("{base}?{query}")).header("Metadata", "true");
            if let Some(content) = content {
                request = request.header("Authorization", format!("Basic {content}"));
            }
            Answer::read(request.send().expect("send"))
        };
        let challenged = |answer: Answer| {
            assert_eq!(answer.status, 401, "{}", answer.text);
            let challenge = answer.headers["www-authenticate"].to_str().expect("text");
            std::path::PathBuf::from(challenge.strip_prefix("Basic realm=").expect(challenge))
        };
        let file = challenged(ask(query, None));
        assert_eq!(file.extension().and_then(|end| end.to_str()), Some("key"));
        if let Some(place) = place {
            assert_eq!(file.parent(), Some(place.as_path()));
        }
        let mode = std::fs::metadata(&file).expect("file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let content = std::fs::read_to_string(&file).expect("file");
        let other = challenged(ask(query, Some("wrong")));
        assert_ne!(other, file);
        let answer = ask(query, Some(&content)).ok();
        let vault = world.vault();
        vault.token.replace(answer["access_token"].as_str().expect("token").to_owned());
        assert_eq!(vault.get("/keys").status, 200);
        // It was good once, and is gone.
        assert!(!file.exists());
        challenged(ask(query, Some(&content)));
        assert_eq!(ask("resource=https://vault.azure.net", None).status, 400);
        let request = world.http.get(format!("{base}?{query}")).send().expect("send");
        assert_eq!(request.status(), 400, "no Metadata header");
        assert_eq!(world.counters()["entra"]["arc"], 6);
    }
}

/// What continuous access evaluation does: a token is good until the services demand claims that
/// it was not asked for with.
#[test]
fn demanded_claims_are_challenged_for_and_taken() {
    let world = world();
    let ready = world.ready();
    let control = |method: reqwest::Method, body: &str| {
        let request = world.http.request(method, format!("{}/claims", ready.control));
        request.body(body.to_owned()).send().expect("send").status()
    };
    let demanded = r#"{"acrs":{"essential":true,"value":"c1"}}"#;
    assert_eq!(control(reqwest::Method::POST, "[]"), 400);
    let vault = world.vault();
    assert_eq!(vault.get("/keys").status, 200);
    assert_eq!(control(reqwest::Method::POST, demanded), 200);
    let refused = vault.get("/keys");
    refused.refused(401, "Unauthorized");
    let challenge = refused.headers["www-authenticate"].to_str().expect("text");
    assert!(challenge.contains("error=\"insufficient_claims\""), "{challenge}");
    let (_, claims) = challenge.split_once("claims=\"").expect(challenge);
    let claims = BASE64_STANDARD.decode(claims.trim_end_matches('"')).expect("base64");
    assert_eq!(claims, format!(r#"{{"access_token":{demanded}}}"#).as_bytes());
    assert_eq!(world.hsm().get("/keys").status, 401);

    let ask = |claims: &str| {
        world.ask_token(&[
            ("grant_type", "client_credentials"),
            ("client_id", &ready.client_id),
            ("client_secret", &ready.client_secret),
            ("scope", SCOPE),
            ("claims", claims),
        ])
    };
    assert_eq!(ask("nonsense").status, 400);
    for (claims, status) in [
        (r#"{"access_token":{"acrs":{"essential":true,"value":"c2"}}}"#, 401),
        (std::str::from_utf8(&claims).expect("UTF-8"), 200),
    ] {
        let token = ask(claims).ok()["access_token"].as_str().expect("token").to_owned();
        vault.token.replace(token);
        assert_eq!(vault.get("/keys").status, status, "{claims}");
    }
    assert_eq!(control(reqwest::Method::DELETE, ""), 200);
    assert_eq!(world.hsm().get("/keys").status, 200);
}
