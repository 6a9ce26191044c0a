//! The control plane without its Admin API: a replica of the log, the writer, and what it tells others.
//!
//! Everything here runs on whatever clock, log and disk it is given: the simulator drives exactly this.

use crate::snapshots::{self, Policy};
use crate::view::{RECENT_EVENTS_MAX, ViewSink};
use crate::{Fleet, Snapshots, View, Writer};
use anyhow::Context;
use sluice_replica::environment::Environment;
use sluice_replica::follow::{Fork, Phase};
use sluice_replica::keys::{Keychain, SigningKey};
use sluice_replica::log::{Durability, Interest, LogError, Source};
use sluice_replica::node::{Head, SyncMode};
use sluice_replica::run::{Options, Replica};
use sluice_replica::store::Opened;
use sluice_schema::event::Event;
use sluice_schema::seal::Seals;
use sluice_schema::state::State;
use sluice_schema::version::Version;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const HEAD_INTERVAL: Duration = Duration::from_secs(1);
/// Between two attempts to read the recent events.
const RECENT_RETRY: Duration = Duration::from_millis(200);
const DURABILITY_INTERVAL: Duration = Duration::from_secs(10);
const REPORTS_WAITING_MAX: usize = 4096;

/// What a control plane's core is made of.
#[derive(Debug)]
pub struct Parts {
    /// The log.
    pub source: Source,
    /// The local store, opened.
    pub opened: Opened,
    /// What it signs with.
    pub key: SigningKey,
    /// Whose events it believes.
    pub keychain: Keychain,
    /// How data planes are asked to take up changes.
    pub sync: SyncMode,
    /// When snapshots are cut.
    pub snapshots: Policy,
    /// The clock, chance, threads.
    pub environment: Environment,
    /// What secrets are sealed with.
    pub seals: Seals,
}

/// The tasks of a control plane; each gives its name when it ends.
pub type Tasks = JoinSet<anyhow::Result<&'static str>>;

/// A core that is running.
#[derive(Clone, Debug)]
pub struct Core {
    /// The control plane's own id, new at each start.
    pub id: Uuid,
    /// Takes commands.
    pub writer: Writer,
    /// The folded state.
    pub view: View,
    /// The nodes that report.
    pub fleet: Fleet,
    /// Asks for snapshots.
    pub snapshots: Snapshots,
    /// Whether acknowledged writes are synced to disk.
    pub durability: watch::Receiver<Durability>,
}

/// Starts a core: its tasks go into `tasks` and run until `shutdown`.
///
/// # Errors
/// If the local store cannot be read.
pub fn start(
    parts: Parts,
    tasks: &mut Tasks,
    shutdown: &CancellationToken,
) -> anyhow::Result<Core> {
    let id = parts.environment.random_uuid();
    let fleet = Fleet::new(parts.environment.clone());
    let common = Common {
        source: parts.source,
        keychain: parts.keychain,
        environment: parts.environment,
        seals: parts.seals,
    };
    let view = follow(parts.opened, &common, &fleet, tasks, shutdown)?;
    let (source, keychain) = (common.source, common.keychain);
    let (environment, key) = (common.environment, parts.key);

    let others = fleet.clone();
    let (writer, writing) = Writer::new(
        source.clone(),
        view.clone(),
        key.clone(),
        keychain.watch(),
        move || others.has_other_control_planes(id),
        environment.clone(),
        shutdown.clone(),
    );
    let (snapshots, cutting) = snapshots::start(
        snapshots::Parts {
            id,
            source: source.clone(),
            view: view.clone(),
            key: key.clone(),
            keychain: keychain.clone(),
            policy: parts.snapshots,
            environment: environment.clone(),
        },
        shutdown.clone(),
    );
    let (durable, durability) = watch::channel(Durability::Unknown("not asked yet".into()));
    let announcer = Announcer {
        id,
        source: source.clone(),
        view: view.clone(),
        fleet: fleet.clone(),
        snapshots: snapshots.clone(),
        key,
        keychain: keychain.clone(),
        sync: parts.sync,
        environment: environment.clone(),
    };
    let token = shutdown.clone();
    tasks.spawn(async move {
        keychain.run(environment, token).await;
        Ok("keychain")
    });
    tasks.spawn(async move {
        writing.await;
        Ok("writer")
    });
    tasks.spawn(cutting);
    tasks.spawn(announcer.run(shutdown.clone()));
    tasks.spawn(remember_recent(
        source.clone(),
        view.clone(),
        shutdown.clone(),
    ));
    tasks.spawn(watch_durability(source, durable, shutdown.clone()));
    Ok(Core {
        id,
        writer,
        view,
        fleet,
        snapshots,
        durability,
    })
}

/// What most parts of a core need.
struct Common {
    source: Source,
    keychain: Keychain,
    environment: Environment,
    seals: Seals,
}

/// Loads the local store and follows the log from there.
fn follow(
    opened: Opened,
    common: &Common,
    fleet: &Fleet,
    tasks: &mut Tasks,
    shutdown: &CancellationToken,
) -> anyhow::Result<View> {
    let cursor = opened.store.cursor();
    let state = opened
        .store
        .read_all(|entities| State::restore(cursor, entities))
        .context("could not read the local store")?
        .with_seals(common.seals.clone());
    tracing::info!(version = %state.version(), entities = state.len(), "loaded the local store");

    let (reports, report_inbox) = mpsc::channel(REPORTS_WAITING_MAX);
    let (heads, head_inbox) = mpsc::channel(REPORTS_WAITING_MAX);
    let sink = ViewSink::new(state, fleet.clone());
    let options = Options {
        keychain: common.keychain.clone(),
        sync: SyncMode::Incremental,
        interest: Interest::FollowAndReports,
        reports: Some(reports),
        heads: Some(heads),
        environment: common.environment.clone(),
    };
    let replica = Replica::new(
        common.source.clone(),
        opened.store,
        Box::new(sink.clone()),
        options,
    );
    let view = sink.view(&replica);
    let (reporting, announcing, token) = (fleet.clone(), fleet.clone(), shutdown.clone());
    tasks.spawn(async move { Ok(replica.run(token).await.map(|()| "replica")?) });
    tasks.spawn(async move {
        reporting.collect(report_inbox).await;
        Ok("node reports")
    });
    tasks.spawn(async move {
        announcing.collect_heads(head_inbox).await;
        Ok("heads")
    });
    Ok(view)
}

/// Announces where the log ends: every second, and at once when somebody waits for nodes to get there.
struct Announcer {
    id: Uuid,
    source: Source,
    view: View,
    fleet: Fleet,
    snapshots: Snapshots,
    key: SigningKey,
    keychain: Keychain,
    sync: SyncMode,
    environment: Environment,
}

impl Announcer {
    async fn run(self, shutdown: CancellationToken) -> anyhow::Result<&'static str> {
        let mut first = Version::GENESIS;
        let mut tick = tokio::time::interval(HEAD_INTERVAL);
        let mut asked = self.fleet.asked();
        loop {
            let is_due = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok("head announcer"),
                _ = tick.tick() => true,
                // The fleet is there as long as we are.
                Ok(()) = asked.changed() => false,
            };
            let cursor = self.view.state().cursor();
            let status = self.view.status();
            // A control plane that no longer follows the log has nothing to say about where it ends, unless it has more:
            // one that begins with nothing must not write over that.
            let follows = match status.phase {
                Phase::Forked(Fork::Behind { .. }) => true,
                Phase::Forked(_) => false,
                Phase::Disconnected | Phase::CatchingUp | Phase::Loading | Phase::Following => true,
            };
            let follows = follows && status.connected;
            // Nor would anybody believe one whose key is not trusted.
            let trusted = self.keychain.current();
            let believed = trusted.may_sign(self.key.id());
            if cursor.version == Version::ZERO || !follows || !believed {
                continue;
            }
            if is_due && let Ok(bounds) = self.source.log.bounds().await {
                first = bounds.first;
                if bounds.last > self.view.state().version() {
                    self.view.look();
                }
            }
            let head = Head {
                epoch: cursor.epoch,
                version: cursor.version,
                chain: cursor.chain,
                first,
                time: self.environment.now(),
                announcer: self.id,
                sync: self.sync,
                ring: trusted.ring_serial(),
                // What is not there yet cannot be served yet: nodes would report every change for its sake.
                asks: (*asked.borrow_and_update()).min(cursor.version),
                snapshot: self.snapshots.reference(cursor.epoch),
            };
            if let Err(error) = self.source.log.announce(head.seal(&self.key)).await {
                tracing::debug!(%error, "could not announce the head");
            }
        }
    }
}

/// Reads the ids of the last events, after the start and after each snapshot, so that requests repeated across that find
/// their first answer.
async fn remember_recent(
    source: Source,
    view: View,
    shutdown: CancellationToken,
) -> anyhow::Result<&'static str> {
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok("memory of recent events"),
            () = view.unread() => {}
        }
        let Some(missed) = view.missed() else {
            continue;
        };
        match read_recent(&source, &view).await {
            Ok(()) => view.have_read(missed),
            Err(error) => {
                tracing::debug!(%error, "could not read the recent events");
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => {}
                    () = tokio::time::sleep(RECENT_RETRY) => {}
                }
            }
        }
    }
}

/// What has been trimmed off is not remembered: nobody repeats a request that long.
async fn read_recent(source: &Source, view: &View) -> Result<(), LogError> {
    let last = view.state().version();
    let mut from = Version(last.0.saturating_sub(RECENT_EVENTS_MAX as u64) + 1);
    while from <= last {
        let page = source.log.read(from).await?;
        for record in &page.records {
            if let Ok(event) = Event::decode(&record.event) {
                view.remember(event.id, record.version);
            }
        }
        from = match page.records.last() {
            Some(record) => record.version.next(),
            // The copy that answered lags, or the log has lost its end.
            None => {
                return Err(LogError::Unavailable(format!(
                    "version {from} is not there"
                )));
            }
        };
    }
    Ok(())
}

/// Finds out from time to time whether acknowledged writes are synced to disk.
async fn watch_durability(
    source: Source,
    durable: watch::Sender<Durability>,
    shutdown: CancellationToken,
) -> anyhow::Result<&'static str> {
    let mut tick = tokio::time::interval(DURABILITY_INTERVAL);
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok("durability watch"),
            _ = tick.tick() => {}
        }
        let found = source.log.durability().await;
        durable.send_if_modified(|known| {
            if *known == found {
                return false;
            }
            match &found {
                Durability::Synced => tracing::info!("acknowledged writes are synced to disk"),
                Durability::Delayed => tracing::warn!(
                    "acknowledged writes are synced to disk later: power loss can lose them; set sync_interval: always on the NATS server"
                ),
                Durability::Unknown(reason) => tracing::info!(reason, "it is not known whether acknowledged writes are synced to disk"),
            }
            *known = found.clone();
            true
        });
    }
}
