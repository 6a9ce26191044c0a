//! Requests that ask for another protocol on their connection, WebSocket above all: passed on, and once the upstream
//! has agreed, bytes both ways until one side is done.
//!
//! A request is only treated so if it has no body, and the connection is only given up after the upstream's 101. Until
//! then what a client sends is read as requests, so nothing can be smuggled past the gateway.

use super::body::Lease;
use super::worker::Worker;
use crate::table::Service;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What an upgrade to would hide requests in: they would pass by routes and plugins.
const REFUSED: [&str; 3] = ["h2c", "h2", "http"];
const TLS: &str = "tls";

/// A client's wish for another protocol.
pub(super) struct Upgrade {
    /// The protocol.
    protocol: HeaderValue,
    client: OnUpgrade,
}

impl Upgrade {
    /// Takes the wish out of a request, if there is one that may be passed on.
    pub(super) fn take(parts: &mut Parts, has_body: bool) -> Option<Box<Self>> {
        // hyper adds this if there is an `Upgrade`: for all other requests this is one look at a null pointer.
        let client = parts.extensions.remove::<OnUpgrade>()?;
        let headers = &parts.headers;
        if parts.version != Version::HTTP_11 || parts.method != Method::GET || has_body {
            return None;
        }
        let mut protocols = headers.get_all(header::UPGRADE).iter();
        let protocol = protocols.next().filter(|_| protocols.next().is_none())?;
        let asked = names_upgrade(headers) && may_pass(protocol);
        asked.then(|| {
            Box::new(Self {
                protocol: protocol.clone(),
                client,
            })
        })
    }

    /// Says it to the next hop.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, self.protocol.clone());
    }

    /// Whether the upstream agreed to what was asked for.
    pub(super) fn is_granted(&self, headers: &HeaderMap) -> bool {
        let mut granted = headers.get_all(header::UPGRADE).iter();
        granted.next().is_some_and(|protocol| {
            protocol
                .as_bytes()
                .eq_ignore_ascii_case(self.protocol.as_bytes())
        }) && granted.next().is_none()
    }
}

fn names_upgrade(headers: &HeaderMap) -> bool {
    let tokens = headers.get_all(header::CONNECTION).iter();
    let mut tokens = tokens.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

/// One protocol, and not one that a gateway speaks itself.
fn may_pass(protocol: &HeaderValue) -> bool {
    let Ok(text) = protocol.to_str() else {
        return false;
    };
    let name = text.split('/').next().unwrap_or_default();
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
    !name.is_empty()
        && text.bytes().all(|byte| token(byte) || byte == b'/')
        && !name.eq_ignore_ascii_case(TLS)
        && !REFUSED
            .iter()
            .any(|refused| name.eq_ignore_ascii_case(refused))
}

/// Connects the client to the upstream that answered 101, from when both are free of HTTP on. The tunnel counts as a
/// connection of the worker: a drain waits for it.
pub(super) fn connect(
    worker: &Rc<Worker>,
    upgrade: Upgrade,
    response: &mut Response<Incoming>,
    lease: Lease,
    service: &Service,
) {
    let Lease { link, flight, .. } = lease;
    let upstream = hyper::upgrade::on(response);
    let timeouts = Timeouts {
        idle: service.read_timeout,
        write: service.write_timeout,
    };
    worker.track(async move {
        let both = futures::future::try_join(upgrade.client, upstream).await;
        // Its connection has to live until it is free.
        drop(link);
        match both {
            Ok((client, upstream)) => relay(client, upstream, timeouts).await,
            Err(error) => tracing::debug!(%error, "an upgrade failed"),
        }
        drop(flight);
    });
}

/// Marks the response as the gateway's own agreement.
pub(super) fn agree(response: &mut Response<super::body::Body>, protocol: HeaderValue) {
    debug_assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

impl Upgrade {
    /// The protocol asked for.
    pub(super) fn protocol(&self) -> HeaderValue {
        self.protocol.clone()
    }
}

#[derive(Clone, Copy)]
struct Timeouts {
    /// Without a byte in either direction.
    idle: Duration,
    /// For a write that does not get on.
    write: Duration,
}

async fn relay(client: Upgraded, upstream: Upgraded, timeouts: Timeouts) {
    let activity = Rc::new(Activity::default());
    let mut client = Watched::new(client, &activity);
    let mut upstream = Watched::new(upstream, &activity);
    let copied = tokio::select! {
        copied = tokio::io::copy_bidirectional(&mut client, &mut upstream) => copied,
        error = activity.watch(timeouts) => Err(error),
    };
    match copied {
        Ok((sent, received)) => tracing::trace!(sent, received, "a tunnel ended"),
        Err(error) => tracing::debug!(%error, "a tunnel broke"),
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
struct Watched {
    io: TokioIo<Upgraded>,
    activity: Rc<Activity>,
    waits: bool,
}

impl Watched {
    fn new(io: Upgraded, activity: &Rc<Activity>) -> Self {
        Self {
            io: TokioIo::new(io),
            activity: Rc::clone(activity),
            waits: false,
        }
    }

    fn wrote<T>(&mut self, polled: Poll<T>) -> Poll<T> {
        if polled.is_ready() {
            self.activity.moved.set(Instant::now());
            if std::mem::take(&mut self.waits) {
                self.activity.stuck.set(None);
            }
        } else if !std::mem::replace(&mut self.waits, true) {
            self.activity.stuck.set(Some(Instant::now()));
        }
        polled
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.io).poll_read(cx, buffer);
        if polled.is_ready() {
            this.activity.moved.set(Instant::now());
        }
        polled
    }
}

impl AsyncWrite for Watched {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_protocols_that_hide_no_requests_may_pass() {
        let may = |text: &'static str| may_pass(&HeaderValue::from_static(text));
        assert!(may("websocket") && may("WebSocket") && may("foo/2"));
        for bad in [
            "h2c",
            "H2C",
            "http/2.0",
            "TLS/1.2",
            "tls/1.2",
            "websocket, h2c",
            "",
            "/x",
            "a b",
        ] {
            assert!(!may(bad), "{bad}");
        }
    }
}
