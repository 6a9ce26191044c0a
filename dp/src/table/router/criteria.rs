//! What a route asks of a request, compiled: the places it takes in the index, and the predicates that are left.

use super::RequestHead;
use super::condition::{Condition, Trace};
use super::facts::Facts;
use super::needs::Needs;
use super::priority::Priority;
use super::rare::{Classes, Expression, Rare};
use super::regexes::{PathPattern, Regexes};
use super::stream::{StreamHead, StreamKey};
use super::text::{List, Text};
use sluice_schema::expression::{self, Subsystem};
use sluice_schema::kind;
use std::collections::{HashMap, HashSet};
use std::num::NonZeroU16;
use std::sync::Arc;
use uuid::Uuid;

/// Longest host name that can match; DNS allows 253 bytes.
pub(super) const HOST_BYTES_MAX: usize = 255;
/// Most hosts times paths of one route.
const PLACES_MAX: usize = 65_535;

/// The matching part of a compiled route.
#[derive(Debug)]
pub(crate) struct Criteria {
    /// One `Any` if the route has none.
    pub(super) hosts: List<HostRule>,
    /// One empty prefix if the route has none. No path at all if it is for streams.
    pub(super) paths: List<Path>,
    /// What few routes have.
    rare: Option<Box<Rare>>,
    /// Kept apart from each other, which takes 12 bytes instead of 16.
    priority: u64,
    regex_priority: u32,
    /// The methods accepted, as [`method_bit`]s, and [`MORE`], [`ONE_HEADER`] and [`EXPRESSION`].
    pub(super) methods: u16,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct HostRule {
    pub(super) host: Host,
    pub(super) port: Option<NonZeroU16>,
}

/// The text is what indexes are keyed by; it is shared with them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Host {
    Any,
    Exact(Arc<str>),
    /// `*.x`, held as `.x`.
    Suffix(Arc<str>),
    /// `x.*`, held as `x.`.
    Prefix(Arc<str>),
}

#[derive(PartialEq, Eq, Debug)]
pub(super) enum Path {
    Prefix(Text),
    Regex(Box<PathPattern>),
}

impl Criteria {
    /// Compiles the matching part of route `id`.
    pub(crate) fn compile(
        id: Uuid,
        fields: &kind::Route,
        regexes: &Regexes,
    ) -> Result<Self, String> {
        let protocols = fields.protocols.iter().map(String::as_str);
        let subsystem = Subsystem::of(protocols);
        match (&fields.expression, subsystem) {
            (Some(text), _) => Self::of_expression(text, subsystem, fields, regexes),
            (None, Subsystem::Http) => Self::of_request(id, fields, regexes),
            (None, Subsystem::Stream) => {
                let rare = Rare::compile(fields, regexes)?;
                Ok(Self::of_stream(Priority::of_all(fields), Some(rare)))
            }
        }
    }

    fn of_request(id: Uuid, fields: &kind::Route, regexes: &Regexes) -> Result<Self, String> {
        let (paths, classes) = compile_paths(id, &fields.paths, regexes)?;
        let hosts = compile_hosts(&fields.hosts)?;
        if hosts.len().saturating_mul(paths.len()) > PLACES_MAX {
            return Err(format!("more than {PLACES_MAX} pairs of host and path"));
        }
        let mut rare = Rare::compile(fields, regexes)?;
        let methods = match fields.methods.as_slice() {
            [] => METHOD_ANY,
            methods => methods
                .iter()
                .fold(0, |bits, method| bits | method_bit(method)),
        };
        let more = match (rare.asks(), rare.asks_one_header()) {
            (false, _) => 0,
            (true, false) => MORE,
            (true, true) => MORE | ONE_HEADER,
        };
        rare.classes = classes;
        let rare = (more != 0 || rare.classes.is_some()).then(|| Box::new(rare));
        let Priority { base, regex } = Priority::of(fields);
        Ok(Self {
            hosts: hosts.into(),
            paths: paths.into(),
            rare,
            priority: base,
            regex_priority: regex,
            methods: methods | more,
        })
    }

    fn of_stream(priority: Priority, rare: Option<Rare>) -> Self {
        Self {
            hosts: List::One(HostRule::ANY),
            paths: List::Many(Box::default()),
            rare: rare.map(Box::new),
            priority: priority.whole(),
            regex_priority: 0,
            methods: METHOD_ANY | MORE,
        }
    }

    fn of_expression(
        text: &str,
        subsystem: Subsystem,
        fields: &kind::Route,
        regexes: &Regexes,
    ) -> Result<Self, String> {
        let expression = expression::parse(text, subsystem)
            .map_err(|error| format!("{} at column {}", error.reason, error.column))?;
        let condition = Condition::compile(&expression, regexes)?;
        let needs = Needs::of(&condition);
        let priority = Priority::of_all(fields);
        let rare = |snis| Rare::of(Expression::new(condition, &fields.protocols, snis));
        if subsystem == Subsystem::Stream {
            return Ok(Self::of_stream(priority, Some(rare(needs.snis))));
        }
        let rule = |host| HostRule { host, port: None };
        let hosts = match needs.hosts {
            Some(hosts) => hosts.into_iter().map(rule).collect(),
            None => vec![HostRule::ANY],
        };
        let path = |prefix: Box<str>| Path::Prefix(prefix.as_bytes().into());
        let paths = match needs.prefixes {
            Some(prefixes) => prefixes.into_iter().map(path).collect(),
            None => vec![Path::Prefix(Text::default())],
        };
        Ok(Self {
            hosts: hosts.into(),
            paths: paths.into(),
            rare: Some(Box::new(rare(None))),
            priority: priority.whole(),
            regex_priority: 0,
            methods: needs.methods | MORE | EXPRESSION,
        })
    }

    /// What its places have.
    pub(super) fn priority(&self) -> Priority {
        Priority {
            base: self.priority,
            regex: self.regex_priority,
        }
    }

    pub(super) fn is_stream(&self) -> bool {
        self.paths.is_empty()
    }

    pub(super) fn is_expression(&self) -> bool {
        self.methods & EXPRESSION != 0
    }

    /// A route whose paths are of several lengths or kinds counts as several, one for each class of paths.
    pub(super) fn classes(&self) -> Option<&Classes> {
        self.rare.as_ref()?.classes.as_ref()
    }

    /// The `number`th header without one of whose values the route accepts nothing: its name and they, in lower case.
    pub(super) fn header(&self, number: usize) -> Option<(&str, &[Box<str>])> {
        self.rare.as_ref()?.header(number)
    }

    /// Whether the predicates fit that [`MORE`] stands for.
    pub(super) fn accepts_more(&self, request: &RequestHead<'_>, regexes: &Regexes) -> bool {
        self.rare
            .as_ref()
            .is_none_or(|rare| rare.accepts(request, regexes))
    }

    /// What few routes have.
    pub(super) fn rare(&self) -> Option<&Rare> {
        self.rare.as_deref()
    }

    pub(super) fn accepts_stream(&self, stream: &StreamHead<'_>, regexes: &Regexes) -> bool {
        self.rare
            .as_ref()
            .is_none_or(|rare| rare.accepts_stream(stream, regexes))
    }

    /// What an expression that holds says of a request; nothing for other routes.
    pub(super) fn trace(&self, facts: &Facts<'_>, regexes: &Regexes) -> Trace {
        let mut trace = Trace::default();
        let expression = self.rare.as_ref().and_then(|rare| rare.expression.as_ref());
        if let Some(expression) = expression {
            expression.condition.trace(facts, regexes, &mut trace);
        }
        trace
    }

    /// Where a stream route is filed. `also_plain`: it also serves connections that have no server name to match.
    pub(super) fn stream_keys(&self, also_plain: bool) -> Vec<StreamKey> {
        self.rare
            .as_ref()
            .map_or_else(|| vec![StreamKey::Other], |rare| rare.keys(also_plain))
    }
}

impl HostRule {
    const ANY: Self = Self {
        host: Host::Any,
        port: None,
    };
}

/// Stands for all methods without a bit of their own.
pub(super) const METHOD_OTHER: u16 = 1 << 12;
pub(super) const METHOD_ANY: u16 = METHOD_OTHER | (METHOD_OTHER - 1);
/// Not a method: the route has an expression.
pub(super) const EXPRESSION: u16 = 1 << 14;
/// Not a method: what [`MORE`] stands for is the route's first header alone.
pub(super) const ONE_HEADER: u16 = 1 << 13;
/// Not a method: there are predicates that only the route itself can tell.
pub(super) const MORE: u16 = 1 << 15;

/// The bit of a method.
pub(super) fn method_bit(method: &str) -> u16 {
    match method {
        "GET" => 1,
        "HEAD" => 1 << 1,
        "POST" => 1 << 2,
        "PUT" => 1 << 3,
        "PATCH" => 1 << 4,
        "DELETE" => 1 << 5,
        "OPTIONS" => 1 << 6,
        "TRACE" => 1 << 7,
        "CONNECT" => 1 << 8,
        _ => METHOD_OTHER,
    }
}

fn compile_hosts(hosts: &[String]) -> Result<Vec<HostRule>, String> {
    if hosts.is_empty() {
        return Ok(vec![HostRule::ANY]);
    }
    let mut rules = hosts
        .iter()
        .map(|text| compile_host(text))
        .collect::<Result<Vec<_>, _>>()?;
    rules.sort_unstable();
    rules.dedup();
    Ok(rules)
}

fn compile_host(text: &str) -> Result<HostRule, String> {
    let invalid = || format!("host `{text}` is not valid");
    let after_ip = text.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match text[after_ip..].find(':') {
        None => (text, None),
        Some(at) => {
            let port = text[after_ip + at + 1..].parse().map_err(|_| invalid())?;
            (&text[..after_ip + at], Some(port))
        }
    };
    let host = wildcard(host).ok_or_else(invalid)?;
    Ok(HostRule { host, port })
}

/// A name, or one with a wildcard at an end.
pub(super) fn wildcard(text: &str) -> Option<Host> {
    let text = text.to_ascii_lowercase();
    if text.is_empty() || text.len() > HOST_BYTES_MAX {
        return None;
    }
    match text.matches('*').count() {
        0 => Some(Host::Exact(text.into())),
        1 => {
            let suffix = text.strip_prefix('*').filter(|rest| rest.starts_with('.'));
            let prefix = text.strip_suffix('*').filter(|rest| rest.ends_with('.'));
            suffix
                .map(|suffix| Host::Suffix(suffix.into()))
                .or_else(|| prefix.map(|prefix| Host::Prefix(prefix.into())))
        }
        _ => None,
    }
}

/// Sorts the paths into classes, one for each length of plain paths and one for all regexes, in the order in which
/// they first appear: Kong derives the ids from that order.
fn compile_paths(
    id: Uuid,
    texts: &[String],
    regexes: &Regexes,
) -> Result<(Vec<Path>, Option<Classes>), String> {
    if texts.is_empty() {
        return Ok((vec![Path::Prefix(Text::default())], None));
    }
    if texts.len() > PLACES_MAX {
        return Err(format!("more than {PLACES_MAX} paths"));
    }
    let mut paths = Vec::with_capacity(texts.len());
    let mut of_paths = Vec::with_capacity(texts.len());
    let mut classes: HashMap<Option<usize>, u16> = HashMap::new();
    let mut seen = HashSet::new();
    for text in texts.iter().filter(|text| seen.insert(text.as_str())) {
        let (path, class) = match text.strip_prefix('~') {
            Some(pattern) => (Path::Regex(Box::new(regexes.check_path(pattern)?)), None),
            None => (Path::Prefix(text.as_bytes().into()), Some(text.len())),
        };
        let next = u16::try_from(classes.len()).map_err(|_| "too many lengths of paths")?;
        of_paths.push(*classes.entry(class).or_insert(next));
        paths.push(path);
    }
    let classes = (classes.len() > 1).then(|| Classes::new(id, classes.len(), of_paths));
    Ok((paths, classes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_exact_or_have_one_wildcard_at_an_end() {
        let host =
            |text| compile_host(text).map(|rule| (rule.host, rule.port.map(NonZeroU16::get)));
        assert_eq!(host("A.b"), Ok((Host::Exact("a.b".into()), None)));
        assert_eq!(host("a.b:81"), Ok((Host::Exact("a.b".into()), Some(81))));
        assert_eq!(host("*.b:81"), Ok((Host::Suffix(".b".into()), Some(81))));
        assert_eq!(host("a.*"), Ok((Host::Prefix("a.".into()), None)));
        assert_eq!(
            host("[::1]:81"),
            Ok((Host::Exact("[::1]".into()), Some(81)))
        );
        for bad in [
            "", "*", "*b", "a*", "a.*.b", "*.a.*", "a:b", "a:65536", "a:0", ":80",
        ] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }
}
