//! Fields and rules that several plugins share.

use crate::check::url;
use crate::field::{Check, Field, Literal, Match};
use crate::kind::common::TIMEOUT;
use serde_json::{Map, Value};

/// The consumer of requests that do not say who sent them: an id or a username.
pub(super) const ANONYMOUS: Field = Field::string("anonymous");
/// What `WWW-Authenticate` names.
pub(super) const REALM: Field = Field::string("realm");
/// Any text, as an element, key or value.
pub(super) const TEXT: Field = Field::string("");
/// The largest body that is read, in bytes.
pub(super) const REQUEST_BODY_MAX: Field = integer("max_request_body_size", 8192).gt(0.0);
/// Names and values of headers that are sent with a request to a service of the plugin's own.
pub(super) const HEADER_VALUE: Field = TEXT.referenceable();
/// Why what Kong runs Lua for is refused.
pub(super) const NO_LUA: &str =
    "Sluice does not run Lua; docs/guide/plugins.md says what to use instead";
/// Names of log fields and the Lua code that makes their values: refused, unless there are none.
pub(super) const CUSTOM_FIELDS: Field =
    Field::map("custom_fields_by_lua", &TEXT.len_min(1), &TEXT.len_min(1)).custom(no_lua_fields);

fn no_lua_fields(value: &Value) -> Result<(), String> {
    let none = value.as_object().is_none_or(Map::is_empty);
    none.then_some(()).ok_or_else(|| NO_LUA.to_owned())
}

/// No longer used; still taken.
pub(super) const RETRY_COUNT: Field = Field::integer("retry_count");
/// Replaced by `queue.max_batch_size`.
pub(super) const QUEUE_SIZE: Field = Field::integer("queue_size");
/// Replaced by `queue.max_coalescing_delay`.
pub(super) const FLUSH_TIMEOUT: Field = Field::number("flush_timeout");

/// How entries are gathered and sent to where a plugin sends them.
pub(super) const QUEUE: Field = Field::record(
    "queue",
    &[
        integer("max_batch_size", 1).between(1, 1_000_000),
        number("max_coalescing_delay", 1).between(0, 3600),
        integer("max_entries", 10_000).between(1, 1_000_000),
        Field::integer("max_bytes"),
        number("max_retry_time", 60),
        Field::number("initial_retry_delay")
            .default(Literal::Number(0.01))
            .between_numbers(0.001, 1e6),
        number("max_retry_delay", 60).between_numbers(0.001, 1e6),
        integer("concurrency_limit", 1).one_of_ints(&[-1, 1]),
    ],
)
.required();

/// A flag that is on unless turned off.
pub(super) const fn on(name: &'static str) -> Field {
    Field::boolean(name).default(Literal::Bool(true))
}

/// A flag that is off unless turned on.
pub(super) const fn off(name: &'static str) -> Field {
    Field::boolean(name).default(Literal::Bool(false))
}

/// A text with a default.
pub(super) const fn text(name: &'static str, default: &'static str) -> Field {
    Field::string(name).default(Literal::Text(default))
}

/// A whole number with a default.
pub(super) const fn integer(name: &'static str, default: i64) -> Field {
    Field::integer(name).default(Literal::Int(default))
}

/// A number with a default.
pub(super) const fn number(name: &'static str, default: i64) -> Field {
    Field::number(name).default(Literal::Int(default))
}

/// A list of texts.
pub(super) const fn texts(name: &'static str) -> Field {
    Field::array(name, &TEXT)
}

/// A list of texts that is empty by default.
pub(super) const fn texts_or_none(name: &'static str) -> Field {
    none_by_default(texts(name))
}

/// A list that has no elements by default.
pub(super) const fn none_by_default(list: Field) -> Field {
    list.required().default(Literal::Texts(&[]))
}

/// A URL.
pub(super) const fn url(name: &'static str) -> Field {
    Field::string(name).text(url::absolute)
}

/// A time limit in milliseconds.
pub(super) const fn timeout(name: &'static str, default: i64) -> Field {
    TIMEOUT.named(name).default(Literal::Int(default))
}

/// `then_field` must have a value if `if_field` has this one.
pub(super) const fn needs(
    if_field: &'static str,
    value: Literal,
    then_field: &'static str,
) -> Check {
    Check::Conditional {
        if_field,
        if_match: Match::Is(value),
        then_field,
        then_match: Match::Required,
        error: None,
    }
}
