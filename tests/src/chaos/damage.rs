//! Files that are not what was written.

use anyhow::{Context, Result};
use rand::Rng;
use rand::rngs::StdRng;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// The size of what a disk loses at once.
const SECTOR_BYTES: u64 = 4096;

/// What happens to one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// One bit is another.
    Flip {
        /// The byte.
        at: u64,
        /// The bit in it.
        bit: u8,
    },
    /// 4 KiB are zero.
    Zero {
        /// The first of them.
        at: u64,
    },
    /// The file ends here.
    Truncate {
        /// Its length.
        length: u64,
    },
    /// The file is gone.
    Delete,
}

/// A damage and the file it happens to, relative to its directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hit {
    /// The file.
    pub file: PathBuf,
    /// What happens to it.
    pub damage: Damage,
}

impl Hit {
    /// Any damage to any of these files in `directory`. Where files hold data is hit far more often than where space
    /// was only set aside.
    ///
    /// # Errors
    /// If there is no file, or one cannot be read.
    pub fn draw(random: &mut StdRng, directory: &Path, files: &[PathBuf]) -> Result<Self> {
        let file = files
            .get(random.random_range(0..files.len().max(1)))
            .context("there is nothing to damage")?;
        let bytes = fs::read(directory.join(file))?;
        let used = bytes.iter().rposition(|byte| *byte != 0);
        let used = used.map_or(0, |last| last as u64 + 1);
        let length = match random.random_range(0..10) {
            0 => bytes.len() as u64,
            _ => used,
        };
        let length = length.max(1);
        let damage = match random.random_range(0..10) {
            0..5 => Damage::Flip {
                at: random.random_range(0..length),
                bit: random.random_range(0..8),
            },
            5 => Damage::Zero {
                at: random.random_range(0..length) / SECTOR_BYTES * SECTOR_BYTES,
            },
            6 => Damage::Truncate { length: length / 2 },
            7 => Damage::Truncate {
                length: length.saturating_sub(100),
            },
            8 => Damage::Truncate {
                length: random.random_range(0..length),
            },
            _ => Damage::Delete,
        };
        Ok(Self {
            file: file.clone(),
            damage,
        })
    }

    /// Does it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn strike(&self, directory: &Path) -> Result<()> {
        let path = directory.join(&self.file);
        let mut bytes = fs::read(&path)?;
        match self.damage {
            Damage::Flip { at, bit } => {
                if let Some(byte) = bytes.get_mut(usize::try_from(at)?) {
                    *byte ^= 1 << bit;
                }
            }
            Damage::Zero { at } => {
                let at = usize::try_from(at)?;
                let end = bytes.len().min(at + usize::try_from(SECTOR_BYTES)?);
                if let Some(sector) = bytes.get_mut(at..end) {
                    sector.fill(0);
                }
            }
            Damage::Truncate { length } => bytes.truncate(usize::try_from(length)?),
            Damage::Delete => return Ok(fs::remove_file(&path)?),
        }
        Ok(fs::write(&path, bytes)?)
    }
}

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match self.damage {
            Damage::Flip { at, bit } => write!(f, "bit {bit} of byte {at} of {file} flipped"),
            Damage::Zero { at } => write!(f, "4 KiB zeroed at {at} of {file}"),
            Damage::Truncate { length } => write!(f, "{file} truncated to {length} bytes"),
            Damage::Delete => write!(f, "{file} deleted"),
        }
    }
}

/// All files under a directory, relative to it, in order.
///
/// # Errors
/// If it cannot be read.
pub fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    fn collect(root: &Path, below: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
        for entry in fs::read_dir(root.join(below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                collect(root, &path, into)?;
            } else {
                into.push(path);
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    collect(directory, Path::new(""), &mut found)?;
    found.sort();
    Ok(found)
}

/// Makes `to` a copy of the directory `from`, whatever was there.
///
/// # Errors
/// If something cannot be read or written.
pub fn replace_tree(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("could not remove {}", to.display()))?;
    }
    copy_tree(from, to)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
