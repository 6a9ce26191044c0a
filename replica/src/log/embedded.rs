//! The log in a local database, for one process: no broker needed.
//!
//! sled by the same recipe as the local store: one tree, one batch an append, our own fsync before an append is
//! acknowledged. One thread writes; appends that wait at the same time share a sync.
//!
//! | key | value |
//! |---|---|
//! | `l` version (8, big-endian) | length of the key id (1), key id, signature (64), event |
//! | `c` hash (32) | zstd of the content |

use super::{
    Append, AppendError, Bounds, Chunks, Durability, Interest, Log, LogError, PAGE_BYTES_MAX,
    PAGE_RECORDS_MAX, Page, Record, Signature, Source, TailItem, compress, decompress,
};
use crate::store::{StoreError, Syncer, open_guarded};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use sluice_schema::hash::Hash32;
use sluice_schema::version::Version;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{broadcast, mpsc, oneshot};

const RECORD_PREFIX: u8 = b'l';
const CHUNK_PREFIX: u8 = b'c';
const JOBS_WAITING_MAX: usize = 256;
/// Appends and chunks that may share a sync.
const JOBS_PER_SYNC_MAX: usize = 64;
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

#[derive(Debug)]
enum Job {
    Append {
        expected: Version,
        events: Vec<Append>,
        done: oneshot::Sender<Result<(), AppendError>>,
    },
    Put {
        hash: Hash32,
        content: Vec<u8>,
        done: oneshot::Sender<Result<(), LogError>>,
    },
}

impl Embedded {
    /// Opens or makes the log in `directory`.
    ///
    /// # Errors
    /// If it cannot be opened or holds something else.
    pub fn open(directory: &Path) -> Result<Source, StoreError> {
        let (db, last) = open_guarded(directory, |db| {
            let last = db
                .scan_prefix([RECORD_PREFIX])
                .keys()
                .next_back()
                .transpose();
            let last = last.map_err(|error| StoreError::Damaged(error.to_string()))?;
            last.map_or(Ok(0), |key| {
                let version = key.get(1..).and_then(|bytes| bytes.try_into().ok());
                version
                    .map(u64::from_be_bytes)
                    .ok_or_else(|| StoreError::Damaged("a key is not a version".into()))
            })
        })?;
        let (jobs, inbox) = mpsc::channel(JOBS_WAITING_MAX);
        let last = Arc::new(AtomicU64::new(last));
        let tail = broadcast::Sender::new(TAIL_ITEMS_MAX);
        let writer = Writer {
            db: db.clone(),
            syncer: Syncer::new(db.clone(), directory),
            written: Version(last.load(Ordering::Acquire)),
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
        let log = Arc::new(Self {
            db,
            jobs,
            last,
            tail,
        });
        Ok(Source {
            log: log.clone(),
            chunks: log,
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

struct Writer {
    db: sled::Db,
    syncer: Syncer,
    /// The last version in the database, synced or not.
    written: Version,
    last: Arc<AtomicU64>,
    tail: broadcast::Sender<TailItem>,
    /// A sync has failed: what is on disk is not known any more, so nothing is accepted until the log is opened again.
    poisoned: Option<String>,
}

/// What is left to do once the disk has it.
type Finish = Box<dyn FnOnce(&Writer, Result<(), &StoreError>)>;

impl Writer {
    fn run(mut self, mut inbox: mpsc::Receiver<Job>) {
        while let Some(job) = inbox.blocking_recv() {
            let mut finishes: Vec<Finish> = Vec::new();
            finishes.extend(self.write(job));
            while finishes.len() < JOBS_PER_SYNC_MAX
                && let Ok(job) = inbox.try_recv()
            {
                finishes.extend(self.write(job));
            }
            if !finishes.is_empty() {
                let synced = self.syncer.sync();
                if let Err(error) = &synced {
                    self.poisoned = Some(crate::run::chain(error));
                }
                finishes
                    .into_iter()
                    .for_each(|finish| finish(&self, synced.as_ref().copied()));
            }
        }
    }

    /// Writes a job and gives back what follows the sync; answers at once if nothing was written.
    fn write(&mut self, job: Job) -> Option<Finish> {
        match job {
            Job::Append { done, .. } if self.poisoned.is_some() => {
                let _ = done.send(Err(AppendError::Refused(self.unusable())));
                None
            }
            Job::Put { done, .. } if self.poisoned.is_some() => {
                let _ = done.send(Err(self.unusable()));
                None
            }
            Job::Append {
                expected,
                events,
                done,
            } => self.append(expected, events, done),
            Job::Put {
                hash,
                content,
                done,
            } => {
                let written = self.db.insert(chunk_key(hash), content);
                if let Err(error) = written {
                    let _ = done.send(Err(unavailable(&error)));
                    return None;
                }
                Some(Box::new(move |_, synced| {
                    let _ = done.send(synced.map_err(|error| unavailable(error)));
                }))
            }
        }
    }

    fn unusable(&self) -> LogError {
        let reason = self.poisoned.as_deref().unwrap_or_default();
        LogError::Unusable(format!(
            "an earlier write could not be synced ({reason}); restart to go on"
        ))
    }

    fn append(
        &mut self,
        expected: Version,
        events: Vec<Append>,
        done: oneshot::Sender<Result<(), AppendError>>,
    ) -> Option<Finish> {
        if self.written != expected {
            let _ = done.send(Err(AppendError::Conflict { expected }));
            return None;
        }
        let mut batch = sled::Batch::default();
        let mut records = Vec::with_capacity(events.len());
        let mut version = expected;
        for append in events {
            version = version.next();
            let signature = Some(append.signature);
            let record = Record {
                version,
                event: append.event,
                signature,
            };
            batch.insert(&record_key(version), encode_record(&record));
            records.push(record);
        }
        if let Err(error) = self.db.apply_batch(batch) {
            let _ = done.send(Err(AppendError::Refused(unavailable(&error))));
            return None;
        }
        self.written = version;
        Some(Box::new(move |writer, synced| {
            if let Err(error) = synced {
                let source = unavailable(error);
                let _ = done.send(Err(AppendError::Unknown { expected, source }));
                return;
            }
            writer.last.store(version.0, Ordering::Release);
            for record in records {
                // Nobody may be subscribed.
                let _ = writer.tail.send(TailItem::Record(record));
            }
            let _ = done.send(Ok(()));
        }))
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
            let version = key[1..]
                .try_into()
                .map(u64::from_be_bytes)
                .map_err(|error| unavailable(&error))?;
            bytes += value.len();
            page.records.push(decode_record(Version(version), &value)?);
        }
        Ok(page)
    }

    async fn get(&self, version: Version) -> Result<Option<Record>, LogError> {
        self.record(version)
    }

    async fn bounds(&self) -> Result<Bounds, LogError> {
        let last = Version(self.last.load(Ordering::Acquire));
        Ok(Bounds {
            first: last.min(Version::GENESIS),
            last,
        })
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

#[async_trait]
impl Chunks for Embedded {
    async fn put(&self, hash: Hash32, content: &[u8]) -> Result<(), LogError> {
        let known = self
            .db
            .contains_key(chunk_key(hash))
            .map_err(|error| unavailable(&error))?;
        if known {
            return Ok(());
        }
        let (done, answer) = oneshot::channel();
        let gone = || LogError::Unavailable("the embedded log has stopped".into());
        let job = Job::Put {
            hash,
            content: compress(content),
            done,
        };
        self.jobs.send(job).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    async fn get(&self, hash: Hash32) -> Result<Option<Bytes>, LogError> {
        let stored = self
            .db
            .get(chunk_key(hash))
            .map_err(|error| unavailable(&error))?;
        stored.map(|stored| decompress(hash, &stored)).transpose()
    }
}

fn unavailable(error: &dyn std::error::Error) -> LogError {
    LogError::Unavailable(crate::run::chain(error))
}

fn record_key(version: Version) -> [u8; 9] {
    let mut key = [RECORD_PREFIX; 9];
    key[1..].copy_from_slice(&version.0.to_be_bytes());
    key
}

fn chunk_key(hash: Hash32) -> [u8; 33] {
    let mut key = [CHUNK_PREFIX; 33];
    key[1..].copy_from_slice(&hash.0);
    key
}

fn encode_record(record: &Record) -> Vec<u8> {
    let mut value = Vec::with_capacity(record.event.len() + 96);
    match &record.signature {
        Some(Signature { key, bytes }) => {
            value.push(u8::try_from(key.len()).expect("a key id has 16 characters"));
            value.extend_from_slice(key.as_bytes());
            value.extend_from_slice(bytes);
        }
        None => value.push(0),
    }
    value.extend_from_slice(&record.event);
    value
}

fn decode_record(version: Version, value: &[u8]) -> Result<Record, LogError> {
    let damaged = || LogError::Unusable(format!("version {version} is damaged on disk"));
    let (length, rest) = value.split_first().ok_or_else(damaged)?;
    if *length == 0 {
        return Ok(Record {
            version,
            event: Bytes::copy_from_slice(rest),
            signature: None,
        });
    }
    let (key, rest) = rest
        .split_at_checked(usize::from(*length))
        .ok_or_else(damaged)?;
    let (bytes, event) = rest.split_first_chunk::<64>().ok_or_else(damaged)?;
    let key = std::str::from_utf8(key).map_err(|_| damaged())?.to_owned();
    let signature = Some(Signature { key, bytes: *bytes });
    Ok(Record {
        version,
        event: Bytes::copy_from_slice(event),
        signature,
    })
}
