//! The queues of all plugins, and the thread that empties them.

use super::{Parameters, Queue, Sink};
use crate::metrics::Writer;
use crate::plugin::call::Caller;
use crate::plugin::{Change, Entity, Instance, Lasting, Surroundings};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// How often it is looked whether all queues are empty at the end.
const STOP_TICK: Duration = Duration::from_millis(5);

/// The queues of all plugins, by the entity they belong to.
#[derive(Default)]
pub(crate) struct Outlets {
    queues: Mutex<BTreeMap<Uuid, Arc<Queue>>>,
    thread: OnceLock<Option<Thread>>,
    caller: Arc<Caller>,
}

/// Ends when it is dropped.
struct Thread {
    runtime: Handle,
    _end: DropGuard,
}

/// A plugin's end of its queue, part of its prepared form.
pub(crate) struct Outlet {
    id: Uuid,
    plugin: &'static str,
    parameters: Parameters,
    sink: Arc<dyn Sink>,
    queue: OnceLock<Arc<Queue>>,
}

impl Outlet {
    /// The end of an entity's queue.
    pub(crate) fn new(
        entity: &Entity<'_>,
        plugin: &'static str,
        parameters: Parameters,
        sink: impl Sink,
    ) -> Self {
        Self {
            id: entity.id,
            plugin,
            parameters,
            sink: Arc::new(sink),
            queue: OnceLock::new(),
        }
    }

    /// Puts an entry on the queue.
    pub(crate) fn push(&self, outlets: &Outlets, entry: impl Into<Bytes>) {
        // A form that was compiled again without a change has had no notice.
        let queue = self.queue.get_or_init(|| outlets.find(self));
        queue.push(entry.into());
    }
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A sink may hold secrets.
        write!(f, "Outlet({} {})", self.plugin, self.id)
    }
}

impl Outlets {
    /// Takes up a change of a plugin with a queue.
    pub(crate) fn changed<P>(&self, change: &Change<'_, P>, outlet: impl Fn(&P) -> &Outlet) {
        self.changed_if(change, |plugin| Some(outlet(plugin)));
    }

    /// The same for a plugin that may be configured to have none.
    pub(crate) fn changed_if<P>(
        &self,
        change: &Change<'_, P>,
        outlet: impl Fn(&P) -> Option<&Outlet>,
    ) {
        let (instance, now) = match change {
            Change::Created { instance, now } | Change::Updated { instance, now, .. } => {
                (instance, outlet(now))
            }
            Change::Deleted { instance, .. } => (instance, None),
        };
        match now {
            Some(outlet) => {
                let queue = self.put(outlet);
                // Set already only if it is the same.
                let _ = outlet.queue.set(queue);
            }
            None => self.remove(instance),
        }
    }

    fn put(&self, outlet: &Outlet) -> Arc<Queue> {
        let mut queues = self.lock();
        if let Some(queue) = queues.get(&outlet.id) {
            queue.update(outlet.parameters, Arc::clone(&outlet.sink));
            return Arc::clone(queue);
        }
        let queue = self.make(outlet);
        queues.insert(outlet.id, Arc::clone(&queue));
        queue
    }

    /// The queue of an entity. One that is no more gets one of its own, which ends when it is empty.
    fn find(&self, outlet: &Outlet) -> Arc<Queue> {
        let queue = self.lock().get(&outlet.id).cloned();
        queue.unwrap_or_else(|| self.make(outlet))
    }

    fn make(&self, outlet: &Outlet) -> Arc<Queue> {
        let form = (outlet.parameters, Arc::clone(&outlet.sink));
        let runtime = self.thread.get_or_init(Thread::start).as_ref();
        let runtime = runtime.map(|thread| thread.runtime.clone());
        Queue::new(
            (outlet.id, outlet.plugin),
            form,
            Arc::clone(&self.caller),
            runtime,
        )
    }

    /// What waits is still handed over.
    fn remove(&self, instance: &Instance) {
        self.lock().remove(&instance.id);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uuid, Arc<Queue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<Arc<Queue>> {
        self.lock().values().cloned().collect()
    }
}

impl Thread {
    fn start() -> Option<Self> {
        let end = CancellationToken::new();
        let ended = end.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let started = runtime.and_then(|runtime| {
            let handle = runtime.handle().clone();
            std::thread::Builder::new()
                .name("plugin-queues".into())
                .spawn(move || {
                    runtime.block_on(ended.cancelled());
                    runtime.shutdown_background();
                })?;
            Ok(handle)
        });
        match started {
            Ok(runtime) => Some(Self {
                runtime,
                _end: end.drop_guard(),
            }),
            Err(error) => {
                tracing::error!(%error, "nobody hands over what plugins put on their queues");
                None
            }
        }
    }
}

impl Lasting for Outlets {
    fn start(&self, node: &Surroundings) {
        self.caller.start(node);
    }

    fn metrics(&self, writer: &mut Writer) {
        let queues = self.all();
        if queues.is_empty() {
            return;
        }
        let name = "sluice_dp_plugin_queue_entries";
        writer.metric(
            name,
            "gauge",
            "Entries of plugins that wait or are being handed over",
        );
        for queue in &queues {
            let count = queue.lock().count();
            writer.value(name, &labels(queue, &queue.id.to_string()), count);
        }
        let name = "sluice_dp_plugin_queue_bytes";
        writer.metric(name, "gauge", "Bytes of these");
        for queue in &queues {
            let bytes = {
                let waiting = queue.lock();
                waiting.bytes + waiting.in_hand.1
            };
            writer.value(name, &labels(queue, &queue.id.to_string()), bytes);
        }
        let name = "sluice_dp_plugin_queue_delivered_total";
        writer.metric(name, "counter", "Entries handed over");
        for queue in &queues {
            let value = load(&queue.counts.delivered);
            writer.value(name, &labels(queue, &queue.id.to_string()), value);
        }
        let name = "sluice_dp_plugin_queue_retries_total";
        writer.metric(name, "counter", "Times a batch was tried again");
        for queue in &queues {
            let value = load(&queue.counts.retries);
            writer.value(name, &labels(queue, &queue.id.to_string()), value);
        }
        let name = "sluice_dp_plugin_queue_dropped_total";
        writer.metric(name, "counter", "Entries lost, by the reason");
        for queue in &queues {
            let id = queue.id.to_string();
            let [plugin, id] = labels(queue, &id);
            for (reason, counter) in [
                ("full", &queue.counts.overflowed),
                ("failed", &queue.counts.failed),
                ("stopped", &queue.counts.abandoned),
            ] {
                writer.value(name, &[plugin, id, ("reason", reason)], load(counter));
            }
        }
    }

    fn stop(&self, patience: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let queues = self.all();
            let until = Instant::now() + patience;
            queues.iter().for_each(|queue| queue.close(until));
            while queues.iter().any(|queue| !queue.is_empty()) && Instant::now() < until {
                tokio::time::sleep(STOP_TICK).await;
            }
            queues.iter().for_each(|queue| queue.abandon());
        })
    }
}

fn labels<'a>(queue: &Queue, id: &'a str) -> [(&'a str, &'a str); 2] {
    [("plugin", queue.plugin), ("id", id)]
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl fmt::Debug for Outlets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlets").finish_non_exhaustive()
    }
}
