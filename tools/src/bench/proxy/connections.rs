//! What connections that ask for nothing, or slowly, do to those that ask.

use super::held::{Held, Manner};
use super::load::Outcome;
use super::shapes::Shape;
use super::{Arguments, CORE_OF_PROXY, Subject, fill, middle, pin_all};
use crate::bench::rig::{Rig, Start};
use crate::bench::usage;
use anyhow::{Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sluice_replica::node::SyncMode;
use std::net::SocketAddr;
use std::time::Duration;

/// Files that a process here has open beside held connections: good ones, those to the origin, everything else.
const FILES_BESIDE: u64 = 1_024;
/// After connections were opened or closed, until the data plane is done with that.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// Longer than any measurement, so that no slow one is ended while it counts.
const HEADER_TIMEOUT_SECONDS: u32 = 3_600;

/// Measures and prints.
pub(super) fn run(arguments: &Arguments, origin: SocketAddr) -> Result<()> {
    println!(
        "\n{} requests a second on {} connections, beside others",
        arguments.rate, arguments.connections
    );
    let connections = arguments.idle + arguments.slow + arguments.connections;
    if let Err(error) = allow_files(connections as u64 + FILES_BESIDE) {
        println!("NOT MEASURED: {error:#}");
        return Ok(());
    }
    let rig = start(connections, origin)?;
    let process = rig.process()?;
    pin_all(process, CORE_OF_PROXY)?;
    let subject = Subject::new("sluice", rig.data.proxy(), process, Shape::One, 1);
    let (idle, slow) = (arguments.idle, arguments.slow);
    let mut rows = [(0, 0), (idle, 0), (0, slow), (idle, slow)].map(|(idle, slow)| Row {
        idle,
        slow,
        outcomes: Vec::new(),
        memory: 0,
    });
    for _ in 0..arguments.rounds {
        for row in &mut rows {
            row.measure(&subject, arguments)?;
        }
    }
    println!("| beside idle ones | and slow ones | p50 | p99 | p99, ratio | RSS |");
    println!("|---|---|---|---|---|---|");
    let alone = middle(&mut rows[0].outcomes, 99);
    for row in &mut rows {
        let p99 = middle(&mut row.outcomes, 99);
        println!(
            "| {} | {} | {:.0?} | {p99:.0?} | {:.2} | {} MB |",
            row.idle,
            row.slow,
            middle(&mut row.outcomes, 50),
            p99.as_secs_f64() / alone.as_secs_f64(),
            row.memory >> 20,
        );
    }
    Ok(())
}

/// So many others, and what was found beside them.
struct Row {
    idle: usize,
    slow: usize,
    outcomes: Vec<Outcome>,
    memory: u64,
}

impl Row {
    fn measure(&mut self, subject: &Subject, arguments: &Arguments) -> Result<()> {
        let idle = Held::open(Manner::Idle, self.idle, subject.address)?;
        let slow = Held::open(Manner::Slow, self.slow, subject.address)?;
        std::thread::sleep(SETTLED_AFTER);
        let outcome = subject.steady(arguments)?;
        self.memory = usage::memory(subject.process)?.max(self.memory);
        let ended = idle.release()? + slow.release()?;
        ensure!(ended == 0, "{ended} of the held connections were ended");
        subject.check(&outcome)?;
        self.outcomes.push(outcome);
        Ok(())
    }
}

/// A data plane with one route that lets so many connections in.
fn start(connections: usize, origin: SocketAddr) -> Result<Rig> {
    let start = Start {
        flags: vec![
            format!("--client-connections-max={}", 2 * connections),
            format!("--client-header-timeout={HEADER_TIMEOUT_SECONDS}"),
        ],
        ..Start::default()
    };
    let rig = Rig::start_with(SyncMode::Incremental, "2m", start)?;
    fill(&rig, Shape::One, 1, origin)?;
    Ok(rig)
}

/// Lets this process, and those it starts, have as many files open.
fn allow_files(needed: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(needed));
    let wanted = Rlimit {
        current: Some(needed),
        maximum,
    };
    ensure!(
        setrlimit(Resource::Nofile, wanted).is_ok(),
        "{needed} open files are needed in a process and the system allows {}; raise it (ulimit -Hn {needed}, or LimitNOFILE=), or ask \
         for fewer by --idle and --slow",
        limit.maximum.unwrap_or(u64::MAX)
    );
    Ok(())
}
