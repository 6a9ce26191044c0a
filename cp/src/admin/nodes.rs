//! The data planes: `/nodes`, and `/clustering/data-planes` in Kong's form.

use super::answer;
use super::error::Problem;
use super::list::{self, Page};
use super::request::Call;
use super::warnings;
use crate::fleet::{FORGET, Node};
use crate::time::rfc3339;
use axum::response::Response;
use serde_json::{Value, json};
use sluice_schema::version::Version;
use std::collections::BTreeSet;

/// The length of Kong's configuration hashes, in hexadecimal digits.
const CONFIG_HASH_LENGTH: usize = 32;

/// `GET /nodes[?group=]`.
pub(super) fn list(call: &Call<'_>) -> Response {
    let version = call.inside.state.version();
    let fleet = &call.admin.control_plane.fleet;
    let configured = warnings::configured_anywhere(&call.inside.state);
    let nodes = fleet.nodes();
    let group = call.query.get("group");
    let asked = |node: &&Node| {
        let mut groups = node.report.groups.iter();
        group.is_none_or(|name| groups.any(|group| group.as_str() == name))
    };
    let data: Vec<Value> = nodes
        .iter()
        .filter(asked)
        .map(|node| show(node, version, &configured))
        .collect();
    let warnings: Vec<String> = warnings::warning(&configured, fleet).into_iter().collect();
    answer::ok(&json!({
        "data": data,
        "next": null,
        "version": version.0,
        "warnings": warnings,
    }))
}

fn show(node: &Node, version: Version, configured: &BTreeSet<String>) -> Value {
    let report = &node.report;
    let missing = configured
        .iter()
        .filter(|name| !report.plugins.contains(name));
    let rejected: Vec<Value> = report
        .rejected
        .iter()
        .map(|rejected| json!({ "entity": rejected.entity, "reason": rejected.reason }))
        .collect();
    json!({
        "id": report.node,
        "hostname": report.hostname,
        "software": report.software,
        "groups": report.groups,
        "alive": node.alive,
        "last_seen": rfc3339(node.last_seen),
        "epoch": report.cursor.epoch.to_string(),
        "version": report.cursor.version.0,
        "lag": version.0.saturating_sub(report.cursor.version.0),
        "chain": report.cursor.chain.to_string(),
        "digest": report.digest.to_string(),
        "durable": report.durable.0,
        "entities": report.entities,
        "rejected": rejected,
        "plugins": report.plugins,
        "plugins_missing": missing.collect::<Vec<_>>(),
        "phase": report.phase,
        "last_error": report.last_error,
        "keyring": report.keyring,
    })
}

/// `GET /clustering/data-planes`.
pub(super) fn data_planes(call: &Call<'_>) -> Result<Response, Problem> {
    let page = Page::parse(&call.query)?;
    let nodes = call.admin.control_plane.fleet.nodes();
    let later = |node: &&Node| {
        page.after
            .as_ref()
            .is_none_or(|after| node.report.node > *after)
    };
    let mut nodes = nodes.iter().filter(later).peekable();
    let mut data = Vec::new();
    let mut last = None;
    while data.len() < page.size
        && let Some(node) = nodes.next()
    {
        data.push(show_as_kong(node));
        last = nodes.peek().map(|_| node.report.node.clone());
    }
    Ok(answer::ok(&list::body(call, data, last)))
}

/// `GET /clustering/data-planes/:id`.
pub(super) fn data_plane(call: &Call<'_>, id: &str) -> Result<Response, Problem> {
    let nodes = call.admin.control_plane.fleet.nodes();
    let node = nodes.iter().find(|node| node.report.node == id);
    let node = node.ok_or(Problem::NotFound)?;
    Ok(answer::ok(&show_as_kong(node)))
}

/// `GET /clustering/status`.
pub(super) fn status(call: &Call<'_>) -> Response {
    let nodes = call.admin.control_plane.fleet.nodes();
    let shown = |node: &Node| {
        let full = show_as_kong(node);
        let fields = ["config_hash", "hostname", "ip", "last_seen"];
        let fields = fields.map(|field| (field.to_owned(), full[field].clone()));
        let fields = Value::Object(fields.into_iter().collect());
        (node.report.node.clone(), fields)
    };
    let mut response = answer::ok(&Value::Object(nodes.iter().map(shown).collect()));
    answer::set(response.headers_mut(), "deprecation", "true");
    response
}

fn show_as_kong(node: &Node) -> Value {
    let report = &node.report;
    let hash: String = report
        .digest
        .to_string()
        .chars()
        .take(CONFIG_HASH_LENGTH)
        .collect();
    let last_seen = node.last_seen.seconds();
    json!({
        "id": report.node,
        "hostname": report.hostname,
        "ip": null,
        "version": report.software,
        "config_hash": hash,
        "last_seen": last_seen,
        "updated_at": last_seen,
        "sync_status": if node.alive { "normal" } else { "unknown" },
        "labels": {},
        "cert_details": null,
        "rpc_capabilities": [],
        "ttl": FORGET.as_secs().saturating_sub(node.age.as_secs()),
    })
}
