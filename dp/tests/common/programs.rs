//! Programs of other people, as upstreams and as clients.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// A program that is ended with the test.
pub(crate) struct Program {
    pub(crate) process: Child,
    /// What it says on standard output.
    pub(crate) lines: Receiver<String>,
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Program {
    /// Starts it; what it says on standard error goes where `command` sends it.
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let lines = lines(process.stdout.take().unwrap());
        Self { process, lines }
    }
}

/// Where a program is, if it is installed.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    places
        .map(|place| place.join(name))
        .find(|file| file.is_file())
}

fn lines(from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Says on the terminal, past the test's own capture, that something is not tested here.
pub(crate) fn not_run(name: &str) {
    let required = std::env::var("SLUICE_TEST_UPSTREAMS").is_ok_and(|value| value == "required");
    assert!(!required, "{name} is not installed; see scripts/upstreams");
    let _ = writeln!(
        std::io::stderr(),
        "NOT RUN: {name} is not installed; see scripts/upstreams"
    );
}
