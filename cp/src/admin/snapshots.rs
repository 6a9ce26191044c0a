//! `/log/snapshots` and `/log/trim`: the state as chunks, and the log cut off behind it.

use super::answer;
use super::error::Problem;
use super::request::{BODY_BYTES_MAX, Call};
use super::time::rfc3339;
use crate::snapshots::SnapshotError;
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_replica::snapshot::{Cut, Root};
use sluice_schema::version::Version;

impl From<SnapshotError> for Problem {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::NotNow(reason) | SnapshotError::Failed(reason) => {
                Self::Unavailable(reason)
            }
            SnapshotError::Refused(reason) => Self::Conflict(reason),
        }
    }
}

/// `GET /log/snapshots`, newest first.
pub(super) async fn list(call: &Call<'_>) -> Result<Response, Problem> {
    let listed = call.admin.control_plane.snapshots.list().await?;
    let data: Vec<Value> = listed.iter().rev().map(show).collect();
    Ok(answer::ok(&json!({ "data": data, "next": null })))
}

fn show(root: &Root) -> Value {
    json!({
        "name": root.name(),
        "epoch": root.cursor.epoch.to_string(),
        "version": root.cursor.version.0,
        "chain": root.cursor.chain.to_string(),
        "digest": root.digest.to_string(),
        "entities": root.entities,
        "bytes": root.bytes,
        "time": rfc3339(root.time),
        "announcer": root.announcer.to_string(),
        "trusted": true,
        "chartered": root.chartered,
    })
}

/// `POST /log/snapshots`: cuts one now.
pub(super) async fn cut(call: &Call<'_>) -> Result<Response, Problem> {
    let Cut {
        root,
        written,
        written_bytes,
        chunks,
    } = call.admin.control_plane.snapshots.cut().await?;
    let mut shown = show(&root);
    shown["chunks"] = chunks.into();
    shown["written"] = written.into();
    shown["written_bytes"] = written_bytes.into();
    Ok(answer::json(StatusCode::CREATED, &shown))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Trim {
    before: u64,
}

/// `POST /log/trim` with `{"before": N}`: removes the events before version N, behind a snapshot.
pub(super) async fn trim(call: &Call<'_>, body: Body) -> Result<Response, Problem> {
    let bytes = call.read(body, BODY_BYTES_MAX).await?;
    let Trim { before } = serde_json::from_slice(&bytes).map_err(|_| Problem::NotJson)?;
    let snapshots = &call.admin.control_plane.snapshots;
    let trimmed = snapshots.trim(Version(before)).await?;
    Ok(answer::ok(&json!({
        "first": trimmed.first.0,
        "last": trimmed.last.0,
        "snapshot": trimmed.snapshot.0,
    })))
}
