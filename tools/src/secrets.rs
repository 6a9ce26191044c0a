//! `sluice secrets`: the keys that secrets are sealed with.

use crate::admin::Connection;
use crate::say;
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::Value;
use sluice_replica::process::secrets::{create, new_key, read, replace};
use std::fs;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Arguments of `sluice secrets`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a secrets file with one key. All control planes and data planes are given it (secrets_file)
    Init(File),
    /// Add a key to a secrets file, which opens but does not seal yet: bring the file to all first
    Add(File),
    /// Make a key the one that seals. All must have it by then
    Promote(Named),
    /// Take a key out. Nothing may be sealed with it any more (sluice secrets status)
    Drop(Named),
    /// Print the names of the keys of a secrets file; the first seals
    Show(File),
    /// Print what the secrets of the log are sealed with
    Status {
        #[command(flatten)]
        admin: Connection,
        /// The control plane's answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Seal every secret of the configuration with the key that seals now, also those in clear text
    Reseal {
        #[command(flatten)]
        admin: Connection,
    },
}

#[derive(Debug, Args)]
struct File {
    /// The secrets file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Args)]
struct Named {
    /// The secrets file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The key's name
    #[arg(value_name = "KEY")]
    key: String,
}

/// Does what is asked for.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.command {
        Command::Init(File { file }) => {
            let name = create(file)?;
            say(&format!("made {} with the key {name}", file.display()))
        }
        Command::Add(File { file }) => add(file),
        Command::Promote(Named { file, key }) => promote(file, key),
        Command::Drop(Named { file, key }) => drop_key(file, key),
        Command::Show(File { file }) => {
            let ring = read(file)?;
            ring.names().try_for_each(say)
        }
        Command::Status { admin, json } => status(admin, *json),
        Command::Reseal { admin } => reseal(admin),
    }
}

fn text(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let text = fs::read_to_string(path);
    let text = text.with_context(|| format!("could not read {}", path.display()))?;
    Ok(Zeroizing::new(text))
}

fn add(path: &Path) -> anyhow::Result<()> {
    let (name, line) = new_key(&read(path)?);
    let mut text = text(path)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&line);
    replace(path, &text)?;
    say(&format!(
        "added the key {name}: bring the file to all control planes and data planes, then sluice secrets promote"
    ))
}

/// The lines of a secrets file before, of and after a key.
fn lines<'t>(path: &Path, text: &'t str, key: &str) -> anyhow::Result<(Vec<&'t str>, &'t str)> {
    let is_its = |line: &&str| line.split_whitespace().next() == Some(key);
    let own = text.lines().find(is_its);
    let own = own.with_context(|| format!("{} has no key '{key}'", path.display()))?;
    Ok((text.lines().filter(|line| !is_its(line)).collect(), own))
}

fn promote(path: &Path, key: &str) -> anyhow::Result<()> {
    let text = text(path)?;
    let (others, own) = lines(path, &text, key)?;
    let is_key = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with('#');
    let first = others.iter().position(is_key);
    let (head, keys) = others.split_at(first.unwrap_or(others.len()));
    let all = head.iter().chain([&own]).chain(keys);
    let text = Zeroizing::new(all.map(|line| format!("{line}\n")).collect::<String>());
    replace(path, &text)?;
    say(&format!(
        "{key} seals from now on: bring the file to all control planes, then sluice secrets reseal"
    ))
}

fn drop_key(path: &Path, key: &str) -> anyhow::Result<()> {
    let ring = read(path)?;
    if ring.sealing() == Some(key) {
        bail!("{key} is the key that seals: promote another one first");
    }
    let text = text(path)?;
    let (others, _) = lines(path, &text, key)?;
    let text = Zeroizing::new(
        others
            .iter()
            .map(|line| format!("{line}\n"))
            .collect::<String>(),
    );
    replace(path, &text)?;
    say(&format!(
        "dropped {key}: what older events and snapshots have sealed with it can be opened no more"
    ))
}

fn status(admin: &Connection, json: bool) -> anyhow::Result<()> {
    let answer = admin.get("/log/secrets")?;
    if json {
        return say(&serde_json::to_string_pretty(&answer)?);
    }
    print(&answer)
}

fn print(answer: &Value) -> anyhow::Result<()> {
    for key in answer["keys"].as_array().into_iter().flatten() {
        let note = match (key["seals"].as_bool(), key["here"].as_bool()) {
            (Some(true), _) => "seals",
            (_, Some(false)) => "the control plane does not have it",
            (_, _) => "",
        };
        let (name, secrets) = (key["name"].as_str(), key["secrets"].as_u64());
        let line = format!(
            "{:<32} {:>9} secrets  {note}",
            name.unwrap_or_default(),
            secrets.unwrap_or(0)
        );
        say(line.trim_end())?;
    }
    say(&format!(
        "{:<32} {:>9} secrets",
        "in clear text",
        answer["clear"].as_u64().unwrap_or(0)
    ))
}

fn reseal(admin: &Connection) -> anyhow::Result<()> {
    loop {
        let answer = admin.post("/log/secrets/reseal", "application/json", &[], b"{}")?;
        if answer.status != 200 {
            let reason = answer.body["message"].as_str();
            bail!(
                "not all was sealed: {}",
                reason.unwrap_or(&answer.body.to_string())
            );
        }
        match answer.body["resealed"].as_u64() {
            Some(1..) => eprintln!(
                "version {}: {} entities",
                answer.version.unwrap_or(0),
                answer.body["resealed"]
            ),
            Some(0) | None => return print(&answer.body),
        }
    }
}
