//! Requests that ask for another protocol on their connection, WebSocket above all: passed on, and once the upstream
//! has agreed, bytes both ways until one side is done.
//!
//! A request is only treated so if it has no body, and the connection is only given up after the upstream's 101. Until
//! then what a client sends is read as requests, so nothing can be smuggled past the gateway.

use super::body::Lease;
use super::guard::Tunnel;
use super::tunnel::{self, Timeouts};
use super::worker::Worker;
use crate::table::Service;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::rc::Rc;

/// What an upgrade to would hide requests in: they would pass by routes and plugins.
const REFUSED: [&str; 3] = ["h2c", "h2", "http"];
const TLS: &str = "tls";

/// A client's wish for another protocol.
pub(super) struct Upgrade {
    /// The protocol.
    protocol: HeaderValue,
    client: OnUpgrade,
    /// Told when the client's connection stops being HTTP.
    tunnel: Tunnel,
}

impl Upgrade {
    /// Takes the wish out of a request, if there is one that may be passed on.
    pub(super) fn take(parts: &mut Parts, has_body: bool, tunnel: &Tunnel) -> Option<Box<Self>> {
        // hyper adds this if there is an `Upgrade`: for all other requests this is one look at a null pointer.
        let client = parts.extensions.remove::<OnUpgrade>()?;
        let protocol = wish(parts, has_body)?.clone();
        Some(Box::new(Self {
            protocol,
            client,
            tunnel: tunnel.clone(),
        }))
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

/// The protocol that a request wants, if it may be passed on.
pub(super) fn wish(parts: &Parts, has_body: bool) -> Option<&HeaderValue> {
    let headers = &parts.headers;
    if parts.version != Version::HTTP_11 || parts.method != Method::GET || has_body {
        return None;
    }
    let mut protocols = headers.get_all(header::UPGRADE).iter();
    let protocol = protocols.next().filter(|_| protocols.next().is_none())?;
    let asked = names_upgrade(headers) && may_pass(protocol);
    asked.then_some(protocol)
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
    // Before the client can know of it.
    upgrade.tunnel.open();
    let Lease { link, flight, .. } = lease;
    let upstream = hyper::upgrade::on(response);
    let timeouts = Timeouts::from(service);
    worker.track(async move {
        let both = futures::future::try_join(upgrade.client, upstream).await;
        // Its connection has to live until it is free.
        drop(link);
        match both {
            Ok((client, upstream)) => {
                let (client, upstream) = (TokioIo::new(client), TokioIo::new(upstream));
                let carried = tunnel::relay(client, upstream, timeouts).await;
                tracing::trace!(?carried, "a tunnel ended");
            }
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
