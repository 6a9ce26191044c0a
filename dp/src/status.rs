//! What a node says about itself: `/status`, `/status/ready`, `/metrics`, the health of targets and why requests go where they
//! go, on a listener of its own.

mod debug;
mod explain;
mod health;

use crate::NodeId;
use crate::balance::Upstreams;
use crate::metrics::{Metrics, Writer};
use crate::plugin::{self, Answer, Content};
use crate::table::{Rejected, Table};
use arc_swap::ArcSwap;
use bytes::Bytes;
use explain::Explainer;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use sluice_replica::files;
use sluice_replica::node::Ailing;
use sluice_replica::process::logging::LogLevel;
use sluice_schema::digest::{Accumulator, Digest};
use sluice_schema::version::{Cursor, Time, Version};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECTIONS_MAX: usize = 64;
/// How many rejected entities are named; all are counted.
const REJECTED_NAMED_MAX: usize = 100;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who the node is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its id, the same over restarts.
    pub id: NodeId,
    /// The machine's name.
    pub hostname: String,
}

/// What the node has applied and how it follows the log.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What is applied.
    pub cursor: Cursor,
    /// The digest of the applied state.
    pub digest: Digest,
    /// When it was applied.
    pub applied_at: Option<Time>,
    /// The version that is safe on this node's disk.
    pub durable: Version,
    /// The newest version the control plane has announced.
    pub head: Option<Version>,
    /// When it was announced, by the control plane's clock.
    pub head_at: Option<Time>,
    /// Since when it is known that there is something newer than what is applied, if there is.
    pub behind_since: Option<Time>,
    /// Whether the broker is reached.
    pub connected: bool,
    /// `starting`, `following`, `catching up`, `forked: ...`
    pub phase: String,
    /// Entities that cannot be used in their newest form.
    pub rejected: Vec<Rejected>,
    /// The last thing that went wrong with following.
    pub last_error: Option<String>,
    /// The serial of the keyring in force; 0 without one.
    pub keyring: u64,
    /// The node is shutting down.
    pub draining: bool,
}

/// The facts, shared between who follows the log and who reports.
#[derive(Debug)]
pub struct NodeState {
    node: Node,
    facts: Mutex<Facts>,
    metrics: Arc<Metrics>,
    state: Arc<plugin::State>,
    upstreams: Arc<Upstreams>,
    log_level: LogLevel,
    /// Where the local store is, to tell its size.
    store: Option<PathBuf>,
    /// What answers questions about requests.
    explainer: Option<Explainer>,
}

impl NodeState {
    /// A node that has not applied anything.
    pub fn new(
        node: Node,
        metrics: Arc<Metrics>,
        state: Arc<plugin::State>,
        upstreams: Arc<Upstreams>,
    ) -> Self {
        let facts = Facts {
            cursor: Cursor::default(),
            digest: Accumulator::default().digest(),
            applied_at: None,
            durable: Version::ZERO,
            head: None,
            head_at: None,
            behind_since: None,
            connected: false,
            phase: "starting".into(),
            rejected: Vec::new(),
            last_error: None,
            keyring: 0,
            draining: false,
        };
        Self {
            node,
            facts: Mutex::new(facts),
            metrics,
            state,
            upstreams,
            log_level: LogLevel::default(),
            store: None,
            explainer: None,
        }
    }

    /// The same, with the configuration that is served, to explain it.
    #[must_use]
    pub fn with_tables(self, tables: Arc<ArcSwap<Table>>) -> Self {
        let explainer = Some(Explainer::new(tables, Arc::clone(&self.upstreams)));
        Self { explainer, ..self }
    }

    /// The same, with the directory of its local store.
    #[must_use]
    pub fn with_store(self, directory: PathBuf) -> Self {
        let store = Some(directory);
        Self { store, ..self }
    }

    /// The same, with what changes the log level.
    #[must_use]
    pub fn with_log_level(self, log_level: LogLevel) -> Self {
        Self { log_level, ..self }
    }

    /// The targets that are not well, and the upstreams without enough that are; at most so many.
    pub fn ailing(&self, max: usize) -> Vec<Ailing> {
        health::ailing(&self.upstreams.unwell_views(), max)
    }

    /// Who the node is.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Changes some facts; readers see all of the change or nothing.
    pub fn update(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.facts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The facts now.
    pub fn facts(&self) -> Facts {
        self.facts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Facts {
    /// Why the node should not get traffic; `None` if it should.
    fn unready(&self) -> Option<&'static str> {
        if self.draining {
            Some("draining")
        } else if self.cursor.version == Version::ZERO {
            Some("no configuration available (configuration hash is not initialized)")
        } else if self.digest == Accumulator::default().digest() {
            Some("no configuration available (empty configuration present)")
        } else {
            None
        }
    }

    /// Notes whether there is something newer than what is applied.
    pub fn note_lag(&mut self, now: Time) {
        self.behind_since = match self.lag() {
            0 => None,
            _ => self.behind_since.or(Some(now)),
        };
    }

    fn lag_age(&self, now: Time) -> Duration {
        self.behind_since.map_or(Duration::ZERO, |since| {
            Duration::from_micros(now.0.saturating_sub(since.0))
        })
    }

    fn lag(&self) -> u64 {
        self.head
            .map_or(0, |head| head.0.saturating_sub(self.cursor.version.0))
    }

    fn head_age(&self, now: Time) -> Option<Duration> {
        self.head_at
            .map(|at| Duration::from_micros(now.0.saturating_sub(at.0)))
    }
}

/// Serves until `shutdown`.
pub async fn serve(listener: TcpListener, state: Arc<NodeState>, shutdown: CancellationToken) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) if connections.len() < CONNECTIONS_MAX => accepted,
            Ok(_) => continue,
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection to the status listener");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (state, shutdown) = (Arc::clone(&state), shutdown.clone());
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let state = Arc::clone(&state);
                let from_here = from.ip().to_canonical().is_loopback();
                async move {
                    Ok::<_, Infallible>(match &state.explainer {
                        Some(explainer) if is_question(&request) => {
                            explainer.answer(request, from_here).await
                        }
                        Some(_) | None => answer(&state, &request, from_here),
                    })
                }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_READ_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = shutdown.cancelled() => {}
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::trace!(%error, "status connection ended");
                    }
                }
            }
        });
    }
}

fn is_question(request: &Request<Incoming>) -> bool {
    request.uri().path().trim_end_matches('/') == explain::PATH
}

fn answer(
    state: &NodeState,
    request: &Request<Incoming>,
    from_here: bool,
) -> Response<Full<Bytes>> {
    let path = request.uri().path().trim_end_matches('/');
    let asked = (request.method(), path);
    if let Some(response) = health::answer(&state.upstreams, asked, from_here) {
        return response;
    }
    if let Some(answer) = state.state.answer(asked.0, path) {
        // They may show what clients were answered.
        return if from_here {
            shown(answer)
        } else {
            message(StatusCode::FORBIDDEN, "this is for this machine only")
        };
    }
    let asked = (request.method(), path, request.uri().query());
    if let Some(response) = debug::answer(&state.log_level, asked, from_here) {
        return response;
    }
    if *request.method() != Method::GET && *request.method() != Method::HEAD {
        return message(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed");
    }
    match path {
        "/status" => json_response(StatusCode::OK, &status(state)),
        "/status/ready" => match state.facts().unready() {
            None => message(StatusCode::OK, "ready"),
            Some(reason) => message(StatusCode::SERVICE_UNAVAILABLE, reason),
        },
        "/metrics" => {
            let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response(StatusCode::OK, text, metrics(state))
        }
        _ => message(StatusCode::NOT_FOUND, "Not found"),
    }
}

fn shown(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = match answer.content {
        Content::Message(text) => message(answer.status, &text),
        Content::Bytes(body) => Response::new(Full::new(body)),
    };
    *response.status_mut() = answer.status;
    response.headers_mut().extend(answer.headers);
    response
}

fn message(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    json_response(status, &json!({ "message": message }))
}

fn json_response(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    response(
        status,
        HeaderValue::from_static("application/json; charset=utf-8"),
        value.to_string(),
    )
}

fn response(status: StatusCode, content: HeaderValue, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content);
    response
}

fn status(state: &NodeState) -> Value {
    let facts = state.facts();
    let now = now();
    let connections = state.metrics.connections();
    let named = facts
        .rejected
        .iter()
        .take(REJECTED_NAMED_MAX)
        .map(|rejected| {
            json!({
                "entity": rejected.key.to_string(),
                "version": rejected.version.0,
                "reason": rejected.reason,
            })
        });
    let seconds = |time: Time| Duration::from_micros(time.0).as_secs_f64();
    json!({
        "node": {
            "id": state.node.id.as_str(),
            "hostname": state.node.hostname,
            "software": env!("CARGO_PKG_VERSION"),
        },
        "configuration_hash": facts.digest.to_string(),
        "log": {
            "epoch": facts.cursor.epoch,
            "version": facts.cursor.version.0,
            "chain": facts.cursor.chain.to_string(),
            "digest": facts.digest.to_string(),
            "durable_version": facts.durable.0,
            "applied_at": facts.applied_at.map(seconds),
            "head_version": facts.head.map(|head| head.0),
            "head_age_seconds": facts.head_age(now).map(|age| age.as_secs_f64()),
            "lag_versions": facts.lag(),
            "connected": facts.connected,
            "phase": facts.phase,
            "last_error": facts.last_error,
            "keyring": facts.keyring,
            "rejected_total": facts.rejected.len(),
            "rejected": named.collect::<Vec<_>>(),
        },
        "ready": facts.unready().is_none(),
        "memory": { "resident_bytes": resident_bytes() },
        "server": {
            "connections_accepted": connections.accepted,
            "connections_active": connections.active,
            "connections_handled": connections.accepted,
            "connections_reading": 0,
            "connections_waiting": 0,
            "connections_writing": 0,
            "total_requests": connections.requests,
        },
    })
}

fn metrics(state: &NodeState) -> String {
    let facts = state.facts();
    let mut writer = Writer::default();
    state.metrics.write(&mut writer);
    let mut gauge = |name: &str, help: &str, value: f64| writer.single(name, "gauge", help, value);
    let connected = f64::from(u8::from(facts.connected));
    for (name, help, value) in replica_gauges(&facts) {
        gauge(name, help, value);
    }
    let rejected = number(facts.rejected.len() as u64);
    gauge(
        "sluice_dp_rejected_entities",
        "Entities that cannot be used",
        rejected,
    );
    gauge(
        "sluice_dp_connected",
        "Whether the broker is reached",
        connected,
    );
    gauge(
        "kong_control_plane_connected",
        "The same, under Kong's name",
        connected,
    );
    let ready = f64::from(u8::from(facts.unready().is_none()));
    gauge(
        "sluice_dp_ready",
        "Whether the node should get traffic",
        ready,
    );
    gauge(
        "sluice_dp_resident_bytes",
        "Resident memory",
        number(resident_bytes()),
    );
    let store_bytes = state.store.as_deref().map(files::size);
    gauge(
        "sluice_dp_store_bytes",
        "Bytes of the local store on disk",
        number(store_bytes.unwrap_or(0)),
    );
    for kept in state.state.all() {
        kept.metrics(&mut writer);
    }
    health::metrics(&mut writer, &state.upstreams.views());
    writer.metric("kong_node_info", "gauge", "Who the node is");
    let id = state.node.id.to_string();
    let labels = [("node_id", &*id), ("version", env!("CARGO_PKG_VERSION"))];
    writer.value("kong_node_info", &labels, 1);
    writer.finish()
}

/// What is known of the log here, and of whom to believe.
fn replica_gauges(facts: &Facts) -> [(&'static str, &'static str, f64); 7] {
    let age = facts.head_age(now());
    let forked = f64::from(u8::from(facts.phase.starts_with("forked")));
    [
        (
            "sluice_dp_lag_seconds",
            "Seconds since something newer than what is applied was known; 0 if there is nothing",
            facts.lag_age(now()).as_secs_f64(),
        ),
        (
            "sluice_dp_forked",
            "Whether the node has stopped following the log",
            forked,
        ),
        (
            "sluice_dp_applied_version",
            "Version applied",
            number(facts.cursor.version.0),
        ),
        (
            "sluice_dp_durable_version",
            "Version safe on disk",
            number(facts.durable.0),
        ),
        (
            "sluice_dp_lag_versions",
            "Versions behind the head",
            number(facts.lag()),
        ),
        (
            "sluice_dp_head_age_seconds",
            "Age of the last head heard of",
            age.map_or(f64::NAN, |age| age.as_secs_f64()),
        ),
        (
            "sluice_dp_keyring_serial",
            "The serial of the keyring in force; 0 without one",
            number(facts.keyring),
        ),
    ]
}

/// Metrics are floating point; exact up to 2^53.
#[allow(
    clippy::cast_precision_loss,
    reason = "the format has no other numbers"
)]
fn number(value: u64) -> f64 {
    value as f64
}

fn now() -> Time {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Time(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// Zero where the system does not tell.
fn resident_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4096;
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or_default() * PAGE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_once_it_has_a_configuration_and_until_it_drains() {
        let node = Node {
            id: "dp-1".parse().unwrap(),
            hostname: "here".into(),
        };
        let state = NodeState::new(node, Arc::default(), Arc::default(), Arc::default());
        assert!(
            state
                .facts()
                .unready()
                .is_some_and(|reason| reason.contains("not initialized"))
        );
        state.update(|facts| facts.cursor.version = Version(7));
        assert!(
            state
                .facts()
                .unready()
                .is_some_and(|reason| reason.contains("empty"))
        );
        let mut accumulator = Accumulator::default();
        accumulator.add(
            &schema_key(),
            &sluice_schema::entity::Body::from_bytes(b"x"),
        );
        state.update(|facts| facts.digest = accumulator.digest());
        assert_eq!(state.facts().unready(), None);
        state.update(|facts| facts.draining = true);
        assert_eq!(state.facts().unready(), Some("draining"));
    }

    #[test]
    fn a_node_reports_its_lag() {
        let node = Node {
            id: "dp-1".parse().unwrap(),
            hostname: "here".into(),
        };
        let state = NodeState::new(node, Arc::default(), Arc::default(), Arc::default());
        state.update(|facts| {
            facts.cursor.version = Version(7);
            facts.head = Some(Version(10));
        });
        assert_eq!(status(&state)["log"]["lag_versions"], 3);
        assert!(metrics(&state).contains("sluice_dp_lag_versions 3\n"));
    }

    fn schema_key() -> sluice_schema::entity::Key {
        sluice_schema::entity::Key {
            kind: sluice_schema::entity::KindName::known("service"),
            workspace: sluice_schema::entity::Workspace::DEFAULT,
            id: sluice_schema::entity::Id(uuid::Uuid::nil()),
        }
    }
}
