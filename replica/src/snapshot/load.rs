//! Loading: fetches what a snapshot has and the own state has not.

use super::Root;
use crate::log::{ChunkUse, Chunks, LogError};
use bytes::Bytes;
use futures::future::ready;
use futures::stream::{self, BoxStream, StreamExt};
use sluice_schema::chunk::{Assembly, Child, ChunkError, Range, Tree, differing};
use sluice_schema::entity::{Entry, Key};
use sluice_schema::hash::Hash32;
use sluice_schema::state::State;
use std::sync::Arc;

/// Leaves that are fetched ahead of the one that is taken up: bounds the memory of a load.
const LEAVES_AHEAD_MAX: usize = 4;

/// A step of a load, in the order in which they come: one plan, then the ranges.
#[derive(Debug)]
pub enum Part {
    /// What is ahead.
    Plan {
        /// The encoded bytes of the leaves that will be fetched.
        bytes: u64,
        /// How many ranges there will be.
        ranges: usize,
        /// The snapshot's tree.
        tree: Tree,
    },
    /// What the snapshot holds in a range of keys in which the own state differs.
    Range {
        /// The range.
        range: Box<Range>,
        /// All entities in it.
        entities: Vec<(Key, Entry)>,
    },
}

/// Why a snapshot cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not now.
    #[error("could not fetch a chunk of the snapshot")]
    Log(#[source] LogError),
    /// The copy that was asked does not have it, or nobody has.
    #[error("chunk {0} of the snapshot is missing")]
    Missing(Hash32),
    /// It is not what its root says.
    #[error("the snapshot is damaged")]
    Chunk(#[from] ChunkError),
    /// Its entities are not those its root says.
    #[error("the snapshot's entities do not have the digest its root says")]
    Digest,
}

/// Fetches the parts in which the snapshot differs from a state whose tree is `own`. Ends after the first error.
pub fn load(
    chunks: Arc<dyn Chunks>,
    root: Root,
    own: Tree,
) -> BoxStream<'static, Result<Part, LoadError>> {
    let planning = {
        let chunks = chunks.clone();
        async move { plan(&*chunks, root, own).await }
    };
    stream::once(planning)
        .flat_map(move |planned| match planned {
            Err(error) => stream::once(ready(Err(error))).boxed(),
            Ok((tree, ranges)) => parts(chunks.clone(), tree, ranges),
        })
        .boxed()
}

/// The state of a snapshot, all of it fetched and checked.
///
/// # Errors
/// If it cannot be fetched, or is not what its root says.
pub async fn load_state(chunks: Arc<dyn Chunks>, root: &Root) -> Result<State, LoadError> {
    let mut parts = load(chunks, root.clone(), Tree::default());
    let mut state = State::restore(root.cursor, []);
    while let Some(part) = parts.next().await {
        match part? {
            Part::Plan { .. } => {}
            Part::Range { entities, .. } => state.extend(entities),
        }
    }
    if state.digest() == root.digest {
        Ok(state)
    } else {
        Err(LoadError::Digest)
    }
}

async fn plan(chunks: &dyn Chunks, root: Root, own: Tree) -> Result<(Tree, Vec<Range>), LoadError> {
    let tree = assemble(chunks, &root, &own).await?;
    let ranges = differing(&own, &tree);
    Ok((tree, ranges))
}

/// The tree of a snapshot, of which `known` need not be fetched.
pub(super) async fn assemble(
    chunks: &dyn Chunks,
    root: &Root,
    known: &Tree,
) -> Result<Tree, LoadError> {
    let mut assembly = Assembly::new(root.tree.clone(), root.height, known)?;
    while let Some(node) = assembly.wants() {
        let content = fetch_node(chunks, node).await?;
        assembly.give(&content)?;
    }
    Ok(assembly.finish()?)
}

fn parts(
    chunks: Arc<dyn Chunks>,
    tree: Tree,
    ranges: Vec<Range>,
) -> BoxStream<'static, Result<Part, LoadError>> {
    let bytes = ranges
        .iter()
        .filter_map(|range| range.leaf.as_ref())
        .map(|leaf| leaf.bytes)
        .sum();
    let plan = Part::Plan {
        bytes,
        ranges: ranges.len(),
        tree,
    };
    let fetched = stream::iter(ranges)
        .map(move |range| fetch(chunks.clone(), range))
        .buffered(LEAVES_AHEAD_MAX);
    stream::once(ready(Ok(plan))).chain(fetched).boxed()
}

async fn fetch(chunks: Arc<dyn Chunks>, range: Range) -> Result<Part, LoadError> {
    let content = match &range.leaf {
        Some(leaf) => fetch_node(&*chunks, leaf).await?,
        None => Bytes::new(),
    };
    let entities = range.open(&content)?;
    let range = Box::new(range);
    Ok(Part::Range { range, entities })
}

/// A node's joined pieces. Each is checked against its hash by the chunk store.
pub(super) async fn fetch_node(chunks: &dyn Chunks, node: &Child) -> Result<Bytes, LoadError> {
    let mut joined = Vec::new();
    for hash in &node.pieces {
        let piece = chunks.get(ChunkUse::Snapshot, *hash).await;
        let piece = piece
            .map_err(LoadError::Log)?
            .ok_or(LoadError::Missing(*hash))?;
        if node.pieces.len() == 1 {
            return Ok(piece);
        }
        joined.extend_from_slice(&piece);
    }
    Ok(joined.into())
}
