//! Challenge, token, and what the data plane thinks of a token.

use akv_emulator::config::Config;
use serde_json::json;

use crate::support::{Answer, encode, world, world_with};

#[test]
fn a_request_without_token_is_challenged_in_the_dialect_of_the_service() {
    let world = world();
    for (at, resource, body) in
        [(0, "https://vault.azure.net", "AKV10000"), (1, "https://managedhsm.azure.net", "")]
    {
        let service = &world.ready().services[at];
        let url = format!("{}/keys/x/sign?api-version=7.4", service.url);
        let answer = Answer::read(world.http.post(url).send().expect("send"));
        assert_eq!(answer.status, 401);
        let challenge = answer.headers["www-authenticate"].to_str().expect("text");
        let expected = format!(
            "Bearer authorization=\"{}/{}\", resource=\"{resource}\"",
            world.ready().authority,
            world.ready().tenant
        );
        assert_eq!(challenge, expected);
        assert!(answer.text.contains(body), "{}", answer.text);
        assert_eq!(answer.text.is_empty(), at == 1);
    }
    let hsm = &world.ready().services[1];
    let url = format!("{}/keys?api-version=7.4", hsm.url);
    assert_eq!(Answer::read(world.http.get(url).send().expect("send")).text, "OK");
    assert_eq!(world.counters()["managed-hsm:hsm"], json!({"401": 2, "requests": 2}));
}

#[test]
fn a_client_with_a_public_host_name_is_sent_to_the_public_authority() {
    let world = world();
    let service = &world.ready().services[0];
    let address = ([127, 0, 0, 1], service.port).into();
    let url = format!("https://{}:{}/keys?api-version=7.4", service.host, service.port);
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(&world.ready().ca_file).expect("CA");
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    roots.add(CertificateDer::from_pem_slice(&pem).expect("PEM")).expect("root");
    let provider = rustls::crypto::aws_lc_rs::default_provider().into();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let tls = rustls::ClientConfig::builder_with_provider(std::sync::Arc::clone(&provider))
            .with_protocol_versions(&[version])
            .expect("version")
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let client = reqwest::blocking::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .resolve(&service.host, address)
            .build()
            .expect("client");
        // The Host header carries the port here; a client behind an address override has none.
        let answer = client.get(&url).header("host", &service.host).send().expect("send");
        let challenge = answer.headers()["www-authenticate"].to_str().expect("text");
        assert!(challenge.contains("https://login.microsoftonline.com/"), "{challenge}");
    }
}

#[test]
fn the_token_endpoint_checks_tenant_client_secret_scope_and_grant() {
    let world = world();
    let ready = world.ready().clone();
    let scope = ready.services[0].scope.as_str();
    let good = [
        ("grant_type", "client_credentials"),
        ("client_id", ready.client_id.as_str()),
        ("client_secret", ready.client_secret.as_str()),
        ("scope", scope),
    ];
    let answer = world.ask_token(&good);
    assert_eq!(answer.json["token_type"], "Bearer");
    assert_eq!(answer.json["expires_in"], 3599);
    for (field, value, status, error, code) in [
        ("grant_type", "password", 400, "unsupported_grant_type", 70003),
        ("client_id", "nobody", 400, "unauthorized_client", 700_016),
        ("client_secret", "wrong", 401, "invalid_client", 7_000_215),
        ("scope", "https://vault.azure.net", 400, "invalid_scope", 1_002_012),
        ("scope", "https://example.com/.default", 400, "invalid_resource", 500_011),
    ] {
        let form = good.map(|(name, old)| (name, if name == field { value } else { old }));
        let answer = world.ask_token(&form);
        assert_eq!(answer.status, status, "{field}: {}", answer.text);
        assert_eq!(answer.json["error"], error);
        assert_eq!(answer.json["error_codes"], json!([code]));
        let words = answer.json["error_description"].as_str().expect("text");
        assert!(words.starts_with(&format!("AADSTS{code}: ")), "{words}");
        assert!(!words.contains(&ready.client_secret));
    }
    let url = format!("{}/other-tenant/oauth2/v2.0/token", ready.authority);
    let answer = Answer::read(world.http.post(url).form(&good).send().expect("send"));
    assert_eq!(answer.json["error_codes"], json!([90002]));
    let url = format!("{}/{}/v2.0/.well-known/openid-configuration", ready.authority, ready.tenant);
    let discovery = Answer::read(world.http.get(url).send().expect("send")).ok();
    assert_eq!(
        discovery["token_endpoint"],
        format!("{}/{}/oauth2/v2.0/token", ready.authority, ready.tenant)
    );
}

#[test]
fn a_token_for_the_other_service_is_challenged_again() {
    let world = world();
    let vault = world.vault();
    vault.token.replace(world.token(&world.ready().services[1].scope));
    let answer = vault.get("/keys");
    answer.refused(401, "Unauthorized");
    assert!(answer.message().starts_with("AKV10022"), "{}", answer.text);
    assert!(answer.headers.contains_key("www-authenticate"));
}

#[test]
fn an_expired_token_is_challenged_again() {
    let world = world();
    let vault = world.vault();
    assert_eq!(vault.get("/keys").status, 200);
    world.advance_clock(3600);
    vault.get("/keys").refused(401, "Unauthorized");
    vault.token.replace(world.token(&world.ready().services[0].scope));
    assert_eq!(vault.get("/keys").status, 200);
}

#[test]
fn a_token_that_was_tampered_with_is_challenged_again() {
    let world = world();
    let vault = world.vault();
    let token = vault.token.borrow().clone();
    let parts: Vec<&str> = token.split('.').collect();
    let claims = String::from_utf8(crate::support::decode(&json!(parts[1]))).expect("claims");
    let longer = claims.replace("\"exp\":", "\"exp\":1");
    assert_ne!(claims, longer);
    let none = encode(br#"{"alg":"none"}"#);
    for bad in [
        format!("{}.{}.{}", parts[0], encode(longer.as_bytes()), parts[2]),
        format!("{none}.{}.", parts[1]),
        format!("{}.{}.{}", parts[0], parts[1], encode(&[0; 256])),
        "nonsense".to_owned(),
    ] {
        vault.token.replace(bad);
        vault.get("/keys").refused(401, "Unauthorized");
    }
    // A token of another emulator: right words, other key.
    let other = world_with(Config::default(), Vec::new());
    vault.token.replace(other.token(&other.ready().services[0].scope));
    vault.get("/keys").refused(401, "Unauthorized");
}

#[test]
fn a_token_of_another_tenant_names_the_issuer() {
    let config =
        Config { tenant: "00000000-1111-4222-8333-444444444444".into(), ..Config::default() };
    let world = world_with(config, Vec::new());
    let vault = world.vault();
    assert_eq!(vault.get("/keys").status, 200);
    let challenge = {
        vault.token.replace(String::new());
        vault.get("/keys").headers["www-authenticate"].to_str().expect("text").to_owned()
    };
    assert!(challenge.contains("/00000000-1111-4222-8333-444444444444\""), "{challenge}");
}
