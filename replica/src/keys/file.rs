//! Files of keys: made once, or replaced whole.

use crate::files::{self, beside, directory_of};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

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
