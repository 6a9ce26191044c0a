//! What this control plane is: `/`, `/status`, `/endpoints`, `/plugins/enabled`.

use super::WORKSPACE;
use super::answer;
use super::endpoint;
use super::request::Call;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sluice_replica::log::Durability;
use sluice_replica::node::SyncMode;
use sluice_schema::kind::Kind;
use sluice_schema::plugin::PLUGINS;
use std::collections::BTreeSet;

/// The Kong version whose Admin API this is; clients choose what they send by it.
const KONG_VERSION: &str = "3.10.0";

/// `GET /`.
pub(super) fn root(call: &Call<'_>) -> Response {
    let info = &call.admin.control_plane.info;
    let node_id = info.node_id.to_string();
    let available: Map<String, Value> = plugin_names()
        .map(|name| (name.to_owned(), json!({ "version": KONG_VERSION })))
        .collect();
    let listen: Vec<String> = info.listen.iter().map(ToString::to_string).collect();
    let sync = sync_name(info.sync);
    let process = std::process::id();
    answer::ok(&json!({
        "tagline": "Welcome to Sluice",
        "version": KONG_VERSION,
        "edition": "community",
        "hostname": info.hostname,
        "node_id": node_id,
        "timers": { "running": 0, "pending": 0 },
        "plugins": { "available_on_server": available, "enabled_in_cluster": configured(call) },
        "configuration": {
            // decK refuses to write to a gateway without a database.
            "database": "sluice",
            "router_flavor": info.router_flavor.name(),
            "role": "control_plane",
            "admin_listen": listen,
            "cluster": info.cluster,
            "incremental_sync": sync,
        },
        "pids": { "master": process, "workers": [process] },
        "sluice": {
            "version": info.version,
            "cluster": info.cluster,
            "signing_key": info.signing_key,
            "sync": sync,
        },
    }))
}

fn sync_name(sync: SyncMode) -> &'static str {
    match sync {
        SyncMode::Incremental => "incremental",
        SyncMode::Full => "full",
    }
}

/// The plugins that are in use.
fn configured(call: &Call<'_>) -> BTreeSet<String> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let plugins = call.state.list(Kind::Plugin, &WORKSPACE, None);
    plugins
        .filter_map(|(_, entry)| entry.body.view::<Named>().ok())
        .map(|named| named.name)
        .collect()
}

fn plugin_names() -> impl Iterator<Item = &'static str> {
    PLUGINS.iter().map(|plugin| plugin.name)
}

/// `GET /plugins/enabled`.
pub(super) fn plugins_enabled() -> Response {
    let names: Vec<_> = plugin_names().collect();
    answer::ok(&json!({ "enabled_plugins": names }))
}

/// `GET /endpoints`.
pub(super) fn endpoints() -> Response {
    answer::ok(&json!({ "data": endpoint::paths() }))
}

/// `GET /status`.
pub(super) fn status(call: &Call<'_>) -> Response {
    let control_plane = &call.admin.control_plane;
    let info = &control_plane.info;
    let status = control_plane.view.status();
    let head = status.head.as_ref();
    let uptime = info.started.elapsed().unwrap_or_default();
    answer::ok(&json!({
        "memory": { "lua_shared_dicts": {}, "workers_lua_vms": [] },
        "server": { "total_requests": call.admin.metrics.requests() },
        "database": { "reachable": status.connected },
        "sluice": {
            "software": info.version,
            "uptime_seconds": uptime.as_secs(),
            "cluster": info.cluster,
            "epoch": status.cursor.epoch.to_string(),
            "version": status.cursor.version.0,
            "chain": status.cursor.chain.to_string(),
            "digest": status.digest.to_string(),
            "entities": status.entities,
            "durable": status.durable.0,
            "phase": status.phase.to_string(),
            "lag": status.seen.0.saturating_sub(status.cursor.version.0),
            "last_error": status.last_error,
            "log": {
                "connected": status.connected,
                "synced": synced(&info.durability.borrow()),
                "first": head.map(|(head, _)| head.first.0),
                "last": status.seen.0,
            },
        },
    }))
}

/// Whether acknowledged writes are synced to disk, in words.
pub(super) fn synced(durability: &Durability) -> String {
    match durability {
        Durability::Synced => "yes".to_owned(),
        Durability::Delayed => "no".to_owned(),
        Durability::Unknown(why) => format!("unknown: {why}"),
    }
}
