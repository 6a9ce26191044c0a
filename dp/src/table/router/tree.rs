//! A persistent byte-radix tree from path prefixes to the places routes take there.
//!
//! Prefixes are not bound to segments (`/foo` matches `/foobar`), hence bytes. Labels are never empty below the
//! root, siblings differ in their first byte, and a node without places has at least two children; so the tree is
//! a function of its content. A change copies the nodes on one way from the root, unless this version already owns
//! them.

use super::place::{Place, Places};
use super::text::Text;
use std::sync::Arc;

/// Longest key. A longer prefix is filed under its beginning, and the rest is compared with the request; this also
/// bounds the depth.
pub(super) const KEY_BYTES_MAX: usize = 256;

/// The routes of one host.
#[derive(Clone, Default, Debug)]
pub(super) struct Tree(Option<Arc<Node>>);

#[derive(Clone, Default, Debug)]
struct Node {
    /// The bytes that lead here.
    label: Text,
    places: Places,
    /// Sorted by `first`.
    children: Box<[Child]>,
}

#[derive(Clone, Debug)]
struct Child {
    /// The first byte of the node's label.
    first: u8,
    node: Arc<Node>,
}

impl Tree {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Files `place` under `key`, of which the first [`KEY_BYTES_MAX`] bytes count.
    pub(super) fn insert(&mut self, key: &[u8], place: Place) {
        let mut rest = &key[..key.len().min(KEY_BYTES_MAX)];
        let Some(mut slot) = self.0.as_mut() else {
            self.0 = Some(Node::leaf(rest, place));
            return;
        };
        loop {
            let shared = common(&slot.label, rest);
            if shared < slot.label.len() {
                Node::split(slot, shared);
            }
            rest = &rest[shared..];
            let node = Arc::make_mut(slot);
            let Some(&first) = rest.first() else {
                node.places.insert(place);
                return;
            };
            match node
                .children
                .binary_search_by_key(&first, |child| child.first)
            {
                Ok(index) => slot = &mut node.children[index].node,
                Err(index) => {
                    let child = Child {
                        first,
                        node: Node::leaf(rest, place),
                    };
                    let mut children = std::mem::take(&mut node.children).into_vec();
                    children.insert(index, child);
                    node.children = children.into();
                    return;
                }
            }
        }
    }

    /// Takes `place` away from under `key`.
    pub(super) fn remove(&mut self, key: &[u8], place: &Place) {
        let Some(root) = self.0.as_mut() else { return };
        Node::remove(root, &key[..key.len().min(KEY_BYTES_MAX)], place);
        if root.is_empty() {
            self.0 = None;
        } else {
            Node::merge(root);
        }
    }

    /// Calls `visit` with the places of each prefix of `path`: the longest first, but for paths with very many.
    pub(super) fn visit<'a>(&'a self, path: &[u8], mut visit: impl FnMut(&'a Places)) {
        const KEPT: usize = 24;
        let mut kept: [Option<&'a Places>; KEPT] = [None; KEPT];
        let mut count = 0;
        let mut rest = path;
        let mut next = self.0.as_deref();
        while let Some(node) = next {
            let Some(below) = rest.strip_prefix(&*node.label) else {
                break;
            };
            rest = below;
            if !node.places.is_empty() {
                if count < KEPT {
                    kept[count] = Some(&node.places);
                    count += 1;
                } else {
                    visit(&node.places);
                }
            }
            next = rest.first().and_then(|first| node.child(*first));
        }
        kept[..count]
            .iter()
            .rev()
            .copied()
            .flatten()
            .for_each(visit);
    }
}

impl Node {
    fn leaf(label: &[u8], place: Place) -> Arc<Self> {
        let places = Places::of(place);
        Arc::new(Self {
            label: label.into(),
            places,
            children: Box::default(),
        })
    }

    fn is_empty(&self) -> bool {
        self.places.is_empty() && self.children.is_empty()
    }

    fn child(&self, first: u8) -> Option<&Self> {
        // Most nodes lead on by letters or digits of one kind: looking at each is quicker than halving.
        const FEW: usize = 16;
        let child = if self.children.len() <= FEW {
            self.children.iter().find(|child| child.first == first)?
        } else {
            let index = self
                .children
                .binary_search_by_key(&first, |child| child.first)
                .ok()?;
            &self.children[index]
        };
        Some(&child.node)
    }

    /// Cuts the label in two: the node keeps `at` bytes, what it held moves into its only child.
    fn split(slot: &mut Arc<Self>, at: usize) {
        let upper = Self {
            label: slot.label[..at].into(),
            ..Self::default()
        };
        let mut lower = std::mem::replace(slot, Arc::new(upper));
        let below = Arc::make_mut(&mut lower);
        below.label = Text::from(&below.label[at..]);
        let first = below.label[0];
        Arc::make_mut(slot).children = Box::new([Child { first, node: lower }]);
    }

    /// Recursion is as deep as the key is long, at most.
    fn remove(slot: &mut Arc<Self>, key: &[u8], place: &Place) {
        let Some(rest) = key.strip_prefix(&*slot.label) else {
            return;
        };
        let node = Arc::make_mut(slot);
        let Some(first) = rest.first() else {
            node.places.remove(place);
            return;
        };
        let Ok(index) = node
            .children
            .binary_search_by_key(first, |child| child.first)
        else {
            return;
        };
        let child = &mut node.children[index].node;
        Self::remove(child, rest, place);
        if child.is_empty() {
            let mut children = std::mem::take(&mut node.children).into_vec();
            children.remove(index);
            node.children = children.into();
        } else {
            Self::merge(child);
        }
    }

    /// Joins a node that only leads to another with that other.
    fn merge(slot: &mut Arc<Self>) {
        if let (true, [only]) = (slot.places.is_empty(), &*slot.children) {
            let mut joined = Arc::clone(&only.node);
            let label = [&*slot.label, &*joined.label].concat();
            Arc::make_mut(&mut joined).label = Text::from(&*label);
            *slot = joined;
        }
    }
}

fn common(one: &[u8], two: &[u8]) -> usize {
    one.iter()
        .zip(two)
        .take_while(|(one, two)| one == two)
        .count()
}
