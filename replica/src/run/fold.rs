//! Folding the whole log, from its beginning or from a snapshot behind which it was trimmed.

use super::resolve::resolve;
use super::{TICK, chain};
use crate::follow::{Action, Alarm, Follow, Fork, Input, Phase, Verified};
use crate::keys::TrustedKeys;
use crate::log::{LogError, Source};
use crate::node::SyncMode;
use crate::snapshot::{LoadError, Root, load_state};
use sluice_schema::state::{ApplyError, State};
use sluice_schema::version::{Cursor, Version};
use std::collections::VecDeque;

/// Ticks that a fold waits for copies of the log that lag.
const TICKS_MAX: u32 = 50;

/// Why a state cannot be folded from the log.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// The log cannot be read now.
    #[error("could not read the log")]
    Log(#[source] LogError),
    /// The log is not to be followed.
    #[error("the log cannot be followed: {0}")]
    Fork(Fork),
    /// A large transaction is not complete.
    #[error("could not fetch a large transaction: {0}")]
    Chunks(String),
    /// The snapshot at the log's beginning cannot be loaded.
    #[error("could not load the snapshot at the beginning of the log")]
    Snapshot(#[source] LoadError),
    /// An event does not lead where its author said.
    #[error("could not apply an event")]
    Apply(#[source] ApplyError),
    /// The log ends before what has been applied.
    #[error("the log ends at version {0}, before version {1} that was applied here")]
    Behind(Version, Version),
}

/// Folds the whole log into a state, verifying all of it.
///
/// # Errors
/// If the log cannot be read, or is not a history signed by trusted keys.
pub async fn fold_log(source: &Source, trusted: &TrustedKeys) -> Result<State, FoldError> {
    fold_past(source, trusted, Cursor::default()).await
}

/// Folds the whole log into a state, as far as it is the history that led to `own`: whether another is to be followed is
/// not decided here.
pub(super) async fn fold_past(
    source: &Source,
    trusted: &TrustedKeys,
    own: Cursor,
) -> Result<State, FoldError> {
    let mut fold = Fold {
        source,
        trusted,
        own,
        state: State::default(),
        whole: true,
    };
    let mut follow = Follow::new(Cursor::default(), trusted.clone(), SyncMode::Incremental);
    let mut inputs = VecDeque::from([Input::Connected]);
    let mut ticks = 0;
    loop {
        while let Some(input) = inputs.pop_front() {
            for action in follow.step(input) {
                inputs.extend(fold.act(action).await?);
            }
        }
        match follow.phase() {
            Phase::Following => break,
            Phase::Forked(fork) => return Err(FoldError::Fork(fork)),
            Phase::Disconnected | Phase::CatchingUp | Phase::Loading => {}
        }
        if ticks == TICKS_MAX {
            let reason = "it keeps answering with less than it announced".into();
            return Err(FoldError::Log(LogError::Unavailable(reason)));
        }
        ticks += 1;
        tokio::time::sleep(TICK).await;
        inputs.push_back(Input::Tick);
    }
    let end = fold.state.cursor();
    if end.version < own.version {
        return Err(FoldError::Behind(end.version, own.version));
    }
    Ok(fold.state)
}

struct Fold<'a> {
    source: &'a Source,
    trusted: &'a TrustedKeys,
    /// What has been applied here; nothing, if its version is zero.
    own: Cursor,
    state: State,
    /// Whether the log is asked for from its very beginning; a snapshot is for a log that was trimmed.
    whole: bool,
}

impl Fold<'_> {
    async fn act(&mut self, action: Action) -> Result<Option<Input>, FoldError> {
        Ok(Some(match action {
            Action::Read(from) => {
                let page = self.source.log.read(from).await.map_err(FoldError::Log)?;
                Input::Page { from, page }
            }
            Action::Apply(events) => {
                for verified in events {
                    self.apply(verified).await?;
                }
                Input::Applied
            }
            Action::FindSnapshot if self.whole => {
                self.whole = false;
                Input::Snapshots(Vec::new())
            }
            Action::FindSnapshot => {
                let stored = self.source.chunks.roots().await.map_err(FoldError::Log)?;
                let mut roots = Root::open_all(&stored, self.trusted);
                roots.retain(|root| self.is_ours(root.cursor));
                Input::Snapshots(roots)
            }
            Action::Load(root) => {
                let loaded = load_state(self.source.chunks.clone(), &root).await;
                self.state = loaded.map_err(FoldError::Snapshot)?;
                Input::Loaded(root.cursor)
            }
            Action::Alarm(
                Alarm::Fork(_) | Alarm::BadTail { .. } | Alarm::Diverged(_) | Alarm::NewEpoch(_),
            )
            | Action::Refold => return Ok(None),
        }))
    }

    async fn apply(&mut self, verified: Verified) -> Result<(), FoldError> {
        let Verified { event, record, .. } = verified;
        let event = resolve(&*self.source.chunks, event)
            .await
            .map_err(|error| FoldError::Chunks(chain(&error)))?;
        let applied = self.state.apply(&event, &record.event);
        self.state = applied.map_err(FoldError::Apply)?.0;
        self.check()
    }

    /// Whether a place in the log may be in the history that led to ours.
    fn is_ours(&self, place: Cursor) -> bool {
        let same_life = self.own.version == Version::ZERO || place.epoch == self.own.epoch;
        same_life && (place.version != self.own.version || place == self.own)
    }

    /// Checks that the fold has not come past our own place on another way.
    fn check(&self) -> Result<(), FoldError> {
        let at = self.state.cursor();
        let version = at.version;
        if self.is_ours(at) {
            Ok(())
        } else if at.epoch == self.own.epoch {
            Err(FoldError::Fork(Fork::Chain { version }))
        } else {
            Err(FoldError::Fork(Fork::Epoch { version }))
        }
    }
}
