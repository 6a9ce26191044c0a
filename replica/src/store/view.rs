//! Reading entities in order, page by page: what a store holds now, or what it held when a view was made.
//!
//! A view reads the database like everybody else, and the values that changed since from a list beside it: what is
//! about to change is put on that list first, and a reader looks at the list after the database. So what the reader
//! finds is right, whichever of the two came in between.

use super::StoreError;
use super::disk::Database;
use super::record::{ENTITY_PREFIX, decode_record, entity_key};
use sluice_schema::chunk;
use sluice_schema::digest::{Accumulator, Digest};
use sluice_schema::entity::{Change, Entry, Key};
use sluice_schema::version::Cursor;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::vec;

/// Records in the first page that is read; doubled with each until there are [`PAGE_RECORDS_MAX`]: some read only a few.
const PAGE_RECORDS_FIRST: usize = 64;
pub(super) const PAGE_RECORDS_MAX: usize = 1024;

/// Values that are to be taken in place of those in the database; `None`: there is no such entity.
pub(super) type Overlay = BTreeMap<Key, Option<Entry>>;

/// What a store held when this was made, however it changes meanwhile. Can be read from another thread. Costs memory for
/// every entity that changes while it lives.
#[derive(Clone, Debug)]
pub struct View {
    database: Arc<dyn Database>,
    overlay: Arc<Mutex<Overlay>>,
    cursor: Cursor,
    sum: Accumulator,
    entities: u64,
}

impl View {
    /// What it holds.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The digest of the entities.
    pub fn digest(&self) -> Digest {
        self.sum.digest()
    }

    /// The sum behind the digest.
    pub fn sum(&self) -> &Accumulator {
        &self.sum
    }

    /// How many entities there are.
    pub fn len(&self) -> u64 {
        self.entities
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entities == 0
    }
}

impl chunk::Entities for View {
    type Error = StoreError;

    fn entities_from(
        &self,
        from: Option<&Key>,
    ) -> impl Iterator<Item = Result<(Key, Entry), StoreError>> {
        Entities::new(&*self.database, Instead::Shared(&self.overlay), from)
    }
}

/// The views that live, so that they are told before something changes.
#[derive(Debug, Default)]
pub(super) struct Views(Vec<Weak<Mutex<Overlay>>>);

impl Views {
    /// A view of what `database` and `staged` hold together.
    pub(super) fn open(
        &mut self,
        database: Arc<dyn Database>,
        staged: &Overlay,
        (cursor, sum, entities): (Cursor, Accumulator, u64),
    ) -> View {
        let overlay = Arc::new(Mutex::new(staged.clone()));
        self.0.push(Arc::downgrade(&overlay));
        View {
            database,
            overlay,
            cursor,
            sum,
            entities,
        }
    }

    /// Whether there are any.
    pub(super) fn any(&self) -> bool {
        self.0.iter().any(|view| view.strong_count() > 0)
    }

    /// Keeps what is about to change.
    pub(super) fn keep<'a>(&mut self, changes: impl Iterator<Item = &'a Change> + Clone) {
        self.0.retain(|view| match view.upgrade() {
            Some(overlay) => {
                let mut overlay = overlay.lock().unwrap_or_else(PoisonError::into_inner);
                for change in changes.clone() {
                    if !overlay.contains_key(&change.key) {
                        overlay.insert(change.key.clone(), change.before.clone());
                    }
                }
                true
            }
            None => false,
        });
    }

    /// Lets them go: what they read does not change any more.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

/// Where values are found that are to be taken in place of those in the database.
pub(super) enum Instead<'a> {
    Nothing,
    Own(&'a Overlay),
    Shared(&'a Mutex<Overlay>),
}

impl Instead<'_> {
    /// The page as it is with the values that lie within its bounds.
    fn merge(
        &self,
        page: Vec<(Key, Entry)>,
        bounds: (Bound<&Key>, Bound<&Key>),
    ) -> Vec<(Key, Entry)> {
        match self {
            Self::Nothing => page,
            Self::Own(overlay) => merge(page, overlay, bounds),
            Self::Shared(overlay) => {
                let overlay = overlay.lock().unwrap_or_else(PoisonError::into_inner);
                merge(page, &overlay, bounds)
            }
        }
    }
}

fn merge(
    page: Vec<(Key, Entry)>,
    overlay: &Overlay,
    bounds: (Bound<&Key>, Bound<&Key>),
) -> Vec<(Key, Entry)> {
    let mut instead = overlay.range::<Key, _>(bounds).peekable();
    if instead.peek().is_none() {
        return page;
    }
    let mut merged = Vec::with_capacity(page.len());
    let present = |(key, entry): (&Key, &Option<Entry>)| Some((key.clone(), entry.clone()?));
    for (key, entry) in page {
        while let Some(before) = instead.next_if(|(other, _)| **other < key) {
            merged.extend(present(before));
        }
        match instead.next_if(|(other, _)| **other == key) {
            Some(same) => merged.extend(present(same)),
            None => merged.push((key, entry)),
        }
    }
    merged.extend(instead.filter_map(present));
    merged
}

/// The entities of a database in order, each verified.
pub(super) struct Entities<'a> {
    database: &'a dyn Database,
    instead: Instead<'a>,
    /// Where the next page begins; `None` after the last.
    next: Option<Bound<Key>>,
    limit: usize,
    page: vec::IntoIter<(Key, Entry)>,
}

impl<'a> Entities<'a> {
    pub(super) fn new(
        database: &'a dyn Database,
        instead: Instead<'a>,
        from: Option<&Key>,
    ) -> Self {
        Self {
            database,
            instead,
            next: Some(from.map_or(Bound::Unbounded, |from| Bound::Included(from.clone()))),
            limit: PAGE_RECORDS_FIRST,
            page: Vec::new().into_iter(),
        }
    }

    fn read(&mut self, from: &Bound<Key>) -> Result<(), StoreError> {
        let stored = match from {
            Bound::Unbounded => vec![ENTITY_PREFIX],
            Bound::Included(key) => entity_key(key),
            Bound::Excluded(key) => after(entity_key(key)),
        };
        let page = read_page(self.database, &stored, self.limit)?;
        let last = page.entities.last().map(|(key, _)| key.clone());
        let to = match (&last, page.is_last) {
            (Some(last), false) => Bound::Included(last),
            (Some(_) | None, _) => Bound::Unbounded,
        };
        self.page = self
            .instead
            .merge(page.entities, (from.as_ref(), to))
            .into_iter();
        self.next = last.filter(|_| !page.is_last).map(Bound::Excluded);
        self.limit = (self.limit * 2).min(PAGE_RECORDS_MAX);
        Ok(())
    }
}

impl Iterator for Entities<'_> {
    type Item = Result<(Key, Entry), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entity) = self.page.next() {
                return Some(Ok(entity));
            }
            let from = self.next.take()?;
            if let Err(error) = self.read(&from) {
                return Some(Err(error));
            }
        }
    }
}

/// The first key of the database that can come after this one.
pub(super) fn after(mut stored: Vec<u8>) -> Vec<u8> {
    stored.push(0);
    stored
}

pub(super) struct Page {
    pub(super) entities: Vec<(Key, Entry)>,
    /// Whether no entities come after these.
    pub(super) is_last: bool,
}

/// Up to `limit` entities whose keys in the database are at or above `from`.
pub(super) fn read_page(
    database: &dyn Database,
    from: &[u8],
    limit: usize,
) -> Result<Page, StoreError> {
    let records = database.scan(from, limit)?;
    let mut is_last = records.len() < limit;
    let mut entities = Vec::with_capacity(records.len());
    for (stored, value) in records {
        if stored.first() != Some(&ENTITY_PREFIX) {
            is_last = true;
            break;
        }
        entities.push(decode_record(&stored, &value)?);
    }
    Ok(Page { entities, is_last })
}
