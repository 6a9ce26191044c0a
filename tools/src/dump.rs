//! `sluice dump`.

use crate::admin::{Connection, encode, workspace_path};
use crate::say;
use clap::{Args, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  sluice dump > all.yaml
  sluice dump --select-tag team-a --select-tag prod > a.yaml
  sluice dump --format json | jq .services
  sluice dump --at 812 > then.yaml      or --at 2026-11-23T10:00:00Z, or --at 2h

Applying a dump to the same control plane changes nothing. It holds secrets as they are stored.";

/// Arguments of `sluice dump`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Only entities with this tag; given several times, those with all of them
    #[arg(long, value_name = "TAG")]
    select_tag: Vec<String>,
    /// What was there at this version or time
    #[arg(long, value_name = "VERSION|TIME")]
    at: Option<String>,
    /// The workspace
    #[arg(long, value_name = "NAME")]
    workspace: Option<String>,
    /// The form
    #[arg(long, value_enum, default_value_t = Format::Yaml)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

/// Prints the configuration.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let format = match arguments.format {
        Format::Yaml => "yaml",
        Format::Json => "json",
    };
    let tags = encode(&arguments.select_tag.join(","));
    let at = arguments.at.as_deref().map(encode);
    let at = at.map_or_else(String::new, |at| format!("&at={at}"));
    let path = format!("/dump?format={format}&select_tags={tags}{at}");
    let path = workspace_path(arguments.workspace.as_deref(), &path);
    let text = arguments.connection.get_text(&path)?;
    say(text.trim_end_matches('\n'))
}
