//! What stops a replica, and how it comes to follow again.

use super::*;

const SIGNATURE: &str = "no valid signature by a trusted key";

#[test]
fn another_event_at_our_version_is_a_fork_if_the_log_holds_it() {
    let log = History::new(5);
    let other = log.branch(3, 2);
    let fork = "the log has another history at version 4";
    let mut replica = Replica::following(&log, 4);
    replica
        .check(other.tail(4), &["read 4"])
        .doubts(
            &other.page(4, 5),
            "read 4",
            &[&format!("fork: {fork}"), "find"],
        )
        .ends(4, &format!("forked: {fork}"));
    // A forged message is no reason to read, and one the log does not hold is none to stop.
    let mut replica = Replica::following(&log, 4);
    replica.check(Input::Tail(signed_by_another(other.record(4))), &[]);
    replica
        .check(other.tail(4), &["read 4"])
        .check(log.page(4, 5), &["apply 5"]);
}

#[test]
fn trouble_is_believed_only_when_the_log_goes_on_showing_it() {
    let log = History::new(6);
    let mut replica = Replica::following(&log, 4);
    replica.check(log.tail(6), &["read 5"]);
    let hole = log.page_without(5, 6, 6);
    for _ in 1..DOUBTS_MAX {
        replica.check(hole.clone(), &[]).ends(4, "catching up");
        replica.check(Input::Tick, &["read 5"]);
    }
    // Another copy has it after all.
    replica
        .check(log.page(5, 6), &["apply 5 6"])
        .check(Input::Applied, &[])
        .ends(6, "following");
}

#[test]
fn a_hole_that_reading_cannot_fill_is_a_fork_after_what_is_before_it() {
    let log = History::new(9);
    let mut replica = Replica::following(&log, 3);
    let records = vec![log.record(4), log.record(5), log.record(7)];
    let fork = "the log has lost version 6";
    replica
        .check(log.tail(9), &["read 4"])
        .check(page_of(4, records), &["apply 4 5"])
        .check(Input::Applied, &[])
        .check(Input::Tick, &["read 6"])
        .doubts_further(
            2,
            &log.page_without(6, 7, 9),
            "read 6",
            &[&format!("fork: {fork}"), "find"],
        )
        .ends(5, &format!("forked: {fork}"));
    replica
        .check(log.tail(6), &[])
        .check(Input::Tick, &[])
        .check(Input::Head(log.head(9)), &[])
        .check(roots(&[]), &[]);
}

#[test]
fn a_log_that_ends_below_the_cursor_is_a_fork_once_no_copy_can_be_lagging() {
    let log = History::new(5);
    let fork = "the log ends before version 5, which was applied here";
    let mut replica = Replica::at(log.at(5));
    replica
        .check(Input::Connected, &["read 5"])
        .doubts(
            &page_of(5, vec![]),
            "read 5",
            &[&format!("fork: {fork}"), "find"],
        )
        .ends(5, &format!("forked: {fork}"));
    // A copy that lags has the record in the end.
    let mut replica = Replica::at(log.at(5));
    replica
        .check(Input::Connected, &["read 5"])
        .check(page_of(5, vec![]), &[])
        .ends(5, "catching up");
    replica
        .check(Input::Tick, &["read 5"])
        .check(log.page(5, 5), &[])
        .check(Input::Tick, &[])
        .ends(5, "following");
}

#[test]
fn another_epoch_is_a_fork() {
    let log = History::new(5);
    let other = History::of(epoch(2), 0, 5);
    let fork = "fork: the log is in another epoch at version 5";
    let mut replica = Replica::following(&log, 4);
    replica
        .check(other.tail(5), &["read 5"])
        .doubts(&other.page(5, 5), "read 5", &[fork, "find"]);
    let mut replica = Replica::following(&log, 4);
    let (record, _) = sealed(&event_after(log.at(4), epoch(2), 0), &key());
    replica
        .check(Input::Tail(record.clone()), &["read 5"])
        .doubts(&page_of(5, vec![record]), "read 5", &[fork, "find"]);
    // A head is signed, and its epoch is later: no copy can be the reason.
    for version in [2, 4, 5] {
        let mut replica = Replica::following(&log, 4);
        let fork = format!("fork: the log is in another epoch at version {version}");
        replica
            .check(Input::Head(other.head(version)), &[&fork, "find"])
            .check(Input::Head(other.head(version)), &[]);
    }
    // An empty replica takes any.
    let mut empty = Replica::at(Cursor::default());
    empty
        .check(Input::Connected, &["find"])
        .check(roots(&[]), &["read 1"])
        .check(Input::Head(other.head(5)), &[]);
}

#[test]
fn another_previous_chain_is_a_fork() {
    let log = History::new(5);
    let other = log.branch(2, 3);
    let fork = "fork: the log has another history at version 4";
    let mut replica = Replica::following(&log, 4);
    replica
        .check(other.tail(5), &["read 5"])
        .doubts(&other.page(5, 5), "read 5", &[fork, "find"]);
    let mut replica = Replica::at(log.at(4));
    replica.check(Input::Connected, &["read 4"]).doubts(
        &other.page(4, 5),
        "read 4",
        &[fork, "find"],
    );
    let mut replica = Replica::following(&log, 4);
    replica
        .check(Input::Head(other.head(4)), &[fork, "find"])
        .check(Input::Head(other.head(4)), &[]);
}

#[test]
fn an_untrusted_event_in_the_log_is_a_fork_after_all_that_is_good_before_it() {
    let log = History::new(9);
    type Spoil = fn(Record) -> Record;
    // Without its signature 6 is still vouched for by the chain that 7 signs; edited it is not, and 7 does not follow.
    let rows: [(u64, Spoil, &str, &str); 5] = [
        (7, unsigned, "apply 5 6", SIGNATURE),
        (7, signed_by_another, "apply 5 6", SIGNATURE),
        (7, damaged, "apply 5 6", "not a readable event"),
        (7, edited, "apply 5 6", SIGNATURE),
        (6, edited, "apply 5", SIGNATURE),
    ];
    for (version, spoil, applied, reason) in rows {
        let spoiled = |at| {
            if at == version {
                spoil(log.record(at))
            } else {
                log.record(at)
            }
        };
        let fork = format!("version {version} in the log is not to be trusted: {reason}");
        let mut replica = Replica::following(&log, 4);
        replica
            .check(log.tail(7), &["read 5"])
            .check(page_of(5, (5..=7).map(spoiled).collect()), &[applied])
            .check(Input::Applied, &[]);
        let again = format!("read {version}");
        let rest = page_of(version, (version..=7).map(spoiled).collect());
        replica
            .check(Input::Tick, &[&again])
            .doubts_further(2, &rest, &again, &[&format!("fork: {fork}"), "find"])
            .ends(version - 1, &format!("forked: {fork}"));
    }
}

#[test]
fn a_forged_chain_on_our_cursor_is_not_taken_however_long() {
    let log = History::new(4);
    let mut at = log.at(4);
    let mut records = Vec::new();
    for _ in 0..5 {
        let forger = SigningKey::from_seed([9; 32]);
        let (record, next) = sealed(&event_after(at, epoch(1), 3), &forger);
        records.push(record);
        at = next;
    }
    let mut replica = Replica::following(&log, 4);
    let head = Head {
        version: Version(9),
        ..log.head(4)
    };
    let fork = format!("fork: version 5 in the log is not to be trusted: {SIGNATURE}");
    replica.check(Input::Head(head), &["read 5"]).doubts(
        &page_of(5, records),
        "read 5",
        &[&fork, "find"],
    );
}

/// A replica at 4 that the log has shown it lost 5, and that has found no snapshot.
fn holed(log: &History) -> Replica {
    let mut replica = Replica::following(log, 4);
    replica.check(log.tail(6), &["read 5"]).doubts(
        &log.page_without(5, 6, 6),
        "read 5",
        &["fork: the log has lost version 5", "find"],
    );
    replica.check(roots(&[]), &[]);
    replica
}

#[test]
fn a_fork_is_looked_at_again_after_a_while_and_ends_when_the_log_is_good() {
    let log = History::new(6);
    let mut replica = holed(&log);
    // Still the same: no new alarm, but there may be a snapshot by now.
    replica
        .looks("read 4")
        .ends(4, "forked: the log has lost version 5");
    replica
        .check(log.page_without(4, 6, 6), &["find"])
        .check(roots(&[]), &[]);
    // Neither a read nor a search that fails is tried again before its time.
    replica
        .looks("read 4")
        .check(Input::ReadFailed, &[])
        .looks("read 4")
        .check(log.page_without(4, 6, 6), &["find"])
        .check(Input::FindFailed, &[]);
    replica
        .looks("read 4")
        .check(log.page(4, 6), &["apply 5 6"])
        .check(Input::Applied, &[])
        .ends(6, "following");
}

#[test]
fn a_connection_is_a_time_to_look_again() {
    let log = History::new(6);
    let mut replica = holed(&log);
    replica
        .check(Input::Disconnected, &[])
        .check(Input::Tick, &[])
        .check(Input::Connected, &["read 4"])
        .ends(4, "forked: the log has lost version 5");
    replica
        .check(log.page(4, 6), &["apply 5 6"])
        .check(Input::Applied, &[])
        .ends(6, "following");
}

#[test]
fn a_search_that_outlives_its_fork_takes_nobody_back() {
    let log = History::new(9);
    // A load of what the fork needed is to be tried again, when the log turns out to be good.
    let mut replica = holed(&log);
    replica
        .looks("read 4")
        .check(log.page_without(4, 6, 6), &["find"])
        .check(roots(&[log.root(6)]), &["load 6"])
        .check(Input::Disconnected, &[])
        .check(Input::LoadFailed, &[])
        .check(Input::Connected, &["read 4"])
        .check(log.page(4, 9), &["apply 5 6 7 8 9"])
        .check(Input::Applied, &[]);
    replica
        .check(Input::Tick, &[])
        .check(roots(&[log.root(6)]), &[])
        .ends(9, "following");
    // The same, but what the fork waited for was an apply.
    let mut replica = Replica::following(&log, 4);
    let branch = log.branch(3, 1);
    replica
        .check(log.tail(5), &["apply 5"])
        .check(
            Input::Head(branch.head(4)),
            &["fork: the log has another history at version 4"],
        )
        .check(Input::Connected, &["read 4"])
        .check(log.page(4, 9), &[])
        .check(Input::Applied, &["apply 6 7 8 9"]);
    replica.check(Input::Applied, &[]).ends(9, "following");
}

#[test]
fn a_contradiction_is_not_forgotten_when_the_log_shows_less() {
    let log = History::new(9);
    let other = log.branch(3, 6);
    let fork = "the log has another history at version 4";
    let mut replica = Replica::following(&log, 4);
    replica
        .check(
            Input::Head(other.head(4)),
            &[&format!("fork: {fork}"), "find"],
        )
        .check(roots(&[other.root(4), other.root(8)]), &[]);
    // The other history is trimmed to what a snapshot stands for: it looks like a gap.
    replica
        .check(Input::Head(other.head(9)), &[])
        .looks("read 4")
        .check(other.page_trimmed(4, 7, 9), &["find"])
        .check(roots(&[other.root(8)]), &[])
        .ends(4, &format!("forked: {fork}"));
    // Only a new life ends that.
    let next = History::founded(epoch(2), 10, 3);
    replica
        .looks("read 4")
        .check(page_of(4, next.records.clone()), &["find"]);
    replica
        .check(
            roots(&[other.root(8), chartered(next.at(10))]),
            &["new epoch at 10", "load 10"],
        )
        .ends(4, "loading a snapshot");
    replica
        .check(Input::Loaded(next.at(10)), &["read 10"])
        .check(next.page(10, 12), &["apply 11 12"])
        .check(Input::Applied, &[])
        .ends(12, "following");
}

#[test]
fn one_copy_that_lags_makes_no_fork_graver() {
    let log = History::new(6);
    let mut replica = holed(&log);
    // It shows a log that ends behind us. If that were so, no snapshot of this epoch would do.
    replica
        .looks("read 4")
        .check(page_of(4, vec![]), &[])
        .check(Input::Tick, &["read 4"])
        .check(page_of(4, vec![]), &[])
        .check(Input::Tick, &["read 4"])
        .check(log.page_without(4, 6, 6), &["find"])
        .check(roots(&[log.root(5)]), &["load 5"]);
    // What all copies show is so.
    let mut replica = holed(&log);
    let fork = "the log ends before version 4, which was applied here";
    replica
        .looks("read 4")
        .doubts(
            &page_of(4, vec![]),
            "read 4",
            &[&format!("fork: {fork}"), "find"],
        )
        .check(roots(&[log.root(5)]), &[])
        .looks("read 4")
        .check(log.page_without(4, 6, 6), &["find"])
        .ends(4, &format!("forked: {fork}"));
}

#[test]
fn two_copies_that_show_different_trouble_are_asked_no_more_often() {
    let log = History::new(6);
    let mut replica = holed(&log);
    let mut alarms = 0;
    for round in 0..4 {
        replica.looks("read 4");
        let shown = match round % 2 {
            0 => page_of(4, vec![log.record(4), edited(log.record(5))]),
            _ => log.page_without(4, 6, 6),
        };
        for action in replica.follow.step(shown) {
            alarms += usize::from(matches!(action, Action::Alarm(_)));
        }
        replica.check(roots(&[]), &[]);
    }
    assert_eq!(alarms, 4);
}

#[test]
fn a_key_that_arrives_late_heals_the_replica_by_itself() {
    let log = History::new(7);
    let late = SigningKey::from_seed([2; 32]);
    let (record, cursor) = sealed(&event_after(log.at(4), epoch(1), 3), &late);
    let untrusted = format!("version 5 in the log is not to be trusted: {SIGNATURE}");
    let mut replica = Replica::following(&log, 4);
    replica
        .check(
            Input::Tail(record.clone()),
            &[&format!("bad tail 5: {SIGNATURE}"), "read 5"],
        )
        .doubts(
            &page_of(5, vec![record.clone()]),
            "read 5",
            &[&format!("fork: {untrusted}"), "find"],
        )
        .check(roots(&[]), &[]);
    // Other keys, but not the missing one.
    let both = page_of(4, vec![log.record(4), record]);
    replica
        .check(Input::Trust(key().trusted()), &["read 4"])
        .check(both.clone(), &["find"])
        .check(roots(&[]), &[])
        .ends(4, &format!("forked: {untrusted}"));
    replica
        .check(
            Input::Trust(key().trusted().and(&late.trusted())),
            &["read 4"],
        )
        .check(both, &["apply 5"])
        .check(Input::Applied, &[])
        .ends(5, "following");
    assert_eq!(replica.follow.cursor(), cursor);
}

#[test]
fn new_keys_are_a_time_to_look_at_any_other_fork() {
    let log = History::new(6);
    let next = History::founded(epoch(2), 7, 1);
    let mut replica = Replica::following(&log, 4);
    let fork = "fork: the log is in another epoch at version 7";
    replica
        .check(Input::Head(next.head(7)), &[fork, "find"])
        .check(roots(&[root(next.at(7))]), &[])
        .check(Input::Trust(key().trusted()), &[])
        .check(Input::Tick, &["read 4"])
        .check(page_of(4, vec![next.record(7)]), &["find"]);
    // The charter is by a key that is believed now.
    replica.check(
        roots(&[chartered(next.at(7))]),
        &["new epoch at 7", "load 7"],
    );
}

#[test]
fn an_event_by_a_key_that_is_believed_no_more_is_not_taken() {
    let log = History::new(7);
    let mut replica = Replica::following(&log, 4);
    replica
        .check(log.tail(5), &["apply 5"])
        .check(log.tail(6), &[]);
    // Not even one that was verified before.
    replica
        .check(
            Input::Trust(SigningKey::from_seed([2; 32]).trusted()),
            &["read 6"],
        )
        .check(Input::Applied, &[])
        .check(page_of(6, vec![]), &[])
        .check(
            log.tail(6),
            &[&format!("bad tail 6: {SIGNATURE}"), "read 5"],
        );
}
