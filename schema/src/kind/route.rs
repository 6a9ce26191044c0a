//! Routes: which requests go to which service.

use super::common::{CREATED_AT, NAME, PORT, PROTOCOL, TAGS, UPDATED_AT};
use super::{Kind, Reference, Schema, Unique};
use crate::check::{Errors, Shape, path, text};
use crate::expression::{self, Subsystem};
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
    /// A condition in place of the fields above.
    #[serde(default)]
    pub expression: Option<String>,
    /// Order among routes with an expression; 0 to 2^46 - 1.
    #[serde(default)]
    pub priority: u64,
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
    checks: &[SNIS],
    vary: Some(vary),
    ..Schema::new(Kind::Route, "routes", FIELDS)
};

/// With the `expressions` flavor.
pub(super) static EXPRESSIONS: Schema = Schema {
    fields: &EXPRESSION_FIELDS,
    checks: &[SNIS, EXPRESSION],
    vary: Some(vary_expressions),
    unique: &[Unique::field("name", &["name"])],
    ..Schema::new(Kind::Route, "routes", FIELDS)
};

const SNIS: Check = Check::Conditional {
    if_field: "protocols",
    if_match: Match::NoneOf(&["grpcs", "https", "tls", "tls_passthrough"]),
    then_field: "snis",
    then_match: Match::Empty,
    error: Some(
        "'snis' can only be set when 'protocols' is 'grpcs', 'https', 'tls' or 'tls_passthrough'",
    ),
};

const EXPRESSION: Check = Check::Custom {
    fields: &["protocols", "expression", "priority", "regex_priority"],
    test: check_expression,
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

static EXPRESSION_FIELDS: [Field; FIELDS.len() + 2] = {
    const PRIORITY_MAX: i64 = (1 << 46) - 1;
    let mut all = [FIELDS[0]; FIELDS.len() + 2];
    let mut index = 0;
    while index < FIELDS.len() {
        all[index] = FIELDS[index];
        index += 1;
    }
    all[index] = Field::string("expression");
    all[index + 1] = Field::integer("priority")
        .between(0, PRIORITY_MAX)
        .required()
        .default(Literal::Int(0));
    all
};

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
    /// In their place, with the `expressions` flavor.
    expression_checks: &'static [Check],
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
        expression_checks: &[Check::ConditionalAtLeastOneOf {
            if_field: "protocols",
            arms: &[
                (
                    Match::Contains("https"),
                    &["methods", "hosts", "headers", "paths", "snis", "expression"],
                    "must set one of %s when 'protocols' is 'https'",
                ),
                (
                    Match::Contains("http"),
                    &["methods", "hosts", "headers", "paths", "expression"],
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
        expression_checks: &[Check::ConditionalAtLeastOneOf {
            if_field: "protocols",
            arms: &[
                (
                    Match::All(&["tcp", "tls", "udp"]),
                    &["sources", "destinations", "snis", "expression"],
                    "must set one of %s when 'protocols' is 'tcp', 'tls' or 'udp'",
                ),
                (
                    Match::All(&["tls_passthrough"]),
                    &["snis", "expression"],
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
        expression_checks: &[Check::ConditionalAtLeastOneOf {
            if_field: "protocols",
            arms: &[
                (
                    Match::Contains("grpcs"),
                    &["hosts", "headers", "paths", "snis", "expression"],
                    "must set one of %s when 'protocols' is 'grpcs'",
                ),
                (
                    Match::Contains("grpc"),
                    &["hosts", "headers", "paths", "expression"],
                    "must set one of %s when 'protocols' is 'grpc'",
                ),
            ],
        }],
    },
];

fn vary(body: &Map<String, Value>, shape: &mut Shape) -> Result<(), Errors> {
    let Some(family) = family(body)? else {
        return Ok(());
    };
    forbid(family.forbidden, shape);
    fit(family, shape);
    shape.checks = family.checks;
    Ok(())
}

/// Routes with an expression need nothing else, and addresses are for all routes.
fn vary_expressions(body: &Map<String, Value>, shape: &mut Shape) -> Result<(), Errors> {
    let Some(family) = family(body)? else {
        return Ok(());
    };
    let forbidden = family.forbidden.iter().copied();
    let rest: Vec<_> = forbidden
        .filter(|(name, _)| !["sources", "destinations"].contains(name))
        .collect();
    forbid(&rest, shape);
    fit(family, shape);
    shape.checks = family.expression_checks;
    Ok(())
}

fn forbid(fields: &[(&str, &'static str)], shape: &mut Shape) {
    for (name, error) in fields {
        if let Some(field) = shape.field(name) {
            *field = field.forbidden(error);
        }
    }
}

/// Changes the fields whose rules differ.
fn fit(family: &Family, shape: &mut Shape) {
    if family.protocols.contains(&"grpc")
        && let Some(field) = shape.field("strip_path")
    {
        *field = field.default(Literal::Bool(false)).custom(no_strip_path);
    }
}

/// The family of a route. The first protocol that is known decides, as in Kong; `None` if the field's own check will
/// say what is wrong.
fn family(body: &Map<String, Value>) -> Result<Option<&'static Family>, Errors> {
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
    Ok(family)
}

/// A route has an expression or the classic fields, not both; and the expression is a good one.
fn check_expression(body: &Map<String, Value>) -> Result<(), String> {
    const CLASSIC: &[&str] = &[
        "methods",
        "hosts",
        "paths",
        "headers",
        "snis",
        "sources",
        "destinations",
    ];
    const LISTED: &str =
        "'methods', 'hosts', 'paths', 'headers', 'snis', 'sources' or 'destinations'";
    let text = body.get("expression").and_then(Value::as_str);
    let is_given = |name: &&str| match body.get(*name) {
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(fields)) => !fields.is_empty(),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) | None => false,
    };
    let classic = CLASSIC.iter().any(is_given);
    // 0 is the default: not given.
    let is_set = |name: &str| body.get(name).and_then(Value::as_i64).unwrap_or_default() != 0;
    let failed = |reason: String| Err(format!("Router Expression failed validation: {reason}"));
    let Some(text) = text else {
        return match classic && is_set("priority") {
            true => failed(format!(
                "cannot set 'priority' with {LISTED} simultaneously"
            )),
            false => Ok(()),
        };
    };
    if classic {
        return failed(format!(
            "cannot set 'expression' with {LISTED} simultaneously"
        ));
    }
    if is_set("regex_priority") {
        let reason = "cannot set 'regex_priority' with 'expression' simultaneously";
        return failed(reason.to_owned());
    }
    let protocols = body.get("protocols").and_then(Value::as_array);
    let names = protocols.into_iter().flatten().filter_map(Value::as_str);
    match expression::parse(text, Subsystem::of(names)) {
        Ok(_) => Ok(()),
        Err(error) => failed(error.to_string()),
    }
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
