//! Positions in the log: version, epoch, chain, and the cursor that joins them.

use crate::hash::Hash32;
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// An event's position in the log: the sequence number of its message, from 1. Zero means "nothing yet".
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// The version before the first event.
    pub const ZERO: Self = Self(0);
    /// The version of the genesis event.
    pub const GENESIS: Self = Self(1);

    /// The version after this one. The highest has none: it may come in a forged message, and must not panic.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One life of the log. A stream that is re-created or restored gets a new one.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub Uuid);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The hash chain value after an event: `BLAKE3(previous chain || event bytes)`. It covers everything before it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Chain(pub Hash32);

impl Chain {
    /// The chain before the genesis event.
    pub const ZERO: Self = Self(Hash32([0; 32]));

    /// The chain after an event whose encoded form is `event`.
    #[must_use]
    pub fn extend(self, event: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0.0);
        hasher.update(event);
        Self(Hash32(*hasher.finalize().as_bytes()))
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a replica has applied. Never a version alone: the same number can name different events in two lives
/// of a log, or in a log that was restored from an old copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// The log's life.
    pub epoch: Epoch,
    /// The last event applied.
    pub version: Version,
    /// The chain after that event.
    pub chain: Chain,
}

/// Microseconds since the Unix epoch. Taken from a clock outside this crate.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    /// Whole seconds since the Unix epoch, the form of Kong's `created_at`.
    pub fn seconds(self) -> u64 {
        self.0 / 1_000_000
    }
}
