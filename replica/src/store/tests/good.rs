//! The last known good copy: written when due, used when the database cannot be.

use super::fault::Inner;
use super::*;
use crate::store::good::{GOOD_CHANGES_MAX, GOOD_INTERVAL, Refreshed};
use std::time::Instant;

/// A store with a copy of version 2, then one of version 3, that holds version 4.
fn with_copies(disk: &FaultDisk) -> History {
    let history = sample();
    let mut store = Store::open_on(disk.shared()).unwrap().store;
    for (from, to) in [(0, 2), (2, 3)] {
        history.applied_to(&mut store, from, to);
        store.begin_sync().unwrap().sync().unwrap();
        refresh(&mut store);
    }
    history.applied_to(&mut store, 3, 4);
    store.begin_sync().unwrap().sync().unwrap();
    history
}

fn refresh(store: &mut Store) -> Refreshed {
    store.refresh_good(Instant::now()).unwrap().run().unwrap()
}

/// Damages the files whose names begin with `prefix`.
fn damage(inner: &mut Inner, prefix: &str) {
    for (_, bytes) in inner
        .files
        .iter_mut()
        .filter(|(file, _)| file.starts_with(prefix))
    {
        bytes[40] ^= 1;
    }
}

type Edit = fn(&mut Inner);

/// What is damaged, the version that is opened then, where it comes from, and how many copies could not be used.
fn rows() -> [(&'static str, Edit, usize, Origin, usize); 6] {
    [
        (
            "a flipped bit",
            Inner::flip_value,
            3,
            Origin::LastKnownGood { behind: Some(1) },
            0,
        ),
        (
            "lost databases",
            Inner::lose_databases,
            3,
            Origin::LastKnownGood { behind: Some(1) },
            0,
        ),
        (
            "a damaged 'current'",
            |inner| damage(inner, "current"),
            3,
            Origin::LastKnownGood { behind: None },
            0,
        ),
        (
            "and a damaged manifest",
            |inner| {
                inner.flip_value();
                damage(inner, "good/manifest");
                let old = inner.files.get_mut("good/manifest.old").unwrap();
                old[40] ^= 1;
            },
            2,
            Origin::LastKnownGood { behind: Some(2) },
            1,
        ),
        (
            "and both manifests damaged",
            |inner| {
                inner.flip_value();
                damage(inner, "good/manifest");
            },
            0,
            Origin::Empty,
            2,
        ),
        (
            "and all pieces missing",
            |inner| {
                inner.flip_value();
                inner
                    .files
                    .retain(|file, _| !file.starts_with("good/chunks"));
            },
            0,
            Origin::Empty,
            2,
        ),
    ]
}

#[test]
fn the_copy_is_used_when_the_database_cannot_be() {
    for (what, edit, version, source, unusable) in rows() {
        let disk = FaultDisk::default();
        let history = with_copies(&disk);
        disk.edit(edit);
        let opened = Store::open_on(disk.shared()).unwrap();
        assert_holds(&opened, &history.states[version]);
        assert_eq!(
            (opened.source, opened.unusable.len()),
            (source, unusable),
            "{what}: {opened:?}"
        );
        assert!(opened.moved_aside.is_some(), "{what}");
        assert_eq!(disk.asides(), 1);
        drop(opened);
        // It is the database's from then on, and the log carries on from there.
        let mut opened = Store::open_on(disk.shared()).unwrap();
        assert_eq!(
            (opened.source, opened.warning()),
            (Origin::Database, None),
            "{what}"
        );
        history.applied_to(&mut opened.store, version, history.events.len());
        assert_holds(&opened, history.end());
    }
}

#[test]
fn the_copy_is_used_when_all_else_was_removed() {
    let disk = FaultDisk::default();
    let history = with_copies(&disk);
    disk.edit(|inner| {
        inner.lose_databases();
        inner.files.retain(|file, _| file.starts_with("good"));
    });
    let opened = Store::open_on(disk.shared()).unwrap();
    assert_eq!(opened.source, Origin::LastKnownGood { behind: None });
    assert!(
        opened
            .warning()
            .unwrap()
            .starts_with("the local store was gone")
    );
    assert_holds(&opened, &history.states[3]);
}

#[test]
fn a_refresh_writes_only_what_changed_and_removes_what_is_not_used() {
    let disk = FaultDisk::default();
    let mut store = Store::open_on(disk.shared()).unwrap().store;
    let mut history = History::new();
    // Leaves are about 128 KiB.
    let body = "x".repeat(4000);
    history.push((0..400).map(|number| put(number, &body)).collect());
    history.applied_to(&mut store, 0, 2);
    let leaves = tree(history.end()).leaves().len() as u64;
    assert!(leaves > 4, "{leaves}");
    let pieces = |disk: &FaultDisk| disk.shared().list("good/chunks").unwrap().len() as u64;
    assert_eq!(
        refresh(&mut store),
        Refreshed {
            written: leaves,
            removed: 0
        }
    );
    for round in 0..4 {
        let last = history.events.len();
        history.push(vec![put(77, &format!("{round}"))]);
        history.applied_to(&mut store, last, last + 1);
        let Refreshed { written, removed } = refresh(&mut store);
        assert!((1..=3).contains(&written), "{written}");
        // The manifest before still names what this one does not.
        assert_eq!(removed > 0, round > 0);
        assert!(pieces(&disk) <= leaves + 6);
    }
    let last = history.events.len();
    drop(store);
    disk.edit(Inner::flip_value);
    let opened = Store::open_on(disk.shared()).unwrap();
    // The first versions went into a new database, which was synced; the copy is newer.
    assert_eq!(opened.source, Origin::LastKnownGood { behind: Some(0) });
    assert_holds(&opened, &history.states[last]);
}

#[test]
fn a_damaged_piece_is_written_again() {
    let disk = FaultDisk::default();
    let history = with_copies(&disk);
    disk.edit(|inner| {
        inner.flip_value();
        damage(inner, "good/chunks");
    });
    let mut opened = Store::open_on(disk.shared()).unwrap();
    assert_eq!((opened.source, opened.unusable.len()), (Origin::Empty, 2));
    history.applied_to(&mut opened.store, 0, 3);
    refresh(&mut opened.store);
    drop(opened);
    disk.edit(Inner::flip_value);
    assert_holds(&Store::open_on(disk.shared()).unwrap(), &history.states[3]);
}

#[test]
fn a_refresh_reads_what_was_held_when_it_was_begun() {
    let disk = FaultDisk::default();
    let history = sample();
    let mut store = Store::open_on(disk.shared()).unwrap().store;
    history.applied_to(&mut store, 0, 2);
    let refresh = store.refresh_good(Instant::now()).unwrap();
    history.applied_to(&mut store, 2, 4);
    refresh.run().unwrap();
    drop(store);
    disk.edit(Inner::flip_value);
    assert_holds(&Store::open_on(disk.shared()).unwrap(), &history.states[2]);
}

#[test]
fn the_copy_is_due_at_first_then_by_age_changes_and_loads() {
    let disk = FaultDisk::default();
    let mut history = sample();
    let mut store = Store::open_on(disk.shared()).unwrap().store;
    let now = Instant::now();
    let late = now + GOOD_INTERVAL;
    assert!(!store.good_due(now), "there is nothing to copy");
    history.applied_to(&mut store, 0, 2);
    assert!(store.good_due(now), "there is no copy");
    let under_way = store.refresh_good(now).unwrap();
    assert!(!store.good_due(late), "one is under way");
    drop(under_way);
    assert!(!store.good_due(now) && store.good_due(late), "it failed");
    store.refresh_good(now).unwrap().run().unwrap();
    assert!(!store.good_due(late), "nothing has changed");
    history.applied_to(&mut store, 2, 4);
    assert!(
        !store.good_due(now) && store.good_due(late),
        "little has changed"
    );
    store.refresh_good(now).unwrap().run().unwrap();
    history.push(
        (0..GOOD_CHANGES_MAX)
            .map(|number| put(number, "many"))
            .collect(),
    );
    history.applied_to(&mut store, 4, 5);
    assert!(store.good_due(now), "much has changed");
    store.refresh_good(now).unwrap().run().unwrap();
    history.push(vec![put(1, "loaded")]);
    load(&mut store, history.end(), 0).unwrap();
    assert!(store.good_due(now), "another state was taken up");
    store.refresh_good(now).unwrap().run().unwrap();
    history.push(vec![put(1, "later")]);
    history.applied_to(&mut store, 6, 7);
    drop(store);
    let mut store = Store::open_on(disk.shared()).unwrap().store;
    assert!(
        !store.good_due(now) && store.good_due(late),
        "it was opened again"
    );
}
