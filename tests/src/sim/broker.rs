//! The broker: one log and chunk store for everybody, with the faults of its disk.
//!
//! Nothing here waits: the network in between is in `network.rs`.

use super::dice::Dice;
use super::trace::{Trace, note};
use super::truth::Truth;
use bytes::Bytes;
use sluice_replica::keys::SigningKey;
use sluice_replica::log::{
    Append, AppendError, Bounds, ChunkUse, LogError, PAGE_RECORDS_MAX, Page, Record, StoredRoot,
};
use sluice_schema::event::{Event, Mutations};
use sluice_schema::hash::Hash32;
use sluice_schema::version::{Cursor, Time, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// A record and when it was stored.
#[derive(Clone, Debug)]
struct Stored {
    record: Record,
    at: Instant,
}

#[derive(Clone, Debug)]
struct Chunk {
    content: Bytes,
    stored: Time,
    damaged: bool,
}

/// What lies on the broker's disk.
#[derive(Clone, Debug, Default)]
struct Content {
    records: BTreeMap<u64, Stored>,
    last: u64,
    /// Everything before it has been trimmed.
    first: u64,
    chunks: BTreeMap<(ChunkUse, Hash32), Chunk>,
    roots: BTreeMap<String, (Bytes, Time)>,
    root_order: Vec<String>,
}

/// What can happen to the broker's disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Damage {
    /// Acknowledged records vanish, as with a broker that does not sync.
    LostTail,
    /// An old copy of everything is put back.
    Rollback,
    /// The stream is made anew.
    Recreated,
    /// A bit flips in an event.
    FlippedEvent,
    /// A bit flips in a signature.
    FlippedSignature,
    /// A record in the middle vanishes.
    Hole,
    /// A bit flips in a chunk: it no longer has its hash.
    FlippedChunk,
    /// A chunk vanishes.
    LostChunk,
    /// A root vanishes.
    LostRoot,
}

/// The broker's store.
#[derive(Debug)]
pub(crate) struct Broker {
    content: Content,
    /// An old copy of it.
    copy: Option<Content>,
    /// How long a copy that answers reads may be behind.
    pub(crate) lag_max: Duration,
    dice: Dice,
    trace: Trace,
    truth: Truth,
    began: Instant,
}

/// The wall clock when a run begins, in microseconds: 2026-01-01.
pub(crate) const EPOCH_START_US: u64 = 1_767_225_600_000_000;

impl Broker {
    /// An empty one.
    pub(crate) fn new(seed: u64, trace: Trace, truth: Truth) -> Self {
        Self {
            content: Content {
                first: 1,
                ..Content::default()
            },
            copy: None,
            lag_max: Duration::ZERO,
            dice: Dice::new(seed, 2),
            trace,
            truth,
            began: Instant::now(),
        }
    }

    /// The broker's clock.
    pub(crate) fn now(&self) -> Time {
        let passed = Instant::now().duration_since(self.began).as_micros();
        Time(EPOCH_START_US + u64::try_from(passed).unwrap_or(0))
    }

    /// Stores events right after version `expected`, all or none, and gives back what was stored.
    pub(crate) fn append(
        &mut self,
        expected: Version,
        events: &[Append],
    ) -> Result<Vec<Record>, AppendError> {
        if expected.0 != self.content.last {
            return Err(AppendError::Conflict { expected });
        }
        let mut stored = Vec::with_capacity(events.len());
        for event in events {
            let version = Version(self.content.last + 1);
            let record = Record {
                version,
                event: event.event.clone(),
                signature: Some(event.signature.clone()),
            };
            self.push(record.clone());
            let mutations = self.whole_mutations(&record);
            self.truth.lock().appended(&record, mutations);
            stored.push(record);
        }
        Ok(stored)
    }

    /// Stores a record that no control plane wrote.
    pub(crate) fn append_forged(&mut self, record: Record) -> Record {
        let record = Record {
            version: Version(self.content.last + 1),
            ..record
        };
        self.push(record.clone());
        let tip = self.truth.lock().tip();
        self.truth.lock().damage(tip);
        record
    }

    fn push(&mut self, record: Record) {
        self.content.last = record.version.0;
        self.content.records.insert(
            record.version.0,
            Stored {
                record,
                at: Instant::now(),
            },
        );
    }

    /// The mutations of a large transaction.
    fn whole_mutations(&self, record: &Record) -> Option<Mutations> {
        let Mutations::Stored(stored) = Event::decode(&record.event).ok()?.mutations else {
            return None;
        };
        let mut joined = Vec::new();
        for hash in &stored.chunks {
            let chunk = self.content.chunks.get(&(ChunkUse::Transaction, *hash))?;
            joined.extend_from_slice(&chunk.content);
        }
        stored.open(&joined).ok().map(Mutations::Inline)
    }

    /// What one of the copies has from a version on.
    pub(crate) fn read(&mut self, from: Version) -> Page {
        let lag = match self.lag_max {
            Duration::ZERO => Duration::ZERO,
            max => self
                .dice
                .milliseconds(0, u64::try_from(max.as_millis()).unwrap_or(0)),
        };
        let now = Instant::now();
        let known = |stored: &&Stored| now.duration_since(stored.at) >= lag;
        let records: Vec<Record> = self
            .content
            .records
            .range(from.0..)
            .map(|(_, stored)| stored)
            .take_while(known)
            .take(PAGE_RECORDS_MAX)
            .map(|stored| stored.record.clone())
            .collect();
        let mut page = Page {
            records,
            ..Page::default()
        };
        page.first = page
            .begins_late(from)
            .then_some(Version(self.content.first));
        page
    }

    /// One record, from the leader.
    pub(crate) fn get(&self, version: Version) -> Option<Record> {
        self.content
            .records
            .get(&version.0)
            .map(|stored| stored.record.clone())
    }

    /// The log's ends.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            first: Version(self.content.first),
            last: Version(self.content.last),
        }
    }

    /// Removes everything before `first`.
    pub(crate) fn trim(&mut self, first: Version) -> Result<(), LogError> {
        if first.0 <= self.content.first {
            return Ok(());
        }
        if !self.content.records.contains_key(&first.0) {
            return Err(LogError::Unusable(format!(
                "version {first} is not in the log"
            )));
        }
        self.content.records = self.content.records.split_off(&first.0);
        self.content.first = first.0;
        self.truth.lock().first = first;
        note!(self.trace, "broker: trimmed, the log begins at {first}");
        Ok(())
    }

    /// Stores a chunk.
    pub(crate) fn put(&mut self, part: ChunkUse, hash: Hash32, content: &[u8]) {
        let stored = self.now();
        let content = Bytes::copy_from_slice(content);
        self.content.chunks.insert(
            (part, hash),
            Chunk {
                content,
                stored,
                damaged: false,
            },
        );
    }

    /// A chunk.
    pub(crate) fn chunk(&self, part: ChunkUse, hash: Hash32) -> Result<Option<Bytes>, LogError> {
        match self.content.chunks.get(&(part, hash)) {
            Some(chunk) if chunk.damaged => Err(LogError::Unusable(format!(
                "chunk {hash} holds other content"
            ))),
            Some(chunk) => Ok(Some(chunk.content.clone())),
            None => Ok(None),
        }
    }

    /// Stores a root.
    pub(crate) fn put_root(&mut self, name: &str, root: &[u8]) {
        let stored = self.now();
        self.content.root_order.retain(|known| known != name);
        self.content.root_order.push(name.to_owned());
        self.content
            .roots
            .insert(name.to_owned(), (Bytes::copy_from_slice(root), stored));
    }

    /// All roots, the oldest first.
    pub(crate) fn roots(&self) -> Vec<StoredRoot> {
        let root = |name: &String| {
            let (root, stored) = self.content.roots.get(name)?;
            Some(StoredRoot {
                name: name.clone(),
                root: root.clone(),
                stored: *stored,
            })
        };
        self.content.root_order.iter().filter_map(root).collect()
    }

    /// Removes a root.
    pub(crate) fn remove_root(&mut self, name: &str) {
        self.content.roots.remove(name);
        self.content.root_order.retain(|known| known != name);
    }

    /// All chunks of a use.
    pub(crate) fn list(&self, part: ChunkUse) -> BTreeSet<Hash32> {
        let own = |(key, _): (&(ChunkUse, Hash32), &Chunk)| (key.0 == part).then_some(key.1);
        self.content.chunks.iter().filter_map(own).collect()
    }

    /// Removes a chunk that was stored before a time.
    pub(crate) fn remove(&mut self, part: ChunkUse, hash: Hash32, stored_before: Time) -> bool {
        let old = self
            .content
            .chunks
            .get(&(part, hash))
            .is_some_and(|chunk| chunk.stored < stored_before);
        old && self.content.chunks.remove(&(part, hash)).is_some()
    }

    /// Keeps a copy for a later rollback.
    pub(crate) fn keep_copy(&mut self) {
        self.copy = Some(self.content.clone());
    }

    /// Does something to the disk; says whether there was anything to do it to.
    pub(crate) fn suffer(&mut self, damage: Damage) -> bool {
        let done = self.damage(damage);
        if done {
            let tip = self.whole_until();
            note!(
                self.trace,
                "broker: disk fault {damage:?}; whole until {}",
                tip.version
            );
            match damage {
                Damage::FlippedChunk | Damage::LostChunk | Damage::LostRoot => {
                    self.truth.lock().chunks_damaged = true;
                }
                Damage::LostTail
                | Damage::Rollback
                | Damage::Recreated
                | Damage::FlippedEvent
                | Damage::FlippedSignature
                | Damage::Hole => self.truth.lock().damage(tip),
            }
        }
        done
    }

    fn damage(&mut self, damage: Damage) -> bool {
        let last = self.content.last;
        match damage {
            Damage::LostTail => {
                let lost = self
                    .dice
                    .between(1, 5)
                    .min(last.saturating_sub(self.content.first));
                self.content
                    .records
                    .retain(|version, _| *version + lost <= last);
                self.content.last = last - lost;
                lost > 0
            }
            Damage::Rollback => match self.copy.take() {
                Some(copy) if copy.last < last => {
                    self.content = copy;
                    true
                }
                Some(_) | None => false,
            },
            Damage::Recreated => {
                self.content = Content {
                    first: 1,
                    ..Content::default()
                };
                last > 0
            }
            Damage::FlippedEvent | Damage::FlippedSignature => {
                self.flip(damage == Damage::FlippedEvent)
            }
            Damage::Hole => {
                let version = self.dice.between(self.content.first + 1, last.max(1));
                version < last && self.content.records.remove(&version).is_some()
            }
            Damage::FlippedChunk | Damage::LostChunk => {
                let keys: Vec<_> = self.content.chunks.keys().copied().collect();
                let Some(key) = self.dice.pick(&keys) else {
                    return false;
                };
                if damage == Damage::LostChunk {
                    return self.content.chunks.remove(key).is_some();
                }
                self.content.chunks.get_mut(key).is_some_and(|chunk| {
                    chunk.damaged = true;
                    true
                })
            }
            Damage::LostRoot => match self.dice.pick(&self.content.root_order).cloned() {
                Some(name) => {
                    self.remove_root(&name);
                    true
                }
                None => false,
            },
        }
    }

    fn flip(&mut self, event: bool) -> bool {
        let version = self
            .dice
            .between(self.content.first, self.content.last.max(1));
        let (at, bit) = (self.dice.index(1 << 16), self.dice.below(8));
        let Some(stored) = self.content.records.get_mut(&version) else {
            return false;
        };
        if event {
            let mut bytes = stored.record.event.to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            stored.record.event = bytes.into();
        } else if let Some(signature) = &mut stored.record.signature {
            signature.bytes[at % 64] ^= 1 << bit;
        }
        true
    }

    /// The last place up to which the log is a history we know.
    fn whole_until(&self) -> Cursor {
        let truth = self.truth.lock();
        let mut cursor = Cursor::default();
        for stored in self.content.records.values() {
            let chain =
                Event::decode(&stored.record.event).map(|event| event.cursor(&stored.record.event));
            match chain {
                Ok(found)
                    if truth
                        .place(found.chain)
                        .is_some_and(|place| place.cursor.version == stored.record.version)
                        && (cursor == Cursor::default()
                            || found.version == cursor.version.next()) =>
                {
                    cursor = found;
                }
                Ok(_) | Err(_) => break,
            }
        }
        cursor
    }

    /// Where a replica is that has read the log to its end; `None` if nobody can, for the last record is no event.
    pub(crate) fn end(&self) -> Option<Cursor> {
        // The last that is there: nothing shows that one at the very end is missing.
        let Some(stored) = self.content.records.values().next_back() else {
            return (self.content.last == 0).then(Cursor::default);
        };
        let event = Event::decode(&stored.record.event).ok()?;
        Some(event.cursor(&stored.record.event))
    }

    /// An event that follows the log's end and that no control plane wrote.
    pub(crate) fn forge(&mut self, by: &SigningKey) -> Option<Record> {
        let record = self.content.records.get(&self.content.last)?.record.clone();
        let last = Event::decode(&record.event).ok()?;
        let cursor = last.cursor(&record.event);
        let mut id = [0; 16];
        self.dice.fill(&mut id);
        let event = Event {
            previous: cursor.version,
            previous_chain: cursor.chain,
            id: sluice_schema::event::EventId(uuid::Uuid::from_bytes(id)),
            mutations: Mutations::Inline(Vec::new()),
            ..last
        };
        let bytes = event.encode().bytes;
        let chain = event.cursor(&bytes).chain;
        let signature = match self.dice.below(3) {
            0 => None,
            1 => record.signature,
            _ => Some(by.sign_event(chain)),
        };
        Some(Record {
            version: event.version(),
            event: bytes.into(),
            signature,
        })
    }
}
