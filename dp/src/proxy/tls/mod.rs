//! TLS, from clients (`server`) and to upstreams (`client`, `verify`).

pub(super) mod client;
pub(super) mod server;
mod verify;

pub(crate) use verify::Anyone as AnyCertificate;

use crate::table::{Authority, Certificate, CertificateFault};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The name in the self-signed certificate.
const SELF_SIGNED_NAME: &str = "localhost";
/// In place of a file: the authorities the system trusts.
const SYSTEM: &str = "system";

/// TLS beyond what the configuration says.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// Shown to clients that ask for no server name, or for one the configuration has no certificate for. A
    /// self-signed one is made at the start if there is none.
    pub default_certificate: Option<Arc<Certificate>>,
    /// Verify upstreams of services that want it and name no authorities of their own.
    pub trusted: Arc<[Authority]>,
    /// How long a client may take for its handshake.
    pub handshake_timeout: Duration,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self {
            default_certificate: None,
            trusted: Arc::default(),
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

/// Why the settings of TLS cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsSettingsError {
    /// Each certificate needs its key.
    #[error(
        "ssl_cert has {certificates} files and ssl_cert_key {keys}: give a key for each certificate"
    )]
    Count {
        /// Files of certificates.
        certificates: usize,
        /// Files of keys.
        keys: usize,
    },
    /// A file that is not there or not PEM.
    #[error("could not read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The default certificate.
    #[error("ssl_cert and ssl_cert_key cannot be used")]
    Certificate(#[source] CertificateFault),
    /// An authority.
    #[error("an authority in {path} cannot be used")]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: CertificateFault,
    },
}

/// The certificate of `ssl_cert` and `ssl_cert_key`, which name as many files each. `None` if they name none.
///
/// # Errors
/// If a file cannot be read, or a key does not belong to its certificate.
pub fn load_certificate(
    certificates: &[PathBuf],
    keys: &[PathBuf],
) -> Result<Option<Arc<Certificate>>, TlsSettingsError> {
    if certificates.len() != keys.len() {
        return Err(TlsSettingsError::Count {
            certificates: certificates.len(),
            keys: keys.len(),
        });
    }
    if certificates.is_empty() {
        return Ok(None);
    }
    let pair = |(certificate, key): (&PathBuf, &PathBuf)| {
        let key_der = PrivateKeyDer::from_pem_file(key).map_err(|source| {
            // What could not be read may be the key.
            let is_file = matches!(source, rustls::pki_types::pem::Error::Io(_));
            let nothing = rustls::pki_types::pem::Error::NoItemsFound;
            let source = if is_file { source } else { nothing };
            file_error(key, source)
        })?;
        Ok((read_chain(certificate)?, key_der))
    };
    let pairs = certificates.iter().zip(keys).map(pair);
    let pairs = pairs.collect::<Result<Vec<_>, TlsSettingsError>>()?;
    let certificate = Certificate::from_der(pairs).map_err(TlsSettingsError::Certificate)?;
    Ok(Some(Arc::new(certificate)))
}

/// The authorities of `trusted_certificate`: files in PEM, and `system` for those of the system.
///
/// # Errors
/// If a file cannot be read or holds something else. Authorities of the system that cannot be used are left out.
pub fn load_authorities(places: &[PathBuf]) -> Result<Arc<[Authority]>, TlsSettingsError> {
    let mut authorities = Vec::new();
    for path in places {
        if path.as_os_str() == SYSTEM {
            authorities.extend(system_authorities());
            continue;
        }
        for certificate in read_chain(path)? {
            let authority = Authority::from_der(&certificate);
            authorities.push(authority.map_err(|source| TlsSettingsError::Authority {
                path: path.clone(),
                source,
            })?);
        }
    }
    Ok(authorities.into())
}

fn system_authorities() -> Vec<Authority> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "an authority of the system cannot be read");
    }
    let authorities = found.certs.iter().map(Authority::from_der);
    let authorities: Vec<_> = authorities.filter_map(Result::ok).collect();
    if authorities.is_empty() {
        tracing::warn!(
            "this system has no list of authorities: upstreams are verified only by those of their service or of \
             trusted_certificate"
        );
    }
    authorities
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsSettingsError> {
    let certificates = CertificateDer::pem_file_iter(path);
    let certificates = certificates.and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = certificates.map_err(|source| file_error(path, source))?;
    if certificates.is_empty() {
        let nothing = rustls::pki_types::pem::Error::NoItemsFound;
        return Err(file_error(path, nothing));
    }
    Ok(certificates)
}

fn file_error(path: &Path, source: rustls::pki_types::pem::Error) -> TlsSettingsError {
    TlsSettingsError::File {
        path: path.to_owned(),
        source,
    }
}

/// A certificate nobody trusts, for a start without one.
fn self_signed() -> Result<Certificate, rcgen::Error> {
    let made = rcgen::generate_simple_self_signed([SELF_SIGNED_NAME.to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let pairs = vec![(vec![made.cert.der().clone()], key)];
    Certificate::from_der(pairs).map_err(|_| rcgen::Error::CouldNotParseKeyPair)
}

/// The cryptography of all connections.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
