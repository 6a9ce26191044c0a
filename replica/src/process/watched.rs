//! Files that are read again when they change.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// How often it is looked whether a file has changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// When a file was written, and how long it is: what changes with it.
pub type Seen = Option<(SystemTime, u64)>;

/// The file as it is now: to be looked at before it is read.
pub fn look(path: &Path) -> Seen {
    let facts = fs::metadata(path).ok()?;
    Some((facts.modified().ok()?, facts.len()))
}

/// Calls `changed` each time the file is not as it was `seen`, until `shutdown`. That it is gone is a change, too.
pub async fn follow(
    path: PathBuf,
    mut seen: Seen,
    shutdown: CancellationToken,
    mut changed: impl FnMut(&Path),
) {
    let mut tick = tokio::time::interval(LOOK_INTERVAL);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = tick.tick() => {}
        }
        let now = look(&path);
        if now != seen {
            seen = now;
            changed(&path);
        }
    }
}
