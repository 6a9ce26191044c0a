//! What expressions can ask of a request or a connection.

use super::{RequestHead, StreamHead, StreamProtocol};
use http::{HeaderMap, HeaderName, HeaderValue};
use sluice_schema::expression::{End, NumberField, TextField};
use std::borrow::Cow;
use std::net::IpAddr;

/// Arguments of a query that are looked at, as in Kong.
const ARGUMENTS_MAX: usize = 100;

/// A request or a connection, as expressions see it. Host and server name are in lower case: they are names, and
/// names do not differ by case.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    protocol: &'static str,
    sni: Option<Cow<'a, str>>,
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
    request: Option<&'a RequestHead<'a>>,
}

impl<'a> Facts<'a> {
    pub(super) fn of_request(request: &'a RequestHead<'a>) -> Self {
        Self {
            protocol: if request.tls { "https" } else { "http" },
            sni: request.sni.filter(|_| request.tls).map(lower_name),
            source: (request.source.ip().to_canonical(), request.source.port()),
            // The port is the one the client names, as for a route's hosts.
            destination: (request.destination.ip().to_canonical(), request.port),
            request: Some(request),
        }
    }

    pub(super) fn of_stream(stream: &StreamHead<'a>) -> Self {
        let destination = stream.destination;
        Self {
            protocol: match stream.protocol {
                StreamProtocol::Tcp => "tcp",
                StreamProtocol::Tls => "tls",
                StreamProtocol::Udp => "udp",
            },
            sni: stream.sni.map(lower_name),
            source: (stream.source.ip().to_canonical(), stream.source.port()),
            destination: (destination.ip().to_canonical(), destination.port()),
            request: None,
        }
    }

    pub(super) fn address(&self, end: End) -> IpAddr {
        match end {
            End::Source => self.source.0,
            End::Destination => self.destination.0,
        }
    }

    pub(super) fn number(&self, field: NumberField) -> Option<i64> {
        match field {
            NumberField::Port(End::Source) => Some(self.source.1.into()),
            NumberField::Port(End::Destination) => Some(self.destination.1.into()),
            NumberField::SegmentCount => {
                let count = segments(self.request?.path).count();
                i64::try_from(count).ok()
            }
        }
    }

    /// Calls `visit` with each value of a field until it says false.
    pub(super) fn each(&self, field: &TextField, mut visit: impl FnMut(&[u8]) -> bool) {
        let mut one = |text: Option<&str>| {
            if let Some(text) = text {
                visit(text.as_bytes());
            }
        };
        let request = self.request;
        match field {
            TextField::Protocol => one(Some(self.protocol)),
            TextField::Sni => one(self.sni.as_deref()),
            TextField::Method => one(request.map(|request| request.method)),
            TextField::Host => one(request
                .map(|request| request.host)
                .filter(|host| !host.is_empty())),
            TextField::Path => one(request.map(|request| request.path)),
            TextField::Segments { first, last } => {
                one(request.and_then(|request| join_segments(request.path, *first, *last)));
            }
            TextField::Header(name) => {
                request
                    .into_iter()
                    .flat_map(|request| values_of(request.headers, name))
                    .all(|value| visit(value.as_bytes()));
            }
            TextField::Query(name) => {
                let query = request.and_then(|request| request.query);
                let arguments = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
                arguments
                    .take(ARGUMENTS_MAX)
                    .filter(|(argument, _)| argument == name)
                    .all(|(_, value)| visit(value.as_bytes()));
            }
        }
    }
}

/// Whether a header has this name, whose dashes may be underscores: in Kong both are one.
fn is_named(header: &HeaderName, name: &str) -> bool {
    let dash = |byte| if byte == b'_' { b'-' } else { byte };
    let header = header.as_str();
    header.len() == name.len()
        && header
            .bytes()
            .zip(name.bytes())
            .all(|(one, two)| dash(one) == dash(two))
}

/// The values of a header whose name is in lower case; in it `-` and `_` are one.
pub(super) fn values_of<'a>(
    headers: &'a HeaderMap,
    name: &str,
) -> impl Iterator<Item = &'a HeaderValue> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let plain = name.bytes().all(plain);
    let exact = plain.then(|| headers.get_all(name));
    let alike = (!plain).then(|| headers.iter().filter(|(header, _)| is_named(header, name)));
    let exact = exact.into_iter().flatten();
    exact.chain(alike.into_iter().flatten().map(|(_, value)| value))
}

fn lower_name(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => name.to_ascii_lowercase().into(),
        false => name.into(),
    }
}

/// The segments of a canonical path; a slash at the end begins none.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .skip(1)
        .filter(|segment| !segment.is_empty())
}

/// Segments `first` to `last`, if there are as many.
fn join_segments(path: &str, first: usize, last: usize) -> Option<&str> {
    let offset = |segment: &str| segment.as_ptr().addr() - path.as_ptr().addr();
    let begin = offset(segments(path).nth(first)?);
    let end = segments(path).nth(last)?;
    path.get(begin..offset(end) + end.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_counted_from_zero_and_joined() {
        assert_eq!(join_segments("/a/b/c/", 0, 0), Some("a"));
        assert_eq!(join_segments("/a/b/c/", 1, 2), Some("b/c"));
        assert_eq!(join_segments("/a/b/c", 2, 3), None);
        assert_eq!(join_segments("/", 0, 0), None);
        assert_eq!(segments("/a/b/c/").count(), 3);
        assert_eq!(segments("/").count(), 0);
    }
}
