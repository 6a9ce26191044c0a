//! The queue between requests and the sinks of plugins: what a request has to say is put here and handed over later, in
//! batches, by a thread that serves no requests.
//!
//! A queue belongs to a plugin entity. It outlives changes of the entity's configuration: its parameters and its sink are
//! replaced in place, and what waits goes to the new sink. It is bounded in entries and bytes; above that the oldest
//! entries go, as in Kong, and are counted. A batch that cannot be handed over is tried again with growing pauses for
//! `max_retry_time`, then dropped and counted.

mod batch;
mod outlets;
mod parameters;
#[cfg(test)]
mod tests;

pub(crate) use outlets::{Outlet, Outlets};
pub(crate) use parameters::{Parameters, QueueFields};

use super::call::Caller;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

/// Where batches go.
pub(crate) trait Sink: Send + Sync + 'static {
    /// Hands a batch over, in order. It is tried again after a failure, as a whole.
    fn deliver<'a>(
        &'a self,
        caller: &'a Caller,
        batch: &'a [Bytes],
    ) -> BoxFuture<'a, Result<(), Undelivered>>;
}

/// Why a batch was not handed over. Must not quote secrets.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Undelivered {
    reason: String,
    again: bool,
}

impl Undelivered {
    /// It may go better later.
    pub(crate) fn later(reason: impl fmt::Display) -> Self {
        Self {
            reason: reason.to_string(),
            again: true,
        }
    }

    /// It never will.
    pub(crate) fn never(reason: impl fmt::Display) -> Self {
        Self {
            reason: reason.to_string(),
            again: false,
        }
    }
}

/// The entries of one plugin entity that wait.
pub(crate) struct Queue {
    id: Uuid,
    plugin: &'static str,
    waiting: Mutex<Waiting>,
    /// There is an entry where none was, or a full batch.
    arrived: Notify,
    /// There is another configuration, or the end has come.
    changed: Notify,
    counts: Counts,
    caller: Arc<Caller>,
    /// `None` if the thread could not be started.
    runtime: Option<Handle>,
}

struct Waiting {
    entries: VecDeque<Bytes>,
    /// Of `entries`.
    bytes: usize,
    /// Entries and bytes of batches that are being handed over.
    in_hand: (usize, usize),
    parameters: Parameters,
    sink: Arc<dyn Sink>,
    /// Whether a task sees to it.
    attended: bool,
    /// Entries are handed over at once, and tried only until then.
    closing: Option<Instant>,
}

/// What has become of entries.
#[derive(Default)]
struct Counts {
    delivered: AtomicU64,
    retries: AtomicU64,
    /// There was no room.
    overflowed: AtomicU64,
    /// The sink did not take them in time.
    failed: AtomicU64,
    /// Left at the end.
    abandoned: AtomicU64,
}

impl Queue {
    fn new(
        (id, plugin): (Uuid, &'static str),
        (parameters, sink): (Parameters, Arc<dyn Sink>),
        caller: Arc<Caller>,
        runtime: Option<Handle>,
    ) -> Arc<Self> {
        let waiting = Waiting {
            entries: VecDeque::new(),
            bytes: 0,
            in_hand: (0, 0),
            parameters,
            sink,
            attended: false,
            closing: None,
        };
        Arc::new(Self {
            id,
            plugin,
            waiting: Mutex::new(waiting),
            arrived: Notify::new(),
            changed: Notify::new(),
            counts: Counts::default(),
            caller,
            runtime,
        })
    }

    /// Takes up another configuration, for what waits already as well.
    fn update(&self, parameters: Parameters, sink: Arc<dyn Sink>) {
        let mut waiting = self.lock();
        waiting.parameters = parameters;
        waiting.sink = sink;
        let dropped = waiting.make_room(0);
        drop(waiting);
        self.lose(&self.counts.overflowed, dropped);
        self.changed.notify_waiters();
    }

    /// Puts an entry behind the others. Never waits.
    pub(crate) fn push(self: &Arc<Self>, entry: Bytes) {
        let Some(runtime) = &self.runtime else {
            return self.lose(&self.counts.failed, 1);
        };
        let mut waiting = self.lock();
        let mut dropped = waiting.make_room(entry.len());
        let admitted = waiting.admits(entry.len());
        if admitted {
            waiting.bytes += entry.len();
            waiting.entries.push_back(entry);
        } else {
            dropped += 1;
        }
        let count = waiting.entries.len();
        let tells = count == 1 || count == waiting.parameters.batch_max;
        let start = admitted && !std::mem::replace(&mut waiting.attended, true);
        drop(waiting);
        self.lose(&self.counts.overflowed, dropped);
        if start {
            runtime.spawn(batch::attend(Arc::clone(self)));
        } else if tells {
            self.arrived.notify_waiters();
        }
    }

    /// Hands over what waits without further delay, and gives up what is not gone then.
    fn close(&self, until: Instant) {
        self.lock().closing = Some(until);
        self.changed.notify_waiters();
    }

    fn is_empty(&self) -> bool {
        let waiting = self.lock();
        waiting.entries.is_empty() && waiting.in_hand.0 == 0
    }

    /// Counts what is lost. Each time the number has doubled it says so; the metrics have the numbers.
    fn lose(&self, counter: &AtomicU64, entries: usize) {
        if entries == 0 {
            return;
        }
        let before = counter.fetch_add(entries as u64, Ordering::Relaxed);
        let lost = before + entries as u64;
        if before.checked_ilog2() != lost.checked_ilog2() {
            tracing::warn!(plugin = self.plugin, id = %self.id, lost, "a plugin's queue has lost entries; see sluice_dp_plugin_queue_dropped_total");
        }
    }

    /// Gives up what waits.
    fn abandon(&self) {
        let left = {
            let mut waiting = self.lock();
            waiting.bytes = 0;
            std::mem::take(&mut waiting.entries).len()
        };
        self.lose(&self.counts.abandoned, left);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Drops the oldest until an entry of so many bytes has room, as far as that helps. Gives how many.
    fn make_room(&mut self, bytes: usize) -> usize {
        let mut dropped = 0;
        // An entry that never fits must not push out the others.
        if bytes > self.parameters.bytes_max {
            return 0;
        }
        let wanted = usize::from(bytes > 0);
        while self.count() + wanted > self.parameters.entries_max
            || self.bytes + self.in_hand.1 + bytes > self.parameters.bytes_max
        {
            let Some(oldest) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= oldest.len();
            dropped += 1;
        }
        dropped
    }

    fn admits(&self, bytes: usize) -> bool {
        self.count() < self.parameters.entries_max
            && self.bytes + self.in_hand.1 + bytes <= self.parameters.bytes_max
    }

    fn count(&self) -> usize {
        self.entries.len() + self.in_hand.0
    }

    /// Takes a batch in hand.
    fn take(&mut self) -> Vec<Bytes> {
        let count = self.parameters.batch_max.min(self.entries.len());
        let batch: Vec<_> = self.entries.drain(..count).collect();
        let bytes = size(&batch);
        self.bytes -= bytes;
        self.in_hand.0 += count;
        self.in_hand.1 += bytes;
        batch
    }

    /// Has handed a batch over, or given it up.
    fn done(&mut self, batch: &[Bytes]) {
        self.in_hand.0 -= batch.len();
        self.in_hand.1 -= size(batch);
    }
}

fn size(batch: &[Bytes]) -> usize {
    batch.iter().map(Bytes::len).sum()
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({} {})", self.plugin, self.id)
    }
}
