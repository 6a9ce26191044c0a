//! `sluice nodes`: what the data planes serve.

use crate::admin::{Connection, encode};
use crate::say;
use clap::Args;
use serde_json::Value;

/// Arguments of `sluice nodes`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Only data planes of this group
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// The control plane's answer as JSON
    #[arg(long)]
    json: bool,
}

/// Lists the nodes.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let path = match &arguments.group {
        None => "/nodes".to_owned(),
        Some(group) => format!("/nodes?group={}", encode(group)),
    };
    let answer = arguments.connection.get(&path)?;
    if arguments.json {
        return say(&serde_json::to_string_pretty(&answer)?);
    }
    let nodes = answer["data"].as_array().cloned().unwrap_or_default();
    if nodes.is_empty() {
        let of = arguments.group.as_ref();
        let of = of.map_or_else(String::new, |group| format!(" of group {group}"));
        return say(&format!(
            "no data plane{of} has reported to this control plane yet"
        ));
    }
    say(&format!(
        "{:<36}  {:<16}  {:>8}  {:>5}  {:<16}  {:>8}  {:>7}  {:<16}  phase",
        "node", "host", "version", "lag", "digest", "rejected", "keyring", "groups"
    ))?;
    nodes.iter().try_for_each(|node| say(&line(node)))
}

fn line(node: &Value) -> String {
    let text = |name: &str| node[name].as_str().unwrap_or_default();
    let number = |name: &str| node[name].as_u64().unwrap_or(0);
    let alive = node["alive"].as_bool().unwrap_or(false);
    let digest: String = text("digest").chars().take(16).collect();
    let rejected = node["rejected"].as_array().map_or(0, Vec::len);
    let groups = node["groups"].as_array().into_iter().flatten();
    let groups: Vec<&str> = groups.filter_map(Value::as_str).collect();
    format!(
        "{:<36}  {:<16}  {:>8}  {:>5}  {digest:<16}  {rejected:>8}  {:>7}  {:<16}  {}",
        text("id"),
        text("hostname"),
        number("version"),
        number("lag"),
        number("keyring"),
        groups.join(","),
        if alive { text("phase") } else { "gone" },
    )
}
