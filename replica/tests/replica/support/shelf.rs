//! A chunk store in memory, with a clock that is set and faults that are asked for.

use async_trait::async_trait;
use bytes::Bytes;
use sluice_replica::log::{ChunkUse, Chunks, LogError, REFRESH_AFTER, StoredRoot};
use sluice_schema::hash::Hash32;
use sluice_schema::version::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;

/// What is wrong with a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Nobody has it.
    Lost,
    /// A bit of it is another, and the store has not noticed.
    Flipped,
}

/// The store.
#[derive(Debug)]
pub(crate) struct Shelf {
    inner: Mutex<Inner>,
    /// How often the roots were asked for.
    asked: watch::Sender<usize>,
}

#[derive(Debug)]
struct Inner {
    now: Time,
    chunks: BTreeMap<(ChunkUse, Hash32), (Time, Bytes)>,
    roots: BTreeMap<String, (Time, Bytes)>,
    faults: BTreeMap<Hash32, Fault>,
    /// How many chunks may still be fetched before the store is out of reach.
    fetches_left: Option<usize>,
    fetched: Vec<Hash32>,
    written: Vec<Hash32>,
}

impl Shelf {
    pub(crate) fn new() -> Self {
        let inner = Inner {
            now: Time(1_700_000_000_000_000),
            chunks: BTreeMap::new(),
            roots: BTreeMap::new(),
            faults: BTreeMap::new(),
            fetches_left: None,
            fetched: Vec::new(),
            written: Vec::new(),
        };
        let asked = watch::Sender::new(0);
        let inner = Mutex::new(inner);
        Self { inner, asked }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// What the store's clock says.
    pub(crate) fn now(&self) -> Time {
        self.lock().now
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.lock().now.0 += u64::try_from(time.as_micros()).unwrap();
    }

    pub(crate) fn spoil(&self, hash: Hash32, fault: Fault) {
        self.lock().faults.insert(hash, fault);
    }

    /// From now on so many chunks can be fetched, and no more.
    pub(crate) fn fail_after(&self, fetches: usize) {
        self.lock().fetches_left = Some(fetches);
    }

    /// Ends all faults.
    pub(crate) fn heal(&self) {
        let mut inner = self.lock();
        inner.faults.clear();
        inner.fetches_left = None;
    }

    /// The chunks of snapshots fetched since this was last asked.
    pub(crate) fn fetched(&self) -> Vec<Hash32> {
        std::mem::take(&mut self.lock().fetched)
    }

    /// The chunks of snapshots written since this was last asked; those that were there and young are not.
    pub(crate) fn written(&self) -> Vec<Hash32> {
        std::mem::take(&mut self.lock().written)
    }

    /// Waits until the roots have been asked for once more.
    pub(crate) async fn until_asked(&self, before: usize) {
        let mut asked = self.asked.subscribe();
        asked.wait_for(|asked| *asked > before).await.unwrap();
    }

    pub(crate) fn times_asked(&self) -> usize {
        *self.asked.borrow()
    }
}

#[async_trait]
impl Chunks for Shelf {
    async fn put(&self, part: ChunkUse, hash: Hash32, content: &[u8]) -> Result<(), LogError> {
        assert_eq!(Hash32::of(content), hash);
        let mut inner = self.lock();
        let now = inner.now;
        let young = |stored: Time| Duration::from_micros(now.0 - stored.0) < REFRESH_AFTER;
        let whole = inner.faults.remove(&hash).is_none();
        if whole
            && let Some((stored, _)) = inner.chunks.get(&(part, hash))
            && young(*stored)
        {
            return Ok(());
        }
        if part == ChunkUse::Snapshot {
            inner.written.push(hash);
        }
        let content = Bytes::copy_from_slice(content);
        inner.chunks.insert((part, hash), (now, content));
        Ok(())
    }

    async fn get(&self, part: ChunkUse, hash: Hash32) -> Result<Option<Bytes>, LogError> {
        // Others get their turn, as with a store that is somewhere else.
        tokio::task::yield_now().await;
        let mut inner = self.lock();
        if part == ChunkUse::Snapshot {
            inner.fetched.push(hash);
        }
        match &mut inner.fetches_left {
            Some(0) => return Err(LogError::Unavailable("the test says so".into())),
            Some(left) => *left -= 1,
            None => {}
        }
        let found = inner.chunks.get(&(part, hash)).cloned();
        let found = found.map(|(_, content)| content);
        Ok(match inner.faults.get(&hash) {
            Some(Fault::Lost) => None,
            Some(Fault::Flipped) => found.map(|content| {
                let mut content = content.to_vec();
                let middle = content.len() / 2;
                content[middle] ^= 1;
                content.into()
            }),
            None => found,
        })
    }

    async fn put_root(&self, name: &str, root: &[u8]) -> Result<(), LogError> {
        let mut inner = self.lock();
        // Told apart by their times, as in any store.
        inner.now.0 += 1;
        let stored = (inner.now, Bytes::copy_from_slice(root));
        inner.roots.insert(name.to_owned(), stored);
        Ok(())
    }

    async fn roots(&self) -> Result<Vec<StoredRoot>, LogError> {
        let mut roots: Vec<StoredRoot> = self
            .lock()
            .roots
            .iter()
            .map(|(name, (stored, root))| StoredRoot {
                name: name.clone(),
                root: root.clone(),
                stored: *stored,
            })
            .collect();
        roots.sort_by_key(|root| root.stored);
        self.asked.send_modify(|asked| *asked += 1);
        Ok(roots)
    }

    async fn remove_root(&self, name: &str) -> Result<(), LogError> {
        self.lock().roots.remove(name);
        Ok(())
    }

    async fn list(&self, part: ChunkUse) -> Result<BTreeSet<Hash32>, LogError> {
        tokio::task::yield_now().await;
        let inner = self.lock();
        let lost = |hash: &Hash32| inner.faults.get(hash) == Some(&Fault::Lost);
        let there = inner
            .chunks
            .keys()
            .filter(|(of, hash)| *of == part && !lost(hash));
        Ok(there.map(|(_, hash)| *hash).collect())
    }

    async fn remove(
        &self,
        part: ChunkUse,
        hash: Hash32,
        stored_before: Time,
    ) -> Result<bool, LogError> {
        tokio::task::yield_now().await;
        let mut inner = self.lock();
        let old = inner
            .chunks
            .get(&(part, hash))
            .is_some_and(|(stored, _)| *stored < stored_before);
        if old {
            inner.chunks.remove(&(part, hash));
        }
        Ok(old)
    }
}
