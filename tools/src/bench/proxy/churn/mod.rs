//! Requests at a constant rate, with and without changes of the configuration meanwhile: Sluice, nginx that reloads its file,
//! and Envoy that reads its routes from a file anew.

mod envoy;
mod nginx;
mod sluice;

use super::load::Outcome;
use super::shapes::Shape;
use super::{Arguments, CORE_OF_PROXY, Subject, middle, pin_all};
use crate::bench::usage;
use anyhow::{Context, Result};
use envoy::Envoy;
use nginx::Nginx;
use sluice::Sluice;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SHAPE: Shape = Shape::Hosts;

/// Measures and prints.
pub(super) fn run(arguments: &Arguments, origin: SocketAddr) -> Result<()> {
    let routes = arguments.routes;
    println!(
        "\n{} requests a second at {routes} routes, {} changes a second: of routes, services and plugins by Sluice's Admin API; of \
         nginx's file, and of Envoy's file of routes, as soon as the last change is in force",
        arguments.rate, arguments.changes
    );
    let gateways = [
        Some(Gateway::Sluice(Box::new(Sluice::start(
            SHAPE, routes, origin,
        )?))),
        Nginx::start(SHAPE, routes, origin).map(Gateway::Nginx),
        Envoy::start(SHAPE, routes, origin)?.map(Gateway::Envoy),
    ];
    let mut churned = Vec::new();
    for gateway in gateways.into_iter().flatten() {
        churned.push(Churned::new(gateway, routes)?);
    }
    for _ in 0..arguments.rounds {
        for churned in &mut churned {
            churned.measure(arguments)?;
        }
    }
    println!(
        "| | changes a second, asked | reached | p50 | p99 | failed | requests | CPU, of the core |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for churned in &mut churned {
        churned.print(arguments);
    }
    let own = churned.first().context("nothing to measure")?;
    let outcomes = own.quiet.outcomes.iter().chain(&own.busy.outcomes);
    outcomes
        .into_iter()
        .try_for_each(|outcome| own.subject.check(outcome))
}

/// Something whose configuration can be changed while it proxies.
enum Gateway {
    Sluice(Box<Sluice>),
    Nginx(Nginx),
    Envoy(Envoy),
}

impl Gateway {
    fn name(&self) -> &'static str {
        match self {
            Self::Sluice(_) => "sluice",
            Self::Nginx(_) => "nginx, reloaded",
            Self::Envoy(_) => "envoy, routes of a file",
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Sluice(sluice) => sluice.rig.data.proxy(),
            Self::Nginx(nginx) => nginx.peer.address,
            Self::Envoy(envoy) => envoy.peer.address,
        }
    }

    fn process(&self) -> Result<u32> {
        match self {
            Self::Sluice(sluice) => sluice.rig.process(),
            Self::Nginx(nginx) => Ok(nginx.peer.process),
            Self::Envoy(envoy) => Ok(envoy.peer.process),
        }
    }

    /// Makes a change that alters no answer to what is asked meanwhile; each has another number.
    fn change(&self, number: u32) -> Result<()> {
        match self {
            Self::Sluice(sluice) => sluice.change(number),
            Self::Nginx(nginx) => nginx.change(number),
            Self::Envoy(envoy) => envoy.change(number),
        }
    }

    /// Waits until all changes are in force.
    fn settle(&self) -> Result<()> {
        match self {
            Self::Sluice(sluice) => sluice.settle(),
            // They are when `change` comes back.
            Self::Nginx(_) | Self::Envoy(_) => Ok(()),
        }
    }
}

/// A gateway and what was found.
struct Churned {
    gateway: Gateway,
    subject: Subject,
    quiet: Found,
    busy: Found,
    /// Changes so far, and how long they were made.
    changes: u32,
    changing: Duration,
}

#[derive(Default)]
struct Found {
    outcomes: Vec<Outcome>,
    cpu: Duration,
}

impl Churned {
    fn new(gateway: Gateway, routes: usize) -> Result<Self> {
        let process = gateway.process()?;
        for process in usage::children(process).into_iter().chain([process]) {
            pin_all(process, CORE_OF_PROXY)?;
        }
        let subject = Subject::new(gateway.name(), gateway.address(), process, SHAPE, routes);
        Ok(Self {
            gateway,
            subject,
            quiet: Found::default(),
            busy: Found::default(),
            changes: 0,
            changing: Duration::ZERO,
        })
    }

    fn measure(&mut self, arguments: &Arguments) -> Result<()> {
        self.quiet.measure(&self.subject, arguments)?;
        let over = AtomicBool::new(false);
        let (gateway, first) = (&self.gateway, self.changes);
        let (made, took) = std::thread::scope(|scope| {
            let changing = scope.spawn(|| change_until(gateway, first, arguments.changes, &over));
            let measured = self.busy.measure(&self.subject, arguments);
            over.store(true, Ordering::Relaxed);
            let changed = changing.join().ok().context("changing panicked")?;
            measured.and(changed)
        })?;
        self.changes += made;
        self.changing += took;
        Ok(())
    }

    fn print(&mut self, arguments: &Arguments) {
        let reached = f64::from(self.changes) / self.changing.as_secs_f64();
        for (found, asked, reached) in [
            (&mut self.quiet, 0, 0.0),
            (&mut self.busy, arguments.changes, reached),
        ] {
            let (name, status) = (&self.subject.name, self.subject.status);
            let took: Duration = found.outcomes.iter().map(|outcome| outcome.took).sum();
            let answered: u64 = found.outcomes.iter().map(|outcome| outcome.answered).sum();
            let failed = found.outcomes.iter().map(|outcome| outcome.failed(status));
            let failed: u64 = failed.sum();
            println!(
                "| {name} | {asked} | {reached:.1} | {:.2?} | {:.2?} | {failed} | {answered} | {:.0} % |",
                middle(&mut found.outcomes, 50),
                middle(&mut found.outcomes, 99),
                100.0 * found.cpu.as_secs_f64() / took.as_secs_f64(),
            );
        }
    }
}

impl Found {
    fn measure(&mut self, subject: &Subject, arguments: &Arguments) -> Result<()> {
        let before = usage::cpu_of_family(subject.process)?;
        self.outcomes.push(subject.steady(arguments)?);
        self.cpu += usage::cpu_of_family(subject.process)?.saturating_sub(before);
        Ok(())
    }
}

/// Makes changes at a constant rate, or as fast as they are made. Gives back how many, and in what time.
fn change_until(
    gateway: &Gateway,
    first: u32,
    rate: u32,
    over: &AtomicBool,
) -> Result<(u32, Duration)> {
    let began = Instant::now();
    let mut made = 0;
    while !over.load(Ordering::Relaxed) {
        let due = began + Duration::from_secs(1) * made / rate;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        gateway.change(first + made)?;
        made += 1;
    }
    gateway.settle()?;
    Ok((made, began.elapsed()))
}
