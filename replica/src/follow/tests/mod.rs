//! One table per row of the design's section 6: inputs in, actions out.

mod model;
mod rows;

use super::*;
use crate::keys::SigningKey;
use sluice_schema::event::{Actor, EventId};
use sluice_schema::version::{Epoch, Time};
use uuid::Uuid;

/// A signed log of any length, to take records and cursors from.
struct History {
    records: Vec<Record>,
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
            records: Vec::new(),
            cursors: vec![Cursor::default()],
        };
        for _ in 0..length {
            let (record, cursor) = sealed(&event_after(history.end(), epoch, mark), &key());
            history.records.push(record);
            history.cursors.push(cursor);
        }
        history
    }

    /// The same up to `version`, then `length` other events.
    fn branch(&self, version: u64, length: u64) -> Self {
        let kept = usize::try_from(version).unwrap();
        let mut branch = Self {
            records: self.records[..kept].to_vec(),
            cursors: self.cursors[..=kept].to_vec(),
        };
        for _ in 0..length {
            let (record, cursor) = sealed(&event_after(branch.end(), epoch(1), 7), &key());
            branch.records.push(record);
            branch.cursors.push(cursor);
        }
        branch
    }

    fn at(&self, version: u64) -> Cursor {
        self.cursors[usize::try_from(version).unwrap()]
    }

    fn end(&self) -> Cursor {
        *self.cursors.last().unwrap()
    }

    fn record(&self, version: u64) -> Record {
        self.records[usize::try_from(version).unwrap() - 1].clone()
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

    fn head(&self, version: u64) -> Head {
        let Cursor {
            epoch,
            version,
            chain,
        } = self.at(version);
        let (first, time, announcer) = (Version::GENESIS, Time(1), Uuid::nil());
        Head {
            epoch,
            version,
            chain,
            first,
            time,
            announcer,
            sync: SyncMode::Incremental,
        }
    }
}

fn page_of(from: u64, records: Vec<Record>) -> Input {
    Input::Page {
        from: Version(from),
        page: Page {
            records,
            more: false,
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
        Action::Rebuild => "rebuild".into(),
        Action::Alarm(Alarm::Fork(fork)) => format!("fork: {fork}"),
        Action::Alarm(Alarm::BadTail { version, reason }) => {
            format!("bad tail {version}: {reason}")
        }
        Action::Alarm(Alarm::Diverged(version)) => format!("diverged {version}"),
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

    fn check(&mut self, input: Input, expected: &[&str]) -> &mut Self {
        let shown = format!("{input:?}");
        let found: Vec<String> = self.follow.step(input).iter().map(told).collect();
        assert_eq!(found, expected, "after {shown:.200}");
        self
    }

    #[track_caller]
    fn ends(&self, version: u64, phase: &str) {
        assert_eq!(self.follow.cursor().version, Version(version));
        assert_eq!(self.follow.phase().to_string(), phase);
    }
}
