//! Trouble on order, and the documented limits.

use std::time::{Duration, Instant};

use akv_emulator::config::{Config, Fault, Switches};
use serde_json::{Value, json};

use crate::support::{Answer, Session, World, operation, world, world_with};

fn order(world: &World, fault: Value) {
    let url = format!("{}/faults", world.ready().control);
    let answer = world.http.post(url).json(&fault).send().expect("control");
    assert_eq!(answer.status(), 200);
}

fn sign(session: &Session<'_>) -> Result<Answer, String> {
    let url = format!("{}/keys/k/sign?api-version=7.4", session.url);
    let request = session.world.http.post(url).bearer_auth(session.token.borrow());
    let response = request.json(&operation("ES256", &[1; 32])).send().map_err(|e| e.to_string())?;
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let text = response.text().map_err(|error| format!("body: {error}"))?;
    let json = serde_json::from_str(&text).unwrap_or(Value::Null);
    Ok(Answer { status, headers, text, json })
}

#[test]
fn a_status_comes_as_often_as_ordered() {
    let world = world();
    for (session, label) in [(world.vault(), "vault:kv"), (world.hsm(), "managed-hsm:hsm")] {
        session.create("k", json!({"kty": "EC"}));
        world.reset_counters();
        order(
            &world,
            json!({
                "service": label, "operation": "keys/sign", "skip": 1, "times": 2, "status": 429,
                "code": "Throttled", "retry_after": 3,
            }),
        );
        let got: Vec<u16> = (0..4).map(|_| sign(&session).expect("answer").status).collect();
        assert_eq!(got, [200, 429, 429, 200]);
        // What went wrong was not carried out, and is not counted.
        assert_eq!(world.counters()[label]["keys/sign"], 2);
    }
    let vault = world.vault();
    order(&world, json!({"operation": "keys/sign", "times": 1, "status": 503, "html": true}));
    let answer = sign(&vault).expect("answer");
    assert_eq!((answer.status, answer.text.starts_with("<html>")), (503, true));
    order(&world, json!({"operation": "keys/sign", "times": 1, "status": 429, "retry_after": 7}));
    assert_eq!(sign(&vault).expect("answer").headers["retry-after"], "7");
}

#[test]
fn connections_end_as_ordered() {
    let world = world();
    let vault = world.vault();
    vault.create("k", json!({"kty": "EC"}));
    for (ending, carried_out) in
        [("reset-before", 0), ("reset-after", 1), ("close-after", 1), ("truncate", 1)]
    {
        world.reset_counters();
        order(&world, json!({"operation": "keys/sign", "times": 1, "connection": ending}));
        let error = sign(&vault).err().unwrap_or_else(|| panic!("{ending} was answered"));
        assert_eq!(error.starts_with("body: "), ending == "truncate", "{ending}: {error}");
        let counted = world.counters()["vault:kv"]["keys/sign"].as_u64().unwrap_or_default();
        assert_eq!(counted, carried_out, "{ending}");
        assert_eq!(sign(&vault).expect("afterwards").status, 200);
    }
}

#[test]
fn answers_are_late_slow_or_lead_elsewhere_as_ordered() {
    let world = world();
    let vault = world.vault();
    vault.create("k", json!({"kty": "EC"}));
    vault.create("l", json!({"kty": "EC"}));
    let took = |fault: Value| {
        order(&world, fault);
        let start = Instant::now();
        assert_eq!(sign(&vault).expect("answer").status, 200);
        start.elapsed()
    };
    let late = took(json!({"operation": "keys/sign", "times": 1, "delay_ms": 300}));
    assert!(late >= Duration::from_millis(300), "{late:?}");
    let slow = took(json!({"operation": "keys/sign", "times": 1, "slow_ms": 2}));
    assert!(slow >= Duration::from_millis(200), "{slow:?}");
    order(&world, json!({"operation": "keys/list", "times": 1, "next_link_host": "evil.example"}));
    let page = vault.get("/keys?maxresults=1").ok();
    assert!(page["nextLink"].as_str().expect("link").starts_with("https://evil.example/keys?"));
    order(
        &world,
        json!({
            "operation": "keys/get", "name": "K", "times": 1, "status": 401,
            "challenge": "Bearer authorization=\"https://other.example/t\", resource=\"https://x\"",
        }),
    );
    assert_eq!(vault.get("/keys/l").status, 200);
    let answer = vault.get("/keys/k");
    assert!(answer.headers["www-authenticate"].to_str().expect("text").contains("other.example"));
    order(&world, json!({"operation": "token", "times": 1, "status": 500}));
    assert_eq!(world.ask_token(&[("grant_type", "client_credentials")]).status, 500);
    order(&world, json!({"status": 500}));
    let url = format!("{}/faults", world.ready().control);
    let listed = Answer::read(world.http.get(&url).send().expect("control")).ok();
    assert_eq!(listed[0]["status"], 500);
    assert_eq!(vault.get("/keys/k").status, 500);
    assert_eq!(world.http.delete(&url).send().expect("control").status(), 200);
    assert_eq!(vault.get("/keys/k").status, 200);
    let answer = world.http.post(&url).json(&json!({"colour": 1})).send().expect("control");
    assert_eq!(answer.status(), 400);
}

#[test]
fn the_authority_is_down_or_slow_or_its_tokens_expire_as_ordered() {
    let world = world();
    let vault = world.vault();
    let scope = world.ready().services[0].scope.clone();
    order(&world, json!({"service": "entra", "operation": "token", "times": 1, "delay_ms": 300}));
    let start = Instant::now();
    vault.token.replace(world.token(&scope));
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert_eq!(vault.get("/keys").status, 200);
    order(&world, json!({"operation": "token", "times": 1, "token_lifetime": -1}));
    vault.token.replace(world.token(&scope));
    let expired = vault.get("/keys");
    expired.refused(401, "Unauthorized");
    assert!(expired.message().contains("expired"), "{}", expired.text);
    order(&world, json!({"operation": "token", "times": 1, "token_lifetime": 60}));
    vault.token.replace(world.token(&scope));
    assert_eq!(vault.get("/keys").status, 200);
    world.advance_clock(61);
    vault.get("/keys").refused(401, "Unauthorized");
    vault.token.replace(world.token(&scope));
    assert_eq!(vault.get("/keys").status, 200);
    for ending in ["reset-before", "close-after", "notify-before"] {
        order(&world, json!({"operation": "token", "times": 1, "connection": ending}));
        let ready = world.ready();
        let url = format!("{}/{}/oauth2/v2.0/token", ready.authority, ready.tenant);
        assert!(world.http.post(url).form(&[("grant_type", "x")]).send().is_err(), "{ending}");
    }
    order(&world, json!({"operation": "token", "times": 1, "status": 503, "html": true}));
    let answer = world.ask_token(&[("grant_type", "client_credentials")]);
    assert_eq!((answer.status, answer.text.starts_with("<html>")), (503, true));
}

#[test]
fn a_request_is_sent_elsewhere_as_ordered() {
    let world = world();
    let vault = world.vault();
    let url = "https://evil.example/keys/k";
    order(&world, json!({"operation": "keys/get", "times": 1, "redirect": url}));
    let answer = crate::support::https_without_redirects(&world.ready().ca_file)
        .get(format!("{}/keys/k?api-version=7.4", vault.url))
        .bearer_auth(vault.token.borrow())
        .send()
        .expect("answer");
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["location"]),
        (307, &url.parse().expect("header"))
    );
    order(&world, json!({"operation": "keys/get", "times": 1, "status": 302, "redirect": url}));
    let answer = crate::support::https_without_redirects(&world.ready().ca_file)
        .get(format!("{}/keys/k?api-version=7.4", vault.url))
        .send()
        .expect("answer");
    assert_eq!(answer.status().as_u16(), 302);
}

/// Every member of an order is one of the configuration file, too.
#[test]
fn the_documented_orders_are_a_configuration() {
    let text = r#"
        [[fault]]
        service = "vault:kv"
        operation = "keys/list"
        name = ""
        skip = 1
        times = 1
        delay_ms = 1
        status = 503
        code = "Busy"
        retry_after = 2
        html = true
        challenge = "Bearer x"
        slow_ms = 0
        [[fault]]
        operation = "keys/get"
        times = 1
        redirect = "https://evil.example/"
        [[fault]]
        operation = "handshake"
        skip = 3
        times = 1
        connection = "handshake-failure"
        [[fault]]
        operation = "dns"
        times = 1
        dns = "192.0.2.1"
        [[fault]]
        operation = "imds"
        times = 1
        token_lifetime = -5
        [[fault]]
        operation = "keys/list"
        times = 1
        next_link_host = "evil.example"
    "#;
    let config: Config = toml::from_str(text).expect("configuration");
    let world = world_with(config, Vec::new());
    let url = format!("{}/faults", world.ready().control);
    let listed: Value = world.http.get(&url).send().expect("control").json().expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(6));
    let vault = world.vault();
    assert_eq!(vault.get("/keys").status, 200);
    let answer = vault.get("/keys");
    assert_eq!(
        (answer.status, &answer.headers["retry-after"]),
        (503, &"2".parse().expect("header"))
    );
    assert_eq!(vault.get("/keys").status, 200);
}

#[test]
fn faults_may_be_configured() {
    let fault =
        Fault { operation: Some("keys/list".into()), status: Some(500), ..Fault::default() };
    let world = world_with(Config { fault: vec![fault], ..Config::default() }, Vec::new());
    assert_eq!(world.vault().get("/keys").status, 500);
    assert_eq!(world.hsm().get("/keys").status, 500);
}

#[test]
fn a_vault_throttles_and_an_hsm_does_not() {
    for retry_after in [None, Some(4)] {
        let switches = Switches { throttle: true, retry_after, ..Switches::default() };
        let world = world_with(Config { switches, ..Config::default() }, Vec::new());
        let vault = world.vault();
        world.stop_clock();
        let mut refused = None;
        for at in 0..30 {
            let answer = vault.post(&format!("/keys/k{at}/create"), json!({"kty": "EC"}));
            if answer.status != 200 {
                refused = Some(answer);
                break;
            }
        }
        let refused = refused.expect("more than twenty creations in ten seconds");
        refused.refused(429, "Throttled");
        assert!(refused.message().ends_with("Reason: VaultRequestTypeLimitReached"));
        let header = refused.headers.get("retry-after").and_then(|value| value.to_str().ok());
        assert_eq!(header, retry_after.map(|_| "4"));
        world.advance_clock(10);
        vault.create("later", json!({"kty": "EC"}));
        let hsm = world.hsm();
        for at in 0..25 {
            hsm.create(&format!("k{at}"), json!({"kty": "EC"}));
        }
    }
}
