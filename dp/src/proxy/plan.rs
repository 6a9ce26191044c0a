//! What is decided about a request before it goes upstream: all of it from the request, the table and the plugins'
//! state. Nothing is waited for, unless a plugin has to: then the rest of it is in a future of its own.

use super::body::{Outgoing, Upload};
use super::buffer::Intake;
use super::draft::{Around, Arrived, Draft, Progress};
use super::errors::Failure;
use super::hashed::Hashed;
use super::headers::{self, Forwarded};
use super::later::Later;
use super::life::Trail;
use super::pool::Way;
use super::tls::client::{Client, server_name};
use super::upgrade::Upgrade;
use super::worker::Worker;
use crate::balance::Source;
use crate::plugin::{Context, Flow};
use crate::table::{Protocol, Service, Table, Upstream, upstream_path};
use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Uri, header};
use http_body::Body as _;
use hyper::body::Incoming;
use rustls::pki_types::ServerName;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

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

/// Why a request is not ready to go.
pub(super) enum Halt<'a> {
    /// It will not go.
    Failed(Failure),
    /// A plugin has to wait: [`resume`].
    Waits(Box<Draft<'a>>),
}

impl From<Failure> for Halt<'_> {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Routes the request, runs its plugins and makes it the upstream's.
pub(super) fn plan<'a>(
    around: Around<'a>,
    trail: &mut Trail,
    request: Request<Incoming>,
) -> Result<Plan<'a>, Halt<'a>> {
    let (mut parts, body) = request.into_parts();
    let mut uri = Uri::default();
    let mut context = Context::default();
    let arrived = match around.receive(trail, (&mut parts, &mut uri), &mut context) {
        Ok(arrived) => arrived,
        Err(failure) => {
            around.keep_lost(trail, parts, uri, context);
            return Err(failure.into());
        }
    };
    trail.route = Some(Arc::clone(&arrived.found.route));
    let intake = Intake::new(body, &around.worker.options.clients);
    let mut draft = Draft::new(around, (parts, uri), arrived, intake, context);
    if let Err(failure) = draft.admit() {
        draft.keep(trail);
        return Err(failure.into());
    }
    match draft.advance(trail) {
        Progress::Done => Ok(complete(draft, trail)?),
        Progress::Answered(answer) => {
            draft.keep(trail);
            Err(Failure::Plugin(answer).into())
        }
        Progress::Waits => Err(Halt::Waits(Box::new(draft))),
    }
}

/// The same from where a plugin had to wait.
pub(super) async fn resume<'a>(
    mut draft: Box<Draft<'a>>,
    trail: &mut Trail,
) -> Result<Plan<'a>, Halt<'a>> {
    loop {
        let progress = match draft.wait(trail).await {
            Flow::Continue => draft.advance(trail),
            Flow::Answer(answer) => Progress::Answered(answer),
        };
        match progress {
            Progress::Done => return Ok(complete(*draft, trail)?),
            Progress::Answered(answer) => {
                draft.keep(trail);
                return Err(Failure::Plugin(answer).into());
            }
            Progress::Waits => {}
        }
    }
}

/// Makes a request the upstream's.
fn complete<'a>(mut draft: Draft<'a>, trail: &mut Trail) -> Result<Plan<'a>, Failure> {
    draft.keep(trail);
    let Around {
        worker,
        peer,
        table,
    } = draft.around;
    let service = draft.service.ok_or(Failure::NoService)?;
    let upstream = table.upstream(&service.workspace, &service.host);
    // What is kept for later took it along.
    let context = trail.later.as_deref().map(Later::context);
    let identity = &context.unwrap_or(&draft.context).identity;
    let hashed = Hashed {
        headers: &draft.parts.headers,
        client: draft.arrived.client.address,
        identity,
        path: draft.path(),
        query: draft.target.query(&draft.uri),
        captures: draft.arrived.found.captures.as_ref(),
    };
    let hash = hashed.hash(upstream, &mut trail.response_headers);
    let speech = speech(worker, table, service, upstream)?;
    let uri = Destination::of(service, &draft)
        .uri()
        .ok_or(Failure::BadRequest)?;
    let prefix = draft.prefix();
    let Draft {
        mut parts,
        uri: original,
        arrived,
        intake: Intake {
            outgoing, upload, ..
        },
        upgrade,
        target,
        ..
    } = draft;
    let Arrived {
        authority,
        client,
        found,
        ..
    } = arrived;
    let forwarded = Forwarded {
        peer,
        client: &client,
        authority: &authority,
        path: HeaderValue::from_str(original.path()).map_err(|_| Failure::BadRequest)?,
        prefix,
        request_id: &trail.request_id,
    };
    headers::add_to_request(&mut parts.headers, forwarded);
    let has_body = !outgoing.is_end_stream();
    write_framing(&mut parts, upgrade.as_deref(), &speech, has_body);
    parts.uri = uri;
    let route = &found.route;
    let host = target
        .host
        .or_else(|| route.preserve_host.then(|| authority.into_value()));
    Ok(Plan {
        service,
        source: upstream.map_or(Source::Service(service), Source::Upstream),
        hash,
        host,
        request: Some(Request::from_parts(parts, outgoing)),
        // What answers a message before the next one is sent must not be held.
        buffered: route.request_buffering && !speech.is_http2() && !trail.grpc && has_body,
        upload,
        speech,
        upgrade,
    })
}

/// What the next hop must be told of the request as a message.
fn write_framing(parts: &mut Parts, upgrade: Option<&Upgrade>, speech: &Speech, has_body: bool) {
    parts.version = http::Version::HTTP_11;
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

/// How a service is spoken to.
fn speech(
    worker: &Worker,
    table: &Table,
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
    let client = || worker.tls.find(table, service, upstream, http2);
    let tls = tls.then(client).transpose().map_err(|error| {
        let error = &error as &dyn std::error::Error;
        tracing::debug!(service = %service.id, error, "no TLS to the upstream");
        Failure::InvalidResponse
    })?;
    Ok(Speech::Other { tls, http2 })
}

/// A type of content that gRPC has.
pub(crate) fn is_grpc(content_type: &HeaderValue) -> bool {
    content_type.as_bytes().starts_with(b"application/grpc")
}

/// How the upstream's request-target is made.
struct Destination<'a> {
    original: &'a Uri,
    path: &'a str,
    query: Option<&'a str>,
    service_path: Option<&'a str>,
    matched: &'a str,
    strip: bool,
    /// What a plugin wants in place of all that.
    other: Option<&'a str>,
}

impl<'a> Destination<'a> {
    fn of(service: &'a Service, draft: &'a Draft<'_>) -> Self {
        let path = draft.path();
        Self {
            original: &draft.uri,
            path,
            query: draft.target.query(&draft.uri),
            service_path: service.path.as_deref(),
            matched: draft.arrived.found.matched(path),
            strip: draft.route().strip_path,
            other: draft.target.path.as_deref(),
        }
    }

    /// The target to send; the client's own where it would be the same.
    fn uri(&self) -> Option<Uri> {
        let joined = self.other.map_or_else(|| self.join(), Cow::Borrowed);
        let original = self.original;
        let unchanged = original.path() == joined && original.query() == self.query;
        if unchanged && original.authority().is_none() {
            return Some(original.clone());
        }
        let mut target = String::with_capacity(joined.len() + 1 + self.query.map_or(0, str::len));
        target.push_str(&joined);
        if let Some(query) = self.query {
            target.push('?');
            target.push_str(query);
        }
        PathAndQuery::from_maybe_shared(Bytes::from(target))
            .ok()
            .map(Uri::from)
    }

    /// [`upstream_path`], with a shorter way for the common case of a service without a path.
    fn join(&self) -> Cow<'a, str> {
        let path = self.path;
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
