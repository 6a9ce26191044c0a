//! What a tree looks like: contents, sums, sizes, and that the stored rule stays what it is.

use super::encode::{child_weight, entity_weight};
use super::*;

fn leaf_weight(entities: &[(Key, Entry)]) -> u64 {
    let after = entities.iter().map(|(key, _)| Some(key));
    let pairs = entities.iter().zip(std::iter::once(None).chain(after));
    pairs
        .map(|(entity, after)| entity_weight(entity, after))
        .sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_tree_holds_the_state_in_nodes_of_bounded_size(map in maps()) {
        let (tree, pieces) = build(&SMALL, &map);
        let mut found = Vec::new();
        let last = tree.leaves().len().saturating_sub(1);
        for (place, leaf) in tree.leaves().iter().enumerate() {
            let bytes = content(leaf, &pieces);
            let entities = decode_leaf(&bytes).unwrap();
            prop_assert_eq!(encode_leaf(&entities), bytes.clone());
            prop_assert_eq!((leaf.entities, leaf.bytes), (entities.len() as u64, bytes.len() as u64));
            prop_assert!(bytes.len() as u64 <= leaf_weight(&entities) + 9);
            prop_assert!(place == last || leaf_weight(&entities) >= SMALL.leaf.bytes_min);
            let before_last = &entities[..entities.len() - 1];
            prop_assert!(leaf_weight(before_last) < SMALL.leaf.bytes_forced, "it would have ended before its last entity");
            found.extend(entities);
        }
        prop_assert_eq!(found, map.0.clone().into_iter().collect::<Vec<_>>());
        for (level, node) in inner(&tree) {
            let bytes = content(node, &pieces);
            let children = decode_inner(&bytes).unwrap();
            prop_assert_eq!(encode_inner(&children), bytes.clone());
            prop_assert_eq!(tree.children(level, node), Some(&children[..]));
            prop_assert_eq!(node.entities, children.iter().map(|child| child.entities).sum::<u64>());
            prop_assert_eq!(node.bytes, children.iter().map(|child| child.bytes).sum::<u64>());
            let weights: Vec<u64> = children.iter().map(child_weight).collect();
            let above_last: u64 = weights[..weights.len() - 1].iter().sum();
            prop_assert!(bytes.len() as u64 <= weights.iter().sum::<u64>() + 9);
            prop_assert!(children.len() <= 2 || above_last < SMALL.inner.bytes_forced);
        }
        let root = tree.root();
        prop_assert_eq!(root.map_or(0, |root| root.entities), map.0.len() as u64);
        prop_assert_eq!(root.is_none(), tree.height() == 0);
    }
}

#[test]
fn an_entity_larger_than_a_piece_is_stored_in_several() {
    let mut map = Map((0..50)
        .map(|id| (key("route", "default", id), entry(1, 500)))
        .collect());
    let large = key("route", "default", 20);
    map.0.insert(large.clone(), entry(2, 1_500_000));
    let (tree, pieces) = build(&Limits::STORED, &map);
    let leaf = tree
        .leaves()
        .iter()
        .find(|leaf| leaf.pieces.len() > 1)
        .unwrap();
    assert_eq!(leaf.pieces.len(), 3);
    assert!(pieces.values().all(|piece| piece.len() <= PIECE_BYTES_MAX));
    let entities = leaf.open_leaf(&content(leaf, &pieces)).unwrap();
    assert!(entities.contains(&(large, entry(2, 1_500_000))));
}

#[test]
fn a_state_and_a_store_with_the_same_entities_have_the_same_tree() {
    let map = Map((0..300)
        .map(|id| (key("unknown", "default", id), entry(1, 400)))
        .collect());
    let state = State::restore(Default::default(), map.0.clone());
    let tree = Tree::build(&state, &mut |_, _| ()).unwrap();
    assert_eq!(tree, build(&Limits::STORED, &map).0);
    let from = key("unknown", "default", 298);
    let rest: Vec<_> = state
        .entities_from(Some(&from))
        .map(|Ok((key, _))| key.id.0.as_u128())
        .collect();
    assert_eq!(rest, [298, 299]);
}

/// The rule is part of the stored format. If this fails, every replica would fetch everything anew.
#[test]
fn inner_nodes_end_where_they_always_did() {
    let limits = Limits {
        leaf: SMALL.leaf,
        ..Limits::STORED
    };
    let map = Map((0..6000)
        .map(|id| (key("route", "default", id), entry(1, 40)))
        .collect());
    let (tree, _) = build(&limits, &map);
    let root = tree.root().unwrap();
    let shape: Vec<usize> = (0..tree.height())
        .map(|level| {
            tree.nodes()
                .filter(|node| tree.contains(usize::from(level), node))
                .count()
        })
        .collect();
    assert_eq!(shape, [1038, 7, 1]);
    assert_eq!(
        root.pieces[0].to_string(),
        "9c84cef16f3974cb1d3fc7871fdbc635a5522a13fc8935a2ec969643f083d27b"
    );
}
