//! What is sent again, what never is, and when.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use akv_pkcs11::vault::{KeyRef, is_conflict, is_lost_answer};
use akv_wire::{EncryptionAlgorithm, KeyCreateParameters};
use cryptoki_sys::{
    CKR_DEVICE_ERROR, CKR_ENCRYPTED_DATA_INVALID, CKR_KEY_FUNCTION_NOT_PERMITTED,
    CKR_USER_NOT_LOGGED_IN,
};

use crate::{
    SIGN_PATH, config,
    server::{Reply, Server},
    service, sign, signature, token_reply, token_requests, vault,
};

/// Answers in turn, the last one for ever.
fn in_turn(replies: Vec<fn() -> Reply>) -> impl Fn(&crate::server::Seen) -> Reply + Send + Sync {
    let turn = AtomicUsize::new(0);
    move |_| replies[turn.fetch_add(1, SeqCst).min(replies.len() - 1)]()
}

#[test]
fn throttling_is_waited_out_as_long_as_the_service_asks() {
    let server = service(in_turn(vec![
        || Reply::status(429, "").with("retry-after", "1"),
        || Reply::status(503, "").with("x-ms-retry-after-ms", "50"),
        signature,
    ]));
    let vault = vault(&config(&server));
    let started = Instant::now();
    assert_eq!(sign(&vault).unwrap(), b"signature");
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(1050) && took < Duration::from_secs(3), "{took:?}");
    assert_eq!(server.seen_at(SIGN_PATH).len(), 3);
}

#[test]
fn a_pause_beyond_the_deadline_is_not_waited_for_and_holds_for_all_threads() {
    let server = service(|_| Reply::status(429, "").with("retry-after", "60"));
    let vault = vault(&config(&server));
    let started = Instant::now();
    let error = sign(&vault).unwrap_err();
    assert_eq!((error.rv(), error.remote().unwrap().status), (CKR_DEVICE_ERROR, 429));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let error = sign(&vault).unwrap_err();
                assert!(error.sentence().contains("asked this process to pause"), "{error}");
            });
        }
    });
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(server.seen_at(SIGN_PATH).len(), 1, "nobody asks during the pause");
}

#[test]
fn a_connection_that_breaks_is_replaced_and_the_request_repeated() {
    let server = service(in_turn(vec![|| Reply::Close, || Reply::CutOff, signature]));
    assert_eq!(sign(&vault(&config(&server))).unwrap(), b"signature");
    assert_eq!(server.seen_at(SIGN_PATH).len(), 3);
}

#[test]
fn an_answer_may_come_in_chunks() {
    let server = service(|_| Reply::Chunked(r#"{"kid":"k","value":"c2lnbmF0dXJl"}"#.into()));
    let vault = vault(&config(&server));
    assert_eq!(sign(&vault).unwrap(), b"signature");
    assert_eq!(sign(&vault).unwrap(), b"signature");
    // That of the token, and one that is used again.
    assert_eq!(server.connections(), 2);
}

#[test]
fn creating_is_never_sent_twice_and_a_lost_answer_is_told_apart() {
    for (reply, lost) in [
        ((|| Reply::Close) as fn() -> Reply, true),
        (|| Reply::CutOff, true),
        (|| Reply::json("<html>portal</html>"), true),
        (|| Reply::status(500, ""), true),
        (|| Reply::status(504, "<html>gateway</html>"), true),
        (|| Reply::status(409, r#"{"error":{"code":"Conflict"}}"#), false),
    ] {
        let server = service(in_turn(vec![reply]));
        let error =
            vault(&config(&server)).create_key("new", &KeyCreateParameters::default()).unwrap_err();
        assert_eq!(is_lost_answer(&error), lost, "{error}");
        assert_eq!(is_conflict(&error), !lost, "{error}");
        assert_eq!(server.seen_at("/keys/new/create").len(), 1, "{error}");
    }
}

#[test]
fn creating_is_repeated_when_it_was_refused_for_throttling() {
    let server =
        service(in_turn(vec![|| Reply::status(429, "").with("retry-after-ms", "10"), || {
            Reply::json(r#"{"key":{"kid":"https://localhost/keys/new/1","kty":"EC"}}"#)
        }]));
    let vault = vault(&config(&server));
    let made = vault.create_key("new", &KeyCreateParameters::default()).unwrap();
    assert_eq!(made.key.kty.as_deref(), Some("EC"));
}

#[test]
fn a_rejected_token_is_replaced_once() {
    let issued = AtomicUsize::new(0);
    let server = Server::https(move |seen| match seen.path.ends_with("/token") {
        true => token_reply(&format!("token-{}", issued.fetch_add(1, SeqCst)), 3600),
        false if seen.headers["authorization"] == "Bearer token-0" => {
            Reply::status(401, "").with("www-authenticate", "Bearer error=\"insufficient_claims\"")
        }
        false => signature(),
    });
    let vault = vault(&config(&server));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(sign(&vault).unwrap(), b"signature"));
        }
    });
    assert_eq!(token_requests(&server).len(), 2, "the rejected threads share one new token");
}

#[test]
fn a_service_that_takes_no_token_is_asked_twice_and_not_for_ever() {
    let server = service(|_| Reply::status(401, ""));
    let error = sign(&vault(&config(&server))).unwrap_err();
    assert_eq!(error.rv(), CKR_USER_NOT_LOGGED_IN);
    assert_eq!(server.seen_at(SIGN_PATH).len(), 2);
}

#[test]
fn a_refusal_is_final_and_names_the_permission() {
    let server = service(|_| {
        let body = r#"{"error":{"code":"Forbidden","message":"Caller is not authorized.\r\n",
            "innererror":{"code":"ForbiddenByRbac"}}}"#;
        Reply::status(403, body).with("x-ms-request-id", "the-request")
    });
    let error = sign(&vault(&config(&server))).unwrap_err();
    assert_eq!(error.rv(), CKR_KEY_FUNCTION_NOT_PERMITTED);
    let text = error.to_string();
    for part in ["web/0f", "keys/sign/action", "ForbiddenByRbac", "the-request"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(server.seen_at(SIGN_PATH).len(), 1);
}

#[test]
fn bodies_that_are_no_json_break_nothing() {
    for (status, body) in [
        (200, "<html>portal</html>"),
        (200, ""),
        (200, r#"{"value":7}"#),
        (400, "<html>Bad Request</html>"),
        (403, "\u{0}\u{1}"),
    ] {
        let server = service(move |_| Reply::status(status, body));
        let error = sign(&vault(&config(&server))).unwrap_err();
        assert!(error.sentence().starts_with("sign with key web/0f: "), "{error}");
        assert_eq!(server.seen_at(SIGN_PATH).len(), 1, "{status} {body}");
    }
}

#[test]
fn decryption_failures_look_alike() {
    let texts: Vec<String> = [
        r#"{"error":{"code":"BadParameter","message":"The parameter is incorrect (padding)."}}"#,
        "other",
    ]
    .into_iter()
    .map(|body| {
        let server = service(move |_| Reply::status(400, body).with("x-ms-request-id", body.len()));
        let vault = vault(&config(&server));
        let input = akv_pkcs11::vault::Cipher { value: &[1; 256], ..Default::default() };
        let key = KeyRef::version("web", "0f");
        let error = vault.decrypt(key, EncryptionAlgorithm::Rsa15, &input).unwrap_err();
        assert_eq!(error.rv(), CKR_ENCRYPTED_DATA_INVALID);
        format!("{error:?}")
    })
    .collect();
    assert_eq!(texts[0], texts[1]);
}

/// One hears that the service wants a pause; sixty-three who come during it do not ask at all, and
/// afterwards they do not all come in the same instant.
#[test]
fn a_pause_that_one_was_asked_for_holds_back_sixty_four() {
    const CALLERS: usize = 64;
    const PAUSE: Duration = Duration::from_millis(800);
    for status in [429, 503] {
        let times: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let seen = Arc::clone(&times);
        let server = service(move |_| {
            let mut seen = seen.lock().unwrap();
            seen.push(Instant::now());
            match seen.len() {
                1 => Reply::status(status, "").with("retry-after-ms", PAUSE.as_millis()),
                _ => signature(),
            }
        });
        let vault = vault(&config(&server));
        thread::scope(|scope| {
            let sign_once = || assert_eq!(sign(&vault).unwrap(), b"signature");
            scope.spawn(sign_once);
            while times.lock().unwrap().is_empty() {
                thread::sleep(Duration::from_millis(1));
            }
            // Its answer is on its way.
            thread::sleep(Duration::from_millis(150));
            for _ in 1..CALLERS {
                scope.spawn(sign_once);
            }
        });
        let times = times.lock().unwrap();
        assert_eq!(times.len(), 1 + CALLERS, "{status}: nobody asks in vain but the first");
        let after: Vec<Duration> = times[1..].iter().map(|at| *at - times[0]).collect();
        let (first, last) = (after.iter().min().unwrap(), after.iter().max().unwrap());
        assert!(*first >= PAUSE, "{status}: {first:?}");
        assert!(*last - *first > Duration::from_millis(20), "{status}: {first:?} to {last:?}");
    }
}
