//! A request that somebody asks about, as it would come to the proxy.

use crate::proxy::{Dry, Refusal};
use crate::table::{RequestHead, canonical_path};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub(super) const HTTP_PORT: u16 = 80;
pub(super) const HTTPS_PORT: u16 = 443;

/// A request, as people write it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Question {
    /// The method, in any case.
    pub method: String,
    /// The URL. Without a host there must be a header `Host`, and it is of `http`.
    pub url: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The server name that the client asks for; the host's if it comes over TLS, unless that is an address.
    pub sni: Option<String>,
    /// The client's address; this machine's if `None`. Headers of proxies in front are not looked at.
    pub source: Option<SocketAddr>,
    /// The address that the client connects to; this machine's with the port of the URL if `None`.
    pub destination: Option<SocketAddr>,
    /// Who is asking: the consumer's username or id.
    pub consumer: Option<String>,
}

/// Why a question cannot be answered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QuestionError {
    /// The method is not one.
    #[error("'{0}' is not a method")]
    Method(String),
    /// The URL is not one that requests can have.
    #[error("'{0}' is not a URL of http or https")]
    Url(String),
    /// There is no host.
    #[error("'{0}' names no host: use a whole URL, or a header 'Host: shop.example'")]
    NoHost(String),
    /// A header is not one.
    #[error("'{0}' is not the name of a header")]
    HeaderName(String),
    /// The value of a header is not one. It is not repeated: it may be a secret.
    #[error("the value of the header {0} is not one")]
    HeaderValue(String),
}

/// A request as the proxy would see it.
pub struct Asked {
    head: Result<Heading, Refusal>,
    pub(super) sni: Option<String>,
    pub(super) tls: bool,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) consumer: Option<String>,
}

/// The head of one that is in order.
pub(super) struct Heading {
    pub(super) dry: Dry,
    /// Canonical.
    pub(super) path: String,
}

impl Asked {
    /// Reads a question.
    ///
    /// # Errors
    /// If no client could send it.
    pub fn parse(question: &Question) -> Result<Self, QuestionError> {
        let method = question.method.to_ascii_uppercase();
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| QuestionError::Method(question.method.clone()))?;
        let not_url = || QuestionError::Url(question.url.clone());
        let uri: Uri = question.url.parse().map_err(|_| not_url())?;
        let tls = match uri.scheme() {
            None => false,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(_) => return Err(not_url()),
        };
        let mut headers = read_headers(&question.headers)?;
        if !headers.contains_key(header::HOST) {
            let host = uri.authority().map(Authority::as_str);
            let host = host.filter(|_| uri.scheme().is_some());
            let host = host.ok_or_else(|| QuestionError::NoHost(question.url.clone()))?;
            let value = HeaderValue::from_str(host).map_err(|_| not_url())?;
            headers.insert(header::HOST, value);
        }
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = target.parse().map_err(|_| not_url())?;
        *request.headers_mut() = headers;
        let head = receive(request);
        let usual = if tls { HTTPS_PORT } else { HTTP_PORT };
        let named = head.as_ref().ok().and_then(|head| head.dry.port());
        let port = named.or(uri.port_u16()).unwrap_or(usual);
        let here = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let host = head.as_ref().ok().map(|head| head.dry.host().to_owned());
        let name = host.filter(|host| tls && host.parse::<IpAddr>().is_err());
        let name = name.filter(|host| !host.starts_with('['));
        Ok(Self {
            sni: question.sni.clone().filter(|_| tls).or(name),
            tls,
            source: question.source.unwrap_or_else(|| here(0)),
            destination: question.destination.unwrap_or_else(|| here(port)),
            consumer: question.consumer.clone(),
            head,
        })
    }

    /// The head, if it is in order.
    pub(super) fn heading(&self) -> Result<&Heading, &Refusal> {
        self.head.as_ref()
    }

    /// What the router sees of it. `None` if it is answered before.
    pub fn head(&self) -> Option<RequestHead<'_>> {
        let head = self.head.as_ref().ok()?;
        let parts = head.dry.parts();
        Some(RequestHead {
            method: parts.method.as_str(),
            host: head.dry.host(),
            port: head.dry.port().unwrap_or(self.destination.port()),
            path: &head.path,
            query: parts.uri.query(),
            headers: &parts.headers,
            sni: self.sni.as_deref(),
            tls: self.tls,
            source: self.source,
            destination: self.destination,
        })
    }

    /// What it is answered with before a route is looked for: status and message.
    pub fn refused(&self) -> Option<(u16, &str)> {
        let refusal = self.head.as_ref().err()?;
        Some((refusal.status, &refusal.message))
    }

    /// Whether it comes over TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }
}

fn receive(request: Request<()>) -> Result<Heading, Refusal> {
    let dry = Dry::receive(request.into_parts().0)?;
    let path = canonical_path(dry.parts().uri.path());
    let path = path.map_err(|_| Refusal::bad_request())?.into_owned();
    Ok(Heading { dry, path })
}

fn read_headers(given: &[(String, String)]) -> Result<HeaderMap, QuestionError> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let name = HeaderName::try_from(name.trim())
            .map_err(|_| QuestionError::HeaderName(name.clone()))?;
        let value = HeaderValue::try_from(value.trim())
            .map_err(|_| QuestionError::HeaderValue(name.to_string()))?;
        headers.append(name, value);
    }
    Ok(headers)
}

impl std::fmt::Debug for Asked {
    /// Without its headers: they may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head = self.head.as_ref().ok();
        f.debug_struct("Asked")
            .field("host", &head.map(|head| head.dry.host()))
            .field("path", &head.map(|head| &head.path))
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}
