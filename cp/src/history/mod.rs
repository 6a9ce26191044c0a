//! History: which events touched which entity, and what everything was at any version that the log still tells.
//!
//! An index in memory is built from the log after the start and kept up with it; bodies stay in the log. It is only ever
//! as new as the state of this control plane, and counts as whole only where its chain is that state's.

mod build;
mod fetch;
mod filter;
mod index;
mod past;
#[cfg(test)]
mod tests;
mod texts;

pub(crate) use fetch::Found;
pub(crate) use filter::Filter;
pub(crate) use index::Summary;

use crate::Snapshots;
use crate::view::View;
use index::Index;
use past::Kept;
use sluice_replica::log::Source;
use sluice_schema::entity::Key;
use sluice_schema::state::State;
use sluice_schema::version::{Cursor, Epoch, Time, Version};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long a question waits for the index to reach what it is about.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// How far back the history reaches, and whether it is whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reach {
    /// The log's life.
    pub epoch: Epoch,
    /// The first version that is known; nothing is if it is after the last.
    pub first: Version,
    /// The last one.
    pub last: Version,
    /// The earliest version whose state can be told.
    pub earliest: Version,
    /// Whether it went up to what this control plane had applied when it last looked. False after a start, a trim, and
    /// a new life of the log, until the log has been read.
    pub complete: bool,
}

/// Why the past cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The log is still being read.
    #[error("the history is being read from the log: version {0} of {1}; try again")]
    Building(Version, Version),
    /// What is asked for has not happened.
    #[error("there is no version {0} yet: the last is {1}")]
    NotYet(Version, Version),
    /// It was before what the log and its snapshots still tell.
    #[error(
        "the history reaches back to version {0}: what was before it has been trimmed off the log"
    )]
    TooEarly(Version),
    /// The log has been trimmed, and no snapshot tells what there was.
    #[error("the log has been trimmed, and there is no snapshot of what it began with")]
    NoSnapshot,
    /// This event has been trimmed off meanwhile.
    #[error("version {0} is no longer in the log")]
    Trimmed(Version),
    /// The log has something else than what was applied.
    #[error("event {0} cannot be used: {1}")]
    Damaged(Version, String),
    /// The log cannot be read now.
    #[error("{0}")]
    Log(String),
    /// Our mistake.
    #[error("{0}")]
    Failed(String),
}

#[derive(Debug)]
struct Parts {
    source: Source,
    view: View,
    snapshots: Snapshots,
    index: RwLock<Index>,
    kept: Mutex<Kept>,
    reach: watch::Sender<Reach>,
}

/// Answers questions about the past. Cheap to clone.
#[derive(Clone, Debug)]
pub struct History {
    parts: Arc<Parts>,
}

impl History {
    /// The handle, and the task that keeps it up with the log until `shutdown`.
    pub fn new(
        source: Source,
        view: View,
        snapshots: Snapshots,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let history = Self {
            parts: Arc::new(Parts {
                source: source.clone(),
                view: view.clone(),
                snapshots,
                index: RwLock::default(),
                kept: Mutex::default(),
                reach: watch::Sender::default(),
            }),
        };
        let task = build::run(history.clone(), source, view, shutdown);
        (history, task)
    }

    /// How far back it reaches now.
    pub fn reach(&self) -> Reach {
        *self.parts.reach.borrow()
    }

    /// Waits a little for the index to have all of the state as it is now, which is what it gives back. A state is never
    /// older than what anybody has been told.
    ///
    /// # Errors
    /// If the log is still being read.
    pub(crate) async fn whole(&self) -> Result<Arc<State>, HistoryError> {
        let state = self.parts.view.state();
        let cursor = state.cursor();
        let mut reach = self.parts.reach.subscribe();
        let has = |reach: &Reach| {
            reach.complete && reach.epoch == cursor.epoch && reach.last >= cursor.version
        };
        let waited = tokio::time::timeout(WAIT_MAX, reach.wait_for(has)).await;
        match waited {
            Ok(Ok(_)) => Ok(state),
            Ok(Err(_)) | Err(_) => {
                let reached = self.reach().last;
                Err(HistoryError::Building(reached, cursor.version))
            }
        }
    }

    /// The versions that touched an entity, newest first, at most `max` at or before `until`.
    pub(crate) fn versions(&self, key: &Key, until: Version, max: usize) -> Vec<Version> {
        let index = self.read();
        let versions = index.versions(key).filter(|version| *version <= until);
        versions.take(max).collect()
    }

    /// The entities that ever had a name, most recently touched first.
    pub(crate) fn named(&self, kind: &str, workspace: &str, name: &str) -> Vec<Key> {
        self.read().named(kind, workspace, name)
    }

    /// The versions that a filter accepts, in order or newest first, at most `max`. One whose reason is long ago may be among
    /// them though it is not accepted.
    pub(crate) fn select(&self, filter: &Filter, newest_first: bool, max: usize) -> Vec<Version> {
        self.read().select(filter, newest_first, max)
    }

    /// The last version that was decided at or before a time.
    pub(crate) fn at_time(&self, time: Time) -> Option<Version> {
        self.read().at_time(time)
    }

    /// What is known of an event without reading it.
    pub(crate) fn summary(&self, version: Version) -> Option<Summary> {
        self.read().summary(version)
    }

    /// Checks that the state at a version can be told.
    ///
    /// # Errors
    /// If it is too early or has not been reached.
    pub(crate) fn check(&self, version: Version) -> Result<(), HistoryError> {
        let index = self.read();
        let (earliest, last) = (index.earliest(), index.last());
        // Before the first event of all there was nothing.
        let begins = index.before() == index::Before::Nothing && version == Version::ZERO;
        if version < earliest && !begins {
            return Err(HistoryError::TooEarly(earliest));
        }
        match version > last {
            true => Err(HistoryError::NotYet(version, last)),
            false => Ok(()),
        }
    }

    /// The entities that were touched after one version and up to another.
    pub(crate) fn touched(&self, after: Version, until: Version) -> Vec<Key> {
        self.read().touched(after, until)
    }

    fn read(&self) -> RwLockReadGuard<'_, Index> {
        let index = &self.parts.index;
        index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        let index = &self.parts.index;
        index.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        let kept = &self.parts.kept;
        kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts over.
    fn reset(&self) {
        *self.write() = Index::default();
        *self.kept() = Kept::default();
        self.parts.reach.send_replace(Reach::default());
    }

    /// The index has more than before.
    fn grown(&self) {
        let (epoch, first, last, earliest) = {
            let index = self.read();
            let ends = (index.first(), index.last());
            (index.epoch(), ends.0, ends.1, index.earliest())
        };
        self.parts.reach.send_modify(|reach| {
            // Whole up to some version it stays until it is read anew.
            let complete = reach.complete && reach.epoch == epoch && reach.first == first;
            *reach = Reach {
                epoch,
                first,
                last: if complete { reach.last } else { last },
                earliest,
                complete,
            };
        });
    }

    /// The index has everything up to what has been applied.
    fn anchored(&self, cursor: Cursor) {
        let (first, earliest) = {
            let index = self.read();
            (index.first(), index.earliest())
        };
        let now = Reach {
            epoch: cursor.epoch,
            first,
            last: cursor.version,
            earliest,
            complete: true,
        };
        self.parts.reach.send_if_modified(|reach| {
            let changed = *reach != now;
            *reach = now;
            changed
        });
    }
}
