//! The data planes: `/nodes`, and `/clustering/data-planes` in Kong's form.

use super::answer;
use super::event_view::rfc3339;
use super::request::Call;
use crate::fleet::Node;
use axum::response::Response;
use serde_json::{Value, json};
use sluice_schema::version::Version;

/// The length of Kong's configuration hashes, in hexadecimal digits.
const CONFIG_HASH_LENGTH: usize = 32;

/// `GET /nodes`.
pub(super) fn list(call: &Call<'_>) -> Response {
    let version = call.state.version();
    let nodes = call.admin.control_plane.fleet.nodes();
    let data: Vec<Value> = nodes.iter().map(|node| show(node, version)).collect();
    answer::ok(&json!({ "data": data, "next": null, "version": version.0 }))
}

fn show(node: &Node, version: Version) -> Value {
    let report = &node.report;
    let rejected: Vec<Value> = report
        .rejected
        .iter()
        .map(|rejected| json!({ "entity": rejected.entity, "reason": rejected.reason }))
        .collect();
    json!({
        "id": report.node,
        "hostname": report.hostname,
        "software": report.software,
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
        "phase": report.phase,
        "last_error": report.last_error,
        "keyring": report.keyring,
    })
}

/// `GET /clustering/data-planes`.
pub(super) fn data_planes(call: &Call<'_>) -> Response {
    let nodes = call.admin.control_plane.fleet.nodes();
    let data: Vec<Value> = nodes.iter().map(show_as_kong).collect();
    answer::ok(&json!({ "data": data, "next": null }))
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
    })
}
