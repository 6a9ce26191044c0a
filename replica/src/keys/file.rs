//! Files of keys: made once, or replaced whole.

use crate::files::{self, beside, directory_of};
use std::fs::{self, OpenOptions};
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

/// [`files::replace`], in a directory that is made if need be.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    fs::create_dir_all(directory_of(path))?;
    files::replace(path, content)
}

/// Moves a damaged file out of the way, over an older one.
pub(super) fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = beside(path, ".damaged");
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Overwrites a secret that is not needed any more.
pub(super) fn wipe(mut secret: Vec<u8>) {
    secret.fill(0);
    // Without this the compiler may leave out a write that nobody reads.
    std::hint::black_box(&secret);
}
