//! `/metrics`: this control plane in Prometheus' text format.

use super::answer;
use super::request::Call;
use axum::body::Body;
use axum::response::Response;
use http::{Method, StatusCode};
use sluice_replica::log::Durability;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

/// What is counted here; everything else is read where it is.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    requests: Mutex<BTreeMap<(&'static str, StatusCode), u64>>,
}

impl Metrics {
    /// Counts an answered request.
    pub(super) fn count(&self, method: &Method, status: StatusCode) {
        // Anybody can make up methods; labels must stay few.
        let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        let method = known
            .into_iter()
            .find(|known| *known == method.as_str())
            .unwrap_or("other");
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((method, status)).or_default() += 1;
    }

    /// How many requests have been answered.
    pub(super) fn requests(&self) -> u64 {
        self.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .sum()
    }

    fn write_requests(&self, text: &mut String) {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        for ((method, status), count) in requests.iter() {
            let status = status.as_u16();
            let labels = format!("{{method=\"{method}\",status=\"{status}\"}}");
            let _ = writeln!(text, "sluice_cp_requests_total{labels} {count}");
        }
    }
}

/// `GET /metrics`.
pub(super) fn show(call: &Call<'_>) -> Response {
    let control_plane = &call.admin.control_plane;
    let status = control_plane.view.status();
    let synced = match &*control_plane.info.durability.borrow() {
        Durability::Synced => 1,
        Durability::Delayed => 0,
        Durability::Unknown(_) => -1,
    };
    let nodes = control_plane.fleet.nodes();
    let alive = nodes.iter().filter(|node| node.alive).count();
    let gauges = [
        (
            "applied_version",
            "The last version applied.",
            status.cursor.version.0.to_string(),
        ),
        (
            "seen_version",
            "The highest version known to exist.",
            status.seen.0.to_string(),
        ),
        (
            "entities",
            "Entities in the state.",
            call.inside.state.len().to_string(),
        ),
        (
            "connected",
            "Whether the log is connected.",
            u8::from(status.connected).to_string(),
        ),
        (
            "log_synced",
            "Whether acknowledged writes are synced to disk: 1 yes, 0 no, -1 unknown.",
            synced.to_string(),
        ),
        (
            "keyring_serial",
            "The serial of the keyring in force; 0 without one.",
            control_plane.keychain.current().ring_serial().to_string(),
        ),
        ("nodes_alive", "Data planes that report.", alive.to_string()),
    ];
    let mut text = String::new();
    for (name, help, value) in gauges {
        let name = format!("sluice_cp_{name}");
        let _ = writeln!(
            text,
            "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}"
        );
    }
    let name = "sluice_cp_requests_total";
    let _ = writeln!(
        text,
        "# HELP {name} Answered requests.\n# TYPE {name} counter"
    );
    call.admin.metrics.write_requests(&mut text);
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    answer::with_body(StatusCode::OK, content_type, Body::from(text))
}
