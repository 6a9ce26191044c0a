//! Which requests may pass, and how many.

#[cfg(not(feature = "redis"))]
mod absent;
mod counters;
mod limiter;
pub(super) mod rate_limiting;
#[cfg(feature = "redis")]
mod redis;
pub(super) mod response_ratelimiting;
mod subject;
