//! What stops a replica, or worries it.

use sluice_schema::version::{Cursor, Version};
use std::fmt;

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
    /// The state here is not the author's. It is repaired from a snapshot or from the log.
    Diverged(Version),
    /// A later life of the log, with a valid charter, is taken up.
    NewEpoch(Cursor),
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
    /// The log begins with a state that only a snapshot has, and there is no such snapshot yet.
    Founded {
        /// The version it begins with.
        version: Version,
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

impl Fork {
    /// Whether it is another history than ours, and not only a part of ours that cannot be had or used.
    pub(super) fn contradicts(&self) -> bool {
        self.gravity() > 0
    }

    /// What is graver stands when the log then shows something else.
    pub(super) fn gravity(&self) -> u8 {
        match self {
            Self::Epoch { .. } | Self::Chain { .. } => 2,
            // A copy that lags shows the same.
            Self::Behind { .. } => 1,
            Self::Hole { .. }
            | Self::Founded { .. }
            | Self::Untrusted { .. }
            | Self::Diverged { .. } => 0,
        }
    }
}

impl fmt::Display for Fork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epoch { version } => {
                write!(f, "the log is in another epoch at version {version}")
            }
            Self::Chain { version } => {
                write!(f, "the log has another history at version {version}")
            }
            Self::Behind { applied } => {
                write!(
                    f,
                    "the log ends before version {applied}, which was applied here"
                )
            }
            Self::Hole { missing } => write!(f, "the log has lost version {missing}"),
            Self::Founded { version } => {
                write!(
                    f,
                    "the log begins at version {version} with the state of a snapshot that is not there"
                )
            }
            Self::Untrusted { version, reason } => {
                write!(
                    f,
                    "version {version} in the log is not to be trusted: {reason}"
                )
            }
            Self::Diverged { version } => {
                write!(
                    f,
                    "the state at version {version} differs from its author's"
                )
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
