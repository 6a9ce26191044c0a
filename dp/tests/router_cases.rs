//! Kong's own router tests (flavor `traditional_compatible`), as data, against the table.
#![allow(clippy::unwrap_used, reason = "all of this is a test")]

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use sluice_dp::table::{
    Match, RequestHead, StreamHead, StreamProtocol, Table, canonical_path, upstream_path,
};
use sluice_schema::entity::{Body, Change, Entry, Id, Key, Workspace};
use sluice_schema::kind::Kind;
use sluice_schema::version::Version;
use std::net::SocketAddr;
use uuid::Uuid;

/// Cases whose result differs from Kong's on purpose: part of the name, request URI, reason.
/// Argued in decision 0030.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    (
        "works with special characters",
        "/\\d",
        "a raw backslash is refused: some upstreams read it as a slash (reference/reliability.md 3.3)",
    ),
    (
        "SNI-based routing does work using tls_passthrough",
        "/",
        "the case does not say which server name the client asked for: the same request twice, with different results",
    ),
];
/// How many cases they are.
const EXCEPTIONAL_CASES: usize = 3;

#[test]
fn the_cases_give_the_results_of_kong() {
    let cases = std::fs::read_to_string(format!(
        "{}/tests/data/router-cases.json",
        env!("CARGO_MANIFEST_DIR")
    ));
    let cases: Vec<Value> = serde_json::from_str(&cases.unwrap()).unwrap();
    assert_eq!(cases.len(), 406);
    let is_exception = |case: &Value| {
        let (name, uri) = (case["test"].as_str().unwrap(), case["req"]["uri"].as_str());
        EXCEPTIONS
            .iter()
            .any(|(part, path, _)| name.contains(part) && uri == Some(path))
    };
    let (exceptions, cases): (Vec<_>, Vec<_>) = cases.iter().partition(|case| is_exception(case));
    assert_eq!(exceptions.len(), EXCEPTIONAL_CASES);
    let wrong = |case: &&Value| {
        check(case)
            .err()
            .map(|error| format!("{}: {error}", case["test"]))
    };
    let failures: Vec<_> = cases.iter().filter_map(wrong).collect();
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
    for case in exceptions {
        assert!(
            check(case).is_err(),
            "no longer an exception: {}",
            case["test"]
        );
    }
}

fn check(case: &Value) -> Result<(), String> {
    let routes = case["routes"].as_array().unwrap();
    let changes: Vec<_> = routes.iter().map(change).collect();
    let (table, rejected) = Table::empty().apply(Version(1), &changes);
    if !rejected.is_empty() {
        return Err(format!("rejected: {rejected:?}"));
    }
    let uri = case["req"]["uri"].as_str().unwrap_or_default();
    let path = match case["kind"].as_str() {
        Some("exec") => canonical_path(uri).unwrap_or_default().into_owned(),
        _ => uri.to_owned(),
    };
    let found = match case["subsystem"].as_str() {
        Some("stream") => find_stream(&table, &case["req"]),
        Some(_) | None => find(&table, &case["req"], &path),
    };
    let expect = &case["expect"];
    let id = found.as_ref().map(|found| found.route.id.to_string());
    if expect["route_id"] != "?" && json!(id) != expect["route_id"] {
        return Err(format!("found {id:?}, expected {}", expect["route_id"]));
    }
    let Some(found) = found else {
        return if expect["route_id"] == "?" {
            Err("found nothing".into())
        } else {
            Ok(())
        };
    };
    if let Some(expected) = expect["upstream_uri"].as_str() {
        let id = found.route.id.to_string();
        let service = routes
            .iter()
            .find(|pair| pair["route"]["id"] == *id)
            .unwrap();
        let base = service["service"]["path"].as_str();
        let sent = upstream_path(base, &path, found.matched(&path), found.route.strip_path);
        if sent != expected {
            return Err(format!("sends {sent}, expected {expected}"));
        }
    }
    if let Some(expected) = expect["prefix"].as_str()
        && found.matched(&path) != expected
    {
        return Err(format!(
            "matched {}, expected {expected}",
            found.matched(&path)
        ));
    }
    let mut captures = expect["captures"].as_object().into_iter().flatten();
    captures.try_for_each(|(name, expected)| check_capture(&found, name, expected))
}

fn check_capture(found: &Match, name: &str, expected: &Value) -> Result<(), String> {
    let name = name.strip_prefix("matches.uri_captures").unwrap();
    let captures = found.captures.as_ref();
    let value = match name.strip_prefix('.') {
        None => return captures.map_or(Ok(()), |captures| Err(format!("captures: {captures:?}"))),
        Some(name) => captures.and_then(|captures| match name.parse() {
            Ok(index) => captures.numbered(index),
            Err(_) => captures.named(name),
        }),
    };
    if json!(value) == *expected {
        Ok(())
    } else {
        Err(format!("{name} is {value:?}, expected {expected}"))
    }
}

fn find(table: &Table, request: &Value, path: &str) -> Option<Match> {
    let text = |name: &str| request[name].as_str().unwrap_or_default();
    let tls = text("scheme") == "https";
    let host = text("host").to_ascii_lowercase();
    let (host, port) = host
        .split_once(':')
        .unwrap_or((&host, if tls { "443" } else { "80" }));
    let mut headers = HeaderMap::new();
    for (name, values) in request["headers"].as_object().into_iter().flatten() {
        let name: HeaderName = name.parse().unwrap();
        for value in values
            .as_array()
            .cloned()
            .unwrap_or_else(|| vec![values.clone()])
        {
            headers.append(
                &name,
                HeaderValue::from_str(value.as_str().unwrap()).unwrap(),
            );
        }
    }
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 1));
    table.find(&RequestHead {
        method: text("method"),
        host,
        port: port.parse().unwrap(),
        path,
        query: None,
        headers: &headers,
        sni: request["sni"].as_str(),
        tls,
        source: anywhere,
        destination: anywhere,
    })
}

/// A case with a server name is about TLS, whatever it calls the scheme.
fn find_stream(table: &Table, request: &Value) -> Option<Match> {
    let address = |end: &str| {
        let ip = request[format!("{end}_ip")].as_str().unwrap_or("192.0.2.1");
        let port = request[format!("{end}_port")].as_u64().unwrap_or(1);
        SocketAddr::new(ip.parse().unwrap(), port.try_into().unwrap())
    };
    let sni = request["sni"].as_str();
    let protocol = match (sni, request["scheme"].as_str()) {
        (Some(_), _) | (None, Some("tls") | None) => StreamProtocol::Tls,
        (None, Some("udp")) => StreamProtocol::Udp,
        (None, Some(_)) => StreamProtocol::Tcp,
    };
    table.find_stream(&StreamHead {
        protocol,
        sni,
        source: address("src"),
        destination: address("dst"),
    })
}

/// The fixtures leave out the fields they do not test.
fn change(pair: &Value) -> Change {
    let defaults = json!({
        "protocols": ["http", "https"], "https_redirect_status_code": 426, "regex_priority": 0, "strip_path": false,
        "path_handling": "v0", "preserve_host": false, "request_buffering": true, "response_buffering": true,
    });
    let mut fields: Map<String, Value> = defaults.as_object().unwrap().clone();
    for (name, value) in pair["route"].as_object().unwrap() {
        // An empty list of Lua is an empty map.
        let empty = name == "paths" && value.is_object();
        fields.insert(name.clone(), if empty { json!([]) } else { value.clone() });
    }
    let id: Uuid = fields
        .remove("id")
        .unwrap()
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let key = Key {
        kind: Kind::Route.key_name(),
        workspace: Workspace::DEFAULT,
        id: Id(id),
    };
    let entry = Entry {
        version: Version(1),
        body: Body::encode(&fields),
    };
    Change {
        key,
        before: None,
        after: Some(entry),
    }
}
