//! What the Admin API costs as the configuration grows: a large file, lists, and a change of one entity.

use super::client::Client;
use super::rig::{PATIENCE, SETTLE};
use super::{median, usage};
use crate::processes::ControlPlane;
use crate::processes::nats::Nats;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// After this a control plane has given back what a large file needed.
const STEADY_AFTER: Duration = Duration::from_secs(15);
const PAGE_SIZE: usize = 1_000;

/// Arguments of `sluice bench admin`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Consumers with a key each, applied from one file
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1000,100000",
        value_name = "N"
    )]
    consumers: Vec<usize>,
    /// PUTs of one entity, one after the other
    #[arg(long, default_value = "1000", value_name = "N")]
    puts: usize,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    println!("one broker (sync_interval: always) and one control plane on this machine");
    for consumers in &arguments.consumers {
        measure(*consumers, arguments.puts)
            .with_context(|| format!("with {consumers} consumers"))?;
    }
    Ok(())
}

fn measure(consumers: usize, puts: usize) -> Result<()> {
    println!("\n{consumers} consumers with a key each");
    let bar = crate::apply::spinner("one file".to_owned());
    let directory = tempfile::tempdir()?;
    let nats = Nats::start()?;
    let monitor = format!("--nats-monitor-url={}", nats.monitor_url());
    let keys = directory.path().join("keys");
    let mut control = ControlPlane::start(
        &nats.url(),
        &directory.path().join("cp"),
        &keys,
        &[&monitor],
    )?;
    let rig = Rig::of(&control)?;
    rig.wait_until_writable()?;
    rig.apply(consumers)?;
    bar.set_message("lists");
    rig.walk(consumers)?;
    bar.set_message("PUTs of one entity");
    rig.put_one(consumers / 2, puts)?;
    bar.set_message("memory");
    rig.memory("RSS of the control plane")?;
    let began = Instant::now();
    control.restart()?;
    let rig = Rig::of(&control)?;
    rig.wait_until_writable()?;
    println!("  restart, to the first write: {:.2?}", began.elapsed());
    rig.memory("RSS after the restart")?;
    bar.finish_and_clear();
    Ok(())
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

    /// What is used once it has given back what the work needed.
    fn memory(&self, what: &str) -> Result<()> {
        std::thread::sleep(STEADY_AFTER);
        println!(
            "  {what}: {} MB after {STEADY_AFTER:?}, {} MB at most",
            usage::memory(self.process)? >> 20,
            usage::memory_max(self.process)? >> 20,
        );
        Ok(())
    }

    /// The control plane may not have reached the broker yet.
    fn wait_until_writable(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let body = json!({ "custom_id": "first" });
            match self.client.put("/consumers/first", &body)?.0 {
                200 | 201 => return Ok(()),
                503 if Instant::now() < deadline => std::thread::sleep(SETTLE),
                status => bail!("the first write was answered with {status}"),
            }
        }
    }

    fn apply(&self, consumers: usize) -> Result<()> {
        let list = (0..consumers).map(|number| {
            json!({
                "username": username(number),
                "keyauth_credentials": [{ "key": format!("key-of-consumer-{number:07}") }],
            })
        });
        let file = json!({ "_format_version": "3.0", "consumers": list.collect::<Vec<_>>() });
        let file = file.to_string();
        let (began, cpu) = (Instant::now(), usage::cpu(self.process)?);
        let answer = self.client.post("/apply", &file)?;
        let (took, status) = (began.elapsed(), answer.status().as_u16());
        ensure!(
            status == 200 || status == 201,
            "apply was answered with {status}: {:.300}",
            answer.into_body().read_to_string()?
        );
        let cpu = usage::cpu(self.process)? - cpu;
        println!(
            "  one file of {} MB applied: {took:.2?}, CPU {cpu:.2?}",
            file.len() >> 20
        );
        Ok(())
    }

    /// Reads all pages of both collections.
    fn walk(&self, consumers: usize) -> Result<()> {
        for collection in ["consumers", "key-auths"] {
            let (mut took, mut found) = (Vec::new(), 0);
            let mut next = Some(format!("/{collection}?size={PAGE_SIZE}"));
            while let Some(path) = next {
                let began = Instant::now();
                let mut answer = self.client.get(&path)?;
                let body = answer
                    .body_mut()
                    .with_config()
                    .limit(u64::MAX)
                    .read_to_vec()?;
                took.push(began.elapsed());
                let page: Value = serde_json::from_slice(&body)?;
                found += page["data"].as_array().map_or(0, Vec::len);
                next = page["next"].as_str().map(str::to_owned);
            }
            ensure!(found >= consumers, "only {found} {collection} are listed");
            let middle = median(&mut took);
            println!(
                "  {} pages of {PAGE_SIZE} {collection}: {middle:.2?} each (worst {:.2?})",
                took.len(),
                took[took.len() - 1],
            );
        }
        Ok(())
    }

    fn put_one(&self, number: usize, puts: usize) -> Result<()> {
        let path = format!("/consumers/{}", username(number));
        let (mut took, cpu) = (Vec::new(), usage::cpu(self.process)?);
        for round in 0..puts {
            let began = Instant::now();
            let body = json!({ "custom_id": format!("round-{round}") });
            let (status, _) = self.client.put(&path, &body)?;
            took.push(began.elapsed());
            ensure!(status == 200, "a PUT was answered with {status}");
        }
        let cpu = usage::cpu(self.process)? - cpu;
        let middle = median(&mut took);
        println!(
            "  PUT of one consumer: {middle:.2?} (p99 {:.2?}), CPU of the control plane {:.0?}",
            took[took.len() * 99 / 100],
            cpu / u32::try_from(puts)?,
        );
        Ok(())
    }
}

fn username(number: usize) -> String {
    format!("consumer-{number:07}")
}
