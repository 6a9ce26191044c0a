//! The local store: a copy of the state on disk, and the cursor that says how far it goes.
//!
//! sled 0.34.7, used by the recipe that survived simulated power cuts (docs/decisions/0003, 0009): one tree, prefixed
//! keys, one batch per change set with entities and cursor together, a checksum in every record, our own fsync of
//! sled's files where durability is claimed, every panic caught, and everything verified on opening. The store can
//! always be made again from the log, so on any doubt it is moved aside, and the last known good copy beside it is used.
//!
//! | file | content |
//! |---|---|
//! | `db.<number>/` | a database; one is in use, another may be being filled or removed |
//! | `current` | which one is in use, and a cursor with which it has been synced |
//! | `journal.0`, `journal.1` | what was applied since the last sync |
//! | `good/` | the last known good copy: see [`good`] |
//!
//! In a database:
//!
//! | key | value |
//! |---|---|
//! | `m` | format, checksum, MessagePack of cursor and sum |
//! | `e` kind `\0` workspace `\0` id (16 bytes) | format, checksum (16 bytes of BLAKE3 over key, version, body), version (8, big-endian), body |
//!
//! The bytes are persisted: formats are only added.
//!
//! Invariants: what is given back was verified; a crash leaves a state that once was, and with its sum; `current`
//! names nothing that was not synced; an error leaves what is held as it was.

mod current;
pub mod disk;
pub mod good;
mod journal;
mod load;
mod open;
mod record;
mod sync;
mod view;

pub(crate) use disk::open_guarded;
pub use disk::{Database, Disk, FileDisk};
pub use load::LOAD_MEMORY_BYTES_MAX;
pub use open::{Opened, Origin, TakePage};
pub(crate) use record::{seal, unseal};
pub use sync::Syncer;
pub use view::View;

use crate::planted::{Bug, planted};
use current::{Current, Pointer};
use journal::Journal;
use load::Loading;
use record::{META_KEY, Meta, decode_entry, encode_entry, encode_meta, entity_key, stored_bytes};
use sluice_schema::chunk::{self, Tree};
use sluice_schema::digest::{Accumulator, Digest};
use sluice_schema::entity::{Change, Entry, Key};
use sluice_schema::event::{Event, Mutations};
use sluice_schema::state::ApplyError;
use sluice_schema::version::{Cursor, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Weak};
use sync::Witness;
use view::{Entities, Instead, Overlay, Views};

/// The directory of the last known good copy, which is not moved aside with the rest.
pub const GOOD: &str = "good";
/// Staged entities from which on it may be better to write everything into a new database: sled holds what a batch makes superfluous
/// until the batch ends, about 10 KB for each entity. Fewer in debug builds, so that the simulator's small worlds come to it.
const ANEW_COUNT_MIN: usize = if cfg!(debug_assertions) { 64 } else { 1024 };
/// Changed keys after which the tree is not brought up to date but built anew.
const DIRTY_KEYS_MAX: usize = 65_536;

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
    /// What is on disk is not what was written. Opening the store again moves it aside.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// An event does not follow what the store holds, or a state is not the one that was promised.
    #[error("the event cannot be applied")]
    Apply(#[source] ApplyError),
    /// What was given to a load does not make up a state; begin again.
    #[error("the state cannot be taken up: {0}")]
    Load(&'static str),
}

/// The error of a refusal of the disk.
fn io_error(operation: &'static str) -> impl Fn(io::Error) -> StoreError {
    move |source| StoreError::Io { operation, source }
}

/// The local store.
#[derive(Debug)]
pub struct Store {
    disk: Arc<dyn Disk>,
    database: Arc<dyn Database>,
    /// The number in the name of the database.
    number: u64,
    /// That of the next one made.
    next_number: u64,
    pointer: Arc<Pointer>,
    /// The number of the latest sync begun.
    syncs: u64,
    /// The sync that makes the journal file that is not written to superfluous.
    journal_turned: u64,
    held: Held,
    /// What has been staged since the last save: the entities as they are now.
    staged: Overlay,
    /// The cursor as of the last save.
    saved: Cursor,
    /// What has been staged since, for the case that the process is killed.
    journal: Journal,
    tree: Upkeep,
    views: Views,
    loading: Option<Loading>,
    /// Databases that are removed when nobody reads them any more.
    retired: Vec<(u64, Weak<dyn Database>)>,
    good: good::Schedule,
}

/// What a store holds, in a few words.
#[derive(Clone, Debug, Default)]
struct Held {
    cursor: Cursor,
    sum: Accumulator,
    entities: u64,
    /// What the entities take up in the database, about.
    bytes: u64,
}

impl Held {
    /// Takes one form of an entity out and puts another one in.
    fn exchange(&mut self, key: &Key, before: Option<&Entry>, after: Option<&Entry>) {
        if let Some(before) = before {
            self.sum.remove(key, &before.body);
            self.entities = self.entities.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(stored_bytes(key, before));
        }
        if let Some(after) = after {
            self.sum.add(key, &after.body);
            self.entities += 1;
            self.bytes += stored_bytes(key, after);
        }
    }

    fn meta(&self) -> Meta {
        Meta {
            cursor: self.cursor,
            sum: self.sum.clone(),
            entities: self.entities,
        }
    }
}

/// The tree of an earlier state, and what has changed since.
#[derive(Debug, Default)]
struct Upkeep {
    /// None: it is built anew when it is asked for.
    tree: Option<Tree>,
    dirty: BTreeSet<Key>,
}

impl Upkeep {
    fn note(&mut self, changes: &[Change]) {
        if self.tree.is_none() {
            return;
        }
        self.dirty
            .extend(changes.iter().map(|change| change.key.clone()));
        if self.dirty.len() > DIRTY_KEYS_MAX {
            self.replace(None);
        }
    }

    fn replace(&mut self, tree: Option<Tree>) {
        self.tree = tree;
        self.dirty.clear();
    }

    /// The tree, if it is that of what is held now.
    fn take_up_to_date(&mut self) -> Option<Tree> {
        self.tree.take_if(|_| self.dirty.is_empty())
    }
}

impl Store {
    /// What the store holds.
    pub fn cursor(&self) -> Cursor {
        self.held.cursor
    }

    /// The version that has been synced to disk, as far as is known.
    pub fn durable(&self) -> Version {
        let witness = self.pointer.witness();
        match witness.epoch == self.held.cursor.epoch {
            true => witness.version,
            false => Version::ZERO,
        }
    }

    /// The digest of the entities.
    pub fn digest(&self) -> Digest {
        self.held.sum.digest()
    }

    /// The sum behind the digest.
    pub fn sum(&self) -> &Accumulator {
        &self.held.sum
    }

    /// How many entities there are.
    pub fn len(&self) -> u64 {
        self.held.entities
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.held.entities == 0
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
        match self.database.get(&stored)? {
            Some(value) => decode_entry(&stored, &value).map(Some),
            None => Ok(None),
        }
    }

    /// Gives every entity, ordered by key and each verified, to `take`, reading page by page.
    ///
    /// # Errors
    /// If not all can be read; what `take` made of the rest is not given back then.
    pub fn read_all<T>(
        &self,
        take: impl FnOnce(&mut dyn Iterator<Item = (Key, Entry)>) -> T,
    ) -> Result<T, StoreError> {
        let mut failed = None;
        let mut entities = chunk::Entities::entities_from(self, None)
            .map_while(|entity| entity.map_err(|error| failed = Some(error)).ok());
        let taken = take(&mut entities);
        drop(entities);
        match failed {
            Some(error) => Err(error),
            None => Ok(taken),
        }
    }

    /// The tree of what is held. Costs as much as what changed since it was last asked for; the first time, and after very
    /// many changes, everything is read.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn tree(&mut self) -> Result<&Tree, StoreError> {
        let before = std::mem::take(&mut self.tree);
        let tree = match before.tree {
            Some(tree) if before.dirty.is_empty() => tree,
            Some(tree) => tree.update(self, &before.dirty, &mut |_, _| {})?,
            None => Tree::build(self, &mut |_, _| {})?,
        };
        Ok(self.tree.tree.insert(tree))
    }

    /// What is held now, to be read while it changes.
    pub fn view(&mut self) -> View {
        let Held {
            cursor,
            sum,
            entities,
            ..
        } = self.held.clone();
        self.views
            .open(self.database.clone(), &self.staged, (cursor, sum, entities))
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
        if !planted(Bug::JournalSkipped)
            && let Err(error) = self.journal.append(&events)
        {
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
        let mut held = self.held.clone();
        let mut changes: BTreeMap<Key, Change> = BTreeMap::new();
        for (event, after) in events {
            let mutations = follows(held.cursor, event)?;
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
                let after = mutation.body().map(|body| Entry {
                    version: event.version(),
                    body: body.clone(),
                });
                held.exchange(&key, change.after.as_ref(), after.as_ref());
                changes.insert(key, Change { after, ..change });
            }
            let (found, expected) = (held.sum.digest(), event.digest);
            if found != expected && !planted(Bug::GapApplied) {
                return Err(StoreError::Apply(ApplyError::Diverged {
                    version: event.version(),
                    expected,
                    found,
                }));
            }
            held.cursor = after;
        }
        let changes: Vec<Change> = changes.into_values().collect();
        // A load began with what changes now.
        self.abandon();
        self.views.keep(changes.iter());
        self.tree.note(&changes);
        self.good.note(changes.len());
        for change in &changes {
            self.staged.insert(change.key.clone(), change.after.clone());
        }
        self.held = held;
        Ok(changes)
    }

    /// Writes what is staged, and the cursor with it: as one batch, or into a new database if that is most of what is held. Nothing
    /// is lost from the staging if that fails.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&mut self) -> Result<(), StoreError> {
        self.remove_retired();
        if self.staged.is_empty() && self.saved == self.held.cursor {
            return Ok(());
        }
        match self.is_mostly_staged() && self.loading.is_none() {
            true => self.write_anew()?,
            false => self.write(&self.held, &self.staged)?,
        }
        self.staged.clear();
        self.saved = self.held.cursor;
        Ok(())
    }

    /// Whether a batch of what is staged would be larger than a new database is.
    fn is_mostly_staged(&self) -> bool {
        let staged = self.staged.len();
        staged >= ANEW_COUNT_MIN && staged as u64 >= self.held.entities / 2
    }

    /// Writes changes, and what is held after them.
    fn write(&self, held: &Held, changes: &Overlay) -> Result<(), StoreError> {
        let changes = changes.iter().map(|(key, entry)| {
            let key = entity_key(key);
            let value = entry.as_ref().map(|entry| encode_entry(&key, entry));
            (key, value)
        });
        let meta = (META_KEY.to_vec(), Some(encode_meta(&held.meta())));
        self.database.apply(changes.chain([meta]).collect())
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
        // If the sync before has failed, its journal is still needed.
        let turn = self.pointer.has_synced(self.journal_turned);
        if turn {
            self.journal
                .turn()
                .map_err(io_error("turn the journal of"))?;
        }
        let syncer = self.syncer();
        if turn {
            self.journal_turned = self.syncs;
        }
        Ok(syncer)
    }

    /// What makes everything saved so far survive power loss. Can be used from another thread.
    pub fn syncer(&mut self) -> Syncer {
        let witness = Witness {
            number: self.next_sync(),
            pointer: self.pointer.clone(),
            current: Current {
                database: self.number,
                witness: self.saved,
            },
        };
        Syncer::with_witness(self.database.clone(), witness)
    }

    fn next_sync(&mut self) -> u64 {
        self.syncs += 1;
        self.syncs
    }
}

/// The mutations of an event, if it follows a cursor.
fn follows(cursor: Cursor, event: &Event) -> Result<&[sluice_schema::event::Mutation], StoreError> {
    if !event.follows(&cursor) && !planted(Bug::GapApplied) && !planted(Bug::ChainUnchecked) {
        return Err(StoreError::Apply(ApplyError::OutOfOrder {
            previous: event.previous,
            at: cursor.version,
        }));
    }
    match &event.mutations {
        Mutations::Inline(mutations) => Ok(mutations),
        Mutations::Stored(_) => Err(StoreError::Apply(ApplyError::Unresolved(event.version()))),
    }
}

impl chunk::Entities for Store {
    type Error = StoreError;

    fn entities_from(
        &self,
        from: Option<&Key>,
    ) -> impl Iterator<Item = Result<(Key, Entry), StoreError>> {
        Entities::new(&*self.database, Instead::Own(&self.staged), from)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.abandon();
    }
}

#[cfg(test)]
mod tests;
