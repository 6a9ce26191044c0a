//! Plugins that answer requests themselves.

use super::PluginSchema;
use super::common::{integer, off, url};
use crate::check::text::header_name;
use crate::field::Field;
use serde_json::Value;

/// With another place to go to.
pub(super) static REDIRECT: PluginSchema = PluginSchema::of(
    "redirect",
    &[
        integer("status_code", 301).required().between(100, 599),
        url("location").required(),
        off("keep_incoming_path"),
    ],
);

/// With a fixed answer.
pub(super) static REQUEST_TERMINATION: PluginSchema = PluginSchema::new(
    "request-termination",
    PluginSchema::config(&[
        integer("status_code", 503).required().between(100, 599),
        Field::string("message"),
        Field::string("content_type"),
        Field::string("body"),
        off("echo").required(),
        Field::string("trigger").text(header_name),
    ])
    .custom(one_answer),
);

/// There is one way to say what the answer is.
fn one_answer(config: &Value) -> Result<(), String> {
    let given = |name: &str| config.get(name).is_some_and(Value::is_string);
    let raw = given("content_type") || given("body");
    let error = if given("message") && raw {
        "message cannot be used with content_type or body"
    } else if given("content_type") && !given("body") {
        "content_type requires a body"
    } else if raw && config.get("echo") == Some(&Value::Bool(true)) {
        "echo cannot be used with content_type and body"
    } else {
        return Ok(());
    };
    Err(error.to_owned())
}
