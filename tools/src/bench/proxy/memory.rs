//! What a data plane takes of memory: empty, with routes, with many entities.

use super::shapes::Shape;
use crate::bench::rig::{Rig, STEADY_AFTER};
use crate::bench::usage;
use anyhow::Result;
use sluice_replica::node::SyncMode;
use std::net::SocketAddr;

/// Routes of the smaller table.
const ROUTES: usize = 5_000;
/// Services and routes of the larger one.
const ENTITIES: usize = 30_000;
/// With so many each is 1 KB of JSON, as in Kong's own sizing.
const TAGS_OF_A_KILOBYTE: usize = 21;

struct Found {
    json: usize,
    resident: u64,
    anonymous: u64,
    most: u64,
    after_restart: u64,
}

/// Measures and prints.
pub(super) fn run(origin: SocketAddr) -> Result<()> {
    println!("\nmemory of a data plane with one worker, {STEADY_AFTER:?} after it has everything");
    println!(
        "| | JSON applied | RSS | of it not from files | above empty, of the JSON | at most until then | RSS after a restart |"
    );
    println!("|---|---|---|---|---|---|---|");
    let empty = measure(|_| Ok(0))?;
    row("empty", &empty, &empty);
    let routes = measure(|rig| {
        let file = Shape::Hosts.file(0..ROUTES, origin).to_string();
        let version = rig.apply(&file)?;
        rig.wait_for(version)?;
        Ok(file.len())
    })?;
    row(&format!("{ROUTES} routes"), &routes, &empty);
    let entities = measure(|rig| rig.load(ENTITIES))?;
    row(
        &format!("{ENTITIES} services and routes"),
        &entities,
        &empty,
    );
    let entities = measure(|rig| rig.load_with(ENTITIES, TAGS_OF_A_KILOBYTE))?;
    row(
        &format!("{ENTITIES} services and routes with more tags"),
        &entities,
        &empty,
    );
    Ok(())
}

/// A data plane that was given something; `give` gives back its bytes as JSON.
fn measure(give: impl FnOnce(&Rig) -> Result<usize>) -> Result<Found> {
    let mut rig = Rig::start(SyncMode::Incremental, "2m")?;
    let bar = crate::apply::spinner("memory".to_owned());
    let json = give(&rig)?;
    std::thread::sleep(STEADY_AFTER);
    let process = rig.process()?;
    let anonymous = usage::anonymous_memory(process)?;
    let (resident, most) = (usage::memory(process)?, usage::memory_max(process)?);
    rig.data.restart()?;
    std::thread::sleep(STEADY_AFTER);
    let after_restart = usage::memory(rig.process()?)?;
    bar.finish_and_clear();
    Ok(Found {
        json,
        resident,
        anonymous,
        most,
        after_restart,
    })
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn row(name: &str, found: &Found, empty: &Found) {
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let ratio = match found.json {
        0 => String::new(),
        json => {
            let above = found.resident.saturating_sub(empty.resident);
            format!("{:.2}x", above as f64 / json as f64)
        }
    };
    println!(
        "| {name} | {} | {} | {} | {ratio} | {} | {} |",
        megabytes(found.json as u64),
        megabytes(found.resident),
        megabytes(found.anonymous),
        megabytes(found.most),
        megabytes(found.after_restart),
    );
}
