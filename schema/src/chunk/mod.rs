//! The entities of a state as a tree of content-addressed nodes, cut where the hash of a key says so.
//!
//! Leaves hold runs of entities in key order; inner nodes list the nodes below them. A node's name is the BLAKE3 of
//! its content (of its pieces, if it is larger than [`PIECE_BYTES_MAX`]). The same entities give the same tree on
//! every node, whatever their history, so what two replicas hold is compared by comparing names, and only what
//! differs is fetched: see [`differing`] and [`Assembly`].
//!
//! Invariants: a tree depends on the entities alone; [`Tree::update`] gives what [`Tree::build`] would, byte for
//! byte; whether a key begins a new node depends on its hash and on what is in the node before it, so a change
//! moves few boundaries. Sizes and hashes are part of the stored format and never change; the rule is written down
//! in the log format, "Snapshots: the tree".

mod assemble;
mod boundary;
mod difference;
mod encode;
mod tree;

#[cfg(test)]
mod tests;

pub use assemble::Assembly;
pub use boundary::{
    INNER_BYTES_FORCED, INNER_BYTES_MIN, INNER_CUT_ONE_IN, LEAF_BYTES_FORCED, LEAF_BYTES_MIN,
    LEAF_CUT_ONE_IN, PIECE_BYTES_MAX,
};
pub use difference::{Range, differing};
pub use encode::{INNER_FORMAT, LEAF_FORMAT, decode_inner, decode_leaf, encode_inner, encode_leaf};
pub use tree::Tree;

use crate::codec::CodecError;
use crate::entity::{Entry, Key};
use crate::hash::Hash32;
use crate::state::State;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;

/// The highest tree that is read. Inner nodes have 20 children or more, so 8 levels are over 10^9 leaves.
pub const HEIGHT_MAX: u8 = 8;
/// The most pieces an inner node may have. One with as many children as it is cut at has one.
pub const INNER_PIECES_MAX: usize = 4;

/// An ordered source of entities, as a state or a store is one.
pub trait Entities {
    /// What reading can fail with.
    type Error;

    /// The entities with keys at or above `from` (all, if `None`), in order of their keys.
    fn entities_from(
        &self,
        from: Option<&Key>,
    ) -> impl Iterator<Item = Result<(Key, Entry), Self::Error>>;
}

impl Entities for State {
    type Error = Infallible;

    fn entities_from(
        &self,
        from: Option<&Key>,
    ) -> impl Iterator<Item = Result<(Key, Entry), Infallible>> {
        self.iter_from(from)
            .map(|(key, entry)| Ok((key.clone(), entry.clone())))
    }
}

/// A node seen from its parent. Equal children are equal trees.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Child {
    /// The first key below the node.
    pub first: Key,
    /// The hashes of the node's content, cut into pieces of at most [`PIECE_BYTES_MAX`]. Nearly always one.
    pub pieces: Vec<Hash32>,
    /// How many entities are below the node.
    pub entities: u64,
    /// How many bytes the leaves below the node (or the node, if it is a leaf) are encoded in.
    pub bytes: u64,
}

impl Child {
    /// The entities of this leaf, whose joined pieces are `content`.
    ///
    /// # Errors
    /// If `content` is not what the pieces are the hashes of, not a leaf, or not the leaf described here.
    pub fn open_leaf(&self, content: &[u8]) -> Result<Vec<(Key, Entry)>, ChunkError> {
        self.check(content, PIECE_BYTES_MAX)?;
        let entities = decode_leaf(content)?;
        let first = entities.first().map(|(key, _)| key);
        let agrees = first == Some(&self.first)
            && entities.len() as u64 == self.entities
            && content.len() as u64 == self.bytes;
        if agrees {
            Ok(entities)
        } else {
            Err(ChunkError::Disagrees)
        }
    }

    /// Checks that the pieces are the hashes of `content`.
    fn check(&self, content: &[u8], piece_bytes: usize) -> Result<(), ChunkError> {
        let found = content.chunks(piece_bytes).map(Hash32::of);
        if found.eq(self.pieces.iter().copied()) {
            Ok(())
        } else {
            Err(ChunkError::Hash)
        }
    }
}

/// Nodes that cannot be what they are said to be. Nothing of them may be used; another copy or another snapshot may
/// be whole.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// Not a node, or damaged.
    #[error("a node of the tree does not decode; fetch it again or take another snapshot")]
    Codec(#[from] CodecError),
    /// The content has other hashes than its parent says.
    #[error("a node's content has other hashes than its parent says; fetch it again")]
    Hash,
    /// Keys are not in strictly ascending order.
    #[error("the keys in the tree do not ascend; take another snapshot")]
    Order,
    /// A node or a child with nothing in it.
    #[error("a node of the tree holds nothing; take another snapshot")]
    Empty,
    /// A node's first key, counts or range are not what its parent says.
    #[error("a node of the tree is not what its parent says; take another snapshot")]
    Disagrees,
    /// The height does not fit the root, or is above [`HEIGHT_MAX`].
    #[error("a tree of height {0} with this root cannot be; take another snapshot")]
    Height(u8),
    /// [`Assembly::give`] without a node wanted.
    #[error("no node of the tree is wanted; finish the assembly")]
    NotWanted,
    /// [`Assembly::finish`] with a node wanted.
    #[error("nodes of the tree are still wanted; fetch them first")]
    Incomplete,
}
