//! The life of one request, in the order it happens.

use super::body::{Body, Outgoing};
use super::errors::{self, Failure};
use super::forward::{self, Call};
use super::headers::{self, Forwarded};
use super::peer::Peer;
use super::request::{self, Authority};
use super::worker::Worker;
use crate::balance;
use crate::metrics::{Labels, Sample};
use crate::plugin::{Access, Flow, Identity, Protocols};
use crate::table::{
    Match, Protocol, RequestHead, Route, Service, Table, canonical_path, upstream_path,
};
use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is learned of a request on its way and needed at its end, however it ends.
#[derive(Default)]
struct Trail {
    route: Option<Arc<Route>>,
    /// Headers plugins want on the response.
    response_headers: Vec<(HeaderName, HeaderValue)>,
    /// From where to where the upstream was waited for.
    upstream: Option<(Instant, Instant)>,
}

/// Answers one request.
pub(super) async fn serve(
    worker: Rc<Worker>,
    peer: Rc<Peer>,
    request: Request<Incoming>,
) -> Response<Body> {
    let started = Instant::now();
    let request_id = worker.ids.next();
    let table = worker.table();
    let mut trail = Trail::default();
    let (parts, body) = request.into_parts();
    let accept = parts.headers.get(header::ACCEPT);
    // `*/*` says what no header says.
    let accept = accept.filter(|accept| *accept != "*/*").cloned();
    let closes = request::closes(&parts.headers);
    let context = Context {
        worker: &worker,
        peer: &peer,
        table: &table,
        request_id: &request_id,
    };
    let (mut response, source) = match context.answer(parts, body, &mut trail).await {
        Ok(response) => (response, crate::metrics::Source::Service),
        Err(failure) => {
            let response = errors::respond(failure, accept.as_ref(), &request_id);
            (response, crate::metrics::Source::Gateway)
        }
    };
    if closes {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let upstream = trail.upstream.map(|(from, to)| to.duration_since(from));
    let total = trail
        .upstream
        .map_or_else(Instant::now, |(_, to)| to)
        .duration_since(started);
    let ours = total.saturating_sub(upstream.unwrap_or_default());
    let response_headers = response.headers_mut();
    match source {
        crate::metrics::Source::Service => {
            let upstream = upstream.unwrap_or_default().as_millis();
            response_headers.insert(headers::UPSTREAM_LATENCY, headers::millis(upstream));
            response_headers.insert(headers::PROXY_LATENCY, headers::millis(ours.as_millis()));
        }
        crate::metrics::Source::Gateway => {
            response_headers.insert(
                headers::RESPONSE_LATENCY,
                headers::millis(total.as_millis()),
            );
        }
    }
    response_headers.extend(
        trail
            .response_headers
            .drain(..)
            .map(|(name, value)| (Some(name), value)),
    );
    response_headers.insert(headers::REQUEST_ID, request_id);
    let sample = Sample {
        route: trail
            .route
            .as_ref()
            .map(|route| route.id)
            .unwrap_or_default(),
        status: response.status().as_u16(),
        source,
        request_ms: millis(total),
        upstream_ms: millis(upstream.unwrap_or_default()),
    };
    worker
        .metrics
        .record(sample, || labels(&table, trail.route.as_deref()));
    response
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

/// What a request looks at and does not change.
struct Context<'a> {
    worker: &'a Rc<Worker>,
    peer: &'a Peer,
    table: &'a Table,
    request_id: &'a HeaderValue,
}

impl Context<'_> {
    async fn answer(
        &self,
        mut parts: Parts,
        body: Incoming,
        trail: &mut Trail,
    ) -> Result<Response<Body>, Failure> {
        let authority = request::check(&mut parts)?;
        let uri = std::mem::take(&mut parts.uri);
        let path = canonical_path(uri.path()).map_err(|_| Failure::BadRequest)?;
        let found = self
            .find(&parts, &authority, &path)
            .ok_or(Failure::NoRoute)?;
        let matched = found.matched(&path);
        let route = &*trail.route.insert(found.route.clone());
        check_protocol(route, &parts, &authority, &uri)?;
        headers::strip_request(&mut parts.headers);
        let service = route.service.and_then(|id| self.table.service(id));
        if service.is_some_and(|service| !service.enabled) {
            return Err(Failure::NoRoute);
        }
        let query = self.run_plugins(
            &mut parts,
            route,
            service,
            (&path, uri.query()),
            &mut trail.response_headers,
        )?;
        let service = service.ok_or(Failure::NoService)?;
        if service.protocol != Protocol::Http {
            tracing::debug!(service = %service.id, protocol = ?service.protocol, "protocol not supported");
            return Err(Failure::UnsupportedProtocol);
        }
        let prefix = Some(matched).filter(|matched| route.strip_path && matched.len() > 1);
        let forwarded = Forwarded {
            peer: self.peer,
            authority: &authority,
            path: HeaderValue::from_str(uri.path()).map_err(|_| Failure::BadRequest)?,
            prefix: prefix.and_then(|prefix| HeaderValue::from_str(prefix).ok()),
            request_id: self.request_id,
        };
        headers::add_to_request(&mut parts.headers, forwarded);
        let target = Target {
            service_path: service.path.as_deref(),
            matched,
            strip: route.strip_path,
        };
        parts.uri = target
            .uri(&uri, &path, query.as_deref())
            .ok_or(Failure::BadRequest)?;
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        let begun = Instant::now();
        let call = Call {
            begun: begun.into(),
            service,
            source: match self.table.upstream(&service.workspace, &service.host) {
                Some(upstream) => balance::Source::Upstream(upstream),
                None => balance::Source::Service(service),
            },
            host: route.preserve_host.then(|| authority.value()),
        };
        let (outgoing, upload) = Outgoing::new(body);
        let request = Request::from_parts(parts, outgoing);
        let reply = forward::forward(self.worker, call, request, upload).await;
        trail.upstream = Some((begun, Instant::now()));
        let reply = reply?;
        let (mut head, incoming) = reply.response.into_parts();
        headers::relay_response(&mut head.headers);
        head.version = Version::HTTP_11;
        Ok(Response::from_parts(
            head,
            Body::relay(incoming, reply.lease, service.read_timeout),
        ))
    }

    fn find(&self, parts: &Parts, authority: &Authority, path: &str) -> Option<Match> {
        self.table.find(&RequestHead {
            method: parts.method.as_str(),
            host: authority.host(),
            port: authority.port.unwrap_or(self.peer.local.port()),
            path,
            headers: &parts.headers,
            sni: None,
            tls: false,
            source: self.peer.remote,
            destination: self.peer.local,
        })
    }

    /// Runs the access phase of the request's plugins. Gives the query to send.
    fn run_plugins<'q>(
        &self,
        parts: &mut Parts,
        route: &Route,
        service: Option<&Arc<Service>>,
        (path, query): (&'q str, Option<&'q str>),
        response_headers: &mut Vec<(HeaderName, HeaderValue)>,
    ) -> Result<Option<Cow<'q, str>>, Failure> {
        let query = query.map(Cow::Borrowed);
        let service = service.map(|service| service.id);
        let mut chain = self.table.chain(route, None);
        if chain.is_empty() {
            return Ok(query);
        }
        let mut access = Access {
            table: self.table,
            workspace: &route.workspace,
            method: &parts.method,
            path,
            query,
            headers: &mut parts.headers,
            service,
            client: self.peer.address(),
            now: (self.worker.limits.clock)(),
            state: &self.worker.shared.state,
            identity: Identity::default(),
            response_headers: Vec::new(),
        };
        let mut next = 0;
        let mut outcome = Ok(());
        while let Some(instance) = chain.get(next) {
            next += 1;
            if !instance.protocols.contains(Protocols::HTTP) {
                continue;
            }
            let known = access
                .identity
                .consumer
                .as_ref()
                .map(|consumer| consumer.id);
            if let Flow::Answer(answer) = instance.access(&mut access) {
                outcome = Err(Failure::Plugin(answer));
                break;
            }
            let consumer = access
                .identity
                .consumer
                .as_ref()
                .map(|consumer| consumer.id);
            if consumer != known {
                // The rest of the chain may be more specific for this consumer.
                let order = (instance.priority, instance.name);
                chain = self.table.chain(route, consumer);
                let later = chain
                    .iter()
                    .position(|later| (later.priority, later.name) < order);
                next = later.unwrap_or(chain.len());
            }
        }
        *response_headers = access.response_headers;
        outcome.map(|()| access.query)
    }
}

/// Whether the route accepts this connection's protocol; all connections are HTTP/1.1 in clear so far.
fn check_protocol(
    route: &Route,
    parts: &Parts,
    authority: &Authority,
    uri: &Uri,
) -> Result<(), Failure> {
    let protocols = route.protocols;
    if protocols.contains(Protocols::HTTP) {
        return Ok(());
    }
    if protocols.contains(Protocols::HTTPS) {
        let status = StatusCode::from_u16(route.https_redirect_status_code);
        let status = status.unwrap_or(StatusCode::UPGRADE_REQUIRED);
        let location = status.is_redirection().then(|| {
            let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
            HeaderValue::try_from(format!("https://{}{target}", authority.host()))
        });
        let location = location.transpose().map_err(|_| Failure::BadRequest)?;
        return Err(Failure::HttpsRequired { status, location });
    }
    if protocols.contains(Protocols::GRPC) || protocols.contains(Protocols::GRPCS) {
        let content = parts.headers.get(header::CONTENT_TYPE);
        let grpc = content.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        return Err(if grpc {
            Failure::Http2Required
        } else {
            Failure::NotGrpc
        });
    }
    Err(Failure::NoRoute)
}

/// How the upstream's request-target is made.
struct Target<'a> {
    service_path: Option<&'a str>,
    matched: &'a str,
    strip: bool,
}

impl Target<'_> {
    /// The target to send; the client's own where it would be the same.
    fn uri(&self, original: &Uri, path: &str, query: Option<&str>) -> Option<Uri> {
        let joined = self.join(path);
        let unchanged = original.path() == joined && original.query() == query;
        if unchanged && original.authority().is_none() {
            return Some(original.clone());
        }
        let mut target = String::with_capacity(joined.len() + 1 + query.map_or(0, str::len));
        target.push_str(&joined);
        if let Some(query) = query {
            target.push('?');
            target.push_str(query);
        }
        PathAndQuery::from_maybe_shared(Bytes::from(target))
            .ok()
            .map(Uri::from)
    }

    /// [`upstream_path`], with a shorter way for the common case of a service without a path.
    fn join<'p>(&self, path: &'p str) -> Cow<'p, str> {
        if self
            .service_path
            .is_none_or(|path| path.is_empty() || path == "/")
        {
            let stripped = if self.strip {
                path.strip_prefix(self.matched)
            } else {
                Some(path)
            };
            if let Some(rest) = stripped.filter(|rest| rest.starts_with('/')) {
                return Cow::Borrowed(rest);
            }
        }
        Cow::Owned(upstream_path(
            self.service_path,
            path,
            self.matched,
            self.strip,
        ))
    }
}
