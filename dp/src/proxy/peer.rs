//! What is known of a client's connection, in the forms requests need.

use super::forwarded::Trust;
use super::guard::Tunnel;
use bytes::Bytes;
use http::HeaderValue;
use std::net::{IpAddr, SocketAddr};

/// One client connection.
pub(super) struct Peer {
    /// The client.
    pub(super) remote: SocketAddr,
    /// The address it came to.
    pub(super) local: SocketAddr,
    /// The client's address as a header value.
    pub(super) address_text: HeaderValue,
    /// The port it came to as a header value.
    pub(super) port_text: HeaderValue,
    /// Whether it came over TLS.
    pub(super) tls: bool,
    /// The server name it asked for.
    pub(super) server_name: Option<Box<str>>,
    /// Whether it is believed about who it speaks for.
    pub(super) trusted: bool,
    /// Set when it stops being HTTP.
    pub(super) tunnel: Tunnel,
}

impl Peer {
    pub(super) fn new(remote: SocketAddr, local: SocketAddr, trust: &Trust) -> Self {
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let local = SocketAddr::new(local.ip().to_canonical(), local.port());
        let address = HeaderValue::from_maybe_shared(Bytes::from(remote.ip().to_string()));
        Self {
            remote,
            local,
            address_text: address.expect("an address's text is a valid header value"),
            port_text: HeaderValue::from(local.port()),
            tls: false,
            server_name: None,
            trusted: trust.covers(remote.ip()),
            tunnel: Tunnel::default(),
        }
    }

    /// The same over TLS.
    pub(super) fn over_tls(self, name: Option<&str>) -> Self {
        Self {
            tls: true,
            server_name: name.map(Into::into),
            ..self
        }
    }

    /// The scheme of its requests.
    pub(super) fn scheme(&self) -> HeaderValue {
        HeaderValue::from_static(if self.tls { "https" } else { "http" })
    }

    pub(super) fn address(&self) -> IpAddr {
        self.remote.ip()
    }
}
