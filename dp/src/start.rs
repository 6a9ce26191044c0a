//! Starting and running a data plane: from the local store to served requests, and back on shutdown.
//!
//! Order: bind every port, load and verify the store, compile the table, accept requests, then reach for the log. The
//! log, the status page and the reports live on the calling thread's runtime; each proxy worker has a thread of its own.

use crate::NodeId;
use crate::access_log;
use crate::balance::DnsOptions;
use crate::config::Settings;
use crate::metrics::Metrics;
use crate::peers::LogPeers;
use crate::plugin;
use crate::proxy::{self, Inherited, Proxy, Shared};
use crate::sink::{TableSink, added};
use crate::status::{self, Node, NodeState};
use crate::table::{Table, Variables};
use anyhow::Context;
use arc_swap::ArcSwap;
use sluice_replica::environment::Environment;
use sluice_replica::keys::{Keychain, Pinned, TrustedKeys};
use sluice_replica::log::jetstream::{self, JetStream};
use sluice_replica::log::{Interest, Source};
use sluice_replica::node::{GROUPS_MAX, Group, RejectedEntity, Report, SyncMode};
use sluice_replica::process::logging::LogLevel;
use sluice_replica::process::secrets::Secrets;
use sluice_replica::process::settings::SettingsError;
use sluice_replica::process::{hostname, now, wait_for_tasks};
use sluice_replica::run::{Options, Replica, Sink, Status};
use sluice_replica::store::Store;
use sluice_replica::traces::{Resource, Target, Tracer};
use sluice_schema::entity::{Change, Entry, Key};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How much nicer than requests everything else is.
const NICE: i32 = 10;
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// The least time between two reports: the first change after a pause is reported at once, a stream of them is summed up.
const REPORT_GAP: Duration = Duration::from_millis(50);
const REJECTED_REPORTED_MAX: usize = 20;
const AILING_REPORTED_MAX: usize = 100;

/// What a data plane is made of.
#[derive(Debug)]
pub struct Parts {
    /// The log.
    pub source: Source,
    /// Whose events it believes.
    pub keychain: Keychain,
    /// How changes are taken up.
    pub sync: SyncMode,
    /// Directory of the local store.
    pub data_dir: PathBuf,
    /// The node's id; the one kept in the data directory if `None`.
    pub node_id: Option<NodeId>,
    /// The groups it belongs to.
    pub groups: BTreeSet<Group>,
    /// The status page's socket, already bound.
    pub status: TcpListener,
    /// Changes what is logged.
    pub log_level: LogLevel,
    /// The cluster's name, for spans.
    pub cluster: String,
    /// Where spans of changes go; without it there are none.
    pub traces: Option<Target>,
    /// How to proxy.
    pub proxy: proxy::Options,
    /// The keys of secrets.
    pub secrets: Secrets,
}

/// A data plane that is running.
#[derive(Debug)]
pub struct Running {
    /// Where the proxy listens.
    pub proxy: Vec<SocketAddr>,
    /// Where the status page listens.
    pub status: SocketAddr,
    /// What its replica does.
    pub replica: watch::Receiver<Status>,
    tasks: JoinSet<anyhow::Result<&'static str>>,
}

/// Runs a data plane by its settings until `shutdown`.
///
/// # Errors
/// If something it needs to start is missing, or a part of it ends before it should.
pub async fn run(
    settings: Settings,
    log_level: LogLevel,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let access_log = settings.access_log.settings();
    let (log, proxy, clients) = (settings.log, settings.proxy, settings.clients);
    let broker = settings
        .connection
        .options(jetstream::Role::DataPlane, "sluice-dp")?;
    let keychain =
        Keychain::open(Pinned::files(&log.trusted_keys), &log.data_dir).context("trusted_keys")?;
    let status = TcpListener::bind(proxy.status_listen)
        .await
        .with_context(|| {
            format!(
                "could not listen on {} (status_listen)",
                proxy.status_listen
            )
        })?;
    let source = JetStream::connect(broker)
        .await
        .context("could not set up the connection to NATS")?;
    let tls = proxy.tls.load()?;
    let proxy = proxy::Options {
        listen: proxy.proxy_listen,
        stream_listen: proxy.stream_listen.into_iter().flatten().collect(),
        inherited: Inherited::from_environment()
            .context("could not take over the sockets of LISTEN_FDS")?,
        tls,
        workers: proxy.workers.map_or_else(default_workers, usize::from),
        drain_timeout: proxy.drain_timeout,
        clients: clients.limits(),
        trust: clients.trust(),
        freshness: proxy.freshness.freshness(),
        access_log,
        dns: DnsOptions {
            servers: proxy.dns_resolver,
            ..DnsOptions::default()
        },
        ..proxy::Options::default()
    };
    let (data_dir, node_id, sync) = (log.data_dir, log.node_id, log.incremental_sync);
    let groups: BTreeSet<Group> = log.group.into_iter().collect();
    if groups.len() > GROUPS_MAX {
        let many = format!("group: a node belongs to at most {GROUPS_MAX} groups");
        return Err(SettingsError::Unusable(many).into());
    }
    let parts = Parts {
        source,
        keychain,
        sync,
        data_dir,
        node_id,
        groups,
        status,
        log_level,
        cluster: settings.connection.cluster().to_owned(),
        traces: settings.traces.target()?,
        proxy,
        secrets: Secrets::open(settings.secrets.secrets_file)?,
    };
    start(parts, &shutdown)?.wait(shutdown).await
}

/// One worker per CPU this process may use.
pub fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// Starts a data plane. It serves what its local store holds when this returns; the log may still be away.
///
/// # Errors
/// If the local store or a port cannot be used.
pub fn start(parts: Parts, shutdown: &CancellationToken) -> anyhow::Result<Running> {
    let node_id = parts.node_id;
    let node = Node {
        id: node_id.map_or_else(|| NodeId::load_or_make(&parts.data_dir), Ok)?,
        hostname: hostname(),
    };
    let mut tasks = JoinSet::new();
    let tracer = start_traces(parts.traces, &node, parts.cluster, &mut tasks, shutdown);
    let shared = Shared {
        metrics: Arc::new(Metrics::new(now(), tracer)),
        ..Shared::default()
    };
    let seals = parts.secrets.seals().clone();
    let tables = Table::with_secrets(Variables::of_process(), seals);
    let tables = Arc::new(ArcSwap::from_pointee(tables));
    let state = node_state(node, (&shared, &tables), parts.log_level, &parts.data_dir);
    let sink = TableSink::new(&tables, &shared, &state);
    let (secrets, opened, token) = (parts.secrets, sink.clone(), shutdown.clone());
    let (store, sink) = load_store_behind(&parts.data_dir, sink)?;
    let options = follow_options(&parts.keychain, parts.sync);
    let replica = Replica::new(parts.source.clone(), store, Box::new(sink), options);
    let following = replica.status();
    let status = parts
        .status
        .local_addr()
        .context("the status socket has no address")?;
    let peers = LogPeers::new(parts.source.log.clone(), state.node().id.to_string());
    let proxy = proxy::Options {
        peers: Some(Arc::new(peers)),
        ..parts.proxy
    };
    let running =
        Proxy::start(proxy, &tables, &shared, shutdown).context("could not start the proxy")?;
    stand_behind_requests();
    let proxy = running.addresses().to_vec();
    tracing::info!(?proxy, %status, node = %state.node().id, "the proxy is listening");

    tasks.spawn(follow_secrets(secrets, opened, token));
    let token = shutdown.clone();
    tasks.spawn(async move { Ok(replica.run(token).await.map(|()| "replica")?) });
    let (access_log, token) = (running.access_log().clone(), shutdown.clone());
    tasks.spawn(async move { reopen(access_log, token).await });
    tasks.spawn(async move { Ok(running.stopped().await.map(|()| "proxy")?) });
    tasks.spawn(report(
        parts.source,
        (state.clone(), parts.groups),
        following.clone(),
        parts.keychain.watch(),
        shutdown.clone(),
    ));
    let token = shutdown.clone();
    tasks.spawn(async move {
        parts.keychain.run(Environment::system(), token).await;
        Ok("keychain")
    });
    let (listener, token) = (parts.status, shutdown.clone());
    tasks.spawn(async move {
        status::serve(listener, state, token).await;
        Ok("status page")
    });
    Ok(Running {
        proxy,
        status,
        replica: following,
        tasks,
    })
}

/// What takes spans of changes, with what sends them.
fn start_traces(
    target: Option<Target>,
    node: &Node,
    cluster: String,
    tasks: &mut JoinSet<anyhow::Result<&'static str>>,
    shutdown: &CancellationToken,
) -> Tracer {
    let Some(target) = target else {
        return Tracer::off();
    };
    let resource = Resource {
        service: "sluice-dp",
        version: env!("CARGO_PKG_VERSION"),
        node: node.id.to_string(),
        hostname: node.hostname.clone(),
        cluster,
    };
    let (tracer, exporter) = Tracer::new(target, resource);
    let token = shutdown.clone();
    tasks.spawn(async move {
        exporter.run(token).await;
        Ok("exporter of spans")
    });
    tracer
}

/// What the status listener tells of.
fn node_state(
    node: Node,
    (shared, tables): (&Shared, &Arc<ArcSwap<Table>>),
    log_level: LogLevel,
    data_dir: &Path,
) -> Arc<NodeState> {
    let (metrics, state) = (shared.metrics.clone(), shared.state.clone());
    let state = NodeState::new(node, metrics, state, shared.upstreams.clone())
        .with_log_level(log_level)
        .with_tables(Arc::clone(tables))
        .with_store(data_dir.join("store"));
    Arc::new(state)
}

fn follow_options(keychain: &Keychain, sync: SyncMode) -> Options {
    Options {
        keychain: keychain.clone(),
        sync,
        interest: Interest::Follow,
        reports: None,
        heads: None,
        environment: Environment::system(),
    }
}

/// Opens the local store and compiles what it holds, while that is verified.
/// Whoever calls this, and all threads it starts from now on, runs when no request wants to, or a tenth as much as those that do.
fn stand_behind_requests() {
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::warn!(%error, "changes of the configuration may delay requests: could not lower their priority");
    }
}

/// Loads the store on a thread that stands behind requests, for the database's own threads are its children.
fn load_store_behind(data_dir: &Path, sink: TableSink) -> anyhow::Result<(Store, TableSink)> {
    std::thread::scope(|scope| {
        let loading = || {
            stand_behind_requests();
            load_store(data_dir, sink)
        };
        let loading = std::thread::Builder::new()
            .name("store-load".into())
            .spawn_scoped(scope, loading)?;
        let panicked = |_| anyhow::anyhow!("loading the local store panicked");
        loading.join().map_err(panicked)?
    })
}

fn load_store(data_dir: &Path, mut sink: TableSink) -> anyhow::Result<(Store, TableSink)> {
    let began = std::time::Instant::now();
    let directory = data_dir.join("store");
    let mut stage = |entities: Vec<(Key, Entry)>| {
        let changes: Vec<Change> = entities.into_iter().map(added).collect();
        sink.stage(&changes);
    };
    let opened =
        Store::open_into(&directory, &mut stage).context("could not open the local store")?;
    opened.warn();
    let (store, handed_over) = (opened.store, opened.handed_over);
    let (cursor, digest) = (store.cursor(), store.digest());
    if handed_over {
        sink.commit(cursor, digest);
    } else {
        sink.abandon();
        store
            .read_all(|entities| sink.reload(cursor, digest, entities))
            .context("could not read the local store")?;
    }
    let entities = store.len();
    tracing::info!(version = %cursor.version, entities, took = ?began.elapsed(), "loaded the local store");
    Ok((store, sink))
}

/// Opens sealed secrets anew when their keys have changed.
async fn follow_secrets(
    secrets: Secrets,
    sink: TableSink,
    shutdown: CancellationToken,
) -> anyhow::Result<&'static str> {
    let reopen = || {
        let sink = sink.clone();
        drop(tokio::task::spawn_blocking(move || sink.reopen()));
    };
    secrets.follow(shutdown, reopen).await;
    Ok("keys of secrets")
}

/// Opens the access log anew at SIGHUP and SIGUSR1, for programs that rotate it.
async fn reopen(
    log: access_log::Writer,
    shutdown: CancellationToken,
) -> anyhow::Result<&'static str> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut user = signal(SignalKind::user_defined1())?;
    loop {
        tokio::select! {
            _ = hangup.recv() => log.reopen(),
            _ = user.recv() => log.reopen(),
            () = shutdown.cancelled() => return Ok("access log"),
        }
    }
}

impl Running {
    /// Waits until `shutdown`, then for everything to finish.
    ///
    /// # Errors
    /// If a part of it ends before it should, or with an error.
    pub async fn wait(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        wait_for_tasks("data plane", self.tasks, shutdown).await
    }
}

/// Keeps the status page up to date and reports to the control planes: every second, and when there is news.
async fn report(
    source: Source,
    (state, groups): (Arc<NodeState>, BTreeSet<Group>),
    mut following: watch::Receiver<Status>,
    trusted: watch::Receiver<TrustedKeys>,
    shutdown: CancellationToken,
) -> anyhow::Result<&'static str> {
    let mut tick = tokio::time::interval(REPORT_INTERVAL);
    let mut told = None;
    loop {
        let is_due = tokio::select! {
            // First: the replica may have ended by now, which is no reason to go without a word.
            biased;
            () = shutdown.cancelled() => {
                state.update(|facts| facts.draining = true);
                let status = following.borrow().clone();
                if status.connected {
                    // Whoever waits for this node need not wait for its lease to end.
                    send(&source, make_report(&state, &groups, &status)).await;
                }
                return Ok("node reports");
            }
            _ = tick.tick() => true,
            changed = following.changed() => match changed {
                Ok(()) => false,
                Err(_) => return Ok("replica's status"),
            },
        };
        let status = following.borrow_and_update().clone();
        state.update(|facts| {
            facts.durable = status.durable;
            facts.head = Some(status.seen);
            facts.note_lag(now());
            facts.head_at = status.head.as_ref().map(|(head, _)| head.time);
            facts.connected = status.connected;
            facts.phase = status.phase.to_string();
            facts.last_error = status.last_error.clone();
            facts.keyring = trusted.borrow().ring_serial();
        });
        if !status.connected {
            told = None;
        } else if is_due || is_news(told.as_ref(), &status) {
            send(&source, make_report(&state, &groups, &status)).await;
            told = Some(status);
            tokio::time::sleep(REPORT_GAP).await;
        }
    }
}

/// Whether control planes should hear of this before the next second. A version is news only if somebody waits for it: what
/// a change costs a control plane must not grow with the number of nodes.
fn is_news(told: Option<&Status>, status: &Status) -> bool {
    told.is_none_or(|told| {
        let (before, now) = (told.cursor, status.cursor);
        let awaited = status.asked > before.version && now.version > before.version;
        awaited || before.epoch != now.epoch || told.phase != status.phase
    })
}

async fn send(source: &Source, report: Report) {
    if let Err(error) = source.log.report(&report.node, report.encode()).await {
        tracing::debug!(%error, "could not report");
    }
}

fn make_report(state: &NodeState, groups: &BTreeSet<Group>, status: &Status) -> Report {
    let facts = state.facts();
    let rejected = facts.rejected.into_iter().take(REJECTED_REPORTED_MAX);
    Report {
        node: state.node().id.to_string(),
        hostname: state.node().hostname.clone(),
        software: env!("CARGO_PKG_VERSION").into(),
        groups: groups.clone(),
        cursor: status.cursor,
        digest: status.digest,
        durable: status.durable,
        entities: status.entities,
        rejected: rejected
            .map(|rejected| RejectedEntity {
                entity: rejected.key.to_string(),
                reason: rejected.reason,
            })
            .collect(),
        phase: status.phase.to_string(),
        last_error: status.last_error.clone(),
        keyring: facts.keyring,
        plugins: plugin::STANDARD.names().map(str::to_owned).collect(),
        ailing: state.ailing(AILING_REPORTED_MAX),
        leaving: facts.draining,
        time: now(),
    }
}
