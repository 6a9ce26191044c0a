//! The parameters of a queue.

use serde::Deserialize;
use std::time::Duration;

/// The bytes a queue holds if `max_bytes` does not say: Kong has no limit there, and would fill the memory.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// Batches handed over at a time where `concurrency_limit` is -1. Kong has no limit there either.
const CONCURRENCY_MAX: usize = 64;
/// No pause or delay is longer.
const SECONDS_MAX: f64 = 1e6;

/// The record `queue` of a plugin's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(crate) struct QueueFields {
    max_batch_size: usize,
    max_coalescing_delay: f64,
    max_entries: usize,
    max_bytes: Option<i64>,
    max_retry_time: f64,
    initial_retry_delay: f64,
    max_retry_delay: f64,
    concurrency_limit: i64,
}

impl Default for QueueFields {
    fn default() -> Self {
        Self {
            max_batch_size: 1,
            max_coalescing_delay: 1.0,
            max_entries: 10_000,
            max_bytes: None,
            max_retry_time: 60.0,
            initial_retry_delay: 0.01,
            max_retry_delay: 60.0,
            concurrency_limit: 1,
        }
    }
}

/// How a queue gathers, keeps and hands over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Parameters {
    /// Most entries in a batch.
    pub(crate) batch_max: usize,
    /// How long a batch that is not full waits for more.
    pub(crate) coalescing: Duration,
    /// Most entries that wait or are in hand.
    pub(crate) entries_max: usize,
    /// Most bytes of these.
    pub(crate) bytes_max: usize,
    /// How long a batch is tried.
    pub(crate) retry_time: Duration,
    /// The first pause; each further one is twice as long.
    pub(crate) retry_delay: Duration,
    /// The longest pause.
    pub(crate) retry_delay_max: Duration,
    /// Batches handed over at a time.
    pub(crate) concurrency: usize,
}

impl From<&QueueFields> for Parameters {
    fn from(fields: &QueueFields) -> Self {
        let bytes = fields.max_bytes.and_then(|bytes| bytes.try_into().ok());
        Self {
            batch_max: fields.max_batch_size.max(1),
            coalescing: seconds(fields.max_coalescing_delay),
            entries_max: fields.max_entries.max(1),
            bytes_max: bytes.unwrap_or(BYTES_MAX),
            retry_time: seconds(fields.max_retry_time),
            retry_delay: seconds(fields.initial_retry_delay),
            retry_delay_max: seconds(fields.max_retry_delay),
            concurrency: if fields.concurrency_limit == 1 {
                1
            } else {
                CONCURRENCY_MAX
            },
        }
    }
}

impl Default for Parameters {
    fn default() -> Self {
        Self::from(&QueueFields::default())
    }
}

fn seconds(count: f64) -> Duration {
    Duration::try_from_secs_f64(count.clamp(0.0, SECONDS_MAX)).unwrap_or_default()
}
