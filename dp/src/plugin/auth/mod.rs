//! Who the client is.

pub(super) mod basic_auth;
pub(super) mod identify;
pub(super) mod key_auth;
