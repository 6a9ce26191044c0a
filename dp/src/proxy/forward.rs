//! One request's way to an upstream: an endpoint, a connection, the request, the response's head; again with the next
//! endpoint where that is safe.

use super::body::{Lease, Outgoing, Upload};
use super::errors::Failure;
use super::pool::{ConnectError, Link};
use super::worker::Worker;
use crate::balance::{Endpoint, Source};
use crate::table::Service;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::time::Instant;

/// Room for the headers of a usual request.
const SPARE_BYTES: usize = 1024;

/// Where a request goes.
pub(super) struct Call<'a> {
    pub(super) service: &'a Service,
    pub(super) source: Source<'a>,
    /// Sent as `Host` in place of the endpoint's.
    pub(super) host: Option<&'a HeaderValue>,
    /// Now.
    pub(super) begun: Instant,
}

/// The upstream's answer, and the connection its body comes over.
pub(super) struct Reply {
    pub(super) response: Response<Incoming>,
    pub(super) lease: Lease,
}

/// A try without an answer, and the request if it may be tried again.
struct Missed {
    failure: Failure,
    request: Option<Request<Outgoing>>,
    /// The connection had been idle and may just have been closed by the upstream.
    stale: bool,
}

/// Sends the request until an upstream answers, for at most `service.retries` further tries.
///
/// A request is sent again only if the upstream cannot have seen it, or if sending it twice is harmless.
pub(super) async fn forward(
    worker: &Rc<Worker>,
    call: Call<'_>,
    mut request: Request<Outgoing>,
    upload: Upload,
) -> Result<Reply, Failure> {
    let mut now = call.begun;
    let mut left = call.service.retries;
    let mut tried = Vec::new();
    loop {
        let endpoint = worker
            .balance
            .pick(call.source, &tried)
            .ok_or(Failure::NoPeer)?;
        let missed = match try_endpoint(worker, &call, &endpoint, request, &upload, now).await {
            Ok(reply) => return Ok(reply),
            Err(missed) => missed,
        };
        request = match missed.request {
            Some(request) if left > 0 => request,
            Some(_) | None => return Err(missed.failure),
        };
        left -= 1;
        now = Instant::now();
        tried.push(endpoint.index);
    }
}

async fn try_endpoint(
    worker: &Rc<Worker>,
    call: &Call<'_>,
    endpoint: &Endpoint,
    mut request: Request<Outgoing>,
    upload: &Upload,
    now: Instant,
) -> Result<Reply, Missed> {
    let host = call.host.unwrap_or(&endpoint.host).clone();
    request.headers_mut().insert(header::HOST, host);
    let Some(address) = endpoint.address(&worker.balance.names).await else {
        let failure = Failure::NameResolution;
        return Err(Missed {
            failure,
            request: Some(request),
            stale: false,
        });
    };
    let slot = worker.pool.slot(address);
    while let Some(mut link) = slot.take() {
        if link.sender.ready().await.is_err() {
            continue;
        }
        match send(worker, call, link, request, upload, now).await {
            // Does not count as a try: the other idle connections are likely gone too, so a new one follows.
            Err(Missed {
                request: Some(again),
                stale: true,
                ..
            }) => {
                request = again;
                break;
            }
            outcome => return outcome,
        }
    }
    match Link::connect(&slot, call.service.connect_timeout).await {
        Ok(link) => send(worker, call, link, request, upload, Instant::now()).await,
        Err(error) => Err(Missed {
            failure: connect_failure(&error),
            request: Some(request),
            stale: false,
        }),
    }
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

async fn send(
    worker: &Rc<Worker>,
    call: &Call<'_>,
    mut link: Link,
    request: Request<Outgoing>,
    upload: &Upload,
    now: Instant,
) -> Result<Reply, Missed> {
    let wanted = call.service.retries > 0 || link.reused;
    let spare = wanted.then(|| Spare::of(&request, upload)).flatten();
    let mut wait = Wait::new(worker, call.service, upload);
    wait.arm(&mut link, now);
    let sent = {
        let mut sent = pin!(link.sender.try_send_request(request));
        std::future::poll_fn(|cx| match sent.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Ok(outcome)),
            Poll::Pending => wait.poll(&mut link, cx).map(Err),
        })
        .await
    };
    let stale = link.reused;
    match sent {
        Ok(Ok(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            // Nobody asked for it, and what follows is not HTTP.
            Err(Missed {
                failure: Failure::InvalidResponse,
                request: None,
                stale: false,
            })
        }
        Ok(Ok(response)) => {
            let lease = Lease {
                link,
                pool: Rc::clone(&worker.pool),
                upload: upload.clone(),
            };
            Ok(Reply { response, lease })
        }
        Ok(Err(mut error)) => {
            let unsent = error.take_message();
            tracing::debug!(error = %error.error(), "the upstream did not answer");
            let failure = if upload.is_broken() {
                Failure::BadRequest
            } else {
                Failure::InvalidResponse
            };
            Err(Missed {
                failure,
                request: unsent.or_else(|| spare.map(Spare::request)),
                stale,
            })
        }
        Err(failure) => {
            let request = spare.map(Spare::request);
            Err(Missed {
                failure,
                request,
                stale: false,
            })
        }
    }
}

/// A copy of a request that may be sent twice: without a body, and with a method that promises to be idempotent.
/// Nearly all are thrown away, so it is a copy of bytes and not of shared values with their counts.
struct Spare {
    method: Method,
    uri: Uri,
    /// Lengths of name and value as two u32, then both; for each header.
    headers: Vec<u8>,
}

impl Spare {
    fn of(request: &Request<Outgoing>, upload: &Upload) -> Option<Self> {
        let method = request.method();
        let idempotent = *method == Method::GET || method.is_idempotent();
        if !idempotent || !upload.is_finished() {
            return None;
        }
        let mut headers = Vec::with_capacity(SPARE_BYTES);
        for (name, value) in request.headers() {
            let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
            let lengths = (name.len() as u64) << 32 | value.len() as u64;
            headers.extend_from_slice(&lengths.to_le_bytes());
            headers.extend_from_slice(name);
            headers.extend_from_slice(value);
        }
        Some(Self {
            method: method.clone(),
            uri: request.uri().clone(),
            headers,
        })
    }

    fn request(self) -> Request<Outgoing> {
        let mut request = Request::new(Outgoing::Empty);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        let mut rest = &self.headers[..];
        while let Some((lengths, after)) = rest.split_first_chunk() {
            let lengths = u64::from_le_bytes(*lengths);
            let (name, value) = ((lengths >> 32) as usize, (lengths & 0xffff_ffff) as usize);
            let (name, after) = after.split_at(name);
            let (value, after) = after.split_at(value);
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            {
                request.headers_mut().append(name, value);
            }
            rest = after;
        }
        request
    }
}

/// What the timer of a connection measures until the response's head is here.
struct Wait<'a> {
    worker: &'a Worker,
    service: &'a Service,
    upload: &'a Upload,
    stage: Stage,
}

enum Stage {
    /// The request's body is on its way; so many frames had passed when the timer was last armed.
    Upload { frames: u64 },
    /// The upstream has all of the request.
    Response,
}

impl<'a> Wait<'a> {
    fn new(worker: &'a Worker, service: &'a Service, upload: &'a Upload) -> Self {
        Self {
            worker,
            service,
            upload,
            stage: Stage::Upload { frames: 0 },
        }
    }

    fn arm(&mut self, link: &mut Link, now: Instant) {
        let timeout = if self.upload.is_finished() {
            self.stage = Stage::Response;
            self.service.read_timeout
        } else {
            self.stage = Stage::Upload {
                frames: self.upload.frames(),
            };
            if self.upload.waits_for_client() {
                self.worker.limits.client_body_timeout
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
                Stage::Upload { frames } => {
                    frames == self.upload.frames() && !self.upload.is_finished()
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
