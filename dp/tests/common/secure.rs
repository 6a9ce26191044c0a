//! Authorities, certificates and clients for TLS and HTTP/2.

use super::{ClientBody, Entity, PATIENCE, reference};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SignatureAlgorithm};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// An authority made for one test.
pub(crate) struct Ca {
    pub(crate) pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Ca {
    pub(crate) fn new() -> Self {
        Self::of(|params, key| params.self_signed(key).unwrap())
    }

    /// One that this one signs.
    pub(crate) fn below(&self) -> Self {
        Self::of(|params, key| params.signed_by(key, &self.issuer).unwrap())
    }

    fn of(sign: impl FnOnce(&CertificateParams, &KeyPair) -> rcgen::Certificate) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let name = format!(
            "authority {}",
            key.public_key_pem().len() + rand::random::<u16>() as usize
        );
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let certificate = sign(&params, &key);
        Self {
            pem: certificate.pem(),
            der: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn issue(&self, names: &[&str]) -> Pair {
        self.issue_as(names, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    pub(crate) fn issue_as(&self, names: &[&str], kind: &'static SignatureAlgorithm) -> Pair {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).unwrap();
        let key = KeyPair::generate_for(kind).unwrap();
        Pair {
            cert: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    pub(crate) fn entity(&self, id: u128) -> Entity {
        Entity::new(
            "ca_certificate",
            id,
            json!({ "cert": self.pem, "cert_digest": "" }),
            &json!({}),
        )
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        Arc::new(roots)
    }

    /// A client that believes only this authority.
    pub(crate) fn client(&self) -> ClientConfig {
        ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth()
    }
}

impl Pair {
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }

    pub(crate) fn entity(&self, id: u128) -> Entity {
        let fields = json!({ "cert": self.cert, "key": self.key });
        Entity::new("certificate", id, fields, &json!({}))
    }

    pub(crate) fn entity_with(&self, id: u128, other: &Self) -> Entity {
        let fields = json!({
            "cert": self.cert, "key": self.key, "cert_alt": other.cert, "key_alt": other.key,
        });
        Entity::new("certificate", id, fields, &json!({}))
    }

    /// A server that shows it, and wants a certificate of `clients` if that is given.
    pub(crate) fn server(&self, alpn: &[&str], clients: Option<&Ca>) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(ca) => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(ca.roots(), provider())
                    .build()
                    .unwrap(),
            ),
        };
        let chain = CertificateDer::pem_slice_iter(self.cert.as_bytes());
        let chain = chain.collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

pub(crate) fn sni(id: u128, certificate: u128, name: &str) -> Entity {
    let fields = json!({ "name": name, "certificate": reference(certificate) });
    Entity::new("sni", id, fields, &json!({}))
}

/// A client's config that can verify only some kinds of signatures.
pub(crate) fn only(schemes: &[SignatureScheme]) -> ClientConfig {
    let mut provider = aws_lc_rs::default_provider();
    let mapping = provider.signature_verification_algorithms.mapping;
    let kept: Vec<_> = mapping
        .iter()
        .filter(|(scheme, _)| schemes.contains(scheme))
        .copied()
        .collect();
    provider.signature_verification_algorithms.mapping = Box::leak(kept.into());
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

/// A client's config that believes every certificate.
pub(crate) fn believing_all() -> ClientConfig {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Everything))
        .with_no_client_auth()
}

#[derive(Debug)]
struct Everything;

impl ServerCertVerifier for Everything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Makes a TLS connection that asks for `name`.
pub(crate) async fn handshake(
    address: SocketAddr,
    config: ClientConfig,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let connecting = connector.connect(name, stream);
    tokio::time::timeout(PATIENCE, connecting).await.unwrap()
}

/// The same, with a list of protocols.
pub(crate) fn with_alpn(mut config: ClientConfig, names: &[&str]) -> ClientConfig {
    config.alpn_protocols = names.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// A connection that speaks HTTP/2.
#[derive(Clone)]
pub(crate) struct Client2(http2::SendRequest<ClientBody>);

/// A response to it, read whole.
#[derive(Debug)]
pub(crate) struct Reply2 {
    pub(crate) head: http::response::Parts,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Reply2 {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn received(&self, name: &str) -> Option<String> {
        self.json()["headers"][name].as_str().map(str::to_owned)
    }
}

impl Client2 {
    pub(crate) async fn over<I>(io: I) -> Self
    where
        I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io))
            .await
            .unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Self(sender)
    }

    pub(crate) async fn clear(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap()).await
    }

    pub(crate) async fn start(
        &self,
        request: Request<ClientBody>,
    ) -> hyper::Result<Response<Incoming>> {
        let mut sender = self.0.clone();
        sender.ready().await?;
        tokio::time::timeout(PATIENCE, sender.send_request(request))
            .await
            .unwrap()
    }

    pub(crate) async fn send(&self, request: Request<ClientBody>) -> Reply2 {
        let (head, body) = self.start(request).await.unwrap().into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect())
            .await
            .unwrap()
            .unwrap();
        let trailers = body.trailers().cloned();
        Reply2 {
            head,
            body: body.to_bytes(),
            trailers,
        }
    }

    pub(crate) async fn get(&self, uri: &str) -> Reply2 {
        self.send(Request::get(uri).body(super::empty()).unwrap())
            .await
    }

    /// Whether the gateway has taken its leave of this connection.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}
