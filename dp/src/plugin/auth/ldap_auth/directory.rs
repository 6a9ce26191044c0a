//! A directory, asked whether a password is right.

use super::message::{self, AnswerError, SUCCESS};
use crate::proxy::{AnyCertificate, provider};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// When a server speaks TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tls {
    Never,
    /// After it was asked to.
    Asked,
    /// From the start.
    Always,
}

/// A directory's server, and where its users are.
pub(super) struct Directory {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Tls,
    pub(super) connector: Option<TlsConnector>,
    pub(super) timeout: Duration,
    pub(super) attribute: String,
    pub(super) base: String,
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Directory({}:{})", self.host, self.port)
    }
}

/// Why a directory gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum DirectoryError {
    /// It took too long.
    #[error("the LDAP server did not answer within the plugin's `timeout`")]
    Timeout,
    /// It cannot be reached, or TLS failed.
    #[error(
        "no connection to the LDAP server: see that `ldap_host`, `ldap_port` and the TLS settings are right"
    )]
    Connection(#[source] std::io::Error),
    /// It refuses to speak TLS.
    #[error("the LDAP server refuses StartTLS with result code {0}")]
    NoTls(u8),
    /// It cannot say now.
    #[error("the LDAP server cannot answer now: result code {0}")]
    Unavailable(u8),
    /// It speaks something else.
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

impl From<std::io::Error> for DirectoryError {
    fn from(fault: std::io::Error) -> Self {
        Self::Connection(fault)
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

impl Directory {
    /// Whether a user has this password. Both are not empty: with an empty password servers believe everybody (RFC 4513,
    /// 5.1.2).
    pub(super) async fn is_password(
        &self,
        user: &str,
        password: &str,
    ) -> Result<bool, DirectoryError> {
        let asked = tokio::time::timeout(self.timeout, self.ask(user, password));
        asked.await.map_err(|_| DirectoryError::Timeout)?
    }

    async fn ask(&self, user: &str, password: &str) -> Result<bool, DirectoryError> {
        /// `busy`, `unavailable`
        const LATER: [u8; 2] = [51, 52];
        let name = format!("{}={},{}", self.attribute, message::escape(user), self.base);
        let mut stream = self.connect().await?;
        stream.write_all(&message::bind(2, &name, password)).await?;
        let code = message::answer(&mut stream, 2).await?;
        // The answer is there, whether good-bye is heard or not.
        let _ = stream.write_all(&message::unbind(3)).await;
        if LATER.contains(&code) {
            return Err(DirectoryError::Unavailable(code));
        }
        Ok(code == SUCCESS)
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, DirectoryError> {
        let mut stream = TcpStream::connect((&*self.host, self.port)).await?;
        stream.set_nodelay(true)?;
        let Some(connector) = &self.connector else {
            return Ok(Box::new(stream));
        };
        if self.tls == Tls::Asked {
            stream.write_all(&message::start_tls(1)).await?;
            let code = message::answer(&mut stream, 1).await?;
            if code != SUCCESS {
                return Err(DirectoryError::NoTls(code));
            }
        }
        let name = ServerName::try_from(self.host.clone());
        let name = name.map_err(std::io::Error::other)?;
        Ok(Box::new(connector.connect(name, stream).await?))
    }
}

/// TLS to directories, whose certificates are verified with the machine's authorities or not at all.
pub(super) fn connector(verified: bool) -> Result<TlsConnector, String> {
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|fault| format!("TLS cannot be used: {fault}"))?;
    let config = if verified {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        builder.with_root_certificates(roots).with_no_client_auth()
    } else {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate))
            .with_no_client_auth()
    };
    Ok(Arc::new(config).into())
}
