//! Files that are read again when they change.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// How often it is looked whether a file has changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Calls `changed` each time the file has changed, until `shutdown`. That it is gone is a change, too.
pub async fn follow(path: PathBuf, shutdown: CancellationToken, mut changed: impl FnMut(&Path)) {
    let mut seen = changed_at(&path);
    let mut tick = tokio::time::interval(LOOK_INTERVAL);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = tick.tick() => {}
        }
        let now = changed_at(&path);
        if now != seen {
            seen = now;
            changed(&path);
        }
    }
}

/// When the file was written, and how long it is: what changes with it.
fn changed_at(path: &Path) -> Option<(SystemTime, u64)> {
    let facts = fs::metadata(path).ok()?;
    Some((facts.modified().ok()?, facts.len()))
}
