//! `sluice log import`: a new epoch of the log, begun with the state of an archive.

use crate::broker::{bar, block_on, connect};
use crate::keys::load_trusted;
use crate::say;
use anyhow::{Context, bail, ensure};
use clap::Args;
use sluice_replica::archive::Archive;
use sluice_replica::audit::{Copies, audit};
use sluice_replica::environment::Environment;
use sluice_replica::keys::{SigningKey, TrustedKeys};
use sluice_replica::log::jetstream::Role;
use sluice_replica::log::{Bounds, LogError, Source};
use sluice_replica::process::connection::ConnectionSettings;
use sluice_replica::snapshot::{Founded, Terms, found, load_state};
use sluice_schema::event::{Actor, Event};
use sluice_schema::state::State;
use sluice_schema::version::{Epoch, Version};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Arguments of `sluice log import`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Archive to begin with, made by 'sluice log export'
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Why; kept in the log and in the epoch's charter
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// A control plane's key, to sign the founding event and the snapshot
    #[arg(long, value_name = "FILE")]
    signing_key: PathBuf,
    /// The root key, to sign the charter; needed where a root key is trusted
    #[arg(long, value_name = "FILE")]
    root_key: Option<PathBuf>,
    /// Public keys that control planes and data planes believe: a .pub file or a directory of them
    #[arg(long, env = "SLUICE_TRUSTED_KEYS", value_name = "PATH")]
    trusted_keys: PathBuf,
    /// Take up a snapshot that nobody has signed
    #[arg(long)]
    accept_unsigned: bool,
    /// Copies of the log in a NATS cluster, 1 to 5, if the streams have to be made
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u8).range(1..=5), value_name = "N")]
    replicas: u8,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do it: without this, it is only shown
    #[arg(long)]
    yes: bool,
    /// Who; kept in the log [default: the login name]
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    #[command(flatten)]
    connection: ConnectionSettings,
}

/// Shows what an import does, and does it.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let trusted = load_trusted(&arguments.trusted_keys)?;
    let key = SigningKey::load(&arguments.signing_key)?;
    let charter_key = match &arguments.root_key {
        Some(path) => SigningKey::load(path)?,
        None => key.clone(),
    };
    let archive = Arc::new(Archive::open(&arguments.file)?);
    let login = std::env::var("USER").unwrap_or_else(|_| "sluice log import".into());
    let stored = archive.roots();
    let trusted = trusted.with_stored_ring(stored);
    let mut terms = Terms {
        key,
        charter_key,
        actor: Actor {
            name: arguments.actor.clone().unwrap_or(login),
            via: "import".into(),
            address: None,
        },
        reason: arguments.reason.clone(),
        after: archive.header().epoch,
        environment: Environment::system(),
        trusted,
    };
    block_on(async {
        let state = state_of(
            &archive,
            &arguments.file,
            &terms.trusted,
            arguments.accept_unsigned,
        )
        .await?;
        let does = arguments.yes && !arguments.dry_run;
        // Only who imports may make the streams.
        let role = if does {
            Role::ControlPlane
        } else {
            Role::Auditor
        };
        let source = connect(&arguments.connection, role, arguments.replicas.into()).await;
        let source = match (source, does) {
            (Ok(source), _) => Some(source),
            (Err(error), true) => return Err(error),
            (Err(error), false) => {
                say(&format!(
                    "the log cannot be read now, or is not there: {error:#}"
                ))?;
                None
            }
        };
        show(&archive, &state, source.as_ref()).await?;
        if let Some(source) = &source {
            let stored = source.chunks.roots().await?;
            terms.trusted = terms.trusted.with_stored_ring(&stored);
        }
        match source.filter(|_| does) {
            Some(source) => tell(&found(&source, &state, &terms).await?),
            None if arguments.dry_run => say("nothing was done (--dry-run)"),
            None => bail!("nothing was done: say --yes to do it"),
        }
    })
}

/// The state at the archive's end, if all of it can be believed.
async fn state_of(
    archive: &Arc<Archive>,
    file: &Path,
    trusted: &TrustedKeys,
    accept_unsigned: bool,
) -> anyhow::Result<State> {
    let bar = bar("verifying");
    bar.set_length(archive.header().last.0);
    let mut progress = |version: Version| bar.set_position(version.0);
    let source = archive.source();
    let report = audit(&source, trusted, Copies::Any, &mut progress).await?;
    bar.finish_and_clear();
    if let Some(fault) = report.fault() {
        bail!(
            "the archive is bad at {fault}; 'sluice log verify {}' tells more",
            file.display()
        );
    }
    if let Some(state) = report.state {
        return Ok(state);
    }
    let Some(root) = archive.unsigned().last() else {
        let ignored: Vec<_> = report
            .ignored
            .iter()
            .map(|(_, reason)| reason.as_str())
            .collect();
        bail!(
            "no state in the archive can be believed: {}",
            ignored.join("; ")
        );
    };
    let signature = archive.end().signature();
    let vouched =
        signature.is_some_and(|signature| trusted.verifies_archive(archive.end().hash, &signature));
    ensure!(
        vouched || accept_unsigned,
        "nobody has signed the archive's snapshot; if you know where the file comes from, say --accept-unsigned"
    );
    let state = load_state(source.chunks.clone(), root).await;
    state.context("the archive's snapshot is not whole")
}

async fn show(archive: &Archive, state: &State, source: Option<&Source>) -> anyhow::Result<()> {
    say(&format!(
        "archive: cluster {}, epoch {}, version {}, {} entities, digest {}",
        archive.header().cluster,
        state.epoch(),
        state.version(),
        state.len(),
        state.digest()
    ))?;
    let Some(source) = source else {
        return Ok(());
    };
    let Bounds { first, last } = match source.log.bounds().await {
        Ok(bounds) => bounds,
        Err(LogError::Unusable(reason) | LogError::Unavailable(reason)) => {
            return say(&format!("log: {reason}"));
        }
    };
    if last == Version::ZERO {
        say("log: empty")?;
    } else {
        let epoch = epoch_of(source, last).await;
        say(&format!("log: versions {first} to {last}, epoch {epoch}"))?;
    }
    let known = archive.end().cursor;
    if last > known.version && known.epoch == state.epoch() {
        say(&format!(
            "versions {} to {last} of the log are not in the archive and will be passed over for good",
            known.version.next()
        ))?;
    }
    say(&format!(
        "to do: begin a new epoch at version {} with these entities",
        last.next()
    ))
}

async fn epoch_of(source: &Source, last: Version) -> String {
    let record = source.log.get(last).await.ok().flatten();
    let event = record.and_then(|record| Event::decode(&record.event).ok());
    event.map_or_else(
        || "unknown".to_owned(),
        |event| Epoch::to_string(&event.epoch),
    )
}

fn tell(founded: &Founded) -> anyhow::Result<()> {
    let cursor = founded.root.cursor;
    say(&format!(
        "began epoch {} at version {}: {} entities in {} new chunks. Control planes and data planes take it up by themselves within some seconds",
        cursor.epoch, cursor.version, founded.root.entities, founded.written
    ))
}
