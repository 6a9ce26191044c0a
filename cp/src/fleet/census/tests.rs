use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sluice_schema::version::{Chain, Epoch};
use std::time::Duration;
use uuid::Uuid;

fn cursor(epoch: u128, version: u64, history: u8) -> Cursor {
    Cursor {
        epoch: Epoch(Uuid::from_u128(epoch)),
        version: Version(version),
        chain: Chain::ZERO
            .extend(&[history])
            .extend(&version.to_be_bytes()),
    }
}

fn report(node: &str, cursor: Cursor, leaving: bool) -> Report {
    Report {
        node: node.to_owned(),
        hostname: "machine".to_owned(),
        software: "1".to_owned(),
        cursor,
        digest: Digest::default(),
        durable: Version::ZERO,
        entities: 0,
        rejected: Vec::new(),
        phase: "following".to_owned(),
        last_error: None,
        keyring: 0,
        plugins: Vec::new(),
        ailing: Vec::new(),
        leaving,
        time: Time(0),
    }
}

/// A census whose own history is the first, at a version.
struct Office {
    census: Census,
    now: Instant,
}

impl Office {
    fn at(version: u64) -> Self {
        let mut census = Census::default();
        for version in 1..=version {
            census.advance(cursor(1, version, 0), Digest::default(), &[]);
        }
        Self {
            census,
            now: Instant::now(),
        }
    }

    fn hears(&mut self, node: &str, cursor: Cursor) {
        self.census
            .take(report(node, cursor, false), Time(0), self.now);
    }

    fn after(&mut self, time: Duration) {
        self.now += time;
        self.census.expire(self.now);
    }

    /// Reached, needed and live for all nodes and a version.
    fn check(&self, version: u64, expected: (usize, usize, usize)) {
        let Standing {
            reached,
            needed,
            live,
        } = self.census.standing(Version(version), Quorum::ALL);
        assert_eq!((reached, needed, live), expected, "version {version}");
    }
}

#[test]
fn a_node_counts_for_what_it_serves_until_its_lease_is_over() {
    let mut office = Office::at(9);
    office.census.join(Version(8), Quorum::ALL);
    office.check(8, (0, 1, 0));
    office.hears("a", cursor(1, 7, 0));
    office.check(8, (0, 1, 1));
    office.hears("b", cursor(1, 9, 0));
    office.check(8, (1, 2, 2));
    office.after(LEASE / 2);
    office.hears("a", cursor(1, 8, 0));
    office.check(8, (2, 2, 2));
    // Not heard again: the one that was heard first is gone first.
    office.after(LEASE / 2);
    office.check(8, (1, 1, 1));
    office.after(LEASE);
    office.check(8, (0, 1, 0));
    office.hears("b", cursor(1, 9, 0));
    office.check(8, (1, 1, 1));
    let leaving = report("b", cursor(1, 9, 0), true);
    office.census.take(leaving, Time(0), office.now);
    office.check(8, (0, 1, 0));
}

#[test]
fn a_node_in_another_history_does_not_count_whatever_its_version() {
    let mut office = Office::at(9);
    office.census.join(Version(8), Quorum::ALL);
    office.hears("another life", cursor(2, 9, 0));
    office.hears("another chain", cursor(1, 9, 1));
    let mut other = report("another state", cursor(1, 9, 0), false);
    other.digest = Digest(sluice_schema::hash::Hash32::of(b"other"));
    office.census.take(other, Time(0), office.now);
    office.check(8, (0, 3, 3));
    let behind: Vec<_> = office.census.behind(Version(8)).collect();
    assert!(
        behind.iter().all(|node| node.elsewhere) && behind.len() == 3,
        "{behind:?}"
    );
}

#[test]
fn a_node_that_is_further_than_we_are_counts_when_we_know_its_history() {
    let mut office = Office::at(9);
    office.census.join(Version(8), Quorum::ALL);
    office.hears("right", cursor(1, 11, 0));
    office.hears("wrong", cursor(1, 11, 1));
    office.check(8, (0, 2, 2));
    office
        .census
        .advance(cursor(1, 10, 0), Digest::default(), &[]);
    office.check(8, (0, 2, 2));
    office
        .census
        .advance(cursor(1, 11, 0), Digest::default(), &[]);
    office.check(8, (1, 2, 2));
    // A new life of the log: nobody is there yet.
    office
        .census
        .advance(cursor(2, 12, 0), Digest::default(), &[]);
    office.check(8, (0, 2, 2));
}

#[test]
fn whoever_waits_is_woken_when_its_quorum_is_met_and_only_then() {
    let mut office = Office::at(9);
    let all = office.census.join(Version(9), Quorum::ALL);
    let one = office.census.join(Version(9), Quorum::Count(1));
    let mut all = std::pin::pin!(all.notified());
    let mut one = std::pin::pin!(one.notified());
    let mut woken = |now: &mut Office, expected: (bool, bool)| {
        let woken = (all.as_mut().enable(), one.as_mut().enable());
        assert_eq!(woken, expected);
        let _ = now;
    };
    woken(&mut office, (false, false));
    office.hears("a", cursor(1, 8, 0));
    office.hears("b", cursor(1, 8, 0));
    woken(&mut office, (false, false));
    office.hears("a", cursor(1, 9, 0));
    woken(&mut office, (false, true));
    office.after(LEASE / 2);
    office.hears("a", cursor(1, 9, 0));
    woken(&mut office, (false, true));
    // The other one is gone.
    office.after(LEASE / 2);
    woken(&mut office, (true, true));
}

#[test]
fn the_counters_are_what_counting_gives_whatever_happens() {
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut office = Office::at(5);
        let mut own = 5;
        let waits: Vec<(Version, Quorum)> = (0..6)
            .map(|_| {
                (
                    Version(random.random_range(0..30)),
                    Quorum::Percent(random.random_range(1..=100)),
                )
            })
            .collect();
        let mut joined = Vec::new();
        for step in 0..300 {
            match random.random_range(0..10) {
                0 => {
                    own += 1;
                    office
                        .census
                        .advance(cursor(1, own, 0), Digest::default(), &[]);
                }
                1 => office.after(Duration::from_millis(random.random_range(0..2000))),
                2 => {
                    let (version, quorum) = waits[random.random_range(0..waits.len())];
                    office.census.join(version, quorum);
                    joined.push((version, quorum));
                }
                3 if !joined.is_empty() => {
                    let (version, quorum) =
                        joined.swap_remove(random.random_range(0..joined.len()));
                    office.census.leave(version, quorum);
                }
                _ => {
                    let node = format!("n{}", random.random_range(0..8));
                    let at = cursor(
                        random.random_range(1..=2),
                        random.random_range(0..30),
                        random.random_range(0..=1),
                    );
                    let leaving = random.random_range(0..20) == 0;
                    office
                        .census
                        .take(report(&node, at, leaving), Time(0), office.now);
                }
            }
            let live = |seen: &Seen| seen.live && office.now < seen.instant + LEASE;
            let lives = office.census.nodes().filter(|seen| live(seen)).count();
            for (version, quorum) in &joined {
                let serves = |seen: &Seen| {
                    let at = seen.report.cursor;
                    let known = at.version.0 == 0
                        || (at.version.0 <= own && at == cursor(1, at.version.0, 0));
                    live(seen) && known && at.version >= *version
                };
                let counted = office.census.nodes().filter(|seen| serves(seen)).count();
                let standing = office.census.standing(*version, *quorum);
                assert_eq!(
                    (standing.reached, standing.live),
                    (counted, lives),
                    "seed {seed}, step {step}"
                );
            }
        }
    }
}
