//! The file of callers, read again when it changes.

use super::file::File;
use anyhow::Context;
use arc_swap::ArcSwap;
use sluice_replica::process::watched;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

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

    /// Takes up changes of the file, which was `seen` before it was opened, until `shutdown`. One that cannot be understood is logged, and what was there before counts.
    pub async fn follow(self, path: PathBuf, seen: watched::Seen, shutdown: CancellationToken) {
        let take = |path: &Path| match read(path) {
            Ok(file) => {
                self.0.store(Arc::new(file));
                tracing::info!(path = %path.display(), "took up who may call the Admin API");
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "kept who may call the Admin API as it was");
            }
        };
        watched::follow(path, seen, shutdown, take).await;
    }
}

fn read(path: &Path) -> anyhow::Result<File> {
    let text = fs::read_to_string(path);
    let text = text.with_context(|| format!("could not read {}", path.display()))?;
    File::parse(&text).with_context(|| format!("{} cannot be used", path.display()))
}
