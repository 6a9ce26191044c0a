//! The bodies that flow through the proxy: streamed in both directions with back-pressure, never collected.

use super::link::Link;
use super::pool::Pool;
use crate::balance::Flight;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// What goes to an upstream.
pub(super) enum Outgoing {
    /// Nothing.
    Empty,
    /// The client's body.
    Client {
        body: Incoming,
        progress: Rc<Progress>,
    },
}

/// How far a request's body has come; shared with the one who waits for the response.
#[derive(Default)]
pub(super) struct Progress {
    finished: Cell<bool>,
    frames: Cell<u64>,
    waits_for_client: Cell<bool>,
    broken: Cell<bool>,
}

/// A request's body as seen by the one who waits for the response. `None` if there is no body.
#[derive(Clone)]
pub(super) struct Upload(Option<Rc<Progress>>);

impl Upload {
    /// All of it is with the upstream's connection.
    pub(super) fn is_finished(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|progress| progress.finished.get())
    }

    /// Frames passed on so far.
    pub(super) fn frames(&self) -> u64 {
        self.0.as_ref().map_or(0, |progress| progress.frames.get())
    }

    /// Whether it is the client that keeps us waiting.
    pub(super) fn waits_for_client(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|progress| progress.waits_for_client.get())
    }

    /// Whether the client broke its body.
    pub(super) fn is_broken(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|progress| progress.broken.get())
    }
}

impl Outgoing {
    /// The client's body, or nothing if it is empty.
    pub(super) fn new(body: Incoming) -> (Self, Upload) {
        use http_body::Body as _;
        if body.is_end_stream() {
            return (Self::Empty, Upload(None));
        }
        let progress = Rc::<Progress>::default();
        (
            Self::Client {
                body,
                progress: Rc::clone(&progress),
            },
            Upload(Some(progress)),
        )
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self::Client { body, progress } = self.get_mut() else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(&mut *body).poll_frame(cx);
        progress.waits_for_client.set(polled.is_pending());
        match &polled {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(_))) => {
                progress.frames.set(progress.frames.get() + 1);
                progress.finished.set(body.is_end_stream());
            }
            Poll::Ready(Some(Err(_))) => progress.broken.set(true),
            Poll::Ready(None) => progress.finished.set(true),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client { body, .. } => body.size_hint(),
        }
    }
}

/// What goes to a client.
#[derive(Debug)]
pub(super) enum Body {
    /// Nothing.
    Empty,
    /// A body the gateway made.
    Full(Option<Bytes>),
    /// The upstream's body.
    Relay(Relay),
}

/// The upstream's body on its way to the client. Its connection goes back to the pool when the whole body was read.
#[derive(Debug)]
pub(super) struct Relay {
    body: Incoming,
    lease: Option<Lease>,
    read_timeout: Duration,
    /// Whether the timer runs from the last frame on.
    armed: bool,
}

/// A connection in use, and the pool it returns to.
pub(super) struct Lease {
    pub(super) link: Link,
    pub(super) pool: Rc<Pool>,
    pub(super) upload: Upload,
    /// The request counts as being with its target until then.
    pub(super) flight: Flight,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}

impl Lease {
    /// Gives the connection back, unless a part of the request is still unsent: then it could not be told from the
    /// next one, and the connection closes.
    fn release(self) {
        if self.upload.is_finished() {
            self.pool.put(self.link);
        }
    }
}

/// A body that stopped before its end. The client's connection is closed, so that the client can tell.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// The upstream's connection broke.
    #[error("the upstream broke its response")]
    Upstream(#[source] hyper::Error),
    /// Nothing came for the service's read timeout.
    #[error("the upstream stopped sending its response")]
    Timeout,
}

impl Body {
    /// The upstream's body over the connection of `lease`.
    pub(super) fn relay(body: Incoming, lease: Lease, read_timeout: Duration) -> Self {
        use http_body::Body as _;
        if body.is_end_stream() {
            lease.release();
            return Self::Empty;
        }
        Self::Relay(Relay {
            body,
            lease: Some(lease),
            read_timeout,
            armed: false,
        })
    }
}

impl Relay {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        use http_body::Body as _;
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.armed = false;
                if self.body.is_end_stream() {
                    self.release();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.lease = None;
                Poll::Ready(Some(Err(BodyError::Upstream(error))))
            }
            Poll::Ready(None) => {
                self.release();
                Poll::Ready(None)
            }
            Poll::Pending => self.poll_timer(cx),
        }
    }

    fn poll_timer(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(lease) = &mut self.lease else {
            return Poll::Pending;
        };
        if !self.armed {
            lease.link.arm(Instant::now(), self.read_timeout);
            self.armed = true;
        }
        match lease.link.poll_timer(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                self.lease = None;
                Poll::Ready(Some(Err(BodyError::Timeout)))
            }
        }
    }

    fn release(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.release();
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Relay(relay) => relay.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Full(None) => true,
            Self::Full(Some(_)) => false,
            Self::Relay(relay) => relay.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Full(None) => SizeHint::with_exact(0),
            Self::Full(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Self::Relay(relay) => relay.body.size_hint(),
        }
    }
}
