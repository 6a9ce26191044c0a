//! `sluice log`: a line per event.

use crate::admin::{Connection, encode};
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
    /// Last version to show
    #[arg(long, value_name = "VERSION")]
    to: Option<u64>,
    /// Only events from this time on: 2026-11-23T10:00:00Z, or how long ago (10m, 2h, 7d)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only events up to this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only events that touched this entity, which may be gone: route/checkout, or route/<id>
    #[arg(long, value_name = "KIND/NAME")]
    entity: Option<String>,
    /// Only events that touched entities of this kind
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Only events that touched entities of this workspace
    #[arg(long, value_name = "NAME")]
    workspace: Option<String>,
    /// Only events by this actor
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    /// Only events with this in their reason
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// At most so many events [default: 20, or all if --from or --since is given]
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// The newest first
    #[arg(long, conflicts_with = "follow")]
    newest_first: bool,
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
    let bounded = arguments.from.is_some() || arguments.since.is_some();
    let limit = arguments.limit.unwrap_or(match bounded {
        true => u64::MAX,
        false => SHOWN,
    });
    // Newest first goes backwards from the end; the last few are one page; all from a point on are page by page.
    let order = match (arguments.newest_first, bounded) {
        (true, _) => "&newest=1".to_owned(),
        (false, false) => String::new(),
        (false, true) => format!("&from={}", arguments.from.unwrap_or(1).max(1)),
    };
    let to = arguments.to.unwrap_or(last);
    let filters = arguments.filters();
    let size = limit.min(PAGE);
    let mut page = Some(format!("/log/events?size={size}&to={to}{order}{filters}"));
    let mut left = limit;
    while let Some(path) = page.take().filter(|_| left > 0) {
        let answer = arguments.connection.get(&path)?;
        let events = answer["data"].as_array().cloned().unwrap_or_default();
        if answer["history"]["complete"] == false && !filters.is_empty() {
            eprintln!(
                "warning: the control plane is still reading its log (version {} of {last}): there may be more",
                answer["history"]["last"]
            );
        }
        for event in events
            .iter()
            .take(usize::try_from(left).unwrap_or(usize::MAX))
        {
            print(event, arguments.json)?;
        }
        left = left.saturating_sub(events.len() as u64);
        page = answer["next"].as_str().map(str::to_owned);
    }
    match arguments.follow {
        false => Ok(()),
        true => {
            let from = arguments.from.unwrap_or(0).max(last + 1);
            let path = format!("/log/events?follow=1&from={from}{filters}");
            arguments
                .connection
                .lines(&path, |event| print(&event, arguments.json))
                .map(|_| ())
        }
    }
}

impl Arguments {
    /// As the rest of a query.
    fn filters(&self) -> String {
        let given = [
            ("since", &self.since),
            ("until", &self.until),
            ("entity", &self.entity),
            ("kind", &self.kind),
            ("workspace", &self.workspace),
            ("actor", &self.actor),
            ("reason", &self.reason),
        ];
        let pair = |(name, value): (&str, &Option<String>)| {
            let value = value.as_ref()?;
            Some(format!("&{name}={}", encode(value)))
        };
        given.into_iter().filter_map(pair).collect()
    }
}

fn print(event: &Value, json: bool) -> anyhow::Result<()> {
    match json {
        true => say(&event.to_string()),
        false => say(&line(event)),
    }
}

/// `812  2026-11-22T10:00:00Z  anna (admin-api)  put route checkout  "why"`
fn line(event: &Value) -> String {
    let mut line = format!(
        "{:>7}  {}  {}",
        event["version"].as_u64().unwrap_or(0),
        event["time"].as_str().unwrap_or_default(),
        actor(event),
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

/// `anna (admin-api)`
pub(super) fn actor(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match text(&event["actor"]["name"]).as_str() {
        "" => text(&event["actor"]["via"]),
        name => format!("{name} ({})", text(&event["actor"]["via"])),
    }
}

fn mutation(mutation: &Value) -> String {
    let text = |name: &str| mutation[name].as_str().unwrap_or_default();
    let name = match text("name") {
        "" => text("id"),
        name => name,
    };
    format!("{} {} {name}", text("op"), text("kind"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_one_line_that_says_who_when_what_and_why() {
        let put = json!({"op": "put", "kind": "route", "name": "checkout", "id": "1"});
        let event = json!({
            "version": 812, "time": "2026-11-22T10:00:00.000000Z",
            "actor": {"name": "anna", "via": "admin-api"},
            "mutations": [put, put, put, put], "mutations_count": 4, "reason": "why",
        });
        assert_eq!(
            line(&event),
            "    812  2026-11-22T10:00:00.000000Z  anna (admin-api)  put route checkout, put route checkout, put route \
             checkout and 1 more  \"why\""
        );
        let genesis = json!({"version": 1, "actor": {"name": "", "via": "genesis"}, "mutations": [], "mutations_count": 0});
        assert!(line(&genesis).ends_with("genesis  begins the log"));
    }
}
