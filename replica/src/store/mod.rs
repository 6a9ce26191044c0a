//! The local store: a copy of the state on disk, and the cursor that says how far it goes.
//!
//! sled 0.34.7, used by the recipe that survived simulated power cuts (docs/decisions/0003): one tree, prefixed keys,
//! one `apply_batch` per change set with entities and cursor together, a checksum in every record, our own fsync of
//! sled's files where durability is claimed, opening under `catch_unwind`, and everything verified on opening. The
//! store can always be rebuilt from the log, so on any doubt it is moved aside.
//!
//! | key | value |
//! |---|---|
//! | `m` | format, checksum, MessagePack of cursor and sum |
//! | `e` kind `\0` workspace `\0` id (16 bytes) | format, checksum (16 bytes of BLAKE3 over key, version, body), version (8, big-endian), body |
//!
//! The bytes are persisted: formats are only added.

mod files;
mod journal;
mod record;

pub use files::Syncer;
pub(crate) use files::open_guarded;

use files::{move_aside, read_witness};
use journal::Journal;
use record::{
    META_KEY, Meta, decode_entry, decode_meta, encode_entry, encode_meta, entity_key,
    parse_entity_key,
};
use sluice_schema::digest::{Accumulator, Digest};
use sluice_schema::entity::{Change, Entry, Key};
use sluice_schema::event::{Event, Mutations};
use sluice_schema::state::ApplyError;
use sluice_schema::version::{Cursor, Version};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or sled said no; what was asked for has not happened.
    #[error("could not {operation} the store")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What is on disk is not what was written.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// An event does not follow what the store holds.
    #[error("the event cannot be applied")]
    Apply(#[source] ApplyError),
}

/// The local store.
#[derive(Debug)]
pub struct Store {
    db: sled::Db,
    directory: PathBuf,
    cursor: Cursor,
    sum: Accumulator,
    entities: u64,
    /// What has been staged since the last save: the entities as they are now.
    staged: BTreeMap<Key, Option<Entry>>,
    /// The cursor as of the last save.
    saved: Cursor,
    /// What has been staged since, for the case that the process is killed.
    journal: Journal,
}

/// A store after opening.
#[derive(Debug)]
pub struct Opened {
    /// The store; empty if it was new or damaged.
    pub store: Store,
    /// Every entity in it, ordered by key.
    pub entities: Vec<(Key, Entry)>,
    /// What was wrong with the one that was found, and where it lies now.
    pub moved_aside: Option<(String, PathBuf)>,
}

impl Store {
    /// Opens the store in `directory` and verifies all of it. A damaged one is moved aside, and an empty one opened.
    ///
    /// # Errors
    /// If the directory cannot be used at all.
    pub fn open(directory: &Path) -> Result<Opened, StoreError> {
        match Self::open_verified(directory) {
            Ok((store, entities)) => Ok(Opened {
                store,
                entities,
                moved_aside: None,
            }),
            Err(StoreError::Damaged(reason)) => {
                let aside = move_aside(directory).map_err(|source| StoreError::Io {
                    operation: "move aside",
                    source,
                })?;
                let (store, entities) = Self::open_verified(directory)?;
                Ok(Opened {
                    store,
                    entities,
                    moved_aside: Some((reason, aside)),
                })
            }
            Err(error @ (StoreError::Io { .. } | StoreError::Apply(_))) => Err(error),
        }
    }

    fn open_verified(directory: &Path) -> Result<(Self, Vec<(Key, Entry)>), StoreError> {
        let witness = read_witness(directory);
        let (db, loaded) = open_guarded(directory, |db| {
            let loaded = load(db)?;
            match witness {
                Some(witness) if loaded.meta.cursor.version < witness.version => {
                    let (found, was) = (loaded.meta.cursor.version, witness.version);
                    Err(StoreError::Damaged(format!(
                        "it holds version {found}, but version {was} has been on disk"
                    )))
                }
                Some(_) | None => Ok(loaded),
            }
        })?;
        let Loaded { meta, entities } = loaded;
        let (journal, applied) = Journal::open(directory).map_err(|source| StoreError::Io {
            operation: "open the journal of",
            source,
        })?;
        let mut store = Self {
            db,
            directory: directory.to_owned(),
            cursor: meta.cursor,
            sum: meta.sum,
            entities: meta.entities,
            staged: BTreeMap::new(),
            saved: meta.cursor,
            journal,
        };
        let entities = store.replay(&applied, entities)?;
        Ok((store, entities))
    }

    /// Applies what the journal holds beyond the last save, and gives back the entities as they are then.
    fn replay(
        &mut self,
        applied: &[journal::Applied],
        entities: Vec<(Key, Entry)>,
    ) -> Result<Vec<(Key, Entry)>, StoreError> {
        for journal::Applied { event, cursor } in applied {
            // Records from before the save, and all after a gap, do not follow.
            if event.previous == self.cursor.version && self.fold([(event, *cursor)]).is_err() {
                break;
            }
        }
        if self.staged.is_empty() {
            return Ok(entities);
        }
        let mut all: BTreeMap<Key, Entry> = entities.into_iter().collect();
        for (key, entry) in &self.staged {
            match entry {
                Some(entry) => all.insert(key.clone(), entry.clone()),
                None => all.remove(key),
            };
        }
        self.save()?;
        Ok(all.into_iter().collect())
    }

    /// What the store holds.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The digest of the entities.
    pub fn digest(&self) -> Digest {
        self.sum.digest()
    }

    /// How many entities there are.
    pub fn len(&self) -> u64 {
        self.entities
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entities == 0
    }

    /// One entity, verified.
    ///
    /// # Errors
    /// If it cannot be read or is damaged.
    pub fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        if let Some(staged) = self.staged.get(key) {
            return Ok(staged.clone());
        }
        let stored = entity_key(key);
        match self
            .db
            .get(&stored)
            .map_err(|error| sled_error("read", error))?
        {
            Some(value) => decode_entry(&stored, &value).map(Some),
            None => Ok(None),
        }
    }

    /// Applies events as one change set and saves it: all of them or none, and the cursor with them. Their mutations must
    /// be inline.
    ///
    /// # Errors
    /// If they do not follow the cursor or lead to another state than their author's; nothing has changed then. If they
    /// cannot be written; they are staged then.
    pub fn apply<'a>(
        &mut self,
        events: impl IntoIterator<Item = (&'a Event, Cursor)>,
    ) -> Result<Vec<Change>, StoreError> {
        let changes = self.stage(events)?;
        self.save()?;
        Ok(changes)
    }

    /// Applies events as [`Store::apply`] does, but leaves the writing to the next [`Store::save`]: sled's cost of a batch
    /// is many times that of the change in it. The journal keeps them until then.
    ///
    /// # Errors
    /// If the events do not follow the cursor or lead to another state than their author's; nothing has changed then.
    pub fn stage<'a>(
        &mut self,
        events: impl IntoIterator<Item = (&'a Event, Cursor)>,
    ) -> Result<Vec<Change>, StoreError> {
        let events: Vec<_> = events.into_iter().collect();
        let changes = self.fold(events.iter().copied())?;
        if let Err(error) = self.journal.append(&events) {
            // The next save makes up for it.
            tracing::warn!(%error, "could not write to the store's journal");
        }
        Ok(changes)
    }

    /// Checks events against the cursor and their digests, and takes them into the staging.
    fn fold<'a>(
        &mut self,
        events: impl IntoIterator<Item = (&'a Event, Cursor)>,
    ) -> Result<Vec<Change>, StoreError> {
        let mut cursor = self.cursor;
        let mut sum = self.sum.clone();
        let mut changes: BTreeMap<Key, Change> = BTreeMap::new();
        for (event, after) in events {
            let version = event.version();
            let fresh = cursor.version == Version::ZERO;
            if event.previous != cursor.version
                || event.previous_chain != cursor.chain
                || !(fresh || event.epoch == cursor.epoch)
            {
                let previous = event.previous;
                return Err(StoreError::Apply(ApplyError::OutOfOrder {
                    previous,
                    at: cursor.version,
                }));
            }
            let Mutations::Inline(mutations) = &event.mutations else {
                return Err(StoreError::Apply(ApplyError::Unresolved(version)));
            };
            for mutation in mutations {
                let key = mutation.key();
                let change = match changes.remove(&key) {
                    Some(change) => change,
                    None => {
                        let before = self.get(&key)?;
                        Change {
                            key: key.clone(),
                            after: before.clone(),
                            before,
                        }
                    }
                };
                if let Some(old) = &change.after {
                    sum.remove(&key, &old.body);
                }
                let after = mutation.body().map(|body| Entry {
                    version,
                    body: body.clone(),
                });
                if let Some(new) = &after {
                    sum.add(&key, &new.body);
                }
                changes.insert(key, Change { after, ..change });
            }
            let found = sum.digest();
            if found != event.digest {
                let expected = event.digest;
                return Err(StoreError::Apply(ApplyError::Diverged {
                    version,
                    expected,
                    found,
                }));
            }
            cursor = after;
        }
        let changes: Vec<Change> = changes.into_values().collect();
        for change in &changes {
            match (&change.before, &change.after) {
                (Some(_), None) => self.entities -= 1,
                (None, Some(_)) => self.entities += 1,
                (None, None) | (Some(_), Some(_)) => {}
            }
            self.staged.insert(change.key.clone(), change.after.clone());
        }
        (self.cursor, self.sum) = (cursor, sum);
        Ok(changes)
    }

    /// Makes the store hold exactly `entities` (ordered by key) at `cursor`, and tells what changed by that.
    ///
    /// # Errors
    /// If the store cannot be read or written.
    pub fn replace(
        &mut self,
        cursor: Cursor,
        entities: impl IntoIterator<Item = (Key, Entry)>,
    ) -> Result<Vec<Change>, StoreError> {
        self.save()?;
        let mut sum = Accumulator::default();
        let mut count = 0;
        let mut changes = Vec::new();
        let mut old = load(&self.db)?.entities.into_iter().peekable();
        for (key, entry) in entities {
            while let Some((gone, before)) = old.next_if(|(old, _)| *old < key) {
                changes.push(Change {
                    key: gone,
                    before: Some(before),
                    after: None,
                });
            }
            sum.add(&key, &entry.body);
            count += 1;
            let before = old
                .next_if(|(old, _)| *old == key)
                .map(|(_, before)| before);
            if before.as_ref() != Some(&entry) {
                changes.push(Change {
                    key,
                    before,
                    after: Some(entry),
                });
            }
        }
        changes.extend(old.map(|(key, before)| Change {
            key,
            before: Some(before),
            after: None,
        }));
        let staged = changes
            .iter()
            .map(|change| (change.key.clone(), change.after.clone()));
        self.staged = staged.collect();
        (self.cursor, self.sum, self.entities) = (cursor, sum, count);
        // What it holds led to the state that is replaced.
        self.journal.clear().map_err(|source| StoreError::Io {
            operation: "clear the journal of",
            source,
        })?;
        self.save()?;
        Ok(changes)
    }

    /// Writes what is staged, and the cursor with it, as one batch. Nothing is lost from the staging if that fails.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&mut self) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for (key, entry) in &self.staged {
            let key = entity_key(key);
            match entry {
                Some(entry) => batch.insert(&*key, encode_entry(&key, entry)),
                None => batch.remove(&*key),
            }
        }
        let meta = Meta {
            cursor: self.cursor,
            sum: self.sum.clone(),
            entities: self.entities,
        };
        batch.insert(META_KEY, encode_meta(&meta));
        self.db
            .apply_batch(batch)
            .map_err(|error| sled_error("write", error))?;
        self.staged.clear();
        self.saved = self.cursor;
        Ok(())
    }

    /// How many entities are staged.
    pub fn staged(&self) -> usize {
        self.staged.len()
    }

    /// Saves, and gives back what makes it survive power loss. Only one sync at a time: the journal of what was staged
    /// before the last one is given up.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin_sync(&mut self) -> Result<Syncer, StoreError> {
        self.save()?;
        self.journal.rotate().map_err(|source| StoreError::Io {
            operation: "rotate the journal of",
            source,
        })?;
        Ok(self.syncer())
    }

    /// What makes everything written so far survive power loss. Can be used from another thread.
    pub fn syncer(&self) -> Syncer {
        Syncer::new(self.db.clone(), &self.directory).with_witness(self.saved)
    }
}

/// While opening, all that is not the disk's refusal is damage.
fn opening_error(operation: &'static str, error: sled::Error) -> StoreError {
    if let sled::Error::Io(source) = error {
        StoreError::Io { operation, source }
    } else {
        StoreError::Damaged(error.to_string())
    }
}

struct Loaded {
    meta: Meta,
    entities: Vec<(Key, Entry)>,
}

/// Reads and verifies everything.
fn load(db: &sled::Db) -> Result<Loaded, StoreError> {
    let mut sum = Accumulator::default();
    let mut entities = Vec::new();
    let mut meta = None;
    for item in db.iter() {
        let (key, value) = item.map_err(|error| opening_error("read", error))?;
        if key.as_ref() == META_KEY {
            meta = Some(decode_meta(&value)?);
            continue;
        }
        let entry = decode_entry(&key, &value)?;
        let key = parse_entity_key(&key)
            .ok_or_else(|| StoreError::Damaged("a key is not an entity's".into()))?;
        sum.add(&key, &entry.body);
        entities.push((key, entry));
    }
    let meta = match meta {
        Some(meta) => meta,
        None if entities.is_empty() => Meta {
            cursor: Cursor::default(),
            sum: Accumulator::default(),
            entities: 0,
        },
        None => return Err(StoreError::Damaged("the cursor is missing".into())),
    };
    if meta.sum != sum || meta.entities != entities.len() as u64 {
        return Err(StoreError::Damaged(
            "the entities are not those of the cursor".into(),
        ));
    }
    Ok(Loaded { meta, entities })
}

fn sled_error(operation: &'static str, error: sled::Error) -> StoreError {
    let source = if let sled::Error::Io(source) = error {
        source
    } else {
        io::Error::other(error)
    };
    StoreError::Io { operation, source }
}

#[cfg(test)]
mod tests;
