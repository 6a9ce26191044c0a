//! What requests and responses look like.

pub(super) mod correlation_id;
mod edits;
mod multipart;
mod parameters;
pub(super) mod request_transformer;
pub(super) mod response_transformer;
