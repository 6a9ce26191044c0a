//! Waiting until nodes serve a version.
//!
//! A wait says "converged" only if, at one moment, every live node it counts had said that it serves the version or a
//! later one of the history this control plane knows. Live is who reported within the lease. For a share of the nodes
//! the control plane must have listened for a whole lease, or it might not know all of them.

use super::census::{Goal, Seen, Standing};
use super::{Behind, Fleet, LEASE, Quorum};
use crate::view::View;
use sluice_replica::node::Group;
use sluice_schema::version::{Epoch, Version};
use std::time::Duration;
use tokio::time::Instant;

/// What is waited for, and how long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The version.
    pub version: Version,
    /// The life of the log it belongs to; whichever is current if nothing is there yet.
    pub epoch: Epoch,
    /// By how many nodes.
    pub quorum: Quorum,
    /// Of those in this group; of all if there is none.
    pub group: Option<Group>,
    /// For how long at most.
    pub timeout: Duration,
}

/// What a wait came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// As many nodes as wanted serve it.
    Converged,
    /// Not as many.
    Behind,
    /// No node is alive, or none of the group.
    NoNodes,
    /// This control plane has not listened for long enough to know all nodes, or is not connected.
    Listening,
    /// This control plane itself has not reached the version.
    Unknown,
    /// The log has begun a new life; the version means something else there.
    NewEpoch,
}

impl Outcome {
    /// As a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Converged => "converged",
            Self::Behind => "behind",
            Self::NoNodes => "no_nodes",
            Self::Listening => "listening",
            Self::Unknown => "unknown_version",
            Self::NewEpoch => "new_epoch",
        }
    }
}

/// How far the nodes are, at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Progress {
    /// What it came to.
    pub outcome: Outcome,
    /// Live nodes that serve the version.
    pub reached: usize,
    /// How many were wanted.
    pub needed: usize,
    /// Live nodes, of the group if there is one; so are all others here.
    pub live: usize,
    /// The live nodes that do not serve it, ordered by id.
    pub behind: Vec<Behind>,
    /// The ids of nodes that are known but gone, and do not count.
    pub gone: Vec<String>,
    /// The ids of nodes that serve it, except for entities that they cannot use.
    pub rejecting: Vec<String>,
}

/// A wait that is counted; no longer once it is dropped.
struct Joined<'a> {
    fleet: &'a Fleet,
    goal: Goal,
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        self.fleet.census().leave(&self.goal);
    }
}

impl Fleet {
    /// Returns when enough nodes serve a version, or when the time is up.
    pub async fn wait(&self, view: &View, wanted: Wanted) -> Progress {
        let goal = Goal {
            version: wanted.version,
            quorum: wanted.quorum,
            group: wanted.group,
        };
        let deadline = Instant::now() + wanted.timeout;
        let mut status = view.watch();
        let met = self.census().join(&goal);
        let joined = Joined { fleet: self, goal };
        loop {
            // Before looking, so that nothing is missed.
            let changed = met.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let now = Instant::now();
            let connected = status.borrow_and_update().connected_since;
            let heard_all = connected.map(|since| since + LEASE);
            let next = match self.look(
                &joined.goal,
                wanted.epoch,
                heard_all,
                (now, now >= deadline),
            ) {
                Ok(progress) => return progress,
                Err(next) => next,
            };
            // One that is not there yet would be asked for with every version until then.
            self.ask(wanted.version.min(self.census().cursor().version));
            // Who is disconnected hears of it by the status; a quorum that is met may lack only the time to listen.
            let listened = heard_all.filter(|at| *at > now);
            let wake = [next, listened].into_iter().flatten().min();
            let wake = wake.map_or(deadline, |wake| wake.min(deadline));
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(wake) => {}
                // The replica is gone when the control plane stops: the deadline ends it.
                Ok(()) = status.changed(), if connected.is_none() => {}
            }
        }
    }

    /// What a wait comes to now if that is its end, or else when that may change without a report.
    fn look(
        &self,
        goal: &Goal,
        epoch: Epoch,
        heard_all: Option<Instant>,
        (now, is_last): (Instant, bool),
    ) -> Result<Progress, Option<Instant>> {
        let mut census = self.census();
        census.expire(now);
        let standing = census.standing(goal);
        let cursor = census.cursor();
        let knows_all = heard_all.is_some_and(|at| at <= now);
        let outcome = if cursor.epoch != epoch && epoch != Epoch::default() {
            Outcome::NewEpoch
        } else if cursor.version < goal.version {
            Outcome::Unknown
        } else {
            judge(standing, goal.quorum, knows_all)
        };
        match outcome {
            Outcome::Converged | Outcome::NewEpoch => {}
            Outcome::Behind | Outcome::NoNodes | Outcome::Listening | Outcome::Unknown => {
                if !is_last {
                    return Err(census.next_expiry());
                }
            }
        }
        let group = goal.group.as_ref();
        let asked = || census.nodes().filter(|seen| seen.is_in(group));
        let gone = asked().filter(|seen| !seen.live);
        let rejecting = asked().filter(|seen| {
            let serves = seen.live && seen.report.cursor.version >= goal.version;
            serves && !seen.report.rejected.is_empty()
        });
        let id = |seen: &Seen| seen.report.node.clone();
        Ok(Progress {
            outcome,
            reached: standing.reached,
            needed: standing.needed,
            live: standing.live,
            behind: census.behind(goal.version, group).collect(),
            gone: gone.map(id).collect(),
            rejecting: rejecting.map(id).collect(),
        })
    }
}

fn judge(standing: Standing, quorum: Quorum, knows_all: bool) -> Outcome {
    let knows_enough = knows_all || !quorum.is_a_share();
    match (standing.is_met(), standing.live) {
        (true, _) if knows_enough => Outcome::Converged,
        (true, _) => Outcome::Listening,
        (false, 0) if knows_all => Outcome::NoNodes,
        (false, 0) => Outcome::Listening,
        (false, _) => Outcome::Behind,
    }
}
