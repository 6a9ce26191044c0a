//! What requests and responses look like.

pub(super) mod correlation_id;
mod edits;
#[cfg(feature = "grpc-gateway")]
pub(super) mod grpc_gateway;
pub(super) mod grpc_web;
mod multipart;
mod parameters;
pub(super) mod request_transformer;
pub(super) mod response_transformer;
