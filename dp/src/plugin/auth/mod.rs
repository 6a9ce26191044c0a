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

use super::phase::Plugin;

/// The plugins that can say who the consumer is.
const IDENTIFYING: [&str; 7] = [
    <basic_auth::BasicAuth as Plugin>::NAME,
    <hmac_auth::HmacAuth as Plugin>::NAME,
    <jwt::Jwt as Plugin>::NAME,
    <key_auth::KeyAuth as Plugin>::NAME,
    <ldap_auth::LdapAuth as Plugin>::NAME,
    <oauth2::Oauth2 as Plugin>::NAME,
    <session::Session as Plugin>::NAME,
];

/// Whether a plugin of this name can say who the consumer is.
pub(crate) fn identifies(name: &str) -> bool {
    IDENTIFYING.contains(&name)
}
