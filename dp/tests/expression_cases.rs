//! Expressions against Kong's own router: what it said of them is data, made by `benches/peers`.
#![allow(clippy::unwrap_used, reason = "all of this is a test")]

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use sluice_dp::table::{RequestHead, Table};
use sluice_schema::entity::{Body, Change, Entry, Id, Key, Workspace};
use sluice_schema::kind::Kind;
use sluice_schema::version::Version;
use std::net::SocketAddr;
use uuid::Uuid;

#[test]
fn expressions_say_what_kong_says() {
    let cases = std::fs::read_to_string(format!(
        "{}/tests/data/expression-cases.json",
        env!("CARGO_MANIFEST_DIR")
    ));
    let cases: Value = serde_json::from_str(&cases.unwrap()).unwrap();
    let requests = cases["requests"].as_array().unwrap();
    let wrong = |case: &Value| {
        let expression = case["expression"].as_str().unwrap();
        let said = holds(expression, requests);
        (said != case["holds"]).then(|| format!("{expression}: {said}, expected {}", case["holds"]))
    };
    let wrong: Vec<_> = cases["cases"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(wrong)
        .collect();
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// For each request whether the expression holds; null if it is refused.
fn holds(expression: &str, requests: &[Value]) -> Value {
    let fields = json!({
        "protocols": ["http", "https"], "https_redirect_status_code": 426, "regex_priority": 0, "strip_path": false,
        "path_handling": "v0", "preserve_host": false, "request_buffering": true, "response_buffering": true,
        "expression": expression, "priority": 0,
    });
    let change = Change {
        key: Key {
            kind: Kind::Route.key_name(),
            workspace: Workspace::DEFAULT,
            id: Id(Uuid::nil()),
        },
        before: None,
        after: Some(Entry {
            version: Version(1),
            body: Body::encode(fields.as_object().unwrap()),
        }),
    };
    let (table, rejected) = Table::empty().apply(Version(1), &[change]);
    if !rejected.is_empty() {
        return Value::Null;
    }
    requests
        .iter()
        .map(|request| is_found(&table, request))
        .collect()
}

fn is_found(table: &Table, request: &Value) -> bool {
    let text = |name: &str| request[name].as_str().unwrap();
    let mut headers = HeaderMap::new();
    for header in request["headers"].as_array().unwrap() {
        let name: HeaderName = header[0].as_str().unwrap().parse().unwrap();
        headers.append(
            name,
            HeaderValue::from_str(header[1].as_str().unwrap()).unwrap(),
        );
    }
    let port = request["port"].as_u64().unwrap().try_into().unwrap();
    let destination = SocketAddr::new(text("destination").parse().unwrap(), port);
    let found = table.find(&RequestHead {
        method: text("method"),
        host: text("host"),
        port,
        path: text("path"),
        query: request["query"].as_str(),
        headers: &headers,
        sni: request["sni"].as_str(),
        tls: request["tls"] == true,
        source: text("source").parse().unwrap(),
        destination,
    });
    found.is_some()
}
