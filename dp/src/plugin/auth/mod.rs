//! Who the client is.

pub(super) mod basic_auth;
pub(super) mod hmac_auth;
pub(super) mod identify;
pub(super) mod jwt;
pub(super) mod key_auth;
pub(super) mod ldap_auth;
pub(super) mod oauth2;
pub(super) mod session;
pub(super) mod standard_webhooks;
mod text;
