//! How long a change takes from the Admin API to the proxied request, and what it costs the data plane.

use super::rig::{PATIENCE, Rig, SETTLE};
use super::usage;
use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;
use sluice_replica::node::SyncMode;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_micros(100);
/// Changes over which the data plane's CPU time is averaged.
const CPU_CHANGES: usize = 500;
const IDLE: Duration = Duration::from_secs(3);

/// Arguments of `sluice bench propagate`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Sizes of the configuration, in entities (half services, half routes, about 1 KB each as JSON)
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1000,30000",
        value_name = "N"
    )]
    entities: Vec<usize>,
    /// Changes to time with incremental sync on
    #[arg(long, default_value = "200", value_name = "N")]
    samples: usize,
    /// Changes to time with incremental sync off
    #[arg(long, default_value = "10", value_name = "N")]
    full_samples: usize,
    /// Modes to measure
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "on,off",
        value_name = "on|off"
    )]
    incremental_sync: Vec<SyncMode>,
    /// NATS's sync_interval: always syncs each write before it is acknowledged
    #[arg(long, default_value = "always", value_name = "INTERVAL")]
    sync_interval: String,
}

/// One row of the result.
struct Row {
    latency: Vec<Duration>,
    bytes: Vec<u64>,
    cpu: Duration,
    memory: u64,
    /// The control plane's word on whether acknowledged writes are synced.
    synced: String,
}

/// Measures and prints.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    println!(
        "one broker, one control plane, one data plane, echo upstream and load on this machine; log sync_interval: {}",
        arguments.sync_interval
    );
    println!(
        "{:>9}  {:>11}  {:>7}  {:>9}  {:>9}  {:>9}  {:>12}  {:>14}  {:>8}  {:>6}",
        "entities",
        "incremental",
        "samples",
        "p50",
        "p99",
        "max",
        "bytes/change",
        "DP CPU/change",
        "DP RSS",
        "synced"
    );
    for entities in &arguments.entities {
        for mode in &arguments.incremental_sync {
            let samples = match mode {
                SyncMode::Incremental => arguments.samples,
                SyncMode::Full => arguments.full_samples,
            };
            let row = measure(*entities, *mode, samples, &arguments.sync_interval)
                .with_context(|| format!("with {entities} entities, {mode:?}"))?;
            print(*entities, *mode, row);
        }
    }
    Ok(())
}

fn print(entities: usize, mode: SyncMode, mut row: Row) {
    row.latency.sort_unstable();
    row.bytes.sort_unstable();
    let at = |share: f64| {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index below the length"
        )]
        let index = ((row.latency.len() - 1) as f64 * share).round() as usize;
        format!("{:.2} ms", row.latency[index].as_secs_f64() * 1e3)
    };
    let mode = match mode {
        SyncMode::Incremental => "on",
        SyncMode::Full => "off",
    };
    println!(
        "{entities:>9}  {mode:>11}  {:>7}  {:>9}  {:>9}  {:>9}  {:>12}  {:>11} us  {:>5} MB  {:>6}",
        row.latency.len(),
        at(0.5),
        at(0.99),
        at(1.0),
        row.bytes[row.bytes.len() / 2],
        row.cpu.as_micros(),
        row.memory >> 20,
        row.synced,
    );
}

fn measure(entities: usize, mode: SyncMode, samples: usize, sync_interval: &str) -> Result<Row> {
    let rig = Rig::start(mode, sync_interval)?;
    let bar = crate::apply::spinner(format!("{entities} entities, {mode:?}"));
    rig.load(entities)?;
    let mut row = Row {
        latency: Vec::new(),
        bytes: Vec::new(),
        cpu: Duration::ZERO,
        memory: 0,
        synced: String::new(),
    };
    for sample in 0..samples {
        let (latency, bytes) = rig.time_one(sample)?;
        row.latency.push(latency);
        row.bytes.push(bytes);
        bar.set_message(format!(
            "{entities} entities, {mode:?}: {sample} of {samples}"
        ));
    }
    let changes = match mode {
        SyncMode::Incremental => CPU_CHANGES,
        SyncMode::Full => samples,
    };
    row.cpu = rig.cpu_per_change(changes, &bar)?;
    row.memory = usage::memory(rig.process()?)?;
    let status = rig.admin.get("/status")?;
    row.synced = status["sluice"]["log"]["synced"]
        .as_str()
        .unwrap_or("unknown")
        .to_owned();
    bar.finish_and_clear();
    Ok(row)
}

impl Rig {
    /// Posts one route and polls until a request takes it.
    fn time_one(&self, sample: usize) -> Result<(Duration, u64)> {
        let path = format!("/probe-{sample:06}");
        let body = json!({ "name": format!("probe-{sample}"), "paths": [&path], "service": { "name": "service-0" } });
        let mut client = Client::connect(self.data.proxy())?;
        if client.get(&path)? != 404 {
            bail!("{path} exists before it was made");
        }
        let bytes = self.relay.received();
        std::thread::scope(|scope| {
            let began = Instant::now();
            let posting = scope.spawn(|| {
                self.admin.post(
                    "/routes",
                    "application/json",
                    &[],
                    body.to_string().as_bytes(),
                )
            });
            loop {
                if client.get(&path)? == 200 {
                    break;
                }
                if began.elapsed() > PATIENCE {
                    bail!("{path} was not served in time");
                }
                std::thread::sleep(POLL);
            }
            let latency = began.elapsed();
            let answer = posting
                .join()
                .map_err(|_| anyhow::anyhow!("posting panicked"))??;
            if answer.status != 201 {
                bail!(
                    "POST /routes was answered with {}: {}",
                    answer.status,
                    answer.body
                );
            }
            std::thread::sleep(SETTLE);
            Ok((latency, self.relay.received() - bytes))
        })
    }

    /// CPU of the data plane per change, above what it uses when nothing changes. No requests meanwhile.
    fn cpu_per_change(&self, changes: usize, bar: &ProgressBar) -> Result<Duration> {
        bar.set_message("CPU per change");
        let process = self.process()?;
        let before = usage::cpu(process)?;
        std::thread::sleep(IDLE);
        let idle = (usage::cpu(process)? - before).div_f64(IDLE.as_secs_f64());

        let (began, before) = (Instant::now(), usage::cpu(process)?);
        let mut version = 0;
        for change in 0..changes {
            let body = json!({ "name": format!("cpu-{change}"), "paths": [format!("/cpu-{change:06}")], "service": { "name": "service-0" } });
            let answer = self.admin.post(
                "/routes",
                "application/json",
                &[],
                body.to_string().as_bytes(),
            )?;
            version = answer.version.context("no Sluice-Version")?;
        }
        self.wait_for(version)?;
        std::thread::sleep(SETTLE);
        let used = usage::cpu(process)? - before;
        let idle = idle.mul_f64(began.elapsed().as_secs_f64());
        Ok(used
            .saturating_sub(idle)
            .div_f64(f64::from(u32::try_from(changes)?)))
    }
}

/// A client that asks for one path after the other on one connection.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    fn get(&mut self, path: &str) -> Result<u16> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: bench.example.com\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let status = status.with_context(|| format!("not an HTTP answer: {line:?}"))?;
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let header = line.trim_end();
            if header.is_empty() {
                break;
            }
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
        }
        std::io::copy(&mut (&mut self.stream).take(length), &mut std::io::sink())?;
        Ok(status)
    }
}
