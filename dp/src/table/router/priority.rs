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

const REGEX: u64 = 1 << 51;

/// The priorities of a route: they differ with the path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Priority {
    base: u64,
    /// Bits 19 to 50 of its regexes.
    regex: u64,
}

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
        let base = kinds << 61 | u64::from(plain) << 60 | headers << 52;
        // Kong lets a negative or large number spill into the bits above. Here it is moved into its 32 bits, which
        // keeps the order of regexes among each other; nothing else is compared with those bits.
        let clamped = route
            .regex_priority
            .clamp(i64::from(i32::MIN), i64::from(i32::MAX));
        let moved = (clamped - i64::from(i32::MIN)).unsigned_abs();
        Self {
            base,
            regex: moved << 19,
        }
    }

    /// With a plain path of so many bytes; 0 if there are no paths.
    pub(super) fn of_prefix(self, bytes: usize) -> u64 {
        self.base | bytes.min(PREFIX_BYTES_MAX) as u64
    }

    /// With a regex.
    pub(super) fn of_regex(self) -> u64 {
        self.base | REGEX | self.regex
    }
}

/// The length of the plain path a priority was made with, up to what its bits can tell; `None` for a regex.
pub(super) fn prefix_bytes(priority: u64) -> Option<usize> {
    let bytes = usize::try_from(priority).unwrap_or_default() & PREFIX_BYTES_MAX;
    (priority & REGEX == 0).then_some(bytes)
}

/// Whether a route is for streams and not for HTTP: its first protocol says so.
pub(super) fn is_stream(protocols: &[String]) -> bool {
    let first = protocols.first().map(String::as_str);
    matches!(first, Some("tcp" | "tls" | "udp" | "tls_passthrough"))
}
