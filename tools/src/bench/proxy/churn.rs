//! Requests at a constant rate, with and without changes of the configuration meanwhile.

use super::shapes::Shape;
use super::{Arguments, CORE_OF_PROXY, Load, Outcome, Subject, load, pin_all, start};
use crate::bench::client::Client;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Measures and prints.
pub(super) fn run(arguments: &Arguments, origin: SocketAddr) -> Result<()> {
    let (routes, shape) = (arguments.routes, Shape::Hosts);
    println!(
        "\n{} requests a second at {routes} routes, {} changes a second of routes, services and plugins",
        arguments.rate, arguments.changes
    );
    let rig = start(shape, routes, origin)?;
    let process = rig.process()?;
    pin_all(process, CORE_OF_PROXY)?;
    let subject = Subject::new("sluice", rig.data.proxy(), process, shape, routes);
    let (mut quiet, mut busy) = (Vec::new(), Vec::new());
    let (mut answered, mut changed) = (0, 0);
    for _ in 0..arguments.rounds {
        let outcome = measure(&subject, arguments)?;
        answered += outcome.answered;
        quiet.push(outcome);
        let changes = Changes::new(rig.control.url(), arguments.changes);
        let outcome = std::thread::scope(|scope| {
            let changing = scope.spawn(|| changes.run());
            let outcome = measure(&subject, arguments);
            changes.over.store(true, Ordering::Relaxed);
            changing.join().ok().context("changing panicked")??;
            outcome
        })?;
        answered += outcome.answered;
        changed += changes.done.load(Ordering::Relaxed);
        busy.push(outcome);
    }
    for (name, outcomes) in [("without changes", &mut quiet), ("with changes", &mut busy)] {
        let mut figures = |hundredths| {
            let mut each: Vec<Duration> = outcomes
                .iter_mut()
                .map(|outcome| outcome.latency(hundredths))
                .collect();
            crate::bench::median(&mut each)
        };
        println!("  {name}: p50 {:.0?}, p99 {:.0?}", figures(50), figures(99));
    }
    println!("  {answered} requests, none failed; {changed} changes");
    Ok(())
}

fn measure(subject: &Subject, arguments: &Arguments) -> Result<Outcome> {
    let outcome = load::run(&Load {
        rate: Some(arguments.rate),
        ..subject.load(arguments, Duration::from_secs(arguments.seconds))
    })?;
    subject.check(&outcome)?;
    Ok(outcome)
}

/// Changes at a constant rate, none of which alters what the requests are answered with.
struct Changes {
    admin: String,
    rate: u32,
    over: AtomicBool,
    done: AtomicU64,
}

impl Changes {
    fn new(admin: String, rate: u32) -> Self {
        Self {
            admin,
            rate,
            over: AtomicBool::new(false),
            done: AtomicU64::new(0),
        }
    }

    fn run(&self) -> Result<()> {
        let client = Client::new(self.admin.clone());
        let began = Instant::now();
        for number in 0_u32.. {
            if self.over.load(Ordering::Relaxed) {
                break;
            }
            let due = began + Duration::from_secs(1) * number / self.rate;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let tag = format!("tag-{number}");
            let (path, body) = match number % 3 {
                0 => (
                    "/routes/changing",
                    json!({ "hosts": [format!("changing-{number}.example.com")], "service": { "name": "origin" } }),
                ),
                1 => (
                    "/services/changing",
                    json!({ "host": "changing.example.com", "tags": [tag] }),
                ),
                _ => (
                    "/plugins/5a1ce000-0000-4000-8000-000000000001",
                    json!({ "name": "rate-limiting", "route": { "name": "changing" }, "config": { "minute": 1 + number, "policy": "local" } }),
                ),
            };
            let (status, said) = client.put(path, &body)?;
            ensure!(
                status == 200 || status == 201,
                "PUT {path} was answered with {status}: {said}"
            );
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}
