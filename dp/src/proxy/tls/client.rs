//! TLS to upstreams: one form of it for each distinct set of settings, found by their content. A certificate that
//! changes makes another form, and connections of the old one are not used again.

use super::server::HTTP2;
use super::verify::{Anyone, Chain};
use super::{TlsOptions, provider};
use crate::table::{Authority, Certificate, Fingerprint, Service, Table, Upstream};
use http::HeaderValue;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

/// Certificates between an upstream's own and an authority's where the service does not say; nginx's number.
const VERIFY_DEPTH_DEFAULT: u8 = 1;
/// The same for checks of health and calls of plugins, for which nothing can be said.
const CHECK_VERIFY_DEPTH: usize = 10;
/// Forms nobody asked for since this are forgotten, with the sessions that could be resumed.
const UNUSED: Duration = Duration::from_secs(600);

/// A worker's forms of TLS to upstreams.
pub(in super::super) struct Clients {
    forms: RefCell<HashMap<Key, Rc<Client>>>,
    trusted: Arc<[Authority]>,
}

/// All that makes one connection differ from another.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    http2: bool,
    certificate: Option<Fingerprint>,
    verify: Verify,
}

#[derive(PartialEq, Eq, Hash)]
enum Verify {
    No,
    /// By the node's authorities.
    Node {
        depth: u8,
    },
    By {
        depth: u8,
        authorities: Box<[Fingerprint]>,
    },
}

/// One form. Equal to itself only.
pub(in super::super) struct Client {
    pub(in super::super) connector: TlsConnector,
    used: Cell<Instant>,
}

/// Why there is no TLS for a service.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum ClientError {
    #[error("the service's client certificate is not here or cannot be used")]
    Certificate,
    #[error("an authority of the service is not here or cannot be used")]
    Authority,
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

impl Clients {
    pub(in super::super) fn new(options: &TlsOptions) -> Self {
        Self {
            forms: RefCell::default(),
            trusted: Arc::clone(&options.trusted),
        }
    }

    /// The form of a service. Without a certificate of its own it shows that of its upstream.
    pub(in super::super) fn find(
        &self,
        table: &Table,
        service: &Service,
        upstream: Option<&Upstream>,
        http2: bool,
    ) -> Result<Rc<Client>, ClientError> {
        let certificate = service.client_certificate;
        let certificate = certificate.or_else(|| upstream?.client_certificate);
        let certificate = certificate.map(|id| table.certificate(id));
        let certificate = match certificate {
            Some(found) => Some(found.ok_or(ClientError::Certificate)?),
            None => None,
        };
        let key = Key {
            http2,
            certificate: certificate.map(|certificate| certificate.fingerprint()),
            verify: verify(table, service)?,
        };
        let now = Instant::now();
        let mut forms = self.forms.borrow_mut();
        if let Some(form) = forms.get(&key) {
            form.used.set(now);
            return Ok(Rc::clone(form));
        }
        let config = self.config(table, service, certificate, http2)?;
        let form = Rc::new(Client {
            connector: TlsConnector::from(Arc::new(config)),
            used: Cell::new(now),
        });
        forms.insert(key, Rc::clone(&form));
        Ok(form)
    }

    fn config(
        &self,
        table: &Table,
        service: &Service,
        certificate: Option<&Arc<Certificate>>,
        http2: bool,
    ) -> Result<ClientConfig, ClientError> {
        let verifier: Arc<dyn ServerCertVerifier> = if service.tls_verify == Some(true) {
            let anchors = match &service.ca_certificates {
                Some(ids) => ids
                    .iter()
                    .map(|id| {
                        table
                            .authority(*id)
                            .map(|authority| authority.anchor.clone())
                    })
                    .collect::<Option<Vec<_>>>()
                    .ok_or(ClientError::Authority)?,
                None => {
                    let trusted = self.trusted.iter();
                    trusted.map(|authority| authority.anchor.clone()).collect()
                }
            };
            Arc::new(Chain::new(anchors, depth(service).into()))
        } else {
            Arc::new(Anyone)
        };
        Ok(config(verifier, certificate, http2)?)
    }

    /// Forgets what is no longer used; called on a coarse tick.
    pub(in super::super) fn tick(&self, now: Instant) {
        let keep = |form: &Rc<Client>| {
            Rc::strong_count(form) > 1 || now.duration_since(form.used.get()) < UNUSED
        };
        self.forms.borrow_mut().retain(|_, form| keep(form));
    }
}

fn config(
    verifier: Arc<dyn ServerCertVerifier>,
    certificate: Option<&Arc<Certificate>>,
    http2: bool,
) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match certificate {
        Some(certificate) => {
            let shown = Shown(Arc::clone(certificate));
            builder.with_client_cert_resolver(Arc::new(shown))
        }
        None => builder.with_no_client_auth(),
    };
    if http2 {
        config.alpn_protocols = vec![HTTP2.to_vec()];
    }
    Ok(config)
}

/// TLS beside requests, for checks of health and for plugins; `trusted` verify if anybody does.
pub(crate) fn checker(
    trusted: Option<&[Authority]>,
    certificate: Option<&Arc<Certificate>>,
    http2: bool,
) -> Result<TlsConnector, rustls::Error> {
    Ok(Arc::new(config(verifier(trusted), certificate, http2)?).into())
}

fn verifier(trusted: Option<&[Authority]>) -> Arc<dyn ServerCertVerifier> {
    match trusted {
        Some(trusted) => {
            let anchors = trusted.iter().map(|authority| authority.anchor.clone());
            Arc::new(Chain::new(anchors.collect(), CHECK_VERIFY_DEPTH))
        }
        None => Arc::new(Anyone),
    }
}

fn depth(service: &Service) -> u8 {
    service.tls_verify_depth.unwrap_or(VERIFY_DEPTH_DEFAULT)
}

fn verify(table: &Table, service: &Service) -> Result<Verify, ClientError> {
    if service.tls_verify != Some(true) {
        return Ok(Verify::No);
    }
    let depth = depth(service);
    let Some(ids) = &service.ca_certificates else {
        return Ok(Verify::Node { depth });
    };
    let authorities = ids.iter().map(|id| Some(table.authority(*id)?.fingerprint));
    let authorities = authorities.collect::<Option<Box<[_]>>>();
    let authorities = authorities.ok_or(ClientError::Authority)?;
    Ok(Verify::By { depth, authorities })
}

impl PartialEq for Client {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Client {}

impl Hash for Client {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::ptr::from_ref(self).hash(state);
    }
}

/// The certificate shown to upstreams that ask for one.
#[derive(Debug)]
struct Shown(Arc<Certificate>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.choose(schemes)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The name to ask an upstream for, and to verify it by: the host of its `Host`. `None` if that is not a name.
pub(in super::super) fn server_name(host: &HeaderValue) -> Option<ServerName<'static>> {
    let host = host.to_str().ok()?;
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    ServerName::try_from(name.to_owned()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_name_is_the_host_without_its_port() {
        let name = |host: &'static str| server_name(&HeaderValue::from_static(host));
        let expected = |name: &'static str| ServerName::try_from(name).ok();
        assert_eq!(name("a.b"), expected("a.b"));
        assert_eq!(name("a.b:8443"), expected("a.b"));
        assert_eq!(name("a.b."), expected("a.b"));
        assert_eq!(name("[::1]:8443"), expected("::1"));
        assert_eq!(name("127.0.0.1:1"), expected("127.0.0.1"));
        assert_eq!(name(""), None);
        assert_eq!(name("a b"), None);
    }
}
