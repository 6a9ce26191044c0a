//! What a plugin sees of a request, and what it may answer.

use crate::plugin::State;
use crate::table::{Consumer, Table};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use sluice_schema::entity::Workspace;
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use uuid::Uuid;

/// The access phase of one request: the request as far as plugins may see and change it.
pub struct Access<'a, 'q> {
    /// The one version of the configuration this request sees.
    pub table: &'a Table,
    /// The workspace of the matched route.
    pub workspace: &'a Workspace,
    /// The request's method.
    pub method: &'a Method,
    /// The canonical path.
    pub path: &'a str,
    /// The query without its `?`; changes go upstream.
    pub query: Option<Cow<'q, str>>,
    /// The request's headers; changes go upstream.
    pub headers: &'a mut HeaderMap,
    /// The service of the matched route.
    pub service: Option<Uuid>,
    /// The client's address.
    pub client: IpAddr,
    /// Seconds since the Unix epoch.
    pub now: u64,
    /// State that outlives configuration.
    pub state: &'a State,
    /// Who the client is, as found so far.
    pub identity: Identity,
    /// Headers for the response, whoever makes it.
    pub response_headers: Vec<(HeaderName, HeaderValue)>,
}

impl std::fmt::Debug for Access<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Headers and query may hold credentials.
        f.debug_struct("Access")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

/// Who the client is.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The consumer, authenticated or anonymous.
    pub consumer: Option<Arc<Consumer>>,
    /// The credential it was authenticated with; `None` for the anonymous consumer.
    pub credential: Option<Uuid>,
}

/// What follows a plugin.
#[derive(Debug)]
pub enum Flow {
    /// The next plugin, then the upstream.
    Continue,
    /// This answer; neither further plugins nor the upstream are called.
    Answer(Answer),
}

/// An answer a plugin gives in place of the upstream. The proxy gives it its body and its common headers.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The message in the body.
    pub message: Cow<'static, str>,
    /// Further headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}
