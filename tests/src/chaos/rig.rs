//! A cluster of real processes in which everything can go wrong: each program reaches each broker through a wire of
//! its own, and everybody can be killed, frozen and started again with the same ports and files.

use super::fault::{Fault, Proxy};
use crate::nats::Nats;
use crate::processes::{ControlPlane, DataPlane, freeze, thaw};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sluice_replica::keys::{SigningKey, TrustedKeys};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Whatever must happen some time, has happened by then. No promise about speed.
pub const LIVENESS: Duration = Duration::from_secs(120);
/// Between two looks at something that is expected to change.
pub(super) const PACE: Duration = Duration::from_millis(20);
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// A port may be taken by a passing connection while its owner is away.
const START_ATTEMPTS: usize = 10;

/// Somebody something can happen to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Target {
    /// A broker.
    Broker(usize),
    /// A control plane.
    Control(usize),
    /// A data plane.
    Data(usize),
}

impl Target {
    /// What it is, without its number.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Broker(_) => "broker",
            Self::Control(_) => "control plane",
            Self::Data(_) => "data plane",
        }
    }
}

/// How many of each there are, and where the first broker's streams are.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Brokers: one, or a cluster whose streams have as many copies.
    pub brokers: usize,
    /// Control planes.
    pub controls: usize,
    /// Data planes.
    pub datas: usize,
    /// A directory for the only broker's streams.
    pub store: Option<PathBuf>,
}

impl Shape {
    /// One broker, with its streams where it likes.
    pub fn new(controls: usize, datas: usize) -> Self {
        Self {
            brokers: 1,
            controls,
            datas,
            store: None,
        }
    }
}

/// The processes and the wires between them. Ended, also frozen ones, when dropped.
#[derive(Debug)]
pub struct Rig {
    controls: Vec<ControlPlane>,
    datas: Vec<DataPlane>,
    brokers: Vec<Nats>,
    /// For each control plane a proxy to each broker.
    control_wires: Vec<Vec<Proxy>>,
    data_wires: Vec<Vec<Proxy>>,
    agent: ureq::Agent,
    directory: TempDir,
}

/// What a replica says about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// What it has applied.
    pub version: u64,
    /// The chain there, in hexadecimal.
    pub chain: String,
    /// The digest there.
    pub digest: String,
    /// The version it claims to have on disk.
    pub durable: u64,
    /// What it is doing.
    pub phase: String,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
}

impl Seen {
    /// Whether it has stopped and says so.
    pub fn is_forked(&self) -> bool {
        self.phase.starts_with("forked")
    }

    /// As a status page's part about the log says it.
    pub(super) fn of(status: &Value) -> Result<Self> {
        let text = |name: &str| status[name].as_str().map(str::to_owned).context("no text");
        let durable = status["durable"]
            .as_u64()
            .or(status["durable_version"].as_u64());
        Ok(Self {
            version: status["version"].as_u64().context("no version")?,
            chain: text("chain")?,
            digest: text("digest")?,
            durable: durable.context("no durable version")?,
            phase: text("phase")?,
            last_error: text("last_error").ok(),
        })
    }
}

impl Rig {
    /// Starts everybody and waits until the log has begun.
    ///
    /// # Errors
    /// If something does not start.
    pub fn start(shape: &Shape) -> Result<Self> {
        let brokers = match (&shape.store, shape.brokers) {
            (Some(store), 1) => vec![Nats::start_in(store)?],
            (None, 1) => vec![Nats::start()?],
            (_, size) => Nats::cluster(size)?,
        };
        let directory = tempfile::tempdir()?;
        let mut rig = Self {
            brokers,
            controls: Vec::new(),
            datas: Vec::new(),
            control_wires: Vec::new(),
            data_wires: Vec::new(),
            agent: agent(),
            directory,
        };
        // Everybody's public keys must lie there before the others read them.
        for number in 0..shape.controls {
            let name = format!("cp-{number}");
            SigningKey::create(&rig.keys().join(format!("{name}.key")), &name)?;
        }
        let copies = format!("--replicas={}", shape.brokers);
        for number in 0..shape.controls {
            let wires = rig.wires()?;
            let files = rig.files(Target::Control(number));
            let control = ControlPlane::start(&urls(&wires), &files, &rig.keys(), &[&copies])?;
            rig.controls.push(control);
            rig.control_wires.push(wires);
        }
        for number in 0..shape.datas {
            let wires = rig.wires()?;
            let files = rig.files(Target::Data(number));
            let data = DataPlane::start(&urls(&wires), &files, &rig.keys(), &["--workers=1"])?;
            rig.datas.push(data);
            rig.data_wires.push(wires);
        }
        rig.wait_until("the log has begun", |rig| Ok(rig.are_at_least(1)))?;
        Ok(rig)
    }

    fn wires(&self) -> Result<Vec<Proxy>> {
        let wire = |broker: &Nats| {
            let url = broker.url();
            let address: SocketAddr = url.trim_start_matches("nats://").parse()?;
            Proxy::start(address)
        };
        self.brokers.iter().map(wire).collect()
    }

    /// Where the keys are.
    pub fn keys(&self) -> PathBuf {
        self.directory.path().join("keys")
    }

    /// The control planes' public keys.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn trusted(&self) -> Result<TrustedKeys> {
        Ok(TrustedKeys::load(&self.keys())?)
    }

    /// Somebody's directory. A broker's is that of its streams.
    pub fn files(&self, target: Target) -> PathBuf {
        let own = |name: String| self.directory.path().join(name);
        match target {
            Target::Broker(number) => self.brokers[number].store().to_owned(),
            Target::Control(number) => own(format!("cp-{number}")),
            Target::Data(number) => own(format!("dp-{number}")),
        }
    }

    /// A directory for whatever a test needs besides.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Everybody.
    pub fn targets(&self) -> Vec<Target> {
        let brokers = (0..self.brokers.len()).map(Target::Broker);
        brokers.chain(self.replicas()).collect()
    }

    /// Everybody who follows the log.
    pub fn replicas(&self) -> Vec<Target> {
        let controls = (0..self.controls.len()).map(Target::Control);
        let datas = (0..self.datas.len()).map(Target::Data);
        controls.chain(datas).collect()
    }

    /// The addresses of the Admin APIs. The same over restarts.
    pub fn admin_urls(&self) -> Vec<String> {
        self.controls.iter().map(ControlPlane::url).collect()
    }

    /// The addresses of the data planes' status pages. The same over restarts.
    pub fn status_urls(&self) -> Vec<String> {
        self.datas.iter().map(DataPlane::status_url).collect()
    }

    /// Where to reach the brokers directly.
    pub fn broker_urls(&self) -> Vec<String> {
        self.brokers.iter().map(Nats::url).collect()
    }

    /// A broker.
    pub fn broker(&mut self, number: usize) -> &mut Nats {
        &mut self.brokers[number]
    }

    /// Where a data plane takes requests.
    pub fn proxy(&self, number: usize) -> SocketAddr {
        self.datas[number].proxy()
    }

    /// Ends somebody as `kill -9` does.
    pub fn kill(&mut self, target: Target) {
        match target {
            Target::Broker(number) => self.brokers[number].kill(),
            Target::Control(number) => self.controls[number].kill(),
            Target::Data(number) => self.datas[number].kill(),
        }
    }

    /// Starts somebody again, with the same ports and files.
    ///
    /// # Errors
    /// If it does not start.
    pub fn restart(&mut self, target: Target) -> Result<()> {
        let mut last = Ok(());
        for _ in 0..START_ATTEMPTS {
            last = match target {
                Target::Broker(number) => self.brokers[number].restart(),
                Target::Control(number) => self.controls[number].restart(),
                Target::Data(number) => self.datas[number].restart(),
            };
            match &last {
                Err(error) if is_about_a_port(error) => std::thread::sleep(PACE),
                Ok(()) | Err(_) => break,
            }
        }
        last.with_context(|| format!("{target:?} does not start again"))
    }

    /// Starts everybody again: the brokers, then all others at once.
    ///
    /// # Errors
    /// If somebody does not start.
    pub fn restart_all(&mut self) -> Result<()> {
        for number in 0..self.brokers.len() {
            self.restart(Target::Broker(number))?;
        }
        self.restart_replicas()
    }

    /// Starts all but the brokers again.
    ///
    /// # Errors
    /// If somebody does not start.
    pub fn restart_replicas(&mut self) -> Result<()> {
        for target in self.replicas() {
            self.restart(target)?;
        }
        Ok(())
    }

    /// Stops somebody where it stands.
    ///
    /// # Errors
    /// If it does not run.
    pub fn freeze(&self, target: Target) -> Result<()> {
        freeze(self.process_id(target))
    }

    /// Lets somebody go on.
    ///
    /// # Errors
    /// If it does not run.
    pub fn thaw(&self, target: Target) -> Result<()> {
        thaw(self.process_id(target))
    }

    fn process_id(&self, target: Target) -> Option<u32> {
        match target {
            Target::Broker(number) => self.brokers[number].process_id(),
            Target::Control(number) => self.controls[number].process_id(),
            Target::Data(number) => self.datas[number].process_id(),
        }
    }

    /// Does something to all wires of a program. A broker is behind everybody's.
    pub fn wire(&self, target: Target, fault: Fault) {
        let all = |wires: &[Proxy]| wires.iter().for_each(|wire| wire.set(fault));
        match target {
            Target::Broker(number) => {
                let wires = self.control_wires.iter().chain(&self.data_wires);
                wires.for_each(|wires| wires[number].set(fault));
            }
            Target::Control(number) => all(&self.control_wires[number]),
            Target::Data(number) => all(&self.data_wires[number]),
        }
    }

    /// The broker that leads the log's stream, if that can be told now.
    pub fn leader(&self) -> Option<usize> {
        let ask = |broker: &Nats| {
            let url = format!("{}/jsz?streams=1", broker.monitor_url());
            let text = self.agent.get(url).call().ok()?;
            let text = text.into_body().read_to_string().ok()?;
            let shown: Value = serde_json::from_str(&text).ok()?;
            let accounts = shown["account_details"].as_array()?;
            let streams = accounts
                .iter()
                .flat_map(|account| account["stream_detail"].as_array().into_iter().flatten());
            let log = streams.into_iter().find(|stream| {
                let name = stream["name"].as_str().unwrap_or_default();
                name.starts_with("SLUICE_") && !name.ends_with("_chunks")
            });
            log?["cluster"]["leader"].as_str().map(str::to_owned)
        };
        let name = self.brokers.iter().find_map(ask)?;
        self.brokers.iter().position(|broker| broker.name() == name)
    }

    /// What a replica says about itself.
    ///
    /// # Errors
    /// If it does not answer, or is a broker.
    pub fn look(&self, target: Target) -> Result<Seen> {
        let (url, part) = match target {
            Target::Broker(_) => anyhow::bail!("a broker has no status"),
            Target::Control(number) => (self.controls[number].url(), "sluice"),
            Target::Data(number) => (self.datas[number].status_url(), "log"),
        };
        Seen::of(&self.get(&format!("{url}/status"))?[part])
    }

    /// GET of JSON, in little time.
    ///
    /// # Errors
    /// If the answer is not 200.
    pub fn get(&self, url: &str) -> Result<Value> {
        get(&self.agent, url)
    }

    fn are_at_least(&self, version: u64) -> bool {
        let reached = |target| {
            self.look(target)
                .is_ok_and(|seen| seen.version >= version && !seen.is_forked())
        };
        self.replicas().into_iter().all(reached)
    }

    /// Waits until every replica has come to a version, whatever is written meanwhile.
    ///
    /// # Errors
    /// If one does not.
    pub fn reach(&self, version: u64) -> Result<()> {
        self.wait_until(&format!("everybody is at version {version}"), |rig| {
            Ok(rig.are_at_least(version))
        })
    }

    /// Waits until every replica follows the log at the same version, at least this one; nobody must be writing.
    ///
    /// # Errors
    /// If they do not, or differ in chain or digest.
    pub fn converge(&self, least: u64) -> Result<Seen> {
        let mut end = None;
        self.wait_until("everybody follows at the same version", |rig| {
            let looks: Result<Vec<_>> = rig.replicas().into_iter().map(|t| rig.look(t)).collect();
            let Ok(looks) = looks else { return Ok(false) };
            let first = &looks[0];
            let same = looks.iter().all(|seen| {
                seen.version == first.version && seen.version >= least && seen.phase == "following"
            });
            if !same {
                return Ok(false);
            }
            for (target, seen) in rig.replicas().into_iter().zip(&looks) {
                ensure!(
                    seen.digest == first.digest && seen.chain == first.chain,
                    "{target:?} differs at version {}: {seen:?}, {first:?}",
                    first.version
                );
            }
            end = Some(first.clone());
            Ok(true)
        })?;
        end.context("no replica")
    }

    /// Waits for a state of affairs.
    ///
    /// # Errors
    /// If it does not come, or cannot be looked at.
    pub fn wait_until(
        &self,
        what: &str,
        mut holds: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + LIVENESS;
        while !holds(self)? {
            ensure!(
                Instant::now() < deadline,
                "{what}: not within {LIVENESS:?}\n{}\n{}",
                self.describe(),
                self.said()
            );
            std::thread::sleep(PACE);
        }
        Ok(())
    }

    /// Where everybody is, for the reader of a failed test.
    pub fn describe(&self) -> String {
        let describe = |target| format!("{target:?}: {:?}", self.look(target));
        let lines: Vec<_> = self.replicas().into_iter().map(describe).collect();
        lines.join("\n")
    }

    /// The end of what everybody has logged, for the reader of a failed test.
    pub fn said(&self) -> String {
        let controls = self.controls.iter().map(|control| control.said());
        let datas = self.datas.iter().map(|data| data.said());
        let brokers = self.brokers.iter().map(|broker| broker.said());
        let names = self.replicas().into_iter();
        let names = names.chain((0..self.brokers.len()).map(Target::Broker));
        names
            .zip(controls.chain(datas).chain(brokers))
            .map(|(name, said)| format!("--- {name:?}\n{}\n", tail(&said)))
            .collect()
    }

    /// Lines of our programs' logs that must never be there: panics.
    pub fn panics(&self) -> Vec<String> {
        let controls = self.controls.iter().map(ControlPlane::said);
        let said = controls.chain(self.datas.iter().map(DataPlane::said));
        said.flat_map(|said| {
            let lines = said.lines().filter(|line| line.contains("panicked at"));
            // Opening a damaged database is where a panic is expected, and caught.
            let lines = lines.filter(|line| !line.contains("store-open"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
    }
}

/// A client for status pages.
pub(super) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(STATUS_TIMEOUT))
        .build()
        .into()
}

/// GET of JSON.
pub(super) fn get(agent: &ureq::Agent, url: &str) -> Result<Value> {
    let response = agent.get(url).call()?;
    let status = response.status();
    let mut body = response.into_body();
    let text = body.with_config().limit(1 << 30).read_to_string()?;
    ensure!(status == 200, "GET {url}: {status}: {text}");
    Ok(serde_json::from_str(&text)?)
}

fn urls(wires: &[Proxy]) -> String {
    let urls = wires
        .iter()
        .map(|wire| format!("nats://{}", wire.address()));
    urls.collect::<Vec<_>>().join(",")
}

fn is_about_a_port(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}");
    text.contains("could not listen") || text.contains("address already in use")
}

fn tail(said: &str) -> String {
    const LINES: usize = 40;
    let lines: Vec<_> = said.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
