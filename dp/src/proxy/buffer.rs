//! Request bodies that are read before an upstream is asked, so that a slow client does not keep one waiting. What is
//! larger than the buffer is streamed from then on: nothing is written to a disk. A body that is here as a whole is sent
//! with its length, however the client told it.

use super::body::{Outgoing, Progress};
use super::errors::Failure;
use super::limits::Limits;
use bytes::Bytes;
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
            let buffered = read(body, progress, limits).await?;
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

async fn read(
    mut body: Incoming,
    progress: Rc<Progress>,
    limits: &Limits,
) -> Result<Buffered, Failure> {
    let mut buffered = Buffered {
        data: VecDeque::new(),
        trailers: None,
        rest: None,
        bytes: 0,
        progress,
    };
    // So much has to be here when the time is up; the timeout is one between two frames, too.
    let mut due = Due::new(limits, 0);
    while buffered.bytes < BUFFER_BYTES_MAX as u64 {
        let frame = loop {
            match timeout_at(due.at, body.frame()).await {
                Ok(frame) => break frame,
                Err(_) if buffered.bytes >= due.bytes => due = Due::new(limits, buffered.bytes),
                Err(_) => return Err(Failure::RequestTimeout),
            }
        };
        match frame {
            None => return Ok(buffered),
            Some(Err(_)) => return Err(Failure::BadRequest),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    buffered.bytes += data.len() as u64;
                    buffered.data.push_back(data);
                }
                Err(frame) => buffered.trailers = frame.into_trailers().ok(),
            },
        }
        if body.is_end_stream() {
            return Ok(buffered);
        }
    }
    buffered.rest = Some(body);
    Ok(buffered)
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
