//! Numbers and traces for who operates the node.

pub(super) mod datadog;
#[cfg(feature = "opentelemetry")]
pub(super) mod opentelemetry;
pub(super) mod prometheus;
mod stats;
pub(super) mod statsd;
mod trace;
pub(super) mod zipkin;
