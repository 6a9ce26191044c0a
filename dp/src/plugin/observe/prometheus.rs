//! `prometheus`: numbers on the status listener's `/metrics`, under Kong's names.
//!
//! Requests by status, latencies and the health of targets are counted always and cost next to nothing, so
//! `status_code_metrics`, `latency_metrics` and `upstream_health_metrics` mean nothing. With `per_consumer` requests and
//! bytes are counted for each consumer, with `bandwidth_metrics` bytes are counted at all. There is nothing to count for
//! `ai_metrics` and `wasm_metrics`.

use crate::metrics::Writer;
use crate::plugin::logging::{request_bytes, response_bytes};
use crate::plugin::{Entity, Lasting, Phases, Plugin, Record, Reply};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use uuid::Uuid;

const NAME: &str = "kong_bandwidth_bytes";
/// Each thread writes to one of these, so that workers seldom meet.
const SHARDS: usize = 16;
/// The most series of a shard; further ones are not counted apart.
const SERIES_MAX: usize = 10_000;

/// The fields of the entity's `config` that mean something.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct Fields {
    per_consumer: bool,
    bandwidth_metrics: bool,
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct Prometheus {
    per_consumer: bool,
    bandwidth: bool,
}

/// Among what a request's plugins share: its consumer is counted.
pub(crate) struct CountConsumer;

impl Plugin for Prometheus {
    const NAME: &'static str = "prometheus";
    const PRIORITY: i32 = 13;
    const PHASES: Phases = Phases::RESPONSE.and(Phases::LOG);
    type Config = Fields;
    type State = Bandwidth;

    fn compile(fields: Fields, _: &Entity<'_>) -> Result<Self, String> {
        Ok(Self {
            per_consumer: fields.per_consumer,
            bandwidth: fields.bandwidth_metrics,
        })
    }

    fn response(&self, reply: &mut Reply<'_>) {
        if self.per_consumer {
            reply.context.shared.insert(CountConsumer);
        }
    }

    fn log(&self, record: &Record<'_>) {
        if self.bandwidth {
            record.state::<Self>().count(record, self.per_consumer);
        }
    }
}

type Shard = HashMap<(Uuid, Option<Uuid>), (Labels, [u64; 2])>;

/// Bytes by route and consumer.
#[derive(Default)]
pub(crate) struct Bandwidth {
    shards: [Mutex<Shard>; SHARDS],
    hash: RandomState,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Labels {
    service: String,
    route: String,
    workspace: String,
    consumer: String,
}

impl Labels {
    fn of(record: &Record<'_>, per_consumer: bool) -> Self {
        let name =
            |name: Option<&str>, id: Uuid| name.map_or_else(|| id.to_string(), str::to_owned);
        let consumer = record
            .context
            .identity
            .consumer
            .as_ref()
            .filter(|_| per_consumer);
        Self {
            service: record.service.map_or_else(String::new, |service| {
                name(service.name.as_deref(), service.id)
            }),
            route: record
                .route
                .map_or_else(String::new, |route| name(route.name.as_deref(), route.id)),
            workspace: record
                .route
                .map_or_else(String::new, |route| route.workspace.to_string()),
            consumer: consumer.map_or_else(String::new, |consumer| {
                name(consumer.username.as_deref(), consumer.id)
            }),
        }
    }
}

impl Bandwidth {
    fn count(&self, record: &Record<'_>, per_consumer: bool) {
        let route = record.route.map(|route| route.id).unwrap_or_default();
        let consumer = record
            .context
            .identity
            .consumer
            .as_ref()
            .filter(|_| per_consumer);
        let mut key = (route, consumer.map(|consumer| consumer.id));
        let hash = self.hash.hash_one(std::thread::current().id());
        let place = usize::try_from(hash % SHARDS as u64).unwrap_or_default();
        let mut shard = self.shards[place]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if shard.len() >= SERIES_MAX && !shard.contains_key(&key) {
            key = (Uuid::nil(), None);
        }
        let make = || {
            let labels = if key.0.is_nil() {
                Labels::default()
            } else {
                Labels::of(record, per_consumer)
            };
            (labels, [0; 2])
        };
        let (_, bytes) = shard.entry(key).or_insert_with(make);
        bytes[0] += request_bytes(record);
        bytes[1] += response_bytes(record);
    }
}

impl Lasting for Bandwidth {
    fn metrics(&self, writer: &mut Writer) {
        let mut sums: BTreeMap<Labels, [u64; 2]> = BTreeMap::new();
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for (labels, bytes) in shard.values() {
                let sum = sums.entry(labels.clone()).or_default();
                sum[0] += bytes[0];
                sum[1] += bytes[1];
            }
        }
        if sums.is_empty() {
            return;
        }
        writer.metric(
            NAME,
            "counter",
            "Bytes of requests (ingress) and responses (egress)",
        );
        for (labels, bytes) in &sums {
            for (direction, bytes) in ["ingress", "egress"].into_iter().zip(bytes) {
                let pairs = [
                    ("service", &*labels.service),
                    ("route", &*labels.route),
                    ("direction", direction),
                    ("workspace", &*labels.workspace),
                    ("consumer", &*labels.consumer),
                ];
                writer.value(NAME, &pairs, bytes);
            }
        }
    }
}
