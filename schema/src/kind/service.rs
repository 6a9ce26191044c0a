//! Services: upstream applications.

use super::common::{CREATED_AT, HOST, NAME, PATH, PORT, PROTOCOL, TAGS, UPDATED_AT};
use super::{IdList, Kind, Reference, Schema, Unique};
use crate::check::Errors;
use crate::check::url::Url;
use crate::field::{Check, Field, Literal, Match, OnDelete};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The fields of a service the data plane uses.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct Service {
    /// A unique name.
    pub name: Option<String>,
    /// `http`, `https`, `grpc`, ...
    pub protocol: String,
    /// A host name, an IP address or an upstream's name.
    pub host: String,
    /// 0 to 65535; unused if `host` names an upstream.
    pub port: u16,
    /// Prefix of the upstream path.
    pub path: Option<String>,
    /// Further tries after the first, 0 to 32767.
    pub retries: u16,
    /// Milliseconds.
    pub connect_timeout: u32,
    /// Milliseconds between two writes.
    pub write_timeout: u32,
    /// Milliseconds between two reads.
    pub read_timeout: u32,
    /// Whether requests may use it.
    pub enabled: bool,
    /// The certificate shown to the upstream.
    pub client_certificate: Option<Reference>,
    /// Whether the upstream's certificate is verified.
    pub tls_verify: Option<bool>,
    /// 0 to 64.
    pub tls_verify_depth: Option<u8>,
    /// UUIDs of the authorities to verify with.
    pub ca_certificates: Option<Vec<String>>,
}

pub(super) static SCHEMA: Schema = Schema {
    shorthands: &[Field::string("url")],
    id_lists: &[IdList {
        field: "ca_certificates",
        kind: Kind::CaCertificate,
        noun: "CA certificate",
    }],
    unique: &[Unique::field("name", &["name"])],
    checks: CHECKS,
    prepare: Some(expand_url),
    ..Schema::new(Kind::Service, "services", FIELDS)
};

const TIMEOUT: Field = Field::integer("")
    .between(1, 2_147_483_646)
    .default(Literal::Int(60_000))
    .never_null();

const FIELDS: &[Field] = &[
    CREATED_AT,
    UPDATED_AT,
    NAME,
    Field::integer("retries")
        .between(0, 32_767)
        .default(Literal::Int(5))
        .never_null(),
    PROTOCOL.required().default(Literal::Text("http")),
    HOST.required(),
    PORT.required().default(Literal::Int(80)),
    PATH,
    TIMEOUT.named("connect_timeout"),
    TIMEOUT.named("write_timeout"),
    TIMEOUT.named("read_timeout"),
    TAGS,
    Field::foreign("client_certificate", Kind::Certificate, OnDelete::Restrict),
    Field::boolean("tls_verify"),
    Field::integer("tls_verify_depth").between(0, 64),
    Field::array("ca_certificates", &Field::string("").uuid()),
    Field::boolean("enabled")
        .required()
        .default(Literal::Bool(true)),
];

const CHECKS: &[Check] = &[
    Check::Conditional {
        if_field: "protocol",
        if_match: Match::OneOf(&["tcp", "tls", "udp", "grpc", "grpcs"]),
        then_field: "path",
        then_match: Match::Null,
        error: None,
    },
    only_with_tls("client_certificate"),
    only_with_tls("tls_verify"),
    only_with_tls("tls_verify_depth"),
    only_with_tls("ca_certificates"),
];

const fn only_with_tls(then_field: &'static str) -> Check {
    Check::Conditional {
        if_field: "protocol",
        if_match: Match::NotOneOf(&["https", "tls"]),
        then_field,
        then_match: Match::Null,
        error: None,
    }
}

/// `url` stands for protocol, host, port and path, and wins over them.
fn expand_url(input: &mut Map<String, Value>, _: &mut Errors) {
    let Some(url) = input.remove("url") else {
        return;
    };
    let Some(url) = url.as_str() else { return };
    let parts = Url::split(url);
    let protocol = parts.scheme.unwrap_or(match parts.port {
        Some("443") => "https",
        Some(_) | None => "http",
    });
    let port = match parts.port {
        Some(port) => port
            .parse::<i64>()
            .map_or_else(|_| port.into(), Value::from),
        None if protocol == "https" => 443.into(),
        None => 80.into(),
    };
    let text = |text: Option<&str>| text.map_or(Value::Null, Value::from);
    input.insert("protocol".to_owned(), protocol.into());
    input.insert("host".to_owned(), text(parts.host));
    input.insert("port".to_owned(), port);
    input.insert("path".to_owned(), text(parts.path));
}
