//! The bodies that flow through the proxy: streamed in both directions with back-pressure, never collected.

use super::buffer::Buffered;
use super::filtered::Filtered;
use super::link::Link;
use super::logged::Logged;
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
    /// The same, of which a part is here.
    Buffered(Box<Buffered>),
}

/// How far a request's body has come; shared with the one who waits for the response.
pub(super) struct Progress {
    bytes_max: Cell<u64>,
    finished: Cell<bool>,
    frames: Cell<u64>,
    bytes: Cell<u64>,
    waits_for_client: Cell<bool>,
    broken: Cell<bool>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            bytes_max: Cell::new(u64::MAX),
            finished: Cell::default(),
            frames: Cell::default(),
            bytes: Cell::default(),
            waits_for_client: Cell::default(),
            broken: Cell::default(),
        }
    }
}

impl Progress {
    /// Notes what a body gave when it was asked.
    pub(super) fn polled(
        &self,
        polled: &Poll<Option<Result<Frame<Bytes>, hyper::Error>>>,
        ended: bool,
    ) {
        self.waits_for_client.set(polled.is_pending());
        match polled {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) => self.passed(frame, ended),
            Poll::Ready(Some(Err(_))) => self.broken.set(true),
            Poll::Ready(None) => self.finished.set(true),
        }
    }

    /// Notes a frame that goes to the upstream.
    pub(super) fn passed(&self, frame: &Frame<Bytes>, ended: bool) {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        self.bytes.set(self.bytes.get() + bytes as u64);
        self.frames.set(self.frames.get() + 1);
        self.finished.set(ended);
    }
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

    /// Bytes passed on so far.
    pub(super) fn bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, |progress| progress.bytes.get())
    }

    /// Whether it is the client that keeps us waiting.
    pub(super) fn waits_for_client(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|progress| progress.waits_for_client.get())
    }

    /// Lets no more than so many bytes pass.
    pub(super) fn limit(&self, bytes_max: u64) {
        if let Some(progress) = &self.0 {
            let before = progress.bytes_max.get();
            progress.bytes_max.set(before.min(bytes_max));
        }
    }

    /// Whether there are more bytes than may pass.
    pub(super) fn is_too_large(&self) -> bool {
        let over = |progress: &Rc<Progress>| progress.bytes.get() > progress.bytes_max.get();
        self.0.as_ref().is_some_and(over)
    }

    /// Whether the client broke its body.
    pub(super) fn is_broken(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|progress| progress.broken.get())
    }
}

impl Outgoing {
    /// A body that is here.
    pub(super) fn whole(body: Bytes) -> (Self, Upload) {
        if body.is_empty() {
            return (Self::Empty, Upload(None));
        }
        let progress = Rc::<Progress>::default();
        let buffered = Buffered::whole(body, Rc::clone(&progress));
        (Self::Buffered(Box::new(buffered)), Upload(Some(progress)))
    }

    /// The client's body, or nothing if it is empty.
    pub(super) fn new(body: Incoming) -> (Self, Upload) {
        use http_body::Body as _;
        if body.is_end_stream() {
            return (Self::Empty, Upload(None));
        }
        let progress = Rc::<Progress>::default();
        // Nobody has asked it for anything yet.
        progress.waits_for_client.set(true);
        (
            Self::Client {
                body,
                progress: Rc::clone(&progress),
            },
            Upload(Some(progress)),
        )
    }
}

/// A request's body that stopped before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    /// The client broke it off.
    #[error("the client broke its request")]
    Client(#[source] hyper::Error),
    /// It has more bytes than may pass.
    #[error("the request is too large")]
    TooLarge,
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let (polled, progress) = match self.get_mut() {
            Self::Empty => return Poll::Ready(None),
            Self::Client { body, progress } => {
                let polled = Pin::new(&mut *body).poll_frame(cx);
                progress.polled(&polled, body.is_end_stream());
                (polled, &**progress)
            }
            Self::Buffered(buffered) => (buffered.poll(cx), buffered.progress()),
        };
        if progress.bytes.get() > progress.bytes_max.get() {
            return Poll::Ready(Some(Err(UploadError::TooLarge)));
        }
        polled.map_err(UploadError::Client)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client { body, .. } => body.is_end_stream(),
            Self::Buffered(buffered) => buffered.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client { body, .. } => body.size_hint(),
            Self::Buffered(buffered) => buffered.size_hint(),
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
    /// Another, with the line it writes into the access log at its end.
    Logged(Box<Logged>),
    /// Another, changed by plugins.
    Filtered(Box<Filtered>),
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
            Self::Logged(logged) => logged.poll(cx),
            Self::Filtered(filtered) => filtered.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Full(None) => true,
            Self::Full(Some(_)) => false,
            Self::Relay(relay) => relay.body.is_end_stream(),
            Self::Logged(logged) => logged.body().is_end_stream(),
            Self::Filtered(filtered) => filtered.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Full(None) => SizeHint::with_exact(0),
            Self::Full(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Self::Relay(relay) => relay.body.size_hint(),
            Self::Logged(logged) => logged.body().size_hint(),
            Self::Filtered(filtered) => filtered.size_hint(),
        }
    }
}
