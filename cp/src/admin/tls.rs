//! Connections to the Admin API, with TLS or without, and who is at their other end.

use crate::start::AdminTls;
use anyhow::{Context, ensure};
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// More wait for their turn.
const HANDSHAKES_MAX: usize = 256;
/// When there are no more open files, or the like.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// The names in its certificate, if it showed one that is verified.
    pub(super) names: Arc<[String]>,
}

type Connection = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// The socket of the Admin API.
pub(super) struct Socket {
    tcp: TcpListener,
    tls: Option<TlsAcceptor>,
    handshakes: JoinSet<Option<(Connection, Peer)>>,
}

impl Socket {
    pub(super) fn new(tcp: TcpListener, tls: Option<Arc<ServerConfig>>) -> Self {
        Self {
            tcp,
            tls: tls.map(TlsAcceptor::from),
            handshakes: JoinSet::new(),
        }
    }

    /// The next connection that needs no handshake.
    fn take(&mut self, stream: TcpStream, address: SocketAddr) -> Option<(Connection, Peer)> {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "could not set TCP_NODELAY");
        }
        let Some(acceptor) = self.tls.clone() else {
            let names = Arc::default();
            return Some((Either::Left(stream), Peer { address, names }));
        };
        self.handshakes.spawn(async move {
            let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
            let stream = match shaken {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    tracing::debug!(%error, %address, "no TLS with a caller of the Admin API");
                    return None;
                }
                Err(_) => return None,
            };
            let shown = stream.get_ref().1.peer_certificates();
            let names = shown.and_then(<[_]>::first).map(names_of);
            let names = names.unwrap_or_default().into();
            Some((Either::Right(Box::new(stream)), Peer { address, names }))
        });
        None
    }
}

impl Listener for Socket {
    type Io = Connection;
    type Addr = Peer;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                accepted = self.tcp.accept(), if self.handshakes.len() < HANDSHAKES_MAX => match accepted {
                    Ok((stream, address)) => {
                        if let Some(taken) = self.take(stream, address) {
                            return taken;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "could not take a connection to the Admin API");
                        tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                    }
                },
                Some(shaken) = self.handshakes.join_next(), if !self.handshakes.is_empty() => {
                    if let Ok(Some(taken)) = shaken {
                        return taken;
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        let names = Arc::default();
        let address = self.tcp.local_addr()?;
        Ok(Peer { address, names })
    }
}

impl Connected<IncomingStream<'_, Socket>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Socket>) -> Self {
        stream.remote_addr().clone()
    }
}

/// The common name and the DNS names of a certificate.
fn names_of(certificate: &CertificateDer<'static>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let common = certificate.subject().iter_common_name();
    let common = common
        .filter_map(|name| name.as_str().ok())
        .map(str::to_owned);
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let alternative = alternative
        .iter()
        .flat_map(|found| &found.value.general_names);
    let alternative = alternative.filter_map(|name| {
        let GeneralName::DNSName(name) = name else {
            return None;
        };
        Some((*name).to_owned())
    });
    common.chain(alternative).collect()
}

/// What the Admin API's TLS is made of.
///
/// # Errors
/// If a file cannot be read, or does not hold what it should.
pub(crate) fn config(tls: &AdminTls) -> anyhow::Result<Arc<ServerConfig>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions()?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                let added = roots.add(certificate);
                added.with_context(|| format!("an authority in {path:?} cannot be used"))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            // Whoever has a token needs no certificate.
            builder.with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
        }
    };
    let key = PrivateKeyDer::from_pem_file(&tls.key);
    // What could not be read may be the key: nothing of it is said.
    let key =
        key.map_err(|_| anyhow::anyhow!("no private key in {:?} (admin_ssl_cert_key)", tls.key))?;
    let mut config = builder
        .with_single_cert(certificates(&tls.certificate)?, key)
        .context("admin_ssl_cert and admin_ssl_cert_key cannot be used")?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_file_iter(path);
    let found = found.with_context(|| format!("could not read {path:?}"))?;
    let found: Vec<_> = found.collect::<Result<_, _>>()?;
    ensure!(!found.is_empty(), "there is no certificate in {path:?}");
    Ok(found)
}
