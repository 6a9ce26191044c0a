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
        groups: BTreeSet::new(),
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

fn group(name: &str) -> Group {
    name.parse().unwrap()
}

/// A version for a quorum of all nodes.
fn goal(version: u64, quorum: Quorum) -> Goal {
    Goal {
        version: Version(version),
        quorum,
        group: None,
    }
}

/// The same, of the nodes in a group.
fn goal_in(name: &str, version: u64, quorum: Quorum) -> Goal {
    Goal {
        group: Some(group(name)),
        ..goal(version, quorum)
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
        self.check_goal(&goal(version, Quorum::ALL), expected);
    }

    fn check_goal(&self, goal: &Goal, expected: (usize, usize, usize)) {
        let Standing {
            reached,
            needed,
            live,
        } = self.census.standing(goal);
        assert_eq!((reached, needed, live), expected, "{goal:?}");
    }

    /// Hears a node that belongs to these groups.
    fn hears_in(&mut self, node: &str, cursor: Cursor, groups: &[&str]) {
        let report = Report {
            groups: groups.iter().map(|name| group(name)).collect(),
            ..report(node, cursor, false)
        };
        self.census.take(report, Time(0), self.now);
    }
}

#[test]
fn a_node_counts_for_what_it_serves_until_its_lease_is_over() {
    let mut office = Office::at(9);
    office.census.join(&goal(8, Quorum::ALL));
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
    office.census.join(&goal(8, Quorum::ALL));
    office.hears("another life", cursor(2, 9, 0));
    office.hears("another chain", cursor(1, 9, 1));
    let mut other = report("another state", cursor(1, 9, 0), false);
    other.digest = Digest(sluice_schema::hash::Hash32::of(b"other"));
    office.census.take(other, Time(0), office.now);
    office.check(8, (0, 3, 3));
    let behind: Vec<_> = office.census.behind(Version(8), None).collect();
    assert!(
        behind.iter().all(|node| node.elsewhere) && behind.len() == 3,
        "{behind:?}"
    );
}

#[test]
fn a_node_that_is_further_than_we_are_counts_when_we_know_its_history() {
    let mut office = Office::at(9);
    office.census.join(&goal(8, Quorum::ALL));
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
    let all = office.census.join(&goal(9, Quorum::ALL));
    let one = office.census.join(&goal(9, Quorum::Count(1)));
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
fn a_group_counts_by_itself_and_a_node_may_change_its_groups() {
    let mut office = Office::at(9);
    let (europe, canary) = (
        goal_in("eu", 8, Quorum::ALL),
        goal_in("canary", 8, Quorum::Count(u32::MAX)),
    );
    let met = office.census.join(&europe);
    let mut met = std::pin::pin!(met.notified());
    office.census.join(&canary);
    office.check_goal(&europe, (0, 1, 0));
    office.hears_in("a", cursor(1, 8, 0), &["us", "canary"]);
    office.hears_in("b", cursor(1, 7, 0), &["eu"]);
    office.check_goal(&europe, (0, 1, 1));
    office.check_goal(&canary, (1, u32::MAX as usize, 1));
    let behind = |office: &Office, group: &Group| {
        let behind = office.census.behind(Version(8), Some(group));
        behind.map(|node| node.node).collect::<Vec<_>>()
    };
    assert_eq!(behind(&office, &group("eu")), ["b"]);
    assert!(behind(&office, &group("us")).is_empty());
    assert!(!met.as_mut().enable());
    office.hears_in("b", cursor(1, 8, 0), &["eu", "canary"]);
    assert!(met.as_mut().enable());
    office.check_goal(&europe, (1, 1, 1));
    office.check_goal(&canary, (2, u32::MAX as usize, 2));
    // Restarted with other settings.
    office.hears_in("b", cursor(1, 8, 0), &["us"]);
    office.check_goal(&europe, (0, 1, 0));
    office.check_goal(&canary, (1, u32::MAX as usize, 1));
    office.after(LEASE);
    office.check_goal(&canary, (0, u32::MAX as usize, 0));
    assert!(office.census.live_in.is_empty());
}

#[test]
fn the_counters_are_what_counting_gives_whatever_happens() {
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut office = Office::at(5);
        let mut own = 5;
        let names = ["eu", "us", "canary"];
        let waits: Vec<Goal> = (0..8)
            .map(|_| Goal {
                version: Version(random.random_range(0..30)),
                quorum: Quorum::Percent(random.random_range(1..=100)),
                group: names.get(random.random_range(0..5)).map(|name| group(name)),
            })
            .collect();
        let mut joined: Vec<Goal> = Vec::new();
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
                    let goal = waits[random.random_range(0..waits.len())].clone();
                    office.census.join(&goal);
                    joined.push(goal);
                }
                3 if !joined.is_empty() => {
                    let goal = joined.swap_remove(random.random_range(0..joined.len()));
                    office.census.leave(&goal);
                }
                _ => {
                    let node = format!("n{}", random.random_range(0..8));
                    let at = cursor(
                        random.random_range(1..=2),
                        random.random_range(0..30),
                        random.random_range(0..=1),
                    );
                    let leaving = random.random_range(0..20) == 0;
                    let mut report = report(&node, at, leaving);
                    let belongs = names.iter().filter(|_| random.random_range(0..3) == 0);
                    report.groups = belongs.map(|name| group(name)).collect();
                    office.census.take(report, Time(0), office.now);
                }
            }
            let live = |seen: &Seen| seen.live && office.now < seen.instant + LEASE;
            for goal in &joined {
                let asked = |seen: &&Seen| live(seen) && seen.is_in(goal.group.as_ref());
                let lives = office.census.nodes().filter(asked).count();
                let serves = |seen: &Seen| {
                    let at = seen.report.cursor;
                    let known = at.version.0 == 0
                        || (at.version.0 <= own && at == cursor(1, at.version.0, 0));
                    asked(&seen) && known && at.version >= goal.version
                };
                let counted = office.census.nodes().filter(|seen| serves(seen)).count();
                let standing = office.census.standing(goal);
                assert_eq!(
                    (standing.reached, standing.live),
                    (counted, lives),
                    "seed {seed}, step {step}"
                );
            }
        }
    }
}
