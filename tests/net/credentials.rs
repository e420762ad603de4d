//! Every way to a token, and how often it is asked for.

use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use akv_pkcs11::{
    config::{CredentialConfig, ManagedIdentityEndpoint, SecretSource, UserAssigned},
    vault::{Carried, Vault},
};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use cryptoki_sys::{
    CKR_DEVICE_ERROR, CKR_GENERAL_ERROR, CKR_PIN_INCORRECT, CKR_USER_NOT_LOGGED_IN,
};
use openssl::{
    hash::{MessageDigest, hash},
    pkey::PKey,
    rsa::{Padding, Rsa},
    sign::{RsaPssSaltlen, Verifier},
    x509::X509,
};

use crate::{
    SECRET, SIGN_PATH, TENANT, config, form,
    server::{Reply, Server, certificate},
    service, sign, signature, token_reply, token_requests, vault,
};

#[test]
fn eight_threads_on_a_cold_start_ask_once() {
    let server = Server::https(|seen| match seen.path.ends_with("/token") {
        true => Reply::Late(Duration::from_millis(200), Box::new(token_reply("t", 3600))),
        false => signature(),
    });
    let vault = vault(&config(&server));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| sign(&vault).unwrap());
        }
    });
    assert_eq!(token_requests(&server).len(), 1);
}

#[test]
fn eight_threads_share_one_refusal() {
    let server = Server::https(|_| {
        let body = r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided.\r\nTrace ID: x","error_codes":[7000215]}"#;
        Reply::Late(Duration::from_millis(200), Box::new(Reply::status(401, body)))
    });
    let vault = vault(&config(&server));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let error = sign(&vault).unwrap_err();
                assert_eq!(error.rv(), CKR_USER_NOT_LOGGED_IN);
                assert!(error.sentence().contains("AADSTS7000215"), "{error}");
                assert!(!error.sentence().contains(SECRET), "{error}");
            });
        }
    });
    assert_eq!(token_requests(&server).len(), 1);
}

#[test]
fn a_token_near_its_end_is_refreshed_by_one_while_the_others_go_on() {
    let issued = AtomicUsize::new(0);
    let server = Server::https(move |seen| match seen.path.ends_with("/token") {
        // The first token lives for four seconds, is refreshed in the last 0.8 of them and
        // not used in the last 0.4.
        true => match issued.fetch_add(1, SeqCst) {
            0 => token_reply("first", 4),
            _ => Reply::Late(Duration::from_millis(300), Box::new(token_reply("second", 3600))),
        },
        false => signature(),
    });
    let vault = vault(&config(&server));
    let issued = Instant::now();
    sign(&vault).unwrap();
    thread::sleep(Duration::from_millis(3300));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| sign(&vault).unwrap());
        }
    });
    assert_eq!(token_requests(&server).len(), 2);
    let used = |token: &str| {
        let signed = server.seen_at(SIGN_PATH);
        signed.iter().filter(|seen| seen.headers["authorization"] == token).count()
    };
    // One before and three beside the refresh, which one caller waited for; unless a busy machine
    // slept through the time for it.
    if issued.elapsed() < Duration::from_millis(3850) {
        assert_eq!((used("Bearer first"), used("Bearer second")), (4, 1));
    }
}

#[test]
fn an_authority_that_fails_is_asked_again_until_the_deadline() {
    const FAILURES: usize = 5;
    let turn = AtomicUsize::new(0);
    let server = Server::https(move |seen| match seen.path.ends_with("/token") {
        true if turn.fetch_add(1, SeqCst) < FAILURES => Reply::status(503, "<html>busy</html>"),
        true => token_reply("t", 3600),
        false => signature(),
    });
    let mut config = config(&server);
    config.timeout = Duration::from_secs(10);
    assert_eq!(sign(&vault(&config)).unwrap(), b"signature");
    assert_eq!(token_requests(&server).len(), FAILURES + 1);

    let down = Server::https(|_| Reply::status(500, "<html>down</html>"));
    let mut config = self::config(&down);
    config.timeout = Duration::from_millis(800);
    let started = Instant::now();
    let error = sign(&vault(&config)).unwrap_err();
    assert_eq!(error.rv(), CKR_DEVICE_ERROR);
    assert!(error.sentence().contains("HTTP 500"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(2));
    assert!(token_requests(&down).len() > 1);
}

#[test]
fn a_pause_that_the_authority_asks_for_holds_for_the_calls_that_follow() {
    let server = Server::https(|_| Reply::status(429, "{}").with("retry-after", "60"));
    let vault = vault(&config(&server));
    for sentence in ["HTTP 429", "not asked, because whoever gives out the tokens asked"] {
        let started = Instant::now();
        let error = sign(&vault).unwrap_err();
        assert_eq!(error.rv(), CKR_DEVICE_ERROR);
        assert!(error.sentence().contains(sentence), "{error}");
        assert!(started.elapsed() < Duration::from_secs(1), "it waits for nothing");
    }
    assert_eq!(token_requests(&server).len(), 1);
}

#[test]
fn an_authority_where_nobody_listens_is_given_up_before_the_deadline() {
    let server = service(|_| signature());
    let mut config = config(&server);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    config.authority = format!("https://localhost:{}/", closed.port());
    config.timeout = Duration::from_secs(60);
    config.connect_timeout = Duration::from_secs(1);
    let started = Instant::now();
    let error = sign(&vault(&config)).unwrap_err();
    assert_eq!(error.rv(), CKR_DEVICE_ERROR);
    assert!(error.sentence().contains("no connection"), "{error}");
    // Longer than a restart takes, and not as long as the deadline is away.
    let took = started.elapsed().as_millis();
    assert!((1000..5000).contains(&took), "{took} ms");
}

fn vault_of(config: &akv_pkcs11::config::TokenConfig) -> Vault {
    vault(config)
}

#[test]
fn the_tenant_comes_from_the_challenge_and_nothing_else_does() {
    let server = Server::https(|seen| match seen.headers.get("authorization") {
        _ if seen.path.ends_with("/token") => token_reply("t", 3600),
        None => {
            let challenge = "Bearer authorization=\"https://evil.example/the-tenant\", \
                             resource=\"https://evil.example\"";
            Reply::status(401, "").with("www-authenticate", challenge)
        }
        Some(_) => signature(),
    });
    let mut config = config(&server);
    config.tenant = None;
    let vault = vault(&config);
    sign(&vault).unwrap();
    sign(&vault).unwrap();
    let asked = token_requests(&server);
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].path, "/the-tenant/oauth2/v2.0/token");
    assert_eq!(form(&asked[0])["scope"], "https://vault.azure.net/.default");
    let bare: Vec<_> = server
        .seen()
        .into_iter()
        .filter(|seen| !seen.headers.contains_key("authorization") && !seen.path.ends_with("token"))
        .collect();
    assert!(bare.len() == 1 && bare[0].body.is_empty(), "one request without a token, no secret");
}

#[test]
fn a_secret_file_is_read_for_each_token_and_its_copy_serves_when_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    fs::write(&path, "new\n").unwrap();
    let server = service(|_| signature());
    let mut config = config(&server);
    let copy = b"old".to_vec().into();
    config.credential = CredentialConfig::ClientSecret {
        client_id: "app".into(),
        secret: SecretSource::File { path: path.clone(), copy },
    };
    sign(&vault(&config)).unwrap();
    fs::remove_file(&path).unwrap();
    sign(&vault(&config)).unwrap();
    let secrets: Vec<_> =
        token_requests(&server).iter().map(|seen| form(seen)["client_secret"].clone()).collect();
    assert_eq!(secrets, ["new", "old"]);
}

#[test]
fn workload_identity_sends_the_federated_token() {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    fs::write(&token_file, "federated.token.here\n").unwrap();
    let server = service(|_| signature());
    let mut config = config(&server);
    config.credential = CredentialConfig::WorkloadIdentity {
        client_id: "app".into(),
        token_file: SecretSource::File { path: token_file, copy: Vec::new().into() },
    };
    sign(&vault(&config)).unwrap();
    let asked = form(&token_requests(&server)[0]);
    assert_eq!(asked["client_assertion"], "federated.token.here");
    assert!(asked["client_assertion_type"].ends_with("jwt-bearer"));
}

#[test]
fn a_client_certificate_signs_its_assertion() {
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let (ca_key, other) = (ec_key(), ec_key());
    let ca = certificate("issuer", &ca_key, None);
    let leaf = certificate("app", &key, Some((&ca, &ca_key)));
    let stranger = certificate("stranger", &other, Some((&ca, &ca_key)));
    // The leaf is found by its key, wherever it stands.
    let mut pem = key.private_key_to_pem_pkcs8().unwrap();
    for each in [&stranger, &leaf, &ca] {
        pem.extend(each.to_pem().unwrap());
    }
    for send_chain in [false, true] {
        let server = service(|_| signature());
        let mut config = config(&server);
        config.credential = CredentialConfig::ClientCertificate {
            client_id: "app".into(),
            pem: SecretSource::Value(pem.clone().into()),
            send_chain,
        };
        sign(&vault(&config)).unwrap();
        let asked = form(&token_requests(&server)[0]);
        let audience =
            format!("https://localhost:{}/{TENANT}/oauth2/v2.0/token", server.address.port());
        verify_assertion(&asked["client_assertion"], &leaf, &audience, send_chain);
    }
}

fn verify_assertion(jwt: &str, leaf: &X509, audience: &str, chain_sent: bool) {
    let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap();
    let parts: Vec<&str> = jwt.split('.').collect();
    let header: serde_json::Value = serde_json::from_slice(&decode(parts[0])).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&decode(parts[1])).unwrap();
    let thumbprint = hash(MessageDigest::sha256(), &leaf.to_der().unwrap()).unwrap();
    assert_eq!(header["alg"], "PS256");
    assert_eq!(header["x5t#S256"], BASE64_URL_SAFE_NO_PAD.encode(thumbprint));
    match chain_sent {
        true => assert_eq!(header["x5c"][0], BASE64_STANDARD.encode(leaf.to_der().unwrap())),
        false => assert!(header.get("x5c").is_none()),
    }
    assert_eq!((&claims["iss"], &claims["sub"]), (&"app".into(), &"app".into()));
    assert_eq!(claims["aud"], audience);
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["nbf"].as_u64().unwrap(), 600);
    let public = leaf.public_key().unwrap();
    let mut verifier = Verifier::new(MessageDigest::sha256(), &public).unwrap();
    verifier.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
    verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).unwrap();
    let signed = format!("{}.{}", parts[0], parts[1]);
    assert!(verifier.verify_oneshot(&decode(parts[2]), signed.as_bytes()).unwrap());
}

fn ec_key() -> PKey<openssl::pkey::Private> {
    let group = openssl::ec::EcGroup::from_curve_name(openssl::nid::Nid::SECP384R1).unwrap();
    PKey::from_ec_key(openssl::ec::EcKey::generate(&group).unwrap()).unwrap()
}

#[test]
fn certificates_that_cannot_sign_are_refused_at_once_and_say_why() {
    let rsa = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let ec = ec_key();
    let own = certificate("app", &rsa, None).to_pem().unwrap();
    let foreign = certificate("app", &ec, None).to_pem().unwrap();
    let cipher = openssl::symm::Cipher::aes_128_cbc();
    let locked = rsa.private_key_to_pem_pkcs8_passphrase(cipher, b"p").unwrap();
    let with = |key: Vec<u8>, certificate: &[u8]| [key, certificate.to_vec()].concat();
    let open = || rsa.private_key_to_pem_pkcs8().unwrap();
    for (pem, why) in [
        (with(ec.private_key_to_pem_pkcs8().unwrap(), &foreign), "no usable RSA key"),
        (with(locked, &own), "encrypted"),
        (with(open(), &foreign), "no certificate for its key"),
        (own.clone(), "no private key"),
    ] {
        let server = service(|_| signature());
        let mut config = config(&server);
        config.credential = CredentialConfig::ClientCertificate {
            client_id: "app".into(),
            pem: SecretSource::Value(pem.into()),
            send_chain: false,
        };
        let error = Vault::new(&config, Carried::default()).unwrap_err();
        assert_eq!(error.rv(), CKR_GENERAL_ERROR);
        assert!(error.sentence().contains(why), "{why}: {error}");
    }
}

fn identity_reply() -> Reply {
    let expires = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Reply::json(format!(
        r#"{{"access_token":"identity-token","expires_on":"{}","resource":"r","token_type":"Bearer"}}"#,
        expires.as_secs() + 3600
    ))
}

#[test]
fn a_managed_identity_asks_the_metadata_service() {
    let metadata = Server::plain({
        let turn = AtomicUsize::new(0);
        move |_| match turn.fetch_add(1, SeqCst) {
            // While the service is updated it answers 410.
            0 => Reply::status(410, "{}"),
            _ => identity_reply(),
        }
    });
    let server = service(|_| signature());
    let mut config = config(&server);
    config.tenant = None;
    config.credential = CredentialConfig::ManagedIdentity {
        identity: Some(UserAssigned::ClientId("the-identity".into())),
    };
    let path = "/metadata/identity/oauth2/token";
    let url = format!("http://{}{path}", metadata.address);
    config.managed_identity = Some(ManagedIdentityEndpoint { url, header: None });
    sign(&vault(&config)).unwrap();
    let asked = &metadata.seen_at(path)[1];
    assert_eq!((asked.method.as_str(), asked.headers["metadata"].as_str()), ("GET", "true"));
    for part in ["resource=https%3A%2F%2Fvault.azure.net", "client_id=the-identity"] {
        assert!(asked.query.contains(part), "{part} in {}", asked.query);
    }
    assert_eq!(server.seen().len(), 1, "no tenant is needed, so no challenge is provoked");
    assert_eq!(server.seen()[0].headers["authorization"], "Bearer identity-token");
}

#[test]
fn a_managed_identity_asks_app_service_with_its_header() {
    let local = Server::plain(|_| identity_reply());
    let server = service(|_| signature());
    let mut config = config(&server);
    let identity = Some(UserAssigned::ResourceId("/subscriptions/s".into()));
    config.credential = CredentialConfig::ManagedIdentity { identity };
    config.managed_identity = Some(ManagedIdentityEndpoint {
        url: format!("http://{}/msi/token", local.address),
        header: Some("the-header".to_owned().into()),
    });
    sign(&vault(&config)).unwrap();
    let asked = &local.seen_at("/msi/token")[0];
    assert_eq!(asked.headers["x-identity-header"], "the-header");
    for part in ["api-version=2019-08-01", "mi_res_id=%2Fsubscriptions%2Fs"] {
        assert!(asked.query.contains(part), "{part} in {}", asked.query);
    }
}

#[test]
fn a_machine_without_the_identity_says_so() {
    let metadata = Server::plain(|_| Reply::status(400, r#"{"error":"invalid_request"}"#));
    let server = service(|_| signature());
    let mut config = config(&server);
    config.credential = CredentialConfig::ManagedIdentity { identity: None };
    config.managed_identity = Some(ManagedIdentityEndpoint {
        url: format!("http://{}/t", metadata.address),
        header: None,
    });
    let error = sign(&vault(&config)).unwrap_err();
    assert_eq!(error.rv(), CKR_USER_NOT_LOGGED_IN);
    assert!(error.sentence().contains("has not been assigned"), "{error}");
}

#[test]
fn the_pin_is_the_client_secret() {
    let server = Server::https(|seen| {
        if !seen.path.ends_with("/token") {
            return signature();
        }
        match form(seen)["client_secret"].as_str() {
            "se:cret" => token_reply("t", 3600),
            _ => Reply::status(
                401,
                r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided.","error_codes":[7000215]}"#,
            ),
        }
    });
    let mut config = config(&server);
    config.credential = CredentialConfig::FromLogin { client_id: Some("app".into()) };
    let vault = vault(&config);
    assert_eq!(sign(&vault).unwrap_err().rv(), CKR_USER_NOT_LOGGED_IN);
    assert_eq!(vault.login(b"wrong").unwrap_err().rv(), CKR_PIN_INCORRECT);
    assert_eq!(vault.login(b"").unwrap_err().rv(), CKR_PIN_INCORRECT);
    assert_eq!(sign(&vault).unwrap_err().rv(), CKR_USER_NOT_LOGGED_IN);
    vault.login(b"se:cret").unwrap();
    sign(&vault).unwrap();
    // A forked child is logged in as its parent was.
    let child = Vault::new(&config, vault.carried()).unwrap();
    sign(&child).unwrap();
    vault.logout();
    assert_eq!(sign(&vault).unwrap_err().rv(), CKR_USER_NOT_LOGGED_IN);

    config.credential = CredentialConfig::FromLogin { client_id: None };
    let vault = vault_of(&config);
    assert_eq!(vault.login(b"alone").unwrap_err().rv(), CKR_PIN_INCORRECT);
    vault.login(b"other-app:se:cret").unwrap();
    assert_eq!(form(token_requests(&server).last().unwrap())["client_id"], "other-app");
}

/// A refresh that was begun for one user is no token for the next.
#[test]
fn a_token_that_comes_after_its_user_has_gone_is_not_used() {
    let issued = AtomicUsize::new(0);
    let server = Server::https(move |seen| {
        if !seen.path.ends_with("/token") {
            return signature();
        }
        match (form(seen)["client_secret"].as_str(), issued.fetch_add(1, SeqCst)) {
            // It is refreshed in its last two seconds.
            ("anna", 0) => token_reply("anna-1", 10),
            ("anna", _) => {
                Reply::Late(Duration::from_millis(1500), Box::new(token_reply("anna-2", 3600)))
            }
            (other, _) => token_reply(other, 3600),
        }
    });
    let mut config = config(&server);
    config.credential = CredentialConfig::FromLogin { client_id: Some("app".into()) };
    let vault = vault(&config);
    vault.login(b"anna").unwrap();
    sign(&vault).unwrap();
    thread::sleep(Duration::from_millis(8100));
    thread::scope(|scope| {
        let refreshing = scope.spawn(|| sign(&vault));
        while token_requests(&server).len() < 2 {
            thread::sleep(Duration::from_millis(5));
        }
        vault.logout();
        assert_eq!(sign(&vault).unwrap_err().rv(), CKR_USER_NOT_LOGGED_IN);
        vault.login(b"berta").unwrap();
        refreshing.join().unwrap().unwrap();
    });
    sign(&vault).unwrap();
    let last = server.seen_at(SIGN_PATH).pop().unwrap();
    assert_eq!(last.headers["authorization"], "Bearer berta");
}

#[test]
fn eight_threads_learn_the_tenant_once_and_a_child_not_again() {
    let server = Server::https(|seen| match seen.headers.get("authorization") {
        _ if seen.path.ends_with("/token") => token_reply("t", 3600),
        None => {
            let challenge = "Bearer authorization=\"https://login.example/the-tenant\"";
            let refused = Reply::status(401, "").with("www-authenticate", challenge);
            Reply::Late(Duration::from_millis(200), Box::new(refused))
        }
        Some(_) => signature(),
    });
    let mut config = config(&server);
    config.tenant = None;
    let parent = vault(&config);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| sign(&parent).unwrap());
        }
    });
    let child = Vault::new(&config, parent.carried()).unwrap();
    sign(&child).unwrap();
    let seen = server.seen();
    let bare = seen.iter().filter(|seen| {
        !seen.headers.contains_key("authorization") && !seen.path.ends_with("/token")
    });
    assert_eq!((bare.count(), token_requests(&server).len()), (1, 1));
}

/// An authority that is away while there is a token left: one call in half a minute looks whether
/// it is back, for a moment, and all go on with the token they have.
#[test]
fn an_authority_that_is_away_for_less_than_the_tokens_life_is_not_noticed() {
    let issued = AtomicUsize::new(0);
    let server = Server::https(move |seen| match seen.path.ends_with("/token") {
        // It is refreshed in its last three seconds, and not used in the last one and a half.
        true => match issued.fetch_add(1, SeqCst) {
            0 => token_reply("first", 15),
            _ => Reply::Silence(Duration::from_secs(20)),
        },
        false => signature(),
    });
    let mut config = config(&server);
    config.timeout = Duration::from_secs(10);
    let parent = vault(&config);
    sign(&parent).unwrap();
    thread::sleep(Duration::from_millis(12_200));
    let slowest = thread::scope(|scope| {
        let calls = (0..8).map(|_| {
            scope.spawn(|| {
                let started = Instant::now();
                sign(&parent).unwrap();
                started.elapsed()
            })
        });
        let mut took: Vec<_> =
            calls.collect::<Vec<_>>().into_iter().map(|c| c.join().unwrap()).collect();
        took.sort();
        assert!(took[6] < Duration::from_millis(900), "one looks, the others go on: {took:?}");
        took[7]
    });
    assert!(slowest < Duration::from_millis(2900), "{slowest:?}");
    assert_eq!(token_requests(&server).len(), 2);
    let used = server.seen_at(SIGN_PATH);
    assert!(used.iter().all(|seen| seen.headers["authorization"] == "Bearer first"));
}
