//! Taking up another state: little or much of it, all or nothing.

use super::*;
use crate::store::load::LOAD_MEMORY_BYTES_MAX;

const ALL: u64 = u64::MAX;

fn filled(disk: &FaultDisk, history: &History) -> Store {
    let mut store = Store::open_on(disk.shared()).unwrap().store;
    history.applied_to(&mut store, 0, history.events.len());
    store.begin_sync().unwrap().sync().unwrap();
    store
}

fn open_again(disk: &FaultDisk) -> Opened {
    let opened = Store::open_on(disk.shared()).unwrap();
    assert_eq!(opened.warning(), None);
    opened
}

/// The changes that make `old` what `new` is.
fn expected_changes(old: &State, new: &State) -> Vec<Change> {
    let mut keys: BTreeSet<Key> = old.iter().map(|(key, _)| key.clone()).collect();
    keys.extend(new.iter().map(|(key, _)| key.clone()));
    let changes = keys.into_iter().map(|key| Change {
        before: old.get(&key).cloned(),
        after: new.get(&key).cloned(),
        key,
    });
    changes
        .filter(|change| change.before != change.after)
        .collect()
}

/// Gives a store all ranges between `cuts` in which `new` differs from `old`.
fn give_ranges(
    store: &mut Store,
    (old, new): (&State, &State),
    cuts: &BTreeSet<Key>,
) -> Result<Vec<Change>, StoreError> {
    let bounds: Vec<Option<&Key>> = [None]
        .into_iter()
        .chain(cuts.iter().map(Some))
        .chain([None])
        .collect();
    let mut changes = Vec::new();
    for bounds in bounds.windows(2) {
        let (from, to) = (bounds[0], bounds[1]);
        let within = |state: &State| -> Vec<(Key, Entry)> {
            let mut held = entities(state);
            held.retain(|(key, _)| {
                from.is_none_or(|from| key >= from) && to.is_none_or(|to| key < to)
            });
            held
        };
        if within(old) != within(new) {
            changes.extend(store.take_range(from, to, within(new))?);
        }
    }
    Ok(changes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_load_gives_the_state_and_the_changes_whichever_way_it_is_written(
        first in proptest::collection::vec(mutation(), 0..30),
        second in proptest::collection::vec(mutation(), 0..30),
        cuts in proptest::collection::btree_set((0_u64..14).prop_map(key), 0..5),
        differing in prop_oneof![Just(0), Just(ALL)],
    ) {
        let mut history = History::new();
        history.push(first);
        let disk = FaultDisk::default();
        let mut store = filled(&disk, &history);
        let old = history.end().clone();
        history.push(second);
        let new = history.end();
        store.begin(new.cursor(), differing).unwrap();
        let changes = give_ranges(&mut store, (&old, new), &cuts).unwrap();
        prop_assert_eq!(changes, expected_changes(&old, new));
        assert_store_holds(&store, &old);
        store.commit(new.digest(), tree(new)).unwrap();
        assert_store_holds(&store, new);
        prop_assert_eq!(store.tree().unwrap(), &tree(new));
        drop(store);
        assert_holds(&open_again(&disk), new);
        disk.edit(|inner| assert_eq!(inner.database_names().len(), 1));
    }
}

#[test]
fn a_load_is_durable_when_it_is_committed() {
    for differing in [0, ALL] {
        let disk = FaultDisk::default();
        let mut history = sample();
        let mut store = filled(&disk, &history);
        history.push(vec![put(1, "new"), delete(3)]);
        let changes = load(&mut store, history.end(), differing).unwrap();
        assert_eq!(changes.len(), 2);
        let lost = disk.after(fault::Crash::Power);
        assert_holds(&open_again(&lost), history.end());
        // And it goes on from there.
        history.push(vec![put(2, "newer")]);
        let last = history.events.len();
        history.applied_to(&mut store, last - 1, last);
        drop(store);
        assert_holds(&open_again(&disk), history.end());
    }
}

#[test]
fn a_state_with_another_sum_is_not_taken_up() {
    for differing in [0, ALL] {
        let disk = FaultDisk::default();
        let mut history = sample();
        let old = history.end().clone();
        let mut store = filled(&disk, &history);
        history.push(vec![put(1, "new")]);
        let new = history.end();
        store.begin(new.cursor(), differing).unwrap();
        store.take_range(None, None, entities(new)).unwrap();
        let error = store.commit(old.digest(), tree(new)).unwrap_err();
        let StoreError::Apply(ApplyError::Diverged {
            expected, found, ..
        }) = error
        else {
            panic!("{error}");
        };
        assert_eq!((expected, found), (old.digest(), new.digest()));
        assert_store_holds(&store, &old);
        assert!(matches!(
            store.commit(new.digest(), tree(new)),
            Err(StoreError::Load(_))
        ));
        drop(store);
        assert_holds(&open_again(&disk), &old);
    }
}

#[test]
fn ranges_out_of_order_are_refused() {
    type Range = (Option<u64>, Option<u64>, &'static [u64]);
    // Numbers of keys of one kind.
    let rows: [(&[Range], bool); 9] = [
        (&[(None, Some(6), &[0]), (Some(6), None, &[12])], true),
        (&[(Some(6), Some(12), &[6]), (Some(18), None, &[])], true),
        (&[(None, None, &[]), (Some(6), None, &[])], false),
        (&[(None, Some(12), &[]), (Some(6), None, &[])], false),
        (&[(None, Some(12), &[]), (None, None, &[])], false),
        (&[(Some(12), Some(6), &[])], false),
        (&[(Some(6), Some(12), &[12])], false),
        (&[(Some(6), Some(12), &[0])], false),
        (&[(None, None, &[6, 0])], false),
    ];
    let history = sample();
    for (ranges, expected) in rows {
        for differing in [0, ALL] {
            let disk = FaultDisk::default();
            let mut store = filled(&disk, &history);
            store.begin(history.end().cursor(), differing).unwrap();
            let results: Vec<_> = ranges
                .iter()
                .map(|(from, to, numbers)| {
                    let entry = Entry {
                        version: Version(9),
                        body: Body::from_bytes(b"x"),
                    };
                    let given = numbers.iter().map(|number| (key(*number), entry.clone()));
                    store.take_range(
                        from.map(key).as_ref(),
                        to.map(key).as_ref(),
                        given.collect(),
                    )
                })
                .collect();
            let refused = matches!(results.last(), Some(Err(StoreError::Load(_))));
            assert_eq!(refused, !expected, "{ranges:?}: {results:?}");
            drop(store);
            assert_holds(&open_again(&disk), history.end());
        }
    }
}

#[test]
fn more_than_was_said_goes_to_a_new_database() {
    let disk = FaultDisk::default();
    let mut history = sample();
    let mut store = filled(&disk, &history);
    let old = history.end().clone();
    let large = "x".repeat(1 << 20);
    let count = LOAD_MEMORY_BYTES_MAX / (1 << 20) + 4;
    history.push((0..count).map(|number| put(number, &large)).collect());
    let new = history.end();
    store.begin(new.cursor(), 0).unwrap();
    let changes = give_ranges(&mut store, (&old, new), &(0..40).map(key).collect()).unwrap();
    assert_eq!(changes, expected_changes(&old, new));
    disk.edit(|inner| assert_eq!(inner.database_names(), ["db.0", "db.1"]));
    store.commit(new.digest(), tree(new)).unwrap();
    disk.edit(|inner| assert_eq!(inner.database_names(), ["db.1"]));
    assert_store_holds(&store, new);
    drop(store);
    assert_holds(&open_again(&disk), new);
}

#[test]
fn a_load_that_is_given_up_leaves_nothing_behind() {
    type End = fn(&mut Store, &History);
    let ends: [End; 3] = [
        |store, _| store.abandon(),
        |store, history| {
            history.applied_to(store, 4, 5);
        },
        |store, history| store.begin(history.end().cursor(), 0).unwrap(),
    ];
    for end in ends {
        let disk = FaultDisk::default();
        let mut history = sample();
        let mut store = filled(&disk, &history);
        history.push(vec![put(1, "new")]);
        store.begin(history.end().cursor(), ALL).unwrap();
        store
            .take_range(None, None, entities(history.end()))
            .unwrap();
        end(&mut store, &history);
        assert!(
            store
                .commit(history.end().digest(), tree(history.end()))
                .is_err()
        );
        disk.edit(|inner| assert_eq!(inner.database_names(), ["db.0"]));
        assert!(matches!(
            store.take_range(None, None, vec![]),
            Err(StoreError::Load(_))
        ));
    }
}

#[test]
fn a_database_that_has_grown_far_beyond_its_content_is_written_anew() {
    let disk = FaultDisk::default();
    let history = sample();
    let store = filled(&disk, &history);
    drop(store);
    disk.set_bytes_on_disk(65 << 20);
    let mut opened = open_again(&disk);
    disk.edit(|inner| assert_eq!(inner.database_names(), ["db.1"]));
    assert_holds(&opened, history.end());
    disk.set_bytes_on_disk(63 << 20);
    assert!(!opened.store.compact_if_worth().unwrap());
}

#[test]
fn a_sync_that_ends_after_a_load_does_not_name_the_old_database() {
    let disk = FaultDisk::default();
    let mut history = sample();
    let mut store = filled(&disk, &history);
    let late = store.begin_sync().unwrap();
    history.push(vec![put(1, "new")]);
    load(&mut store, history.end(), ALL).unwrap();
    late.sync().unwrap();
    drop((store, late));
    assert_holds(&open_again(&disk), history.end());
}

#[test]
fn what_is_most_of_a_store_is_saved_into_a_new_database() {
    let disk = FaultDisk::default();
    let mut history = History::new();
    history.push((0..80).map(|number| put(number, "first")).collect());
    let mut store = Store::open_on(disk.shared()).unwrap().store;
    let empty = store.view();
    history.applied_to(&mut store, 0, history.events.len());
    store.save().unwrap();
    disk.edit(|inner| assert_eq!(inner.database_names(), ["db.0", "db.1"]));
    assert_store_holds(&store, history.end());
    assert_eq!(empty.len(), 0, "who reads the old one goes on");
    drop(empty);
    history.push(vec![put(1, "small")]);
    history.applied_to(&mut store, history.events.len() - 1, history.events.len());
    store.save().unwrap();
    disk.edit(|inner| assert_eq!(inner.database_names(), ["db.1"]));
    store.begin_sync().unwrap().sync().unwrap();
    assert_holds(&open_again(&disk), history.end());
}
