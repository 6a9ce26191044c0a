//! Taking up a snapshot: one part at a time, between which the replica goes on doing everything else.

use super::{Replica, chain};
use crate::follow::Input;
use crate::log::LogError;
use crate::planted::{Bug, planted};
use crate::snapshot::{LoadError, Part, Root, load};
use crate::store::StoreError;
use futures::StreamExt;
use futures::stream::BoxStream;
use sluice_schema::chunk::Tree;
use std::time::Duration;
use tokio::time::Instant;

/// Between two lines about the progress of a long load.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// A snapshot on its way.
pub(super) struct Loading {
    root: Root,
    parts: BoxStream<'static, Result<Part, LoadError>>,
    tree: Option<Tree>,
    ranges: usize,
    done: usize,
    began: Instant,
    told: Instant,
}

impl Loading {
    /// The next part; `None` after the last.
    pub(super) async fn next(&mut self) -> Option<Result<Part, LoadError>> {
        self.parts.next().await
    }

    fn tell_progress(&mut self) {
        if self.told.elapsed() >= PROGRESS_INTERVAL {
            self.told = Instant::now();
            tracing::info!(version = %self.root.cursor.version, ranges = self.done, of = self.ranges, "loading a snapshot");
        }
    }
}

/// Why a load has ended without success.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("could not load the snapshot")]
    Load(#[from] LoadError),
    #[error("could not take up the snapshot")]
    Store(#[from] StoreError),
}

impl Failure {
    /// What it says of the snapshot.
    fn input(&self) -> Input {
        match self {
            Self::Load(LoadError::Chunk(_) | LoadError::Digest)
            | Self::Store(StoreError::Apply(_) | StoreError::Load(_)) => Input::LoadUseless,
            Self::Load(LoadError::Log(LogError::Unusable(_)) | LoadError::Missing(_)) => {
                Input::LoadFailed
            }
            // Nothing: it is the broker or our own disk that does not answer.
            Self::Load(LoadError::Log(LogError::Unavailable(_)))
            | Self::Store(StoreError::Io { .. } | StoreError::Damaged(_)) => Input::LoadPostponed,
        }
    }
}

impl Replica {
    /// Begins to take up a snapshot; gives back an input only if that fails at once.
    pub(super) fn begin_load(&mut self, root: Root) -> Option<Input> {
        let own = match self.store.tree() {
            Ok(own) => own.clone(),
            Err(error) => {
                self.note(&error);
                return Some(Input::LoadPostponed);
            }
        };
        tracing::info!(version = %root.cursor.version, entities = root.entities, "taking up a snapshot");
        let parts = load(self.source.chunks.clone(), root.clone(), own);
        let now = Instant::now();
        self.loading = Some(Loading {
            root,
            parts,
            tree: None,
            ranges: 0,
            done: 0,
            began: now,
            told: now,
        });
        None
    }

    /// Takes the next part of a load, or its end.
    pub(super) async fn take_part(&mut self, part: Option<Result<Part, LoadError>>) {
        let Some(mut loading) = self.loading.take() else {
            return;
        };
        let ended = match part {
            Some(Ok(part)) => match self.stage_part(&mut loading, part) {
                Ok(()) => {
                    loading.tell_progress();
                    self.loading = Some(loading);
                    return;
                }
                Err(failure) => Err(failure),
            },
            Some(Err(error)) => Err(error.into()),
            None => self.commit_load(&loading),
        };
        let input = match ended {
            Ok(()) => {
                let (ranges, took) = (loading.ranges, loading.began.elapsed());
                tracing::info!(version = %loading.root.cursor.version, ranges, ?took, "took up a snapshot");
                Input::Loaded(loading.root.cursor)
            }
            Err(failure) => self.fail_load(&failure),
        };
        self.step(input).await;
    }

    fn stage_part(&mut self, loading: &mut Loading, part: Part) -> Result<(), Failure> {
        match part {
            Part::Plan {
                bytes,
                ranges,
                tree,
            } => {
                self.store.begin(loading.root.cursor, bytes)?;
                (loading.tree, loading.ranges) = (Some(tree), ranges);
            }
            Part::Range { range, entities } => {
                let (from, to) = (range.from.as_ref(), range.to.as_ref());
                let changes = self.store.take_range(from, to, entities)?;
                self.sink.stage(&changes);
                if planted(Bug::HalfLoadVisible) {
                    self.sink.commit(loading.root.cursor, loading.root.digest);
                }
                loading.done += 1;
            }
        }
        Ok(())
    }

    fn commit_load(&mut self, loading: &Loading) -> Result<(), Failure> {
        let root = &loading.root;
        let tree = loading.tree.clone().unwrap_or_default();
        self.store.commit(root.digest, tree)?;
        self.sink.commit(root.cursor, root.digest);
        self.save_later();
        Ok(())
    }

    fn fail_load(&mut self, failure: &Failure) -> Input {
        self.store.abandon();
        self.sink.abandon();
        tracing::warn!(error = %chain(failure), "could not take up a snapshot; what was active stays active");
        let text = chain(failure);
        self.status
            .send_modify(|status| status.last_error = Some(text));
        failure.input()
    }
}
