//! `make soak`: what the tests do, for as long as you like.

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use sluice_tests::chaos::disk;
use sluice_tests::chaos::mount::Mount;
use sluice_tests::chaos::rig::{Rig, Shape};
use sluice_tests::chaos::storm::{self, Plan};
use sluice_tests::chaos::wreck::{Tally, Wreck};
use sluice_tests::sim::soak;
use std::time::{Duration, Instant};

/// Seeds between two lines of progress.
const SEEDS_TOLD: u64 = 1_000;
/// Room of the disks that are filled.
const DISK_BYTES: u64 = 24 << 20;
/// Longer than a client takes to notice that nobody answers.
const LASTING_MAX: Duration = Duration::from_secs(14);
/// What one round of the chaos does at most; the numbers asked for are spread over rounds with seeds of their own.
const ROUND_KILLS: u32 = 200;
const ROUND_FAULTS: u32 = 40;
const ROUND_STORES: u32 = 400;
const ROUND_POWER: u32 = 4;
/// Of this many damages, one is to a real program's store, and one to the broker's.
const PROCESSES_EACH: u32 = 20;

/// Long runs of the whole-system tests. Build the programs first: cargo build --workspace --bins
#[derive(Debug, Parser)]
#[command(name = "soak")]
struct Arguments {
    #[command(subcommand)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Run {
    /// Kills, partitions, freezes, damaged files, full disks and power loss over real processes
    Chaos(Chaos),
    /// New seeds of the simulator
    Sim(Sim),
}

#[derive(Clone, Copy, Debug, Args)]
struct Sim {
    /// How many seeds
    #[arg(long, default_value_t = 1_000_000)]
    seeds: u64,
    /// The first [default: the time in milliseconds]
    #[arg(long)]
    first: Option<u64>,
    /// Failures after which no new seed is begun
    #[arg(long, default_value_t = 10)]
    failures: usize,
    /// Threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

#[derive(Clone, Copy, Debug, Args)]
struct Chaos {
    /// Kills of brokers, control planes and data planes
    #[arg(long, default_value_t = 2000)]
    kills: u32,
    /// Freezes, partitions and bad wires
    #[arg(long, default_value_t = 300)]
    faults: u32,
    /// Kills and freezes in a cluster of three brokers
    #[arg(long, default_value_t = 60)]
    brokers: u32,
    /// Damages to stored bytes
    #[arg(long, default_value_t = 10_000)]
    damages: u32,
    /// Power losses, of the broker and of a data plane each
    #[arg(long, default_value_t = 20)]
    power: u32,
    /// What all choices are drawn from [default: a new one, printed]
    #[arg(long)]
    seed: Option<u64>,
    /// No round begins after this many minutes [default: no limit]
    #[arg(long)]
    minutes: Option<u64>,
}

fn main() -> Result<()> {
    match Arguments::parse().run {
        Run::Chaos(chaos) => chaos.run(),
        Run::Sim(sim) => sim.run(),
    }
}

impl Sim {
    fn run(self) -> Result<()> {
        let plan = soak::Plan {
            base: self.first.unwrap_or_else(soak::seed_of_now),
            seeds: self.seeds,
            threads: self.threads,
            failures_max: self.failures,
        };
        eprintln!("soak sim --first {} --seeds {}", plan.base, plan.seeds);
        let summary = soak::soak(plan, soak::paused_runtime, |done| {
            if done % SEEDS_TOLD == 0 {
                eprintln!("{done} seeds");
            }
        });
        for failure in &summary.failures {
            eprintln!("{}", failure.report());
        }
        eprintln!("{}", summary.describe());
        ensure!(summary.failures.is_empty(), "promises were broken");
        Ok(())
    }
}

impl Chaos {
    fn run(self) -> Result<()> {
        let seed = self.seed.unwrap_or_else(rand::random);
        eprintln!("soak chaos --seed {seed}");
        let end = self
            .minutes
            .map(|minutes| Instant::now() + Duration::from_secs(minutes * 60));
        self.rounds(seed, end)
            .with_context(|| format!("soak chaos --seed {seed}"))?;
        eprintln!("soak chaos --seed {seed}: all is as it must be");
        Ok(())
    }

    fn rounds(self, seed: u64, end: Option<Instant>) -> Result<()> {
        let mut left = self;
        let mut tally = Tally::new();
        for round in 0_u64.. {
            let late = end.is_some_and(|end| Instant::now() >= end);
            let done = left.kills + left.faults + left.brokers + left.damages + left.power == 0;
            if late || done {
                break;
            }
            let seed = seed.wrapping_add(round);
            eprintln!("--- round {round}, left: {left:?}");
            storm_round(&mut left, seed, end)?;
            damage_round(&mut left, seed, &mut tally)?;
            disk_round(&mut left, seed, round)?;
        }
        eprintln!("damages: {tally:#?}");
        Ok(())
    }
}

/// As much as a round does of what is left.
fn take(left: &mut u32, most: u32) -> u32 {
    let some = most.min(*left);
    *left -= some;
    some
}

fn storm_round(left: &mut Chaos, seed: u64, end: Option<Instant>) -> Result<()> {
    let kills = take(&mut left.kills, ROUND_KILLS);
    let faults = take(&mut left.faults, ROUND_FAULTS);
    if kills + faults > 0 {
        let plan = Plan {
            kills,
            faults,
            lasting: (Duration::from_millis(300), LASTING_MAX),
            deadline: end,
            ..Plan::new(seed)
        };
        let outcome = storm::run(&mut Rig::start(&Shape::new(2, 2))?, &plan)?;
        eprintln!("one broker:\n{}", outcome.describe());
    }
    let brokers = take(&mut left.brokers, ROUND_FAULTS);
    if brokers > 0 {
        let plan = Plan {
            brokers,
            lasting: (Duration::from_millis(300), LASTING_MAX),
            deadline: end,
            ..Plan::new(seed)
        };
        let shape = Shape {
            brokers: 3,
            ..Shape::new(2, 1)
        };
        let outcome = storm::run(&mut Rig::start(&shape)?, &plan)?;
        eprintln!("three brokers:\n{}", outcome.describe());
    }
    Ok(())
}

fn damage_round(left: &mut Chaos, seed: u64, tally: &mut Tally) -> Result<()> {
    let damages = take(&mut left.damages, ROUND_STORES);
    if damages > 0 {
        let mut wreck = Wreck::build(seed)?;
        let each = damages / PROCESSES_EACH;
        wreck.damage_stores(damages - 2 * each, tally)?;
        wreck.damage_programs(each, tally)?;
        wreck.damage_broker(each, tally)?;
        eprintln!("damages so far: {tally:#?}");
    }
    Ok(())
}

fn disk_round(left: &mut Chaos, seed: u64, round: u64) -> Result<()> {
    let power = take(&mut left.power, ROUND_POWER);
    if power > 0 && can(Mount::image_works()) {
        let acknowledged = disk::cut_power_of_broker(seed, power)?;
        eprintln!("{power} power losses of the broker: {acknowledged} acknowledged, none lost");
        let behind = disk::cut_power_of_data(seed, power)?;
        eprintln!("{power} power losses of a data plane: {behind:?} versions behind");
    }
    if round == 0 && can(Mount::memory(DISK_BYTES).map(drop)) {
        let disk = Mount::memory(DISK_BYTES)?;
        eprintln!("{:?}", disk::fill_broker(&disk, seed)?);
        let disk = Mount::memory(DISK_BYTES)?;
        eprintln!("{:?}", disk::fill_data(&disk, seed)?);
    }
    Ok(())
}

/// Says so if it cannot be had here.
fn can(tried: Result<()>) -> bool {
    if let Err(reason) = &tried {
        eprintln!("disks: not run here: {reason:#}");
    }
    tried.is_ok()
}
