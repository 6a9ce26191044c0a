//! When a snapshot is looked for, which one will do, and what happens to it.

use super::*;

/// A head at 5,000 that names a snapshot.
fn naming(version: u64, bytes: u64) -> Input {
    naming_in(epoch(1), version, bytes)
}

fn naming_in(epoch: Epoch, version: u64, bytes: u64) -> Input {
    let version = Version(version);
    let snapshot = SnapshotReference {
        version,
        entities: 1,
        bytes,
    };
    let at = Cursor { epoch, ..far(5000) };
    Input::Head(head(at, 1, Some(snapshot)))
}

#[test]
fn a_snapshot_is_taken_if_reading_would_cost_more() {
    let log = History::new(4);
    for (version, bytes, expected) in [
        (1003, 0, "read 5"),
        (1004, 0, "find"),
        (1004, 2 * 1000 * 1024 - 2, "find"),
        (1004, 2 * 1000 * 1024, "read 5"),
        (4004, 2 * 1000 * 1024, "find"),
        (4, 0, "read 5"),
    ] {
        let mut replica = Replica::following(&log, 4);
        replica.check(naming(version, bytes), &[expected]);
    }
    let mut replica = Replica::following(&log, 4);
    replica
        .check(naming(4000, 0), &["find"])
        .check(naming(4000, 0), &[])
        .check(
            roots(&[root(far(2000)), root(far(4000)), root(far(3000))]),
            &["load 4000"],
        )
        .ends(4, "loading a snapshot");
    replica
        .check(Input::Tick, &[])
        .check(Input::Loaded(far(4000)), &["read 4000"])
        .ends(4000, "catching up");
}

#[test]
fn a_snapshot_that_is_named_but_not_there_is_not_looked_for_again_until_there_is_a_newer_one() {
    let log = History::new(4);
    let mut replica = Replica::following(&log, 4);
    replica
        .check(naming(2000, 0), &["find"])
        .check(roots(&[root(far(500))]), &["read 5"])
        .check(naming(2000, 0), &[]);
    replica
        .check(Input::ReadFailed, &[])
        .check(naming(2000, 0), &["read 5"])
        .check(naming(2001, 0), &["find"])
        .check(roots(&[root(far(2001))]), &["load 2001"]);
}

#[test]
fn an_empty_replica_begins_with_a_snapshot_if_that_is_worth_it() {
    let log = History::new(30);
    let empty = || {
        let mut replica = Replica::at(Cursor::default());
        replica.check(Input::Connected, &["find"]);
        replica
    };
    empty()
        .check(roots(&[root(far(900)), root(far(1000))]), &["load 1000"])
        .check(Input::Loaded(far(1000)), &["read 1000"]);
    empty().check(roots(&[root(far(999))]), &["read 1"]);
    // A log that was trimmed leaves no choice.
    empty()
        .check(roots(&[log.root(25)]), &["read 1"])
        .check(log.page_trimmed(1, 21, 30), &["find"])
        .check(roots(&[log.root(22), log.root(25)]), &["load 25"])
        .check(Input::Loaded(log.at(25)), &["read 25"])
        .check(log.page(25, 30), &["apply 26 27 28 29 30"]);
}

#[test]
fn what_was_trimmed_is_taken_from_a_snapshot() {
    let log = History::new(9);
    let mut replica = Replica::following(&log, 4);
    replica
        .check(Input::Head(log.head(9)), &["read 5"])
        .check(log.page_trimmed(5, 7, 9), &["find"])
        .check(roots(&[log.root(4), log.root(6)]), &["load 6"])
        .check(Input::Loaded(log.at(6)), &["read 6"])
        .check(log.page_trimmed(6, 7, 9), &["apply 7 8 9"])
        .check(Input::Applied, &[])
        .ends(9, "following");
}

#[test]
fn a_gap_without_a_snapshot_is_a_hole_once_no_copy_can_be_lagging() {
    let log = History::new(9);
    let mut replica = Replica::following(&log, 4);
    let trimmed = log.page_trimmed(5, 7, 9);
    replica.check(Input::Head(log.head(9)), &["read 5"]);
    for _ in 1..DOUBTS_MAX {
        replica
            .check(trimmed.clone(), &["find"])
            .check(roots(&[log.root(4)]), &[])
            .check(Input::Tick, &["read 5"]);
    }
    replica
        .check(trimmed, &["find"])
        .check(roots(&[]), &["fork: the log has lost version 5"])
        .looks("read 4")
        .check(log.page_trimmed(4, 7, 9), &["find"])
        .check(roots(&[log.root(8)]), &["load 8"])
        .check(Input::Loaded(log.at(8)), &["read 8"])
        .check(log.page(8, 9), &["apply 9"]);
}

/// Replicas at 4 that look for a snapshot, each for another reason.
fn searches(log: &History) -> Vec<(&'static str, Replica)> {
    let other = log.branch(3, 3);
    let next = History::founded(epoch(3), 10, 1);
    let searching = |name, steps: &dyn Fn(&mut Replica)| {
        let mut replica = Replica::following(log, 4);
        steps(&mut replica);
        (name, replica)
    };
    let doubted = |replica: &mut Replica, page: &Input, again: &str| {
        for _ in 1..DOUBTS_MAX {
            replica
                .check(page.clone(), &[])
                .check(Input::Tick, &[again]);
        }
        let actions = replica.follow.step(page.clone());
        assert_eq!(actions.last(), Some(&Action::FindSnapshot));
    };
    vec![
        searching("lag", &|replica| {
            replica.check(naming_in(log.end().epoch, 4000, 0), &["find"]);
        }),
        searching("gap", &|replica| {
            replica
                .check(Input::Head(log.head(9)), &["read 5"])
                .check(log.page_trimmed(5, 7, 9), &["find"]);
        }),
        searching("diverged", &|replica| {
            replica
                .check(log.tail(5), &["apply 5"])
                .check(Input::Diverged(Version(5)), &["diverged 5", "find"]);
        }),
        searching("hole", &|replica| {
            replica.check(log.tail(9), &["read 5"]);
            doubted(replica, &log.page_without(5, 7, 9), "read 5");
        }),
        searching("untrusted", &|replica| {
            replica.check(log.tail(9), &["read 5"]);
            doubted(replica, &page_of(5, vec![edited(log.record(5))]), "read 5");
        }),
        searching("diverged twice", &|replica| {
            replica
                .check(log.tail(5), &["apply 5"])
                .check(Input::Diverged(Version(5)), &["diverged 5", "find"])
                .check(roots(&[]), &["refold"]);
            let fork = "fork: the state at version 5 differs from its author's";
            replica.check(Input::Diverged(Version(5)), &[fork, "find"]);
        }),
        searching("chain", &|replica| {
            replica.follow.step(Input::Head(other.head(4)));
        }),
        searching("behind", &|replica| {
            replica.check(other.tail(4), &["read 4"]);
            doubted(replica, &page_of(4, vec![]), "read 4");
        }),
        searching("epoch", &|replica| {
            replica.follow.step(Input::Head(next.head(10)));
        }),
    ]
}

#[test]
fn each_reason_for_a_snapshot_has_its_own_rule_which_one_will_do() {
    let log = History::of(epoch(2), 0, 9);
    let at = |version| Cursor {
        epoch: epoch(2),
        version: Version(version),
        ..far(version)
    };
    // An earlier version, our own cursor, our version with another chain, the next, one far ahead.
    let own_life = [log.at(2), log.at(4), at(4), log.at(5), at(2000)];
    let rows = [
        ("lag", [false, false, false, false, true]),
        ("gap", [false, false, false, true, true]),
        ("diverged", [false, true, false, true, true]),
        ("hole", [false, false, false, true, true]),
        ("untrusted", [false, false, false, true, true]),
        ("diverged twice", [false, true, false, true, true]),
        ("chain", [false; 5]),
        ("behind", [false; 5]),
        ("epoch", [false; 5]),
    ];
    let will_do = |place: usize, root: Root| {
        let (name, mut replica) = searches(&log).swap_remove(place);
        let actions = replica.follow.step(roots(&[root]));
        let loads = actions
            .iter()
            .any(|action| matches!(action, Action::Load(_)));
        (name, loads)
    };
    for (place, (name, expected)) in rows.into_iter().enumerate() {
        for (cursor, expected) in own_life.into_iter().zip(expected) {
            assert_eq!(will_do(place, root(cursor)), (name, expected), "{cursor:?}");
        }
        let earlier = Cursor {
            epoch: epoch(1),
            ..far(2000)
        };
        let later = Cursor {
            epoch: epoch(3),
            ..far(3)
        };
        for (root, expected) in [
            (root(earlier), false),
            (chartered(earlier), false),
            (root(later), false),
            (chartered(later), true),
        ] {
            assert_eq!(will_do(place, root), (name, expected));
        }
    }
}

#[test]
fn a_snapshot_that_is_useless_is_not_tried_again_on_this_connection() {
    let log = History::new(9);
    let mut replica = Replica::following(&log, 4);
    let both = roots(&[log.root(6), log.root(8)]);
    replica
        .check(Input::Head(log.head(9)), &["read 5"])
        .check(log.page_trimmed(5, 7, 9), &["find"])
        .check(both.clone(), &["load 8"])
        .check(Input::LoadUseless, &[])
        .ends(4, "catching up");
    replica
        .check(Input::Tick, &["find"])
        .check(both.clone(), &["load 6"])
        .check(Input::LoadUseless, &[])
        .check(Input::Tick, &["find"])
        .check(both.clone(), &[]);
    // The broker may have changed.
    replica
        .check(Input::Connected, &["read 4"])
        .check(log.page_trimmed(4, 7, 9), &["find"])
        .check(both, &["load 8"]);
}

#[test]
fn a_snapshot_that_cannot_be_loaded_now_is_tried_some_times_and_then_another() {
    let log = History::new(9);
    let mut replica = Replica::following(&log, 4);
    let both = roots(&[log.root(6), log.root(8)]);
    replica
        .check(Input::Head(log.head(9)), &["read 5"])
        .check(log.page_trimmed(5, 7, 9), &["find"]);
    for load in ["load 8", "load 6"] {
        for _ in 0..LOAD_FAILURES_MAX {
            replica
                .check(both.clone(), &[load])
                .check(Input::LoadFailed, &[])
                .check(Input::Tick, &["find"]);
        }
    }
    // None is left; a fork is what that is in the end, and each look at it tries them again.
    replica.check(both.clone(), &[]);
    replica.check(Input::Tick, &["read 5"]);
    for _ in 2..DOUBTS_MAX {
        replica
            .check(log.page_trimmed(5, 7, 9), &["find"])
            .check(both.clone(), &[])
            .check(Input::Tick, &["read 5"]);
    }
    replica
        .check(log.page_trimmed(5, 7, 9), &["find"])
        .check(both.clone(), &["fork: the log has lost version 5"])
        .looks("read 4")
        .check(log.page_trimmed(4, 7, 9), &["find"])
        .check(both, &["load 8"])
        .check(Input::Loaded(log.at(8)), &["read 8"])
        .ends(8, "catching up");
}

#[test]
fn a_load_that_is_put_off_says_nothing_of_the_snapshot() {
    let log = History::new(9);
    let mut replica = Replica::following(&log, 4);
    replica
        .check(Input::Head(log.head(9)), &["read 5"])
        .check(log.page_trimmed(5, 7, 9), &["find"]);
    for _ in 0..2 * LOAD_FAILURES_MAX {
        replica
            .check(roots(&[log.root(6), log.root(8)]), &["load 8"])
            .check(Input::LoadPostponed, &[])
            .check(Input::Tick, &["find"]);
    }
    // Where the log leads on, it is read meanwhile.
    let mut replica = Replica::following(&log, 4);
    replica
        .check(naming(2000, 0), &["find"])
        .check(roots(&[root(far(2000))]), &["load 2000"])
        .check(Input::LoadPostponed, &["read 5"])
        .check(log.page(5, 9), &["read 10", "apply 5 6 7 8 9"])
        .check(naming(2000, 0), &[])
        .check(Input::Applied, &["find"]);
}

#[test]
fn reading_does_not_wait_for_snapshots_that_cannot_be_asked_for() {
    let log = History::new(4);
    let mut empty = Replica::at(Cursor::default());
    empty
        .check(Input::Connected, &["find"])
        .check(Input::FindFailed, &["read 1"])
        .check(log.page(1, 4), &["apply 1 2 3 4"]);
    let mut replica = Replica::following(&log, 4);
    replica
        .check(naming(2000, 0), &["find"])
        .check(Input::FindFailed, &["read 5"])
        .check(naming(2000, 0), &["find"]);
    // Where reading leads nowhere, they are asked for again.
    let long = History::new(9);
    let mut replica = Replica::following(&long, 4);
    replica
        .check(Input::Head(long.head(9)), &["read 5"])
        .check(long.page_trimmed(5, 7, 9), &["find"])
        .check(Input::FindFailed, &[])
        .check(Input::Tick, &["find"]);
}

#[test]
fn a_load_goes_on_without_a_connection_and_over_a_new_one() {
    let log = History::new(9);
    let mut replica = Replica::following(&log, 4);
    replica
        .check(Input::Head(log.head(9)), &["read 5"])
        .check(log.page_trimmed(5, 7, 9), &["find"])
        .check(roots(&[log.root(8)]), &["load 8"])
        .check(Input::Disconnected, &[])
        .ends(4, "loading a snapshot");
    replica
        .check(Input::Tick, &[])
        .check(Input::Connected, &[])
        .check(log.tail(5), &[])
        .check(log.tail(9), &[])
        .check(Input::Tick, &[])
        .ends(4, "loading a snapshot");
    replica
        .check(Input::Loaded(log.at(8)), &["read 8"])
        .check(log.page(8, 9), &["apply 9"])
        .check(Input::Applied, &[])
        .ends(9, "following");
    // It may fail on the way.
    let mut replica = Replica::following(&log, 4);
    replica
        .check(Input::Head(log.head(9)), &["read 5"])
        .check(log.page_trimmed(5, 7, 9), &["find"])
        .check(roots(&[log.root(8)]), &["load 8"])
        .check(Input::Disconnected, &[])
        .check(Input::LoadFailed, &[])
        .check(Input::Tick, &[])
        .ends(4, "disconnected");
    replica
        .check(Input::Connected, &["read 4"])
        .check(log.page_trimmed(4, 7, 9), &["find"]);
}

#[test]
fn a_page_that_comes_after_a_load_has_begun_is_not_applied_over_it() {
    let log = History::new(9);
    let mut replica = Replica::following(&log, 4);
    replica
        .check(log.tail(6), &["read 5"])
        .check(naming(4000, 0), &["find"])
        .check(roots(&[root(far(4000))]), &["load 4000"])
        .check(log.page(5, 9), &[])
        .check(Input::Loaded(far(4000)), &["read 4000"]);
}

#[test]
fn a_new_life_begins_with_its_own_numbers() {
    let log = History::new(9);
    let next = History::founded(epoch(2), 7, 2);
    let mut replica = Replica::following(&log, 4);
    // Versions of the old life are known up to 9; the new one has begun at 7.
    replica
        .check(Input::Head(log.head(9)), &["read 5"])
        .check(next.page_trimmed(5, 7, 8), &["find"])
        .check(
            roots(&[chartered(next.at(7))]),
            &["new epoch at 7", "load 7"],
        )
        .check(Input::Head(next.head(8)), &[])
        .check(Input::Loaded(next.at(7)), &["read 7"])
        .check(next.page(7, 8), &["apply 8"])
        .check(Input::Applied, &[])
        .ends(8, "following");
    assert_eq!(replica.follow.seen(), Version(8));
    replica
        .check(Input::Head(log.head(9)), &[])
        .ends(8, "following");
}

#[test]
fn a_divergence_is_repaired_from_a_snapshot() {
    let log = History::new(8);
    let mut replica = Replica::following(&log, 4);
    replica
        .check(log.tail(5), &["apply 5"])
        .check(log.tail(6), &[])
        .check(Input::Diverged(Version(5)), &["diverged 5", "find"])
        .check(log.tail(7), &[])
        .ends(4, "catching up");
    replica
        .check(roots(&[log.root(3), log.root(4)]), &["load 4"])
        .check(Input::Loaded(log.at(4)), &["read 4"])
        .check(log.page(4, 7), &["apply 5 6 7"])
        .check(Input::Applied, &[])
        .ends(7, "following");
    replica
        .check(log.tail(8), &["apply 8"])
        .check(Input::Diverged(Version(8)), &["diverged 8", "find"]);
}

#[test]
fn a_snapshot_after_which_the_state_diverges_again_is_a_fork_and_not_tried_again() {
    let log = History::new(8);
    let fork = "the state at version 5 differs from its author's";
    let mut replica = Replica::following(&log, 4);
    replica
        .check(log.tail(5), &["apply 5"])
        .check(Input::Diverged(Version(5)), &["diverged 5", "find"])
        .check(roots(&[log.root(4)]), &["load 4"])
        .check(Input::Loaded(log.at(4)), &["read 4"])
        .check(log.page(4, 6), &["apply 5 6"])
        .check(
            Input::Diverged(Version(5)),
            &[&format!("fork: {fork}"), "find"],
        )
        .check(roots(&[log.root(4)]), &[])
        .ends(4, &format!("forked: {fork}"));
    // The log says nothing new; a snapshot from after the event may.
    replica
        .looks("find")
        .check(roots(&[log.root(4)]), &[])
        .looks("find")
        .check(roots(&[log.root(4), log.root(6)]), &["load 6"])
        .check(Input::Loaded(log.at(6)), &["read 6"])
        .check(log.page(6, 8), &["apply 7 8"])
        .check(Input::Applied, &[])
        .ends(8, "following");
}

#[test]
fn a_divergence_without_a_snapshot_is_repaired_by_folding_the_log() {
    let log = History::new(8);
    let mut replica = Replica::following(&log, 4);
    replica
        .check(log.tail(5), &["apply 5"])
        .check(Input::Diverged(Version(5)), &["diverged 5", "find"])
        .check(roots(&[log.root(3)]), &["refold"])
        .check(log.tail(6), &[])
        .check(Input::Refolded(log.at(5)), &["read 6"])
        .check(Input::ReadFailed, &[]);
    // What failed is the read: it is tried again, and not the fold.
    replica
        .check(Input::Tick, &["read 6"])
        .check(log.page(6, 6), &["apply 6"])
        .check(Input::Applied, &[])
        .ends(6, "following");
    // A fold that stops short of the event has repaired nothing if that diverges again.
    let fork = "fork: the state at version 7 differs from its author's";
    replica
        .check(log.tail(7), &["apply 7"])
        .check(Input::Diverged(Version(7)), &["diverged 7", "find"])
        .check(roots(&[]), &["refold"])
        .check(Input::Refolded(log.at(6)), &["read 7"])
        .check(log.page(7, 8), &["apply 7 8"])
        .check(Input::Diverged(Version(7)), &[fork, "find"]);
}

#[test]
fn a_fold_that_diverges_or_forks_is_a_fork() {
    let log = History::new(8);
    let hole = || Fork::Hole {
        missing: Version(2),
    };
    for (ended, fork) in [
        (
            Input::Diverged(Version(3)),
            "fork: the state at version 3 differs from its author's",
        ),
        (
            Input::RefoldForked(hole()),
            "fork: the log has lost version 2",
        ),
    ] {
        let mut replica = Replica::following(&log, 4);
        replica
            .check(log.tail(5), &["apply 5"])
            .check(Input::Diverged(Version(5)), &["diverged 5", "find"])
            .check(roots(&[]), &["refold"])
            .check(ended, &[fork, "find"]);
        // Nobody goes back for that, whatever the version that is missing.
        replica
            .check(roots(&[log.root(3)]), &[])
            .check(Input::Tick, &[]);
        assert_eq!(replica.follow.cursor(), log.at(4));
    }
}

#[test]
fn a_repair_that_failed_is_tried_again_before_anything_is_applied() {
    let log = History::new(6);
    let mut replica = Replica::following(&log, 4);
    replica
        .check(log.tail(5), &["apply 5"])
        .check(Input::Diverged(Version(5)), &["diverged 5", "find"])
        .check(Input::FindFailed, &[])
        .check(log.tail(5), &[]);
    // Neither a new connection nor a head that names a snapshot puts another thing first.
    replica
        .check(Input::Disconnected, &[])
        .check(Input::Connected, &["read 4"])
        .check(log.page(4, 6), &[])
        .check(naming(4000, 0), &[])
        .check(Input::Tick, &["find"])
        .check(roots(&[]), &["refold"]);
    // By the time a fold has failed there may be a snapshot.
    replica
        .check(Input::RefoldFailed, &[])
        .check(Input::Tick, &["find"])
        .check(roots(&[log.root(4)]), &["load 4"])
        .check(Input::LoadFailed, &[])
        .check(Input::Tick, &["find"]);
}

#[test]
fn in_full_sync_mode_a_change_is_a_fold_of_the_whole_log() {
    let log = History::new(7);
    let full = Head {
        sync: SyncMode::Full,
        ..log.head(4)
    };
    let mut asked = Replica::following(&log, 4);
    asked.check(Input::Head(full), &[]);
    let mut set = Replica::following(&log, 4);
    set.follow.sync = SyncMode::Full;
    for mut replica in [asked, set] {
        replica
            .check(log.tail(5), &["refold"])
            .check(log.tail(6), &[])
            .check(Input::RefoldFailed, &[])
            .check(Input::Tick, &["refold"])
            .check(Input::Refolded(log.at(5)), &["read 6"])
            .check(log.page(6, 6), &["refold"])
            .check(Input::Refolded(log.at(6)), &[])
            .ends(6, "following");
        replica.check(Input::Head(log.head(6)), &[]);
    }
    // What diverges there is stopped at, and a snapshot from before it helps once at most.
    let mut replica = Replica::following(&log, 4);
    replica.follow.sync = SyncMode::Full;
    let fork = "fork: the state at version 5 differs from its author's";
    replica
        .check(log.tail(5), &["refold"])
        .check(Input::Diverged(Version(5)), &[fork, "find"])
        .check(roots(&[log.root(4)]), &["load 4"])
        .check(Input::Loaded(log.at(4)), &["read 4"])
        .check(log.page(4, 5), &["refold"])
        .check(Input::Diverged(Version(5)), &[fork, "find"])
        .check(roots(&[log.root(4)]), &[]);
}
