//! Counts and latencies of requests. Each worker writes to its own [`Shard`], so that a request costs one uncontended
//! lock; whoever scrapes adds the shards up. The number of series is bounded.

#[cfg(test)]
mod tests;
mod text;

pub use text::Writer;

use sluice_replica::environment::Environment;
use sluice_replica::process::now;
use sluice_replica::propagation::{Propagation, Stage};
use sluice_replica::run::Arrival;
use sluice_replica::traces::{Applied, Tracer};
use sluice_schema::version::{Time, Version};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use uuid::Uuid;

/// The most series a worker keeps; requests of further routes are counted together under an empty route name.
const SERIES_MAX: usize = 10_000;
const KONG_BUCKETS: [u32; 17] = [
    1, 2, 5, 7, 10, 15, 20, 30, 50, 75, 100, 200, 500, 750, 1000, 3000, 6000,
];
const UPSTREAM_BUCKETS: [u32; 13] = [
    25, 50, 80, 100, 250, 400, 700, 1000, 2000, 5000, 10_000, 30_000, 60_000,
];

/// All shards.
#[derive(Debug, Default)]
pub struct Metrics {
    shards: Mutex<Vec<Arc<Shard>>>,
    /// How long changes take to become active here.
    propagation: Propagation,
    /// Makes spans of that.
    traces: Applied,
    /// The newest version by which no request was served yet, and when it was decided.
    unserved: Mutex<Option<(Version, Time)>>,
}

/// One worker's numbers.
#[derive(Debug, Default)]
pub struct Shard {
    /// Connections accepted so far.
    pub accepted: AtomicU64,
    /// Connections closed at once because there were too many.
    pub refused: AtomicU64,
    /// Client connections open now.
    pub active: AtomicU64,
    /// Lines of the access log that could not be written.
    pub access_log_dropped: AtomicU64,
    /// Requests answered so far.
    pub requests: AtomicU64,
    /// Streams that are no HTTP, begun so far.
    pub streams: AtomicU64,
    /// Idle connections to upstreams.
    pub idle_upstream: AtomicU64,
    series: Mutex<AllSeries>,
}

#[derive(Debug, Default)]
struct AllSeries {
    all: Vec<(Key, Series)>,
    places: HashMap<Key, usize>,
    /// Where the last request was counted: the next one often belongs there, too.
    last: usize,
}

impl AllSeries {
    fn find(&mut self, mut key: Key, labels: impl FnOnce() -> Labels) -> &mut Series {
        if self
            .all
            .get(self.last)
            .is_some_and(|(last, _)| *last == key)
        {
            return &mut self.all[self.last].1;
        }
        let mut known = self.places.get(&key);
        if known.is_none() && self.all.len() >= SERIES_MAX {
            key.route = Uuid::nil();
            key.consumer = None;
            known = self.places.get(&key);
        }
        self.last = known.copied().unwrap_or(self.all.len());
        if self.last == self.all.len() {
            self.places.insert(key, self.last);
            let labels = if key.route.is_nil() {
                Labels::default()
            } else {
                labels()
            };
            let series = Series {
                labels,
                ..Series::default()
            };
            self.all.push((key, series));
        }
        &mut self.all[self.last].1
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Key {
    route: Uuid,
    status: u16,
    source: Source,
    consumer: Option<Uuid>,
}

/// Who made an answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Source {
    /// The upstream.
    Service,
    /// The gateway.
    Gateway,
}

/// Names a series carries.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Labels {
    /// The route's name, or its id.
    pub route: String,
    /// The service's name, or its id.
    pub service: String,
    /// The workspace.
    pub workspace: String,
    /// The consumer's name, or its id; empty where consumers are not counted apart.
    pub consumer: String,
}

/// One finished request.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The matched route; nil if there is none.
    pub route: Uuid,
    /// The status sent.
    pub status: u16,
    /// Who made the answer.
    pub source: Source,
    /// Milliseconds from the request's head to the response's.
    pub request_ms: u32,
    /// Of these, spent waiting for the upstream.
    pub upstream_ms: u32,
    /// The consumer, where consumers are counted apart.
    pub consumer: Option<Uuid>,
}

#[derive(Clone, Debug, Default)]
struct Series {
    labels: Labels,
    count: u64,
    gateway: Histogram<{ KONG_BUCKETS.len() }>,
    upstream: Histogram<{ UPSTREAM_BUCKETS.len() }>,
    request: Histogram<{ UPSTREAM_BUCKETS.len() }>,
}

/// Counts per bucket (not cumulative), and count and sum of all values.
#[derive(Clone, Debug)]
struct Histogram<const N: usize> {
    counts: [u64; N],
    count: u64,
    sum: u64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self {
            counts: [0; N],
            count: 0,
            sum: 0,
        }
    }
}

impl<const N: usize> Histogram<N> {
    fn observe(&mut self, bounds: &[u32; N], value: u32) {
        self.count += 1;
        self.sum += u64::from(value);
        if let Some(bucket) = bounds.iter().position(|bound| value <= *bound) {
            self.counts[bucket] += 1;
        }
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.counts
            .iter_mut()
            .zip(other.counts)
            .for_each(|(count, other)| *count += other);
    }
}

impl Series {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.gateway.add(&other.gateway);
        self.upstream.add(&other.upstream);
        self.request.add(&other.request);
    }
}

impl Shard {
    /// Counts a finished request; `labels` is asked only for a series' first request.
    pub fn record(&self, sample: Sample, labels: impl FnOnce() -> Labels) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let key = Key {
            route: sample.route,
            status: sample.status,
            source: sample.source,
            consumer: sample.consumer,
        };
        let mut all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let series = all.find(key, labels);
        series.count += 1;
        series.request.observe(&UPSTREAM_BUCKETS, sample.request_ms);
        series.gateway.observe(
            &KONG_BUCKETS,
            sample.request_ms.saturating_sub(sample.upstream_ms),
        );
        if sample.source == Source::Service {
            series
                .upstream
                .observe(&UPSTREAM_BUCKETS, sample.upstream_ms);
        }
    }
}

/// The sums of the connection counters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Connections {
    /// Accepted so far.
    pub accepted: u64,
    /// Of these, closed at once because there were too many.
    pub refused: u64,
    /// Open now.
    pub active: u64,
    /// Lines of the access log that could not be written.
    pub access_log_dropped: u64,
    /// Requests answered so far.
    pub requests: u64,
    /// Streams that are no HTTP, begun so far.
    pub streams: u64,
    /// Idle connections to upstreams.
    pub idle_upstream: u64,
}

impl Metrics {
    /// Nothing yet. Changes that were decided before `since` are not counted as late. `tracer` takes the spans of others.
    pub fn new(since: Time, tracer: Tracer) -> Self {
        Self {
            propagation: Propagation::new(since),
            traces: Applied::new(tracer, Environment::system(), since),
            ..Self::default()
        }
    }

    /// These have become active.
    pub fn activated(&self, events: &[Arrival]) {
        let now = now();
        self.propagation.arrived(events, now);
        self.traces.active(events, now);
        if let Some(last) = events.last() {
            *self.unserved() = Some((last.cursor.version, last.decided));
        }
    }

    /// A request is served by a version; asked once per table and worker.
    pub fn served(&self, version: Version) {
        let mut unserved = self.unserved();
        if let Some((newest, decided)) = *unserved
            && newest <= version
        {
            *unserved = None;
            drop(unserved);
            self.propagation.observe(Stage::Served, decided, now());
        }
    }

    fn unserved(&self) -> std::sync::MutexGuard<'_, Option<(Version, Time)>> {
        self.unserved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new shard, for one worker.
    pub fn shard(&self) -> Arc<Shard> {
        let shard = Arc::<Shard>::default();
        self.lock().push(Arc::clone(&shard));
        shard
    }

    /// The sums of the connection counters.
    pub fn connections(&self) -> Connections {
        let mut sum = Connections::default();
        for shard in self.lock().iter() {
            sum.accepted += shard.accepted.load(Ordering::Relaxed);
            sum.refused += shard.refused.load(Ordering::Relaxed);
            sum.access_log_dropped += shard.access_log_dropped.load(Ordering::Relaxed);
            sum.active += shard.active.load(Ordering::Relaxed);
            sum.streams += shard.streams.load(Ordering::Relaxed);
            sum.requests += shard.requests.load(Ordering::Relaxed);
            sum.idle_upstream += shard.idle_upstream.load(Ordering::Relaxed);
        }
        sum
    }

    /// Writes all request metrics.
    pub fn write(&self, writer: &mut Writer) {
        let mut sums: HashMap<(Labels, u16, Source), Series> = HashMap::new();
        for shard in self.lock().iter() {
            // A copy, so that the worker is not kept waiting while text is made.
            let copied = {
                let series = shard.series.lock();
                series.unwrap_or_else(PoisonError::into_inner).all.clone()
            };
            for (key, series) in copied {
                let id = (series.labels.clone(), key.status, key.source);
                sums.entry(id).or_default().add(&series);
            }
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by(|one, two| one.0.cmp(&two.0));
        text::requests(writer, &sums);
        text::connections(writer, self.connections());
        writer.append(|text| {
            self.propagation
                .write("sluice_dp_propagation_seconds", text);
            self.traces.tracer().write("sluice_dp", text);
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Shard>>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
