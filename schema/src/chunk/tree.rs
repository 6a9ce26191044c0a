//! Builds a tree, and brings one up to date at the cost of what changed.

use super::boundary::Limits;
use super::encode::{child_weight, encode_inner, encode_leaf, entity_weight};
use super::{Child, Entities};
use crate::entity::{Entry, Key};
use crate::hash::Hash32;
use std::collections::BTreeSet;
use std::convert::Infallible;

/// What is done with a piece that was made: its hash and its bytes.
type NewPiece<'a> = dyn FnMut(Hash32, Vec<u8>) + 'a;

/// The nodes of a tree without their contents: about 150 bytes for each 128 KiB of entities.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tree {
    /// The leaves first, the root alone last. No levels for no entities.
    levels: Vec<Vec<Child>>,
}

impl Tree {
    /// The tree of `entities`. Each piece made is given to `new`, those of the root last.
    ///
    /// # Errors
    /// Those of reading the entities.
    pub fn build<E: Entities>(
        entities: &E,
        new: &mut dyn FnMut(Hash32, Vec<u8>),
    ) -> Result<Self, E::Error> {
        Self::default().update(entities, &BTreeSet::new(), new)
    }

    /// The tree of `entities`, if this is the tree they had before those with the keys `changed` were put or deleted.
    /// Equal to what [`Tree::build`] gives. Each piece of a node that is not in this tree is given to `new`.
    ///
    /// Reads and hashes only around the changed keys; what is unchanged costs the copy of its [`Child`].
    ///
    /// # Errors
    /// Those of reading the entities.
    pub fn update<E: Entities>(
        &self,
        entities: &E,
        changed: &BTreeSet<Key>,
        new: &mut dyn FnMut(Hash32, Vec<u8>),
    ) -> Result<Self, E::Error> {
        self.update_within(&Limits::STORED, entities, changed, new)
    }

    pub(super) fn update_within<E: Entities>(
        &self,
        limits: &Limits,
        entities: &E,
        changed: &BTreeSet<Key>,
        new: &mut NewPiece<'_>,
    ) -> Result<Self, E::Error> {
        let level = Level {
            limits,
            number: 0,
            old: self.level(0),
            changed,
        };
        let mut top = level.cut(&Leaves(entities), new)?;
        let mut levels = Vec::new();
        for number in 1..=u8::MAX {
            if top.len() <= 1 {
                break;
            }
            let old = self.level(usize::from(number));
            let below = self.level(usize::from(number) - 1);
            let level = Level {
                limits,
                number,
                old,
                changed: &changed_firsts(below, &top),
            };
            let next = match level.cut(&Children(&top), new) {
                Ok(next) => next,
                Err(never) => match never {},
            };
            levels.push(std::mem::replace(&mut top, next));
        }
        if !top.is_empty() {
            levels.push(top);
        }
        Ok(Self { levels })
    }

    /// A tree of checked levels, leaves first.
    pub(super) fn from_levels(levels: Vec<Vec<Child>>) -> Self {
        Self { levels }
    }

    /// The root; `None` if there are no entities.
    pub fn root(&self) -> Option<&Child> {
        self.levels.last()?.first()
    }

    /// The number of levels: 0 without entities, 1 if the root is a leaf.
    pub fn height(&self) -> u8 {
        u8::try_from(self.levels.len()).unwrap_or(u8::MAX)
    }

    /// The leaves, in order.
    pub fn leaves(&self) -> &[Child] {
        self.level(0)
    }

    /// All nodes of all levels, leaves first.
    pub fn nodes(&self) -> impl Iterator<Item = &Child> {
        self.levels.iter().flatten()
    }

    /// All inner nodes with their children, from the lowest level up. Their content is [`super::encode_inner`] of those.
    pub fn inner(&self) -> impl Iterator<Item = (&Child, &[Child])> {
        (1..self.levels.len()).flat_map(move |level| {
            self.level(level)
                .iter()
                .filter_map(move |node| Some((node, self.children(level, node)?)))
        })
    }

    /// Whether `child` is a node at `level` (0: the leaves).
    pub fn contains(&self, level: usize, child: &Child) -> bool {
        position(self.level(level), child).is_some()
    }

    /// The children of `node` if it is a node at `level`, which is not the leaves'.
    pub(super) fn children(&self, level: usize, node: &Child) -> Option<&[Child]> {
        let nodes = self.level(level);
        let place = position(nodes, node)?;
        let below = self.level(level.checked_sub(1)?);
        let from = below.partition_point(|child| child.first < node.first);
        let to = match nodes.get(place + 1) {
            Some(next) => below.partition_point(|child| child.first < next.first),
            None => below.len(),
        };
        below.get(from..to)
    }

    fn level(&self, level: usize) -> &[Child] {
        self.levels.get(level).map_or(&[], Vec::as_slice)
    }
}

/// Where `child` is among `nodes`.
pub(super) fn position(nodes: &[Child], child: &Child) -> Option<usize> {
    let place = nodes
        .binary_search_by(|node| node.first.cmp(&child.first))
        .ok()?;
    (nodes[place] == *child).then_some(place)
}

/// The first keys of nodes that are only in one of two levels.
fn changed_firsts(old: &[Child], new: &[Child]) -> BTreeSet<Key> {
    let only = |these: &[Child], others: &[Child]| -> Vec<Key> {
        let missing = these
            .iter()
            .filter(|child| position(others, child).is_none());
        missing.map(|child| child.first.clone()).collect()
    };
    let mut firsts = BTreeSet::from_iter(only(old, new));
    firsts.extend(only(new, old));
    firsts
}

/// What the nodes of a level are made of.
trait Items {
    type Item;
    type Error;

    /// The items with keys at or above `from`, in order.
    fn items_from(
        &self,
        from: Option<&Key>,
    ) -> impl Iterator<Item = Result<Self::Item, Self::Error>>;
    fn key(item: &Self::Item) -> &Key;
    /// What `item` adds to the weight of a node in which it follows `after`.
    fn weight(item: &Self::Item, after: Option<&Self::Item>) -> u64;
    /// The entities and the bytes of leaves in a node of these items whose content is `content`.
    fn sums(items: &[Self::Item], content: &[u8]) -> (u64, u64);
    fn encode(items: &[Self::Item]) -> Vec<u8>;
}

struct Leaves<'a, E>(&'a E);

impl<E: Entities> Items for Leaves<'_, E> {
    type Item = (Key, Entry);
    type Error = E::Error;

    fn items_from(&self, from: Option<&Key>) -> impl Iterator<Item = Result<Self::Item, E::Error>> {
        self.0.entities_from(from)
    }

    fn key(item: &Self::Item) -> &Key {
        &item.0
    }

    fn weight(item: &Self::Item, after: Option<&Self::Item>) -> u64 {
        entity_weight(item, after.map(|(key, _)| key))
    }

    fn sums(items: &[Self::Item], content: &[u8]) -> (u64, u64) {
        (items.len() as u64, content.len() as u64)
    }

    fn encode(items: &[Self::Item]) -> Vec<u8> {
        encode_leaf(items)
    }
}

struct Children<'a>(&'a [Child]);

impl Items for Children<'_> {
    type Item = Child;
    type Error = Infallible;

    fn items_from(&self, from: Option<&Key>) -> impl Iterator<Item = Result<Child, Infallible>> {
        let skipped = from.map_or(0, |from| {
            self.0.partition_point(|child| child.first < *from)
        });
        self.0.iter().skip(skipped).cloned().map(Ok)
    }

    fn key(item: &Child) -> &Key {
        &item.first
    }

    fn weight(item: &Child, _after: Option<&Child>) -> u64 {
        child_weight(item)
    }

    fn sums(items: &[Child], _content: &[u8]) -> (u64, u64) {
        let entities = items.iter().map(|child| child.entities).sum();
        let bytes = items.iter().map(|child| child.bytes).sum();
        (entities, bytes)
    }

    fn encode(items: &[Child]) -> Vec<u8> {
        encode_inner(items)
    }
}

/// A level to be cut anew, as far as it changed.
struct Level<'a> {
    limits: &'a Limits,
    /// 0 for the leaves.
    number: u8,
    /// Its nodes before the change.
    old: &'a [Child],
    /// The keys of the items that changed.
    changed: &'a BTreeSet<Key>,
}

impl Level<'_> {
    /// The nodes after the change. Takes over what it can, cuts anew until it meets an old boundary from which it
    /// can take over again, and so on.
    fn cut<S: Items>(&self, items: &S, new: &mut NewPiece<'_>) -> Result<Vec<Child>, S::Error> {
        let mut nodes = Vec::with_capacity(self.old.len());
        // The boundary reached: the old node that began there, and its first key (at the start, none).
        let mut place = 0;
        let mut from: Option<&Key> = None;
        loop {
            let taken = self.unchanged(place, from);
            nodes.extend_from_slice(&self.old[place..place + taken]);
            place += taken;
            match self.old.get(place) {
                Some(node) if taken > 0 => from = Some(&node.first),
                None if taken > 0 => return Ok(nodes),
                Some(_) | None => {}
            }
            match self.cut_anew(items, from, &mut nodes, new)? {
                Some(met) => (place, from) = (met, Some(&self.old[met].first)),
                None => return Ok(nodes),
            }
        }
    }

    /// How many old nodes from `place` on stay as they are if a node begins there now. `from` is the first key of
    /// the first of them; `None` at the very start, where a new key may come before.
    ///
    /// A node stays if nothing changed in it nor at the key after it, for whether that one is there decides where
    /// the node ends.
    fn unchanged(&self, place: usize, from: Option<&Key>) -> usize {
        let rest = &self.old[place..];
        let next_changed = match from {
            Some(from) => self.changed.range::<Key, _>(from..).next(),
            None => self.changed.first(),
        };
        match next_changed {
            Some(changed) => rest
                .partition_point(|node| node.first < *changed)
                .saturating_sub(1),
            None => rest.len(),
        }
    }

    /// Cuts nodes from `from` on, to the end or to a boundary where an old node can be taken over: its place.
    fn cut_anew<S: Items>(
        &self,
        items: &S,
        from: Option<&Key>,
        nodes: &mut Vec<Child>,
        new: &mut NewPiece<'_>,
    ) -> Result<Option<usize>, S::Error> {
        let cut = self.limits.cut(self.number);
        let mut node: Vec<S::Item> = Vec::new();
        let mut weight = 0_u64;
        for item in items.items_from(from) {
            let item = item?;
            let key = S::key(&item);
            if cut.ends(self.number, node.len(), weight, key) {
                nodes.extend(self.close::<S>(&node, new));
                node.clear();
                weight = 0;
                let met = self.old.binary_search_by(|old| old.first.cmp(key));
                if let Ok(place) = met
                    && self.unchanged(place, Some(key)) > 0
                {
                    return Ok(Some(place));
                }
            }
            weight = weight.saturating_add(S::weight(&item, node.last()));
            node.push(item);
        }
        nodes.extend(self.close::<S>(&node, new));
        Ok(None)
    }

    /// The node of these items, if there are any.
    fn close<S: Items>(&self, items: &[S::Item], new: &mut NewPiece<'_>) -> Option<Child> {
        let first = S::key(items.first()?).clone();
        let content = S::encode(items);
        let pieces = content
            .chunks(self.limits.piece_bytes)
            .map(Hash32::of)
            .collect();
        let (entities, bytes) = S::sums(items, &content);
        let child = Child {
            first,
            pieces,
            entities,
            bytes,
        };
        if position(self.old, &child).is_some() {
            return Some(child);
        }
        if let [hash] = child.pieces[..] {
            new(hash, content);
        } else {
            let parts = content.chunks(self.limits.piece_bytes);
            for (hash, part) in child.pieces.iter().zip(parts) {
                new(*hash, part.to_vec());
            }
        }
        Some(child)
    }
}
