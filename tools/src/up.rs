//! `sluice up`: control plane and data plane in one process, on the embedded log.

use crate::apply::Bundle;
use crate::echo;
use anyhow::{Context, bail};
use clap::{Args, Parser};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sluice_cp::ControlPlane;
use sluice_cp::writer::{Request, WriteError};
use sluice_dp::proxy;
use sluice_replica::log::embedded::Embedded;
use sluice_replica::node::SyncMode;
use sluice_replica::process;
use sluice_replica::process::logging::{LogLevel, LoggingSettings};
use sluice_replica::process::secrets::Secrets;
use sluice_replica::process::traces::{SamplingSettings, TracesSettings};
use sluice_replica::run::Status;
use sluice_schema::decide::{Command, Outcome, Plan, Refusal};
use sluice_schema::declare;
use sluice_schema::entity::Workspace;
use sluice_schema::event::Actor;
use sluice_schema::kind::RouterFlavor;
use sluice_schema::version::{Epoch, Version};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const DEMO: &str = include_str!("../../docs/examples/shop.yaml");
const DEMO_ECHO: &str = "127.0.0.1:9000";
/// What spans call the cluster.
const CLUSTER: &str = "up";
const VARIABLE_PREFIX: &str = "SLUICE_UP_";

/// Run control plane and data plane in one process, without a broker.
///
/// The log is kept in a local database; everything else is as with separate programs. Settings come from flags,
/// SLUICE_* variables and a TOML file, in that order of strength; the file's keys are the flags' names with _ for -.
#[derive(Clone, Debug, Parser)]
#[command(name = "sluice up", version)]
pub(crate) struct Settings {
    /// TOML file with settings
    #[arg(long, env = "SLUICE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the log, the local stores and the keys
    #[arg(
        long,
        env = "SLUICE_UP_DATA_DIR",
        default_value = ".sluice/up",
        value_name = "DIR"
    )]
    data_dir: PathBuf,
    /// Declarative file to apply at the start
    #[arg(long, env = "SLUICE_UP_APPLY", value_name = "FILE")]
    apply: Option<PathBuf>,
    /// Start with an example shop in front of a small echo upstream, and say what to try
    #[arg(long)]
    demo: bool,
    #[command(flatten)]
    listen: Listen,
    /// Whether each change is taken up alone (on) or the whole configuration is reloaded on each change (off)
    #[arg(
        long,
        env = "SLUICE_INCREMENTAL_SYNC",
        default_value = "on",
        value_name = "on|off"
    )]
    incremental_sync: SyncMode,
    /// What routes may say: hosts, paths and so on (traditional_compatible), or these or an expression (expressions)
    #[arg(
        long,
        env = "SLUICE_UP_ROUTER_FLAVOR",
        default_value = "traditional_compatible",
        value_name = "FLAVOR"
    )]
    router_flavor: RouterFlavor,
    /// Refuse changes that do not say why (the header Sluice-Reason)
    #[arg(long, env = "SLUICE_UP_REQUIRE_REASON")]
    require_reason: bool,
    #[command(flatten)]
    logging: LoggingSettings,
    #[command(flatten)]
    traces: TracesSettings,
    #[command(flatten)]
    sampling: SamplingSettings,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Addresses")]
struct Listen {
    /// Addresses of the proxy, separated by commas; after each may stand ssl, http2 and backlog=N, as in Kong
    #[arg(
        long,
        env = "SLUICE_UP_PROXY_LISTEN",
        value_delimiter = ',',
        default_value = "127.0.0.1:8000",
        value_name = "ADDRESS"
    )]
    proxy_listen: Vec<proxy::Listen>,
    /// Address of the Admin API. Elsewhere than on loopback it can only be read
    #[arg(
        long,
        env = "SLUICE_UP_ADMIN_LISTEN",
        default_value = "127.0.0.1:8001",
        value_name = "ADDRESS"
    )]
    admin_listen: SocketAddr,
    /// Address of /status, /status/ready and /metrics
    #[arg(
        long,
        env = "SLUICE_UP_STATUS_LISTEN",
        default_value = "127.0.0.1:8007",
        value_name = "ADDRESS"
    )]
    status_listen: SocketAddr,
    /// Proxy threads, 1 to 1024 [default: one per CPU]
    #[arg(long, env = "SLUICE_UP_WORKERS", value_parser = clap::value_parser!(u16).range(1..=1024), value_name = "N")]
    workers: Option<u16>,
}

impl Listen {
    fn workers(&self) -> usize {
        let workers = self.workers;
        workers.map_or_else(sluice_dp::start::default_workers, usize::from)
    }
}

/// Runs until a signal. `arguments` begin with the name of the command.
pub(crate) fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    process::run::<Settings, _>(
        arguments,
        VARIABLE_PREFIX,
        |settings| &settings.logging,
        tokio::runtime::Builder::new_multi_thread(),
        serve,
    )
}

async fn serve(
    settings: Settings,
    log_level: LogLevel,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let admin = bind(settings.listen.admin_listen, "admin_listen").await?;
    let status = bind(settings.listen.status_listen, "status_listen").await?;
    let source =
        Embedded::open(&settings.data_dir.join("log")).context("could not open the log")?;
    let key_path = settings.data_dir.join("keys/up.key");
    let (key, keychain) = sluice_cp::start::load_keys(&key_path, None, &settings.data_dir)?;
    let secrets_path = settings.data_dir.join("keys/secrets");
    let control = sluice_cp::start::Parts {
        source: source.clone(),
        admin,
        requests: None,
        admin_hosts: Vec::new(),
        router_flavor: settings.router_flavor,
        admin_gui_url: Vec::new(),
        require_reason: settings.require_reason,
        access: sluice_cp::start::AccessOptions::default(),
        admin_tls: None,
        log_level: log_level.clone(),
        data_dir: settings.data_dir.join("cp"),
        key,
        keychain: keychain.clone(),
        cluster: CLUSTER.into(),
        sync: settings.incremental_sync,
        snapshots: sluice_cp::snapshots::Policy::default(),
        secrets: Secrets::open_or_create(secrets_path.clone())?,
        traces: sluice_cp::start::TracesOptions {
            target: settings.traces.target()?,
            sample: settings.sampling.traces_sample,
        },
    };
    let control = sluice_cp::start::start(control, &shutdown)?;
    let data = sluice_dp::start::Parts {
        source,
        keychain,
        cluster: CLUSTER.into(),
        traces: settings.traces.target()?,
        sync: settings.incremental_sync,
        data_dir: settings.data_dir.join("dp"),
        node_id: None,
        secrets: Secrets::open(Some(secrets_path))?,
        groups: BTreeSet::new(),
        status,
        log_level,
        proxy: proxy::Options {
            listen: settings.listen.proxy_listen.clone(),
            workers: settings.listen.workers(),
            ..proxy::Options::default()
        },
    };
    let data = sluice_dp::start::start(data, &shutdown)?;
    tokio::select! {
        prepared = prepare(&settings, &control.control_plane, data.replica.clone(), &shutdown) => {
            if let Err(error) = prepared {
                shutdown.cancel();
                let _ = tokio::join!(control.wait(shutdown.clone()), data.wait(shutdown.clone()));
                return Err(error);
            }
        }
        () = shutdown.cancelled() => {}
    }
    if settings.demo && !shutdown.is_cancelled() {
        println!("{}", hints(data.proxy[0], control.admin));
    }
    let (control, data) = tokio::join!(control.wait(shutdown.clone()), data.wait(shutdown));
    control.and(data)
}

async fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("could not listen on {address} ({setting})"))
}

/// Applies what is to be applied and waits until the data plane serves it.
async fn prepare(
    settings: &Settings,
    control: &ControlPlane,
    data: watch::Receiver<Status>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    control
        .view
        .reached(Epoch::default(), Version::GENESIS)
        .await;
    let mut version = control.view.state().version();
    if settings.demo {
        let listener = match TcpListener::bind(DEMO_ECHO).await {
            Ok(listener) => listener,
            Err(_) => bind(SocketAddr::from(([127, 0, 0, 1], 0)), "the echo upstream").await?,
        };
        let text = DEMO.replace(DEMO_ECHO, &listener.local_addr()?.to_string());
        tokio::spawn(echo::serve(listener, shutdown.clone()));
        version = apply(control, &Bundle::of("shop.yaml", &text)?).await?;
    }
    if let Some(path) = &settings.apply {
        let lookup = |name: &str| std::env::var(name).ok();
        let bundle = Bundle::read(std::slice::from_ref(path), &lookup);
        version = apply(control, &bundle.context("could not apply (apply)")?).await?;
    }
    follow(data, version).await
}

async fn apply(control: &ControlPlane, bundle: &Bundle) -> anyhow::Result<Version> {
    let list = |mistakes: Vec<declare::Mistake>| {
        let lines: Vec<String> = mistakes
            .iter()
            .map(|mistake| bundle.told(mistake))
            .collect();
        anyhow::anyhow!("nothing was applied\n{}", lines.join("\n"))
    };
    let document = declare::read(&bundle.text).map_err(list)?;
    let plan = Plan {
        workspace: Workspace::DEFAULT,
        document,
        prune: false,
    };
    let actor = Actor {
        name: "sluice up".into(),
        via: "apply".into(),
        address: None,
    };
    let request = Request {
        actor,
        router_flavor: control.info.router_flavor,
        ..Request::default()
    };
    match control
        .writer
        .write(Command::Apply(Box::new(plan)), request)
        .await
    {
        Ok(written) => {
            if let Outcome::Applied(applied) = written.outcome {
                tracing::info!(file = bundle.label(), version = %written.version, ?applied, "applied");
            }
            Ok(written.version)
        }
        Err(WriteError::Refused(Refusal::Mistaken(mistakes))) => Err(list(mistakes)),
        Err(error) => bail!("could not apply {}: {error}", bundle.label()),
    }
}

/// Waits until the data plane has applied `version`, with a progress bar on a terminal.
async fn follow(mut data: watch::Receiver<Status>, version: Version) -> anyhow::Result<()> {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(version.0), target).with_message("catching up");
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} version {pos} of {len}") {
        bar.set_style(style);
    }
    loop {
        let applied = data.borrow_and_update().cursor.version;
        bar.set_position(applied.0);
        if applied >= version {
            bar.finish_and_clear();
            return Ok(());
        }
        let changed = tokio::time::timeout(Duration::from_secs(60), data.changed()).await;
        changed
            .context("the data plane makes no progress")?
            .context("the data plane has ended")?;
    }
}

fn hints(proxy: SocketAddr, admin: SocketAddr) -> String {
    format!(
        "
Sluice is up. Three things to try in another terminal:

  # a request through the gateway
  curl -i http://{proxy}/products/42

  # a change: the route now wants a key
  curl -i -X POST http://{admin}/routes/product/plugins --json '{{\"name\": \"key-auth\"}}'

  # the same request shows it (401); with a key it passes:  -H 'apikey: anna-secret'
  curl -i http://{proxy}/products/42

Control-C stops it."
    )
}
