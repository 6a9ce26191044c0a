//! Nothing acknowledged is lost and all replicas agree, whatever happens to real processes.
//!
//! Sized for every change; `make soak` runs the same for as long as you like.

#![cfg(test)]

use serde_json::{Value, json};
use sluice_tests::chaos::disk;
use sluice_tests::chaos::fault::Fault;
use sluice_tests::chaos::mount::Mount;
use sluice_tests::chaos::rig::{Rig, Shape, Target};
use sluice_tests::chaos::seed;
use sluice_tests::chaos::storm::{self, Plan};
use sluice_tests::chaos::wreck::{Tally, Wreck};
use sluice_tests::chaos::writer::{PATIENCE, Writer};
use std::time::Duration;

#[test]
fn a_hundred_kills_lose_no_acknowledged_write() {
    let seed = seed("kills");
    let mut rig = Rig::start(&Shape::new(2, 2)).unwrap();
    let plan = Plan {
        kills: 100,
        ..Plan::new(seed)
    };
    let outcome = storm::run(&mut rig, &plan).unwrap();
    eprintln!("kills, seed {seed}:\n{}", outcome.describe());
}

#[test]
fn everybody_recovers_from_freezes_and_bad_wires() {
    let seed = seed("faults");
    let mut rig = Rig::start(&Shape::new(2, 2)).unwrap();
    let plan = Plan {
        faults: 30,
        lasting: (Duration::from_millis(500), Duration::from_millis(2500)),
        ..Plan::new(seed)
    };
    let outcome = storm::run(&mut rig, &plan).unwrap();
    assert!(outcome.recoveries.len() >= 30);
    eprintln!("faults, seed {seed}:\n{}", outcome.describe());
}

#[test]
fn two_hundred_damages_never_show_a_state_that_was_not() {
    let seed = seed("damages");
    let mut wreck = Wreck::build(seed).unwrap();
    let mut tally = Tally::new();
    wreck.damage_stores(165, &mut tally).unwrap();
    wreck.damage_programs(20, &mut tally).unwrap();
    wreck.damage_broker(15, &mut tally).unwrap();
    eprintln!("damages, seed {seed}: {tally:#?}");
}

/// What `make` gives, or why the test cannot be run here.
fn or_skip<T>(name: &str, made: anyhow::Result<T>) -> Option<T> {
    made.map_err(|reason| eprintln!("{name}: not run here: {reason:#}"))
        .ok()
}

#[test]
fn a_broker_without_room_refuses_writes_and_loses_none() {
    let seed = seed("full broker");
    let Some(disk) = or_skip("full broker", Mount::memory(24 << 20)) else {
        return;
    };
    eprintln!("{:?}", disk::fill_broker(&disk, seed).unwrap());
}

#[test]
fn a_data_plane_without_room_serves_and_says_so() {
    let seed = seed("full data plane");
    let Some(disk) = or_skip("full data plane", Mount::memory(24 << 20)) else {
        return;
    };
    eprintln!("{:?}", disk::fill_data(&disk, seed).unwrap());
}

/// Whether images can be mounted here.
fn images_can_be_mounted() -> bool {
    or_skip("power loss", Mount::image_works()).is_some()
}

#[test]
fn power_loss_of_the_broker_loses_no_acknowledged_write() {
    let seed = seed("power loss of the broker");
    if images_can_be_mounted() {
        let acknowledged = disk::cut_power_of_broker(seed, 3).unwrap();
        eprintln!("3 power losses, {acknowledged} acknowledged writes, none lost");
    }
}

#[test]
fn power_loss_leaves_a_data_plane_a_state_that_was() {
    let seed = seed("power loss of a data plane");
    if images_can_be_mounted() {
        let behind = disk::cut_power_of_data(seed, 8).unwrap();
        eprintln!("versions behind after each power loss: {behind:?}");
    }
}

#[test]
fn three_brokers_lose_no_acknowledged_write() {
    let seed = seed("three brokers");
    let shape = Shape {
        brokers: 3,
        ..Shape::new(2, 1)
    };
    let mut rig = Rig::start(&shape).unwrap();
    let plan = Plan {
        brokers: 6,
        lasting: (Duration::from_millis(500), Duration::from_secs(5)),
        ..Plan::new(seed)
    };
    let outcome = storm::run(&mut rig, &plan).unwrap();
    eprintln!("three brokers, seed {seed}:\n{}", outcome.describe());
}

#[test]
fn a_control_plane_that_is_cut_off_does_not_say_that_nothing_was_to_be_done() {
    let rig = Rig::start(&Shape::new(2, 0)).unwrap();
    let mut writer = Writer::new(0, rig.admin_urls(), 1, PATIENCE);
    writer.make_counters().unwrap();
    rig.converge(1).unwrap();
    rig.wire(Target::Control(1), Fault::CUT);
    let (path, retries) = ("/services/counter-0", |count| json!({ "retries": count }));
    let new = json!({ "name": "new", "host": "h" });
    assert_eq!(writer.ask(0, "POST", "/services", &new).unwrap(), 201);
    assert_eq!(writer.ask(0, "PATCH", path, &retries(9)).unwrap(), 200);
    // As far as the other one knows, there is nothing to delete, and it has five retries already.
    let delete = |control| {
        writer
            .ask(control, "DELETE", "/services/new", &Value::Null)
            .unwrap()
    };
    assert_eq!(delete(1), 503);
    assert_eq!(writer.ask(1, "PATCH", path, &retries(5)).unwrap(), 503);

    rig.wire(Target::Control(1), Fault::NONE);
    rig.wait_until("it deletes", |_| Ok(delete(1) == 204))
        .unwrap();
    assert_eq!(writer.ask(1, "PATCH", path, &retries(5)).unwrap(), 200);
    rig.converge(1).unwrap();
    let url = &rig.admin_urls()[0];
    let counter = rig.get(&format!("{url}{path}")).unwrap();
    assert_eq!(counter["retries"], 5);
    assert!(rig.get(&format!("{url}/services/new")).is_err());
}
