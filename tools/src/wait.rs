//! `sluice wait`: until the data planes serve a version.

use crate::admin::{Answer, Connection, encode};
use crate::apply::spinner;
use crate::say;
use anyhow::bail;
use clap::Args;
use serde_json::Value;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long a control plane is asked to wait at a time, between which progress is shown.
const SLICE: Duration = Duration::from_millis(500);
/// What is answered if the nodes do not get there in time.
const EXIT_BEHIND: u8 = 2;
/// What is answered if no data plane is alive.
const EXIT_NO_NODES: u8 = 3;

const EXAMPLES: &str = "\
Examples:
  sluice wait latest                              until every live data plane serves what is in the log now
  sluice wait 4711 --quorum 80% --timeout 2m      until four of five serve version 4711
  sluice wait latest --group edge-eu              until every live data plane of this group does

Exit status: 0 if they do, 1 if it cannot be told, 2 if they do not in time, 3 if no data plane (of the group) is alive.";

/// How long and for how many.
#[derive(Clone, Debug, Args)]
pub(crate) struct Patience {
    /// How many data planes: all, a percentage of the live ones, or a number
    #[arg(long, default_value = "all", value_name = "all|N%|N")]
    pub(crate) quorum: String,
    /// Of the data planes in this group (their setting group) instead of all
    #[arg(long, value_name = "NAME")]
    pub(crate) group: Option<String>,
    /// How long to wait, such as 30s, 500ms or 2m
    #[arg(long, default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    pub(crate) timeout: Duration,
}

/// Arguments of `sluice wait`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// The version, or latest
    #[arg(id = "wanted", value_name = "VERSION|latest")]
    wanted: String,
    #[command(flatten)]
    patience: Patience,
    /// The control plane's answer as JSON
    #[arg(long)]
    json: bool,
}

/// Waits.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    until(
        &arguments.connection,
        &arguments.wanted,
        &arguments.patience,
        arguments.json,
    )
}

/// Waits for a version and says what came of it.
pub(crate) fn until(
    connection: &Connection,
    version: &str,
    patience: &Patience,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let deadline = Instant::now() + patience.timeout;
    let spinner = spinner("asking the control plane".to_owned());
    let mut version = version.to_owned();
    let group = patience.group.as_ref();
    let group = group.map_or_else(String::new, |group| format!("&group={}", encode(group)));
    let answer = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let slice = left.min(SLICE);
        let answer = connection.get_any(&format!(
            "/nodes/wait?version={}&quorum={}{group}&timeout={}ms",
            encode(&version),
            encode(&patience.quorum),
            slice.as_millis()
        ))?;
        match answer.status {
            202 if left > slice => {
                // The same one in the next round, whatever is written meanwhile.
                if let Some(asked) = answer.body["version"].as_u64() {
                    version = asked.to_string();
                }
                spinner.set_message(message(&answer));
            }
            200 | 202 => break answer,
            status => bail!(
                "GET /nodes/wait was answered with {status}: {}",
                answer.body
            ),
        }
    };
    spinner.finish_and_clear();
    if json {
        say(&serde_json::to_string_pretty(&answer.body)?)?;
    } else {
        say(&message(&answer))?;
        lines(&answer.body).iter().try_for_each(|line| say(line))?;
    }
    Ok(match answer.body["outcome"].as_str() {
        Some("converged") => ExitCode::SUCCESS,
        Some("no_nodes") => ExitCode::from(EXIT_NO_NODES),
        _ => ExitCode::from(EXIT_BEHIND),
    })
}

fn message(answer: &Answer) -> String {
    let message = answer.body["message"].as_str();
    message.unwrap_or("no answer that says more").to_owned()
}

/// A line for each node that is behind, and what else is to be known.
fn lines(body: &Value) -> Vec<String> {
    let nodes = |name: &str| body[name].as_array().cloned().unwrap_or_default();
    let text = |node: &Value, name: &str| node[name].as_str().unwrap_or_default().to_owned();
    let mut lines: Vec<String> = nodes("behind")
        .iter()
        .map(|node| {
            let history = match node["other_history"].as_bool() {
                Some(true) => ", in another history",
                Some(false) | None => "",
            };
            format!(
                "  {} ({}) serves {}, {} behind: {}{history}",
                text(node, "id"),
                text(node, "hostname"),
                node["version"],
                node["lag"],
                text(node, "phase")
            )
        })
        .collect();
    let named = |name: &str| {
        let ids: Vec<String> = nodes(name)
            .iter()
            .filter_map(|id| Some(id.as_str()?.to_owned()))
            .collect();
        (!ids.is_empty()).then(|| ids.join(", "))
    };
    lines.extend(named("gone").map(|ids| format!("  gone, and not counted: {ids}")));
    lines.extend(named("rejecting").map(|ids| {
        format!("  serve it without some entities that they cannot use: {ids} (sluice nodes)")
    }));
    lines
}

/// Reads `30s`, `500ms`, `2m` or `30` (seconds).
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1_u64), ("s", 1000), ("m", 60_000), ("", 1000)];
    let found = units.into_iter().find_map(|(unit, milliseconds)| {
        let number: u32 = text.strip_suffix(unit)?.parse().ok()?;
        Some(Duration::from_millis(u64::from(number) * milliseconds))
    });
    found.ok_or_else(|| "expected a time such as 30s, 500ms or 2m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_unit() {
        for (text, milliseconds) in [
            ("30s", 30_000),
            ("500ms", 500),
            ("2m", 120_000),
            ("7", 7_000),
        ] {
            let expected = Duration::from_millis(milliseconds);
            assert_eq!(parse_duration(text), Ok(expected), "{text}");
        }
        for text in ["", "s", "-1s", "1h30", "1.5s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
