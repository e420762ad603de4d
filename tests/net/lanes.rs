//! Connections: reuse, limits, deadlines, trust.

use std::{
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use akv_pkcs11::{
    net::{Net, NetError, Request, Surroundings},
    vault::{Carried, Vault},
};
use akv_wire::KeyCreateParameters;
use cryptoki_sys::{CKR_DEVICE_ERROR, CKR_GENERAL_ERROR};
use reqwest::{Method, Url};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::{
    SIGN_PATH, config,
    server::{Reply, Server},
    service, sign, signature, soon, vault,
};

fn get(server: &Server) -> Request {
    let url = format!("https://localhost:{}/x", server.address.port());
    Request::new(Method::GET, &Url::parse(&url).unwrap())
}

#[test]
fn calls_in_a_row_share_one_connection() {
    let server = service(|_| signature());
    let vault = vault(&config(&server));
    for _ in 0..20 {
        sign(&vault).unwrap();
    }
    // One for the token, which is closed at once, and one for all signatures.
    assert_eq!(server.connections(), 2);
}

/// On a connection that dies with it nobody could tell whether it was carried out.
#[test]
fn what_must_not_be_repeated_goes_over_a_connection_of_its_own() {
    let server = service(|seen| match seen.path.ends_with("/create") {
        true => Reply::json(r#"{"key":{"kid":"https://localhost/keys/new/1","kty":"EC"}}"#),
        false => signature(),
    });
    let vault = vault(&config(&server));
    sign(&vault).unwrap();
    assert_eq!(server.connections(), 2, "one for the token, one for the signature");
    vault.create_key("new", &KeyCreateParameters::default()).unwrap();
    assert_eq!(server.seen_at("/keys/new/create")[0].turn, 0);
    assert_eq!(server.connections(), 3);
    sign(&vault).unwrap();
    assert_eq!(server.connections(), 3, "which is used again");
}

#[test]
fn a_connection_closed_while_idle_is_replaced_before_anything_is_sent() {
    let server = service(|_| Reply::ThenClose(Box::new(signature())));
    let vault = vault(&config(&server));
    for round in 0..10 {
        sign(&vault).unwrap_or_else(|error| panic!("round {round}: {error}"));
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(server.seen_at(crate::SIGN_PATH).len(), 10, "nothing was sent twice");
}

#[test]
fn no_more_connections_than_allowed_and_waiting_ends_at_the_deadline() {
    let pause = Duration::from_millis(60);
    let server = Server::https(move |_| Reply::Late(pause, Box::new(Reply::json("{}"))));
    let mut config = config(&server);
    config.max_connections = 2;
    let net = Net::new(&config, Arc::default()).unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(net.send(&get(&server), soon()).unwrap().status, 200));
        }
    });
    assert_eq!(server.connections(), 2);
    let silent = Server::https(|_| Reply::Silence(Duration::from_millis(800)));
    let mut config = crate::config(&silent);
    config.max_connections = 1;
    let net = Net::new(&config, Arc::default()).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| net.send(&get(&silent), Instant::now() + Duration::from_millis(600)));
        thread::sleep(Duration::from_millis(200));
        let asked = Instant::now();
        let refused = net.send(&get(&silent), asked + Duration::from_millis(150)).unwrap_err();
        assert_eq!(refused, NetError::Busy);
        assert!(asked.elapsed() < Duration::from_millis(400));
    });
}

#[test]
fn a_silent_server_cannot_hold_a_caller_beyond_the_deadline() {
    let server = service(|_| Reply::Silence(Duration::from_secs(3)));
    let mut config = config(&server);
    config.timeout = Duration::from_millis(500);
    let vault = vault(&config);
    let started = Instant::now();
    let error = sign(&vault).unwrap_err();
    assert_eq!(error.rv(), CKR_DEVICE_ERROR);
    assert!(error.sentence().contains("no answer within the deadline"), "{error}");
    assert!(started.elapsed() < Duration::from_millis(1200), "{:?}", started.elapsed());
}

/// Bytes that never stop coming are as good as none.
#[test]
fn a_server_that_never_stops_sending_cannot_hold_a_caller_beyond_the_deadline() {
    let crumbs = format!("1;x={}\r\nx\r\n", "y".repeat(900));
    let chunked = "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n";
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".to_owned();
    for (start, again, wanted) in [
        (chunked, crumbs, NetError::Timeout),
        ("", interim, NetError::Lost("interim answers without end".into())),
    ] {
        let server = Server::https(move |_| Reply::Forever(start, again.clone()));
        let net = Net::new(&config(&server), Arc::default()).unwrap();
        let started = Instant::now();
        let error = net.send(&get(&server), started + Duration::from_millis(600)).unwrap_err();
        assert_eq!(error, wanted);
        assert!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());
    }
}

/// Whose time was over decides what an operator changes.
#[test]
fn a_connection_that_the_calls_deadline_ends_is_told_so() {
    let server = service(|_| signature());
    let _silent = full_listener(server.address.port());
    let surroundings =
        Surroundings { hosts: b"127.0.0.2 localhost\n".to_vec(), ..Surroundings::default() };
    let net = Net::new(&config(&server), Arc::new(surroundings)).unwrap();
    let error = net.send(&get(&server), Instant::now() + Duration::from_millis(200)).unwrap_err();
    assert_eq!(error, NetError::Connect("no connection within the call's deadline".into()));
    assert!(error.unsent());
}

#[test]
fn a_certificate_of_another_authority_is_refused_with_advice() {
    let (server, other) = (service(|_| signature()), service(|_| signature()));
    let mut config = config(&server);
    config.ca = Some(other.ca);
    config.tenant = None;
    let error = sign(&vault(&config)).unwrap_err();
    assert_eq!(error.rv(), CKR_DEVICE_ERROR);
    assert!(error.sentence().contains("not trusted: "), "{error}");
    assert!(error.sentence().contains("`ca_file`"), "{error}");
    assert!(server.seen().is_empty());
}

#[test]
fn redirects_are_not_followed() {
    let server = service(|seen| match seen.path.as_str() {
        "/elsewhere" => signature(),
        _ => Reply::status(307, "").with("location", "/elsewhere"),
    });
    let error = sign(&vault(&config(&server))).unwrap_err();
    assert_eq!((error.rv(), error.remote().unwrap().status), (CKR_DEVICE_ERROR, 307));
    assert!(server.seen_at("/elsewhere").is_empty());
}

#[test]
fn an_answer_without_end_is_not_read_to_its_end() {
    let server = Server::https(|_| Reply::json("x".repeat(akv_pkcs11::net::MAX_BODY + 1)));
    let net = Net::new(&config(&server), Arc::default()).unwrap();
    assert_eq!(net.send(&get(&server), soon()).unwrap_err(), NetError::TooLong);
}

#[test]
fn nobody_listens() {
    let server = service(|_| signature());
    let mut config = config(&server);
    // A port that was free a moment ago.
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    config.endpoint.port = unused.port();
    config.connect_timeout = Duration::from_secs(1);
    let started = Instant::now();
    let error = sign(&vault(&config)).unwrap_err();
    assert_eq!(error.rv(), CKR_DEVICE_ERROR);
    assert!(error.sentence().contains("Connection refused"), "{error}");
    let took = started.elapsed();
    assert!(took >= config.connect_timeout, "longer than a restart takes: {took:?}");
    assert!(took < Duration::from_secs(4), "not for the whole deadline: {took:?}");
}

#[test]
fn a_name_that_does_not_exist_is_told_at_once() {
    let server = service(|_| signature());
    let mut config = config(&server);
    config.endpoint.host = "nobody.invalid".into();
    // The hosts file and the DNS of this machine do not matter: there is no server at all.
    let error = sign(&vault(&config)).unwrap_err();
    assert_eq!(error.rv(), CKR_DEVICE_ERROR);
    assert!(error.sentence().contains("DNS: "), "{error}");
}

/// Runs a test again as the root of a user and network namespace of its own.
fn in_a_namespace(test: &str) {
    let mark = "AKV_TEST_NAMESPACE";
    assert!(std::env::var_os(mark).is_none(), "not even there");
    let output = std::process::Command::new("unshare")
        .args(["--map-root-user", "--net", "sh", "-c"])
        .arg("ip link set lo up && exec \"$0\" --exact \"$1\"")
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(mark, "1")
        .output()
        .expect("unshare (util-linux)");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "run this as root, or allow user namespaces: {text}"
    );
}

/// A resolver that says nothing costs no call more than its deadline, and is named. The service is
/// asked for nothing; the token's host is known.
#[test]
fn a_silent_name_server_is_told_in_time() {
    // resolv.conf(5) knows no ports: it has to be that of DNS, which is root's.
    let silence = "127.0.0.77";
    let Ok(_silent) = std::net::UdpSocket::bind((silence, 53)) else {
        return in_a_namespace("lanes::a_silent_name_server_is_told_in_time");
    };
    let server = service(|_| signature());
    for (timeout, connect) in [(700, 3000), (5000, 300)] {
        let mut config = config(&server);
        config.endpoint.host = "silent.example".into();
        config.timeout = Duration::from_millis(timeout);
        config.connect_timeout = Duration::from_millis(connect);
        let surroundings = Surroundings {
            resolv_conf: format!("nameserver {silence}\noptions attempts:1\n").into_bytes(),
            ..Surroundings::default()
        };
        let vault = Vault::new(&config, Carried::from(Arc::new(surroundings))).unwrap();
        let started = Instant::now();
        let error = sign(&vault).unwrap_err();
        let took = started.elapsed();
        assert_eq!(error.rv(), CKR_DEVICE_ERROR);
        let sentence = error.sentence();
        assert!(sentence.contains("DNS: ") && sentence.contains("silent.example"), "{sentence}");
        // One attempt where the deadline allows no more; five, and the pauses between them, where the
        // name is given up sooner.
        let given_up = 5 * connect + 1800;
        assert!(took < Duration::from_millis(timeout.min(given_up) + 600), "{took:?}");
        assert!(server.seen_at(SIGN_PATH).is_empty());
    }
}

#[test]
fn a_thread_of_an_asynchronous_runtime_needs_a_token_from_elsewhere() {
    let server = service(|_| signature());
    let vault = vault(&config(&server));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let error = runtime.block_on(async { sign(&vault) }).unwrap_err();
    assert_eq!(error.rv(), CKR_GENERAL_ERROR);
    assert!(server.seen().is_empty());
    sign(&vault).unwrap();
    // Only the token request needs a runtime of its own.
    runtime.block_on(async { sign(&vault) }).unwrap();
}

#[test]
fn an_address_that_is_silent_does_not_hold_up_the_next() {
    let server = Server::https(|_| Reply::json("{}"));
    // One connection fills its queue, and it answers no more.
    let silent = full_listener(server.address.port());
    let surroundings = Surroundings {
        hosts: b"127.0.0.2 localhost\n127.0.0.1 localhost\n".to_vec(),
        ..Surroundings::default()
    };
    let mut config = config(&server);
    config.connect_timeout = Duration::from_secs(4);
    let net = Net::new(&config, Arc::new(surroundings)).unwrap();
    let started = Instant::now();
    assert_eq!(net.send(&get(&server), soon()).unwrap().status, 200);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    // Alone it is a matter of the connect limit, which is told.
    let surroundings =
        Surroundings { hosts: b"127.0.0.2 localhost\n".to_vec(), ..Surroundings::default() };
    config.connect_timeout = Duration::from_millis(300);
    let net = Net::new(&config, Arc::new(surroundings)).unwrap();
    let error = net.send(&get(&server), soon()).unwrap_err();
    assert_eq!(error, NetError::Connect("no connection within 300ms".into()));
    drop(silent);
}

/// A socket on 127.0.0.2 that listens and whose queue is full: connecting to it hangs.
fn full_listener(port: u16) -> (OwnedFd, Vec<OwnedFd>) {
    let address = SocketAddr::from(([127, 0, 0, 2], port));
    let socket = |flags| {
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap()
    };
    let listener = socket(SocketFlags::CLOEXEC);
    rustix::net::bind(&listener, &address).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let waiting = (0..4).map(|_| {
        let waiting = socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
        let _ = rustix::net::connect(&waiting, &address);
        waiting
    });
    let waiting = waiting.collect();
    (listener, waiting)
}

#[test]
fn a_configured_proxy_is_asked_for_a_tunnel() {
    let proxy = Server::plain(|_| Reply::status(403, "not here"));
    let server = service(|_| signature());
    let mut config = config(&server);
    config.proxy = Some(format!("http://{}", proxy.address));
    config.timeout = Duration::from_millis(500);
    let error = sign(&vault(&config)).unwrap_err();
    assert_eq!(error.rv(), CKR_DEVICE_ERROR);
    let asked = &proxy.seen()[0];
    let target = format!("localhost:{}", server.address.port());
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("CONNECT", target.as_str()));
    assert!(server.seen().is_empty());
}
