//! A request that has its route, on its way through the access phase of its plugins.

use super::buffer::Intake;
use super::errors::Failure;
use super::forwarded::Client as Sender;
use super::headers::{self, Hop};
use super::later::{Later, runs};
use super::life::Trail;
use super::peer::Peer;
use super::plan::is_grpc;
use super::request::{self, Authority};
use super::upgrade::Upgrade;
use super::worker::Worker;
use crate::plugin::{
    Access, Answer, Context, Flow, Phases, Protocols, Rewrite, Seen, Step, Target,
};
use crate::table::{Chain, Match, RequestHead, Route, Service, Table, canonical_path};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header};
use sluice_schema::entity::Workspace;
use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;
use uuid::Uuid;

/// What a request looks at and does not change.
#[derive(Clone, Copy)]
pub(super) struct Around<'a> {
    pub(super) worker: &'a Worker,
    pub(super) peer: &'a Peer,
    pub(super) table: &'a Table,
}

/// What is known of a request that came in order.
pub(super) struct Arrived {
    pub(super) authority: Authority,
    pub(super) client: Sender,
    /// The canonical path where it is not the one in the target.
    pub(super) canonical: Option<Box<str>>,
    pub(super) found: Match,
}

/// A request that has its route.
pub(super) struct Draft<'a> {
    pub(super) around: Around<'a>,
    /// Without the target.
    pub(super) parts: Parts,
    /// The target as the client sent it.
    pub(super) uri: Uri,
    pub(super) arrived: Arrived,
    pub(super) intake: Intake<'a>,
    pub(super) upgrade: Option<Box<Upgrade>>,
    pub(super) service: Option<&'a Arc<Service>>,
    /// Where plugins send it.
    pub(super) target: Target,
    /// What its plugins know.
    pub(super) context: Context,
    /// What was said to this hop only.
    hop: Hop,
    chain: Chain,
    /// The place in the chain of the plugin that comes next.
    next: usize,
}

/// How far the plugins of a request have come.
pub(super) enum Progress {
    /// All have run.
    Done,
    /// One has answered.
    Answered(Answer),
    /// One has to wait.
    Waits,
}

impl<'a> Around<'a> {
    /// Looks at a request up to its route. Takes its target, whether or not it is in order.
    pub(super) fn receive(
        self,
        trail: &mut Trail,
        (parts, uri): (&mut Parts, &mut Uri),
        context: &mut Context,
    ) -> Result<Arrived, Failure> {
        let authority = request::check(parts, self.worker.options.clients.uri_bytes_max);
        *uri = std::mem::take(&mut parts.uri);
        let authority = authority?;
        let client = Sender::of(self.peer, &parts.headers, &self.worker.options.trust);
        if let Some(notes) = &mut trail.notes {
            notes.set_client(&client);
        }
        if self.table.rewrites() {
            self.rewrite(trail, (parts, uri), &client, context)?;
        }
        let path = canonical_path(uri.path()).map_err(|_| Failure::BadRequest)?;
        let found = self
            .find(parts, (&authority, &path, uri.query()), &client)
            .ok_or(Failure::NoRoute)?;
        let canonical = match path {
            Cow::Borrowed(_) => None,
            Cow::Owned(path) => Some(path.into()),
        };
        Ok(Arrived {
            authority,
            client,
            canonical,
            found,
        })
    }

    /// The phase before routing.
    fn rewrite(
        self,
        trail: &mut Trail,
        (parts, uri): (&mut Parts, &mut Uri),
        client: &Sender,
        context: &mut Context,
    ) -> Result<(), Failure> {
        let mut request = Rewrite {
            table: self.table,
            method: &mut parts.method,
            headers: &mut parts.headers,
            uri,
            client: client.address,
            request_id: &trail.request_id,
            context,
            response_headers: &mut trail.response_headers,
            state: &self.worker.shared.state,
        };
        for instance in self.table.global_chain(&Workspace::DEFAULT).iter() {
            if runs(instance, Phases::REWRITE)
                && let Flow::Answer(answer) = instance.run.rewrite(&mut request)
            {
                return Err(Failure::Plugin(answer));
            }
        }
        Ok(())
    }

    fn find(
        self,
        parts: &Parts,
        (authority, path, query): (&Authority, &str, Option<&str>),
        client: &Sender,
    ) -> Option<Match> {
        self.table.find(&RequestHead {
            method: parts.method.as_str(),
            host: authority.host(),
            port: authority.port.unwrap_or(self.peer.local.port()),
            path,
            query,
            headers: &parts.headers,
            sni: self.peer.server_name.as_deref(),
            tls: self.peer.tls,
            source: SocketAddr::new(client.address, self.peer.remote.port()),
            destination: self.peer.local,
        })
    }

    /// Keeps what the global plugins' later phases need of a request without a route.
    pub(super) fn keep_lost(self, trail: &mut Trail, parts: Parts, uri: Uri, context: Context) {
        let chain = self.table.global_chain(&Workspace::DEFAULT);
        if chain.phases().overlap(Phases::LATER) {
            let client = Sender::of(self.peer, &parts.headers, &self.worker.options.trust);
            let seen = Seen {
                method: parts.method,
                uri,
                version: parts.version,
                headers: parts.headers,
                ..seen(trail, &client, String::new())
            };
            trail.later = Some(Later::new(chain, context, seen));
        }
    }
}

/// A request of which all but the head is known.
fn seen(trail: &Trail, client: &Sender, host: String) -> Seen {
    Seen {
        method: Method::GET,
        uri: Uri::default(),
        version: Version::HTTP_11,
        host,
        headers: HeaderMap::new(),
        client: client.address,
        tls: client.tls,
        id: trail.request_id.clone(),
        began: SystemTime::now() - trail.started.elapsed(),
        started: trail.started,
    }
}

impl<'a> Draft<'a> {
    pub(super) fn new(
        around: Around<'a>,
        (parts, uri): (Parts, Uri),
        arrived: Arrived,
        intake: Intake<'a>,
        context: Context,
    ) -> Self {
        let route = &arrived.found.route;
        let service = route.service.and_then(|id| around.table.service(id));
        Self {
            around,
            parts,
            uri,
            intake,
            upgrade: None,
            service,
            target: Target::default(),
            context,
            hop: Hop::default(),
            chain: around.table.chain(route, None),
            next: 0,
            arrived,
        }
    }

    pub(super) fn route(&self) -> &Arc<Route> {
        &self.arrived.found.route
    }

    /// The canonical path.
    pub(super) fn path(&self) -> &str {
        let canonical = self.arrived.canonical.as_deref();
        canonical.unwrap_or_else(|| self.uri.path())
    }

    /// What of the path is not sent upstream.
    pub(super) fn prefix(&self) -> Option<HeaderValue> {
        let matched = self.arrived.found.matched(self.path());
        let strips = self.route().strip_path && matched.len() > 1;
        let stripped = Some(matched).filter(|_| strips);
        HeaderValue::from_str(stripped?).ok()
    }

    /// Lets the request in, as far as its route says, without what is for this hop only.
    pub(super) fn admit(&mut self) -> Result<(), Failure> {
        let has_body = !self.intake.upload.is_finished();
        self.upgrade = Upgrade::take(&mut self.parts, has_body, &self.around.peer.tunnel);
        check_protocol(
            self.route(),
            (&self.parts, &self.uri),
            &self.arrived.authority,
            self.arrived.client.tls,
            self.upgrade.is_some(),
        )?;
        self.hop = headers::strip_request(&mut self.parts.headers);
        if self.parts.version == Version::HTTP_2 {
            headers::join_cookies(&mut self.parts.headers);
        }
        match self.service {
            Some(service) if !service.enabled => Err(Failure::NoRoute),
            Some(_) | None => Ok(()),
        }
    }

    /// The request as plugins see it, and the chain they are in.
    fn access<'b>(
        &'b mut self,
        trail: &'b mut Trail,
    ) -> (Access<'b>, &'b mut Chain, &'b mut usize) {
        let Self {
            around,
            parts,
            uri,
            arrived,
            intake,
            service,
            target,
            context,
            hop,
            chain,
            next,
            upgrade: _,
        } = self;
        let worker = around.worker;
        let access = Access {
            table: around.table,
            route: &arrived.found.route,
            service: *service,
            method: &mut parts.method,
            headers: &mut parts.headers,
            uri,
            version: parts.version,
            path: arrived.canonical.as_deref().unwrap_or_else(|| uri.path()),
            host: arrived.authority.host(),
            tls: arrived.client.tls,
            expects_continue: hop.expects,
            proxy_authorization: hop.proxy_authorization.as_ref(),
            captures: arrived.found.captures.as_ref(),
            client: arrived.client.address,
            remote: around.peer.remote,
            local: around.peer.local,
            now: (worker.options.clock)(),
            started: trail.started,
            request_id: &trail.request_id,
            context,
            response_headers: &mut trail.response_headers,
            target,
            matched_bytes: arrived.found.matched_bytes,
            body: intake,
            state: &worker.shared.state,
        };
        (access, chain, next)
    }

    /// Runs plugins up to the end of the chain, or one that answers or has to wait.
    pub(super) fn advance(&mut self, trail: &mut Trail) -> Progress {
        if self.next >= self.chain.len() {
            return Progress::Done;
        }
        let (mut access, chain, next) = self.access(trail);
        while let Some(instance) = chain.get(*next) {
            *next += 1;
            if !runs(instance, Phases::ACCESS) {
                continue;
            }
            let known = consumer(access.context);
            match instance.run.access(&mut access) {
                Step::Continue => select(&access, known, chain, next),
                Step::Answer(answer) => return Progress::Answered(answer),
                Step::Wait => return Progress::Waits,
            }
        }
        Progress::Done
    }

    /// Waits for the plugin that has to.
    pub(super) async fn wait(&mut self, trail: &mut Trail) -> Flow {
        let waiting = self.next.checked_sub(1).and_then(|at| self.chain.get(at));
        let Some(instance) = waiting.cloned() else {
            return Flow::Continue;
        };
        let (mut access, chain, next) = self.access(trail);
        let known = consumer(access.context);
        let flow = instance.run.wait(&mut access).await;
        select(&access, known, chain, next);
        flow
    }

    /// Keeps what the plugins' later phases need, if there are any.
    pub(super) fn keep(&mut self, trail: &mut Trail) {
        if !self.chain.phases().overlap(Phases::LATER) {
            return;
        }
        let host = self.arrived.authority.host().to_owned();
        let seen = Seen {
            method: self.parts.method.clone(),
            uri: self.uri.clone(),
            version: self.parts.version,
            headers: self.parts.headers.clone(),
            ..seen(trail, &self.arrived.client, host)
        };
        let chain = std::mem::take(&mut self.chain);
        let context = std::mem::take(&mut self.context);
        trail.later = Some(Later::new(chain, context, seen));
    }
}

fn consumer(context: &Context) -> Option<Uuid> {
    let consumer = context.identity.consumer.as_ref();
    consumer.map(|consumer| consumer.id)
}

/// The rest of the chain may be more specific for a consumer that is known now.
fn select(access: &Access<'_>, known: Option<Uuid>, chain: &mut Chain, next: &mut usize) {
    let consumer = consumer(access.context);
    if consumer != known {
        let all = access.table.chain(access.route, consumer);
        (*chain, *next) = chain.go_on(*next, all);
    }
}

/// Whether a route accepts a connection's protocol. The target is the one that came with `parts`; `upgrades`: the request wants
/// another protocol.
pub(super) fn check_protocol(
    route: &Route,
    (parts, uri): (&Parts, &Uri),
    authority: &Authority,
    tls: bool,
    upgrades: bool,
) -> Result<(), Failure> {
    let protocols = route.protocols;
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
            Some(_) if !tls && !protocols.contains(Protocols::GRPC) => Err(Failure::GrpcsRequired),
            Some(_) => Ok(()),
        };
    }
    let socket = protocols.contains(Protocols::WS) || (tls && protocols.contains(Protocols::WSS));
    if upgrades && socket {
        return Ok(());
    }
    Err(Failure::NoRoute)
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
