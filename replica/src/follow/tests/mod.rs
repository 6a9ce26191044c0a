//! One table per row of the design's section 6: inputs in, actions out.

mod forks;
mod model;
mod repairs;
mod rows;

use super::reading::DOUBTS_MAX;
use super::*;
use crate::keys::SigningKey;
use crate::node::SnapshotReference;
use sluice_schema::digest::Accumulator;
use sluice_schema::event::{Actor, EventId};
use sluice_schema::version::{Chain, Epoch, Time};
use uuid::Uuid;

/// A signed log of any length, to take records and cursors from.
#[derive(Clone)]
struct History {
    /// The version of the first record.
    first: u64,
    records: Vec<Record>,
    /// Before the first record, and after each.
    cursors: Vec<Cursor>,
}

fn key() -> SigningKey {
    SigningKey::from_seed([1; 32])
}

fn epoch(number: u128) -> Epoch {
    Epoch(Uuid::from_u128(number))
}

/// An event after `at`, told apart from its twins by `mark`.
fn event_after(at: Cursor, epoch: Epoch, mark: u128) -> Event {
    let id = EventId(Uuid::from_u128(mark << 64 | u128::from(at.version.0)));
    Event {
        previous: at.version,
        previous_chain: at.chain,
        ..Event::genesis(epoch, id, Time(1), Actor::default())
    }
}

fn sealed(event: &Event, key: &SigningKey) -> (Record, Cursor) {
    let bytes = event.encode().bytes;
    let cursor = event.cursor(&bytes);
    let signature = Some(key.sign_event(cursor.chain));
    (
        Record {
            version: cursor.version,
            event: bytes.into(),
            signature,
        },
        cursor,
    )
}

impl History {
    /// `length` events of epoch 1.
    fn new(length: u64) -> Self {
        Self::of(epoch(1), 0, length)
    }

    fn of(epoch: Epoch, mark: u128, length: u64) -> Self {
        let mut history = Self {
            first: 1,
            records: Vec::new(),
            cursors: vec![Cursor::default()],
        };
        history.grow(epoch, mark, length);
        history
    }

    /// A later life, whose founding event has version `first`.
    fn founded(epoch: Epoch, first: u64, length: u64) -> Self {
        let before = Cursor {
            epoch,
            version: Version(first - 1),
            chain: Chain::ZERO,
        };
        let mut history = Self {
            first,
            records: Vec::new(),
            cursors: vec![before],
        };
        history.grow(epoch, 0, length);
        history
    }

    fn grow(&mut self, epoch: Epoch, mark: u128, length: u64) {
        for _ in 0..length {
            let (record, cursor) = sealed(&event_after(self.end(), epoch, mark), &key());
            self.records.push(record);
            self.cursors.push(cursor);
        }
    }

    /// The same up to `version`, then `length` other events.
    fn branch(&self, version: u64, length: u64) -> Self {
        let kept = usize::try_from(version).unwrap();
        let mut branch = Self {
            first: 1,
            records: self.records[..kept].to_vec(),
            cursors: self.cursors[..=kept].to_vec(),
        };
        branch.grow(self.end().epoch, 7, length);
        branch
    }

    fn at(&self, version: u64) -> Cursor {
        self.cursors[usize::try_from(version + 1 - self.first).unwrap()]
    }

    fn end(&self) -> Cursor {
        *self.cursors.last().unwrap()
    }

    fn record(&self, version: u64) -> Record {
        self.records[usize::try_from(version - self.first).unwrap()].clone()
    }

    fn tail(&self, version: u64) -> Input {
        Input::Tail(self.record(version))
    }

    /// The answer to a read at `from` that ends with `last`.
    fn page(&self, from: u64, last: u64) -> Input {
        page_of(
            from,
            (from..=last).map(|version| self.record(version)).collect(),
        )
    }

    /// The answer to a read at `from` of which the log has lost all before `first`.
    fn page_without(&self, from: u64, first: u64, last: u64) -> Input {
        page_of(
            from,
            (first..=last).map(|version| self.record(version)).collect(),
        )
    }

    fn head(&self, version: u64) -> Head {
        head(self.at(version), 1, None)
    }

    /// The answer to a read at `from` of a log that was trimmed before `first`.
    fn page_trimmed(&self, from: u64, first: u64, last: u64) -> Input {
        let Input::Page { from, mut page } = self.page_without(from, first, last) else {
            unreachable!("it is a page");
        };
        page.first = Some(Version(first));
        Input::Page { from, page }
    }

    /// A snapshot at a version.
    fn root(&self, version: u64) -> Root {
        root(self.at(version))
    }
}

fn head(at: Cursor, first: u64, snapshot: Option<SnapshotReference>) -> Head {
    Head {
        epoch: at.epoch,
        version: at.version,
        chain: at.chain,
        first: Version(first),
        time: Time(1),
        announcer: Uuid::nil(),
        sync: SyncMode::Incremental,
        snapshot,
        ring: 0,
        asks: Version::ZERO,
    }
}

/// A cursor of epoch 1 that no record leads to.
fn far(version: u64) -> Cursor {
    Cursor {
        epoch: epoch(1),
        version: Version(version),
        chain: Chain::ZERO.extend(b"far"),
    }
}

/// A small snapshot, without a charter.
fn root(cursor: Cursor) -> Root {
    Root {
        cursor,
        digest: Accumulator::default().digest(),
        entities: 0,
        bytes: 0,
        tree: None,
        height: 0,
        time: Time(1),
        announcer: Uuid::nil(),
        charter: None,
        chartered: false,
    }
}

fn chartered(cursor: Cursor) -> Root {
    Root {
        chartered: true,
        ..root(cursor)
    }
}

fn roots(roots: &[Root]) -> Input {
    Input::Snapshots(roots.to_vec())
}

fn page_of(from: u64, records: Vec<Record>) -> Input {
    Input::Page {
        from: Version(from),
        page: Page {
            records,
            more: false,
            first: None,
        },
    }
}

fn unsigned(record: Record) -> Record {
    Record {
        signature: None,
        ..record
    }
}

fn signed_by_another(record: Record) -> Record {
    let event = Event::decode(&record.event).unwrap();
    sealed(&event, &SigningKey::from_seed([2; 32])).0
}

/// One bit of the reason, time or id is another; it is still an event.
fn edited(record: Record) -> Record {
    let mut event = Event::decode(&record.event).unwrap();
    event.time = Time(2);
    Record {
        event: event.encode().bytes.into(),
        ..record
    }
}

fn damaged(record: Record) -> Record {
    Record {
        event: record.event.slice(..record.event.len() - 1),
        ..record
    }
}

/// What an action is, in one line.
fn told(action: &Action) -> String {
    match action {
        Action::Read(from) => format!("read {from}"),
        Action::Apply(events) => {
            let versions: Vec<String> = events
                .iter()
                .map(|verified| verified.cursor.version.to_string())
                .collect();
            format!("apply {}", versions.join(" "))
        }
        Action::FindSnapshot => "find".into(),
        Action::Load(root) => format!("load {}", root.cursor.version),
        Action::Refold => "refold".into(),
        Action::Alarm(Alarm::Fork(fork)) => format!("fork: {fork}"),
        Action::Alarm(Alarm::BadTail { version, reason }) => {
            format!("bad tail {version}: {reason}")
        }
        Action::Alarm(Alarm::Diverged(version)) => format!("diverged {version}"),
        Action::Alarm(Alarm::NewEpoch(cursor)) => format!("new epoch at {}", cursor.version),
    }
}

/// A replica that has applied the history up to a version.
struct Replica {
    follow: Follow,
}

impl Replica {
    fn at(cursor: Cursor) -> Self {
        Self {
            follow: Follow::new(cursor, key().trusted(), SyncMode::Incremental),
        }
    }

    /// Connected, and seen by the log to be at its end.
    fn following(history: &History, version: u64) -> Self {
        let mut replica = Self::at(history.at(version));
        replica.check(Input::Connected, &[&format!("read {version}")]);
        replica.check(history.page(version, version), &[]);
        replica
    }

    #[track_caller]
    fn check(&mut self, input: Input, expected: &[&str]) -> &mut Self {
        let shown = format!("{input:?}");
        let found: Vec<String> = self.follow.step(input).iter().map(told).collect();
        assert_eq!(found, expected, "after {shown:.200}");
        self
    }

    /// The log shows the same trouble, and each tick reads again, until it is believed.
    #[track_caller]
    fn doubts(&mut self, trouble: &Input, again: &str, believed: &[&str]) -> &mut Self {
        self.doubts_further(1, trouble, again, believed)
    }

    /// Likewise, after `shown` - 1 times.
    #[track_caller]
    fn doubts_further(
        &mut self,
        shown: u32,
        trouble: &Input,
        again: &str,
        believed: &[&str],
    ) -> &mut Self {
        for _ in shown..DOUBTS_MAX {
            self.check(trouble.clone(), &[])
                .check(Input::Tick, &[again]);
        }
        self.check(trouble.clone(), believed)
    }

    /// Nothing happens until the next look at a fork, which is this action.
    #[track_caller]
    fn looks(&mut self, action: &str) -> &mut Self {
        for _ in 1..LOOK_AGAIN_TICKS {
            self.check(Input::Tick, &[]);
        }
        self.check(Input::Tick, &[action])
    }

    #[track_caller]
    fn ends(&self, version: u64, phase: &str) {
        assert_eq!(self.follow.cursor().version, Version(version));
        assert_eq!(self.follow.phase().to_string(), phase);
    }
}
