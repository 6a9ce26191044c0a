//! rate-limiting: how many requests a client may send per period.

use super::PluginSchema;
use super::common::{needs, number, off, on, text};
use super::redis;
use crate::check::text::header_name;
use crate::field::{Check, Field, Literal};
use crate::kind::common::PATH;
use serde_json::Value;

/// The periods, shortest first.
pub(super) const PERIODS: &[&str] = &["second", "minute", "hour", "day", "month", "year"];

/// The limit per period.
pub(super) const LIMITS: [Field; 6] = [
    Field::number("second").gt(0.0),
    Field::number("minute").gt(0.0),
    Field::number("hour").gt(0.0),
    Field::number("day").gt(0.0),
    Field::number("month").gt(0.0),
    Field::number("year").gt(0.0),
];

/// Where requests are counted.
pub(super) const POLICY: Field = text("policy", "local").one_of(&["local", "cluster", "redis"]);

pub(super) static SCHEMA: PluginSchema = PluginSchema::new(
    "rate-limiting",
    PluginSchema::config(CONFIG)
        .aliases(redis::ALIASES)
        .custom(ascending),
)
.checks(&[
    Check::AtLeastOneOf(&[
        "config.second",
        "config.minute",
        "config.hour",
        "config.day",
        "config.month",
        "config.year",
    ]),
    redis::NEEDS_HOST,
    redis::NEEDS_PORT,
    redis::NEEDS_TIMEOUT,
    needs(
        "config.limit_by",
        Literal::Text("header"),
        "config.header_name",
    ),
    needs("config.limit_by", Literal::Text("path"), "config.path"),
]);

const CONFIG: &[Field] = &[
    LIMITS[0],
    LIMITS[1],
    LIMITS[2],
    LIMITS[3],
    LIMITS[4],
    LIMITS[5],
    text("limit_by", "consumer").one_of(&[
        "consumer",
        "credential",
        "ip",
        "service",
        "header",
        "path",
    ]),
    Field::string("header_name").text(header_name),
    PATH,
    POLICY.len_min(0),
    on("fault_tolerant").required(),
    redis::RECORD,
    off("hide_client_headers").required(),
    number("error_code", 429).gt(0.0),
    text("error_message", "API rate limit exceeded"),
    number("sync_rate", -1).required(),
];

fn ascending(config: &Value) -> Result<(), String> {
    limits_ascend(config, "The")
}

/// A longer period cannot allow less than a shorter one. `article` begins the error.
pub(super) fn limits_ascend(config: &Value, article: &str) -> Result<(), String> {
    let limits: Vec<_> = PERIODS
        .iter()
        .filter_map(|period| Some((period, config.get(*period)?.as_f64()?)))
        .collect();
    for (at, (lower, less)) in limits.iter().enumerate() {
        for (upper, more) in &limits[at + 1..] {
            if more < less {
                return Err(format!(
                    "{article} limit for {upper}({more:.1}) cannot be lower than the limit for \
                     {lower}({less:.1})"
                ));
            }
        }
    }
    Ok(())
}
