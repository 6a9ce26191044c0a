//! A persistent byte-radix tree from path prefixes to the places routes take there.
//!
//! Prefixes are not bound to segments (`/foo` matches `/foobar`), hence bytes. Labels are never empty below the
//! root, siblings differ in their first byte, and a node without places has at least two children; so the tree is
//! a function of its content. Siblings lie side by side, and their parent tells which is the one: a level costs one
//! place in memory. A change copies the siblings on one way from the root, unless this version already owns them.

use super::place::{Place, Places};
use super::text::Text;
use std::sync::Arc;

/// Longest key. A longer prefix is filed under its beginning, and the rest is compared with the request; this also
/// bounds the depth.
pub(super) const KEY_BYTES_MAX: usize = 256;

/// The routes of one host.
#[derive(Clone, Default, Debug)]
pub(super) struct Tree(Node);

#[derive(Clone, Default, Debug)]
struct Node {
    /// The bytes that lead here.
    label: Text<30>,
    places: Places,
    /// The first bytes of the children's labels, sorted.
    firsts: Text,
    children: Option<Arc<[Node]>>,
}

impl Tree {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Any of the places.
    pub(super) fn any(&self) -> Option<&Place> {
        let mut node = &self.0;
        loop {
            let place = node.places.any();
            if place.is_some() {
                return place;
            }
            node = node.children().first()?;
        }
    }

    /// Files `place` under `key`, of which the first [`KEY_BYTES_MAX`] bytes count.
    pub(super) fn insert(&mut self, key: &[u8], place: Place) {
        let mut rest = &key[..key.len().min(KEY_BYTES_MAX)];
        let mut node = &mut self.0;
        if node.is_empty() {
            *node = Node::leaf(rest, place);
            return;
        }
        loop {
            let shared = common(&node.label, rest);
            if shared < node.label.len() {
                node.split(shared);
            }
            rest = &rest[shared..];
            let Some(first) = rest.first() else {
                node.places.insert(place);
                return;
            };
            match node.firsts.binary_search(first) {
                Ok(index) => node = &mut node.children_mut()[index],
                Err(index) => {
                    let mut children = node.take_children();
                    children.insert(index, Node::leaf(rest, place));
                    node.set_children(children);
                    return;
                }
            }
        }
    }

    /// Takes `place` away from under `key`.
    pub(super) fn remove(&mut self, key: &[u8], place: &Place) {
        let root = &mut self.0;
        root.remove(&key[..key.len().min(KEY_BYTES_MAX)], place);
        if root.is_empty() {
            *root = Node::default();
        } else {
            root.merge();
        }
    }

    /// Calls `visit` with the places of each prefix of `path`: the longest first, but for paths with very many.
    pub(super) fn visit<'a>(&'a self, path: &[u8], mut visit: impl FnMut(&'a Places)) {
        const KEPT: usize = 24;
        let mut kept: [Option<&'a Places>; KEPT] = [None; KEPT];
        let mut count = 0;
        let mut rest = path;
        let mut next = Some(&self.0);
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
    fn leaf(label: &[u8], place: Place) -> Self {
        Self {
            label: label.into(),
            places: Places::of(place),
            ..Self::default()
        }
    }

    fn is_empty(&self) -> bool {
        self.places.is_empty() && self.children.is_none()
    }

    fn children(&self) -> &[Self] {
        self.children.as_deref().unwrap_or_default()
    }

    fn children_mut(&mut self) -> &mut [Self] {
        self.children
            .as_mut()
            .map(Arc::make_mut)
            .unwrap_or_default()
    }

    /// To be set again. Those of another version are copied.
    fn take_children(&mut self) -> Vec<Self> {
        let Some(mut children) = self.children.take() else {
            return Vec::new();
        };
        match Arc::get_mut(&mut children) {
            Some(own) => own.iter_mut().map(std::mem::take).collect(),
            None => children.to_vec(),
        }
    }

    fn set_children(&mut self, children: Vec<Self>) {
        let firsts = children.iter().filter_map(|child| child.label.first());
        self.firsts = firsts.copied().collect::<Vec<u8>>().as_slice().into();
        self.children = (!children.is_empty()).then(|| children.into());
    }

    fn child(&self, first: u8) -> Option<&Self> {
        // Most nodes lead on by letters or digits of one kind: looking at each is quicker than halving.
        const FEW: usize = 16;
        let index = if self.firsts.len() <= FEW {
            self.firsts.iter().position(|known| *known == first)?
        } else {
            self.firsts.binary_search(&first).ok()?
        };
        self.children().get(index)
    }

    /// Cuts the label in two: the node keeps `at` bytes, what it held moves into its only child.
    fn split(&mut self, at: usize) {
        let upper = Self {
            label: self.label[..at].into(),
            ..Self::default()
        };
        let mut lower = std::mem::replace(self, upper);
        lower.label = Text::from(&lower.label[at..]);
        self.set_children(vec![lower]);
    }

    /// Recursion is as deep as the key is long, at most.
    fn remove(&mut self, key: &[u8], place: &Place) {
        let Some(rest) = key.strip_prefix(&*self.label) else {
            return;
        };
        let Some(first) = rest.first() else {
            self.places.remove(place);
            return;
        };
        let Ok(index) = self.firsts.binary_search(first) else {
            return;
        };
        let child = &mut self.children_mut()[index];
        child.remove(rest, place);
        if child.is_empty() {
            let mut children = self.take_children();
            children.remove(index);
            self.set_children(children);
        } else {
            child.merge();
        }
    }

    /// Joins a node that only leads to another with that other.
    fn merge(&mut self) {
        if self.places.is_empty()
            && self.firsts.len() == 1
            && let Some(mut only) = self.take_children().pop()
        {
            let label = [&*self.label, &*only.label].concat();
            only.label = label.as_slice().into();
            *self = only;
        }
    }
}

fn common(one: &[u8], two: &[u8]) -> usize {
    one.iter()
        .zip(two)
        .take_while(|(one, two)| one == two)
        .count()
}
