//! How long a change takes from stage to stage, counted for metrics.
//!
//! Every time is measured from when a control plane decided the change, by that one's clock: between machines it is as
//! exact as their clocks agree. Below zero counts as zero.

use crate::run::Arrival;
use sluice_schema::version::Time;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The upper bounds of the buckets, in microseconds, and as the text format writes them: in seconds.
const BUCKETS: [(u64, &str); 15] = [
    (1_000, "0.001"),
    (2_000, "0.002"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (20_000, "0.02"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (200_000, "0.2"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_000_000, "2"),
    (5_000_000, "5"),
    (10_000_000, "10"),
    (30_000_000, "30"),
    (60_000_000, "60"),
];
const STAGES: usize = 5;

/// How far a change has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// The log has acknowledged it to the control plane that appended it.
    Acknowledged,
    /// Its message came to a replica.
    Received,
    /// The replica's store has taken it in.
    Stored,
    /// Requests see it (a data plane), reads see it (a control plane).
    Active,
    /// The first request was served by it or by a later one.
    Served,
}

impl Stage {
    const ALL: [Self; STAGES] = [
        Self::Acknowledged,
        Self::Received,
        Self::Stored,
        Self::Active,
        Self::Served,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Acknowledged => "acknowledged",
            Self::Received => "received",
            Self::Stored => "stored",
            Self::Active => "active",
            Self::Served => "served",
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Histogram {
    /// Not cumulative.
    counts: [u64; BUCKETS.len()],
    count: u64,
    sum_us: u64,
}

#[derive(Debug, Default)]
struct Inner {
    stages: [Histogram; STAGES],
}

/// Counts changes by stage and time.
#[derive(Debug)]
pub struct Propagation {
    /// What was decided before is not counted: it did not come late, this process did.
    since: Time,
    inner: Mutex<Inner>,
}

impl Propagation {
    /// Nothing yet. What was decided before `since` is not counted.
    pub fn new(since: Time) -> Self {
        Self {
            since,
            inner: Mutex::default(),
        }
    }

    /// A change that was decided then has reached a stage now.
    pub fn observe(&self, stage: Stage, decided: Time, now: Time) {
        if decided >= self.since {
            self.lock().stages[stage as usize].observe(now.0.saturating_sub(decided.0));
        }
    }

    /// These have become active now, having been received and stored before.
    pub fn arrived(&self, events: &[Arrival], now: Time) {
        let mut inner = self.lock();
        for event in events.iter().filter(|event| event.decided >= self.since) {
            let times = [
                (Stage::Received, event.received),
                (Stage::Stored, event.stored),
                (Stage::Active, now),
            ];
            for (stage, at) in times {
                inner.stages[stage as usize].observe(at.0.saturating_sub(event.decided.0));
            }
        }
    }

    /// The histogram `name` in Prometheus' text format, with the label `stage`.
    pub fn write(&self, name: &str, text: &mut String) {
        let stages = self.lock().stages;
        let help = "Seconds from the decision of a change until it reached a stage";
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
        for stage in Stage::ALL {
            let (histogram, stage) = (&stages[stage as usize], stage.name());
            if histogram.count == 0 {
                continue;
            }
            let mut cumulative = 0;
            for ((_, bound), count) in BUCKETS.iter().zip(histogram.counts) {
                cumulative += count;
                let _ = writeln!(
                    text,
                    "{name}_bucket{{stage=\"{stage}\",le=\"{bound}\"}} {cumulative}"
                );
            }
            let (count, sum) = (histogram.count, histogram.sum_us);
            let (seconds, fraction) = (sum / 1_000_000, sum % 1_000_000);
            let _ = writeln!(
                text,
                "{name}_bucket{{stage=\"{stage}\",le=\"+Inf\"}} {count}"
            );
            let _ = writeln!(
                text,
                "{name}_sum{{stage=\"{stage}\"}} {seconds}.{fraction:06}"
            );
            let _ = writeln!(text, "{name}_count{{stage=\"{stage}\"}} {count}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Propagation {
    /// Counts everything.
    fn default() -> Self {
        Self::new(Time(0))
    }
}

impl Histogram {
    fn observe(&mut self, microseconds: u64) {
        self.count += 1;
        self.sum_us = self.sum_us.saturating_add(microseconds);
        let bucket = BUCKETS.iter().position(|(bound, _)| microseconds <= *bound);
        if let Some(bucket) = bucket {
            self.counts[bucket] += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_counted_by_stage_from_when_they_were_decided() {
        let propagation = Propagation::new(Time(1_000_000));
        propagation.observe(Stage::Active, Time(999_999), Time(2_000_000));
        propagation.observe(Stage::Active, Time(1_000_000), Time(1_003_000));
        propagation.observe(Stage::Active, Time(1_000_000), Time(91_000_000));
        // Another machine's clock.
        propagation.observe(Stage::Served, Time(1_500_000), Time(1_400_000));
        let mut text = String::new();
        propagation.write("x_seconds", &mut text);
        for line in [
            "x_seconds_bucket{stage=\"active\",le=\"0.002\"} 0",
            "x_seconds_bucket{stage=\"active\",le=\"0.005\"} 1",
            "x_seconds_bucket{stage=\"active\",le=\"+Inf\"} 2",
            "x_seconds_sum{stage=\"active\"} 90.003000",
            "x_seconds_count{stage=\"active\"} 2",
            "x_seconds_bucket{stage=\"served\",le=\"0.001\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
        assert!(!text.contains("received"));
    }
}
