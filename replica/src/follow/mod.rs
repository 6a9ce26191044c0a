//! Follow: decides what a replica does with what it sees of the log.
//!
//! A pure state machine: inputs in, actions out. No network, no disk, no clock. See `FOLLOW.md` beside this file for
//! the life it describes; the simulator drives exactly this code.
//!
//! Invariants: an event is applied only if it follows the cursor in version, epoch and chain, and the chain up to it
//! is signed by a trusted key; the cursor moves only when the runner says that the event has been applied; at most
//! one read, one apply and one rebuild are under way; a fork ends reading and rebuilding until the next connection.

mod fork;
#[cfg(test)]
mod tests;

pub use fork::{Alarm, Fork, Refused};

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
/// How often the log must say that it ends before the cursor until that is believed: the copy that answers may lag.
const BEHIND_READS_MAX: u32 = 10;

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
    /// The rebuild found that the log is not to be followed.
    RebuildForked(Fork),
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
    /// Whether the next tick reads.
    retry: bool,
    /// Whether the next tick rebuilds.
    retry_rebuild: bool,
    /// Whether the log has yet to show, on this connection, that it holds what was applied here.
    unconfirmed: bool,
    /// How often in a row the log said that it ends before the cursor.
    behind: u32,
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
            retry_rebuild: false,
            unconfirmed: false,
            behind: 0,
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

    /// How changes are taken up: the node's own setting, or what the newest head asks for.
    pub fn sync(&self) -> SyncMode {
        match (self.sync, self.head_sync) {
            (SyncMode::Incremental, SyncMode::Incremental) => SyncMode::Incremental,
            (SyncMode::Full, _) | (_, SyncMode::Full) => SyncMode::Full,
        }
    }

    /// What the replica is doing.
    pub fn phase(&self) -> Phase {
        match &self.fork {
            Some(fork) => Phase::Forked(fork.clone()),
            None if !self.connected => Phase::Disconnected,
            None if self.cursor.version < self.seen
                || self.reading.is_some()
                || self.rebuilding =>
            {
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
                self.fork = None;
                self.reading = None;
                self.unconfirmed = true;
                self.behind = 0;
                self.forget_queue();
                self.read_on(&mut actions);
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
                self.retry_rebuild = true;
            }
            Input::RebuildForked(fork) => {
                self.rebuilding = false;
                // It was to be applied to a state that is still not right.
                self.forget_queue();
                self.stop(fork, &mut actions);
            }
            Input::Tick => self.take_tick(&mut actions),
        }
        self.apply_next(&mut actions);
        actions
    }

    /// Reads what comes next. What is not possible now is tried again on a tick.
    fn read_on(&mut self, actions: &mut Vec<Action>) {
        if self.reading.is_some() || self.fork.is_some() {
            return;
        }
        self.retry = self.rebuilding || self.queue.len() >= QUEUE_EVENTS_MAX;
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

    /// Follows no further. What is verified already is signed history, and is still applied.
    fn stop(&mut self, fork: Fork, actions: &mut Vec<Action>) {
        if self.fork.is_none() {
            self.fork = Some(fork.clone());
            actions.push(Action::Alarm(Alarm::Fork(fork)));
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

    fn take_tail(&mut self, record: Record, actions: &mut Vec<Action>) {
        let version = record.version;
        if self.fork.is_some() || version < self.tip.version {
            return;
        }
        if version == self.tip.version {
            // Usually the event we know. If it is another one, and signed, the log decides which of them it holds.
            if !same_event(&record, self.tip) && self.examine_signature_alone(&record) {
                self.unconfirmed = true;
                self.read_on(actions);
            }
            return;
        }
        if version == self.tip.version.next() && self.reading.is_none() && !self.rebuilding {
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
        self.read_on(actions);
    }

    fn take_page(&mut self, from: Version, page: Page, actions: &mut Vec<Action>) {
        if self.reading != Some(from) {
            return;
        }
        self.reading = None;
        if self.fork.is_some() {
            return;
        }
        if from > self.tip.version.next() {
            // What stood between was dropped while the read was under way.
            return self.read_on(actions);
        }
        if page.records.is_empty() {
            return self.take_end(from, actions);
        }
        (self.unconfirmed, self.behind) = (false, 0);
        let (mut batch, objection) = self.chain_page(page.records);
        let untrusted = self.cut_untrusted(&mut batch);
        batch
            .into_iter()
            .for_each(|verified| self.enqueue(verified));
        match untrusted.or(objection) {
            Some(fork) => self.stop(fork, actions),
            None if page.more || self.seen > self.tip.version => self.read_on(actions),
            None => {}
        }
    }

    /// The log ends before `from`, if the copy that answered is not stale.
    fn take_end(&mut self, from: Version, actions: &mut Vec<Action>) {
        if from > self.cursor.version {
            self.unconfirmed = false;
            self.retry = self.seen >= from;
            return;
        }
        self.behind += 1;
        self.retry = true;
        if self.behind >= BEHIND_READS_MAX {
            self.stop(
                Fork::Behind {
                    applied: self.cursor.version,
                },
                actions,
            );
        }
    }

    /// The records of a page that follow the tip, up to the first that does not, and what is wrong with that one.
    fn chain_page(&self, records: Vec<Record>) -> (Vec<Verified>, Option<Fork>) {
        let mut batch: Vec<Verified> = Vec::new();
        let mut tip = self.tip;
        for record in records {
            if record.version < tip.version {
                continue;
            }
            if record.version == tip.version {
                if !same_event(&record, tip) {
                    return (
                        batch,
                        Some(Fork::Chain {
                            version: tip.version,
                        }),
                    );
                }
                continue;
            }
            match self.chain_on(&record, tip) {
                Ok(verified) => {
                    tip = verified.cursor;
                    batch.push(verified);
                }
                Err(fork) => return (batch, Some(fork)),
            }
        }
        (batch, None)
    }

    /// One signature vouches for the chain before it, so a page needs one verification: that of its last event. If
    /// that fails, finds the first event that is not covered and cuts there.
    fn cut_untrusted(&self, batch: &mut Vec<Verified>) -> Option<Fork> {
        if batch.last().is_none_or(|last| self.signed(last)) {
            return None;
        }
        let covered = batch
            .iter()
            .rposition(|verified| self.signed(verified))
            .map_or(0, |at| at + 1);
        let version = batch[covered].record.version;
        batch.truncate(covered);
        Some(Fork::Untrusted {
            version,
            reason: Refused::Signature,
        })
    }

    fn take_head(&mut self, head: &Head, actions: &mut Vec<Action>) {
        self.head_sync = head.sync;
        let known = self.cursor.version > Version::ZERO;
        if known && head.epoch != self.cursor.epoch {
            return self.stop(
                Fork::Epoch {
                    version: head.version,
                },
                actions,
            );
        }
        if head.version == self.cursor.version && known && head.chain != self.cursor.chain {
            return self.stop(
                Fork::Chain {
                    version: head.version,
                },
                actions,
            );
        }
        self.seen = self.seen.max(head.version);
        if head.version > self.tip.version {
            self.read_on(actions);
        }
    }

    fn take_divergence(&mut self, version: Version, actions: &mut Vec<Action>) {
        self.applying = false;
        self.forget_queue();
        if self.rebuilding || self.diverged == Some(version) {
            self.rebuilding = false;
            return self.stop(Fork::Diverged { version }, actions);
        }
        actions.push(Action::Alarm(Alarm::Diverged(version)));
        // What a fork's log folds to is not what we want; the next connection brings us here again.
        if self.fork.is_none() {
            self.diverged = Some(version);
            self.rebuild(actions);
        }
    }

    fn rebuild(&mut self, actions: &mut Vec<Action>) {
        if !self.rebuilding {
            self.rebuilding = true;
            self.retry_rebuild = false;
            actions.push(Action::Rebuild);
        }
    }

    fn take_rebuilt(&mut self, cursor: Cursor, actions: &mut Vec<Action>) {
        self.rebuilding = false;
        self.cursor = cursor;
        self.forget_queue();
        if self.seen > cursor.version {
            self.read_on(actions);
        }
    }

    fn take_tick(&mut self, actions: &mut Vec<Action>) {
        if !self.connected || self.fork.is_some() {
            return;
        }
        if self.retry_rebuild && !self.applying {
            return self.rebuild(actions);
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
        if verified.cursor.version == self.tip.version.next() {
            self.tip = verified.cursor;
            self.seen = self.seen.max(self.tip.version);
            self.queue.push_back(verified);
        }
    }

    fn apply_next(&mut self, actions: &mut Vec<Action>) {
        if self.applying || self.rebuilding || self.retry_rebuild || self.queue.is_empty() {
            return;
        }
        if self.sync() == SyncMode::Full && self.fork.is_none() {
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
        let event = Event::decode(&record.event).map_err(|_| Fork::Untrusted {
            version,
            reason: Refused::Unreadable,
        })?;
        if event.version() != version {
            return Err(Fork::Untrusted {
                version,
                reason: Refused::Version,
            });
        }
        if tip.version > Version::ZERO && event.epoch != tip.epoch {
            return Err(Fork::Epoch { version });
        }
        if event.previous_chain != tip.chain {
            return Err(Fork::Chain {
                version: tip.version,
            });
        }
        let cursor = event.cursor(&record.event);
        Ok(Verified {
            event,
            record: record.clone(),
            cursor,
        })
    }

    fn signed(&self, verified: &Verified) -> bool {
        let signature = verified.record.signature.as_ref();
        signature.is_some_and(|signature| {
            self.trusted
                .verifies_event(verified.cursor.chain, signature)
        })
    }

    /// Whether a record that does not follow our tip is at least signed over the chain it claims.
    fn examine_signature_alone(&self, record: &Record) -> bool {
        let Ok(event) = Event::decode(&record.event) else {
            return false;
        };
        let chain = event.previous_chain.extend(&record.event);
        event.version() == record.version
            && record
                .signature
                .as_ref()
                .is_some_and(|own| self.trusted.verifies_event(chain, own))
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
