//! Pages and wide drives.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use akv_pkcs11::vault::{KeyRef, is_not_found};
use cryptoki_sys::CKR_DEVICE_ERROR;

use crate::{config, server::Reply, service, soon, token_requests, vault};

fn page(names: &[&str], next: Option<String>) -> Reply {
    let items: Vec<_> = names
        .iter()
        .map(|name| serde_json::json!({ "kid": format!("https://localhost/keys/{name}") }))
        .collect();
    Reply::json(serde_json::json!({ "value": items, "nextLink": next }))
}

#[test]
fn pages_are_followed_to_the_last_even_through_empty_ones() {
    let port = Arc::new(AtomicUsize::new(0));
    let known = port.clone();
    let server = service(move |seen| {
        let base = format!("https://LOCALHOST:{}/keys", known.load(SeqCst));
        match &seen.query {
            query if query.contains("skiptoken=b") => page(&["three"], None),
            query if query.contains("skiptoken=a") => {
                page(&[], Some(format!("{base}?maxresults=25&$skiptoken=b")))
            }
            _ => page(&["one", "two"], Some(format!("{base}?api-version=7.4&$skiptoken=a"))),
        }
    });
    port.store(server.address.port().into(), SeqCst);
    let keys = vault(&config(&server)).keys(soon()).unwrap();
    let names: Vec<_> = keys.iter().map(|key| key.name_and_version().unwrap().0).collect();
    assert_eq!(names, ["one", "two", "three"]);
    let queries: Vec<_> = server.seen_at("/keys").into_iter().map(|seen| seen.query).collect();
    assert_eq!(queries.len(), 3);
    // A Managed HSM's link has no api-version: it is put there, and never twice.
    assert!(queries.iter().all(|query| query.matches("api-version=7.4").count() == 1));
}

#[test]
fn a_link_to_another_host_or_port_or_without_tls_gets_no_token() {
    for link in [
        "https://evil.example/keys?$skiptoken=a",
        "https://localhost:1/keys",
        "http://localhost/keys",
        "https://user@localhost/keys",
        "not a link",
    ] {
        let server = service(move |_| page(&["one"], Some(link.to_owned())));
        let error = vault(&config(&server)).keys(soon()).unwrap_err();
        assert_eq!(error.rv(), CKR_DEVICE_ERROR, "{link}");
        assert!(error.sentence().contains("not the configured host"), "{error}");
        assert_eq!(server.seen_at("/keys").len(), 1, "{link}");
    }
}

#[test]
fn a_link_in_a_circle_ends() {
    let port = Arc::new(AtomicUsize::new(0));
    let known = port.clone();
    let server = service(move |_| {
        let link = format!("https://localhost:{}/keys?$skiptoken=a", known.load(SeqCst));
        page(&["one"], Some(link))
    });
    port.store(server.address.port().into(), SeqCst);
    let error = vault(&config(&server)).keys(soon()).unwrap_err();
    assert!(error.sentence().contains("back to its own page"), "{error}");
}

fn bundle(path: &str) -> Reply {
    let kid = format!("https://localhost{path}/0f");
    Reply::json(serde_json::json!({ "key": { "kid": kid, "kty": "EC" } }))
}

#[test]
fn many_keys_are_fetched_over_few_connections_and_each_has_its_own_result() {
    let throttled = Mutex::new(HashSet::new());
    let server = service(move |seen| match seen.path.as_str() {
        "/keys/k7" => Reply::status(404, r#"{"error":{"code":"KeyNotFound"}}"#),
        path @ ("/keys/k20" | "/keys/k21") if throttled.lock().unwrap().insert(path.to_owned()) => {
            Reply::status(429, "").with("retry-after-ms", "30")
        }
        path => Reply::Late(Duration::from_millis(2), Box::new(bundle(path))),
    });
    let mut config = config(&server);
    (config.find_width, config.find_rate) = (8, 0);
    let vault = vault(&config);
    let names: Vec<String> = (0..100).map(|number| format!("k{number}")).collect();
    let wanted: Vec<_> = names.iter().map(|name| KeyRef::current(name)).collect();
    let results = vault.fetch_many(&wanted, soon()).unwrap();
    for (name, result) in names.iter().zip(&results) {
        match result {
            Ok(bundle) => assert_eq!(bundle.key.name_and_version().unwrap().0, name),
            Err(error) => assert!(name == "k7" && is_not_found(error), "{name}: {error}"),
        }
    }
    // One more is that of the token request, and the client may open a few that it finds it does
    // not need.
    let ids = server.seen().into_iter().filter(|seen| seen.path.starts_with("/keys/k"));
    let ids: HashSet<_> = ids.map(|seen| seen.headers["x-ms-client-request-id"].clone()).collect();
    assert_eq!(ids.len(), 102, "each request has an id of its own");
    let connections = server.connections();
    assert!(connections <= 16, "{connections} connections");
    assert_eq!(server.seen_at("/keys/k20").len(), 2);
    vault.fetch_many(&wanted, soon()).unwrap();
    assert!(server.connections() <= connections + 4, "the wide lane is kept");
}

#[test]
fn fetching_is_paced() {
    let server = service(|seen| bundle(&seen.path));
    let mut config = config(&server);
    (config.find_width, config.find_rate) = (16, 50);
    let vault = vault(&config);
    let wanted = [KeyRef::current("web"); 26];
    let started = Instant::now();
    let results = vault.fetch_many(&wanted, soon()).unwrap();
    assert!(results.iter().all(Result::is_ok));
    assert!(started.elapsed() >= Duration::from_millis(490), "{:?}", started.elapsed());
}

#[test]
fn a_token_that_expires_midway_is_replaced_for_all() {
    let rejected = AtomicUsize::new(0);
    let server = service(move |seen| match rejected.fetch_add(1, SeqCst) {
        3..6 => Reply::status(401, ""),
        _ => bundle(&seen.path),
    });
    let mut config = config(&server);
    (config.find_width, config.find_rate) = (4, 0);
    let results = vault(&config).fetch_many(&[KeyRef::current("web"); 20], soon()).unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(token_requests(&server).len(), 2);
}

#[test]
fn a_search_ends_at_its_deadline_with_what_it_has() {
    let server = service(|seen| match seen.path.as_str() {
        "/keys/fast" => bundle("/keys/fast"),
        _ => Reply::Silence(Duration::from_secs(3)),
    });
    let vault = vault(&config(&server));
    let started = Instant::now();
    let wanted = [KeyRef::current("fast"), KeyRef::current("slow")];
    let results = vault.fetch_many(&wanted, started + Duration::from_millis(400)).unwrap();
    assert!(results[0].is_ok() && results[1].is_err(), "{results:?}");
    assert!(started.elapsed() < Duration::from_millis(1500));
}

#[test]
fn a_throttled_search_keeps_what_it_has_and_does_not_wait_beyond_its_deadline() {
    let server = service(|seen| match seen.path.as_str() {
        "/keys/first" => bundle("/keys/first"),
        _ => Reply::status(429, "").with("retry-after", "60"),
    });
    let mut config = config(&server);
    config.find_width = 1;
    let wanted = [KeyRef::current("first"), KeyRef::current("second")];
    let started = Instant::now();
    let results = vault(&config).fetch_many(&wanted, soon()).unwrap();
    assert!(results[0].is_ok());
    let status = results[1].as_ref().unwrap_err().remote().unwrap().status;
    assert_eq!(status, 429);
    assert!(started.elapsed() < Duration::from_secs(2));
}
