//! One request's way to an upstream: an address, a connection, the request, the response's head; again with the next
//! address where that is safe.

use super::body::{Lease, Outgoing, Upload};
use super::errors::Failure;
use super::link::{ConnectError, Link};
use super::plan::Plan;
use super::worker::Worker;
use crate::balance::{Choice, Flight, Outcome, Picked, Source};
use crate::plugin::Try;
use crate::table::Service;
use http::uri::PathAndQuery;
use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::SystemTime;
use tokio::time::Instant;

/// Room for the headers of a usual request.
const SPARE_BYTES: usize = 1024;

/// The upstream's answer, and the connection its body comes over.
pub(super) struct Reply {
    pub(super) response: Response<Incoming>,
    pub(super) lease: Lease,
}

/// A try without an answer. The plan has the request back if it may be tried again.
struct Missed {
    failure: Failure,
    /// The connection had been idle and may just have been closed by the upstream.
    stale: bool,
}

impl From<Failure> for Missed {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            stale: false,
        }
    }
}

/// Sends the request until an upstream answers, for at most `service.retries` further tries.
///
/// A request is sent again only if the upstream cannot have seen it, or if sending it twice is harmless.
pub(super) async fn forward(
    worker: &Rc<Worker>,
    plan: &mut Plan<'_>,
    mut now: Instant,
) -> Result<Reply, Failure> {
    let mut left = plan.service.retries;
    let mut tried = Vec::new();
    loop {
        let picked = pick(worker, (plan.source, plan.hash), &tried).await?;
        let tried_now = try_endpoint(worker, plan, &picked, now).await;
        plan.note_try(&picked, now, tried_now.as_ref().ok());
        let failure = match tried_now {
            Ok(reply) => {
                let status = reply.response.status().as_u16();
                picked.answered(status, now, &worker.balance);
                return Ok(reply);
            }
            Err(missed) => missed.failure,
        };
        if let Some(outcome) = outcome(&failure) {
            picked.report(outcome);
        }
        if left == 0 || plan.request.is_none() {
            return Err(failure);
        }
        left -= 1;
        now = Instant::now();
        tried.push(picked.address());
    }
}

impl Plan<'_> {
    /// Notes a try, where a plugin wants to know of it.
    fn note_try(&mut self, picked: &Picked, began: Instant, reply: Option<&Reply>) {
        let tls = self.speech.is_tls();
        if let Some(tries) = &mut self.tries {
            let took = began.elapsed();
            tries.all.push(Try {
                address: picked.address(),
                host: picked.host(tls).clone(),
                began: SystemTime::now() - took,
                after: began.into_std().duration_since(tries.started),
                took,
                status: reply.map(|reply| reply.response.status()),
            });
        }
    }
}

/// The address to try. Waits only for names that were never resolved, and only if no other address is known.
pub(super) async fn pick(
    worker: &Worker,
    (source, hash): (Source<'_>, u64),
    tried: &[SocketAddr],
) -> Result<Picked, Failure> {
    let mut waited = false;
    loop {
        match worker.balance.pick(source, hash, tried) {
            Choice::Seat(picked) => return Ok(picked),
            Choice::Wait(names) if !waited => {
                let first = names.iter().map(|name| Box::pin(name.first_answer()));
                futures::future::select_all(first).await;
                // One of several that does not resolve leaves the others to wait for.
                waited = names.iter().all(|name| name.answer().is_pending());
            }
            Choice::Wait(_) | Choice::Unresolved => return Err(Failure::NameResolution),
            Choice::NoPeer => return Err(Failure::NoPeer),
        }
    }
}

/// What a failure says about the health of the target.
fn outcome(failure: &Failure) -> Option<Outcome> {
    match failure {
        Failure::InvalidResponse => Some(Outcome::TcpFailure),
        Failure::UpstreamTimeout => Some(Outcome::Timeout),
        Failure::BadRequest
        | Failure::MethodNotAllowed
        | Failure::UriTooLong
        | Failure::RequestTimeout
        | Failure::TooLarge
        | Failure::NoRoute
        | Failure::HttpsRequired { .. }
        | Failure::NotGrpc
        | Failure::Http2Required
        | Failure::GrpcsRequired
        | Failure::Plugin(_)
        | Failure::NoService
        | Failure::TooOld
        | Failure::NoPeer
        | Failure::NameResolution
        | Failure::UnsupportedProtocol => None,
    }
}

async fn try_endpoint(
    worker: &Rc<Worker>,
    plan: &mut Plan<'_>,
    picked: &Picked,
    now: Instant,
) -> Result<Reply, Missed> {
    let (tls, address) = (plan.speech.is_tls(), picked.address());
    let host = plan.host.as_ref().unwrap_or_else(|| picked.host(tls));
    if let Some(request) = &mut plan.request {
        if plan.speech.is_http2() {
            address_http2(request, host, tls).ok_or(Failure::BadRequest)?;
        } else {
            request.headers_mut().insert(header::HOST, host.clone());
        }
    }
    let slot = match plan.speech.way(host, address) {
        None => worker.pool.slot(address),
        Some(way) => worker.pool.other_slot(address, way),
    };
    // What becomes another protocol needs a connection of its own.
    let upgrade = plan.upgrade.is_some();
    while let Some(mut link) = slot.take().filter(|_| !upgrade) {
        // One that is not ready at once still has an old request to write, to an upstream that may never read it.
        if !link.sender.is_ready() {
            continue;
        }
        match send(worker, plan, (link, picked.fly()), now).await {
            // Does not count as a try: the other idle connections are likely gone too, so a new one follows.
            Err(Missed { stale: true, .. }) if plan.request.is_some() => break,
            outcome => return outcome,
        }
    }
    let flight = picked.fly();
    // Boxed because it is rare and large.
    let link = Box::pin(slot.connect(plan.service.connect_timeout, upgrade)).await;
    let link = link.map_err(|error| connect_failure(&error))?;
    send(worker, plan, (link, flight), Instant::now()).await
}

/// HTTP/2 has the host in the target.
fn address_http2(request: &mut Request<Outgoing>, host: &HeaderValue, tls: bool) -> Option<()> {
    let target = std::mem::take(request.uri_mut());
    let mut parts = target.into_parts();
    parts.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(host.as_bytes().try_into().ok()?);
    parts.path_and_query = parts
        .path_and_query
        .or(Some(PathAndQuery::from_static("/")));
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    request.headers_mut().remove(header::HOST);
    Some(())
}

fn connect_failure(error: &ConnectError) -> Failure {
    tracing::debug!(
        error = error as &dyn std::error::Error,
        "no connection to the upstream"
    );
    match error {
        ConnectError::Refused(..) => Failure::InvalidResponse,
        ConnectError::Timeout(_) => Failure::UpstreamTimeout,
    }
}

/// The request; absent only if a try failed without giving it back, and then there is no further try.
fn take(request: &mut Option<Request<Outgoing>>) -> Result<Request<Outgoing>, Failure> {
    request.take().ok_or(Failure::InvalidResponse)
}

/// Sends the plan's request over a connection and waits for the response's head.
async fn send(
    worker: &Rc<Worker>,
    plan: &mut Plan<'_>,
    (mut link, flight): (Link, Flight),
    now: Instant,
) -> Result<Reply, Missed> {
    let wanted = plan.service.retries > 0 || link.reused;
    let spare = plan.request.as_ref().filter(|_| wanted);
    let spare = spare.and_then(|request| Spare::of(request, &plan.upload));
    let mut wait = Wait::new(worker, plan.service, &plan.upload);
    wait.paced = !plan.speech.is_http2();
    wait.arm(&mut link, now);
    let sent = {
        let mut sent = pin!(link.sender.try_send(take(&mut plan.request)?));
        std::future::poll_fn(|cx| match sent.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Ok(outcome.map_err(Box::new))),
            Poll::Pending => wait.poll(&mut link, cx).map(Err),
        })
        .await
    };
    match sent {
        // Nobody asked for it, and what follows is not HTTP.
        Ok(Ok(response))
            if response.status() == StatusCode::SWITCHING_PROTOCOLS
                && !plan
                    .upgrade
                    .as_ref()
                    .is_some_and(|upgrade| upgrade.is_granted(response.headers())) =>
        {
            Err(Failure::InvalidResponse.into())
        }
        Ok(Ok(response)) => {
            let (pool, upload) = (Rc::clone(&worker.pool), plan.upload.clone());
            Ok(Reply {
                response,
                lease: Lease {
                    link,
                    pool,
                    upload,
                    flight,
                },
            })
        }
        Ok(Err(mut error)) => {
            let unsent = error.take_message();
            tracing::debug!(error = %error.error(), "the upstream did not answer");
            plan.request = unsent.or_else(|| spare.and_then(Spare::request));
            let broken = plan.upload.is_broken();
            let failure = if plan.upload.is_too_large() {
                Failure::TooLarge
            } else if broken {
                Failure::BadRequest
            } else {
                Failure::InvalidResponse
            };
            Err(Missed {
                failure,
                stale: link.reused,
            })
        }
        Err(failure) => {
            plan.request = spare.and_then(Spare::request);
            Err(failure.into())
        }
    }
}

/// A copy of a request that may be sent twice: without a body, and with a method that promises to be idempotent.
/// Nearly all are thrown away, so it is a copy of bytes and not of shared values with their counts: method and target,
/// then each header's name and value, all behind their lengths.
struct Spare(Vec<u8>);

impl Spare {
    fn of(request: &Request<Outgoing>, upload: &Upload) -> Option<Self> {
        let method = request.method();
        let idempotent = *method == Method::GET || method.is_idempotent();
        if !idempotent || !upload.is_finished() {
            return None;
        }
        let target = request
            .uri()
            .path_and_query()
            .map_or("/", PathAndQuery::as_str);
        let mut spare = Self(Vec::with_capacity(SPARE_BYTES));
        spare.push(method.as_str(), target.as_bytes());
        for (name, value) in request.headers() {
            spare.push(name.as_str(), value.as_bytes());
        }
        Some(spare)
    }

    fn push(&mut self, one: &str, two: &[u8]) {
        let lengths = (one.len() as u64) << 32 | two.len() as u64;
        self.0.extend_from_slice(&lengths.to_le_bytes());
        self.0.extend_from_slice(one.as_bytes());
        self.0.extend_from_slice(two);
    }

    /// `None` never comes of what `of` made.
    fn request(self) -> Option<Request<Outgoing>> {
        let mut request = Request::new(Outgoing::Empty);
        let (method, target, mut rest) = split(&self.0)?;
        *request.method_mut() = Method::from_bytes(method).ok()?;
        *request.uri_mut() = Uri::try_from(target).ok()?;
        while let Some((name, value, after)) = split(rest) {
            let (name, value) = (
                HeaderName::from_bytes(name).ok()?,
                HeaderValue::from_bytes(value).ok()?,
            );
            request.headers_mut().append(name, value);
            rest = after;
        }
        Some(request)
    }
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (lengths, rest) = bytes.split_first_chunk()?;
    let lengths = u64::from_le_bytes(*lengths);
    let (one, rest) = rest.split_at_checked((lengths >> 32) as usize)?;
    let (two, rest) = rest.split_at_checked((lengths & 0xffff_ffff) as usize)?;
    Some((one, two, rest))
}

/// What the timer of a connection measures until the response's head is here.
struct Wait<'a> {
    worker: &'a Worker,
    service: &'a Service,
    upload: &'a Upload,
    /// Whether the body must come at a least rate.
    paced: bool,
    stage: Stage,
}

enum Stage {
    /// The request's body is on its way. When the timer was last armed so many frames had passed, so many bytes became due
    /// until it runs out, and it was the client who kept us waiting, or the upstream.
    Upload { frames: u64, due: u64, client: bool },
    /// The upstream has all of the request.
    Response,
}

impl<'a> Wait<'a> {
    fn new(worker: &'a Worker, service: &'a Service, upload: &'a Upload) -> Self {
        Self {
            worker,
            service,
            upload,
            paced: true,
            stage: Stage::Response,
        }
    }

    fn arm(&mut self, link: &mut Link, now: Instant) {
        let timeout = if self.upload.is_finished() {
            self.stage = Stage::Response;
            self.service.read_timeout
        } else {
            let (frames, bytes) = (self.upload.frames(), self.upload.bytes());
            let limits = &self.worker.options.clients;
            let client = self.upload.waits_for_client();
            let rate = if self.paced { limits.body_rate_min } else { 0 };
            let due = bytes + u64::from(rate) * limits.body_timeout.as_secs();
            self.stage = Stage::Upload {
                frames,
                due,
                client,
            };
            if client {
                limits.body_timeout
            } else {
                self.service.write_timeout
            }
        };
        link.arm(now, timeout);
    }

    fn poll(&mut self, link: &mut Link, cx: &mut Context<'_>) -> Poll<Failure> {
        loop {
            if link.poll_timer(cx).is_pending() {
                return Poll::Pending;
            }
            let stuck = match self.stage {
                Stage::Response => return Poll::Ready(Failure::UpstreamTimeout),
                Stage::Upload {
                    frames,
                    due,
                    client,
                } => {
                    let upload = self.upload;
                    let slow = frames == upload.frames() || (client && upload.bytes() < due);
                    slow && client == upload.waits_for_client() && !upload.is_finished()
                }
            };
            if stuck {
                let client = self.upload.waits_for_client();
                return Poll::Ready(if client {
                    Failure::RequestTimeout
                } else {
                    Failure::UpstreamTimeout
                });
            }
            self.arm(link, Instant::now());
        }
    }
}
