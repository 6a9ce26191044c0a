//! Counts over all data planes: each tells the others what it has counted, and adds what they tell to its own.
//!
//! A node tells of each identity that it has counted for since it last did, every [`INTERVAL`], or less often where many
//! nodes count ([`INTERVAL_FOR_EACH`]). It tells sums, not differences, and a node adds up the largest sum that it has heard of
//! each other: messages may be lost, repeated or late. **Accuracy:** a limit is passed at most by what the other nodes let in
//! during one interval, and the way of a message. Whoever cannot reach the others counts alone until it can, and then tells
//! what it has counted meanwhile.
//!
//! A node that (re)connects asks for everything. What a node counted before it was started anew is kept by the others to the
//! end of the window, and one of them tells it. Nodes believe each other: who may send counts can use up a limit, but not
//! lower what others have counted.

mod lives;
mod message;

use super::background::Background;
use super::counters::{Counters, Key};
use super::noted::Noted;
use crate::metrics::Writer;
use crate::plugin::{Heard, Peers, Surroundings};
use crate::proxy::Clock;
use futures::StreamExt;
use lives::Lives;
use message::{IDENTITIES_MAX, Identity, Message};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The shortest time between two rounds of telling.
const INTERVAL: Duration = Duration::from_millis(100);
/// As much for each node that was heard lately, so that messages do not grow with the square of the nodes.
const INTERVAL_FOR_EACH: Duration = Duration::from_millis(5);
/// The longest.
const INTERVAL_MAX: Duration = Duration::from_secs(1);
/// How many identities are told of in one round; others wait for the next.
const ROUND_MAX: usize = 16 * IDENTITIES_MAX;
/// The least time between two rounds of telling everything.
const RETELL_GAP: Duration = Duration::from_secs(1);
/// Until it is tried again to listen.
const RETRY: Duration = Duration::from_secs(1);

/// What this node and the others tell each other.
#[derive(Debug)]
pub(super) struct Cluster {
    exchange: Arc<Exchange>,
    background: Background,
    node: OnceLock<Node>,
    /// Whether some plugin counts over all data planes.
    wanted: AtomicBool,
    begun: OnceLock<()>,
}

/// The surroundings it needs.
#[derive(Clone, Debug)]
struct Node {
    peers: Arc<dyn Peers>,
    clock: Clock,
}

#[derive(Debug)]
struct Exchange {
    counters: Arc<Counters>,
    /// This node, from this start of it on.
    life: u64,
    noted: Noted,
    lives: Mutex<Lives>,
    /// Whether the others are to be asked for everything.
    asks: AtomicBool,
    /// Whether somebody has asked for everything.
    asked: AtomicBool,
    /// Messages that did not leave.
    failed: AtomicU64,
    /// Messages that could not be read.
    unread: AtomicU64,
}

impl Cluster {
    pub(super) fn of(counters: &Arc<Counters>) -> Self {
        Self {
            exchange: Arc::new(Exchange {
                counters: Arc::clone(counters),
                life: rand::random(),
                noted: Noted::default(),
                lives: Mutex::default(),
                asks: AtomicBool::new(true),
                asked: AtomicBool::new(false),
                failed: AtomicU64::new(0),
                unread: AtomicU64::new(0),
            }),
            background: Background::named("counts"),
            node: OnceLock::new(),
            wanted: AtomicBool::new(false),
            begun: OnceLock::new(),
        }
    }

    pub(super) fn start(&self, node: &Surroundings) {
        if let Some(peers) = &node.peers {
            let peers = Arc::clone(peers);
            // A second start finds the same node.
            let _ = self.node.set(Node {
                peers,
                clock: node.clock,
            });
        }
        if self.wanted.load(Ordering::Acquire) {
            self.begin();
        }
    }

    /// A plugin counts over all data planes.
    pub(super) fn want(&self) {
        self.wanted.store(true, Ordering::Release);
        self.begin();
    }

    /// The others are to be told of an identity. Nothing is kept where there are no others.
    pub(super) fn note(&self, key: Key) {
        let exchange = &self.exchange;
        if self.node.get().is_some() && exchange.counters.mark_shared(key) {
            exchange.noted.put(&exchange.counters, key);
        }
    }

    fn begin(&self) {
        if let Some(node) = self.node.get() {
            self.begun.get_or_init(|| {
                if let Some(runtime) = self.background.handle() {
                    runtime.spawn(Arc::clone(&self.exchange).run(node.clone()));
                }
            });
        }
    }

    /// Tells what has not been told.
    pub(super) async fn stop(&self, patience: Duration) {
        let (Some(node), Some(())) = (self.node.get(), self.begun.get()) else {
            return;
        };
        let told = tokio::time::timeout(patience, self.exchange.tell(node));
        if told.await != Ok(true) {
            tracing::debug!("the other data planes were not told all counts");
        }
    }

    pub(super) fn metrics(&self, writer: &mut Writer) {
        writer.single(
            "sluice_dp_rate_cluster_failed_total",
            "counter",
            "Messages about counts that did not leave for the other data planes",
            self.exchange.failed.load(Ordering::Relaxed),
        );
        writer.single(
            "sluice_dp_rate_cluster_unread_total",
            "counter",
            "Messages about counts that could not be read",
            self.exchange.unread.load(Ordering::Relaxed),
        );
    }
}

impl Exchange {
    /// Listens and tells, for as long as the thread is there.
    async fn run(self: Arc<Self>, node: Node) {
        tokio::join!(self.listen(&node), self.keep_telling(&node));
    }

    async fn listen(&self, node: &Node) {
        loop {
            if let Some(mut heard) = node.peers.listen().await {
                while let Some(heard) = heard.next().await {
                    match heard {
                        Heard::Message { from, message } => {
                            self.hear(&from, &message, (node.clock)());
                        }
                        Heard::Connected => {
                            self.asks.store(true, Ordering::Relaxed);
                            // What was told may not have arrived.
                            self.asked.store(true, Ordering::Relaxed);
                        }
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn hear(&self, from: &str, message: &[u8], now: u64) {
        let Ok(message) = Message::decode(message) else {
            self.unread.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if message.life == self.life {
            return;
        }
        self.lives().hear(from, &message, Instant::now());
        if message.asks {
            self.asked.store(true, Ordering::Relaxed);
        }
        for identity in message.counts.iter().take(IDENTITIES_MAX) {
            if let Some(key) = identity.key() {
                let windows = identity.windows();
                self.counters.learn(key, message.life, &windows, now);
            }
        }
    }

    async fn keep_telling(&self, node: &Node) {
        let (mut told_all, mut left) = (None, true);
        loop {
            let nodes = self.lives().lately(Instant::now());
            let interval = INTERVAL_FOR_EACH.saturating_mul(nodes);
            let interval = interval.clamp(INTERVAL, INTERVAL_MAX);
            tokio::time::sleep(if left { interval } else { INTERVAL_MAX }).await;
            let gap = told_all.is_none_or(|at: Instant| at.elapsed() >= RETELL_GAP);
            if gap && self.asked.swap(false, Ordering::Relaxed) {
                told_all = Some(Instant::now());
                for key in self.counters.shared() {
                    if self.counters.mark_shared(key) {
                        self.noted.put(&self.counters, key);
                    }
                }
            }
            left = self.tell(node).await;
            self.relay(node).await;
        }
    }

    /// Tells what is noted. Whether all of it has left; what has not is noted again.
    async fn tell(&self, node: &Node) -> bool {
        let now = (node.clock)();
        let keys = self.noted.take(ROUND_MAX);
        let mut asks = self.asks.swap(false, Ordering::Relaxed);
        let mut batches: Vec<_> = keys.chunks(IDENTITIES_MAX).collect();
        if asks && batches.is_empty() {
            batches.push(&[]);
        }
        for (index, batch) in batches.into_iter().enumerate() {
            let own = |key: &Key| {
                let own = self.counters.unmark(*key)?;
                let identity = Identity::new(*key, own.counted(now));
                (!identity.is_empty()).then_some(identity)
            };
            let counts: Vec<_> = batch.iter().filter_map(own).collect();
            if counts.is_empty() && !asks {
                continue;
            }
            let message = Message {
                life: self.life,
                of: None,
                asks,
                counts,
            };
            if !node.peers.tell(message.encode()).await {
                self.failed.fetch_add(1, Ordering::Relaxed);
                self.asks.fetch_or(asks, Ordering::Relaxed);
                for key in &keys[index * IDENTITIES_MAX..] {
                    self.counters.unmark(*key);
                    if self.counters.mark_shared(*key) {
                        self.noted.put(&self.counters, *key);
                    }
                }
                return false;
            }
            asks = false;
        }
        true
    }

    /// Tells nodes that were started anew what they had counted before, unless somebody else has.
    async fn relay(&self, node: &Node) {
        let due = self.lives().due(Instant::now());
        for (life, of) in due {
            let known = self.counters.of(life);
            for batch in known
                .chunks(IDENTITIES_MAX)
                .take(ROUND_MAX / IDENTITIES_MAX)
            {
                let counts = batch.iter();
                let counts =
                    counts.map(|(key, counted)| Identity::new(*key, counted.iter().copied()));
                let message = Message {
                    life,
                    of: Some(of.clone()),
                    asks: false,
                    counts: counts.collect(),
                };
                if !node.peers.tell(message.encode()).await {
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
        }
    }

    fn lives(&self) -> MutexGuard<'_, Lives> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
