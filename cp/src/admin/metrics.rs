//! `/metrics`: this control plane in Prometheus' text format.

use super::answer;
use super::error::Problem;
use super::list::aside;
use super::request::Call;
use super::wait::WAITERS_MAX;
use crate::ControlPlane;
use crate::fleet::Node;
use axum::body::Body;
use axum::response::Response;
use http::{Method, StatusCode};
use sluice_replica::files;
use sluice_replica::follow::Phase;
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
pub(super) async fn show(call: &Call<'_>) -> Result<Response, Problem> {
    let control_plane = &call.admin.control_plane;
    let store = control_plane.info.data_dir.join("store");
    let store_bytes = aside(move || files::size(&store)).await?;
    let mut text = String::new();
    for (name, help, value) in replica_gauges(call) {
        gauge(&mut text, name, help, &value);
    }
    for (name, help, value) in node_gauges(control_plane) {
        gauge(&mut text, name, help, &value.to_string());
    }
    let waiters = WAITERS_MAX.saturating_sub(call.admin.waiters.available_permits());
    let help = "Callers that wait for data planes.";
    gauge(&mut text, "waiters", help, &waiters.to_string());
    let help = "Bytes of the local store on disk.";
    gauge(&mut text, "store_bytes", help, &store_bytes.to_string());
    let counts = control_plane.view.counts();
    let counters = [
        ("appends_total", "Events appended.", &counts.appended),
        (
            "append_conflicts_total",
            "Appends that lost a race and were decided again.",
            &counts.conflicts,
        ),
        (
            "append_unknown_total",
            "Appends whose outcome had to be looked up.",
            &counts.unknown,
        ),
        (
            "append_refused_total",
            "Appends that the log refused.",
            &counts.refused,
        ),
    ];
    for (name, help, count) in counters {
        metric(&mut text, name, "counter", help, &count.value().to_string());
    }
    control_plane.traces.tracer.write("sluice_cp", &mut text);
    let propagation = &counts.propagation;
    propagation.write("sluice_cp_propagation_seconds", &mut text);
    let name = "sluice_cp_requests_total";
    let _ = writeln!(
        text,
        "# HELP {name} Answered requests.\n# TYPE {name} counter"
    );
    call.admin.metrics.write_requests(&mut text);
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    Ok(answer::with_body(
        StatusCode::OK,
        content_type,
        Body::from(text),
    ))
}

fn gauge(text: &mut String, name: &str, help: &str, value: &str) {
    metric(text, name, "gauge", help, value);
}

fn metric(text: &mut String, name: &str, kind: &str, help: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "# HELP sluice_cp_{name} {help}\n# TYPE sluice_cp_{name} {kind}\nsluice_cp_{name} {value}"
    );
}

type Gauge = (&'static str, &'static str, String);

/// What this control plane has of the log.
fn replica_gauges(call: &Call<'_>) -> Vec<Gauge> {
    let control_plane = &call.admin.control_plane;
    let status = control_plane.view.status();
    let synced = match &*control_plane.info.durability.borrow() {
        Durability::Synced => 1,
        Durability::Delayed => 0,
        Durability::Unknown(_) => -1,
    };
    let (applied, seen) = (status.cursor.version.0, status.seen.0);
    let head_age = status.head.as_ref().map(|(_, came)| came.elapsed());
    let head_age = head_age.map_or("NaN".to_owned(), |age| format!("{:.3}", age.as_secs_f64()));
    let snapshot = control_plane.snapshots.reference(status.cursor.epoch);
    let snapshot = snapshot.map_or(0, |snapshot| snapshot.version.0);
    let serial = control_plane.keychain.current().ring_serial();
    vec![
        (
            "applied_version",
            "The last version applied.",
            applied.to_string(),
        ),
        (
            "durable_version",
            "The last version synced to this control plane's disk.",
            status.durable.0.to_string(),
        ),
        (
            "seen_version",
            "The highest version known to exist.",
            seen.to_string(),
        ),
        (
            "lag_versions",
            "Versions known to exist and not applied.",
            seen.saturating_sub(applied).to_string(),
        ),
        (
            "head_age_seconds",
            "Seconds since a head came from any control plane; NaN if none has.",
            head_age,
        ),
        (
            "entities",
            "Entities in the state.",
            call.inside.state.len().to_string(),
        ),
        (
            "snapshot_version",
            "The version of the newest snapshot; 0 if there is none.",
            snapshot.to_string(),
        ),
        (
            "connected",
            "Whether the log is connected.",
            u8::from(status.connected).to_string(),
        ),
        (
            "forked",
            "Whether it has stopped following the log.",
            u8::from(matches!(status.phase, Phase::Forked(_))).to_string(),
        ),
        (
            "log_synced",
            "Whether acknowledged writes are synced to disk: 1 yes, 0 no, -1 unknown.",
            synced.to_string(),
        ),
        (
            "keyring_serial",
            "The serial of the keyring in force; 0 without one.",
            serial.to_string(),
        ),
    ]
}

/// What the data planes say.
fn node_gauges(control_plane: &ControlPlane) -> [(&'static str, &'static str, u64); 5] {
    let version = control_plane.view.status().cursor.version.0;
    let nodes = control_plane.fleet.nodes();
    let live = || nodes.iter().filter(|node| node.alive);
    let lag = |node: &Node| version.saturating_sub(node.report.cursor.version.0);
    let rejected = live().map(|node| node.report.rejected.len() as u64).sum();
    [
        (
            "nodes_alive",
            "Data planes that report.",
            live().count() as u64,
        ),
        (
            "nodes_behind",
            "Live data planes that serve an older version than this control plane has applied.",
            live().filter(|node| lag(node) > 0).count() as u64,
        ),
        (
            "nodes_lag_versions_max",
            "How many versions the last live data plane is behind.",
            live().map(lag).max().unwrap_or(0),
        ),
        (
            "nodes_gone",
            "Data planes that have reported in the last day and do not any more.",
            (nodes.len() - live().count()) as u64,
        ),
        (
            "rejected_entities",
            "Entities that live data planes cannot use, as far as their reports name them.",
            rejected,
        ),
    ]
}
