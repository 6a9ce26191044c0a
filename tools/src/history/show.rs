//! `sluice show`: one event, field by field.

use super::{is_coloured, text};
use crate::admin::Connection;
use crate::apply::plan;
use crate::say;
use clap::Args;
use serde_json::Value;
use std::fmt::Write;

const EXAMPLES: &str = "\
Examples:
  sluice show 812
  sluice show latest

Secrets are not shown; one that was replaced by another is told from one that was not.";

/// Arguments of `sluice show`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// The event's version, or latest
    #[arg(id = "event", value_name = "VERSION")]
    version: String,
    /// The control plane's answer as JSON
    #[arg(long)]
    json: bool,
}

/// Shows an event.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let version = match arguments.version.as_str() {
        "latest" => arguments.connection.get("/log/head")?["version"].to_string(),
        version => version.parse::<u64>()?.to_string(),
    };
    let event = arguments
        .connection
        .get(&format!("/log/events/{version}"))?;
    match arguments.json {
        true => say(&serde_json::to_string_pretty(&event)?),
        false => say(render(&event, is_coloured()).trim_end()),
    }
}

fn render(event: &Value, colour: bool) -> String {
    let mut shown = String::new();
    let actor = &event["actor"];
    let way = match text(&actor["address"]) {
        "" => text(&actor["via"]).to_owned(),
        address => format!("{} from {address}", text(&actor["via"])),
    };
    let rows = [
        ("version", event["version"].to_string()),
        ("time", text(&event["time"]).to_owned()),
        ("actor", format!("{} ({way})", text(&actor["name"]))),
        ("reason", text(&event["reason"]).to_owned()),
        ("request", text(&event["request_id"]).to_owned()),
        ("key", text(&event["key"]).to_owned()),
    ];
    for (name, value) in rows {
        if !value.is_empty() {
            writeln!(shown, "{name:<8} {value}").expect("a String takes all text");
        }
    }
    let mutations = event["mutations"].as_array().cloned().unwrap_or_default();
    if !mutations.is_empty() {
        shown.push('\n');
        shown += &plan::changes(&mutations, plan::Fields::All, colour);
    }
    let count = event["mutations_count"].as_u64().unwrap_or(0);
    let more = count.saturating_sub(mutations.len() as u64);
    if more > 0 {
        writeln!(shown, "and {more} more").expect("a String takes all text");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_says_who_when_why_and_each_field() {
        let event = json!({
            "version": 7, "time": "2026-11-22T10:00:00.000000Z", "reason": "a new home", "request_id": null, "key": "ab",
            "actor": {"name": "ann", "via": "admin-api", "address": "10.0.0.1"},
            "mutations_count": 3,
            "mutations": [
                {"op": "put", "kind": "service", "name": "s", "before": {"host": "a"}, "body": {"host": "b"},
                 "changes": [{"path": "host", "before": "a", "after": "b"}]},
                {"op": "put", "kind": "route", "name": "r", "before": null, "body": {"paths": ["/x"]}},
            ],
        });
        let expected = "version  7
time     2026-11-22T10:00:00.000000Z
actor    ann (admin-api from 10.0.0.1)
reason   a new home
key      ab

+ route r
    + paths: [\"/x\"]
~ service s
    ~ host: \"a\" -> \"b\"
and 1 more
";
        assert_eq!(render(&event, false), expected);
    }
}
