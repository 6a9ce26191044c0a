//! How long a fleet of data planes takes to confirm a change, and what that costs a control plane.
//!
//! The data planes are simulated: each has a connection of its own, follows the log by the real state machine, verifies
//! every event, folds it and reports, all in this process; it has no store and no proxy.

use super::rig::{PATIENCE, SETTLE};
use super::{median, usage};
use crate::admin::{Answer, Connection};
use crate::processes::ControlPlane;
use crate::processes::nats::Nats;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use futures::StreamExt;
use serde_json::json;
use sluice_replica::follow::{Action, Follow, Input};
use sluice_replica::keys::TrustedKeys;
use sluice_replica::log::jetstream::{JetStream, Options, Role};
use sluice_replica::log::{Interest, Source, TailItem};
use sluice_replica::node::{Head, Report, SyncMode};
use sluice_replica::process::now;
use sluice_schema::state::State;
use sluice_schema::version::{Cursor, Version};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// As a real data plane.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Between the starts of two simulated data planes.
const BETWEEN_STARTS: Duration = Duration::from_millis(2);
/// Between two changes that are waited for: longer than all reports of one take.
const BETWEEN_WAITS: Duration = Duration::from_millis(300);
/// Changes that nobody waits for are measured in spans of this length, each after one of the same length without changes: what the
/// reports of every second cost is more than what changes do, and not the same all the time.
const SPAN: Duration = Duration::from_secs(5);
const SPANS: usize = 8;
/// Between two of these changes: so many that they show, so few that the simulated data planes do not take all of the machine.
const BETWEEN_CHANGES: Duration = Duration::from_millis(100);
const IDLE: Duration = Duration::from_secs(5);

/// Arguments of `sluice bench fleet`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Numbers of simulated data planes
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "10,1000",
        value_name = "N"
    )]
    nodes: Vec<usize>,
    /// Changes to wait for
    #[arg(long, default_value = "30", value_name = "N")]
    changes: usize,
}

struct Row {
    /// From the request to the answer that all serve it.
    confirmed: Vec<Duration>,
    /// The control plane's CPU time per change for which somebody waits, beyond what it needs when nothing changes.
    confirmed_cpu: Duration,
    /// The same per change for which nobody waits.
    cpu: Duration,
    /// Its CPU time per second when nothing changes.
    idle: Duration,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    println!(
        "one broker, one control plane and the simulated data planes on this machine; log sync_interval: always"
    );
    println!(
        "{:>6}  {:>8}  {:>14}  {:>12}  {:>13}  {:>16}  {:>13}",
        "nodes",
        "changes",
        "confirmed p50",
        "max",
        "CP CPU/change",
        "and if waited for",
        "CP CPU idle/s"
    );
    let mut first = None;
    for nodes in &arguments.nodes {
        let mut row =
            measure(*nodes, arguments.changes).with_context(|| format!("{nodes} nodes"))?;
        let middle = median(&mut row.confirmed);
        let max = row.confirmed.last().copied().unwrap_or_default();
        let base = *first.get_or_insert(row.cpu);
        println!(
            "{nodes:>6}  {:>8}  {middle:>14.1?}  {max:>12.1?}  {:>13.1?}  {:>16.1?}  {:>13.1?}  ({:.2}x)",
            row.confirmed.len(),
            row.cpu,
            row.confirmed_cpu,
            row.idle,
            row.cpu.as_secs_f64() / base.as_secs_f64().max(f64::EPSILON)
        );
    }
    Ok(())
}

fn measure(nodes: usize, changes: usize) -> Result<Row> {
    let directory: TempDir = tempfile::tempdir()?;
    let nats = Nats::start()?;
    let keys = directory.path().join("keys");
    let control = ControlPlane::start(&nats.url(), &directory.path().join("cp"), &keys, &[])?;
    let admin = Connection::to(control.url());
    let process = control
        .process_id()
        .context("the control plane has ended")?;
    create(&admin, "first", None)?;
    let trusted = TrustedKeys::load(&keys)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let shutdown = CancellationToken::new();
    start_fleet(&runtime, nodes, &nats.url(), &trusted, &shutdown);
    let wait = format!("/nodes/wait?quorum={nodes}&timeout=60");
    let all = admin.get_any(&wait)?;
    ensure!(all.status == 200, "the fleet did not come: {}", all.body);
    let known = admin.get_any("/nodes/wait?timeout=60")?;
    ensure!(
        known.status == 200,
        "the fleet did not converge: {}",
        known.body
    );

    let before = usage::cpu(process)?;
    std::thread::sleep(IDLE);
    let idle = usage::cpu(process)?
        .saturating_sub(before)
        .div_f64(IDLE.as_secs_f64());
    let meter = Meter { process, idle };
    let mut confirmed = Vec::with_capacity(changes);
    let confirmed_cpu = meter.per_change(changes, |number| {
        let asked = Instant::now();
        let name = format!("service-{number}");
        let answer = create(&admin, &name, Some("all; timeout=10"))?;
        ensure!(answer.status == 201, "not confirmed: {}", answer.body);
        confirmed.push(asked.elapsed());
        std::thread::sleep(BETWEEN_WAITS);
        Ok(())
    })?;
    let cpu = meter
        .per_change_in_spans(|number| create(&admin, &format!("more-{number}"), None).map(drop))?;
    shutdown.cancel();
    runtime.shutdown_background();
    Ok(Row {
        confirmed,
        confirmed_cpu,
        cpu,
        idle,
    })
}

/// Measures what changes cost a process.
struct Meter {
    process: u32,
    idle: Duration,
}

impl Meter {
    /// CPU time per change, beyond what the process needs when nothing changes.
    fn per_change(
        &self,
        changes: usize,
        mut change: impl FnMut(usize) -> Result<()>,
    ) -> Result<Duration> {
        let (began, before) = (Instant::now(), usage::cpu(self.process)?);
        for number in 0..changes {
            change(number)?;
        }
        let used = usage::cpu(self.process)?.saturating_sub(before);
        let without = self.idle.mul_f64(began.elapsed().as_secs_f64());
        Ok(used.saturating_sub(without) / u32::try_from(changes.max(1))?)
    }
}

impl Meter {
    /// CPU time per change, beyond what the process needs in the same time without: the median of several spans.
    fn per_change_in_spans(&self, mut change: impl FnMut(usize) -> Result<()>) -> Result<Duration> {
        let mut costs = Vec::with_capacity(SPANS);
        let mut number = 0;
        for _ in 0..SPANS {
            let before = usage::cpu(self.process)?;
            std::thread::sleep(SPAN);
            let between = usage::cpu(self.process)?;
            let (began, first) = (Instant::now(), number);
            while began.elapsed() < SPAN {
                change(number)?;
                number += 1;
                std::thread::sleep(BETWEEN_CHANGES);
            }
            let with = (usage::cpu(self.process)? - between).as_secs_f64();
            let with = with / began.elapsed().as_secs_f64();
            let without = (between - before).as_secs_f64() / SPAN.as_secs_f64();
            let rate = (number - first) as f64 / began.elapsed().as_secs_f64();
            costs.push(Duration::from_secs_f64(((with - without) / rate).max(0.0)));
        }
        Ok(median(&mut costs))
    }
}

/// Creates a service, waiting for the fleet or not.
fn create(admin: &Connection, name: &str, wait: Option<&str>) -> Result<Answer> {
    let body = json!({ "name": name, "host": "127.0.0.1" }).to_string();
    let headers: Vec<(&str, &str)> = wait.map(|wait| ("sluice-wait", wait)).into_iter().collect();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = admin.post("/services", "application/json", &headers, body.as_bytes())?;
        match answer.status {
            201 | 202 => return Ok(answer),
            // The control plane may not have reached the broker yet.
            503 if Instant::now() < deadline => std::thread::sleep(SETTLE),
            status => bail!("answered with {status}: {}", answer.body),
        }
    }
}

fn start_fleet(
    runtime: &Runtime,
    nodes: usize,
    url: &str,
    trusted: &TrustedKeys,
    shutdown: &CancellationToken,
) {
    for number in 0..nodes {
        let (url, trusted, shutdown) = (url.to_owned(), trusted.clone(), shutdown.clone());
        runtime.spawn(async move {
            let ended = tokio::select! {
                () = shutdown.cancelled() => return,
                ended = simulate(number, url, trusted) => ended,
            };
            if let Err(error) = ended {
                tracing::error!(
                    number,
                    error = format!("{error:#}"),
                    "a simulated data plane ended"
                );
                eprintln!("simulated data plane {number}: {error:#}");
            }
        });
        std::thread::sleep(BETWEEN_STARTS);
    }
}

/// A data plane without a store and a proxy.
struct Simulated {
    node: String,
    source: Source,
    trusted: TrustedKeys,
    follow: Follow,
    state: State,
    /// The version it last reported, and the highest that somebody waits for.
    told: Version,
    asked: Version,
}

async fn simulate(number: usize, url: String, trusted: TrustedKeys) -> Result<()> {
    let node = format!("simulated-{number}");
    let source = JetStream::connect(Options {
        servers: vec![url],
        cluster: "main".into(),
        ..Options::new(Role::DataPlane, &node)
    })
    .await?;
    let mut tail = source.log.tail(Interest::Follow).await?;
    let mut tick = tokio::time::interval(REPORT_INTERVAL);
    let mut simulated = Simulated {
        node,
        source,
        follow: Follow::new(Cursor::default(), trusted.clone(), SyncMode::Incremental),
        trusted,
        state: State::default(),
        told: Version::ZERO,
        asked: Version::ZERO,
    };
    loop {
        let input = tokio::select! {
            item = tail.next() => match item.context("the tail has ended")? {
                TailItem::Record(record) => Input::Tail(record),
                TailItem::Head(message) => {
                    let head = Head::open(&message, &simulated.trusted)?;
                    simulated.asked = simulated.asked.max(head.asks);
                    Input::Head(head)
                }
                TailItem::Connected => Input::Connected,
                TailItem::Disconnected => Input::Disconnected,
                TailItem::Report(_) | TailItem::Warning(_) => continue,
            },
            _ = tick.tick() => {
                simulated.report().await;
                Input::Tick
            }
        };
        simulated.step(input).await?;
        let version = simulated.state.version();
        if version > simulated.told && simulated.asked > simulated.told {
            simulated.report().await;
        }
    }
}

impl Simulated {
    async fn step(&mut self, input: Input) -> Result<()> {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for action in self.follow.step(input) {
                match action {
                    Action::Read(from) => {
                        inputs.push_back(match self.source.log.read(from).await {
                            Ok(page) => Input::Page { from, page },
                            Err(_) => Input::ReadFailed,
                        })
                    }
                    Action::Apply(events) => {
                        for event in events {
                            self.state = self.state.apply(&event.event, &event.record.event)?.0;
                        }
                        inputs.push_back(Input::Applied);
                    }
                    Action::Alarm(alarm) => bail!("an alarm: {alarm:?}"),
                    // It reads the log from its beginning, which is short here.
                    Action::FindSnapshot => inputs.push_back(Input::Snapshots(Vec::new())),
                    Action::Load(_) | Action::Refold => {
                        bail!("a simulated data plane takes up no snapshots")
                    }
                }
            }
        }
        Ok(())
    }

    async fn report(&mut self) {
        self.told = self.state.version();
        let report = Report {
            node: self.node.clone(),
            hostname: "simulated".to_owned(),
            software: env!("CARGO_PKG_VERSION").to_owned(),
            groups: std::collections::BTreeSet::new(),
            cursor: self.state.cursor(),
            digest: self.state.digest(),
            durable: self.state.version(),
            entities: self.state.len() as u64,
            rejected: Vec::new(),
            phase: self.follow.phase().to_string(),
            last_error: None,
            keyring: 0,
            plugins: sluice_dp::plugin::STANDARD
                .names()
                .map(str::to_owned)
                .collect(),
            ailing: Vec::new(),
            leaving: false,
            time: now(),
        };
        // One that is lost is followed by the next.
        let _ = self.source.log.report(&self.node, report.encode()).await;
    }
}
