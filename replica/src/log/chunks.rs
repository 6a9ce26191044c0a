//! The chunk store beside the log: pieces of large transactions and of snapshots, each under the hash of its content,
//! and the roots that say which chunks make a snapshot.

use super::LogError;
use async_trait::async_trait;
use bytes::Bytes;
use sluice_schema::hash::Hash32;
use sluice_schema::version::Time;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// The most bytes a chunk's content may have. What we cut has at most 512 KiB; it must fit the broker's `max_payload`
/// (1 MiB unless configured) even where it does not compress.
pub const CHUNK_BYTES_MAX: usize = 4 << 20;
/// The most bytes a root may have.
pub const ROOT_BYTES_MAX: usize = 64 << 10;
/// A chunk stored longer ago than this is stored again by [`Chunks::put`]. Who removes chunks stored before a time at
/// least twice this long ago can therefore never remove one that somebody has just put, and is about to refer to. The
/// rest is for clocks that differ and for the time until the reference is stored.
pub const REFRESH_AFTER: Duration = Duration::from_mins(30);

const ROOT_NAME_BYTES_MAX: usize = 64;
const ZSTD_LEVEL: i32 = 3;

/// What a chunk is part of: the two are cleaned up by different rules.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ChunkUse {
    /// A piece of a large transaction's mutations.
    Transaction,
    /// A node of a snapshot's tree.
    Snapshot,
}

/// A snapshot's root as it lies in the chunk store. Not verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredRoot {
    /// The name it was stored under.
    pub name: String,
    /// What was stored.
    pub root: Bytes,
    /// When, by the clock of the store (JetStream: the broker's).
    pub stored: Time,
}

/// Content-addressed pieces beside the log: parts of large transactions and of snapshots.
#[async_trait]
pub trait Chunks: Send + Sync + fmt::Debug + 'static {
    /// Stores `content` (at most [`CHUNK_BYTES_MAX`]) under its hash. Storing the same content again is harmless, and
    /// refreshes a chunk that is damaged or older than [`REFRESH_AFTER`]. The same content may be stored for each use.
    ///
    /// # Errors
    /// If it cannot be stored now, is too large (for the broker: its `max_payload`), or has another hash.
    async fn put(&self, part: ChunkUse, hash: Hash32, content: &[u8]) -> Result<(), LogError>;

    /// The content with this hash, checked; `None` if it is not there. A copy that is behind may not have it yet.
    ///
    /// # Errors
    /// If it cannot be read now, or what is stored does not match the hash.
    async fn get(&self, part: ChunkUse, hash: Hash32) -> Result<Option<Bytes>, LogError>;

    /// Stores a root (at most [`ROOT_BYTES_MAX`]) under a name (1 to 64 of `a-z 0-9 -`), replacing one of that name.
    /// Acknowledged and synced like an append; without an answer it may have been stored.
    ///
    /// # Errors
    /// If it cannot be stored now, or the name or the size is not allowed.
    async fn put_root(&self, name: &str, root: &[u8]) -> Result<(), LogError>;

    /// All roots, in the order in which they were stored. A data plane may ask. Any copy of a replicated store may
    /// answer: one that is behind does not know the newest roots yet, and still knows removed ones. Whoever looks for a
    /// certain root (the head names it) asks again.
    ///
    /// # Errors
    /// If they cannot be read now.
    async fn roots(&self) -> Result<Vec<StoredRoot>, LogError>;

    /// Removes a root. Harmless if there is none of this name.
    ///
    /// # Errors
    /// If it cannot be removed now, or the name is not allowed.
    async fn remove_root(&self, name: &str) -> Result<(), LogError>;

    /// The hashes of all chunks of a use. Control planes only. One that is stored or removed meanwhile may be missing;
    /// so may another in a store that needs several answers (JetStream: above 100,000 chunks) if one is removed
    /// meanwhile. Good for finding what to remove, not for proving that something is there.
    ///
    /// # Errors
    /// If the store cannot be asked now.
    async fn list(&self, part: ChunkUse) -> Result<BTreeSet<Hash32>, LogError>;

    /// Removes a chunk that was stored (last) before a time, by the clock of the store; says whether it did. It does
    /// not if the chunk is not there or is stored again meanwhile. Control planes only.
    ///
    /// # Errors
    /// If it is not known to be removed.
    async fn remove(
        &self,
        part: ChunkUse,
        hash: Hash32,
        stored_before: Time,
    ) -> Result<bool, LogError>;
}

pub(super) fn check_chunk(hash: Hash32, content: &[u8]) -> Result<(), LogError> {
    if content.len() > CHUNK_BYTES_MAX {
        return Err(LogError::Unusable(format!(
            "chunk {hash} has {} bytes; at most {CHUNK_BYTES_MAX} are possible",
            content.len()
        )));
    }
    if Hash32::of(content) != hash {
        return Err(LogError::Unusable(format!(
            "chunk {hash} has content with another hash"
        )));
    }
    Ok(())
}

pub(super) fn check_root_name(name: &str) -> Result<(), LogError> {
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    if name.is_empty() || name.len() > ROOT_NAME_BYTES_MAX || !name.bytes().all(plain) {
        return Err(LogError::Unusable(format!(
            "the root name '{}' must be 1 to {ROOT_NAME_BYTES_MAX} of a-z 0-9 -",
            name.escape_debug()
        )));
    }
    Ok(())
}

pub(super) fn check_root(name: &str, root: &[u8]) -> Result<(), LogError> {
    check_root_name(name)?;
    if root.len() > ROOT_BYTES_MAX {
        return Err(LogError::Unusable(format!(
            "root '{name}' has {} bytes; at most {ROOT_BYTES_MAX} are possible",
            root.len()
        )));
    }
    Ok(())
}

/// Whether a chunk stored then still counts as just stored. One from the future does: clocks differ.
pub(super) fn is_fresh(stored: Time, now: Time, refresh_after: Duration) -> bool {
    u128::from(now.0.saturating_sub(stored.0)) < refresh_after.as_micros()
}

pub(crate) fn compress(content: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(content, ZSTD_LEVEL).expect("compressing into memory does not fail")
}

pub(crate) fn decompress(hash: Hash32, stored: &[u8]) -> Result<Bytes, LogError> {
    let content = zstd::bulk::decompress(stored, CHUNK_BYTES_MAX).map_err(|error| {
        LogError::Unusable(format!("chunk {hash} does not decompress: {error}"))
    })?;
    match Hash32::of(&content) == hash {
        true => Ok(content.into()),
        false => Err(LogError::Unusable(format!(
            "chunk {hash} holds other content"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_fresh_until_its_time_is_up() {
        let limit = u64::try_from(REFRESH_AFTER.as_micros()).unwrap();
        for (stored, now, expected) in [
            (0, 0, true),
            (7, 7 + limit - 1, true),
            (7, 7 + limit, false),
            (0, u64::MAX, false),
            // The store's clock is ahead of ours.
            (u64::MAX, 0, true),
        ] {
            assert_eq!(
                is_fresh(Time(stored), Time(now), REFRESH_AFTER),
                expected,
                "{stored} {now}"
            );
        }
        assert!(!is_fresh(Time(7), Time(7), Duration::ZERO));
    }

    #[test]
    fn content_that_is_too_large_or_has_another_hash_is_refused() {
        let large = vec![0; CHUNK_BYTES_MAX + 1];
        assert!(check_chunk(Hash32::of(&large), &large).is_err());
        assert!(check_chunk(Hash32::of(&large[1..]), &large[1..]).is_ok());
        assert!(check_chunk(Hash32::of(b"a"), b"b").is_err());
        assert!(check_root("a", &large[..ROOT_BYTES_MAX]).is_ok());
        assert!(check_root("a", &large[..=ROOT_BYTES_MAX]).is_err());
    }
}
