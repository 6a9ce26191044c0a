//! Who is there and how far: pure, time comes in as an argument.
//!
//! A waiter is served by a counter for its version, quorum and group. A report costs as much as the tree of nodes is deep, and
//! one step for each waited-for version that the node has just passed: whoever waits besides, and how many nodes there
//! are, costs nothing.

use super::quorum::Quorum;
use super::trail::{Place, Trail};
use super::{FORGET, LEASE, NODES_MAX};
use sluice_replica::node::{Group, Report};
use sluice_replica::run::Arrival;
use sluice_schema::digest::Digest;
use sluice_schema::version::{Cursor, Time, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::time::Instant;

/// All nodes, and who waits for them.
#[derive(Debug, Default)]
pub(super) struct Census {
    trail: Trail,
    nodes: BTreeMap<Arc<str>, Seen>,
    /// The live ones, by when they were last heard.
    leases: BTreeSet<(Instant, Arc<str>)>,
    /// How many live ones there are in each group that has any.
    live_in: BTreeMap<Group, usize>,
    /// Those further than we are, which are placed when we get there.
    ahead: BTreeSet<(Version, Arc<str>)>,
    tallies: BTreeMap<Goal, Tally>,
}

/// What is waited for. The version first: a node passes a range of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Goal {
    pub(super) version: Version,
    pub(super) quorum: Quorum,
    /// Only nodes of this group count; all if there is none.
    pub(super) group: Option<Group>,
}

impl Goal {
    /// Before all others of a version.
    fn first(version: Version) -> Self {
        Self {
            version,
            quorum: Quorum::LEAST,
            group: None,
        }
    }
}

/// A node as it was last heard.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) report: Report,
    pub(super) time: Time,
    pub(super) instant: Instant,
    /// Within its lease, and not leaving.
    pub(super) live: bool,
    place: Place,
}

impl Seen {
    /// Whether it belongs to a group; everybody does if there is none.
    pub(super) fn is_in(&self, group: Option<&Group>) -> bool {
        belongs(&self.report.groups, group)
    }

    /// The version of our history that it counts for.
    fn counts_at(&self) -> Option<Version> {
        match self.place {
            Place::At(version) if self.live => Some(version),
            Place::At(_) | Place::Ahead(_) | Place::Elsewhere => None,
        }
    }
}

/// How many live nodes have reached a version.
#[derive(Debug, Default)]
struct Tally {
    reached: usize,
    waiters: usize,
    met: Arc<Notify>,
}

/// How far a wait is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Standing {
    pub(super) reached: usize,
    pub(super) needed: usize,
    pub(super) live: usize,
}

impl Standing {
    pub(super) fn is_met(self) -> bool {
        self.reached >= self.needed
    }
}

/// A live node that has not reached a version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Behind {
    /// Its id.
    pub node: String,
    /// Its machine's name.
    pub hostname: String,
    /// The version it serves.
    pub version: Version,
    /// What it is doing, in words.
    pub phase: String,
    /// Whether what it serves is of another history than this control plane's.
    pub elsewhere: bool,
}

impl Census {
    /// All nodes, ordered by id.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Seen> {
        self.nodes.values()
    }

    /// Where our own history is.
    pub(super) fn cursor(&self) -> Cursor {
        self.trail.cursor()
    }

    /// When the next live node will be gone, unless it is heard again.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.leases.first().map(|(heard, _)| *heard + LEASE)
    }

    /// Takes in a report.
    pub(super) fn take(&mut self, report: Report, time: Time, now: Instant) {
        self.expire(now);
        if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(report.node.as_str()) {
            self.nodes
                .retain(|_, seen| now.duration_since(seen.instant) < FORGET);
            if self.nodes.len() >= NODES_MAX {
                return;
            }
        }
        let id: Arc<str> = report.node.as_str().into();
        let before = self.remove(&id);
        let seen = Seen {
            time,
            instant: now,
            live: !report.leaving,
            place: self.trail.place(report.cursor, report.digest),
            report,
        };
        let after = self.insert(id, seen);
        let moved = before.groups != after.groups;
        if moved {
            self.shift(before.counted, None, &before.groups);
            self.shift(None, after.counted, &after.groups);
        } else {
            self.shift(before.counted, after.counted, &after.groups);
        }
        if moved || before.live != after.live {
            self.recheck();
        }
    }

    /// Those whose lease is over stop counting.
    pub(super) fn expire(&mut self, now: Instant) {
        let mut gone = false;
        while let Some((heard, _)) = self.leases.first()
            && *heard + LEASE <= now
            && let Some((_, id)) = self.leases.pop_first()
        {
            let Some(seen) = self.nodes.get_mut(&id) else {
                continue;
            };
            let before = Counted::of(seen);
            seen.live = false;
            count_off(&mut self.live_in, &before.groups);
            self.shift(before.counted, None, &before.groups);
            gone = true;
        }
        if gone {
            self.recheck();
        }
    }

    /// Our own history has gone on.
    pub(super) fn advance(&mut self, cursor: Cursor, digest: Digest, events: &[Arrival]) {
        let before = self.trail.cursor();
        for event in events.iter().filter(|event| event.cursor != cursor) {
            self.trail.advance(event.cursor, None);
        }
        self.trail.advance(cursor, Some(digest));
        if before.epoch != cursor.epoch || cursor.version < before.version {
            let all: Vec<Arc<str>> = self.nodes.keys().cloned().collect();
            all.into_iter().for_each(|id| self.place_anew(id));
            return;
        }
        while let Some((version, _)) = self.ahead.first()
            && *version <= cursor.version
            && let Some((_, id)) = self.ahead.pop_first()
        {
            self.place_anew(id);
        }
    }

    /// Begins to wait.
    pub(super) fn join(&mut self, goal: &Goal) -> Arc<Notify> {
        let counted = |seen: &Seen| {
            let there = seen.counts_at().is_some_and(|at| at >= goal.version);
            there && seen.is_in(goal.group.as_ref())
        };
        let nodes = &self.nodes;
        let tally = self.tallies.entry(goal.clone());
        let tally = tally.or_insert_with(|| Tally {
            reached: nodes.values().filter(|seen| counted(seen)).count(),
            ..Tally::default()
        });
        tally.waiters += 1;
        Arc::clone(&tally.met)
    }

    /// Ends a wait that was begun.
    pub(super) fn leave(&mut self, goal: &Goal) {
        if let Some(tally) = self.tallies.get_mut(goal) {
            tally.waiters -= 1;
            if tally.waiters == 0 {
                self.tallies.remove(goal);
            }
        }
    }

    /// How far a wait is that was begun.
    pub(super) fn standing(&self, goal: &Goal) -> Standing {
        let live = live(self.leases.len(), &self.live_in, goal.group.as_ref());
        let tally = self.tallies.get(goal);
        Standing {
            reached: tally.map_or(0, |tally| tally.reached),
            needed: goal.quorum.needed(live),
            live,
        }
    }

    /// The live nodes of a group that do not count for `version`.
    pub(super) fn behind(
        &self,
        version: Version,
        group: Option<&Group>,
    ) -> impl Iterator<Item = Behind> {
        let counts = move |seen: &&Seen| {
            let behind = seen.counts_at().is_none_or(|at| at < version);
            seen.live && behind && seen.is_in(group)
        };
        self.nodes().filter(counts).map(|seen| Behind {
            node: seen.report.node.clone(),
            hostname: seen.report.hostname.clone(),
            version: seen.report.cursor.version,
            phase: seen.report.phase.clone(),
            elsewhere: seen.place == Place::Elsewhere,
        })
    }

    fn place_anew(&mut self, id: Arc<str>) {
        let Some(seen) = self.nodes.get_mut(&id) else {
            return;
        };
        let before = Counted::of(seen);
        if let Place::Ahead(version) = seen.place {
            self.ahead.remove(&(version, Arc::clone(&id)));
        }
        seen.place = self.trail.place(seen.report.cursor, seen.report.digest);
        if let Place::Ahead(version) = seen.place {
            self.ahead.insert((version, id));
        }
        let after = seen.counts_at();
        self.shift(before.counted, after, &before.groups);
    }

    fn remove(&mut self, id: &Arc<str>) -> Counted {
        let Some(seen) = self.nodes.remove(id) else {
            return Counted::default();
        };
        self.leases.remove(&(seen.instant, Arc::clone(id)));
        if let Place::Ahead(version) = seen.place {
            self.ahead.remove(&(version, Arc::clone(id)));
        }
        if seen.live {
            count_off(&mut self.live_in, &seen.report.groups);
        }
        Counted::of(&seen)
    }

    fn insert(&mut self, id: Arc<str>, seen: Seen) -> Counted {
        if seen.live {
            self.leases.insert((seen.instant, Arc::clone(&id)));
            for group in &seen.report.groups {
                *self.live_in.entry(group.clone()).or_default() += 1;
            }
        }
        if let Place::Ahead(version) = seen.place {
            self.ahead.insert((version, Arc::clone(&id)));
        }
        let counted = Counted::of(&seen);
        self.nodes.insert(id, seen);
        counted
    }

    /// A node of these groups counted for all versions up to `before`, and does up to `after`.
    fn shift(&mut self, before: Option<Version>, after: Option<Version>, groups: &BTreeSet<Group>) {
        let all = self.leases.len();
        let (low, high) = (before.min(after), before.max(after));
        let Some(high) = high.filter(|_| low != high) else {
            return;
        };
        let first = low.map_or(Version::ZERO, Version::next);
        let passed = Goal::first(first)..Goal::first(high.next());
        for (goal, tally) in self.tallies.range_mut(passed) {
            let group = goal.group.as_ref();
            if !belongs(groups, group) {
                continue;
            }
            if after > before {
                tally.reached += 1;
                if tally.reached >= goal.quorum.needed(live(all, &self.live_in, group)) {
                    tally.met.notify_waiters();
                }
            } else {
                tally.reached -= 1;
            }
        }
    }

    /// Fewer or more nodes are alive: other quorums may be met.
    fn recheck(&self) {
        let all = self.leases.len();
        for (goal, tally) in &self.tallies {
            let live = live(all, &self.live_in, goal.group.as_ref());
            if tally.reached >= goal.quorum.needed(live) {
                tally.met.notify_waiters();
            }
        }
    }
}

/// Whether who is in these groups is in this one; in none everybody is.
fn belongs(groups: &BTreeSet<Group>, group: Option<&Group>) -> bool {
    group.is_none_or(|group| groups.contains(group))
}

/// How many live nodes there are in a group, of `all`.
fn live(all: usize, live_in: &BTreeMap<Group, usize>, group: Option<&Group>) -> usize {
    group.map_or(all, |group| live_in.get(group).copied().unwrap_or(0))
}

/// One live node less in these groups.
fn count_off(live_in: &mut BTreeMap<Group, usize>, groups: &BTreeSet<Group>) {
    for group in groups {
        if let Some(live) = live_in.get_mut(group) {
            *live -= 1;
            if *live == 0 {
                live_in.remove(group);
            }
        }
    }
}

#[derive(Default)]
struct Counted {
    live: bool,
    counted: Option<Version>,
    groups: BTreeSet<Group>,
}

impl Counted {
    fn of(seen: &Seen) -> Self {
        Self {
            live: seen.live,
            counted: seen.counts_at(),
            groups: seen.report.groups.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
