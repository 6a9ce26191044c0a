//! What happened in a run: the last of it for the reader of a failure, all of it as one number for the test that a seed
//! replays exactly.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Lines kept for the reader.
const LINES_MAX: usize = 20_000;

/// A run's trace. Cheap to clone; the clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    lines: VecDeque<String>,
    hash: u64,
    step: usize,
    began: Option<tokio::time::Instant>,
    broken: Option<Broken>,
}

/// A promise that was not kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// The invariant of the design, as in `I5`.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
    /// The step in which it was seen.
    pub step: usize,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} broken at step {}: {}",
            self.invariant, self.step, self.what
        )
    }
}

impl Trace {
    /// Adds a line.
    pub(crate) fn note(&self, line: fmt::Arguments<'_>) {
        let now = tokio::time::Instant::now();
        let mut inner = self.lock();
        let began = *inner.began.get_or_insert(now);
        let line = format!(
            "{:>4} {:>8.3}s {line}",
            inner.step,
            now.duration_since(began).as_secs_f64()
        );
        inner.hash = line.bytes().fold(inner.hash, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        if inner.lines.len() == LINES_MAX {
            inner.lines.pop_front();
        }
        inner.lines.push_back(line);
    }

    /// Says in which step the run is.
    pub(crate) fn step(&self, step: usize) {
        self.lock().step = step;
    }

    /// Remembers the first promise that was not kept.
    pub(crate) fn broken(&self, invariant: &'static str, what: impl Into<String>) {
        let what = what.into();
        self.note(format_args!("!! {invariant}: {what}"));
        self.broken_outside(invariant, what);
    }

    /// The same where there is no clock any more.
    pub(crate) fn broken_outside(&self, invariant: &'static str, what: String) {
        let mut inner = self.lock();
        let step = inner.step;
        inner.broken.get_or_insert(Broken {
            invariant,
            what,
            step,
        });
    }

    /// The first promise that was not kept.
    pub(crate) fn first_broken(&self) -> Option<Broken> {
        self.lock().broken.clone()
    }

    /// A number that is different for every other course of events.
    pub(crate) fn hash(&self) -> u64 {
        self.lock().hash
    }

    /// The last lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lock().lines.iter().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds a line to a [`Trace`].
macro_rules! note {
    ($trace:expr, $($words:tt)*) => { $trace.note(format_args!($($words)*)) };
}
pub(crate) use note;
