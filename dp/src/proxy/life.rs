//! The life of one request: planned without a pause, sent upstream, finished.
//!
//! Only what must live while the upstream is waited for is in `serve`'s future: hyper moves it once per request.

use super::body::Body;
use super::buffer;
use super::errors::{self, Failure};
use super::forward;
use super::headers;
use super::logged::{Logged, Notes};
use super::peer::Peer;
use super::plan::{self, Plan};
use super::request;
use super::upgrade::{self, Upgrade};
use super::worker::Worker;
use crate::metrics::{Labels, Sample, Source};
use crate::table::{Route, Service, Table};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is learned of a request on its way and needed at its end, however it ends.
pub(super) struct Trail {
    pub(super) started: Instant,
    /// For the access log.
    pub(super) notes: Option<Box<Notes>>,
    pub(super) request_id: HeaderValue,
    /// The formats the client accepts, for errors.
    accept: Option<HeaderValue>,
    /// Whether the connection ends with this request.
    closes: bool,
    http2: bool,
    /// Whether the client speaks gRPC, and so wants to hear of failures.
    pub(super) grpc: bool,
    pub(super) route: Option<Arc<Route>>,
    /// Headers plugins want on the response.
    pub(super) response_headers: Vec<(HeaderName, HeaderValue)>,
    /// From where to where the upstream was waited for.
    upstream: Option<(Instant, Instant)>,
}

/// Answers one request.
#[allow(
    clippy::manual_async_fn,
    reason = "an async fn would keep its arguments twice"
)]
pub(super) fn serve(
    worker: Rc<Worker>,
    peer: Rc<Peer>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Body>, Infallible>> {
    async move {
        let table = worker.table();
        let mut trail = Trail::new(&worker, &peer, &request);
        let mut plan = plan::plan(&worker, &peer, &table, &mut trail, request);
        let reply = match &mut plan {
            Ok(plan) => {
                let read = if plan.buffered {
                    let limits = &worker.options.clients;
                    Box::pin(buffer::fill(&mut plan.request, limits)).await
                } else {
                    Ok(())
                };
                match read {
                    Ok(()) => {
                        let begun = Instant::now();
                        let reply = forward::forward(&worker, plan, begun.into()).await;
                        trail.upstream = Some((begun, Instant::now()));
                        Some(reply)
                    }
                    Err(failure) => Some(Err(failure)),
                }
            }
            Err(_) => None,
        };
        Ok(finish(&worker, &table, trail, plan, reply))
    }
}

/// The upstream's answer, made the client's.
fn relay(worker: &Rc<Worker>, reply: forward::Reply, plan: Plan<'_>) -> Response<Body> {
    if let Some(upgrade) = plan.upgrade
        && reply.response.status() == StatusCode::SWITCHING_PROTOCOLS
    {
        return switch(worker, reply, *upgrade, plan.service);
    }
    let (mut head, incoming) = reply.response.into_parts();
    headers::relay_response(&mut head.headers);
    head.version = Version::HTTP_11;
    Response::from_parts(
        head,
        Body::relay(incoming, reply.lease, plan.service.read_timeout),
    )
}

/// The upstream speaks another protocol from here on, and so does the client.
fn switch(
    worker: &Rc<Worker>,
    mut reply: forward::Reply,
    upgrade: Upgrade,
    service: &Service,
) -> Response<Body> {
    let protocol = upgrade.protocol();
    upgrade::connect(worker, upgrade, &mut reply.response, reply.lease, service);
    let (mut head, _) = reply.response.into_parts();
    headers::relay_response(&mut head.headers);
    head.version = Version::HTTP_11;
    head.extensions.clear();
    let mut response = Response::from_parts(head, Body::Empty);
    upgrade::agree(&mut response, protocol);
    response
}

/// Completes the response and counts it.
fn finish(
    worker: &Rc<Worker>,
    table: &Table,
    mut trail: Trail,
    plan: Result<Plan<'_>, Failure>,
    reply: Option<Result<forward::Reply, Failure>>,
) -> Response<Body> {
    let outcome = match (plan, reply) {
        (Ok(plan), Some(reply)) => reply.map(|reply| {
            if let Some(notes) = &mut trail.notes {
                notes.upstream = reply.lease.link.address();
                notes.upload = Some(plan.upload.clone());
            }
            relay(worker, reply, plan)
        }),
        (Err(failure), _) => Err(failure),
        (Ok(_), None) => Err(Failure::InvalidResponse),
    };
    let (upstream, total) = times(&trail);
    let (mut response, source) = match outcome {
        Ok(mut response) => {
            let ours = total.saturating_sub(upstream);
            let headers = response.headers_mut();
            headers.insert(
                headers::UPSTREAM_LATENCY,
                headers::millis(upstream.as_millis()),
            );
            headers.insert(headers::PROXY_LATENCY, headers::millis(ours.as_millis()));
            (response, Source::Service)
        }
        Err(failure) => {
            let mut response = errors::respond(
                failure,
                trail.accept.as_ref(),
                &trail.request_id,
                trail.grpc,
            );
            let headers = response.headers_mut();
            headers.insert(
                headers::RESPONSE_LATENCY,
                headers::millis(total.as_millis()),
            );
            (response, Source::Gateway)
        }
    };
    let sample = Sample {
        route: trail
            .route
            .as_ref()
            .map(|route| route.id)
            .unwrap_or_default(),
        status: response.status().as_u16(),
        source,
        request_ms: millis(total),
        upstream_ms: millis(upstream),
    };
    worker
        .metrics
        .record(sample, || labels(table, trail.route.as_deref()));
    let headers = response.headers_mut();
    if trail.closes {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    add_headers(headers, std::mem::take(&mut trail.response_headers));
    if trail.http2 {
        headers::strip_for_http2(headers);
    }
    headers.insert(headers::REQUEST_ID, trail.request_id.clone());
    if trail.notes.is_none() {
        return response;
    }
    let status = response.status().as_u16();
    response.map(|body| Logged::wrap(worker, table, &mut trail, status, body))
}

/// Adds what plugins and balancing want on the response.
fn add_headers(headers: &mut HeaderMap, added: Vec<(HeaderName, HeaderValue)>) {
    for (name, value) in added {
        if name == header::SET_COOKIE {
            // The upstream's own cookies stay.
            headers.append(name, value);
        } else {
            headers.insert(name, value);
        }
    }
}

/// How long the upstream was waited for, and how long it was up to the response's head.
pub(super) fn times(trail: &Trail) -> (Duration, Duration) {
    let upstream = trail.upstream.map(|(from, to)| to.duration_since(from));
    let ended = trail.upstream.map_or_else(Instant::now, |(_, to)| to);
    let total = ended.duration_since(trail.started);
    (upstream.unwrap_or_default(), total)
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn labels(table: &Table, route: Option<&Route>) -> Labels {
    let Some(route) = route else {
        return Labels::default();
    };
    let name =
        |name: Option<&str>, id: uuid::Uuid| name.map_or_else(|| id.to_string(), str::to_owned);
    let service = route.service.and_then(|id| table.service(id));
    Labels {
        route: name(route.name.as_deref(), route.id),
        service: service
            .map(|service| name(service.name.as_deref(), service.id))
            .unwrap_or_default(),
        workspace: route.workspace.to_string(),
    }
}

impl Trail {
    fn new(worker: &Worker, peer: &Peer, request: &Request<Incoming>) -> Self {
        // `*/*` says what no header says.
        let accept = request
            .headers()
            .get(header::ACCEPT)
            .filter(|accept| *accept != "*/*");
        let http2 = request.version() == Version::HTTP_2;
        let content_type = || request.headers().get(header::CONTENT_TYPE);
        Self {
            started: Instant::now(),
            notes: Notes::of(worker, peer.address(), request),
            request_id: worker.ids.next(),
            accept: accept.cloned(),
            closes: request::closes(request.headers()),
            http2,
            grpc: http2 && content_type().is_some_and(plan::is_grpc),
            route: None,
            response_headers: Vec::new(),
            upstream: None,
        }
    }
}
