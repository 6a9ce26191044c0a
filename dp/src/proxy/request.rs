//! What a request must be before anything else looks at it. hyper has already refused what does not parse; here go
//! the things it lets pass and that another server might read differently.

use super::errors::Failure;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Version, header};

/// The host a request is for.
pub(super) struct Authority {
    /// As the client sent it: lower case, with the port if it named one.
    value: HeaderValue,
    /// Where the port's colon stands.
    host_bytes: usize,
    /// The port the client named.
    pub(super) port: Option<u16>,
}

impl Authority {
    /// The host, without the port.
    pub(super) fn host(&self) -> &str {
        let host = self.value.as_bytes().get(..self.host_bytes);
        std::str::from_utf8(host.unwrap_or_default()).unwrap_or_default()
    }

    /// The host without the port as a header value.
    pub(super) fn host_value(&self) -> HeaderValue {
        if self.host_bytes == self.value.len() {
            return self.value.clone();
        }
        HeaderValue::from_str(self.host()).unwrap_or(HeaderValue::from_static(""))
    }

    /// Host and port as a header value.
    pub(super) fn into_value(self) -> HeaderValue {
        self.value
    }

    fn parse(value: &HeaderValue) -> Option<Self> {
        let bytes = value.as_bytes();
        let host_bytes = if bytes.first() == Some(&b'[') {
            let end = bytes.iter().position(|byte| *byte == b']')? + 1;
            let address = std::str::from_utf8(&bytes[1..end - 1]).ok()?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            end
        } else {
            bytes
                .iter()
                .position(|byte| *byte == b':')
                .unwrap_or(bytes.len())
        };
        let mut capitals = false;
        for byte in &bytes[..host_bytes] {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b'%' | b'*' => {}
                b'A'..=b'Z' => capitals = true,
                b'[' | b']' | b':' if bytes[0] == b'[' => {}
                _ => return None,
            }
        }
        let port = match &bytes[host_bytes..] {
            [] => None,
            [b':', port @ ..] => Some(parse_port(port)?),
            _ => return None,
        };
        let value = if capitals {
            HeaderValue::from_bytes(&bytes.to_ascii_lowercase()).ok()?
        } else {
            value.clone()
        };
        Some(Self {
            value,
            host_bytes,
            port,
        })
    }
}

/// Digits only: `u16::from_str` takes a sign.
fn parse_port(port: &[u8]) -> Option<u16> {
    let digits = !port.is_empty() && port.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(port)
        .ok()
        .filter(|_| digits)?
        .parse()
        .ok()
}

/// Checks the head, and gives the host it is for.
pub(super) fn check(parts: &Parts, uri_bytes_max: u32) -> Result<Authority, Failure> {
    if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        return Err(Failure::MethodNotAllowed);
    }
    // Some read it as the one in capitals, some as another.
    let method = &parts.method;
    if *method != Method::GET
        && method
            .as_str()
            .bytes()
            .any(|byte| byte.is_ascii_lowercase())
    {
        return Err(Failure::BadRequest);
    }
    let target = parts.uri.path().len() + parts.uri.query().map_or(0, str::len);
    if target > uri_bytes_max as usize {
        return Err(Failure::UriTooLong);
    }
    check_framing(parts)?;
    check_target(parts)?;
    let authority = find_authority(parts)?;
    Authority::parse(&authority).ok_or(Failure::BadRequest)
}

/// The request-target must be a path, or in absolute form with a scheme we speak.
fn check_target(parts: &Parts) -> Result<(), Failure> {
    let uri = &parts.uri;
    if uri.scheme().is_none() && uri.authority().is_none() {
        return Ok(());
    }
    let scheme = uri.scheme_str().is_none_or(|scheme| {
        scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
    });
    // A userinfo in an absolute target is a way to make a host look like another.
    let userinfo = uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'));
    if scheme && !userinfo {
        Ok(())
    } else {
        Err(Failure::BadRequest)
    }
}

/// The length of a body must have one reading only. hyper refuses what contradicts itself, and what it would take away
/// is spoilt before it reads it (`guard`).
fn check_framing(parts: &Parts) -> Result<(), Failure> {
    let headers = &parts.headers;
    let zeros = |value: &HeaderValue| matches!(value.as_bytes(), [b'0', _, ..]);
    if parts.version == Version::HTTP_2
        && headers
            .get_all(header::CONTENT_LENGTH)
            .iter()
            .enumerate()
            .any(|(index, value)| index > 0 || zeros(value))
    {
        return Err(Failure::BadRequest);
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(());
    };
    let single = codings.next().is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    if single && !headers.contains_key(header::CONTENT_LENGTH) {
        Ok(())
    } else {
        Err(Failure::BadRequest)
    }
}

/// Whether the connection must close after this request. `guard` does not follow chunked bodies to their end, so no
/// request follows one.
pub(super) fn closes(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
}

/// The target's authority, else the one `Host`. In HTTP/2 one of them is enough, and both must be the same.
fn find_authority(parts: &Parts) -> Result<HeaderValue, Failure> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    let needed = match parts.version {
        Version::HTTP_11 => true,
        Version::HTTP_2 => parts.uri.authority().is_none(),
        _ => false,
    };
    if hosts.next().is_some() || (host.is_none() && needed) {
        return Err(Failure::BadRequest);
    }
    if let Some(authority) = parts.uri.authority() {
        let other = |host: &HeaderValue| {
            !host
                .as_bytes()
                .eq_ignore_ascii_case(authority.as_str().as_bytes())
        };
        if parts.version == Version::HTTP_2 && host.is_some_and(other) {
            return Err(Failure::BadRequest);
        }
        return HeaderValue::from_str(authority.as_str()).map_err(|_| Failure::BadRequest);
    }
    Ok(host.cloned().unwrap_or(HeaderValue::from_static("")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_host_and_perhaps_a_port() {
        let check = |text: &'static str, expected: Option<(&str, Option<u16>)>| {
            let parsed = Authority::parse(&HeaderValue::from_static(text));
            let parsed = parsed
                .as_ref()
                .map(|authority| (authority.host(), authority.port));
            assert_eq!(parsed, expected, "{text:?}");
        };
        check("a.b", Some(("a.b", None)));
        check("A.b:8000", Some(("a.b", Some(8000))));
        check("", Some(("", None)));
        check("[::1]:80", Some(("[::1]", Some(80))));
        check("[::1]", Some(("[::1]", None)));
        let bad = [
            "a:", "a:+80", "a:65536", "a:80:80", "a b", "a@b", "a/b", "a,b", "[::1", "[a]",
            "[::1]x", "a#b", "a?b", "a\\b", "a]",
        ];
        bad.into_iter().for_each(|text| check(text, None));
    }
}
