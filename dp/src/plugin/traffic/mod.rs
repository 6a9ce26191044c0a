//! Which requests may pass, and how many.

pub(super) mod counters;
pub(super) mod rate_limiting;
