//! What requests and responses look like.

pub(super) mod correlation_id;
