//! What changes cost with the stored limits.

use super::*;

/// Numbers that look random, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 += 1;
        let hash = Hash32::of(&self.0.to_le_bytes());
        u64::from_le_bytes(hash.0[..8].try_into().unwrap())
    }

    fn id(&mut self) -> u128 {
        (u128::from(self.next()) << 64) | u128::from(self.next())
    }

    fn length(&mut self) -> usize {
        usize::try_from(300 + self.next() % 400).unwrap()
    }
}

/// Routes and consumers of about 500 bytes.
fn entities(numbers: &mut Numbers, count: usize) -> Map {
    let kinds = ["consumer", "route"];
    let entities = (0..count).map(|number| {
        let key = key(kinds[number % 2], "default", numbers.id());
        (key, entry(number as u64, numbers.length()))
    });
    Map(entities.collect())
}

fn edit(numbers: &mut Numbers, map: &Map, number: usize) -> Edit {
    let place = usize::try_from(numbers.next()).unwrap() % map.0.len();
    let present = map.0.keys().nth(place).unwrap().clone();
    let put = (numbers.next() % 100_000, numbers.length());
    match number % 3 {
        0 => (present, Some(put)),
        1 => (present, None),
        _ => (key("route", "default", numbers.id()), Some(put)),
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "shown if the test fails, or asked for")]
fn one_change_among_20_000_entities_makes_few_nodes() {
    const LEAVES_MAX: usize = 4;
    let numbers = &mut Numbers(7);
    let mut map = entities(numbers, 20_000);
    let (mut tree, pieces) = build(&Limits::STORED, &map);
    let sizes: Vec<usize> = pieces.values().map(Vec::len).collect();
    println!(
        "{} leaves, height {}, {} bytes, largest piece {}",
        tree.leaves().len(),
        tree.height(),
        sizes.iter().sum::<usize>(),
        sizes.iter().max().unwrap()
    );
    let mut counts = BTreeMap::new();
    for number in 0..50 {
        let edits = [edit(numbers, &map, number)];
        let changed = map.edit(&edits);
        let (updated, new) = update(&Limits::STORED, &tree, &map, &changed);
        let leaves = updated
            .leaves()
            .iter()
            .filter(|leaf| !tree.contains(0, leaf))
            .count();
        assert!(
            leaves <= LEAVES_MAX,
            "{leaves} leaves in edit {number}: {edits:?}"
        );
        assert!(
            new.len() <= leaves + usize::from(tree.height()),
            "edit {number}"
        );
        *counts.entry(leaves).or_insert(0) += 1;
        tree = updated;
    }
    println!("edits by the number of leaves they made: {counts:?}");
    assert_eq!(tree, build(&Limits::STORED, &map).0);
}

/// `cargo test --release -p sluice-schema chunk -- --ignored --nocapture`
#[test]
#[ignore = "measures, asserts nothing"]
#[allow(clippy::print_stdout, reason = "it is what the test is for")]
#[allow(clippy::disallowed_methods, reason = "measures time")]
fn how_long_it_takes() {
    let numbers = &mut Numbers(7);
    let mut map = entities(numbers, 100_000);
    let state = State::restore(Default::default(), map.0.clone());
    let bytes: usize = map
        .0
        .values()
        .map(|entry| entry.body.as_bytes().len())
        .sum();
    let hashed = std::time::Instant::now();
    for entry in map.0.values() {
        std::hint::black_box(Hash32::of(entry.body.as_bytes()));
    }
    println!("hashing {bytes} bytes of bodies: {:?}", hashed.elapsed());
    let started = std::time::Instant::now();
    let Ok(tree) = Tree::build(&state, &mut |_, _| ());
    println!(
        "build of {} entities, {} leaves, height {}: {:?}",
        map.0.len(),
        tree.leaves().len(),
        tree.height(),
        started.elapsed()
    );
    let (again, pieces) = build(&Limits::STORED, &map);
    assert_eq!(again, tree);
    for count in [1, 100] {
        let edits: Vec<Edit> = (0..count)
            .map(|number| edit(numbers, &map, number))
            .collect();
        let changed = map.edit(&edits);
        let started = std::time::Instant::now();
        let mut made = 0;
        let Ok(updated) = tree.update(&map, &changed, &mut |_, _| made += 1);
        println!(
            "update after {count}: {made} pieces, {:?}",
            started.elapsed()
        );
        let started = std::time::Instant::now();
        let ranges = differing(&updated, &tree);
        println!(
            "differing after {count}: {} ranges, {:?}",
            ranges.len(),
            started.elapsed()
        );
    }
    let started = std::time::Instant::now();
    let decoded: usize = tree
        .leaves()
        .iter()
        .map(|leaf| leaf.open_leaf(&content(leaf, &pieces)).unwrap().len())
        .sum();
    println!("opening all {decoded} entities: {:?}", started.elapsed());
    let mut sizes: Vec<u64> = tree.leaves().iter().map(|leaf| leaf.bytes).collect();
    sizes.sort_unstable();
    println!(
        "leaf bytes: least {}, median {}, mean {}, most {}",
        sizes[0],
        sizes[sizes.len() / 2],
        sizes.iter().sum::<u64>() / sizes.len() as u64,
        sizes[sizes.len() - 1]
    );
}
