//! Where answers are kept: in memory, bounded in bytes, for all plugins together.

use crate::metrics::Writer;
use crate::plugin::{Answer, Lasting, Stamp};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::json;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bodies and heads together; Kong's default for its dictionary.
const BYTES_MAX: usize = 128 * 1024 * 1024;
/// What an answer takes beside its bytes, about.
const ENTRY_BYTES: usize = 512;
/// How many are looked at for the one that ends first.
const EVICTION_SAMPLE: usize = 8;
/// Where they are looked up and purged.
const PATH: &str = "/proxy-cache";

/// The key of an answer: of all that it depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The form of the plugin that keeps it.
    pub(super) stamp: Stamp,
    pub(super) hash: [u8; 32],
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hash
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// An answer that is kept.
pub(super) struct Kept {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// When it came, in seconds since the Unix epoch.
    pub(super) at: u64,
    /// How long it is fresh.
    pub(super) ttl: u64,
    /// When it goes.
    pub(super) ends: u64,
}

impl Kept {
    fn bytes(&self) -> usize {
        let head = self.headers.iter();
        let head: usize = head
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        ENTRY_BYTES + head + self.body.len()
    }
}

/// What became of requests.
#[derive(Clone, Copy, Debug)]
pub(super) enum Status {
    Hit,
    Miss,
    Refresh,
    Bypass,
}

impl Status {
    const ALL: [Self; 4] = [Self::Hit, Self::Miss, Self::Refresh, Self::Bypass];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hit => "Hit",
            Self::Miss => "Miss",
            Self::Refresh => "Refresh",
            Self::Bypass => "Bypass",
        }
    }
}

/// All answers that are kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store(Arc<Inner>);

#[derive(Default)]
struct Inner {
    entries: Mutex<Entries>,
    statuses: [AtomicU64; Status::ALL.len()],
}

#[derive(Default)]
struct Entries {
    all: HashMap<Key, Arc<Kept>>,
    bytes: usize,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Entries {
    fn remove(&mut self, key: Key) -> bool {
        let removed = self.all.remove(&key);
        self.bytes -= removed.as_ref().map_or(0, |kept| kept.bytes());
        removed.is_some()
    }

    fn retain(&mut self, keep: impl Fn(&Key, &Kept) -> bool) {
        self.all.retain(|key, kept| keep(key, kept));
        self.bytes = self.all.values().map(|kept| kept.bytes()).sum();
    }
}

impl Store {
    pub(super) fn get(&self, key: Key, now: u64) -> Option<Arc<Kept>> {
        let entries = self.entries();
        let kept = entries.all.get(&key).filter(|kept| kept.ends > now);
        kept.cloned()
    }

    pub(super) fn put(&self, key: Key, kept: Kept) {
        let bytes = kept.bytes();
        if bytes > BYTES_MAX {
            return;
        }
        let mut entries = self.entries();
        entries.remove(key);
        while entries.bytes + bytes > BYTES_MAX {
            let sample = entries.all.iter().take(EVICTION_SAMPLE);
            let first = sample.min_by_key(|(_, kept)| kept.ends);
            let Some(first) = first.map(|(key, _)| *key) else {
                break;
            };
            entries.remove(first);
        }
        entries.bytes += bytes;
        entries.all.insert(key, Arc::new(kept));
    }

    pub(super) fn count(&self, status: Status) {
        self.0.statuses[status as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Drops what an entity keeps.
    pub(super) fn forget(&self, plugin: uuid::Uuid) {
        self.entries().retain(|key, _| key.stamp.id != plugin);
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, plugin: Option<&str>, name: &str) -> Option<(Key, Arc<Kept>)> {
        let entries = self.entries();
        let of_plugin = |key: &Key| plugin.is_none_or(|plugin| key.stamp.id.to_string() == plugin);
        let mut all = entries.all.iter();
        let found = all.find(|(key, _)| of_plugin(key) && key.to_string() == name);
        found.map(|(key, kept)| (*key, Arc::clone(kept)))
    }

    fn show(key: &Key, kept: &Kept) -> Answer {
        let headers = kept.headers.iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.to_string(), value.into())
        });
        let headers: serde_json::Map<_, _> = headers.collect();
        let shown = json!({
            "plugin": key.stamp.id.to_string(),
            "status": kept.status.as_u16(),
            "headers": headers,
            "body": String::from_utf8_lossy(&kept.body),
            "body_len": kept.body.len(),
            "timestamp": kept.at,
            "ttl": kept.ttl,
        });
        Answer::json(StatusCode::OK, &shown)
    }
}

impl Lasting for Store {
    fn tick(&self, now: u64) {
        self.entries().retain(|_, kept| kept.ends > now);
    }

    fn metrics(&self, writer: &mut Writer) {
        let (count, bytes) = {
            let entries = self.entries();
            (entries.all.len(), entries.bytes)
        };
        let name = "sluice_dp_proxy_cache_requests_total";
        writer.metric(name, "counter", "Requests by what the cache did with them");
        for status in Status::ALL {
            let count = self.0.statuses[status as usize].load(Ordering::Relaxed);
            writer.value(name, &[("status", status.name())], count);
        }
        let help = "Answers that are kept";
        writer.single("sluice_dp_proxy_cache_entries", "gauge", help, count);
        let help = "Bytes of answers that are kept";
        writer.single("sluice_dp_proxy_cache_bytes", "gauge", help, bytes);
    }

    /// Kong's endpoints: `/proxy-cache`, `/proxy-cache/KEY`, `/proxy-cache/PLUGIN/caches/KEY`.
    fn answer(&self, method: &Method, path: &str) -> Option<Answer> {
        let rest = path.strip_prefix(PATH)?;
        let parts: Vec<_> = rest.split('/').collect();
        let found = match *parts {
            [""] if method == Method::DELETE => {
                self.entries().retain(|_, _| false);
                return Some(Answer::empty(StatusCode::NO_CONTENT));
            }
            ["", key] if rest.len() > 1 => self.find(None, key),
            ["", plugin, "caches", key] => self.find(Some(plugin), key),
            _ => return None,
        };
        Some(match found {
            None => Answer::json(StatusCode::NOT_FOUND, &json!({ "message": "Not found" })),
            Some((key, _)) if method == Method::DELETE => {
                self.entries().remove(key);
                Answer::empty(StatusCode::NO_CONTENT)
            }
            Some((key, kept)) => Self::show(&key, &kept),
        })
    }
}
