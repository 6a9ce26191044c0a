//! The one thread that writes. What waits at the same time shares a sync.

use super::format::{
    ROOT_PREFIX, decode_stored, encode_record, encode_stored, record_key, root_key,
};
use super::{first_version, unavailable};
use crate::log::{Append, AppendError, LogError, Record, TailItem};
use crate::process::now;
use crate::store::{StoreError, Syncer};
use sluice_schema::version::{Time, Version};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{broadcast, mpsc, oneshot};

/// Jobs that may share a sync.
const JOBS_PER_SYNC_MAX: usize = 64;
/// Records removed in one batch. Trimming is unbounded; memory is not.
const TRIM_RECORDS_MAX: usize = 1000;

#[derive(Debug)]
pub(super) enum Job {
    Append {
        expected: Version,
        events: Vec<Append>,
        done: oneshot::Sender<Result<(), AppendError>>,
    },
    Change {
        change: Change,
        /// Whether anything changed.
        done: oneshot::Sender<Result<bool, LogError>>,
    },
}

/// Everything but an append.
#[derive(Debug)]
pub(super) enum Change {
    /// Puts compressed content at a chunk's key.
    PutChunk { key: [u8; 33], compressed: Vec<u8> },
    /// Removes a chunk if it was stored before a time.
    RemoveChunk { key: [u8; 33], stored_before: Time },
    /// Puts a root under a name.
    PutRoot { name: String, root: Vec<u8> },
    /// Removes the root of a name.
    RemoveRoot { name: String },
    /// Removes the records before a version.
    Trim { first: Version },
}

pub(super) struct Writer {
    pub(super) db: sled::Db,
    pub(super) syncer: Syncer,
    /// The last version in the database, synced or not.
    pub(super) written: Version,
    /// The last version that is synced.
    pub(super) last: Arc<AtomicU64>,
    pub(super) tail: broadcast::Sender<TailItem>,
    /// A sync has failed: what is on disk is not known any more, so nothing is accepted until the log is opened again.
    pub(super) poisoned: Option<String>,
}

/// What is left to do once the disk has it.
type Finish = Box<dyn FnOnce(&Writer, Result<(), &StoreError>)>;

impl Writer {
    pub(super) fn run(mut self, mut inbox: mpsc::Receiver<Job>) {
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

    /// Writes a job and gives back what follows the sync; answers at once if it failed.
    fn write(&mut self, job: Job) -> Option<Finish> {
        match job {
            Job::Append { done, .. } if self.poisoned.is_some() => {
                let _ = done.send(Err(AppendError::Refused(self.unusable())));
                None
            }
            Job::Change { done, .. } if self.poisoned.is_some() => {
                let _ = done.send(Err(self.unusable()));
                None
            }
            Job::Append {
                expected,
                events,
                done,
            } => self.append(expected, events, done),
            Job::Change { change, done } => match self.change(change) {
                Ok(changed) => Some(Box::new(move |_, synced| {
                    let result = synced.map(|()| changed);
                    let _ = done.send(result.map_err(|error| unavailable(error)));
                })),
                Err(error) => {
                    let _ = done.send(Err(error));
                    None
                }
            },
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

    /// Whether anything changed.
    fn change(&self, change: Change) -> Result<bool, LogError> {
        match change {
            Change::PutChunk { key, compressed } => self
                .insert(&key, encode_stored(&key, now(), &compressed))
                .map(|()| true),
            Change::RemoveChunk { key, stored_before } => self.remove_chunk(&key, stored_before),
            Change::PutRoot { name, root } => {
                let key = root_key(&name);
                // The order in which roots were stored is told by their times, whatever the clock does.
                let stored = now().max(Time(self.newest_root()?.0.saturating_add(1)));
                self.insert(&key, encode_stored(&key, stored, &root))
                    .map(|()| true)
            }
            Change::RemoveRoot { name } => self.remove(&root_key(&name)),
            Change::Trim { first } => self.trim(first),
        }
    }

    fn remove_chunk(&self, key: &[u8], stored_before: Time) -> Result<bool, LogError> {
        let found = self.db.get(key).map_err(|error| unavailable(&error))?;
        let Some(value) = found else {
            return Ok(false);
        };
        // A damaged one has no time. Nobody has put it of late, or it would have been replaced.
        match decode_stored(key, &value) {
            Some((stored, _)) if stored >= stored_before => Ok(false),
            Some(_) | None => self.remove(key),
        }
    }

    fn newest_root(&self) -> Result<Time, LogError> {
        let mut newest = Time::default();
        for item in self.db.scan_prefix([ROOT_PREFIX]) {
            let (key, value) = item.map_err(|error| unavailable(&error))?;
            newest = newest.max(decode_stored(&key, &value).map_or(newest, |(stored, _)| stored));
        }
        Ok(newest)
    }

    fn insert(&self, key: &[u8], value: Vec<u8>) -> Result<(), LogError> {
        let inserted = self.db.insert(key, value);
        inserted.map(drop).map_err(|error| unavailable(&error))
    }

    fn remove(&self, key: &[u8]) -> Result<bool, LogError> {
        let removed = self.db.remove(key);
        removed
            .map(|value| value.is_some())
            .map_err(|error| unavailable(&error))
    }

    /// Removes from the oldest on, so that what a crash leaves has no hole. The newest record always stays: the next
    /// version is counted from it.
    fn trim(&self, first: Version) -> Result<bool, LogError> {
        let refused = |reason: String| {
            let text = format!("could not trim the log to version {first}: {reason}");
            Err(LogError::Unusable(text))
        };
        if first > self.written {
            return refused(format!("it ends at version {}", self.written));
        }
        let found = first_version(&self.db).map_err(|error| unavailable(&error))?;
        if found.is_none_or(|found| first <= found) {
            return Ok(false);
        }
        let kept = self.db.contains_key(record_key(first));
        if !kept.map_err(|error| unavailable(&error))? {
            return refused("the log has lost it".into());
        }
        loop {
            let old = self.db.range(record_key(Version::ZERO)..record_key(first));
            let mut batch = sled::Batch::default();
            let mut count = 0;
            for key in old.keys().take(TRIM_RECORDS_MAX) {
                batch.remove(key.map_err(|error| unavailable(&error))?);
                count += 1;
            }
            if count == 0 {
                return Ok(true);
            }
            let removed = self.db.apply_batch(batch);
            removed.map_err(|error| unavailable(&error))?;
        }
    }
}
