//! Real processes for benchmarks and whole-system tests: brokers, control planes and data planes on free ports of this
//! machine, in directories of their own, ended with the value that stands for them.

pub mod nats;
pub mod ports;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Of a program that another one runs, which may be much slower.
const START_UNDER_TIMEOUT: Duration = Duration::from_secs(600);

/// A program of ours that runs, or ran.
#[derive(Debug)]
struct Program {
    /// A program that runs it, with arguments; empty: none does.
    under: Vec<String>,
    binary: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Program {
    fn new(name: &str, directory: &Path, arguments: Vec<String>) -> Result<Self> {
        std::fs::create_dir_all(directory).context("could not make a directory")?;
        let log = directory.join("log");
        Ok(Self {
            under: Vec::new(),
            binary: binary(name)?,
            arguments,
            log,
            child: None,
        })
    }

    /// Starts it and waits for a line of its log with this message.
    fn start(&mut self, message: &str, more: &[String]) -> Result<Value> {
        let mut command = match self.under.split_first() {
            None => Command::new(&self.binary),
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&self.binary);
                command
            }
        };
        without_settings(&mut command);
        let mut child = command
            .args(&self.arguments)
            .args(more)
            .args(["--log-format", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("could not run {:?}", self.binary))?;
        let said = child
            .stderr
            .take()
            .context("the program has no standard error")?;
        self.child = Some(child);
        let log = File::options().create(true).append(true).open(&self.log)?;
        let (sender, ready) = mpsc::channel();
        let message = message.to_owned();
        std::thread::spawn(move || watch(said, log, &message, &sender));
        let patience = match self.under.is_empty() {
            true => START_TIMEOUT,
            false => START_UNDER_TIMEOUT,
        };
        match ready.recv_timeout(patience) {
            Ok(line) => Ok(line),
            Err(_) => bail!("{:?} did not start; it said:\n{}", self.binary, self.said()),
        }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Whether it runs (frozen or not). A program that ended by itself does not.
    fn is_running(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Copies what a program says to its log file, and hands over the line that was waited for.
fn watch(said: ChildStderr, mut log: File, message: &str, sender: &mpsc::Sender<Value>) {
    for line in BufReader::new(said).lines().map_while(Result::ok) {
        let _ = writeln!(log, "{line}");
        if let Ok(value) = serde_json::from_str::<Value>(&line)
            && value["message"] == message
        {
            // Whoever waited may have given up.
            let _ = sender.send(value);
        }
    }
}

/// Stops a process where it stands (SIGSTOP): its connections stay open, and nothing answers on them.
///
/// # Errors
/// If it does not run.
pub fn freeze(process: Option<u32>) -> Result<()> {
    let process = signal(process, Signal::STOP)?;
    // The signal takes its time to reach every thread.
    let stopped = waitid(
        WaitId::Pid(process),
        WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT,
    );
    stopped.context("the process does not stop")?;
    Ok(())
}

/// Lets a frozen process go on (SIGCONT). Harmless if it is not frozen.
///
/// # Errors
/// If it does not run.
pub fn thaw(process: Option<u32>) -> Result<()> {
    signal(process, Signal::CONT).map(drop)
}

/// Asks a process to end (SIGTERM).
///
/// # Errors
/// If it does not run.
pub fn terminate(process: Option<u32>) -> Result<()> {
    signal(process, Signal::TERM).map(drop)
}

/// Sends a signal to a process.
///
/// # Errors
/// If it does not run.
pub(crate) fn signal(process: Option<u32>, signal: Signal) -> Result<Pid> {
    let process = process.context("the process does not run")?;
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    let process = process.context("not the id of a process")?;
    kill_process(process, signal).context("could not signal the process")?;
    Ok(process)
}

/// The program of this name, as [`binary`] finds it, to be run without the settings that are in this process's variables.
///
/// # Errors
/// If it is not there.
pub fn command(name: &str) -> Result<Command> {
    let mut command = Command::new(binary(name)?);
    without_settings(&mut command);
    Ok(command)
}

fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("SLUICE_"))
        {
            command.env_remove(name);
        }
    }
}

/// The program of this name beside the one that is running, or one directory above it (where tests run).
///
/// # Errors
/// If it is not there.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("could not find this program's own file")?;
    let candidates = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join(name));
    let found = candidates.clone().find(|path| path.is_file());
    found.with_context(|| {
        let looked: Vec<String> = candidates.map(|path| path.display().to_string()).collect();
        format!(
            "there is no {name} at {}; build it first: cargo build --workspace",
            looked.join(" or ")
        )
    })
}

/// A control plane.
#[derive(Debug)]
pub struct ControlPlane {
    program: Program,
    admin: SocketAddr,
}

impl ControlPlane {
    /// Starts one with its data in `directory` and its key in `keys` (which it makes).
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(nats: &str, directory: &Path, keys: &Path, more: &[&str]) -> Result<Self> {
        let name = directory
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let key = keys.join(format!("{}.key", name.unwrap_or_default()));
        let mut arguments = vec![
            format!("--nats-url={nats}"),
            format!("--data-dir={}", directory.display()),
            format!("--signing-key={}", key.display()),
        ];
        arguments.extend(more.iter().map(ToString::to_string));
        let program = Program::new("sluice-cp", directory, arguments)?;
        let mut control = Self {
            program,
            admin: ([127, 0, 0, 1], 0).into(),
        };
        control.restart()?;
        Ok(control)
    }

    /// Starts it, or kills and starts it again, at the same address as before.
    ///
    /// # Errors
    /// If it does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let listen = [format!("--admin-listen={}", self.admin)];
        let line = self.program.start("the Admin API is listening", &listen)?;
        self.admin = line["admin"].as_str().context("no address")?.parse()?;
        Ok(())
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) {
        self.program.kill();
    }

    /// The address of its Admin API.
    pub fn url(&self) -> String {
        format!("http://{}", self.admin)
    }

    /// The process, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.program.child.as_ref().map(Child::id)
    }

    /// Whether it runs, frozen or not. One that ended by itself does not.
    pub fn is_running(&mut self) -> bool {
        self.program.is_running()
    }

    /// Everything it has logged.
    pub fn said(&self) -> String {
        self.program.said()
    }
}

/// A data plane.
#[derive(Debug)]
pub struct DataPlane {
    program: Program,
    proxy: SocketAddr,
    status: SocketAddr,
}

impl DataPlane {
    /// Starts one with its data in `directory` that believes the keys in `keys`.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(nats: &str, directory: &Path, keys: &Path, more: &[&str]) -> Result<Self> {
        Self::start_under(&[], nats, directory, keys, more)
    }

    /// The same, run by another program, which must not fork: its name and its arguments come first.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start_under(
        under: &[String],
        nats: &str,
        directory: &Path,
        keys: &Path,
        more: &[&str],
    ) -> Result<Self> {
        let mut arguments = vec![
            format!("--nats-url={nats}"),
            format!("--data-dir={}", directory.display()),
            format!("--trusted-keys={}", keys.display()),
            "--drain-timeout=5".to_owned(),
        ];
        arguments.extend(more.iter().map(ToString::to_string));
        let mut program = Program::new("sluice-dp", directory, arguments)?;
        program.under = under.to_vec();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut data = Self {
            program,
            proxy: any,
            status: any,
        };
        data.restart()?;
        Ok(data)
    }

    /// Starts it, or kills and starts it again, at the same addresses as before.
    ///
    /// # Errors
    /// If it does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let listen = [
            format!("--proxy-listen={}", self.proxy),
            format!("--status-listen={}", self.status),
        ];
        let line = self.program.start("the proxy is listening", &listen)?;
        let proxy = line["proxy"].as_str().context("no address")?;
        self.proxy = proxy.trim_matches(['[', ']']).parse()?;
        self.status = line["status"].as_str().context("no address")?.parse()?;
        Ok(())
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) {
        self.program.kill();
    }

    /// The address of its proxy.
    pub fn proxy(&self) -> SocketAddr {
        self.proxy
    }

    /// The address of its status page.
    pub fn status_url(&self) -> String {
        format!("http://{}", self.status)
    }

    /// The process, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.program.child.as_ref().map(Child::id)
    }

    /// Whether it runs, frozen or not. One that ended by itself does not.
    pub fn is_running(&mut self) -> bool {
        self.program.is_running()
    }

    /// Everything it has logged.
    pub fn said(&self) -> String {
        self.program.said()
    }
}
