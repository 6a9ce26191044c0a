//! `sluice log`: a line per event.

use crate::admin::Connection;
use crate::say;
use clap::Args;
use serde_json::Value;

/// Arguments of `sluice log` alone.
#[derive(Debug, Args)]
#[group(id = "print")]
pub(crate) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// First version to show [default: the last 20 events]
    #[arg(long, value_name = "VERSION")]
    from: Option<u64>,
    /// Go on with new events as they come
    #[arg(long, short)]
    follow: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

const SHOWN: u64 = 20;
const PAGE: u64 = 1000;

/// Prints the log.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let head = arguments.connection.get("/log/head")?;
    let last = head["version"].as_u64().unwrap_or(0);
    let mut from = arguments
        .from
        .unwrap_or_else(|| last.saturating_sub(SHOWN - 1))
        .max(1);
    if arguments.follow {
        return arguments
            .connection
            .lines(&format!("/log/events?follow=1&from={from}"), |event| {
                print(&event, arguments.json)
            });
    }
    while from <= last {
        let page = arguments
            .connection
            .get(&format!("/log/events?from={from}&size={PAGE}"))?;
        let events = page["data"].as_array().cloned().unwrap_or_default();
        let Some(newest) = events.last().and_then(|event| event["version"].as_u64()) else {
            break;
        };
        for event in &events {
            print(event, arguments.json)?;
        }
        from = newest + 1;
    }
    Ok(())
}

fn print(event: &Value, json: bool) -> anyhow::Result<()> {
    match json {
        true => say(&event.to_string()),
        false => say(&line(event)),
    }
}

/// `812  2026-11-22T10:00:00Z  anna (admin-api)  put route checkout  "why"`
fn line(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut line = format!(
        "{:>7}  {}  {}",
        event["version"].as_u64().unwrap_or(0),
        text(&event["time"]),
        match text(&event["actor"]["name"]).as_str() {
            "" => text(&event["actor"]["via"]),
            name => format!("{name} ({})", text(&event["actor"]["via"])),
        },
    );
    let mutations = event["mutations"].as_array().cloned().unwrap_or_default();
    let shown: Vec<String> = mutations.iter().take(3).map(mutation).collect();
    let count = event["mutations_count"]
        .as_u64()
        .unwrap_or(mutations.len() as u64);
    line += "  ";
    line += &match count {
        0 => "begins the log".to_owned(),
        _ if shown.is_empty() => format!("{count} mutations"),
        _ => shown.join(", "),
    };
    if count > shown.len() as u64 && !shown.is_empty() {
        line += &format!(" and {} more", count - shown.len() as u64);
    }
    if let Some(reason) = event["reason"].as_str() {
        line += &format!("  \"{reason}\"");
    }
    line
}

fn mutation(mutation: &Value) -> String {
    let text = |name: &str| mutation[name].as_str().unwrap_or_default();
    let name = match text("name") {
        "" => text("id"),
        name => name,
    };
    format!("{} {} {name}", text("op"), text("kind"))
}
