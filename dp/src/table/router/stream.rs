//! Which route a TCP, TLS or UDP connection belongs to.
//!
//! Routes are filed under the server names they ask for, else under the ports clients connect to, else together. What
//! is found is tried in the order of priority.

use super::criteria::{HOST_BYTES_MAX, Host};
use super::facts::Facts;
use super::place::{Place, Places, Visit};
use super::regexes::Regexes;
use super::{Captures, Match};
use crate::plugin::Protocols;
use crate::table::route::Route;
use http::HeaderMap;
use imbl::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// What of a connection the router looks at.
#[derive(Clone, Copy, Debug)]
pub struct StreamHead<'a> {
    /// What it is.
    pub protocol: StreamProtocol,
    /// The server name the client asked for.
    pub sni: Option<&'a str>,
    /// The client's address.
    pub source: SocketAddr,
    /// The address the client connected to.
    pub destination: SocketAddr,
}

/// What a connection is, as far as it can be seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamProtocol {
    /// Bytes.
    Tcp,
    /// TLS. The route says whether it is ended here (`tls`) or relayed (`tls_passthrough`, `tcp`).
    Tls,
    /// Datagrams.
    Udp,
}

impl StreamProtocol {
    fn is_served_by(self, route: &Route) -> bool {
        let any = |protocols: &[Protocols]| {
            protocols
                .iter()
                .any(|protocol| route.protocols.contains(*protocol))
        };
        match self {
            Self::Tcp => any(&[Protocols::TCP]),
            Self::Tls => any(&[Protocols::TLS, Protocols::TLS_PASSTHROUGH, Protocols::TCP]),
            Self::Udp => any(&[Protocols::UDP]),
        }
    }
}

/// All stream routes, filed.
#[derive(Clone, Default, Debug)]
pub(super) struct Streams(HashMap<StreamKey, Places>);

/// Where a route is filed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum StreamKey {
    /// The server name.
    Sni(Host),
    /// The port that clients connect to.
    Port(u16),
    Other,
}

impl Streams {
    pub(super) fn insert(&mut self, route: &Arc<Route>) {
        for key in keys(route) {
            self.0.entry(key).or_default().insert(place(route));
        }
    }

    pub(super) fn remove(&mut self, route: &Arc<Route>) {
        for key in keys(route) {
            let Some(places) = self.0.get_mut(&key) else {
                continue;
            };
            places.remove(&place(route));
            if places.is_empty() {
                self.0.remove(&key);
            }
        }
    }

    /// All that is filed, for tests.
    #[cfg(test)]
    pub(super) fn keys(&self) -> impl Iterator<Item = (&StreamKey, &Places)> {
        self.0.iter()
    }

    /// The route with the highest priority that accepts the connection.
    pub(super) fn find(&self, stream: &StreamHead<'_>, regexes: &Regexes) -> Option<Match> {
        let mut search = Search {
            stream,
            regexes,
            best: None,
        };
        let sni = stream.sni.unwrap_or_default();
        let sni = sni.strip_suffix('.').unwrap_or(sni).to_ascii_lowercase();
        let mut keys = vec![StreamKey::Port(stream.destination.port()), StreamKey::Other];
        if !sni.is_empty() && sni.len() <= HOST_BYTES_MAX {
            keys.push(StreamKey::Sni(Host::Exact(sni.as_str().into())));
            for (dot, _) in sni.match_indices('.') {
                keys.push(StreamKey::Sni(Host::Suffix(sni[dot..].into())));
                keys.push(StreamKey::Sni(Host::Prefix(sni[..=dot].into())));
            }
        }
        for key in &keys {
            search.look(self.0.get(key));
        }
        let route = Arc::clone(&search.best?.route);
        let trace = route.criteria.trace(&Facts::of_stream(stream), regexes);
        Some(Match {
            route,
            matched_bytes: 0,
            captures: Captures::of(trace.groups),
        })
    }
}

struct Search<'a> {
    stream: &'a StreamHead<'a>,
    regexes: &'a Regexes,
    best: Option<&'a Place>,
}

impl<'a> Search<'a> {
    fn look(&mut self, places: Option<&'a Places>) {
        let Some(places) = places else { return };
        // Streams have no headers, and their routes ask for none.
        places.visit(&HeaderMap::new(), &mut |place, _| {
            if self.best.is_some_and(|best| best < place) {
                return Visit::Stop;
            }
            let fits = self.stream.protocol.is_served_by(&place.route)
                && place
                    .route
                    .criteria
                    .accepts_stream(self.stream, self.regexes);
            match fits {
                false => Visit::Next,
                true => {
                    self.best = Some(place);
                    Visit::Stop
                }
            }
        });
    }
}

fn keys(route: &Route) -> Vec<StreamKey> {
    // Server names do not bind connections without TLS.
    let others = [Protocols::TCP, Protocols::UDP];
    let also_plain = others
        .iter()
        .any(|protocol| route.protocols.contains(*protocol));
    let mut keys = route.criteria.stream_keys(also_plain);
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn place(route: &Arc<Route>) -> Place {
    Place {
        priority: route.criteria.priority().whole(),
        route: Arc::clone(route),
        methods: 0,
        port: 0,
        path: 0,
    }
}
