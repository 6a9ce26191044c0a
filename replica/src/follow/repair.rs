//! When a snapshot is wanted, and which one will do.
//!
//! A replica that cannot read on, or would have to read too much, asks what snapshots there are. Within its own life of
//! the log it takes only a later one, and none at all if the log's history contradicts its own: whether that history or
//! its own is right is not for it to say. A later life of the log is taken up if its charter is valid.

use super::{Action, Alarm, Follow, Fork, LOAD_FAILURES_MAX, LOOK_AGAIN_TICKS, REFUSED_MAX};
use crate::planted::{Bug, planted};
use crate::snapshot::Root;
use sluice_schema::version::{Cursor, Epoch, Version};

/// Fewer events than this are always read.
const LAG_EVENTS_MIN: u64 = 1_000;
/// About what an event costs to read.
const EVENT_BYTES: u64 = 1_024;
/// About what an event changes in a snapshot: a chunk, if no other change falls into the same one.
const CHUNK_BYTES: u64 = 128 * 1_024;
/// What a snapshot's content is compressed to, at worst.
const COMPRESSION: u64 = 2;

/// Why a snapshot is looked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Why {
    /// Nothing is here yet.
    Empty,
    /// Reading would cost more than the snapshot at this version, which a head named.
    Lag(Version),
    /// The log no longer has what comes next.
    Gap(Version),
    /// The log begins with a state that only a snapshot has.
    Founded(Version),
    /// It cannot be followed.
    Fork(Fork),
    /// The state here is not its author's.
    Diverged(Version),
}

/// A repair under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Repair {
    /// Asking what snapshots there are.
    Finding(Why),
    /// Taking one up.
    Loading(Why, Cursor),
    /// Folding the whole log.
    Refolding,
}

impl Why {
    /// Whether the trouble is with the state here, whatever the log shows.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Diverged(_) => true,
            Self::Empty | Self::Lag(_) | Self::Gap(_) | Self::Founded(_) | Self::Fork(_) => false,
        }
    }

    /// The event at which the state here was seen to be wrong.
    fn diverged(&self) -> Option<Version> {
        match self {
            Self::Diverged(version) | Self::Fork(Fork::Diverged { version }) => Some(*version),
            Self::Empty
            | Self::Lag(_)
            | Self::Gap(_)
            | Self::Founded(_)
            | Self::Fork(
                Fork::Epoch { .. }
                | Fork::Chain { .. }
                | Fork::Behind { .. }
                | Fork::Hole { .. }
                | Fork::Founded { .. }
                | Fork::Untrusted { .. },
            ) => None,
        }
    }
}

/// A snapshot that is not tried again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    cursor: Cursor,
    /// On this connection, and not only until the next look at a fork.
    lasting: bool,
}

/// What is known of a snapshot before it is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Known {
    pub(super) epoch: Epoch,
    pub(super) version: Version,
    pub(super) bytes: u64,
}

impl Follow {
    /// Looks for a snapshot, unless something of the kind is under way.
    pub(super) fn find(&mut self, why: Why, actions: &mut Vec<Action>) {
        if self.repair.is_some() || !self.is_current(&why) {
            return;
        }
        let better = match why {
            Why::Empty | Why::Lag(_) => {
                self.retry_find.is_some() || self.find_after_apply.is_some()
            }
            Why::Gap(_) | Why::Founded(_) | Why::Fork(_) | Why::Diverged(_) => false,
        };
        if better {
            return;
        }
        if self.applying {
            self.find_after_apply = Some(why);
            return;
        }
        self.retry_find = None;
        self.repair = Some(Repair::Finding(why));
        actions.push(Action::FindSnapshot);
    }

    /// Whether a snapshot is still wanted. Time passes until it is looked for, found, and looked for again.
    fn is_current(&self, why: &Why) -> bool {
        match why {
            Why::Empty | Why::Lag(_) => true,
            Why::Gap(missing) => self.tip.version < *missing,
            Why::Founded(version) => self.tip.version < *version,
            Why::Fork(fork) => self.fork.as_ref() == Some(fork),
            Why::Diverged(version) => self.diverged == Some(*version),
        }
    }

    /// Whether a snapshot of this life of the log, or of a later one, is being taken up.
    pub(super) fn is_moving_to(&self, epoch: Epoch) -> bool {
        match &self.repair {
            Some(Repair::Loading(_, target)) => target.epoch >= epoch,
            Some(Repair::Finding(_) | Repair::Refolding) | None => false,
        }
    }

    /// Ends a search, and says what it was for.
    fn end_finding(&mut self) -> Option<Why> {
        match self.repair.take() {
            Some(Repair::Finding(why)) => Some(why),
            other => {
                self.repair = other;
                None
            }
        }
    }

    /// Ends a load, and says what it was for.
    fn end_loading(&mut self) -> Option<(Why, Cursor)> {
        match self.repair.take() {
            Some(Repair::Loading(why, cursor)) => Some((why, cursor)),
            other => {
                self.repair = other;
                None
            }
        }
    }

    /// The snapshots there are. Takes up the best that will do; without one, does what can be done without.
    pub(super) fn take_roots(&mut self, roots: Vec<Root>, actions: &mut Vec<Action>) {
        let Some(why) = self.end_finding() else {
            return;
        };
        if !self.is_current(&why) {
            return self.read_on(actions);
        }
        let best = roots
            .into_iter()
            .filter(|root| self.will_do(root, &why))
            .max_by_key(|root| (root.cursor.epoch, root.cursor.version));
        match best {
            Some(root) => {
                self.repair = Some(Repair::Loading(why, root.cursor));
                self.reading = None;
                self.looking_again = false;
                self.forget_queue();
                if root.cursor.epoch > self.cursor.epoch && self.cursor.version > Version::ZERO {
                    actions.push(Action::Alarm(Alarm::NewEpoch(root.cursor)));
                }
                actions.push(Action::Load(Box::new(root)));
            }
            None => self.go_without(why, actions),
        }
    }

    fn go_without(&mut self, why: Why, actions: &mut Vec<Action>) {
        match why {
            Why::Empty => self.read_on(actions),
            Why::Lag(named) => {
                self.sought = self.sought.max(named);
                self.read_on(actions);
            }
            Why::Founded(version) => self.stop(Fork::Founded { version }, actions),
            // The copy that was asked may lag.
            Why::Gap(missing) => {
                let hole = Fork::Hole { missing };
                if self.is_certain(&hole) {
                    self.stand(hole, actions);
                }
            }
            // The next look at the log looks for one again.
            Why::Fork(_) => {}
            Why::Diverged(_) => self.refold(actions),
        }
    }

    /// Snapshots cannot be asked for now. Reading does not depend on them.
    pub(super) fn take_find_failure(&mut self, actions: &mut Vec<Action>) {
        match self.end_finding() {
            Some(Why::Empty | Why::Lag(_)) => self.read_on(actions),
            Some(why @ (Why::Gap(_) | Why::Founded(_) | Why::Diverged(_))) => {
                self.retry_find = Some(why)
            }
            // The next look at the log looks for one again.
            Some(Why::Fork(_)) | None => {}
        }
    }

    pub(super) fn refold(&mut self, actions: &mut Vec<Action>) {
        if self.repair.is_none() {
            self.repair = Some(Repair::Refolding);
            actions.push(Action::Refold);
        }
    }

    /// Whether a snapshot may be taken up.
    fn will_do(&self, root: &Root, why: &Why) -> bool {
        let (own, other) = (self.cursor, root.cursor);
        if self.refused.iter().any(|refusal| refusal.cursor == other) {
            return false;
        }
        if own.version == Version::ZERO {
            return match why {
                // Nothing before a founding leads to what comes after it.
                Why::Empty | Why::Lag(_) => root.chartered || self.is_worth(&Known::of(root)),
                Why::Gap(_) | Why::Founded(_) | Why::Fork(_) | Why::Diverged(_) => true,
            };
        }
        if other.epoch != own.epoch {
            return other.epoch > own.epoch && root.chartered;
        }
        if planted(Bug::SnapshotBackwards) {
            return other != own;
        }
        // Two histories in one life of the log: an operator must say which, by a new life.
        if self.is_contradicted() {
            return false;
        }
        if other.version <= own.version {
            // Where we are is not in doubt, but what we hold may be.
            return other == own && why.diverged().is_some();
        }
        match why {
            Why::Empty | Why::Lag(_) => self.is_worth(&Known::of(root)),
            Why::Gap(_) | Why::Diverged(_) => true,
            Why::Fork(
                Fork::Hole { missing: needed }
                | Fork::Untrusted {
                    version: needed, ..
                }
                | Fork::Diverged { version: needed },
            ) => other.version >= *needed,
            Why::Founded(_)
            | Why::Fork(
                Fork::Epoch { .. }
                | Fork::Chain { .. }
                | Fork::Behind { .. }
                | Fork::Founded { .. },
            ) => false,
        }
    }

    /// Whether loading a snapshot costs less than reading what it covers.
    pub(super) fn is_worth(&self, known: &Known) -> bool {
        if self.cursor.version > Version::ZERO && known.epoch != self.cursor.epoch {
            return false;
        }
        let events = known.version.0.saturating_sub(self.tip.version.0);
        let differing = known.bytes.min(events.saturating_mul(CHUNK_BYTES));
        events >= LAG_EVENTS_MIN && differing / COMPRESSION < events.saturating_mul(EVENT_BYTES)
    }

    /// A snapshot is active.
    pub(super) fn take_loaded(&mut self, cursor: Cursor, actions: &mut Vec<Action>) {
        let Some((why, _)) = self.end_loading() else {
            return;
        };
        if cursor.epoch == self.cursor.epoch {
            self.seen = self.seen.max(cursor.version);
            self.diverged = why.diverged().or(self.diverged);
        } else {
            // Heads and live messages spoke of the other life.
            (self.seen, self.sought) = (cursor.version, Version::ZERO);
            self.diverged = None;
        }
        self.cursor = cursor;
        self.fork = None;
        self.repaired = true;
        self.forget_divergence();
        if self.diverged.is_some() {
            // From before the event that diverged. If that does so again, this snapshot is no help.
            self.refuse(cursor, true);
        }
        self.load_failures = 0;
        (self.retry_find, self.retry_refold) = (None, false);
        self.forget_queue();
        // Whether the log goes on from there is for the log to show.
        self.unconfirmed = true;
        (self.doubts, self.low_heads) = (0, 0);
        self.read_on(actions);
    }

    /// Nothing can be loaded now. Where reading leads on, it does so meanwhile; heads ask for a snapshot again.
    pub(super) fn take_load_delay(&mut self, actions: &mut Vec<Action>) {
        match self.end_loading() {
            Some((Why::Empty | Why::Lag(_), _)) => self.read_on(actions),
            Some((why @ (Why::Gap(_) | Why::Founded(_) | Why::Fork(_) | Why::Diverged(_)), _)) => {
                self.retry_find = Some(why);
            }
            None => {}
        }
    }

    /// A snapshot could not be loaded now, or will never be.
    pub(super) fn take_load_failure(&mut self, useless: bool) {
        let Some((why, cursor)) = self.end_loading() else {
            return;
        };
        self.load_failures += 1;
        if useless || self.load_failures >= LOAD_FAILURES_MAX {
            self.load_failures = 0;
            self.refuse(cursor, useless);
        }
        self.retry_find = Some(why);
    }

    fn refuse(&mut self, cursor: Cursor, lasting: bool) {
        // More than there ever are: all are tried again.
        if self.refused.len() >= REFUSED_MAX {
            self.refused.clear();
        }
        self.refused.push(Refusal { cursor, lasting });
    }

    /// The time has come to look whether a fork still stands.
    pub(super) fn look_at(&mut self, fork: Fork, actions: &mut Vec<Action>) {
        if self.repair.is_some() || self.reading.is_some() || self.applying {
            return;
        }
        self.look_again_in = LOOK_AGAIN_TICKS;
        self.refused.retain(|refusal| refusal.lasting);
        match fork {
            Fork::Epoch { .. }
            | Fork::Chain { .. }
            | Fork::Behind { .. }
            | Fork::Hole { .. }
            | Fork::Untrusted { .. } => self.look_again(actions),
            // The log is as it was: only a snapshot helps.
            Fork::Founded { .. } | Fork::Diverged { .. } => {
                self.find(Why::Fork(fork), actions);
            }
        }
    }

    /// Reads from the cursor to see whether the log can be followed again. The fork stands until it can.
    pub(super) fn look_again(&mut self, actions: &mut Vec<Action>) {
        if self.fork.is_some() && self.connected && self.reading.is_none() && self.repair.is_none()
        {
            self.unconfirmed = true;
            self.looking_again = true;
            let from = self.cursor.version.max(Version::GENESIS);
            self.reading = Some(from);
            actions.push(Action::Read(from));
        }
    }
}

impl Known {
    fn of(root: &Root) -> Self {
        Self {
            epoch: root.cursor.epoch,
            version: root.cursor.version,
            bytes: root.bytes,
        }
    }
}
