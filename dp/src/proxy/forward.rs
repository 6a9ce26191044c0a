//! One request's way to an upstream: an endpoint, a connection, the request, the response's head; again with the next
//! endpoint where that is safe.

use super::body::{Lease, Outgoing, Progress};
use super::errors::Failure;
use super::pool::{ConnectError, Link};
use super::worker::Worker;
use crate::balance::{Endpoint, Source};
use crate::table::Service;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Where a request goes.
pub(super) struct Call<'a> {
    pub(super) service: &'a Service,
    pub(super) source: Source<'a>,
    /// Sent as `Host` in place of the endpoint's.
    pub(super) host: Option<&'a HeaderValue>,
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
    progress: Rc<Progress>,
) -> Result<Reply, Failure> {
    let mut left = call.service.retries;
    let mut tried = Vec::new();
    loop {
        let endpoint = worker
            .balance
            .pick(call.source, &tried)
            .ok_or(Failure::NoPeer)?;
        let missed = match try_endpoint(worker, &call, &endpoint, request, &progress).await {
            Ok(reply) => return Ok(reply),
            Err(missed) => missed,
        };
        request = match missed.request {
            Some(request) if left > 0 => request,
            Some(_) | None => return Err(missed.failure),
        };
        left -= 1;
        tried.push(endpoint.index);
    }
}

async fn try_endpoint(
    worker: &Rc<Worker>,
    call: &Call<'_>,
    endpoint: &Endpoint,
    mut request: Request<Outgoing>,
    progress: &Rc<Progress>,
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
    while let Some(mut link) = worker.pool.take(address) {
        if link.sender.ready().await.is_err() {
            continue;
        }
        match send(worker, call, link, request, progress).await {
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
    match Link::connect(address, call.service.connect_timeout).await {
        Ok(link) => send(worker, call, link, request, progress).await,
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
    progress: &Rc<Progress>,
) -> Result<Reply, Missed> {
    let spare = spare(&request, progress, call.service.retries > 0 || link.reused);
    let mut wait = Wait::new(worker, call.service, progress);
    wait.arm(&mut link);
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
                progress: Rc::clone(progress),
            };
            Ok(Reply { response, lease })
        }
        Ok(Err(mut error)) => {
            let unsent = error.take_message();
            tracing::debug!(error = %error.error(), "the upstream did not answer");
            let failure = if progress.broken.get() {
                Failure::BadRequest
            } else {
                Failure::InvalidResponse
            };
            Err(Missed {
                failure,
                request: unsent.or(spare),
                stale,
            })
        }
        Err(failure) => Err(Missed {
            failure,
            request: spare,
            stale: false,
        }),
    }
}

/// A copy of a request that may be sent twice: without a body, and with a method that promises to be idempotent.
fn spare(
    request: &Request<Outgoing>,
    progress: &Progress,
    wanted: bool,
) -> Option<Request<Outgoing>> {
    let method = request.method();
    let idempotent = *method == Method::GET || method.is_idempotent();
    if !wanted || !idempotent || !progress.finished.get() {
        return None;
    }
    let mut spare = Request::new(Outgoing::Empty);
    spare.method_mut().clone_from(method);
    spare.uri_mut().clone_from(request.uri());
    spare.headers_mut().clone_from(request.headers());
    Some(spare)
}

/// What the timer of a connection measures until the response's head is here.
struct Wait<'a> {
    worker: &'a Worker,
    service: &'a Service,
    progress: &'a Progress,
    stage: Stage,
}

enum Stage {
    /// The request's body is on its way; so many frames had passed when the timer was last armed.
    Upload { frames: u64 },
    /// The upstream has all of the request.
    Response,
}

impl<'a> Wait<'a> {
    fn new(worker: &'a Worker, service: &'a Service, progress: &'a Progress) -> Self {
        Self {
            worker,
            service,
            progress,
            stage: Stage::Upload { frames: 0 },
        }
    }

    fn arm(&mut self, link: &mut Link) {
        let timeout = if self.progress.finished.get() {
            self.stage = Stage::Response;
            self.service.read_timeout
        } else {
            self.stage = Stage::Upload {
                frames: self.progress.frames.get(),
            };
            if self.progress.waits_for_client.get() {
                self.worker.limits.client_body_timeout
            } else {
                self.service.write_timeout
            }
        };
        link.arm(timeout);
    }

    fn poll(&mut self, link: &mut Link, cx: &mut Context<'_>) -> Poll<Failure> {
        loop {
            if link.poll_timer(cx).is_pending() {
                return Poll::Pending;
            }
            match self.stage {
                Stage::Response => return Poll::Ready(Failure::UpstreamTimeout),
                Stage::Upload { frames }
                    if frames == self.progress.frames.get() && !self.progress.finished.get() =>
                {
                    let client = self.progress.waits_for_client.get();
                    return Poll::Ready(if client {
                        Failure::RequestTimeout
                    } else {
                        Failure::UpstreamTimeout
                    });
                }
                Stage::Upload { .. } => self.arm(link),
            }
        }
    }
}
