//! `/debug/...`: the log level of this control plane, while it runs.

use super::answer;
use super::error::Problem;
use super::request::Call;
use axum::response::Response;
use serde_json::json;
use sluice_replica::process::logging::{Level, SetError};
use std::time::Duration;

/// How long a level holds if the caller does not say: Kong's.
const TIMEOUT_DEFAULT: u64 = 60;

/// `GET /debug/node/log-level`.
pub(super) fn log_level(call: &Call<'_>) -> Response {
    let level = call.admin.control_plane.log_level.level();
    let level = level.map_or_else(|| "unknown".to_owned(), |level| level.to_string());
    answer::ok(&json!({ "message": format!("log level: {level}") }))
}

/// `PUT /debug/node/log-level/:level[?timeout=SECONDS]`.
pub(super) fn set_log_level(call: &Call<'_>, name: &str) -> Result<Response, Problem> {
    let level: Level = name
        .parse()
        .map_err(|_| Problem::Bad(format!("unknown log level: {name}")))?;
    let timeout = call.query.number("timeout")?.unwrap_or(TIMEOUT_DEFAULT);
    let timeout = (timeout > 0).then(|| Duration::from_secs(timeout));
    let log_level = &call.admin.control_plane.log_level;
    let message = match log_level.set(level, timeout) {
        Ok(true) => "log level changed".to_owned(),
        Ok(false) => format!("log level is already {name}"),
        Err(error @ SetError::NotOurs) => return Err(Problem::Bad(error.to_string())),
    };
    Ok(answer::ok(&json!({ "message": message })))
}

/// `PUT /debug/cluster/...`: there is no way yet to tell it to other nodes.
pub(super) fn set_cluster_log_level() -> Problem {
    let message = "log levels are set node by node: PUT /debug/node/log-level/{level} on each \
                   control plane";
    Problem::Bad(message.to_owned())
}
