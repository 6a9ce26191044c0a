//! What a route asks of a request, compiled: the places it takes in the index, and the predicates that are left.

use super::RequestHead;
use super::priority::{Priority, is_stream};
use super::regexes::{self, Regexes};
use sluice_schema::kind;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use uuid::Uuid;

/// Longest host name that can match; DNS allows 253 bytes.
pub(super) const HOST_BYTES_MAX: usize = 255;
/// Most hosts times paths of one route.
const PLACES_MAX: usize = 65_535;

/// The matching part of a compiled route. A route of a stream protocol has no paths and takes no place.
#[derive(Debug)]
pub(crate) struct Criteria {
    /// The methods accepted, as [`method_bit`]s, and [`MORE`].
    pub(super) methods: u16,
    /// One `Any` if the route has none.
    pub(super) hosts: Box<[HostRule]>,
    /// One empty prefix if the route has none.
    pub(super) paths: Box<[PathRule]>,
    pub(super) priority: Priority,
    /// A route whose paths are of several lengths or kinds counts as several, one for each class of paths, with these
    /// ids in place of its own. Empty if it is of one class.
    pub(super) classes: Box<[Uuid]>,
    /// Predicates few routes have.
    rare: Option<Box<Rare>>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct HostRule {
    pub(super) host: Host,
    pub(super) port: Option<NonZeroU16>,
}

/// The text is what indexes are keyed by; it is shared with them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Host {
    Any,
    Exact(Arc<str>),
    /// `*.x`, held as `.x`.
    Suffix(Arc<str>),
    /// `x.*`, held as `x.`.
    Prefix(Arc<str>),
}

#[derive(Debug)]
pub(super) struct PathRule {
    pub(super) path: Path,
    /// Index into the route's classes.
    pub(super) class: u16,
}

#[derive(PartialEq, Eq, Hash, Debug)]
pub(super) enum Path {
    Prefix(Box<str>),
    /// The anchored pattern.
    Regex(Arc<str>),
}

#[derive(Debug, Default)]
struct Rare {
    /// Methods without a bit of their own.
    methods: Box<[Box<str>]>,
    headers: Box<[HeaderRule]>,
    snis: Box<[Host]>,
    sources: Box<[Net]>,
    destinations: Box<[Net]>,
}

#[derive(Debug)]
struct HeaderRule {
    /// Lower case, with dashes for underscores.
    name: Box<str>,
    values: Box<[HeaderValue]>,
}

#[derive(Debug)]
enum HeaderValue {
    Equal(Box<str>),
    Regex(Arc<str>),
}

#[derive(Debug)]
struct Net {
    block: Option<(IpAddr, u8)>,
    port: Option<u16>,
}

impl Criteria {
    /// Compiles the matching part of route `id`.
    pub(crate) fn compile(
        id: Uuid,
        fields: &kind::Route,
        regexes: &Regexes,
    ) -> Result<Self, String> {
        let (paths, classes) = if is_stream(&fields.protocols) {
            (Vec::new(), Vec::new())
        } else {
            compile_paths(id, &fields.paths, regexes)?
        };
        let hosts = compile_hosts(&fields.hosts)?;
        if hosts.len().saturating_mul(paths.len()) > PLACES_MAX {
            return Err(format!("more than {PLACES_MAX} pairs of host and path"));
        }
        let others = fields
            .methods
            .iter()
            .filter(|method| method_bit(method) == METHOD_OTHER);
        let rare = Rare {
            methods: others.map(|method| method.as_str().into()).collect(),
            headers: compile_headers(fields, regexes)?,
            snis: fields
                .snis
                .iter()
                .map(|sni| compile_sni(sni))
                .collect::<Result<_, _>>()?,
            sources: fields
                .sources
                .iter()
                .map(|end| Net::compile(end.ip.as_deref(), end.port))
                .collect::<Result<_, _>>()?,
            destinations: fields
                .destinations
                .iter()
                .map(|end| Net::compile(end.ip.as_deref(), end.port))
                .collect::<Result<_, _>>()?,
        };
        let methods = match fields.methods.as_slice() {
            [] => METHOD_ANY,
            methods => methods
                .iter()
                .fold(0, |bits, method| bits | method_bit(method)),
        };
        Ok(Self {
            methods: if rare.is_empty() {
                methods
            } else {
                methods | MORE
            },
            hosts: hosts.into(),
            paths: paths.into(),
            priority: Priority::of(fields),
            classes: classes.into(),
            rare: (!rare.is_empty()).then(|| Box::new(rare)),
        })
    }

    /// Whether the predicates fit that [`MORE`] stands for.
    pub(super) fn accepts_more(&self, request: &RequestHead<'_>, regexes: &Regexes) -> bool {
        self.rare
            .as_ref()
            .is_none_or(|rare| rare.accepts(request, regexes))
    }
}

impl Rare {
    fn is_empty(&self) -> bool {
        self.methods.is_empty()
            && self.headers.is_empty()
            && self.snis.is_empty()
            && self.sources.is_empty()
            && self.destinations.is_empty()
    }

    fn accepts(&self, request: &RequestHead<'_>, regexes: &Regexes) -> bool {
        let within =
            |nets: &[Net], address| nets.is_empty() || nets.iter().any(|net| net.holds(address));
        self.accepts_method(request.method)
            && self.accepts_sni(request)
            && within(&self.sources, request.source)
            && within(&self.destinations, request.destination)
            && self
                .headers
                .iter()
                .all(|rule| rule.accepts(request, regexes))
    }

    fn accepts_method(&self, method: &str) -> bool {
        self.methods.is_empty()
            || method_bit(method) != METHOD_OTHER
            || self.methods.iter().any(|listed| **listed == *method)
    }

    /// Server names count only where there could be one: on TLS.
    fn accepts_sni(&self, request: &RequestHead<'_>) -> bool {
        if self.snis.is_empty() || !request.tls {
            return true;
        }
        let Some(sni) = request.sni else { return false };
        let sni = sni.strip_suffix('.').unwrap_or(sni).to_ascii_lowercase();
        self.snis.iter().any(|rule| match rule {
            Host::Any => true,
            Host::Exact(name) => **name == *sni,
            Host::Suffix(suffix) => sni.ends_with(&**suffix),
            Host::Prefix(prefix) => sni.starts_with(&**prefix),
        })
    }
}

impl HeaderRule {
    /// Any instance of the header may have any of the values. Names are equal if they differ in `-` and `_` only.
    fn accepts(&self, request: &RequestHead<'_>, regexes: &Regexes) -> bool {
        let fits = |value: &http::HeaderValue| {
            self.values.iter().any(|wanted| match wanted {
                HeaderValue::Equal(text) => value.as_bytes().eq_ignore_ascii_case(text.as_bytes()),
                HeaderValue::Regex(pattern) => regexes
                    .find(pattern)
                    .is_some_and(|regex| regex.is_match(value.as_bytes())),
            })
        };
        if !self.name.contains('-') {
            return request.headers.get_all(&*self.name).iter().any(fits);
        }
        let same = |(one, two): (u8, u8)| one == two || (one == b'_' && two == b'-');
        let named = |name: &http::HeaderName| {
            name.as_str().len() == self.name.len()
                && name.as_str().bytes().zip(self.name.bytes()).all(same)
        };
        request
            .headers
            .iter()
            .any(|(name, value)| named(name) && fits(value))
    }
}

impl Net {
    fn compile(ip: Option<&str>, port: Option<u16>) -> Result<Self, String> {
        let block = match ip {
            None => None,
            Some(text) => Some(
                parse_block(text)
                    .ok_or_else(|| format!("`{text}` is not an address or a block"))?,
            ),
        };
        Ok(Self { block, port })
    }

    fn holds(&self, address: SocketAddr) -> bool {
        let within = |(block, bits): (IpAddr, u8)| match (block, address.ip().to_canonical()) {
            (IpAddr::V4(block), IpAddr::V4(ip)) => {
                let shift = 32 - u32::from(bits);
                u32::from(block).checked_shr(shift) == u32::from(ip).checked_shr(shift)
            }
            (IpAddr::V6(block), IpAddr::V6(ip)) => {
                let shift = 128 - u32::from(bits);
                u128::from(block).checked_shr(shift) == u128::from(ip).checked_shr(shift)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        };
        self.block.is_none_or(within) && self.port.is_none_or(|port| port == address.port())
    }
}

fn parse_block(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, bits) = text
        .split_once('/')
        .map_or((text, None), |(ip, bits)| (ip, Some(bits)));
    let ip: IpAddr = ip.parse().ok()?;
    let bits_max = if ip.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Some(bits_max), |bits| bits.parse().ok())?;
    (bits <= bits_max).then_some((ip, bits))
}

/// Stands for all methods without a bit of their own.
const METHOD_OTHER: u16 = 1 << 14;
const METHOD_ANY: u16 = METHOD_OTHER | (METHOD_OTHER - 1);
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
        return Ok(vec![HostRule {
            host: Host::Any,
            port: None,
        }]);
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

fn compile_sni(text: &str) -> Result<Host, String> {
    wildcard(text.strip_suffix('.').unwrap_or(text))
        .ok_or_else(|| format!("server name `{text}` is not valid"))
}

fn wildcard(text: &str) -> Option<Host> {
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

type Paths = (Vec<PathRule>, Vec<Uuid>);

/// Sorts the paths into classes, one for each length of plain paths and one for all regexes, in the order in which
/// they first appear: Kong derives the ids from that order.
fn compile_paths(id: Uuid, texts: &[String], regexes: &Regexes) -> Result<Paths, String> {
    const NAMESPACE: Uuid = Uuid::from_u128(0x7f14_5bf9_0dce_4f91_98eb_debb_ce4b_9f6b);
    if texts.is_empty() {
        let nothing = PathRule {
            path: Path::Prefix("".into()),
            class: 0,
        };
        return Ok((vec![nothing], Vec::new()));
    }
    if texts.len() > PLACES_MAX {
        return Err(format!("more than {PLACES_MAX} paths"));
    }
    let mut paths = Vec::with_capacity(texts.len());
    let mut classes: HashMap<Option<usize>, u16> = HashMap::new();
    let mut seen = HashSet::new();
    for text in texts.iter().filter(|text| seen.insert(text.as_str())) {
        let (path, class) = match text.strip_prefix('~') {
            Some(pattern) => (Path::Regex(regexes.check_path(pattern)?), None),
            None => (Path::Prefix(text.as_str().into()), Some(text.len())),
        };
        let next = u16::try_from(classes.len()).map_err(|_| "too many lengths of paths")?;
        let class = *classes.entry(class).or_insert(next);
        paths.push(PathRule { path, class });
    }
    let ids = match classes.len() {
        1 => 0,
        several => several,
    };
    let id_of = |number| Uuid::new_v5(&NAMESPACE, format!("{id}#{number}").as_bytes());
    Ok((paths, (1..=ids).map(id_of).collect()))
}

fn compile_headers(fields: &kind::Route, regexes: &Regexes) -> Result<Box<[HeaderRule]>, String> {
    let value = |text: &String| match text.strip_prefix("~*") {
        Some(pattern) => regexes
            .check(&regexes::header_pattern(pattern))
            .map(HeaderValue::Regex),
        None => Ok(HeaderValue::Equal(text.as_str().into())),
    };
    let rule = |(name, values): (&String, &Vec<String>)| {
        let values = values.iter().map(value).collect::<Result<_, _>>()?;
        let name = name.to_ascii_lowercase().replace('_', "-").into();
        Ok(HeaderRule { name, values })
    };
    fields.headers.iter().map(rule).collect()
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

    #[test]
    fn blocks_hold_their_addresses() {
        let holds = |block: &str, address: &str| {
            Net::compile(Some(block), None)
                .unwrap()
                .holds(address.parse().unwrap())
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
