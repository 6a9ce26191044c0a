//! The Admin API: Kong's, and what an event log adds to it.
//!
//! A request goes one way: `guard` (may it come from there), `endpoint` (what its path names), the method, the one
//! function of that endpoint, and the headers that every answer has.
//!
//! Invariants: a read is answered from this control plane's own state and never waits for the log, except below
//! `/log`; nothing is appended but through the writer; what a client reads as an error is written in `error`.

mod answer;
mod apply;
mod config;
mod debug;
mod diff;
mod endpoint;
mod entities;
mod error;
mod event_view;
mod events;
mod guard;
mod health;
mod history;
mod info;
mod inside;
mod keyring;
mod list;
mod log;
mod members;
mod metrics;
mod moment;
mod nodes;
mod openapi;
mod plan;
mod request;
mod restore;
mod schemas;
mod secrets;
mod service;
mod snapshots;
mod tags;
pub(crate) mod tls;
mod wait;
mod warnings;
mod workspaces;

pub(crate) use plan::name as name_of;

use crate::ControlPlane;
use crate::access::{Act, Reach};
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, State as Shared};
use axum::response::Response;
use endpoint::{Endpoint, Fixed, Location, Need, Place, Verb};
use error::Problem;
use guard::Guard;
use http::{HeaderMap, Method, Request};
use metrics::Metrics;
use request::Call;
use rustls::ServerConfig;
use sluice_replica::environment::Environment;
use sluice_replica::log::jetstream::Requests;
use sluice_schema::kind::{Kind, WASM_DISABLED};
use std::sync::Arc;
use std::time::Instant;
use tls::{Peer, Socket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// What every request is answered with.
#[derive(Debug)]
struct Admin {
    control_plane: ControlPlane,
    guard: Guard,
    metrics: Metrics,
    /// Places for callers that wait for data planes.
    waiters: Semaphore,
    /// Ends answers that go on for ever.
    shutdown: CancellationToken,
}

/// The Admin API as a service, for tests and for other listeners.
pub fn router(control_plane: ControlPlane) -> Router {
    let listen = &control_plane.info.listen;
    let loopback = !listen.is_empty() && listen.iter().all(|address| address.ip().is_loopback());
    routed(build(control_plane, loopback, CancellationToken::new()))
}

/// Serves the Admin API until `shutdown`, then finishes what is under way. With `requests` also to those who ask over the
/// broker.
///
/// # Errors
/// If the listener has no address.
pub async fn serve(
    listener: tokio::net::TcpListener,
    tls: Option<Arc<ServerConfig>>,
    requests: Option<Requests>,
    control_plane: ControlPlane,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let loopback = listener.local_addr()?.ip().is_loopback();
    let admin = build(control_plane, loopback, shutdown.clone());
    if let Some(requests) = requests {
        tokio::spawn(service::run(admin.clone(), requests, shutdown.clone()));
    }
    let service = routed(admin).into_make_service_with_connect_info::<Peer>();
    axum::serve(Socket::new(listener, tls), service)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
}

fn build(control_plane: ControlPlane, loopback: bool, shutdown: CancellationToken) -> Arc<Admin> {
    let guard = Guard::new(
        loopback,
        &control_plane.info.allowed_hosts,
        &control_plane.info.allowed_origins,
    );
    Arc::new(Admin {
        control_plane,
        guard,
        metrics: Metrics::default(),
        waiters: Semaphore::new(wait::WAITERS_MAX),
        shutdown,
    })
}

fn routed(admin: Arc<Admin>) -> Router {
    Router::new().fallback(answer_request).with_state(admin)
}

async fn answer_request(Shared(admin): Shared<Arc<Admin>>, request: Request<Body>) -> Response {
    let started = Instant::now();
    let (head, body) = request.into_parts();
    let mut call = Call::new(&admin, head);
    // What is logged on the way says which trace it belongs to.
    let line = call.trace.id().map_or_else(
        tracing::Span::none,
        |trace| tracing::error_span!("write", trace_id = %trace),
    );
    let mut response = match respond(&mut call, body).instrument(line.clone()).await {
        Ok(response) => response,
        Err(problem) => {
            line.in_scope(|| problem.log(&call));
            problem.response()
        }
    };
    let status = response.status();
    finish(response.headers_mut(), &call, started);
    admin.metrics.count(&call.head.method, status);
    let trace_id = call.trace.id().map(tracing::field::display);
    tracing::debug!(
        method = %call.head.method, path = call.template(), %status,
        request_id = call.request_id, trace_id, "answered"
    );
    record(&call, &response);
    response
}

/// Makes the request's span; none for strangers. Its name and attributes hold nothing of what the path and the body say: keys are found by
/// paths, too.
fn record(call: &Call<'_>, response: &Response) {
    if !call.trace.is_recorded() || !call.admitted {
        return;
    }
    let (method, status) = (&call.head.method, response.status());
    let route = Location::template(call.head.uri.path());
    let name = format!(
        "{method} {}",
        route.as_deref().unwrap_or(request::NO_SUCH_PATH)
    );
    let mut attributes = vec![
        ("http.request.method", method.as_str().into()),
        (
            "http.response.status_code",
            u64::from(status.as_u16()).into(),
        ),
        ("sluice.request_id", call.request_id.as_str().into()),
        ("sluice.via", call.via().into()),
        ("sluice.workspace", call.inside.workspace.as_str().into()),
    ];
    attributes.extend(route.map(|route| ("http.route", route.into())));
    let failure = status
        .is_server_error()
        .then(|| status.as_str().to_owned().into());
    call.trace.answered(name, attributes, failure);
}

async fn respond(call: &mut Call<'_>, body: Body) -> Result<Response, Problem> {
    call.admin.guard.check(&call.head)?;
    let location = Location::find(call.head.uri.path()).ok_or(Problem::NotFound)?;
    let Location {
        workspace,
        endpoint,
    } = location;
    if let Some(verb) = Verb::parse(&call.head.method) {
        moment::enter(call, &endpoint, verb).await?;
    }
    workspaces::enter(call, workspace.as_deref(), &endpoint)?;
    let verbs = endpoint.verbs();
    if call.head.method == Method::OPTIONS {
        return Ok(answer::options(&verbs, &call.head.headers));
    }
    let verb = Verb::parse(&call.head.method).filter(|verb| verbs.contains(verb));
    let verb = verb.ok_or(Problem::MethodNotAllowed(verbs))?;
    authorize(call, endpoint.need(verb))?;
    if endpoint.is_about(Kind::FilterChain) {
        return Err(Problem::Bad(WASM_DISABLED.to_owned()));
    }
    let (wait, epoch) = (wait::asked(call, verb)?, call.inside.state.epoch());
    let _place = wait.as_ref().map(|_| wait::place(call)).transpose()?;
    let response = carry_out(call, endpoint, verb, body).await?;
    match wait {
        Some(patience) => wait::hold(call, patience, epoch, response).await,
        None => Ok(response),
    }
}

async fn carry_out(
    call: &Call<'_>,
    endpoint: Endpoint,
    verb: Verb,
    body: Body,
) -> Result<Response, Problem> {
    match endpoint {
        Endpoint::Fixed(fixed, variable) => {
            let variable: Vec<&str> = variable.iter().map(String::as_str).collect();
            respond_fixed(call, fixed, &variable, verb, body).await
        }
        Endpoint::Collection(place) => entities::collection(call, place, verb, body).await,
        Endpoint::Item(place, selector) => entities::item(call, place, selector, verb, body).await,
        Endpoint::Members(side, own) => members::collection(call, side, &own, verb, body).await,
        Endpoint::Member(side, own, other) => members::item(call, side, &own, &other, verb).await,
        Endpoint::Parent {
            kind,
            selector,
            field,
            parent,
        } => {
            let id = entities::parent(call, kind, &selector, field)?;
            let place = Place {
                kind: parent,
                scope: None,
            };
            entities::item(call, place, id, verb, body).await
        }
    }
}

/// Finds out who asks, and whether that one may.
fn authorize(call: &mut Call<'_>, need: Need) -> Result<(), Problem> {
    let control_plane = &call.admin.control_plane;
    let peer = call.head.extensions.get::<ConnectInfo<Peer>>();
    let names = peer.map_or(&[][..], |ConnectInfo(peer)| &peer.names);
    let caller =
        control_plane
            .access
            .identify(&call.head.headers, names, Environment::system().now());
    call.caller = caller.map_err(Problem::Stranger)?;
    let own = Reach::Workspace(call.inside.workspace.clone());
    call.inside.masked = !call.caller.grants.allow(Act::Change, &own);
    match need {
        Need::Nothing => {}
        Need::Anywhere(act) => call.permit(act, Reach::Anywhere)?,
        Need::Inside(act) => call.permit(act, own)?,
        Need::Above(act) => call.permit(act, Reach::Whole)?,
    }
    call.admitted = true;
    Ok(())
}

async fn respond_fixed(
    call: &Call<'_>,
    fixed: Fixed,
    variable: &[&str],
    verb: Verb,
    body: Body,
) -> Result<Response, Problem> {
    let first = variable.first().copied().unwrap_or_default();
    let second = variable.get(1).copied().unwrap_or_default();
    match fixed {
        Fixed::Root => Ok(info::root(call)),
        Fixed::Status => Ok(info::status(call)),
        Fixed::StatusReady => info::ready(call),
        Fixed::StatusDns => Ok(info::status_dns()),
        Fixed::Endpoints => Ok(info::endpoints()),
        Fixed::OpenApi => openapi::show(call).await,
        Fixed::PluginsEnabled => Ok(info::plugins_enabled()),
        Fixed::Timers => Ok(info::timers()),
        Fixed::CacheEntry if verb == Verb::Get => Err(Problem::NotFound),
        Fixed::Cache | Fixed::CacheEntry => Ok(answer::no_content()),
        Fixed::Metrics => metrics::show(call).await,
        Fixed::Tags => tags::list(call, None).await,
        Fixed::Tagged => tags::list(call, Some(first.to_owned())).await,
        Fixed::Schema => schemas::entity(call, first),
        Fixed::VaultSchema => schemas::vault(first),
        Fixed::PluginSchema => schemas::plugin(first),
        Fixed::Validate => schemas::validate(call, first, body).await,
        Fixed::ValidatePlugin => schemas::validate(call, "plugins", body).await,
        Fixed::ValidateVault => schemas::validate(call, "vaults", body).await,
        Fixed::Nodes => Ok(nodes::list(call)),
        Fixed::NodesWait => wait::show(call).await,
        Fixed::DataPlanes => nodes::data_planes(call),
        Fixed::DataPlane => nodes::data_plane(call, first),
        Fixed::ClusteringStatus => Ok(nodes::status(call)),
        Fixed::Config if verb == Verb::Get => config::show(call).await,
        Fixed::Config => config::replace(call, body).await,
        Fixed::Apply => apply::apply(call, body).await,
        Fixed::Dump => apply::dump(call).await,
        Fixed::UpstreamHealth => health::show(call, first).await,
        Fixed::TargetsAll => health::all(call, first).await,
        Fixed::TargetHealth => health::set(call, first, second),
        Fixed::WorkspaceMeta => workspaces::meta(call, first).await,
        Fixed::LogLevel => Ok(debug::log_level(call)),
        Fixed::LogLevelChange => debug::set_log_level(call, first),
        Fixed::ClusterLogLevel => Err(debug::set_cluster_log_level()),
        Fixed::LogHead => Ok(log::head(call).await),
        Fixed::LogKeyring if verb == Verb::Get => Ok(keyring::show(call)),
        Fixed::LogKeyring => keyring::take_up(call, body).await,
        Fixed::LogWatch => events::watch(call).await,
        Fixed::LogEvents => events::list(call).await,
        Fixed::LogEvent => events::one(call, first).await,
        Fixed::History => history::show(call, first, second).await,
        Fixed::Blame => history::blame(call, first, second).await,
        Fixed::LogDiff => diff::show(call).await,
        Fixed::LogState => Ok(diff::state(call)),
        Fixed::Rollback => restore::rollback(call, body).await,
        Fixed::Undo => restore::undo(call, body).await,
        Fixed::Secrets => Ok(secrets::show(call)),
        Fixed::Reseal => secrets::reseal(call).await,
        Fixed::Snapshots if verb == Verb::Get => snapshots::list(call).await,
        Fixed::Snapshots => snapshots::cut(call).await,
        Fixed::Trim => snapshots::trim(call, body).await,
    }
}

/// The headers that every answer has.
fn finish(headers: &mut HeaderMap, call: &Call<'_>, started: Instant) {
    let admin = call.admin;
    answer::set(
        headers,
        "server",
        &format!("sluice/{}", admin.control_plane.info.version),
    );
    answer::set(
        headers,
        "x-kong-admin-latency",
        &started.elapsed().as_millis().to_string(),
    );
    answer::set(headers, "x-request-id", &call.request_id);
    if !headers.contains_key(answer::SLUICE_VERSION) {
        answer::set(
            headers,
            answer::SLUICE_VERSION,
            &call.inside.state.version().to_string(),
        );
    }
    answer::allow_origin(headers, admin.guard.origin(&call.head));
}
