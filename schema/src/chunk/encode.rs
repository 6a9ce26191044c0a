//! How nodes become bytes and back, and what their items weigh.
//!
//! Arrays and not maps: a leaf has thousands of items, and the names of their fields would be a quarter of it. A new
//! field is a new format.

use super::{Child, ChunkError};
use crate::codec::{self, Format};
use crate::entity::{Body, Entry, Id, Key, KindName, Workspace};
use crate::hash::Hash32;
use crate::version::Version;
use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

/// The format of a leaf.
pub const LEAF_FORMAT: Format = Format {
    magic: *b"SlL",
    version: 1,
};
/// The format of an inner node.
pub const INNER_FORMAT: Format = Format {
    magic: *b"SlT",
    version: 1,
};

// The most bytes that each thing takes besides its texts, body and pieces. So the weight of a node's items is at
// least the length of its content without the 9 bytes before the first item.
const ENTITY_BYTES: u64 = 33;
const GROUP_BYTES: u64 = 10;
const CHILD_BYTES: u64 = 46;
const PIECE_BYTES: u64 = 34;

/// What `entity` adds to the weight of a leaf in which it follows `after`.
pub(super) fn entity_weight((key, entry): &(Key, Entry), after: Option<&Key>) -> u64 {
    let own = ENTITY_BYTES + entry.body.as_bytes().len() as u64;
    if after.is_some_and(|after| same_group(after, key)) {
        own
    } else {
        own + GROUP_BYTES + names_bytes(key)
    }
}

/// What `child` adds to the weight of an inner node.
pub(super) fn child_weight(child: &Child) -> u64 {
    CHILD_BYTES + names_bytes(&child.first) + PIECE_BYTES * child.pieces.len() as u64
}

fn names_bytes(key: &Key) -> u64 {
    (key.kind.as_str().len() + key.workspace.as_str().len()) as u64
}

fn same_group(one: &Key, other: &Key) -> bool {
    one.kind == other.kind && one.workspace == other.workspace
}

/// The content of the leaf with these entities, which are in order.
pub fn encode_leaf(entities: &[(Key, Entry)]) -> Vec<u8> {
    codec::encode(LEAF_FORMAT, &Groups(entities))
}

/// The content of the inner node with these children, which are in order.
pub fn encode_inner(children: &[Child]) -> Vec<u8> {
    let children: Vec<_> = children
        .iter()
        .map(|child| {
            let Child {
                first,
                pieces,
                entities,
                bytes,
            } = child;
            let Key {
                kind,
                workspace,
                id,
            } = first;
            (kind, workspace, id, pieces, entities, bytes)
        })
        .collect();
    codec::encode(INNER_FORMAT, &children)
}

/// The entities of a leaf. For bytes from anywhere; their hash is the caller's to check (see [`Child::open_leaf`]).
///
/// # Errors
/// If the bytes are not a leaf, or the keys do not ascend strictly.
pub fn decode_leaf(content: &[u8]) -> Result<Vec<(Key, Entry)>, ChunkError> {
    type Group = (KindName, Workspace, Vec<(Id, Version, Body)>);
    let groups: Vec<Group> = codec::decode(LEAF_FORMAT, content)?;
    let ascend = groups
        .iter()
        .is_sorted_by(|one, next| (&one.0, &one.1) < (&next.0, &next.1));
    let mut entities = Vec::with_capacity(groups.iter().map(|group| group.2.len()).sum());
    for (kind, workspace, members) in groups {
        if members.is_empty() {
            return Err(ChunkError::Empty);
        }
        if !ascend || !members.is_sorted_by(|one, next| one.0 < next.0) {
            return Err(ChunkError::Order);
        }
        for (id, version, body) in members {
            let key = Key {
                kind: kind.clone(),
                workspace: workspace.clone(),
                id,
            };
            entities.push((key, Entry { version, body }));
        }
    }
    if entities.is_empty() {
        return Err(ChunkError::Empty);
    }
    Ok(entities)
}

/// The children of an inner node. For bytes from anywhere; their hash is the caller's to check.
///
/// # Errors
/// If the bytes are not an inner node, the first keys do not ascend strictly, or a child has nothing in it.
pub fn decode_inner(content: &[u8]) -> Result<Vec<Child>, ChunkError> {
    type Packed = (KindName, Workspace, Id, Vec<Hash32>, u64, u64);
    let packed: Vec<Packed> = codec::decode(INNER_FORMAT, content)?;
    let children: Vec<Child> = packed
        .into_iter()
        .map(|(kind, workspace, id, pieces, entities, bytes)| Child {
            first: Key {
                kind,
                workspace,
                id,
            },
            pieces,
            entities,
            bytes,
        })
        .collect();
    let hollow = |child: &Child| child.pieces.is_empty() || child.entities == 0;
    if children.is_empty() || children.iter().any(hollow) {
        return Err(ChunkError::Empty);
    }
    if !children.is_sorted_by(|one, next| one.first < next.first) {
        return Err(ChunkError::Order);
    }
    Ok(children)
}

/// A leaf's entities, grouped so that each kind and workspace is named once.
struct Groups<'a>(&'a [(Key, Entry)]);

impl Serialize for Groups<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let groups = || self.0.chunk_by(|(one, _), (next, _)| same_group(one, next));
        let mut sequence = serializer.serialize_seq(Some(groups().count()))?;
        for group in groups() {
            let key = &group[0].0;
            sequence.serialize_element(&(&key.kind, &key.workspace, Members(group)))?;
        }
        sequence.end()
    }
}

struct Members<'a>(&'a [(Key, Entry)]);

impl Serialize for Members<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let members = self
            .0
            .iter()
            .map(|(key, entry)| (key.id, entry.version, &entry.body));
        serializer.collect_seq(members)
    }
}
