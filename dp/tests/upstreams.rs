//! Upstreams that share, fail, stall and stream.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use bytes::Bytes;
use common::*;
use futures::StreamExt;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::json;
use sluice_dp::proxy::Options;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;

const CHUNK_BYTES: usize = 64 * 1024;
const CHUNKS: usize = 512;

fn balanced(entities: &[Entity]) -> Vec<Entity> {
    let nowhere = ([127, 0, 0, 1], 1).into();
    let base = [
        service(1, nowhere, json!({ "host": "pool" })),
        route(2, json!({ "paths": ["/"] })),
        upstream(3, json!({ "name": "pool" })),
    ];
    [&base, entities].concat()
}

async fn names(gateway: &Gateway, count: usize) -> BTreeMap<String, usize> {
    let mut client = gateway.client().await;
    let mut names = BTreeMap::new();
    for _ in 0..count {
        let name = client.get("/").await.json()["name"]
            .as_str()
            .unwrap()
            .to_owned();
        *names.entry(name).or_default() += 1;
    }
    names
}

fn counts(expected: &[(&str, usize)]) -> BTreeMap<String, usize> {
    expected
        .iter()
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect()
}

#[tokio::test]
async fn targets_share_requests_by_weight() {
    let (a, b, c) = (
        Origin::named("a").await,
        Origin::named("b").await,
        Origin::named("c").await,
    );
    let gateway = Gateway::start(&balanced(&[
        target(11, 3, a.address, 300),
        target(12, 3, b.address, 100),
        target(13, 3, c.address, 0),
    ]));
    assert_eq!(names(&gateway, 40).await, counts(&[("a", 30), ("b", 10)]));
    gateway.apply(&[target(11, 3, a.address, 0)]);
    assert_eq!(names(&gateway, 5).await, counts(&[("b", 5)]));
    gateway.apply(&[target(12, 3, b.address, 0)]);
    let reply = gateway.get("/").await;
    assert_eq!(reply.status, 503);
    assert_eq!(
        reply.message(),
        "failure to get a peer from the ring-balancer"
    );
}

#[tokio::test]
async fn a_target_that_refuses_is_passed_over() {
    let alive = Origin::named("alive").await;
    let gateway = Gateway::start(&balanced(&[
        target(11, 3, refused().await, 100),
        target(12, 3, refused().await, 100),
        target(13, 3, alive.address, 100),
    ]));
    assert_eq!(names(&gateway, 9).await, counts(&[("alive", 9)]));
    let mut client = gateway.client().await;
    for _ in 0..3 {
        let request = Request::post("/")
            .header("host", "a")
            .body(full("body"))
            .unwrap();
        assert_eq!(client.send(request).await.json()["body"], "body");
    }
}

#[tokio::test]
async fn a_service_that_refuses_is_a_502() {
    let gateway = Gateway::start(&[
        service(1, refused().await, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ]);
    let reply = gateway.get("/").await;
    assert_eq!(reply.status, 502);
    assert_eq!(
        reply.message(),
        "An invalid response was received from the upstream server"
    );
}

#[tokio::test]
async fn names_are_resolved_and_unknown_ones_reported() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&[
        service(1, origin.address, json!({ "host": "localhost" })),
        service(
            2,
            origin.address,
            json!({ "host": "no-such-host.invalid", "retries": 0 }),
        ),
        route(3, json!({ "paths": ["/"] })),
        route(4, json!({ "paths": ["/unknown"], "service": reference(2) })),
    ]);
    let reply = gateway.get("/").await;
    assert_eq!(
        reply.received("host"),
        Some(format!("localhost:{}", origin.address.port()))
    );
    let reply = gateway.get("/unknown").await;
    assert_eq!(
        (reply.status.as_u16(), &*reply.message()),
        (503, "name resolution failed")
    );
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_is_a_504() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let origin = Origin::serve(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::pending())
    })
    .await;
    let gateway = Gateway::start(&[
        service(
            1,
            origin.address,
            json!({ "read_timeout": 50, "retries": 1 }),
        ),
        route(2, json!({ "paths": ["/"] })),
    ]);
    let reply = gateway.get("/").await;
    assert_eq!(
        (reply.status.as_u16(), &*reply.message()),
        (504, "The upstream server is timing out")
    );
    assert_eq!(tries.load(Ordering::Relaxed), 2);
    let request = Request::post("/")
        .header("host", "a")
        .body(empty())
        .unwrap();
    assert_eq!(gateway.client().await.send(request).await.status, 504);
    assert_eq!(tries.load(Ordering::Relaxed), 3, "a POST is not sent twice");
}

#[tokio::test]
async fn an_upstream_that_stalls_within_its_body_breaks_the_answer() {
    let origin = Origin::serve(|_| {
        Box::pin(async {
            let first = futures::stream::iter([Ok(Frame::data(Bytes::from_static(b"half")))]);
            let body = StreamBody::new(first.chain(futures::stream::pending()));
            Response::new(BodyExt::boxed_unsync(body))
        })
    })
    .await;
    let gateway = Gateway::start(&[
        service(1, origin.address, json!({ "read_timeout": 50 })),
        route(2, json!({ "paths": ["/"] })),
    ]);
    let mut client = gateway.client().await;
    let request = Request::get("/").header("host", "a").body(empty()).unwrap();
    let response = client.start(request).await;
    assert_eq!(response.status(), 200);
    let read = tokio::time::timeout(PATIENCE, response.into_body().collect())
        .await
        .unwrap();
    assert!(read.is_err(), "a cut body must not look complete");
}

#[tokio::test]
async fn a_pooled_connection_the_upstream_closed_costs_no_request() {
    // Answers one request per connection and then closes it, without saying so.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await.unwrap();
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await
                    .unwrap();
                // Reads the next request, if one comes, and drops it unanswered.
                let _ = stream.read(&mut buffer).await;
            });
        }
    });
    let gateway = Gateway::start(&[
        service(1, address, json!({ "retries": 0 })),
        route(2, json!({ "paths": ["/"] })),
    ]);
    let mut client = gateway.client().await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.status, 200);
    }
}

#[tokio::test]
async fn garbage_from_an_upstream_is_a_502() {
    for garbage in [
        &b"nonsense\r\n\r\n"[..],
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(garbage).await;
            }
        });
        let gateway = Gateway::start(&[
            service(1, address, json!({ "retries": 1 })),
            route(2, json!({ "paths": ["/"] })),
        ]);
        let reply = gateway.get("/").await;
        assert_eq!(reply.status, 502, "{}", String::from_utf8_lossy(garbage));
    }
}

#[tokio::test]
async fn large_bodies_stream_both_ways() {
    let origin = Origin::serve(|request| {
        Box::pin(async move { Response::new(request.into_body().boxed_unsync()) })
    })
    .await;
    let gateway = Gateway::start(&[
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ]);
    for length in [None, Some(CHUNK_BYTES * CHUNKS)] {
        let chunks = (0..CHUNKS).map(|number| {
            let byte = u8::try_from(number % 251).unwrap();
            Ok::<_, Infallible>(Frame::data(Bytes::from(vec![byte; CHUNK_BYTES])))
        });
        let body = StreamBody::new(futures::stream::iter(chunks)).boxed_unsync();
        let mut request = Request::post("/").header("host", "a");
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        let response = gateway
            .client()
            .await
            .start(request.body(body).unwrap())
            .await;
        let mut body = response.into_body();
        let mut received = 0;
        while let Some(frame) = tokio::time::timeout(PATIENCE, body.frame()).await.unwrap() {
            let data = frame.unwrap().into_data().unwrap();
            let expected = |at: usize| u8::try_from((received + at) / CHUNK_BYTES % 251).unwrap();
            assert!(
                data.iter()
                    .enumerate()
                    .all(|(at, byte)| *byte == expected(at))
            );
            received += data.len();
        }
        assert_eq!(received, CHUNK_BYTES * CHUNKS);
    }
}

#[tokio::test]
async fn a_slow_client_slows_the_upstream_down() {
    let produced = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&produced);
    let origin = Origin::serve(move |_| {
        let counted = Arc::clone(&counted);
        Box::pin(async move {
            let chunks = futures::stream::iter(0..CHUNKS * 4).map(move |_| {
                counted.fetch_add(CHUNK_BYTES, Ordering::Relaxed);
                Ok(Frame::data(Bytes::from_static(&[7; CHUNK_BYTES])))
            });
            Response::new(BodyExt::boxed_unsync(StreamBody::new(chunks)))
        })
    })
    .await;
    let gateway = Gateway::start(&[
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ]);
    let mut client = gateway.client().await;
    let request = Request::get("/").header("host", "a").body(empty()).unwrap();
    let response = client.start(request).await;
    // Without back-pressure all of it would be produced while nobody reads; wait until production has stopped.
    let mut before = 0;
    let mut still = 0;
    while still < 20 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        let now = produced.load(Ordering::Relaxed);
        still = if now == before { still + 1 } else { 0 };
        before = now;
    }
    let total = CHUNK_BYTES * CHUNKS * 4;
    assert!(
        before < total / 2,
        "{before} of {total} bytes were produced for a client that reads none"
    );
    let body = tokio::time::timeout(PATIENCE, response.into_body().collect())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(body.to_bytes().len(), total);
}

#[tokio::test]
async fn requests_in_flight_finish_after_the_shutdown_begins() {
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
    let gateway = Gateway::start(&[
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ]);
    let mut client = gateway.client().await;
    let request = tokio::spawn(async move { client.get("/").await });
    arrived.notified().await;
    gateway.shutdown.cancel();
    finish.notify_one();
    let reply = request.await.unwrap();
    assert_eq!(reply.body, "finished");
    tokio::time::timeout(PATIENCE, gateway.running.stopped())
        .await
        .unwrap()
        .unwrap();
    assert!(
        tokio::net::TcpStream::connect(gateway.address)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline() {
    let arrived = Arc::new(Notify::new());
    let here = Arc::clone(&arrived);
    let origin = Origin::serve(move |_| {
        here.notify_one();
        Box::pin(std::future::pending())
    })
    .await;
    let options = Options {
        drain_timeout: std::time::Duration::from_millis(50),
        ..Options::default()
    };
    let entities = [
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ];
    let gateway = Gateway::with(options, &entities);
    let mut client = gateway.client().await;
    let request = Request::get("/").header("host", "a").body(empty()).unwrap();
    let never = tokio::spawn(async move { client.start(request).await });
    arrived.notified().await;
    gateway.shutdown.cancel();
    tokio::time::timeout(PATIENCE, gateway.running.stopped())
        .await
        .unwrap()
        .unwrap();
    assert!(never.await.is_err());
}

#[tokio::test]
async fn a_request_keeps_the_version_it_began_with() {
    let (arrived, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (here, go) = (Arc::clone(&arrived), Arc::clone(&finish));
    let dead = refused().await;
    let origin = Origin::serve(move |_| {
        let (here, go) = (Arc::clone(&here), Arc::clone(&go));
        Box::pin(async move {
            here.notify_one();
            go.notified().await;
            Response::new(reply("old"))
        })
    })
    .await;
    let gateway = Gateway::start(&[
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ]);
    let mut client = gateway.client().await;
    let request = tokio::spawn(async move { client.get("/").await });
    arrived.notified().await;
    gateway.apply(&[service(1, dead, json!({ "retries": 0 }))]);
    assert_eq!(gateway.get("/").await.status, 502);
    finish.notify_one();
    assert_eq!(request.await.unwrap().body, "old");
}
