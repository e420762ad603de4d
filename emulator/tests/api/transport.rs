//! Trouble below HTTP: TLS handshakes and goodbyes, names, idle connections; and HTTP/2.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use akv_emulator::config::{Config, Switches};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

use crate::support::{World, world, world_with};

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn tls(world: &World, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(&world.ready().ca_file).expect("CA");
    roots.add(ca).expect("root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// A TLS connection of this test's own to a service; the error is that of the handshake.
fn connect(world: &World, service: usize) -> std::io::Result<Stream> {
    let port = world.ready().services[service].port;
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    let name = ServerName::try_from("localhost").expect("name");
    let connection = ClientConnection::new(tls(world, &[]), name).expect("TLS");
    let mut stream = StreamOwned::new(connection, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// Sends a request that needs no token and reads to the end of the connection.
fn ask(stream: &mut Stream) -> (String, std::io::Result<usize>) {
    let request = "GET /keys/k?api-version=7.4 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("write");
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer);
    (String::from_utf8_lossy(&answer).into_owned(), end)
}

fn order(world: &World, fault: Value) {
    let url = format!("{}/faults", world.ready().control);
    let answer = world.http.post(url).json(&fault).send().expect("control");
    assert_eq!(answer.status(), 200, "{fault}");
}

#[test]
fn a_connection_ends_with_or_without_a_word() {
    let world = world();
    for (ending, counted, expected) in [
        ("reset-before", false, Err(ErrorKind::ConnectionReset)),
        ("reset-after", true, Err(ErrorKind::ConnectionReset)),
        ("close-before", false, Err(ErrorKind::UnexpectedEof)),
        ("close-after", true, Err(ErrorKind::UnexpectedEof)),
        // Only after TLS said goodbye, the end is a proper one.
        ("notify-before", false, Ok(0)),
        ("notify-after", true, Ok(0)),
    ] {
        world.reset_counters();
        order(&world, json!({"operation": "keys/get", "times": 1, "connection": ending}));
        let mut stream = connect(&world, 0).expect("handshake");
        let (answer, end) = ask(&mut stream);
        assert_eq!(answer, "", "{ending}");
        assert_eq!(end.map_err(|error| error.kind()), expected, "{ending}");
        assert_eq!(world.counters()["vault:kv"]["requests"] == 1, counted, "{ending}");
    }
}

#[test]
fn a_handshake_goes_wrong_as_ordered() {
    let world = world();
    let shake = |service| connect(&world, service).map(drop);
    for (connection, words) in [
        ("handshake-failure", "HandshakeFailure"),
        ("expired-certificate", "certificate expired"),
        ("reset-before", "reset by peer"),
        ("close-before", ""),
    ] {
        order(
            &world,
            json!({
                "service": "vault:kv", "operation": "handshake", "skip": 1, "times": 1,
                "connection": connection,
            }),
        );
        shake(1).expect("the HSM's");
        shake(0).expect("the first");
        let error = shake(0).expect_err(connection).to_string();
        assert!(error.contains(words), "{connection}: {error}");
        shake(0).expect("the third");
    }
    order(&world, json!({"operation": "handshake", "times": 1, "delay_ms": 300}));
    let start = Instant::now();
    shake(0).expect("late");
    assert!(start.elapsed() >= Duration::from_millis(300));
    // Orders that name no operation are none for handshakes; what cannot happen is refused.
    order(&world, json!({"times": 1, "connection": "reset-before"}));
    shake(0).expect("handshake");
    let url = format!("{}/faults", world.ready().control);
    let listed: Value = world.http.get(&url).send().expect("control").json().expect("JSON");
    assert_eq!(listed[0]["times"], 1, "it is still to come");
    for bad in [
        json!({"operation": "keys/get", "connection": "expired-certificate"}),
        json!({"operation": "handshake", "status": 500}),
        json!({"operation": "dns", "connection": "reset-before"}),
    ] {
        let answer = world.http.post(&url).json(&bad).send().expect("control");
        assert_eq!(answer.status(), 400, "{bad}");
    }
}

#[test]
fn an_idle_connection_is_closed_in_time() {
    assert_eq!(Switches::default().idle_timeout, 240);
    let switches = Switches { idle_timeout: 1, ..Switches::default() };
    let world = world_with(Config { switches, ..Config::default() }, Vec::new());
    let mut stream = connect(&world, 0).expect("handshake");
    let start = Instant::now();
    let (answer, _) = ask(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let waited = start.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_secs(10)).contains(&waited), "{waited:?}");
}

#[test]
fn http_2_is_spoken_with_those_who_ask_for_it() {
    for http2 in [true, false] {
        let switches = Switches { vault_http2: http2, hsm_http2: http2, ..Switches::default() };
        let world = world_with(Config { switches, ..Config::default() }, Vec::new());
        let config = tls(&world, &[b"h2", b"http/1.1"]);
        for service in &world.ready().services {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("runtime").block_on(async {
                let address = (Ipv4Addr::LOCALHOST, service.port);
                let socket = tokio::net::TcpStream::connect(address).await.expect("connect");
                let name = ServerName::try_from("localhost").expect("name");
                let connector = tokio_rustls::TlsConnector::from(Arc::clone(&config));
                let stream = connector.connect(name, socket).await.expect("handshake");
                let chosen = stream.get_ref().1.alpn_protocol().expect("ALPN").to_vec();
                assert_eq!(chosen, if http2 { &b"h2"[..] } else { b"http/1.1" });
                if !http2 {
                    return;
                }
                let io = hyper_util::rt::TokioIo::new(stream);
                let executor = hyper_util::rt::TokioExecutor::new();
                let (mut sender, connection) =
                    hyper::client::conn::http2::handshake(executor, io).await.expect("HTTP/2");
                tokio::spawn(connection);
                let token = world.token_in(&service.scope).await;
                for (token, status) in [(None, 401), (Some(token), 200)] {
                    let mut request = hyper::Request::get(format!(
                        "https://localhost:{}/keys?api-version=7.4",
                        service.port
                    ));
                    if let Some(token) = token {
                        request = request.header("authorization", format!("Bearer {token}"));
                    }
                    let request = request.body(http_body_util::Empty::<&[u8]>::new());
                    let answer = sender.send_request(request.expect("request")).await;
                    assert_eq!(answer.expect("answer").status(), status);
                }
            });
        }
    }
}

/// One question to the name server; nothing where it stays silent.
fn resolve(server: SocketAddr, host: &str, kind: RecordType, tcp: bool) -> Option<Message> {
    let name = Name::from_ascii(format!("{host}.")).expect("name");
    let mut query = Message::new(4711, MessageType::Query, OpCode::Query);
    query.add_query(Query::query(name, kind));
    let query = query.to_vec().expect("query");
    let mut answer = vec![0; 4096];
    if tcp {
        let mut stream = TcpStream::connect(server).expect("TCP");
        stream.write_all(&(query.len() as u16).to_be_bytes()).expect("length");
        stream.write_all(&query).expect("query");
        let mut length = [0; 2];
        stream.read_exact(&mut length).expect("length");
        answer.truncate(u16::from_be_bytes(length).into());
        stream.read_exact(&mut answer).expect("answer");
    } else {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("UDP");
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("limit");
        socket.send_to(&query, server).expect("send");
        let (length, _) = socket.recv_from(&mut answer).ok()?;
        answer.truncate(length);
    }
    let message = Message::from_vec(&answer).expect("message");
    assert_eq!((message.metadata.id, message.metadata.message_type), (4711, MessageType::Response));
    Some(message)
}

fn addresses(message: &Message) -> Vec<IpAddr> {
    let address = |data: &RData| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    message.answers.iter().filter_map(|record| address(&record.data)).collect()
}

#[test]
fn the_name_server_knows_the_services_and_nobody_else() {
    let switches = Switches { dns_ttl: 7, ..Switches::default() };
    let world = world_with(Config { switches, ..Config::default() }, Vec::new());
    let server = world.ready().dns;
    for host in ["kv.vault.azure.net", "HSM.managedhsm.azure.net", "login.microsoftonline.com"] {
        for tcp in [false, true] {
            let answer = resolve(server, host, RecordType::A, tcp).expect("answer");
            assert_eq!(addresses(&answer), [IpAddr::V4(Ipv4Addr::LOCALHOST)], "{host}");
            assert_eq!(answer.answers[0].ttl, 7);
            let answer = resolve(server, host, RecordType::AAAA, tcp).expect("answer");
            assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
            assert!(answer.answers.is_empty());
        }
    }
    let answer = resolve(server, "other.vault.azure.net", RecordType::A, false).expect("answer");
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(world.counters()["dns"], json!({"requests": 13, "A": 7, "AAAA": 6}));
    UdpSocket::bind("127.0.0.1:0").expect("UDP").send_to(b"nonsense", server).expect("send");
    assert!(resolve(server, "kv.vault.azure.net", RecordType::A, false).is_some());
}

#[test]
fn names_are_silent_or_changed_as_ordered() {
    let world = world();
    let server = world.ready().dns;
    let host = "kv.vault.azure.net";
    let ask = |kind| resolve(server, host, kind, false);
    let ordered = |dns: &str| {
        order(&world, json!({"operation": "dns", "name": host, "times": 1, "dns": dns}));
        // Another name is not concerned.
        let other = resolve(server, "hsm.managedhsm.azure.net", RecordType::A, false);
        assert_eq!(addresses(&other.expect("answer")).len(), 1, "{dns}");
        ask(RecordType::A)
    };
    assert!(ordered("silent").is_none());
    for (dns, code) in [
        ("nx-domain", ResponseCode::NXDomain),
        ("serv-fail", ResponseCode::ServFail),
        ("refused", ResponseCode::Refused),
        ("no-data", ResponseCode::NoError),
    ] {
        let answer = ordered(dns).expect("answer");
        assert_eq!(answer.metadata.response_code, code, "{dns}");
        assert!(answer.answers.is_empty() && !answer.metadata.truncation, "{dns}");
    }
    let answer = ordered("192.0.2.7").expect("answer");
    assert_eq!(addresses(&answer), [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7))]);
    order(&world, json!({"operation": "dns", "times": 1, "dns": "::1"}));
    let answer = ask(RecordType::AAAA).expect("answer");
    assert_eq!(addresses(&answer), [IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    order(&world, json!({"operation": "dns", "times": 2, "dns": "truncated"}));
    let answer = ask(RecordType::A).expect("answer");
    assert!(answer.metadata.truncation && answer.answers.is_empty());
    let answer = resolve(server, host, RecordType::A, true).expect("answer");
    assert_eq!(addresses(&answer), [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    order(&world, json!({"operation": "dns", "times": 1, "delay_ms": 300}));
    let start = Instant::now();
    assert!(ask(RecordType::A).is_some() && start.elapsed() >= Duration::from_millis(300));
    assert_eq!(addresses(&ask(RecordType::A).expect("answer")).len(), 1);
}
