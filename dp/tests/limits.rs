//! What clients may take, and what comes of those that take more.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::secure::Client2;
use common::*;
use http::{Request, Response};
use serde_json::json;
use sluice_dp::proxy::{Limits, Options};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SHORT: Duration = Duration::from_secs(1);

fn limited(change: impl FnOnce(&mut Limits)) -> Options {
    let mut options = Options::default();
    change(&mut options.clients);
    options
}

async fn gateway(options: Options) -> (Origin, Gateway) {
    let origin = Origin::echo().await;
    let entities = [
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"], "strip_path": false })),
    ];
    let gateway = Gateway::with(options, &entities);
    (origin, gateway)
}

/// What is received until the gateway closes, from a client that sends these pieces and pauses between them.
async fn slowly(gateway: &Gateway, pieces: &[&str], pause: Duration) -> String {
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let pieces: Vec<_> = pieces.iter().map(|piece| (*piece).to_owned()).collect();
    let writing = tokio::spawn(async move {
        for piece in pieces.iter().chain(std::iter::repeat(&"a".to_owned())) {
            if writer.write_all(piece.as_bytes()).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    });
    let mut received = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, reader.read_to_end(&mut received)).await;
    ended.expect("the gateway closes").ok();
    writing.abort();
    String::from_utf8(received).unwrap()
}

#[tokio::test]
async fn a_head_that_does_not_end_is_ended() {
    let (_origin, gateway) = gateway(limited(|limits| limits.header_timeout = SHORT)).await;
    let head = ["GET / HTTP/1.1\r\nHost: a\r\nX-A: "];
    let received = slowly(&gateway, &head, Duration::from_millis(50)).await;
    assert!(!statuses(&received).contains(&200), "{received}");
    // An idle connection, too.
    assert_eq!(raw(gateway.address, b"").await, "");
}

#[tokio::test]
async fn a_body_that_does_not_come_on_is_ended() {
    let (_origin, gateway) = gateway(limited(|limits| limits.body_timeout = SHORT)).await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
    let pause = Duration::from_secs(60);
    let received = slowly(&gateway, &[head, "a"], pause).await;
    assert_eq!(statuses(&received), [408], "{received}");
    // It comes on, but too slowly to be of use: 10 bytes per second.
    let received = slowly(&gateway, &[head], Duration::from_millis(100)).await;
    assert_eq!(statuses(&received), [408], "{received}");
}

#[tokio::test]
async fn a_slow_body_that_comes_on_is_waited_for() {
    let options = limited(|limits| {
        limits.body_timeout = SHORT;
        limits.body_rate_min = 0;
    });
    let (_origin, gateway) = gateway(options).await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 8\r\n\r\n";
    let received = slowly(&gateway, &[head], Duration::from_millis(300)).await;
    assert_eq!(statuses(&received), [200], "{received}");
}

/// An origin with an answer that does not fit into any buffer on the way.
async fn flood() -> Origin {
    Origin::serve(|_| Box::pin(async { Response::new(reply(vec![b'a'; 64 * 1024 * 1024])) })).await
}

#[tokio::test]
async fn a_client_that_does_not_read_is_left() {
    let origin = flood().await;
    let options = limited(|limits| limits.send_timeout = SHORT);
    let entities = [
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ];
    let gateway = Gateway::with(options, &entities);
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(request).await.unwrap();
    until(async || gateway.shared.metrics.connections().active == 0).await;
}

#[tokio::test]
async fn a_client_of_http2_that_opens_no_window_is_left() {
    let origin = flood().await;
    let mut options = limited(|limits| limits.header_timeout = SHORT);
    options.listen = vec!["127.0.0.1:0 http2".parse().unwrap()];
    let entities = [
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ];
    let gateway = Gateway::with(options, &entities);
    let client = Client2::clear(gateway.address).await;
    // The response is held, and not read.
    let request = Request::get("http://a/").body(empty()).unwrap();
    let response = client.start(request).await.unwrap();
    until(async || gateway.shared.metrics.connections().active == 0).await;
    drop(response);
}

#[tokio::test]
async fn an_address_has_its_share_of_connections_on_all_workers() {
    let mut options = limited(|limits| limits.connections_per_address_max = 4);
    options.workers = 3;
    let (_origin, gateway) = gateway(options).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = gateway.client().await;
        assert_eq!(client.get("/").await.status, 200);
        clients.push(client);
    }
    assert_eq!(raw(gateway.address, b"").await, "");
    assert_eq!(gateway.shared.metrics.connections().refused, 1);
    drop(clients);
    until(async || gateway.shared.metrics.connections().active == 0).await;
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test]
async fn heads_are_as_large_as_the_settings_say() {
    let options = limited(|limits| {
        limits.headers_max = 50;
        limits.header_bytes_max = 256 * 1024;
        limits.uri_bytes_max = 60_000;
    });
    let (_origin, gateway) = gateway(options).await;
    let ask = async |target: usize, headers: usize| {
        let (target, lines) = ("a".repeat(target), "X-A: b\r\n".repeat(headers));
        let head = format!("GET /{target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}\r\n");
        statuses(&raw(gateway.address, head.as_bytes()).await)
    };
    assert_eq!(ask(59_000, 48).await, [200]);
    assert_eq!(ask(59_000, 49).await, [431]);
    assert_eq!(ask(60_001, 0).await, [414]);
}

#[tokio::test]
async fn what_a_trusted_proxy_says_is_believed_and_nobody_else() {
    let mut options = Options::default();
    options.trust.networks = vec!["127.0.0.1".parse().unwrap()];
    let (_origin, trusting) = gateway(options).await;
    trusting.apply(&[route(
        3,
        json!({ "paths": ["/secure"], "protocols": ["https"], "strip_path": true }),
    )]);
    let said = [
        ("x-real-ip", "1.2.3.4"),
        ("x-forwarded-for", "9.9.9.9, 1.2.3.4"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "public.test"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-prefix", "/outer"),
    ];
    let reply = trusting.client().await.get_with("/secure/x", &said).await;
    assert_eq!(reply.status, 200);
    for (name, value) in [
        ("x-real-ip", "1.2.3.4"),
        ("x-forwarded-for", "9.9.9.9, 1.2.3.4, 127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "public.test"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-prefix", "/outer"),
        ("x-forwarded-path", "/secure/x"),
    ] {
        assert_eq!(reply.received(name).as_deref(), Some(value), "{name}");
    }
    let reply = trusting
        .client()
        .await
        .get_with("/x", &[("x-real-ip", "1.2.3.4")])
        .await;
    assert_eq!(
        reply.received("x-forwarded-for").as_deref(),
        Some("1.2.3.4")
    );
    assert_eq!(reply.received("x-forwarded-proto").as_deref(), Some("http"));

    let (_origin, doubting) = gateway(Options::default()).await;
    let reply = doubting.client().await.get_with("/x", &said).await;
    for (name, value) in [
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "gateway.test"),
    ] {
        assert_eq!(reply.received(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(reply.received("x-forwarded-prefix"), None);
}

#[tokio::test]
async fn a_buffered_body_is_here_before_the_upstream_is_asked() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&[
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/buffered"] })),
        route(
            3,
            json!({ "paths": ["/streamed"], "request_buffering": false }),
        ),
    ]);
    let asked = || origin.accepted.load(std::sync::atomic::Ordering::Relaxed);
    let begin = async |path: &str| {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhe"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    };
    let mut buffered = begin("/buffered").await;
    let mut streamed = begin("/streamed").await;
    until(async || asked() == 1).await;
    let mut received = String::new();
    streamed.write_all(b"llo").await.unwrap();
    streamed.read_to_string(&mut received).await.unwrap();
    assert!(received.contains("\"body\":\"hello\""), "{received}");
    assert_eq!(asked(), 1, "the other one's body is not here");
    let mut received = String::new();
    buffered.write_all(b"llo").await.unwrap();
    buffered.read_to_string(&mut received).await.unwrap();
    assert!(received.contains("\"body\":\"hello\""), "{received}");
    // What is larger than the buffer goes on as a stream.
    let body = "0123456789".repeat(50_000);
    let request = Request::post("/buffered")
        .header("host", "a")
        .body(full(body.clone()));
    let reply = gateway.client().await.send(request.unwrap()).await;
    assert_eq!(reply.json()["body"], body);
}
