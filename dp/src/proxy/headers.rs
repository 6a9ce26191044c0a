//! Headers on their way through: what a client may not say, what hops do not pass on, and what the gateway adds.

use super::forwarded::{Client, FORWARDED_FOR, FORWARDED_PROTO};
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

const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_PATH: HeaderName = HeaderName::from_static("x-forwarded-path");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// What becomes of a header on its way through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passage {
    Kept,
    Removed,
    Connection,
    Te,
    Expect,
    ProxyAuthorization,
}

/// Headers about one hop only go, and what a client may not say: identities, and names with `_`, which upstreams may
/// read as the same header with `-`. `Expect` is answered by the gateway.
fn request_passage(name: &str) -> Passage {
    match name {
        "connection" => Passage::Connection,
        "te" => Passage::Te,
        "expect" => Passage::Expect,
        "proxy-authorization" => Passage::ProxyAuthorization,
        "http2-settings"
        | "keep-alive"
        | "proxy"
        | "proxy-connection"
        | "trailer"
        | "transfer-encoding"
        | "upgrade"
        | "x-anonymous-consumer" => Passage::Removed,
        _ if name.bytes().any(|byte| byte == b'_') => Passage::Removed,
        _ if name.starts_with("x-consumer-") || name.starts_with("x-credential-") => {
            Passage::Removed
        }
        _ => Passage::Kept,
    }
}

fn response_passage(name: &str) -> Passage {
    match name {
        "connection" => Passage::Connection,
        "keep-alive" | "proxy-connection" | "trailer" | "transfer-encoding" | "upgrade" => {
            Passage::Removed
        }
        _ => Passage::Kept,
    }
}

/// What a message says to the next hop only.
#[derive(Default)]
pub(super) struct Hop {
    /// To be asked for the body.
    pub(super) expects: bool,
    /// Who it is, to proxies.
    pub(super) proxy_authorization: Option<HeaderValue>,
}

/// Removes from a client's headers what does not pass. Runs before plugins add theirs, so that neither a forged
/// identity passes nor a client's `Connection` removes a true one. Gives what of it plugins may want to know.
pub(super) fn strip_request(headers: &mut HeaderMap) -> Hop {
    strip(headers, request_passage)
}

/// One look at each name, because nearly all are kept.
fn strip(headers: &mut HeaderMap, passage: fn(&str) -> Passage) -> Hop {
    let mut removed = Vec::new();
    let (mut connection, mut te) = (false, false);
    let (mut expects, mut authorization) = (false, false);
    for name in headers.keys() {
        match passage(name.as_str()) {
            Passage::Kept => {}
            Passage::Removed => removed.push(name.clone()),
            Passage::Connection => connection = true,
            Passage::Te => te = true,
            Passage::Expect => expects = true,
            Passage::ProxyAuthorization => authorization = true,
        }
    }
    let trailers = te && headers.get_all(header::TE).iter().any(accepts_trailers);
    if connection {
        strip_connection(headers);
    }
    removed.iter().for_each(|name| drop(headers.remove(name)));
    if te {
        headers.remove(header::TE);
    }
    if expects {
        headers.remove(header::EXPECT);
    }
    let proxy_authorization = authorization
        .then(|| headers.remove(header::PROXY_AUTHORIZATION))
        .flatten();
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    Hop {
        expects,
        proxy_authorization,
    }
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
    pub(super) client: &'a Client,
    pub(super) authority: &'a Authority,
    pub(super) path: HeaderValue,
    pub(super) prefix: Option<HeaderValue>,
    pub(super) request_id: &'a HeaderValue,
}

/// Adds what upstreams are told. `X-Forwarded-*` from clients are not believed, only `X-Forwarded-For` is kept and
/// appended to; what a trusted peer says stays.
pub(super) fn add_to_request(headers: &mut HeaderMap, forwarded: Forwarded<'_>) {
    if forwarded.client.trusted {
        return add_to_trusted(headers, forwarded);
    }
    append(headers, FORWARDED_FOR, &forwarded.peer.address_text);
    headers.insert(FORWARDED_PROTO, forwarded.peer.scheme());
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

fn add_to_trusted(headers: &mut HeaderMap, forwarded: Forwarded<'_>) {
    let client = forwarded.client.text.as_ref();
    let client = client.unwrap_or(&forwarded.peer.address_text);
    match headers.contains_key(FORWARDED_FOR) {
        true => append(headers, FORWARDED_FOR, &forwarded.peer.address_text),
        false => drop(headers.insert(FORWARDED_FOR, client.clone())),
    }
    let said = [
        (FORWARDED_PROTO, Some(forwarded.peer.scheme())),
        (FORWARDED_HOST, Some(forwarded.authority.host_value())),
        (FORWARDED_PORT, Some(forwarded.peer.port_text.clone())),
        (FORWARDED_PATH, Some(forwarded.path)),
        (FORWARDED_PREFIX, forwarded.prefix),
    ];
    for (name, value) in said {
        if let (Entry::Vacant(entry), Some(value)) = (headers.entry(name), value) {
            entry.insert(value);
        }
    }
    headers.insert(REAL_IP, client.clone());
    append(headers, header::VIA, &VIA);
    headers.insert(REQUEST_ID, forwarded.request_id.clone());
}

/// Makes one header of the several cookies that HTTP/2 allows: upstreams of HTTP/1.1 expect that.
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    if cookies.next().is_none() || cookies.next().is_none() {
        return;
    }
    let cookies: Vec<_> = headers.get_all(header::COOKIE).iter().collect();
    let joined = cookies.iter().map(|cookie| cookie.as_bytes());
    let joined = joined.collect::<Vec<_>>().join(&b"; "[..]);
    let joined = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined));
    headers.insert(
        header::COOKIE,
        joined.expect("valid header values joined by semicolons are one"),
    );
}

/// Removes what HTTP/2 does not allow in responses.
pub(super) fn strip_for_http2(headers: &mut HeaderMap) {
    headers.remove(header::CONNECTION);
    headers.remove(header::UPGRADE);
}

/// Removes from an upstream's headers what is about its own connection only, and adds the gateway's mark.
pub(super) fn relay_response(headers: &mut HeaderMap) {
    strip(headers, response_passage);
    append(headers, header::VIA, &VIA);
    if let Entry::Vacant(entry) = headers.entry(header::SERVER) {
        entry.insert(SERVER);
    }
}

/// Sets `name` to its values so far, if any, and `value`, as one comma-separated line.
fn append(headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue) {
    let mut entry = match headers.entry(name) {
        Entry::Vacant(entry) => {
            entry.insert(value.clone());
            return;
        }
        Entry::Occupied(entry) => entry,
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
    fn cookies_become_one_header() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2; c=3")]);
        join_cookies(&mut headers);
        assert_eq!(headers, map(&[("cookie", "a=1; b=2; c=3")]));
        join_cookies(&mut headers);
        assert_eq!(headers, map(&[("cookie", "a=1; b=2; c=3")]));
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
