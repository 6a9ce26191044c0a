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
        .check(Input::Connected, &["find"])
        .check(roots(&[]), &["read 1"])
        .ends(0, "catching up");
    replica
        .check(log.page(1, 2), &["apply 1 2"])
        .check(Input::Applied, &[])
        .ends(2, "following");
    let mut alone = Replica::at(Cursor::default());
    alone
        .check(Input::Connected, &["find"])
        .check(roots(&[]), &["read 1"])
        .check(page_of(1, vec![]), &[])
        .ends(0, "following");
}

#[test]
fn the_first_event_of_all_is_taken_from_the_log_only() {
    let log = History::new(1);
    let mut replica = Replica::at(Cursor::default());
    replica
        .check(Input::Connected, &["find"])
        .check(roots(&[]), &["read 1"])
        .check(page_of(1, vec![]), &[]);
    // Repeated from a life of which the log holds nothing any more.
    replica
        .check(log.tail(1), &["read 1"])
        .check(page_of(1, vec![]), &[])
        .ends(0, "catching up");
    replica
        .check(Input::Tick, &["read 1"])
        .check(log.page(1, 1), &["apply 1"])
        .check(Input::Applied, &[])
        .ends(1, "following");
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
fn a_failed_first_read_does_not_let_a_shorter_log_pass() {
    let log = History::new(5);
    let mut replica = Replica::at(log.at(5));
    replica
        .check(Input::Connected, &["read 5"])
        .check(Input::ReadFailed, &[]);
    replica.check(Input::Tick, &["read 5"]);
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
        .check(Input::Tick, &["read 4"]);
    replica
        .check(log.page(4, 6), &["apply 5 6"])
        .check(Input::Head(log.head(6)), &[]);
    replica
        .check(Input::Applied, &[])
        .check(Input::Head(log.head(5)), &[])
        .ends(6, "following");
}

#[test]
fn an_event_repeated_live_that_the_log_lost_is_found_out() {
    let log = History::new(7);
    let mut replica = Replica::following(&log, 4);
    // The log was put back to 4. Somebody repeats what came after.
    replica
        .check(log.tail(5), &["apply 5"])
        .check(Input::Applied, &[])
        .check(log.tail(7), &["read 6"])
        .check(page_of(6, vec![]), &[])
        .ends(5, "catching up");
    let fork = "fork: the log ends before version 5, which was applied here";
    let empty = page_of(5, vec![]);
    replica
        .check(Input::Tick, &["read 5"])
        .doubts(&empty, "read 5", &[fork, "find"]);
}

#[test]
fn what_waits_is_bounded_and_read_again_when_there_is_room() {
    let limit = u64::try_from(QUEUE_EVENTS_MAX).unwrap();
    let first_apply = u64::try_from(APPLY_EVENTS_MAX).unwrap();
    let log = History::new(limit + 10);
    let mut replica = Replica::at(Cursor::default());
    replica.follow.step(Input::Connected);
    replica.follow.step(roots(&[]));
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
    let fork = "fork: the log has lost version 5";
    replica.doubts(&page_of(5, vec![record]), "read 5", &[fork, "find"]);
}

#[test]
fn a_copy_that_ends_before_what_is_here_confirms_nothing() {
    let log = History::new(6);
    let mut replica = Replica::following(&log, 4);
    replica
        .check(log.tail(5), &["apply 5"])
        .check(Input::Connected, &["read 4"]);
    // The record that was applied last is not in the answer: is it in the log?
    replica
        .check(log.page(4, 4), &[])
        .check(Input::Tick, &["read 4"])
        .check(Input::Applied, &[]);
    replica
        .check(log.page(4, 4), &[])
        .check(Input::Tick, &["read 5"])
        .check(log.page(5, 5), &[])
        .ends(5, "following");
}

#[test]
fn a_question_asked_while_another_is_under_way_is_asked_after_it() {
    let log = History::new(5);
    let other = log.branch(3, 1);
    let mut replica = Replica::following(&log, 4);
    replica
        .check(Input::Head(log.head(5)), &["read 5"])
        .check(other.tail(4), &[]);
    // The copy does not have 5 yet; which event is at 4 has not been answered.
    replica
        .check(page_of(5, vec![]), &[])
        .check(Input::Tick, &["read 4"])
        .check(log.page(4, 5), &["apply 5"]);
}

#[test]
fn control_planes_that_all_stay_behind_make_the_log_be_asked() {
    let log = History::new(5);
    let mut replica = Replica::following(&log, 5);
    let low = || Input::Head(log.head(3));
    for _ in 1..LOW_HEADS_MAX {
        replica.check(low(), &[]);
    }
    // One that is not behind is enough.
    replica.check(Input::Head(log.head(5)), &[]);
    for _ in 1..LOW_HEADS_MAX {
        replica.check(low(), &[]);
    }
    replica
        .check(low(), &["read 5"])
        .check(log.page(5, 5), &[])
        .ends(5, "following");
    for _ in 1..LOW_HEADS_MAX {
        replica.check(low(), &[]);
    }
    let fork = "fork: the log ends before version 5, which was applied here";
    replica
        .check(low(), &["read 5"])
        .doubts(&page_of(5, vec![]), "read 5", &[fork, "find"]);
}

#[test]
fn what_another_life_of_the_log_says_is_not_how_far_this_one_goes() {
    let log = History::of(epoch(2), 0, 6);
    let earlier = History::of(epoch(1), 0, 9);
    let mut replica = Replica::following(&log, 4);
    replica
        .check(Input::Head(earlier.head(9)), &[])
        .check(Input::Head(earlier.head(4)), &[])
        .check(earlier.tail(9), &["read 5"])
        .check(page_of(5, vec![]), &[])
        .ends(4, "following");
    assert_eq!(replica.follow.seen(), Version(4));
}
