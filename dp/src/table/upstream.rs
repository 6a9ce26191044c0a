//! Compiled upstreams and targets.

use super::checks::Checks;
use super::entity::Origin;
use http::HeaderName;
use sluice_schema::entity::Workspace;
use sluice_schema::kind::{self, HashFields};
use sluice_schema::version::Version;
use std::sync::Arc;
use uuid::Uuid;

/// How an upstream chooses a target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// In turn, by weight.
    RoundRobin,
    /// The least loaded, by weight.
    LeastConnections,
    /// By a hash of the request.
    ConsistentHashing,
    /// The quicker of two.
    Latency,
}

impl Algorithm {
    /// As upstreams have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::LeastConnections => "least-connections",
            Self::ConsistentHashing => "consistent-hashing",
            Self::Latency => "latency",
        }
    }
}

/// A part of a request that is hashed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HashOn {
    /// Nothing.
    None,
    /// The consumer, else the credential.
    Consumer,
    /// The client's address.
    Ip,
    /// A header, all of its values.
    Header(HeaderName),
    /// The upstream's cookie, which is made if it is missing.
    Cookie,
    /// The path.
    Path,
    /// An argument of the query, all of its values.
    QueryArg(Box<str>),
    /// What a group of the route's regex matched; by name or number.
    UriCapture(Box<str>),
}

/// What decides where a request goes, for consistent hashing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hash {
    /// First this.
    pub on: HashOn,
    /// This if that is missing.
    pub fallback: HashOn,
    /// The cookie's name.
    pub cookie: Box<str>,
    /// The path of a cookie that is made.
    pub cookie_path: Box<str>,
}

/// A virtual host that balances over targets.
#[derive(Clone, PartialEq, Debug)]
pub struct Upstream {
    /// The entity.
    pub id: Uuid,
    /// The event that last wrote the entity itself; changes of targets do not show here.
    pub version: Version,
    /// Its workspace.
    pub workspace: Workspace,
    /// The host name services refer to.
    pub name: Box<str>,
    /// How a target is chosen.
    pub algorithm: Algorithm,
    /// What is hashed.
    pub hash: Hash,
    /// Most points of the ring, for consistent hashing.
    pub slots: u32,
    /// Sent as `Host` instead of the target's name.
    pub host_header: Option<Box<str>>,
    /// Whether the name in an SRV record is sent as `Host` instead of the target's.
    pub use_srv_name: bool,
    /// How the health of targets is found out.
    pub checks: Checks,
    /// Shown to targets that ask for one, unless the service has its own.
    pub client_certificate: Option<Uuid>,
    /// Sorted by host, port, id: the same order on every node.
    pub targets: Box<[Arc<Target>]>,
}

impl Upstream {
    pub(super) fn compile(origin: Origin<'_>, fields: kind::Upstream) -> Result<Self, String> {
        let algorithm = match fields.algorithm.as_str() {
            "round-robin" => Algorithm::RoundRobin,
            "least-connections" => Algorithm::LeastConnections,
            "consistent-hashing" => Algorithm::ConsistentHashing,
            "latency" => Algorithm::Latency,
            other => return Err(format!("algorithm `{other}` is not known")),
        };
        Ok(Self {
            id: origin.id,
            version: origin.version,
            workspace: origin.workspace.clone(),
            name: fields.name.into(),
            algorithm,
            hash: Hash::compile(fields.hash)?,
            slots: fields.slots,
            host_header: fields.host_header.map(Into::into),
            use_srv_name: fields.use_srv_name.unwrap_or_default(),
            checks: Checks::compile(&fields.healthchecks.unwrap_or_default())?,
            client_certificate: fields.client_certificate.map(|certificate| certificate.id),
            targets: Box::default(),
        })
    }
}

impl Hash {
    fn compile(fields: HashFields) -> Result<Self, String> {
        Ok(Self {
            on: HashOn::compile(
                fields.hash_on,
                fields.hash_on_header,
                fields.hash_on_query_arg,
                fields.hash_on_uri_capture,
            )?,
            fallback: HashOn::compile(
                fields.hash_fallback,
                fields.hash_fallback_header,
                fields.hash_fallback_query_arg,
                fields.hash_fallback_uri_capture,
            )?,
            cookie: fields.hash_on_cookie.unwrap_or_default().into(),
            cookie_path: fields
                .hash_on_cookie_path
                .unwrap_or_else(|| "/".into())
                .into(),
        })
    }
}

impl HashOn {
    fn compile(
        on: Option<String>,
        header: Option<String>,
        argument: Option<String>,
        capture: Option<String>,
    ) -> Result<Self, String> {
        Ok(match on.as_deref().unwrap_or("none") {
            "none" => Self::None,
            "consumer" => Self::Consumer,
            "ip" => Self::Ip,
            "header" => {
                let name = header.unwrap_or_default();
                let parsed = name.parse::<HeaderName>();
                Self::Header(parsed.map_err(|_| format!("`{name}` is not a header to hash"))?)
            }
            "cookie" => Self::Cookie,
            "path" => Self::Path,
            "query_arg" => Self::QueryArg(argument.unwrap_or_default().into()),
            "uri_capture" => Self::UriCapture(capture.unwrap_or_default().into()),
            other => return Err(format!("`{other}` cannot be hashed")),
        })
    }
}

/// One address of an upstream.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Target {
    /// A host name or an IP address, without brackets.
    pub host: Box<str>,
    /// Its port.
    pub port: u16,
    /// The entity.
    pub id: Uuid,
    /// The event that last wrote it.
    pub version: Version,
    /// Share of traffic; 0 takes it out.
    pub weight: u16,
}

impl Target {
    /// Where a target without a port is found; Kong's default.
    const PORT_DEFAULT: u16 = 8000;

    pub(super) fn compile(origin: Origin<'_>, fields: &kind::Target) -> Result<Self, String> {
        let (host, port) = split_port(&fields.target)
            .filter(|(host, _)| !host.is_empty())
            .ok_or_else(|| format!("target `{}` is not host:port", fields.target))?;
        Ok(Self {
            host: host.into(),
            port: port.unwrap_or(Self::PORT_DEFAULT),
            id: origin.id,
            version: origin.version,
            weight: fields.weight,
        })
    }
}

/// Splits `host:port`, `[ipv6]:port`, or either without a port.
pub(super) fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        (
            host,
            rest.strip_prefix(':')
                .or_else(|| rest.is_empty().then_some(""))?,
        )
    } else if text.matches(':').count() > 1 {
        (text, "")
    } else {
        text.split_once(':').unwrap_or((text, ""))
    };
    let port = if port.is_empty() {
        None
    } else {
        Some(port.parse().ok()?)
    };
    Some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_split_into_host_and_port() {
        assert_eq!(split_port("a.b:80"), Some(("a.b", Some(80))));
        assert_eq!(split_port("a.b"), Some(("a.b", None)));
        assert_eq!(split_port("[::1]:80"), Some(("::1", Some(80))));
        assert_eq!(split_port("[::1]"), Some(("::1", None)));
        assert_eq!(split_port("::1"), Some(("::1", None)));
        assert_eq!(split_port("a:b"), None);
        assert_eq!(split_port("a:65536"), None);
        assert_eq!(split_port("[::1]x"), None);
    }
}
