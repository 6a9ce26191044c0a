//! Follow: decides what a replica does with what it sees of the log.
//!
//! A pure state machine: inputs in, actions out. No network, no disk, no clock. See `FOLLOW.md` beside this file for
//! the life it describes; the simulator drives exactly this code.
//!
//! Invariants: an event is applied only if it follows the cursor in version, epoch and chain, and the chain up to it
//! is signed by a trusted key; the cursor moves only when the runner says that the event has been applied; at most
//! one read and one apply are under way.

use crate::keys::TrustedKeys;
use crate::log::{Page, Record};
use crate::node::{Head, SyncMode};
use sluice_schema::event::Event;
use sluice_schema::version::{Cursor, Version};
use std::collections::VecDeque;
use std::fmt;

/// Events that may wait while others are applied; what comes beyond is read again later.
const QUEUE_EVENTS_MAX: usize = 4096;
/// The most events handed over in one [`Action::Apply`].
const APPLY_EVENTS_MAX: usize = 1000;

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
    /// The events of the last [`Action::Apply`] are stored and active.
    Applied,
    /// They are not: the state after them is not the one their author saw.
    Diverged(Version),
    /// They are not, for a reason that may pass (disk full); nothing was changed.
    ApplyFailed,
    /// The rebuild of [`Action::Rebuild`] ended here.
    Rebuilt(Cursor),
    /// The rebuild failed; worth trying again after a while.
    RebuildFailed,
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
    /// Fold the whole log into a new store and take up the difference.
    Rebuild,
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

/// Something an operator must look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Alarm {
    /// The log's history is not the one our cursor came from. Following has stopped.
    Fork(Fork),
    /// A live message was forged or damaged. It was dropped; the log itself is read instead.
    BadTail {
        /// The version it claimed.
        version: Version,
        /// What is wrong with it.
        reason: Refused,
    },
    /// The state here is not the author's. It is rebuilt from the log.
    Diverged(Version),
}

/// Why a replica does not follow the log any further.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fork {
    /// The log is in another life.
    Epoch {
        /// The version at which it shows.
        version: Version,
    },
    /// The log holds another event at, or a break of the chain after, a version we have applied.
    Chain {
        /// That version.
        version: Version,
    },
    /// The log ends before what we have applied.
    Behind {
        /// What we have applied.
        applied: Version,
    },
    /// The log has lost events that we need.
    Hole {
        /// The first one missing.
        missing: Version,
    },
    /// An event in the log is not signed by a key we trust, or is damaged.
    Untrusted {
        /// Its version.
        version: Version,
        /// What is wrong with it.
        reason: Refused,
    },
    /// The state diverges at this version also when it is rebuilt from the log.
    Diverged {
        /// The version.
        version: Version,
    },
}

impl fmt::Display for Fork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epoch { version } => write!(f, "the log is in another epoch at version {version}"),
            Self::Chain { version } => write!(f, "the log has another history at version {version}"),
            Self::Behind { applied } => {
                write!(f, "the log ends before version {applied}, which was applied here")
            }
            Self::Hole { missing } => write!(f, "the log has lost version {missing}"),
            Self::Untrusted { version, reason } => {
                write!(f, "version {version} in the log is not to be trusted: {reason}")
            }
            Self::Diverged { version } => {
                write!(f, "the state at version {version} differs from its author's")
            }
        }
    }
}

/// What is wrong with a record by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// Its bytes are not an event.
    #[error("not a readable event")]
    Unreadable,
    /// No signature, or not by a key we trust.
    #[error("no valid signature by a trusted key")]
    Signature,
    /// The event says it belongs elsewhere.
    #[error("the event was written for another version")]
    Version,
}

/// What the replica is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Phase {
    /// No connection since the start or since the last one broke.
    Disconnected,
    /// Reading what was missed.
    CatchingUp,
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
    rebuilding: bool,
    connected: bool,
    retry: bool,
    /// The highest version anybody has shown us.
    seen: Version,
    head_sync: SyncMode,
    fork: Option<Fork>,
    diverged: Option<Version>,
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
            rebuilding: false,
            connected: false,
            retry: false,
            seen: cursor.version,
            head_sync: SyncMode::Incremental,
            fork: None,
            diverged: None,
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

    /// What the replica is doing.
    pub fn phase(&self) -> Phase {
        match &self.fork {
            Some(fork) => Phase::Forked(fork.clone()),
            None if !self.connected => Phase::Disconnected,
            None if self.cursor.version < self.seen || self.reading.is_some() || self.rebuilding => {
                Phase::CatchingUp
            }
            None => Phase::Following,
        }
    }

    /// Takes in one input and gives back what to do.
    pub fn step(&mut self, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Connected => {
                self.connected = true;
                // Read from the cursor itself: the record there must be the one we applied.
                self.fork = None;
                self.reading = None;
                self.forget_queue();
                self.read(self.cursor.version.max(Version::GENESIS), &mut actions);
            }
            Input::Disconnected => self.connected = false,
            Input::Tail(record) => self.take_tail(record, &mut actions),
            Input::Page { from, page } => self.take_page(from, page, &mut actions),
            Input::ReadFailed => {
                self.reading = None;
                self.retry = true;
            }
            Input::Head(head) => self.take_head(&head, &mut actions),
            Input::Applied => {
                self.applying = false;
                self.cursor = self.applying_cursor;
                self.diverged = None;
            }
            Input::Diverged(version) => self.take_divergence(version, &mut actions),
            Input::ApplyFailed => {
                self.applying = false;
                self.forget_queue();
                self.retry = true;
            }
            Input::Rebuilt(cursor) => self.take_rebuilt(cursor, &mut actions),
            Input::RebuildFailed => {
                self.rebuilding = false;
                self.retry = true;
            }
            Input::Tick => self.take_tick(&mut actions),
        }
        self.apply_next(&mut actions);
        actions
    }

    fn read(&mut self, from: Version, actions: &mut Vec<Action>) {
        if self.reading.is_none() && !self.rebuilding && self.fork.is_none() {
            self.reading = Some(from);
            self.retry = false;
            actions.push(Action::Read(from));
        }
    }

    fn stop(&mut self, fork: Fork, actions: &mut Vec<Action>) {
        if self.fork.is_none() {
            self.forget_queue();
            self.fork = Some(fork.clone());
            actions.push(Action::Alarm(Alarm::Fork(fork)));
        }
    }

    /// Drops what waits behind the events being applied.
    fn forget_queue(&mut self) {
        self.queue.clear();
        self.tip = if self.applying { self.applying_cursor } else { self.cursor };
    }

    fn take_tail(&mut self, record: Record, actions: &mut Vec<Action>) {
        if self.fork.is_some() || self.rebuilding || record.version <= self.tip.version {
            return;
        }
        let version = record.version;
        if version == self.tip.version.next() && self.reading.is_none() {
            match self.examine(&record, self.tip) {
                Ok(verified) => return self.enqueue(verified),
                // A live message is not the log: it may be forged. The log decides.
                Err(Objection::Refused(reason)) => {
                    actions.push(Action::Alarm(Alarm::BadTail { version, reason }));
                }
                Err(Objection::Fork) => {}
            }
        } else if self.examine_signature_alone(&record) {
            self.seen = self.seen.max(version);
        }
        self.read(self.tip.version.next(), actions);
    }

    fn take_page(&mut self, from: Version, page: Page, actions: &mut Vec<Action>) {
        if self.reading.take() != Some(from) || self.fork.is_some() {
            return;
        }
        if from > self.tip.version.next() {
            // What stood between was dropped while the read was under way.
            return self.read(self.tip.version.next(), actions);
        }
        let Page { records, more } = page;
        if records.is_empty() {
            // The log ends before `from`. Reads may be a little stale, so only what we have applied ourselves counts.
            if from <= self.cursor.version {
                return self.stop(Fork::Behind { applied: self.cursor.version }, actions);
            }
            self.retry = self.seen >= from;
            return;
        }
        let mut batch: Vec<Verified> = Vec::new();
        let mut tip = self.tip;
        let mut objection = None;
        for record in records {
            if record.version < tip.version {
                continue;
            }
            if record.version == tip.version {
                if !same_event(&record, tip) {
                    objection = Some(Fork::Chain { version: tip.version });
                    break;
                }
                continue;
            }
            match self.chain_on(&record, tip) {
                Ok(verified) => {
                    tip = verified.cursor;
                    batch.push(verified);
                }
                Err(fork) => {
                    objection = Some(fork);
                    break;
                }
            }
        }
        let untrusted = self.cut_untrusted(&mut batch);
        batch.into_iter().for_each(|verified| self.enqueue(verified));
        match untrusted.or(objection) {
            Some(fork) => self.stop(fork, actions),
            None if more || self.seen > self.tip.version => {
                self.read(self.tip.version.next(), actions);
            }
            None => {}
        }
    }

    /// One signature vouches for the chain before it, so a page needs one verification: that of its last event. If
    /// that fails, finds the first event that is not covered and cuts there.
    fn cut_untrusted(&self, batch: &mut Vec<Verified>) -> Option<Fork> {
        if batch.last().is_none_or(|last| self.signed(last)) {
            return None;
        }
        let covered = batch.iter().rposition(|verified| self.signed(verified)).map_or(0, |at| at + 1);
        let version = batch[covered].record.version;
        batch.truncate(covered);
        Some(Fork::Untrusted { version, reason: Refused::Signature })
    }

    fn take_head(&mut self, head: &Head, actions: &mut Vec<Action>) {
        self.head_sync = head.sync;
        let known = self.cursor.version > Version::ZERO;
        if known && head.epoch != self.cursor.epoch {
            return self.stop(Fork::Epoch { version: head.version }, actions);
        }
        if head.version == self.cursor.version && known && head.chain != self.cursor.chain {
            return self.stop(Fork::Chain { version: head.version }, actions);
        }
        self.seen = self.seen.max(head.version);
        if head.version > self.tip.version {
            self.read(self.tip.version.next(), actions);
        }
    }

    fn take_divergence(&mut self, version: Version, actions: &mut Vec<Action>) {
        self.applying = false;
        self.forget_queue();
        if self.diverged == Some(version) {
            return self.stop(Fork::Diverged { version }, actions);
        }
        self.diverged = Some(version);
        actions.push(Action::Alarm(Alarm::Diverged(version)));
        self.rebuild(actions);
    }

    fn rebuild(&mut self, actions: &mut Vec<Action>) {
        if !self.rebuilding {
            self.rebuilding = true;
            self.retry = false;
            actions.push(Action::Rebuild);
        }
    }

    fn take_rebuilt(&mut self, cursor: Cursor, actions: &mut Vec<Action>) {
        self.rebuilding = false;
        self.cursor = cursor;
        self.forget_queue();
        if self.seen > cursor.version {
            self.read(cursor.version.next(), actions);
        }
    }

    fn take_tick(&mut self, actions: &mut Vec<Action>) {
        if !self.retry || !self.connected {
            return;
        }
        match self.diverged {
            Some(_) if !self.applying => self.rebuild(actions),
            Some(_) | None => self.read(self.tip.version.next(), actions),
        }
    }

    fn enqueue(&mut self, verified: Verified) {
        if self.queue.len() >= QUEUE_EVENTS_MAX {
            // Read again once the queue has drained: `tip` stays, so the next record shows the gap.
            self.seen = self.seen.max(verified.record.version);
            self.retry = true;
            return;
        }
        if verified.cursor.version == self.tip.version.next() {
            self.tip = verified.cursor;
            self.seen = self.seen.max(self.tip.version);
            self.queue.push_back(verified);
        }
    }

    fn apply_next(&mut self, actions: &mut Vec<Action>) {
        if self.applying || self.rebuilding || self.queue.is_empty() {
            return;
        }
        if self.sync == SyncMode::Full || self.head_sync == SyncMode::Full {
            self.forget_queue();
            return self.rebuild(actions);
        }
        let count = self.queue.len().min(APPLY_EVENTS_MAX);
        let events: Vec<Verified> = self.queue.drain(..count).collect();
        self.applying = true;
        self.applying_cursor = events.last().map_or(self.cursor, |last| last.cursor);
        actions.push(Action::Apply(events));
    }

    /// Whether a record follows `tip` and is signed.
    fn examine(&self, record: &Record, tip: Cursor) -> Result<Verified, Objection> {
        let verified = self.chain_on(record, tip).map_err(|fork| match fork {
            Fork::Untrusted { reason, .. } => Objection::Refused(reason),
            Fork::Epoch { .. }
            | Fork::Chain { .. }
            | Fork::Behind { .. }
            | Fork::Hole { .. }
            | Fork::Diverged { .. } => Objection::Fork,
        })?;
        if self.signed(&verified) {
            Ok(verified)
        } else {
            Err(Objection::Refused(Refused::Signature))
        }
    }

    /// Whether a record follows `tip`, its signature aside.
    fn chain_on(&self, record: &Record, tip: Cursor) -> Result<Verified, Fork> {
        let version = record.version;
        let next = tip.version.next();
        if version > next {
            return Err(Fork::Hole { missing: next });
        }
        let event = Event::decode(&record.event)
            .map_err(|_| Fork::Untrusted { version, reason: Refused::Unreadable })?;
        if event.version() != version {
            return Err(Fork::Untrusted { version, reason: Refused::Version });
        }
        if tip.version > Version::ZERO && event.epoch != tip.epoch {
            return Err(Fork::Epoch { version });
        }
        if event.previous_chain != tip.chain {
            return Err(Fork::Chain { version: tip.version });
        }
        let cursor = event.cursor(&record.event);
        Ok(Verified { event, record: record.clone(), cursor })
    }

    fn signed(&self, verified: &Verified) -> bool {
        let signature = verified.record.signature.as_ref();
        signature.is_some_and(|signature| self.trusted.verifies_event(verified.cursor.chain, signature))
    }

    /// Whether a record that does not follow our tip is at least signed over the chain it claims.
    fn examine_signature_alone(&self, record: &Record) -> bool {
        let Ok(event) = Event::decode(&record.event) else { return false };
        let chain = event.previous_chain.extend(&record.event);
        event.version() == record.version
            && record.signature.as_ref().is_some_and(|own| self.trusted.verifies_event(chain, own))
    }
}

enum Objection {
    /// Something is wrong with the record by itself.
    Refused(Refused),
    /// It does not follow our history. The log decides whether that is a fork.
    Fork,
}

/// Whether a record is the event that led to `cursor`.
fn same_event(record: &Record, cursor: Cursor) -> bool {
    Event::decode(&record.event).is_ok_and(|event| event.cursor(&record.event) == cursor)
}
