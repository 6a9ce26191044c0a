//! Plugins that write a log entry per request.

use super::PluginSchema;
use super::common::{
    CUSTOM_FIELDS, FLUSH_TIMEOUT, HEADER_VALUE, QUEUE, QUEUE_SIZE, RETRY_COUNT, TEXT, number, off,
    text, url,
};
use crate::check::text::{Verdict, header_name};
use crate::check::url::Url;
use crate::field::{Field, Literal};
use crate::kind::common::{HOST, PORT};
use serde_json::Value;

const SEVERITIES: &[&str] = &[
    "debug", "info", "notice", "warning", "err", "crit", "alert", "emerg",
];
const FACILITIES: &[&str] = &[
    "auth", "authpriv", "cron", "daemon", "ftp", "kern", "lpr", "mail", "news", "syslog", "user",
    "uucp", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

/// To a file of the data plane.
pub(super) static FILE_LOG: PluginSchema = PluginSchema::of(
    "file-log",
    &[
        Field::string("path")
            .required()
            .pattern(r"^[^%s*&%%\`][^*&%%\`]*[^%s*&%%\`]$", is_file_name)
            .error("not a valid filename"),
        off("reopen").required(),
        CUSTOM_FIELDS,
    ],
)
.any_protocol();

fn is_file_name(path: &str) -> bool {
    let blank = |c: Option<char>| c.is_none_or(|c| c.is_ascii_whitespace());
    path.len() >= 2
        && !path.contains(['*', '&', '%', '\\', '`'])
        && !blank(path.chars().next())
        && !blank(path.chars().next_back())
}

/// To an HTTP server.
pub(super) static HTTP_LOG: PluginSchema = PluginSchema::new(
    "http-log",
    PluginSchema::config(&[
        url("http_endpoint").required().secret(),
        text("method", "POST").one_of(&["POST", "PUT", "PATCH"]),
        text("content_type", "application/json")
            .one_of(&["application/json", "application/json; charset=utf-8"]),
        number("timeout", 10_000),
        number("keepalive", 60_000),
        RETRY_COUNT,
        QUEUE_SIZE,
        FLUSH_TIMEOUT,
        Field::map("headers", &TEXT.text(free_header), &HEADER_VALUE),
        QUEUE,
        CUSTOM_FIELDS,
    ])
    .custom(one_authorization),
)
.any_protocol();

/// A header the plugin does not set itself.
fn free_header(name: &str) -> Verdict {
    for own in ["Host", "Content-Length", "Content-Type"] {
        if name.eq_ignore_ascii_case(own) {
            return Err(format!("cannot contain '{own}' header"));
        }
    }
    header_name(name)
}

/// A user in the URL becomes an `Authorization` header; there cannot be two.
fn one_authorization(config: &Value) -> Result<(), String> {
    let endpoint = config.get("http_endpoint").and_then(Value::as_str);
    let headers = config.get("headers").and_then(Value::as_object);
    let authorization = |name: &String| name.eq_ignore_ascii_case("authorization");
    if endpoint.is_some_and(|url| Url::split(url).has_user)
        && headers.is_some_and(|headers| headers.keys().any(authorization))
    {
        return Err(
            "specifying both an 'Authorization' header and user info in 'http_endpoint' is not \
             allowed"
                .to_owned(),
        );
    }
    Ok(())
}

/// To Loggly.
pub(super) static LOGGLY: PluginSchema = PluginSchema::of(
    "loggly",
    &[
        HOST.default(Literal::Text("logs-01.loggly.com")),
        PORT.default(Literal::Int(514)),
        Field::string("key").required().secret(),
        Field::set("tags", &TEXT).default(Literal::Texts(&["kong"])),
        severity("log_level"),
        severity("successful_severity"),
        severity("client_errors_severity"),
        severity("server_errors_severity"),
        number("timeout", 10_000),
        CUSTOM_FIELDS,
    ],
)
.any_protocol();

/// To the system's log.
pub(super) static SYSLOG: PluginSchema = PluginSchema::of(
    "syslog",
    &[
        severity("log_level").required(),
        severity("successful_severity").required(),
        severity("client_errors_severity").required(),
        severity("server_errors_severity").required(),
        CUSTOM_FIELDS,
        text("facility", "user").required().one_of(FACILITIES),
    ],
)
.any_protocol();

const fn severity(name: &'static str) -> Field {
    text(name, "info").one_of(SEVERITIES)
}

/// To a TCP server.
pub(super) static TCP_LOG: PluginSchema = PluginSchema::of(
    "tcp-log",
    &[
        HOST.required(),
        PORT.required(),
        number("timeout", 10_000),
        number("keepalive", 60_000),
        off("tls").required(),
        Field::string("tls_sni"),
        CUSTOM_FIELDS,
    ],
)
.any_protocol();

/// To a UDP server.
pub(super) static UDP_LOG: PluginSchema = PluginSchema::of(
    "udp-log",
    &[
        HOST.required(),
        PORT.required(),
        number("timeout", 10_000),
        CUSTOM_FIELDS,
    ],
)
.any_protocol();
