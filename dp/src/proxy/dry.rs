//! What the proxy says of a request's head without serving it, for who wants to know why.

use super::draft::check_protocol;
use super::errors::Failure;
use super::plan::is_grpc;
use super::request::{Authority, check};
use super::upgrade;
use crate::table::{Route, Service};
use http::request::Parts;
use http::{HeaderValue, Version, header};

/// A request that came in order, and goes nowhere.
pub(crate) struct Dry {
    parts: Parts,
    authority: Authority,
}

/// An answer that the gateway gives in place of an upstream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) message: String,
    pub(crate) location: Option<String>,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let (status, message) = (failure.status().as_u16(), failure.message().into_owned());
        let location = match failure {
            Failure::HttpsRequired { location, .. } => location,
            Failure::BadRequest
            | Failure::MethodNotAllowed
            | Failure::UriTooLong
            | Failure::RequestTimeout
            | Failure::TooLarge
            | Failure::NoRoute
            | Failure::NotGrpc
            | Failure::Http2Required
            | Failure::GrpcsRequired
            | Failure::Plugin(_)
            | Failure::NoService
            | Failure::TooOld
            | Failure::NoPeer
            | Failure::NameResolution
            | Failure::UnsupportedProtocol
            | Failure::InvalidResponse
            | Failure::UpstreamTimeout => None,
        };
        let text = |value: HeaderValue| Some(value.to_str().ok()?.to_owned());
        Self {
            status,
            message,
            location: location.and_then(text),
        }
    }
}

impl Refusal {
    /// The path is not one.
    pub(crate) fn bad_request() -> Self {
        Failure::BadRequest.into()
    }

    /// There is no route.
    pub(crate) fn no_route() -> Self {
        Failure::NoRoute.into()
    }

    /// The route leads nowhere.
    pub(crate) fn no_service() -> Self {
        Failure::NoService.into()
    }

    /// The upstream has no target.
    pub(crate) fn no_peer() -> Self {
        Failure::NoPeer.into()
    }

    /// The service is for connections that are no HTTP.
    pub(crate) fn unsupported() -> Self {
        Failure::UnsupportedProtocol.into()
    }
}

impl Dry {
    /// Looks at a head as the proxy does before it looks for a route. gRPC is taken to come over HTTP/2, everything else over
    /// HTTP/1.1.
    ///
    /// # Errors
    /// What it would be answered with.
    pub(crate) fn receive(mut parts: Parts) -> Result<Self, Refusal> {
        let content = parts.headers.get(header::CONTENT_TYPE);
        parts.version = match content.is_some_and(is_grpc) {
            true => Version::HTTP_2,
            false => Version::HTTP_11,
        };
        let authority = check(&parts, u32::MAX)?;
        Ok(Self { parts, authority })
    }

    /// What came.
    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The host without port, in lower case.
    pub(crate) fn host(&self) -> &str {
        self.authority.host()
    }

    /// The port that the client named.
    pub(crate) fn port(&self) -> Option<u16> {
        self.authority.port
    }

    /// Host and port as they would go on.
    pub(crate) fn authority(&self) -> String {
        match self.port() {
            Some(port) => format!("{}:{port}", self.host()),
            None => self.host().to_owned(),
        }
    }

    /// Whether its route lets it in.
    ///
    /// # Errors
    /// What it would be answered with.
    pub(crate) fn admit(
        &self,
        route: &Route,
        service: Option<&Service>,
        tls: bool,
    ) -> Result<(), Refusal> {
        let upgrades = upgrade::wish(&self.parts, false).is_some();
        let target = (&self.parts, &self.parts.uri);
        check_protocol(route, target, &self.authority, tls, upgrades)?;
        match service {
            Some(service) if !service.enabled => Err(Refusal::no_route()),
            Some(_) | None => Ok(()),
        }
    }
}
