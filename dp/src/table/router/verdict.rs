//! What a route says to a request: not found through the index, but asked. This is how routes are compared for people; the
//! router's tests see to it that both agree.

use super::RequestHead;
use super::condition::Condition;
use super::criteria::{Criteria, HOST_BYTES_MAX, Host, HostRule, Path, method_bit};
use super::facts::Facts;
use super::place::Place;
use super::rare::{Expression, within};
use super::regexes::{self, Regexes};
use crate::table::route::Route;
use std::num::NonZeroU16;
use std::sync::Arc;

/// The answer.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It accepts the request: its first place that does.
    Fits(Place),
    /// One criterion does not fit.
    Near(Near),
    /// Several do not.
    Far,
}

/// A route that would accept a request but for one criterion.
#[derive(Debug)]
pub(super) struct Near {
    pub(super) criterion: Criterion,
    /// How much of a name or path is the same, in bytes; 0 for other criteria.
    pub(super) closeness: usize,
    /// Its first place if the criterion fitted.
    pub(super) place: Place,
}

/// What a route asks of a request. The less common in a miss, and so the more telling, is less.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Criterion {
    Method,
    Headers,
    Sni,
    Source,
    Destination,
    /// The protocols of a route with an expression.
    Protocol,
    Expression,
    Path,
    Host,
}

/// Asks a route.
pub(super) fn judge(route: &Arc<Route>, request: &RequestHead<'_>, regexes: &Regexes) -> Verdict {
    let criteria = &route.criteria;
    if criteria.is_stream() {
        return Verdict::Far;
    }
    let missed = match criteria.rare().and_then(|rare| rare.expression.as_ref()) {
        Some(expression) => missed_of_expression(criteria, expression, request, regexes),
        None => missed(criteria, request, regexes),
    };
    let missed = match missed.as_slice() {
        [] => None,
        [one] => Some(*one),
        [_, ..] => return Verdict::Far,
    };
    let place = first_place(route, missed, request, regexes);
    match (place, missed) {
        (None, _) => Verdict::Far,
        (Some(place), None) => Verdict::Fits(place),
        (Some(place), Some(criterion)) => Verdict::Near(Near {
            criterion,
            closeness: closeness(criteria, criterion, request),
            place,
        }),
    }
}

/// What does not fit; two at most are told. Paths come last: they may be regexes.
fn missed(criteria: &Criteria, request: &RequestHead<'_>, regexes: &Regexes) -> Vec<Criterion> {
    let mut missed = Vec::new();
    let rare = criteria.rare();
    let method = criteria.methods & method_bit(request.method) != 0
        && rare.is_none_or(|rare| rare.accepts_method(request.method));
    let mut note = |criterion, fits: bool| {
        if !fits {
            missed.push(criterion);
        }
        missed.len() < 2
    };
    let host = || criteria.hosts.iter().any(|rule| fits_host(rule, request));
    let path = || {
        let mut paths = criteria.paths.iter();
        paths.any(|path| fits_path(path, request.path, regexes))
    };
    let others = |note: &mut dyn FnMut(Criterion, bool) -> bool| {
        rare.is_none_or(|rare| {
            let mut headers = rare.headers.iter();
            note(Criterion::Sni, rare.accepts_sni(request.tls, request.sni))
                && note(Criterion::Source, within(&rare.sources, request.source))
                && note(
                    Criterion::Destination,
                    within(&rare.destinations, request.destination),
                )
                && note(
                    Criterion::Headers,
                    headers.all(|rule| rule.accepts(request, regexes)),
                )
        })
    };
    let _ = note(Criterion::Method, method)
        && note(Criterion::Host, host())
        && others(&mut note)
        && note(Criterion::Path, path());
    missed
}

/// The same of an expression: its protocols, and the parts of it that are joined by "and".
fn missed_of_expression(
    criteria: &Criteria,
    expression: &Expression,
    request: &RequestHead<'_>,
    regexes: &Regexes,
) -> Vec<Criterion> {
    let served = match request.tls {
        true => expression.tls,
        false => expression.clear,
    };
    let failing = failing_parts(&expression.condition, request, regexes).len();
    // A host name that the index does not look for has no route with an expression that needs one.
    let found = failing > 0
        || criteria.hosts.iter().any(|rule| fits_host(rule, request))
            && criteria.methods & method_bit(request.method) != 0;
    let mut missed = vec![Criterion::Expression; failing.max(usize::from(!found))];
    missed.extend((!served).then_some(Criterion::Protocol));
    missed
}

/// The parts of an expression that do not hold.
pub(super) fn failing_parts<'a>(
    condition: &'a Condition,
    request: &RequestHead<'_>,
    regexes: &Regexes,
) -> Vec<&'a Condition> {
    let parts = match condition {
        Condition::All(parts) => parts,
        Condition::Any(_)
        | Condition::Not(_)
        | Condition::Text(_)
        | Condition::Number { .. }
        | Condition::Address { .. } => std::slice::from_ref(condition),
    };
    let facts = Facts::of_request(request);
    let fails = |part: &&Condition| !part.holds(&facts, regexes);
    parts.iter().filter(fails).collect()
}

/// The place that would be tried first of those that fit, whatever `missed` says.
fn first_place(
    route: &Arc<Route>,
    missed: Option<Criterion>,
    request: &RequestHead<'_>,
    regexes: &Regexes,
) -> Option<Place> {
    let criteria = &route.criteria;
    let priorities = criteria.priority();
    if criteria.is_expression() {
        return Some(Place {
            priority: priorities.whole(),
            route: Arc::clone(route),
            methods: criteria.methods,
            port: 0,
            path: 0,
        });
    }
    let hosts = criteria.hosts.iter();
    let hosts = hosts.filter(|rule| missed == Some(Criterion::Host) || fits_host(rule, request));
    let port = hosts
        .map(|rule| rule.port.map_or(0, NonZeroU16::get))
        .min()?;
    let any = missed == Some(Criterion::Path);
    let paths = (0..).zip(&*criteria.paths);
    let paths = paths.filter(|(_, path)| any || fits_path(path, request.path, regexes));
    let places = paths.map(|(index, path)| Place {
        priority: match path {
            Path::Prefix(prefix) => priorities.of_prefix(prefix.len()),
            Path::Regex(_) => priorities.of_regex(),
        },
        route: Arc::clone(route),
        methods: criteria.methods,
        port,
        path: index,
    });
    places.min()
}

fn fits_host(rule: &HostRule, request: &RequestHead<'_>) -> bool {
    let host = request.host;
    let port = rule.port.is_none_or(|port| port.get() == request.port);
    let known = !host.is_empty() && host.len() <= HOST_BYTES_MAX;
    port && match &rule.host {
        Host::Any => true,
        Host::Exact(name) => known && **name == *host,
        Host::Suffix(suffix) => known && host.ends_with(&**suffix),
        Host::Prefix(prefix) => known && host.starts_with(&**prefix),
    }
}

fn fits_path(path: &Path, asked: &str, regexes: &Regexes) -> bool {
    match path {
        Path::Prefix(prefix) => asked.as_bytes().starts_with(prefix),
        Path::Regex(pattern) => {
            // Most of many regexes need not be compiled.
            asked.starts_with(&regexes::literal_prefix(&pattern.anchored))
                && pattern.find(asked, regexes).is_some()
        }
    }
}

/// How much is the same of what does not fit.
fn closeness(criteria: &Criteria, criterion: Criterion, request: &RequestHead<'_>) -> usize {
    let same = |one: &mut dyn Iterator<Item = u8>, two: &mut dyn Iterator<Item = u8>| {
        one.zip(two).take_while(|(one, two)| one == two).count()
    };
    let path = |path: &Path| {
        let literal;
        let beginning = match path {
            Path::Prefix(prefix) => &**prefix,
            Path::Regex(pattern) => {
                literal = regexes::literal_prefix(&pattern.anchored);
                literal.as_bytes()
            }
        };
        same(&mut beginning.iter().copied(), &mut request.path.bytes())
    };
    let host = |rule: &HostRule| match &rule.host {
        Host::Any => 0,
        Host::Exact(name) | Host::Suffix(name) => {
            same(&mut name.bytes().rev(), &mut request.host.bytes().rev())
        }
        Host::Prefix(name) => same(&mut name.bytes(), &mut request.host.bytes()),
    };
    let most = match criterion {
        Criterion::Path => criteria.paths.iter().map(path).max(),
        Criterion::Host => criteria.hosts.iter().map(host).max(),
        Criterion::Method
        | Criterion::Headers
        | Criterion::Sni
        | Criterion::Source
        | Criterion::Destination
        | Criterion::Protocol
        | Criterion::Expression => None,
    };
    most.unwrap_or_default()
}
