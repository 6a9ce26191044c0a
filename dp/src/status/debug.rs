//! `/debug/node/log-level`: what this node logs, while it runs. As on the Admin API of a control plane.

use super::message;
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use sluice_replica::process::logging::{Level, LogLevel, SetError};
use std::time::Duration;

/// How long a level holds if the caller does not say: Kong's.
const TIMEOUT_DEFAULT: u64 = 60;
const PATH: &str = "/debug/node/log-level";

/// The answer, if the path is one of ours.
pub(super) fn answer(
    log_level: &LogLevel,
    (method, path, query): (&Method, &str, Option<&str>),
    from_here: bool,
) -> Option<Response<Full<Bytes>>> {
    let rest = path.strip_prefix(PATH)?;
    match (rest.strip_prefix('/'), method) {
        (None, &Method::GET) if rest.is_empty() => {
            let level = log_level.level();
            let level = level.map_or_else(|| "unknown".to_owned(), |level| level.to_string());
            Some(message(StatusCode::OK, &format!("log level: {level}")))
        }
        // Others may read this listener, and not fill the disk.
        (Some(_), &Method::PUT) if !from_here => Some(message(
            StatusCode::FORBIDDEN,
            "the log level can be set from this machine only",
        )),
        (Some(name), &Method::PUT) => Some(set(log_level, name, query)),
        _ => None,
    }
}

fn set(log_level: &LogLevel, name: &str, query: Option<&str>) -> Response<Full<Bytes>> {
    let Ok(level) = name.parse::<Level>() else {
        return message(
            StatusCode::BAD_REQUEST,
            &format!("unknown log level: {name}"),
        );
    };
    let given = query.and_then(|query| query.strip_prefix("timeout="));
    let Ok(timeout) = given.map_or(Ok(TIMEOUT_DEFAULT), str::parse) else {
        return message(
            StatusCode::BAD_REQUEST,
            "timeout must be a whole number of seconds",
        );
    };
    let timeout = (timeout > 0).then(|| Duration::from_secs(timeout));
    match log_level.set(level, timeout) {
        Ok(true) => message(StatusCode::OK, "log level changed"),
        Ok(false) => message(StatusCode::OK, &format!("log level is already {name}")),
        Err(error @ SetError::NotOurs) => message(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}
