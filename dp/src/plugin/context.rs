//! What is known about a request, kept from its first phase to its last.

use super::phase::Plugin;
use super::reply::Origin;
use super::state::State;
use crate::access_log::Latencies;
use crate::table::{Consumer, Route, Service};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use sluice_schema::kind::Kind;
use std::any::Any;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use uuid::Uuid;

/// What the plugins of a request know together.
#[derive(Debug, Default)]
pub struct Context {
    /// Who the client is, as found so far.
    pub identity: Identity,
    /// What plugins keep from phase to phase, and tell each other.
    pub shared: Shared,
}

/// Who the client is.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The consumer, authenticated or anonymous.
    pub consumer: Option<Arc<Consumer>>,
    /// What it was authenticated with; `None` for the anonymous consumer.
    pub credential: Option<Credential>,
    /// The groups an authentication plugin found outside of the configuration; those of ACLs are in the table.
    pub groups: Vec<String>,
}

/// What a client was authenticated with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Credential {
    /// The entity's kind; `None` if it is no entity.
    pub kind: Option<Kind>,
    /// The entity, or an id that stands for what is no entity.
    pub id: Uuid,
}

/// Values of a request by their types, one of each. Costs nothing until it is used.
#[derive(Default)]
pub struct Shared(Vec<Box<dyn Any>>);

impl Shared {
    /// Keeps a value, in place of the one of its type.
    pub fn insert<T: 'static>(&mut self, value: T) {
        match self.get_mut::<T>() {
            Some(place) => *place = value,
            None => self.0.push(Box::new(value)),
        }
    }

    /// The value of a type.
    pub fn get<T: 'static>(&self) -> Option<&T> {
        self.0.iter().find_map(|value| value.downcast_ref())
    }

    /// The value of a type.
    pub fn get_mut<T: 'static>(&mut self) -> Option<&mut T> {
        self.0.iter_mut().find_map(|value| value.downcast_mut())
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// A request as it was, for the phases after it has gone.
#[derive(Debug)]
pub struct Seen {
    /// Its method, as plugins left it.
    pub method: Method,
    /// Its target as the client sent it.
    pub uri: Uri,
    /// How the client speaks.
    pub version: Version,
    /// The host it is for; empty if the request was refused before that was known.
    pub host: String,
    /// Its headers as plugins left them, without those the gateway adds.
    pub headers: HeaderMap,
    /// The client's address.
    pub client: IpAddr,
    /// Whether the client came by TLS.
    pub tls: bool,
    /// The id of the request.
    pub id: HeaderValue,
    /// When it began.
    pub began: SystemTime,
    /// The same on the clock that only goes forward.
    pub started: Instant,
}

/// One try to have a request answered by an upstream.
#[derive(Clone, Debug)]
pub struct Try {
    /// The address that was tried.
    pub address: SocketAddr,
    /// What that address is called: the target or the service's host.
    pub host: HeaderValue,
    /// When it began.
    pub began: SystemTime,
    /// From the beginning of the request to that of this try.
    pub after: Duration,
    /// Until the response's head or the failure.
    pub took: Duration,
    /// The status of its response; `None` if there was none.
    pub status: Option<StatusCode>,
}

/// A request and its response, at their end.
#[derive(Debug)]
pub struct Record<'a> {
    /// The request.
    pub request: &'a Seen,
    /// What its plugins knew.
    pub context: &'a Context,
    /// The route; `None` if none matched.
    pub route: Option<&'a Arc<Route>>,
    /// The route's service.
    pub service: Option<&'a Arc<Service>>,
    /// The status sent.
    pub status: StatusCode,
    /// The headers sent.
    pub headers: &'a HeaderMap,
    /// Who made the response.
    pub origin: Origin,
    /// The upstream that answered.
    pub upstream: Option<SocketAddr>,
    /// The target as it went upstream; `None` if none was asked.
    pub upstream_uri: Option<&'a Uri>,
    /// The tries to have it answered, the first one first.
    pub tries: &'a [Try],
    /// Bytes of the request's body.
    pub received: u64,
    /// Bytes of the response's body.
    pub sent: u64,
    /// Whether the response came to its end.
    pub whole: bool,
    /// Where time went.
    pub latencies: Latencies,
    /// The version of the configuration that served it.
    pub version: u64,
    pub(crate) state: &'a State,
}

impl Record<'_> {
    /// The status of the upstream's response, which plugins may have changed since.
    pub fn upstream_status(&self) -> Option<StatusCode> {
        self.tries.last()?.status
    }

    /// What outlives configuration.
    pub fn state<P: Plugin>(&self) -> &P::State {
        self.state.of()
    }
}
