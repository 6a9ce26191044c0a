//! What proxying a request costs: beside other proxies, as the table grows, while the configuration changes, beside many
//! connections; in time, memory and instructions.

mod churn;
mod connections;
mod held;
mod instructions;
mod load;
mod memory;
mod peers;
mod plugins;
mod shapes;

use super::rig::Rig;
use super::usage;
use anyhow::{Context, Result, ensure};
use clap::Args;
use load::{Load, Outcome};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};
use shapes::Shape;
use sluice_replica::node::SyncMode;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where the generator, the origin, the broker and the control plane run.
const CORE_OF_OTHERS: usize = 0;
/// Where the proxy runs that is measured.
const CORE_OF_PROXY: usize = 1;
/// Before each measurement.
const WARM_UP: Duration = Duration::from_millis(300);
/// More go into several files, for the Admin API takes 64 MiB at a time.
const FILE_ROUTES_MAX: usize = 100_000;

/// Arguments of `sluice bench proxy`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What to measure
    #[arg(value_enum, default_values_t = [Part::Peers, Part::Shapes, Part::Plugins, Part::Churn, Part::Memory, Part::Connections, Part::Instructions])]
    parts: Vec<Part>,
    /// Routes, for shapes and churn
    #[arg(long, default_value = "30000", value_name = "N")]
    routes: usize,
    /// Shapes of the table
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Shape::Hosts, Shape::HostsOnly, Shape::Paths, Shape::Regexes, Shape::Headers, Shape::Missing])]
    shapes: Vec<Shape>,
    /// Rounds; the median is shown
    #[arg(long, default_value = "5", value_name = "N")]
    rounds: usize,
    /// Seconds of each measurement
    #[arg(long, default_value = "3", value_name = "SECONDS")]
    seconds: u64,
    /// Connections kept open by the generator
    #[arg(long, default_value = "64", value_name = "N")]
    connections: usize,
    /// Changes a second, for churn
    #[arg(long, default_value = "100", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    changes: u32,
    /// Requests a second, for churn and connections
    #[arg(long, default_value = "10000", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Connections that are idle, for connections
    #[arg(long, default_value = "10000", value_name = "N")]
    idle: usize,
    /// Connections that send a byte a second, for connections
    #[arg(long, default_value = "1000", value_name = "N")]
    slow: usize,
    /// Consumers with a key each, for plugins
    #[arg(long, default_value = "1000000", value_name = "N", value_parser = parse_positive)]
    consumers: usize,
    /// Requests of each count, for instructions
    #[arg(long, default_value = "2000", value_name = "N", value_parser = parse_positive)]
    requests: usize,
    /// Fail if a figure of instructions is more than 3 % above the one in the file
    #[arg(long)]
    check: bool,
    /// The file with the expected instructions
    #[arg(
        long,
        default_value = "docs/reference/instructions.txt",
        value_name = "FILE"
    )]
    expected: PathBuf,
}

fn parse_positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("must be a number of at least 1".to_owned()),
        Ok(number) => Ok(number),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Part {
    /// One route, beside nginx, HAProxy and Envoy
    Peers,
    /// Many routes, of several shapes
    Shapes,
    /// Key-auth and rate-limiting beside no plugin, with few consumers and with many
    Plugins,
    /// Requests at a constant rate while the configuration changes, beside nginx and Envoy
    Churn,
    /// Memory of a data plane that is empty, with 5,000 routes, with 30,000 entities
    Memory,
    /// Requests at a constant rate beside many connections that are idle or slow
    Connections,
    /// User instructions per request, by valgrind if it is installed
    Instructions,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    pin_all(std::process::id(), CORE_OF_OTHERS)?;
    let origin = load::start_origin()?;
    println!(
        "the proxy alone on core {CORE_OF_PROXY} with one worker; generator, origin, broker and control plane on core {CORE_OF_OTHERS}; \
         {} connections, {} rounds of {} s each, medians",
        arguments.connections, arguments.rounds, arguments.seconds
    );
    for part in &arguments.parts {
        match part {
            Part::Peers => peers(arguments, origin)?,
            Part::Shapes => shapes(arguments, origin)?,
            Part::Plugins => plugins::run(arguments, origin)?,
            Part::Churn => churn::run(arguments, origin)?,
            Part::Memory => memory::run(origin)?,
            Part::Connections => connections::run(arguments, origin)?,
            Part::Instructions => instructions::run(arguments, origin)?,
        }
    }
    Ok(())
}

/// A proxy, as it is measured.
struct Subject {
    name: String,
    address: SocketAddr,
    process: u32,
    requests: Vec<Vec<u8>>,
    status: u16,
    /// One for each round.
    rounds: Vec<Round>,
}

struct Round {
    cpu: Duration,
    rate: f64,
    median: Duration,
    p99: Duration,
}

impl Subject {
    fn new(name: &str, address: SocketAddr, process: u32, shape: Shape, routes: usize) -> Self {
        Self {
            name: name.to_owned(),
            address,
            process,
            requests: shape.requests(routes),
            status: shape.status(),
            rounds: Vec::new(),
        }
    }

    fn load(&self, arguments: &Arguments, lasting: Duration) -> Load<'_> {
        Load {
            to: self.address,
            connections: arguments.connections,
            requests: &self.requests,
            rate: None,
            lasting,
        }
    }

    fn measure(&mut self, arguments: &Arguments) -> Result<()> {
        load::run(&self.load(arguments, WARM_UP))?;
        let before = usage::cpu(self.process)?;
        let lasting = Duration::from_secs(arguments.seconds);
        let mut outcome = load::run(&self.load(arguments, lasting))?;
        let cpu = usage::cpu(self.process)? - before;
        self.check(&outcome)?;
        self.rounds.push(Round {
            cpu: cpu / u32::try_from(outcome.answered)?,
            rate: outcome.rate(),
            median: outcome.latency(50),
            p99: outcome.latency(99),
        });
        Ok(())
    }

    /// Requests at a constant rate.
    fn steady(&self, arguments: &Arguments) -> Result<Outcome> {
        load::run(&Load {
            rate: Some(arguments.rate),
            ..self.load(arguments, Duration::from_secs(arguments.seconds))
        })
    }

    fn check(&self, outcome: &Outcome) -> Result<()> {
        ensure!(
            outcome.answered > 0 && outcome.failed(self.status) == 0,
            "{}: {} of {} requests were not answered with {}: {:?}, {} connections broke",
            self.name,
            outcome.failed(self.status),
            outcome.answered,
            self.status,
            outcome.statuses,
            outcome.broken
        );
        Ok(())
    }

    /// The middle round by each figure.
    fn medians(&self) -> Round {
        let middle = |figure: fn(&Round) -> Duration| {
            let mut figures: Vec<Duration> = self.rounds.iter().map(figure).collect();
            super::median(&mut figures)
        };
        let mut rates: Vec<f64> = self.rounds.iter().map(|round| round.rate).collect();
        rates.sort_unstable_by(f64::total_cmp);
        Round {
            cpu: middle(|round| round.cpu),
            rate: rates[rates.len() / 2],
            median: middle(|round| round.median),
            p99: middle(|round| round.p99),
        }
    }
}

/// Measures all of them in turn, round by round, and prints a table; ratios are to the first.
fn table(subjects: &mut [Subject], arguments: &Arguments) -> Result<()> {
    for _ in 0..arguments.rounds {
        for subject in &mut *subjects {
            subject.measure(arguments)?;
        }
    }
    println!("| | CPU per request | ratio | requests a second | ratio | p50 | p99 | RSS |");
    println!("|---|---|---|---|---|---|---|---|");
    let first = subjects.first().context("nothing to measure")?.medians();
    for subject in &*subjects {
        let found = subject.medians();
        println!(
            "| {} | {:.1?} | {:.2} | {:.0} | {:.2} | {:.0?} | {:.0?} | {} MB |",
            subject.name,
            found.cpu,
            found.cpu.as_secs_f64() / first.cpu.as_secs_f64(),
            found.rate,
            found.rate / first.rate,
            found.median,
            found.p99,
            usage::memory(subject.process)? >> 20,
        );
    }
    Ok(())
}

/// The middle one of the latencies that `hundredths` of the answers of each did not exceed.
fn middle(outcomes: &mut [Outcome], hundredths: usize) -> Duration {
    let each = outcomes
        .iter_mut()
        .map(|outcome| outcome.latency(hundredths));
    super::median(&mut each.collect::<Vec<_>>())
}

fn peers(arguments: &Arguments, origin: SocketAddr) -> Result<()> {
    println!("\none route");
    let peers = peers::start(origin);
    let sluice = start(Shape::One, 1, origin)?;
    let own = ("sluice", sluice.data.proxy(), sluice.process()?);
    let others = peers
        .iter()
        .map(|peer| (peer.name, peer.address, peer.process));
    let mut subjects: Vec<Subject> = others
        .chain([own])
        .map(|(name, address, process)| Subject::new(name, address, process, Shape::One, 1))
        .collect();
    for subject in &subjects {
        pin_all(subject.process, CORE_OF_PROXY)?;
    }
    table(&mut subjects, arguments)
}

fn shapes(arguments: &Arguments, origin: SocketAddr) -> Result<()> {
    println!("\n{} routes of each shape", arguments.routes);
    let mut rigs = vec![(Shape::One, 1, start(Shape::One, 1, origin)?)];
    for shape in &arguments.shapes {
        rigs.push((
            *shape,
            arguments.routes,
            start(*shape, arguments.routes, origin)?,
        ));
    }
    let mut subjects = Vec::new();
    for (shape, routes, rig) in &rigs {
        let process = rig.process()?;
        pin_all(process, CORE_OF_PROXY)?;
        subjects.push(Subject::new(
            shape.name(),
            rig.data.proxy(),
            process,
            *shape,
            *routes,
        ));
    }
    table(&mut subjects, arguments)
}

/// A data plane with these routes, and what it follows.
fn start(shape: Shape, routes: usize, origin: SocketAddr) -> Result<Rig> {
    let rig = Rig::start(SyncMode::Incremental, "2m")?;
    fill(&rig, shape, routes, origin)?;
    Ok(rig)
}

/// Gives a data plane these routes, and waits until all that follows from it is written.
fn fill(rig: &Rig, shape: Shape, routes: usize, origin: SocketAddr) -> Result<()> {
    let bar = crate::apply::spinner(format!("{routes} routes: {}", shape.name()));
    for first in (0..routes).step_by(FILE_ROUTES_MAX) {
        let numbers = first..routes.min(first + FILE_ROUTES_MAX);
        let version = rig.apply(&shape.file(numbers, origin).to_string())?;
        rig.wait_for(version)?;
    }
    usage::wait_until_quiet(&[
        rig.process()?,
        rig.control
            .process_id()
            .context("the control plane has ended")?,
    ])?;
    bar.finish_and_clear();
    Ok(())
}

/// Keeps all threads that a process has now, and those that they start, on one core.
fn pin_all(process: u32, core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    for task in fs::read_dir(format!("/proc/{process}/task")).context("the process has ended")? {
        let task = task?.file_name().to_string_lossy().parse()?;
        // A thread may end while we look.
        let _ = sched_setaffinity(Pid::from_raw(task), &cores);
    }
    Ok(())
}
