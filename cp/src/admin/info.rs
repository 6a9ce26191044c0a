//! What this control plane is: `/`, `/status`, `/endpoints`, `/plugins/enabled`.

use super::answer;
use super::endpoint;
use super::error::Problem;
use super::request::Call;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sluice_replica::follow::Phase;
use sluice_replica::log::Durability;
use sluice_replica::node::SyncMode;
use sluice_schema::kind::Kind;
use sluice_schema::plugin;
use sluice_schema::version::Version;
use std::collections::BTreeSet;
use std::net::SocketAddr;

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
    let listener = |address: &SocketAddr| {
        json!({
            "ip": address.ip().to_string(),
            "port": address.port(),
            "listener": address.to_string(),
            "ssl": false,
            "http2": false,
        })
    };
    let listeners: Vec<Value> = info.listen.iter().map(listener).collect();
    let sync = sync_name(info.sync);
    let process = std::process::id();
    answer::ok(&json!({
        "tagline": "Welcome to Sluice",
        "version": KONG_VERSION,
        "edition": "community",
        "hostname": info.hostname,
        "node_id": node_id,
        "lua_version": "none",
        "timers": { "running": 0, "pending": 0 },
        "plugins": { "available_on_server": available, "enabled_in_cluster": configured(call) },
        "configuration": {
            // decK refuses to write to a gateway without a database.
            "database": "sluice",
            "router_flavor": info.router_flavor.name(),
            "role": "control_plane",
            "admin_listen": listen,
            "admin_listeners": listeners,
            "admin_gui_listeners": [],
            "admin_gui_url": info.allowed_origins,
            "proxy_listeners": [],
            "plugins": ["bundled"],
            "wasm": false,
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
    let plugins = call.inside.list(Kind::Plugin, None);
    plugins
        .filter_map(|(_, entry)| entry.body.view::<Named>().ok())
        .map(|named| named.name)
        .collect()
}

fn plugin_names() -> impl Iterator<Item = &'static str> {
    plugin::available().map(|plugin| plugin.name)
}

/// `GET /plugins/enabled`.
pub(super) fn plugins_enabled() -> Response {
    let names: Vec<_> = plugin_names().collect();
    answer::ok(&json!({ "enabled_plugins": names }))
}

/// `GET /endpoints`. Sorted segment by segment, as Kong's.
pub(super) fn endpoints() -> Response {
    let mut paths: Vec<String> = endpoint::all()
        .into_iter()
        .map(|described| described.path)
        .collect();
    paths.sort_by_cached_key(|path| path.replace('/', "\0"));
    answer::ok(&json!({ "data": paths }))
}

/// `GET /timers`: nothing here runs on Kong's timers.
pub(super) fn timers() -> Response {
    let none = json!({ "running": 0, "pending": 0, "waiting": 0, "total": 0, "runs": 0 });
    answer::ok(&json!({
        "worker": { "id": 0, "count": 1 },
        "stats": { "sys": none, "timers": [], "flamegraph": {} },
    }))
}

/// `GET /status/dns`: names are resolved by data planes, not here.
pub(super) fn status_dns() -> Response {
    answer::ok(&json!({ "worker": { "id": 0, "count": 1 }, "stats": {} }))
}

/// `GET /status/ready`: whether requests should be sent here. Reads are answered with the log away, so that does not
/// count.
pub(super) fn ready(call: &Call<'_>) -> Result<Response, Problem> {
    let status = call.admin.control_plane.view.status();
    match status.phase {
        Phase::Forked(_) => Err(Problem::Busy("stopped following the log")),
        Phase::Loading => Err(Problem::Busy("taking up a snapshot")),
        Phase::Disconnected | Phase::CatchingUp | Phase::Following => match status.cursor.version {
            Version::ZERO => Err(Problem::Busy("the log has not been reached yet")),
            _ => Ok(answer::ok(&json!({ "message": "ready" }))),
        },
    }
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
        "server": server(call),
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

/// Kong's counters of connections. Only requests are counted here, and this one is the one that is known to be active.
fn server(call: &Call<'_>) -> Value {
    let total = call.admin.metrics.requests();
    json!({
        "total_requests": total,
        "connections_accepted": total,
        "connections_handled": total,
        "connections_active": 1,
        "connections_reading": 0,
        "connections_writing": 1,
        "connections_waiting": 0,
    })
}

/// Whether acknowledged writes are synced to disk, in words.
pub(super) fn synced(durability: &Durability) -> String {
    match durability {
        Durability::Synced => "yes".to_owned(),
        Durability::Delayed => "no".to_owned(),
        Durability::Unknown(why) => format!("unknown: {why}"),
    }
}
