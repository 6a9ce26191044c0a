//! Starting and running a control plane: from settings to served requests, and back on shutdown.

use crate::config::Settings;
use crate::view::ViewSink;
use crate::{ControlPlane, Fleet, Info, View, Writer, admin};
use anyhow::Context;
use sluice_replica::follow::Phase;
use sluice_replica::keys::{KeyError, SigningKey, TrustedKeys};
use sluice_replica::log::jetstream::{self, JetStream};
use sluice_replica::log::{Durability, Interest, Source};
use sluice_replica::node::{Head, SyncMode};
use sluice_replica::process::{hostname, now, wait_for_tasks};
use sluice_replica::run::{Options, Replica};
use sluice_replica::store::Store;
use sluice_schema::state::State;
use sluice_schema::version::Version;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const HEAD_INTERVAL: Duration = Duration::from_secs(1);
const DURABILITY_INTERVAL: Duration = Duration::from_secs(10);
const REPORTS_WAITING_MAX: usize = 4096;

/// What a control plane is made of.
#[derive(Debug)]
pub struct Parts {
    /// The log.
    pub source: Source,
    /// The Admin API's socket, already bound.
    pub admin: TcpListener,
    /// Further names for [`Info::allowed_hosts`].
    pub admin_hosts: Vec<String>,
    /// Directory of the local store.
    pub data_dir: PathBuf,
    /// What it signs with.
    pub key: SigningKey,
    /// Whose events it believes.
    pub trusted: TrustedKeys,
    /// The cluster's name.
    pub cluster: String,
    /// How data planes are asked to take up changes.
    pub sync: SyncMode,
}

/// A control plane that is running.
#[derive(Debug)]
pub struct Running {
    /// Its parts, as the Admin API sees them.
    pub control_plane: ControlPlane,
    /// Where the Admin API listens.
    pub admin: SocketAddr,
    tasks: JoinSet<anyhow::Result<&'static str>>,
}

/// Runs a control plane by its settings until `shutdown`.
///
/// # Errors
/// If something it needs to start is missing, or a part of it ends before it should.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let (log, admin) = (settings.log, settings.admin);
    let listener = TcpListener::bind(admin.admin_listen)
        .await
        .with_context(|| format!("could not listen on {} (admin_listen)", admin.admin_listen))?;
    let key_path = log
        .signing_key
        .unwrap_or_else(|| log.data_dir.join("keys/cp.key"));
    let (key, trusted) = load_keys(&key_path, log.trusted_keys.as_deref())?;
    let source = JetStream::connect(jetstream::Options {
        servers: log.nats_url,
        cluster: log.cluster.clone(),
        replicas: log.replicas.into(),
        monitors: log.nats_monitor_url,
        ..jetstream::Options::new(jetstream::Role::ControlPlane, "sluice-cp")
    })
    .await
    .context("could not set up the connection to NATS")?;
    let parts = Parts {
        source,
        admin: listener,
        admin_hosts: admin.admin_hosts,
        data_dir: log.data_dir,
        key,
        trusted,
        cluster: log.cluster,
        sync: log.incremental_sync,
    };
    start(parts, &shutdown)?.wait(shutdown).await
}

/// Loads the signing key, making it if it is not there, and the keys to believe.
///
/// # Errors
/// If a key cannot be read or made.
pub fn load_keys(path: &Path, trusted: Option<&Path>) -> anyhow::Result<(SigningKey, TrustedKeys)> {
    let hostname = hostname();
    let (key, made) = SigningKey::load_or_create(path, &hostname)?;
    if made {
        tracing::info!(path = %path.display(), key = key.id(), "made a new signing key");
    }
    let own = key.trusted();
    let directory = path.parent().unwrap_or(Path::new("."));
    let others = TrustedKeys::load(trusted.unwrap_or(directory));
    let trusted = match (others, trusted) {
        (Ok(others), _) => own.and(&others),
        // No public key beside the own one is the usual case.
        (Err(KeyError::Empty { .. }), None) => own,
        (Err(error), _) => return Err(error.into()),
    };
    Ok((key, trusted))
}

/// Starts a control plane. Its local state is loaded when this returns; the log may still be away.
///
/// # Errors
/// If the local store cannot be used.
pub fn start(parts: Parts, shutdown: &CancellationToken) -> anyhow::Result<Running> {
    let node_id = Uuid::new_v4();
    let mut tasks = JoinSet::new();
    let fleet = Fleet::default();
    let view = follow(&parts, &fleet, &mut tasks, shutdown)?;
    let (source, key) = (parts.source, parts.key);

    let others = fleet.clone();
    let others = move || others.has_other_control_planes(node_id);
    let (writer, writing) = Writer::new(
        source.clone(),
        view.clone(),
        key.clone(),
        others,
        shutdown.clone(),
    );
    tasks.spawn(async move {
        writing.await;
        Ok("writer")
    });

    let (durable, durability) = watch::channel(Durability::Unknown("not asked yet".into()));
    tasks.spawn(watch_durability(source.clone(), durable, shutdown.clone()));

    let admin = parts
        .admin
        .local_addr()
        .context("the Admin API's socket has no address")?;
    let info = Arc::new(Info {
        node_id,
        hostname: hostname(),
        version: env!("CARGO_PKG_VERSION"),
        started: SystemTime::now(),
        listen: vec![admin],
        allowed_hosts: parts.admin_hosts,
        cluster: parts.cluster,
        sync: parts.sync,
        signing_key: key.id().to_owned(),
        durability,
    });
    let control_plane = ControlPlane {
        writer,
        view,
        fleet,
        source,
        info,
    };
    tasks.spawn(announce(control_plane.clone(), key, shutdown.clone()));
    tasks.spawn(remember_recent(control_plane.clone(), shutdown.clone()));
    let (listener, served, token) = (parts.admin, control_plane.clone(), shutdown.clone());
    tasks.spawn(async move {
        admin::serve(listener, served, token).await?;
        Ok("Admin API")
    });
    tracing::info!(%admin, node = %node_id, "the Admin API is listening");
    Ok(Running {
        control_plane,
        admin,
        tasks,
    })
}

/// Loads the local store and follows the log from there.
fn follow(
    parts: &Parts,
    fleet: &Fleet,
    tasks: &mut JoinSet<anyhow::Result<&'static str>>,
    shutdown: &CancellationToken,
) -> anyhow::Result<View> {
    let opened =
        Store::open(&parts.data_dir.join("store")).context("could not open the local store")?;
    if let Some((reason, aside)) = &opened.moved_aside {
        tracing::warn!(reason, moved_to = %aside.display(), "the local store was damaged; it is rebuilt from the log");
    }
    let state = State::restore(opened.store.cursor(), opened.entities);
    tracing::info!(version = %state.version(), entities = state.len(), "loaded the local store");

    let (reports, report_inbox) = mpsc::channel(REPORTS_WAITING_MAX);
    let (heads, head_inbox) = mpsc::channel(REPORTS_WAITING_MAX);
    let options = Options {
        trusted: parts.trusted.clone(),
        sync: SyncMode::Incremental,
        interest: Interest::FollowAndReports,
        reports: Some(reports),
        heads: Some(heads),
    };
    let sink = ViewSink::new(state);
    let replica = Replica::new(
        parts.source.clone(),
        opened.store,
        Box::new(sink.clone()),
        options,
    );
    let view = sink.view(replica.status());

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

impl Running {
    /// Waits until `shutdown`, then for everything to finish.
    ///
    /// # Errors
    /// If a part of it ends before it should, or with an error.
    pub async fn wait(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        wait_for_tasks("control plane", self.tasks, shutdown).await
    }
}

/// Announces every second where the log ends.
async fn announce(
    control_plane: ControlPlane,
    key: SigningKey,
    shutdown: CancellationToken,
) -> anyhow::Result<&'static str> {
    let mut first = Version::GENESIS;
    let mut tick = tokio::time::interval(HEAD_INTERVAL);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = shutdown.cancelled() => return Ok("head announcer"),
        }
        let cursor = control_plane.view.state().cursor();
        let status = control_plane.view.status();
        // A control plane that no longer follows the log has nothing to say about where it ends.
        let follows = status.connected && !matches!(status.phase, Phase::Forked(_));
        if cursor.version == Version::ZERO || !follows {
            continue;
        }
        if let Ok(bounds) = control_plane.source.log.bounds().await {
            first = bounds.first;
        }
        let head = Head {
            epoch: cursor.epoch,
            version: cursor.version,
            chain: cursor.chain,
            first,
            time: now(),
            announcer: control_plane.info.node_id,
            sync: control_plane.info.sync,
        };
        if let Err(error) = control_plane.source.log.announce(head.seal(&key)).await {
            tracing::debug!(%error, "could not announce the head");
        }
    }
}

/// Reads the ids of the last events once, so that requests repeated across a restart find their first answer.
async fn remember_recent(
    control_plane: ControlPlane,
    shutdown: CancellationToken,
) -> anyhow::Result<&'static str> {
    let last = control_plane.view.state().version();
    let mut from = Version(last.0.saturating_sub(crate::view::RECENT_EVENTS_MAX as u64) + 1);
    while from <= last && !shutdown.is_cancelled() {
        match control_plane.source.log.read(from).await {
            Ok(page) if page.records.is_empty() => break,
            Ok(page) => {
                for record in &page.records {
                    if let Ok(event) = sluice_schema::event::Event::decode(&record.event) {
                        control_plane.view.remember(event.id, record.version);
                    }
                }
                from = page
                    .records
                    .last()
                    .map_or(last, |record| record.version)
                    .next();
            }
            Err(_) => tokio::select! {
                () = tokio::time::sleep(HEAD_INTERVAL) => {}
                () = shutdown.cancelled() => {}
            },
        }
    }
    shutdown.cancelled().await;
    Ok("memory of recent events")
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
            _ = tick.tick() => {}
            () = shutdown.cancelled() => return Ok("durability watch"),
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
