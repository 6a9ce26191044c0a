//! Cleaning up: removes snapshots that have been replaced for long, and the chunks that only they needed.
//!
//! Several control planes may cut and clean at the same time. What makes that safe is time: a cut relies on chunks of
//! the newest snapshot and on such as it has just stored; a snapshot goes only when [`ROOTS_KEPT`] newer ones have been
//! there for [`GRACE`], and a chunk only when it was stored before that. A cut that takes longer than [`GRACE`] may be
//! left with missing chunks; whoever loads it then takes another.

use super::cut::fetch_tree;
use super::load::LoadError;
use super::root::Root;
use crate::keys::{RING_NAME, TrustedKeys};
use crate::log::{ChunkUse, Chunks, LogError, Page, REFRESH_AFTER, Source, StoredRoot};
use crate::planted::{Bug, planted};
use sluice_schema::event::{Event, Mutations};
use sluice_schema::hash::Hash32;
use sluice_schema::version::{Time, Version};
use std::collections::BTreeSet;
use std::time::Duration;

/// Snapshots that are kept whatever their age.
pub const ROOTS_KEPT: usize = 3;
/// How long what may be in use is kept.
pub const GRACE: Duration = REFRESH_AFTER.saturating_mul(2);

/// What was removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cleaned {
    /// Snapshots.
    pub roots: usize,
    /// Chunks.
    pub chunks: usize,
}

/// Removes what no kept snapshot needs. `now` is the time of day; the store's clock may differ by some minutes.
///
/// # Errors
/// If the chunk store cannot be asked, or a kept snapshot cannot be read: nothing it might need is removed then.
pub async fn clean(
    chunks: &dyn Chunks,
    trusted: &TrustedKeys,
    now: Time,
) -> Result<Cleaned, LoadError> {
    // First the chunks, then the roots: a snapshot that appears in between keeps its chunks.
    let listed = chunks
        .list(ChunkUse::Snapshot)
        .await
        .map_err(LoadError::Log)?;
    let stored = chunks.roots().await.map_err(LoadError::Log)?;
    let before = match planted(Bug::CleanedWithoutGrace) {
        true => now,
        false => Time(now.0.saturating_sub(micros(GRACE))),
    };
    let (kept, replaced) = split(stored, trusted, before);
    let mut cleaned = Cleaned::default();
    for name in replaced {
        chunks.remove_root(&name).await.map_err(LoadError::Log)?;
        cleaned.roots += 1;
    }
    let mut needed = BTreeSet::new();
    for root in &kept {
        let tree = fetch_tree(chunks, root).await?;
        needed.extend(tree.nodes().flat_map(|node| node.pieces.iter().copied()));
    }
    let unused: Vec<Hash32> = listed.difference(&needed).copied().collect();
    for hash in unused {
        let removed = chunks.remove(ChunkUse::Snapshot, hash, before).await;
        match removed {
            Ok(removed) => cleaned.chunks += usize::from(removed),
            // The next clean-up comes across it again.
            Err(LogError::Unavailable(_)) => {}
            Err(error @ LogError::Unusable(_)) => return Err(LoadError::Log(error)),
        }
    }
    Ok(cleaned)
}

/// Removes the pieces of large transactions that no event from `first` on refers to, and says how many. One that is just
/// being appended keeps its pieces: they are young.
///
/// # Errors
/// If log or chunk store cannot be asked: nothing that might be needed is removed then.
pub async fn clean_transactions(
    source: &Source,
    first: Version,
    now: Time,
) -> Result<usize, LogError> {
    let part = ChunkUse::Transaction;
    let mut unused = source.chunks.list(part).await?;
    if unused.is_empty() {
        return Ok(0);
    }
    let last = source.log.bounds().await?.last;
    let mut from = first;
    while from <= last {
        let Page { records, .. } = source.log.read(from).await?;
        for record in &records {
            let event = Event::decode(&record.event).map(|event| event.mutations);
            if let Ok(Mutations::Stored(stored)) = event {
                stored.chunks.iter().for_each(|hash| {
                    unused.remove(hash);
                });
            }
        }
        match records.last() {
            Some(record) => from = record.version.next(),
            None => {
                let reason = format!("the log does not show version {from}, though it has it");
                return Err(LogError::Unavailable(reason));
            }
        }
    }
    let before = Time(now.0.saturating_sub(micros(GRACE)));
    let mut removed = 0;
    for hash in unused {
        removed += usize::from(source.chunks.remove(part, hash, before).await?);
    }
    Ok(removed)
}

/// The snapshots to keep, and the names of those that have been replaced for long. What cannot be believed goes when it
/// is old: nobody loads it.
fn split(stored: Vec<StoredRoot>, trusted: &TrustedKeys, before: Time) -> (Vec<Root>, Vec<String>) {
    let mut opened = Vec::new();
    let mut replaced = Vec::new();
    for StoredRoot { name, root, stored } in stored {
        if name == RING_NAME {
            continue;
        }
        match Root::open(&root, trusted) {
            Ok(root) => opened.push((root, name, stored)),
            Err(_) if stored < before => replaced.push(name),
            Err(_) => {}
        }
    }
    opened.sort_by_key(|(root, _, stored)| (root.cursor.epoch, root.cursor.version, *stored));
    let keep_from = opened.len().saturating_sub(ROOTS_KEPT);
    let replaced_long_ago = opened
        .get(keep_from)
        .is_some_and(|(_, _, stored)| *stored < before);
    let kept = if replaced_long_ago {
        let kept = opened.split_off(keep_from);
        replaced.extend(opened.into_iter().map(|(_, name, _)| name));
        kept
    } else {
        opened
    };
    (
        kept.into_iter().map(|(root, _, _)| root).collect(),
        replaced,
    )
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
