//! `sluice log verify`: an auditor's look at the log or at an archive.

use crate::broker::{bar, block_on, connect};
use crate::keys::load_trusted;
use crate::say;
use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};
use sluice_replica::archive::Archive;
use sluice_replica::audit::{Checked, Copies, Life, Report, audit};
use sluice_replica::keys::TrustedKeys;
use sluice_replica::log::Source;
use sluice_replica::log::jetstream::Role;
use sluice_replica::process::connection::ConnectionSettings;
use sluice_schema::version::Version;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

const BAD: u8 = 1;
const NOT_READ: u8 = 2;

/// Arguments of `sluice log verify`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Archive to check, made by 'sluice log export' [default: the log itself]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Public keys to believe: a .pub file or a directory of them
    #[arg(long, env = "SLUICE_TRUSTED_KEYS", value_name = "PATH")]
    trusted_keys: PathBuf,
    /// The result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: ConnectionSettings,
}

/// What was audited, and what came of it.
struct Outcome {
    of: String,
    /// Who vouches for an archive as a whole, in words.
    vouched: Option<String>,
    report: Report,
}

/// Checks, tells, and says by the exit code what came of it.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let outcome = match look(arguments) {
        Ok(outcome) => outcome,
        Err(error) => {
            eprintln!("error: {error:#}");
            return NOT_READ.into();
        }
    };
    let told = match arguments.json {
        true => say(&outcome.json().to_string()),
        false => outcome.lines().iter().try_for_each(|line| say(line)),
    };
    match (told, outcome.report.fault()) {
        (Err(error), _) if !crate::is_broken_pipe(&error) => NOT_READ.into(),
        (_, Some(_)) => BAD.into(),
        (_, None) => ExitCode::SUCCESS,
    }
}

fn look(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let trusted = load_trusted(&arguments.trusted_keys)?;
    match &arguments.file {
        Some(file) => look_at_archive(file, &trusted),
        None => block_on(look_at_log(&arguments.connection, &trusted)),
    }
}

fn look_at_archive(file: &Path, trusted: &TrustedKeys) -> anyhow::Result<Outcome> {
    let archive = Arc::new(Archive::open(file)?);
    let report = block_on(examine(
        &archive.source(),
        trusted,
        Copies::Any,
        archive.header().last,
    ))?;
    Ok(Outcome {
        of: format!(
            "archive {} of cluster {}",
            file.display(),
            archive.header().cluster
        ),
        vouched: vouched(&archive, &trusted.with_stored_ring(archive.roots())),
        report,
    })
}

/// Who signed an archive as a whole.
fn vouched(archive: &Archive, trusted: &TrustedKeys) -> Option<String> {
    let signature = archive.end().signature()?;
    let key = &signature.key;
    Some(
        match trusted.verifies_archive(archive.end().hash, &signature) {
            true => format!("the file as a whole is signed by key {key}"),
            false => {
                format!("the file as a whole has a signature of key {key} that is not trusted")
            }
        },
    )
}

async fn look_at_log(
    connection: &ConnectionSettings,
    trusted: &TrustedKeys,
) -> anyhow::Result<Outcome> {
    let source = connect(connection, Role::Auditor, 1).await?;
    let (copies, told) = match source.log.get(Version::GENESIS).await {
        Ok(_) => (Copies::Leader, "the leader's copy"),
        Err(error) => {
            eprintln!(
                "the leader does not answer this account ({error}); reading whichever copy answers"
            );
            (Copies::Any, "any copy")
        }
    };
    let bounds = source.log.bounds().await;
    let last = bounds.map_or(Version::ZERO, |bounds| bounds.last);
    Ok(Outcome {
        of: format!("log of cluster {} ({told})", connection.cluster()),
        vouched: None,
        report: examine(&source, trusted, copies, last).await?,
    })
}

async fn examine(
    source: &Source,
    trusted: &TrustedKeys,
    copies: Copies,
    last: Version,
) -> anyhow::Result<Report> {
    let bar = bar("verifying");
    bar.set_length(last.0);
    let mut progress = |version: Version| bar.set_position(version.0);
    let report = audit(source, trusted, copies, &mut progress).await;
    bar.finish_and_clear();
    report.context("could not read all of it")
}

impl Outcome {
    fn lines(&self) -> Vec<String> {
        let report = &self.report;
        let mut lines = vec![format!("{}: {} records", self.of, report.records)];
        lines.extend(self.vouched.clone());
        lines.extend(report.lives.iter().flat_map(life_lines));
        for snapshot in &report.snapshots {
            lines.push(snapshot_line(snapshot));
        }
        for (name, reason) in &report.ignored {
            lines.push(format!(
                "snapshot {name}: ignored, as everybody does: {reason}"
            ));
        }
        if let Some(state) = &report.state {
            lines.push(format!(
                "state at version {}: {} entities, digest {}",
                state.version(),
                state.len(),
                state.digest()
            ));
        }
        for (life, fault) in report.replaced() {
            lines.push(format!(
                "epoch {} was bad, and has been replaced: {fault}",
                life.epoch
            ));
        }
        lines.push(match report.fault() {
            Some(fault) => format!("BAD: {fault}"),
            None if report.records == 0 && report.snapshots.is_empty() => {
                "there is nothing to verify".to_owned()
            }
            None => "good".to_owned(),
        });
        lines
    }

    fn json(&self) -> Value {
        let report = &self.report;
        let state = report.state.as_ref();
        json!({
            "good": report.fault().is_none(),
            "of": self.of,
            "signed": self.vouched,
            "records": report.records,
            "epochs": report.lives.iter().map(life_json).collect::<Vec<_>>(),
            "snapshots": report.snapshots.iter().map(snapshot_json).collect::<Vec<_>>(),
            "ignored": report.ignored.iter().map(|(name, reason)| json!({ "name": name, "reason": reason })).collect::<Vec<_>>(),
            "version": state.map(|state| state.version().0),
            "digest": state.map(|state| state.digest().to_string()),
            "entities": state.map(sluice_schema::state::State::len),
            "fault": report.fault().map(|fault| json!({ "version": fault.version.0, "reason": fault.wrong.to_string() })),
        })
    }
}

fn life_lines(life: &Life) -> Vec<String> {
    let charter = match life.chartered {
        true => ", chartered",
        false => "",
    };
    let folded = match life.folded_from {
        Some(version) => format!("state folded from version {version}"),
        None => "state not folded".to_owned(),
    };
    let mut lines = vec![format!(
        "epoch {}: versions {} to {}, {folded}{charter}",
        life.epoch, life.first, life.last
    )];
    for (doubt, count) in &life.covered {
        lines.push(format!(
            "  {count} records: {doubt}; later signatures cover them"
        ));
    }
    lines
}

fn snapshot_line(snapshot: &Checked) -> String {
    let came = match (&snapshot.fault, snapshot.compared) {
        (Some(wrong), _) => format!("BAD: {wrong}"),
        (None, true) => "whole, and equal to the state folded from the log".to_owned(),
        (None, false) => "whole".to_owned(),
    };
    let Checked {
        name,
        cursor,
        entities,
        ..
    } = snapshot;
    format!(
        "snapshot {name} of version {}: {entities} entities; {came}",
        cursor.version
    )
}

fn life_json(life: &Life) -> Value {
    let covered = life.covered.iter();
    let covered =
        covered.map(|(doubt, count)| json!({ "reason": doubt.to_string(), "records": count }));
    json!({
        "epoch": life.epoch.to_string(),
        "first": life.first.0,
        "last": life.last.0,
        "folded_from": life.folded_from.map(|version| version.0),
        "chartered": life.chartered,
        "covered": covered.collect::<Vec<_>>(),
        "fault": life.fault.as_ref().map(|fault| json!({ "version": fault.version.0, "reason": fault.wrong.to_string() })),
    })
}

fn snapshot_json(snapshot: &Checked) -> Value {
    json!({
        "name": snapshot.name,
        "epoch": snapshot.cursor.epoch.to_string(),
        "version": snapshot.cursor.version.0,
        "entities": snapshot.entities,
        "compared": snapshot.compared,
        "fault": snapshot.fault.as_ref().map(ToString::to_string),
    })
}
