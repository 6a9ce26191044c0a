//! Chunks and roots in the database.

use super::format::{
    ROOT_PREFIX, chunk_key, chunk_prefix, decode_stored, parse_chunk_key, parse_root_key,
};
use super::writer::{Change, Job};
use super::{Embedded, unavailable};
use crate::log::{
    ChunkUse, Chunks, LogError, REFRESH_AFTER, StoredRoot, check_chunk, check_root,
    check_root_name, compress, decompress, is_fresh,
};
use crate::process::now;
use async_trait::async_trait;
use bytes::Bytes;
use sluice_schema::hash::Hash32;
use sluice_schema::version::Time;
use std::collections::BTreeSet;
use tokio::sync::oneshot;

impl Embedded {
    /// Has the writer change something; says whether anything changed.
    pub(super) async fn change(&self, change: Change) -> Result<bool, LogError> {
        let (done, answer) = oneshot::channel();
        let gone = || LogError::Unavailable("the embedded log has stopped".into());
        let job = Job::Change { change, done };
        self.jobs.send(job).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// A chunk's content and when it was stored.
    fn chunk(&self, part: ChunkUse, hash: Hash32) -> Result<Option<(Time, Bytes)>, LogError> {
        let key = chunk_key(part, hash);
        let found = self.db.get(key).map_err(|error| unavailable(&error))?;
        let Some(value) = found else {
            return Ok(None);
        };
        let damaged = || LogError::Unusable(format!("chunk {hash} is damaged on disk"));
        let (stored, compressed) = decode_stored(&key, &value).ok_or_else(damaged)?;
        Ok(Some((stored, decompress(hash, compressed)?)))
    }
}

#[async_trait]
impl Chunks for Embedded {
    async fn put(&self, part: ChunkUse, hash: Hash32, content: &[u8]) -> Result<(), LogError> {
        check_chunk(hash, content)?;
        if let Ok(Some((stored, _))) = self.chunk(part, hash)
            && is_fresh(stored, now(), REFRESH_AFTER)
        {
            return Ok(());
        }
        let key = chunk_key(part, hash);
        let compressed = compress(content);
        let put = Change::PutChunk { key, compressed };
        self.change(put).await.map(drop)
    }

    async fn get(&self, part: ChunkUse, hash: Hash32) -> Result<Option<Bytes>, LogError> {
        let found = self.chunk(part, hash)?;
        Ok(found.map(|(_, content)| content))
    }

    async fn put_root(&self, name: &str, root: &[u8]) -> Result<(), LogError> {
        check_root(name, root)?;
        let (name, root) = (name.to_owned(), root.to_vec());
        self.change(Change::PutRoot { name, root }).await.map(drop)
    }

    async fn roots(&self) -> Result<Vec<StoredRoot>, LogError> {
        let mut roots = Vec::new();
        for item in self.db.scan_prefix([ROOT_PREFIX]) {
            let (key, value) = item.map_err(|error| unavailable(&error))?;
            let name = parse_root_key(&key).unwrap_or_default().to_owned();
            let (stored, root) = decode_stored(&key, &value).ok_or_else(|| {
                LogError::Unusable(format!("root '{name}' is damaged on disk: remove it"))
            })?;
            let root = Bytes::copy_from_slice(root);
            roots.push(StoredRoot { name, root, stored });
        }
        roots.sort_by_key(|root| root.stored);
        Ok(roots)
    }

    async fn remove_root(&self, name: &str) -> Result<(), LogError> {
        check_root_name(name)?;
        let name = name.to_owned();
        self.change(Change::RemoveRoot { name }).await.map(drop)
    }

    async fn list(&self, part: ChunkUse) -> Result<BTreeSet<Hash32>, LogError> {
        let mut hashes = BTreeSet::new();
        for key in self.db.scan_prefix([chunk_prefix(part)]).keys() {
            let key = key.map_err(|error| unavailable(&error))?;
            hashes.extend(parse_chunk_key(&key));
        }
        Ok(hashes)
    }

    async fn remove(
        &self,
        part: ChunkUse,
        hash: Hash32,
        stored_before: Time,
    ) -> Result<bool, LogError> {
        let key = chunk_key(part, hash);
        self.change(Change::RemoveChunk { key, stored_before })
            .await
    }
}
