//! URLs in configuration.

use super::text::Verdict;

/// A URL taken apart, as forgivingly as Kong does it: what is wrong with a part is said when the field is checked.
pub(crate) struct Url<'a> {
    /// What stands before `://`.
    pub(crate) scheme: Option<&'a str>,
    /// Whether it names a user.
    pub(crate) has_user: bool,
    /// The host, without the brackets of an IPv6 address.
    pub(crate) host: Option<&'a str>,
    /// The text of the port.
    pub(crate) port: Option<&'a str>,
    /// The path, without the query.
    pub(crate) path: Option<&'a str>,
}

impl<'a> Url<'a> {
    pub(crate) fn split(url: &'a str) -> Self {
        let url = url.split('#').next().unwrap_or_default();
        let scheme = url.split_once(':').filter(|(scheme, _)| {
            scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        });
        let (scheme, rest) = match scheme {
            Some((scheme, rest)) if rest.starts_with("//") => (Some(scheme), rest),
            Some(_) | None => (None, url),
        };
        let (authority, path) = match rest.strip_prefix("//") {
            None => (None, rest),
            Some(rest) => {
                let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
                (Some(authority), path)
            }
        };
        let path = path
            .split(['?', ';'])
            .next()
            .filter(|path| !path.is_empty());
        let has_user = authority.is_some_and(|text| text.contains('@'));
        let authority = authority.map(|text| text.rsplit_once('@').map_or(text, |(_, host)| host));
        let (host, port) = match authority.and_then(|text| text.rsplit_once(':')) {
            Some((host, port)) if !port.contains(']') => (Some(host), Some(port)),
            Some(_) | None => (authority, None),
        };
        let host = host.map(|host| host.trim_start_matches('[').trim_end_matches(']'));
        Self {
            scheme,
            has_user,
            host: host.filter(|host| !host.is_empty()),
            port: port.filter(|port| !port.is_empty()),
            path,
        }
    }
}

/// A URL with a scheme and a host.
pub(crate) fn absolute(text: &str) -> Verdict {
    let url = Url::split(text);
    if url.host.is_none() {
        return Err("missing host in url".to_owned());
    }
    if url.scheme.is_none() {
        return Err("missing scheme in url".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_url_has_a_scheme_and_a_host() {
        for (text, expected) in [
            ("http://a", ""),
            ("https://user:pass@[::1]:90/path?x#y", ""),
            ("//a/path", "missing scheme in url"),
            ("a.example/path", "missing host in url"),
            ("http:///path", "missing host in url"),
            ("mailto:a@b", "missing host in url"),
        ] {
            assert_eq!(absolute(text).err().unwrap_or_default(), expected, "{text}");
        }
        assert!(Url::split("http://user@a").has_user);
        assert!(!Url::split("http://a/@b").has_user);
    }
}
