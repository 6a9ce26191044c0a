//! Which requests may pass, and how many.

#[cfg(not(feature = "redis"))]
mod absent;
pub(super) mod acl;
mod background;
pub(super) mod bot_detection;
mod cluster;
pub(super) mod cors;
mod counters;
pub(super) mod ip_restriction;
mod limiter;
mod noted;
mod period;
pub(super) mod proxy_cache;
pub(super) mod rate_limiting;
pub(super) mod redirect;
#[cfg(feature = "redis")]
mod redis;
pub(super) mod request_size_limiting;
pub(super) mod request_termination;
pub(super) mod response_ratelimiting;
mod subject;
mod windows;
