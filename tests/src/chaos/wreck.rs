//! Runs in which stored bytes are damaged while nobody uses them, and what must be true then.
//!
//! The promise is never that all is well. It is that no replica serves or reports a state that is not the fold of the
//! acknowledged history; that a replica either follows or says that it has stopped; and that a damaged local store
//! mends itself.

use super::check::Truth;
use super::damage::{Hit, files, replace_tree};
use super::rig::{Rig, Seen, Shape, Target};
use super::writer::{PATIENCE, Writer};
use super::{history, rig};
use crate::processes::DataPlane;
use anyhow::{Context, Result, bail, ensure};
use history::{Answer, History};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sluice_replica::store::Store;
use sluice_schema::digest::Accumulator;
use sluice_schema::version::Version;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Writes before the files are copied for the first time, and again before the second.
const WRITES: usize = 120;
/// How long a store may take to open, whatever is wrong with it.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a replica gets to follow or to say that it does not.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a write after a damage may take.
const WRITE_PATIENCE: Duration = Duration::from_secs(6);
/// What comes of no damage.
const UNDAMAGED: &str =
    "0 of 3 replicas stopped, 2 new writes acknowledged, a new data plane has all";
/// A request that the configuration serves.
const SERVED: &str = "/served";

/// A cluster with a history, stopped, and copies of everybody's files: of half of the history, and of all of it.
#[derive(Debug)]
pub struct Wreck {
    rig: Rig,
    copies: TempDir,
    truth: Truth,
    marks: BTreeMap<u64, (String, String)>,
    random: StdRng,
}

/// What damages have led to, by name.
pub type Tally = BTreeMap<String, u32>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Age {
    /// Of half of the history.
    Old,
    /// Of all of it, of processes that were killed.
    New,
    /// Of all of it, of a broker that was stopped in order: it believes its index then.
    Stopped,
}

impl Wreck {
    /// Builds the history.
    ///
    /// # Errors
    /// If that cannot be done.
    pub fn build(seed: u64) -> Result<Self> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut rig = Rig::start(&Shape::new(2, 1))?;
        let mut writer = Writer::new(0, rig.admin_urls(), random.random(), PATIENCE);
        writer.make_counters()?;
        writer.make_route("served", SERVED)?;
        let history = History::default();
        let copies = tempfile::tempdir()?;
        for age in [Age::Old, Age::New] {
            for _ in 0..WRITES {
                writer.step(&history);
            }
            // What is on disk by then is most of it, and some of it only in the journal.
            rig.converge(1)?;
            for target in rig.targets() {
                rig.kill(target);
                replace_tree(&rig.files(target), &copy_of(copies.path(), target, age))?;
            }
            rig.restart_all()?;
        }
        rig.converge(1)?;
        let broker = Target::Broker(0);
        rig.broker(0).stop()?;
        replace_tree(
            &rig.files(broker),
            &copy_of(copies.path(), broker, Age::Stopped),
        )?;
        rig.restart(broker)?;
        let last = rig.converge(1)?.version;
        let truth = Truth::read(rig.broker_urls(), &rig.trusted()?, last)?;
        for target in rig.targets() {
            rig.kill(target);
        }
        let marks = truth.marks();
        Ok(Self {
            rig,
            copies,
            truth,
            marks,
            random,
        })
    }

    /// Puts everybody's files back as they were when all was well.
    fn restore(&mut self) -> Result<()> {
        for target in self.rig.targets() {
            self.rig.kill(target);
            self.restore_one(target, Age::New)?;
        }
        Ok(())
    }

    fn restore_one(&self, target: Target, age: Age) -> Result<()> {
        let copy = copy_of(self.copies.path(), target, age);
        replace_tree(&copy, &self.rig.files(target))
    }

    /// Opens damaged copies of a real store as a program does: what opens is a state that was, and can go on from
    /// there.
    ///
    /// # Errors
    /// With the first that is not so.
    pub fn damage_stores(&mut self, count: u32, tally: &mut Tally) -> Result<()> {
        let scratch = tempfile::tempdir()?;
        for number in 1..=count {
            let target = match self.random.random_bool(0.5) {
                true => Target::Data(0),
                false => Target::Control(0),
            };
            let intact = copy_of(self.copies.path(), target, Age::New);
            let directory = scratch.path().join(number.to_string());
            replace_tree(&intact, &directory)?;
            let hits = self.hit_store(&directory)?;
            let outcome = self
                .open_damaged(&directory)
                .with_context(|| format!("{target:?}: {}", list(&hits)))?;
            *tally.entry(format!("store: {outcome}")).or_default() += 1;
            std::fs::remove_dir_all(&directory)?;
        }
        Ok(())
    }

    /// One damage to a program's files, sometimes several.
    fn hit_store(&mut self, directory: &Path) -> Result<Vec<Hit>> {
        let mut hits = Vec::new();
        let count = match self.random.random_range(0..5) {
            0 => 3,
            _ => 1,
        };
        for _ in 0..count {
            let all = files(directory)?.into_iter();
            let stored: Vec<_> = all.filter(|file| is_of_store(file)).collect();
            if stored.is_empty() {
                break;
            }
            let hit = Hit::draw(&mut self.random, directory, &stored)?;
            hit.strike(directory)?;
            hits.push(hit);
        }
        Ok(hits)
    }

    fn open_damaged(&self, directory: &Path) -> Result<&'static str> {
        let path = directory.join("store");
        let (sender, opened) = mpsc::channel();
        thread::spawn(move || {
            // Nobody may be waiting any more.
            let _ = sender.send(Store::open(&path));
        });
        let opened = opened.recv_timeout(OPEN_TIMEOUT);
        let mut opened = opened.context("the store does not open in time, or panics")??;
        let cursor = opened.store.cursor();
        let sum = opened.store.read_all(|entities| {
            let mut sum = Accumulator::default();
            entities.for_each(|(key, entry)| sum.add(&key, &entry.body));
            sum
        })?;
        ensure!(
            sum.digest() == opened.store.digest(),
            "the entities are not those of the digest"
        );
        self.check_mark(
            cursor.version.0,
            &cursor.chain.to_string(),
            &sum.digest().to_string(),
        )?;
        let outcome = match (&opened.moved_aside, cursor.version) {
            (Some(_), _) => "moved aside",
            (None, version) if version == self.truth.state.version() => "all there",
            (None, Version::ZERO) => "empty",
            (None, _) => "an older state",
        };
        let rest = usize::try_from(cursor.version.0)?;
        let events = self.truth.events.iter().zip(&self.truth.records);
        for (event, record) in events.skip(rest) {
            opened.store.apply([(event, event.cursor(&record.event))])?;
        }
        ensure!(
            opened.store.digest() == self.truth.state.digest(),
            "it went on to another state than the log's"
        );
        Ok(outcome)
    }

    /// Whether a version, chain and digest were once the acknowledged history's.
    fn check_mark(&self, version: u64, chain: &str, digest: &str) -> Result<()> {
        if version == 0 {
            let empty = Accumulator::default().digest().to_string();
            ensure!(
                digest == empty,
                "nothing is applied, but the digest is {digest}"
            );
            return Ok(());
        }
        let mark = self.marks.get(&version);
        let (own_chain, own_digest) =
            mark.with_context(|| format!("there never was a version {version}"))?;
        ensure!(
            own_chain == chain && own_digest == digest,
            "at version {version} is {digest} with chain {chain}, and was {own_digest} with {own_chain}"
        );
        Ok(())
    }

    /// Damages a real program's files, and lets it start with the log intact: it must end where the others are.
    ///
    /// # Errors
    /// If it does not.
    pub fn damage_programs(&mut self, count: u32, tally: &mut Tally) -> Result<()> {
        self.restore()?;
        self.rig.restart_all()?;
        let last = self.truth.state.version().0;
        self.rig.converge(last)?;
        for _ in 0..count {
            let replicas = self.rig.replicas();
            let target = replicas[self.random.random_range(0..replicas.len())];
            self.rig.kill(target);
            let directory = self.rig.files(target);
            let what = match self.random.random_range(0..6) {
                0 => {
                    self.restore_one(target, Age::Old)?;
                    "an old copy of its files".to_owned()
                }
                1 => {
                    std::fs::remove_dir_all(&directory)?;
                    std::fs::create_dir_all(&directory)?;
                    "no files at all".to_owned()
                }
                _ => {
                    self.restore_one(target, Age::New)?;
                    list(&self.hit_store(&directory)?)
                }
            };
            self.rig
                .restart(target)
                .with_context(|| format!("{target:?} with {what}"))?;
            let seen = self
                .rig
                .converge(last)
                .with_context(|| format!("{target:?} with {what}"))?;
            self.check_mark(seen.version, &seen.chain, &seen.digest)?;
            self.check_served()?;
            *tally
                .entry(format!("{}: back where the others are", target.kind()))
                .or_default() += 1;
        }
        let panics = self.rig.panics();
        ensure!(panics.is_empty(), "somebody panicked: {panics:?}");
        Ok(())
    }

    fn check_served(&self) -> Result<()> {
        let status = request(self.rig.proxy(0), SERVED)?;
        // There is nobody behind the service: 502 and 503 say that the route was found.
        ensure!(status != 404, "the data plane has lost its configuration");
        Ok(())
    }

    /// Damages the broker's files under replicas that know better, and under one that knows nothing.
    ///
    /// # Errors
    /// If a replica shows something that never was, neither follows nor says so, or a write is acknowledged that
    /// takes the place of another.
    pub fn damage_broker(&mut self, count: u32, tally: &mut Tally) -> Result<()> {
        for number in 0..count {
            self.restore()?;
            // Once without any damage, to see that it is the damage that makes the difference.
            let what = match number {
                0 => "a broker that was killed, undamaged".to_owned(),
                _ => self.hit_broker()?,
            };
            eprintln!("{what}");
            let outcome = self
                .live_with_damaged_log()
                .with_context(|| format!("{what}\n{}", self.rig.said()))?;
            eprintln!("  {outcome}");
            *tally.entry(format!("broker: {outcome}")).or_default() += 1;
            ensure!(
                number > 0 || outcome == UNDAMAGED,
                "without any damage: {outcome}"
            );
        }
        self.restore()
    }

    /// Damages the log's stream as in reference/reliability.md, 1.2.
    fn hit_broker(&mut self) -> Result<String> {
        let broker = Target::Broker(0);
        let directory = self.rig.files(broker);
        let mut how = "killed";
        if self.random.random_bool(0.5) {
            how = "stopped";
            self.restore_one(broker, Age::Stopped)?;
        }
        if self.random.random_range(0..7) == 0 {
            self.restore_one(broker, Age::Old)?;
            return Ok("an old copy of the broker's files".to_owned());
        }
        let blocks: Vec<_> = files(&directory)?
            .into_iter()
            .filter(|file| is_block_of_log(file))
            .collect();
        let hit = Hit::draw(&mut self.random, &directory, &blocks)?;
        hit.strike(&directory)?;
        Ok(format!("a {how} broker, {hit}"))
    }

    fn live_with_damaged_log(&mut self) -> Result<String> {
        // Over some damages nats-server never comes to an end of reading its files.
        if let Err(error) = self.rig.restart(Target::Broker(0)) {
            eprintln!("  {error:#.300}");
            return self.live_without_broker();
        }
        self.rig.restart_replicas()?;
        // A data plane that has seen nothing yet has only the log to go by.
        let fresh_files = self.copies.path().join("dp-fresh");
        if fresh_files.exists() {
            std::fs::remove_dir_all(&fresh_files)?;
        }
        let url = self.rig.broker_urls().join(",");
        let fresh = DataPlane::start(&url, &fresh_files, &self.rig.keys(), &["--workers=1"])?;
        let last = self.truth.state.version().0;
        let mut phases = Vec::new();
        for target in self.rig.replicas() {
            let seen = self.settle(target, last)?;
            self.check_mark(seen.version, &seen.chain, &seen.digest)
                .with_context(|| format!("{target:?}"))?;
            ensure!(seen.version == last, "{target:?} went back: {seen:?}");
            if target == Target::Data(0) && seen.is_forked() {
                self.check_told(last)?;
            }
            phases.push(seen.is_forked());
        }
        self.check_served()?;
        let acknowledged = self.write_on(last)?;
        // Nothing that was acknowledged is seen replaced, by those who knew it.
        for target in self.rig.replicas() {
            let seen = self.rig.look(target)?;
            if seen.version <= last {
                self.check_mark(seen.version, &seen.chain, &seen.digest)?;
            }
        }
        let agent = rig::agent();
        let seen = look(&agent, &fresh)?;
        if seen.version <= last {
            self.check_mark(seen.version, &seen.chain, &seen.digest)
                .context("a new data plane")?;
        }
        let forked = phases.iter().filter(|forked| **forked).count();
        let fresh = match (seen.is_forked(), seen.version >= last) {
            (true, _) => "says so",
            (false, true) => "has all",
            (false, false) => "has less",
        };
        Ok(format!(
            "{forked} of {} replicas stopped, {acknowledged} new writes acknowledged, a new data plane {fresh}",
            phases.len()
        ))
    }

    /// Everybody has what it had, and data planes serve it.
    fn live_without_broker(&mut self) -> Result<String> {
        self.rig.kill(Target::Broker(0));
        self.rig.restart_replicas()?;
        let last = self.truth.state.version().0;
        for target in self.rig.replicas() {
            let seen = self.rig.look(target)?;
            self.check_mark(seen.version, &seen.chain, &seen.digest)
                .with_context(|| format!("{target:?}"))?;
            ensure!(seen.version == last, "{target:?} went back: {seen:?}");
        }
        self.check_served()?;
        Ok("it does not start any more".to_owned())
    }

    /// The control planes tell that a data plane has stopped at this version.
    fn check_told(&self, version: u64) -> Result<()> {
        let urls = self.rig.admin_urls();
        self.rig
            .wait_until("/nodes tells of a data plane that has stopped", |rig| {
                let told = |url: &String| {
                    let nodes = rig.get(&format!("{url}/nodes")).ok()?;
                    let nodes = nodes["data"].as_array()?.clone();
                    Some(nodes.iter().any(|node| {
                        let phase = node["phase"].as_str().unwrap_or_default();
                        phase.starts_with("forked") && node["version"] == version
                    }))
                };
                Ok(urls.iter().all(|url| told(url) == Some(true)))
            })
    }

    /// Waits until a replica follows a log that has what it has, or says that it has stopped.
    fn settle(&self, target: Target, last: u64) -> Result<Seen> {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        let fold = self.is_log_intact_at(last)?;
        loop {
            let seen = self.rig.look(target);
            if let Ok(seen) = seen {
                let follows = seen.phase == "following" && seen.version >= last;
                if seen.is_forked() || (follows && fold) {
                    return Ok(seen);
                }
                ensure!(
                    Instant::now() < deadline,
                    "{target:?} neither follows nor says that it has stopped: {seen:?}"
                );
            }
            ensure!(
                Instant::now() < deadline,
                "{target:?} does not answer any more"
            );
            thread::sleep(rig::PACE);
        }
    }

    /// Whether the log still has the last record as it was.
    fn is_log_intact_at(&self, last: u64) -> Result<bool> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let record = runtime.block_on(async {
            let source = super::check::connect(self.rig.broker_urls()).await?;
            let deadline = Instant::now() + SETTLE_TIMEOUT;
            loop {
                match source.log.read(Version(last)).await {
                    Ok(page) => return anyhow::Ok(page.records.into_iter().next()),
                    Err(error) if Instant::now() > deadline => return Err(error.into()),
                    Err(_) => tokio::time::sleep(rig::PACE).await,
                }
            }
        })?;
        Ok(record.as_ref() == self.truth.records.last())
    }

    /// Tries to write through each control plane, and counts what is acknowledged.
    fn write_on(&mut self, last: u64) -> Result<u32> {
        let history = History::default();
        let urls = self.rig.admin_urls();
        let mut writer = Writer::new(9, urls.clone(), self.random.random(), WRITE_PATIENCE);
        let mut acknowledged = 0;
        for control in 0..urls.len() {
            match writer.create(control, &history) {
                Answer::Acknowledged(version) if version > last => acknowledged += 1,
                Answer::Acknowledged(version) => bail!(
                    "control plane {control} acknowledged a write at version {version}; {last} was acknowledged before"
                ),
                Answer::Refused(..) | Answer::Unknown(_) => {}
            }
        }
        Ok(acknowledged)
    }
}

fn copy_of(copies: &Path, target: Target, age: Age) -> PathBuf {
    copies.join(format!("{target:?}-{age:?}"))
}

fn list(hits: &[Hit]) -> String {
    let hits: Vec<_> = hits.iter().map(ToString::to_string).collect();
    hits.join(", ")
}

/// Everything but the program's own log of what it did, and the id it reports under.
fn is_of_store(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default();
    name != "log" && name != "node_id"
}

fn is_block_of_log(file: &Path) -> bool {
    let text = file.to_string_lossy();
    text.ends_with(".blk") && text.contains("SLUICE_main/")
}

fn look(agent: &ureq::Agent, data: &DataPlane) -> Result<Seen> {
    let status = rig::get(agent, &format!("{}/status", data.status_url()))?;
    Seen::of(&status["log"])
}

/// Sends one request through a data plane and gives its status.
///
/// # Errors
/// If there is no answer.
pub fn request(proxy: std::net::SocketAddr, path: &str) -> Result<u16> {
    let agent = rig::agent();
    let response = agent.get(format!("http://{proxy}{path}")).call()?;
    Ok(response.status().as_u16())
}
