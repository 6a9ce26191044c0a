//! What the access log says of requests, and what it does not.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use common::*;
use serde_json::{Value, json};
use sluice_dp::access_log::{Destination, Format, Settings};
use sluice_dp::proxy::Options;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

fn logging(path: &Path, format: Format) -> Options {
    Options {
        access_log: Settings {
            destination: Destination::File(path.to_owned()),
            format,
            ..Settings::default()
        },
        ..Options::default()
    }
}

fn entities(origin: &Origin) -> [Entity; 2] {
    [
        service(1, origin.address, json!({ "name": "shop" })),
        route(
            2,
            json!({ "name": "all", "paths": ["/x"], "strip_path": false }),
        ),
    ]
}

async fn stop(gateway: Gateway) {
    gateway.shutdown.cancel();
    let stopped = tokio::time::timeout(PATIENCE, gateway.running.stopped()).await;
    stopped.unwrap().unwrap();
}

fn lines(path: &PathBuf) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn each_request_has_a_line_with_who_served_it_and_how() {
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("access.log");
    let origin = Origin::echo().await;
    let gateway = Gateway::with(logging(&path, Format::Json), &entities(&origin));
    let mut client = gateway.client().await;
    let headers = [
        ("user-agent", "test \"1\""),
        ("referer", "http://b/?token=secret"),
        ("authorization", "secret"),
    ];
    let reply = client
        .get_with("/x/%7e?apikey=secret&page=2", &headers)
        .await;
    let id = reply.header("x-kong-request-id").unwrap().to_owned();
    gateway.apply(&[]);
    let post = http::Request::post("/x")
        .header("host", "gateway.test")
        .body(full("hello"))
        .unwrap();
    client.send(post).await;
    assert_eq!(client.get("/none?secret").await.status, 404);
    stop(gateway).await;

    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("secret"), "{text}");
    let [first, second, third] = &lines(&path)[..] else {
        panic!("{text}")
    };
    let sent = reply.body.len();
    for (name, value) in [
        ("request_id", json!(id)),
        ("client_ip", json!("127.0.0.1")),
        ("method", json!("GET")),
        ("host", json!("gateway.test")),
        ("uri", json!("/x/%7e?apikey=*&page=*")),
        ("protocol", json!("HTTP/1.1")),
        ("referer", json!("http://b/")),
        ("user_agent", json!("test \"1\"")),
        ("status", json!(200)),
        ("bytes_sent", json!(sent)),
        ("complete", json!(true)),
        ("config_version", json!(1)),
        ("workspace", json!("default")),
        ("route", json!("all")),
        ("service", json!("shop")),
        ("upstream", json!(origin.address.to_string())),
    ] {
        assert_eq!(first[name], value, "{name}");
    }
    for name in ["request", "kong", "proxy"] {
        assert!(first["latencies"][name].is_u64(), "{name}");
    }
    assert_eq!(
        (&second["config_version"], &second["bytes_received"]),
        (&json!(2), &json!(5))
    );
    assert_eq!(
        (&third["status"], &third["route"], &third["upstream"]),
        (&json!(404), &Value::Null, &Value::Null)
    );
    assert_eq!(third["uri"], "/none?*");
}

#[tokio::test]
async fn a_response_that_is_cut_off_says_so() {
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("access.log");
    let origin = Origin::serve(|_| {
        Box::pin(async { http::Response::new(reply(vec![b'a'; 64 * 1024 * 1024])) })
    })
    .await;
    let gateway = Gateway::with(logging(&path, Format::Text), &entities(&origin));
    let mut stream = tokio::net::TcpStream::connect(gateway.address)
        .await
        .unwrap();
    stream
        .write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    stream.readable().await.unwrap();
    drop(stream);
    stop(gateway).await;
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text.starts_with("127.0.0.1 - - [") && text.ends_with(" cut off\n"),
        "{text}"
    );
    assert!(text.contains("\"GET /x HTTP/1.1\" 200 "), "{text}");
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_made_anew_when_asked() {
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("access.log");
    let old = files.path().join("access.log.1");
    let origin = Origin::echo().await;
    let gateway = Gateway::with(logging(&path, Format::Json), &entities(&origin));
    gateway.get("/x/1").await;
    let written = async |path: &PathBuf| {
        let wait = async {
            while std::fs::metadata(path).map_or(0, |file| file.len()) == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait)
            .await
            .expect("a line within a second or so");
    };
    written(&path).await;
    std::fs::rename(&path, &old).unwrap();
    gateway.running.access_log().reopen();
    gateway.get("/x/2").await;
    written(&path).await;
    assert_eq!(lines(&old)[0]["uri"], "/x/1");
    assert_eq!(lines(&path)[0]["uri"], "/x/2");
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_an_error_at_the_start() {
    let options = logging(Path::new("/nonexistent/access.log"), Format::Text);
    let tables = std::sync::Arc::new(arc_swap::ArcSwap::from_pointee(
        sluice_dp::table::Table::empty(),
    ));
    let shared = sluice_dp::proxy::Shared::default();
    let started = sluice_dp::proxy::Proxy::start(options, &tables, &shared, &Default::default());
    let error = started.unwrap_err().to_string();
    assert!(error.contains("/nonexistent/access.log"), "{error}");
}
