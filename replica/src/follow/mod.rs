//! Follow: decides what a replica does with what it sees of the log.
//!
//! A pure state machine: inputs in, actions out. No network, no disk, no clock. See `FOLLOW.md` beside this file for
//! the life it describes; the simulator drives exactly this code. `reading` judges records, `repair` snapshots.
//!
//! Invariants: an event is applied only if it follows the cursor in version, epoch and chain, and the chain up to it
//! is signed by a trusted key; the cursor moves only when the runner says that the event has been applied; at most
//! one read, one apply and one repair are under way; (epoch, version) never goes down.

mod fork;
mod reading;
mod repair;
#[cfg(test)]
mod tests;

pub use fork::{Alarm, Fork, Refused};

use crate::keys::TrustedKeys;
use crate::log::{Page, Record};
use crate::node::{Head, SyncMode};
use crate::planted::{Bug, planted};
use crate::snapshot::Root;
use repair::{Known, Refusal, Repair, Why};
use sluice_schema::event::Event;
use sluice_schema::version::{Cursor, Version};
use std::collections::VecDeque;
use std::fmt;

/// Events that may wait while others are applied; what comes beyond is read again later.
const QUEUE_EVENTS_MAX: usize = 4096;
/// The most events handed over in one [`Action::Apply`].
const APPLY_EVENTS_MAX: usize = 1000;
/// Ticks between two looks at a log that could not be followed.
const LOOK_AGAIN_TICKS: u32 = 25;
/// Heads in a row that lie below the cursor after which the log is asked whether it still holds what is here.
const LOW_HEADS_MAX: u32 = 10;
/// Snapshots that turned out useless and are not tried again on this connection.
const REFUSED_MAX: usize = 16;
/// How often a load of the same snapshot may fail until another is tried.
const LOAD_FAILURES_MAX: u32 = 5;

/// Something the replica learnt.
#[derive(Clone, Debug)]
pub enum Input {
    /// The connection to the log is up. Anything may have been missed.
    Connected,
    /// The connection is lost.
    Disconnected,
    /// A live event.
    Tail(Record),
    /// The answer to [`Action::Read`]: what the log has from there on.
    Page {
        /// Where the read began.
        from: Version,
        /// The records.
        page: Page,
    },
    /// The read failed; worth trying again after a while.
    ReadFailed,
    /// A head whose signature has been checked.
    Head(Head),
    /// Whom to believe from now on.
    Trust(TrustedKeys),
    /// The events of the last [`Action::Apply`] are stored and active.
    Applied,
    /// They are not: the state after them is not the one their author saw.
    Diverged(Version),
    /// They are not, for a reason that may pass (disk full); nothing was changed.
    ApplyFailed,
    /// The snapshots that can be believed: the answer to [`Action::FindSnapshot`].
    Snapshots(Vec<Root>),
    /// They could not be asked for; worth trying again after a while.
    FindFailed,
    /// The snapshot of [`Action::Load`] is stored and active.
    Loaded(Cursor),
    /// It is not, for a reason that may pass; nothing was changed.
    LoadFailed,
    /// It is not, for a reason that has nothing to do with it; worth trying again after a while.
    LoadPostponed,
    /// It is not, and never will be: it is not what it says it is.
    LoadUseless,
    /// The fold of [`Action::Refold`] ended here.
    Refolded(Cursor),
    /// It failed; worth trying again after a while.
    RefoldFailed,
    /// It found that the log is not to be followed.
    RefoldForked(Fork),
    /// Somebody knows of an event that has not come yet: the log is to be read.
    Look,
    /// Some time has passed: failed work may be tried again.
    Tick,
}

/// Something the runner should do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Read the log from a version on and answer with [`Input::Page`] or [`Input::ReadFailed`].
    Read(Version),
    /// Apply these events, in order, and answer with [`Input::Applied`] or one of its opposites.
    Apply(Vec<Verified>),
    /// Ask what snapshots there are, verify their signatures, and answer with [`Input::Snapshots`] or its opposite.
    FindSnapshot,
    /// Fetch what differs from this snapshot, take it up as one change, and answer with [`Input::Loaded`] or an opposite.
    Load(Box<Root>),
    /// Fold the whole log into a new state, take up the difference, and answer with [`Input::Refolded`] or an opposite.
    Refold,
    /// Tell the operator; the last good configuration stays active.
    Alarm(Alarm),
}

/// An event that belongs where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// The event.
    pub event: Event,
    /// Its message.
    pub record: Record,
    /// The cursor after it.
    pub cursor: Cursor,
}

/// What the replica is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Phase {
    /// No connection since the start or since the last one broke.
    Disconnected,
    /// Reading what was missed.
    CatchingUp,
    /// Taking up a snapshot.
    Loading,
    /// Up to date as far as is known.
    Following,
    /// Stopped; serving the last good configuration.
    Forked(Fork),
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnected => f.write_str("disconnected"),
            Self::CatchingUp => f.write_str("catching up"),
            Self::Loading => f.write_str("loading a snapshot"),
            Self::Following => f.write_str("following"),
            Self::Forked(fork) => write!(f, "forked: {fork}"),
        }
    }
}

/// The state machine.
#[derive(Debug)]
pub struct Follow {
    trusted: TrustedKeys,
    sync: SyncMode,
    /// Applied.
    cursor: Cursor,
    /// Verified and waiting; the front is next after `cursor` or after what is being applied.
    queue: VecDeque<Verified>,
    /// The cursor after the last event of the queue, of what is being applied, or `cursor`.
    tip: Cursor,
    applying: bool,
    applying_cursor: Cursor,
    reading: Option<Version>,
    repair: Option<Repair>,
    connected: bool,
    /// Whether the next tick reads.
    retry: bool,
    /// What the next tick looks for a snapshot for.
    retry_find: Option<Why>,
    /// The same, once what is being applied is applied.
    find_after_apply: Option<Why>,
    /// Whether the next tick folds the log again.
    retry_refold: bool,
    /// Whether the log has yet to show, on this connection, that it holds what was applied here.
    unconfirmed: bool,
    /// How often in a row the log showed trouble.
    doubts: u32,
    /// That trouble.
    doubt: Option<Fork>,
    /// Whether one was counted since the last tick: readings in quick succession come from the same copy.
    doubted: bool,
    /// How many heads in a row were below the cursor.
    low_heads: u32,
    /// The highest version anybody has shown us.
    seen: Version,
    head_sync: SyncMode,
    fork: Option<Fork>,
    /// Whether the read under way only looks whether the fork still stands.
    looking_again: bool,
    /// Ticks until the next such look.
    look_again_in: u32,
    diverged: Option<Version>,
    /// Whether the state has been taken up anew since.
    repaired: bool,
    /// The newest snapshot named by a head that was looked for in vain.
    sought: Version,
    refused: Vec<Refusal>,
    load_failures: u32,
}

impl Follow {
    /// A replica that has applied everything up to `cursor`.
    pub fn new(cursor: Cursor, trusted: TrustedKeys, sync: SyncMode) -> Self {
        Self {
            trusted,
            sync,
            cursor,
            queue: VecDeque::new(),
            tip: cursor,
            applying: false,
            applying_cursor: cursor,
            reading: None,
            repair: None,
            connected: false,
            retry: false,
            retry_find: None,
            find_after_apply: None,
            retry_refold: false,
            unconfirmed: false,
            doubts: 0,
            doubt: None,
            doubted: false,
            low_heads: 0,
            seen: cursor.version,
            head_sync: SyncMode::Incremental,
            fork: None,
            looking_again: false,
            look_again_in: 0,
            diverged: None,
            repaired: false,
            sought: Version::ZERO,
            refused: Vec::new(),
            load_failures: 0,
        }
    }

    /// What has been applied.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The highest version that is known to exist.
    pub fn seen(&self) -> Version {
        self.seen
    }

    /// How changes are taken up: the node's own setting, or what the newest head asks for.
    pub fn sync(&self) -> SyncMode {
        match (self.sync, self.head_sync) {
            (SyncMode::Incremental, SyncMode::Incremental) => SyncMode::Incremental,
            (SyncMode::Full, _) | (_, SyncMode::Full) => SyncMode::Full,
        }
    }

    /// What the replica is doing.
    pub fn phase(&self) -> Phase {
        match (&self.fork, &self.repair) {
            (_, Some(Repair::Loading(..))) => Phase::Loading,
            (Some(fork), _) => Phase::Forked(fork.clone()),
            (None, _) if !self.connected => Phase::Disconnected,
            (None, _) if self.cursor.version < self.seen || self.is_busy() => Phase::CatchingUp,
            (None, _) => Phase::Following,
        }
    }

    /// Whether something is under way or to be tried again. An end of the log that is still doubtful is not its end.
    fn is_busy(&self) -> bool {
        let waits = self.retry || self.retry_find.is_some() || self.retry_refold;
        waits || self.reading.is_some() || self.repair.is_some()
    }

    /// Takes in one input and gives back what to do.
    pub fn step(&mut self, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Connected => self.take_connection(&mut actions),
            Input::Disconnected => self.connected = false,
            Input::Tail(record) => self.take_tail(record, &mut actions),
            Input::Page { from, page } => self.take_page(from, page, &mut actions),
            Input::ReadFailed => {
                self.reading = None;
                self.looking_again = false;
                self.retry = !planted(Bug::ReadNotRepeated);
            }
            Input::Head(head) => self.take_head(&head, &mut actions),
            Input::Trust(trusted) => self.take_trust(trusted, &mut actions),
            Input::Applied => {
                self.applying = false;
                self.cursor = self.applying_cursor;
                self.forget_divergence();
                if let Some(why) = self.find_after_apply.take() {
                    self.find(why, &mut actions);
                }
            }
            Input::Diverged(version) => self.take_divergence(version, &mut actions),
            Input::ApplyFailed => {
                self.applying = false;
                self.forget_queue();
                self.retry = true;
                self.retry_find = self.find_after_apply.take().or(self.retry_find.take());
            }
            Input::Snapshots(roots) => self.take_roots(roots, &mut actions),
            Input::FindFailed => self.take_find_failure(&mut actions),
            Input::Loaded(cursor) => self.take_loaded(cursor, &mut actions),
            Input::LoadFailed => self.take_load_failure(false),
            Input::LoadPostponed => self.take_load_delay(&mut actions),
            Input::LoadUseless => self.take_load_failure(true),
            Input::Refolded(cursor) => self.take_refolded(cursor, &mut actions),
            Input::RefoldFailed => self.take_refold_failure(),
            Input::RefoldForked(fork) => {
                self.repair = None;
                // It was to be applied to a state that is still not right.
                self.forget_queue();
                self.stop(fork, &mut actions);
            }
            Input::Look if self.connected => self.read_on(&mut actions),
            Input::Look => {}
            Input::Tick => self.take_tick(&mut actions),
        }
        self.apply_next(&mut actions);
        actions
    }

    fn take_connection(&mut self, actions: &mut Vec<Action>) {
        self.connected = true;
        self.reading = None;
        self.looking_again = false;
        self.unconfirmed = !planted(Bug::CursorUnconfirmed);
        (self.doubts, self.low_heads) = (0, 0);
        self.sought = Version::ZERO;
        self.refused.clear();
        self.load_failures = 0;
        self.repaired = false;
        // What this connection shows may be another thing. A state that is not right stays so.
        self.find_after_apply = None;
        self.retry_find = self.retry_find.take().filter(Why::is_local);
        self.look_again_in = 0;
        self.forget_queue();
        if self.fork.is_some() {
            self.look_again(actions);
        } else if self.cursor.version == Version::ZERO {
            self.find(Why::Empty, actions);
        } else {
            self.read_on(actions);
        }
    }

    /// Reads what comes next. What is not possible now is tried again on a tick.
    fn read_on(&mut self, actions: &mut Vec<Action>) {
        if self.reading.is_some() || self.fork.is_some() {
            return;
        }
        self.retry = self.repair.is_some() || self.queue.len() >= QUEUE_EVENTS_MAX;
        if !self.retry {
            let from = match self.unconfirmed {
                // The record at the cursor must be the one we applied.
                true => self.cursor.version.max(Version::GENESIS),
                false => self.tip.version.next(),
            };
            self.reading = Some(from);
            actions.push(Action::Read(from));
        }
    }

    /// Follows no further, and looks for a way out. What is verified already is signed history, and is still applied.
    fn stop(&mut self, fork: Fork, actions: &mut Vec<Action>) {
        let standing = self.stand(fork, actions);
        self.find(Why::Fork(standing), actions);
    }

    /// Follows no further. Gives back the fork that stands: the graver one, for a log that is trimmed or
    /// a copy that lags shows less.
    fn stand(&mut self, fork: Fork, actions: &mut Vec<Action>) -> Fork {
        self.looking_again = false;
        self.look_again_in = LOOK_AGAIN_TICKS;
        match self.fork.clone() {
            Some(standing) if standing == fork => standing,
            Some(standing) if standing.gravity() > fork.gravity() => standing,
            Some(_) | None => {
                self.fork = Some(fork.clone());
                actions.push(Action::Alarm(Alarm::Fork(fork.clone())));
                fork
            }
        }
    }

    /// Whether the log, or a head, has shown another history than ours.
    fn is_contradicted(&self) -> bool {
        self.fork.as_ref().is_some_and(Fork::contradicts)
    }

    /// Other keys: what waits was verified with the old ones, and what was not to be trusted may be now.
    fn take_trust(&mut self, trusted: TrustedKeys, actions: &mut Vec<Action>) {
        self.trusted = trusted;
        self.forget_queue();
        // A charter may be valid now, or a snapshot.
        self.refused.clear();
        self.look_again_in = 0;
        match &self.fork {
            Some(Fork::Untrusted { .. }) => self.look_again(actions),
            Some(
                Fork::Epoch { .. }
                | Fork::Chain { .. }
                | Fork::Behind { .. }
                | Fork::Hole { .. }
                | Fork::Founded { .. }
                | Fork::Diverged { .. },
            ) => {}
            None if self.connected => self.read_on(actions),
            None => {}
        }
    }

    /// Drops what waits behind the events being applied.
    fn forget_queue(&mut self) {
        self.queue.clear();
        self.tip = if self.applying {
            self.applying_cursor
        } else {
            self.cursor
        };
    }

    fn take_head(&mut self, head: &Head, actions: &mut Vec<Action>) {
        let known = self.cursor.version > Version::ZERO;
        if known && head.epoch < self.cursor.epoch {
            // An earlier life of the log, as somebody may repeat it.
            return;
        }
        if known && head.epoch > self.cursor.epoch {
            let version = head.version;
            return if !self.is_contradicted() && !self.is_moving_to(head.epoch) {
                self.stop(Fork::Epoch { version }, actions);
            };
        }
        self.head_sync = head.sync;
        if known && head.version == self.cursor.version && head.chain != self.cursor.chain {
            let version = head.version;
            return if !self.is_contradicted() {
                self.stop(Fork::Chain { version }, actions);
            };
        }
        self.take_low_head(head, actions);
        self.seen = self.seen.max(head.version);
        let worth = head.snapshot.filter(|snapshot| {
            let (epoch, version) = (head.epoch, snapshot.version);
            let bytes = snapshot.bytes;
            let known = Known {
                epoch,
                version,
                bytes,
            };
            version > self.sought && self.is_worth(&known)
        });
        match worth {
            Some(snapshot) if self.fork.is_none() => {
                self.find(Why::Lag(snapshot.version), actions);
            }
            Some(_) | None if head.version > self.tip.version => self.read_on(actions),
            Some(_) | None => {}
        }
    }

    /// Control planes differ by a little. If all of them stay below, the log may have gone back.
    fn take_low_head(&mut self, head: &Head, actions: &mut Vec<Action>) {
        if head.version >= self.cursor.version {
            self.low_heads = 0;
            return;
        }
        self.low_heads += 1;
        if self.low_heads >= LOW_HEADS_MAX {
            self.low_heads = 0;
            self.unconfirmed = true;
            self.read_on(actions);
        }
    }

    fn take_divergence(&mut self, version: Version, actions: &mut Vec<Action>) {
        self.applying = false;
        self.find_after_apply = None;
        self.forget_queue();
        let refolding = matches!(self.repair, Some(Repair::Refolding));
        if refolding || (self.diverged == Some(version) && self.repaired) {
            self.repair = None;
            return self.stop(Fork::Diverged { version }, actions);
        }
        actions.push(Action::Alarm(Alarm::Diverged(version)));
        // What a fork's log leads to is not what we want; the next look at it brings us here again.
        if self.fork.is_none() {
            (self.diverged, self.repaired) = (Some(version), false);
            self.find(Why::Diverged(version), actions);
        }
    }

    /// What diverged there has been applied since.
    fn forget_divergence(&mut self) {
        let reached = self.cursor.version;
        self.diverged = self.diverged.filter(|version| *version > reached);
    }

    fn take_refolded(&mut self, cursor: Cursor, actions: &mut Vec<Action>) {
        self.repair = None;
        self.cursor = cursor;
        self.repaired = true;
        self.forget_divergence();
        self.forget_queue();
        if self.seen > cursor.version {
            self.read_on(actions);
        }
        self.seen = self.seen.max(cursor.version);
    }

    /// Only the state of a divergence may be found elsewhere: by then there may be a snapshot.
    fn take_refold_failure(&mut self) {
        self.repair = None;
        match self.diverged {
            Some(version) => self.retry_find = Some(Why::Diverged(version)),
            None => self.retry_refold = true,
        }
    }

    fn take_tick(&mut self, actions: &mut Vec<Action>) {
        self.doubted = false;
        if !self.connected {
            return;
        }
        if self.repair.is_none()
            && let Some(why) = self.retry_find.take()
        {
            self.find(why, actions);
        }
        if let Some(fork) = self.fork.clone() {
            self.look_again_in = self.look_again_in.saturating_sub(1);
            if self.look_again_in == 0 {
                self.look_at(fork, actions);
            }
            return;
        }
        let idle = self.repair.is_none() && !self.applying;
        if idle && std::mem::take(&mut self.retry_refold) {
            return self.refold(actions);
        }
        if self.retry {
            self.read_on(actions);
        }
    }

    fn enqueue(&mut self, verified: Verified) {
        if self.queue.len() >= QUEUE_EVENTS_MAX {
            // Read again once the queue has drained: `tip` stays, so the next record shows the gap.
            self.seen = self.seen.max(verified.record.version);
            self.retry = true;
            return;
        }
        if verified.cursor.version == self.tip.version.next() || planted(Bug::GapApplied) {
            self.tip = verified.cursor;
            self.seen = self.seen.max(self.tip.version);
            self.queue.push_back(verified);
        }
    }

    fn apply_next(&mut self, actions: &mut Vec<Action>) {
        // Nothing is applied to a state that is known to be wrong.
        let wrong = self.retry_refold || self.retry_find.as_ref().is_some_and(Why::is_local);
        if self.applying || self.repair.is_some() || wrong || self.queue.is_empty() {
            return;
        }
        if self.sync() == SyncMode::Full && self.fork.is_none() {
            self.forget_queue();
            return self.refold(actions);
        }
        let count = self.queue.len().min(APPLY_EVENTS_MAX);
        let events: Vec<Verified> = self.queue.drain(..count).collect();
        self.applying = true;
        self.applying_cursor = events.last().map_or(self.cursor, |last| last.cursor);
        actions.push(Action::Apply(events));
    }
}
