//! What the log and its tail show: which records follow what is here, and what is wrong with the others.

use super::repair::Why;
use super::{Action, Alarm, Follow, Fork, Refused, Verified};
use crate::log::{Page, Record};
use crate::planted::{Bug, planted};
use sluice_schema::event::Event;
use sluice_schema::version::{Cursor, Epoch, Version};

/// How often the log must show the same trouble until that is believed: the copy that answers may lag or be damaged
/// where another is not.
pub(super) const DOUBTS_MAX: u32 = 10;

impl Follow {
    pub(super) fn take_tail(&mut self, record: Record, actions: &mut Vec<Action>) {
        let version = record.version;
        if self.fork.is_some() {
            return;
        }
        if version < self.tip.version {
            // Usually late or repeated. If the log was begun anew, nothing else might show it for long.
            if self.is_of_later_life(&record) {
                self.unconfirmed = true;
                self.read_on(actions);
            }
            return;
        }
        if version == self.tip.version {
            // Usually the event we know. If it is another one, and signed, the log decides which of them it holds.
            if !same_event(&record, self.tip) && self.signed_alone(&record).is_some() {
                self.unconfirmed = true;
                self.read_on(actions);
            }
            return;
        }
        // The first event of all may be one of an earlier life that somebody repeats: nothing here tells. The log does.
        let begins = self.tip.version == Version::ZERO;
        let idle = self.reading.is_none() && self.repair.is_none();
        if version == self.tip.version.next() && idle && !begins {
            match self.examine(&record, self.tip) {
                Ok(verified) => return self.enqueue(verified),
                // A live message is not the log: it may be forged. The log decides.
                Err(Objection::Refused(reason)) => {
                    actions.push(Action::Alarm(Alarm::BadTail { version, reason }));
                }
                Err(Objection::Fork) => {}
            }
        } else if let Some(epoch) = self.signed_alone(&record)
            && (begins || epoch == self.tip.epoch)
        {
            self.seen = self.seen.max(version);
        }
        self.read_on(actions);
    }

    pub(super) fn take_page(&mut self, from: Version, page: Page, actions: &mut Vec<Action>) {
        if self.reading != Some(from) {
            return;
        }
        (self.reading, self.retry) = (None, false);
        let looking_again = std::mem::take(&mut self.looking_again);
        if self.fork.is_some() && !looking_again {
            return;
        }
        if from > self.tip.version.next() {
            // What stood between was dropped while the read was under way.
            return self.read_on(actions);
        }
        let Some(last) = page.records.last().map(|record| record.version) else {
            return self.take_end(from, actions);
        };
        let (mut batch, objection) = self.chain_page(page.records);
        let untrusted = self.cut_untrusted(&mut batch);
        if !batch.is_empty() {
            (self.unconfirmed, self.doubts) = (false, 0);
        }
        batch
            .into_iter()
            .for_each(|verified| self.enqueue(verified));
        if let Some(fork) = untrusted.or(objection) {
            return self.doubt(fork, page.first, actions);
        }
        if last < self.tip.version {
            return self.take_short(last, actions);
        }
        (self.unconfirmed, self.doubts, self.fork) = (false, 0, None);
        if page.more || self.seen > self.tip.version {
            self.read_on(actions);
        }
    }

    /// The log ends before `from`, if the copy that answered is not stale.
    fn take_end(&mut self, from: Version, actions: &mut Vec<Action>) {
        let applied = self.cursor.version;
        if from <= applied {
            return self.doubt(Fork::Behind { applied }, None, actions);
        }
        // More than the log shows: the copy that answered lags, or the log no longer holds what was shown live. The
        // last of that may have been applied here, so it is read again too.
        let more = self.seen >= from;
        self.unconfirmed = applied > Version::ZERO && (self.unconfirmed || more);
        self.retry = self.unconfirmed || more;
    }

    /// What was read ends before what is here already: it does not say whether the log holds that.
    fn take_short(&mut self, last: Version, actions: &mut Vec<Action>) {
        let applied = self.cursor.version;
        if last < applied {
            return self.doubt(Fork::Behind { applied }, None, actions);
        }
        self.retry = true;
    }

    /// The log shows something that cannot be followed. If it goes on showing it, that is so.
    fn doubt(&mut self, fork: Fork, first: Option<Version>, actions: &mut Vec<Action>) {
        // Whoever has nothing yet loses nothing by a snapshot.
        if let Fork::Hole { missing } = fork
            && (first.is_some_and(|first| missing < first) || self.tip.version == Version::ZERO)
            && !self.is_contradicted()
        {
            return self.find(Why::Gap(missing), actions);
        }
        if let Fork::Founded { version } = fork
            && self.fork.is_none()
        {
            return self.find(Why::Founded(version), actions);
        }
        if planted(Bug::HoleIgnored) && matches!(fork, Fork::Hole { .. }) {
            self.retry = true;
            return;
        }
        if self.is_certain(&fork) {
            self.stop(fork, actions);
        }
    }

    /// Whether trouble has been shown often enough to be believed. If not, a tick reads again.
    pub(super) fn is_certain(&mut self, trouble: &Fork) -> bool {
        self.retry = true;
        // A copy that lags shows another trouble each time, as the live events move on.
        if self.doubt.as_ref() != Some(trouble) {
            self.doubts = 0;
            self.doubt = Some(trouble.clone());
        }
        // Answers that come fast say no more than one.
        if !std::mem::replace(&mut self.doubted, true) {
            self.doubts += 1;
        }
        if planted(Bug::ForkNeverBelieved) {
            return false;
        }
        let at_once = planted(Bug::ForkBelievedAtOnce);
        let standing = self.fork.as_ref().map(Fork::gravity);
        let no_news = standing.is_some_and(|standing| trouble.gravity() <= standing);
        let certain = no_news || self.doubts >= DOUBTS_MAX || at_once;
        if certain {
            self.doubts = 0;
        } else if standing.is_some() {
            self.look_again_in = 1;
        }
        certain
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

    /// Whether a record follows `tip` and is signed.
    fn examine(&self, record: &Record, tip: Cursor) -> Result<Verified, Objection> {
        let verified = self.chain_on(record, tip).map_err(|fork| match fork {
            Fork::Untrusted { reason, .. } => Objection::Refused(reason),
            Fork::Epoch { .. }
            | Fork::Chain { .. }
            | Fork::Behind { .. }
            | Fork::Hole { .. }
            | Fork::Founded { .. }
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
        if version > next && !planted(Bug::GapApplied) {
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
        if tip.version == Version::ZERO && event.is_founding() {
            return Err(Fork::Founded { version });
        }
        if tip.version > Version::ZERO && event.epoch != tip.epoch {
            return Err(Fork::Epoch { version });
        }
        if event.previous_chain != tip.chain
            && !planted(Bug::ChainUnchecked)
            && !planted(Bug::GapApplied)
        {
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
        if planted(Bug::SignatureUnchecked) {
            return true;
        }
        let signature = verified.record.signature.as_ref();
        signature.is_some_and(|signature| {
            self.trusted
                .verifies_event(verified.cursor.chain, signature)
        })
    }

    /// Whether a record is of a later life of the log, and signed.
    fn is_of_later_life(&self, record: &Record) -> bool {
        self.signed_alone(record)
            .is_some_and(|epoch| epoch > self.tip.epoch)
    }

    /// The epoch of a record that does not follow our tip, if it is at least signed over the chain it claims.
    fn signed_alone(&self, record: &Record) -> Option<Epoch> {
        let event = Event::decode(&record.event).ok()?;
        let chain = event.previous_chain.extend(&record.event);
        let signature = record.signature.as_ref()?;
        let signed = self.trusted.verifies_event(chain, signature);
        (signed && event.version() == record.version).then_some(event.epoch)
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
