//! The log in a local database, for one process: no broker needed.
//!
//! sled by the same recipe as the local store: one tree, one batch an append, our own fsync before an append is
//! acknowledged. One thread writes; appends that wait at the same time share a sync.
//!
//! | key | value |
//! |---|---|
//! | `l` version (8, big-endian) | length of the key id (1), key id, signature (64), event |
//! | `t` hash (32) | a chunk of a transaction: when it was stored (microseconds; 8, big-endian), zstd of the content |
//! | `s` hash (32) | a chunk of a snapshot: likewise |
//! | `r` name | a root: when it was stored, the root |
//!
//! Before each value: a format byte and the first 16 bytes of a BLAKE3 hash over key and value.

mod chunks;
mod format;
mod writer;

use super::{
    Append, AppendError, Bounds, Durability, Interest, Log, LogError, PAGE_BYTES_MAX,
    PAGE_RECORDS_MAX, Page, Record, Source, TailItem,
};
use crate::store::{StoreError, Syncer, open_guarded};
use async_trait::async_trait;
use bytes::Bytes;
use format::{RECORD_PREFIX, decode_record, parse_record_key, record_key};
use futures::StreamExt;
use futures::stream::BoxStream;
use sluice_schema::version::Version;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{broadcast, mpsc, oneshot};
use writer::{Change, Job, Writer};

const JOBS_WAITING_MAX: usize = 256;
/// Items a slow subscriber may be behind before it is told to read again.
const TAIL_ITEMS_MAX: usize = 4096;

/// The embedded log.
#[derive(Clone, Debug)]
pub struct Embedded {
    db: sled::Db,
    jobs: mpsc::Sender<Job>,
    /// The last version that is synced: what readers may see.
    last: Arc<AtomicU64>,
    tail: broadcast::Sender<TailItem>,
}

impl Embedded {
    /// Opens or makes the log in `directory`.
    ///
    /// # Errors
    /// If it cannot be opened or holds something else.
    pub fn open(directory: &Path) -> Result<Source, StoreError> {
        let log = Arc::new(Self::start(directory)?);
        Ok(Source {
            log: log.clone(),
            chunks: log,
        })
    }

    fn start(directory: &Path) -> Result<Self, StoreError> {
        let (db, last) = open_guarded(directory, |db| {
            let last = db
                .scan_prefix([RECORD_PREFIX])
                .keys()
                .next_back()
                .transpose();
            let last = last.map_err(|error| StoreError::Damaged(error.to_string()))?;
            last.map_or(Ok(Version::ZERO), |key| {
                parse_record_key(&key)
                    .ok_or_else(|| StoreError::Damaged("a key is not a version".into()))
            })
        })?;
        let (jobs, inbox) = mpsc::channel(JOBS_WAITING_MAX);
        let (written, last) = (last, Arc::new(AtomicU64::new(last.0)));
        let tail = broadcast::Sender::new(TAIL_ITEMS_MAX);
        let writer = Writer {
            db: db.clone(),
            syncer: Syncer::new(db.clone(), directory),
            written,
            last: last.clone(),
            tail: tail.clone(),
            poisoned: None,
        };
        std::thread::Builder::new()
            .name("embedded-log".into())
            .spawn(move || writer.run(inbox))
            .map_err(|source| StoreError::Io {
                operation: "start the writer of",
                source,
            })?;
        Ok(Self {
            db,
            jobs,
            last,
            tail,
        })
    }

    fn record(&self, version: Version) -> Result<Option<Record>, LogError> {
        let value = self
            .db
            .get(record_key(version))
            .map_err(|error| unavailable(&error))?;
        value
            .map(|value| decode_record(version, &value))
            .transpose()
    }
}

#[async_trait]
impl Log for Embedded {
    async fn append(&self, expected: Version, events: Vec<Append>) -> Result<(), AppendError> {
        let (done, answer) = oneshot::channel();
        let gone = || LogError::Unavailable("the embedded log has stopped".into());
        let job = Job::Append {
            expected,
            events,
            done,
        };
        self.jobs
            .send(job)
            .await
            .map_err(|_| AppendError::Refused(gone()))?;
        answer.await.map_err(|_| AppendError::Unknown {
            expected,
            source: gone(),
        })?
    }

    async fn read(&self, from: Version) -> Result<Page, LogError> {
        let mut page = Page::default();
        let mut bytes = 0;
        let last = Version(self.last.load(Ordering::Acquire));
        for item in self.db.range(record_key(from)..=record_key(last)) {
            if page.records.len() >= PAGE_RECORDS_MAX || bytes >= PAGE_BYTES_MAX {
                page.more = true;
                break;
            }
            let (key, value) = item.map_err(|error| unavailable(&error))?;
            let damaged = || LogError::Unusable("a key of the log is damaged on disk".into());
            let version = parse_record_key(&key).ok_or_else(damaged)?;
            match decode_record(version, &value) {
                Ok(record) => page.records.push(record),
                // What is before a damaged record can be used; who asks for the rest is told.
                Err(_) if !page.records.is_empty() => {
                    page.more = true;
                    break;
                }
                Err(error) => return Err(error),
            }
            bytes += value.len();
        }
        if page.begins_late(from) {
            page.first = first_version(&self.db).map_err(|error| unavailable(&error))?;
        }
        Ok(page)
    }

    async fn get(&self, version: Version) -> Result<Option<Record>, LogError> {
        self.record(version)
    }

    async fn bounds(&self) -> Result<Bounds, LogError> {
        let last = Version(self.last.load(Ordering::Acquire));
        let first = first_version(&self.db).map_err(|error| unavailable(&error))?;
        Ok(Bounds {
            first: first.unwrap_or_default().min(last),
            last,
        })
    }

    async fn trim(&self, first: Version) -> Result<(), LogError> {
        self.change(Change::Trim { first }).await.map(drop)
    }

    async fn tail(&self, interest: Interest) -> Result<BoxStream<'static, TailItem>, LogError> {
        let items = futures::stream::unfold(self.tail.subscribe(), |mut items| async {
            match items.recv().await {
                Ok(item) => Some((item, items)),
                // Something was missed: the reader reads again.
                Err(broadcast::error::RecvError::Lagged(_)) => Some((TailItem::Connected, items)),
                Err(broadcast::error::RecvError::Closed) => None,
            }
        });
        let wanted = move |item: &TailItem| match item {
            TailItem::Report(_) => interest == Interest::FollowAndReports,
            TailItem::Record(_)
            | TailItem::Head(_)
            | TailItem::Connected
            | TailItem::Disconnected
            | TailItem::Warning(_) => true,
        };
        let items = items.filter(move |item| std::future::ready(wanted(item)));
        Ok(
            futures::stream::once(std::future::ready(TailItem::Connected))
                .chain(items)
                .boxed(),
        )
    }

    async fn announce(&self, head: Bytes) -> Result<(), LogError> {
        let _ = self.tail.send(TailItem::Head(head));
        Ok(())
    }

    async fn report(&self, _: &str, report: Bytes) -> Result<(), LogError> {
        let _ = self.tail.send(TailItem::Report(report));
        Ok(())
    }

    async fn durability(&self) -> Durability {
        Durability::Synced
    }
}

/// The first version in the database, synced or not.
fn first_version(db: &sled::Db) -> sled::Result<Option<Version>> {
    let first = db.scan_prefix([RECORD_PREFIX]).keys().next().transpose()?;
    Ok(first.and_then(|key| parse_record_key(&key)))
}

fn unavailable(error: &dyn std::error::Error) -> LogError {
    LogError::Unavailable(crate::run::chain(error))
}

#[cfg(test)]
mod tests {
    use super::format::{chunk_key, encode_stored, root_key};
    use super::*;
    use crate::log::{ChunkUse, Chunks, REFRESH_AFTER, compress};
    use crate::process::now;
    use sluice_schema::event::EventId;
    use sluice_schema::hash::Hash32;
    use sluice_schema::version::Time;

    fn event(text: &str) -> Append {
        Append {
            subject: "default.route.x".into(),
            id: EventId(uuid::Uuid::nil()),
            event: Bytes::copy_from_slice(text.as_bytes()),
            signature: crate::log::Signature {
                key: "00112233aabbccdd".into(),
                bytes: [7; 64],
            },
        }
    }

    fn flip(db: &sled::Db, key: &[u8]) {
        let mut value = db.get(key).unwrap().unwrap();
        let last = value.len() - 1;
        value[last] ^= 1;
        db.insert(key, value).unwrap();
    }

    #[tokio::test]
    async fn a_damaged_record_is_named_and_what_is_before_it_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let log = Embedded::start(directory.path()).unwrap();
        let events = ["one", "two", "three", "four"].map(event).to_vec();
        log.append(Version::ZERO, events).await.unwrap();
        flip(&log.db, &record_key(Version(3)));
        let page = log.read(Version(1)).await.unwrap();
        assert_eq!((page.records.len(), page.more), (2, true));
        for error in [
            log.read(Version(3)).await.unwrap_err(),
            Log::get(&log, Version(3)).await.unwrap_err(),
        ] {
            assert!(
                error.to_string().contains("version 3 is damaged"),
                "{error}"
            );
        }
        let page = log.read(Version(4)).await.unwrap();
        assert_eq!((page.records.len(), page.more), (1, false));
    }

    #[tokio::test]
    async fn an_old_or_damaged_chunk_is_stored_again_and_a_young_one_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let log = Embedded::start(directory.path()).unwrap();
        let (part, hash) = (ChunkUse::Snapshot, Hash32::of(b"content"));
        let key = chunk_key(part, hash);
        let age = u64::try_from(REFRESH_AFTER.as_micros()).unwrap();
        let minute = 60_000_000;
        for (age, is_left) in [(age + minute, false), (age - minute, true)] {
            let stored = Time(now().0 - age);
            let value = encode_stored(&key, stored, &compress(b"content"));
            log.db.insert(key, value).unwrap();
            log.put(part, hash, b"content").await.unwrap();
            let old = Time(stored.0 + 1);
            assert_eq!(log.remove(part, hash, old).await.unwrap(), is_left);
        }
        log.put(part, hash, b"content").await.unwrap();
        flip(&log.db, &key);
        assert!(Chunks::get(&log, part, hash).await.is_err());
        log.put(part, hash, b"content").await.unwrap();
        assert_eq!(
            Chunks::get(&log, part, hash).await.unwrap().unwrap(),
            "content"
        );
        flip(&log.db, &key);
        assert!(log.remove(part, hash, Time(0)).await.unwrap());
        assert_eq!(Chunks::get(&log, part, hash).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_damaged_root_is_named_and_can_be_removed_or_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let log = Embedded::start(directory.path()).unwrap();
        for name in ["a", "b"] {
            log.put_root(name, b"root").await.unwrap();
            flip(&log.db, &root_key(name));
        }
        let error = log.roots().await.unwrap_err();
        assert!(error.to_string().contains("root 'a' is damaged"), "{error}");
        log.remove_root("a").await.unwrap();
        log.put_root("b", b"root").await.unwrap();
        let roots = log.roots().await.unwrap();
        assert_eq!((roots.len(), roots[0].name.as_str()), (1, "b"));
    }

    #[tokio::test]
    async fn roots_keep_their_order_when_the_clock_goes_back() {
        let directory = tempfile::tempdir().unwrap();
        let log = Embedded::start(directory.path()).unwrap();
        let future = Time(now().0 + 1_000_000_000_000);
        let key = root_key("future");
        let value = encode_stored(&key, future, b"");
        log.db.insert(key, value).unwrap();
        log.put_root("now", b"").await.unwrap();
        let names = log.roots().await.unwrap().into_iter().map(|root| root.name);
        assert!(names.eq(["future", "now"]));
    }
}
