//! A request as Kong's logging plugins write it: one JSON object.
//!
//! Deviations: `request.size` and `response.size` count heads as HTTP/1.1 would write them; `request.headers` are those
//! plugins left; entities lack `tags`, `created_at`, `updated_at` and a route's criteria; workspaces have no ids, so that
//! `workspace` and `ws_id` are names; `request.tls` has no version and cipher; the time a try took to choose its target
//! is not measured.

use crate::plugin::{Origin, Record, Try};
use crate::table::{Consumer, Protocol, Route, Service};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use uuid::Uuid;

/// Headers that are credentials.
const REDACTED: [HeaderName; 2] = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION];
/// What failed tries have for a status, as nginx gives it.
const FAILED: u16 = 502;
/// `: ` and the end of a line.
const HEADER_EXTRA_BYTES: usize = 4;

/// The object.
#[derive(Serialize)]
pub(crate) struct Entry<'a> {
    request: Request<'a>,
    upstream_uri: &'a str,
    upstream_status: String,
    response: Response<'a>,
    latencies: Latencies,
    tries: Tries<'a>,
    client_ip: IpAddr,
    started_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<RouteFields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<ServiceFields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer: Option<ConsumerFields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authenticated_entity: Option<Reference>,
    workspace: &'a str,
    workspace_name: &'a str,
    source: &'static str,
}

#[derive(Serialize)]
struct Request<'a> {
    id: &'a str,
    method: &'a str,
    uri: Cow<'a, str>,
    url: String,
    querystring: Query<'a>,
    headers: Headers<'a>,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<Tls>,
}

#[derive(Serialize)]
struct Tls {
    client_verify: &'static str,
}

#[derive(Serialize)]
struct Response<'a> {
    status: u16,
    headers: Headers<'a>,
    size: u64,
}

#[derive(Serialize)]
struct Latencies {
    request: u64,
    kong: u64,
    /// -1 if no upstream was asked.
    proxy: i64,
    receive: u64,
}

#[derive(Serialize)]
struct Reference {
    id: Uuid,
}

#[derive(Serialize)]
struct RouteFields<'a> {
    id: Uuid,
    name: Option<&'a str>,
    service: Option<Reference>,
    https_redirect_status_code: u16,
    strip_path: bool,
    preserve_host: bool,
    request_buffering: bool,
    response_buffering: bool,
    ws_id: &'a str,
}

#[derive(Serialize)]
struct ServiceFields<'a> {
    id: Uuid,
    name: Option<&'a str>,
    protocol: &'static str,
    host: &'a str,
    port: u16,
    path: Option<&'a str>,
    retries: u16,
    connect_timeout: u128,
    write_timeout: u128,
    read_timeout: u128,
    enabled: bool,
    ws_id: &'a str,
}

#[derive(Serialize)]
struct ConsumerFields<'a> {
    id: Uuid,
    username: Option<&'a str>,
    custom_id: Option<&'a str>,
    ws_id: &'a str,
}

impl<'a> Entry<'a> {
    /// Of a request that has ended.
    pub(crate) fn of(record: &'a Record<'_>) -> Self {
        let seen = record.request;
        let target = seen
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str());
        let workspace = record
            .route
            .map_or("default", |route| route.workspace.as_str());
        let identity = &record.context.identity;
        let asked = !record.tries.is_empty();
        let latencies = record.latencies;
        let known = latencies.kong + latencies.proxy;
        Self {
            request: Request {
                id: seen.id.to_str().unwrap_or_default(),
                method: seen.method.as_str(),
                uri: target.into(),
                url: url(record, target),
                querystring: Query(seen.uri.query().unwrap_or_default()),
                headers: Headers(&seen.headers, &REDACTED),
                size: request_bytes(record),
                tls: seen.tls.then_some(Tls {
                    client_verify: "NONE",
                }),
            },
            upstream_uri: record.upstream_uri.map_or("", upstream_target),
            upstream_status: record
                .upstream_status()
                .map_or_else(String::new, |status| status.as_str().to_owned()),
            response: Response {
                status: record.status.as_u16(),
                headers: Headers(record.headers, &[]),
                size: response_bytes(record),
            },
            latencies: Latencies {
                request: latencies.request,
                kong: latencies.kong,
                proxy: if asked {
                    i64::try_from(latencies.proxy).unwrap_or(i64::MAX)
                } else {
                    -1
                },
                receive: if asked {
                    latencies.request.saturating_sub(known)
                } else {
                    0
                },
            },
            tries: Tries(record.tries),
            client_ip: seen.client,
            started_at: millis(since_epoch(seen.began)),
            route: record.route.map(|route| RouteFields::of(route)),
            service: record.service.map(|service| ServiceFields::of(service)),
            consumer: identity.consumer.as_deref().map(ConsumerFields::of),
            authenticated_entity: identity
                .credential
                .map(|credential| Reference { id: credential.id }),
            workspace,
            workspace_name: workspace,
            source: match record.origin {
                Origin::Upstream => "upstream",
                Origin::Plugin | Origin::Gateway => "kong",
            },
        }
    }

    /// Its text.
    pub(crate) fn json(&self) -> Vec<u8> {
        // Writing to memory does not fail, and all keys are text.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Its text with this behind it.
    pub(crate) fn line(&self, end: &[u8]) -> Bytes {
        let mut text = self.json();
        text.extend_from_slice(end);
        text.into()
    }
}

fn upstream_target(uri: &http::Uri) -> &str {
    uri.path_and_query().map_or("/", |target| target.as_str())
}

fn url(record: &Record<'_>, target: &str) -> String {
    let seen = record.request;
    let (scheme, usual) = if seen.tls {
        ("https", 443)
    } else {
        ("http", 80)
    };
    let host = seen
        .headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let authority = host.and_then(|host| host.parse::<http::uri::Authority>().ok());
    let port = authority
        .and_then(|authority| authority.port_u16())
        .unwrap_or(usual);
    format!("{scheme}://{}:{port}{target}", seen.host)
}

/// The bytes of a request, its head as HTTP/1.1 writes it.
pub(crate) fn request_bytes(record: &Record<'_>) -> u64 {
    let seen = record.request;
    let target = seen
        .uri
        .path_and_query()
        .map_or(1, |target| target.as_str().len());
    // Method, target, version, their two spaces and two ends of lines.
    let line = seen.method.as_str().len() + target + b"  HTTP/1.1\r\n\r\n".len();
    record.received + (line + headers_bytes(&seen.headers)) as u64
}

/// The bytes of a response, its head as HTTP/1.1 writes it.
pub(crate) fn response_bytes(record: &Record<'_>) -> u64 {
    let reason = record.status.canonical_reason().map_or(0, str::len);
    let line = b"HTTP/1.1 200 \r\n\r\n".len() + reason;
    record.sent + (line + headers_bytes(record.headers)) as u64
}

fn headers_bytes(headers: &HeaderMap) -> usize {
    let bytes = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + HEADER_EXTRA_BYTES);
    bytes.sum()
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl<'a> RouteFields<'a> {
    fn of(route: &'a Route) -> Self {
        Self {
            id: route.id,
            name: route.name.as_deref(),
            service: route.service.map(|id| Reference { id }),
            https_redirect_status_code: route.https_redirect_status_code,
            strip_path: route.strip_path,
            preserve_host: route.preserve_host,
            request_buffering: route.request_buffering,
            response_buffering: route.response_buffering,
            ws_id: route.workspace.as_str(),
        }
    }
}

impl<'a> ServiceFields<'a> {
    fn of(service: &'a Service) -> Self {
        Self {
            id: service.id,
            name: service.name.as_deref(),
            protocol: protocol(service.protocol),
            host: &service.host,
            port: service.port,
            path: service.path.as_deref(),
            retries: service.retries,
            connect_timeout: service.connect_timeout.as_millis(),
            write_timeout: service.write_timeout.as_millis(),
            read_timeout: service.read_timeout.as_millis(),
            enabled: service.enabled,
            ws_id: service.workspace.as_str(),
        }
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "http",
        Protocol::Https => "https",
        Protocol::Grpc => "grpc",
        Protocol::Grpcs => "grpcs",
        Protocol::Ws => "ws",
        Protocol::Wss => "wss",
        Protocol::Tcp => "tcp",
        Protocol::Tls => "tls",
        Protocol::TlsPassthrough => "tls_passthrough",
        Protocol::Udp => "udp",
    }
}

impl<'a> ConsumerFields<'a> {
    fn of(consumer: &'a Consumer) -> Self {
        Self {
            id: consumer.id,
            username: consumer.username.as_deref(),
            custom_id: consumer.custom_id.as_deref(),
            ws_id: consumer.workspace.as_str(),
        }
    }
}

/// Headers as an object: a text for each name, a list for one that comes more than once. Some are not shown.
struct Headers<'a>(&'a HeaderMap, &'static [HeaderName]);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for name in self.0.keys() {
            if self.1.contains(name) {
                map.serialize_entry(name.as_str(), "REDACTED")?;
                continue;
            }
            let values = self.0.get_all(name);
            let texts: Vec<_> = values
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()))
                .collect();
            match &*texts {
                [one] => map.serialize_entry(name.as_str(), one)?,
                several => map.serialize_entry(name.as_str(), several)?,
            }
        }
        map.end()
    }
}

/// A query as an object: a text for each name, `true` for one without a value, a list for one that comes more than once.
struct Query<'a>(&'a str);

#[derive(Serialize)]
#[serde(untagged)]
enum Argument<'a> {
    Flag(bool),
    Text(Cow<'a, str>),
}

impl Serialize for Query<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut arguments: Vec<(Cow<'_, str>, Vec<Argument<'_>>)> = Vec::new();
        for pair in self.0.split('&').filter(|pair| !pair.is_empty()) {
            let flag = !pair.contains('=');
            let Some((name, value)) = form_urlencoded::parse(pair.as_bytes()).next() else {
                continue;
            };
            let value = if flag {
                Argument::Flag(true)
            } else {
                Argument::Text(value)
            };
            match arguments.iter_mut().find(|(known, _)| *known == name) {
                Some((_, values)) => values.push(value),
                None => arguments.push((name, vec![value])),
            }
        }
        let mut map = serializer.serialize_map(Some(arguments.len()))?;
        for (name, values) in &arguments {
            match &**values {
                [one] => map.serialize_entry(name, one)?,
                several => map.serialize_entry(name, several)?,
            }
        }
        map.end()
    }
}

struct Tries<'a>(&'a [Try]);

#[derive(Serialize)]
struct TryFields {
    ip: IpAddr,
    port: u16,
    balancer_start: u64,
    balancer_start_ns: f64,
    balancer_latency: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

impl Serialize for Tries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|one| {
            let failed = one.status.is_none();
            let began = since_epoch(one.began);
            TryFields {
                ip: one.address.ip(),
                port: one.address.port(),
                balancer_start: millis(began),
                balancer_start_ns: began.as_secs_f64() * 1e9,
                balancer_latency: 0,
                state: failed.then_some("failed"),
                code: failed.then_some(FAILED),
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_query_is_an_object() {
        let check = |query: &str, expected: serde_json::Value| {
            assert_eq!(
                serde_json::to_value(Query(query)).unwrap(),
                expected,
                "{query}"
            );
        };
        check("", json!({}));
        check("a=1&b=%20x", json!({ "a": "1", "b": " x" }));
        check("a=1&a&&a=", json!({ "a": ["1", true, ""] }));
    }

    #[test]
    fn headers_are_an_object_without_credentials() {
        let mut headers = HeaderMap::new();
        headers.append("x-a", "1".parse().unwrap());
        headers.append("x-a", "2".parse().unwrap());
        headers.append("x-b", "3".parse().unwrap());
        headers.append("authorization", "Basic x".parse().unwrap());
        let shown = serde_json::to_value(Headers(&headers, &REDACTED)).unwrap();
        assert_eq!(
            shown,
            json!({ "x-a": ["1", "2"], "x-b": "3", "authorization": "REDACTED" })
        );
    }
}
