//! The predicates few routes have: kept away from what all have.

use super::RequestHead;
use super::condition::Condition;
use super::criteria::{Host, METHOD_OTHER, method_bit, wildcard};
use super::facts::{Facts, values_of};
use super::regexes::{self, Regexes};
use super::stream::{StreamHead, StreamKey, StreamProtocol};
use sluice_schema::expression::Block;
use sluice_schema::kind;
use std::net::SocketAddr;
use std::sync::Arc;
use uuid::Uuid;

#[derive(Debug, Default)]
pub(super) struct Rare {
    /// Methods without a bit of their own.
    pub(super) methods: Box<[Box<str>]>,
    pub(super) headers: Box<[HeaderRule]>,
    pub(super) snis: Box<[Host]>,
    pub(super) sources: Box<[Net]>,
    pub(super) destinations: Box<[Net]>,
    /// In place of all others.
    pub(super) expression: Option<Expression>,
    /// Not a predicate.
    pub(super) classes: Option<Classes>,
}

/// The classes of a route's paths.
#[derive(Debug)]
pub(super) struct Classes {
    /// What stands in place of the route's id, by class.
    ids: Box<[Uuid]>,
    /// By path.
    of_paths: Box<[u16]>,
}

impl Classes {
    pub(super) fn new(route: Uuid, count: usize, of_paths: Vec<u16>) -> Self {
        const NAMESPACE: Uuid = Uuid::from_u128(0x7f14_5bf9_0dce_4f91_98eb_debb_ce4b_9f6b);
        let id_of = |number| Uuid::new_v5(&NAMESPACE, format!("{route}#{number}").as_bytes());
        Self {
            ids: (1..=count).map(id_of).collect(),
            of_paths: of_paths.into(),
        }
    }

    /// The id that a path counts under.
    pub(super) fn id(&self, path: u16) -> Option<&Uuid> {
        let class = self.of_paths.get(usize::from(path))?;
        self.ids.get(usize::from(*class))
    }
}

/// A route's own condition.
#[derive(Debug)]
pub(super) struct Expression {
    pub(super) condition: Condition,
    /// The server names without which it cannot hold.
    snis: Option<Box<[Host]>>,
    /// Whether it accepts requests in clear, and over TLS.
    pub(super) clear: bool,
    pub(super) tls: bool,
}

impl Expression {
    /// `protocols` are part of the condition, but for a route of `https` alone: a request in clear must find it to be
    /// redirected.
    pub(super) fn new(condition: Condition, protocols: &[String], snis: Option<Vec<Host>>) -> Self {
        let one_of = |names: &[&str]| protocols.iter().any(|name| names.contains(&name.as_str()));
        let redirects = matches!(protocols, [only] if only == "https");
        Self {
            condition,
            snis: snis.map(Into::into),
            clear: redirects || one_of(&["http", "grpc"]),
            tls: one_of(&["https", "grpcs"]),
        }
    }
}

#[derive(Debug)]
pub(super) struct HeaderRule {
    /// Lower case, with dashes for underscores.
    pub(super) name: Box<str>,
    /// Lower case, each once.
    pub(super) equal: Box<[Box<str>]>,
    pub(super) regexes: Box<[Arc<str>]>,
}

#[derive(Debug)]
pub(super) struct Net {
    pub(super) block: Option<Block>,
    pub(super) port: Option<u16>,
}

impl Rare {
    pub(super) fn compile(fields: &kind::Route, regexes: &Regexes) -> Result<Self, String> {
        let others = fields
            .methods
            .iter()
            .filter(|method| method_bit(method) == METHOD_OTHER);
        let snis = fields.snis.iter().map(|sni| compile_sni(sni));
        let nets =
            |ends: &[kind::Endpoint]| ends.iter().map(Net::compile).collect::<Result<_, _>>();
        Ok(Self {
            methods: others.map(|method| method.as_str().into()).collect(),
            headers: compile_headers(fields, regexes)?,
            snis: snis.collect::<Result<_, _>>()?,
            sources: nets(&fields.sources)?,
            destinations: nets(&fields.destinations)?,
            ..Self::default()
        })
    }

    /// With nothing else.
    pub(super) fn of(expression: Expression) -> Self {
        Self {
            expression: Some(expression),
            ..Self::default()
        }
    }

    /// The `number`th header that must have one of some values: its name and they, in lower case.
    pub(super) fn header(&self, number: usize) -> Option<(&str, &[Box<str>])> {
        let exact = self.headers.iter().filter(|rule| rule.regexes.is_empty());
        let rule = exact.into_iter().nth(number)?;
        Some((&rule.name, &rule.equal))
    }

    /// Whether it has a predicate at all.
    pub(super) fn asks(&self) -> bool {
        !self.headers.is_empty() || self.asks_more_than_headers()
    }

    /// Whether the first [`header`](Self::header) is its only predicate.
    pub(super) fn asks_one_header(&self) -> bool {
        self.headers.len() == 1 && self.header(0).is_some() && !self.asks_more_than_headers()
    }

    fn asks_more_than_headers(&self) -> bool {
        !(self.methods.is_empty()
            && self.snis.is_empty()
            && self.sources.is_empty()
            && self.destinations.is_empty()
            && self.expression.is_none())
    }

    pub(super) fn accepts(&self, request: &RequestHead<'_>, regexes: &Regexes) -> bool {
        if let Some(expression) = &self.expression {
            let served = match request.tls {
                true => expression.tls,
                false => expression.clear,
            };
            return served
                && expression
                    .condition
                    .holds(&Facts::of_request(request), regexes);
        }
        self.accepts_method(request.method)
            && self.accepts_sni(request.tls, request.sni)
            && self.accepts_ends(request.source, request.destination)
            && self
                .headers
                .iter()
                .all(|rule| rule.accepts(request, regexes))
    }

    /// Its protocols are looked at before.
    pub(super) fn accepts_stream(&self, stream: &StreamHead<'_>, regexes: &Regexes) -> bool {
        if let Some(expression) = &self.expression {
            let facts = Facts::of_stream(stream);
            return expression.condition.holds(&facts, regexes);
        }
        let tls = stream.protocol == StreamProtocol::Tls;
        self.accepts_sni(tls, stream.sni) && self.accepts_ends(stream.source, stream.destination)
    }

    fn accepts_ends(&self, source: SocketAddr, destination: SocketAddr) -> bool {
        within(&self.sources, source) && within(&self.destinations, destination)
    }

    pub(super) fn accepts_method(&self, method: &str) -> bool {
        self.methods.is_empty()
            || method_bit(method) != METHOD_OTHER
            || self.methods.iter().any(|listed| **listed == *method)
    }

    /// Server names count only where there could be one: on TLS.
    pub(super) fn accepts_sni(&self, tls: bool, sni: Option<&str>) -> bool {
        if self.snis.is_empty() || !tls {
            return true;
        }
        let Some(sni) = sni else { return false };
        let sni = sni.strip_suffix('.').unwrap_or(sni).to_ascii_lowercase();
        self.snis.iter().any(|rule| match rule {
            Host::Any => true,
            Host::Exact(name) => **name == *sni,
            Host::Suffix(suffix) => sni.ends_with(&**suffix),
            Host::Prefix(prefix) => sni.starts_with(&**prefix),
        })
    }

    /// Where a stream route is filed: one of its keys is found for each connection that it accepts.
    pub(super) fn keys(&self, also_plain: bool) -> Vec<StreamKey> {
        let sni = |sni: &Host| StreamKey::Sni(sni.clone());
        if let Some(expression) = &self.expression {
            return match &expression.snis {
                Some(snis) => snis.iter().map(sni).collect(),
                None => vec![StreamKey::Other],
            };
        }
        let mut keys: Vec<_> = self.snis.iter().map(sni).collect();
        if keys.is_empty() || also_plain {
            let ports: Option<Vec<_>> = self.destinations.iter().map(|net| net.port).collect();
            match ports.filter(|ports| !ports.is_empty()) {
                Some(ports) => keys.extend(ports.into_iter().map(StreamKey::Port)),
                None => keys.push(StreamKey::Other),
            }
        }
        keys
    }
}

impl HeaderRule {
    /// Any instance of the header may have any of the values. Names are equal if they differ in `-` and `_` only.
    pub(super) fn accepts(&self, request: &RequestHead<'_>, regexes: &Regexes) -> bool {
        values_of(request.headers, &self.name).any(|value| {
            let value = value.as_bytes();
            let mut equal = self.equal.iter();
            equal.any(|text| value.eq_ignore_ascii_case(text.as_bytes()))
                || self.regexes.iter().any(|pattern| {
                    let regex = regexes.find(pattern);
                    regex.is_some_and(|regex| regex.is_match(value))
                })
        })
    }
}

impl Net {
    fn compile(end: &kind::Endpoint) -> Result<Self, String> {
        let block = |text: &String| {
            Block::parse(text).ok_or_else(|| format!("`{text}` is not an address or a block"))
        };
        Ok(Self {
            block: end.ip.as_ref().map(block).transpose()?,
            port: end.port,
        })
    }

    fn holds(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.block.is_none_or(|block| block.holds(ip))
            && self.port.is_none_or(|port| port == address.port())
    }
}

/// Whether an address is in one of these; any is if there are none.
pub(super) fn within(nets: &[Net], address: SocketAddr) -> bool {
    nets.is_empty() || nets.iter().any(|net| net.holds(address))
}

fn compile_sni(text: &str) -> Result<Host, String> {
    wildcard(text.strip_suffix('.').unwrap_or(text))
        .ok_or_else(|| format!("server name `{text}` is not valid"))
}

fn compile_headers(fields: &kind::Route, regexes: &Regexes) -> Result<Box<[HeaderRule]>, String> {
    let rule = |(name, values): (&String, &Vec<String>)| {
        let (mut equal, mut patterns) = (Vec::<Box<str>>::new(), Vec::new());
        for value in values {
            match value.strip_prefix("~*") {
                Some(pattern) => patterns.push(regexes.check(&regexes::header_pattern(pattern))?),
                None => equal.push(value.to_ascii_lowercase().into()),
            }
        }
        equal.sort_unstable();
        equal.dedup();
        Ok(HeaderRule {
            name: name.to_ascii_lowercase().replace('_', "-").into(),
            equal: equal.into(),
            regexes: patterns.into(),
        })
    };
    fields.headers.iter().map(rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_their_addresses() {
        let holds = |block: &str, address: &str| {
            let end = kind::Endpoint {
                ip: Some(block.to_owned()),
                port: None,
            };
            Net::compile(&end).unwrap().holds(address.parse().unwrap())
        };
        assert!(holds("10.1.2.3/8", "10.9.9.9:1"));
        assert!(!holds("10.1.2.3/8", "11.9.9.9:1"));
        assert!(holds("0.0.0.0/0", "11.9.9.9:1"));
        assert!(holds("10.0.0.1", "[::ffff:10.0.0.1]:1"));
        assert!(!holds("10.0.0.1", "10.0.0.2:1"));
        assert!(holds("fd00::/8", "[fd12::1]:1"));
        assert!(!holds("::/0", "1.2.3.4:1"));
    }
}
