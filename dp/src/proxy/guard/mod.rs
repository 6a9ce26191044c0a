//! A client's connection as the gateway reads it: what hyper would read in one of several ways is spoilt before hyper
//! sees it (`http1`), what costs more than it brings ends the connection (`http2`), and so does a client that does not
//! read its answers.

mod http1;
mod http2;

use http1::Heads;
use http2::Frames;
pub(super) use http2::Http2Budget;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Set once a connection carries another protocol than HTTP: from then on its bytes are nobody's but the tunnel's.
#[derive(Clone, Debug, Default)]
pub(super) struct Tunnel(Arc<AtomicBool>);

impl Tunnel {
    /// The next byte is not HTTP.
    pub(super) fn open(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A watched connection.
pub(super) struct Guard<I> {
    io: I,
    reading: Reading,
    send_timeout: Duration,
    /// Whether a write waits.
    waits: bool,
    /// Measures that. Kept, because moving its deadline costs less than a new one.
    timer: Option<Pin<Box<Sleep>>>,
}

enum Reading {
    Http1(Heads, Tunnel),
    Http2(Frames),
}

impl<I> Guard<I> {
    /// A connection that speaks HTTP/1.
    pub(super) fn http1(io: I, send_timeout: Duration, tunnel: Tunnel) -> Self {
        Self {
            io,
            reading: Reading::Http1(Heads::default(), tunnel),
            send_timeout,
            waits: false,
            timer: None,
        }
    }

    /// A connection that begins with the preface of HTTP/2.
    pub(super) fn http2(io: I, send_timeout: Duration, budget: Http2Budget) -> Self {
        Self {
            io,
            reading: Reading::Http2(Frames::new(budget)),
            send_timeout,
            waits: false,
            timer: None,
        }
    }

    /// Counts what was written, and how long nothing was.
    fn wrote<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(done) => {
                self.waits = false;
                if let (Reading::Http2(frames), Ok(done)) = (&mut self.reading, &done) {
                    frames.wrote(bytes(done));
                }
                Poll::Ready(done)
            }
            Poll::Pending => {
                let until = || Instant::now() + self.send_timeout;
                let timer = match &mut self.timer {
                    Some(timer) => {
                        if !self.waits {
                            timer.as_mut().reset(until());
                        }
                        timer
                    }
                    none => none.insert(Box::pin(tokio::time::sleep_until(until()))),
                };
                self.waits = true;
                ready!(timer.as_mut().poll(cx));
                let slow = "the client did not read its answer in time";
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, slow)))
            }
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Guard<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
        let Some(read) = buffer.filled_mut().get_mut(before..) else {
            return Poll::Ready(Ok(()));
        };
        match &mut this.reading {
            Reading::Http1(heads, tunnel) => {
                if !tunnel.is_open() {
                    heads.read(read);
                }
                Poll::Ready(Ok(()))
            }
            Reading::Http2(frames) => Poll::Ready(frames.read(read).map_err(io::Error::other)),
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Guard<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.wrote(cx, polled, |count| *count)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write_vectored(cx, bytes);
        this.wrote(cx, polled, |count| *count)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_flush(cx);
        this.wrote(cx, polled, |()| 0)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_shutdown(cx);
        this.wrote(cx, polled, |()| 0)
    }
}
