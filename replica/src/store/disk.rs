//! What a store needs of a disk. The real one is [`FileDisk`]; tests and the simulator bring their own, on which
//! processes are killed, power is lost and bits flip.

mod files;

pub use files::FileDisk;
pub(super) use files::SledDatabase;
pub(crate) use files::open_guarded;
#[cfg(test)]
pub(super) use files::open_sled;

use super::StoreError;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// A key and what it is to have: a value, or none.
pub type Write = (Vec<u8>, Option<Vec<u8>>);

/// A directory in which a store keeps its bytes: databases, and plain files beside them. Files are named by paths below
/// it, with `/` between the parts.
pub trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Opens a database, and makes it if it is missing.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is not what was written, [`StoreError::Io`] if the disk refuses.
    fn open_database(&self, name: &str) -> Result<Arc<dyn Database>, StoreError>;

    /// Removes a database that nobody has open. Harmless if it is missing.
    ///
    /// # Errors
    /// If the disk refuses.
    fn remove_database(&self, name: &str) -> io::Result<()>;

    /// The names of the databases.
    ///
    /// # Errors
    /// If the disk refuses.
    fn databases(&self) -> io::Result<Vec<String>>;

    /// What a file holds; `None` if there is none.
    ///
    /// # Errors
    /// If the disk refuses.
    fn read(&self, file: &str) -> io::Result<Option<Vec<u8>>>;

    /// Appends to a file, which is made if it is missing. Survives the end of the process, but not that of the power.
    ///
    /// # Errors
    /// If the disk refuses; a part of `bytes` may have been appended then.
    fn append(&self, file: &str, bytes: &[u8]) -> io::Result<()>;

    /// Empties a file. Harmless if it is missing. Power loss can undo it.
    ///
    /// # Errors
    /// If the disk refuses.
    fn truncate(&self, file: &str) -> io::Result<()>;

    /// Makes a file hold `bytes`: all of them, or what it held before. Durable when it returns.
    ///
    /// # Errors
    /// If the disk refuses; the file holds either then.
    fn replace(&self, file: &str, bytes: &[u8]) -> io::Result<()>;

    /// Removes a file. Harmless if it is missing. Power loss can undo it.
    ///
    /// # Errors
    /// If the disk refuses.
    fn remove(&self, file: &str) -> io::Result<()>;

    /// The names of the plain files in a sub-directory, or in the directory itself if that is empty. None if it is missing.
    ///
    /// # Errors
    /// If the disk refuses.
    fn list(&self, directory: &str) -> io::Result<Vec<String>>;

    /// Moves everything but what lies in [`super::GOOD`] out of the way, and says where it lies now. What was moved there
    /// before is given up.
    ///
    /// # Errors
    /// If the disk refuses; a part may have been moved then.
    fn set_aside(&self) -> io::Result<PathBuf>;
}

/// A database: keys and values, ordered by key.
pub trait Database: Send + Sync + fmt::Debug {
    /// The value of a key.
    ///
    /// # Errors
    /// If it cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Up to `limit` records with keys at or above `from`, in order.
    ///
    /// # Errors
    /// If they cannot be read.
    fn scan(&self, from: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError>;

    /// Writes all of `batch` or nothing. Not durable, nor sure to survive the end of the process, before a
    /// [`Database::sync`].
    ///
    /// # Errors
    /// If it cannot be written; nothing of it is there then.
    fn apply(&self, batch: Vec<Write>) -> Result<(), StoreError>;

    /// Makes everything written before the call durable.
    ///
    /// # Errors
    /// If the disk refuses: nothing is to be claimed then.
    fn sync(&self) -> Result<(), StoreError>;

    /// Bytes it takes up on disk, as far as is known: says when writing it anew is worth it.
    fn bytes_on_disk(&self) -> u64 {
        0
    }
}
