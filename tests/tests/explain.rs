//! Why a request goes where it goes, asked of the past and of a live data plane, on a real cluster.

#![cfg(test)]

use serde_json::{Value, json};
use sluice_tests::cluster::{Cluster, PATIENCE};
use sluice_tests::processes::command;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Output;

/// What has not been asked for does not come out.
const CANARY: &str = "canary-of-a-header";
/// Nobody listens there.
const NOBODY: &str = "http://127.0.0.1:1";

fn explain(admin: &str, arguments: &[&str]) -> Output {
    let mut command = command("sluice").unwrap();
    command.arg("explain").args(arguments);
    command.arg(format!("--admin-url={admin}"));
    command.output().unwrap()
}

/// What it prints if a route takes the request.
fn said(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = explain(&cluster.controls[0].url(), arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{arguments:?}: {complaint}\n{text}"
    );
    text
}

/// The line that says both.
fn line<'a>(said: &'a str, one: &str, two: &str) -> &'a str {
    let mut lines = said.lines();
    let line = lines.find(|line| line.contains(one) && line.contains(two));
    line.unwrap_or_else(|| panic!("no line has '{one}' and '{two}':\n{said}"))
}

fn apply(cluster: &Cluster, who: (&str, &str), file: &Value) -> u64 {
    let headers = [("sluice-actor", who.0), ("sluice-reason", who.1)];
    let answer = cluster.admin(0).post(
        "/apply",
        "application/json",
        &headers,
        file.to_string().as_bytes(),
    );
    let answer = answer.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.version.unwrap()
}

fn limit(minute: u16) -> Value {
    json!({"name": "rate-limiting", "config": {"minute": minute, "policy": "local"}})
}

fn file(cluster: &Cluster, of_route: &[Value]) -> Value {
    let shop = json!({
        "name": "shop", "host": "pool", "plugins": [limit(100)],
        "routes": [
            {"name": "api", "paths": ["/api"]},
            {"name": "api-v1", "paths": ["/api/v1"], "plugins": of_route},
            {"name": "pay", "paths": ["/api/v1/pay"], "methods": ["POST"], "headers": {"x-key": ["1"]}},
        ],
    });
    let target = json!({"target": cluster.origin.to_string()});
    json!({
        "_format_version": "3.0", "services": [shop], "upstreams": [{"name": "pool", "targets": [target]}],
        "plugins": [{"name": "cors", "enabled": false}],
    })
}

/// A shop, and a later change by somebody else. Gives back both versions.
fn shop(cluster: &Cluster) -> (u64, u64) {
    let opened = apply(cluster, ("ann", "open the shop"), &file(cluster, &[]));
    let tighter = file(cluster, &[limit(5)]);
    let changed = apply(cluster, ("bob", "a tighter limit"), &tighter);
    cluster.converge().unwrap();
    (opened, changed)
}

const URL: &str = "http://test/api/v1/items?x=1";

#[test]
fn the_way_of_a_request_is_explained_at_any_version_with_who_changed_what() {
    let cluster = Cluster::start(1, 0).unwrap();
    let (opened, changed) = shop(&cluster);
    let now = said(&cluster, &["GET", URL, "-H", &format!("x-key: {CANARY}")]);
    let first = now.lines().next().unwrap();
    let expected = format!("GET {URL}, at version {changed}: sent to http://pool/items?x=1");
    assert_eq!(first, expected);
    let by_ann = format!("version {opened} by ann, ");
    assert!(line(&now, "api-v1, by its path /api/v1", &by_ann).ends_with("\"open the shop\""));
    line(&now, "pool, round-robin", &by_ann);
    line(&now, &cluster.origin.to_string(), "weight 100");
    line(&now, "api ", "its path /api is shorter than /api/v1");
    let runs = line(&now, "rate-limiting", "of the route");
    let by_bob = format!("version {changed} by bob, ");
    assert!(
        runs.contains(&by_bob) && runs.contains("a tighter limit"),
        "{now}"
    );
    line(&now, "of the service", "hidden by that of the route");
    line(&now, "cors", "disabled");
    assert!(!now.contains(CANARY), "{now}");

    let then = said(&cluster, &["GET", URL, &format!("--at={opened}")]);
    line(&then, "rate-limiting", "of the service");
    assert!(!then.contains("hidden") && !then.contains("bob"), "{then}");

    let near = ["POST", "http://test/api/v1/pay"];
    let near = said(&cluster, &near);
    line(&near, "pay ", "it asks for the header x-key: 1");
}

#[test]
fn a_live_data_plane_explains_the_same_and_knows_addresses() {
    let cluster = Cluster::start(1, 1).unwrap();
    shop(&cluster);
    assert_eq!(cluster.request(0, "/api/v1/items", "").unwrap(), 200);
    let node = format!("--node={}", cluster.datas[0].status_url());
    let live = said(&cluster, &["GET", URL, &node]);
    line(&live, &cluster.origin.to_string(), "weight 100, unchecked");
    line(&live, "rate-limiting", "by bob");

    let parsed =
        |arguments: &[&str]| -> Value { serde_json::from_str(&said(&cluster, arguments)).unwrap() };
    let mut live = parsed(&["GET", URL, &node, "--json"]);
    let mut past = parsed(&["GET", URL, "--json"]);
    assert_eq!(live["upstream"]["usable"], true);
    for explanation in [&mut live, &mut past] {
        explanation["upstream"] = Value::Null;
    }
    assert_eq!(live, past);

    // Who changed what is not the data plane's to say.
    let alone = explain(NOBODY, &["GET", URL, &node]);
    let text = String::from_utf8(alone.stdout).unwrap();
    assert!(alone.status.success(), "{text}");
    assert!(
        text.contains("note: who last changed what is not known"),
        "{text}"
    );
    line(&text, "api-v1", "version");
}

#[test]
fn a_request_that_no_route_takes_is_explained_and_nonsense_is_refused() {
    let cluster = Cluster::start(1, 0).unwrap();
    shop(&cluster);
    let admin = cluster.controls[0].url();
    let lost = explain(&admin, &["DELETE", "http://test/apo"]);
    assert_eq!(lost.status.code(), Some(1));
    let text = String::from_utf8(lost.stdout).unwrap();
    line(&text, "answered with 404", "no Route matched");
    line(&text, "api ", "the path /apo does not begin with /api");
    let complaint = |arguments: &[&str]| {
        let output = explain(&admin, arguments);
        assert!(
            !output.status.success() && output.stdout.is_empty(),
            "{arguments:?}"
        );
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(complaint(&["GET", URL, "--at=999"]).contains("999"));
    assert!(complaint(&["GET", "/api"]).contains("names no host"));
    assert!(complaint(&["GET", URL, "-H", "nonsense"]).contains("not a header"));
    assert!(complaint(&["GET", URL, "--node", NOBODY]).contains("--node"));
    let elsewhere = complaint(&["GET", URL, "--node", &admin]);
    assert!(elsewhere.contains("not the status listener"), "{elsewhere}");
}

/// Sends a question by hand, and gives the status of its answer.
fn asked_by_hand(cluster: &Cluster, method: &str, host: &str, body: &str) -> u16 {
    let url = cluster.datas[0].status_url();
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} /explain HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_data_plane_explains_to_its_own_machine_only() {
    let cluster = Cluster::start(1, 1).unwrap();
    cluster.converge().unwrap();
    let question = json!({"method": "GET", "url": URL}).to_string();
    for (method, host, body, expected) in [
        ("POST", "127.0.0.1:8007", &*question, 200),
        ("POST", "localhost", &*question, 200),
        ("POST", "[::1]:8007", &*question, 200),
        // A page whose name somebody has made one of this machine.
        ("POST", "evil.example", &*question, 403),
        ("GET", "127.0.0.1:8007", "", 405),
        ("POST", "127.0.0.1:8007", "{}", 400),
        (
            "POST",
            "127.0.0.1:8007",
            r#"{"method": "GET", "url": "http://a/", "more": 1}"#,
            400,
        ),
    ] {
        let status = asked_by_hand(&cluster, method, host, body);
        assert_eq!(status, expected, "{method} {host} {body}");
    }
}
