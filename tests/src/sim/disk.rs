//! A node's disk: what was written lies in a page cache until it is synced. Processes are killed, power is cut, bits flip,
//! space runs out.

use super::dice::Dice;
use super::trace::{Trace, note};
use sluice_replica::store::StoreError;
use sluice_replica::store::disk::{Database, Disk, Pair, Write};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Writes to one file that the page cache holds at most; what came before has been written back.
const UNSYNCED_MAX: usize = 48;
/// Out of 10,000: a database with unsynced batches is empty after a power cut, without a word. Measured on sled.
const SILENTLY_EMPTY: u32 = 150;
/// Out of 10,000: it refuses to open.
const REFUSES: u32 = 150;
/// What stays where it is when the rest is set aside.
const GOOD: &str = "good/";
const GOOD_MANIFESTS: &str = "good/manifest";

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone, Debug)]
enum FileWrite {
    Append(Vec<u8>),
    Truncate,
    Remove,
}

#[derive(Clone, Debug, Default)]
struct File {
    durable: Option<Vec<u8>>,
    now: Option<Vec<u8>>,
    unsynced: Vec<FileWrite>,
}

#[derive(Clone, Debug, Default)]
struct Table {
    durable: Records,
    now: Records,
    unsynced: Vec<Vec<Write>>,
    /// How many of them have left the buffers of the process.
    written: usize,
    refuses: bool,
    /// It has lost everything without a word.
    empty: bool,
}

#[derive(Clone, Debug, Default)]
struct Content {
    files: BTreeMap<String, File>,
    tables: BTreeMap<String, Table>,
    /// How often the store was moved aside.
    aside: u64,
}

#[derive(Debug)]
struct Inner {
    content: Content,
    copy: Option<Content>,
    /// Counts processes: what an ended one still does comes to nothing.
    life: u64,
    full: bool,
    /// Reads of databases fail for now.
    unreadable: bool,
    /// Writes until the process crashes, if it is to.
    crash_after: Option<u64>,
    crashed: bool,
    dice: Dice,
    trace: Trace,
    name: String,
}

/// A node's disk. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk(Arc<Mutex<Inner>>);

/// How a process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// The process is killed, the machine goes on.
    Kill,
    /// The machine loses power.
    PowerCut,
}

impl SimDisk {
    pub(crate) fn new(seed: u64, number: u64, name: String, trace: Trace) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            content: Content::default(),
            copy: None,
            life: 0,
            full: false,
            unreadable: false,
            crash_after: None,
            crashed: false,
            dice: Dice::new(seed, 100 + number),
            trace,
            name,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk as a new process sees it.
    pub(crate) fn mount(&self) -> Arc<dyn Disk> {
        let mut inner = self.lock();
        inner.life += 1;
        inner.crashed = false;
        inner.crash_after = None;
        let life = inner.life;
        Arc::new(Mounted {
            disk: self.clone(),
            life,
        })
    }

    /// The process ends. Says whether a database was lost as a whole, as sled can when it has something unsynced.
    pub(crate) fn end(&self, end: End) -> bool {
        let mut inner = self.lock();
        inner.life += 1;
        inner.end(end)
    }

    /// Whether there is a last known good copy: pieces without a manifest are none.
    pub(crate) fn has_good_copy(&self) -> bool {
        let inner = self.lock();
        let mut files = inner.content.files.iter();
        files.any(|(name, file)| name.starts_with(GOOD_MANIFESTS) && file.now.is_some())
    }

    /// Whether the process is to be ended because of the crash that was asked for.
    pub(crate) fn has_crashed(&self) -> bool {
        self.lock().crashed
    }

    /// Lets the process crash after so many writes.
    pub(crate) fn crash_after(&self, writes: u64) {
        self.lock().crash_after = Some(writes);
    }

    /// Lets space run out, or makes room.
    pub(crate) fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Lets reads of databases fail, or not any more.
    pub(crate) fn set_unreadable(&self, unreadable: bool) {
        self.lock().unreadable = unreadable;
    }

    /// Keeps a copy for a later [`SimDisk::restore`].
    pub(crate) fn keep_copy(&self) {
        let mut inner = self.lock();
        inner.copy = Some(inner.content.clone());
    }

    /// Puts back the old copy; says whether there was one.
    pub(crate) fn restore(&self) -> bool {
        let mut inner = self.lock();
        match inner.copy.take() {
            Some(copy) => {
                inner.content = copy;
                // What the process had in memory only when it was copied, the copy does not have.
                inner.end(End::Kill);
                true
            }
            None => false,
        }
    }

    /// Loses everything.
    pub(crate) fn wipe(&self) {
        self.lock().content = Content::default();
    }

    /// Flips a bit somewhere, or in the last known good copy, and says where.
    pub(crate) fn flip(&self, in_copy: bool) -> Option<String> {
        self.lock().flip(in_copy)
    }
}

impl Inner {
    fn end(&mut self, end: End) -> bool {
        let Self {
            content,
            dice,
            trace,
            name,
            ..
        } = self;
        let mut lost = false;
        for (file, state) in &mut content.files {
            if end == End::PowerCut {
                state.lose_power(dice);
                note!(
                    trace,
                    "{name}: {file} has {} bytes after the power cut",
                    state.now.as_ref().map_or(0, Vec::len)
                );
            }
        }
        for (table, state) in &mut content.tables {
            let Some((kept, all)) = state.lose(end, dice) else {
                continue;
            };
            let fate = match (state.refuses, state.empty) {
                (true, _) => "refuses to open",
                (false, true) => "is silently empty",
                (false, false) => "is whole",
            };
            lost |= state.refuses || state.empty;
            note!(
                trace,
                "{name}: {table} {fate}, keeps {kept} of {all} unsynced batches"
            );
        }
        content
            .files
            .retain(|_, file| file.now.is_some() || file.durable.is_some());
        lost
    }

    fn flip(&mut self, in_copy: bool) -> Option<String> {
        let tables = self.content.tables.iter().flat_map(|(name, table)| {
            table
                .now
                .iter()
                .filter(|(_, value)| !value.is_empty())
                .map(move |(key, _)| (name.clone(), Some(key.clone())))
        });
        let files = self
            .content
            .files
            .iter()
            .filter(|(_, file)| file.now.as_ref().is_some_and(|now| !now.is_empty()));
        let mut places: Vec<(String, Option<Vec<u8>>)> =
            files.map(|(name, _)| (name.clone(), None)).collect();
        places.extend(tables);
        if in_copy {
            places.retain(|(name, _)| name.starts_with(GOOD));
        }
        let (name, key) = self.dice.pick(&places)?.clone();
        let (at, bit) = (self.dice.index(1 << 20), 1_u8 << self.dice.below(8));
        match key {
            Some(key) => {
                let table = self.content.tables.get_mut(&name)?;
                for records in [&mut table.now, &mut table.durable] {
                    if let Some(value) = records.get_mut(&key).filter(|value| !value.is_empty()) {
                        let at = at % value.len();
                        value[at] ^= bit;
                    }
                }
            }
            None => {
                let file = self.content.files.get_mut(&name)?;
                file.write_back();
                let bytes = file.now.as_mut().filter(|bytes| !bytes.is_empty())?;
                let at = at % bytes.len();
                bytes[at] ^= bit;
                file.durable.clone_from(&file.now);
            }
        }
        note!(self.trace, "{}: a bit flipped in {name}", self.name);
        Some(name)
    }

    /// Before each write: whether it may happen.
    fn write(&mut self, life: u64) -> io::Result<()> {
        self.look(life)?;
        if let Some(left) = &mut self.crash_after {
            if *left == 0 {
                self.crashed = true;
                return Err(io::Error::other("the process has crashed"));
            }
            *left -= 1;
        }
        match self.full {
            true => Err(io::Error::new(io::ErrorKind::StorageFull, "no space left")),
            false => Ok(()),
        }
    }

    fn look(&self, life: u64) -> io::Result<()> {
        match self.life == life && !self.crashed {
            true => Ok(()),
            false => Err(io::Error::other("the process has ended")),
        }
    }
}

impl File {
    fn write_back(&mut self) {
        self.durable.clone_from(&self.now);
        self.unsynced.clear();
    }

    fn push(&mut self, write: FileWrite) {
        write.apply(&mut self.now, usize::MAX);
        self.unsynced.push(write);
        if self.unsynced.len() > UNSYNCED_MAX {
            let write = self.unsynced.remove(0);
            write.apply(&mut self.durable, usize::MAX);
        }
    }

    /// What is left is a prefix of the writes, the last of them torn, maybe with garbage where it ends.
    fn lose_power(&mut self, dice: &mut Dice) {
        let kept = dice.index(self.unsynced.len() + 1);
        let writes = std::mem::take(&mut self.unsynced);
        for (at, write) in writes.iter().take(kept).enumerate() {
            let length = match write {
                FileWrite::Append(bytes) if at + 1 == kept && dice.chance(5000) => {
                    dice.index(bytes.len() + 1)
                }
                FileWrite::Append(_) | FileWrite::Truncate | FileWrite::Remove => usize::MAX,
            };
            write.apply(&mut self.durable, length);
            if length != usize::MAX && dice.chance(5000) {
                let mut garbage = vec![0; dice.index(64)];
                dice.fill(&mut garbage);
                self.durable
                    .get_or_insert_default()
                    .extend_from_slice(&garbage);
            }
        }
        self.now.clone_from(&self.durable);
    }
}

impl FileWrite {
    fn apply(&self, content: &mut Option<Vec<u8>>, length: usize) {
        match self {
            Self::Append(bytes) => {
                let length = length.min(bytes.len());
                content
                    .get_or_insert_default()
                    .extend_from_slice(&bytes[..length]);
            }
            Self::Truncate => {
                if let Some(content) = content {
                    content.clear();
                }
            }
            Self::Remove => *content = None,
        }
    }
}

impl Table {
    fn write_back(&mut self) {
        for batch in std::mem::take(&mut self.unsynced) {
            write(&mut self.durable, &batch);
        }
        self.written = 0;
    }

    /// Loses what was not synced: some of it with the process, which has buffers of its own, more with the power. Gives
    /// back how many of how many batches are left.
    fn lose(&mut self, end: End, dice: &mut Dice) -> Option<(usize, usize)> {
        if self.unsynced.is_empty() {
            return None;
        }
        let all = self.unsynced.len();
        let kept = match end {
            End::Kill if dice.chance(5000) => all,
            End::Kill => self.written + dice.index(all - self.written + 1),
            End::PowerCut => dice.index(all + 1),
        };
        self.unsynced.truncate(kept);
        self.written = kept;
        if end == End::PowerCut {
            self.write_back();
            if dice.chance(SILENTLY_EMPTY) {
                *self = Self {
                    empty: true,
                    ..Self::default()
                };
            }
            self.refuses = dice.chance(REFUSES);
        }
        self.now.clone_from(&self.durable);
        for batch in &self.unsynced {
            write(&mut self.now, batch);
        }
        Some((kept, all))
    }
}

fn write(records: &mut Records, batch: &[Write]) {
    for (key, value) in batch {
        match value {
            Some(value) => records.insert(key.clone(), value.clone()),
            None => records.remove(key),
        };
    }
}

/// The disk of one process.
#[derive(Debug)]
struct Mounted {
    disk: SimDisk,
    life: u64,
}

#[derive(Debug)]
struct OpenTable {
    disk: SimDisk,
    life: u64,
    name: String,
}

fn io_error(operation: &'static str) -> impl Fn(io::Error) -> StoreError {
    move |source| StoreError::Io { operation, source }
}

impl Disk for Mounted {
    fn open_database(&self, name: &str) -> Result<Arc<dyn Database>, StoreError> {
        let mut inner = self.disk.lock();
        inner.look(self.life).map_err(io_error("open"))?;
        if !inner.content.tables.contains_key(name) {
            inner.write(self.life).map_err(io_error("open"))?;
            inner
                .content
                .tables
                .insert(name.to_owned(), Table::default());
        }
        if inner
            .content
            .tables
            .get(name)
            .is_some_and(|table| table.refuses)
        {
            return Err(StoreError::Damaged(
                "the database panicked while opening".into(),
            ));
        }
        Ok(Arc::new(OpenTable {
            disk: self.disk.clone(),
            life: self.life,
            name: name.to_owned(),
        }))
    }

    fn remove_database(&self, name: &str) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.write(self.life)?;
        inner.content.tables.remove(name);
        Ok(())
    }

    fn databases(&self) -> io::Result<Vec<String>> {
        let inner = self.disk.lock();
        inner.look(self.life)?;
        Ok(inner.content.tables.keys().cloned().collect())
    }

    fn read(&self, file: &str) -> io::Result<Option<Vec<u8>>> {
        let inner = self.disk.lock();
        inner.look(self.life)?;
        Ok(inner
            .content
            .files
            .get(file)
            .and_then(|file| file.now.clone()))
    }

    fn append(&self, file: &str, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.lock();
        let result = inner.write(self.life);
        if inner.look(self.life).is_err() && !inner.crashed || inner.life != self.life {
            return result;
        }
        // A write that fails may have been done in part.
        let length = match &result {
            Ok(()) => bytes.len(),
            Err(_) => inner.dice.index(bytes.len() + 1),
        };
        let state = inner.content.files.entry(file.to_owned()).or_default();
        state.push(FileWrite::Append(bytes[..length].to_vec()));
        result
    }

    fn truncate(&self, file: &str) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.write(self.life)?;
        if let Some(state) = inner.content.files.get_mut(file) {
            state.push(FileWrite::Truncate);
        }
        Ok(())
    }

    fn replace(&self, file: &str, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.write(self.life)?;
        let state = inner.content.files.entry(file.to_owned()).or_default();
        state.now = Some(bytes.to_vec());
        state.write_back();
        Ok(())
    }

    fn remove(&self, file: &str) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.write(self.life)?;
        if let Some(state) = inner.content.files.get_mut(file) {
            state.push(FileWrite::Remove);
        }
        Ok(())
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let inner = self.disk.lock();
        inner.look(self.life)?;
        let files = inner
            .content
            .files
            .iter()
            .filter(|(_, file)| file.now.is_some());
        let names: BTreeSet<String> = files
            .filter_map(|(name, _)| {
                let rest = match directory {
                    "" => name.as_str(),
                    directory => name.strip_prefix(directory)?.strip_prefix('/')?,
                };
                (!rest.contains('/')).then(|| rest.to_owned())
            })
            .collect();
        Ok(names.into_iter().collect())
    }

    fn set_aside(&self) -> io::Result<PathBuf> {
        let mut inner = self.disk.lock();
        inner.write(self.life)?;
        inner.content.files.retain(|name, _| name.starts_with(GOOD));
        inner.content.tables.clear();
        inner.content.aside += 1;
        Ok(PathBuf::from("aside"))
    }
}

impl OpenTable {
    fn with<T>(&self, work: impl FnOnce(&Table) -> T) -> Result<T, StoreError> {
        let inner = self.disk.lock();
        inner.look(self.life).map_err(io_error("read"))?;
        if inner.unreadable {
            return Err(io_error("read")(io::Error::other(
                "the disk does not answer",
            )));
        }
        let table = inner.content.tables.get(&self.name);
        let gone = || StoreError::Damaged("the database is gone".into());
        table.map(work).ok_or_else(gone)
    }
}

impl Database for OpenTable {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.with(|table| table.now.get(key).cloned())
    }

    fn scan(&self, from: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        self.with(|table| {
            let records = table.now.range(from.to_vec()..).take(limit);
            records
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        })
    }

    fn apply(&self, batch: Vec<Write>) -> Result<(), StoreError> {
        let mut inner = self.disk.lock();
        inner.write(self.life).map_err(io_error("write"))?;
        let Some(table) = inner.content.tables.get_mut(&self.name) else {
            return Err(StoreError::Damaged("the database is gone".into()));
        };
        write(&mut table.now, &batch);
        table.unsynced.push(batch);
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut inner = self.disk.lock();
        inner.write(self.life).map_err(io_error("sync"))?;
        if let Some(table) = inner.content.tables.get_mut(&self.name) {
            table.write_back();
        }
        Ok(())
    }
}
