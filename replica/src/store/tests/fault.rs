//! A disk in memory that stops at the n-th operation, as when the process is killed or power is lost then.

use crate::store::disk::{Database, Disk, Pair, Write};
use crate::store::{GOOD, StoreError};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Clone, Debug, Default)]
pub(super) struct FaultDisk(Arc<Mutex<Inner>>);

#[derive(Clone, Debug, Default)]
pub(super) struct Inner {
    operations: u64,
    stop_at: Option<u64>,
    databases: BTreeMap<String, Stored>,
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// As they are after power loss.
    durable: BTreeMap<String, Vec<u8>>,
    bytes_on_disk: u64,
    asides: u64,
}

#[derive(Clone, Debug, Default)]
struct Stored {
    durable: Content,
    /// Batches since the last sync.
    batches: Vec<Vec<Write>>,
}

/// What the end takes along.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Crash {
    /// The process is killed; this many eighths of the batches that were not synced have left it.
    Kill(usize),
    /// Power is lost.
    Power,
}

pub(super) const CRASHES: [Crash; 4] =
    [Crash::Kill(0), Crash::Kill(4), Crash::Kill(8), Crash::Power];

impl Stored {
    fn content(&self, batches: usize) -> Content {
        let mut content = self.durable.clone();
        for (key, value) in self.batches.iter().take(batches).flatten() {
            match value {
                Some(value) => content.insert(key.clone(), value.clone()),
                None => content.remove(key),
            };
        }
        content
    }
}

impl FaultDisk {
    pub(super) fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// Refuses operation `number` from now and all after it.
    pub(super) fn stop_at(&self, number: u64) {
        let mut inner = self.0.lock().unwrap();
        inner.stop_at = Some(inner.operations + number);
    }

    pub(super) fn is_stopped(&self) -> bool {
        let inner = self.0.lock().unwrap();
        inner.stop_at.is_some_and(|at| inner.operations >= at)
    }

    pub(super) fn set_bytes_on_disk(&self, bytes: u64) {
        self.0.lock().unwrap().bytes_on_disk = bytes;
    }

    pub(super) fn asides(&self) -> u64 {
        self.0.lock().unwrap().asides
    }

    /// Changes what lies there behind the store's back.
    pub(super) fn edit<T>(&self, edit: impl FnOnce(&mut Inner) -> T) -> T {
        edit(&mut self.0.lock().unwrap())
    }

    /// What the next process finds.
    pub(super) fn after(&self, crash: Crash) -> Self {
        let inner = self.0.lock().unwrap().clone();
        let databases = inner.databases.iter().map(|(name, stored)| {
            let batches = match crash {
                Crash::Kill(eighths) => stored.batches.len() * eighths / 8,
                Crash::Power => 0,
            };
            let stored = Stored {
                durable: stored.content(batches),
                batches: Vec::new(),
            };
            (name.clone(), stored)
        });
        let files = match crash {
            Crash::Kill(_) => inner.files.clone(),
            Crash::Power => inner.durable.clone(),
        };
        Self(Arc::new(Mutex::new(Inner {
            operations: 0,
            stop_at: None,
            databases: databases.collect(),
            durable: files.clone(),
            files,
            ..inner
        })))
    }

    /// Counts an operation that changes something, and does it unless the disk has stopped.
    fn act<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> io::Result<T> {
        let mut inner = self.0.lock().unwrap();
        if inner.stop_at.is_some_and(|at| inner.operations >= at) {
            return Err(io::Error::other("the disk has stopped"));
        }
        inner.operations += 1;
        Ok(act(&mut inner))
    }
}

impl Inner {
    /// Flips a bit of a value in every database.
    pub(super) fn flip_value(&mut self) {
        for stored in self.databases.values_mut() {
            let mut content = stored.content(usize::MAX);
            if let Some(mut value) = content.first_entry() {
                value.get_mut()[20] ^= 1;
            }
            *stored = Stored {
                durable: content,
                batches: Vec::new(),
            };
        }
    }

    pub(super) fn lose_databases(&mut self) {
        self.databases.clear();
    }

    pub(super) fn database_names(&self) -> Vec<&str> {
        self.databases.keys().map(String::as_str).collect()
    }
}

impl Disk for FaultDisk {
    fn open_database(&self, name: &str) -> Result<Arc<dyn Database>, StoreError> {
        let known = self.0.lock().unwrap().databases.contains_key(name);
        if !known {
            self.act(|inner| inner.databases.entry(name.to_owned()).or_default().clone())
                .map_err(|source| StoreError::Io {
                    operation: "make",
                    source,
                })?;
        }
        Ok(Arc::new(FaultDatabase {
            disk: self.clone(),
            name: name.to_owned(),
        }))
    }

    fn remove_database(&self, name: &str) -> io::Result<()> {
        self.act(|inner| drop(inner.databases.remove(name)))
    }

    fn databases(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().unwrap().databases.keys().cloned().collect())
    }

    fn read(&self, file: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.0.lock().unwrap().files.get(file).cloned())
    }

    fn append(&self, file: &str, bytes: &[u8]) -> io::Result<()> {
        let appended = self.act(|inner| {
            let held = inner.files.entry(file.to_owned()).or_default();
            held.extend_from_slice(bytes);
        });
        if appended.is_err() && !self.is_stopped_for_long() {
            // Cut in half by the end.
            let mut inner = self.0.lock().unwrap();
            inner.operations += 1;
            let held = inner.files.entry(file.to_owned()).or_default();
            held.extend_from_slice(&bytes[..bytes.len() / 2]);
        }
        appended
    }

    fn truncate(&self, file: &str) -> io::Result<()> {
        self.act(|inner| {
            inner
                .files
                .get_mut(file)
                .map(Vec::clear)
                .unwrap_or_default()
        })
    }

    fn replace(&self, file: &str, bytes: &[u8]) -> io::Result<()> {
        self.act(|inner| {
            inner.files.insert(file.to_owned(), bytes.to_vec());
            inner.durable.insert(file.to_owned(), bytes.to_vec());
        })
    }

    fn remove(&self, file: &str) -> io::Result<()> {
        self.act(|inner| drop(inner.files.remove(file)))
    }

    fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        let inner = self.0.lock().unwrap();
        let below = inner.files.keys().filter_map(|file| {
            let name = match directory {
                "" => file.as_str(),
                _ => file.strip_prefix(directory)?.strip_prefix('/')?,
            };
            (!name.contains('/')).then(|| name.to_owned())
        });
        Ok(below.collect())
    }

    fn set_aside(&self) -> io::Result<PathBuf> {
        self.act(|inner| {
            inner.asides += 1;
            inner.databases.clear();
            inner.files.retain(|file, _| file.starts_with(GOOD));
            inner.durable.retain(|file, _| file.starts_with(GOOD));
            PathBuf::from("aside")
        })
    }
}

impl FaultDisk {
    fn is_stopped_for_long(&self) -> bool {
        let inner = self.0.lock().unwrap();
        inner.stop_at.is_some_and(|at| inner.operations > at)
    }
}

#[derive(Debug)]
struct FaultDatabase {
    disk: FaultDisk,
    name: String,
}

impl FaultDatabase {
    fn content(&self) -> Result<Content, StoreError> {
        let inner = self.disk.0.lock().unwrap();
        let stored = inner.databases.get(&self.name);
        stored
            .map(|stored| stored.content(usize::MAX))
            .ok_or_else(|| StoreError::Damaged("removed while it was read".into()))
    }

    fn act(
        &self,
        operation: &'static str,
        act: impl FnOnce(&mut Stored),
    ) -> Result<(), StoreError> {
        self.disk
            .act(|inner| inner.databases.get_mut(&self.name).map(act))
            .map_err(|source| StoreError::Io { operation, source })?
            .ok_or_else(|| StoreError::Damaged("removed while it was written".into()))
    }
}

impl Database for FaultDatabase {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.content()?.remove(key))
    }

    fn scan(&self, from: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        let mut content = self.content()?;
        Ok(content.split_off(from).into_iter().take(limit).collect())
    }

    fn apply(&self, batch: Vec<Write>) -> Result<(), StoreError> {
        self.act("write", |stored| stored.batches.push(batch))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.act("sync", |stored| {
            stored.durable = stored.content(usize::MAX);
            stored.batches.clear();
        })
    }

    fn bytes_on_disk(&self) -> u64 {
        self.disk.0.lock().unwrap().bytes_on_disk
    }
}
