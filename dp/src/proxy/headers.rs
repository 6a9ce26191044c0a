//! Headers on their way through: what a client may not say, what hops do not pass on, and what the gateway adds.

use super::peer::Peer;
use super::request::Authority;
use http::header::{self, Entry};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The gateway's name in `Server`.
pub(super) const SERVER: HeaderValue =
    HeaderValue::from_static(concat!("sluice/", env!("CARGO_PKG_VERSION")));
/// The gateway's entry in `Via`.
const VIA: HeaderValue =
    HeaderValue::from_static(concat!("1.1 sluice/", env!("CARGO_PKG_VERSION")));

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-kong-request-id");
pub(super) const PROXY_LATENCY: HeaderName = HeaderName::from_static("x-kong-proxy-latency");
pub(super) const UPSTREAM_LATENCY: HeaderName = HeaderName::from_static("x-kong-upstream-latency");
pub(super) const RESPONSE_LATENCY: HeaderName = HeaderName::from_static("x-kong-response-latency");

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_PATH: HeaderName = HeaderName::from_static("x-forwarded-path");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY: HeaderName = HeaderName::from_static("proxy");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// What is about one hop only, beside `Connection` and what it names. `Expect` is answered by the gateway.
const REQUEST_HOP: [HeaderName; 9] = [
    KEEP_ALIVE,
    PROXY,
    PROXY_CONNECTION,
    header::PROXY_AUTHORIZATION,
    header::TRANSFER_ENCODING,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
    HTTP2_SETTINGS,
];
const RESPONSE_HOP: [HeaderName; 5] = [
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::TRANSFER_ENCODING,
    header::TRAILER,
    header::UPGRADE,
];

/// Removes from a client's headers what it may not say (identities, names with `_`, which upstreams may read as the
/// same header with `-`) and what is about its own connection only. Runs before plugins add theirs, so that neither
/// a forged identity passes nor a client's `Connection` removes a true one.
pub(super) fn strip_request(headers: &mut HeaderMap) {
    let trailers = headers.get(header::TE).is_some_and(accepts_trailers);
    strip_connection(headers);
    REQUEST_HOP
        .iter()
        .for_each(|name| drop(headers.remove(name)));
    if headers.contains_key(header::TE) {
        headers.remove(header::TE);
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }
    if headers.keys().any(is_forbidden) {
        let forbidden: Vec<_> = headers
            .keys()
            .filter(|name| is_forbidden(name))
            .cloned()
            .collect();
        forbidden.iter().for_each(|name| drop(headers.remove(name)));
    }
}

fn is_forbidden(name: &HeaderName) -> bool {
    let name = name.as_str();
    let identity = || {
        name.starts_with("x-consumer-")
            || name.starts_with("x-credential-")
            || name == "x-anonymous-consumer"
    };
    name.contains('_') || (name.starts_with("x-") && identity())
}

fn accepts_trailers(value: &HeaderValue) -> bool {
    let value = value.to_str().unwrap_or_default();
    value
        .split(',')
        .any(|part| part.trim().eq_ignore_ascii_case("trailers"))
}

/// Removes `Connection` and the headers it names.
fn strip_connection(headers: &mut HeaderMap) {
    let Entry::Occupied(entry) = headers.entry(header::CONNECTION) else {
        return;
    };
    let (_, values) = entry.remove_entry_mult();
    let mut named = Vec::new();
    for value in values {
        for token in value.as_bytes().split(|byte| *byte == b',') {
            let token = token.trim_ascii();
            if !token.is_empty()
                && !token.eq_ignore_ascii_case(b"keep-alive")
                && !token.eq_ignore_ascii_case(b"close")
            {
                named.extend(HeaderName::from_bytes(token));
            }
        }
    }
    // The length of a message is not the sender's to hide from the next hop.
    named.retain(|name| *name != header::CONTENT_LENGTH && *name != header::HOST);
    named.iter().for_each(|name| drop(headers.remove(name)));
}

/// What the gateway tells an upstream about the request as it came in.
pub(super) struct Forwarded<'a> {
    pub(super) peer: &'a Peer,
    pub(super) authority: &'a Authority,
    pub(super) path: HeaderValue,
    pub(super) prefix: Option<HeaderValue>,
    pub(super) request_id: &'a HeaderValue,
}

/// Adds what upstreams are told. `X-Forwarded-*` from clients are not believed, only `X-Forwarded-For` is kept and
/// appended to.
pub(super) fn add_to_request(headers: &mut HeaderMap, forwarded: Forwarded<'_>) {
    append(headers, FORWARDED_FOR, &forwarded.peer.address_text);
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    headers.insert(FORWARDED_HOST, forwarded.authority.host_value());
    headers.insert(FORWARDED_PORT, forwarded.peer.port_text.clone());
    headers.insert(FORWARDED_PATH, forwarded.path);
    match forwarded.prefix {
        Some(prefix) => headers.insert(FORWARDED_PREFIX, prefix),
        None => headers.remove(FORWARDED_PREFIX),
    };
    headers.insert(REAL_IP, forwarded.peer.address_text.clone());
    append(headers, header::VIA, &VIA);
    headers.insert(REQUEST_ID, forwarded.request_id.clone());
}

/// Removes from an upstream's headers what is about its own connection only, and adds the gateway's mark.
pub(super) fn relay_response(headers: &mut HeaderMap) {
    strip_connection(headers);
    RESPONSE_HOP
        .iter()
        .for_each(|name| drop(headers.remove(name)));
    append(headers, header::VIA, &VIA);
    if let Entry::Vacant(entry) = headers.entry(header::SERVER) {
        entry.insert(SERVER);
    }
}

/// Sets `name` to its values so far, if any, and `value`, as one comma-separated line.
fn append(headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue) {
    let Entry::Occupied(mut entry) = headers.entry(&name) else {
        headers.insert(name, value.clone());
        return;
    };
    let mut joined = Vec::with_capacity(64);
    for before in entry.iter() {
        joined.extend_from_slice(before.as_bytes());
        joined.extend_from_slice(b", ");
    }
    joined.extend_from_slice(value.as_bytes());
    let joined = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined));
    entry.insert(joined.expect("valid header values joined by commas are one"));
}

/// `ms` as a header value. The usual ones are static: they cost no allocation.
pub(super) fn millis(ms: u128) -> HeaderValue {
    const SMALL: [&str; 17] = [
        "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
    ];
    let small = usize::try_from(ms).ok().and_then(|ms| SMALL.get(ms));
    small.map_or_else(
        || HeaderValue::from(u64::try_from(ms).unwrap_or(u64::MAX)),
        |text| HeaderValue::from_static(text),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let parse = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        lines.iter().map(parse).collect()
    }

    #[test]
    fn a_client_can_neither_forge_an_identity_nor_pass_on_hop_headers() {
        let check = |lines: &[(&'static str, &'static str)],
                     expected: &[(&'static str, &'static str)]| {
            let mut headers = map(lines);
            strip_request(&mut headers);
            assert_eq!(headers, map(expected), "{lines:?}");
        };
        check(
            &[
                ("accept", "a"),
                ("x-consumer-id", "1"),
                ("x-credential-identifier", "2"),
            ],
            &[("accept", "a")],
        );
        check(
            &[
                ("x-anonymous-consumer", "true"),
                ("x_forwarded_for", "1.1.1.1"),
            ],
            &[],
        );
        check(
            &[
                ("connection", "close, X-Secret"),
                ("x-secret", "1"),
                ("x-other", "2"),
            ],
            &[("x-other", "2")],
        );
        check(
            &[
                ("connection", "keep-alive"),
                ("connection", "x-a,, x-b"),
                ("x-a", "1"),
                ("x-b", "1"),
            ],
            &[],
        );
        check(
            &[
                ("connection", "content-length, host"),
                ("content-length", "3"),
            ],
            &[("content-length", "3")],
        );
        check(
            &[("te", "gzip, trailers"), ("keep-alive", "5")],
            &[("te", "trailers")],
        );
        check(
            &[("te", "gzip"), ("upgrade", "h2c"), ("http2-settings", "x")],
            &[],
        );
        check(
            &[
                ("proxy", "evil"),
                ("proxy-connection", "close"),
                ("expect", "100-continue"),
            ],
            &[],
        );
    }

    #[test]
    fn appending_joins_all_lines_into_one() {
        let mut headers = map(&[("via", "1.0 a"), ("via", "1.1 b, 1.1 c")]);
        append(
            &mut headers,
            header::VIA,
            &HeaderValue::from_static("1.1 d"),
        );
        assert_eq!(headers, map(&[("via", "1.0 a, 1.1 b, 1.1 c, 1.1 d")]));
    }

    #[test]
    fn milliseconds_are_decimal() {
        assert_eq!(
            [millis(0), millis(16), millis(17), millis(60_000)],
            ["0", "16", "17", "60000"]
        );
    }
}
