//! TLS of clients: which certificate each is shown.

use super::super::listen::Listen;
use super::{TlsOptions, provider, self_signed};
use crate::table::{Certificate, Table};
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::fmt;
use std::io;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

const HTTP1: &[u8] = b"http/1.1";
/// HTTP/2 in ALPN.
pub(in super::super) const HTTP2: &[u8] = b"h2";

/// Looks the certificate up at each handshake, in the table of that moment.
struct Resolver {
    tables: Arc<ArcSwap<Table>>,
    default: Arc<Certificate>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let table = self.tables.load();
        let configured = client
            .server_name()
            .and_then(|name| table.certificate_for(name));
        configured
            .unwrap_or(&self.default)
            .choose(client.signature_schemes())
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

/// What listeners with TLS need, one for each list of protocols. Shared by the workers, so that a session a client
/// began with one is resumed by any.
#[derive(Clone)]
pub(in super::super) struct Acceptors {
    http1: TlsAcceptor,
    http2: TlsAcceptor,
    stream: TlsAcceptor,
}

impl Acceptors {
    /// `None` if nobody listens for TLS.
    pub(in super::super) fn new<'a>(
        options: &TlsOptions,
        mut listen: impl Iterator<Item = &'a Listen>,
        tables: &Arc<ArcSwap<Table>>,
    ) -> io::Result<Option<Self>> {
        if !listen.any(|listen| listen.ssl) {
            return Ok(None);
        }
        let default = match &options.default_certificate {
            Some(certificate) => Arc::clone(certificate),
            None => {
                tracing::warn!(
                    "no ssl_cert is set: clients that ask for a server name without a certificate of its own are shown \
                     a self-signed one, made now"
                );
                Arc::new(self_signed().map_err(io::Error::other)?)
            }
        };
        let resolver = Arc::new(Resolver {
            tables: Arc::clone(tables),
            default,
        });
        let versions = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let mut config = versions.with_no_client_auth().with_cert_resolver(resolver);
        config.ticketer = Ticketer::new().map_err(io::Error::other)?;
        let stream = TlsAcceptor::from(Arc::new(config.clone()));
        config.alpn_protocols = vec![HTTP1.to_vec()];
        let http1 = TlsAcceptor::from(Arc::new(config.clone()));
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        let http2 = TlsAcceptor::from(Arc::new(config));
        Ok(Some(Self {
            http1,
            http2,
            stream,
        }))
    }

    /// For what is no HTTP: no protocol is agreed on.
    pub(in super::super) fn stream(&self) -> TlsAcceptor {
        self.stream.clone()
    }

    pub(in super::super) fn of(&self, listen: &Listen) -> TlsAcceptor {
        if listen.http2 {
            self.http2.clone()
        } else {
            self.http1.clone()
        }
    }
}
