//! Simulated runs: new seeds, seeds that have found something, planted bugs, and that a seed replays exactly.
//!
//! For long, and new seeds: `make soak SOAK=sim`. `SLUICE_TEST_SEED` is the first seed, `SLUICE_SIM_SEED` the one to replay,
//! `SLUICE_SIM_BUG` the only bug to hunt, `SLUICE_SIM_SEEDS` in how many seeds at most.

#![allow(
    clippy::print_stdout,
    reason = "seeds and figures are for whoever reads the test's output"
)]

#[cfg(debug_assertions)]
use sluice_replica::planted::Bug;
use sluice_tests::sim::soak::{self, Plan, paused_runtime as runtime};
use sluice_tests::sim::{self, saved};
#[cfg(debug_assertions)]
use std::sync::{Mutex, PoisonError};

const THREADS: usize = 2;
const SEEDS: u64 = 10_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Of the committed files: each commit tries seeds of its own, and whoever has the commit runs the same. Without git, of the time.
fn first_seed() -> u64 {
    let tree = std::process::Command::new("git")
        .args(["rev-parse", "HEAD^{tree}"])
        .output();
    let tree = tree.map_or_else(
        |_| String::new(),
        |tree| String::from_utf8_lossy(&tree.stdout).into_owned(),
    );
    tree.get(..12)
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .unwrap_or_else(soak::seed_of_now)
}

#[test]
fn seeds_keep_all_promises() {
    let base = number("SLUICE_TEST_SEED").unwrap_or_else(first_seed);
    println!("seeds {base} to {}", base + SEEDS - 1);
    let plan = Plan {
        base,
        seeds: SEEDS,
        threads: THREADS,
        failures_max: 1,
    };
    let summary = soak::soak(plan, runtime, |_| ());
    println!("{}", summary.describe());
    let failures = &summary.failures;
    assert!(failures.is_empty(), "{}", failures[0].report());
}

#[test]
fn replay() {
    if let Some(seed) = number("SLUICE_SIM_SEED") {
        let outcome = sim::run(seed, runtime);
        println!("{}", outcome.trace());
        assert!(outcome.broken.is_none(), "{}", outcome.report());
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..20 {
        let (first, second) = (sim::run(seed, runtime), sim::run(seed, runtime));
        assert_eq!(first.hash, second.hash, "seed {seed} ran differently");
    }
}

#[test]
fn saved_seeds_keep_all_promises() {
    for saved in saved::SEEDS {
        let outcome = sim::run(saved.seed, runtime);
        let found = saved.found;
        assert!(
            outcome.broken.is_none(),
            "it once found: {found}\n{}",
            outcome.report()
        );
    }
}

/// Seeds in which every planted bug must show.
#[cfg(debug_assertions)]
const SEEDS_PER_BUG_MAX: u64 = 1000;

/// Runs seeds until each bug shows, and gives back those that do not.
#[cfg(debug_assertions)]
fn hunt(bugs: Vec<Bug>, seeds_max: u64) -> Vec<Bug> {
    let bugs = Mutex::new(bugs);
    let missed = Mutex::new(Vec::new());
    let hunt = || {
        loop {
            let Some(bug) = bugs.lock().unwrap_or_else(PoisonError::into_inner).pop() else {
                return;
            };
            let caught = (0..seeds_max).find_map(|seed| {
                let broken = sim::run_with(seed, Some(bug), true, runtime).broken?;
                // What the bug did not bring about does not count.
                let clean = sim::run_with(seed, Some(bug), false, runtime);
                clean.broken.is_none().then_some((seed + 1, broken))
            });
            match caught {
                Some((seeds, broken)) => println!("{bug:?}: {seeds} seeds; {broken}"),
                None => missed
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(bug),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(hunt);
        }
    });
    missed.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(debug_assertions)]
#[test]
fn every_planted_bug_is_caught() {
    let only = std::env::var("SLUICE_SIM_BUG").ok();
    let seeds_max = number("SLUICE_SIM_SEEDS").unwrap_or(SEEDS_PER_BUG_MAX);
    let wanted = |bug: &&Bug| only.as_ref().is_none_or(|only| *only == format!("{bug:?}"));
    let missed = hunt(Bug::ALL.iter().filter(wanted).copied().collect(), seeds_max);
    assert!(
        missed.is_empty(),
        "not caught in {seeds_max} seeds: {missed:?}"
    );
}
