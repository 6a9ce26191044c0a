//! Many seeds on several threads.

use super::{Outcome, run};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::{Builder, Runtime};

/// Failures that are kept whole.
const FAILURES_KEPT: usize = 20;

/// Which seeds to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The first.
    pub base: u64,
    /// How many.
    pub seeds: u64,
    /// On how many threads.
    pub threads: usize,
    /// Failures after which no new seed is begun.
    pub failures_max: usize,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Summary {
    /// Seeds run.
    pub seeds: u64,
    /// Writes acknowledged in them.
    pub acknowledged: u64,
    /// How long it took.
    pub took: Duration,
    /// The first runs that failed.
    pub failures: Vec<Outcome>,
    /// How many failed, by invariant.
    pub broken: BTreeMap<&'static str, u64>,
}

impl Summary {
    /// For people.
    pub fn describe(&self) -> String {
        let Self {
            seeds,
            acknowledged,
            took,
            failures,
            broken,
        } = self;
        let failed: Vec<u64> = failures.iter().map(|failure| failure.seed).collect();
        format!(
            "{seeds} seeds, {acknowledged} writes acknowledged, {took:?}, broken: {broken:?} {failed:?}"
        )
    }
}

/// The time in milliseconds: a first seed that nobody has run before.
pub fn seed_of_now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or_default()
    })
}

/// Single-threaded, with a clock that moves when everybody waits.
///
/// # Panics
/// Never: a runtime without IO can always be made.
pub fn paused_runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without IO can always be made")
}

/// Runs seeds. `progress` is called after each with how many are done.
pub fn soak(plan: Plan, runtime: fn() -> Runtime, progress: impl Fn(u64) + Sync) -> Summary {
    let (next, began) = (AtomicU64::new(0), Instant::now());
    let summary = Mutex::new(Summary::default());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let failed = lock(&summary).failures.len();
            if seed >= plan.seeds || failed >= plan.failures_max {
                return;
            }
            let outcome = run(plan.base + seed, runtime);
            let mut summary = lock(&summary);
            summary.seeds += 1;
            summary.acknowledged += outcome.acknowledged;
            progress(summary.seeds);
            if let Some(broken) = &outcome.broken {
                *summary.broken.entry(broken.invariant).or_default() += 1;
                if summary.failures.len() < FAILURES_KEPT {
                    summary.failures.push(outcome);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..plan.threads {
            scope.spawn(work);
        }
    });
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.took = began.elapsed();
    summary
}

fn lock(summary: &Mutex<Summary>) -> std::sync::MutexGuard<'_, Summary> {
    summary.lock().unwrap_or_else(PoisonError::into_inner)
}
