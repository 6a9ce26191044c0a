//! A request as far as plugins may see and change it.

use super::context::Context;
use super::phase::{Answer, Plugin};
use super::state::State;
use crate::table::{Captures, Route, Service, Table, upstream_path};
use bytes::Bytes;
use futures::future::LocalBoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use sluice_schema::entity::Workspace;
use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

/// A request before it is routed.
pub struct Rewrite<'a> {
    /// The one version of the configuration this request sees.
    pub table: &'a Table,
    /// The method; changes count for routing.
    pub method: &'a mut Method,
    /// The headers; changes count for routing.
    pub headers: &'a mut HeaderMap,
    /// The target; changes count for routing. What is no path with perhaps a query is a bad request.
    pub uri: &'a mut Uri,
    /// The client's address.
    pub client: IpAddr,
    /// The id of the request.
    pub request_id: &'a HeaderValue,
    /// What the request's plugins know.
    pub context: &'a mut Context,
    /// Headers for the response, whoever makes it.
    pub response_headers: &'a mut Vec<(HeaderName, HeaderValue)>,
    pub(crate) state: &'a State,
}

impl Rewrite<'_> {
    /// What outlives configuration.
    pub fn state<P: Plugin>(&self) -> &P::State {
        self.state.of()
    }
}

impl fmt::Debug for Rewrite<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers and query may hold credentials.
        f.debug_struct("Rewrite")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

/// A request that has its route.
pub struct Access<'a> {
    /// The one version of the configuration this request sees.
    pub table: &'a Table,
    /// Its route.
    pub route: &'a Arc<Route>,
    /// The route's service.
    pub service: Option<&'a Arc<Service>>,
    /// The method; changes go upstream.
    pub method: &'a mut Method,
    /// The headers; changes go upstream. The host is apart: [`Access::set_host`].
    pub headers: &'a mut HeaderMap,
    /// The target as the client sent it.
    pub uri: &'a Uri,
    /// The canonical path, by which it was routed.
    pub path: &'a str,
    /// The host it is for, without a port.
    pub host: &'a str,
    /// Whether the client came by TLS, to us or to a proxy that is trusted.
    pub tls: bool,
    /// Whether the client waits to be asked for its body.
    pub expects_continue: bool,
    /// The groups of the route's regexes.
    pub captures: Option<&'a Captures>,
    /// The client's address.
    pub client: IpAddr,
    /// Where the connection comes from: the client, or a proxy in front.
    pub remote: SocketAddr,
    /// Where the connection came to.
    pub local: SocketAddr,
    /// What the client says to proxies; it is never passed on.
    pub proxy_authorization: Option<&'a HeaderValue>,
    /// Seconds since the Unix epoch.
    pub now: u64,
    /// When the request began.
    pub started: Instant,
    /// The id of the request.
    pub request_id: &'a HeaderValue,
    /// What the request's plugins know.
    pub context: &'a mut Context,
    /// Headers for the response, whoever makes it.
    pub response_headers: &'a mut Vec<(HeaderName, HeaderValue)>,
    pub(crate) target: &'a mut Target,
    /// How many bytes of the path the route matched.
    pub(crate) matched_bytes: usize,
    pub(crate) body: &'a mut dyn RequestBody,
    pub(crate) state: &'a State,
}

/// Where plugins send a request in place of where it would go.
#[derive(Clone, Debug, Default)]
pub struct Target {
    pub(crate) query: Query,
    pub(crate) path: Option<String>,
    pub(crate) host: Option<HeaderValue>,
}

/// The query that goes upstream.
#[derive(Clone, Debug, Default)]
pub(crate) enum Query {
    /// The client's.
    #[default]
    Client,
    /// This, or none.
    Other(Option<String>),
}

impl Target {
    /// The query to send of a request to `uri`.
    pub(crate) fn query<'a>(&'a self, uri: &'a Uri) -> Option<&'a str> {
        match &self.query {
            Query::Client => uri.query(),
            Query::Other(query) => query.as_deref(),
        }
    }
}

impl<'a> Access<'a> {
    /// The workspace of the route.
    pub fn workspace(&self) -> &'a Workspace {
        &self.route.workspace
    }

    /// What outlives configuration.
    pub fn state<P: Plugin>(&self) -> &'a P::State {
        self.state.of()
    }

    /// The query that goes upstream, without its `?`.
    pub fn query(&self) -> Option<&str> {
        self.target.query(self.uri)
    }

    /// Sends another query upstream.
    pub fn set_query(&mut self, query: Option<String>) {
        self.target.query = Query::Other(query);
    }

    /// The path that goes upstream, as far as plugins have not set it: by the route's and the service's.
    pub fn upstream_path(&self) -> Cow<'_, str> {
        if let Some(path) = &self.target.path {
            return Cow::Borrowed(path);
        }
        let service_path = self.service.and_then(|service| service.path.as_deref());
        let matched = self.path.get(..self.matched_bytes).unwrap_or_default();
        let strip = self.route.strip_path;
        Cow::Owned(upstream_path(service_path, self.path, matched, strip))
    }

    /// Sends another path upstream. It begins with `/`.
    pub fn set_upstream_path(&mut self, path: String) {
        self.target.path = Some(path);
    }

    /// Sends another `Host` upstream, whatever the route says.
    pub fn set_host(&mut self, host: HeaderValue) {
        self.target.host = Some(host);
    }

    /// Whether there is a body, of whatever length.
    pub fn has_body(&self) -> bool {
        !self.body.is_empty()
    }

    /// The whole body, if it has at most so many bytes. It goes upstream all the same.
    ///
    /// # Errors
    /// If it is longer, breaks off or takes too long. A longer one still goes upstream whole.
    pub async fn body(&mut self, bytes_max: usize) -> Result<Bytes, BodyFault> {
        let body = self.body.read(bytes_max).await?;
        if !body.is_empty() {
            self.set_length(body.len());
        }
        Ok(body)
    }

    /// Sends another body upstream. Its type is among the headers.
    pub fn set_body(&mut self, body: impl Into<Bytes>) {
        let body = body.into();
        self.set_length(body.len());
        self.body.replace(body);
    }

    /// Breaks the request off when its body turns out to have more bytes than this: 413, unless the upstream has answered
    /// by then.
    pub fn limit_body(&mut self, bytes_max: u64) {
        self.body.limit(bytes_max);
    }

    fn set_length(&mut self, bytes: usize) {
        self.headers.remove(header::TRANSFER_ENCODING);
        self.headers
            .insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    }
}

impl fmt::Debug for Access<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers and query may hold credentials.
        f.debug_struct("Access")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

/// A request's body on its way.
pub(crate) trait RequestBody {
    /// Whether there is none, or nothing left of it.
    fn is_empty(&self) -> bool;

    /// Reads it to its end, for at most so many bytes. What was read goes upstream all the same.
    fn read(&mut self, bytes_max: usize) -> LocalBoxFuture<'_, Result<Bytes, BodyFault>>;

    /// Breaks it off after so many bytes.
    fn limit(&mut self, bytes_max: u64);

    /// Puts another in its place.
    fn replace(&mut self, body: Bytes);
}

/// Why a request's body is not here as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BodyFault {
    /// It has more bytes than were asked for.
    #[error("the body is too large")]
    TooLarge,
    /// The client broke it off.
    #[error("the body broke off")]
    Broken,
    /// The client took too long.
    #[error("the body did not come in time")]
    Timeout,
}

impl From<BodyFault> for Answer {
    fn from(fault: BodyFault) -> Self {
        let (status, message) = match fault {
            BodyFault::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "Payload too large"),
            BodyFault::Broken => (StatusCode::BAD_REQUEST, "Bad request"),
            BodyFault::Timeout => (StatusCode::REQUEST_TIMEOUT, "Request timeout"),
        };
        Self::message(status, message)
    }
}
