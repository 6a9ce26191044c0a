//! The last known good copy: the state of a while ago in plain files, for the case that the database is damaged while
//! the log is away.
//!
//! | file | content |
//! |---|---|
//! | `good/chunks/<hash>` | a piece of a leaf of the state's tree, zstd |
//! | `good/manifest` | BLAKE3 of the rest; `SlG` value: cursor, sum, number of entities, list of leaves |
//! | `good/manifest.old` | the manifest before that |
//!
//! Pieces are named by their content, so a refresh writes only what changed. A manifest is written when all its pieces
//! are on disk; pieces that neither manifest names are removed then.

use super::disk::Disk;
use super::record::{open_file, seal_file};
use super::view::View;
use super::{Store, StoreError, io_error};
use crate::planted::{Bug, planted};
use serde::{Deserialize, Serialize};
use sluice_schema::chunk::{Child, Entities, PIECE_BYTES_MAX, Tree, encode_leaf};
use sluice_schema::codec::Format;
use sluice_schema::digest::Accumulator;
use sluice_schema::entity::{Entry, Key};
use sluice_schema::hash::Hash32;
use sluice_schema::version::Cursor;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How old the copy may become, if anything has changed.
pub const GOOD_INTERVAL: Duration = Duration::from_secs(600);
/// How many changes of entities it may miss.
pub const GOOD_CHANGES_MAX: u64 = 10_000;

/// The manifests, the newest first.
pub(super) const MANIFESTS: [&str; 2] = ["good/manifest", "good/manifest.old"];
const CHUNKS: &str = "good/chunks";
const FORMAT: Format = Format {
    magic: *b"SlG",
    version: 1,
};
const ZSTD_LEVEL: i32 = 3;

/// What the copy holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) cursor: Cursor,
    pub(super) sum: Accumulator,
    pub(super) entities: u64,
    pub(super) leaves: Vec<Child>,
}

/// When the copy is to be refreshed.
#[derive(Debug)]
pub(super) struct Schedule {
    progress: Arc<Mutex<Progress>>,
    /// Changes of entities since the last refresh was begun.
    changes: u64,
    /// Whether another state was taken up since.
    loaded: bool,
    /// When that was; at first, when this was first asked.
    since: Option<Instant>,
}

#[derive(Debug)]
struct Progress {
    /// What the newest manifest holds.
    cursor: Option<Cursor>,
    running: bool,
}

impl Schedule {
    /// `cursor`: what the newest manifest holds.
    pub(super) fn new(cursor: Option<Cursor>) -> Self {
        Self {
            progress: Arc::new(Mutex::new(Progress {
                cursor,
                running: false,
            })),
            changes: 0,
            loaded: false,
            since: None,
        }
    }

    pub(super) fn note(&mut self, changes: usize) {
        self.changes = self.changes.saturating_add(changes as u64);
    }

    pub(super) fn note_load(&mut self) {
        self.loaded = true;
    }

    fn is_due(&mut self, held: Cursor, now: Instant) -> bool {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if progress.running || progress.cursor.unwrap_or_default() == held {
            return false;
        }
        // The first copy is not waited for, but one that failed is not tried again and again.
        if progress.cursor.is_none() && self.since.is_none() {
            return true;
        }
        let since = *self.since.get_or_insert(now);
        self.loaded
            || self.changes >= GOOD_CHANGES_MAX
            || now.saturating_duration_since(since) >= GOOD_INTERVAL
    }

    fn begin(&mut self, now: Instant) -> Running {
        (self.changes, self.loaded, self.since) = (0, false, Some(now));
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.running = true;
        drop(progress);
        Running(self.progress.clone())
    }
}

/// A refresh under way; ends when dropped.
#[derive(Debug)]
struct Running(Arc<Mutex<Progress>>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut progress = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        progress.running = false;
    }
}

/// A refresh of the last known good copy, to be run on a thread of its own.
#[derive(Debug)]
pub struct Refresh {
    disk: Arc<dyn Disk>,
    view: View,
    tree: Tree,
    running: Running,
}

/// What a refresh did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Refreshed {
    /// Pieces written.
    pub written: u64,
    /// Pieces removed.
    pub removed: u64,
}

impl Store {
    /// Whether the last known good copy should be refreshed: after a load, after [`GOOD_CHANGES_MAX`] changes, or when it is
    /// [`GOOD_INTERVAL`] old and something has changed. Not while a refresh is under way.
    pub fn good_due(&mut self, now: Instant) -> bool {
        self.good.is_due(self.held.cursor, now)
    }

    /// Begins a refresh of the last known good copy with what is held now.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn refresh_good(&mut self, now: Instant) -> Result<Refresh, StoreError> {
        let running = self.good.begin(now);
        Ok(Refresh {
            disk: self.disk.clone(),
            tree: self.tree()?.clone(),
            view: self.view(),
            running,
        })
    }
}

impl Refresh {
    /// Writes what is new, then the manifest, then removes what is not used any more.
    ///
    /// # Errors
    /// If the store cannot be read or the disk refuses; the copy before is still whole then.
    pub fn run(self) -> Result<Refreshed, StoreError> {
        let disk = &*self.disk;
        let known = disk.list(CHUNKS).map_err(io_error("list the copy of"))?;
        let known: BTreeSet<String> = known.into_iter().collect();
        let written = self.write_missing(&known)?;
        let manifest = Manifest {
            cursor: self.view.cursor(),
            sum: self.view.sum().clone(),
            entities: self.view.len(),
            leaves: self.tree.leaves().to_vec(),
        };
        let [newest, old] = MANIFESTS;
        let previous = read_manifest(disk, newest).ok().flatten();
        if let Some(previous) = previous.filter(|previous| previous.cursor != manifest.cursor) {
            disk.replace(old, &seal_file(FORMAT, &previous))
                .map_err(io_error("copy"))?;
        }
        disk.replace(newest, &seal_file(FORMAT, &manifest))
            .map_err(io_error("copy"))?;
        let removed = remove_unused(disk, &manifest)?;
        let mut progress = self
            .running
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        progress.cursor = Some(manifest.cursor);
        Ok(Refreshed { written, removed })
    }

    /// Writes the pieces of leaves that are not all `known`.
    fn write_missing(&self, known: &BTreeSet<String>) -> Result<u64, StoreError> {
        let missing = |leaf: &&Child| {
            leaf.pieces
                .iter()
                .any(|hash| !known.contains(&hash.to_string()))
        };
        let mut written = 0;
        for leaf in self.tree.leaves().iter().filter(missing) {
            let count = usize::try_from(leaf.entities).unwrap_or(usize::MAX);
            let entities: Vec<_> = self
                .view
                .entities_from(Some(&leaf.first))
                .take(count)
                .collect::<Result<_, _>>()?;
            let content = encode_leaf(&entities);
            for (piece, hash) in content.chunks(PIECE_BYTES_MAX).zip(&leaf.pieces) {
                if Hash32::of(piece) != *hash {
                    let what = "the tree is not that of what the store holds";
                    return Err(StoreError::Damaged(what.into()));
                }
                let packed = zstd::bulk::compress(piece, ZSTD_LEVEL).map_err(io_error("copy"))?;
                self.disk
                    .replace(&chunk_file(*hash), &packed)
                    .map_err(io_error("copy"))?;
                written += 1;
            }
        }
        Ok(written)
    }
}

/// Removes the pieces that neither manifest names.
fn remove_unused(disk: &dyn Disk, manifest: &Manifest) -> Result<u64, StoreError> {
    let old = read_manifest(disk, MANIFESTS[1]).ok().flatten();
    let leaves = manifest
        .leaves
        .iter()
        .chain(old.iter().flat_map(|old| &old.leaves));
    let used: BTreeSet<String> = leaves
        .flat_map(|leaf| leaf.pieces.iter().map(ToString::to_string))
        .collect();
    let mut removed = 0;
    for name in disk.list(CHUNKS).map_err(io_error("list the copy of"))? {
        if !used.contains(&name) {
            disk.remove(&format!("{CHUNKS}/{name}"))
                .map_err(io_error("copy"))?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn chunk_file(hash: Hash32) -> String {
    format!("{CHUNKS}/{hash}")
}

/// What the newest manifest holds, if there is one that can be read.
pub(super) fn newest(disk: &dyn Disk) -> Option<Cursor> {
    let manifest = read_manifest(disk, MANIFESTS[0]).ok().flatten()?;
    Some(manifest.cursor)
}

/// Whether there is a copy all of which can be read.
pub(super) fn is_usable(disk: &dyn Disk) -> bool {
    MANIFESTS
        .iter()
        .any(|file| match read_manifest(disk, file) {
            Ok(Some(manifest)) => {
                let mut leaves = manifest.leaves.iter();
                leaves.all(|leaf| read_leaf(disk, leaf).is_ok())
            }
            Ok(None) | Err(_) => false,
        })
}

/// A manifest; `None` if there is none. Not being able to read it is damage: it is there for the worst case.
pub(super) fn read_manifest(disk: &dyn Disk, file: &str) -> Result<Option<Manifest>, StoreError> {
    match disk.read(file) {
        Ok(Some(bytes)) => open_file(FORMAT, file, &bytes).map(Some),
        Ok(None) => Ok(None),
        Err(error) => Err(StoreError::Damaged(error.to_string())),
    }
}

/// The entities of a leaf, verified. A piece that is damaged is removed, so that the next refresh writes it again.
pub(super) fn read_leaf(disk: &dyn Disk, leaf: &Child) -> Result<Vec<(Key, Entry)>, StoreError> {
    let mut content = Vec::new();
    for hash in &leaf.pieces {
        let file = chunk_file(*hash);
        let packed = match disk.read(&file) {
            Ok(Some(packed)) => packed,
            Ok(None) => return Err(StoreError::Damaged(format!("'{file}' is missing"))),
            Err(error) => return Err(StoreError::Damaged(format!("'{file}': {error}"))),
        };
        match zstd::bulk::decompress(&packed, PIECE_BYTES_MAX) {
            Ok(piece) if Hash32::of(&piece) == *hash || planted(Bug::GoodUnverified) => {
                content.extend_from_slice(&piece)
            }
            Ok(_) | Err(_) => {
                if let Err(error) = disk.remove(&file) {
                    tracing::warn!(%error, file, "could not remove a damaged file");
                }
                return Err(StoreError::Damaged(format!("'{file}' is damaged")));
            }
        }
    }
    if planted(Bug::GoodUnverified) {
        let entities = sluice_schema::chunk::decode_leaf(&content);
        return entities.map_err(|error| StoreError::Damaged(error.to_string()));
    }
    leaf.open_leaf(&content)
        .map_err(|error| StoreError::Damaged(error.to_string()))
}
