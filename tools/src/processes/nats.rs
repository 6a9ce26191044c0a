//! A real nats-server: its own directory, ports chosen by the system, ended with the value.

use super::ports;
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Names the server to test with, instead of the one `scripts/nats-server` finds.
const BINARY_VARIABLE: &str = "SLUICE_TEST_NATS_SERVER";

/// A nats-server with JetStream that syncs every write. Ended (with SIGKILL) when dropped.
#[derive(Debug)]
pub struct Nats {
    directory: TempDir,
    /// Where its streams are.
    store: PathBuf,
    name: String,
    /// Lines of configuration beside the usual ones.
    extra: String,
    sync: String,
    /// The place in a cluster: this server's route port, and everybody's.
    routes: Option<(u16, Vec<u16>)>,
    running: Option<Child>,
    client_port: u16,
    monitor_port: u16,
}

impl Nats {
    /// Starts one server that anybody may use.
    ///
    /// # Errors
    /// If there is no server to start, or it does not start.
    pub fn start() -> Result<Self> {
        Self::start_with("")
    }

    /// Starts one server with more lines of configuration: users and permissions, limits.
    ///
    /// # Errors
    /// If there is no server to start, or it does not start.
    pub fn start_with(extra: &str) -> Result<Self> {
        let mut nats = Self::new("nats-1", extra, None)?;
        nats.restart()?;
        Ok(nats)
    }

    /// Starts one server with more lines of configuration and files, by their names, that these may include.
    ///
    /// # Errors
    /// If there is no server to start, or it does not start.
    pub fn start_with_files(extra: &str, files: &[(String, String)]) -> Result<Self> {
        let mut nats = Self::new("nats-1", extra, None)?;
        nats.write_files(files)?;
        nats.restart()?;
        Ok(nats)
    }

    /// Starts one server that keeps its streams in `store`.
    ///
    /// # Errors
    /// If there is no server to start, or it does not start.
    pub fn start_in(store: &Path) -> Result<Self> {
        let mut nats = Self::new("nats-1", "", None)?;
        nats.set_store(store);
        nats.restart()?;
        Ok(nats)
    }

    /// Starts `size` servers that form a cluster.
    ///
    /// # Errors
    /// If there is no server to start, or one does not start.
    pub fn cluster(size: usize) -> Result<Vec<Self>> {
        Self::cluster_with_files(size, "", &[])
    }

    /// Starts `size` servers that form a cluster, each with these lines and files.
    ///
    /// # Errors
    /// If there is no server to start, or one does not start.
    pub fn cluster_with_files(
        size: usize,
        extra: &str,
        files: &[(String, String)],
    ) -> Result<Vec<Self>> {
        // Servers must know each other's route ports before they run.
        let ports = (0..size).map(|_| ports::free());
        let ports: Vec<u16> = ports.collect::<Result<_>>()?;
        let mut servers = Vec::new();
        for (index, port) in ports.iter().enumerate() {
            let place = Some((*port, ports.clone()));
            let server = Self::new(&format!("nats-{}", index + 1), extra, place)?;
            server.write_files(files)?;
            servers.push(server);
        }
        // A server of a cluster is ready only once it has met the others.
        thread::scope(|scope| {
            let starting: Vec<_> = servers
                .iter_mut()
                .map(|server| scope.spawn(|| server.restart()))
                .collect();
            starting
                .into_iter()
                .try_for_each(|started| match started.join() {
                    Ok(result) => result,
                    Err(_) => bail!("starting a nats-server panicked"),
                })
        })?;
        Ok(servers)
    }

    fn new(name: &str, extra: &str, routes: Option<(u16, Vec<u16>)>) -> Result<Self> {
        let directory = tempfile::tempdir().context("could not make a directory")?;
        Ok(Self {
            store: directory.path().join("jetstream"),
            directory,
            name: name.to_owned(),
            extra: extra.to_owned(),
            sync: "always".to_owned(),
            routes,
            running: None,
            client_port: ports::free()?,
            monitor_port: ports::free()?,
        })
    }

    /// Writes files beside its configuration, which may include them.
    ///
    /// # Errors
    /// If one cannot be written.
    pub fn write_files(&self, files: &[(String, String)]) -> Result<()> {
        for (name, content) in files {
            fs::write(self.directory().join(name), content)
                .with_context(|| format!("could not write '{name}'"))?;
        }
        Ok(())
    }

    /// Its name within its cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where clients connect. The same after a restart.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.client_port)
    }

    /// The port on which clients connect.
    pub fn client_port(&self) -> u16 {
        self.client_port
    }

    /// Where a client with a name and a password connects.
    pub fn url_as(&self, user: &str, password: &str) -> String {
        format!("nats://{user}:{password}@127.0.0.1:{}", self.client_port)
    }

    /// Where it shows its own state over HTTP.
    pub fn monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitor_port)
    }

    /// Where it keeps its log as `log`, and its streams unless they are elsewhere.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where it keeps its streams.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// Keeps its streams in another directory from the next start on.
    pub fn set_store(&mut self, store: &Path) {
        store.clone_into(&mut self.store);
    }

    /// Everything it has logged.
    pub fn said(&self) -> String {
        fs::read_to_string(self.directory().join("log")).unwrap_or_default()
    }

    /// The process, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.running.as_ref().map(Child::id)
    }

    /// Sets `sync_interval` from the next start on.
    pub fn set_sync_interval(&mut self, interval: &str) {
        interval.clone_into(&mut self.sync);
    }

    /// Ends it as `kill -9` does. Harmless if it does not run.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends it as an operator does, and waits until it has ended.
    ///
    /// # Errors
    /// If it does not run, or cannot be waited for.
    pub fn stop(&mut self) -> Result<()> {
        super::terminate(self.process_id())?;
        if let Some(mut child) = self.running.take() {
            child.wait().context("could not wait for nats-server")?;
        }
        Ok(())
    }

    /// Starts it, or kills and starts it again: on the same ports and directory as before.
    ///
    /// # Errors
    /// If it does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let config = self.directory().join("nats.conf");
        fs::write(&config, self.config()).context("could not write the configuration")?;
        let mut child = Command::new(binary()?)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("could not run nats-server")?;
        let said = child
            .stderr
            .take()
            .context("nats-server has no standard error")?;
        self.running = Some(child);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory().join("log"))?;
        let (sender, ready) = mpsc::channel();
        thread::Builder::new()
            .name(format!("{} log", self.name))
            .spawn(move || watch(said, log, &sender))
            .context("could not watch nats-server")?;
        if ready.recv_timeout(START_TIMEOUT).is_err() {
            bail!(
                "nats-server did not become ready; it said:\n{}",
                self.said()
            );
        }
        Ok(())
    }

    fn config(&self) -> String {
        let (client, monitor) = (self.client_port, self.monitor_port);
        let (store, sync) = (&self.store, &self.sync);
        let mut config = format!(
            "server_name: {}\nlisten: \"127.0.0.1:{client}\"\nhttp: \"127.0.0.1:{monitor}\"\n\
             jetstream {{ store_dir: {store:?}, sync_interval: {sync}, max_file_store: 1GB }}\n{}\n",
            self.name, self.extra,
        );
        if let Some((own, all)) = &self.routes {
            let routes: Vec<_> = all
                .iter()
                .map(|port| format!("nats://127.0.0.1:{port}"))
                .collect();
            config.push_str(&format!(
                // Not advertised: clients know all servers, by the addresses they were given.
                "cluster {{ name: test, listen: \"127.0.0.1:{own}\", routes: {routes:?}, no_advertise: true }}\n"
            ));
        }
        config
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Copies what the server says to its log file, and tells once it is ready.
fn watch(said: ChildStderr, mut log: File, ready: &mpsc::Sender<()>) {
    for line in BufReader::new(said).lines().map_while(Result::ok) {
        let _ = writeln!(log, "{line}");
        if line.contains("Server is ready") {
            // Whoever waited may have given up.
            let _ = ready.send(());
        }
    }
}

/// The server to test with: named by the environment, or found by `scripts/nats-server`.
///
/// # Errors
/// If there is none.
pub fn binary() -> Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = BINARY.get_or_init(|| find_binary().map_err(|error| format!("{error:#}")));
    found
        .as_deref()
        .map_err(|reason| anyhow::anyhow!("{reason}"))
}

fn find_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(BINARY_VARIABLE) {
        return Ok(path.into());
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/nats-server");
    let found = Command::new(&script)
        .output()
        .with_context(|| format!("could not run {script:?}"))?;
    let reason = String::from_utf8_lossy(&found.stderr);
    ensure!(
        found.status.success(),
        "there is no nats-server to test with: {reason}"
    );
    Ok(String::from_utf8(found.stdout)
        .context("its path is no text")?
        .trim_end()
        .into())
}
