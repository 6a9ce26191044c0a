//! Bytes that are not what they should be.

use super::*;
use crate::codec;

fn sample() -> (Tree, Pieces) {
    let map = Map((0..200)
        .map(|id| (key("route", "default", id), entry(3, 60)))
        .collect());
    build(&SMALL, &map)
}

fn begin<'a>(root: &Child, height: u8, known: &'a Tree) -> Result<Assembly<'a>, ChunkError> {
    Assembly::within(&SMALL, Some(root.clone()), height, known)
}

/// An inner node with these children as its parent would see it, with sums that are right.
fn node_of(children: &[Child]) -> (Child, Vec<u8>) {
    let content = encode_inner(children);
    let node = Child {
        first: children[0].first.clone(),
        pieces: content.chunks(SMALL.piece_bytes).map(Hash32::of).collect(),
        entities: children
            .iter()
            .map(|child| child.entities)
            .fold(0, u64::wrapping_add),
        bytes: children.iter().map(|child| child.bytes).sum(),
    };
    (node, content)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_flipped_bit_never_passes(place in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let (tree, pieces) = sample();
        let nodes: Vec<&Child> = tree.nodes().collect();
        let node = nodes[place.index(nodes.len())];
        let mut bytes = content(node, &pieces);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(matches!(node.check(&bytes, SMALL.piece_bytes), Err(ChunkError::Hash)));
        prop_assert!(matches!(node.open_leaf(&bytes), Err(ChunkError::Hash)));
        // What decodes all the same is at least in order.
        if let Ok(entities) = decode_leaf(&bytes) {
            prop_assert!(entities.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
        if let Ok(children) = decode_inner(&bytes) {
            prop_assert!(children.windows(2).all(|pair| pair[0].first < pair[1].first));
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in any::<prop::sample::Index>()) {
        for format in [LEAF_FORMAT, INNER_FORMAT] {
            let mut node = [&format.magic[..], &[format.version]].concat();
            node.extend(&bytes);
            _ = decode_leaf(&node);
            _ = decode_inner(&node);
        }
        let (tree, pieces) = sample();
        for node in tree.nodes() {
            let whole = content(node, &pieces);
            let part = &whole[..cut.index(whole.len())];
            prop_assert!(decode_leaf(part).is_err() && decode_inner(part).is_err());
            let longer = [&whole[..], &[0]].concat();
            prop_assert!(decode_leaf(&longer).is_err() && decode_inner(&longer).is_err());
        }
    }
}

#[test]
fn nodes_out_of_order_or_without_content_are_refused() {
    let one = (key("route", "default", 1), entry(1, 3));
    let two = (key("route", "default", 2), entry(1, 3));
    let other = (key("consumer", "default", 9), entry(1, 3));
    assert!(decode_leaf(&encode_leaf(&[one.clone(), two.clone()])).is_ok());
    for entities in [
        vec![two.clone(), one.clone()],
        vec![one.clone(), one.clone()],
        vec![one.clone(), other.clone()],
        vec![one.clone(), other, two],
    ] {
        let result = decode_leaf(&encode_leaf(&entities));
        assert!(matches!(result, Err(ChunkError::Order)), "{result:?}");
    }
    let result = decode_leaf(&encode_leaf(&[]));
    assert!(matches!(result, Err(ChunkError::Empty)), "{result:?}");
    let hollow = codec::encode(LEAF_FORMAT, &[("route", "default", [0_u8; 0])]);
    let result = decode_leaf(&hollow);
    assert!(matches!(result, Err(ChunkError::Empty)), "{result:?}");
    let forged = codec::encode(LEAF_FORMAT, &[("Route", "default", [0_u8; 0])]);
    let result = decode_leaf(&forged);
    assert!(matches!(result, Err(ChunkError::Codec(_))), "{result:?}");

    let leaves = sample().0.leaves().to_vec();
    let [a, b] = [&leaves[0], &leaves[1]];
    let without_pieces = Child {
        pieces: Vec::new(),
        ..a.clone()
    };
    let without_entities = Child {
        entities: 0,
        ..a.clone()
    };
    for children in [vec![], vec![without_pieces], vec![without_entities]] {
        let result = decode_inner(&encode_inner(&children));
        assert!(matches!(result, Err(ChunkError::Empty)), "{result:?}");
    }
    for children in [[b.clone(), a.clone()], [a.clone(), a.clone()]] {
        let result = decode_inner(&encode_inner(&children));
        assert!(matches!(result, Err(ChunkError::Order)), "{result:?}");
    }
}

#[test]
fn a_height_that_does_not_fit_is_refused() {
    let (tree, _) = sample();
    let known = Tree::default();
    let root = tree.root().unwrap();
    for height in [0, HEIGHT_MAX + 1, u8::MAX] {
        let result = begin(root, height, &known);
        assert!(matches!(result, Err(ChunkError::Height(found)) if found == height));
    }
    assert!(matches!(
        Assembly::new(None, 1, &known),
        Err(ChunkError::Height(1))
    ));
    let empty = Assembly::new(None, 0, &known).unwrap();
    assert!(empty.wants().is_none());
    assert_eq!(empty.finish().unwrap(), Tree::default());
}

#[test]
fn an_assembly_refuses_what_does_not_fit_and_still_wants_it() {
    let (tree, pieces) = sample();
    let known = Tree::default();
    let root = tree.root().unwrap();
    let mut assembly = begin(root, tree.height(), &known).unwrap();
    let first_leaf = content(&tree.leaves()[0], &pieces);
    assert!(matches!(assembly.give(&first_leaf), Err(ChunkError::Hash)));
    assert_eq!(assembly.wants(), Some(root));
    assembly.give(&content(root, &pieces)).unwrap();
    assert_ne!(assembly.wants(), Some(root));
    assert!(matches!(assembly.finish(), Err(ChunkError::Incomplete)));

    let mut complete = begin(root, tree.height(), &tree).unwrap();
    assert!(complete.wants().is_none());
    assert!(matches!(
        complete.give(&first_leaf),
        Err(ChunkError::NotWanted)
    ));
    assert_eq!(complete.finish().unwrap(), tree);
}

#[test]
fn an_assembly_refuses_a_node_that_lies_about_what_is_below() {
    let leaves = sample().0.leaves()[..4].to_vec();
    let known = Tree::default();
    let refused = |root: &Child, content: &[u8]| {
        let result = begin(root, 2, &known).unwrap().give(content);
        assert!(matches!(result, Err(ChunkError::Disagrees)), "{result:?}");
    };
    let (root, content) = node_of(&leaves);
    begin(&root, 2, &known).unwrap().give(&content).unwrap();
    for lie in [
        Child {
            entities: root.entities + 1,
            ..root.clone()
        },
        Child {
            bytes: root.bytes - 1,
            ..root.clone()
        },
        Child {
            first: leaves[1].first.clone(),
            ..root.clone()
        },
    ] {
        refused(&lie, &content);
    }
    // A leaf whose pieces are not as many as its bytes need, and sums that overflow.
    let mut forged = leaves.clone();
    forged[1].pieces.push(Hash32::default());
    let (root, content) = node_of(&forged);
    refused(&root, &content);
    let mut forged = leaves.clone();
    forged[1].entities = u64::MAX;
    let (root, content) = node_of(&forged);
    refused(&root, &content);
}

#[test]
fn an_assembly_refuses_children_beyond_the_next_node() {
    let leaves = sample().0.leaves()[..4].to_vec();
    let (low, low_content) = node_of(&[leaves[0].clone(), leaves[3].clone()]);
    let (high, _) = node_of(&leaves[1..3]);
    let (root, content) = node_of(&[low, high]);
    let known = Tree::default();
    let mut assembly = begin(&root, 3, &known).unwrap();
    assembly.give(&content).unwrap();
    let result = assembly.give(&low_content);
    assert!(matches!(result, Err(ChunkError::Disagrees)), "{result:?}");
}

#[test]
fn a_leaf_that_is_not_what_was_announced_is_not_opened() {
    let (tree, pieces) = build(
        &Limits::STORED,
        &Map((0..9)
            .map(|id| (key("route", "default", id), entry(1, 9)))
            .collect()),
    );
    let leaf = &tree.leaves()[0];
    let content = content(leaf, &pieces);
    assert_eq!(leaf.open_leaf(&content).unwrap().len(), 9);
    for lie in [
        Child {
            entities: 8,
            ..leaf.clone()
        },
        Child {
            bytes: leaf.bytes + 1,
            ..leaf.clone()
        },
        Child {
            first: key("route", "default", 1),
            ..leaf.clone()
        },
    ] {
        assert!(matches!(
            lie.open_leaf(&content),
            Err(ChunkError::Disagrees)
        ));
    }
    let range = Range {
        from: None,
        to: Some(key("route", "default", 8)),
        leaf: Some(leaf.clone()),
    };
    assert!(matches!(range.open(&content), Err(ChunkError::Disagrees)));
    assert_eq!(Range { to: None, ..range }.open(&content).unwrap().len(), 9);
}
