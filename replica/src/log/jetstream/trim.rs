//! Trimming: the log's beginning is purged, by the stream's leader.

use super::LogError;
use super::link::Link;
use super::names::Names;
use super::read;
use super::setup::{api, error_code, refusal};
use serde_json::json;
use sluice_schema::version::Version;
use std::cmp::Ordering;

/// Purging failed: the stream does not allow it.
const NOT_PURGED: u64 = 10110;

/// Removes what is before `first`. The broker must never be asked to purge to sequence 0, which would remove everything,
/// or beyond the end, which would also move the next sequence: so both are ruled out before.
pub(super) async fn trim(link: &Link, names: &Names, first: Version) -> Result<(), LogError> {
    let refused = |reason: String| {
        LogError::Unusable(format!(
            "could not trim the log to version {first}: {reason}"
        ))
    };
    let bounds = read::bounds(link, names).await?;
    if first > bounds.last {
        return Err(refused(format!("it ends at version {}", bounds.last)));
    }
    if first <= bounds.first {
        return Ok(());
    }
    if read::from_leader(link, names, first).await?.is_none() {
        return Err(refused("the log has lost it".into()));
    }
    let operation = format!("STREAM.PURGE.{}", names.log_stream);
    let answer = api(link, operation, &json!({ "seq": first.0 })).await?;
    match error_code(&answer) {
        None => {}
        Some(NOT_PURGED) => return Err(refused(answer["error"]["description"].to_string())),
        Some(_) => {
            let what = format!("could not trim the log to version {first}");
            return Err(refusal(&answer, &what));
        }
    }
    let bounds = read::bounds(link, names).await?;
    match bounds.first.cmp(&first) {
        Ordering::Equal => Ok(()),
        Ordering::Less => Err(LogError::Unavailable(format!(
            "the log still begins at version {} after trimming it to {first}",
            bounds.first
        ))),
        Ordering::Greater => Err(refused(format!(
            "it begins at version {} now: somebody else trims it",
            bounds.first
        ))),
    }
}
