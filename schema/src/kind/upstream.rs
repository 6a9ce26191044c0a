//! Upstreams (virtual hosts that balance over targets) and targets.

use super::Reference;
use serde::Deserialize;

/// The fields of an upstream the data plane uses so far.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct Upstream {
    /// The host name services refer to.
    pub name: String,
    /// `round-robin`, `least-connections`, `consistent-hashing` or `latency`.
    pub algorithm: String,
    /// 10 to 65536.
    pub slots: u32,
    /// Sent as `Host` instead of the target's name.
    pub host_header: Option<String>,
}

/// One address of an upstream.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct Target {
    /// `host:port`.
    pub target: String,
    /// Share of traffic, 0 to 65535; 0 takes it out.
    pub weight: u16,
    /// Whose it is.
    pub upstream: Reference,
}
