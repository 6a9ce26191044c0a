//! Pinned keys: those an operator gives a program, in files or in memory.

use super::public::{PublicKey, PublicLine, Role};
use super::ring::RING_BYTES_MAX;
use super::signing::SigningKey;
use super::trusted::{TrustedKeys, public_files};
use super::{KeyError, file_error};
use crate::files::directory_of;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The name of the keyring's file, in a directory of pinned keys and in a data directory.
pub(super) const RING_FILE: &str = "keyring";

/// Where pinned keys come from.
#[derive(Clone, Debug)]
pub struct Pinned {
    origin: Origin,
    own: Option<Own>,
}

#[derive(Clone, Debug)]
enum Origin {
    Keys(TrustedKeys),
    Files { path: PathBuf, may_be_empty: bool },
}

/// A control plane's own key.
#[derive(Clone, Debug)]
struct Own {
    key: PublicKey,
    /// The file that lies beside the signing key. The program has made it, so that it pins nothing by itself.
    file: PathBuf,
}

/// What there is at one moment.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) keys: TrustedKeys,
    /// The keyring's file beside the keys.
    pub(super) ring: Option<Vec<u8>>,
}

/// What the files look like from outside; differs if one of them has changed.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Look(Vec<(PathBuf, Option<Stamp>)>);

#[derive(PartialEq, Eq, Debug)]
struct Stamp {
    modified: (i64, i64),
    changed: (i64, i64),
    bytes: u64,
    inode: u64,
}

impl Pinned {
    /// These keys, which do not change.
    pub fn keys(keys: TrustedKeys) -> Self {
        Self {
            origin: Origin::Keys(keys),
            own: None,
        }
    }

    /// The keys of a `.pub` file; or of all `.pub` files of a directory, and the file `keyring` there.
    pub fn files(path: impl Into<PathBuf>) -> Self {
        let (path, may_be_empty) = (path.into(), false);
        Self {
            origin: Origin::Files { path, may_be_empty },
            own: None,
        }
    }

    /// The same for the directory of a control plane's own key: no public key there but its own is the usual case.
    pub fn beside(signing_key: &Path) -> Self {
        let (path, may_be_empty) = (directory_of(signing_key).to_owned(), true);
        Self {
            origin: Origin::Files { path, may_be_empty },
            own: None,
        }
    }

    /// Together with a control plane's own key, whose file is `path`: it is believed while no root is pinned. With a root
    /// it must be in the ring, or pinned by another file than the `.pub` that was made with it: otherwise a control plane
    /// would append what nobody else believes.
    #[must_use]
    pub fn with_own(self, key: &SigningKey, path: &Path) -> Self {
        let (key, file) = (key.public_key(), path.with_extension("pub"));
        Self {
            own: Some(Own { key, file }),
            ..self
        }
    }

    /// Reads what there is.
    pub(super) fn load(&self) -> Result<Found, KeyError> {
        let mut own_line = None;
        let (mut keys, ring) = match &self.origin {
            Origin::Keys(fixed) => (fixed.clone(), None),
            Origin::Files { path, may_be_empty } => {
                let mut lines = Vec::new();
                for file in public_files(path)? {
                    let of_own_file = self.own.as_ref().filter(|own| same_file(&own.file, &file));
                    for line in PublicLine::load(&file)? {
                        match of_own_file {
                            Some(own) if own.key == line.key => own_line = Some(line),
                            Some(_) | None => lines.push(line),
                        }
                    }
                }
                if lines.is_empty() && own_line.is_none() && !may_be_empty {
                    return Err(KeyError::Empty { path: path.clone() });
                }
                (TrustedKeys::of(lines), self.read_ring()?)
            }
        };
        if let Some(own) = &self.own
            && !keys.has_root()
        {
            let unnamed = || PublicLine {
                role: Role::ControlPlane,
                key: own.key,
                name: "own".to_owned(),
            };
            keys = keys.and(&TrustedKeys::of([own_line.unwrap_or_else(unnamed)]));
        }
        Ok(Found { keys, ring })
    }

    fn read_ring(&self) -> Result<Option<Vec<u8>>, KeyError> {
        let Some(path) = self.ring_path() else {
            return Ok(None);
        };
        read_bounded(&path).map_err(file_error(path))
    }

    /// Where the keyring's file may lie.
    fn ring_path(&self) -> Option<PathBuf> {
        match &self.origin {
            Origin::Files { path, .. } if path.is_dir() => Some(path.join(RING_FILE)),
            Origin::Files { .. } | Origin::Keys(_) => None,
        }
    }

    /// What the files look like now.
    pub(super) fn look(&self) -> Result<Look, KeyError> {
        let mut files = match &self.origin {
            Origin::Files { path, .. } => public_files(path)?,
            Origin::Keys(_) => Vec::new(),
        };
        files.extend(self.ring_path());
        let stamped = files.into_iter().map(|file| {
            let stamp = fs::metadata(&file).ok().map(|found| Stamp {
                modified: (found.mtime(), found.mtime_nsec()),
                changed: (found.ctime(), found.ctime_nsec()),
                bytes: found.len(),
                inode: found.ino(),
            });
            (file, stamp)
        });
        Ok(Look(stamped.collect()))
    }
}

impl From<TrustedKeys> for Pinned {
    fn from(keys: TrustedKeys) -> Self {
        Self::keys(keys)
    }
}

impl From<&Path> for Pinned {
    fn from(path: &Path) -> Self {
        Self::files(path)
    }
}

/// The bytes of a keyring's file, or one more than a ring may have; `None` if it is not there.
pub(super) fn read_bounded(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    file.take(RING_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Whether two paths name one file.
fn same_file(one: &Path, other: &Path) -> bool {
    one == other
        || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}
