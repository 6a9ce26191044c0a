//! Which requests may pass, and how many.

pub(super) mod acl;
pub(super) mod bot_detection;
pub(super) mod cors;
pub(super) mod counters;
pub(super) mod ip_restriction;
pub(super) mod rate_limiting;
pub(super) mod redirect;
pub(super) mod request_size_limiting;
pub(super) mod request_termination;
