//! Request bodies that are read before an upstream is asked, so that a slow client does not keep one waiting. What is
//! larger than the buffer is streamed from then on: nothing is written to a disk. A body that is here as a whole is sent
//! with its length, however the client told it.

use super::body::{Outgoing, Progress, Upload};
use super::errors::Failure;
use super::limits::Limits;
use crate::plugin::{BodyFault, RequestBody};
use bytes::{Bytes, BytesMut};
use futures::future::LocalBoxFuture;
use http::{HeaderMap, HeaderValue, Request, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::time::{Instant, timeout_at};

/// The most that is read ahead of one request.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// A body of which a part is here.
pub(super) struct Buffered {
    data: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    /// What has still to come.
    rest: Option<Incoming>,
    /// Of `data`.
    bytes: u64,
    progress: Rc<Progress>,
}

/// Reads the body of a request, up to its end or the buffer's.
pub(super) async fn fill(
    request: &mut Option<Request<Outgoing>>,
    limits: &Limits,
) -> Result<(), Failure> {
    let Some(taken) = request.take() else {
        return Ok(());
    };
    let (mut parts, outgoing) = taken.into_parts();
    let outgoing = match outgoing {
        Outgoing::Client { body, progress } => {
            let mut buffered = Buffered::new(body, progress);
            buffered.gather(BUFFER_BYTES_MAX as u64, limits).await?;
            if buffered.rest.is_none() {
                // Its length is known now.
                parts.headers.remove(header::TRANSFER_ENCODING);
                let length = HeaderValue::from(buffered.bytes);
                parts.headers.insert(header::CONTENT_LENGTH, length);
            }
            if buffered.is_end_stream() {
                // Nobody will ask an empty one for anything.
                buffered.progress.polled(&Poll::Ready(None), true);
            }
            Outgoing::Buffered(Box::new(buffered))
        }
        outgoing @ (Outgoing::Empty | Outgoing::Buffered(_)) => outgoing,
    };
    *request = Some(Request::from_parts(parts, outgoing));
    Ok(())
}

/// A request's body as plugins find it.
pub(super) struct Intake<'a> {
    pub(super) outgoing: Outgoing,
    pub(super) upload: Upload,
    limits: &'a Limits,
}

impl<'a> Intake<'a> {
    pub(super) fn new(body: Incoming, limits: &'a Limits) -> Self {
        let (outgoing, upload) = Outgoing::new(body);
        Self {
            outgoing,
            upload,
            limits,
        }
    }

    async fn gather(&mut self, bytes_max: usize) -> Result<Bytes, BodyFault> {
        let outgoing = std::mem::replace(&mut self.outgoing, Outgoing::Empty);
        let buffered = match outgoing {
            Outgoing::Empty => return Ok(Bytes::new()),
            Outgoing::Client { body, progress } => Box::new(Buffered::new(body, progress)),
            Outgoing::Buffered(buffered) => buffered,
        };
        // At its place before anything is waited for: the wait may be given up.
        self.outgoing = Outgoing::Buffered(buffered);
        let Outgoing::Buffered(buffered) = &mut self.outgoing else {
            return Err(BodyFault::Broken);
        };
        let enough = (bytes_max as u64).saturating_add(1);
        buffered.gather(enough, self.limits).await?;
        if buffered.bytes >= enough {
            return Err(BodyFault::TooLarge);
        }
        let body = buffered.join();
        if buffered.is_end_stream() {
            buffered.progress.polled(&Poll::Ready(None), true);
            self.outgoing = Outgoing::Empty;
        }
        Ok(body)
    }
}

impl RequestBody for Intake<'_> {
    fn is_empty(&self) -> bool {
        self.outgoing.is_end_stream()
    }

    fn read(&mut self, bytes_max: usize) -> LocalBoxFuture<'_, Result<Bytes, BodyFault>> {
        Box::pin(self.gather(bytes_max))
    }

    fn limit(&mut self, bytes_max: u64) {
        self.upload.limit(bytes_max);
    }

    fn replace(&mut self, body: Bytes) {
        (self.outgoing, self.upload) = Outgoing::whole(body);
    }
}

impl From<BodyFault> for Failure {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::Timeout => Self::RequestTimeout,
            // Nothing is too large to be streamed.
            BodyFault::Broken | BodyFault::TooLarge => Self::BadRequest,
        }
    }
}

/// What a client has to have sent by when.
struct Due {
    at: Instant,
    bytes: u64,
}

impl Due {
    fn new(limits: &Limits, bytes: u64) -> Self {
        let wanted = u64::from(limits.body_rate_min) * limits.body_timeout.as_secs();
        Self {
            at: Instant::now() + limits.body_timeout,
            bytes: bytes + wanted.max(1),
        }
    }
}

impl Buffered {
    fn new(body: Incoming, progress: Rc<Progress>) -> Self {
        Self {
            data: VecDeque::new(),
            trailers: None,
            rest: Some(body),
            bytes: 0,
            progress,
        }
    }

    /// A body that is here.
    pub(super) fn whole(body: Bytes, progress: Rc<Progress>) -> Self {
        Self {
            bytes: body.len() as u64,
            data: VecDeque::from([body]),
            trailers: None,
            rest: None,
            progress,
        }
    }

    /// Reads until so many bytes are here, or all.
    async fn gather(&mut self, enough: u64, limits: &Limits) -> Result<(), BodyFault> {
        // So much has to be here when the time is up; the timeout is one between two frames, too.
        let mut due = Due::new(limits, self.bytes);
        while self.bytes < enough
            && let Some(body) = &mut self.rest
        {
            let frame = loop {
                match timeout_at(due.at, body.frame()).await {
                    Ok(frame) => break frame,
                    Err(_) if self.bytes >= due.bytes => due = Due::new(limits, self.bytes),
                    Err(_) => return Err(BodyFault::Timeout),
                }
            };
            match frame {
                None => self.rest = None,
                Some(Err(_)) => return Err(BodyFault::Broken),
                Some(Ok(frame)) => {
                    let ended = body.is_end_stream();
                    match frame.into_data() {
                        Ok(data) => {
                            self.bytes += data.len() as u64;
                            self.data.push_back(data);
                        }
                        Err(frame) => self.trailers = frame.into_trailers().ok(),
                    }
                    if ended {
                        self.rest = None;
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes one piece of what is here.
    fn join(&mut self) -> Bytes {
        let joined = match self.data.make_contiguous() {
            [] => return Bytes::new(),
            [one] => return one.clone(),
            several => {
                let mut joined = BytesMut::new();
                several
                    .iter()
                    .for_each(|data| joined.extend_from_slice(data));
                joined.freeze()
            }
        };
        self.data = VecDeque::from([joined.clone()]);
        joined
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(data) = self.data.pop_front() {
            self.bytes -= data.len() as u64;
            let frame = Frame::data(data);
            self.progress.passed(&frame, self.is_end_stream());
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(trailers) = self.trailers.take() {
            let frame = Frame::trailers(trailers);
            self.progress.passed(&frame, self.rest.is_none());
            return Poll::Ready(Some(Ok(frame)));
        }
        match &mut self.rest {
            Some(rest) => {
                let polled = Pin::new(&mut *rest).poll_frame(cx);
                self.progress.polled(&polled, rest.is_end_stream());
                polled
            }
            None => {
                self.progress.polled(&Poll::Ready(None), true);
                Poll::Ready(None)
            }
        }
    }

    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let rest = self.rest.as_ref().is_none_or(Incoming::is_end_stream);
        self.data.is_empty() && self.trailers.is_none() && rest
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let Some(rest) = &self.rest else {
            return SizeHint::with_exact(self.bytes);
        };
        let rest = rest.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + self.bytes);
        }
        hint.set_lower(rest.lower() + self.bytes);
        hint
    }
}
