//! Large transactions: their mutations lie in the chunk store.

use crate::log::{ChunkUse, Chunks, LogError};
use sluice_schema::event::{Event, Mutations, StoredError};
use sluice_schema::version::Version;

/// An event whose mutations are inline, fetched from the chunk store if need be.
///
/// # Errors
/// If they cannot be fetched now, are gone, or are not those that were signed.
pub async fn resolve(chunks: &dyn Chunks, event: Event) -> Result<Event, ResolveError> {
    let Mutations::Stored(stored) = &event.mutations else {
        return Ok(event);
    };
    let mut joined = Vec::new();
    for hash in &stored.chunks {
        let piece = chunks.get(ChunkUse::Transaction, *hash).await;
        let piece = piece.map_err(ResolveError::Log)?;
        let piece = piece.ok_or(ResolveError::Missing(event.version()))?;
        joined.extend_from_slice(&piece);
        if joined.len() as u64 > stored.bytes {
            return Err(ResolveError::Stored(StoredError::Hash));
        }
    }
    let mutations = Mutations::Inline(stored.open(&joined).map_err(ResolveError::Stored)?);
    Ok(Event { mutations, ..event })
}

/// Why the mutations of a large transaction are not here.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The chunk store cannot be read now.
    #[error("could not read the mutations of a large transaction")]
    Log(#[source] LogError),
    /// They are gone, or the copy that was asked is behind.
    #[error("the mutations of version {0} are missing from the chunk store")]
    Missing(Version),
    /// What is there is something else.
    #[error("the mutations of a large transaction are not the ones that were signed")]
    Stored(#[source] StoredError),
}
