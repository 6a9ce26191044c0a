//! A matcher's 64-bit priority, as Kong's `traditional_compatible` flavor packs it:
//!
//! | bits  | what |
//! |-------|------|
//! | 61-63 | how many kinds of attributes the route has |
//! | 60    | hosts are given and none has a wildcard |
//! | 52-59 | how many header names, at most 255 |
//! | 51    | the path is a regex |
//! | 19-50 | `regex_priority` of a regex |
//! | 0-18  | bytes of a plain path |
//!
//! A route with an expression has all of bits 56-63, so that it goes before the others, and its own `priority`.
//! A stream route has bit 61 if it has server names, or sources and destinations; then what its sources (bits 4-7)
//! and destinations (bits 0-3) are: addresses 8, ports 4, blocks 1.

use sluice_schema::kind;

const PREFIX_BYTES_MAX: usize = 0x7_FFFF;

const REGEX: u64 = 1 << 51;
const EXPRESSION: u64 = 0xff << 56;
const STREAM: u64 = 1 << 61;

/// The priorities of a route: they differ with the path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Priority {
    pub(super) base: u64,
    /// Bits 19 to 50 of its regexes.
    pub(super) regex: u32,
}

impl Priority {
    /// That of a route whose places are all equal: one with an expression, or a stream route.
    pub(super) fn of_all(route: &kind::Route) -> Self {
        let base = match route.expression {
            Some(_) => EXPRESSION | (route.priority & !EXPRESSION),
            None => of_stream(route),
        };
        Self { base, regex: 0 }
    }

    /// Of all its places.
    pub(super) fn whole(self) -> u64 {
        self.base
    }

    /// That of an HTTP route.
    pub(super) fn of(route: &kind::Route) -> Self {
        let present = [
            !route.sources.is_empty(),
            !route.destinations.is_empty(),
            !route.methods.is_empty(),
            !route.hosts.is_empty(),
            !route.headers.is_empty(),
            !route.snis.is_empty(),
            !route.paths.is_empty(),
        ];
        let kinds: u64 = present.into_iter().map(u64::from).sum();
        let plain = !route.hosts.is_empty() && !route.hosts.iter().any(|host| host.contains('*'));
        let headers = route.headers.len().min(255) as u64;
        let base = kinds << 61 | u64::from(plain) << 60 | headers << 52;
        // Kong lets a negative or large number spill into the bits above. Here it is moved into its 32 bits, which
        // keeps the order of regexes among each other; nothing else is compared with those bits.
        let clamped = route
            .regex_priority
            .clamp(i64::from(i32::MIN), i64::from(i32::MAX));
        let moved = clamped - i64::from(i32::MIN);
        Self {
            base,
            regex: u32::try_from(moved).unwrap_or_default(),
        }
    }

    /// With a plain path of so many bytes; 0 if there are no paths.
    pub(super) fn of_prefix(self, bytes: usize) -> u64 {
        self.base | bytes.min(PREFIX_BYTES_MAX) as u64
    }

    /// With a regex.
    pub(super) fn of_regex(self) -> u64 {
        self.base | REGEX | u64::from(self.regex) << 19
    }
}

/// The length of the plain path a priority was made with, up to what its bits can tell; `None` for a regex.
pub(super) fn prefix_bytes(priority: u64) -> Option<usize> {
    let bytes = usize::try_from(priority).unwrap_or_default() & PREFIX_BYTES_MAX;
    (priority & REGEX == 0).then_some(bytes)
}

fn of_stream(route: &kind::Route) -> u64 {
    let weight = |ends: &[kind::Endpoint]| {
        let of_end = |end: &kind::Endpoint| {
            let address = match end.ip.as_deref().map(|ip| ip.contains('/')) {
                Some(true) => 1,
                Some(false) => 8,
                None => 0,
            };
            address | if end.port.is_some() { 4 } else { 0 }
        };
        ends.iter().map(of_end).fold(0, |all, one: u64| all | one)
    };
    let both = !route.sources.is_empty() && !route.destinations.is_empty();
    let first = if both || !route.snis.is_empty() {
        STREAM
    } else {
        0
    };
    first | weight(&route.sources) << 4 | weight(&route.destinations)
}

/// Why one of two matchers goes before the other: the first difference, in the order of the table above. First the one
/// that comes first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rule {
    /// How many kinds of attributes.
    Kinds(u64, u64),
    /// Only the one has hosts without a wildcard.
    PlainHosts,
    /// How many headers.
    Headers(u64, u64),
    /// Only the one has a regex.
    Regex,
    /// The priorities of regexes.
    RegexPriority(i64, i64),
    /// The bytes of plain paths.
    Length(usize, usize),
}

/// By what `first` goes before `second`, neither of which is an expression's. `None` if they are equal.
pub(super) fn first_difference(first: u64, second: u64) -> Option<Rule> {
    let both = |value: fn(u64) -> u64| (value(first), value(second));
    let kinds = both(|priority| priority >> 61);
    let plain = both(|priority| priority >> 60 & 1);
    let headers = both(|priority| priority >> 52 & 0xff);
    let regex = both(|priority| priority & REGEX);
    let length = |priority| prefix_bytes(priority).unwrap_or_default();
    let of_regex = |priority: u64| {
        let moved = i64::from(u32::try_from(priority >> 19 & 0xffff_ffff).unwrap_or_default());
        moved + i64::from(i32::MIN)
    };
    let differ = |(one, two)| one != two;
    if differ(kinds) {
        Some(Rule::Kinds(kinds.0, kinds.1))
    } else if differ(plain) {
        Some(Rule::PlainHosts)
    } else if differ(headers) {
        Some(Rule::Headers(headers.0, headers.1))
    } else if differ(regex) {
        Some(Rule::Regex)
    } else if first == second {
        None
    } else if regex.0 != 0 {
        Some(Rule::RegexPriority(of_regex(first), of_regex(second)))
    } else {
        Some(Rule::Length(length(first), length(second)))
    }
}
