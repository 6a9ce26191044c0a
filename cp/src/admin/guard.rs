//! Who may call: protection of an Admin API without a login against the browser next to it.
//!
//! On a loopback address any page the operator visits could otherwise reach it: by a name of its own that it lets
//! point to 127.0.0.1 (DNS rebinding), or by a form or script that posts to localhost (cross-site request forgery).

use super::error::Problem;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, header};
use std::net::IpAddr;

/// What is known of good callers.
#[derive(Debug)]
pub(super) struct Guard {
    /// Whether only callers on this machine can come, so that a strange host name means trouble.
    loopback: bool,
    /// Lowercase.
    allowed_hosts: Vec<String>,
    /// Lowercase, without a slash at the end.
    allowed_origins: Vec<String>,
}

impl Guard {
    pub(super) fn new(
        loopback: bool,
        allowed_hosts: &[String],
        allowed_origins: &[String],
    ) -> Self {
        let lowercase = |text: &String| text.trim_end_matches('/').to_ascii_lowercase();
        Self {
            loopback,
            allowed_hosts: allowed_hosts.iter().map(lowercase).collect(),
            allowed_origins: allowed_origins.iter().map(lowercase).collect(),
        }
    }

    /// Refuses requests that a foreign page makes.
    pub(super) fn check(&self, head: &Parts) -> Result<(), Problem> {
        let host = called_host(head);
        if self.loopback
            && let Some(host) = &host
            && !self.is_own(host)
        {
            return Err(Problem::ForeignHost(host.clone()));
        }
        let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&head.method);
        if !reads && self.is_cross_site(&head.headers, host.as_deref()) {
            return Err(Problem::CrossSite);
        }
        Ok(())
    }

    /// What `Access-Control-Allow-Origin` says. Kong lets every origin read; here it must be one that may also write.
    pub(super) fn origin(&self, head: &Parts) -> Option<HeaderValue> {
        match head.headers.get(header::ORIGIN) {
            None => Some(HeaderValue::from_static("*")),
            Some(origin) if self.trusts(origin, called_host(head).as_deref()) => {
                Some(origin.clone())
            }
            Some(_) => None,
        }
    }

    fn is_cross_site(&self, headers: &HeaderMap, host: Option<&str>) -> bool {
        let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
        match headers.get(header::ORIGIN) {
            Some(origin) => !self.trusts(origin, host),
            None => site == Some(b"cross-site"),
        }
    }

    /// Whether an origin is this host, on any port, or one that was allowed.
    fn trusts(&self, origin: &HeaderValue, host: Option<&str>) -> bool {
        let text = origin.to_str().unwrap_or_default().to_ascii_lowercase();
        if self.allowed_origins.contains(&text) {
            return true;
        }
        let origin = origin.to_str().ok().and_then(|origin| {
            let (_, authority) = origin.split_once("://")?;
            Some(host_of(authority))
        });
        origin.is_some_and(|origin| {
            host == Some(origin.as_str()) || self.allowed_hosts.contains(&origin)
        })
    }

    /// Whether the name is not one that somebody else can point here. Nobody can do that with an address.
    fn is_own(&self, host: &str) -> bool {
        host == "localhost"
            || host.parse::<IpAddr>().is_ok()
            || self.allowed_hosts.iter().any(|allowed| allowed == host)
    }
}

fn called_host(head: &Parts) -> Option<String> {
    let header = head.headers.get(header::HOST);
    match header {
        Some(host) => Some(host_of(&String::from_utf8_lossy(host.as_bytes()))),
        None => head
            .uri
            .authority()
            .map(|authority| host_of(authority.as_str())),
    }
}

/// The host of `host:port`, `[v6]:port` or either without a port, in lowercase.
fn host_of(authority: &str) -> String {
    let host = match authority
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((address, _)) => address,
        None => authority
            .split_once(':')
            .map_or(authority, |(host, _)| host),
    };
    host.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn check(method: &str, headers: &[(&str, &str)]) -> (bool, Option<String>) {
        let guard = Guard::new(
            true,
            &["Admin.example".to_owned()],
            &["https://Manager.example:8445/".to_owned()],
        );
        let mut request = Request::builder().method(method).uri("/services");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let head = request.body(()).unwrap().into_parts().0;
        let origin = guard
            .origin(&head)
            .map(|origin| origin.to_str().unwrap().to_owned());
        (guard.check(&head).is_ok(), origin)
    }

    #[test]
    fn names_that_others_can_point_here_are_refused() {
        for host in [
            "localhost:8001",
            "127.0.0.1",
            "[::1]:8001",
            "10.1.2.3:1",
            "admin.EXAMPLE",
        ] {
            assert!(check("GET", &[("host", host)]).0, "{host}");
        }
        for host in [
            "evil.example:8001",
            "localhost.evil.example",
            "",
            "127.0.0.1.evil",
        ] {
            assert!(!check("GET", &[("host", host)]).0, "{host}");
        }
    }

    #[test]
    fn pages_of_other_sites_may_neither_write_nor_read() {
        let host = ("host", "localhost:8001");
        let evil = ("origin", "https://evil.example");
        assert_eq!(check("POST", &[host, evil]), (false, None));
        assert_eq!(check("GET", &[host, evil]), (true, None));
        assert_eq!(check("DELETE", &[host, ("origin", "null")]), (false, None));
        assert!(!check("POST", &[host, ("sec-fetch-site", "cross-site")]).0);
        assert!(check("POST", &[host, ("sec-fetch-site", "same-origin")]).0);
        let other_port = ("origin", "https://manager.example:9000");
        assert_eq!(check("POST", &[host, other_port]), (false, None));
        for origin in [
            "http://localhost:8002",
            "https://admin.example",
            "https://manager.example:8445",
        ] {
            assert_eq!(
                check("PUT", &[host, ("origin", origin)]),
                (true, Some(origin.into()))
            );
        }
        assert_eq!(check("PUT", &[host]), (true, Some("*".into())));
    }
}
