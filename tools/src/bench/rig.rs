//! One broker, one control plane, one data plane behind a relay that counts, and an upstream, on this machine.

use super::relay::Relay;
use crate::admin::Connection;
use crate::echo;
use crate::processes::nats::Nats;
use crate::processes::{ControlPlane, DataPlane, terminate};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sluice_replica::node::SyncMode;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Whatever takes longer has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);
/// Long enough for what a change causes to have arrived, short enough that few heads fall into it.
pub(super) const SETTLE: Duration = Duration::from_millis(30);
/// After this a data plane has given back what a load needed.
pub(super) const STEADY_AFTER: Duration = Duration::from_secs(15);

/// A data plane that takes longer to end is killed.
const END_MAX: Duration = Duration::from_secs(10);

/// On each service and route.
const TAGS: usize = 8;
/// More go into several files, for the Admin API takes 64 MiB at a time.
const FILE_SERVICES_MAX: usize = 25_000;

/// How a data plane is started besides the usual.
#[derive(Default)]
pub(super) struct Start {
    /// More flags.
    pub(super) flags: Vec<String>,
    /// A program that runs it, with arguments.
    pub(super) under: Vec<String>,
}

/// Everything that runs for one row.
pub(super) struct Rig {
    pub(super) nats: Nats,
    pub(super) relay: Relay,
    pub(super) control: ControlPlane,
    pub(super) data: DataPlane,
    pub(super) admin: Connection,
    upstream: SocketAddr,
    start: Start,
    keys: PathBuf,
    directory: TempDir,
}

impl Rig {
    pub(super) fn start(mode: SyncMode, sync_interval: &str) -> Result<Self> {
        Self::start_with(mode, sync_interval, Start::default())
    }

    pub(super) fn start_with(mode: SyncMode, sync_interval: &str, start: Start) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut nats = Nats::start()?;
        if sync_interval != "always" {
            nats.set_sync_interval(sync_interval);
            nats.restart()?;
        }
        let url = nats.url();
        let server: SocketAddr = url.trim_start_matches("nats://").parse()?;
        let relay = Relay::start(server)?;
        let keys = directory.path().join("keys");
        let monitor = format!("--nats-monitor-url={}", nats.monitor_url());
        let control = ControlPlane::start(
            &url,
            &directory.path().join("cp"),
            &keys,
            &[flag(mode), &monitor],
        )?;
        let data = start_data(&relay, &directory.path().join("dp"), &keys, mode, &start)?;
        let admin = Connection::to(control.url());
        let upstream = start_echo()?;
        Ok(Self {
            nats,
            relay,
            control,
            data,
            admin,
            upstream,
            start,
            keys,
            directory,
        })
    }

    /// Starts a data plane that has nothing yet in place of the one there is.
    pub(super) fn replace_data(&mut self, name: &str) -> Result<()> {
        let directory = self.directory.path().join(name);
        self.data.kill();
        let mode = SyncMode::Incremental;
        self.data = start_data(&self.relay, &directory, &self.keys, mode, &self.start)?;
        Ok(())
    }

    pub(super) fn process(&self) -> Result<u32> {
        self.data.process_id().context("the data plane has ended")
    }

    /// Applies the configuration and waits until the data plane has it. Gives back the bytes of its JSON.
    pub(super) fn load(&self, entities: usize) -> Result<usize> {
        self.load_with(entities, TAGS)
    }

    /// The same with so many tags on each.
    pub(super) fn load_with(&self, entities: usize, tags: usize) -> Result<usize> {
        let services = entities.div_ceil(2);
        let (mut version, mut bytes) = (0, 0);
        for first in (0..services).step_by(FILE_SERVICES_MAX) {
            let numbers = first..services.min(first + FILE_SERVICES_MAX);
            let file = configuration(numbers, tags, self.upstream).to_string();
            version = self.apply(&file)?;
            bytes += file.len();
        }
        self.wait_for(version)?;
        Ok(bytes)
    }

    /// Applies a file; gives back its version.
    pub(super) fn apply(&self, file: &str) -> Result<u64> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self
                .admin
                .post("/apply", "application/json", &[], file.as_bytes())?;
            match answer.status {
                200 | 201 => return answer.version.context("no Sluice-Version"),
                // The control plane may not have reached the broker yet.
                503 if Instant::now() < deadline => std::thread::sleep(SETTLE),
                status => bail!("apply was answered with {status}: {}", answer.body),
            }
        }
    }

    pub(super) fn wait_for(&self, version: u64) -> Result<()> {
        let status = Connection::to(self.data.status_url());
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = status.get("/status")?;
            if found["log"]["version"].as_u64() >= Some(version) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "the data plane did not reach version {version}: {found}\n{}",
                    self.control.said()
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Rig {
    /// Ends the data plane as an operator would: one built to be profiled writes down its profile then.
    fn drop(&mut self) {
        if terminate(self.data.process_id()).is_err() {
            return;
        }
        let deadline = Instant::now() + END_MAX;
        while self.data.is_running() && Instant::now() < deadline {
            std::thread::sleep(SETTLE);
        }
    }
}

fn start_data(
    relay: &Relay,
    directory: &Path,
    keys: &Path,
    mode: SyncMode,
    start: &Start,
) -> Result<DataPlane> {
    let relayed = format!("nats://{}", relay.address());
    let mut flags = vec![flag(mode), "--workers=1"];
    flags.extend(start.flags.iter().map(String::as_str));
    DataPlane::start_under(&start.under, &relayed, directory, keys, &flags)
}

fn flag(mode: SyncMode) -> &'static str {
    match mode {
        SyncMode::Incremental => "--incremental-sync=on",
        SyncMode::Full => "--incremental-sync=off",
    }
}

/// Services with a route each. With the usual tags one is 460 bytes of JSON as it is applied, and about twice that as the Admin API gives it back.
fn configuration(numbers: Range<usize>, tags: usize, upstream: SocketAddr) -> Value {
    let tags = |kind: &str, number: usize| -> Vec<String> {
        (0..tags)
            .map(|tag| format!("{kind}-{number:07}-team-{tag}-owner-of-something"))
            .collect()
    };
    let services = numbers.map(|number| {
        json!({
            "name": format!("service-{number}"),
            "host": upstream.ip().to_string(),
            "port": upstream.port(),
            "path": format!("/upstream/{number}"),
            "tags": tags("service", number),
            "routes": [{
                "name": format!("route-{number}"),
                "hosts": [format!("host-{number}.example.com")],
                "paths": [format!("/api/v1/resource-{number}")],
                "methods": ["GET", "POST"],
                "tags": tags("route", number),
            }],
        })
    });
    json!({ "_format_version": "3.0", "services": services.collect::<Vec<_>>() })
}

fn start_echo() -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            echo::serve(listener, CancellationToken::new()).await;
            Ok::<_, std::io::Error>(())
        })
    });
    Ok(address)
}
