//! What looking back costs: the history of one entity among many events, and the way back from a change of many.
//!
//! The events are decided and appended here, in batches, as a control plane does it: over the Admin API a million would
//! take the most of an hour. Everything measured goes over the Admin API of a control plane that has read them.

use super::client::Client;
use super::rig::{PATIENCE, SETTLE};
use super::{median, usage};
use crate::processes::ControlPlane;
use crate::processes::nats::Nats;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use indicatif::ProgressBar;
use serde_json::{Map, Value, json};
use sluice_replica::environment::Environment;
use sluice_replica::keys::{SigningKey, TrustedKeys};
use sluice_replica::log::jetstream::{JetStream, Options, Role};
use sluice_replica::log::{Append, BATCH_EVENTS_MAX, LogError, Source};
use sluice_replica::run::fold_log;
use sluice_schema::decide::{
    Action, Command, Origin, Precondition, Proposal, Selector, Write, decide,
};
use sluice_schema::entity::Workspace;
use sluice_schema::event::{Actor, EventId};
use sluice_schema::kind::{Kind, RouterFlavor};
use sluice_schema::state::State;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a control plane may take to read all events.
const READ_PATIENCE: Duration = Duration::from_mins(20);

/// The cluster of programs that are told of none.
const CLUSTER: &str = "main";

/// Arguments of `sluice bench history`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Events of the log
    #[arg(long, default_value = "1000000", value_name = "N")]
    events: u64,
    /// Entities that they change, one each
    #[arg(long, default_value = "100000", value_name = "N")]
    entities: usize,
    /// Entities that are changed at once and rolled back
    #[arg(long, default_value = "1000", value_name = "N")]
    changed: usize,
    /// Questions of each sort; a tenth as many rollbacks
    #[arg(long, default_value = "100", value_name = "N")]
    rounds: usize,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    println!(
        "one broker (sync_interval: always) and one control plane on this machine; {} events, {} entities",
        arguments.events, arguments.entities
    );
    ensure!(
        arguments.changed <= arguments.entities,
        "there are only {} entities to change",
        arguments.entities
    );
    let directory = tempfile::tempdir()?;
    let nats = Nats::start()?;
    let keys = directory.path().join("keys");
    let key = SigningKey::create(&keys.join("bench.key"), "bench")?;
    let monitor = format!("--nats-monitor-url={}", nats.monitor_url());
    let home = directory.path().join("cp");
    let mut control = ControlPlane::start(&nats.url(), &home, &keys, &[&monitor])?;
    let rig = Rig::of(&control)?;
    rig.load(arguments.entities)?;
    rig.memory("RSS with the entities")?;
    crate::broker::block_on(fill(&nats, &keys, &key, arguments))?;
    rig.wait_until_read(arguments.events)?;
    rig.memory("RSS with all events")?;
    let began = Instant::now();
    control.restart()?;
    let rig = Rig::of(&control)?;
    rig.wait_until_read(arguments.events)?;
    println!(
        "  restart, until all events are read again: {:.2?}",
        began.elapsed()
    );
    rig.memory("RSS after the restart")?;
    rig.ask(arguments)?;
    rig.roll_back(arguments)
}

/// Appends changes of single entities until the log has as many events as it should.
async fn fill(nats: &Nats, keys: &Path, key: &SigningKey, arguments: &Arguments) -> Result<()> {
    let options = Options {
        servers: vec![nats.url()],
        cluster: CLUSTER.to_owned(),
        ..Options::new(Role::ControlPlane, "bench")
    };
    let source = JetStream::connect(options).await?;
    let trusted = TrustedKeys::load(keys)?;
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = source.log.bounds().await {
        let waiting = matches!(error, LogError::Unavailable(_)) && Instant::now() < deadline;
        ensure!(waiting, "the broker does not answer: {error}");
        tokio::time::sleep(SETTLE).await;
    }
    let mut state = fold_log(&source, &trusted).await?;
    let environment = Environment::system();
    let bar = crate::broker::bar("events");
    bar.set_length(arguments.events);
    let began = Instant::now();
    let first = state.version().0;
    while state.version().0 < arguments.events {
        let left = usize::try_from(arguments.events - state.version().0)?;
        let batch = left.min(BATCH_EVENTS_MAX);
        state = append(&source, key, &environment, state, batch, arguments.entities).await?;
        bar.set_position(state.version().0);
    }
    finish(&bar, state.version().0 - first, began.elapsed());
    Ok(())
}

fn finish(bar: &ProgressBar, events: u64, took: Duration) {
    bar.finish_and_clear();
    println!("  {events} events appended in batches of {BATCH_EVENTS_MAX}: {took:.2?}");
}

/// Appends a batch, each event a change of the next entity; gives back the state after it.
async fn append(
    source: &Source,
    key: &SigningKey,
    environment: &Environment,
    mut state: State,
    count: usize,
    entities: usize,
) -> Result<State> {
    let before = state.version();
    let mut batch = Vec::with_capacity(count);
    for _ in 0..count {
        let version = state.version().0;
        let number = usize::try_from(version)? % entities;
        let body = json!({ "host": format!("h{version}.example") });
        let write = Write {
            kind: Kind::Service,
            workspace: Workspace::DEFAULT,
            scope: None,
            action: Action::Update(Selector::Name(name(number))),
            body: body.as_object().cloned().unwrap_or_else(Map::new),
            precondition: Precondition::default(),
        };
        let origin = Origin {
            id: EventId(environment.ordered_uuid()),
            time: environment.now(),
            actor: Actor {
                name: format!("actor-{}", version % 50),
                via: "bench".to_owned(),
                address: None,
            },
            reason: version
                .is_multiple_of(10)
                .then(|| format!("ticket {}", version / 1000)),
            request_id: None,
            trace: None,
            seed: environment.seed(),
            router_flavor: RouterFlavor::default(),
        };
        let decision = decide(&state, Command::Write(Box::new(write)), &origin)?;
        let proposal = decision.event.context("a change changes nothing")?;
        batch.push(signed(key, proposal));
        state = decision.state;
    }
    source.log.append(before, batch).await?;
    Ok(state)
}

fn signed(key: &SigningKey, proposal: Proposal) -> Append {
    Append {
        subject: proposal.subject,
        id: proposal.event.id,
        event: proposal.encoded.bytes.into(),
        signature: key.sign_event(proposal.cursor.chain),
    }
}

fn name(number: usize) -> String {
    format!("service-{number:07}")
}

struct Rig {
    process: u32,
    client: Client,
}

impl Rig {
    fn of(control: &ControlPlane) -> Result<Self> {
        let process = control.process_id();
        Ok(Self {
            process: process.context("the control plane has ended")?,
            client: Client::new(control.url()),
        })
    }

    fn memory(&self, what: &str) -> Result<()> {
        println!("  {what}: {} MB", usage::memory(self.process)? >> 20);
        Ok(())
    }

    fn get(&self, path: &str) -> Result<Value> {
        let mut answer = self.client.get(path)?;
        let status = answer.status().as_u16();
        let body = answer
            .body_mut()
            .with_config()
            .limit(u64::MAX)
            .read_to_vec()?;
        let said: Value = serde_json::from_slice(&body)?;
        ensure!(
            status == 200,
            "{path} was answered with {status}: {said:.300}"
        );
        Ok(said)
    }

    /// Applies one file; the control plane may not have reached the broker yet.
    fn apply(&self, file: &Value) -> Result<u64> {
        let text = file.to_string();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut answer = self.client.post("/apply", &text)?;
            let status = answer.status().as_u16();
            let said = answer.body_mut().read_to_string()?;
            match status {
                200 => {
                    let said: Value = serde_json::from_str(&said)?;
                    return said["version"].as_u64().context("no version");
                }
                503 if Instant::now() < deadline => std::thread::sleep(SETTLE),
                status => bail!("apply was answered with {status}: {said:.300}"),
            }
        }
    }

    fn load(&self, entities: usize) -> Result<()> {
        let began = Instant::now();
        self.apply(&file(0..entities, |number| format!("h{number}.example")))?;
        println!(
            "  {entities} entities applied as one transaction: {:.2?}",
            began.elapsed()
        );
        Ok(())
    }

    fn wait_until_read(&self, events: u64) -> Result<()> {
        let deadline = Instant::now() + READ_PATIENCE;
        loop {
            let head = self.get("/log/head")?;
            let history = &head["history"];
            if history["complete"] == true && history["last"].as_u64() >= Some(events) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the events are not read: {head}");
            std::thread::sleep(SETTLE);
        }
    }

    /// Questions about what has happened.
    fn ask(&self, arguments: &Arguments) -> Result<()> {
        let rounds = arguments.rounds.max(1);
        let spread = |round: usize| round * 7919 % arguments.entities;
        let head = self.get("/log/head")?;
        let last = head["version"].as_u64().unwrap_or(0);
        let once = |what: &str, path: &dyn Fn(usize) -> String| -> Result<()> {
            let mut took = Vec::new();
            for round in 0..rounds {
                let began = Instant::now();
                self.get(&path(round))?;
                took.push(began.elapsed());
            }
            let middle = median(&mut took);
            let p99 = took[(rounds * 99 / 100).min(rounds - 1)];
            println!("  {what}: {middle:.2?} (p99 {p99:.2?})");
            Ok(())
        };
        once("history of one entity", &|round| {
            format!("/log/history/service/{}", name(spread(round)))
        })?;
        once("blame of one entity", &|round| {
            format!("/log/history/service/{}/blame", name(spread(round)))
        })?;
        once("newest 20 events of one actor", &|round| {
            format!("/log/events?actor=actor-{}&size=20", round % 50)
        })?;
        once("newest 20 events with a word in the reason", &|round| {
            format!("/log/events?reason=ticket%20{round}&size=20")
        })?;
        once("events of an actor that is not there", &|round| {
            format!("/log/events?actor=nobody-{round}")
        })?;
        once("one entity 100 versions ago", &|round| {
            let at = last.saturating_sub(100 + round as u64);
            format!("/services/{}?at={at}", name(spread(round)))
        })
    }

    /// Changes many entities at once, and goes back.
    fn roll_back(&self, arguments: &Arguments) -> Result<()> {
        let mut took = Vec::new();
        let mut planned = Vec::new();
        for round in 0..(arguments.rounds / 10).max(1) {
            let head = self.get("/log/head")?;
            let before = &head["version"];
            let moved = file(0..arguments.changed, |_| format!("moved-{round}.example"));
            self.apply(&moved)?;
            let body = json!({ "to": before }).to_string();
            let began = Instant::now();
            self.post("/log/rollback?dry_run=1", &body)?;
            planned.push(began.elapsed());
            let began = Instant::now();
            let answer = self.post("/log/rollback", &body)?;
            took.push(began.elapsed());
            ensure!(
                answer["updated"] == arguments.changed,
                "not all was put back: {answer}"
            );
            ensure!(
                self.get("/log/head")?["digest"] == head["digest"],
                "the state is not what it was"
            );
        }
        let (middle, worst) = (median(&mut took), took[took.len() - 1]);
        println!(
            "  rollback of {} of {} entities: {middle:.2?} (worst {worst:.2?}); its dry run: {:.2?}",
            arguments.changed,
            arguments.entities,
            median(&mut planned)
        );
        Ok(())
    }

    fn post(&self, path: &str, body: &str) -> Result<Value> {
        let mut answer = self.client.post(path, body)?;
        let status = answer.status().as_u16();
        let said = answer
            .body_mut()
            .with_config()
            .limit(u64::MAX)
            .read_to_vec()?;
        let said: Value = serde_json::from_slice(&said)?;
        ensure!(
            status == 200,
            "{path} was answered with {status}: {said:.300}"
        );
        Ok(said)
    }
}

fn file(numbers: std::ops::Range<usize>, host: impl Fn(usize) -> String) -> Value {
    let services = numbers.map(|number| json!({ "name": name(number), "host": host(number) }));
    json!({ "_format_version": "3.0", "services": services.collect::<Vec<_>>() })
}
