//! `/log/...`: the log itself. The only reads that ask it.

use super::answer;
use super::error::Problem;
use super::info::synced;
use super::moment;
use super::request::Call;
use axum::response::Response;
use serde_json::json;
use sluice_replica::log::LogError;
use std::time::Duration;

/// How long the log may take to answer.
const LOG_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take where the answer can do without.
const BOUNDS_TIMEOUT: Duration = Duration::from_secs(1);

/// `GET /log/head`: the log's ends, and where this control plane is.
pub(super) async fn head(call: &Call<'_>) -> Response {
    let control_plane = &call.admin.control_plane;
    let status = control_plane.view.status();
    let bounds = tokio::time::timeout(BOUNDS_TIMEOUT, control_plane.source.log.bounds()).await;
    let bounds = bounds.ok().and_then(Result::ok);
    let announced = status.head.as_ref().map(|(head, _)| head.first);
    let first = bounds.map(|bounds| bounds.first).or(announced);
    let last = bounds.map_or(status.seen, |bounds| bounds.last);
    answer::ok(&json!({
        "epoch": status.cursor.epoch.to_string(),
        "version": status.cursor.version.0,
        "chain": status.cursor.chain.to_string(),
        "digest": status.digest.to_string(),
        "entities": status.entities,
        "first": first.map(|version| version.0),
        "last": last.0,
        "phase": status.phase.to_string(),
        "connected": status.connected,
        "history": moment::reach(control_plane.history.reach()),
        "synced": synced(&control_plane.info.durability.borrow()),
    }))
}

/// What the log answers, if it does in time.
pub(super) async fn in_time<T>(
    asking: impl Future<Output = Result<T, LogError>>,
) -> Result<T, Problem> {
    match tokio::time::timeout(LOG_TIMEOUT, asking).await {
        Ok(answer) => answer.map_err(|error| Problem::Unavailable(error.to_string())),
        Err(_) => Err(Problem::Unavailable(
            "the log did not answer in time".to_owned(),
        )),
    }
}
