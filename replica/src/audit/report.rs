//! What an audit has found.

use sluice_schema::digest::Digest;
use sluice_schema::state::State;
use sluice_schema::version::{Cursor, Epoch, Version};
use std::collections::BTreeMap;
use std::fmt;

/// What an audit has found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Records read.
    pub records: u64,
    /// The lives of the log, in order. None if there are no records.
    pub lives: Vec<Life>,
    /// The snapshots that trusted keys have signed, in order.
    pub snapshots: Vec<Checked>,
    /// Snapshots that no trusted key has signed, by name, and why they are not believed. Nobody takes them up.
    pub ignored: Vec<(String, String)>,
    /// The state at the end; of the newest snapshot, if there are no records.
    pub state: Option<State>,
}

/// A life of the log.
#[derive(Clone, Debug)]
pub struct Life {
    /// Its name.
    pub epoch: Epoch,
    /// Its first record here.
    pub first: Version,
    /// Its last.
    pub last: Version,
    /// Whether a snapshot of it has a valid charter.
    pub chartered: bool,
    /// The version from which on the state was folded and compared; `None` if there was nothing to begin with.
    pub folded_from: Option<Version>,
    /// Records without a signature that is believed, but covered by a later one that is; counted by what is wrong.
    pub covered: BTreeMap<Doubt, u64>,
    /// The first thing that is wrong.
    pub fault: Option<Fault>,
}

/// A snapshot and what came of looking at it.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Its name.
    pub name: String,
    /// What it is of.
    pub cursor: Cursor,
    /// How many entities it has.
    pub entities: u64,
    /// Whether it was compared with the state folded from the log.
    pub compared: bool,
    /// What is wrong with it.
    pub fault: Option<Wrong>,
}

/// The first thing that is wrong, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The version.
    pub version: Version,
    /// What is wrong.
    pub wrong: Wrong,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "version {}: {}", self.version, self.wrong)
    }
}

/// What can be wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Wrong {
    /// A hole.
    #[error("the log has lost it")]
    Lost,
    /// Damage.
    #[error("it is not a readable event: {0}")]
    Unreadable(String),
    /// Not where it belongs.
    #[error("its event was written for version {0}")]
    Misplaced(Version),
    /// Another life without a beginning.
    #[error("its event is of epoch {0}, which is not that of the events before it")]
    Epoch(Epoch),
    /// Another history.
    #[error("it does not follow the event before it: their chains differ")]
    Chain,
    /// Nobody who is believed has signed it or anything after it.
    #[error("{0}, and no later signature covers it")]
    Uncovered(Doubt),
    /// Its large transaction is not whole.
    #[error("its mutations cannot be had: {0}")]
    Mutations(String),
    /// It leads to another state than its author saw.
    #[error("the state after it has digest {found}, the event says {expected}")]
    Digest {
        /// What the event says.
        expected: Digest,
        /// What was folded.
        found: Digest,
    },
    /// A life without a charter.
    #[error("it begins epoch {0}, for which there is no snapshot with a valid charter")]
    Charter(Epoch),
    /// Nothing to begin with.
    #[error("what came before it is gone, and no snapshot stands for it")]
    Baseless,
    /// A snapshot that is not of the log's state.
    #[error("the snapshot is not of this log: the log holds another event there")]
    Foreign,
    /// A snapshot of something else.
    #[error("the snapshot has digest {found}, the state folded from the log {expected}")]
    Other {
        /// What was folded.
        expected: Digest,
        /// What the snapshot says.
        found: Digest,
    },
    /// A snapshot that cannot be loaded.
    #[error("the snapshot cannot be loaded: {0}")]
    Snapshot(String),
}

/// Why a record's own signature is not believed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Doubt {
    /// It has none.
    Unsigned,
    /// It names a key that nobody here knows.
    Unknown(String),
    /// It names a key that is revoked.
    Revoked(String),
    /// It names a trusted key that has not signed this.
    Forged(String),
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned => f.write_str("it has no signature"),
            Self::Unknown(key) => write!(f, "it is signed by key {key}, which is not known"),
            Self::Revoked(key) => write!(f, "it is signed by key {key}, which is revoked"),
            Self::Forged(key) => {
                write!(f, "its signature is not that of key {key}, which it names")
            }
        }
    }
}

impl Report {
    /// The life that goes on.
    pub fn current(&self) -> Option<&Life> {
        self.lives.last()
    }

    /// The first thing that is wrong with the current life or its snapshots.
    pub fn fault(&self) -> Option<Fault> {
        let life = self.current();
        let epoch = life.map(|life| life.epoch);
        let of_life =
            |snapshot: &&Checked| epoch.is_none_or(|epoch| snapshot.cursor.epoch == epoch);
        let snapshots = self.snapshots.iter().filter(of_life);
        let faults = snapshots.filter_map(|snapshot| {
            let (version, wrong) = (snapshot.cursor.version, snapshot.fault.clone()?);
            Some(Fault { version, wrong })
        });
        let own = life.and_then(|life| life.fault.clone());
        own.into_iter()
            .chain(faults)
            .min_by_key(|fault| fault.version)
    }

    /// What was wrong with lives that have been replaced.
    pub fn replaced(&self) -> impl Iterator<Item = (&Life, &Fault)> {
        let before = self.lives.len().saturating_sub(1);
        self.lives[..before]
            .iter()
            .filter_map(|life| Some((life, life.fault.as_ref()?)))
    }
}
