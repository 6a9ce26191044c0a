//! Applying events, and folding the log again: store, then sink.

use super::fold::{FoldError, fold_past};
use super::resolve::resolve;
use super::{Arrival, Replica};
use crate::follow::{Input, Verified};
use crate::node::SyncMode;
use crate::planted::{Bug, planted};
use crate::store::StoreError;
use sluice_schema::event::Event;
use sluice_schema::state::ApplyError;
use sluice_schema::version::Cursor;

/// Staged entities after which they are saved at once.
const STAGED_SAVE: usize = 4096;
/// Staged entities after which nothing more is applied before they are saved: the disk refuses.
const STAGED_MAX: usize = 200_000;

impl Replica {
    pub(super) async fn apply(&mut self, events: Vec<Verified>) -> Input {
        let mut resolved = Vec::with_capacity(events.len());
        for verified in events {
            match resolve(&*self.source.chunks, verified.event).await {
                Ok(event) => resolved.push((event, verified.cursor)),
                Err(error) => {
                    self.note(&error);
                    return Input::ApplyFailed;
                }
            }
        }
        if self.store.staged() > STAGED_MAX
            && let Err(error) = self.store.save()
        {
            self.note(&error);
            return Input::ApplyFailed;
        }
        match self
            .store
            .stage(resolved.iter().map(|(event, cursor)| (event, *cursor)))
        {
            Ok(changes) => {
                let stored = self.options.environment.now();
                let arrival = |(event, cursor): &(Event, Cursor)| Arrival {
                    id: event.id,
                    cursor: *cursor,
                    decided: event.time,
                    received: self.received,
                    stored,
                    trace: event.trace,
                    entities: event.mutations.count(),
                    kind: event.mutations.kind().cloned(),
                };
                let events: Vec<_> = resolved.iter().map(arrival).collect();
                self.sink
                    .change(self.store.cursor(), self.store.digest(), &changes, &events);
                if self.store.staged() >= STAGED_SAVE {
                    self.save_now();
                } else {
                    self.save_later();
                }
                Input::Applied
            }
            Err(error) => {
                self.note(&error);
                if planted(Bug::CursorBeforeStore) {
                    return Input::Applied;
                }
                match error {
                    StoreError::Apply(ApplyError::Diverged { version, .. }) => {
                        Input::Diverged(version)
                    }
                    StoreError::Apply(
                        ApplyError::OutOfOrder { .. } | ApplyError::Unresolved(_),
                    )
                    | StoreError::Io { .. }
                    | StoreError::Load(_)
                    | StoreError::Damaged(_) => Input::ApplyFailed,
                }
            }
        }
    }

    pub(super) async fn refold(&mut self) -> Input {
        let own = self.store.cursor();
        let state = match fold_past(&self.source, &self.trusted(), own).await {
            Ok(state) => state,
            Err(error) => {
                self.note(&error);
                return match error {
                    FoldError::Fork(fork) => Input::RefoldForked(fork),
                    FoldError::Apply(ApplyError::Diverged { version, .. }) => {
                        Input::Diverged(version)
                    }
                    FoldError::Apply(ApplyError::OutOfOrder { .. } | ApplyError::Unresolved(_))
                    | FoldError::Log(_)
                    | FoldError::Chunks(_)
                    | FoldError::Snapshot(_)
                    | FoldError::Behind(..) => Input::RefoldFailed,
                };
            }
        };
        let cursor = state.cursor();
        let entities = state
            .iter()
            .map(|(key, entry)| (key.clone(), entry.clone()));
        match self.store.replace(cursor, entities) {
            Ok(changes) if self.follow.sync() == SyncMode::Incremental => {
                self.sink.change(cursor, state.digest(), &changes, &[]);
            }
            Ok(_) => {
                let mut entities = state
                    .iter()
                    .map(|(key, entry)| (key.clone(), entry.clone()));
                self.sink.reload(cursor, state.digest(), &mut entities);
            }
            Err(error) => {
                self.note(&error);
                return Input::RefoldFailed;
            }
        }
        self.save_later();
        Input::Refolded(cursor)
    }
}
