//! How the health of an upstream's targets is found out. Zero disables a counter or an interval.

use serde::Deserialize;
use std::collections::BTreeMap;

/// An upstream's `healthchecks`. What is absent has Kong's default.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Healthchecks {
    /// By requests of our own.
    pub active: ActiveChecks,
    /// By the requests that pass.
    pub passive: PassiveChecks,
    /// The upstream is usable while more than this share of weight is, in per cent, 0 to 100.
    pub threshold: f64,
}

/// `healthchecks.active`
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default)]
pub struct ActiveChecks {
    /// `tcp`, `http`, `https`, `grpc` or `grpcs`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Seconds, 0 to 65535.
    pub timeout: f64,
    /// Targets asked at a time, from 1.
    pub concurrency: u32,
    /// What is asked for.
    pub http_path: String,
    /// The server name for TLS, in place of the target's.
    pub https_sni: Option<String>,
    /// Whether the target's certificate must be valid.
    pub https_verify_certificate: bool,
    /// Sent along.
    pub headers: Option<BTreeMap<String, Vec<String>>>,
    /// For targets that are healthy.
    pub healthy: ActiveHealthy,
    /// For targets that are not.
    pub unhealthy: ActiveUnhealthy,
}

impl Default for ActiveChecks {
    fn default() -> Self {
        Self {
            kind: "http".to_owned(),
            timeout: 1.0,
            concurrency: 10,
            http_path: "/".to_owned(),
            https_sni: None,
            https_verify_certificate: true,
            headers: None,
            healthy: ActiveHealthy::default(),
            unhealthy: ActiveUnhealthy::default(),
        }
    }
}

/// `healthchecks.active.healthy`
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default)]
pub struct ActiveHealthy {
    /// Seconds between two checks of a healthy target.
    pub interval: f64,
    /// Statuses that count as a success.
    pub http_statuses: Vec<u16>,
    /// Successes that make a target healthy.
    pub successes: u8,
}

impl Default for ActiveHealthy {
    fn default() -> Self {
        Self {
            interval: 0.0,
            http_statuses: vec![200, 302],
            successes: 0,
        }
    }
}

/// `healthchecks.active.unhealthy`
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default)]
pub struct ActiveUnhealthy {
    /// Seconds between two checks of an unhealthy target.
    pub interval: f64,
    /// Statuses that count as a failure.
    pub http_statuses: Vec<u16>,
    /// Failed connections that make a target unhealthy.
    pub tcp_failures: u8,
    /// Timeouts that do.
    pub timeouts: u8,
    /// Failed answers that do.
    pub http_failures: u8,
}

impl Default for ActiveUnhealthy {
    fn default() -> Self {
        Self {
            interval: 0.0,
            http_statuses: vec![429, 404, 500, 501, 502, 503, 504, 505],
            tcp_failures: 0,
            timeouts: 0,
            http_failures: 0,
        }
    }
}

/// `healthchecks.passive`
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PassiveChecks {
    /// What is good.
    pub healthy: PassiveHealthy,
    /// What is bad.
    pub unhealthy: PassiveUnhealthy,
}

/// `healthchecks.passive.healthy`
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default)]
pub struct PassiveHealthy {
    /// Statuses that count as a success.
    pub http_statuses: Vec<u16>,
    /// Successes that make a target healthy.
    pub successes: u8,
}

impl Default for PassiveHealthy {
    fn default() -> Self {
        let statuses = (200..=208).chain([226]).chain(300..=308);
        Self {
            http_statuses: statuses.collect(),
            successes: 0,
        }
    }
}

/// `healthchecks.passive.unhealthy`
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default)]
pub struct PassiveUnhealthy {
    /// Statuses that count as a failure.
    pub http_statuses: Vec<u16>,
    /// Failed connections that make a target unhealthy.
    pub tcp_failures: u8,
    /// Timeouts that do.
    pub timeouts: u8,
    /// Failed answers that do.
    pub http_failures: u8,
}

impl Default for PassiveUnhealthy {
    fn default() -> Self {
        Self {
            http_statuses: vec![429, 500, 503],
            tcp_failures: 0,
            timeouts: 0,
            http_failures: 0,
        }
    }
}

impl Healthchecks {
    /// Whether anything is checked, as Kong sees it.
    pub fn is_on(&self) -> bool {
        let (active, passive) = (&self.active, &self.passive);
        active.healthy.interval > 0.0
            || active.unhealthy.interval > 0.0
            || passive.unhealthy.tcp_failures > 0
            || passive.unhealthy.timeouts > 0
            || passive.unhealthy.http_failures > 0
    }
}
