//! The log as the Admin API shows it.

use crate::server::Server;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::test]
async fn the_log_tells_who_changed_what_and_why() {
    let server = Server::start().await;
    let start = server.version();
    let headers = [
        ("sluice-actor", "ann"),
        ("sluice-reason", "über alles"),
        ("x-request-id", "req-1"),
    ];
    let service = json!({"name": "s", "host": "a.example"});
    let answer = server.send("POST", "/services", &headers, service).await;
    assert_eq!(answer.header("x-request-id"), Some("req-1"));
    server.check("DELETE", "/services/s", Value::Null).await;

    let (status, list) = server.check("GET", "/log/events", Value::Null).await;
    let events = list["data"].as_array().unwrap();
    assert_eq!((status, events.len() as u64), (200, start + 2));
    let event = &events[events.len() - 2];
    assert_eq!(event["version"], start + 1);
    let actor = json!({"name": "ann", "via": "admin-api", "address": "127.0.0.1"});
    assert_eq!(
        (&event["actor"], &event["reason"]),
        (&actor, &json!("über alles"))
    );
    assert_eq!(event["request_id"], "req-1");
    assert_eq!(event["key"], server.control_plane.info.signing_key);
    let mutation = &event["mutations"][0];
    assert_eq!(
        (&mutation["op"], &mutation["name"]),
        (&json!("put"), &json!("s"))
    );
    assert_eq!(mutation.get("body"), None);
    assert_eq!(events[events.len() - 1]["mutations"][0]["op"], "delete");

    let one = format!("/log/events/{}", start + 1);
    let (status, event) = server.check("GET", &one, Value::Null).await;
    assert_eq!(
        (status, &event["mutations"][0]["body"]["host"]),
        (200, &json!("a.example"))
    );
    let (_, head) = server.check("GET", "/log/head", Value::Null).await;
    assert_eq!(
        (&head["version"], &head["last"]),
        (&json!(start + 2), &json!(start + 2))
    );
    assert_eq!(
        (&head["first"], &head["connected"]),
        (&json!(1), &json!(true))
    );
    assert_eq!(events[events.len() - 1]["digest"], head["digest"]);
    for missing in ["/log/events/0", "/log/events/x", "/log/events/999"] {
        assert_eq!(
            server.check("GET", missing, Value::Null).await.0,
            404,
            "{missing}"
        );
    }
}

#[tokio::test]
async fn events_are_paged_forwards_and_begin_with_the_newest_page() {
    let server = Server::start().await;
    for number in 0..5 {
        server
            .create("/consumers", json!({"username": format!("c{number}")}))
            .await;
    }
    let last = server.version();
    let (_, newest) = server.check("GET", "/log/events?size=2", Value::Null).await;
    let versions: Vec<_> = newest["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| &event["version"])
        .collect();
    assert_eq!(
        (versions, &newest["next"]),
        (vec![&json!(last - 1), &json!(last)], &Value::Null)
    );
    let mut next = json!("/log/events?from=1&size=4");
    let mut seen = Vec::new();
    while let Some(path) = next.as_str() {
        let (_, page) = server.check("GET", path, Value::Null).await;
        seen.extend(
            page["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|event| event["version"].as_u64().unwrap()),
        );
        next = page["next"].clone();
    }
    assert_eq!(seen, (1..=last).collect::<Vec<_>>());
}

#[tokio::test]
async fn following_the_log_shows_what_was_and_what_comes() {
    let server = Server::start().await;
    server
        .create("/consumers", json!({"username": "before"}))
        .await;
    let path = format!("/log/events?follow=1&from={}", server.version());
    let stream = server.open("GET", &path, &[], "").await;
    let mut lines = BufReader::new(stream).lines();
    while !lines.next_line().await.unwrap().unwrap().is_empty() {}
    let mut names = Vec::new();
    for name in ["before", "one", "two"] {
        if name != "before" {
            server.create("/consumers", json!({"username": name})).await;
        }
        let line = lines.next_line().await.unwrap().expect("a line per event");
        let event: Value = serde_json::from_str(&line).unwrap();
        names.push(event["mutations"][0]["name"].as_str().unwrap().to_owned());
    }
    assert_eq!(names, ["before", "one", "two"]);
    // It does not hold up the end.
    server.shutdown.cancel();
    assert_eq!(lines.next_line().await.unwrap(), None);
}
