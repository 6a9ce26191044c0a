//! Cutting: makes a snapshot of a state, and writes only the chunks that are new.

use super::load::{LoadError, assemble};
use super::root::Root;
use crate::environment::Environment;
use crate::keys::{SigningKey, TrustedKeys};
use crate::log::{ChunkUse, Chunks, LogError, StoredRoot};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use sluice_schema::chunk::{Child, Entities, PIECE_BYTES_MAX, Tree, encode_inner, encode_leaf};
use sluice_schema::hash::Hash32;
use sluice_schema::state::State;
use sluice_schema::version::Epoch;
use std::collections::BTreeSet;
use std::convert::Infallible;
use uuid::Uuid;

/// Leaves that are written at the same time: bounds the memory of a cut.
const WRITES_AHEAD_MAX: usize = 4;

/// What a cut came to.
#[derive(Clone, Debug)]
pub struct Cut {
    /// The snapshot.
    pub root: Root,
    /// Chunks written; the others were there already.
    pub written: usize,
    /// Their bytes before compression.
    pub written_bytes: u64,
    /// All chunks of the snapshot.
    pub chunks: usize,
}

/// Why no snapshot was cut. Chunks that were written by then are harmless.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// The chunk store takes nothing now.
    #[error("could not write the snapshot")]
    Log(#[from] LogError),
    /// Chunking panicked.
    #[error("could not chunk the state")]
    Chunking,
}

/// Cuts snapshots of one state as it goes on changing. Keeps the last tree, so that the next costs what has changed.
#[derive(Debug)]
pub struct Cutter {
    author: Uuid,
    environment: Environment,
    last: Option<(State, Tree)>,
}

impl Cutter {
    /// A cutter that has cut nothing yet.
    pub fn new(author: Uuid, environment: Environment) -> Self {
        Self {
            author,
            environment,
            last: None,
        }
    }

    /// Cuts a snapshot of `state`, signs it, and stores it. The charter of its epoch is taken from a stored snapshot that
    /// has it: without it nobody could come over from an earlier life of the log.
    ///
    /// # Errors
    /// If it cannot be stored; there is no new snapshot then.
    pub async fn cut(
        &mut self,
        chunks: &dyn Chunks,
        state: &State,
        key: &SigningKey,
        trusted: &TrustedKeys,
    ) -> Result<Cut, CutError> {
        let tree = self.chunk(state).await?;
        let stored = chunks.roots().await?;
        let mut known = self.known_pieces(chunks, &stored, trusted, &tree).await;
        if !known.is_empty() {
            // One that was lost would be missing from every later snapshot.
            let listed = chunks.list(ChunkUse::Snapshot).await?;
            known.retain(|piece| listed.contains(piece));
        }
        let (written, written_bytes) = write_new(chunks, state, &tree, &known).await?;
        let made = (self.environment.now(), self.author);
        let root = Root {
            charter: stored_charter(&stored, trusted, state.epoch()),
            ..Root::of(state, state.cursor(), &tree, made)
        };
        chunks.put_root(&root.name(), &root.seal(key)).await?;
        let pieces = tree.nodes().map(|node| node.pieces.len()).sum();
        self.last = Some((state.clone(), tree));
        Ok(Cut {
            root,
            written,
            written_bytes,
            chunks: pieces,
        })
    }

    /// The tree of `state`, from the last one if there is one.
    pub async fn chunk(&self, state: &State) -> Result<Tree, CutError> {
        let (state, last) = (state.clone(), self.last.clone());
        let work = move || {
            let chunked = match last {
                Some((base, tree)) => {
                    tree.update(&state, &state.changed_since(&base), &mut |_, _| {})
                }
                None => Tree::build(&state, &mut |_, _| {}),
            };
            match chunked {
                Ok(tree) => tree,
                Err(never) => match never {},
            }
        };
        let chunked = self.environment.blocking(work).await;
        chunked.map_err(|_| CutError::Chunking)
    }

    /// The pieces that the newest snapshot has: they are kept for longer than a cut takes. Without a readable snapshot
    /// everything is written again, which is only slow.
    async fn known_pieces(
        &self,
        chunks: &dyn Chunks,
        stored: &[StoredRoot],
        trusted: &TrustedKeys,
        own: &Tree,
    ) -> BTreeSet<Hash32> {
        let Some(newest) = Root::open_all(stored, trusted).pop() else {
            return BTreeSet::new();
        };
        let base = self.last.as_ref().map_or(own, |(_, tree)| tree);
        match assemble(chunks, &newest, base).await {
            Ok(tree) => tree
                .nodes()
                .flat_map(|node| node.pieces.iter().copied())
                .collect(),
            Err(error) => {
                tracing::warn!(error = %crate::run::chain(&error), "could not read the newest snapshot; writing all chunks");
                BTreeSet::new()
            }
        }
    }
}

/// The tree of a stored snapshot.
///
/// # Errors
/// If its inner nodes cannot be fetched or are not what the root says.
pub async fn fetch_tree(chunks: &dyn Chunks, root: &Root) -> Result<Tree, LoadError> {
    assemble(chunks, root, &Tree::default()).await
}

/// A node to write.
enum Node {
    /// Encoded when its turn comes: all of them would be the whole state.
    Leaf(Child),
    Inner(Vec<u8>),
}

fn stored_charter(stored: &[StoredRoot], trusted: &TrustedKeys, epoch: Epoch) -> Option<Bytes> {
    let roots = Root::open_all(stored, trusted);
    let mut chartered = roots
        .into_iter()
        .filter(|root| root.chartered && root.cursor.epoch == epoch);
    chartered.next_back()?.charter
}

/// Stores the nodes of `tree`, the tree of `state`, that have a piece which is not `known`. Says how many pieces that
/// were, and how large before compression.
pub(super) async fn write_new(
    chunks: &dyn Chunks,
    state: &State,
    tree: &Tree,
    known: &BTreeSet<Hash32>,
) -> Result<(usize, u64), LogError> {
    let is_new = |node: &Child| node.pieces.iter().any(|piece| !known.contains(piece));
    let mut nodes = Vec::new();
    for leaf in tree.leaves() {
        if is_new(leaf) {
            nodes.push(Node::Leaf(leaf.clone()));
        }
    }
    for (node, children) in tree.inner() {
        if is_new(node) {
            nodes.push(Node::Inner(encode_inner(children)));
        }
    }
    stream::iter(nodes)
        .map(|node| write(chunks, state, node))
        .buffered(WRITES_AHEAD_MAX)
        .try_fold((0, 0), |(count, bytes), (pieces, written)| async move {
            Ok((count + pieces, bytes + written))
        })
        .await
}

/// Writes a node's pieces, and says how many and how large they are.
async fn write(chunks: &dyn Chunks, state: &State, node: Node) -> Result<(usize, u64), LogError> {
    let content = match node {
        Node::Leaf(leaf) => leaf_content(state, &leaf),
        Node::Inner(content) => content,
    };
    let mut pieces = 0;
    for piece in content.chunks(PIECE_BYTES_MAX) {
        chunks
            .put(ChunkUse::Snapshot, Hash32::of(piece), piece)
            .await?;
        pieces += 1;
    }
    Ok((pieces, content.len() as u64))
}

fn leaf_content(state: &State, leaf: &Child) -> Vec<u8> {
    let count = usize::try_from(leaf.entities).unwrap_or(usize::MAX);
    let entities: Result<Vec<_>, Infallible> =
        state.entities_from(Some(&leaf.first)).take(count).collect();
    match entities {
        Ok(entities) => encode_leaf(&entities),
        Err(never) => match never {},
    }
}
