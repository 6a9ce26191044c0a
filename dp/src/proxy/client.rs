//! Client connections: the handshake where there is one, then HTTP/1.1 or HTTP/2 until the client is done, has been
//! idle for too long, or the worker drains.

use super::body::{Body, BodyError};
use super::drain::{self, Drain};
use super::exec::LocalExec;
use super::guard::{Guard, Http2Budget};
use super::life;
use super::limits::Limits;
use super::peer::Peer;
use super::tls::server::HTTP2;
use super::worker::Worker;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::Cell;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

/// What a client may send before it is read, per request and per connection.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// What is held of a response for a client that does not read it.
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Requests a client may begin and take back before they were looked at; more, and the connection ends
/// (CVE-2023-44487).
const PENDING_RESETS_MAX: usize = 20;
/// Requests that may end by errors of the client before the connection does.
const ERROR_RESETS_MAX: usize = 256;
/// How often a client is asked whether it is still there, and how long it may take to answer.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// What HTTP/2 begins with. No method of HTTP/1.1 does.
const PREFACE: &[u8; 3] = b"PRI";
/// Pauses between looks at a beginning of less than that.
const PEEK_PAUSE: Duration = Duration::from_millis(5);
const PEEK_PAUSE_MAX: Duration = Duration::from_secs(1);

/// What a listener's clients speak.
#[derive(Clone)]
pub(super) enum Entrance {
    /// HTTP/1.1 in clear.
    Plain,
    /// The same, or HTTP/2 from the first byte on.
    Either,
    Tls(TlsAcceptor),
    /// No HTTP.
    Stream,
    /// The same over TLS.
    StreamTls(TlsAcceptor),
}

/// How HTTP/2 is spoken to clients. The head of a request counts each field as name, value and 32 bytes.
pub(super) fn http2_builder(limits: &Limits) -> http2::Builder<LocalExec> {
    let mut http = http2::Builder::new(LocalExec);
    http.timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(limits.header_bytes_max)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(ERROR_RESETS_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    http
}

/// Serves HTTP/1.1. Not an async fn: that would keep its arguments twice.
pub(super) fn serve_http1<I>(
    worker: &Rc<Worker>,
    io: I,
    peer: Peer,
) -> impl Future<Output = ()> + use<I>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let send_timeout = worker.options.clients.send_timeout;
    let io = TokioIo::new(Guard::http1(io, send_timeout, peer.tunnel.clone()));
    let (remote, peer) = (peer.remote, Rc::new(peer));
    let begun = Rc::new(Cell::new(false));
    let service = {
        let (worker, begun) = (Rc::clone(worker), Rc::clone(&begun));
        service_fn(move |request| {
            begun.set(true);
            life::serve(Rc::clone(&worker), Rc::clone(&peer), request)
        })
    };
    let connection = worker.http1.serve_connection(io, service).with_upgrades();
    let drain = Rc::clone(&worker.drain);
    async move {
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = Rc::clone(&drain).asked() => {
                // hyper would close it at once if it has not asked for anything.
                let first = Box::pin(first_request(connection.as_mut(), &begun, drain)).await;
                match first {
                    Some(ended) => ended,
                    None => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                }
            }
        };
        log_end(remote, ended);
    }
}

/// Runs a connection until its first request is here, or should have been. Gives how it ended, if it did.
async fn first_request<C: Future>(
    mut connection: Pin<&mut C>,
    begun: &Cell<bool>,
    drain: Rc<Drain>,
) -> Option<C::Output> {
    let mut overdue = pin!(drain::overdue(drain));
    std::future::poll_fn(|cx| {
        if begun.get() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(Some(ended));
        }
        if begun.get() {
            return Poll::Ready(None);
        }
        overdue.as_mut().poll(cx).map(|()| None)
    })
    .await
}

/// Serves HTTP/2. A drain and idleness end it by GOAWAY: what was begun is finished.
fn serve_http2<I>(worker: &Rc<Worker>, io: I, peer: Peer) -> impl Future<Output = ()> + use<I>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let limits = worker.options.clients;
    let resets_max = limits.resets_max;
    let guard = Guard::http2(io, limits.send_timeout, Http2Budget { resets_max });
    let io = TokioIo::new(guard);
    let (remote, peer) = (peer.remote, Rc::new(peer));
    let use_of = Rc::new(Use::default());
    let service = {
        let (worker, use_of) = (Rc::clone(worker), Rc::clone(&use_of));
        service_fn(move |request| {
            let open = Open::new(&use_of);
            let answer = life::serve(Rc::clone(&worker), Rc::clone(&peer), request);
            async move {
                let response = answer.await?;
                Ok::<_, std::convert::Infallible>(response.map(|body| Held { body, open }))
            }
        })
    };
    let connection = worker.http2.serve_connection(io, service);
    let drain = Rc::clone(&worker.drain);
    let idle = limits.header_timeout;
    async move {
        let mut connection = pin!(connection);
        let mut asked = pin!(drain.asked());
        let mut leaving = false;
        let ended = loop {
            let seen = (use_of.begun.get(), use_of.moved.get());
            let look = Instant::now() + idle;
            tokio::select! {
                biased;
                ended = connection.as_mut() => break ended,
                () = &mut asked, if !leaving => {}
                () = tokio::time::sleep_until(look) => {
                    let moved = (use_of.begun.get(), use_of.moved.get()) != seen;
                    if moved || use_of.waits_for_upstream() {
                        continue;
                    }
                    // It was asked to leave, and did not; or it has not taken a byte of its answers for so long.
                    if leaving || use_of.open.get() > 0 {
                        break Ok(());
                    }
                }
            }
            leaving = true;
            connection.as_mut().graceful_shutdown();
        };
        log_end(remote, ended);
    }
}

fn log_end(remote: SocketAddr, ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::trace!(%remote, %error, "client connection ended");
    }
}

/// Serves a client in clear that may begin with HTTP/2.
pub(super) async fn serve_either(
    worker: Rc<Worker>,
    stream: TcpStream,
    remote: SocketAddr,
    local: SocketAddr,
) {
    let beginning = begins_with_http2(&stream);
    let timeout = worker.options.clients.header_timeout;
    let mut overdue = pin!(drain::overdue(Rc::clone(&worker.drain)));
    let http2 = tokio::select! {
        biased;
        () = &mut overdue => return,
        http2 = tokio::time::timeout(timeout, beginning) => http2,
    };
    let peer = Peer::new(remote, local, &worker.options.trust);
    match http2 {
        Ok(Ok(true)) => Box::pin(serve_http2(&worker, stream, peer)).await,
        Ok(Ok(false)) => Box::pin(serve_http1(&worker, stream, peer)).await,
        Ok(Err(_)) | Err(_) => {}
    }
}

/// Looks at the first bytes without taking them.
async fn begins_with_http2(stream: &TcpStream) -> std::io::Result<bool> {
    let mut pause = PEEK_PAUSE;
    loop {
        let mut bytes = [0; PREFACE.len()];
        let count = stream.peek(&mut bytes).await?;
        let bytes = bytes.get(..count).unwrap_or_default();
        if count == 0 || !PREFACE.starts_with(bytes) {
            return Ok(false);
        }
        if count == PREFACE.len() {
            return Ok(true);
        }
        // The socket stays readable: there is nothing to wait for but time.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PEEK_PAUSE_MAX);
    }
}

/// Serves a client over TLS.
pub(super) async fn serve_tls(
    worker: Rc<Worker>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    remote: SocketAddr,
    local: SocketAddr,
) {
    let timeout = worker.options.tls.handshake_timeout;
    let stream = {
        let handshake = Box::pin(acceptor.accept(stream));
        let mut overdue = pin!(drain::overdue(Rc::clone(&worker.drain)));
        tokio::select! {
            biased;
            handshake = tokio::time::timeout(timeout, handshake) => match handshake {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    tracing::debug!(%remote, %error, "no TLS with a client");
                    return;
                }
                Err(_) => {
                    tracing::debug!(%remote, "a client did not finish its TLS handshake in time");
                    return;
                }
            },
            () = &mut overdue => return,
        }
    };
    let session = stream.get_ref().1;
    let peer = Peer::over_tls(
        Peer::new(remote, local, &worker.options.trust),
        session.server_name(),
    );
    if session.alpn_protocol() == Some(HTTP2) {
        Box::pin(serve_http2(&worker, stream, peer)).await;
    } else {
        Box::pin(serve_http1(&worker, stream, peer)).await;
    }
}

/// What a connection is used for.
#[derive(Default)]
struct Use {
    /// Requests so far.
    begun: Cell<u64>,
    /// Requests whose response is not finished.
    open: Cell<usize>,
    /// Of these, those whose upstream has still to give something.
    upstream: Cell<usize>,
    /// Pieces of responses so far.
    moved: Cell<u64>,
}

impl Use {
    fn waits_for_upstream(&self) -> bool {
        self.upstream.get() > 0
    }
}

/// A request in progress.
struct Open {
    use_of: Rc<Use>,
    /// Whether it waits for its upstream, and not for its client.
    upstream: Cell<bool>,
}

impl Open {
    fn new(use_of: &Rc<Use>) -> Self {
        use_of.begun.set(use_of.begun.get() + 1);
        use_of.open.set(use_of.open.get() + 1);
        use_of.upstream.set(use_of.upstream.get() + 1);
        Self {
            use_of: Rc::clone(use_of),
            upstream: Cell::new(true),
        }
    }

    fn wait_for_upstream(&self, waits: bool) {
        let count = &self.use_of.upstream;
        match (self.upstream.replace(waits), waits) {
            (false, true) => count.set(count.get() + 1),
            (true, false) => count.set(count.get() - 1),
            (true, true) | (false, false) => {}
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.wait_for_upstream(false);
        self.use_of.open.set(self.use_of.open.get() - 1);
    }
}

/// A response's body that says when it is finished.
struct Held {
    body: Body,
    open: Open,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        // A frame that is given is the client's to take.
        self.open.wait_for_upstream(polled.is_pending());
        let moved = &self.open.use_of.moved;
        moved.set(moved.get() + 1);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
