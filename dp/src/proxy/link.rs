//! One connection to an upstream: made, used by one request at a time, or shared by streams of HTTP/2.

use super::body::Outgoing;
use super::exec::LocalExec;
use super::pool::{Slot, Way};
use super::tls::server::HTTP2;
use futures::FutureExt;
use futures::future::Either;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// The largest head of a response.
const RESPONSE_HEAD_BYTES_MAX: usize = 64 * 1024;
/// The same for HTTP/2, where it is told to the upstream.
const RESPONSE_HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;
/// What an upstream may send before it is read, per stream and per connection.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// How often a connection in use is asked whether it is still there, and how long it may take to answer.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection to an upstream, or a share of one, in use by one request.
pub(super) struct Link {
    pub(super) sender: Sender,
    /// Where it belongs when idle.
    pub(super) slot: Weak<Slot>,
    /// One timer for the connection's life: moving its deadline further costs far less than a new one per request.
    timer: Pin<Box<Sleep>>,
    /// Whether it has carried a request before.
    pub(super) reused: bool,
}

/// The end of a connection where requests go in.
pub(super) enum Sender {
    Http1(http1::SendRequest<Outgoing>),
    Http2(http2::SendRequest<Outgoing>, Stream),
}

/// One of the requests of a shared connection, for as long as it lives.
#[derive(Clone, Default)]
pub(super) struct Stream(Rc<()>);

impl Stream {
    /// How many there are besides this one.
    pub(super) fn others(&self) -> usize {
        Rc::strong_count(&self.0) - 1
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("could not connect to upstream {0}")]
    Refused(SocketAddr, #[source] io::Error),
    #[error("could not connect to upstream {0} in time")]
    Timeout(SocketAddr),
}

impl Sender {
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender, _) => sender.is_closed(),
        }
    }

    /// Whether it takes a request at once.
    pub(super) fn is_ready(&mut self) -> bool {
        let ready = match self {
            Self::Http1(sender) => sender.ready().now_or_never(),
            Self::Http2(sender, _) => sender.ready().now_or_never(),
        };
        matches!(ready, Some(Ok(())))
    }

    pub(super) fn try_send(
        &mut self,
        request: Request<Outgoing>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Outgoing>>>> + use<>
    {
        match self {
            Self::Http1(sender) => Either::Left(sender.try_send_request(request)),
            Self::Http2(sender, _) => Either::Right(sender.try_send_request(request)),
        }
    }
}

impl Link {
    pub(super) fn new(sender: Sender, slot: &Rc<Slot>, reused: bool) -> Self {
        Self {
            sender,
            slot: Rc::downgrade(slot),
            timer: Box::pin(tokio::time::sleep(Duration::from_secs(3600))),
            reused,
        }
    }

    /// A new connection, driven by a task of this thread. `upgrade` if its request may turn it into something else.
    pub(super) async fn connect(
        slot: &Rc<Slot>,
        timeout: Duration,
        upgrade: bool,
    ) -> Result<Self, ConnectError> {
        let address = slot.address;
        let connecting = establish(address, slot.way.as_ref(), upgrade);
        let sender = tokio::time::timeout(timeout, connecting)
            .await
            .map_err(|_| ConnectError::Timeout(address))?
            .map_err(|error| ConnectError::Refused(address, error))?;
        Ok(Self::new(sender, slot, false))
    }

    /// Where it leads.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.slot.upgrade().map(|slot| slot.address)
    }

    /// Starts the timer anew.
    pub(super) fn arm(&mut self, now: Instant, timeout: Duration) {
        self.timer.as_mut().reset(now + timeout);
    }

    /// Ready when the timer has run out.
    pub(super) fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.as_mut().poll(cx)
    }
}

async fn establish(address: SocketAddr, way: Option<&Way>, upgrade: bool) -> io::Result<Sender> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let http2 = way.is_some_and(|way| way.http2);
    let Some((client, name)) = way.and_then(|way| way.tls.as_ref()) else {
        return speak(address, TokioIo::new(stream), http2, upgrade).await;
    };
    let stream = client.connector.connect(name.clone(), stream).await?;
    let agreed = stream.get_ref().1.alpn_protocol();
    if http2 && agreed.is_some_and(|protocol| protocol != HTTP2) {
        return Err(io::Error::other("the upstream does not speak HTTP/2"));
    }
    speak(address, TokioIo::new(stream), http2, upgrade).await
}

async fn speak<I>(address: SocketAddr, io: I, http2: bool, upgrade: bool) -> io::Result<Sender>
where
    I: Read + Write + Unpin + Send + 'static,
{
    if http2 {
        let (sender, connection) = http2::Builder::new(LocalExec)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(RESPONSE_HEADER_LIST_BYTES_MAX)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake(io)
            .await
            .map_err(io::Error::other)?;
        drive(address, connection);
        return Ok(Sender::Http2(sender, Stream::default()));
    }
    let (sender, connection) = http1::Builder::new()
        .max_header_size(RESPONSE_HEAD_BYTES_MAX)
        .handshake(io)
        .await
        .map_err(io::Error::other)?;
    if upgrade {
        drive(address, connection.with_upgrades());
    } else {
        drive(address, connection);
    }
    Ok(Sender::Http1(sender))
}

fn drive(address: SocketAddr, connection: impl Future<Output = hyper::Result<()>> + 'static) {
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%address, %error, "upstream connection ended");
        }
    });
}
