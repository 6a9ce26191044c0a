//! WebSocket and other protocols on a client's connection.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::secure::*;
use common::*;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Agrees to every upgrade and answers each byte with itself.
async fn echo(manner: Manner) -> Origin {
    Origin::serve_as(manner, |request| Box::pin(agree(request))).await
}

async fn agree(mut request: Request<Incoming>) -> Response<OriginBody> {
    let Some(protocol) = request.headers().get("upgrade").cloned() else {
        return describe(request, "plain").await;
    };
    let key = request.headers().get("sec-websocket-key").cloned();
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::task::spawn_local(async move {
        let mut stream = TokioIo::new(upgrade.await.unwrap());
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            stream.write_all(&buffer[..count]).await.unwrap();
        }
        let _ = stream.shutdown().await;
    });
    let mut response = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "upgrade")
        .header("upgrade", protocol);
    if let Some(key) = key {
        response = response.header("sec-websocket-accept", key);
    }
    response.body(reply("")).unwrap()
}

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Reads a response's head.
async fn head<I: tokio::io::AsyncRead + Unpin>(stream: &mut I) -> String {
    let mut received = Vec::new();
    while !received.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(PATIENCE, stream.read_u8())
            .await
            .unwrap();
        received.push(byte.unwrap());
    }
    String::from_utf8(received).unwrap().to_lowercase()
}

async fn say_and_hear<I>(stream: &mut I, text: &str)
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut heard = vec![0; text.len()];
    let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut heard)).await;
    read.unwrap().unwrap();
    assert_eq!(heard, text.as_bytes());
}

fn to(origin: &Origin, fields: serde_json::Value) -> [Entity; 2] {
    [
        service(1, origin.address, fields),
        route(2, json!({ "paths": ["/"] })),
    ]
}

#[tokio::test]
async fn bytes_flow_both_ways_until_one_side_is_done() {
    let origin = echo(Manner::default()).await;
    let gateway = Gateway::start(&to(&origin, json!({})));
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    // The first bytes come with the request.
    stream
        .write_all(format!("{ASK}early").as_bytes())
        .await
        .unwrap();
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    for line in [
        "connection: upgrade\r\n",
        "upgrade: websocket\r\n",
        "sec-websocket-accept: k\r\n",
        "x-kong-request-id:",
    ] {
        assert!(answer.contains(line), "{line} in {answer}");
    }
    assert!(
        !answer.contains("content-length") && !answer.contains("transfer-encoding"),
        "{answer}"
    );
    let mut early = [0; 5];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut early))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&early, b"early");
    say_and_hear(&mut stream, "later").await;
    let large = "large ".repeat(100_000);
    let (mut reader, mut writer) = stream.split();
    let mut heard = vec![0; large.len()];
    let (wrote, read) = tokio::join!(
        writer.write_all(large.as_bytes()),
        reader.read_exact(&mut heard)
    );
    wrote.unwrap();
    read.unwrap();
    assert_eq!(heard, large.as_bytes());
    stream.shutdown().await.unwrap();
    let rest = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
    assert_eq!(rest.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn upgrades_pass_over_tls_on_both_sides() {
    let ca = Ca::new();
    let pair = ca.issue(&["a.test"]);
    let origin = echo(Manner {
        tls: Some(pair.server(&[], None)),
        http2: false,
    })
    .await;
    let entities = to(&origin, json!({ "protocol": "https" }));
    let gateway = Gateway::listening("ssl http2", &entities);
    gateway.apply(&[pair.entity(5), sni(6, 5, "*")]);
    let mut stream = handshake(gateway.address, ca.client(), "a.test")
        .await
        .unwrap();
    stream.write_all(ASK.as_bytes()).await.unwrap();
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    say_and_hear(&mut stream, "over TLS").await;
}

#[tokio::test]
async fn a_silent_tunnel_ends_after_the_read_timeout() {
    let origin = echo(Manner::default()).await;
    let gateway = Gateway::start(&to(&origin, json!({ "read_timeout": 100 })));
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(ASK.as_bytes()).await.unwrap();
    assert!(head(&mut stream).await.starts_with("http/1.1 101 "));
    say_and_hear(&mut stream, "hello").await;
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
    assert!(matches!(end.unwrap(), Ok(0) | Err(_)));
}

#[tokio::test]
async fn an_upstream_that_does_not_agree_is_answered_from_as_usual() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&to(&origin, json!({})));
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let next = "GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream
        .write_all(format!("{ASK}{next}").as_bytes())
        .await
        .unwrap();
    let mut received = String::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut received)).await;
    read.unwrap().unwrap();
    assert_eq!(statuses(&received), [200, 200], "{received}");
    assert!(received.contains(r#""upgrade":"websocket""#), "{received}");
}

#[tokio::test]
async fn what_could_hide_requests_is_not_passed_on() {
    let origin = echo(Manner::default()).await;
    let gateway = Gateway::start(&to(&origin, json!({})));
    let asks = [
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: TLS/1.2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: websocket, h2c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nUpgrade: websocket\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nab",
    ];
    for ask in asks {
        let received = raw(gateway.address, ask.as_bytes()).await;
        assert_eq!(statuses(&received), [200], "{ask} {received}");
        assert!(!received.contains(r#""upgrade""#), "{ask} {received}");
    }
    assert!(origin.accepted.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn an_agreement_to_something_else_is_a_502() {
    let origin = Origin::serve(|_| {
        Box::pin(async {
            Response::builder()
                .status(101)
                .header("connection", "upgrade")
                .header("upgrade", "other")
                .body(reply(""))
                .unwrap()
        })
    })
    .await;
    let gateway = Gateway::start(&to(&origin, json!({ "retries": 0 })));
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(ASK.as_bytes()).await.unwrap();
    assert!(head(&mut stream).await.starts_with("http/1.1 502 "));
}

#[tokio::test]
async fn a_drain_waits_for_tunnels() {
    let origin = echo(Manner::default()).await;
    let gateway = Gateway::start(&to(&origin, json!({})));
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(ASK.as_bytes()).await.unwrap();
    assert!(head(&mut stream).await.starts_with("http/1.1 101 "));
    gateway.shutdown.cancel();
    while TcpStream::connect(gateway.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    say_and_hear(&mut stream, "still here").await;
    stream.shutdown().await.unwrap();
    let stopped = tokio::time::timeout(PATIENCE, gateway.running.stopped()).await;
    stopped.unwrap().unwrap();
}
