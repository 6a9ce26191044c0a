//! Starting and running a control plane: from settings to served requests, and back on shutdown.

use crate::access::{Access, Anonymous, Watched};
use crate::config::Settings;
use crate::core::{self, Core, Tasks};
use crate::snapshots::Policy;
use crate::{ControlPlane, History, Info, Traces, admin};
use anyhow::Context;
use sluice_replica::environment::Environment;
use sluice_replica::keys::{Keychain, Pinned, SigningKey};
use sluice_replica::log::Source;
use sluice_replica::log::jetstream::{self, JetStream, Requests};
use sluice_replica::node::SyncMode;
use sluice_replica::process::logging::LogLevel;
use sluice_replica::process::secrets::Secrets;
use sluice_replica::process::{hostname, wait_for_tasks, watched};
use sluice_replica::store::{Opened, Store};
use sluice_replica::traces::{Resource, Target, Tracer};
use sluice_schema::kind::RouterFlavor;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What a control plane is made of.
#[derive(Debug)]
pub struct Parts {
    /// The log.
    pub source: Source,
    /// The Admin API's socket, already bound.
    pub admin: TcpListener,
    /// Requests over the broker, if the Admin API is served there as well.
    pub requests: Option<Requests>,
    /// Further names for [`Info::allowed_hosts`].
    pub admin_hosts: Vec<String>,
    /// What routes may say.
    pub router_flavor: RouterFlavor,
    /// Further origins for [`Info::allowed_origins`].
    pub admin_gui_url: Vec<String>,
    /// Who may call the Admin API.
    pub access: AccessOptions,
    /// TLS of the Admin API.
    pub admin_tls: Option<AdminTls>,
    /// For [`Info::require_reason`].
    pub require_reason: bool,
    /// Changes what is logged.
    pub log_level: LogLevel,
    /// Directory of the local store.
    pub data_dir: PathBuf,
    /// What it signs with.
    pub key: SigningKey,
    /// Whose events it believes.
    pub keychain: Keychain,
    /// The cluster's name.
    pub cluster: String,
    /// How data planes are asked to take up changes.
    pub sync: SyncMode,
    /// When snapshots are cut.
    pub snapshots: Policy,
    /// The keys of secrets.
    pub secrets: Secrets,
    /// Where spans of writes go.
    pub traces: TracesOptions,
}

/// Where spans of writes go.
#[derive(Clone, Debug, Default)]
pub struct TracesOptions {
    /// The collector; without one there are no spans.
    pub target: Option<Target>,
    /// For [`Traces::sample`].
    pub sample: f64,
}

/// Who may call the Admin API.
#[derive(Clone, Debug, Default)]
pub struct AccessOptions {
    /// The file of callers.
    pub file: Option<PathBuf>,
    /// What others may do; if it is not given: nothing where there is a file, everything on a loopback address, and read elsewhere.
    pub anonymous: Option<Anonymous>,
}

/// TLS of the Admin API.
#[derive(Clone, Debug)]
pub struct AdminTls {
    /// A file with the certificate and those that lead to its authority.
    pub certificate: PathBuf,
    /// A file with its key.
    pub key: PathBuf,
    /// A file with the authorities of certificates that callers show.
    pub client_ca: Option<PathBuf>,
}

/// A control plane that is running.
#[derive(Debug)]
pub struct Running {
    /// Its parts, as the Admin API sees them.
    pub control_plane: ControlPlane,
    /// Where the Admin API listens.
    pub admin: SocketAddr,
    tasks: Tasks,
}

/// Runs a control plane by its settings until `shutdown`.
///
/// # Errors
/// If something it needs to start is missing, or a part of it ends before it should.
pub async fn run(
    settings: Settings,
    log_level: LogLevel,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let (log, admin) = (settings.log, settings.admin);
    let broker = settings
        .connection
        .options(jetstream::Role::ControlPlane, "sluice-cp")?;
    let listener = TcpListener::bind(admin.admin_listen)
        .await
        .with_context(|| format!("could not listen on {} (admin_listen)", admin.admin_listen))?;
    let key_path = log
        .signing_key
        .unwrap_or_else(|| log.data_dir.join("keys/cp.key"));
    let (key, keychain) = load_keys(&key_path, log.trusted_keys.as_deref(), &log.data_dir)?;
    let broker = jetstream::Options {
        replicas: log.replicas.into(),
        monitors: log.nats_monitor_url,
        ..broker
    };
    let connecting = JetStream::connect_to_serve(broker, Uuid::new_v4().simple().to_string());
    let (source, requests) = connecting
        .await
        .context("could not set up the connection to NATS")?;
    let admin_tls = admin.tls()?;
    let parts = Parts {
        source,
        admin: listener,
        requests: admin.admin_over_nats.then_some(requests),
        admin_hosts: admin.admin_hosts,
        router_flavor: admin.router_flavor,
        admin_tls,
        access: AccessOptions {
            file: admin.admin_access,
            anonymous: admin.admin_anonymous,
        },
        admin_gui_url: admin.admin_gui_url,
        require_reason: admin.require_reason,
        log_level,
        data_dir: log.data_dir,
        key,
        keychain,
        cluster: settings.connection.cluster().to_owned(),
        sync: log.incremental_sync,
        snapshots: settings.snapshots.policy(),
        secrets: Secrets::open(settings.secrets.secrets_file)?,
        traces: TracesOptions {
            target: settings.traces.target()?,
            sample: settings.sampling.traces_sample,
        },
    };
    start(parts, &shutdown)?.wait(shutdown).await
}

/// Loads the signing key, making it if it is not there, and the keys to believe: those at `trusted`, or beside the signing
/// key. The keyring is kept in `data_dir`.
///
/// # Errors
/// If a key cannot be read or made.
pub fn load_keys(
    path: &Path,
    trusted: Option<&Path>,
    data_dir: &Path,
) -> anyhow::Result<(SigningKey, Keychain)> {
    let hostname = hostname();
    let (key, made) = SigningKey::load_or_create(path, &hostname)?;
    if made {
        tracing::info!(path = %path.display(), key = key.id(), "made a new signing key");
    }
    let pinned = trusted.map_or_else(|| Pinned::beside(path), Pinned::files);
    let keychain = Keychain::open(pinned.with_own(&key, path), data_dir).context("trusted_keys")?;
    if let Some(reason) = crate::permission::barred(&keychain.current(), key.id()) {
        tracing::warn!(reason, "this control plane may not write");
    }
    Ok((key, keychain))
}

/// Starts a control plane. Its local state is loaded when this returns; the log may still be away.
///
/// # Errors
/// If the local store cannot be used.
pub fn start(parts: Parts, shutdown: &CancellationToken) -> anyhow::Result<Running> {
    let opened = open_store(&parts.data_dir)?;
    let signing_key = parts.key.id().to_owned();
    let mut tasks = Tasks::new();
    let core = core::Parts {
        source: parts.source.clone(),
        opened,
        key: parts.key,
        keychain: parts.keychain.clone(),
        sync: parts.sync,
        snapshots: parts.snapshots,
        environment: Environment::system(),
        seals: parts.secrets.seals().clone(),
    };
    follow_secrets(parts.secrets, &mut tasks, shutdown);
    let core = core::start(core, &mut tasks, shutdown)?;
    let admin = parts
        .admin
        .local_addr()
        .context("the Admin API's socket has no address")?;
    let tls = parts.admin_tls.as_ref().map(admin::tls::config);
    let tls = tls.transpose().context("TLS of the Admin API")?;
    let access = open_access(&parts.access, admin, &mut tasks, shutdown)?;
    let history = open_history(&parts.source, &core, &mut tasks, shutdown);
    let info = Arc::new(Info {
        node_id: core.id,
        hostname: hostname(),
        version: env!("CARGO_PKG_VERSION"),
        started: SystemTime::now(),
        listen: vec![admin],
        allowed_hosts: parts.admin_hosts,
        allowed_origins: parts.admin_gui_url,
        cluster: parts.cluster,
        sync: parts.sync,
        router_flavor: parts.router_flavor,
        require_reason: parts.require_reason,
        signing_key,
        data_dir: parts.data_dir,
        durability: core.durability,
    });
    let traces = open_traces(parts.traces, &info, &mut tasks, shutdown);
    let control_plane = ControlPlane {
        writer: core.writer,
        view: core.view,
        fleet: core.fleet,
        snapshots: core.snapshots,
        history,
        source: parts.source,
        keychain: parts.keychain,
        log_level: parts.log_level,
        access,
        traces,
        info,
    };
    let (listener, requests) = (parts.admin, parts.requests);
    let (served, token) = (control_plane.clone(), shutdown.clone());
    tasks.spawn(async move {
        admin::serve(listener, tls, requests, served, token).await?;
        Ok("Admin API")
    });
    tracing::info!(%admin, node = %core.id, "the Admin API is listening");
    Ok(Running {
        control_plane,
        admin,
        tasks,
    })
}

fn open_store(data_dir: &Path) -> anyhow::Result<Opened> {
    let opened = Store::open(&data_dir.join("store")).context("could not open the local store")?;
    opened.warn();
    Ok(opened)
}

fn follow_secrets(secrets: Secrets, tasks: &mut Tasks, shutdown: &CancellationToken) {
    if secrets.seals().ring().sealing().is_none() {
        tracing::warn!(
            "secrets are stored in clear text: there is no secrets_file (sluice secrets init)"
        );
    }
    let token = shutdown.clone();
    tasks.spawn(async move {
        secrets.follow(token, || ()).await;
        Ok("keys of secrets")
    });
}

/// The index of the log, kept up to date.
fn open_history(
    source: &Source,
    core: &Core,
    tasks: &mut Tasks,
    shutdown: &CancellationToken,
) -> History {
    let (source, view, snapshots) = (source.clone(), core.view.clone(), core.snapshots.clone());
    let (history, indexing) = History::new(source, view, snapshots, shutdown.clone());
    tasks.spawn(async move {
        indexing.await;
        Ok("history")
    });
    history
}

/// What makes spans of writes, with what sends them.
fn open_traces(
    options: TracesOptions,
    info: &Info,
    tasks: &mut Tasks,
    shutdown: &CancellationToken,
) -> Traces {
    let Some(target) = options.target else {
        return Traces::off();
    };
    let resource = Resource {
        service: "sluice-cp",
        version: info.version,
        node: info.node_id.to_string(),
        hostname: info.hostname.clone(),
        cluster: info.cluster.clone(),
    };
    let (tracer, exporter) = Tracer::new(target, resource);
    let token = shutdown.clone();
    tasks.spawn(async move {
        exporter.run(token).await;
        Ok("exporter of spans")
    });
    Traces {
        tracer,
        sample: options.sample,
    }
}

/// The door, with its file followed.
fn open_access(
    options: &AccessOptions,
    admin: SocketAddr,
    tasks: &mut Tasks,
    shutdown: &CancellationToken,
) -> anyhow::Result<Access> {
    let file = match &options.file {
        None => None,
        Some(path) => {
            let seen = watched::look(path);
            let file = Watched::open(path).context("admin_access")?;
            let (following, path, token) = (file.clone(), path.clone(), shutdown.clone());
            tasks.spawn(async move {
                following.follow(path, seen, token).await;
                Ok("file of callers")
            });
            Some(file)
        }
    };
    Ok(Access::new(
        options.anonymous,
        file,
        admin.ip().is_loopback(),
    )?)
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
