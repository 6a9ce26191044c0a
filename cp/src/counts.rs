//! What a control plane counts of its own work, for metrics.

use sluice_replica::environment::Environment;
use sluice_replica::propagation::{Propagation, Stage};
use sluice_replica::run::Arrival;
use sluice_schema::version::Time;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start.
#[derive(Debug)]
pub struct Counts {
    environment: Environment,
    /// How long changes take to come back here.
    pub propagation: Propagation,
    /// Events appended by this control plane.
    pub appended: Count,
    /// Appends that lost a race against another control plane, and were decided again.
    pub conflicts: Count,
    /// Appends whose outcome was unknown at first.
    pub unknown: Count,
    /// Appends that the log refused.
    pub refused: Count,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// The number now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }
}

impl Counts {
    pub(crate) fn new(environment: Environment) -> Self {
        Self {
            propagation: Propagation::new(environment.now()),
            environment,
            appended: Count::default(),
            conflicts: Count::default(),
            unknown: Count::default(),
            refused: Count::default(),
        }
    }

    /// The log has acknowledged events that were decided then.
    pub(crate) fn acknowledged(&self, decided: impl ExactSizeIterator<Item = Time>) {
        self.appended.add(decided.len());
        let now = self.environment.now();
        decided.for_each(|decided| self.propagation.observe(Stage::Acknowledged, decided, now));
    }

    /// Events have come back, and reads see them.
    pub(crate) fn arrived(&self, events: &[Arrival]) {
        self.propagation.arrived(events, self.environment.now());
    }
}
