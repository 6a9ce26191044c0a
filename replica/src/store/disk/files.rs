//! The real disk: sled 0.34.7 and plain files, by the recipe of docs/decisions/0003.
//!
//! sled panics on damage in most cases, also long after it was opened, so nothing of it is called where a panic is not
//! caught. After one the database is not used any more.

use super::{Database, Disk, Pair, Write};
use crate::files::{self, UNFINISHED, sync_name};
use crate::store::{GOOD, StoreError, io_error};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const CACHE_BYTES_MAX: u64 = 4 << 20;
/// Batches with so many writes are cleaned up after.
const COLLECTED_COUNT: usize = 64;
/// sled keeps account of which pages were used in 256 queues, and drops pages only when a queue is full. A scan uses each page once,
/// which fills none if there are fewer than 16,384: of every so many keys that are read, one is asked for until its page's queue is full.
const SCANNED_EACH: usize = 32;
/// A large database fills the queues by itself: of so many keys that have been read one more is passed over each time.
const SCANNED_SHARE: usize = 1024;
const QUEUE_LENGTH: usize = 64;
/// Nothing is ever kept under it.
const NO_KEY: &[u8] = b"";
const LOCK_WAIT_MAX: Duration = Duration::from_secs(2);
const LOCK_PACE: Duration = Duration::from_millis(10);
const DATABASE_PREFIX: &str = "db.";

/// A directory of the file system.
#[derive(Debug)]
pub struct FileDisk {
    directory: PathBuf,
    /// Files that are appended to, kept open.
    appended: Mutex<BTreeMap<String, File>>,
    /// Directories whose own names are known to be durable.
    settled: Mutex<BTreeSet<PathBuf>>,
}

impl FileDisk {
    /// The disk in `directory`, which is made when it is first written to.
    pub fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            appended: Mutex::default(),
            settled: Mutex::default(),
        }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    fn close_appended(&self, file: &str) {
        let mut appended = self.appended.lock().unwrap_or_else(PoisonError::into_inner);
        appended.remove(file);
    }
}

impl Disk for FileDisk {
    fn open_database(&self, name: &str) -> Result<Arc<dyn Database>, StoreError> {
        let directory = self.path(name);
        let (db, ()) = open_guarded(&directory, |_| Ok(()))?;
        Ok(Arc::new(SledDatabase::new(db, &directory)))
    }

    fn remove_database(&self, name: &str) -> io::Result<()> {
        harmless_if_missing(fs::remove_dir_all(self.path(name)))
    }

    fn databases(&self) -> io::Result<Vec<String>> {
        names(&self.directory, |kind, name| {
            kind.is_dir() && name.starts_with(DATABASE_PREFIX)
        })
    }

    fn read(&self, file: &str) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(file)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn append(&self, file: &str, bytes: &[u8]) -> io::Result<()> {
        let mut appended = self.appended.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = appended.get_mut(file) {
            return open.write_all(bytes);
        }
        fs::create_dir_all(&self.directory)?;
        let mut open = File::options()
            .append(true)
            .create(true)
            .open(self.path(file))?;
        open.write_all(bytes)?;
        appended.insert(file.to_owned(), open);
        Ok(())
    }

    fn truncate(&self, file: &str) -> io::Result<()> {
        let path = self.path(file);
        harmless_if_missing(
            File::options()
                .write(true)
                .open(path)
                .and_then(|file| file.set_len(0)),
        )
    }

    fn replace(&self, file: &str, bytes: &[u8]) -> io::Result<()> {
        self.close_appended(file);
        let path = self.path(file);
        let directory = path.parent().unwrap_or(&self.directory);
        fs::create_dir_all(directory)?;
        files::replace(&path, bytes)?;
        self.settle(directory)
    }

    fn remove(&self, file: &str) -> io::Result<()> {
        self.close_appended(file);
        harmless_if_missing(fs::remove_file(self.path(file)))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        names(&self.path(directory), |kind, name| {
            kind.is_file() && !name.ends_with(UNFINISHED)
        })
    }

    fn set_aside(&self) -> io::Result<PathBuf> {
        self.appended
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        let mut name = self.directory.file_name().unwrap_or_default().to_owned();
        name.push(".damaged");
        let aside = self.directory.with_file_name(name);
        harmless_if_missing(fs::remove_dir_all(&aside))?;
        fs::create_dir_all(&aside)?;
        let mut all = names(&self.directory, |_, name| name != GOOD)?;
        // Last, so that what is left of a move that was interrupted is not taken for a whole store.
        all.sort_by_key(|name| name == crate::store::current::FILE);
        for name in all {
            fs::rename(self.path(&name), aside.join(&name))?;
        }
        File::open(&aside)?.sync_all()?;
        File::open(&self.directory)?.sync_all()?;
        self.settle(&self.directory)?;
        Ok(aside)
    }
}

impl FileDisk {
    /// Makes the names of the directories on the way to `directory` durable, from the store's own on, once.
    fn settle(&self, directory: &Path) -> io::Result<()> {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        let way = directory
            .ancestors()
            .take_while(|path| path.starts_with(&self.directory));
        for path in way {
            if settled.contains(path) {
                continue;
            }
            sync_name(path)?;
            settled.insert(path.to_owned());
        }
        Ok(())
    }
}

/// Makes a directory, durably.
fn create(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(directory)?;
    sync_name(directory)
}

fn harmless_if_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The names in a directory that are `wanted`, sorted. None if it is missing.
fn names(directory: &Path, wanted: impl Fn(fs::FileType, &str) -> bool) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && wanted(entry.file_type()?, &name)
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// A sled database.
pub(in crate::store) struct SledDatabase {
    /// Taken out when dropped.
    db: Option<sled::Db>,
    directory: PathBuf,
    /// Keys that scans have given since one came to the end.
    scanned: AtomicUsize,
    /// It has panicked.
    broken: AtomicBool,
}

impl SledDatabase {
    pub(in crate::store) fn new(db: sled::Db, directory: &Path) -> Self {
        Self {
            db: Some(db),
            directory: directory.to_owned(),
            scanned: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
        }
    }

    fn guarded<T>(
        &self,
        operation: &'static str,
        call: impl FnOnce(&sled::Db) -> sled::Result<T>,
    ) -> Result<T, StoreError> {
        let panicked =
            || StoreError::Damaged(format!("the database panicked when asked to {operation}"));
        let Some(db) = self
            .db
            .as_ref()
            .filter(|_| !self.broken.load(Ordering::Acquire))
        else {
            return Err(panicked());
        };
        match catch_unwind(AssertUnwindSafe(|| call(db))) {
            Ok(result) => result.map_err(|error| sled_error(operation, error)),
            Err(_) => {
                self.broken.store(true, Ordering::Release);
                Err(panicked())
            }
        }
    }
}

impl std::fmt::Debug for SledDatabase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SledDatabase")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Drop for SledDatabase {
    fn drop(&mut self) {
        let db = self.db.take();
        // sled writes on its way out, which panics where everything else did.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
    }
}

impl Database for SledDatabase {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.guarded("read", |db| Ok(db.get(key)?.map(|value| value.to_vec())))
    }

    fn scan(&self, from: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        self.guarded("read", |db| {
            let pairs = db
                .range(from..)
                .take(limit)
                .map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec())))
                .collect::<sled::Result<Vec<Pair>>>()?;
            let scanned = self.scanned.load(Ordering::Relaxed);
            let all = if pairs.len() < limit {
                0
            } else {
                scanned + limit
            };
            self.scanned.store(all, Ordering::Relaxed);
            let each = SCANNED_EACH.max(scanned / SCANNED_SHARE);
            for (key, _) in pairs.iter().skip(each - 1).step_by(each) {
                for _ in 0..QUEUE_LENGTH {
                    db.contains_key(key)?;
                }
            }
            Ok(pairs)
        })
    }

    fn apply(&self, batch: Vec<Write>) -> Result<(), StoreError> {
        let count = batch.len();
        let mut writes = sled::Batch::default();
        for (key, value) in batch {
            match value {
                Some(value) => writes.insert(key, value),
                None => writes.remove(key),
            }
        }
        self.guarded("write", |db| {
            db.apply_batch(writes)?;
            // Each write has made a node superfluous, and sled frees a few of them whenever it is used again: without this, most
            // of a large batch's would stay until many small ones had come.
            if count >= COLLECTED_COUNT {
                for _ in 0..count {
                    db.contains_key(NO_KEY)?;
                }
            }
            Ok(())
        })
    }

    /// sled's own flush uses `sync_file_range`, which does not reach the drive: its files are synced here, and the
    /// directory that names them.
    fn sync(&self) -> Result<(), StoreError> {
        self.guarded("flush", |db| db.flush().map(|_| ()))?;
        sync_tree(&self.directory).map_err(io_error("sync"))
    }

    fn bytes_on_disk(&self) -> u64 {
        self.guarded("measure", sled::Db::size_on_disk)
            .unwrap_or_default()
    }
}

/// Opens a database and reads what `load` wants of it, on a thread whose panic is caught.
pub(crate) fn open_guarded<T: Send>(
    directory: &Path,
    load: impl FnOnce(&sled::Db) -> Result<T, StoreError> + Send,
) -> Result<(sled::Db, T), StoreError> {
    create(directory).map_err(io_error("create"))?;
    std::thread::scope(|scope| {
        let opening = std::thread::Builder::new()
            .name("store-open".into())
            .spawn_scoped(scope, || {
                let db = open_sled(directory)?;
                let loaded = load(&db)?;
                Ok((db, loaded))
            });
        opening
            .map_err(io_error("open"))?
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
pub(in crate::store) fn open_sled(path: &Path) -> Result<sled::Db, StoreError> {
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
            opened => return opened.map_err(|error| sled_error("open", error)),
        }
    }
}

/// All that is not the disk's refusal is damage.
fn sled_error(operation: &'static str, error: sled::Error) -> StoreError {
    if let sled::Error::Io(source) = error {
        StoreError::Io { operation, source }
    } else {
        StoreError::Damaged(error.to_string())
    }
}
