//! `file-log`, `http-log`, `tcp-log`, `udp-log`, `loggly`: what they say, and to whom.

use crate::common::consistency::is_consistent;
use crate::common::secure;
use crate::common::*;
use crate::listen::*;
use crate::support::*;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// Puts a number on a response, to be found by the harness.
fn show(mut reply: Reply, shown: &str) -> Reply {
    reply.headers.insert("x-shown", shown.parse().unwrap());
    reply
}

fn shown(reply: &Reply) -> Vec<u64> {
    numbers(&[sent(reply, "x-shown")], "v")
}

/// One hundred and fifty edits and the first form.
const FORMS: usize = 151;

#[tokio::test]
async fn the_entry_has_kongs_fields() {
    let sink = HttpSink::start().await;
    let mut entities = key_auth(json!({}));
    entities.push(global(
        30,
        "http-log",
        json!({ "http_endpoint": sink.url("/in") }),
    ));
    let (origin, gateway) = gateway_with(&entities).await;
    let request = http::Request::post("/a%20b/c?x=1&x=2&flag&y=%26")
        .header("host", "a.test:8080")
        .header("apikey", "secret")
        .header("authorization", "Basic abc")
        .header("x-two", "1")
        .header("x-two", "2")
        .body(full("hello"))
        .unwrap();
    let reply = gateway.client().await.send(request).await;
    assert_eq!(reply.status, 200);
    sink.kept.wait(1).await;
    let entry = sink.entries().remove(0);
    let request = &entry["request"];
    assert_eq!(request["method"], "POST");
    assert_eq!(request["uri"], "/a%20b/c?x=1&x=2&flag&y=%26");
    assert_eq!(
        request["url"],
        "http://a.test:8080/a%20b/c?x=1&x=2&flag&y=%26"
    );
    assert_eq!(
        request["querystring"],
        json!({ "x": ["1", "2"], "flag": true, "y": "&" })
    );
    assert_eq!(request["headers"]["x-two"], json!(["1", "2"]));
    assert_eq!(request["headers"]["authorization"], "REDACTED");
    assert_eq!(request["id"], reply.header("x-kong-request-id").unwrap());
    assert!(request["size"].as_u64().unwrap() > 100);
    assert_eq!(entry["response"]["status"], 200);
    assert_eq!(entry["response"]["headers"]["x-origin"], "yes");
    assert!(entry["response"]["size"].as_u64().unwrap() > reply.body.len() as u64);
    assert_eq!(entry["upstream_uri"], "/a%20b/c?x=1&x=2&flag&y=%26");
    assert_eq!(entry["upstream_status"], "200");
    assert_eq!(entry["client_ip"], "127.0.0.1");
    assert_eq!(entry["source"], "upstream");
    assert_eq!(entry["route"]["id"], reference(2)["id"]);
    assert_eq!(entry["route"]["service"], reference(1));
    assert_eq!(entry["service"]["id"], reference(1)["id"]);
    assert_eq!(entry["service"]["port"], origin.address.port());
    assert_eq!(entry["service"]["protocol"], "http");
    assert_eq!(entry["consumer"]["username"], "alice");
    assert_eq!(entry["consumer"]["custom_id"], "a-1");
    assert_eq!(entry["authenticated_entity"], reference(11));
    assert_eq!(entry["workspace_name"], "default");
    assert_eq!(entry["tries"][0]["ip"], "127.0.0.1");
    assert_eq!(entry["tries"][0]["port"], origin.address.port());
    for name in ["request", "kong", "proxy", "receive"] {
        assert!(entry["latencies"][name].is_u64(), "{entry}");
    }
    assert!(entry["started_at"].as_u64().unwrap() > 1_700_000_000_000);
}

#[tokio::test]
async fn requests_that_did_not_get_upstream_are_told_of_too() {
    let sink = HttpSink::start().await;
    let plugin = global(30, "http-log", json!({ "http_endpoint": sink.url("/") }));
    let nowhere = refused().await;
    let base = [
        service(1, nowhere, json!({ "retries": 1 })),
        route(2, json!({ "paths": ["/up"] })),
        plugin,
    ];
    let gateway = Gateway::with(options(), &base);
    assert_eq!(gateway.get("/elsewhere").await.status, 404);
    sink.kept.wait(1).await;
    assert_eq!(gateway.get("/up").await.status, 502);
    sink.kept.wait(2).await;
    let entries = sink.entries();
    let [lost, failed] = &*entries else {
        panic!("{entries:?}")
    };
    assert_eq!(
        (&lost["response"]["status"], &lost["source"]),
        (&404.into(), &"kong".into())
    );
    assert!(lost.get("route").is_none() && lost["tries"] == json!([]));
    assert_eq!(lost["latencies"]["proxy"], -1);
    assert_eq!(failed["response"]["status"], 502);
    let tries = failed["tries"].as_array().unwrap();
    assert!(!tries.is_empty());
    assert_eq!(
        (&tries[0]["state"], &tries[0]["code"]),
        (&"failed".into(), &502.into())
    );
}

#[tokio::test]
async fn http_log_sends_as_it_is_told_and_in_batches() {
    let sink = HttpSink::start().await;
    let url = sink.url("/in?k=v").replace("://", "://user:pass@");
    let config = json!({
        "http_endpoint": url, "method": "PUT", "content_type": "application/json; charset=utf-8",
        "headers": { "X-Extra": "yes" },
        "queue": { "max_batch_size": 3, "max_coalescing_delay": 3600 },
    });
    let (_origin, gateway) = gateway_with(&[global(30, "http-log", config)]).await;
    let mut client = gateway.client().await;
    for path in ["/1", "/2", "/3"] {
        client.get(path).await;
    }
    let (head, body) = sink.kept.wait(1).await.remove(0);
    let paths: Vec<Value> = serde_json::from_str::<Vec<Value>>(&body).unwrap();
    let paths: Vec<_> = paths
        .iter()
        .map(|entry| entry["request"]["uri"].as_str().unwrap())
        .collect();
    assert_eq!(paths, ["/1", "/2", "/3"]);
    assert!(head.starts_with("PUT /in?k=v "), "{head}");
    for part in [
        "application/json; charset=utf-8",
        "\"x-extra\": \"yes\"",
        "Basic dXNlcjpwYXNz",
    ] {
        assert!(head.contains(part), "{head}");
    }
    // The connection is kept.
    for path in ["/4", "/5", "/6"] {
        client.get(path).await;
    }
    sink.kept.wait(2).await;
    assert_eq!(
        sink.origin
            .accepted
            .load(std::sync::atomic::Ordering::SeqCst),
        1
    );
}

#[tokio::test]
async fn http_log_is_consistent() {
    let sink = HttpSink::start().await;
    is_consistent(
        |n| {
            vec![global(
                30,
                "http-log",
                json!({ "http_endpoint": sink.url(&format!("/v{n}")) }),
            )]
        },
        async |client: &mut Client| {
            let reply = client.get("/").await;
            let (head, _) = sink
                .kept
                .find(reply.header("x-kong-request-id").unwrap())
                .await;
            let path = head.split(' ').nth(1).unwrap();
            show(reply, &path[1..])
        },
        shown,
    )
    .await;
}

#[tokio::test]
async fn file_log_writes_lines_and_opens_the_file_anew_if_told_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let file = |reopen: bool| global(30, "file-log", json!({ "path": path, "reopen": reopen }));
    let (_origin, gateway) = gateway_with(&[file(false)]).await;
    let mut client = gateway.client().await;
    let lines = |name: &str| {
        let text = std::fs::read_to_string(directory.path().join(name)).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["request"]["uri"].clone())
            .collect::<Vec<_>>()
    };
    client.get("/1").await;
    until(async || lines("log") == ["/1"]).await;
    std::fs::rename(&path, directory.path().join("old")).unwrap();
    client.get("/2").await;
    until(async || lines("old") == ["/1", "/2"]).await;
    gateway.apply(&[file(true)]);
    client.get("/3").await;
    until(async || lines("log") == ["/3"]).await;
    std::fs::rename(&path, directory.path().join("older")).unwrap();
    client.get("/4").await;
    until(async || lines("log") == ["/4"]).await;
}

#[tokio::test]
async fn file_log_is_consistent() {
    let directory = tempfile::tempdir().unwrap();
    let path = |n: u64| directory.path().join(format!("v{n}"));
    is_consistent(
        |n| vec![global(30, "file-log", json!({ "path": path(n) }))],
        async |client: &mut Client| {
            let reply = client.get("/").await;
            let id = reply.header("x-kong-request-id").unwrap().to_owned();
            let find = || {
                let files = std::fs::read_dir(directory.path()).unwrap();
                let mut paths = files.map(|file| file.unwrap().path());
                paths
                    .find(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains(&id)))
            };
            until(async || find().is_some()).await;
            let name = find()
                .unwrap()
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            show(reply, &name)
        },
        shown,
    )
    .await;
}

#[tokio::test]
async fn tcp_log_sends_lines_over_one_connection() {
    let kept = Kept::default();
    let address = lines(&kept, "plain", None).await;
    let config = json!({ "host": "127.0.0.1", "port": address.port() });
    let (_origin, gateway) = gateway_with(&[global(30, "tcp-log", config)]).await;
    let mut client = gateway.client().await;
    for number in 1..=3 {
        client.get(&format!("/{number}")).await;
        kept.wait(number).await;
    }
    for (number, (name, line)) in kept.all().into_iter().enumerate() {
        let entry: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&*name, &entry["request"]["uri"]),
            ("plain#1", &format!("/{}", number + 1).into())
        );
    }
}

#[tokio::test]
async fn tcp_log_speaks_tls() {
    let kept = Kept::default();
    let config = secure::Ca::new().issue(&["sink.test"]).server(&[], None);
    let address = lines(&kept, "tls", Some(config)).await;
    let config =
        json!({ "host": "127.0.0.1", "port": address.port(), "tls": true, "tls_sni": "sink.test" });
    let (_origin, gateway) = gateway_with(&[global(30, "tcp-log", config)]).await;
    gateway.get("/x").await;
    assert!(kept.wait(1).await[0].1.contains("\"uri\":\"/x\""));
}

async fn udp_sinks(kept: &Kept) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for n in 0..FORMS {
        addresses.push(datagrams(kept, &format!("v{n}")).await);
    }
    addresses
}

fn form(n: u64) -> usize {
    usize::try_from(n).unwrap()
}

#[tokio::test]
async fn udp_log_is_consistent() {
    let kept = Kept::default();
    let addresses = udp_sinks(&kept).await;
    is_consistent(
        |n| {
            let config = json!({ "host": "127.0.0.1", "port": addresses[form(n)].port() });
            vec![global(30, "udp-log", config)]
        },
        async |client: &mut Client| {
            let reply = client.get("/").await;
            let (name, text) = kept.find(reply.header("x-kong-request-id").unwrap()).await;
            serde_json::from_str::<Value>(&text).unwrap();
            show(reply, &name)
        },
        shown,
    )
    .await;
}

#[tokio::test]
async fn tcp_log_is_consistent() {
    let kept = Kept::default();
    let mut addresses = Vec::new();
    for n in 0..FORMS {
        addresses.push(lines(&kept, &format!("v{n}"), None).await);
    }
    is_consistent(
        |n| {
            let config = json!({ "host": "127.0.0.1", "port": addresses[form(n)].port() });
            vec![global(30, "tcp-log", config)]
        },
        async |client: &mut Client| {
            let reply = client.get("/").await;
            let (name, _) = kept.find(reply.header("x-kong-request-id").unwrap()).await;
            show(reply, name.split('#').next().unwrap())
        },
        shown,
    )
    .await;
}

#[tokio::test]
async fn loggly_has_the_token_the_tags_and_the_severity_of_the_status() {
    let kept = Kept::default();
    let address = datagrams(&kept, "loggly").await;
    let config = json!({
        "host": "127.0.0.1", "port": address.port(), "key": "token", "tags": ["one", "two"],
        "log_level": "warning", "successful_severity": "notice", "client_errors_severity": "crit",
    });
    let base = [
        route(2, json!({ "paths": ["/"], "service": null })),
        global(30, "loggly", config),
    ];
    let gateway = Gateway::with(options(), &base);
    // No service: 503, an error of the server and below the level by its default severity.
    assert_eq!(gateway.get("/quiet").await.status, 503);
    gateway.remove(&base[..1]);
    assert_eq!(gateway.get("/loud").await.status, 404);
    let (_, text) = kept.wait(1).await.remove(0);
    let (head, entry) = text.split_at(text.find('{').unwrap());
    assert!(head.starts_with("<10>1 20"), "{head}");
    assert!(
        head.ends_with(" kong - - [token@41058 tag=\"one\" tag=\"two\"] "),
        "{head}"
    );
    let entry: Value = serde_json::from_str(entry).unwrap();
    assert_eq!(entry["request"]["uri"], "/loud");
}

#[tokio::test]
async fn loggly_is_consistent() {
    let kept = Kept::default();
    let address = datagrams(&kept, "loggly").await;
    is_consistent(
        |n| {
            let tag = format!("v{n}");
            let config =
                json!({ "host": "127.0.0.1", "port": address.port(), "key": "k", "tags": [tag] });
            vec![global(30, "loggly", config)]
        },
        async |client: &mut Client| {
            let reply = client.get("/").await;
            let (_, text) = kept.find(reply.header("x-kong-request-id").unwrap()).await;
            let tag = text
                .split("tag=\"")
                .nth(1)
                .unwrap()
                .split('"')
                .next()
                .unwrap()
                .to_owned();
            show(reply, &tag)
        },
        shown,
    )
    .await;
}
