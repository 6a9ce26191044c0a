//! HTTP/2 from clients, over TLS and in clear, and gRPC to upstreams.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use bytes::Bytes;
use common::secure::*;
use common::*;
use futures::channel::mpsc;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

async fn secure(gateway: &Gateway) -> Client2 {
    let config = with_alpn(believing_all(), &["h2", "http/1.1"]);
    let stream = handshake(gateway.address, config, "a.test").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    Client2::over(stream).await
}

fn post(uri: &str) -> http::request::Builder {
    Request::post(uri)
}

#[tokio::test]
async fn many_requests_share_a_connection_and_arrive_whole() {
    let origin = Origin::echo().await;
    let gateway = Gateway::listening(
        "ssl http2",
        &[
            service(1, origin.address, json!({})),
            route(2, json!({ "paths": ["/api"], "hosts": ["a.test"] })),
        ],
    );
    let client = secure(&gateway).await;
    let requests = (0..50).map(|number| {
        let client = client.clone();
        async move {
            let body = full(format!("body {number}").repeat(number * 100));
            let uri = format!("https://A.test/api/{number}?q={number}");
            let request = post(&uri).header("cookie", "a=1").header("cookie", "b=2");
            (number, client.send(request.body(body).unwrap()).await)
        }
    });
    for (number, reply) in futures::future::join_all(requests).await {
        assert_eq!(reply.head.status, 200);
        assert_eq!(reply.json()["uri"], format!("/{number}?q={number}"));
        assert_eq!(
            reply.json()["body"],
            format!("body {number}").repeat(number * 100)
        );
        assert_eq!(reply.received("cookie").as_deref(), Some("a=1; b=2"));
        assert_eq!(
            reply.received("x-forwarded-proto").as_deref(),
            Some("https")
        );
        assert_eq!(
            reply.received("x-forwarded-host").as_deref(),
            Some("a.test")
        );
        assert_eq!(reply.received("host"), Some(origin.address.to_string()));
        assert!(reply.header("x-kong-request-id").is_some());
    }
}

#[tokio::test]
async fn a_listener_in_clear_takes_both_versions_if_it_is_asked_to() {
    let origin = Origin::echo().await;
    let entities = [
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ];
    let gateway = Gateway::listening("http2", &entities);
    let client = Client2::clear(gateway.address).await;
    let reply = client.get("http://a.test/x").await;
    assert_eq!(reply.head.status, 200);
    assert_eq!(reply.received("x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(gateway.get("/y").await.json()["uri"], "/y");
    // A method that begins as HTTP/2 does, and in pieces.
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    for piece in [
        &b"P"[..],
        b"R",
        b"OPFIND / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ] {
        stream.write_all(piece).await.unwrap();
        stream.flush().await.unwrap();
    }
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.contains("PROPFIND"), "{answer}");
    // Without the flag it cannot be read, and HTTP/1.1 has no answer to it.
    let plain = Gateway::start(&entities);
    assert_eq!(raw(plain.address, PREFACE).await, "");
}

#[tokio::test]
async fn the_host_is_the_authority_and_nothing_else() {
    let origin = Origin::echo().await;
    let gateway = Gateway::listening(
        "http2",
        &[
            service(1, origin.address, json!({})),
            route(2, json!({ "hosts": ["a.test"], "preserve_host": true })),
        ],
    );
    let client = Client2::clear(gateway.address).await;
    let reply = client.get("http://a.test:81/").await;
    assert_eq!(reply.received("host").as_deref(), Some("a.test:81"));
    let request = Request::get("http://a.test/").header("host", "A.test");
    assert_eq!(
        client
            .send(request.body(empty()).unwrap())
            .await
            .head
            .status,
        200
    );
    let request = Request::get("http://a.test/").header("host", "b.test");
    let reply = client.send(request.body(empty()).unwrap()).await;
    assert_eq!(reply.head.status, 400);
    assert_eq!(reply.header("connection"), None);
    assert_eq!(client.get("http://b.test/").await.head.status, 404);
    // The connection goes on.
    assert_eq!(client.get("http://a.test/").await.head.status, 200);
}

#[tokio::test]
async fn a_connection_that_takes_back_its_requests_is_ended() {
    let origin = Origin::serve(|_| Box::pin(std::future::pending())).await;
    let gateway = Gateway::listening(
        "http2",
        &[
            service(1, origin.address, json!({})),
            route(2, json!({ "paths": ["/"] })),
        ],
    );
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let mut flood = PREFACE.to_vec();
    for number in 0..2000_u32 {
        let stream_id = (number * 2 + 1).to_be_bytes();
        // HEADERS: GET, http, /, :authority a; END_STREAM and END_HEADERS. Then RST_STREAM.
        flood.extend_from_slice(&[0, 0, 6, 1, 5]);
        flood.extend_from_slice(&stream_id);
        flood.extend_from_slice(&[0x82, 0x86, 0x84, 0x41, 0x01, b'a']);
        flood.extend_from_slice(&[0, 0, 4, 3, 0]);
        flood.extend_from_slice(&stream_id);
        flood.extend_from_slice(&8_u32.to_be_bytes());
    }
    // The gateway may close before it has read all of it.
    let _ = stream.write_all(&flood).await;
    let mut received = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut received)).await;
    assert!(ended.is_ok(), "the flood was let through");
}

#[tokio::test]
async fn requests_in_flight_finish_after_goaway() {
    let (arrived, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (here, go) = (Arc::clone(&arrived), Arc::clone(&finish));
    let origin = Origin::serve(move |_| {
        let (here, go) = (Arc::clone(&here), Arc::clone(&go));
        Box::pin(async move {
            here.notify_one();
            go.notified().await;
            Response::new(reply("finished"))
        })
    })
    .await;
    let gateway = Gateway::listening(
        "http2",
        &[
            service(1, origin.address, json!({})),
            route(2, json!({ "paths": ["/"] })),
        ],
    );
    let client = Client2::clear(gateway.address).await;
    let asking = client.clone();
    let request = tokio::spawn(async move { asking.get("http://a/").await });
    arrived.notified().await;
    gateway.shutdown.cancel();
    finish.notify_one();
    assert_eq!(request.await.unwrap().body, "finished");
    let stopped = tokio::time::timeout(PATIENCE, gateway.running.stopped()).await;
    stopped.unwrap().unwrap();
    assert!(client.is_closed());
}

type Answer = mpsc::UnboundedSender<Result<Frame<Bytes>, hyper::Error>>;

/// A gRPC server that answers each message with itself, and ends with a status in trailers.
async fn grpc(manner: Manner) -> Origin {
    Origin::serve_as(manner, |request| {
        Box::pin(async move {
            let (answer, frames) = mpsc::unbounded();
            let head = request.headers().clone();
            let uri = request.uri().clone();
            tokio::task::spawn_local(talk(request, answer));
            let body = BodyExt::boxed_unsync(StreamBody::new(frames));
            Response::builder()
                .header("content-type", "application/grpc")
                .header("x-te", head["te"].clone())
                .header("x-uri", uri.to_string())
                .header("x-host", head.contains_key("host").to_string())
                .body(body)
                .unwrap()
        })
    })
    .await
}

async fn talk(request: Request<Incoming>, answer: Answer) {
    let mut body = request.into_body();
    let mut received = HeaderMap::new();
    while let Some(Ok(frame)) = body.frame().await {
        match frame.into_data() {
            Ok(data) => answer.unbounded_send(Ok(Frame::data(data))).unwrap(),
            Err(frame) => received = frame.into_trailers().unwrap(),
        }
    }
    received.insert("grpc-status", "0".parse().unwrap());
    answer
        .unbounded_send(Ok(Frame::trailers(received)))
        .unwrap();
}

fn call(
    frames: mpsc::UnboundedReceiver<Result<Frame<Bytes>, Infallible>>,
    secure: bool,
) -> Request<ClientBody> {
    let scheme = if secure { "https" } else { "http" };
    post(&format!("{scheme}://a.test/shop.Cart/Add"))
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers")
        .body(StreamBody::new(frames).boxed_unsync())
        .unwrap()
}

async fn check_grpc(client: &Client2, secure: bool, scheme: &str) {
    // Unary.
    let (sender, frames) = mpsc::unbounded();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-end", "yes".parse().unwrap());
    sender
        .unbounded_send(Ok(Frame::data(Bytes::from_static(b"ping"))))
        .unwrap();
    sender
        .unbounded_send(Ok(Frame::trailers(trailers)))
        .unwrap();
    drop(sender);
    let reply = client.send(call(frames, secure)).await;
    assert_eq!(reply.head.status, 200);
    assert_eq!(reply.body, "ping");
    let trailers = reply.trailers.clone().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers["x-end"], "yes");
    assert_eq!(reply.header("x-te"), Some("trailers"));
    assert_eq!(reply.header("x-host"), Some("false"));
    let uri = reply.header("x-uri").unwrap();
    assert!(
        uri.starts_with(scheme) && uri.ends_with("/shop.Cart/Add"),
        "{uri}"
    );
    // Both directions at once: each message is answered before the next one is sent.
    let (sender, frames) = mpsc::unbounded();
    let mut response = client.start(call(frames, secure)).await.unwrap();
    for number in 0..5 {
        let message = Bytes::from(format!("message {number}"));
        sender
            .unbounded_send(Ok(Frame::data(message.clone())))
            .unwrap();
        let frame = tokio::time::timeout(PATIENCE, response.body_mut().frame())
            .await
            .unwrap();
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), message);
    }
    drop(sender);
    let frame = tokio::time::timeout(PATIENCE, response.body_mut().frame())
        .await
        .unwrap();
    let trailers = frame.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
}

#[tokio::test]
async fn grpc_passes_in_clear() {
    let origin = grpc(Manner {
        tls: None,
        http2: true,
    })
    .await;
    let gateway = Gateway::listening(
        "http2",
        &[
            service(1, origin.address, json!({ "protocol": "grpc" })),
            route(
                2,
                json!({ "paths": ["/shop.Cart"], "protocols": ["grpc"], "strip_path": false }),
            ),
        ],
    );
    check_grpc(&Client2::clear(gateway.address).await, false, "http").await;
    assert_eq!(
        origin.accepted.load(Ordering::Relaxed),
        1,
        "calls share a connection"
    );
}

#[tokio::test]
async fn grpc_passes_over_tls() {
    let ca = Ca::new();
    let config = ca.issue(&["a.test"]).server(&["h2"], None);
    let origin = grpc(Manner {
        tls: Some(config),
        http2: true,
    })
    .await;
    let gateway = Gateway::listening(
        "ssl http2",
        &[
            service(1, origin.address, json!({ "protocol": "grpcs" })),
            route(
                2,
                json!({ "paths": ["/"], "protocols": ["grpcs"], "strip_path": false }),
            ),
        ],
    );
    check_grpc(&secure(&gateway).await, true, "https").await;
    assert_eq!(origin.accepted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn grpc_clients_read_of_failures_in_headers() {
    let dead = refused().await;
    let gateway = Gateway::listening(
        "http2",
        &[
            service(1, dead, json!({ "protocol": "grpc", "retries": 0 })),
            route(2, json!({ "paths": ["/dead"], "protocols": ["grpc"] })),
            route(3, json!({ "paths": ["/secure"], "protocols": ["grpcs"] })),
        ],
    );
    let client = Client2::clear(gateway.address).await;
    let call = |path: &str| {
        post(&format!("http://a.test{path}"))
            .header("content-type", "application/grpc")
            .body(full("message"))
            .unwrap()
    };
    let expected = [
        (
            "/dead",
            502,
            "13",
            "An invalid response was received from the upstream server",
        ),
        ("/secure", 200, "1", "gRPC request matched gRPCs route"),
        ("/none", 404, "5", "no Route matched with those values"),
    ];
    for (path, status, code, message) in expected {
        let reply = client.send(call(path)).await;
        assert_eq!(reply.head.status, status, "{path}");
        assert_eq!(reply.header("grpc-status"), Some(code), "{path}");
        assert_eq!(reply.header("grpc-message"), Some(message), "{path}");
        assert_eq!(reply.body, "");
    }
    let reply = client.get("http://a.test/dead").await;
    assert_eq!(reply.head.status, 415);
    assert_eq!(
        reply.json()["message"],
        "Non-gRPC request matched gRPC route"
    );
    let grpc = [("content-type", "application/grpc")];
    let reply = gateway.client().await.get_with("/dead", &grpc).await;
    assert_eq!(reply.status, 426);
    assert_eq!(reply.header("upgrade"), Some("HTTP/2"));
}
