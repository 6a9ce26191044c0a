//! Which database is in use, and how far it has been on disk: one small file beside the databases.
//!
//! sled can lose everything without an error; a database that is behind its witness has.

use super::disk::Disk;
use super::record::{open_file, seal_file};
use super::{StoreError, io_error};
use serde::{Deserialize, Serialize};
use sluice_schema::codec::Format;
use sluice_schema::version::{Cursor, Version};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The file's name.
pub(super) const FILE: &str = "current";
const FORMAT: Format = Format {
    magic: *b"SlC",
    version: 1,
};
const DATABASE_PREFIX: &str = "db.";

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Current {
    /// The number in the name of the database in use.
    pub(super) database: u64,
    /// A cursor that it has been synced with.
    pub(super) witness: Cursor,
}

impl Current {
    /// What the file says; `None` if there is none.
    pub(super) fn read(disk: &dyn Disk) -> Result<Option<Self>, StoreError> {
        match disk.read(FILE).map_err(io_error("read"))? {
            Some(bytes) => open_file(FORMAT, FILE, &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Whether a database at `cursor` has lost something. Epochs are ordered in time.
    pub(super) fn is_ahead_of(&self, cursor: Cursor) -> bool {
        let place = |cursor: Cursor| (cursor.epoch.0, cursor.version);
        self.witness.version > Version::ZERO && place(cursor) < place(self.witness)
    }
}

/// The name of a database.
pub(super) fn name(number: u64) -> String {
    format!("{DATABASE_PREFIX}{number}")
}

/// A number above those of all databases there are: no name is used again, for sled may still write to the directory of a
/// database that was let go.
pub(super) fn next_number(disk: &dyn Disk) -> Result<u64, StoreError> {
    let names = disk
        .databases()
        .map_err(io_error("list the databases of"))?;
    let numbers = names
        .iter()
        .filter_map(|name| name.strip_prefix(DATABASE_PREFIX)?.parse::<u64>().ok());
    Ok(numbers.max().map_or(0, |highest| highest.saturating_add(1)))
}

/// The file, as the store and its syncs write it.
#[derive(Debug)]
pub(super) struct Pointer {
    disk: Arc<dyn Disk>,
    current: Mutex<Current>,
    /// The number of the latest sync that has succeeded.
    synced: AtomicU64,
}

impl Pointer {
    /// What the file says already.
    pub(super) fn new(disk: Arc<dyn Disk>, current: Current) -> Self {
        Self {
            disk,
            current: Mutex::new(current),
            synced: AtomicU64::new(0),
        }
    }

    /// The cursor with which the database in use has been synced.
    pub(super) fn witness(&self) -> Cursor {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .witness
    }

    /// Whether sync `number` or a later one has succeeded.
    pub(super) fn has_synced(&self, number: u64) -> bool {
        self.synced.load(Ordering::Acquire) >= number
    }

    /// Notes that sync `number` has made `current` durable. Not if a later one has, nor if another database is in use by now.
    pub(super) fn synced(&self, number: u64, current: Current) -> io::Result<()> {
        let mut held = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if held.database != current.database || self.has_synced(number) {
            return Ok(());
        }
        self.write(&mut held, current)?;
        self.synced.store(number, Ordering::Release);
        Ok(())
    }

    /// Goes over to another database, all of which is durable. `number` is that of the latest sync begun.
    pub(super) fn switch(&self, number: u64, current: Current) -> io::Result<()> {
        let mut held = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(&mut held, current)?;
        self.synced.store(number, Ordering::Release);
        Ok(())
    }

    /// Writes the file although nothing changed: there is none yet.
    pub(super) fn create(&self) -> io::Result<()> {
        let held = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        self.disk.replace(FILE, &seal_file(FORMAT, &*held))
    }

    fn write(&self, held: &mut Current, current: Current) -> io::Result<()> {
        if *held != current {
            self.disk.replace(FILE, &seal_file(FORMAT, &current))?;
            *held = current;
        }
        Ok(())
    }
}
