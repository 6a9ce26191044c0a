//! Plugins that run Lua code from their configuration: known, so that they are refused with the reason.

use super::PluginSchema;
use super::common::{NO_LUA, texts_or_none};
use crate::field::{Check, Field};

/// Before all other plugins.
pub(super) static PRE_FUNCTION: PluginSchema = function("pre-function");
/// After all other plugins.
pub(super) static POST_FUNCTION: PluginSchema = function("post-function");

const fn function(name: &'static str) -> PluginSchema {
    PluginSchema::of(name, PHASES)
        .no_consumer()
        .any_protocol()
        .refused(NO_LUA)
        .checks(&[Check::AtLeastOneOf(&[
            "config.certificate",
            "config.rewrite",
            "config.access",
            "config.header_filter",
            "config.body_filter",
            "config.log",
        ])])
}

const PHASES: &[Field] = &[
    texts_or_none("certificate"),
    texts_or_none("rewrite"),
    texts_or_none("access"),
    texts_or_none("header_filter"),
    texts_or_none("body_filter"),
    texts_or_none("log"),
];
