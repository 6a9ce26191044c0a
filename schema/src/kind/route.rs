//! Routes: which requests go to which service.

use super::common::{CREATED_AT, NAME, PORT, PROTOCOL, TAGS, UPDATED_AT};
use super::{Kind, Reference, Schema, Unique};
use crate::check::{Errors, Shape, path, text};
use crate::field::{Check, Field, Literal, Match, OnDelete};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The fields of a route the data plane uses. Absent collections are empty.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct Route {
    /// A unique name.
    pub name: Option<String>,
    /// `http`, `https`, `grpc`, ...
    pub protocols: Vec<String>,
    /// Upper-case method names.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Exact or with one `*` at an end; an optional `:port`.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Plain prefixes (`/a`) and regexes (`~/a\d`).
    #[serde(default)]
    pub paths: Vec<String>,
    /// Header name to allowed values (or one `~*regex`).
    #[serde(default)]
    pub headers: BTreeMap<String, Vec<String>>,
    /// Server names; wildcards allowed.
    #[serde(default)]
    pub snis: Vec<String>,
    /// Client addresses (stream routes).
    #[serde(default)]
    pub sources: Vec<Endpoint>,
    /// Listening addresses (stream routes).
    #[serde(default)]
    pub destinations: Vec<Endpoint>,
    /// 426 or a redirect status.
    pub https_redirect_status_code: u16,
    /// Order among regex routes.
    pub regex_priority: i64,
    /// Whether the matched prefix is removed.
    pub strip_path: bool,
    /// `v0` or `v1`.
    pub path_handling: String,
    /// Whether the client's Host goes upstream.
    pub preserve_host: bool,
    /// Whether the request body is read before sending.
    pub request_buffering: bool,
    /// Whether the response body is read before sending.
    pub response_buffering: bool,
    /// Where it leads.
    pub service: Option<Reference>,
}

/// One element of `sources` or `destinations`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Endpoint {
    /// An IP address or CIDR block.
    pub ip: Option<String>,
    /// 0 to 65535.
    pub port: Option<u16>,
}

pub(super) static SCHEMA: Schema = Schema {
    unique: &[Unique::field("name", &["name"])],
    checks: &[Check::Conditional {
        if_field: "protocols",
        if_match: Match::NoneOf(&["grpcs", "https", "tls", "tls_passthrough"]),
        then_field: "snis",
        then_match: Match::Empty,
        error: Some(
            "'snis' can only be set when 'protocols' is 'grpcs', 'https', 'tls' or 'tls_passthrough'",
        ),
    }],
    vary: Some(vary),
    ..Schema::new(Kind::Route, "routes", FIELDS)
};

const FIELDS: &[Field] = &[
    CREATED_AT,
    UPDATED_AT,
    NAME,
    Field::set("protocols", &PROTOCOL)
        .required()
        .len_min(1)
        .exclusive(&[
            &["http", "https"],
            &["tcp", "tls", "udp"],
            &["tls_passthrough"],
            &["grpc", "grpcs"],
        ])
        .default(Literal::Texts(&["http", "https"])),
    Field::set(
        "methods",
        &Field::string("").pattern("^%u+$", text::is_upper),
    ),
    Field::array("hosts", &Field::string("").text(text::wildcard_host)),
    Field::array("paths", &Field::string("").text(path::route)),
    Field::map(
        "headers",
        &Field::string("").text(text::route_header_name),
        &Field::array("", &Field::string("")).custom(header_values),
    ),
    Field::integer("https_redirect_status_code")
        .one_of_ints(&[426, 301, 302, 307, 308])
        .required()
        .default(Literal::Int(426)),
    Field::integer("regex_priority")
        .default(Literal::Int(0))
        .never_null(),
    Field::boolean("strip_path")
        .required()
        .default(Literal::Bool(true)),
    Field::string("path_handling")
        .one_of(&["v0", "v1"])
        .default(Literal::Text("v0"))
        .never_null(),
    Field::boolean("preserve_host")
        .required()
        .default(Literal::Bool(false)),
    Field::boolean("request_buffering")
        .required()
        .default(Literal::Bool(true)),
    Field::boolean("response_buffering")
        .required()
        .default(Literal::Bool(true)),
    Field::set("snis", &Field::string("").text(text::wildcard_server_name)),
    Field::set("sources", &ENDPOINT),
    Field::set("destinations", &ENDPOINT),
    TAGS,
    Field::foreign("service", Kind::Service, OnDelete::Restrict),
];

const ENDPOINT: Field = Field::record("", &[Field::string("ip").text(text::ip_or_cidr), PORT])
    .checks(&[Check::AtLeastOneOf(&["ip", "port"])]);

/// A single value `~*` and a regular expression must compile.
fn header_values(values: &Value) -> Result<(), String> {
    match values.as_array().map(Vec::as_slice) {
        Some([Value::String(value)]) => match value.strip_prefix("~*") {
            Some(pattern) => path::regex(pattern).map(|_| ()),
            None => Ok(()),
        },
        Some(_) | None => Ok(()),
    }
}

/// A family of protocols, and what goes with it.
struct Family {
    protocols: &'static [&'static str],
    /// Fields it has no use for, each with the error.
    forbidden: &'static [(&'static str, &'static str)],
    checks: &'static [Check],
}

const FAMILIES: &[Family] = &[
    Family {
        protocols: &["http", "https"],
        forbidden: &[
            (
                "sources",
                "cannot set 'sources' when 'protocols' is 'http' or 'https'",
            ),
            (
                "destinations",
                "cannot set 'destinations' when 'protocols' is 'http' or 'https'",
            ),
        ],
        checks: &[Check::ConditionalAtLeastOneOf {
            if_field: "protocols",
            arms: &[
                (
                    Match::Contains("https"),
                    &["methods", "hosts", "headers", "paths", "snis"],
                    "must set one of %s when 'protocols' is 'https'",
                ),
                (
                    Match::Contains("http"),
                    &["methods", "hosts", "headers", "paths"],
                    "must set one of %s when 'protocols' is 'http'",
                ),
            ],
        }],
    },
    Family {
        protocols: &["tcp", "tls", "tls_passthrough", "udp"],
        forbidden: &[
            (
                "methods",
                "cannot set 'methods' when 'protocols' is 'tcp', 'tls', 'tls_passthrough' or 'udp'",
            ),
            (
                "hosts",
                "cannot set 'hosts' when 'protocols' is 'tcp', 'tls', 'tls_passthrough' or 'udp'",
            ),
            (
                "paths",
                "cannot set 'paths' when 'protocols' is 'tcp', 'tls', 'tls_passthrough' or 'udp'",
            ),
            (
                "headers",
                "cannot set 'headers' when 'protocols' is 'tcp', 'tls', 'tls_passthrough' or 'udp'",
            ),
        ],
        checks: &[Check::ConditionalAtLeastOneOf {
            if_field: "protocols",
            arms: &[
                (
                    Match::All(&["tcp", "tls", "udp"]),
                    &["sources", "destinations", "snis"],
                    "must set one of %s when 'protocols' is 'tcp', 'tls' or 'udp'",
                ),
                (
                    Match::All(&["tls_passthrough"]),
                    &["snis"],
                    "must set snis when 'protocols' is 'tls_passthrough'",
                ),
            ],
        }],
    },
    Family {
        protocols: &["grpc", "grpcs"],
        forbidden: &[
            (
                "methods",
                "cannot set 'methods' when 'protocols' is 'grpc' or 'grpcs'",
            ),
            (
                "sources",
                "cannot set 'sources' when 'protocols' is 'grpc' or 'grpcs'",
            ),
            (
                "destinations",
                "cannot set 'destinations' when 'protocols' is 'grpc' or 'grpcs'",
            ),
        ],
        checks: &[Check::ConditionalAtLeastOneOf {
            if_field: "protocols",
            arms: &[
                (
                    Match::Contains("grpcs"),
                    &["hosts", "headers", "paths", "snis"],
                    "must set one of %s when 'protocols' is 'grpcs'",
                ),
                (
                    Match::Contains("grpc"),
                    &["hosts", "headers", "paths"],
                    "must set one of %s when 'protocols' is 'grpc'",
                ),
            ],
        }],
    },
];

/// Puts the rules of the route's protocols in place. The first protocol that is known decides, as in Kong.
fn vary(body: &Map<String, Value>, shape: &mut Shape) -> Result<(), Errors> {
    let mut errors = Errors::default();
    let family = match body.get("protocols") {
        None => FAMILIES.first(),
        Some(Value::Array(protocols)) if !protocols.is_empty() => {
            let family = protocols
                .iter()
                .find_map(|protocol| family_of(protocol.as_str()?));
            if family.is_none() {
                let first = protocols.first().and_then(Value::as_str);
                let error = first.map_or("expected a string".to_owned(), |name| {
                    format!("unknown type: {name}")
                });
                errors.set("protocols", error);
            }
            family
        }
        Some(Value::Null) => {
            errors.set("protocols", "required field missing");
            None
        }
        // The field's own check says what is wrong.
        Some(_) => None,
    };
    if !errors.is_empty() {
        return Err(errors);
    }
    let Some(family) = family else { return Ok(()) };
    for (name, error) in family.forbidden {
        if let Some(field) = shape.field(name) {
            *field = field.forbidden(error);
        }
    }
    if family.protocols.contains(&"grpc")
        && let Some(field) = shape.field("strip_path")
    {
        *field = field.default(Literal::Bool(false)).custom(no_strip_path);
    }
    shape.checks = family.checks;
    Ok(())
}

fn family_of(protocol: &str) -> Option<&'static Family> {
    FAMILIES
        .iter()
        .find(|family| family.protocols.contains(&protocol))
}

fn no_strip_path(value: &Value) -> Result<(), String> {
    if value.as_bool() == Some(true) {
        return Err("cannot set 'strip_path' when 'protocols' is 'grpc' or 'grpcs'".to_owned());
    }
    Ok(())
}
