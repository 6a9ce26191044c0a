//! Taking up another state as a whole: a snapshot, or the same state in a new database.
//!
//! What differs is given range by range. If that is little, it is kept in memory and written as one batch. If it is
//! much, a new database is filled beside the one in use: memory stays flat, and the database in use is touched only
//! when the new one is complete and on disk. A crash leaves the state before or the state after.

use super::current::{self, Current};
use super::disk::{Database, Write};
use super::record::{META_KEY, encode_entry, encode_meta, entity_key, stored_bytes, unseal};
use super::view::{Entities, Instead, Overlay, PAGE_RECORDS_MAX, after};
use super::{Held, Store, StoreError, io_error};
use crate::planted::{Bug, planted};
use sluice_schema::chunk::Tree;
use sluice_schema::digest::{Accumulator, Digest};
use sluice_schema::entity::{Change, Entry, Key};
use sluice_schema::state::ApplyError;
use sluice_schema::version::Cursor;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of changed entities that are kept in memory at most.
pub const LOAD_MEMORY_BYTES_MAX: u64 = 8 << 20;
/// Bytes written to a new database as one batch, about.
const BATCH_BYTES: usize = 1 << 20;
/// Bytes on disk below which a database is not written anew.
const COMPACT_BYTES_MIN: u64 = 64 << 20;
/// How many times the bytes it holds a database may take up on disk.
const COMPACT_RATIO: u64 = 10;

/// A state that is being taken up.
#[derive(Debug)]
pub(super) struct Loading {
    /// What is held once all that was given so far is taken up.
    held: Held,
    covered: Covered,
    into: Into,
}

/// How far ranges have been given.
#[derive(Debug)]
enum Covered {
    Nothing,
    /// All keys below.
    Below(Key),
    All,
}

#[derive(Debug)]
enum Into {
    Memory { changes: Overlay, bytes: u64 },
    Database(Filling),
}

/// A database that is being filled beside the one in use.
#[derive(Debug)]
struct Filling {
    number: u64,
    database: Arc<dyn Database>,
    batch: Vec<Write>,
    batch_bytes: usize,
    /// It may have been named as the one in use: it must stay, even if the disk said that it could not be.
    named: bool,
}

impl Store {
    /// Begins to take up the state at `target`, which is not older than what is held. `differing_bytes` says how large the
    /// entities are that will be given, about. Until [`Store::commit`] nothing changes; staging events gives the load up.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn begin(&mut self, target: Cursor, differing_bytes: u64) -> Result<(), StoreError> {
        self.abandon();
        self.save()?;
        let into = if differing_bytes > LOAD_MEMORY_BYTES_MAX {
            Into::Database(self.new_filling()?)
        } else {
            Into::Memory {
                changes: BTreeMap::new(),
                bytes: 0,
            }
        };
        let held = Held {
            cursor: target,
            ..self.held.clone()
        };
        self.loading = Some(Loading {
            held,
            covered: Covered::Nothing,
            into,
        });
        Ok(())
    }

    /// Says what the new state has with keys from `range_from` on (from the lowest, if `None`) and below `range_to` (to the
    /// highest, if `None`), in order of the keys. Ranges come in order and do not overlap; what lies in none of them stays.
    /// Gives back what that changes.
    ///
    /// # Errors
    /// [`StoreError::Load`] if nothing was begun, or the range or the entities are out of order. If the store cannot be read or
    /// written. The load is given up then.
    pub fn take_range(
        &mut self,
        range_from: Option<&Key>,
        range_to: Option<&Key>,
        entities: Vec<(Key, Entry)>,
    ) -> Result<Vec<Change>, StoreError> {
        let mut loading = self
            .loading
            .take()
            .ok_or(StoreError::Load("no load is under way"))?;
        let taken = self.take_into(&mut loading, (range_from, range_to), entities);
        match taken {
            Ok(_) => self.loading = Some(loading),
            Err(_) => self.give_up(loading),
        }
        taken
    }

    fn take_into(
        &mut self,
        loading: &mut Loading,
        (from, to): (Option<&Key>, Option<&Key>),
        entities: Vec<(Key, Entry)>,
    ) -> Result<Vec<Change>, StoreError> {
        check_range(&loading.covered, (from, to), &entities)?;
        if let Into::Database(filling) = &mut loading.into {
            if let Some(from) = from {
                let covered = loading.covered.end();
                filling.copy(&*self.database, &covered, &entity_key(from))?;
            }
            for (key, entry) in &entities {
                filling.put(key, entry)?;
            }
        }
        let old = Entities::new(&*self.database, Instead::Nothing, from);
        let mut changes = differences(old, to, entities)?;
        if planted(Bug::LoadKeepsDeleted) {
            changes.retain(|change| change.after.is_some());
        }
        for change in &changes {
            loading
                .held
                .exchange(&change.key, change.before.as_ref(), change.after.as_ref());
        }
        loading.covered = to.map_or(Covered::All, |to| Covered::Below(to.clone()));
        if let Into::Memory {
            changes: kept,
            bytes,
        } = &mut loading.into
        {
            for change in &changes {
                *bytes += change
                    .after
                    .as_ref()
                    .map_or(0, |entry| stored_bytes(&change.key, entry));
                kept.insert(change.key.clone(), change.after.clone());
            }
            if *bytes > LOAD_MEMORY_BYTES_MAX {
                let kept = std::mem::take(kept);
                loading.into = Into::Database(self.spill(&loading.covered, &kept)?);
            }
        }
        Ok(changes)
    }

    /// Goes on in a new database because more changes than was said.
    fn spill(&mut self, covered: &Covered, changes: &Overlay) -> Result<Filling, StoreError> {
        let mut filling = self.new_filling()?;
        for entity in Entities::new(&*self.database, Instead::Own(changes), None) {
            let (key, entry) = entity?;
            let ends = match covered {
                Covered::Nothing => true,
                Covered::Below(end) => key >= *end,
                Covered::All => false,
            };
            if ends {
                break;
            }
            filling.put(&key, &entry)?;
        }
        Ok(filling)
    }

    /// Writes what is held, with what is staged, into a new database, and goes over to it. Memory stays flat.
    pub(super) fn write_anew(&mut self) -> Result<(), StoreError> {
        let staged = std::mem::take(&mut self.staged);
        let filling = self.spill(&Covered::All, &staged);
        self.staged = staged;
        let mut filling = filling?;
        let switched = self.switch_to(&mut filling, self.held.clone(), META_KEY);
        if switched.is_err() && !filling.named {
            self.retire(filling.number, filling.database);
        }
        switched
    }

    fn new_filling(&mut self) -> Result<Filling, StoreError> {
        let number = self.next_number;
        self.next_number += 1;
        Ok(Filling {
            number,
            database: self.disk.open_database(&current::name(number))?,
            batch: Vec::new(),
            batch_bytes: 0,
            named: false,
        })
    }

    /// Makes the state that was given the one that is held, durably, if it has the digest `expected`. `tree` is its tree.
    ///
    /// # Errors
    /// [`ApplyError::Diverged`] if it has another digest, [`StoreError::Load`] if nothing was begun, or if the store cannot be read or
    /// written. Nothing has changed then, and the load is given up.
    pub fn commit(&mut self, expected: Digest, tree: Tree) -> Result<(), StoreError> {
        self.finish(expected, Some(tree))
    }

    pub(super) fn finish(
        &mut self,
        expected: Digest,
        tree: Option<Tree>,
    ) -> Result<(), StoreError> {
        let mut loading = self
            .loading
            .take()
            .ok_or(StoreError::Load("no load is under way"))?;
        let found = loading.held.sum.digest();
        let unchecked =
            planted(Bug::LoadKeepsDeleted) || (planted(Bug::GoodUnverified) && tree.is_none());
        if found != expected && !unchecked {
            let version = loading.held.cursor.version;
            self.give_up(loading);
            return Err(StoreError::Apply(ApplyError::Diverged {
                version,
                expected,
                found,
            }));
        }
        let finished = match &mut loading.into {
            Into::Memory { changes, .. } => {
                let changes = std::mem::take(changes);
                self.write_at_once(loading.held.clone(), &changes)
            }
            Into::Database(filling) => {
                let covered = loading.covered.end();
                self.switch_to(filling, loading.held.clone(), &covered)
            }
        };
        if let Err(error) = finished {
            self.give_up(loading);
            return Err(error);
        }
        self.tree.replace(tree);
        self.good.note_load();
        // The records in it led to the state that is gone.
        if self.pointer.has_synced(self.syncs)
            && let Err(error) = self.journal.clear()
        {
            tracing::warn!(%error, "could not clear the store's journal");
        }
        Ok(())
    }

    /// Writes the changes of a load as one batch.
    fn write_at_once(&mut self, held: Held, changes: &Overlay) -> Result<(), StoreError> {
        // Read again, so that a load need not keep it all the while.
        if self.views.any() {
            for (key, after) in changes {
                let change = Change {
                    key: key.clone(),
                    before: self.get(key)?,
                    after: after.clone(),
                };
                self.views.keep([&change].into_iter());
            }
        }
        self.write(&held, changes)?;
        (self.saved, self.held) = (held.cursor, held);
        if let Err(error) = self.syncer().sync() {
            // It is taken up all the same; the next sync makes up for it, and says so if it fails.
            tracing::warn!(%error, "could not sync a state that was taken up");
        }
        Ok(())
    }

    /// Completes the new database, and goes over to it.
    fn switch_to(
        &mut self,
        filling: &mut Filling,
        held: Held,
        covered: &[u8],
    ) -> Result<(), StoreError> {
        filling.copy(&*self.database, covered, META_KEY)?;
        filling
            .batch
            .push((META_KEY.to_vec(), Some(encode_meta(&held.meta()))));
        filling.write()?;
        filling.database.sync()?;
        let sync = self.next_sync();
        let current = Current {
            database: filling.number,
            witness: held.cursor,
        };
        filling.named = true;
        self.pointer
            .switch(sync, current)
            .map_err(io_error("switch the databases of"))?;
        let old = std::mem::replace(&mut self.database, filling.database.clone());
        let old_number = std::mem::replace(&mut self.number, filling.number);
        (self.saved, self.held) = (held.cursor, held);
        self.views.forget();
        self.retire(old_number, old);
        Ok(())
    }

    /// Gives up what was begun and not committed.
    pub fn abandon(&mut self) {
        if let Some(loading) = self.loading.take() {
            self.give_up(loading);
        }
    }

    fn give_up(&mut self, loading: Loading) {
        match loading.into {
            Into::Memory { .. } => {}
            Into::Database(filling) if filling.named => {}
            Into::Database(filling) => self.retire(filling.number, filling.database),
        }
    }

    /// Removes a database, once nobody reads it any more.
    fn retire(&mut self, number: u64, database: Arc<dyn Database>) {
        self.retired.push((number, Arc::downgrade(&database)));
        drop(database);
        self.remove_retired();
    }

    /// Removes databases that were in use and are not read any more. What cannot be removed is when the store is opened.
    pub(super) fn remove_retired(&mut self) {
        let disk = &self.disk;
        self.retired.retain(|(number, database)| {
            if database.strong_count() > 0 {
                return true;
            }
            match disk.remove_database(&current::name(*number)) {
                Ok(()) => false,
                Err(error) => {
                    tracing::warn!(%error, "could not remove a database that is not used any more");
                    false
                }
            }
        });
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
        self.begin(cursor, 0)?;
        let mut changes = Vec::new();
        let mut sum = Accumulator::default();
        let mut entities = entities.into_iter().peekable();
        let mut from = None;
        loop {
            let range: Vec<_> = entities.by_ref().take(PAGE_RECORDS_MAX).collect();
            for (key, entry) in &range {
                sum.add(key, &entry.body);
            }
            let to = entities.peek().map(|(key, _)| key.clone());
            changes.extend(self.take_range(from.as_ref(), to.as_ref(), range)?);
            from = to;
            if from.is_none() {
                break;
            }
        }
        self.finish(sum.digest(), None)?;
        Ok(changes)
    }

    /// Writes the database anew if it takes up many times what it holds: sled's never shrinks. Takes as long as a load of
    /// everything.
    ///
    /// # Errors
    /// If the store cannot be read or written; what is held stays as it is.
    pub fn compact_if_worth(&mut self) -> Result<bool, StoreError> {
        let on_disk = self.database.bytes_on_disk();
        let worth = on_disk > COMPACT_BYTES_MIN
            && on_disk > self.held.bytes.saturating_mul(COMPACT_RATIO)
            && self.loading.is_none();
        if worth {
            self.begin(self.held.cursor, u64::MAX)?;
            let (sum, tree) = (self.held.sum.clone(), self.tree.take_up_to_date());
            self.finish(sum.digest(), tree)?;
        }
        Ok(worth)
    }
}

impl Covered {
    /// Where in the database goes on what has not been given.
    fn end(&self) -> Vec<u8> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Below(key) => entity_key(key),
            Self::All => META_KEY.to_vec(),
        }
    }
}

fn check_range(
    covered: &Covered,
    (from, to): (Option<&Key>, Option<&Key>),
    entities: &[(Key, Entry)],
) -> Result<(), StoreError> {
    let follows = match (covered, from) {
        (Covered::Nothing, _) => true,
        (Covered::Below(end), Some(from)) => end <= from,
        (Covered::Below(_), None) | (Covered::All, _) => false,
    };
    let ordered = entities.is_sorted_by(|(one, _), (next, _)| one < next);
    let within = entities
        .iter()
        .all(|(key, _)| from.is_none_or(|from| from <= key) && to.is_none_or(|to| key < to));
    let forward = from.zip(to).is_none_or(|(from, to)| from <= to);
    match follows && forward {
        true if ordered && within => Ok(()),
        true => Err(StoreError::Load(
            "entities are not in order, or not in their range",
        )),
        false => Err(StoreError::Load(
            "a range does not come after the one before",
        )),
    }
}

/// What makes `old`, up to `to`, what `new` is.
fn differences(
    old: impl Iterator<Item = Result<(Key, Entry), StoreError>>,
    to: Option<&Key>,
    new: Vec<(Key, Entry)>,
) -> Result<Vec<Change>, StoreError> {
    let mut changes = Vec::new();
    let mut new = new.into_iter().peekable();
    let added = |(key, entry)| Change {
        key,
        before: None,
        after: Some(entry),
    };
    for entity in old {
        let (key, before) = entity?;
        if to.is_some_and(|to| key >= *to) {
            break;
        }
        while let Some(entity) = new.next_if(|(new, _)| *new < key) {
            changes.push(added(entity));
        }
        let after = new.next_if(|(new, _)| *new == key).map(|(_, after)| after);
        if after.as_ref() != Some(&before) {
            changes.push(Change {
                key,
                before: Some(before),
                after,
            });
        }
    }
    changes.extend(new.map(added));
    Ok(changes)
}

impl Filling {
    fn put(&mut self, key: &Key, entry: &Entry) -> Result<(), StoreError> {
        let key = entity_key(key);
        let value = encode_entry(&key, entry);
        self.push(key, value)
    }

    /// Copies the entities of `old` whose keys there are at or above `from` and below `to`, as they are.
    fn copy(&mut self, old: &dyn Database, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        let mut next = from.to_vec();
        while next.as_slice() < to {
            let page = old.scan(&next, PAGE_RECORDS_MAX)?;
            let is_last = page.len() < PAGE_RECORDS_MAX;
            for (key, value) in page {
                if key.as_slice() >= to {
                    return Ok(());
                }
                unseal(&key, &value)?;
                next.clone_from(&key);
                self.push(key, value)?;
            }
            if is_last {
                return Ok(());
            }
            next = after(next);
        }
        Ok(())
    }

    fn push(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), StoreError> {
        self.batch_bytes += key.len() + value.len();
        self.batch.push((key, Some(value)));
        if self.batch_bytes >= BATCH_BYTES {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), StoreError> {
        self.batch_bytes = 0;
        self.database.apply(std::mem::take(&mut self.batch))
    }
}
