//! The index against a sorted map, with hashers that tell little.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::hash::Hasher;

#[derive(Debug, PartialEq)]
struct Value {
    key: Vec<u8>,
    number: usize,
}

impl Keyed for Value {
    fn key(&self) -> &[u8] {
        &self.key
    }
}

/// Keeps a few bits of what was fed last, so that many keys share all bits of a round.
#[derive(Clone, Copy, Default, Debug)]
struct Weak<const BITS: u32>(u64);

impl<const BITS: u32> BuildHasher for Weak<BITS> {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self(0)
    }
}

impl<const BITS: u32> Hasher for Weak<BITS> {
    fn finish(&self) -> u64 {
        // Spread over the bits that branches look at first.
        (self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - BITS)) << (u64::BITS - BITS)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// The shape: what is where.
fn shape<T: Keyed>(
    slots: &[Node<T>; SLOTS],
    path: &str,
    told: &mut BTreeMap<String, Vec<Vec<u8>>>,
) {
    for (slot, node) in slots.iter().enumerate() {
        let path = format!("{path}/{slot}");
        match node {
            Node::Branch(below) => shape(below, &path, told),
            Node::Leaf(leaf) => {
                let mut keys: Vec<_> = leaf
                    .entries()
                    .map(|(_, value)| value.key().to_vec())
                    .collect();
                keys.sort_unstable();
                told.insert(format!("{path}+{}", span(slots, slot)), keys);
            }
            Node::Before => {}
        }
    }
}

fn shape_of<S: BuildHasher>(index: &Index<Value, S>) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut told = BTreeMap::new();
    shape(&index.root, "", &mut told);
    told
}

fn check<S: BuildHasher + Clone + Default>(edits: &[(u16, bool)]) -> Result<(), TestCaseError> {
    let mut index = Index::<Value, S>::default();
    let mut expected: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let mut old = Vec::new();
    for (number, (key, put)) in edits.iter().enumerate() {
        let key = format!("key-{key}").into_bytes();
        if number % 64 == 7 {
            old.push((index.clone(), shape_of(&index)));
        }
        if *put {
            expected.insert(key.clone(), number);
            let value = Arc::new(Value { key, number });
            match index.get_mut(&value.key) {
                Some(known) => *known = value,
                None => index.insert(value),
            }
        } else {
            expected.remove(&key);
            index.remove(&key);
        }
        prop_assert_eq!(index.len, expected.len());
        prop_assert_eq!(index.any().is_some(), !expected.is_empty());
    }
    for key in 0..=512 {
        let key = format!("key-{key}").into_bytes();
        let found = index.get(&key).map(|value| value.number);
        prop_assert_eq!(found, expected.get(&key).copied());
    }
    let mut fresh = Index::<Value, S> {
        hasher: index.hasher.clone(),
        ..Index::default()
    };
    for (key, number) in &expected {
        let (key, number) = (key.clone(), *number);
        fresh.insert(Arc::new(Value { key, number }));
    }
    prop_assert_eq!(shape_of(&index), shape_of(&fresh));
    prop_assert_eq!(format!("{index:?}"), format!("{fresh:?}"));
    for (index, before) in old {
        prop_assert_eq!(shape_of(&index), before, "an old version changed");
    }
    expected.keys().for_each(|key| index.remove(key));
    prop_assert!(index.is_empty());
    let empty = Index::<Value, S>::default();
    prop_assert_eq!(shape_of(&index), shape_of(&empty));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn an_index_holds_what_a_map_holds_after_any_edits(
        edits in vec((0_u16..512, prop::bool::weighted(0.7)), 0..1500),
    ) {
        check::<RandomState>(&edits)?;
    }

    #[test]
    fn keys_whose_hashes_are_alike_are_told_apart(
        edits in vec((0_u16..512, prop::bool::weighted(0.7)), 0..600),
    ) {
        check::<Weak<3>>(&edits)?;
        check::<Weak<5>>(&edits)?;
    }
}

#[test]
fn a_leaf_takes_little_memory() {
    assert_eq!(size_of::<Leaf<Value>>(), 160);
    assert_eq!(size_of::<Node<Value>>(), 16);
}
