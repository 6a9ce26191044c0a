//! The local store: a copy of the state on disk, and the cursor that says how far it goes.
//!
//! sled 0.34.7, used by the recipe that survived simulated power cuts (docs/decisions/0003): one tree, prefixed keys,
//! one `apply_batch` per change set with entities and cursor together, a checksum in every record, our own fsync of
//! sled's files where durability is claimed, opening under `catch_unwind`, and everything verified on opening. The
//! store can always be rebuilt from the log, so on any doubt it is moved aside.
//!
//! | key | value |
//! |---|---|
//! | `m` | format, checksum, MessagePack of cursor and sum |
//! | `e` kind `\0` workspace `\0` id (16 bytes) | format, checksum (16 bytes of BLAKE3 over key, version, body), version (8, big-endian), body |
//!
//! The bytes are persisted: formats are only added.

use serde::{Deserialize, Serialize};
use sluice_schema::codec::{self, Format};
use sluice_schema::digest::{Accumulator, Digest};
use sluice_schema::entity::{Body, Change, Entry, Id, Key, KindName, Workspace};
use sluice_schema::event::{Event, Mutations};
use sluice_schema::state::ApplyError;
use sluice_schema::version::{Cursor, Version};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use uuid::Uuid;

const FORMAT: u8 = 1;
const WITNESS_FORMAT: Format = Format {
    magic: *b"SlC",
    version: 1,
};
const META_KEY: &[u8] = b"m";
const ENTITY_PREFIX: u8 = b'e';
const CHECKSUM_BYTES: usize = 16;
const HEADER_BYTES: usize = 1 + CHECKSUM_BYTES + 8;
const CACHE_BYTES_MAX: u64 = 32 << 20;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or sled said no; what was asked for has not happened.
    #[error("could not {operation} the store")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What is on disk is not what was written.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// An event does not follow what the store holds.
    #[error("the event cannot be applied")]
    Apply(#[source] ApplyError),
}

#[derive(Serialize, Deserialize)]
struct Meta {
    cursor: Cursor,
    sum: Accumulator,
    entities: u64,
}

/// The local store.
#[derive(Debug)]
pub struct Store {
    db: sled::Db,
    directory: PathBuf,
    cursor: Cursor,
    sum: Accumulator,
    entities: u64,
    /// What has been staged since the last save: the entities as they are now.
    staged: BTreeMap<Key, Option<Entry>>,
    /// The cursor as of the last save.
    saved: Cursor,
}

/// A store after opening.
#[derive(Debug)]
pub struct Opened {
    /// The store; empty if it was new or damaged.
    pub store: Store,
    /// Every entity in it, ordered by key.
    pub entities: Vec<(Key, Entry)>,
    /// What was wrong with the one that was found, and where it lies now.
    pub moved_aside: Option<(String, PathBuf)>,
}

impl Store {
    /// Opens the store in `directory` and verifies all of it. A damaged one is moved aside, and an empty one opened.
    ///
    /// # Errors
    /// If the directory cannot be used at all.
    pub fn open(directory: &Path) -> Result<Opened, StoreError> {
        match Self::open_verified(directory) {
            Ok((store, entities)) => Ok(Opened {
                store,
                entities,
                moved_aside: None,
            }),
            Err(StoreError::Damaged(reason)) => {
                let aside = move_aside(directory).map_err(|source| StoreError::Io {
                    operation: "move aside",
                    source,
                })?;
                let (store, entities) = Self::open_verified(directory)?;
                Ok(Opened {
                    store,
                    entities,
                    moved_aside: Some((reason, aside)),
                })
            }
            Err(error @ (StoreError::Io { .. } | StoreError::Apply(_))) => Err(error),
        }
    }

    fn open_verified(directory: &Path) -> Result<(Self, Vec<(Key, Entry)>), StoreError> {
        let witness = read_witness(directory);
        let (db, loaded) = open_guarded(directory, |db| {
            let loaded = load(db)?;
            match witness {
                Some(witness) if loaded.meta.cursor.version < witness.version => {
                    let (found, was) = (loaded.meta.cursor.version, witness.version);
                    Err(StoreError::Damaged(format!(
                        "it holds version {found}, but version {was} has been on disk"
                    )))
                }
                Some(_) | None => Ok(loaded),
            }
        })?;
        let Loaded { meta, entities } = loaded;
        let store = Self {
            db,
            directory: directory.to_owned(),
            cursor: meta.cursor,
            sum: meta.sum,
            entities: meta.entities,
            staged: BTreeMap::new(),
            saved: meta.cursor,
        };
        Ok((store, entities))
    }

    /// What the store holds.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The digest of the entities.
    pub fn digest(&self) -> Digest {
        self.sum.digest()
    }

    /// How many entities there are.
    pub fn len(&self) -> u64 {
        self.entities
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entities == 0
    }

    /// One entity, verified.
    ///
    /// # Errors
    /// If it cannot be read or is damaged.
    pub fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        if let Some(staged) = self.staged.get(key) {
            return Ok(staged.clone());
        }
        let stored = entity_key(key);
        match self
            .db
            .get(&stored)
            .map_err(|error| sled_error("read", error))?
        {
            Some(value) => decode_entry(&stored, &value).map(Some),
            None => Ok(None),
        }
    }

    /// Applies events as one change set and saves it: all of them or none, and the cursor with them. Their mutations must
    /// be inline.
    ///
    /// # Errors
    /// If they do not follow the cursor or lead to another state than their author's; nothing has changed then. If they
    /// cannot be written; they are staged then.
    pub fn apply<'a>(
        &mut self,
        events: impl IntoIterator<Item = (&'a Event, Cursor)>,
    ) -> Result<Vec<Change>, StoreError> {
        let changes = self.stage(events)?;
        self.save()?;
        Ok(changes)
    }

    /// Applies events as [`Store::apply`] does, but leaves the writing to the next [`Store::save`]: sled's cost of a batch
    /// is many times that of the change in it. A process that ends before the save begins again before these events.
    ///
    /// # Errors
    /// If the events do not follow the cursor or lead to another state than their author's; nothing has changed then.
    pub fn stage<'a>(
        &mut self,
        events: impl IntoIterator<Item = (&'a Event, Cursor)>,
    ) -> Result<Vec<Change>, StoreError> {
        let mut cursor = self.cursor;
        let mut sum = self.sum.clone();
        let mut changes: BTreeMap<Key, Change> = BTreeMap::new();
        for (event, after) in events {
            let version = event.version();
            let fresh = cursor.version == Version::ZERO;
            if event.previous != cursor.version
                || event.previous_chain != cursor.chain
                || !(fresh || event.epoch == cursor.epoch)
            {
                let previous = event.previous;
                return Err(StoreError::Apply(ApplyError::OutOfOrder {
                    previous,
                    at: cursor.version,
                }));
            }
            let Mutations::Inline(mutations) = &event.mutations else {
                return Err(StoreError::Apply(ApplyError::Unresolved(version)));
            };
            for mutation in mutations {
                let key = mutation.key();
                let change = match changes.remove(&key) {
                    Some(change) => change,
                    None => {
                        let before = self.get(&key)?;
                        Change {
                            key: key.clone(),
                            after: before.clone(),
                            before,
                        }
                    }
                };
                if let Some(old) = &change.after {
                    sum.remove(&key, &old.body);
                }
                let after = mutation.body().map(|body| Entry {
                    version,
                    body: body.clone(),
                });
                if let Some(new) = &after {
                    sum.add(&key, &new.body);
                }
                changes.insert(key, Change { after, ..change });
            }
            let found = sum.digest();
            if found != event.digest {
                let expected = event.digest;
                return Err(StoreError::Apply(ApplyError::Diverged {
                    version,
                    expected,
                    found,
                }));
            }
            cursor = after;
        }
        let changes: Vec<Change> = changes.into_values().collect();
        for change in &changes {
            match (&change.before, &change.after) {
                (Some(_), None) => self.entities -= 1,
                (None, Some(_)) => self.entities += 1,
                (None, None) | (Some(_), Some(_)) => {}
            }
            self.staged.insert(change.key.clone(), change.after.clone());
        }
        (self.cursor, self.sum) = (cursor, sum);
        Ok(changes)
    }

    /// Makes the store hold exactly `entities` (ordered by key) at `cursor`, and tells what changed by that.
    ///
    /// # Errors
    /// If the store cannot be read or written.
    pub fn replace(
        &mut self,
        cursor: Cursor,
        entities: impl IntoIterator<Item = (Key, Entry)>,
    ) -> Result<Vec<Change>, StoreError> {
        self.save()?;
        let mut sum = Accumulator::default();
        let mut count = 0;
        let mut changes = Vec::new();
        let mut old = load(&self.db)?.entities.into_iter().peekable();
        for (key, entry) in entities {
            while let Some((gone, before)) = old.next_if(|(old, _)| *old < key) {
                changes.push(Change {
                    key: gone,
                    before: Some(before),
                    after: None,
                });
            }
            sum.add(&key, &entry.body);
            count += 1;
            let before = old
                .next_if(|(old, _)| *old == key)
                .map(|(_, before)| before);
            if before.as_ref() != Some(&entry) {
                changes.push(Change {
                    key,
                    before,
                    after: Some(entry),
                });
            }
        }
        changes.extend(old.map(|(key, before)| Change {
            key,
            before: Some(before),
            after: None,
        }));
        let staged = changes
            .iter()
            .map(|change| (change.key.clone(), change.after.clone()));
        self.staged = staged.collect();
        (self.cursor, self.sum, self.entities) = (cursor, sum, count);
        self.save()?;
        Ok(changes)
    }

    /// Writes what is staged, and the cursor with it, as one batch. Nothing is lost from the staging if that fails.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&mut self) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for (key, entry) in &self.staged {
            let key = entity_key(key);
            match entry {
                Some(entry) => batch.insert(&*key, encode_entry(&key, entry)),
                None => batch.remove(&*key),
            }
        }
        let meta = Meta {
            cursor: self.cursor,
            sum: self.sum.clone(),
            entities: self.entities,
        };
        batch.insert(META_KEY, encode_meta(&meta));
        self.db
            .apply_batch(batch)
            .map_err(|error| sled_error("write", error))?;
        self.staged.clear();
        self.saved = self.cursor;
        Ok(())
    }

    /// How many entities are staged.
    pub fn staged(&self) -> usize {
        self.staged.len()
    }

    /// What makes everything written so far survive power loss. Can be used from another thread.
    pub fn syncer(&self) -> Syncer {
        let saved = Some(self.saved);
        Syncer {
            saved,
            ..Syncer::new(self.db.clone(), &self.directory)
        }
    }
}

/// See [`Store::syncer`].
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
fn witness_path(directory: &Path) -> PathBuf {
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
fn read_witness(directory: &Path) -> Option<Cursor> {
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

fn open_sled(path: &Path) -> Result<sled::Db, StoreError> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES_MAX)
        .mode(sled::Mode::HighThroughput)
        .flush_every_ms(None);
    config.open().map_err(|error| opening_error("open", error))
}

/// While opening, all that is not the disk's refusal is damage.
fn opening_error(operation: &'static str, error: sled::Error) -> StoreError {
    if let sled::Error::Io(source) = error {
        StoreError::Io { operation, source }
    } else {
        StoreError::Damaged(error.to_string())
    }
}

struct Loaded {
    meta: Meta,
    entities: Vec<(Key, Entry)>,
}

/// Reads and verifies everything.
fn load(db: &sled::Db) -> Result<Loaded, StoreError> {
    let mut sum = Accumulator::default();
    let mut entities = Vec::new();
    let mut meta = None;
    for item in db.iter() {
        let (key, value) = item.map_err(|error| opening_error("read", error))?;
        if key.as_ref() == META_KEY {
            meta = Some(decode_meta(&value)?);
            continue;
        }
        let entry = decode_entry(&key, &value)?;
        let key = parse_entity_key(&key)
            .ok_or_else(|| StoreError::Damaged("a key is not an entity's".into()))?;
        sum.add(&key, &entry.body);
        entities.push((key, entry));
    }
    let meta = match meta {
        Some(meta) => meta,
        None if entities.is_empty() => Meta {
            cursor: Cursor::default(),
            sum: Accumulator::default(),
            entities: 0,
        },
        None => return Err(StoreError::Damaged("the cursor is missing".into())),
    };
    if meta.sum != sum || meta.entities != entities.len() as u64 {
        return Err(StoreError::Damaged(
            "the entities are not those of the cursor".into(),
        ));
    }
    Ok(Loaded { meta, entities })
}

fn move_aside(directory: &Path) -> io::Result<PathBuf> {
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

fn sled_error(operation: &'static str, error: sled::Error) -> StoreError {
    let source = if let sled::Error::Io(source) = error {
        source
    } else {
        io::Error::other(error)
    };
    StoreError::Io { operation, source }
}

fn entity_key(key: &Key) -> Vec<u8> {
    let (kind, workspace) = (
        key.kind.as_str().as_bytes(),
        key.workspace.as_str().as_bytes(),
    );
    let mut bytes = Vec::with_capacity(kind.len() + workspace.len() + 19);
    bytes.push(ENTITY_PREFIX);
    bytes.extend_from_slice(kind);
    bytes.push(0);
    bytes.extend_from_slice(workspace);
    bytes.push(0);
    bytes.extend_from_slice(key.id.0.as_bytes());
    bytes
}

fn parse_entity_key(bytes: &[u8]) -> Option<Key> {
    let rest = bytes.strip_prefix(&[ENTITY_PREFIX])?;
    let (names, id) = rest.split_at_checked(rest.len().checked_sub(16)?)?;
    let names = names.strip_suffix(&[0])?;
    let at = names.iter().position(|byte| *byte == 0)?;
    Some(Key {
        kind: KindName::parse(std::str::from_utf8(&names[..at]).ok()?)?,
        workspace: Workspace::parse(std::str::from_utf8(&names[at + 1..]).ok()?)?,
        id: Id(Uuid::from_slice(id).ok()?),
    })
}

fn checksum(key: &[u8], value: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    let mut short = [0; CHECKSUM_BYTES];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM_BYTES]);
    short
}

fn seal(key: &[u8], parts: [&[u8]; 2]) -> Vec<u8> {
    let value = parts.concat();
    let mut bytes = Vec::with_capacity(value.len() + 1 + CHECKSUM_BYTES);
    bytes.push(FORMAT);
    bytes.extend_from_slice(&checksum(key, &value));
    bytes.extend_from_slice(&value);
    bytes
}

fn unseal<'a>(key: &[u8], bytes: &'a [u8]) -> Result<&'a [u8], StoreError> {
    let damaged = |what: &str| StoreError::Damaged(format!("{what} at key {}", hex(key)));
    let (header, value) = bytes
        .split_at_checked(1 + CHECKSUM_BYTES)
        .ok_or_else(|| damaged("a record is too short"))?;
    if header[0] != FORMAT {
        return Err(damaged("a record has an unknown format"));
    }
    match checksum(key, value) == header[1..] {
        true => Ok(value),
        false => Err(damaged("a checksum does not match")),
    }
}

fn encode_entry(key: &[u8], entry: &Entry) -> Vec<u8> {
    seal(key, [&entry.version.0.to_be_bytes(), entry.body.as_bytes()])
}

fn decode_entry(key: &[u8], bytes: &[u8]) -> Result<Entry, StoreError> {
    let value = unseal(key, bytes)?;
    let (version, body) = value.split_first_chunk::<8>().ok_or_else(|| {
        StoreError::Damaged(format!(
            "{} bytes are too short for an entity",
            HEADER_BYTES
        ))
    })?;
    Ok(Entry {
        version: Version(u64::from_be_bytes(*version)),
        body: Body::from_bytes(body),
    })
}

fn encode_meta(meta: &Meta) -> Vec<u8> {
    let body = rmp_serde::to_vec_named(meta).expect("a cursor and a sum encode into memory");
    seal(META_KEY, [&body, &[]])
}

fn decode_meta(bytes: &[u8]) -> Result<Meta, StoreError> {
    rmp_serde::from_slice(unseal(META_KEY, bytes)?)
        .map_err(|error| StoreError::Damaged(format!("the cursor does not decode: {error}")))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
