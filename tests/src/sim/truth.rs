//! What is true: every history that control planes have written, folded by the simulator itself, and which writes were
//! asked for and acknowledged.
//!
//! Histories are a tree: a log that loses its end goes on from an earlier event. A place in it is named by its chain.

use super::trace::{Trace, note};
use sluice_replica::log::Record;
use sluice_schema::digest::Digest;
use sluice_schema::entity::{Change, Entry, Key};
use sluice_schema::event::{Event, Mutations};
use sluice_schema::hash::Hash32;
use sluice_schema::state::{ApplyError, State};
use sluice_schema::version::{Chain, Cursor, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A cheap hash of a whole state, updated in the size of a change: the simulator's own, so that it does not believe the
/// one that Sluice computes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Print(u64);

impl Print {
    /// The print after `key` went from `before` to `after`.
    pub(crate) fn step(self, key: &Key, before: Option<&Entry>, after: Option<&Entry>) -> Self {
        let without = before.map_or(0, |entry| of_entity(key, entry));
        let with = after.map_or(0, |entry| of_entity(key, entry));
        Self(self.0.wrapping_sub(without).wrapping_add(with))
    }

    /// The print of a whole state.
    pub(crate) fn of<'a>(entities: impl Iterator<Item = (&'a Key, &'a Entry)>) -> Self {
        entities.fold(Self::default(), |print, (key, entry)| {
            print.step(key, None, Some(entry))
        })
    }
}

fn of_entity(key: &Key, entry: &Entry) -> u64 {
    let mut bytes = Vec::with_capacity(512);
    bytes.extend_from_slice(key.kind.as_str().as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(key.workspace.as_str().as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(key.id.0.as_bytes());
    bytes.extend_from_slice(&entry.version.0.to_le_bytes());
    bytes.extend_from_slice(entry.body.as_bytes());
    let Hash32(hash) = Hash32::of(&bytes);
    hash.first_chunk()
        .map_or(0, |first| u64::from_le_bytes(*first))
}

/// One place in the histories.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Its cursor.
    pub(crate) cursor: Cursor,
    /// The state there.
    pub(crate) state: State,
    /// Its digest.
    pub(crate) digest: Digest,
    /// Its print.
    pub(crate) print: Print,
}

/// All histories.
#[derive(Debug)]
pub(crate) struct Ledger {
    trace: Trace,
    places: BTreeMap<Hash32, Place>,
    /// Where the log ends, as far as it is whole.
    tip: Cursor,
    /// Whether the log has lost or changed what it acknowledged.
    damaged: bool,
    /// Whether the chunk store has lost or changed something.
    pub(crate) chunks_damaged: bool,
    /// The first version that the log keeps.
    pub(crate) first: Version,
    /// Where each write was carried out.
    tokens: BTreeMap<u64, BTreeSet<Hash32>>,
    /// Ids of the keys that control planes sign with.
    keys: BTreeSet<String>,
}

/// The ledger, shared.
#[derive(Clone, Debug)]
pub(crate) struct Truth(Arc<Mutex<Ledger>>);

impl Truth {
    /// Nothing has been written yet.
    pub(crate) fn new(trace: Trace, keys: BTreeSet<String>) -> Self {
        Self(Arc::new(Mutex::new(Ledger {
            trace,
            places: BTreeMap::new(),
            tip: Cursor::default(),
            damaged: false,
            chunks_damaged: false,
            first: Version::GENESIS,
            tokens: BTreeMap::new(),
            keys,
        })))
    }

    /// The ledger.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    /// The place with this chain.
    pub(crate) fn place(&self, chain: Chain) -> Option<&Place> {
        self.places.get(&chain.0)
    }

    /// Where the log ends.
    pub(crate) fn tip(&self) -> Cursor {
        self.tip
    }

    /// Whether the log has lost or changed what it acknowledged.
    pub(crate) fn damaged(&self) -> bool {
        // What has been trimmed off is only there as long as its snapshot is.
        self.damaged || (self.chunks_damaged && self.first > Version::GENESIS)
    }

    /// The log has lost or changed something: what is left of it ends at `tip`.
    pub(crate) fn damage(&mut self, tip: Cursor) {
        self.damaged = true;
        self.tip = tip;
    }

    /// Takes in what a control plane has appended, with its mutations in full.
    pub(crate) fn appended(&mut self, record: &Record, mutations: Option<Mutations>) {
        let Ok(event) = Event::decode(&record.event) else {
            return self
                .trace
                .broken("I2", "a control plane appended bytes that are no event");
        };
        let signed_by = record.signature.as_ref().map(|own| own.key.as_str());
        if !signed_by.is_some_and(|key| self.keys.contains(key)) {
            return self
                .trace
                .broken("I10", "a control plane appended an unsigned event");
        }
        if !self.follows(record, &event) {
            return;
        }
        let token = event.reason.as_deref().and_then(parse_token);
        self.count(token, &event);
        let event = Event {
            mutations: mutations.unwrap_or_else(|| event.mutations.clone()),
            ..event
        };
        let empty = State::default();
        let before = self.places.get(&event.previous_chain.0);
        let (state, print) = before.map_or((&empty, Print::default()), |place| {
            (&place.state, place.print)
        });
        match state.apply(&event, &record.event) {
            Ok((state, changes)) => {
                let print = changes.iter().fold(print, step);
                let (cursor, digest) = (state.cursor(), state.digest());
                let place = Place {
                    cursor,
                    state,
                    digest,
                    print,
                };
                self.tip = cursor;
                self.places.insert(cursor.chain.0, place);
            }
            Err(ApplyError::Diverged { version, .. }) => {
                self.trace.broken(
                    "I5",
                    format!("event {version} does not lead to the digest it names"),
                );
            }
            Err(error @ (ApplyError::OutOfOrder { .. } | ApplyError::Unresolved(_))) => {
                self.trace
                    .broken("I2", format!("appended event cannot be folded: {error}"));
            }
        }
    }

    /// Whether an event stands where it says; a log that was damaged may end where it does not.
    fn follows(&mut self, record: &Record, event: &Event) -> bool {
        let before = match self.damaged {
            false => self.tip,
            // The log may go on from any place by now.
            true => self
                .places
                .get(&event.previous_chain.0)
                .map_or_else(Cursor::default, |place| place.cursor),
        };
        let right = event.version() == record.version
            && event.previous_chain == before.chain
            && record.version == before.version.next()
            && (before.version == Version::ZERO || event.epoch == before.epoch);
        if !right {
            let (at, version) = (record.version, event.version());
            note!(
                self.trace,
                "the log has at {at} an event for {version} that does not follow"
            );
            if self.damaged {
                return false;
            }
            self.trace.broken(
                "I2",
                format!("the log has at {at} an event for {version} that does not follow"),
            );
        }
        right
    }

    /// Each write is carried out once.
    fn count(&mut self, token: Option<u64>, event: &Event) {
        let Some(token) = token else { return };
        let trimmed = self
            .version_of(token)
            .is_some_and(|version| version < self.first);
        let chains = self.tokens.entry(token).or_default();
        // Who repeats a write that has been trimmed off cannot be helped.
        if !chains.is_empty() && !self.damaged && !trimmed {
            self.trace.broken(
                "I4",
                format!(
                    "write {token} is in the log twice, again at {}",
                    event.version()
                ),
            );
        }
        // The chain after the event is known only below; the one before names it as well.
        chains.insert(event.previous_chain.0);
    }

    /// The version at which a write is in the log, if it is.
    pub(crate) fn version_of(&self, token: u64) -> Option<Version> {
        let before = self.tokens.get(&token)?.first()?;
        let version = self
            .places
            .get(before)
            .map_or(Version::ZERO, |place| place.cursor.version);
        Some(version.next())
    }

    /// Whether a write is in the log, and has not been trimmed off.
    pub(crate) fn keeps(&self, token: u64) -> bool {
        self.version_of(token)
            .is_some_and(|version| version >= self.first)
    }
}

fn step(print: Print, change: &Change) -> Print {
    print.step(&change.key, change.before.as_ref(), change.after.as_ref())
}

/// How a write is named in its event's reason.
pub(crate) fn write_token(token: u64) -> String {
    format!("write {token}")
}

fn parse_token(reason: &str) -> Option<u64> {
    reason.strip_prefix("write ")?.parse().ok()
}
