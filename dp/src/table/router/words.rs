//! Why a route is not taken, in words.

use super::RequestHead;
use super::condition::{Compare, Condition, TextCondition};
use super::criteria::{Criteria, Host, HostRule, METHOD_ANY, Path, method_bit};
use super::place::Place;
use super::priority::{Rule, first_difference};
use super::rare::Net;
use super::regexes::Regexes;
use super::verdict::{Criterion, Near, failing_parts};
use sluice_schema::expression::{AddressTest, End, NumberField, NumberTest, TextField};

/// Of several values that are asked for, so many are named.
const NAMED_MAX: usize = 4;
/// The longest text that is shown whole, in characters.
const TEXT_CHARS_MAX: usize = 200;
/// Methods with a bit of their own.
const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT",
];

/// The path of a place, as the route has it; nothing if it has none, or an expression.
pub(super) fn path_of(place: &Place) -> Option<String> {
    let criteria = &place.route.criteria;
    let path = criteria.paths.get(usize::from(place.path))?;
    let text = written(path);
    (!criteria.is_expression() && !text.is_empty()).then_some(text)
}

fn written(path: &Path) -> String {
    shorten(match path {
        Path::Prefix(prefix) => String::from_utf8_lossy(prefix).into_owned(),
        Path::Regex(pattern) => format!("~{}", pattern.written()),
    })
}

/// Why `loser` comes after `winner`, both of which fit.
pub(super) fn of_loser(winner: &Place, loser: &Place) -> String {
    let (first, second) = (&winner.route.criteria, &loser.route.criteria);
    let ids = || {
        let derived = first.classes().or(second.classes()).is_some();
        let whose = match derived {
            true => " (that of a route with paths of several lengths is derived from its own)",
            false => "",
        };
        format!("all else is equal, and the greater id goes first{whose}")
    };
    match (first.is_expression(), second.is_expression()) {
        (true, false) => return "routes with an expression go first".to_owned(),
        (true, true) if winner.priority == loser.priority => return ids(),
        (true, true) => {
            // The bits above are those of all expressions.
            let own = |place: &Place| place.priority & (u64::MAX >> 8);
            let (one, two) = (own(winner), own(loser));
            return format!("its priority {two} is lower than {one}");
        }
        (false, true | false) => {}
    }
    let path = |place| path_of(place).unwrap_or_else(|| "none".to_owned());
    let (one, two) = (path(winner), path(loser));
    match first_difference(winner.priority, loser.priority) {
        None => ids(),
        Some(Rule::Kinds(most, fewer)) => format!(
            "it asks for {fewer} of methods, hosts, headers, paths, ... ({}), the winner for {most} ({})",
            kinds(second),
            kinds(first)
        ),
        Some(Rule::PlainHosts) => match second.hosts.iter().any(|rule| rule.host == Host::Any) {
            true => "it asks for no host, the winner for one without a wildcard".to_owned(),
            false => "its hosts have a wildcard, those of the winner have none".to_owned(),
        },
        Some(Rule::Headers(most, fewer)) => {
            format!("it asks for {fewer} headers, the winner for {most}")
        }
        Some(Rule::Regex) => format!("its path {two} is no regex, and {one} is one"),
        Some(Rule::RegexPriority(higher, lower)) => {
            format!("its regex_priority {lower} is lower than {higher}")
        }
        Some(Rule::Length(..)) => format!("its path {two} is shorter than {one}"),
    }
}

/// The kinds of attributes that count.
fn kinds(criteria: &Criteria) -> String {
    let rare = criteria.rare();
    let has = |has: bool, name: &'static str| has.then_some(name);
    let rules = |count: Option<usize>| count.is_some_and(|count| count > 0);
    let named = [
        has(criteria.methods & METHOD_ANY != METHOD_ANY, "methods"),
        has(
            criteria.hosts.iter().all(|rule| rule.host != Host::Any),
            "hosts",
        ),
        has(rules(rare.map(|rare| rare.headers.len())), "headers"),
        has(rules(rare.map(|rare| rare.snis.len())), "snis"),
        has(rules(rare.map(|rare| rare.sources.len())), "sources"),
        has(
            rules(rare.map(|rare| rare.destinations.len())),
            "destinations",
        ),
        has(
            criteria.paths.iter().any(|path| !written(path).is_empty()),
            "paths",
        ),
    ];
    let named: Vec<&str> = named.into_iter().flatten().collect();
    match named.as_slice() {
        [] => "none".to_owned(),
        [_, ..] => named.join(", "),
    }
}

/// What does not fit of a route that would otherwise accept the request. Values of the request's headers are not told.
pub(super) fn of_near(near: &Near, request: &RequestHead<'_>, regexes: &Regexes) -> String {
    let criteria = &near.place.route.criteria;
    let rare = criteria.rare();
    match near.criterion {
        Criterion::Method => {
            let own = METHODS
                .iter()
                .filter(|name| criteria.methods & method_bit(name) != 0);
            let others = rare.map(|rare| &rare.methods[..]).unwrap_or_default();
            let all = own.map(|name| (*name).to_owned());
            let all = all.chain(others.iter().map(|name| (**name).to_owned()));
            format!("the method {} is not {}", request.method, one_of(all))
        }
        Criterion::Host => {
            let rules = criteria.hosts.iter().map(host_rule);
            let ported = criteria.hosts.iter().any(|rule| rule.port.is_some());
            let port = match ported {
                true => format!(" with port {}", request.port),
                false => String::new(),
            };
            format!("the host {}{port} is not {}", request.host, one_of(rules))
        }
        Criterion::Path => {
            let paths = criteria.paths.iter().map(written);
            let path = shorten(request.path.to_owned());
            format!("the path {path} does not begin with {}", one_of(paths))
        }
        Criterion::Headers => {
            let rules = rare.map(|rare| &rare.headers[..]).unwrap_or_default();
            let failing = rules.iter().filter(|rule| !rule.accepts(request, regexes));
            let each = failing.map(|rule| {
                let equal = rule.equal.iter().map(|value| (**value).to_owned());
                let patterns = rule.regexes.iter().map(|pattern| format!("~*{pattern}"));
                format!("{}: {}", rule.name, one_of(equal.chain(patterns)))
            });
            format!("it asks for the header {}", all_of(each))
        }
        Criterion::Sni => {
            let rules = rare.map(|rare| &rare.snis[..]).unwrap_or_default();
            let named = one_of(rules.iter().map(host));
            match request.sni {
                Some(sni) => format!("the server name {sni} is not {named}"),
                None => format!("there is no server name; it asks for {named}"),
            }
        }
        Criterion::Source => {
            let nets = rare.map(|rare| &rare.sources[..]).unwrap_or_default();
            let named = one_of(nets.iter().map(net));
            format!("the client's address {} is not {named}", request.source)
        }
        Criterion::Destination => {
            let nets = rare.map(|rare| &rare.destinations[..]).unwrap_or_default();
            let named = one_of(nets.iter().map(net));
            let destination = request.destination;
            format!("the address connected to, {destination}, is not {named}")
        }
        Criterion::Protocol => match request.tls {
            true => "its protocols are none that come over TLS".to_owned(),
            false => "its protocols are none that come in clear".to_owned(),
        },
        Criterion::Expression => {
            let expression = rare.and_then(|rare| rare.expression.as_ref());
            let parts =
                expression.map(|expression| failing_parts(&expression.condition, request, regexes));
            let parts = parts.unwrap_or_default().into_iter().map(describe);
            format!("in its expression this does not hold: {}", all_of(parts))
        }
    }
}

/// `a`, or `one of a, b and 3 more`.
fn one_of(values: impl Iterator<Item = String>) -> String {
    let mut values: Vec<String> = values.collect();
    let more = values.len().saturating_sub(NAMED_MAX);
    values.truncate(NAMED_MAX);
    match (values.as_slice(), more) {
        ([one], 0) => one.clone(),
        (_, 0) => format!("one of {}", values.join(", ")),
        (_, more) => format!("one of {} and {more} more", values.join(", ")),
    }
}

fn all_of(values: impl Iterator<Item = String>) -> String {
    let values: Vec<String> = values.take(NAMED_MAX).collect();
    shorten(values.join(" and "))
}

fn host_rule(rule: &HostRule) -> String {
    let name = host(&rule.host);
    match rule.port {
        Some(port) => format!("{name}:{port}"),
        None => name,
    }
}

fn host(host: &Host) -> String {
    match host {
        Host::Any => "*".to_owned(),
        Host::Exact(name) => name.to_string(),
        Host::Suffix(name) => format!("*{name}"),
        Host::Prefix(name) => format!("{name}*"),
    }
}

fn net(net: &Net) -> String {
    match (net.block, net.port) {
        (Some(block), Some(port)) => format!("{block} with port {port}"),
        (Some(block), None) => block.to_string(),
        (None, Some(port)) => format!("port {port}"),
        (None, None) => "any".to_owned(),
    }
}

/// A condition as expressions are written.
fn describe(condition: &Condition) -> String {
    let join = |parts: &[Condition], by: &str| {
        let parts: Vec<String> = parts.iter().map(describe).collect();
        format!("({})", parts.join(by))
    };
    match condition {
        Condition::All(parts) => join(parts, " && "),
        Condition::Any(parts) => join(parts, " || "),
        Condition::Not(inner) => format!("!({})", describe(inner)),
        Condition::Text(text) => comparison(text),
        Condition::Number { field, test, value } => {
            let field = match field {
                NumberField::SegmentCount => "http.path.segments.len",
                NumberField::Port(End::Source) => "net.src.port",
                NumberField::Port(End::Destination) => "net.dst.port",
            };
            let test = match test {
                NumberTest::Equal => "==",
                NumberTest::NotEqual => "!=",
                NumberTest::Less => "<",
                NumberTest::LessOrEqual => "<=",
                NumberTest::Greater => ">",
                NumberTest::GreaterOrEqual => ">=",
            };
            format!("{field} {test} {value}")
        }
        Condition::Address { end, test } => {
            let field = match end {
                End::Source => "net.src.ip",
                End::Destination => "net.dst.ip",
            };
            match test {
                AddressTest::Equal(address) => format!("{field} == {address}"),
                AddressTest::NotEqual(address) => format!("{field} != {address}"),
                AddressTest::In(block) => format!("{field} in {block}"),
                AddressTest::NotIn(block) => format!("{field} not in {block}"),
            }
        }
    }
}

fn comparison(text: &TextCondition) -> String {
    let field = match &text.field {
        TextField::Protocol => "net.protocol".to_owned(),
        TextField::Sni => "tls.sni".to_owned(),
        TextField::Method => "http.method".to_owned(),
        TextField::Host => "http.host".to_owned(),
        TextField::Path => "http.path".to_owned(),
        TextField::Segments { first, last } if first == last => {
            format!("http.path.segments.{first}")
        }
        TextField::Segments { first, last } => format!("http.path.segments.{first}_{last}"),
        TextField::Header(name) => format!("http.headers.{name}"),
        TextField::Query(name) => format!("http.queries.{name}"),
    };
    let field = match text.lower {
        true => format!("lower({field})"),
        false => field,
    };
    let field = match text.any {
        true => format!("any({field})"),
        false => field,
    };
    let (test, value): (_, &str) = match &text.test {
        Compare::Equal(value) => ("==", value),
        Compare::NotEqual(value) => ("!=", value),
        Compare::Prefix(value) => ("^=", value),
        Compare::Suffix(value) => ("=^", value),
        Compare::Contains(value) => ("contains", value),
        Compare::Regex(value) => ("~", value),
    };
    format!("{field} {test} \"{value}\"")
}

fn shorten(text: String) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}
