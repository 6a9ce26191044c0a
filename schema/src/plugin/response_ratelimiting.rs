//! response-ratelimiting: how much a client may use per period, as the service's answers tell.

use super::PluginSchema;
use super::common::{TEXT, off, on, text};
use super::rate_limiting::{LIMITS, PERIODS, POLICY, limits_ascend};
use super::redis;
use crate::field::{Check, Field};
use serde_json::Value;

pub(super) static SCHEMA: PluginSchema = PluginSchema::new(
    "response-ratelimiting",
    PluginSchema::config(&[
        text("header_name", "x-kong-limit"),
        text("limit_by", "consumer").one_of(&["consumer", "credential", "ip"]),
        POLICY,
        on("fault_tolerant").required(),
        redis::RECORD,
        off("block_on_first_violation").required(),
        off("hide_client_headers").required(),
        Field::map("limits", &TEXT, &LIMIT).required().len_min(1),
    ])
    .aliases(redis::ALIASES),
)
.checks(&[redis::NEEDS_HOST, redis::NEEDS_PORT, redis::NEEDS_TIMEOUT]);

const LIMIT: Field = Field::record("", &LIMITS)
    .required()
    .checks(&[Check::AtLeastOneOf(PERIODS)])
    .custom(ascending);

fn ascending(limit: &Value) -> Result<(), String> {
    limits_ascend(limit, "the")
}
