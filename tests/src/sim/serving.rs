//! What a node serves: told of changes exactly as a data plane's table is, and checked at every one of them.

use super::trace::{Trace, note};
use super::truth::{Print, Truth};
use sluice_replica::run::{Arrival, Sink};
use sluice_schema::digest::Digest;
use sluice_schema::entity::{Change, Entry, Key};
use sluice_schema::state::State;
use sluice_schema::version::{Cursor, Epoch, Version};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A place in all lives of the log, ordered in time.
pub(crate) type Rank = (Epoch, Version);

/// The rank of a cursor.
pub(crate) fn rank(cursor: Cursor) -> Rank {
    (cursor.epoch, cursor.version)
}

/// What a node serves, and the checks of it. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Serving(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    name: String,
    trace: Trace,
    truth: Truth,
    cursor: Cursor,
    entities: BTreeMap<Key, Entry>,
    print: Print,
    /// Parts of a load, which nobody sees yet.
    staged: Vec<Change>,
    /// The highest rank ever served, unless the disk lost it.
    highest: Rank,
    /// The next start must find something: there is a last known good copy.
    expects: bool,
}

impl Serving {
    pub(crate) fn new(name: &str, trace: Trace, truth: Truth) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            name: name.to_owned(),
            trace,
            truth,
            cursor: Cursor::default(),
            entities: BTreeMap::new(),
            print: Print::default(),
            staged: Vec::new(),
            highest: Rank::default(),
            expects: false,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is served.
    pub(crate) fn cursor(&self) -> Cursor {
        self.lock().cursor
    }

    /// The disk has lost something: what is served after the next start may be as old as `floor`.
    pub(crate) fn forgive(&self, floor: Rank) {
        let mut inner = self.lock();
        inner.highest = inner.highest.min(floor);
    }

    /// Says whether the next start must find something to serve, whatever the disk has lost.
    pub(crate) fn expect_something(&self, expects: bool) {
        self.lock().expects = expects;
    }

    /// A process has started with this.
    pub(crate) fn start(
        &self,
        cursor: Cursor,
        digest: Digest,
        entities: impl Iterator<Item = (Key, Entry)>,
    ) {
        let mut inner = self.lock();
        inner.entities = entities.collect();
        inner.print = Print::of(inner.entities.iter());
        inner.cursor = cursor;
        if std::mem::take(&mut inner.expects) && cursor.version == Version::ZERO {
            let name = inner.name.clone();
            inner.trace.broken(
                "I9",
                format!("{name} has a last known good copy and serves nothing"),
            );
        }
        inner.check(digest, "after its start");
    }

    /// A control plane shows this state.
    pub(crate) fn shows(&self, state: &State) {
        let mut inner = self.lock();
        if inner.cursor != state.cursor() {
            inner.cursor = state.cursor();
            inner.print = Print::of(state.iter());
            inner.check(state.digest(), "in its view");
        }
    }
}

impl Inner {
    /// What is served is the fold of a history up to its cursor, and not older than what was served before.
    fn check(&mut self, digest: Digest, when: &str) {
        let Self {
            name,
            trace,
            truth,
            cursor,
            print,
            highest,
            ..
        } = self;
        let at = rank(*cursor);
        if at < *highest {
            trace.broken(
                "I6",
                format!(
                    "{name} goes back {when}: from {} to {}",
                    highest.1, cursor.version
                ),
            );
        }
        *highest = (*highest).max(at);
        if cursor.version == Version::ZERO {
            if *print != Print::default() {
                trace.broken(
                    "I7",
                    format!("{name} serves entities without a version {when}"),
                );
            }
            return;
        }
        let truth = truth.lock();
        let Some(place) = truth
            .place(cursor.chain)
            .filter(|place| place.cursor == *cursor)
        else {
            return trace.broken(
                "I10",
                format!(
                    "{name} serves version {} that no control plane wrote {when}",
                    cursor.version
                ),
            );
        };
        if place.print != *print {
            trace.broken(
                "I7",
                format!(
                    "{name} serves at version {} what is not the state there {when}",
                    cursor.version
                ),
            );
        }
        if place.digest != digest {
            trace.broken(
                "I5",
                format!(
                    "{name} claims another digest at version {} {when}",
                    cursor.version
                ),
            );
        }
    }
}

impl Sink for Serving {
    fn change(&mut self, cursor: Cursor, digest: Digest, changes: &[Change], events: &[Arrival]) {
        let mut inner = self.lock();
        note!(
            inner.trace,
            "{}: {} to {} by {} events",
            inner.name,
            inner.cursor.version,
            cursor.version,
            events.len()
        );
        for change in changes {
            let before = match &change.after {
                Some(entry) => inner.entities.insert(change.key.clone(), entry.clone()),
                None => inner.entities.remove(&change.key),
            };
            inner.print = inner
                .print
                .step(&change.key, before.as_ref(), change.after.as_ref());
        }
        inner.cursor = cursor;
        inner.check(digest, "after a change");
    }

    fn stage(&mut self, changes: &[Change]) {
        self.lock().staged.extend_from_slice(changes);
    }

    fn commit(&mut self, cursor: Cursor, digest: Digest) {
        let staged = std::mem::take(&mut self.lock().staged);
        {
            let inner = self.lock();
            note!(inner.trace, "{}: takes up a snapshot", inner.name);
        }
        self.change(cursor, digest, &staged, &[]);
    }

    fn abandon(&mut self) {
        self.lock().staged.clear();
    }

    fn reload(
        &mut self,
        cursor: Cursor,
        digest: Digest,
        entities: &mut dyn Iterator<Item = (Key, Entry)>,
    ) {
        {
            let inner = self.lock();
            note!(
                inner.trace,
                "{}: reloaded at {}",
                inner.name,
                cursor.version
            );
        }
        self.start(cursor, digest, entities);
    }
}
