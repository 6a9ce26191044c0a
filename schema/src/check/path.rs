//! Rules for paths: plain, normal, and regular expressions.

use super::regex::REGEX_BYTES_MAX;
use super::text::Verdict;
use ::regex::bytes::{Regex, RegexBuilder};

/// A path of a URL: only characters RFC 3986 allows, properly percent-encoded, no empty segment.
pub(crate) fn plain(text: &str) -> Verdict {
    no_empty_segments(text)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_~/%:@!$&'()*+,;=".contains(&byte);
    if !text.bytes().all(allowed) {
        return Err(format!(
            "invalid path: '{text}' (characters outside of the reserved list of RFC 3986 found)"
        ));
    }
    percent_encoding(text)
}

/// A path of a route: a normalized prefix, or `~` and a regular expression.
pub(crate) fn route(text: &str) -> Verdict {
    no_empty_segments(text)?;
    if let Some(pattern) = text
        .strip_prefix('~')
        .filter(|pattern| pattern.starts_with('/'))
    {
        return regex(pattern).map(|_| ());
    }
    if !text.starts_with('/') {
        return Err("should start with: / (fixed path) or ~/ (regex path)".to_owned());
    }
    percent_encoding(text)?;
    let normal = normalize(text);
    if normal == text {
        return Ok(());
    }
    Err(format!(
        "non-normalized path, consider use '{normal}' instead"
    ))
}

fn no_empty_segments(text: &str) -> Verdict {
    if text.contains("//") {
        Err("must not have empty segments".to_owned())
    } else {
        Ok(())
    }
}

fn percent_encoding(text: &str) -> Verdict {
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        rest = &rest[at..];
        if triplet(rest.as_bytes()).is_none() {
            let shown: String = rest.chars().take(3).collect();
            return Err(format!("invalid url-encoded value: '{shown}'"));
        }
        rest = &rest[3..];
    }
    Ok(())
}

/// The byte that `%XX` at the beginning of `bytes` stands for.
fn triplet(bytes: &[u8]) -> Option<u8> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    match bytes {
        [b'%', high, low, ..] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

/// The normal form of a path (RFC 3986, 6.2.2): unreserved characters decoded, other triplets in upper case, dot
/// segments removed, repeated slashes merged. Routes are stored in it and requests are brought to it, so that both
/// compare byte by byte. Characters that are not in a triplet stay as they are.
pub fn normalize(path: &str) -> String {
    let decoded = decode_unreserved(path);
    let mut segments: Vec<&str> = Vec::new();
    let mut parts = decoded.split('/').peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        match part {
            "." => {}
            ".." => {
                segments.pop();
            }
            "" => {}
            _ => segments.push(part),
        }
        // A path that ends in a slash or a dot segment names a directory.
        if last && matches!(part, "" | "." | "..") {
            segments.push("");
        }
    }
    let mut normal = String::with_capacity(decoded.len());
    for segment in segments {
        normal.push('/');
        normal.push_str(segment);
    }
    normal
}

fn decode_unreserved(path: &str) -> String {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        decoded.push_str(&rest[..at]);
        rest = &rest[at..];
        match triplet(rest.as_bytes()) {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                decoded.push(char::from(byte));
                rest = &rest[3..];
            }
            Some(_) => {
                decoded.push_str(&rest[..3].to_ascii_uppercase());
                rest = &rest[3..];
            }
            None => {
                decoded.push('%');
                rest = &rest[1..];
            }
        }
    }
    decoded.push_str(rest);
    decoded
}

/// Compiles the regular expression of a route (without its `~`), anchored at the start, in bounded memory. It works
/// on bytes, as Kong's does: `\w` and `\d` are ASCII. Named groups are `(?<name>…)` or `(?P<name>…)`.
///
/// # Errors
/// If it does not compile; in the client's words.
pub fn regex(pattern: &str) -> Result<Regex, String> {
    let anchored = format!("^(?:{pattern})");
    let compiled = RegexBuilder::new(&anchored)
        .unicode(false)
        .size_limit(REGEX_BYTES_MAX)
        .build();
    compiled.map_err(|error| {
        let reason = if let ::regex::Error::CompiledTooBig(limit) = error {
            format!("compiles to more than {limit} bytes")
        } else {
            let text = error.to_string();
            let line = text.lines().last().unwrap_or_default();
            line.strip_prefix("error: ").unwrap_or(line).to_owned()
        };
        format!("invalid regex: '{pattern}' ({reason})")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: fn(&str) -> Verdict, text: &str, expected: &str) {
        let found = rule(text).err().unwrap_or_default();
        assert_eq!(found, expected, "for {text:?}");
    }

    #[test]
    fn plain_paths_hold_only_what_a_url_may_hold() {
        check(plain, "/a/b%20c:@!$&'()*+,;=", "");
        check(plain, "/a//b", "must not have empty segments");
        check(
            plain,
            "/a b",
            "invalid path: '/a b' (characters outside of the reserved list of RFC 3986 found)",
        );
        check(plain, "/some%2Gwords", "invalid url-encoded value: '%2G'");
        check(plain, "/a%2", "invalid url-encoded value: '%2'");
    }

    #[test]
    fn route_paths_are_normal_or_regular_expressions() {
        for valid in [
            "/",
            "/a",
            "/a/",
            "/endel%2Fst",
            "/.*",
            "~/users/(?P<id>\\d+)/(?<b>x)$",
        ] {
            check(route, valid, "");
        }
        for (given, normal) in [
            ("/a/../b", "/b"),
            ("/a/./b/.", "/a/b/"),
            ("/..", "/"),
            ("/a%58c%2f", "/aXc%2F"),
        ] {
            let expected = format!("non-normalized path, consider use '{normal}' instead");
            check(route, given, &expected);
            check(route, normal, "");
        }
        check(
            route,
            "a",
            "should start with: / (fixed path) or ~/ (regex path)",
        );
        check(
            route,
            "~a",
            "should start with: / (fixed path) or ~/ (regex path)",
        );
        check(route, "~/(a", "invalid regex: '/(a' (unclosed group)");
        check(
            route,
            "~/(?i)(a{1000}){1000}",
            "invalid regex: '/(?i)(a{1000}){1000}' (compiles to more than 1048576 bytes)",
        );
        check(route, "~/a(?=b)", &regex("/a(?=b)").unwrap_err());
    }

    #[test]
    fn a_regular_expression_matches_from_the_start_and_may_ignore_case() {
        let compiled = regex("/(?i)users|/b").unwrap();
        assert!(compiled.is_match(b"/USERS/1"));
        assert!(compiled.is_match(b"/b"));
        assert!(!compiled.is_match(b"/c/b"));
    }
}
