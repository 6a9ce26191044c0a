//! A persistent hash index: shared values, found by a key that each holds itself.
//!
//! Made for few places in memory on the way to a value, since none of a large table is in a cache: the last levels are a
//! leaf and the value, and the leaf tells from 16 bits of the hash which of its values to look at. Branches choose by
//! four bits of the hash. A leaf takes a range of its branch's slots, which is cut in two when the leaf is full and
//! joined again when both halves fit in one leaf: so leaves are two thirds full on average, and the shape is a function
//! of the content and the hasher. A change copies one leaf and the branches above it, unless this version owns them
//! already.

#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Values of a leaf. More make a change dearer, which counts the references to each; fewer make more leaves.
const LEAF_MAX: usize = 16;
const SLOTS: usize = 16;
const SLOT_BITS: u32 = SLOTS.ilog2();

/// What knows its key. The key must not change.
pub(super) trait Keyed {
    fn key(&self) -> &[u8];
}

/// Values by their keys. A clone is cheap and keeps its content.
pub(super) struct Index<T, S = RandomState> {
    root: Branch<T>,
    len: usize,
    hasher: S,
}

/// What is found below 16 values of four bits. The first slot is never [`Node::Before`].
type Branch<T> = Arc<[Node<T>; SLOTS]>;

enum Node<T> {
    Branch(Branch<T>),
    /// Takes this slot and those after it that are [`Node::Before`]; as many as a power of two, which divides its place.
    Leaf(Arc<Leaf<T>>),
    /// Part of what a slot before this one takes.
    Before,
}

/// Values from the first place on, in no order.
struct Leaf<T> {
    tags: [u16; LEAF_MAX],
    values: [Option<Arc<T>>; LEAF_MAX],
}

/// The bits of a key's hash, from the highest on. There is no end to them.
struct Bits<'a, S> {
    key: &'a [u8],
    hasher: &'a S,
    hash: u64,
    left: u32,
    round: u64,
}

impl<'a, S: BuildHasher> Bits<'a, S> {
    fn of(key: &'a [u8], hasher: &'a S) -> Self {
        Self {
            key,
            hasher,
            hash: hasher.hash_one(key),
            left: u64::BITS,
            round: 0,
        }
    }

    /// The next slot.
    fn next(&mut self) -> usize {
        if self.left == 0 {
            self.round += 1;
            self.hash = self.hasher.hash_one((self.round, self.key));
            self.left = u64::BITS;
        }
        self.left -= SLOT_BITS;
        let [lowest, ..] = (self.hash >> self.left).to_le_bytes();
        usize::from(lowest) % SLOTS
    }

    /// Of a key below `depth` branches.
    fn below(key: &'a [u8], hasher: &'a S, depth: usize) -> Self {
        let mut bits = Self::of(key, hasher);
        for _ in 0..depth {
            bits.next();
        }
        bits
    }
}

/// From the lowest bits, which branches come to last. Hashed again for very many values only.
fn tag(hash: u64) -> u16 {
    let [low, high, ..] = hash.to_le_bytes();
    u16::from_le_bytes([low, high])
}

impl<T: Keyed, S: BuildHasher> Index<T, S> {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Arc<T>> {
        let mut bits = Bits::of(key, &self.hasher);
        let tag = tag(bits.hash);
        let mut branch = &self.root;
        loop {
            match &branch[start(branch, bits.next())] {
                Node::Branch(below) => branch = below,
                Node::Leaf(leaf) => return leaf.values[leaf.find(tag, key)?].as_ref(),
                Node::Before => return None,
            }
        }
    }

    /// To change the value, or to put another one of the same key there.
    pub(super) fn get_mut(&mut self, key: &[u8]) -> Option<&mut Arc<T>> {
        self.get(key)?;
        let mut bits = Bits::of(key, &self.hasher);
        let tag = tag(bits.hash);
        let mut branch = &mut self.root;
        loop {
            let slots = Arc::make_mut(branch);
            match &mut slots[start(slots, bits.next())] {
                Node::Branch(below) => branch = below,
                Node::Leaf(leaf) => {
                    let leaf = Arc::make_mut(leaf);
                    return leaf.values[leaf.find(tag, key)?].as_mut();
                }
                Node::Before => return None,
            }
        }
    }

    /// Adds a value whose key is not here yet.
    pub(super) fn insert(&mut self, value: Arc<T>) {
        debug_assert!(self.get(value.key()).is_none(), "the key is here already");
        self.len += 1;
        let mut bits = Bits::of(value.key(), &self.hasher);
        let tag = tag(bits.hash);
        let mut branch = &mut self.root;
        for depth in 0.. {
            let slot = bits.next();
            let slots = Arc::make_mut(branch);
            while is_full(&slots[start(slots, slot)]) {
                cut(slots, start(slots, slot), depth, &self.hasher);
            }
            match &mut slots[start(slots, slot)] {
                Node::Branch(below) => branch = below,
                Node::Leaf(leaf) => {
                    Arc::make_mut(leaf).push(tag, Arc::clone(&value));
                    return;
                }
                Node::Before => return,
            }
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        if self.get(key).is_some() {
            let bits = &mut Bits::of(key, &self.hasher);
            remove(&mut self.root, tag(bits.hash), bits);
            self.len -= 1;
        }
    }

    /// Any of the values.
    pub(super) fn any(&self) -> Option<&Arc<T>> {
        any(&self.root)
    }

    /// Calls `act` with each value, in no particular order.
    pub(super) fn for_each<'a>(&'a self, act: &mut impl FnMut(&'a Arc<T>)) {
        for_each(&self.root, act);
    }
}

/// The first slot of what takes this one.
fn start<T>(slots: &[Node<T>; SLOTS], mut slot: usize) -> usize {
    while slot > 0 && matches!(slots[slot], Node::Before) {
        // A place that more and more can divide.
        slot &= slot - 1;
    }
    slot
}

/// How many slots are taken by what starts at this one.
fn span<T>(slots: &[Node<T>; SLOTS], start: usize) -> usize {
    let after = slots[start + 1..].iter();
    1 + after
        .take_while(|node| matches!(node, Node::Before))
        .count()
}

fn is_full<T>(node: &Node<T>) -> bool {
    match node {
        Node::Leaf(leaf) => leaf.len() == LEAF_MAX,
        Node::Branch(_) | Node::Before => false,
    }
}

/// Makes two leaves of one, or a branch of one that takes a single slot.
fn cut<T: Keyed, S: BuildHasher>(
    slots: &mut [Node<T>; SLOTS],
    start: usize,
    depth: usize,
    hasher: &S,
) {
    let half = span(slots, start) / 2;
    let node = std::mem::replace(&mut slots[start], Node::Before);
    let Node::Leaf(leaf) = node else { return };
    if half == 0 {
        slots[start] = Node::Branch(branch_of(leaf));
        return;
    }
    let (mut lower, mut upper) = (Leaf::default(), Leaf::default());
    for (tag, value) in leaf.entries() {
        let slot = Bits::below(value.key(), hasher, depth).next();
        let part = if slot < start + half {
            &mut lower
        } else {
            &mut upper
        };
        part.push(tag, Arc::clone(value));
    }
    slots[start] = Node::Leaf(Arc::new(lower));
    slots[start + half] = Node::Leaf(Arc::new(upper));
}

/// Takes away the value that is below this branch.
fn remove<T: Keyed, S: BuildHasher>(branch: &mut Branch<T>, tag: u16, bits: &mut Bits<'_, S>) {
    let slots = Arc::make_mut(branch);
    let start = start(slots, bits.next());
    match &mut slots[start] {
        Node::Branch(below) => {
            remove(below, tag, bits);
            if let Some(leaf) = only_leaf(below) {
                slots[start] = Node::Leaf(leaf);
            }
        }
        Node::Leaf(leaf) => Arc::make_mut(leaf).remove(tag, bits.key),
        Node::Before => {}
    }
    join(slots, start);
}

/// The leaf that takes all of a branch.
fn only_leaf<T>(slots: &[Node<T>; SLOTS]) -> Option<Arc<Leaf<T>>> {
    match &slots[0] {
        Node::Leaf(leaf) if span(slots, 0) == SLOTS => Some(Arc::clone(leaf)),
        Node::Leaf(_) | Node::Branch(_) | Node::Before => None,
    }
}

/// Makes one leaf of two halves, as long as they fit.
fn join<T>(slots: &mut [Node<T>; SLOTS], mut start: usize) {
    loop {
        let size = span(slots, start);
        if size == SLOTS {
            return;
        }
        let (first, second) = (start & !size, start | size);
        let (Node::Leaf(lower), Node::Leaf(upper)) = (&slots[first], &slots[second]) else {
            return;
        };
        if span(slots, first) != span(slots, second) || lower.len() + upper.len() > LEAF_MAX {
            return;
        }
        let mut both = Leaf::clone(lower);
        for (tag, value) in upper.entries() {
            both.push(tag, Arc::clone(value));
        }
        slots[first] = Node::Leaf(Arc::new(both));
        slots[second] = Node::Before;
        start = first;
    }
}

fn for_each<'a, T>(slots: &'a [Node<T>; SLOTS], act: &mut impl FnMut(&'a Arc<T>)) {
    for node in slots {
        match node {
            Node::Branch(below) => for_each(below, act),
            Node::Leaf(leaf) => leaf.entries().for_each(|(_, value)| act(value)),
            Node::Before => {}
        }
    }
}

fn any<T>(slots: &[Node<T>; SLOTS]) -> Option<&Arc<T>> {
    slots.iter().find_map(|node| match node {
        Node::Branch(below) => any(below),
        Node::Leaf(leaf) => leaf.values[0].as_ref(),
        Node::Before => None,
    })
}

/// A branch with one leaf.
fn branch_of<T>(leaf: Arc<Leaf<T>>) -> Branch<T> {
    let mut slots = [const { Node::Before }; SLOTS];
    slots[0] = Node::Leaf(leaf);
    Arc::new(slots)
}

impl<T> Leaf<T> {
    fn len(&self) -> usize {
        self.values
            .iter()
            .take_while(|value| value.is_some())
            .count()
    }

    fn entries(&self) -> impl Iterator<Item = (u16, &Arc<T>)> {
        let both = self.tags.iter().zip(&self.values);
        both.map_while(|(tag, value)| Some((*tag, value.as_ref()?)))
    }

    /// Adds a value to a leaf that is not full.
    fn push(&mut self, tag: u16, value: Arc<T>) {
        let at = self.len();
        if let (Some(place), Some(free)) = (self.tags.get_mut(at), self.values.get_mut(at)) {
            (*place, *free) = (tag, Some(value));
        }
    }
}

impl<T: Keyed> Leaf<T> {
    fn find(&self, tag: u16, key: &[u8]) -> Option<usize> {
        let tags = self.tags.iter().enumerate();
        // All of them at once, without a branch for each.
        let mut alike = tags.fold(0_u32, |bits, (at, known)| {
            bits | u32::from(*known == tag) << at
        });
        while alike != 0 {
            let at = alike.trailing_zeros() as usize;
            if self.values[at].as_ref()?.key() == key {
                return Some(at);
            }
            alike &= alike - 1;
        }
        None
    }

    /// The last one takes the free place.
    fn remove(&mut self, tag: u16, key: &[u8]) {
        if let (Some(at), Some(last)) = (self.find(tag, key), self.len().checked_sub(1)) {
            self.values.swap(at, last);
            self.tags.swap(at, last);
            (self.values[last], self.tags[last]) = (None, 0);
        }
    }
}

impl<T, S: Default> Default for Index<T, S> {
    fn default() -> Self {
        Self {
            root: branch_of(Arc::default()),
            len: 0,
            hasher: S::default(),
        }
    }
}

impl<T> Default for Leaf<T> {
    fn default() -> Self {
        Self {
            tags: [0; LEAF_MAX],
            values: [const { None }; LEAF_MAX],
        }
    }
}

impl<T, S: Clone> Clone for Index<T, S> {
    fn clone(&self) -> Self {
        Self {
            root: Arc::clone(&self.root),
            len: self.len,
            hasher: self.hasher.clone(),
        }
    }
}

impl<T> Clone for Node<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Branch(below) => Self::Branch(Arc::clone(below)),
            Self::Leaf(leaf) => Self::Leaf(Arc::clone(leaf)),
            Self::Before => Self::Before,
        }
    }
}

impl<T> Clone for Leaf<T> {
    fn clone(&self) -> Self {
        Self {
            tags: self.tags,
            values: self.values.clone(),
        }
    }
}

/// Sorted, so that what is the same reads the same.
impl<T: Keyed + fmt::Debug, S: BuildHasher> fmt::Debug for Index<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut values = Vec::with_capacity(self.len);
        self.for_each(&mut |value| values.push(value));
        values.sort_unstable_by_key(|value| value.key());
        f.debug_list().entries(values).finish()
    }
}
