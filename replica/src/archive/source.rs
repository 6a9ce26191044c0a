//! An archive as a log and a chunk store that can only be read.

use super::Archive;
use super::format::decode_chunk;
use crate::log::{
    Append, AppendError, Bounds, ChunkUse, Chunks, Durability, Interest, Log, LogError,
    PAGE_BYTES_MAX, PAGE_RECORDS_MAX, Page, Record, StoredRoot, TailItem,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use sluice_schema::hash::Hash32;
use sluice_schema::version::{Time, Version};
use std::collections::BTreeSet;
use std::io;

#[async_trait]
impl Log for Archive {
    async fn append(&self, _: Version, _: Vec<Append>) -> Result<(), AppendError> {
        Err(AppendError::Refused(read_only()))
    }

    async fn read(&self, from: Version) -> Result<Page, LogError> {
        let mut page = Page::default();
        let mut bytes = 0;
        self.records_from(from, |record| {
            if page.records.len() >= PAGE_RECORDS_MAX || bytes >= PAGE_BYTES_MAX {
                page.more = true;
                return false;
            }
            bytes += record.event.len();
            page.records.push(record);
            true
        })
        .map_err(|error| unusable(&error))?;
        Ok(page)
    }

    async fn get(&self, version: Version) -> Result<Option<Record>, LogError> {
        let mut found = None;
        self.records_from(version, |record| {
            found = (record.version == version).then_some(record);
            false
        })
        .map_err(|error| unusable(&error))?;
        Ok(found)
    }

    async fn bounds(&self) -> Result<Bounds, LogError> {
        let header = self.header();
        Ok(Bounds {
            first: header.first,
            last: header.last,
        })
    }

    async fn trim(&self, _: Version) -> Result<(), LogError> {
        Err(read_only())
    }

    async fn tail(&self, _: Interest) -> Result<BoxStream<'static, TailItem>, LogError> {
        Err(read_only())
    }

    async fn announce(&self, _: Bytes) -> Result<(), LogError> {
        Err(read_only())
    }

    async fn report(&self, _: &str, _: Bytes) -> Result<(), LogError> {
        Err(read_only())
    }

    async fn durability(&self) -> Durability {
        Durability::Unknown("it is an archive".into())
    }
}

#[async_trait]
impl Chunks for Archive {
    async fn put(&self, _: ChunkUse, _: Hash32, _: &[u8]) -> Result<(), LogError> {
        Err(read_only())
    }

    async fn get(&self, part: ChunkUse, hash: Hash32) -> Result<Option<Bytes>, LogError> {
        let Some(place) = self.chunks.get(&(part, hash)) else {
            return Ok(None);
        };
        let frame = self.frame(*place).map_err(|error| unusable(&error))?;
        let damaged = || LogError::Unusable(format!("chunk {hash} in the archive is damaged"));
        decode_chunk(&frame.payload).map(Some).ok_or_else(damaged)
    }

    async fn put_root(&self, _: &str, _: &[u8]) -> Result<(), LogError> {
        Err(read_only())
    }

    async fn roots(&self) -> Result<Vec<StoredRoot>, LogError> {
        Ok(self.roots().to_vec())
    }

    async fn remove_root(&self, _: &str) -> Result<(), LogError> {
        Err(read_only())
    }

    async fn list(&self, part: ChunkUse) -> Result<BTreeSet<Hash32>, LogError> {
        let all = self.chunks.keys();
        Ok(all
            .filter(|(of, _)| *of == part)
            .map(|(_, hash)| *hash)
            .collect())
    }

    async fn remove(&self, _: ChunkUse, _: Hash32, _: Time) -> Result<bool, LogError> {
        Err(read_only())
    }
}

fn read_only() -> LogError {
    LogError::Unusable("an archive can only be read".into())
}

fn unusable(error: &io::Error) -> LogError {
    LogError::Unusable(error.to_string())
}
