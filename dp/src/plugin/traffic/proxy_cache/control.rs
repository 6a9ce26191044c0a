//! `Cache-Control`, as far as the cache looks at it.

use http::{HeaderMap, HeaderName, header};

/// The directives of a request or a response.
#[derive(Debug, Default)]
pub(super) struct Control(Vec<(String, Option<u64>)>);

impl Control {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all(header::CACHE_CONTROL).iter();
        let values = values.filter_map(|value| value.to_str().ok());
        let directive = |text: &str| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            let value = value.trim().trim_matches('"').parse().ok();
            (name.trim().to_ascii_lowercase(), value)
        };
        Self(
            values
                .flat_map(|value| value.split(',').map(directive))
                .collect(),
        )
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// The seconds of a directive.
    pub(super) fn seconds(&self, name: &str) -> Option<u64> {
        let mut named = self.0.iter().filter(|(known, _)| known == name);
        named.find_map(|(_, value)| *value)
    }
}

/// How long a response says that it is fresh; 0 if it does not say.
pub(super) fn lifetime(control: &Control, headers: &HeaderMap, now: u64) -> u64 {
    let told = control
        .seconds("s-maxage")
        .or_else(|| control.seconds("max-age"));
    told.or_else(|| {
        let expires = headers.get(header::EXPIRES)?.to_str().ok()?;
        let expires = httpdate::parse_http_date(expires).ok()?;
        let expires = expires.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(expires.as_secs().saturating_sub(now))
    })
    .unwrap_or_default()
}

/// A type of content that is cached.
#[derive(Debug)]
pub(super) struct ContentType {
    kind: String,
    subtype: String,
    parameters: Vec<(String, String)>,
}

impl ContentType {
    /// `None` if it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';');
        let (kind, subtype) = parts.next()?.trim().split_once('/')?;
        let parameter = |text: &str| {
            let (name, value) = text.split_once('=')?;
            let value = value.trim().trim_matches('"').to_ascii_lowercase();
            Some((name.trim().to_ascii_lowercase(), value))
        };
        Some(Self {
            kind: kind.to_ascii_lowercase(),
            subtype: subtype.to_ascii_lowercase(),
            parameters: parts.filter_map(parameter).collect(),
        })
    }

    /// Whether a response's type is this one. `*` is any; parameters that are named here must be there.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let is = |wanted: &str, found: &str| wanted == "*" || wanted == found;
        is(&self.kind, &other.kind)
            && is(&self.subtype, &other.subtype)
            && self
                .parameters
                .iter()
                .all(|wanted| other.parameters.contains(wanted))
    }
}

/// Whether a header of a response is kept. Those for one connection, and those that are made for each answer, are not.
pub(super) fn is_kept(name: &HeaderName) -> bool {
    let name = name.as_str();
    let dropped = [
        "connection",
        "keep-alive",
        "public",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
        "age",
        "content-length",
        "x-cache-key",
        "x-cache-status",
        "server",
        "via",
    ];
    !dropped.contains(&name) && !name.contains("ratelimit") && !name.starts_with("x-kong-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_cover_others_with_more_parameters() {
        let check = |wanted: &str, found: &str, expected: bool| {
            let types = (ContentType::parse(wanted), ContentType::parse(found));
            let (Some(wanted), Some(found)) = types else {
                panic!("{wanted} {found}");
            };
            assert_eq!(wanted.covers(&found), expected, "{wanted:?} {found:?}");
        };
        check("application/json", "Application/JSON", true);
        check("application/json", "application/json; charset=UTF-8", true);
        check("application/json; charset=utf-8", "application/json", false);
        check(
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
            true,
        );
        check("text/*", "text/html", true);
        check("*/*", "image/png", true);
        check("text/plain", "text/html", false);
        assert!(ContentType::parse("text").is_none());
    }

    #[test]
    fn responses_say_how_long_they_are_fresh() {
        let check = |name: HeaderName, value: &'static str, expected: u64| {
            let headers = HeaderMap::from_iter([(name, http::HeaderValue::from_static(value))]);
            let control = Control::of(&headers);
            assert_eq!(
                lifetime(&control, &headers, 784_111_777 - 60),
                expected,
                "{value}"
            );
        };
        check(header::CACHE_CONTROL, "public, max-age=5", 5);
        check(header::CACHE_CONTROL, "max-age=5, S-MaxAge=\"7\"", 7);
        check(header::CACHE_CONTROL, "max-age=x", 0);
        check(header::EXPIRES, "Sun, 06 Nov 1994 08:49:37 GMT", 60);
        check(header::EXPIRES, "Sun, 06 Nov 1974 08:49:37 GMT", 0);
        check(header::EXPIRES, "0", 0);
    }
}
