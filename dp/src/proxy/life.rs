//! The life of one request: planned without a pause, sent upstream, finished.
//!
//! Only what must live while the upstream is waited for is in `serve`'s future: hyper moves it once per request.

use super::body::Body;
use super::buffer;
use super::draft::Around;
use super::errors::{self, Failure};
use super::forward;
use super::fresh;
use super::headers;
use super::later::Later;
use super::logged::{Logged, Notes};
use super::peer::Peer;
use super::plan::{self, Halt, Plan};
use super::request;
use super::upgrade::{self, Upgrade};
use super::worker::Worker;
use crate::metrics::{Labels, Sample, Source};
use crate::plugin::Origin;
use crate::table::{Consumer, Route, Service, Table};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Version, header};
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
    /// For plugins with a part in what comes after the upstream.
    pub(super) later: Option<Box<Later>>,
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
        let mut table = worker.table();
        let mut trail = Trail::new(&worker, &peer, &request);
        let reached = match fresh::missing(&worker, &request, table.version()) {
            None => Ok(()),
            Some(asked) => {
                let reached = Box::pin(fresh::reach(&worker, asked)).await;
                table = worker.table();
                reached
            }
        };
        worker.note_served(&table);
        let around = Around {
            worker: &worker,
            peer: &peer,
            table: &table,
        };
        let mut plan = match reached {
            Ok(()) => plan::plan(around, &mut trail, request),
            Err(failure) => Err(failure.into()),
        };
        if let Err(Halt::Waits(draft)) = plan {
            plan = Box::pin(plan::resume(draft, &mut trail)).await;
        }
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
                        if let (Some(later), Some(tries)) = (&mut trail.later, plan.tries.take()) {
                            later.tries = tries.all;
                        }
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
    plan: Result<Plan<'_>, Halt<'_>>,
    reply: Option<Result<forward::Reply, Failure>>,
) -> Response<Body> {
    let outcome = match (plan, reply) {
        (Ok(plan), Some(reply)) => reply.map(|reply| {
            trail.note_upstream(&plan, &reply);
            relay(worker, reply, plan)
        }),
        (Err(Halt::Failed(failure)), _) => Err(failure),
        (Ok(_), None) | (Err(Halt::Waits(_)), _) => Err(Failure::InvalidResponse),
    };
    let (upstream, total) = times(&trail);
    let (mut response, origin) = match outcome {
        Ok(response) => (response, Origin::Upstream),
        Err(failure) => {
            let origin = failure.origin();
            let (accept, id) = (trail.accept.as_ref(), &trail.request_id);
            (errors::respond(failure, accept, id, trail.grpc), origin)
        }
    };
    let added = std::mem::take(&mut trail.response_headers);
    errors::add_headers(response.headers_mut(), added);
    if let Some(later) = &mut trail.later {
        let route = (trail.route.as_ref(), upstream);
        later.respond(worker, table, route, (&mut response, origin));
    }
    let headers = response.headers_mut();
    let source = if origin == Origin::Upstream {
        let ours = total.saturating_sub(upstream);
        headers.insert(
            headers::UPSTREAM_LATENCY,
            headers::millis(upstream.as_millis()),
        );
        headers.insert(headers::PROXY_LATENCY, headers::millis(ours.as_millis()));
        Source::Service
    } else {
        headers.insert(
            headers::RESPONSE_LATENCY,
            headers::millis(total.as_millis()),
        );
        Source::Gateway
    };
    if worker.options.freshness.tell {
        headers.insert(fresh::VERSION, HeaderValue::from(table.version().0));
    }
    if trail.closes {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if trail.http2 {
        headers::strip_for_http2(headers);
    }
    headers.insert(headers::REQUEST_ID, trail.request_id.clone());
    let consumer = trail.later.as_deref().and_then(Later::counted_consumer);
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
        consumer: consumer.map(|consumer| consumer.id),
    };
    worker
        .metrics
        .record(sample, || labels(table, trail.route.as_deref(), consumer));
    if trail.notes.is_none() && trail.later.is_none() {
        return response;
    }
    Logged::wrap(worker, table, trail, response)
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

fn labels(table: &Table, route: Option<&Route>, consumer: Option<&Consumer>) -> Labels {
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
        consumer: consumer
            .map(|consumer| name(consumer.username.as_deref(), consumer.id))
            .unwrap_or_default(),
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
            later: None,
        }
    }

    /// Notes who answered, and how much of the request has gone there.
    fn note_upstream(&mut self, plan: &Plan<'_>, reply: &forward::Reply) {
        let upstream = || reply.lease.link.address();
        if let Some(notes) = &mut self.notes {
            (notes.upstream, notes.upload) = (upstream(), Some(plan.upload.clone()));
        }
        if let Some(later) = &mut self.later {
            (later.upstream, later.upload) = (upstream(), Some(plan.upload.clone()));
        }
    }
}
