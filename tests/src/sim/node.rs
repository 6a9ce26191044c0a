//! A node: the real control plane or the real replica of a data plane, as a process that can be ended at any moment.

use super::broker::EPOCH_START_US;
use super::dice::Dice;
use super::disk::{End, SimDisk};
use super::network::Network;
use super::serving::{Rank, Serving, rank};
use super::trace::{Trace, note};
use super::truth::Truth;
use sluice_cp::core::{self, Core, Tasks};
use sluice_cp::snapshots::Policy;
use sluice_replica::environment::{Environment, Surroundings};
use sluice_replica::keys::{Keychain, SigningKey, TrustedKeys};
use sluice_replica::log::{Interest, Source};
use sluice_replica::node::SyncMode;
use sluice_replica::run::{Options, Replica, Status};
use sluice_replica::store::{Opened, Store};
use sluice_schema::seal::Seals;
use sluice_schema::version::{Cursor, Time, Version};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Out of 10,000 times, work that blocks takes a while.
const WORK_IS_SLOW: u32 = 3000;
const WORK_MAX_MS: u64 = 80;

/// What a node is.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "eight of them, made once a run")]
pub(crate) enum Role {
    /// A control plane that signs with this key.
    Control(SigningKey),
    /// A data plane.
    Data,
}

/// The clock and the chance of one node.
#[derive(Debug)]
pub(crate) struct World {
    began: Instant,
    /// How far its clock is ahead, in microseconds.
    ahead_us: u64,
    dice: Mutex<Dice>,
}

impl Surroundings for World {
    fn now(&self) -> Time {
        let passed = Instant::now().duration_since(self.began).as_micros();
        Time(EPOCH_START_US + self.ahead_us + u64::try_from(passed).unwrap_or(0))
    }

    fn fill(&self, bytes: &mut [u8]) {
        self.dice
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .fill(bytes);
    }

    fn threads(&self) -> bool {
        false
    }

    fn work_takes(&self) -> Duration {
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        match dice.chance(WORK_IS_SLOW) {
            true => dice.milliseconds(1, WORK_MAX_MS),
            false => Duration::ZERO,
        }
    }
}

/// A node, running or not.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its name in traces.
    pub(crate) name: String,
    /// Its number at the broker.
    pub(crate) client: usize,
    /// Its disk.
    pub(crate) disk: SimDisk,
    /// What it serves.
    pub(crate) serving: Serving,
    /// Whether a bit of its last known good copy has flipped.
    copy_flipped: bool,
    /// Whether its disk has refused a write since it started: what it applied since may not be in its journal.
    pub(crate) troubled: bool,
    role: Role,
    trusted: TrustedKeys,
    environment: Environment,
    network: Network,
    trace: Trace,
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    tasks: Tasks,
    shutdown: CancellationToken,
    status: watch::Receiver<Status>,
    core: Option<Core>,
    gone: CancellationToken,
}

/// What all nodes share.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub(crate) seed: u64,
    pub(crate) network: Network,
    pub(crate) trace: Trace,
    pub(crate) truth: Truth,
    pub(crate) trusted: TrustedKeys,
}

impl Node {
    /// A node that does not run yet, with an empty disk.
    pub(crate) fn new(common: &Common, client: usize, name: String, role: Role) -> Self {
        let number = client as u64;
        let mut dice = Dice::new(common.seed, 1000 + number);
        let world = World {
            began: Instant::now(),
            ahead_us: dice.below(2_000_000),
            dice: Mutex::new(dice),
        };
        Self {
            client,
            disk: SimDisk::new(common.seed, number, name.clone(), common.trace.clone()),
            serving: Serving::new(&name, common.trace.clone(), common.truth.clone()),
            copy_flipped: false,
            troubled: false,
            role,
            trusted: common.trusted.clone(),
            environment: Environment::new(Arc::new(world)),
            network: common.network.clone(),
            trace: common.trace.clone(),
            process: None,
            name,
        }
    }

    /// Whether it runs.
    pub(crate) fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Its core, if it is a control plane that runs.
    pub(crate) fn core(&self) -> Option<&Core> {
        self.process.as_ref()?.core.as_ref()
    }

    /// Cancelled when the process that runs now ends.
    pub(crate) fn gone(&self) -> Option<CancellationToken> {
        Some(self.process.as_ref()?.gone.clone())
    }

    /// What its replica says, if it runs.
    pub(crate) fn status(&self) -> Option<Status> {
        Some(self.process.as_ref()?.status.borrow().clone())
    }

    /// What it serves, or served last.
    pub(crate) fn cursor(&self) -> Cursor {
        match self.core() {
            Some(core) => core.view.state().cursor(),
            None => self.serving.cursor(),
        }
    }

    /// The program starts. It may find its disk unusable, and end at once.
    pub(crate) fn start(&mut self) {
        if self.process.is_some() {
            return;
        }
        self.troubled = false;
        let opened = match Store::open_on(self.disk.mount()) {
            Ok(opened) => opened,
            Err(error) => {
                note!(self.trace, "{}: cannot start: {error}", self.name);
                self.disk.end(End::Kill);
                return;
            }
        };
        let source = self.network.connect(self.client);
        let (tasks, shutdown) = (Tasks::new(), CancellationToken::new());
        match self.launch(opened, source, tasks, shutdown) {
            Ok(process) => self.process = Some(process),
            Err(error) => {
                note!(self.trace, "{}: cannot start: {error:#}", self.name);
                self.network.hang_up(self.client);
                self.disk.end(End::Kill);
            }
        }
    }

    fn launch(
        &self,
        opened: Opened,
        source: Source,
        mut tasks: Tasks,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Process> {
        let (cursor, digest) = (opened.store.cursor(), opened.store.digest());
        let warning = opened
            .warning()
            .map(|text| format!(": {text}"))
            .unwrap_or_default();
        note!(
            self.trace,
            "{}: starts at {}{warning}",
            self.name,
            cursor.version
        );
        opened
            .store
            .read_all(|entities| self.serving.start(cursor, digest, entities))?;
        let (status, core) = match &self.role {
            Role::Control(key) => {
                let parts = core::Parts {
                    source,
                    opened,
                    key: key.clone(),
                    keychain: Keychain::fixed(self.trusted.clone()),
                    sync: SyncMode::Incremental,
                    snapshots: Policy {
                        events: 25,
                        ..Policy::default()
                    },
                    environment: self.environment.clone(),
                    seals: Seals::default(),
                };
                let core = core::start(parts, &mut tasks, &shutdown)?;
                (core.view.watch(), Some(core))
            }
            Role::Data => {
                let options = Options {
                    keychain: Keychain::fixed(self.trusted.clone()),
                    sync: SyncMode::Incremental,
                    interest: Interest::Follow,
                    reports: None,
                    heads: None,
                    environment: self.environment.clone(),
                };
                let sink = Box::new(self.serving.clone());
                let replica = Replica::new(source, opened.store, sink, options);
                let (status, token) = (replica.status(), shutdown.clone());
                tasks.spawn(async move { Ok(replica.run(token).await.map(|()| "replica")?) });
                (status, None)
            }
        };
        Ok(Process {
            tasks,
            shutdown,
            status,
            core,
            gone: CancellationToken::new(),
        })
    }

    /// The program is killed, or the machine loses power. What the disk must still have afterwards is remembered.
    pub(crate) fn end(&mut self, end: End) {
        self.look();
        let Some(process) = self.process.take() else {
            return;
        };
        let (durable, served) = (process.status.borrow().durable, self.serving.cursor());
        process.gone.cancel();
        drop(process);
        self.network.hang_up(self.client);
        let lost = self.disk.end(end);
        let floor: Rank = match end {
            _ if lost || durable == Version::ZERO && end == End::PowerCut => Rank::default(),
            End::Kill if !self.troubled => rank(served),
            End::Kill if durable == Version::ZERO => Rank::default(),
            End::Kill | End::PowerCut => (served.epoch, durable.min(served.version)),
        };
        note!(
            self.trace,
            "{}: {end:?} at {}, durable {durable}",
            self.name,
            served.version
        );
        self.serving.forgive(floor);
        let expects = lost && self.disk.has_good_copy() && !self.copy_flipped;
        self.serving.expect_something(expects);
    }

    /// A bit flips on its disk while it does not run.
    pub(crate) fn flip(&mut self, in_copy: bool) {
        let had_copy = self.disk.has_good_copy();
        if let Some(place) = self.disk.flip(in_copy) {
            self.copy_flipped |= place.starts_with("good/");
            self.serving.forgive(Rank::default());
            let expects = had_copy && !self.copy_flipped;
            self.serving.expect_something(expects);
        }
    }

    /// An old copy of its disk is put back while it does not run.
    pub(crate) fn restore(&mut self) {
        if self.disk.restore() {
            note!(self.trace, "{}: an old copy of its disk is back", self.name);
            self.serving.forgive(Rank::default());
        }
    }

    /// Its disk is replaced while it does not run.
    pub(crate) fn wipe(&mut self) {
        note!(self.trace, "{}: its disk is empty", self.name);
        self.disk.wipe();
        self.serving.forgive(Rank::default());
        self.serving.expect_something(false);
    }

    /// The program is asked to stop.
    pub(crate) fn ask_to_stop(&self) {
        if let Some(process) = &self.process {
            process.shutdown.cancel();
        }
    }

    /// Whether a part of it has ended by itself: the program ends then. After [`Node::ask_to_stop`] that is as it should be.
    pub(crate) fn has_ended(&mut self) -> bool {
        let Some(process) = &mut self.process else {
            return false;
        };
        match process.tasks.try_join_next() {
            Some(Ok(Ok(part))) => note!(self.trace, "{}: its {part} has ended", self.name),
            Some(Ok(Err(error))) => note!(self.trace, "{}: ends: {error:#}", self.name),
            Some(Err(error)) => self
                .trace
                .broken("I12", format!("{}: a task panicked: {error}", self.name)),
            None => return false,
        }
        true
    }

    /// Checks what a control plane shows.
    pub(crate) fn look(&self) {
        if let Some(core) = self.core() {
            self.serving.shows(&core.view.state());
        }
    }
}
