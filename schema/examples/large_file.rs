//! How long a large declarative file takes: `cargo run --release --example large_file -- 100000`.
//!
//! Reads a file of consumers with a key each, decides it on an empty state, dumps the state, and decides the dump.

#![allow(clippy::disallowed_methods, reason = "it measures time")]
#![allow(clippy::print_stdout, reason = "it prints what it measures")]

use sluice_schema::decide::{Command, Origin, Plan, decide, genesis};
use sluice_schema::declare;
use sluice_schema::entity::Workspace;
use sluice_schema::event::{Actor, EventId};
use sluice_schema::kind::RouterFlavor;
use sluice_schema::state::State;
use sluice_schema::version::{Epoch, Time};
use std::fmt::Write;
use std::time::Instant;
use uuid::Uuid;

/// The time of all decisions.
const NOW: Time = Time(1_700_000_000_000_000);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: usize = std::env::args()
        .nth(1)
        .as_deref()
        .unwrap_or("100000")
        .parse()?;
    let mut text = String::from("_format_version: '3.0'\nconsumers:\n");
    for number in 0..count {
        writeln!(
            text,
            "- username: user-{number}\n  custom_id: id-{number}\n  tags: [bulk]\n  \
             keyauth_credentials:\n  - key: secret-key-of-user-{number}"
        )?;
    }
    println!(
        "{count} consumers with a key: {} MB",
        text.len() / 1_000_000
    );
    let epoch = Epoch(Uuid::from_u128(1));
    let first = genesis(epoch, EventId(Uuid::nil()), NOW, Actor::default());
    let (state, _) = State::default().apply(&first.event, &first.encoded.bytes)?;
    let state = apply(&state, &text, "file")?;
    let began = Instant::now();
    let dump = declare::to_yaml(&declare::write(&state, &Workspace::DEFAULT));
    report("dump", began);
    println!("the dump: {} MB", dump.len() / 1_000_000);
    apply(&state, &dump, "dump")?;
    Ok(())
}

fn apply(state: &State, text: &str, what: &str) -> Result<State, Box<dyn std::error::Error>> {
    let began = Instant::now();
    let document = declare::read(text).map_err(|mistakes| mistakes[0].to_string())?;
    report(&format!("read the {what}"), began);
    let plan = Plan {
        workspace: Workspace::DEFAULT,
        document,
        prune: true,
    };
    let origin = Origin {
        id: EventId(Uuid::from_u128(1)),
        time: NOW,
        actor: Actor::default(),
        reason: None,
        request_id: None,
        trace: None,
        router_flavor: RouterFlavor::default(),
        seed: [1; 32],
    };
    let began = Instant::now();
    let decision = decide(state, Command::Apply(Box::new(plan)), &origin)?;
    report(&format!("decide the {what}"), began);
    println!("{:?}", decision.outcome);
    Ok(decision.state)
}

/// Time, and memory where the system tells it.
fn report(what: &str, began: Instant) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    let peak = peak.map_or("", |line| line.trim_start_matches("VmHWM:").trim());
    println!(
        "{what}: {:.2} s, peak {peak}",
        began.elapsed().as_secs_f64()
    );
}
