//! The router: which route a request belongs to, by the rules of Kong's `traditional_compatible` flavor, and of its
//! `expressions` flavor for routes that have an expression.
//!
//! Host names lead to trees of path prefixes; a regex is filed under the text its matches begin with. What is found
//! there is tried in the order of priority until the remaining predicates hold. A route that changes touches its own
//! places only: nothing is ever rebuilt. A route with an expression is filed under what the expression cannot hold
//! without; where that is nothing, it is evaluated for every request.

mod captures;
mod condition;
mod criteria;
mod facts;
mod needs;
mod place;
mod priority;
mod ranking;
mod rare;
mod regexes;
mod simple;
mod stream;
#[cfg(test)]
mod tests;
mod text;
mod tree;
mod verdict;
mod words;

pub use captures::Captures;
pub(super) use criteria::Criteria;
pub(crate) use ranking::{Misfit, Ranking};
use regexes::PathMatch;
pub(super) use regexes::Regexes;
pub use stream::{StreamHead, StreamProtocol};

use super::index::{Index, Keyed};
use super::route::Route;
use criteria::{EXPRESSION, HOST_BYTES_MAX, Host, HostRule, MORE, ONE_HEADER, Path};
use facts::Facts;
use http::HeaderMap;
use place::{Place, Places, Visit};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use stream::Streams;
use text::Text;
use tree::Tree;

/// What of a request the router looks at.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The method, in upper case.
    pub method: &'a str,
    /// The host name without port, in lower case.
    pub host: &'a str,
    /// The port of the Host header, else the listener's.
    pub port: u16,
    /// The canonical path.
    pub path: &'a str,
    /// The query, without its question mark.
    pub query: Option<&'a str>,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The server name the client asked for.
    pub sni: Option<&'a str>,
    /// Whether the client came over TLS.
    pub tls: bool,
    /// The client's address.
    pub source: SocketAddr,
    /// The address the client connected to.
    pub destination: SocketAddr,
}

/// A request's route.
#[derive(Clone, Debug)]
pub struct Match {
    /// The route.
    pub route: Arc<Route>,
    /// How many bytes of the path it matched: the prefix, or the text a regex matched. 0 if it has no paths.
    pub matched_bytes: usize,
    /// Only if the route matched by a regex that has groups.
    pub captures: Option<Captures>,
}

impl Match {
    /// The part of the request's path that the route matched.
    pub fn matched<'a>(&self, path: &'a str) -> &'a str {
        path.get(..self.matched_bytes).unwrap_or_default()
    }
}

type Hosts = Index<Named>;

/// The routes of a host. With its name in one piece, unless that is longer than most.
#[derive(Clone, Debug)]
struct Named {
    name: Text<38>,
    tree: Tree,
}

impl Keyed for Named {
    fn key(&self) -> &[u8] {
        &self.name
    }
}

/// All routes, filed. A clone is cheap and keeps its content.
#[derive(Clone, Default, Debug)]
pub(super) struct Router {
    exact: Hosts,
    suffix: Hosts,
    prefix: Hosts,
    any: Tree,
    streams: Streams,
    regexes: Arc<Regexes>,
}

impl Router {
    /// Where compiled regexes are kept.
    pub(super) fn regexes(&self) -> &Regexes {
        &self.regexes
    }

    pub(super) fn insert(&mut self, route: &Arc<Route>) {
        if route.criteria.is_stream() {
            return self.streams.insert(route);
        }
        for_each_place(route, |host, key, place| match self.hosts_mut(host) {
            None => self.any.insert(key, place),
            Some((name, hosts)) => match hosts.get_mut(name.as_bytes()) {
                Some(host) => Arc::make_mut(host).tree.insert(key, place),
                None => {
                    let mut tree = Tree::default();
                    tree.insert(key, place);
                    let name = name.as_bytes().into();
                    hosts.insert(Arc::new(Named { name, tree }));
                }
            },
        });
    }

    pub(super) fn remove(&mut self, route: &Arc<Route>) {
        if route.criteria.is_stream() {
            return self.streams.remove(route);
        }
        for_each_place(route, |host, key, place| match self.hosts_mut(host) {
            None => self.any.remove(key, &place),
            Some((name, hosts)) => {
                let Some(host) = hosts.get_mut(name.as_bytes()) else {
                    return;
                };
                let tree = &mut Arc::make_mut(host).tree;
                tree.remove(key, &place);
                if tree.is_empty() {
                    hosts.remove(name.as_bytes());
                }
            }
        });
    }

    /// Makes a route share the host names that other routes have.
    pub(super) fn intern(&self, criteria: &mut Criteria) {
        for rule in &mut *criteria.hosts {
            let (name, hosts) = match &rule.host {
                Host::Any => continue,
                Host::Exact(name) => (name, &self.exact),
                Host::Suffix(name) => (name, &self.suffix),
                Host::Prefix(name) => (name, &self.prefix),
            };
            let known = hosts.get(name.as_bytes());
            let Some(place) = known.and_then(|known| known.tree.any()) else {
                continue;
            };
            let mut rules = place.route.criteria.hosts.iter();
            if let Some(known) = rules.find(|known| known.host == rule.host) {
                rule.host = known.host.clone();
            }
        }
    }

    fn hosts_mut<'a>(&mut self, host: &'a Host) -> Option<(&'a Arc<str>, &mut Hosts)> {
        match host {
            Host::Any => None,
            Host::Exact(name) => Some((name, &mut self.exact)),
            Host::Suffix(name) => Some((name, &mut self.suffix)),
            Host::Prefix(name) => Some((name, &mut self.prefix)),
        }
    }

    /// The route with the highest priority that accepts the connection.
    pub(super) fn find_stream(&self, stream: &StreamHead<'_>) -> Option<Match> {
        self.streams.find(stream, &self.regexes)
    }

    /// The route with the highest priority that accepts the request.
    pub(super) fn find(&self, request: &RequestHead<'_>) -> Option<Match> {
        let mut search = Search {
            request,
            method: criteria::method_bit(request.method),
            regexes: &self.regexes,
            best: None,
        };
        let host = request.host;
        if !host.is_empty() && host.len() <= HOST_BYTES_MAX {
            if let Some(host) = self.exact.get(host.as_bytes()) {
                search.look(&host.tree);
            }
            if !self.suffix.is_empty() || !self.prefix.is_empty() {
                for (dot, _) in host.match_indices('.') {
                    let found = [
                        self.suffix.get(&host.as_bytes()[dot..]),
                        self.prefix.get(&host.as_bytes()[..=dot]),
                    ];
                    let trees = found.into_iter().flatten().map(|host| &host.tree);
                    trees.for_each(|tree| search.look(tree));
                }
            }
        }
        search.look(&self.any);
        search.finish()
    }
}

struct Search<'a> {
    request: &'a RequestHead<'a>,
    method: u16,
    regexes: &'a Regexes,
    best: Option<Found<'a>>,
}

struct Found<'a> {
    place: &'a Place,
    matched_bytes: usize,
    regex: Option<PathMatch<'a>>,
}

impl<'a> Search<'a> {
    fn look(&mut self, tree: &'a Tree) {
        tree.visit(self.request.path.as_bytes(), |places| self.try_each(places));
    }

    /// Places of a list are in order: the first that fits is the best of them, and none after one that is worse than the
    /// best so far can help.
    fn try_each(&mut self, places: &'a Places) {
        places.visit(self.request.headers, &mut |place, headers| {
            if self.best.as_ref().is_some_and(|best| *best.place < *place) {
                return Visit::Stop;
            }
            match self.fit(place, headers) {
                None => Visit::Next,
                found => {
                    self.best = found;
                    Visit::Stop
                }
            }
        });
    }

    /// `headers`, from the first, are known to fit.
    fn fit(&self, place: &'a Place, headers: usize) -> Option<Found<'a>> {
        let request = self.request;
        // The route itself is looked at only if it must be: it is further away than the place.
        let fits = place.methods & self.method != 0
            && (place.port == 0 || place.port == request.port)
            && (place.methods & MORE == 0
                || place.methods & ONE_HEADER != 0 && headers > 0
                || place.route.criteria.accepts_more(request, self.regexes));
        if !fits {
            return None;
        }
        if place.methods & EXPRESSION != 0 {
            // What it matched of the path is told once, of the best.
            return Some(Found {
                place,
                matched_bytes: 0,
                regex: None,
            });
        }
        if let Some(matched_bytes) = priority::prefix_bytes(place.priority)
            && matched_bytes <= tree::KEY_BYTES_MAX
        {
            return Some(Found {
                place,
                matched_bytes,
                regex: None,
            });
        }
        match &place.route.criteria.paths[usize::from(place.path)] {
            Path::Prefix(prefix) => request.path.as_bytes().starts_with(prefix).then(|| Found {
                place,
                matched_bytes: prefix.len(),
                regex: None,
            }),
            Path::Regex(pattern) => {
                let found = pattern.find(request.path, self.regexes)?;
                Some(Found {
                    place,
                    matched_bytes: found.bytes,
                    regex: Some(found),
                })
            }
        }
    }

    fn finish(self) -> Option<Match> {
        let found = self.best?;
        let route = Arc::clone(&found.place.route);
        if route.criteria.is_expression() {
            let facts = Facts::of_request(self.request);
            let trace = route.criteria.trace(&facts, self.regexes);
            return Some(Match {
                route,
                matched_bytes: trace.matched_bytes,
                captures: Captures::of(trace.groups),
            });
        }
        let regex = found.regex.as_ref();
        let captures = regex.and_then(|regex| regex.captures(self.request.path));
        Some(Match {
            route,
            matched_bytes: found.matched_bytes,
            captures,
        })
    }
}

/// Calls `act` with each place of a route: host, key in the host's tree, place.
fn for_each_place(route: &Arc<Route>, mut act: impl FnMut(&Host, &[u8], Place)) {
    let criteria = &route.criteria;
    let priorities = criteria.priority();
    for (index, path) in (0..).zip(&*criteria.paths) {
        let literal;
        let (key, priority) = match path {
            Path::Prefix(prefix) if criteria.is_expression() => (&**prefix, priorities.whole()),
            Path::Prefix(prefix) => (&**prefix, priorities.of_prefix(prefix.len())),
            Path::Regex(pattern) => {
                literal = regexes::literal_prefix(&pattern.anchored);
                (literal.as_bytes(), priorities.of_regex())
            }
        };
        for HostRule { host, port } in &*criteria.hosts {
            let place = Place {
                priority,
                route: Arc::clone(route),
                methods: criteria.methods,
                port: port.map_or(0, NonZeroU16::get),
                // Those of an expression are all the same.
                path: if criteria.is_expression() { 0 } else { index },
            };
            act(host, key, place);
        }
    }
}
