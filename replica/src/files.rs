//! Files that are replaced whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The end of the name under which a new content is written before it takes the old one's place.
pub const UNFINISHED: &str = ".new";

/// Readable by its owner only.
const SECRET_MODE: u32 = 0o600;

/// Puts `content` in the place of what is there: after a crash it is the one or the other, and after the return it is on
/// disk.
///
/// # Errors
/// If the directory is missing or the disk refuses; what was there is there still.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = beside(path, UNFINISHED);
    let mut file = File::create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_name(path)
}

/// Makes a file that only its owner can read; refuses to replace one.
pub(crate) fn create_secret(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(SECRET_MODE)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// [`replace`] with what only its owner can read.
///
/// # Errors
/// As there.
pub(crate) fn replace_secret(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = beside(path, UNFINISHED);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    create_secret(&new, content)?;
    fs::rename(&new, path)?;
    sync_name(path)
}

/// The bytes of all files below a directory, as far as they can be seen. Links are not followed.
pub fn size(directory: &Path) -> u64 {
    let mut bytes = 0;
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => directories.push(entry.path()),
                Ok(found) if found.is_file() => bytes += found.len(),
                // Gone by now, or nothing that takes room.
                Ok(_) | Err(_) => {}
            }
        }
    }
    bytes
}

/// Makes the name of a file or directory durable, or that it is gone.
pub(crate) fn sync_name(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

/// The directory a path lies in.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    }
}

/// The path with something more at the end of its name.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}
