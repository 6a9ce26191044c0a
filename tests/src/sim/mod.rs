//! The deterministic simulator: the real code runs, the world around it is simulated.
//!
//! A seed makes one run, on one thread, with a clock that moves only when everybody waits. Control planes and data planes
//! are made of the real parts; the broker, the network and the disks are models with every fault we know of. After each
//! step the invariants of the design are checked. The same seed gives the same run, to the last message.

mod broker;
mod clients;
mod dice;
mod disk;
mod network;
mod node;
pub mod saved;
mod schedule;
mod serving;
pub mod soak;
mod trace;
mod truth;
mod world;

pub use trace::Broken;

use sluice_replica::planted::Bug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::runtime::Runtime;
use trace::Trace;
use world::World;

/// Lines of the trace that a failure shows.
const LINES_SHOWN: usize = 60;

/// How a run went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// The first promise that was not kept.
    pub broken: Option<Broken>,
    /// Different for every other course of events.
    pub hash: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    lines: Vec<String>,
}

impl Outcome {
    /// What a reader needs to understand a failure.
    pub fn report(&self) -> String {
        let broken = self
            .broken
            .as_ref()
            .map_or("all promises kept".to_owned(), ToString::to_string);
        let from = self.lines.len().saturating_sub(LINES_SHOWN);
        let again = format!(
            "SLUICE_SIM_SEED={} cargo test -p sluice-tests --test simulation replay -- --nocapture",
            self.seed
        );
        format!(
            "{}\nseed {}: {broken}\nagain: {again}",
            self.lines[from..].join("\n"),
            self.seed
        )
    }

    /// The whole trace, as far as it is kept.
    pub fn trace(&self) -> String {
        self.lines.join("\n")
    }
}

/// Runs a seed on a runtime of its own, made by `runtime`: single-threaded, with a paused clock.
pub fn run(seed: u64, runtime: fn() -> Runtime) -> Outcome {
    run_with(seed, None, false, runtime)
}

/// The same with more of the faults that show a bug, and with that bug `planted` or not. Without debug assertions there is
/// none.
pub fn run_with(seed: u64, bug: Option<Bug>, planted: bool, runtime: fn() -> Runtime) -> Outcome {
    plant(bug.filter(|_| planted));
    let outcome = run_here(seed, bug, runtime);
    plant(None);
    outcome
}

#[cfg(debug_assertions)]
fn plant(bug: Option<Bug>) {
    sluice_replica::planted::plant(bug);
}

#[cfg(not(debug_assertions))]
fn plant(_: Option<Bug>) {}

fn run_here(seed: u64, focus: Option<Bug>, runtime: fn() -> Runtime) -> Outcome {
    let trace = Trace::default();
    let kept = trace.clone();
    let ran = catch_unwind(AssertUnwindSafe(|| {
        runtime().block_on(async {
            let mut world = World::new(seed, focus, &trace);
            world.run().await;
            world.clients.acknowledged()
        })
    }));
    if let Err(panic) = &ran {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        kept.broken_outside("I12", format!("panic: {}", text.unwrap_or_default()));
    }
    Outcome {
        seed,
        broken: kept.first_broken(),
        hash: kept.hash(),
        acknowledged: ran.unwrap_or(0),
        lines: kept.lines(),
    }
}
