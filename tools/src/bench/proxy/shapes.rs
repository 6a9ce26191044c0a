//! Configurations of many routes, and requests that use all of them.

use serde_json::{Value, json};
use std::net::SocketAddr;

/// How the routes differ from each other, and what is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(super) enum Shape {
    /// One route
    One,
    /// A host and a path each; every request has another URI
    Hosts,
    /// A host each, one path
    HostsOnly,
    /// A path each on one host
    Paths,
    /// A regex each, no host
    Regexes,
    /// A header each, the same path
    Headers,
    /// Requests that no route wants, beside routes with a host and a path each
    Missing,
}

/// Requests that are made up; they are sent in turn.
pub(super) const REQUESTS: usize = 20_000;
/// Coprime to any number of routes or consumers one would ask for, so that neighbours are far apart.
pub(super) const STRIDE: usize = 7_919;

impl Shape {
    /// The status that every request is to have.
    pub(super) fn status(self) -> u16 {
        match self {
            Self::Missing => 404,
            Self::One
            | Self::Hosts
            | Self::HostsOnly
            | Self::Paths
            | Self::Regexes
            | Self::Headers => 200,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::One => "one route",
            Self::Hosts => "unique URIs",
            Self::HostsOnly => "hosts, one path",
            Self::Paths => "paths, one host",
            Self::Regexes => "regexes, no host",
            Self::Headers => "headers only",
            Self::Missing => "404",
        }
    }

    /// A file with routes `numbers` to one service.
    pub(super) fn file(self, numbers: std::ops::Range<usize>, origin: SocketAddr) -> Value {
        let routes = numbers.map(|number| {
            let mut route = self.route(number);
            route["name"] = format!("route-{number}").into();
            route["strip_path"] = false.into();
            route["service"] = json!({ "name": "origin" });
            route
        });
        json!({
            "_format_version": "3.0",
            "services": [{ "name": "origin", "host": origin.ip().to_string(), "port": origin.port() }],
            "routes": routes.collect::<Vec<_>>(),
        })
    }

    fn route(self, number: usize) -> Value {
        match self {
            Self::One => json!({ "paths": ["/"] }),
            Self::Hosts | Self::Missing => json!({
                "hosts": [format!("host-{number}.example.com")],
                "paths": [format!("/api/v1/resource-{number}")],
            }),
            Self::HostsOnly => {
                json!({ "hosts": [format!("host-{number}.example.com")], "paths": ["/api"] })
            }
            Self::Paths => json!({
                "hosts": ["shop.example.com"],
                "paths": [format!("/api/v1/resource-{number}")],
            }),
            Self::Regexes => json!({ "paths": [format!("~/api/resource-{number}/\\d+$")] }),
            Self::Headers => {
                json!({ "paths": ["/api"], "headers": { "x-tenant": [format!("tenant-{number}")] } })
            }
        }
    }

    /// Hosts and prefixes of paths of `routes` routes, for proxies that know no more.
    pub(super) fn hosts(self, routes: usize) -> impl Iterator<Item = (String, String)> {
        (0..routes).map(move |number| {
            let route = self.route(number);
            let first = |name: &str, otherwise: &str| {
                let found = route[name][0].as_str();
                found.unwrap_or(otherwise).to_owned()
            };
            (first("hosts", "*"), first("paths", "/"))
        })
    }

    /// Requests for `routes` routes.
    pub(super) fn requests(self, routes: usize) -> Vec<Vec<u8>> {
        let requests = (0..REQUESTS).map(|number| {
            let route = number.wrapping_mul(STRIDE) % routes;
            let (host, path) = match self {
                Self::One => ("shop.example.com".to_owned(), "/".to_owned()),
                Self::Hosts => (
                    format!("host-{route}.example.com"),
                    format!("/api/v1/resource-{route}/item-{number}?page={number}"),
                ),
                Self::HostsOnly => (format!("host-{route}.example.com"), "/api/x".to_owned()),
                Self::Paths => (
                    "shop.example.com".to_owned(),
                    format!("/api/v1/resource-{route}/item-{number}"),
                ),
                Self::Regexes => (
                    "shop.example.com".to_owned(),
                    format!("/api/resource-{route}/{number}"),
                ),
                Self::Headers => ("shop.example.com".to_owned(), "/api/x".to_owned()),
                Self::Missing => (
                    format!("host-{route}.example.com"),
                    format!("/nothing/here-{number}"),
                ),
            };
            // The header is what one shape is about; with it in all of them requests cost the same but for the routing.
            let text = format!(
                "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: bench\r\naccept: */*\r\nx-tenant: tenant-{route}\r\n\r\n"
            );
            text.into_bytes()
        });
        requests.collect()
    }
}
