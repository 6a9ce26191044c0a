//! Where a node ends. The values here are part of the stored format: with others, every node has another name.

use crate::entity::Key;

/// The most bytes of a piece. Larger nodes are stored in several.
pub const PIECE_BYTES_MAX: usize = 512 * 1024;
/// No leaf but the last weighs less.
pub const LEAF_BYTES_MIN: u64 = 32 * 1024;
/// A leaf that weighs as much ends, whatever the next key.
pub const LEAF_BYTES_FORCED: u64 = 384 * 1024;
/// One key in so many ends a leaf that weighs enough. Leaves of entities of 500 bytes then have about 128 KiB.
pub const LEAF_CUT_ONE_IN: u64 = 192;
/// No inner node but the last of its level weighs less.
pub const INNER_BYTES_MIN: u64 = 4 * 1024;
/// An inner node that weighs as much ends, whatever the next key.
pub const INNER_BYTES_FORCED: u64 = 64 * 1024;
/// One key in so many ends an inner node that weighs enough. Inner nodes then have about 16 KiB.
pub const INNER_CUT_ONE_IN: u64 = 128;

const CONTEXT: &str = "sluice 2026 snapshot boundary v1";

/// When a node of a kind ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// It has at least so many items. Two for inner nodes, so that each level is smaller than the one below.
    pub(super) items_min: usize,
    /// It weighs at least as much, in bytes.
    pub(super) bytes_min: u64,
    /// It ends if it weighs as much, in bytes.
    pub(super) bytes_forced: u64,
    /// Otherwise before one key in so many.
    pub(super) one_in: u64,
}

/// The sizes of a tree. A parameter, so that tests can grow a high tree from few entities.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) leaf: Cut,
    pub(super) inner: Cut,
    pub(super) piece_bytes: usize,
}

impl Limits {
    /// Those of every stored tree.
    pub(super) const STORED: Self = Self {
        leaf: Cut {
            items_min: 1,
            bytes_min: LEAF_BYTES_MIN,
            bytes_forced: LEAF_BYTES_FORCED,
            one_in: LEAF_CUT_ONE_IN,
        },
        inner: Cut {
            items_min: 2,
            bytes_min: INNER_BYTES_MIN,
            bytes_forced: INNER_BYTES_FORCED,
            one_in: INNER_CUT_ONE_IN,
        },
        piece_bytes: PIECE_BYTES_MAX,
    };

    /// When the nodes of `level` end (0: leaves).
    pub(super) fn cut(&self, level: u8) -> Cut {
        match level {
            0 => self.leaf,
            _ => self.inner,
        }
    }
}

impl Cut {
    /// Whether a node of `level` with so many items and that weight ends before `next`. Nothing of `next` but its
    /// key may matter, or a change of one entity could move the boundary before it and so change two nodes.
    pub(super) fn ends(&self, level: u8, items: usize, weight: u64, next: &Key) -> bool {
        items >= self.items_min
            && weight >= self.bytes_min
            && (weight >= self.bytes_forced || draw(level, next).is_multiple_of(self.one_in))
    }
}

/// A number drawn from a key, another one for each level: otherwise a key that begins an inner node would be likelier
/// to begin one on the next level too. Every part is preceded by its length.
pub(super) fn draw(level: u8, key: &Key) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    for part in [
        &[level][..],
        key.kind.as_str().as_bytes(),
        key.workspace.as_str().as_bytes(),
        key.id.0.as_bytes(),
    ] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut bytes = [0_u8; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
