//! Where two trees differ, told from their leaves' names alone.

use super::tree::position;
use super::{Child, ChunkError, Tree};
use crate::entity::{Entry, Key};

/// A range of keys in which two trees may differ, and what the wanted one has there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Range {
    /// The range's first key; `None`: from the lowest on.
    pub from: Option<Key>,
    /// The first key after the range; `None`: to the highest.
    pub to: Option<Key>,
    /// The leaf with all entities of the wanted tree in the range; `None`: it has none there.
    pub leaf: Option<Child>,
}

impl Range {
    /// Whether `key` is in the range.
    pub fn holds(&self, key: &Key) -> bool {
        self.from.as_ref().is_none_or(|from| key >= from)
            && self.to.as_ref().is_none_or(|to| key < to)
    }

    /// The entities of the range, given the joined pieces of its leaf. Without a leaf, `content` is not looked at.
    ///
    /// # Errors
    /// If the content is not that of the leaf, or the leaf has entities outside of the range.
    pub fn open(&self, content: &[u8]) -> Result<Vec<(Key, Entry)>, ChunkError> {
        let Some(leaf) = &self.leaf else {
            return Ok(Vec::new());
        };
        let entities = leaf.open_leaf(content)?;
        if entities.iter().all(|(key, _)| self.holds(key)) {
            Ok(entities)
        } else {
            Err(ChunkError::Disagrees)
        }
    }
}

/// Where `own` must change to become `wanted`. The ranges are in order and disjoint; outside of them both hold the
/// same.
pub fn differing(own: &Tree, wanted: &Tree) -> Vec<Range> {
    if own.root() == wanted.root() && own.height() == wanted.height() {
        return Vec::new();
    }
    let (own, wanted) = (own.leaves(), wanted.leaves());
    let mut ranges = Vec::new();
    if wanted.is_empty() {
        ranges.push(Range {
            from: None,
            to: None,
            leaf: None,
        });
    }
    for (place, leaf) in wanted.iter().enumerate() {
        // Leaves cover the keys up to the next one's first, the outermost all beyond.
        let from = (place > 0).then_some(&leaf.first);
        let to = wanted.get(place + 1).map(|next| &next.first);
        let range = |from: Option<&Key>, to: Option<&Key>, leaf: Option<&Child>| Range {
            from: from.cloned(),
            to: to.cloned(),
            leaf: leaf.cloned(),
        };
        let Some(same) = position(own, leaf) else {
            ranges.push(range(from, to, Some(leaf)));
            continue;
        };
        // The leaf is the same, but we may have more around it: entities in leaves of our own, which must go.
        if from.is_none() && same > 0 {
            ranges.push(range(None, Some(&leaf.first), None));
        }
        if let Some(next) = own.get(same + 1)
            && to.is_none_or(|to| next.first < *to)
        {
            ranges.push(range(Some(&next.first), to, None));
        }
    }
    ranges
}
