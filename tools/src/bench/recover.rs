//! What a snapshot costs, and how a data plane comes back: from its store with the broker down, from nothing, and after
//! a gap.

use super::rig::{Rig, SETTLE, STEADY_AFTER};
use super::{median, usage};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};
use sluice_replica::node::SyncMode;
use std::time::Instant;

/// Arguments of `sluice bench recover`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Sizes of the configuration, in entities (half services, half routes, about 1 KB each as JSON)
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "100000",
        value_name = "N"
    )]
    entities: Vec<usize>,
    /// Restarts, and data planes that begin with nothing; the median is shown
    #[arg(long, default_value = "5", value_name = "N")]
    rounds: usize,
    /// Changes between the first snapshot and the second
    #[arg(long, default_value = "100", value_name = "N")]
    changes: usize,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    println!(
        "one broker (sync_interval: always), one control plane, one data plane with one worker on this machine"
    );
    for entities in &arguments.entities {
        measure(*entities, arguments).with_context(|| format!("with {entities} entities"))?;
    }
    Ok(())
}

fn measure(entities: usize, arguments: &Arguments) -> Result<()> {
    println!("\n{entities} entities");
    let mut rig = Rig::start(SyncMode::Incremental, "always")?;
    let bar = crate::apply::spinner(format!("{entities} entities"));
    let began = Instant::now();
    rig.load(entities)?;
    bar.suspend(|| println!("  applied and active after {:.2?}", began.elapsed()));

    bar.set_message("snapshots");
    cut(&rig, "first snapshot")?;
    for number in 0..arguments.changes {
        change(&rig, &format!("between-{number}"))?;
    }
    let second = cut(
        &rig,
        &format!("snapshot after {} changes", arguments.changes),
    )?;
    trim(&rig, second)?;

    bar.set_message("changes behind a gap");
    after_a_gap(&mut rig)?;

    bar.set_message("restarts with the broker down");
    restarts(&mut rig, arguments.rounds)?;

    bar.set_message("new data planes");
    new_ones(&mut rig, arguments.rounds)?;
    bar.finish_and_clear();
    Ok(())
}

/// Cuts a snapshot; gives back its version.
fn cut(rig: &Rig, what: &str) -> Result<u64> {
    let began = Instant::now();
    let answer = rig
        .admin
        .post("/log/snapshots", "application/json", &[], b"")?;
    let took = began.elapsed();
    if answer.status != 201 {
        bail!(
            "the snapshot was refused: {} {}",
            answer.status,
            answer.body
        );
    }
    let number = |name: &str| answer.body[name].as_u64().unwrap_or_default();
    println!(
        "  {what}: {} of {} chunks written, {} bytes, {took:.2?}",
        number("written"),
        number("chunks"),
        number("written_bytes"),
    );
    Ok(number("version"))
}

fn trim(rig: &Rig, snapshot: u64) -> Result<()> {
    let body = json!({ "before": snapshot }).to_string();
    let answer = rig
        .admin
        .post("/log/trim", "application/json", &[], body.as_bytes())?;
    if answer.status != 200 {
        bail!(
            "the log could not be trimmed: {} {}",
            answer.status,
            answer.body
        );
    }
    Ok(())
}

/// Posts a route; gives back its version.
fn change(rig: &Rig, name: &str) -> Result<u64> {
    let body =
        json!({ "name": name, "paths": [format!("/{name}")], "service": { "name": "service-0" } });
    let body = body.to_string();
    let answer = rig
        .admin
        .post("/routes", "application/json", &[], body.as_bytes())?;
    answer
        .version
        .with_context(|| format!("the change was refused: {} {}", answer.status, answer.body))
}

/// A route and another are posted while the data plane is away, and the log no longer has the first.
fn after_a_gap(rig: &mut Rig) -> Result<()> {
    rig.data.kill();
    change(rig, "behind-a-gap")?;
    let version = change(rig, "behind-a-gap-too")?;
    cut(rig, "snapshot after two changes")?;
    trim(rig, version)?;
    let received = rig.relay.received();
    rig.data.restart()?;
    rig.wait_for(version)?;
    std::thread::sleep(SETTLE);
    let bytes = rig.relay.received() - received;
    let taken = said(rig, "took up a snapshot")?;
    println!(
        "  two changes behind a gap: {bytes} bytes received in all, {} leaves of the tree differed, taken up in {}",
        taken["ranges"], taken["took"],
    );
    Ok(())
}

fn restarts(rig: &mut Rig, rounds: usize) -> Result<()> {
    rig.nats.kill();
    let mut took = Vec::new();
    let mut cpu = Vec::new();
    for _ in 0..rounds {
        rig.data.kill();
        let began = Instant::now();
        rig.data.restart()?;
        took.push(began.elapsed());
        cpu.push(usage::cpu(rig.process()?)?);
    }
    let loaded = said(rig, "loaded the local store")?;
    std::thread::sleep(STEADY_AFTER);
    println!(
        "  restart with the broker down, to ready: {:.2?} (worst {:.2?}), CPU {:.2?}, {} entities; RSS {} MB after {STEADY_AFTER:?}, {} MB at most",
        median(&mut took),
        took[took.len() - 1],
        median(&mut cpu),
        loaded["entities"],
        usage::memory(rig.process()?)? >> 20,
        usage::memory_max(rig.process()?)? >> 20,
    );
    rig.nats.restart()
}

fn new_ones(rig: &mut Rig, rounds: usize) -> Result<()> {
    let status = rig.admin.get("/log/head")?;
    let version = status["version"].as_u64().context("no version")?;
    let mut took = Vec::new();
    let (mut steady, mut most) = (0, 0);
    for round in 0..rounds {
        let began = Instant::now();
        rig.replace_data(&format!("new-{round}"))?;
        rig.wait_for(version)?;
        took.push(began.elapsed());
        if round + 1 == rounds {
            std::thread::sleep(STEADY_AFTER);
            let process = rig.process()?;
            (steady, most) = (usage::memory(process)?, usage::memory_max(process)?);
        }
    }
    said(rig, "took up a snapshot")?;
    #[allow(clippy::cast_precision_loss, reason = "a ratio for people")]
    let ratio = most as f64 / steady as f64;
    println!(
        "  new data plane, to the newest version: {:.2?} (worst {:.2?}); RSS {} MB after {STEADY_AFTER:?}, {} MB at most: {ratio:.2}x",
        median(&mut took),
        took[took.len() - 1],
        steady >> 20,
        most >> 20,
    );
    Ok(())
}

/// The last line of the data plane's log with this message.
fn said(rig: &Rig, message: &str) -> Result<Value> {
    let said = rig.data.said();
    let lines = said.lines().rev();
    let found = lines
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|line| line["message"] == message);
    found.with_context(|| format!("the data plane did not say '{message}'; it said:\n{said}"))
}
