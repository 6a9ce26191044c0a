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
    if let Some(own) = churned.first_mut() {
        own.elsewhere = Some(Elsewhere::start(routes, origin)?);
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
    elsewhere: Option<Elsewhere>,
    busy: Found,
}

/// The same changes to an installation that the proxy does not follow: what making them does to the generator and the origin, which
/// have a core with the control planes and brokers.
struct Elsewhere {
    gateway: Gateway,
    found: Found,
}

impl Elsewhere {
    fn start(routes: usize, origin: SocketAddr) -> Result<Self> {
        let mut sluice = Sluice::start(SHAPE, routes, origin)?;
        sluice.rig.data.kill();
        Ok(Self {
            gateway: Gateway::Sluice(Box::new(sluice)),
            found: Found::default(),
        })
    }
}

#[derive(Default)]
struct Found {
    outcomes: Vec<Outcome>,
    cpu: Duration,
    /// Changes so far, and how long they were made.
    changes: u32,
    changing: Duration,
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
            elsewhere: None,
            busy: Found::default(),
        })
    }

    fn measure(&mut self, arguments: &Arguments) -> Result<()> {
        self.quiet.measure(&self.subject, arguments)?;
        if let Some(Elsewhere { gateway, found }) = &mut self.elsewhere {
            found.measure_beside(&self.subject, arguments, gateway)?;
        }
        self.busy
            .measure_beside(&self.subject, arguments, &self.gateway)?;
        self.gateway.settle()
    }

    fn print(&mut self, arguments: &Arguments) {
        let (name, status) = (&self.subject.name, self.subject.status);
        self.quiet.print(name, status, 0);
        if let Some(elsewhere) = &mut self.elsewhere {
            let name = format!("{name}, another is changed");
            elsewhere.found.print(&name, status, arguments.changes);
        }
        self.busy.print(name, status, arguments.changes);
    }
}

impl Found {
    fn measure(&mut self, subject: &Subject, arguments: &Arguments) -> Result<()> {
        let before = usage::cpu_of_family(subject.process)?;
        self.outcomes.push(subject.steady(arguments)?);
        self.cpu += usage::cpu_of_family(subject.process)?.saturating_sub(before);
        Ok(())
    }

    /// The same while changes are made.
    fn measure_beside(
        &mut self,
        subject: &Subject,
        arguments: &Arguments,
        gateway: &Gateway,
    ) -> Result<()> {
        let over = AtomicBool::new(false);
        let first = self.changes;
        let (made, took) = std::thread::scope(|scope| {
            let changing = scope.spawn(|| change_until(gateway, first, arguments.changes, &over));
            let measured = self.measure(subject, arguments);
            over.store(true, Ordering::Relaxed);
            let changed = changing.join().ok().context("changing panicked")?;
            measured.and(changed)
        })?;
        self.changes += made;
        self.changing += took;
        Ok(())
    }

    fn print(&mut self, name: &str, status: u16, asked: u32) {
        let reached = match self.changes {
            0 => 0.0,
            changes => f64::from(changes) / self.changing.as_secs_f64(),
        };
        let took: Duration = self.outcomes.iter().map(|outcome| outcome.took).sum();
        let answered: u64 = self.outcomes.iter().map(|outcome| outcome.answered).sum();
        let failed = self.outcomes.iter().map(|outcome| outcome.failed(status));
        let failed: u64 = failed.sum();
        println!(
            "| {name} | {asked} | {reached:.1} | {:.2?} | {:.2?} | {failed} | {answered} | {:.0} % |",
            middle(&mut self.outcomes, 50),
            middle(&mut self.outcomes, 99),
            100.0 * self.cpu.as_secs_f64() / took.as_secs_f64(),
        );
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
    Ok((made, began.elapsed()))
}
