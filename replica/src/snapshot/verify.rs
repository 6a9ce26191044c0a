//! Verifying: reads all of a snapshot as it is stored, with the memory of one chunk.

use super::load::{LoadError, assemble, fetch_node};
use super::root::Root;
use crate::log::Chunks;
use sluice_schema::chunk::Tree;
use sluice_schema::digest::Accumulator;

/// Fetches every chunk of a snapshot and checks hashes, order and digest. `progress` is told how many leaves of how many
/// are done.
///
/// # Errors
/// If one is missing, damaged or cannot be fetched now.
pub async fn verify(
    chunks: &dyn Chunks,
    root: &Root,
    mut progress: impl FnMut(usize, usize),
) -> Result<(), LoadError> {
    let tree = assemble(chunks, root, &Tree::default()).await?;
    let leaves = tree.leaves();
    let mut sum = Accumulator::default();
    for (place, leaf) in leaves.iter().enumerate() {
        let content = fetch_node(chunks, leaf).await?;
        for (key, entry) in leaf.open_leaf(&content)? {
            sum.add(&key, &entry.body);
        }
        progress(place + 1, leaves.len());
    }
    if sum.digest() == root.digest {
        Ok(())
    } else {
        Err(LoadError::Digest)
    }
}
