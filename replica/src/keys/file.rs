//! Files of keys: made once, or replaced whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Readable by its owner only.
const SECRET_MODE: u32 = 0o600;

/// Makes a file that only its owner can read; refuses to replace one.
pub(super) fn create_secret(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(SECRET_MODE)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Puts `content` in the place of what is there: after a crash it is the one or the other, and after the return it is on
/// disk. Makes the directory if need be.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = directory_of(path);
    fs::create_dir_all(directory)?;
    let new = beside(path, ".new");
    let mut file = File::create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(directory)?.sync_all()
}

/// Moves a damaged file out of the way, over an older one.
pub(super) fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = beside(path, ".damaged");
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// The directory a path lies in.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    path.with_file_name(name)
}

/// Overwrites a secret that is not needed any more.
pub(super) fn wipe(mut secret: Vec<u8>) {
    secret.fill(0);
    // Without this the compiler may leave out a write that nobody reads.
    std::hint::black_box(&secret);
}
