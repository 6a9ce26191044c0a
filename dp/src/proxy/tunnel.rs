//! Bytes both ways, until both sides are done, nothing moves for too long, or one breaks.

use crate::table::Service;
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// How long a tunnel may stand still.
#[derive(Clone, Copy)]
pub(super) struct Timeouts {
    /// Without a byte in either direction.
    idle: Duration,
    /// For a write that does not get on.
    write: Duration,
}

impl From<&Service> for Timeouts {
    fn from(service: &Service) -> Self {
        Self {
            idle: service.read_timeout,
            write: service.write_timeout,
        }
    }
}

/// What went through a tunnel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carried {
    /// Bytes from the client.
    pub(super) received: u64,
    /// Bytes to the client.
    pub(super) sent: u64,
    /// Whether both sides came to their end.
    pub(super) whole: bool,
}

/// Relays until the end. When one side has said all, the other is told so, and may go on.
pub(super) async fn relay<C, U>(client: C, upstream: U, timeouts: Timeouts) -> Carried
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let activity = Rc::new(Activity::default());
    let mut client = Watched::new(client, &activity);
    let mut upstream = Watched::new(upstream, &activity);
    let copied = tokio::select! {
        copied = tokio::io::copy_bidirectional(&mut client, &mut upstream) => copied.map(drop),
        error = activity.watch(timeouts) => Err(error),
    };
    if let Err(error) = &copied {
        tracing::debug!(%error, "a tunnel broke");
    }
    Carried {
        received: client.read,
        sent: client.written,
        whole: copied.is_ok(),
    }
}

/// When something last moved in a tunnel.
struct Activity {
    moved: Cell<Instant>,
    /// Since when a write waits.
    stuck: Cell<Option<Instant>>,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            moved: Cell::new(Instant::now()),
            stuck: Cell::new(None),
        }
    }
}

impl Activity {
    /// Ends when nothing has moved for too long.
    async fn watch(&self, timeouts: Timeouts) -> io::Error {
        loop {
            let idle = self.moved.get() + timeouts.idle;
            let stuck = self.stuck.get().map(|since| since + timeouts.write);
            // A write that begins to wait later is seen after `write` at the latest, and ends after twice that.
            let look = Instant::now() + timeouts.write.max(Duration::from_millis(1));
            let now = Instant::now();
            if now >= idle || stuck.is_some_and(|stuck| now >= stuck) {
                return io::ErrorKind::TimedOut.into();
            }
            tokio::time::sleep_until(idle.min(stuck.unwrap_or(look)).min(look)).await;
        }
    }
}

/// One side of a tunnel, that notes what moves.
struct Watched<I> {
    io: I,
    activity: Rc<Activity>,
    waits: bool,
    read: u64,
    written: u64,
}

impl<I> Watched<I> {
    fn new(io: I, activity: &Rc<Activity>) -> Self {
        Self {
            io,
            activity: Rc::clone(activity),
            waits: false,
            read: 0,
            written: 0,
        }
    }

    fn wrote(&mut self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if polled.is_ready() {
            self.activity.moved.set(Instant::now());
            if std::mem::take(&mut self.waits) {
                self.activity.stuck.set(None);
            }
        } else if !std::mem::replace(&mut self.waits, true) {
            self.activity.stuck.set(Some(Instant::now()));
        }
        if let Poll::Ready(Ok(count)) = &polled {
            self.written += *count as u64;
        }
        polled
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buffer);
        if polled.is_ready() {
            this.activity.moved.set(Instant::now());
            this.read += (buffer.filled().len() - before) as u64;
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.wrote(polled)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
