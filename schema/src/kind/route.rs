//! Routes: which requests go to which service.

use super::Reference;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The fields of a route the data plane uses. Absent collections are empty.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct Route {
    /// A unique name.
    pub name: Option<String>,
    /// `http`, `https`, `grpc`, ...
    pub protocols: Vec<String>,
    /// Upper-case method names.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Exact or with one `*` at an end; an optional `:port`.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Plain prefixes (`/a`) and regexes (`~/a\d`).
    #[serde(default)]
    pub paths: Vec<String>,
    /// Header name to allowed values (or one `~*regex`).
    #[serde(default)]
    pub headers: BTreeMap<String, Vec<String>>,
    /// Server names; wildcards allowed.
    #[serde(default)]
    pub snis: Vec<String>,
    /// Client addresses (stream routes).
    #[serde(default)]
    pub sources: Vec<Endpoint>,
    /// Listening addresses (stream routes).
    #[serde(default)]
    pub destinations: Vec<Endpoint>,
    /// 426 or a redirect status.
    pub https_redirect_status_code: u16,
    /// Order among regex routes.
    pub regex_priority: i64,
    /// Whether the matched prefix is removed.
    pub strip_path: bool,
    /// `v0` or `v1`.
    pub path_handling: String,
    /// Whether the client's Host goes upstream.
    pub preserve_host: bool,
    /// Whether the request body is read before sending.
    pub request_buffering: bool,
    /// Whether the response body is read before sending.
    pub response_buffering: bool,
    /// Where it leads.
    pub service: Option<Reference>,
}

/// One element of `sources` or `destinations`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Endpoint {
    /// An IP address or CIDR block.
    pub ip: Option<String>,
    /// 0 to 65535.
    pub port: Option<u16>,
}
