//! User instructions of a data plane per request, counted by callgrind, beside those in a file.

use super::shapes::Shape;
use super::{Arguments, load};
use crate::bench::rig::{Rig, SETTLE, Start};
use crate::processes::{freeze, thaw};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use sluice_replica::node::SyncMode;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use tokio::net::TcpStream;

/// A figure may be so much above the one in the file, in hundredths.
const TOLERANCE: u64 = 3;
/// Kept connections that are used in turn.
const CONNECTIONS: usize = 8;
/// Headers of the request that has many.
const HEADERS: usize = 30;
const KEY: &str = "instructions-key";

/// What is asked for.
#[derive(Clone, Copy)]
enum Case {
    Bare,
    Headers,
    Guarded,
    Missing,
}

impl Case {
    /// The guarded route comes last, so that the others have a table with one route.
    const ALL: [Self; 4] = [Self::Bare, Self::Headers, Self::Missing, Self::Guarded];

    /// As it is called in the file.
    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Headers => "30-headers",
            Self::Guarded => "key-auth+rate-limiting",
            Self::Missing => "404",
        }
    }

    fn status(self) -> u16 {
        match self {
            Self::Bare | Self::Headers | Self::Guarded => 200,
            Self::Missing => 404,
        }
    }

    fn request(self) -> Vec<u8> {
        let (path, more) = match self {
            Self::Bare => ("/api/v1/resource-0/item", String::new()),
            Self::Headers => {
                let headers =
                    (0..HEADERS).map(|number| format!("x-header-{number}: value-{number}\r\n"));
                ("/api/v1/resource-0/item", headers.collect())
            }
            Self::Guarded => ("/guarded", format!("apikey: {KEY}\r\n")),
            Self::Missing => ("/nothing/here", String::new()),
        };
        format!("GET {path} HTTP/1.1\r\nhost: host-0.example.com\r\nuser-agent: bench\r\naccept: */*\r\n{more}\r\n").into_bytes()
    }

    /// What has to be applied before it.
    fn file(self, origin: SocketAddr) -> Option<Value> {
        match self {
            Self::Bare => Some(Shape::Hosts.file(0..1, origin)),
            Self::Headers | Self::Missing => None,
            Self::Guarded => Some(guarded()),
        }
    }
}

fn guarded() -> Value {
    json!({
        "_format_version": "3.0",
        "routes": [{
            "name": "guarded", "paths": ["/guarded"], "strip_path": false, "service": { "name": "origin" },
            "plugins": [
                { "name": "key-auth" },
                { "name": "rate-limiting", "config": { "hour": 1_000_000_000, "policy": "local" } },
            ],
        }],
        "consumers": [{ "username": "bench", "keyauth_credentials": [{ "key": KEY }] }],
    })
}

/// Measures, prints the lines of the file, and compares with it if that is asked for.
pub(super) fn run(arguments: &Arguments, origin: SocketAddr) -> Result<()> {
    println!(
        "\nuser instructions per request: what {0} more requests took, the median of {1} rounds",
        arguments.requests, arguments.rounds
    );
    if Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        ensure!(
            !arguments.check,
            "valgrind is not installed, and --check needs it"
        );
        println!("NOT MEASURED: valgrind is not installed");
        return Ok(());
    }
    let mut counter = Counter::start()?;
    let mut found = BTreeMap::new();
    for case in Case::ALL {
        if let Some(file) = case.file(origin) {
            let version = counter.rig.apply(&file.to_string())?;
            counter.rig.wait_for(version)?;
        }
        // What the data plane does for heads meanwhile would count.
        let control = counter.rig.control.process_id();
        freeze(control)?;
        let number = counter.measure(case, arguments)?;
        thaw(control)?;
        println!("{} {number}", case.name());
        found.insert(case.name(), number);
    }
    if arguments.check {
        let text = fs::read_to_string(&arguments.expected)
            .with_context(|| format!("could not read {:?}", arguments.expected))?;
        compare(&found, &text)?;
        println!(
            "none is more than {TOLERANCE} % above {:?}",
            arguments.expected
        );
    }
    Ok(())
}

/// Fails if a figure is too high, or the text does not have it.
fn compare(found: &BTreeMap<&str, u64>, text: &str) -> Result<()> {
    let mut wrong = Vec::new();
    for (name, found) in found {
        let figure = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        match figure {
            None => wrong.push(format!("{name}: {found}, and the file has no figure")),
            Some(figure) if found * 100 > figure * (100 + TOLERANCE) => {
                wrong.push(format!(
                    "{name}: {found}, more than {TOLERANCE} % above {figure}"
                ));
            }
            Some(_) => {}
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// A data plane that is run by callgrind.
struct Counter {
    rig: Rig,
    directory: tempfile::TempDir,
    dumps: usize,
}

impl Counter {
    fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("count").display().to_string();
        let words = ["valgrind", "--tool=callgrind", "--quiet"].map(str::to_owned);
        let under = words
            .into_iter()
            .chain([format!("--callgrind-out-file={file}")]);
        let start = Start {
            under: under.collect(),
            ..Start::default()
        };
        let rig = Rig::start_with(SyncMode::Incremental, "2m", start)?;
        Ok(Self {
            rig,
            directory,
            dumps: 0,
        })
    }

    /// The instructions of `n` and of `2n` requests, and what lies between them is that of `n`: what does not grow with requests
    /// falls out.
    fn measure(&mut self, case: Case, arguments: &Arguments) -> Result<u64> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (request, number) = (case.request(), arguments.requests);
        runtime.block_on(async {
            let mut connections = Vec::new();
            for _ in 0..CONNECTIONS {
                let stream = TcpStream::connect(self.rig.data.proxy()).await?;
                stream.set_nodelay(true)?;
                connections.push(stream);
            }
            let mut figures = Vec::new();
            load::in_turn(&mut connections, &request, number, case.status()).await?;
            for _ in 0..arguments.rounds {
                std::thread::sleep(SETTLE);
                self.count()?;
                load::in_turn(&mut connections, &request, number, case.status()).await?;
                let once = self.count()?;
                load::in_turn(&mut connections, &request, 2 * number, case.status()).await?;
                let twice = self.count()?;
                figures.push(twice.saturating_sub(once) / number as u64);
            }
            figures.sort_unstable();
            figures.get(figures.len() / 2).copied().context("no rounds")
        })
    }

    /// Instructions since the last call.
    fn count(&mut self) -> Result<u64> {
        let process = self.rig.process()?.to_string();
        let done = Command::new("callgrind_control")
            .args(["--dump", &process])
            .output();
        let done = done.context("could not run callgrind_control")?;
        self.dumps += 1;
        let path = self.directory.path().join(format!("count.{}", self.dumps));
        let Ok(text) = fs::read_to_string(&path) else {
            bail!(
                "callgrind wrote no count: {}",
                String::from_utf8_lossy(&done.stderr)
            );
        };
        total(&text).with_context(|| format!("no total in {:?}", Path::new(&path)))
    }
}

/// What callgrind writes in the end.
fn total(text: &str) -> Option<u64> {
    let mut lines = text.lines().rev();
    lines.find_map(|line| line.strip_prefix("totals:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_fails_when_it_is_more_than_the_tolerance_above() {
        let text = "# a comment\nbare 1000\n404 500\n";
        let check =
            |bare, missing| compare(&BTreeMap::from([("bare", bare), ("404", missing)]), text);
        assert!(check(1030, 500).is_ok());
        assert!(check(900, 1).is_ok());
        assert!(check(1031, 500).is_err());
        assert!(check(1000, 516).is_err());
    }

    #[test]
    fn a_figure_that_is_not_filled_in_fails() {
        assert!(compare(&BTreeMap::from([("bare", 1)]), "bare -\n").is_err());
        assert!(compare(&BTreeMap::from([("bare", 1)]), "").is_err());
    }
}
