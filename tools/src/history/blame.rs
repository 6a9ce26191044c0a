//! `sluice blame`: to whom each field of an entity is owed.

use super::{is_coloured, short_time, text};
use crate::admin::{Connection, encode, workspace_path};
use crate::say;
use clap::Args;
use serde_json::Value;

/// The longest value that is shown whole, in characters.
const VALUE_CHARS_MAX: usize = 60;
/// What stands where the log no longer tells.
const UNKNOWN: &str = "?";

const EXAMPLES: &str = "\
Examples:
  sluice blame route checkout
  sluice blame service catalog --at 2h
  sluice blame plugin 5cbd0f6a-7b4f-4a3c-9a55-b1ea0ad3e1a6 --json

For each field: its value, and the version, actor, time and reason that gave it. What happened before the log begins is
shown as ?.";

/// Arguments of `sluice blame`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// The kind: service, route, plugin, ...
    #[arg(value_name = "KIND")]
    kind: String,
    /// Its name or id
    #[arg(value_name = "NAME")]
    name: String,
    /// As of this version or time: 812, 2026-11-23T10:00:00Z, 2h
    #[arg(long, value_name = "VERSION|TIME")]
    at: Option<String>,
    /// The workspace
    #[arg(long, value_name = "NAME")]
    workspace: Option<String>,
    /// The control plane's answer as JSON
    #[arg(long)]
    json: bool,
}

/// Shows whose fields they are.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (kind, name) = (encode(&arguments.kind), encode(&arguments.name));
    let at = arguments.at.as_deref().map(encode);
    let at = at.map_or_else(String::new, |at| format!("?at={at}"));
    let path = format!("/log/history/{kind}/{name}/blame{at}");
    let path = workspace_path(arguments.workspace.as_deref(), &path);
    let answer = arguments.connection.get(&path)?;
    match arguments.json {
        true => say(&serde_json::to_string_pretty(&answer)?),
        false => say(render(&answer, is_coloured()).trim_end()),
    }
}

fn render(answer: &Value, colour: bool) -> String {
    let fields = answer["fields"].as_array().cloned().unwrap_or_default();
    let rows: Vec<[String; 6]> = fields.iter().map(row).collect();
    let mut widths = [0; 5];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut shown = String::new();
    for row in &rows {
        let mut line = String::new();
        for (position, cell) in row.iter().enumerate() {
            let width = widths.get(position).copied().unwrap_or(0);
            let padded = match position {
                // Versions are numbers.
                2 => format!("{cell:>width$}"),
                _ => format!("{cell:<width$}"),
            };
            line += &match (position, colour) {
                (2, true) => format!("\u{1b}[33m{padded}\u{1b}[0m"),
                (0, true) => format!("\u{1b}[1m{padded}\u{1b}[0m"),
                (_, _) => padded,
            };
            line += "  ";
        }
        shown += line.trim_end();
        shown.push('\n');
    }
    shown
}

/// Field, value, version, who, when, why.
fn row(field: &Value) -> [String; 6] {
    let known = field["version"].is_u64();
    let or_unknown = |text: String| match known {
        true => text,
        false => UNKNOWN.to_owned(),
    };
    [
        text(&field["path"]).to_owned(),
        shorten(&field["value"].to_string()),
        or_unknown(field["version"].to_string()),
        or_unknown(text(&field["actor"]).to_owned()),
        or_unknown(short_time(&field["time"])),
        text(&field["reason"]).to_owned(),
    ]
}

fn shorten(whole: &str) -> String {
    match whole.char_indices().nth(VALUE_CHARS_MAX) {
        None => whole.to_owned(),
        Some((end, _)) => format!("{}…", &whole[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_field_stands_in_a_line_with_its_event() {
        let answer = json!({"fields": [
            {"path": "host", "value": "b", "version": 12, "actor": "ann", "time": "2026-11-22T10:00:00.123456Z", "reason": "moved"},
            {"path": "retries", "value": 5},
        ]});
        let expected = "host     \"b\"  12  ann  2026-11-22T10:00:00Z  moved
retries  5     ?  ?    ?
";
        assert_eq!(render(&answer, false), expected);
        assert!(render(&answer, true).contains("\u{1b}[33m12\u{1b}[0m"));
        assert_eq!(shorten(&"é".repeat(100)).chars().count(), 61);
    }
}
