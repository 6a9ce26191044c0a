//! The rows, one test each.

use super::*;

#[test]
fn the_next_event_is_applied_and_the_cursor_moves_when_that_is_done() {
    let log = History::new(5);
    let mut replica = Replica::following(&log, 3);
    replica
        .check(log.tail(4), &["apply 4"])
        .ends(3, "catching up");
    replica
        .check(log.tail(5), &[])
        .check(Input::Applied, &["apply 5"])
        .ends(4, "catching up");
    replica.check(Input::Applied, &[]).ends(5, "following");
    assert_eq!(replica.follow.cursor(), log.end());
}

#[test]
fn an_empty_replica_begins_with_genesis() {
    let log = History::new(2);
    let mut replica = Replica::at(Cursor::default());
    replica.ends(0, "disconnected");
    replica
        .check(Input::Connected, &["read 1"])
        .ends(0, "catching up");
    replica
        .check(log.page(1, 2), &["apply 1 2"])
        .check(Input::Applied, &[])
        .ends(2, "following");
    let mut alone = Replica::at(Cursor::default());
    alone
        .check(Input::Connected, &["read 1"])
        .check(page_of(1, vec![]), &[])
        .ends(0, "following");
}

#[test]
fn a_duplicate_is_dropped() {
    let log = History::new(5);
    let mut replica = Replica::following(&log, 4);
    replica
        .check(log.tail(4), &[])
        .check(log.tail(2), &[])
        .check(log.tail(5), &["apply 5"]);
    replica
        .check(log.tail(5), &[])
        .check(log.tail(4), &[])
        .check(Input::Applied, &[]);
    replica.check(log.tail(5), &[]).ends(5, "following");
}

#[test]
fn another_event_at_our_version_is_a_fork_if_the_log_holds_it() {
    let log = History::new(5);
    let other = log.branch(3, 2);
    let fork = "the log has another history at version 4";
    let mut replica = Replica::following(&log, 4);
    replica
        .check(other.tail(4), &["read 4"])
        .check(other.page(4, 5), &[&format!("fork: {fork}")]);
    replica.ends(4, &format!("forked: {fork}"));
    // A forged message is no reason to read, and one the log does not hold is none to stop.
    let mut replica = Replica::following(&log, 4);
    replica.check(Input::Tail(signed_by_another(other.record(4))), &[]);
    replica
        .check(other.tail(4), &["read 4"])
        .check(log.page(4, 5), &["apply 5"]);
}

#[test]
fn a_gap_on_the_tail_is_read() {
    let log = History::new(9);
    let mut replica = Replica::following(&log, 3);
    replica
        .check(log.tail(6), &["read 4"])
        .check(log.tail(7), &[])
        .check(log.tail(4), &[]);
    replica
        .check(log.page(4, 5), &["read 6", "apply 4 5"])
        .check(Input::Applied, &[]);
    replica
        .check(log.page(6, 9), &["apply 6 7 8 9"])
        .check(Input::Applied, &[]);
    replica.ends(9, "following");
}

#[test]
fn a_hole_that_reading_cannot_fill_is_a_fork_after_what_is_before_it() {
    let log = History::new(9);
    let mut replica = Replica::following(&log, 3);
    let records = vec![log.record(4), log.record(5), log.record(7)];
    let fork = "the log has lost version 6";
    replica.check(log.tail(9), &["read 4"]);
    replica.check(
        page_of(4, records),
        &[&format!("fork: {fork}"), "apply 4 5"],
    );
    replica
        .check(Input::Applied, &[])
        .ends(5, &format!("forked: {fork}"));
    replica
        .check(log.tail(6), &[])
        .check(Input::Tick, &[])
        .check(Input::Head(log.head(9)), &[]);
}

#[test]
fn a_log_that_ends_below_the_cursor_is_a_fork_once_no_copy_can_be_lagging() {
    let log = History::new(5);
    let mut replica = Replica::at(log.at(5));
    replica.check(Input::Connected, &["read 5"]);
    for _ in 1..BEHIND_READS_MAX {
        replica
            .check(page_of(5, vec![]), &[])
            .check(Input::Tick, &["read 5"]);
    }
    let fork = "the log ends before version 5, which was applied here";
    replica.check(page_of(5, vec![]), &[&format!("fork: {fork}")]);
    replica.ends(5, &format!("forked: {fork}"));
    // A copy that lags has the record in the end.
    let mut replica = Replica::at(log.at(5));
    replica
        .check(Input::Connected, &["read 5"])
        .check(page_of(5, vec![]), &[]);
    replica
        .check(Input::Tick, &["read 5"])
        .check(log.page(5, 5), &[])
        .check(Input::Tick, &[]);
    replica.ends(5, "following");
}

#[test]
fn a_failed_first_read_does_not_let_a_shorter_log_pass() {
    let log = History::new(5);
    let mut replica = Replica::at(log.at(5));
    replica
        .check(Input::Connected, &["read 5"])
        .check(Input::ReadFailed, &[]);
    replica.check(Input::Tick, &["read 5"]);
}

#[test]
fn another_epoch_is_a_fork() {
    let log = History::new(5);
    let other = History::of(epoch(2), 0, 5);
    let mut replica = Replica::following(&log, 4);
    let fork = "fork: the log is in another epoch at version 5";
    replica
        .check(other.tail(5), &["read 5"])
        .check(other.page(5, 5), &[fork]);
    let mut replica = Replica::following(&log, 4);
    let event = event_after(log.at(4), epoch(2), 0);
    replica.check(Input::Tail(sealed(&event, &key()).0), &["read 5"]);
    replica.check(page_of(5, vec![sealed(&event, &key()).0]), &[fork]);
    for version in [2, 4, 5] {
        let mut replica = Replica::following(&log, 4);
        let fork = format!("fork: the log is in another epoch at version {version}");
        replica.check(Input::Head(other.head(version)), &[&fork]);
    }
    // An empty replica takes any.
    let mut empty = Replica::at(Cursor::default());
    empty
        .check(Input::Connected, &["read 1"])
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
        .check(other.page(5, 5), &[fork]);
    let mut replica = Replica::at(log.at(4));
    replica
        .check(Input::Connected, &["read 4"])
        .check(other.page(4, 5), &[fork]);
    let mut replica = Replica::following(&log, 4);
    replica.check(Input::Head(other.head(4)), &[fork]);
}

#[test]
fn a_bad_live_message_is_dropped_with_an_alarm_and_the_log_read() {
    let log = History::new(5);
    let signature = "bad tail 5: no valid signature by a trusted key";
    let unreadable = "bad tail 5: not a readable event";
    let misplaced = Record {
        version: Version(5),
        ..log.record(4)
    };
    for (record, alarm) in [
        (unsigned(log.record(5)), signature),
        (signed_by_another(log.record(5)), signature),
        (edited(log.record(5)), signature),
        (damaged(log.record(5)), unreadable),
        (
            misplaced,
            "bad tail 5: the event was written for another version",
        ),
    ] {
        let mut replica = Replica::following(&log, 4);
        replica.check(Input::Tail(record), &[alarm, "read 5"]);
        replica
            .check(log.page(5, 5), &["apply 5"])
            .check(Input::Applied, &[])
            .ends(5, "following");
    }
}

#[test]
fn a_bad_live_message_from_the_future_says_nothing() {
    let log = History::new(9);
    for record in [
        unsigned(log.record(9)),
        signed_by_another(log.record(9)),
        edited(log.record(9)),
    ] {
        let mut replica = Replica::following(&log, 4);
        replica
            .check(Input::Tail(record), &["read 5"])
            .check(page_of(5, vec![]), &[]);
        replica.ends(4, "following");
        assert_eq!(replica.follow.seen(), Version(4));
    }
}

#[test]
fn an_untrusted_event_in_the_log_is_a_fork_after_all_that_is_good_before_it() {
    let log = History::new(9);
    let signature = "no valid signature by a trusted key";
    type Spoil = fn(Record) -> Record;
    // Without its signature 6 is still vouched for by the chain that 7 signs; edited it is not, and 7 does not follow.
    let rows: [(u64, Spoil, &str, String); 5] = [
        (
            7,
            unsigned,
            "apply 5 6",
            format!("version 7 in the log is not to be trusted: {signature}"),
        ),
        (
            7,
            signed_by_another,
            "apply 5 6",
            format!("version 7 in the log is not to be trusted: {signature}"),
        ),
        (
            7,
            damaged,
            "apply 5 6",
            "version 7 in the log is not to be trusted: not a readable event".into(),
        ),
        (
            7,
            edited,
            "apply 5 6",
            format!("version 7 in the log is not to be trusted: {signature}"),
        ),
        (
            6,
            edited,
            "apply 5",
            format!("version 6 in the log is not to be trusted: {signature}"),
        ),
    ];
    for (version, spoil, applied, fork) in rows {
        let spoiled = |at| {
            if at == version {
                spoil(log.record(at))
            } else {
                log.record(at)
            }
        };
        let mut replica = Replica::following(&log, 4);
        replica.check(log.tail(7), &["read 5"]);
        replica.check(
            page_of(5, (5..=7).map(spoiled).collect()),
            &[&format!("fork: {fork}"), applied],
        );
        replica.check(Input::Applied, &[]);
        replica.ends(version - 1, &format!("forked: {fork}"));
    }
}

#[test]
fn one_signature_vouches_for_the_chain_before_it() {
    let log = History::new(7);
    let mut replica = Replica::following(&log, 4);
    let records = vec![
        unsigned(log.record(5)),
        unsigned(log.record(6)),
        log.record(7),
    ];
    replica
        .check(log.tail(7), &["read 5"])
        .check(page_of(5, records), &["apply 5 6 7"]);
}

#[test]
fn a_forged_chain_on_our_cursor_is_not_taken_however_long() {
    let log = History::new(4);
    let mut at = log.at(4);
    let mut records = Vec::new();
    for _ in 0..5 {
        let (record, next) = sealed(
            &event_after(at, epoch(1), 3),
            &SigningKey::from_seed([9; 32]),
        );
        records.push(record);
        at = next;
    }
    let mut replica = Replica::following(&log, 4);
    replica.check(
        Input::Head(Head {
            version: Version(9),
            ..log.head(4)
        }),
        &["read 5"],
    );
    let fork =
        "fork: version 5 in the log is not to be trusted: no valid signature by a trusted key";
    replica.check(page_of(5, records), &[fork]);
}

#[test]
fn a_divergence_is_rebuilt_and_a_second_one_at_the_same_version_is_a_fork() {
    let log = History::new(6);
    let mut replica = Replica::following(&log, 4);
    let fork = "fork: the state at version 5 differs from its author's";
    replica
        .check(log.tail(5), &["apply 5"])
        .check(log.tail(6), &[]);
    replica
        .check(Input::Diverged(Version(5)), &["diverged 5", "rebuild"])
        .ends(4, "catching up");
    replica
        .check(Input::Rebuilt(log.at(4)), &["read 5"])
        .check(log.page(5, 6), &["apply 5 6"]);
    replica
        .check(Input::Diverged(Version(5)), &[fork])
        .check(Input::Tick, &[]);
    // In the rebuild itself.
    let mut replica = Replica::following(&log, 4);
    replica.check(log.tail(5), &["apply 5"]);
    replica.check(Input::Diverged(Version(5)), &["diverged 5", "rebuild"]);
    replica
        .check(Input::Diverged(Version(5)), &[fork])
        .check(Input::Tick, &[]);
}

#[test]
fn a_divergence_that_a_rebuild_repairs_is_over() {
    let log = History::new(8);
    let mut replica = Replica::following(&log, 4);
    replica.check(log.tail(5), &["apply 5"]);
    replica
        .check(Input::Diverged(Version(5)), &["diverged 5", "rebuild"])
        .check(log.tail(6), &[]);
    replica
        .check(Input::Rebuilt(log.at(5)), &["read 6"])
        .check(Input::ReadFailed, &[]);
    // What failed is the read: it is tried again, and not the rebuild.
    replica
        .check(Input::Tick, &["read 6"])
        .check(log.page(6, 6), &["apply 6"]);
    replica.check(Input::Applied, &[]).ends(6, "following");
    replica.check(log.tail(7), &["apply 7"]);
    replica.check(Input::Diverged(Version(7)), &["diverged 7", "rebuild"]);
}

#[test]
fn a_failed_rebuild_is_tried_again_before_anything_is_applied() {
    let log = History::new(6);
    let mut replica = Replica::following(&log, 4);
    replica.check(log.tail(5), &["apply 5"]);
    replica.check(Input::Diverged(Version(5)), &["diverged 5", "rebuild"]);
    replica
        .check(Input::RebuildFailed, &[])
        .check(log.tail(5), &[]);
    replica
        .check(Input::Tick, &["rebuild"])
        .check(Input::Tick, &[]);
    let fork = Fork::Hole {
        missing: Version(2),
    };
    replica.check(
        Input::RebuildForked(fork),
        &["fork: the log has lost version 2"],
    );
    replica
        .check(Input::Tick, &[])
        .ends(4, "forked: the log has lost version 2");
}

#[test]
fn a_failed_apply_is_read_and_applied_again_on_a_tick() {
    let log = History::new(6);
    let mut replica = Replica::following(&log, 4);
    replica
        .check(log.tail(5), &["apply 5"])
        .check(log.tail(6), &[]);
    replica
        .check(Input::ApplyFailed, &[])
        .ends(4, "catching up");
    replica
        .check(Input::Tick, &["read 5"])
        .check(Input::Tick, &[]);
    replica
        .check(log.page(5, 6), &["apply 5 6"])
        .check(Input::Applied, &[])
        .ends(6, "following");
}

#[test]
fn a_failed_read_is_tried_again_on_a_tick_while_connected() {
    let log = History::new(6);
    let mut replica = Replica::following(&log, 4);
    replica
        .check(log.tail(6), &["read 5"])
        .check(Input::ReadFailed, &[]);
    replica
        .check(Input::Disconnected, &[])
        .check(Input::Tick, &[])
        .ends(4, "disconnected");
    replica
        .check(Input::Connected, &["read 4"])
        .check(Input::ReadFailed, &[]);
    replica
        .check(Input::Tick, &["read 4"])
        .check(log.page(4, 6), &["apply 5 6"]);
}

#[test]
fn a_reconnect_reads_again_from_the_cursor_and_forgets_what_waits() {
    let log = History::new(9);
    let mut replica = Replica::following(&log, 4);
    replica
        .check(log.tail(5), &["apply 5"])
        .check(log.tail(6), &[]);
    replica
        .check(Input::Disconnected, &[])
        .check(Input::Connected, &["read 4"]);
    replica.check(Input::Applied, &[]).ends(5, "catching up");
    replica
        .check(log.page(4, 9), &["apply 6 7 8 9"])
        .check(Input::Applied, &[]);
    replica.ends(9, "following");
}

#[test]
fn an_answer_to_an_older_read_is_not_taken_for_the_newer_one() {
    let log = History::new(9);
    let mut replica = Replica::following(&log, 4);
    replica
        .check(log.tail(7), &["read 5"])
        .check(Input::Connected, &["read 4"]);
    replica
        .check(log.page(5, 7), &[])
        .check(log.page(4, 9), &["apply 5 6 7 8 9"]);
}

#[test]
fn a_fork_ends_with_the_next_connection() {
    let log = History::new(6);
    let mut replica = Replica::following(&log, 4);
    replica.check(log.tail(6), &["read 5"]);
    replica.check(
        page_of(5, vec![log.record(6)]),
        &["fork: the log has lost version 5"],
    );
    replica
        .check(Input::Disconnected, &[])
        .check(Input::Connected, &["read 4"]);
    replica
        .check(log.page(4, 6), &["apply 5 6"])
        .check(Input::Applied, &[])
        .ends(6, "following");
}

#[test]
fn a_head_ahead_is_read_up_to_and_a_stale_one_ignored() {
    let log = History::new(6);
    let mut replica = Replica::following(&log, 4);
    replica
        .check(Input::Head(log.head(2)), &[])
        .check(Input::Head(log.head(4)), &[]);
    replica.ends(4, "following");
    replica
        .check(Input::Head(log.head(6)), &["read 5"])
        .ends(4, "catching up");
    // The copy that answered lags: it is asked again.
    replica
        .check(page_of(5, vec![]), &[])
        .check(Input::Tick, &["read 5"]);
    replica
        .check(log.page(5, 6), &["apply 5 6"])
        .check(Input::Head(log.head(6)), &[]);
    replica
        .check(Input::Applied, &[])
        .check(Input::Head(log.head(5)), &[])
        .ends(6, "following");
}

#[test]
fn what_waits_is_bounded_and_read_again_when_there_is_room() {
    let limit = u64::try_from(QUEUE_EVENTS_MAX).unwrap();
    let first_apply = u64::try_from(APPLY_EVENTS_MAX).unwrap();
    let log = History::new(limit + 10);
    let mut replica = Replica::at(Cursor::default());
    replica.follow.step(Input::Connected);
    replica.follow.step(page_of(1, vec![log.record(1)]));
    // An apply that takes its time.
    let from_second = page_of(2, log.records[1..].to_vec());
    replica
        .check(log.tail(limit + 10), &["read 2"])
        .check(from_second, &[]);
    assert_eq!(replica.follow.queue.len(), QUEUE_EVENTS_MAX);
    replica
        .check(log.tail(limit + 2), &[])
        .check(Input::Tick, &[]);
    assert_eq!(replica.follow.queue.len(), QUEUE_EVENTS_MAX);
    let batch = replica.follow.step(Input::Applied);
    assert!(matches!(&batch[..], [Action::Apply(events)] if events.len() == APPLY_EVENTS_MAX));
    replica.check(Input::Tick, &[&format!("read {}", limit + 2)]);
    let rest = log.page(limit + 2, limit + 10);
    replica.check(rest, &[]);
    while replica.follow.cursor() != log.end() {
        replica.follow.step(Input::Applied);
    }
    assert!(first_apply < limit);
    replica.ends(limit + 10, "following");
}

#[test]
fn in_full_sync_mode_a_change_is_a_rebuild() {
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
            .check(log.tail(5), &["rebuild"])
            .check(log.tail(6), &[]);
        replica
            .check(Input::RebuildFailed, &[])
            .check(Input::Tick, &["rebuild"]);
        replica
            .check(Input::Rebuilt(log.at(5)), &["read 6"])
            .check(log.page(6, 6), &["rebuild"]);
        replica
            .check(Input::Rebuilt(log.at(6)), &[])
            .ends(6, "following");
        replica.check(Input::Head(log.head(6)), &[]);
    }
}

#[test]
fn versions_at_the_end_of_numbers_do_not_panic() {
    let log = History::new(4);
    let end = Cursor {
        version: Version(u64::MAX),
        ..log.at(4)
    };
    let record = Record {
        version: Version(u64::MAX),
        ..sealed(&event_after(end, epoch(1), 0), &key()).0
    };
    let mut replica = Replica::following(&log, 4);
    replica.check(Input::Tail(record.clone()), &["read 5"]);
    replica.check(
        page_of(5, vec![record]),
        &["fork: the log has lost version 5"],
    );
}
