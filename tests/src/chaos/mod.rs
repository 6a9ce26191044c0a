//! Chaos: real processes to which everything happens, and the proof that nothing is lost.
//!
//! `rig` holds the processes and the wires between them, `nemesis` what happens to them, `writer` the clients and
//! `history` what they were told, `check` what must be true in the end, `waiter` those who wait for data planes, and `storm` one run of all of it. `damage`
//! and `wreck` are about files that are not what was written, `mount` and
//! `disk` about disks that are full or lose power.

pub mod check;
pub mod damage;
pub mod disk;
pub mod fault;
pub mod history;
pub mod mount;
pub mod nemesis;
pub mod rig;
pub mod storm;
pub mod waiter;
pub mod wreck;
pub mod writer;

/// Sets the seed of a run that failed.
const SEED_VARIABLE: &str = "SLUICE_TEST_SEED";

/// The seed that all choices of a run are drawn from: given by the environment, or a new one. Printed.
pub fn seed(name: &str) -> u64 {
    let given = std::env::var(SEED_VARIABLE).ok();
    let seed = given.and_then(|text| text.trim().parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    eprintln!("{name}: {SEED_VARIABLE}={seed}");
    seed
}
