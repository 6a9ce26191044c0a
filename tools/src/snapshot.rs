//! `sluice snapshot`: cut, list, check and fetch snapshots.

use crate::admin::Connection;
use crate::broker::{bar, block_on, connect};
use crate::keys::load_trusted;
use crate::log::{about, write_archive};
use crate::say;
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::Value;
use sluice_replica::archive::Extent;
use sluice_replica::keys::TrustedKeys;
use sluice_replica::log::jetstream::Role;
use sluice_replica::process::connection::ConnectionSettings;
use sluice_replica::snapshot::{Root, verify};
use sluice_schema::version::Version;
use std::path::PathBuf;

/// Arguments of `sluice snapshot`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Cut a snapshot of the configuration as it is now
    Cut {
        #[command(flatten)]
        admin: Connection,
        /// The control plane's answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// List the snapshots, newest first
    List {
        #[command(flatten)]
        admin: Connection,
        /// The control plane's answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Read every chunk of a snapshot from the broker and check it
    #[command(disable_version_flag = true)]
    Verify {
        /// Version of the snapshot [default: the newest]
        #[arg(long, value_name = "VERSION")]
        version: Option<u64>,
        /// Public keys to believe: a .pub file or a directory of them
        #[arg(long, env = "SLUICE_TRUSTED_KEYS", value_name = "PATH")]
        trusted_keys: PathBuf,
        #[command(flatten)]
        connection: Box<ConnectionSettings>,
    },
    /// Write a snapshot from the broker to a file that 'sluice log verify' and 'sluice log import' read
    #[command(disable_version_flag = true)]
    Fetch {
        /// File to write; - writes to standard output
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Version of the snapshot [default: the newest]
        #[arg(long, value_name = "VERSION")]
        version: Option<u64>,
        /// Whose snapshots to take: a .pub file or a directory of them [default: everybody's that fits the log]
        #[arg(long, env = "SLUICE_TRUSTED_KEYS", value_name = "PATH")]
        trusted_keys: Option<PathBuf>,
        #[command(flatten)]
        connection: Box<ConnectionSettings>,
    },
}

/// Does what is asked for.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.command {
        Command::Cut { admin, json } => cut(admin, *json),
        Command::List { admin, json } => list(admin, *json),
        Command::Verify {
            version,
            trusted_keys,
            connection,
        } => {
            let trusted = load_trusted(trusted_keys)?;
            block_on(check(connection, version.map(Version), &trusted))
        }
        Command::Fetch {
            file,
            version,
            trusted_keys,
            connection,
        } => {
            let trusted = trusted_keys.as_deref().map(load_trusted);
            let trusted = trusted.transpose()?;
            let about = about(connection, None, trusted.as_ref());
            let extent = Extent::Snapshot(version.map(Version));
            write_archive(file, connection, extent, &about)
        }
    }
}

const CREATED: u16 = 201;

fn cut(admin: &Connection, json: bool) -> anyhow::Result<()> {
    let answer = admin.post("/log/snapshots", "application/json", &[], b"{}")?;
    if answer.status != CREATED {
        let reason = answer.body["message"].as_str();
        bail!(
            "no snapshot was cut: {}",
            reason.unwrap_or(&answer.body.to_string())
        );
    }
    if json {
        return say(&serde_json::to_string_pretty(&answer.body)?);
    }
    let number = |name: &str| answer.body[name].as_u64().unwrap_or(0);
    say(&format!(
        "version {}: {} entities in {} chunks; {} of them new, {} KiB before compression",
        number("version"),
        number("entities"),
        number("chunks"),
        number("written"),
        number("written_bytes") / 1024
    ))
}

fn list(admin: &Connection, json: bool) -> anyhow::Result<()> {
    let answer = admin.get("/log/snapshots")?;
    if json {
        return say(&serde_json::to_string_pretty(&answer)?);
    }
    let snapshots = answer["data"].as_array().cloned().unwrap_or_default();
    if snapshots.is_empty() {
        return say("there is no snapshot yet; sluice snapshot cut makes one");
    }
    say(&format!(
        "{:>8}  {:<20}  {:>9}  {:>12}  {:<36}  note",
        "version", "time", "entities", "bytes", "epoch"
    ))?;
    snapshots
        .iter()
        .try_for_each(|snapshot| say(&line(snapshot)))
}

fn line(snapshot: &Value) -> String {
    let text = |name: &str| snapshot[name].as_str().unwrap_or_default();
    let number = |name: &str| snapshot[name].as_u64().unwrap_or(0);
    let note = match (
        snapshot["trusted"].as_bool(),
        snapshot["chartered"].as_bool(),
    ) {
        (Some(false), _) => "not signed by a trusted key",
        (_, Some(true)) => "chartered",
        (_, _) => "",
    };
    let line = format!(
        "{:>8}  {:<20.20}  {:>9}  {:>12}  {:<36}  {note}",
        number("version"),
        text("time"),
        number("entities"),
        number("bytes"),
        text("epoch"),
    );
    line.trim_end().to_owned()
}

async fn check(
    connection: &ConnectionSettings,
    version: Option<Version>,
    trusted: &TrustedKeys,
) -> anyhow::Result<()> {
    let source = connect(connection, Role::DataPlane, 1).await?;
    let stored = source.chunks.roots().await?;
    let mut roots = Root::open_all(&stored, &trusted.with_stored_ring(&stored));
    let unbelieved = stored.len() - roots.len();
    roots.retain(|root| version.is_none_or(|version| root.cursor.version == version));
    let Some(root) = roots.pop() else {
        bail!("there is no such snapshot signed by a trusted key ({unbelieved} others)");
    };
    let bar = bar("verifying");
    verify(&*source.chunks, &root, |done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    })
    .await
    .with_context(|| format!("the snapshot of version {} is bad", root.cursor.version))?;
    bar.finish_and_clear();
    say(&format!(
        "snapshot {} of version {} is whole: {} entities, {} bytes, digest {}{}",
        root.name(),
        root.cursor.version,
        root.entities,
        root.bytes,
        root.digest,
        if root.chartered { ", chartered" } else { "" }
    ))
}
