//! The control plane's own copy of the state, as of the last event it has folded.

use crate::Fleet;
use crate::counts::Counts;
use arc_swap::ArcSwap;
use sluice_replica::planted::{Bug, planted};
use sluice_replica::run::{Arrival, Replica, Sink, Status};
use sluice_schema::digest::Digest;
use sluice_schema::entity::{Change, Entry, Key};
use sluice_schema::event::EventId;
use sluice_schema::seal::Seals;
use sluice_schema::state::State;
use sluice_schema::version::{Cursor, Epoch, Version};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, watch};

/// Events whose ids are remembered, so that a repeated request finds its first answer.
pub(crate) const RECENT_EVENTS_MAX: usize = 10_000;

/// Reads the folded state. Cheap to clone.
#[derive(Clone, Debug)]
pub struct View {
    state: Arc<ArcSwap<State>>,
    recent: Arc<Mutex<Recent>>,
    written_bytes: Arc<AtomicU64>,
    /// Wakes who waits for a version, in the order in which they came: a watch channel would wake them in any.
    moved: Arc<Notify>,
    look: Arc<Notify>,
    unread: Arc<Unread>,
    counts: Arc<Counts>,
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

    /// The bytes of all entities taken up since the start.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes.load(Ordering::Relaxed)
    }

    /// What is counted for metrics.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What the replica behind it does.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Follows what the replica does.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Returns when the state has reached `version`, with whether that is still the `epoch` it was meant in. Pending for
    /// ever if it never does.
    pub async fn reached(&self, epoch: Epoch, version: Version) -> bool {
        loop {
            // Before looking, so that no move is missed.
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            let cursor = self.state().cursor();
            if is_later(cursor.epoch, epoch) {
                return false;
            }
            if cursor.version >= version {
                return true;
            }
            moved.await;
        }
    }

    /// Whether the ids of all recent events are known.
    pub(crate) fn remembers(&self) -> bool {
        self.missed().is_none()
    }

    /// Returns when the ids of all recent events are known.
    pub(crate) async fn remembered(&self) {
        self.until(Self::remembers).await;
    }

    /// Returns when ids are to be read.
    pub(crate) async fn unread(&self) {
        self.until(|view| !view.remembers()).await;
    }

    /// What to hand to [`View::have_read`] once the ids of the recent events have been read; `None` if they are known.
    pub(crate) fn missed(&self) -> Option<u64> {
        let missed = self.unread.missed.load(Ordering::Acquire);
        (missed != self.unread.read.load(Ordering::Acquire)).then_some(missed)
    }

    /// The ids of the recent events have been read, as of `missed`.
    pub(crate) fn have_read(&self, missed: u64) {
        self.unread.read.store(missed, Ordering::Release);
        self.unread.changed.notify_waiters();
    }

    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.unread.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if holds(self) {
                return;
            }
            changed.await;
        }
    }

    /// Makes the replica read the log: it holds an event that has not come.
    pub(crate) fn look(&self) {
        self.look.notify_one();
    }

    /// The version of a recent event.
    pub(crate) fn version_of(&self, id: EventId) -> Option<Version> {
        if planted(Bug::RepeatForgotten) {
            return None;
        }
        self.recent
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .versions
            .get(&id)
            .copied()
    }

    /// The id of a recent event that is not outside these.
    pub(crate) fn recent_between(&self, first: EventId, last: EventId) -> Option<EventId> {
        self.recent
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .versions
            .range(first..=last)
            .next()
            .map(|(id, _)| *id)
    }

    pub(crate) fn remember(&self, id: EventId, version: Version) {
        self.recent
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(id, version);
    }
}

/// Whether the log has begun a new life since `known`; before the first event there is none to speak of.
fn is_later(epoch: Epoch, known: Epoch) -> bool {
    known != Epoch::default() && epoch > known
}

/// Where the replica puts what it applies.
#[derive(Clone, Debug)]
pub(crate) struct ViewSink {
    state: Arc<ArcSwap<State>>,
    /// What is being taken up, before anybody sees it.
    staged: Option<State>,
    /// Of every state.
    seals: Seals,
    recent: Arc<Mutex<Recent>>,
    written_bytes: Arc<AtomicU64>,
    moved: Arc<Notify>,
    unread: Arc<Unread>,
    /// Told how our history goes on: nodes are measured by it.
    fleet: Fleet,
    counts: Arc<Counts>,
}

/// Which recent events came without their ids: those of before the start, and those that a snapshot stands for.
#[derive(Debug, Default)]
struct Unread {
    /// Counts the times when ids were missed.
    missed: AtomicU64,
    /// The count up to which they have been read.
    read: AtomicU64,
    changed: Notify,
}

impl ViewSink {
    /// A sink that begins with `state`, and tells `fleet` how that goes on.
    pub(crate) fn new(state: State, fleet: Fleet) -> Self {
        let seals = state.seals().clone();
        fleet.advance(state.cursor(), state.digest(), &[]);
        Self {
            counts: Arc::new(Counts::new(fleet.environment().clone())),
            fleet,
            state: Arc::new(ArcSwap::from_pointee(state)),
            staged: None,
            seals,
            recent: Arc::default(),
            written_bytes: Arc::default(),
            moved: Arc::default(),
            unread: Arc::new(Unread {
                missed: AtomicU64::new(1),
                ..Unread::default()
            }),
        }
    }

    /// What others see of it.
    pub(crate) fn view(&self, replica: &Replica) -> View {
        View {
            state: self.state.clone(),
            recent: self.recent.clone(),
            written_bytes: self.written_bytes.clone(),
            moved: self.moved.clone(),
            unread: self.unread.clone(),
            counts: self.counts.clone(),
            look: replica.looker(),
            status: replica.status(),
        }
    }

    /// What is shown next was not made of events we have seen.
    fn miss(&self) {
        self.unread.missed.fetch_add(1, Ordering::AcqRel);
        self.unread.changed.notify_waiters();
    }

    fn show(&self, state: State) {
        self.state.store(Arc::new(state));
        self.moved.notify_waiters();
    }
}

impl Sink for ViewSink {
    fn change(&mut self, cursor: Cursor, digest: Digest, changes: &[Change], events: &[Arrival]) {
        let bytes = changes
            .iter()
            .filter_map(|change| change.after.as_ref())
            .map(|entry| entry.body.as_bytes().len() as u64)
            .sum();
        self.written_bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut recent = self
            .recent
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        events
            .iter()
            .for_each(|event| recent.insert(event.id, event.cursor.version));
        drop(recent);
        // Last: whoever decides on the new state must find the events that led to it.
        self.show(self.state.load().advance(cursor, changes));
        self.fleet.advance(cursor, digest, events);
        self.counts.arrived(events);
    }

    fn stage(&mut self, changes: &[Change]) {
        let state = self.staged.take();
        let state = state.unwrap_or_else(|| State::clone(&self.state.load()));
        self.staged = Some(state.advance(state.cursor(), changes));
    }

    fn commit(&mut self, cursor: Cursor, digest: Digest) {
        let state = self.staged.take();
        let state = state.unwrap_or_else(|| State::clone(&self.state.load()));
        self.miss();
        self.show(state.advance(cursor, &[]));
        self.fleet.advance(cursor, digest, &[]);
    }

    fn abandon(&mut self) {
        self.staged = None;
    }

    fn reload(
        &mut self,
        cursor: Cursor,
        digest: Digest,
        entities: &mut dyn Iterator<Item = (Key, Entry)>,
    ) {
        self.miss();
        self.show(State::restore(cursor, entities).with_seals(self.seals.clone()));
        self.fleet.advance(cursor, digest, &[]);
    }
}
