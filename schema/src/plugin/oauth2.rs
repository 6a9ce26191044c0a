//! oauth2: consumers' applications get tokens from the gateway.

use super::PluginSchema;
use super::common::{ANONYMOUS, REALM, needs, number, off, text, texts};
use crate::field::{Auto, Field, Literal};
use serde_json::Value;

pub(super) static SCHEMA: PluginSchema = PluginSchema::new(
    "oauth2",
    PluginSchema::config(CONFIG)
        .checks(&[needs("mandatory_scope", Literal::Bool(true), "scopes")])
        .custom(some_flow),
)
.no_consumer();

const FLOWS: &[&str] = &[
    "enable_authorization_code",
    "enable_implicit_grant",
    "enable_client_credentials",
    "enable_password_grant",
];

const CONFIG: &[Field] = &[
    texts("scopes"),
    off("mandatory_scope").required(),
    Field::string("provision_key")
        .required()
        .unique()
        .auto(Auto::Random)
        .encrypted(),
    number("token_expiration", 7200).required(),
    off(FLOWS[0]).required(),
    off(FLOWS[1]).required(),
    off(FLOWS[2]).required(),
    off(FLOWS[3]).required(),
    off("hide_credentials").required(),
    off("accept_http_if_already_terminated").required(),
    ANONYMOUS,
    off("global_credentials").required(),
    text("auth_header_name", "authorization"),
    number("refresh_token_ttl", 1_209_600)
        .required()
        .between(0, 100_000_000),
    off("reuse_refresh_token").required(),
    text("pkce", "lax").one_of(&["none", "lax", "strict"]),
    REALM,
];

/// There is a way to get a token.
fn some_flow(config: &Value) -> Result<(), String> {
    let enabled = |flow: &&str| config.get(*flow) == Some(&Value::Bool(true));
    if FLOWS.iter().any(enabled) {
        return Ok(());
    }
    Err(format!(
        "at least one of these fields must be true: {}",
        FLOWS.join(", ")
    ))
}
