//! Numbers and traces for who operates the node.

pub(super) mod datadog;
#[cfg(feature = "opentelemetry")]
pub(super) mod opentelemetry;
pub(super) mod prometheus;
pub(super) mod statsd;
mod stats;
mod trace;
pub(super) mod zipkin;
