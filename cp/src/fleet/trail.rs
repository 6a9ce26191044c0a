//! Which history this control plane knows: the chain at each of its last versions.
//!
//! A node is believed to serve version V only if it is V of this history. Two replicas at the same number may have come
//! there on different ways: a log can lose its end and go on from before it.

use sluice_schema::digest::Digest;
use sluice_schema::version::{Chain, Cursor, Version};
use std::collections::BTreeMap;

/// Versions that are remembered. A node that is further behind is believed by its epoch alone.
const REMEMBERED_MAX: usize = 10_000;

/// Where a node is, seen from this control plane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// At this version of our history.
    At(Version),
    /// Further than we are: whether that is our history shows when we get there.
    Ahead(Version),
    /// In another history: another life of the log, another chain, or another state at the same chain.
    Elsewhere,
}

/// What is remembered of our history.
#[derive(Clone, Debug, Default)]
pub(super) struct Trail {
    cursor: Cursor,
    marks: BTreeMap<Version, (Chain, Option<Digest>)>,
}

impl Trail {
    /// Where we are.
    pub(super) fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Our history goes on to `cursor`; the digest of its state, if it was looked at there.
    pub(super) fn advance(&mut self, cursor: Cursor, digest: Option<Digest>) {
        if cursor.epoch != self.cursor.epoch || cursor.version < self.cursor.version {
            self.marks.clear();
        }
        self.cursor = cursor;
        self.marks.insert(cursor.version, (cursor.chain, digest));
        while self.marks.len() > REMEMBERED_MAX {
            self.marks.pop_first();
        }
    }

    /// Where a node is that says it serves this.
    pub(super) fn place(&self, cursor: Cursor, digest: Digest) -> Place {
        if cursor.version == Version::ZERO {
            return Place::At(Version::ZERO);
        }
        if cursor.epoch != self.cursor.epoch {
            return Place::Elsewhere;
        }
        if cursor.version > self.cursor.version {
            return Place::Ahead(cursor.version);
        }
        match self.marks.get(&cursor.version) {
            Some((chain, known)) => {
                let same = *chain == cursor.chain && known.is_none_or(|known| known == digest);
                if same {
                    Place::At(cursor.version)
                } else {
                    Place::Elsewhere
                }
            }
            None => Place::At(cursor.version),
        }
    }
}
