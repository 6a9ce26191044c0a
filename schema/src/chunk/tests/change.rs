//! Trees of states that change: updating, comparing, putting together.

use super::*;

/// Replaces what `own` holds in the ranges by what the leaves say.
fn mended(own: &Map, ranges: &[Range], pieces: &Pieces) -> Map {
    let mut map = own.clone();
    for range in ranges {
        map.0.retain(|key, _| !range.holds(key));
        let Some(leaf) = &range.leaf else { continue };
        let entities = decode_leaf(&content(leaf, pieces)).unwrap();
        assert!(entities.iter().all(|(key, _)| range.holds(key)));
        map.0.extend(entities);
    }
    map
}

fn assert_mends(own: &Map, wanted: &Map) -> Vec<Range> {
    let (tree, pieces) = build(&SMALL, wanted);
    let ranges = differing(&build(&SMALL, own).0, &tree);
    for pair in ranges.windows(2) {
        assert!(
            pair[0].to.is_some() && pair[0].to <= pair[1].from,
            "{pair:?}"
        );
    }
    assert_eq!(mended(own, &ranges, &pieces), *wanted, "{ranges:?}");
    ranges
}

/// The entities of these leaves of the map's tree.
fn of_leaves(map: &Map, places: &[usize]) -> Map {
    let (tree, pieces) = build(&SMALL, map);
    let leaves = places.iter().map(|place| &tree.leaves()[*place]);
    let entities = leaves.flat_map(|leaf| decode_leaf(&content(leaf, &pieces)).unwrap());
    Map(entities.collect())
}

/// Assembles the wanted tree; the nodes that were asked for.
fn assembled(known: &Tree, wanted: &Tree, pieces: &Pieces) -> (Tree, Vec<Child>) {
    let mut assembly =
        Assembly::within(&SMALL, wanted.root().cloned(), wanted.height(), known).unwrap();
    let mut asked = Vec::new();
    while let Some(node) = assembly.wants().cloned() {
        assembly.give(&content(&node, pieces)).unwrap();
        asked.push(node);
    }
    (assembly.finish().unwrap(), asked)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_updated_tree_is_the_tree_built_anew(start in maps(), steps in prop::collection::vec(edits(), 1..6)) {
        let mut map = start;
        let (mut tree, mut kept) = build(&SMALL, &map);
        for edits in steps {
            let changed = map.edit(&edits);
            let (updated, new) = update(&SMALL, &tree, &map, &changed);
            let (built, all) = build(&SMALL, &map);
            prop_assert_eq!(&updated, &built);
            let made: BTreeSet<&Hash32> = updated
                .nodes()
                .filter(|node| !tree.nodes().any(|old| old == *node))
                .flat_map(|node| &node.pieces)
                .collect();
            prop_assert_eq!(new.keys().collect::<BTreeSet<_>>(), made, "only the pieces of new nodes are given");
            kept.extend(new);
            for node in updated.nodes() {
                prop_assert_eq!(content(node, &kept), content(node, &all));
            }
            tree = updated;
        }
    }

    #[test]
    fn what_differs_is_all_that_differs(own in maps(), edits in edits()) {
        let wanted = own.after(&edits);
        assert_mends(&own, &wanted);
        assert_mends(&wanted, &own);
        prop_assert_eq!(assert_mends(&own, &own), Vec::new());
        assert_mends(&own, &Map::default());
        assert_mends(&Map::default(), &own);
    }

    #[test]
    fn a_tree_is_put_together_from_what_is_new_in_it(own in maps(), edits in edits()) {
        let wanted = own.after(&edits);
        let (known, _) = build(&SMALL, &own);
        let (tree, pieces) = build(&SMALL, &wanted);
        for known in [&known, &Tree::default(), &tree] {
            let (found, asked) = assembled(known, &tree, &pieces);
            prop_assert_eq!(&found, &tree);
            let unknown: BTreeSet<_> = inner(&tree)
                .filter(|(level, node)| !known.contains(*level, node))
                .map(|(_, node)| &node.pieces)
                .collect();
            prop_assert_eq!(asked.len(), unknown.len());
            prop_assert!(asked.iter().all(|node| unknown.contains(&node.pieces)));
        }
    }

    #[test]
    fn unrelated_states_are_mended_too(own in maps(), wanted in maps()) {
        assert_mends(&own, &wanted);
    }
}

#[test]
fn a_leaf_that_is_the_same_does_not_hide_entities_around_it() {
    let all = Map((0..60)
        .map(|id| (key("route", "default", id), entry(1, 50)))
        .collect());
    let leaves: Vec<usize> = (0..build(&SMALL, &all).0.leaves().len()).collect();
    let last = leaves.len() - 1;
    assert!(last >= 4, "{last}");
    // A middle leaf, the first, the last, several: all the wanted tree's leaves are our own, and yet we have too much.
    for missing in [vec![2], vec![0], vec![last], vec![0, 1], vec![1, 2, last]] {
        let rest: Vec<usize> = leaves
            .iter()
            .copied()
            .filter(|place| !missing.contains(place))
            .collect();
        let wanted = of_leaves(&all, &rest);
        let (own_tree, wanted_tree) = (build(&SMALL, &all).0, build(&SMALL, &wanted).0);
        let held = wanted_tree
            .leaves()
            .iter()
            .filter(|leaf| own_tree.contains(0, leaf))
            .count();
        let ranges = assert_mends(&all, &wanted);
        assert!(!ranges.is_empty());
        let fetched = ranges.iter().filter(|range| range.leaf.is_some()).count();
        assert_eq!(
            fetched,
            wanted_tree.leaves().len() - held,
            "what we have is not fetched"
        );
        assert_mends(&wanted, &all);
    }
}

#[test]
fn a_state_that_becomes_empty_and_full_again_has_the_tree_it_had() {
    let full = Map((0..200)
        .map(|id| (key("route", "default", id), entry(1, 60)))
        .collect());
    let keys: BTreeSet<Key> = full.0.keys().cloned().collect();
    let (tree, pieces) = build(&SMALL, &full);
    assert!(tree.height() >= 3, "{}", tree.height());
    let (empty, none) = update(&SMALL, &tree, &Map::default(), &keys);
    assert_eq!((empty.height(), empty.root(), none.len()), (0, None, 0));
    assert_eq!(update(&SMALL, &empty, &full, &keys), (tree, pieces));
}

/// A source that breaks off.
struct Broken;

impl Entities for Broken {
    type Error = &'static str;

    fn entities_from(
        &self,
        _: Option<&Key>,
    ) -> impl Iterator<Item = Result<(Key, Entry), Self::Error>> {
        [
            Ok((key("route", "default", 1), entry(1, 10))),
            Err("the disk is gone"),
        ]
        .into_iter()
    }
}

#[test]
fn an_error_of_the_source_is_handed_on() {
    let result = Tree::build(&Broken, &mut |_, _| ());
    assert_eq!(result, Err("the disk is gone"));
}
