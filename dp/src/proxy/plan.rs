//! What is decided about a request before it goes upstream: all of it from the request, the table and the plugins'
//! state, without waiting for anything.

use super::body::{Outgoing, Upload};
use super::errors::Failure;
use super::forwarded::Client as Sender;
use super::hashed::Hashed;
use super::headers::{self, Forwarded};
use super::life::Trail;
use super::peer::Peer;
use super::pool::Way;
use super::request::{self, Authority};
use super::tls::client::{Client, server_name};
use super::upgrade::Upgrade;
use super::worker::Worker;
use crate::balance::Source;
use crate::plugin::{Access, Flow, Identity, Protocols};
use crate::table::{
    Match, Protocol, RequestHead, Route, Service, Table, Upstream, canonical_path, upstream_path,
};
use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use rustls::pki_types::ServerName;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// The protocols of requests: a plugin for any of them runs on all, as in Kong.
const PLUGIN_PROTOCOLS: Protocols = Protocols::REQUESTS;

/// A request ready to go.
pub(super) struct Plan<'a> {
    pub(super) service: &'a Service,
    pub(super) source: Source<'a>,
    /// Of what the upstream hashes.
    pub(super) hash: u64,
    /// Sent as `Host` in place of the endpoint's.
    pub(super) host: Option<HeaderValue>,
    /// Taken while it is with an upstream.
    pub(super) request: Option<Request<Outgoing>>,
    pub(super) upload: Upload,
    /// Whether the body is read before the upstream is asked.
    pub(super) buffered: bool,
    /// How the upstream is spoken to.
    pub(super) speech: Speech,
    /// The client wants another protocol on its connection.
    pub(super) upgrade: Option<Box<Upgrade>>,
}

/// What of a [`Way`] does not depend on the endpoint.
#[derive(Clone)]
pub(super) enum Speech {
    /// HTTP/1.1 in clear.
    Plain,
    Other {
        tls: Option<Rc<Client>>,
        http2: bool,
    },
}

impl Speech {
    pub(super) fn is_tls(&self) -> bool {
        matches!(self, Self::Other { tls: Some(_), .. })
    }

    pub(super) fn is_http2(&self) -> bool {
        matches!(self, Self::Other { http2: true, .. })
    }

    /// The way to an endpoint that is addressed as `host`. `None` for the plain one.
    pub(super) fn way(&self, host: &HeaderValue, address: SocketAddr) -> Option<Way> {
        let Self::Other { tls, http2 } = self else {
            return None;
        };
        let tls = tls.as_ref().map(|client| {
            let name = server_name(host);
            let name = name.unwrap_or_else(|| ServerName::from(address.ip()));
            (Rc::clone(client), name)
        });
        Some(Way { tls, http2: *http2 })
    }
}

/// Routes the request, runs its plugins and makes it the upstream's.
pub(super) fn plan<'a>(
    worker: &Worker,
    peer: &Peer,
    table: &'a Table,
    trail: &mut Trail,
    request: Request<Incoming>,
) -> Result<Plan<'a>, Failure> {
    let (mut parts, body) = request.into_parts();
    let authority = request::check(&parts, worker.options.clients.uri_bytes_max)?;
    let client = Sender::of(peer, &parts.headers, &worker.options.trust);
    if let Some(notes) = &mut trail.notes {
        notes.set_client(&client);
    }
    let uri = std::mem::take(&mut parts.uri);
    let path = canonical_path(uri.path()).map_err(|_| Failure::BadRequest)?;
    let context = Context {
        worker,
        peer,
        client: &client,
        table,
    };
    let found = context
        .find(&parts, &authority, &path)
        .ok_or(Failure::NoRoute)?;
    let matched = found.matched(&path);
    let route = &*trail.route.insert(found.route.clone());
    let (outgoing, upload) = Outgoing::new(body);
    let has_body = !upload.is_finished();
    let upgrade = Upgrade::take(&mut parts, has_body, &peer.tunnel);
    context.check_protocol(route, &parts, (&authority, &uri), upgrade.is_some())?;
    clean(&mut parts);
    let service = route.service.and_then(|id| table.service(id));
    if service.is_some_and(|service| !service.enabled) {
        return Err(Failure::NoRoute);
    }
    let at = (&*path, uri.query());
    let response_headers = &mut trail.response_headers;
    let (query, identity) =
        context.run_plugins(&mut parts, route, service, at, response_headers)?;
    let service = service.ok_or(Failure::NoService)?;
    let upstream = table.upstream(&service.workspace, &service.host);
    let hashed = Hashed {
        headers: &parts.headers,
        client: client.address,
        identity: &identity,
        path: &path,
        query: query.as_deref(),
        captures: found.captures.as_ref(),
    };
    let hash = hashed.hash(upstream, &mut trail.response_headers);
    let speech = context.speech(service, upstream)?;
    let prefix = Some(matched).filter(|matched| route.strip_path && matched.len() > 1);
    let forwarded = Forwarded {
        peer,
        client: &client,
        authority: &authority,
        path: HeaderValue::from_str(uri.path()).map_err(|_| Failure::BadRequest)?,
        prefix: prefix.and_then(|prefix| HeaderValue::from_str(prefix).ok()),
        request_id: &trail.request_id,
    };
    headers::add_to_request(&mut parts.headers, forwarded);
    complete(&mut parts, upgrade.as_deref(), &speech, has_body);
    let target = Target::of(service, route, matched);
    parts.uri = target
        .uri(&uri, &path, query.as_deref())
        .ok_or(Failure::BadRequest)?;
    Ok(Plan {
        service,
        source: upstream.map_or(Source::Service(service), Source::Upstream),
        hash,
        host: route.preserve_host.then(|| authority.into_value()),
        request: Some(Request::from_parts(parts, outgoing)),
        // What answers a message before the next one is sent must not be held.
        buffered: route.request_buffering && !speech.is_http2() && !trail.grpc && has_body,
        upload,
        speech,
        upgrade,
    })
}

/// Takes out what is for this hop only.
fn clean(parts: &mut Parts) {
    headers::strip_request(&mut parts.headers);
    if parts.version == Version::HTTP_2 {
        headers::join_cookies(&mut parts.headers);
    }
}

/// What the next hop must be told of the request as a message.
fn complete(parts: &mut Parts, upgrade: Option<&Upgrade>, speech: &Speech, has_body: bool) {
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    if let Some(upgrade) = upgrade {
        upgrade.write(&mut parts.headers);
    }
    if speech.is_http2() {
        let trailers = HeaderValue::from_static("trailers");
        parts.headers.insert(header::TE, trailers);
    } else if has_body && !parts.headers.contains_key(header::CONTENT_LENGTH) {
        // Without it hyper sends no body of unknown length with methods that usually have none.
        let chunked = HeaderValue::from_static("chunked");
        parts.headers.insert(header::TRANSFER_ENCODING, chunked);
    }
}

/// What a request looks at and does not change.
struct Context<'a> {
    worker: &'a Worker,
    peer: &'a Peer,
    client: &'a Sender,
    table: &'a Table,
}

impl Context<'_> {
    fn find(&self, parts: &Parts, authority: &Authority, path: &str) -> Option<Match> {
        self.table.find(&RequestHead {
            method: parts.method.as_str(),
            host: authority.host(),
            port: authority.port.unwrap_or(self.peer.local.port()),
            path,
            query: parts.uri.query(),
            headers: &parts.headers,
            sni: self.peer.server_name.as_deref(),
            tls: self.peer.tls,
            source: SocketAddr::new(self.client.address, self.peer.remote.port()),
            destination: self.peer.local,
        })
    }

    /// Runs the access phase of the request's plugins. Gives the query to send, and who the client is.
    fn run_plugins<'q>(
        &self,
        parts: &mut Parts,
        route: &Route,
        service: Option<&Arc<Service>>,
        (path, query): (&'q str, Option<&'q str>),
        response_headers: &mut Vec<(HeaderName, HeaderValue)>,
    ) -> Result<(Option<Cow<'q, str>>, Identity), Failure> {
        let query = query.map(Cow::Borrowed);
        let service = service.map(|service| service.id);
        let mut chain = self.table.chain(route, None);
        if chain.is_empty() {
            return Ok((query, Identity::default()));
        }
        let mut access = Access {
            table: self.table,
            workspace: &route.workspace,
            method: &parts.method,
            path,
            query,
            headers: &mut parts.headers,
            service,
            client: self.client.address,
            now: (self.worker.options.clock)(),
            state: &self.worker.shared.state,
            identity: Identity::default(),
            response_headers: Vec::new(),
        };
        let mut next = 0;
        let mut outcome = Ok(());
        while let Some(instance) = chain.get(next) {
            next += 1;
            if !instance.protocols.overlap(PLUGIN_PROTOCOLS) {
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
        outcome.map(|()| (access.query, access.identity))
    }

    /// Whether the route accepts this connection's protocol.
    fn check_protocol(
        &self,
        route: &Route,
        parts: &Parts,
        (authority, uri): (&Authority, &Uri),
        upgrade: bool,
    ) -> Result<(), Failure> {
        let (protocols, tls) = (route.protocols, self.client.tls);
        if protocols.contains(Protocols::HTTP) || (tls && protocols.contains(Protocols::HTTPS)) {
            return Ok(());
        }
        if protocols.contains(Protocols::HTTPS) {
            return Err(https_required(route, authority, uri)?);
        }
        if protocols.overlap(Protocols::GRPC_ANY) {
            let content = parts.headers.get(header::CONTENT_TYPE);
            return match content {
                None => Err(Failure::NotGrpc),
                Some(content) if !is_grpc(content) => Err(Failure::NotGrpc),
                Some(_) if parts.version != Version::HTTP_2 => Err(Failure::Http2Required),
                Some(_) if !tls && !protocols.contains(Protocols::GRPC) => {
                    Err(Failure::GrpcsRequired)
                }
                Some(_) => Ok(()),
            };
        }
        let socket =
            protocols.contains(Protocols::WS) || (tls && protocols.contains(Protocols::WSS));
        if upgrade && socket {
            return Ok(());
        }
        Err(Failure::NoRoute)
    }

    /// How a service is spoken to.
    fn speech(
        &self,
        service: &Service,
        upstream: Option<&Arc<Upstream>>,
    ) -> Result<Speech, Failure> {
        let (tls, http2) = match service.protocol {
            Protocol::Http | Protocol::Ws => return Ok(Speech::Plain),
            Protocol::Https | Protocol::Wss => (true, false),
            Protocol::Grpc => (false, true),
            Protocol::Grpcs => (true, true),
            Protocol::Tcp | Protocol::Tls | Protocol::TlsPassthrough | Protocol::Udp => {
                tracing::debug!(service = %service.id, protocol = ?service.protocol, "protocol not supported");
                return Err(Failure::UnsupportedProtocol);
            }
        };
        let upstream = upstream.map(|upstream| &**upstream);
        let client = || self.worker.tls.find(self.table, service, upstream, http2);
        let tls = tls.then(client).transpose().map_err(|error| {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(service = %service.id, error, "no TLS to the upstream");
            Failure::InvalidResponse
        })?;
        Ok(Speech::Other { tls, http2 })
    }
}

/// A type of content that gRPC has.
pub(super) fn is_grpc(content_type: &HeaderValue) -> bool {
    content_type.as_bytes().starts_with(b"application/grpc")
}

fn https_required(route: &Route, authority: &Authority, uri: &Uri) -> Result<Failure, Failure> {
    let status = StatusCode::from_u16(route.https_redirect_status_code);
    let status = status.unwrap_or(StatusCode::UPGRADE_REQUIRED);
    let location = status.is_redirection().then(|| {
        let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        HeaderValue::try_from(format!("https://{}{target}", authority.host()))
    });
    let location = location.transpose().map_err(|_| Failure::BadRequest)?;
    Ok(Failure::HttpsRequired { status, location })
}

/// How the upstream's request-target is made.
struct Target<'a> {
    service_path: Option<&'a str>,
    matched: &'a str,
    strip: bool,
}

impl<'a> Target<'a> {
    fn of(service: &'a Service, route: &Route, matched: &'a str) -> Self {
        Self {
            service_path: service.path.as_deref(),
            matched,
            strip: route.strip_path,
        }
    }

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
