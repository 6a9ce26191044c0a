//! `sluice rollback` and `sluice undo`: what was before is brought back by one further event.

use super::{is_coloured, short_time, text};
use crate::admin::{Answer, Connection};
use crate::apply::plan;
use crate::say;
use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use std::fmt::Write;

const ROLLBACK_EXAMPLES: &str = "\
Examples:
  sluice rollback --to 812 --dry-run                       what would change
  sluice rollback --to 812 --reason \"the new routes fail\"
  sluice rollback --to 30m --only route/checkout --only service/catalog

Nothing is taken out of the log: one further event makes things what they were. What has come since by others is shown by
--dry-run, and is rolled back too unless --only says what it is about.";

const UNDO_EXAMPLES: &str = "\
Examples:
  sluice undo 812 --dry-run
  sluice undo 812 --reason \"wrong upstream\"

Only what that event changed is taken back, field by field. If somebody has changed the same fields since, or something
refers to what would go, nothing is changed and each conflict is shown.";

/// What both have.
#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    connection: Connection,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the control plane's answer as JSON
    #[arg(long)]
    json: bool,
    /// Why; kept in the log [default: names the version]
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Who; kept in the log [default: the login name]
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
}

/// Arguments of `sluice rollback`.
#[derive(Debug, Args)]
#[command(after_help = ROLLBACK_EXAMPLES)]
pub(crate) struct RollbackArguments {
    #[command(flatten)]
    common: Common,
    /// The version or time to go back to: 812, 2026-11-23T10:00:00Z, or how long ago (30m)
    #[arg(long, value_name = "VERSION|TIME")]
    to: String,
    /// Only this entity, or all of this kind; may be given several times
    #[arg(long, value_name = "KIND[/NAME]")]
    only: Vec<String>,
    /// Only what is in this workspace
    #[arg(long, value_name = "NAME")]
    workspace: Option<String>,
}

/// Arguments of `sluice undo`.
#[derive(Debug, Args)]
#[command(after_help = UNDO_EXAMPLES)]
pub(crate) struct UndoArguments {
    #[command(flatten)]
    common: Common,
    /// The event to take back: a version, or latest
    #[arg(id = "event", value_name = "VERSION|latest", value_parser = event)]
    version: Which,
}

/// Which event.
#[derive(Clone, Copy, Debug)]
enum Which {
    Latest,
    Version(u64),
}

fn event(text: &str) -> Result<Which, String> {
    match (text, text.parse()) {
        ("latest", _) => Ok(Which::Latest),
        (_, Ok(version)) => Ok(Which::Version(version)),
        (_, Err(_)) => Err("expected a version, or latest".to_owned()),
    }
}

/// Goes back to a version.
pub(crate) fn rollback(arguments: &RollbackArguments) -> anyhow::Result<()> {
    let body = json!({
        "to": arguments.to,
        "only": arguments.only,
        "workspace": arguments.workspace,
    });
    arguments.common.send("/log/rollback", &body)
}

/// Takes back one event.
pub(crate) fn undo(arguments: &UndoArguments) -> anyhow::Result<()> {
    let version = match arguments.version {
        Which::Version(version) => version,
        Which::Latest => {
            let status = arguments.common.connection.get("/status")?;
            let newest = status["sluice"]["version"].as_u64();
            newest.context("the control plane does not say its version")?
        }
    };
    let body = json!({ "version": version });
    arguments.common.send("/log/undo", &body)
}

impl Common {
    fn send(&self, path: &str, body: &Value) -> anyhow::Result<()> {
        let login = std::env::var("USER").unwrap_or_else(|_| "sluice".into());
        let actor = self.actor.as_ref().unwrap_or(&login);
        let mut headers = vec![("sluice-actor", actor.as_str())];
        if let Some(reason) = &self.reason {
            headers.push(("sluice-reason", reason));
        }
        let path = format!("{path}?dry_run={}", u8::from(self.dry_run));
        let spinner = crate::apply::spinner("looking back".to_owned());
        let answer = self.connection.post(
            &path,
            "application/json",
            &headers,
            body.to_string().as_bytes(),
        );
        spinner.finish_and_clear();
        let Answer { status, body, .. } = answer?;
        match status {
            200 if self.json => say(&serde_json::to_string_pretty(&body)?),
            200 if self.dry_run => say(&plan::render(&body, is_coloured())),
            200 => say(&summary(&body)),
            409 if body["conflicts"].is_array() => bail!("{}", conflicts(&body)),
            status => match body["message"].as_str() {
                Some(message) => bail!("nothing was changed: {message}"),
                None => bail!("nothing was changed: {status} {body}"),
            },
        }
    }
}

fn summary(body: &Value) -> String {
    let count = |name: &str| body[name].as_u64().unwrap_or(0);
    let (created, updated, deleted) = (count("created"), count("updated"), count("deleted"));
    match created + updated + deleted {
        0 => format!("version {}: it is so already", count("version")),
        _ => format!(
            "version {}: {created} created again, {updated} put back, {deleted} deleted",
            count("version")
        ),
    }
}

/// A line for the whole and one for each entity that is in the way.
fn conflicts(body: &Value) -> String {
    let mut shown = text(&body["message"]).to_owned();
    for conflict in body["conflicts"].as_array().into_iter().flatten() {
        let name = match text(&conflict["name"]) {
            "" => text(&conflict["id"]),
            name => name,
        };
        let kind = text(&conflict["kind"]);
        let message = text(&conflict["message"]);
        write!(shown, "\n  {kind} {name}: {message}").expect("a String takes all text");
        let by = &conflict["by"];
        if by.is_object() {
            let (actor, time) = (text(&by["actor"]), short_time(&by["time"]));
            let reason = match text(&by["reason"]) {
                "" => String::new(),
                reason => format!(", \"{reason}\""),
            };
            write!(
                shown,
                " (version {} by {actor}, {time}{reason})",
                by["version"]
            )
            .expect("a String takes all text");
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_conflict_says_what_is_in_the_way_and_by_whom() {
        let body = json!({
            "message": "taking back version 5 is in conflict",
            "conflicts": [
                {"kind": "service", "id": "1", "name": "s", "message": "changed again since: host",
                 "by": {"version": 9, "time": "2026-11-22T10:00:00.5Z", "actor": "bob", "reason": "later"}},
                {"kind": "route", "id": "2", "name": null, "message": "its workspace is gone"},
            ],
        });
        let expected = "taking back version 5 is in conflict
  service s: changed again since: host (version 9 by bob, 2026-11-22T10:00:00Z, \"later\")
  route 2: its workspace is gone";
        assert_eq!(conflicts(&body), expected);
    }
}
