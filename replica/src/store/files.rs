//! The database's files: opening them where a panic is caught, syncing them, and the witness that says how far they have
//! been on disk.

use super::{StoreError, opening_error, sled_error};
use sluice_schema::codec::{self, Format};
use sluice_schema::version::Cursor;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const CACHE_BYTES_MAX: u64 = 32 << 20;
const LOCK_WAIT_MAX: Duration = Duration::from_secs(2);
const LOCK_PACE: Duration = Duration::from_millis(10);
const WITNESS_FORMAT: Format = Format {
    magic: *b"SlC",
    version: 1,
};

/// What makes the writes of a store survive power loss.
#[derive(Clone, Debug)]
pub struct Syncer {
    db: sled::Db,
    directory: PathBuf,
    /// The cursor that is written beside the database once it is on disk.
    saved: Option<Cursor>,
}

impl Syncer {
    pub(crate) fn new(db: sled::Db, directory: &Path) -> Self {
        Self {
            db,
            directory: directory.to_owned(),
            saved: None,
        }
    }

    /// Says beside the database, after each sync, that it has been on disk up to `saved`.
    pub(super) fn with_witness(self, saved: Cursor) -> Self {
        Self {
            saved: Some(saved),
            ..self
        }
    }

    /// Returns when everything written before the call is on disk. sled's own flush uses `sync_file_range`, which
    /// does not reach the drive: its files are synced here, and the directory that names them.
    ///
    /// # Errors
    /// If the disk says no; nothing is to be claimed then.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.db
            .flush()
            .map_err(|error| sled_error("flush", error))?;
        let io_error = |source| StoreError::Io {
            operation: "sync",
            source,
        };
        sync_tree(&self.directory).map_err(io_error)?;
        match &self.saved {
            Some(cursor) => write_witness(&self.directory, cursor).map_err(io_error),
            None => Ok(()),
        }
    }
}

/// The file beside the database that says how far it has been on disk. sled can lose everything without an error; a
/// database that is behind its witness has.
pub(super) fn witness_path(directory: &Path) -> PathBuf {
    let mut name = directory.file_name().unwrap_or_default().to_owned();
    name.push(".cursor");
    directory.with_file_name(name)
}

fn write_witness(directory: &Path, cursor: &Cursor) -> io::Result<()> {
    let path = witness_path(directory);
    let new = path.with_extension("cursor.new");
    let mut file = File::create(&new)?;
    file.write_all(&codec::encode(WITNESS_FORMAT, cursor))?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    match path.parent() {
        Some(parent) if parent != Path::new("") => File::open(parent)?.sync_all(),
        Some(_) | None => File::open(".")?.sync_all(),
    }
}

/// How far the database has been on disk, as far as is known.
pub(super) fn read_witness(directory: &Path) -> Option<Cursor> {
    let bytes = fs::read(witness_path(directory)).ok()?;
    codec::decode(WITNESS_FORMAT, &bytes).ok()
}

/// Opens a database and reads what `load` wants of it. sled 0.34 panics on damage in most cases, so both happen where
/// a panic can be caught.
pub(crate) fn open_guarded<T: Send>(
    directory: &Path,
    load: impl FnOnce(&sled::Db) -> Result<T, StoreError> + Send,
) -> Result<(sled::Db, T), StoreError> {
    fs::create_dir_all(directory).map_err(|source| StoreError::Io {
        operation: "create",
        source,
    })?;
    std::thread::scope(|scope| {
        let opening = std::thread::Builder::new()
            .name("store-open".into())
            .spawn_scoped(scope, || {
                let db = open_sled(directory)?;
                let loaded = load(&db)?;
                Ok((db, loaded))
            });
        let opening = opening.map_err(|source| StoreError::Io {
            operation: "open",
            source,
        })?;
        opening
            .join()
            .map_err(|_| StoreError::Damaged("the database panicked while opening".into()))?
    })
}

fn sync_tree(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            match File::open(entry.path()) {
                Ok(file) => file.sync_all()?,
                // sled replaces its snapshot files while we look.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    File::open(directory)?.sync_all()
}

/// Waits a moment for another user of the database to let go of it: sled does so a little after its last handle is gone.
pub(super) fn open_sled(path: &Path) -> Result<sled::Db, StoreError> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES_MAX)
        .mode(sled::Mode::HighThroughput)
        .flush_every_ms(None);
    let deadline = Instant::now() + LOCK_WAIT_MAX;
    loop {
        match config.open() {
            // sled has no error of its own for this.
            Err(error)
                if Instant::now() < deadline
                    && error.to_string().contains("could not acquire lock") =>
            {
                std::thread::sleep(LOCK_PACE);
            }
            opened => return opened.map_err(|error| opening_error("open", error)),
        }
    }
}

pub(super) fn move_aside(directory: &Path) -> io::Result<PathBuf> {
    let mut name = directory.file_name().unwrap_or_default().to_owned();
    name.push(".damaged");
    let aside = directory.with_file_name(name);
    if aside.exists() {
        fs::remove_dir_all(&aside)?;
    }
    fs::rename(directory, &aside)?;
    // It speaks of the database that is gone. What the log says is checked by chain and signature.
    match fs::remove_file(witness_path(directory)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(aside),
    }
}
