//! The control plane's own copy of the state, as of the last event it has folded.

use arc_swap::ArcSwap;
use sluice_replica::run::{Sink, Status};
use sluice_schema::digest::Digest;
use sluice_schema::entity::{Change, Entry, Key};
use sluice_schema::event::EventId;
use sluice_schema::state::State;
use sluice_schema::version::{Cursor, Version};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// Events whose ids are remembered, so that a repeated request finds its first answer.
pub(crate) const RECENT_EVENTS_MAX: usize = 10_000;

/// Reads the folded state. Cheap to clone.
#[derive(Clone, Debug)]
pub struct View {
    state: Arc<ArcSwap<State>>,
    recent: Arc<Mutex<Recent>>,
    status: watch::Receiver<Status>,
}

/// Ids of recent events.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    versions: BTreeMap<EventId, Version>,
    order: VecDeque<EventId>,
}

impl Recent {
    pub(crate) fn insert(&mut self, id: EventId, version: Version) {
        if self.versions.insert(id, version).is_none() {
            self.order.push_back(id);
        }
        if self.order.len() > RECENT_EVENTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.versions.remove(&oldest);
        }
    }
}

impl View {
    /// The state now. It stays as it is for as long as it is held.
    pub fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// What the replica behind it does.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Follows what the replica does.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Returns when the state has reached `version`. Pending for ever if it never does.
    pub async fn reached(&self, version: Version) {
        let mut status = self.status.clone();
        if status
            .wait_for(|status| status.cursor.version >= version)
            .await
            .is_err()
        {
            // The replica has ended, and the process with it.
            std::future::pending::<()>().await;
        }
    }

    /// The version of a recent event.
    pub(crate) fn version_of(&self, id: EventId) -> Option<Version> {
        self.recent
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .versions
            .get(&id)
            .copied()
    }

    pub(crate) fn remember(&self, id: EventId, version: Version) {
        self.recent
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(id, version);
    }
}

/// Where the replica puts what it applies.
#[derive(Clone, Debug)]
pub(crate) struct ViewSink {
    state: Arc<ArcSwap<State>>,
    recent: Arc<Mutex<Recent>>,
}

impl ViewSink {
    /// A sink that begins with `state`.
    pub(crate) fn new(state: State) -> Self {
        Self {
            state: Arc::new(ArcSwap::from_pointee(state)),
            recent: Arc::default(),
        }
    }

    /// What others see of it.
    pub(crate) fn view(&self, status: watch::Receiver<Status>) -> View {
        View {
            state: self.state.clone(),
            recent: self.recent.clone(),
            status,
        }
    }
}

impl Sink for ViewSink {
    fn change(
        &mut self,
        cursor: Cursor,
        _: Digest,
        changes: &[Change],
        events: &[(EventId, Version)],
    ) {
        self.state
            .store(Arc::new(self.state.load().advance(cursor, changes)));
        let mut recent = self
            .recent
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        events
            .iter()
            .for_each(|(id, version)| recent.insert(*id, *version));
    }

    fn reload(
        &mut self,
        cursor: Cursor,
        _: Digest,
        entities: &mut dyn Iterator<Item = (Key, Entry)>,
    ) {
        self.state.store(Arc::new(State::restore(cursor, entities)));
    }
}
