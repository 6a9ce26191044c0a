//! Opening a store: the database and the journal if all of it is right, else the last known good copy, else nothing.

use super::current::{self, Current, Pointer};
use super::disk::{Database, Disk, FileDisk};
use super::good::{self, Manifest};
use super::journal::Journal;
use super::record::{META_KEY, Meta, decode_meta, decode_record, stored_bytes};
use super::view::{PAGE_RECORDS_MAX, Views, after};
use super::{Held, Store, StoreError, Upkeep, io_error};
use sluice_schema::digest::Accumulator;
use sluice_schema::entity::{Entry, Key};
use sluice_schema::version::{Cursor, Version};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

/// Pages that may be read before they are summed up.
const PAGES_AHEAD_MAX: usize = 4;

/// A store after opening.
#[derive(Debug)]
pub struct Opened {
    /// The store; all in it was verified.
    pub store: Store,
    /// Where that comes from.
    pub source: Origin,
    /// What was wrong with the database that was found, and where it lies now.
    pub moved_aside: Option<(String, PathBuf)>,
    /// What was wrong with last known good copies that were found.
    pub unusable: Vec<String>,
    /// Whether what was handed over while opening is all that the store holds. If not, it must be read again.
    pub handed_over: bool,
}

/// Takes the entities of a store, in order of their keys, a page at a time.
pub type TakePage<'a> = dyn FnMut(Vec<(Key, Entry)>) + Send + 'a;

/// Where a store's content comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The database, and the journal.
    Database,
    /// The last known good copy: the database was damaged or lost.
    LastKnownGood {
        /// How many versions it is behind what has been on disk, if that is known and in the same epoch.
        behind: Option<u64>,
    },
    /// Nothing: a new store, or one of which nothing could be saved.
    Empty,
}

impl Opened {
    /// What the operator should know about what was found; `None` if all was right.
    pub fn warning(&self) -> Option<String> {
        let fell_back = matches!(self.source, Origin::LastKnownGood { .. });
        if self.moved_aside.is_none() && self.unusable.is_empty() && !fell_back {
            return None;
        }
        let mut text = match &self.moved_aside {
            Some((reason, aside)) => format!(
                "the local store was damaged and lies in '{}' now ({reason})",
                aside.display()
            ),
            None => "the local store was gone".into(),
        };
        for reason in &self.unusable {
            let _ = write!(text, "; a last known good copy cannot be used ({reason})");
        }
        let version = self.store.cursor().version;
        let _ = match self.source {
            Origin::LastKnownGood {
                behind: Some(behind),
            } => write!(
                text,
                "; the last known good copy is served, version {version}, {behind} versions older than what was lost, until the log brings the rest"
            ),
            Origin::LastKnownGood { behind: None } => write!(
                text,
                "; the last known good copy is served, version {version}, until the log brings the rest"
            ),
            Origin::Database | Origin::Empty => {
                write!(text, "; it is rebuilt from the log")
            }
        };
        Some(text)
    }

    /// Logs the [`Opened::warning`], if there is one.
    pub fn warn(&self) {
        if let Some(warning) = self.warning() {
            tracing::warn!("{warning}");
        }
    }
}

impl Store {
    /// Opens the store in `directory`: [`Store::open_on`] a [`FileDisk`].
    ///
    /// # Errors
    /// If the directory cannot be used at all.
    pub fn open(directory: &Path) -> Result<Opened, StoreError> {
        Self::open_on(Arc::new(FileDisk::new(directory)))
    }

    /// The same, and hands over the entities while they are verified, which spares whoever needs them all a second reading.
    /// What was handed over counts only if [`Opened::handed_over`] says so.
    ///
    /// # Errors
    /// If the directory cannot be used at all.
    pub fn open_into(directory: &Path, take: &mut TakePage<'_>) -> Result<Opened, StoreError> {
        open_disk(Arc::new(FileDisk::new(directory)), take)
    }

    /// Opens a store and verifies all of it. A damaged one is moved aside, and filled again from the last known good copy; if
    /// there is none that is whole, the store is empty.
    ///
    /// # Errors
    /// If the disk cannot be used at all.
    pub fn open_on(disk: Arc<dyn Disk>) -> Result<Opened, StoreError> {
        open_disk(disk, &mut |_| ())
    }

    fn new(
        disk: Arc<dyn Disk>,
        database: Arc<dyn Database>,
        current: Current,
        held: Held,
        next_number: u64,
    ) -> Self {
        Self {
            database,
            number: current.database,
            next_number: next_number.max(current.database + 1),
            pointer: Arc::new(Pointer::new(disk.clone(), current)),
            syncs: 0,
            journal_turned: 0,
            saved: held.cursor,
            held,
            staged: super::Overlay::new(),
            journal: Journal::new(disk.clone()),
            tree: Upkeep::default(),
            views: Views::default(),
            loading: None,
            retired: Vec::new(),
            good: good::Schedule::new(good::newest(&*disk)),
            disk,
        }
    }

    /// Applies what the journal holds beyond the last save, and makes it durable.
    fn replay(&mut self) -> Result<(), StoreError> {
        let applied = self
            .journal
            .read()
            .map_err(io_error("read the journal of"))?;
        for record in applied {
            match self.fold([(&record.event, record.cursor)]) {
                // Records from before the save, and all after a gap, do not follow.
                Ok(_) | Err(StoreError::Apply(_)) => {}
                Err(error) => return Err(error),
            }
        }
        if self.held.cursor != self.saved {
            self.save()?;
            self.syncer().sync()?;
        }
        self.journal
            .clear()
            .map_err(io_error("clear the journal of"))
    }

    /// Fills an empty store with a last known good copy.
    fn take_up_good(&mut self, manifest: &Manifest) -> Result<(), StoreError> {
        self.begin(manifest.cursor, u64::MAX)?;
        let mut leaves = manifest.leaves.iter().peekable();
        let mut from = None;
        while let Some(leaf) = leaves.next() {
            let to = leaves.peek().map(|next| &next.first);
            let entities = good::read_leaf(&*self.disk, leaf)?;
            self.take_range(from, to, entities)?;
            from = to;
        }
        self.finish(manifest.sum.digest(), None)
    }
}

fn open_disk(disk: Arc<dyn Disk>, take: &mut TakePage<'_>) -> Result<Opened, StoreError> {
    let next_number = current::next_number(&*disk)?;
    let mut opened = match open_existing(&disk, next_number, take) {
        Ok(Some((store, handed_over))) => Opened {
            store,
            source: Origin::Database,
            moved_aside: None,
            unusable: Vec::new(),
            handed_over,
        },
        Ok(None) => recover(disk, next_number, None, None)?,
        Err(StoreError::Damaged(reason)) => {
            let witness = Current::read(&*disk).ok().flatten();
            let aside = disk.set_aside().map_err(io_error("move aside"))?;
            recover(disk, next_number, Some((reason, aside)), witness)?
        }
        Err(error @ (StoreError::Io { .. } | StoreError::Apply(_) | StoreError::Load(_))) => {
            return Err(error);
        }
    };
    if let Err(error) = opened.store.compact_if_worth() {
        tracing::warn!(%error, "could not write the local store anew to make it smaller");
    }
    Ok(opened)
}

/// The store that is there, and whether what was handed over is all of it; `None` if there is none.
fn open_existing(
    disk: &Arc<dyn Disk>,
    next_number: u64,
    take: &mut TakePage<'_>,
) -> Result<Option<(Store, bool)>, StoreError> {
    let Some(current) = Current::read(&**disk)? else {
        let files = disk.list("").map_err(io_error("list the files of"))?;
        if files.is_empty() {
            // Databases by themselves are what an interrupted start leaves behind.
            remove_databases(&**disk, None);
            return Ok(None);
        }
        let reason = "file 'current' is missing, or it is not a store of this format";
        return Err(StoreError::Damaged(reason.into()));
    };
    let database = disk.open_database(&current::name(current.database))?;
    let held = verify(&*database, take)?;
    if current.is_ahead_of(held.cursor) {
        let (found, was) = (held.cursor.version, current.witness.version);
        return Err(StoreError::Damaged(format!(
            "it holds version {found}, but version {was} has been on disk"
        )));
    }
    let verified = held.cursor;
    let mut store = Store::new(disk.clone(), database, current, held, next_number);
    store.replay()?;
    // A database that was never synced can lose all it had, and no witness says so.
    if store.cursor().version == Version::ZERO && good::is_usable(&**disk) {
        let reason = "it holds nothing, but there is a last known good copy";
        return Err(StoreError::Damaged(reason.into()));
    }
    remove_databases(&**disk, Some(store.number));
    let handed_over = store.cursor() == verified;
    Ok(Some((store, handed_over)))
}

/// Makes a store where there is none (any more), out of the last known good copy if there is one.
fn recover(
    disk: Arc<dyn Disk>,
    number: u64,
    moved_aside: Option<(String, PathBuf)>,
    lost: Option<Current>,
) -> Result<Opened, StoreError> {
    let database = disk.open_database(&current::name(number))?;
    let current = Current {
        database: number,
        witness: Cursor::default(),
    };
    let mut store = Store::new(disk.clone(), database, current, Held::default(), number);
    let mut unusable = Vec::new();
    let mut source = Origin::Empty;
    for file in good::MANIFESTS {
        let found = match good::read_manifest(&*disk, file) {
            Ok(Some(manifest)) => store.take_up_good(&manifest),
            Ok(None) => continue,
            Err(error) => Err(error),
        };
        match found {
            Ok(()) => {
                let behind = lost
                    .map(|lost| lost.witness)
                    .filter(|lost| lost.epoch == store.cursor().epoch)
                    .map(|lost| lost.version.0.saturating_sub(store.cursor().version.0));
                source = Origin::LastKnownGood { behind };
                break;
            }
            Err(error @ StoreError::Io { .. }) => return Err(error),
            Err(StoreError::Damaged(reason)) => unusable.push(format!("'{file}': {reason}")),
            Err(error @ (StoreError::Apply(_) | StoreError::Load(_))) => {
                unusable.push(format!("'{file}': {}", crate::run::chain(&error)));
            }
        }
    }
    if source == Origin::Empty {
        store
            .pointer
            .create()
            .map_err(io_error("name the database of"))?;
    }
    Ok(Opened {
        store,
        source,
        moved_aside,
        unusable,
        handed_over: false,
    })
}

/// Removes all databases but one. Those that cannot be removed are the next time.
fn remove_databases(disk: &dyn Disk, kept: Option<u64>) {
    let kept = kept.map(current::name);
    let names = disk.databases().unwrap_or_default();
    for name in names.iter().filter(|name| Some(*name) != kept.as_ref()) {
        if let Err(error) = disk.remove_database(name) {
            tracing::warn!(%error, name, "could not remove a database that is not used any more");
        }
    }
}

/// Reads and verifies everything in a database, and hands over its entities.
pub(super) fn verify(database: &dyn Database, take: &mut TakePage<'_>) -> Result<Held, StoreError> {
    let mut summed = Summed::default();
    let mut meta = None;
    let first = read_records(database, &[], &mut meta)?;
    summed.add(&first.entities);
    take(first.entities);
    if let Some(next) = first.next {
        summed = verify_rest(database, next, &mut meta, summed, take)?;
    }
    let meta = match meta {
        Some(meta) => meta,
        None if summed.entities == 0 => Meta::default(),
        None => return Err(StoreError::Damaged("the cursor is missing".into())),
    };
    if meta.sum != summed.sum || meta.entities != summed.entities {
        return Err(StoreError::Damaged(
            "the entities are not those of the cursor".into(),
        ));
    }
    Ok(Held {
        cursor: meta.cursor,
        sum: meta.sum,
        entities: meta.entities,
        bytes: summed.bytes,
    })
}

/// Summing up costs as much as reading, and so may what is done with the entities: each has a thread.
fn verify_rest(
    database: &dyn Database,
    mut next: Vec<u8>,
    meta: &mut Option<Meta>,
    mut summed: Summed,
    take: &mut TakePage<'_>,
) -> Result<Summed, StoreError> {
    let thread = |name: &str| std::thread::Builder::new().name(name.into());
    std::thread::scope(|scope| {
        let (pages, read) = mpsc::sync_channel::<Vec<(Key, Entry)>>(PAGES_AHEAD_MAX);
        let (onward, verified) = mpsc::sync_channel(PAGES_AHEAD_MAX);
        let summing = thread("store-sum").spawn_scoped(scope, move || {
            for page in read {
                summed.add(&page);
                if onward.send(page).is_err() {
                    break;
                }
            }
            summed
        });
        let summing = summing.map_err(io_error("open"))?;
        thread("store-take")
            .spawn_scoped(scope, move || verified.into_iter().for_each(&mut *take))
            .map_err(io_error("open"))?;
        loop {
            let page = read_records(database, &next, meta)?;
            if pages.send(page.entities).is_err() {
                break;
            }
            match page.next {
                Some(from) => next = from,
                None => break,
            }
        }
        drop(pages);
        summing
            .join()
            .map_err(|_| StoreError::Damaged("it cannot be summed up".into()))
    })
}

#[derive(Default)]
struct Summed {
    sum: Accumulator,
    entities: u64,
    bytes: u64,
}

impl Summed {
    fn add(&mut self, page: &[(Key, Entry)]) {
        for (key, entry) in page {
            self.sum.add(key, &entry.body);
            self.bytes += stored_bytes(key, entry);
        }
        self.entities += page.len() as u64;
    }
}

struct Records {
    entities: Vec<(Key, Entry)>,
    /// Where the next page begins.
    next: Option<Vec<u8>>,
}

/// Reads and verifies a page of everything.
fn read_records(
    database: &dyn Database,
    from: &[u8],
    meta: &mut Option<Meta>,
) -> Result<Records, StoreError> {
    let records = database.scan(from, PAGE_RECORDS_MAX)?;
    let next = match records.last() {
        Some((last, _)) if records.len() == PAGE_RECORDS_MAX => Some(after(last.clone())),
        Some(_) | None => None,
    };
    let mut entities = Vec::with_capacity(records.len());
    for (stored, value) in records {
        if stored == META_KEY {
            *meta = Some(decode_meta(&value)?);
            continue;
        }
        entities.push(decode_record(&stored, &value)?);
    }
    Ok(Records { entities, next })
}
