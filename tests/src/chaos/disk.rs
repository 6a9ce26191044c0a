//! Disks that are full, and disks that lose power.

use super::check::{Truth, check_history};
use super::damage::replace_tree;
use super::history::{Answer, Counts, History};
use super::mount::Mount;
use super::rig::{PACE, Rig, Seen, Shape, Target, agent, get};
use super::writer::Writer;
use crate::processes::{DataPlane, freeze};
use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const IMAGE_BYTES: u64 = 96 << 20;
/// Longer than a control plane takes to say that an outcome is unknown.
const WRITE_PATIENCE: Duration = Duration::from_secs(25);
const PATIENCE: Duration = Duration::from_secs(60);
/// How long something may take to mend by itself before it is started again.
const MEND_PATIENCE: Duration = Duration::from_secs(10);
/// Writes that are not acknowledged before the disk is taken to be full.
const REFUSALS: usize = 2;
/// Acknowledged writes before the power goes.
const WRITES: usize = 150;
const WRITERS: usize = 4;

/// What a broker does whose disk is full.
#[derive(Clone, Debug)]
pub struct FullBroker {
    /// How writes were answered while there was no room.
    pub full: Counts,
    /// What it said was wrong, last.
    pub said: Option<String>,
    /// Whether it had to be started again to take writes when there was room.
    pub restarted: bool,
    /// Acknowledged writes in all, all of them found.
    pub acknowledged: usize,
}

/// Fills the disk of the broker's store while writes go on, and makes room again.
///
/// # Errors
/// If anything acknowledged is lost, or it does not work again.
pub fn fill_broker(disk: &Mount, seed: u64) -> Result<FullBroker> {
    let mut random = StdRng::seed_from_u64(seed);
    let shape = Shape {
        store: Some(disk.path().join("jetstream")),
        ..Shape::new(2, 1)
    };
    let mut rig = Rig::start(&shape)?;
    let urls = rig.admin_urls();
    let mut writer = Writer::new(0, urls, random.random(), WRITE_PATIENCE).without_repeats();
    writer.make_counters()?;
    let before = rig.converge(1)?.version;
    let history = History::default();
    for _ in 0..50 {
        writer.step(&history);
    }
    let counted = history.counts();
    let filler = disk.fill()?;
    // There may be room in what was set aside before.
    let began = Instant::now();
    let mut full = Counts::default();
    while full.refused + full.unknown < REFUSALS && began.elapsed() < PATIENCE {
        writer.step(&history);
        let now = history.counts();
        full = Counts {
            acknowledged: now.acknowledged - counted.acknowledged,
            refused: now.refused - counted.refused,
            unknown: now.unknown - counted.unknown,
        };
    }
    let said = rig.broker(0).said();
    let said = said.lines().rfind(|line| line.contains("[ERR]"));
    let said = said.map(str::to_owned);
    drop(filler);
    let mut restarted = false;
    if !writes_again(&mut writer, &history) {
        restarted = true;
        rig.restart(Target::Broker(0))?;
        ensure!(
            writes_again(&mut writer, &history),
            "no writes although there is room\n{}\n{}",
            rig.describe(),
            rig.said()
        );
    }
    let acknowledged = check(&rig, &history, before)?;
    Ok(FullBroker {
        full,
        said,
        restarted,
        acknowledged,
    })
}

fn writes_again(writer: &mut Writer, history: &History) -> bool {
    let deadline = Instant::now() + MEND_PATIENCE;
    while Instant::now() < deadline {
        if let Answer::Acknowledged(_) = writer.create(0, history) {
            return true;
        }
        thread::sleep(PACE);
    }
    false
}

/// Compares a quiet rig with what the writers were told. Gives the number of acknowledged writes.
fn check(rig: &Rig, history: &History, before: u64) -> Result<usize> {
    let seen = rig.converge(1)?;
    let truth = Truth::read(rig.broker_urls(), &rig.trusted()?, seen.version)?;
    let summary = check_history(history, &truth, before)?;
    super::check::check_replicas(rig, &truth)?;
    Ok(summary.acknowledged)
}

/// What a data plane does whose disk is full.
#[derive(Clone, Debug)]
pub struct FullData {
    /// How far it was behind the log with its disk full.
    pub lag: u64,
    /// How far its disk was behind itself.
    pub undurable: u64,
    /// What it said was wrong.
    pub said: Option<String>,
    /// Whether it had to be started again to have everything on disk when there was room.
    pub restarted: bool,
}

/// Fills the disk of a data plane's store while writes go on, and makes room again. It must serve all the time, and say
/// what is wrong; whether it also follows is told.
///
/// # Errors
/// If it does not, or does not have everything on disk in the end.
pub fn fill_data(disk: &Mount, seed: u64) -> Result<FullData> {
    let mut random = StdRng::seed_from_u64(seed);
    let rig = Rig::start(&Shape::new(1, 1))?;
    let files = disk.path().join("dp");
    let url = rig.broker_urls().join(",");
    let mut data = DataPlane::start(&url, &files, &rig.keys(), &["--workers=1"])?;
    let mut writer = Writer::new(0, rig.admin_urls(), random.random(), WRITE_PATIENCE);
    writer.make_counters()?;
    writer.make_route("served", "/served")?;
    let history = History::default();
    for _ in 0..50 {
        writer.step(&history);
    }
    let last = rig.converge(1)?.version;
    wait(&data, "it has applied everything", |seen| {
        seen.version >= last
    })?;
    let filler = disk.fill()?;
    // Enough that sled wants more room, and that many saves fail.
    let began = Instant::now();
    while history.counts().acknowledged < 300 && began.elapsed() < PATIENCE {
        writer.step(&history);
    }
    let last = rig.converge(1)?.version;
    // sled refuses even to be read after some failures to write, and an event that changes an entity reads it first.
    let full = match wait_for(&data, MEND_PATIENCE, "it follows", |seen| {
        seen.version >= last
    }) {
        Ok(seen) => seen,
        Err(_) => look(&data)?,
    };
    ensure!(
        full.last_error.is_some(),
        "it does not say that its disk is full: {full:?}"
    );
    let lag = last.saturating_sub(full.version);
    let status = super::wreck::request(data.proxy(), "/served")?;
    ensure!(status != 404, "it does not serve with its disk full");
    drop(filler);
    let mut restarted = false;
    writer.create(0, &history);
    let last = rig.converge(last + 1)?.version;
    let durable = |seen: &Seen| seen.version >= last && seen.durable >= last;
    if wait_for(&data, MEND_PATIENCE, "it has everything on disk", durable).is_err() {
        restarted = true;
        data.restart()?;
        wait(&data, "it has everything on disk after a restart", durable)?;
    }
    let (own, others) = (look(&data)?, rig.converge(last)?);
    ensure!(
        own.digest == others.digest,
        "{own:?} differs from {others:?}"
    );
    Ok(FullData {
        lag,
        undurable: full.version - full.durable,
        said: full.last_error,
        restarted,
    })
}

fn look(data: &DataPlane) -> Result<Seen> {
    Seen::of(&get(&agent(), &format!("{}/status", data.status_url()))?["log"])
}

fn wait(data: &DataPlane, what: &str, holds: impl Fn(&Seen) -> bool) -> Result<Seen> {
    wait_for(data, PATIENCE, what, holds)
}

fn wait_for(
    data: &DataPlane,
    patience: Duration,
    what: &str,
    holds: impl Fn(&Seen) -> bool,
) -> Result<Seen> {
    let deadline = Instant::now() + patience;
    loop {
        let seen = look(data);
        if let Ok(seen) = &seen
            && holds(seen)
        {
            return Ok(seen.clone());
        }
        ensure!(
            Instant::now() < deadline,
            "{what}: not within {patience:?}: {seen:?}\n{}",
            data.said()
        );
        thread::sleep(PACE);
    }
}

/// Takes the power from the broker while writes go on: what its disk holds then is copied, and it goes on with the
/// copy. Gives the number of acknowledged writes, none of which was lost.
///
/// # Errors
/// If one was, or the copy cannot be used.
pub fn cut_power_of_broker(seed: u64, rounds: u32) -> Result<usize> {
    let mut random = StdRng::seed_from_u64(seed);
    let images = tempfile::tempdir()?;
    let mut image = images.path().join("image");
    Mount::make_image(&image, IMAGE_BYTES)?;
    // Declared before the rig, so that they are unmounted after it has ended.
    let mut disks = vec![Mount::image(&image)?];
    let shape = Shape {
        store: Some(disks[0].path().join("jetstream")),
        ..Shape::new(2, 1)
    };
    let mut rig = Rig::start(&shape)?;
    let urls = rig.admin_urls();
    let mut writer = Writer::new(WRITERS, urls.clone(), random.random(), WRITE_PATIENCE);
    writer.make_counters()?;
    let before = rig.converge(1)?.version;
    let history = History::default();
    let broker = Target::Broker(0);
    for round in 1..=rounds {
        let target = history.counts().acknowledged + WRITES;
        let stop = AtomicBool::new(false);
        let seeds: Vec<u64> = (0..WRITERS).map(|_| random.random()).collect();
        thread::scope(|scope| {
            for (number, seed) in seeds.into_iter().enumerate() {
                let number = usize::try_from(round)? * 100 + number;
                let writer = Writer::new(number, urls.clone(), seed, WRITE_PATIENCE);
                let (history, stop) = (&history, &stop);
                scope.spawn(move || writer.run(history, stop));
            }
            let cut = (|| {
                rig.wait_until("writes go on", |_| {
                    Ok(history.counts().acknowledged >= target)
                })?;
                rig.freeze(broker)?;
                let copy = images.path().join(format!("image-{round}"));
                Mount::copy_image(&image, &copy)?;
                rig.kill(broker);
                image = copy;
                let disk = Mount::image(&image)?;
                rig.broker(0).set_store(&disk.path().join("jetstream"));
                disks.push(disk);
                rig.restart(broker)
            })();
            stop.store(true, Ordering::Relaxed);
            cut
        })?;
        ensure!(
            writes_again(&mut writer, &history),
            "no writes after the power came back\n{}\n{}",
            rig.describe(),
            rig.said()
        );
        rig.converge(1)?;
    }
    let acknowledged = check(&rig, &history, before)?;
    drop(rig);
    drop(disks);
    Ok(acknowledged)
}

/// Takes the power from a data plane's disk again and again while writes go on. Gives for each time how far what it
/// started with was behind what it had applied; it must have ended up with everybody else.
///
/// # Errors
/// If it did not.
pub fn cut_power_of_data(seed: u64, rounds: u32) -> Result<Vec<u64>> {
    let mut random = StdRng::seed_from_u64(seed);
    let images = tempfile::tempdir()?;
    let image = images.path().join("image");
    Mount::make_image(&image, IMAGE_BYTES)?;
    let disk = Mount::image(&image)?;
    let rig = Rig::start(&Shape::new(1, 1))?;
    let url = rig.broker_urls().join(",");
    let start = |disk: &Mount| {
        DataPlane::start(&url, &disk.path().join("dp"), &rig.keys(), &["--workers=1"])
    };
    let data = start(&disk)?;
    let mut writer = Writer::new(0, rig.admin_urls(), random.random(), WRITE_PATIENCE);
    writer.make_counters()?;
    let history = History::default();
    let mut behind = Vec::new();
    for round in 0..rounds {
        let writes = random.random_range(5..60);
        for _ in 0..writes {
            writer.step(&history);
        }
        // At any moment between an apply, a save and a sync.
        freeze(data.process_id())?;
        let copy = images.path().join(format!("image-{round}"));
        Mount::copy_image(&image, &copy)?;
        crate::processes::thaw(data.process_id())?;
        let before = look(&data)?;
        let copied = Mount::image(&copy)?;
        // Nobody is there to catch up with: what shows is what was on the disk.
        let alone = tempfile::tempdir()?;
        let files = alone.path().join("dp");
        replace_tree(&copied.path().join("dp"), &files)?;
        let nowhere = "nats://127.0.0.1:9";
        let old = DataPlane::start(nowhere, &files, &rig.keys(), &["--workers=1"])?;
        let seen = wait(&old, "it has started", |_| true)?;
        check_old(&rig, &seen)?;
        drop(old);
        behind.push(before.version.saturating_sub(seen.version));
        let again = start(&copied)?;
        let end = rig.converge(1)?;
        let seen = wait(&again, "it is where the others are", |seen| {
            seen.version >= end.version
        })?;
        ensure!(seen.digest == end.digest, "{seen:?} differs from {end:?}");
    }
    drop(data);
    Ok(behind)
}

/// What shows after a power cut is a state that was.
fn check_old(rig: &Rig, seen: &Seen) -> Result<()> {
    if seen.version == 0 {
        return Ok(());
    }
    let truth = Truth::read(rig.broker_urls(), &rig.trusted()?, seen.version)?;
    let marks = truth.marks();
    let mark = marks
        .get(&seen.version)
        .context("a version that never was")?;
    ensure!(
        *mark == (seen.chain.clone(), seen.digest.clone()),
        "{seen:?} was {mark:?}"
    );
    Ok(())
}
