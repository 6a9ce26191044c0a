//! What passes through the proxy, and what it says when nothing may.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use bytes::Bytes;
use common::*;
use http::Request;
use serde_json::json;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_request_reaches_its_service_and_the_answer_its_client() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&[
        service(1, origin.address, json!({ "path": "/base" })),
        route(2, json!({ "paths": ["/api"] })),
    ]);
    let reply = gateway
        .client()
        .await
        .get_with("/api/v1/x?q=1&q=2", &[("accept", "text/html")])
        .await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("x-origin"), Some("yes"));
    assert_eq!(reply.json()["uri"], "/base/v1/x?q=1&q=2");
    assert_eq!(reply.received("accept").as_deref(), Some("text/html"));
    let expected = format!("127.0.0.1:{}", origin.address.port());
    assert_eq!(reply.received("host"), Some(expected));
    for (name, value) in [
        ("x-forwarded-for", "127.0.0.1"),
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "gateway.test"),
        ("x-forwarded-port", &*gateway.address.port().to_string()),
        ("x-forwarded-path", "/api/v1/x"),
        ("x-forwarded-prefix", "/api"),
        ("via", concat!("1.1 sluice/", env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(reply.received(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(
        reply.header("via"),
        Some(concat!("1.1 sluice/", env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(
        reply.header("server"),
        Some(concat!("sluice/", env!("CARGO_PKG_VERSION")))
    );
    let id = reply.header("x-kong-request-id").unwrap();
    assert!(
        id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{id}"
    );
    assert_eq!(reply.received("x-kong-request-id").as_deref(), Some(id));
    assert!(
        reply
            .header("x-kong-upstream-latency")
            .unwrap()
            .parse::<u64>()
            .is_ok()
    );
    assert!(
        reply
            .header("x-kong-proxy-latency")
            .unwrap()
            .parse::<u64>()
            .is_ok()
    );
}

#[tokio::test]
async fn paths_are_stripped_kept_and_canonical_as_the_route_says() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&[
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/kept"], "strip_path": false })),
        route(3, json!({ "paths": ["/gone"] })),
        route(4, json!({ "paths": ["~/v\\d+"] })),
    ]);
    let mut client = gateway.client().await;
    for (path, expected) in [
        ("/kept/a", "/kept/a"),
        ("/kept?", "/kept?"),
        ("/gone/a?x=%20", "/a?x=%20"),
        ("/gone", "/"),
        ("/x/../%67one//b/./c%2f", "/b/c%2F"),
        ("/v12/users", "/users"),
    ] {
        assert_eq!(client.get(path).await.json()["uri"], expected, "{path}");
    }
}

#[tokio::test]
async fn the_host_sent_upstream_is_the_routes_choice() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&[
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/kept"], "preserve_host": true })),
    ]);
    let mut client = gateway.client().await;
    let reply = client
        .get_with("/kept", &[("host", "Example.com:8000")])
        .await;
    assert_eq!(reply.received("host").as_deref(), Some("example.com:8000"));
    assert_eq!(
        reply.received("x-forwarded-host").as_deref(),
        Some("example.com")
    );
}

#[tokio::test]
async fn without_a_route_the_answer_is_404_in_the_format_the_client_accepts() {
    let gateway = Gateway::start(&[]);
    let mut client = gateway.client().await;
    let reply = client.get("/").await;
    assert_eq!(reply.status, 404);
    assert_eq!(reply.message(), "no Route matched with those values");
    assert_eq!(
        reply.json()["request_id"],
        reply.header("x-kong-request-id").unwrap()
    );
    assert_eq!(
        reply.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    assert!(reply.header("x-kong-response-latency").is_some());
    assert!(reply.header("via").is_none());
    let reply = client.get_with("/", &[("accept", "text/html")]).await;
    assert!(reply.body.starts_with(b"<!doctype html>"));
}

#[tokio::test]
async fn a_route_for_https_only_asks_for_https() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&[
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/a"], "protocols": ["https"] })),
        route(
            3,
            json!({ "paths": ["/b"], "protocols": ["https"], "https_redirect_status_code": 301 }),
        ),
        route(4, json!({ "paths": ["/c"], "protocols": ["grpc"] })),
    ]);
    let mut client = gateway.client().await;
    let reply = client.get("/a").await;
    assert_eq!(
        (reply.status.as_u16(), reply.message()),
        (426, "Please use HTTPS protocol".into())
    );
    assert_eq!(reply.header("upgrade"), Some("TLS/1.2, HTTP/1.1"));
    let reply = gateway.client().await.get("/b?c=d").await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("location")),
        (301, Some("https://gateway.test/b?c=d"))
    );
    assert_eq!(gateway.get("/c").await.status, 415);
}

#[tokio::test]
async fn a_route_without_a_usable_service_says_so() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&[
        service(1, origin.address, json!({ "enabled": false })),
        service(2, origin.address, json!({ "protocol": "https" })),
        route(3, json!({ "paths": ["/disabled"] })),
        route(4, json!({ "paths": ["/tls"], "service": reference(2) })),
        route(5, json!({ "paths": ["/none"], "service": null })),
    ]);
    let mut client = gateway.client().await;
    assert_eq!(client.get("/disabled").await.status, 404);
    assert_eq!(client.get("/tls").await.status, 502);
    let reply = client.get("/none").await;
    assert_eq!(
        (reply.status.as_u16(), reply.message()),
        (503, "no Service found with those values".into())
    );
}

#[tokio::test]
async fn what_a_client_may_not_say_is_not_passed_on() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&[
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ]);
    let forged = [
        ("x-consumer-id", "admin"),
        ("x-consumer-username", "admin"),
        ("x-credential-identifier", "admin"),
        ("x-anonymous-consumer", "true"),
        ("x_forwarded_for", "10.0.0.1"),
        ("proxy", "evil"),
        ("keep-alive", "timeout=5"),
        ("connection", "x-hop, x-real-ip"),
        ("x-hop", "1"),
        ("upgrade", "websocket"),
    ];
    let told = [
        ("x-forwarded-for", "10.0.0.1"),
        ("x-real-ip", "10.0.0.1"),
        ("x-forwarded-proto", "https"),
    ];
    let reply = gateway
        .client()
        .await
        .get_with("/", &[&forged[..], &told[..]].concat())
        .await;
    for (name, _) in forged {
        assert_eq!(reply.received(name), None, "{name}");
    }
    assert_eq!(
        reply.received("x-forwarded-for").as_deref(),
        Some("10.0.0.1, 127.0.0.1")
    );
    assert_eq!(reply.received("x-real-ip").as_deref(), Some("127.0.0.1"));
    assert_eq!(reply.received("x-forwarded-proto").as_deref(), Some("http"));
}

#[tokio::test]
async fn hop_headers_of_an_upstream_stay_behind() {
    let origin = Origin::serve(|_| {
        Box::pin(async {
            http::Response::builder()
                .header("connection", "x-hop")
                .header("x-hop", "1")
                .header("keep-alive", "timeout=5")
                .header("server", "origin")
                .header("via", "1.1 other")
                .body(reply("done"))
                .unwrap()
        })
    })
    .await;
    let gateway = Gateway::start(&[
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ]);
    let reply = gateway.get("/").await;
    assert_eq!(
        [
            reply.header("x-hop"),
            reply.header("keep-alive"),
            reply.header("connection")
        ],
        [None; 3]
    );
    assert_eq!(reply.header("server"), Some("origin"));
    assert_eq!(
        reply.header("via"),
        Some(concat!("1.1 other, 1.1 sluice/", env!("CARGO_PKG_VERSION")))
    );
}

#[tokio::test]
async fn methods_bodies_and_statuses_pass_unchanged() {
    let origin = Origin::serve(|request| {
        Box::pin(async move {
            let status: u16 = request.uri().path()[1..].parse().unwrap();
            http::Response::builder()
                .status(status)
                .body(reply(if status == 204 { "" } else { "body" }))
                .unwrap()
        })
    })
    .await;
    let gateway = Gateway::start(&[
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ]);
    let mut client = gateway.client().await;
    for status in [200, 201, 204, 301, 304, 400, 418, 500, 503] {
        assert_eq!(client.get(&format!("/{status}")).await.status, status);
    }
    let head = Request::head("/200")
        .header("host", "a")
        .body(empty())
        .unwrap();
    let reply = client.send(head).await;
    assert_eq!(
        (reply.header("content-length"), &reply.body),
        (Some("4"), &Bytes::new())
    );
}

#[tokio::test]
async fn requests_share_a_connection_in_turn_and_in_a_pipeline() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&[
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ]);
    let mut client = gateway.client().await;
    for number in 0..20 {
        let path = format!("/{number}");
        assert_eq!(client.get(&path).await.json()["uri"], path);
    }
    // A client can be faster with its next request than the connection is back in the pool.
    let accepted = origin.accepted.load(Ordering::Relaxed);
    assert!(
        accepted <= 3,
        "{accepted} upstream connections for 20 requests in turn"
    );
    let mut pipeline = String::new();
    for number in 0..20 {
        pipeline += &format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    }
    pipeline += "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let received = raw(gateway.address, pipeline.as_bytes()).await;
    assert_eq!(statuses(&received), vec![200; 21]);
    let places: Vec<_> = (0..20)
        .map(|number| received.find(&format!("\"uri\":\"/{number}\"")).unwrap())
        .collect();
    assert!(places.is_sorted());
    assert_eq!(gateway.shared.metrics.connections().requests, 41);
}

#[tokio::test]
async fn http_1_0_is_answered_and_closed() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&[
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ]);
    let received = raw(gateway.address, b"GET /old HTTP/1.0\r\n\r\n").await;
    assert_eq!(statuses(&received), [200]);
    assert!(received.contains("\"uri\":\"/old\""));
}

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_it() {
    let origin = Origin::echo().await;
    let gateway = Gateway::start(&[
        service(1, origin.address, json!({})),
        route(2, json!({ "paths": ["/"] })),
    ]);
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: 5\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.contains("\"body\":\"hello\"") && !answer.contains("\"expect\""),
        "{answer}"
    );
}

#[tokio::test]
async fn several_workers_share_one_port() {
    let origin = Origin::echo().await;
    let options = sluice_dp::proxy::Options {
        workers: 3,
        ..Default::default()
    };
    let gateway = Gateway::with(
        options,
        &[
            service(1, origin.address, json!({})),
            route(2, json!({ "paths": ["/"] })),
        ],
    );
    for _ in 0..30 {
        assert_eq!(gateway.get("/").await.status, 200);
    }
    assert_eq!(gateway.shared.metrics.connections().accepted, 30);
    gateway.shutdown.cancel();
    gateway.running.stopped().await.unwrap();
}

#[tokio::test]
async fn a_route_may_ask_for_arguments_of_the_query() {
    let origin = Origin::echo().await;
    let expression = json!({ "expression": r#"http.queries.a == "b""#, "priority": 1 });
    let gateway = Gateway::start(&[service(1, origin.address, json!({})), route(2, expression)]);
    assert_eq!(gateway.get("/x?c=d&a=b").await.status, 200);
    assert_eq!(gateway.get("/x?a=c").await.status, 404);
}
