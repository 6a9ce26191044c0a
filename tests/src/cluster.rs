//! A whole cluster of real processes: a broker, control planes, data planes, an origin.

use crate::nats::Nats;
use crate::processes::{ControlPlane, DataPlane};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sluice_tools::admin::{Answer, Connection};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Whatever should happen and does not, fails the test after this.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at something that is expected to change.
const PACE: Duration = Duration::from_millis(20);

/// The processes of one test.
#[derive(Debug)]
pub struct Cluster {
    /// The broker.
    pub nats: Nats,
    /// The control planes.
    pub controls: Vec<ControlPlane>,
    /// The data planes.
    pub datas: Vec<DataPlane>,
    /// Where services can point to.
    pub origin: SocketAddr,
    /// Everybody's files.
    pub directory: TempDir,
    /// What all are started with.
    common: Vec<String>,
}

impl Cluster {
    /// Starts a cluster whose control planes and data planes believe each other's keys, and seal secrets with the same.
    ///
    /// # Errors
    /// If something does not start.
    pub fn start(controls: usize, datas: usize) -> Result<Self> {
        Self::start_with(&vec![Vec::new(); controls], &vec![Vec::new(); datas])
    }

    /// The same, with further arguments for each of the control planes and each of the data planes.
    ///
    /// # Errors
    /// If something does not start.
    pub fn start_with(controls: &[Vec<&str>], datas: &[Vec<&str>]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let secrets = directory.path().join("secrets");
        sluice_replica::process::secrets::create(&secrets)?;
        let common = vec![format!("--secrets-file={}", secrets.display())];
        Self::start_in(directory, common, controls, datas)
    }

    /// The same, whose secrets are in clear text.
    ///
    /// # Errors
    /// If something does not start.
    pub fn start_clear(controls: usize, datas: usize) -> Result<Self> {
        let (controls, datas) = (vec![Vec::new(); controls], vec![Vec::new(); datas]);
        Self::start_in(tempfile::tempdir()?, Vec::new(), &controls, &datas)
    }

    fn start_in(
        directory: TempDir,
        common: Vec<String>,
        controls: &[Vec<&str>],
        datas: &[Vec<&str>],
    ) -> Result<Self> {
        let nats = Nats::start()?;
        let mut cluster = Self {
            common,
            nats,
            controls: Vec::new(),
            datas: Vec::new(),
            origin: start_origin()?,
            directory,
        };
        // Everybody's public keys must lie there before the others read them.
        for number in 0..controls.len() {
            let key = cluster.keys().join(format!("cp-{number}.key"));
            sluice_replica::keys::SigningKey::create(&key, &format!("cp-{number}"))?;
        }
        for (number, more) in controls.iter().enumerate() {
            cluster.add_control(number, more)?;
        }
        for (number, more) in datas.iter().enumerate() {
            let data = cluster.start_data(number, more)?;
            cluster.datas.push(data);
        }
        cluster.wait_until("the control planes are up to date", |cluster| {
            Ok(cluster.controls.iter().all(|control| {
                let status = Connection::to(control.url()).get("/status");
                status.is_ok_and(|status| status["sluice"]["version"].as_u64() >= Some(1))
            }))
        })?;
        Ok(cluster)
    }

    fn keys(&self) -> std::path::PathBuf {
        self.directory.path().join("keys")
    }

    /// Adds a control plane of which nobody may ask for more than to read what is no secret.
    ///
    /// # Errors
    /// If it does not start.
    pub fn add_reader(&mut self) -> Result<()> {
        let number = self.controls.len();
        let key = self.keys().join(format!("cp-{number}.key"));
        sluice_replica::keys::SigningKey::create(&key, &format!("cp-{number}"))?;
        self.add_control(number, &["--admin-anonymous=read"])
    }

    fn add_control(&mut self, number: usize, more: &[&str]) -> Result<()> {
        let directory = self.directory.path().join(format!("cp-{number}"));
        let flags: Vec<&str> = self.common.iter().map(String::as_str).collect();
        let flags = [&flags, more].concat();
        let control = ControlPlane::start(&self.nats.url(), &directory, &self.keys(), &flags)?;
        self.controls.push(control);
        Ok(())
    }

    fn start_data(&self, number: usize, more: &[&str]) -> Result<DataPlane> {
        let directory = self.directory.path().join(format!("dp-{number}"));
        let mut flags: Vec<&str> = self.common.iter().map(String::as_str).collect();
        flags.push("--workers=1");
        flags.extend(more);
        DataPlane::start(&self.nats.url(), &directory, &self.keys(), &flags)
    }

    /// The Admin API of a control plane.
    pub fn admin(&self, number: usize) -> Connection {
        Connection::to(self.controls[number].url())
    }

    /// POSTs JSON to a control plane.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn post(&self, control: usize, path: &str, body: &Value) -> Result<Answer> {
        self.admin(control)
            .post(path, "application/json", &[], body.to_string().as_bytes())
    }

    /// Applies a declarative file, which must be accepted.
    ///
    /// # Errors
    /// If it is not.
    pub fn apply(&self, control: usize, file: &Value) -> Result<u64> {
        let answer = self.admin(control).post(
            "/apply",
            "application/json",
            &[],
            file.to_string().as_bytes(),
        )?;
        ensure!(
            answer.status == 200,
            "apply was answered with {}: {}",
            answer.status,
            answer.body
        );
        answer.version.context("no Sluice-Version")
    }

    /// `/status` of a data plane.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn data_status(&self, number: usize) -> Result<Value> {
        Connection::to(self.datas[number].status_url()).get("/status")
    }

    /// Waits until all data planes have reached the version of control plane 0, and checks that everybody's digest is
    /// the same there. Gives the version back.
    ///
    /// # Errors
    /// If they do not get there, or differ.
    pub fn converge(&self) -> Result<u64> {
        let mut last = None;
        self.wait_until("everybody is at the same version", |cluster| {
            let Ok(status) = cluster.admin(0).get("/status") else {
                return Ok(false);
            };
            let version = status["sluice"]["version"].clone();
            let digest = status["sluice"]["digest"].clone();
            last = version.as_u64();
            for other in 1..cluster.controls.len() {
                let Ok(status) = cluster.admin(other).get("/status") else {
                    return Ok(false);
                };
                if status["sluice"]["version"] != version {
                    return Ok(false);
                }
                ensure!(
                    status["sluice"]["digest"] == digest,
                    "control plane {other} differs: {status}"
                );
            }
            for number in 0..cluster.datas.len() {
                let status = cluster.data_status(number)?;
                if status["log"]["version"] != version {
                    return Ok(false);
                }
                ensure!(
                    status["log"]["digest"] == digest,
                    "data plane {number} differs: {status}"
                );
            }
            Ok(true)
        })?;
        last.context("no version")
    }

    /// Waits for a state of affairs.
    ///
    /// # Errors
    /// If it does not come, or cannot be looked at.
    pub fn wait_until(
        &self,
        what: &str,
        mut holds: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self)? {
            ensure!(
                Instant::now() < deadline,
                "{what}: not within {PATIENCE:?}\n{}",
                self.said()
            );
            std::thread::sleep(PACE);
        }
        Ok(())
    }

    /// What everybody has logged, for the reader of a failed test.
    pub fn said(&self) -> String {
        let controls = self
            .controls
            .iter()
            .map(|control| ("control plane", control.said()));
        let datas = self.datas.iter().map(|data| ("data plane", data.said()));
        controls
            .chain(datas)
            .map(|(name, said)| format!("--- {name}\n{said}\n"))
            .collect()
    }

    /// Sends one request through a data plane and gives its status.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn request(&self, data: usize, path: &str, headers: &str) -> Result<u16> {
        self.request_to("test", data, path, headers)
    }

    /// Sends one request for a host through a data plane and gives its status.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn request_to(&self, host: &str, data: usize, path: &str, headers: &str) -> Result<u16> {
        let mut stream = TcpStream::connect(self.datas[data].proxy())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n"
        )?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        status.with_context(|| format!("not an HTTP answer: {line:?}"))
    }
}

/// An origin that answers every request with 200.
fn start_origin() -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve_origin(stream));
        }
    });
    Ok(address)
}

fn serve_origin(stream: TcpStream) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if line.trim_end().is_empty() {
            writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
        }
    }
}
