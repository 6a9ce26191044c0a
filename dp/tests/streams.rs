//! TCP and TLS streams: which service they reach, how they end, and what is said of them.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::dns::Dns;
use common::secure::*;
use common::*;
use serde_json::{Value, json};
use sluice_dp::access_log::{Destination, Format, Settings};
use sluice_dp::proxy::Options;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A server that says its name, and when the client has said all, says that again and ends.
async fn server(name: &'static str, tls: Option<Arc<rustls::ServerConfig>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let tls = tls.clone();
            tokio::spawn(async move {
                match tls {
                    None => answer(stream, name).await,
                    Some(tls) => {
                        if let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await {
                            answer(stream, name).await;
                        }
                    }
                }
            });
        }
    });
    address
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, name: &str) {
    stream
        .write_all(format!("{name}\n").as_bytes())
        .await
        .unwrap();
    let mut said = Vec::new();
    if stream.read_to_end(&mut said).await.is_ok() {
        let _ = stream.write_all(&said).await;
        let _ = stream.shutdown().await;
    }
}

/// What comes back from a client that says this and then no more.
async fn say(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = String::new();
    let reading = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut heard));
    reading.await.unwrap().unwrap();
    heard
}

/// Listens in clear and for TLS.
fn options() -> Options {
    Options {
        stream_listen: vec![
            "127.0.0.1:0".parse().unwrap(),
            "127.0.0.1:0 ssl".parse().unwrap(),
        ],
        ..Options::default()
    }
}

fn to(id: u128, address: SocketAddr, fields: Value) -> Entity {
    let mut fields = fields;
    fields
        .as_object_mut()
        .unwrap()
        .entry("protocol")
        .or_insert(json!("tcp"));
    service(id, address, fields)
}

fn tcp(gateway: &Gateway) -> SocketAddr {
    gateway.running.stream_addresses()[0]
}

fn tls(gateway: &Gateway) -> SocketAddr {
    gateway.running.stream_addresses()[1]
}

/// An upstream `backs` with id 3, behind a service and a route.
fn pool(mut fields: Value) -> Vec<Entity> {
    fields["name"] = "backs".into();
    vec![
        to(1, ([127, 0, 0, 1], 1).into(), json!({ "host": "backs" })),
        route(2, json!({ "protocols": ["tcp"], "sources": any() })),
        upstream(3, fields),
    ]
}

/// A stream, and the name of the server it reached.
async fn open(gateway: &Gateway, from: [u8; 4]) -> (TcpStream, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let mut stream = socket.connect(tcp(gateway)).await.unwrap();
    let mut name = String::new();
    while !name.ends_with('\n') {
        let byte = tokio::time::timeout(PATIENCE, stream.read_u8()).await;
        name.push(byte.unwrap().unwrap().into());
    }
    (stream, name.trim_end().to_owned())
}

fn any() -> Value {
    json!([{ "ip": "0.0.0.0/0" }])
}

#[tokio::test]
async fn a_tcp_stream_reaches_its_service_and_may_be_closed_by_halves() {
    let address = server("plain", None).await;
    let route = route(2, json!({ "protocols": ["tcp"], "sources": any() }));
    let gateway = Gateway::with(options(), &[to(1, address, json!({})), route]);
    let mut stream = TcpStream::connect(tcp(&gateway)).await.unwrap();
    // More than any buffer on the way holds.
    let text = "0123456789".repeat(400_000);
    assert_eq!(say(&mut stream, &text).await, format!("plain\n{text}"));
    assert_eq!(gateway.shared.metrics.connections().streams, 1);
}

#[tokio::test]
async fn without_a_route_or_an_upstream_the_connection_just_ends() {
    let gateway = Gateway::with(options(), &[]);
    assert_eq!(raw(tcp(&gateway), b"hello").await, "");
    let route = route(2, json!({ "protocols": ["tcp"], "sources": any() }));
    gateway.apply(&[to(1, refused().await, json!({ "retries": 1 })), route]);
    assert_eq!(raw(tcp(&gateway), b"hello").await, "");
    // What is no TLS.
    assert_eq!(raw(tls(&gateway), b"GET / HTTP/1.1\r\n\r\n").await, "");
}

#[tokio::test]
async fn another_target_is_tried_where_one_does_not_accept() {
    let address = server("alive", None).await;
    let gateway = Gateway::with(
        options(),
        &[
            pool(json!({})),
            vec![target(4, 3, refused().await, 100)],
            vec![target(5, 3, address, 100)],
        ]
        .concat(),
    );
    for _ in 0..6 {
        let mut stream = TcpStream::connect(tcp(&gateway)).await.unwrap();
        assert_eq!(say(&mut stream, "hi").await, "alive\nhi");
    }
}

#[tokio::test]
async fn a_target_that_refuses_streams_is_left_out() {
    let (alive, dead) = (server("alive", None).await, refused().await);
    let checks = json!({ "passive": { "unhealthy": { "tcp_failures": 3 } } });
    let mut entities = pool(json!({ "healthchecks": checks }));
    entities.extend([target(4, 3, dead, 100), target(5, 3, alive, 100)]);
    let gateway = Gateway::with(options(), &entities);
    for _ in 0..6 {
        assert_eq!(open(&gateway, [127, 0, 0, 1]).await.1, "alive");
    }
    let views = gateway.shared.upstreams.views();
    let targets = views.iter().flat_map(|view| &view.targets);
    let healthy = targets.filter(|target| target.is_healthy);
    let healthy: Vec<_> = healthy.filter_map(|target| target.address).collect();
    assert_eq!(healthy, [alive]);
    // Nobody is left.
    gateway.remove(&[target(5, 3, alive, 100)]);
    assert_eq!(raw(tcp(&gateway), b"hello").await, "");
}

#[tokio::test]
async fn a_stream_is_in_flight_until_it_ends() {
    let mut entities = pool(json!({ "algorithm": "least-connections" }));
    entities.push(target(4, 3, server("a", None).await, 100));
    entities.push(target(5, 3, server("b", None).await, 100));
    let gateway = Gateway::with(options(), &entities);
    let (first, name) = open(&gateway, [127, 0, 0, 1]).await;
    for _ in 0..3 {
        let (mut second, other) = open(&gateway, [127, 0, 0, 1]).await;
        assert_ne!(other, name);
        say(&mut second, "").await;
        until(async || gateway.shared.metrics.connections().active == 1).await;
    }
    drop(first);
}

#[tokio::test]
async fn streams_of_one_address_meet_where_addresses_are_hashed() {
    let mut entities = pool(json!({
        "algorithm": "consistent-hashing", "hash_on": "consumer", "hash_fallback": "ip",
    }));
    for (id, name) in (10..).zip(["a", "b", "c", "d", "e"]) {
        entities.push(target(id, 3, server(name, None).await, 100));
    }
    let gateway = Gateway::with(options(), &entities);
    let mut found = BTreeSet::new();
    for host in 1..10 {
        let own = open(&gateway, [127, 0, 0, host]).await.1;
        for _ in 0..3 {
            assert_eq!(open(&gateway, [127, 0, 0, host]).await.1, own);
        }
        found.insert(own);
    }
    assert!(found.len() > 1, "{found:?}");
}

#[tokio::test]
async fn a_stream_waits_for_the_first_answer_of_the_dns() {
    let (dns, address) = (Dns::start().await, server("named", None).await);
    dns.set("db.test", 3600, &["127.0.0.1"]);
    let options = Options {
        dns: dns.options().dns,
        ..options()
    };
    let route = route(2, json!({ "protocols": ["tcp"], "sources": any() }));
    let gateway = Gateway::with(
        options,
        &[to(1, address, json!({ "host": "db.test" })), route],
    );
    assert_eq!(open(&gateway, [127, 0, 0, 1]).await.1, "named");
    gateway.apply(&[to(1, address, json!({ "host": "none.test", "retries": 0 }))]);
    assert_eq!(raw(tcp(&gateway), b"hello").await, "");
}

#[tokio::test]
async fn tls_is_ended_here_or_relayed_as_the_server_name_says() {
    let (own, theirs) = (Ca::new(), Ca::new());
    let plain = server("plain", None).await;
    let config = theirs.issue(&["pass.test", "again.test"]).server(&[], None);
    let secure = server("secure", Some(config)).await;
    let gateway = Gateway::with(
        options(),
        &[
            to(1, plain, json!({})),
            to(2, secure, json!({})),
            to(
                3,
                secure,
                json!({ "protocol": "tls", "tls_verify": true, "ca_certificates": [uuid::Uuid::from_u128(20).to_string()] }),
            ),
            theirs.entity(20),
            own.issue(&["ended.test"]).entity(21),
            own.issue(&["again.test"]).entity(22),
            sni(23, 21, "ended.test"),
            sni(24, 22, "again.test"),
            route(
                10,
                json!({ "protocols": ["tls"], "snis": ["ended.test"], "service": reference(1) }),
            ),
            route(
                11,
                json!({ "protocols": ["tls_passthrough"], "snis": ["pass.test"], "service": reference(2) }),
            ),
            route(
                12,
                json!({ "protocols": ["tls"], "snis": ["again.test"], "service": reference(3), "preserve_host": true }),
            ),
        ],
    );
    for (name, ca, expected) in [
        ("ended.test", &own, "plain\nhi"),
        ("pass.test", &theirs, "secure\nhi"),
        ("again.test", &own, "secure\nhi"),
    ] {
        let mut stream = handshake(tls(&gateway), ca.client(), name).await.unwrap();
        assert_eq!(say(&mut stream, "hi").await, expected, "{name}");
    }
    // The other one's certificate is not shown, and a name without a route is not answered.
    assert!(
        handshake(tls(&gateway), own.client(), "pass.test")
            .await
            .is_err()
    );
    assert!(
        handshake(tls(&gateway), own.client(), "none.test")
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_hello_may_come_in_pieces_and_must_come() {
    let ca = Ca::new();
    let secure = server("secure", Some(ca.issue(&["pass.test"]).server(&[], None))).await;
    let mut options = options();
    options.tls.handshake_timeout = Duration::from_secs(2);
    let gateway = Gateway::with(
        options,
        &[
            to(1, secure, json!({})),
            route(
                2,
                json!({ "protocols": ["tls_passthrough"], "snis": ["pass.test"] }),
            ),
        ],
    );
    // A relay that hands on a few bytes at a time.
    let slow = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, target) = (slow.local_addr().unwrap(), tls(&gateway));
    tokio::spawn(async move {
        let (client, _) = slow.accept().await.unwrap();
        let stream = TcpStream::connect(target).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (mut from, mut to) = client.into_split();
        let (mut back, mut forth) = stream.into_split();
        let returning = tokio::spawn(async move { tokio::io::copy(&mut back, &mut to).await });
        let mut buffer = [0; 50];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            forth.write_all(&buffer[..count]).await.unwrap();
            tokio::task::yield_now().await;
        }
        forth.shutdown().await.unwrap();
        returning.await.unwrap().unwrap();
    });
    let mut stream = handshake(address, ca.client(), "pass.test").await.unwrap();
    assert_eq!(say(&mut stream, "hi").await, "secure\nhi");
    let mut silent = TcpStream::connect(target).await.unwrap();
    let mut nothing = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, silent.read_to_end(&mut nothing)).await;
    assert_eq!(ended.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_route_for_datagrams_is_listed_as_one_that_cannot_be_used() {
    let gateway = Gateway::with(options(), &[]);
    let route = |protocols: &[&str]| route(2, json!({ "protocols": protocols, "sources": any() }));
    let refused = gateway.try_apply(&[route(&["udp"])]);
    assert!(
        matches!(&refused[..], [reason] if reason.contains("udp")),
        "{refused:?}"
    );
    gateway.apply(&[route(&["tcp", "udp"])]);
    assert!("0.0.0.0:1 udp".parse::<sluice_dp::proxy::Listen>().is_err());
}

#[tokio::test]
async fn a_silent_stream_ends_after_the_read_timeout() {
    let address = server("plain", None).await;
    let gateway = Gateway::with(
        options(),
        &[
            to(1, address, json!({ "read_timeout": 300 })),
            route(2, json!({ "protocols": ["tcp"], "sources": any() })),
        ],
    );
    let begun = Instant::now();
    let mut stream = TcpStream::connect(tcp(&gateway)).await.unwrap();
    let mut heard = Vec::new();
    let reading = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut heard));
    let _ = reading.await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_drain_waits_for_streams_and_each_has_its_line() {
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("access.log");
    let address = server("plain", None).await;
    let mut options = options();
    options.access_log = Settings {
        destination: Destination::File(path.clone()),
        format: Format::Json,
        ..Settings::default()
    };
    let gateway = Gateway::with(
        options,
        &[
            to(1, address, json!({ "name": "db" })),
            route(
                2,
                json!({ "name": "all", "protocols": ["tcp"], "destinations": [{ "ip": "127.0.0.1" }] }),
            ),
        ],
    );
    let mut stream = TcpStream::connect(tcp(&gateway)).await.unwrap();
    let mut name = [0; 6];
    stream.read_exact(&mut name).await.unwrap();
    gateway.apply(&[]);
    gateway.shutdown.cancel();
    let stopping = tokio::spawn(gateway.running.stopped());
    assert_eq!(say(&mut stream, "after").await, "after");
    drop(stream);
    tokio::time::timeout(PATIENCE, stopping)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let line: Value = serde_json::from_str(text.trim_end()).unwrap();
    for (name, value) in [
        ("protocol", json!("TCP")),
        ("status", json!(200)),
        ("bytes_received", json!(5)),
        ("bytes_sent", json!(11)),
        ("complete", json!(true)),
        ("config_version", json!(1)),
        ("route", json!("all")),
        ("service", json!("db")),
        ("upstream", json!(address.to_string())),
    ] {
        assert_eq!(line[name], value, "{name}");
    }
}
