//! The file of callers, read again when it changes.

use super::file::File;
use anyhow::Context;
use arc_swap::ArcSwap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// How often it is looked whether it has changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The file as it is now. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Watched(Arc<ArcSwap<File>>);

impl Watched {
    /// What does not change.
    pub fn fixed(file: File) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(file)))
    }

    /// Reads the file.
    ///
    /// # Errors
    /// If it cannot be read or understood.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(Self::fixed(read(path)?))
    }

    /// What it says.
    pub fn current(&self) -> Arc<File> {
        self.0.load_full()
    }

    /// Takes up changes of the file until `shutdown`. One that cannot be understood is logged, and what was there before counts.
    pub async fn follow(self, path: PathBuf, shutdown: CancellationToken) {
        let mut seen = changed_at(&path);
        let mut tick = tokio::time::interval(LOOK_INTERVAL);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = tick.tick() => {}
            }
            let now = changed_at(&path);
            if now == seen {
                continue;
            }
            seen = now;
            match read(&path) {
                Ok(file) => {
                    self.0.store(Arc::new(file));
                    tracing::info!(path = %path.display(), "took up who may call the Admin API");
                }
                Err(error) => {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "kept who may call the Admin API as it was"
                    );
                }
            }
        }
    }
}

fn read(path: &Path) -> anyhow::Result<File> {
    let text = fs::read_to_string(path);
    let text = text.with_context(|| format!("could not read {}", path.display()))?;
    File::parse(&text).with_context(|| format!("{} cannot be used", path.display()))
}

/// When the file was written, and how long it is: what changes with it.
fn changed_at(path: &Path) -> Option<(SystemTime, u64)> {
    let facts = fs::metadata(path).ok()?;
    Some((facts.modified().ok()?, facts.len()))
}
