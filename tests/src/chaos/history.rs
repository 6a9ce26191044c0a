//! What was asked of the control planes, by whom and when, and what they answered.
//!
//! Every write carries a request id, which its event keeps: whatever became of it can be found in the log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// What a write was to do. Each write leaves content behind that no other write has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// Makes a service of this name whose only tag is the request id.
    Create(String),
    /// Makes the request id the only tag of a service.
    Update(String),
    /// Deletes a service. Nothing is deleted twice.
    Delete(String),
    /// Makes a counter one more than it was read to be, if it still is.
    Increment {
        /// The counter.
        name: String,
        /// What it was read to be.
        from: u64,
    },
}

impl What {
    /// The service it is about.
    pub fn name(&self) -> &str {
        match self {
            Self::Create(name)
            | Self::Update(name)
            | Self::Delete(name)
            | Self::Increment { name, .. } => name,
        }
    }
}

/// What the writer was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Done, at this version.
    Acknowledged(u64),
    /// Not done: the status and what it said. Refused by rule, or the log could not be written.
    Refused(u16, String),
    /// Perhaps done: no answer, or one that says so.
    Unknown(String),
}

/// One write. A write that was repeated with the same `Idempotency-Key` is one write, with the last answer.
#[derive(Clone, Debug)]
pub struct Write {
    /// Its request id.
    pub id: Uuid,
    /// What it was to do.
    pub what: What,
    /// The control plane that was asked last.
    pub control: usize,
    /// How often it was sent.
    pub attempts: u32,
    /// When it was sent first.
    pub asked: Instant,
    /// When the last answer came.
    pub answered: Instant,
    /// That answer.
    pub answer: Answer,
}

/// All writes of a run.
#[derive(Debug, Default)]
pub struct History(Mutex<Vec<Write>>);

/// How many writes were answered how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Acknowledged.
    pub acknowledged: usize,
    /// Refused.
    pub refused: usize,
    /// Unknown.
    pub unknown: usize,
}

impl History {
    /// Adds a write that has its answer.
    pub fn record(&self, write: Write) {
        self.lock().push(write);
    }

    /// All writes so far, in the order of their answers.
    pub fn writes(&self) -> Vec<Write> {
        self.lock().clone()
    }

    /// How they were answered so far.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for write in self.lock().iter() {
            match write.answer {
                Answer::Acknowledged(_) => counts.acknowledged += 1,
                Answer::Refused(..) => counts.refused += 1,
                Answer::Unknown(_) => counts.unknown += 1,
            }
        }
        counts
    }

    /// The longest time a write waited for an answer.
    pub fn longest_wait(&self) -> Duration {
        let writes = self.lock();
        let waits = writes.iter().map(|write| write.answered - write.asked);
        waits.max().unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Write>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
