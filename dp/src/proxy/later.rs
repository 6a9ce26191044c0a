//! The plugins of a request in the phases after the upstream was asked, or the gateway has answered by itself. Only made
//! for requests that have plugins with such phases.

use super::body::{Body, Upload};
use super::filtered::Filtered;
use super::worker::Worker;
use crate::access_log::Latencies;
use crate::plugin::{
    Context, CountConsumer, Instance, Origin, Phases, Protocols, Record, Reply, Seen, Try,
};
use crate::table::{Chain, Consumer, Route, Service, Table};
use http::{HeaderMap, Method, Response, StatusCode, Uri, header};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The protocols of requests: a plugin for any of them runs on all, as in Kong.
const PLUGIN_PROTOCOLS: Protocols = Protocols::REQUESTS;

/// Whether an instance has a part in these phases of a request.
pub(super) fn runs(instance: &Instance, phases: Phases) -> bool {
    instance.phases.overlap(phases) && takes_part(instance)
}

/// Whether a plugin is for requests of the protocols that are served here.
pub(crate) fn takes_part(instance: &Instance) -> bool {
    instance.protocols.overlap(PLUGIN_PROTOCOLS)
}

/// What is kept of a request for its plugins.
pub(super) struct Later {
    chain: Chain,
    context: Context,
    seen: Seen,
    /// The response as it was sent.
    status: StatusCode,
    headers: HeaderMap,
    origin: Origin,
    /// The upstream that answered.
    pub(super) upstream: Option<SocketAddr>,
    /// How much of the request's body has come.
    pub(super) upload: Option<Upload>,
    /// The target as it goes upstream.
    pub(super) upstream_uri: Option<Uri>,
    /// The tries to have it answered.
    pub(super) tries: Vec<Try>,
}

fn may_have_body(method: &Method, status: StatusCode) -> bool {
    let bodiless = status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    !bodiless && *method != Method::HEAD
}

/// What is known of a response at its end.
pub(super) struct End<'a> {
    pub(super) worker: &'a Worker,
    pub(super) route: Option<&'a Arc<Route>>,
    pub(super) service: Option<&'a Arc<Service>>,
    pub(super) version: u64,
    pub(super) sent: u64,
    pub(super) whole: bool,
    pub(super) latencies: Latencies,
}

impl Later {
    pub(super) fn new(chain: Chain, context: Context, seen: Seen) -> Box<Self> {
        Box::new(Self {
            chain,
            context,
            seen,
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            origin: Origin::Gateway,
            upstream: None,
            upload: None,
            upstream_uri: None,
            tries: Vec::new(),
        })
    }

    /// What the request's plugins know.
    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// The consumer, if requests are counted for each.
    pub(super) fn counted_consumer(&self) -> Option<&Consumer> {
        self.context.shared.get::<CountConsumer>()?;
        self.context.identity.consumer.as_deref()
    }

    /// The request's method.
    pub(super) fn method(&self) -> &Method {
        &self.seen.method
    }

    /// Whether any plugin wants to know of the end.
    pub(super) fn logs(&self) -> bool {
        self.chain.phases().overlap(Phases::LOG)
    }

    /// The response phase.
    pub(super) fn respond(
        &mut self,
        worker: &Worker,
        table: &Table,
        (route, upstream): (Option<&Arc<Route>>, Duration),
        (response, origin): (&mut Response<Body>, Origin),
    ) {
        self.origin = origin;
        if !self.chain.phases().overlap(Phases::RESPONSE) {
            return;
        }
        let mut filters = Vec::new();
        let mut status = response.status();
        let mut headers = std::mem::take(response.headers_mut());
        let mut reply = Reply {
            table,
            request: &self.seen,
            context: &mut self.context,
            route,
            service: route.and_then(|route| table.service(route.service?)),
            status: &mut status,
            headers: &mut headers,
            origin,
            upstream_time: upstream,
            now: (worker.options.clock)(),
            filters: &mut filters,
            state: &worker.shared.state,
        };
        for instance in self.chain.iter() {
            if runs(instance, Phases::RESPONSE) {
                instance.run.response(&mut reply);
            }
        }
        if !may_have_body(&self.seen.method, status) {
            // `Content-Length` is of the body that there would be.
            filters.clear();
        }
        if !filters.iter().all(|filter| filter.keeps_length()) {
            headers.remove(header::CONTENT_LENGTH);
        }
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        if !filters.is_empty() {
            let body = std::mem::replace(response.body_mut(), Body::Empty);
            *response.body_mut() = Filtered::wrap(body, filters);
        }
    }

    /// Notes the head that goes to the client.
    pub(super) fn sent(&mut self, response: &Response<Body>) {
        self.status = response.status();
        self.headers = response.headers().clone();
    }

    /// The log phase.
    pub(super) fn log(&self, end: &End<'_>) {
        let record = Record {
            request: &self.seen,
            context: &self.context,
            route: end.route,
            service: end.service,
            status: self.status,
            headers: &self.headers,
            origin: self.origin,
            upstream: self.upstream,
            upstream_uri: self.upstream_uri.as_ref(),
            tries: &self.tries,
            received: self.upload.as_ref().map_or(0, Upload::bytes),
            sent: end.sent,
            whole: end.whole,
            latencies: end.latencies,
            version: end.version,
            state: &end.worker.shared.state,
        };
        for instance in self.chain.iter() {
            if runs(instance, Phases::LOG) {
                instance.run.log(&record);
            }
        }
    }
}
