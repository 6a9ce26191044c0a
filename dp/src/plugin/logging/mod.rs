//! What has happened, told to others.

pub(super) mod file_log;
pub(super) mod http_log;
pub(super) mod loggly;
mod record;
mod socket;
pub(super) mod syslog;
pub(super) mod tcp_log;
pub(super) mod udp_log;

pub(super) use record::{request_bytes, response_bytes};

use record::Entry;
pub(super) use socket::{Datagrams, Place, Stream};

use serde::Deserialize;

/// `custom_fields_by_lua`: there is no Lua here, so the entries go without these fields.
pub(super) type LuaFields = Option<std::collections::BTreeMap<String, String>>;

/// Says once for each form of a plugin that fields will be missing.
pub(super) fn warn_of_lua(plugin: &'static str, fields: &LuaFields) {
    if fields.as_ref().is_some_and(|fields| !fields.is_empty()) {
        tracing::warn!(
            plugin,
            "custom_fields_by_lua is not honoured: there is no Lua here"
        );
    }
}

/// The severities of syslog, the gravest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    Emerg,
    Alert,
    Crit,
    Err,
    Warning,
    Notice,
    Info,
    Debug,
}

/// Which requests are told of, and how grave they are.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default)]
pub(super) struct Severities {
    log_level: Severity,
    successful_severity: Severity,
    client_errors_severity: Severity,
    server_errors_severity: Severity,
}

impl Default for Severities {
    fn default() -> Self {
        Self {
            log_level: Severity::Info,
            successful_severity: Severity::Info,
            client_errors_severity: Severity::Info,
            server_errors_severity: Severity::Info,
        }
    }
}

impl Severities {
    /// The severity of a request with this status; `None` if it is below what is told.
    pub(super) fn of(&self, status: http::StatusCode) -> Option<Severity> {
        let severity = match status.as_u16() {
            500.. => self.server_errors_severity,
            400.. => self.client_errors_severity,
            _ => self.successful_severity,
        };
        (severity <= self.log_level).then_some(severity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_grave_enough_is_told() {
        let severities = Severities {
            log_level: Severity::Warning,
            successful_severity: Severity::Info,
            client_errors_severity: Severity::Warning,
            server_errors_severity: Severity::Crit,
        };
        let of = |status| severities.of(http::StatusCode::from_u16(status).unwrap());
        assert_eq!(of(200), None);
        assert_eq!(of(404), Some(Severity::Warning));
        assert_eq!(of(503), Some(Severity::Crit));
    }
}
