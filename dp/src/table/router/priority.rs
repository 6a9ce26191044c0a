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

use sluice_schema::kind;

const PREFIX_BYTES_MAX: usize = 0x7_FFFF;

/// The part of the priority that all matchers of a route share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Priority(u64);

impl Priority {
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
        Self(kinds << 61 | u64::from(plain) << 60 | headers << 52)
    }

    pub(super) fn without_path(self) -> u64 {
        self.0
    }

    pub(super) fn with_prefix(self, bytes: usize) -> u64 {
        self.0 | bytes.min(PREFIX_BYTES_MAX) as u64
    }

    /// Kong lets a negative or large number spill into the bits above. Here it is moved into its 32 bits, which keeps
    /// the order of regexes among each other; nothing else is compared with those bits.
    pub(super) fn with_regex(self, regex_priority: i64) -> u64 {
        let clamped = regex_priority.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
        let moved = (clamped - i64::from(i32::MIN)).unsigned_abs();
        self.0 | 1 << 51 | moved << 19
    }
}

/// Whether a route is for streams and not for HTTP: its first protocol says so.
pub(super) fn is_stream(protocols: &[String]) -> bool {
    let first = protocols.first().map(String::as_str);
    matches!(first, Some("tcp" | "tls" | "udp" | "tls_passthrough"))
}
