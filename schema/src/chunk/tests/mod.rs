//! Trees of few entities with small limits, so that they are high; and of many with the stored ones.

mod change;
mod damage;
mod shape;
mod size;

use super::boundary::{Cut, Limits};
use super::*;
use crate::entity::{Body, Id, KindName, Workspace};
use crate::version::Version;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// A leaf holds about seven entities, an inner node about four children.
const SMALL: Limits = Limits {
    leaf: Cut {
        items_min: 1,
        bytes_min: 200,
        bytes_forced: 900,
        one_in: 4,
    },
    inner: Cut {
        items_min: 2,
        bytes_min: 200,
        bytes_forced: 600,
        one_in: 3,
    },
    piece_bytes: 700,
};

#[derive(Clone, PartialEq, Debug, Default)]
struct Map(BTreeMap<Key, Entry>);

impl Entities for Map {
    type Error = Infallible;

    fn entities_from(
        &self,
        from: Option<&Key>,
    ) -> impl Iterator<Item = Result<(Key, Entry), Infallible>> {
        let from = from.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Included);
        self.0
            .range::<Key, _>((from, std::ops::Bound::Unbounded))
            .map(|(key, entry)| Ok((key.clone(), entry.clone())))
    }
}

/// What happens to a key: a new body of that many bytes, or none.
type Edit = (Key, Option<(u64, usize)>);

impl Map {
    fn edit(&mut self, edits: &[Edit]) -> BTreeSet<Key> {
        for (key, put) in edits {
            match put {
                Some((version, length)) => {
                    self.0.insert(key.clone(), entry(*version, *length));
                }
                None => {
                    self.0.remove(key);
                }
            }
        }
        edits.iter().map(|(key, _)| key.clone()).collect()
    }

    fn after(&self, edits: &[Edit]) -> Self {
        let mut map = self.clone();
        map.edit(edits);
        map
    }
}

/// Pieces by their hash.
type Pieces = BTreeMap<Hash32, Vec<u8>>;

fn build(limits: &Limits, map: &Map) -> (Tree, Pieces) {
    update(limits, &Tree::default(), map, &BTreeSet::new())
}

fn update(limits: &Limits, tree: &Tree, map: &Map, changed: &BTreeSet<Key>) -> (Tree, Pieces) {
    let mut pieces = Pieces::new();
    let mut new = |hash, bytes: Vec<u8>| {
        assert_eq!(hash, Hash32::of(&bytes));
        pieces.insert(hash, bytes);
    };
    let Ok(tree) = tree.update_within(limits, map, changed, &mut new);
    (tree, pieces)
}

/// A node's content.
fn content(child: &Child, pieces: &Pieces) -> Vec<u8> {
    child
        .pieces
        .iter()
        .flat_map(|hash| pieces[hash].clone())
        .collect()
}

fn inner(tree: &Tree) -> impl Iterator<Item = (usize, &Child)> {
    let level = |node: &&Child| (1..usize::from(tree.height())).find(|l| tree.contains(*l, node));
    tree.nodes()
        .skip(tree.leaves().len())
        .map(move |node| (level(&node).unwrap(), node))
}

fn key(kind: &str, workspace: &str, id: u128) -> Key {
    Key {
        kind: KindName::parse(kind).unwrap(),
        workspace: Workspace::parse(workspace).unwrap(),
        id: Id(Uuid::from_u128(id)),
    }
}

fn entry(version: u64, length: usize) -> Entry {
    let body: Vec<u8> = (0..length)
        .map(|at| u8::try_from((at as u64 * 31 + version) % 251).unwrap())
        .collect();
    Entry {
        version: Version(version),
        body: Body::from_bytes(&body),
    }
}

fn keys() -> impl Strategy<Value = Key> {
    let kind = prop::sample::select(vec!["consumer", "not_invented_yet", "route"]);
    let workspace = prop::sample::select(vec!["default", "Other-1"]);
    (kind, workspace, 0..100_u128).prop_map(|(kind, workspace, id)| key(kind, workspace, id))
}

fn puts() -> impl Strategy<Value = (u64, usize)> {
    (
        1..1000_u64,
        prop_oneof![40 => 0..90_usize, 1 => 700..2500_usize],
    )
}

fn maps() -> impl Strategy<Value = Map> {
    prop::collection::vec((keys(), puts()), 0..350).prop_map(|puts| {
        let entities = puts
            .into_iter()
            .map(|(key, (version, length))| (key, entry(version, length)));
        Map(entities.collect())
    })
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    prop::collection::vec((keys(), prop::option::of(puts())), 0..12)
}
