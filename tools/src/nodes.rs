//! `sluice nodes`: what the data planes serve.

use crate::admin::Connection;
use crate::say;
use clap::Args;
use serde_json::Value;

/// Arguments of `sluice nodes`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// The control plane's answer as JSON
    #[arg(long)]
    json: bool,
}

/// Lists the nodes.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let answer = arguments.connection.get("/nodes")?;
    if arguments.json {
        return say(&serde_json::to_string_pretty(&answer)?);
    }
    let nodes = answer["data"].as_array().cloned().unwrap_or_default();
    if nodes.is_empty() {
        return say("no data plane has reported to this control plane yet");
    }
    say(&format!(
        "{:<36}  {:<16}  {:>8}  {:>5}  {:<16}  {:>8}  {:>7}  phase",
        "node", "host", "version", "lag", "digest", "rejected", "keyring"
    ))?;
    nodes.iter().try_for_each(|node| say(&line(node)))
}

fn line(node: &Value) -> String {
    let text = |name: &str| node[name].as_str().unwrap_or_default();
    let number = |name: &str| node[name].as_u64().unwrap_or(0);
    let alive = node["alive"].as_bool().unwrap_or(false);
    let digest: String = text("digest").chars().take(16).collect();
    let rejected = node["rejected"].as_array().map_or(0, Vec::len);
    format!(
        "{:<36}  {:<16}  {:>8}  {:>5}  {digest:<16}  {rejected:>8}  {:>7}  {}",
        text("id"),
        text("hostname"),
        number("version"),
        number("lag"),
        number("keyring"),
        if alive { text("phase") } else { "gone" },
    )
}
