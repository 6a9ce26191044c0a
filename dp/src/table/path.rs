//! The one canonical form of a request's path, and how it is joined with a service's path.

use std::borrow::Cow;

/// A path that is refused with 400, because two readers could understand it differently.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PathError {
    /// It does not begin with a slash.
    #[error("the path does not begin with a slash")]
    Relative,
    /// A percent sign without two hexadecimal digits.
    #[error("the path has a broken percent-encoding")]
    Encoding,
    /// A control character, a space, an encoded NUL, a backslash, or a dot segment between escaped slashes.
    #[error("the path holds a character that is not allowed")]
    Character,
}

/// The canonical form of a path without its query: unreserved characters decoded, other escapes in upper case,
/// non-ASCII bytes escaped, dot segments resolved, slashes merged. Router, plugins and upstream all see this form.
/// Escapes of reserved characters stay, so `%2F` is never a separator; where it would make a dot segment if it were one, the path is
/// refused. Idempotent; the result is ASCII.
///
/// # Errors
/// If the path is one of the forms named in [`PathError`].
pub fn canonical_path(raw: &str) -> Result<Cow<'_, str>, PathError> {
    if !raw.starts_with('/') {
        return Err(PathError::Relative);
    }
    if is_canonical(raw.as_bytes()) {
        return Ok(Cow::Borrowed(raw));
    }
    let path = resolve(&decode(raw)?);
    if hides_dots(&path) {
        return Err(PathError::Character);
    }
    Ok(Cow::Owned(path))
}

/// Whether an upstream that takes an escaped slash or backslash for a separator would find a dot segment: it would be
/// asked for another path than the one that was routed.
fn hides_dots(path: &str) -> bool {
    let parts = path.split("%2F").flat_map(|part| part.split("%5C"));
    let mut segments = parts.flat_map(|part| part.split('/'));
    segments.any(|segment| matches!(segment, "." | ".."))
}

/// Quick test for the common path; may say no to a canonical path, never yes to another.
fn is_canonical(path: &[u8]) -> bool {
    let plain = |byte: u8| (0x21..0x7f).contains(&byte) && byte != b'%' && byte != b'\\';
    let mut previous = 0;
    for &byte in path {
        let ambiguous = previous == b'/' && (byte == b'/' || byte == b'.');
        if !plain(byte) || ambiguous {
            return false;
        }
        previous = byte;
    }
    true
}

fn decode(raw: &str) -> Result<String, PathError> {
    let mut decoded = String::with_capacity(raw.len() + 8);
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digits = bytes.next().and_then(hex).zip(bytes.next().and_then(hex));
                let (high, low) = digits.ok_or(PathError::Encoding)?;
                match high << 4 | low {
                    0 => return Err(PathError::Character),
                    value if is_unreserved(value) => decoded.push(char::from(value)),
                    value => escape(&mut decoded, value),
                }
            }
            0..=b' ' | b'\\' | 0x7f => return Err(PathError::Character),
            0x80.. => escape(&mut decoded, byte),
            _ => decoded.push(char::from(byte)),
        }
    }
    Ok(decoded)
}

fn resolve(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let mut open = true;
    for segment in path.split('/') {
        open = true;
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            _ => {
                segments.push(segment);
                open = false;
            }
        }
    }
    let mut resolved = String::with_capacity(path.len());
    for segment in &segments {
        resolved.push('/');
        resolved.push_str(segment);
    }
    if open {
        resolved.push('/');
    }
    resolved
}

fn escape(text: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    text.push('%');
    text.push(char::from(DIGITS[usize::from(byte >> 4)]));
    text.push(char::from(DIGITS[usize::from(byte & 15)]));
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Decodes what [`canonical_path`] left escaped, except reserved and control characters: the form in which captures
/// are handed to plugins. Text that would not be UTF-8 stays as it is.
pub(crate) fn decode_capture(text: &str) -> String {
    const RESERVED: &[u8] = b"!*'();:@&=+$,/?%#[]";
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digits = bytes
            .get(at + 1)
            .zip(bytes.get(at + 2))
            .filter(|_| byte == b'%');
        let value = digits.and_then(|(high, low)| Some(hex(*high)? << 4 | hex(*low)?));
        match value.filter(|value| !value.is_ascii_control() && !RESERVED.contains(value)) {
            Some(value) => {
                decoded.push(value);
                at += 3;
            }
            None => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|_| text.to_owned())
}

/// The path sent upstream (Kong's `path_handling` v0): the service's path joined with the request's, less the part
/// the route matched if `strip` is set. `matched` is a prefix of `request_path`, empty if the route has no paths.
pub fn upstream_path(
    service_path: Option<&str>,
    request_path: &str,
    matched: &str,
    strip: bool,
) -> String {
    let base = service_path.filter(|path| !path.is_empty()).unwrap_or("/");
    let stem = base.strip_suffix('/').unwrap_or(base);
    let slash = request_path.ends_with('/');
    if !strip {
        return match request_path {
            "/" => base.to_owned(),
            _ => format!("{stem}{request_path}"),
        };
    }
    let consumed = if matched.is_empty() { "/" } else { matched };
    let rest = remainder(request_path.strip_prefix(consumed).unwrap_or(request_path));
    if !rest.is_empty() {
        format!("{stem}/{}", rest.strip_prefix('/').unwrap_or(rest))
    } else if base == "/" {
        base.to_owned()
    } else if slash && (base.ends_with('/') || request_path.len() > 1) {
        format!("{stem}/")
    } else {
        stem.to_owned()
    }
}

/// A prefix is not bound to segments, so what follows it may look like a dot segment although the path was canonical.
fn remainder(rest: &str) -> &str {
    let after = rest.strip_prefix("..").or_else(|| rest.strip_prefix('.'));
    let Some(after) = after else { return rest };
    if after.is_empty() {
        return after;
    }
    let mut separators = ["/", "%2F", "%5C"].iter();
    let cut = separators.find_map(|separator| after.strip_prefix(separator));
    cut.unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(raw: &str, expected: Result<&str, PathError>) {
        assert_eq!(
            canonical_path(raw).as_deref(),
            expected.as_ref().map(|path| *path),
            "{raw}"
        );
    }

    #[test]
    fn one_path_has_one_form() {
        check("/a/b", Ok("/a/b"));
        check("/%61%2e%2E/x", Ok("/a../x"));
        check("/a/%2e%2e/b", Ok("/b"));
        check("/a//b/./c/..", Ok("/a/b/"));
        check("/..", Ok("/"));
        check("/a%2fb%3a", Ok("/a%2Fb%3A"));
        check("/\u{e9}", Ok("/%C3%A9"));
        check("/%c3%a9", Ok("/%C3%A9"));
        check("/%252e%252e/", Ok("/%252e%252e/"));
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        check("a", Err(PathError::Relative));
        check("", Err(PathError::Relative));
        check("/%", Err(PathError::Encoding));
        check("/%2", Err(PathError::Encoding));
        check("/%g0", Err(PathError::Encoding));
        check("/%00", Err(PathError::Character));
        check("/a\\..\\b", Err(PathError::Character));
        check("/a b", Err(PathError::Character));
        // An upstream may take them for slashes.
        check("/a/..%2fb", Err(PathError::Character));
        check("/a/%2E%2e%5cb", Err(PathError::Character));
        check("/a%2f..", Err(PathError::Character));
        check("/a%2F.%2Fb", Err(PathError::Character));
        check("/a%2F.b%2F..c/%2F", Ok("/a%2F.b%2F..c/%2F"));
        check("/a\n", Err(PathError::Character));
    }

    #[test]
    fn captures_are_decoded_but_never_to_reserved_or_control_characters() {
        assert_eq!(decode_capture("john%20doe"), "john doe");
        assert_eq!(decode_capture("a%2Fb%0Ac%"), "a%2Fb%0Ac%");
        assert_eq!(decode_capture("%C3%A9"), "\u{e9}");
        assert_eq!(decode_capture("%C3%20"), "%C3%20");
    }

    #[test]
    fn a_stripped_remainder_never_climbs() {
        assert_eq!(
            upstream_path(Some("/srv"), "/foo../bar", "/foo", true),
            "/srv/bar"
        );
        assert_eq!(upstream_path(Some("/srv"), "/foo..", "/foo", true), "/srv");
        assert_eq!(upstream_path(None, "/foo./x", "/foo", true), "/x");
        assert_eq!(upstream_path(None, "/foo..%2Fx", "/foo", true), "/x");
        assert_eq!(upstream_path(None, "/foo..x", "/foo", true), "/..x");
    }

    proptest! {
        #[test]
        fn canonical_paths_are_fixed_points(raw in "/([a-c./~\\\\]|%2[eEfF5]|%5[cC]|%6[1-9]|%C3%A9|%00|\u{e9}|%){0,12}") {
            if let Ok(once) = canonical_path(&raw) {
                prop_assert_eq!(canonical_path(&once).unwrap(), once.clone());
                prop_assert!(once.is_ascii() && once.starts_with('/') && !once.contains("//"));
                prop_assert!(once.split('/').all(|segment| segment != "." && segment != ".."));
            }
        }

        #[test]
        fn any_text_is_handled(raw in "\\PC{0,24}", matched in 0usize..24) {
            if let Ok(path) = canonical_path(&raw) {
                let matched = &path[..matched.min(path.len())];
                let joined = upstream_path(Some("/s"), &path, matched, true);
                prop_assert_eq!(canonical_path(&joined).unwrap(), joined.clone());
            }
            decode_capture(&raw);
        }
    }
}
