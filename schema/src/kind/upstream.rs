//! Upstreams (virtual hosts that balance over targets) and targets.

use super::common::{CREATED_AT, HEADER_NAME, PATH, TAGS, UPDATED_AT};
use super::healthchecks::Healthchecks;
use super::{Kind, Reference, Schema, Unique};
use crate::check::{Errors, text};
use crate::field::{Auto, Check, Field, Literal, Match, OnDelete};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The fields of an upstream the data plane uses.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct Upstream {
    /// The host name services refer to.
    pub name: String,
    /// `round-robin`, `least-connections`, `consistent-hashing` or `latency`.
    pub algorithm: String,
    /// 10 to 65536.
    pub slots: u32,
    /// Sent as `Host` instead of the target's name.
    pub host_header: Option<String>,
    /// What of a request is hashed.
    #[serde(flatten)]
    pub hash: HashFields,
    /// How the health of targets is found out.
    pub healthchecks: Option<Healthchecks>,
    /// Shown to targets that ask for one, unless the service has its own.
    pub client_certificate: Option<Reference>,
    /// Whether `Host` is the name in an SRV record instead of the target's.
    pub use_srv_name: Option<bool>,
}

/// What of a request is hashed, and what if that is missing. Absent is `none`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub struct HashFields {
    /// `none`, `consumer`, `ip`, `header`, `cookie`, `path`, `query_arg` or `uri_capture`.
    pub hash_on: Option<String>,
    /// One of the same.
    pub hash_fallback: Option<String>,
    /// The header of `hash_on`.
    pub hash_on_header: Option<String>,
    /// The header of `hash_fallback`.
    pub hash_fallback_header: Option<String>,
    /// The cookie of both.
    pub hash_on_cookie: Option<String>,
    /// The `Path` of a cookie that is made.
    pub hash_on_cookie_path: Option<String>,
    /// The argument of `hash_on`.
    pub hash_on_query_arg: Option<String>,
    /// The argument of `hash_fallback`.
    pub hash_fallback_query_arg: Option<String>,
    /// The regex group of `hash_on`, by name or number.
    pub hash_on_uri_capture: Option<String>,
    /// The regex group of `hash_fallback`.
    pub hash_fallback_uri_capture: Option<String>,
}

/// One address of an upstream.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct Target {
    /// `host:port`.
    pub target: String,
    /// Share of traffic, 0 to 65535; 0 takes it out.
    pub weight: u16,
    /// Whose it is.
    pub upstream: Reference,
}

/// The port of targets that name none: Kong's.
const TARGET_PORT: u16 = 8000;

pub(super) static SCHEMA: Schema = Schema {
    unique: &[Unique::field("name", &["name"])],
    checks: CHECKS,
    prepare: Some(align_algorithm),
    ..Schema::new(Kind::Upstream, "upstreams", FIELDS)
};

pub(super) static TARGET_SCHEMA: Schema = Schema {
    path: None,
    endpoint_key: Some("target"),
    cache_key: &["upstream", "target"],
    unique: &[Unique::field("target", &["upstream", "target"])],
    prepare: Some(normalize_target),
    ..Schema::new(Kind::Target, "targets", TARGET_FIELDS)
};

const TARGET_FIELDS: &[Field] = &[
    Field::number("created_at")
        .timestamp()
        .auto(Auto::CreatedMillis),
    Field::number("updated_at")
        .timestamp()
        .auto(Auto::UpdatedMillis),
    Field::foreign("upstream", Kind::Upstream, OnDelete::Cascade).required(),
    Field::string("target").required().text(text::target),
    Field::integer("weight")
        .between(0, 65_535)
        .default(Literal::Int(100))
        .never_null(),
    TAGS,
];

const HASH_ON: Field = Field::string("hash_on")
    .one_of(&[
        "none",
        "consumer",
        "ip",
        "header",
        "cookie",
        "path",
        "query_arg",
        "uri_capture",
    ])
    .default(Literal::Text("none"))
    .never_null();

const FIELDS: &[Field] = &[
    CREATED_AT,
    UPDATED_AT,
    Field::string("name")
        .required()
        .unique()
        .text(text::upstream_name),
    Field::string("algorithm")
        .one_of(&[
            "consistent-hashing",
            "least-connections",
            "round-robin",
            "latency",
        ])
        .default(Literal::Text("round-robin"))
        .never_null(),
    HASH_ON,
    HASH_ON.named("hash_fallback"),
    HEADER_NAME.named("hash_on_header"),
    HEADER_NAME.named("hash_fallback_header"),
    Field::string("hash_on_cookie").text(text::cookie_name),
    PATH.named("hash_on_cookie_path")
        .default(Literal::Text("/")),
    Field::string("hash_on_query_arg"),
    Field::string("hash_fallback_query_arg"),
    Field::string("hash_on_uri_capture"),
    Field::string("hash_fallback_uri_capture"),
    Field::integer("slots")
        .between(10, 65_536)
        .default(Literal::Int(10_000))
        .never_null(),
    Field::record("healthchecks", HEALTHCHECKS).never_null(),
    TAGS,
    Field::string("host_header").text(text::host_with_port),
    Field::foreign("client_certificate", Kind::Certificate, OnDelete::Restrict),
    Field::boolean("use_srv_name")
        .default(Literal::Bool(false))
        .never_null(),
];

const SECONDS: Field = Field::number("")
    .between(0, 65_535)
    .default(Literal::Int(0))
    .never_null();
const COUNTER: Field = Field::integer("")
    .between(0, 255)
    .default(Literal::Int(0))
    .never_null();
const CHECK_TYPE: Field = Field::string("type")
    .one_of(&["tcp", "http", "https", "grpc", "grpcs"])
    .default(Literal::Text("http"))
    .never_null();
const STATUSES: Field =
    Field::array("http_statuses", &Field::integer("").between(100, 999)).never_null();

const HEALTHCHECKS: &[Field] = &[
    Field::record("active", ACTIVE).never_null(),
    Field::record("passive", PASSIVE).never_null(),
    Field::number("threshold")
        .between(0, 100)
        .default(Literal::Int(0))
        .never_null(),
];

const ACTIVE: &[Field] = &[
    CHECK_TYPE,
    SECONDS.named("timeout").default(Literal::Int(1)),
    Field::integer("concurrency")
        .between(1, 2_147_483_648)
        .default(Literal::Int(10))
        .never_null(),
    PATH.named("http_path")
        .default(Literal::Text("/"))
        .never_null(),
    Field::string("https_sni").text(text::server_name),
    Field::boolean("https_verify_certificate")
        .default(Literal::Bool(true))
        .never_null(),
    Field::map(
        "headers",
        &HEADER_NAME,
        &Field::array("", &Field::string("")),
    ),
    Field::record(
        "healthy",
        &[
            SECONDS.named("interval"),
            STATUSES.default(Literal::Ints(&[200, 302])),
            COUNTER.named("successes"),
        ],
    )
    .never_null(),
    Field::record(
        "unhealthy",
        &[
            SECONDS.named("interval"),
            STATUSES.default(Literal::Ints(&[429, 404, 500, 501, 502, 503, 504, 505])),
            COUNTER.named("tcp_failures"),
            COUNTER.named("timeouts"),
            COUNTER.named("http_failures"),
        ],
    )
    .never_null(),
];

const PASSIVE: &[Field] = &[
    CHECK_TYPE,
    Field::record(
        "healthy",
        &[
            STATUSES.default(Literal::Ints(&[
                200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305,
                306, 307, 308,
            ])),
            COUNTER.named("successes"),
        ],
    )
    .never_null(),
    Field::record(
        "unhealthy",
        &[
            STATUSES.default(Literal::Ints(&[429, 500, 503])),
            COUNTER.named("tcp_failures"),
            COUNTER.named("timeouts"),
            COUNTER.named("http_failures"),
        ],
    )
    .never_null(),
];

const CHECKS: &[Check] = &[
    needs("hash_on", "header", "hash_on_header"),
    needs("hash_fallback", "header", "hash_fallback_header"),
    needs("hash_on", "cookie", "hash_on_cookie"),
    needs("hash_fallback", "cookie", "hash_on_cookie"),
    falls_back_to("none", &["none"]),
    falls_back_to("cookie", &["none"]),
    falls_back_to(
        "consumer",
        &[
            "none",
            "ip",
            "header",
            "cookie",
            "path",
            "query_arg",
            "uri_capture",
        ],
    ),
    falls_back_to(
        "ip",
        &[
            "none",
            "consumer",
            "header",
            "cookie",
            "path",
            "query_arg",
            "uri_capture",
        ],
    ),
    falls_back_to(
        "path",
        &[
            "none",
            "consumer",
            "ip",
            "header",
            "cookie",
            "query_arg",
            "uri_capture",
        ],
    ),
    Check::Distinct(&["hash_on_header", "hash_fallback_header"]),
    needs("hash_on", "query_arg", "hash_on_query_arg"),
    needs("hash_fallback", "query_arg", "hash_fallback_query_arg"),
    Check::Distinct(&["hash_on_query_arg", "hash_fallback_query_arg"]),
    needs("hash_on", "uri_capture", "hash_on_uri_capture"),
    needs("hash_fallback", "uri_capture", "hash_fallback_uri_capture"),
    Check::Distinct(&["hash_on_uri_capture", "hash_fallback_uri_capture"]),
];

const fn needs(if_field: &'static str, value: &'static str, then_field: &'static str) -> Check {
    Check::Conditional {
        if_field,
        if_match: Match::Is(Literal::Text(value)),
        then_field,
        then_match: Match::Required,
        error: None,
    }
}

const fn falls_back_to(hash_on: &'static str, options: &'static [&'static str]) -> Check {
    Check::Conditional {
        if_field: "hash_on",
        if_match: Match::Is(Literal::Text(hash_on)),
        then_field: "hash_fallback",
        then_match: Match::OneOf(options),
        error: None,
    }
}

/// Kong's way of keeping `algorithm` and `hash_on` together: the one that is written decides about the other.
fn align_algorithm(input: &mut Map<String, Value>, _: &mut Errors) {
    if let Some("least-connections" | "latency") = input.get("algorithm").and_then(Value::as_str) {
        input.insert("hash_on".to_owned(), "none".into());
        return;
    }
    let algorithm = match input.get("hash_on") {
        Some(Value::String(hash_on)) if hash_on == "none" => "round-robin",
        Some(Value::String(_)) => "consistent-hashing",
        // Null becomes "none" without touching the algorithm; anything else fails when it is checked.
        Some(_) | None => return,
    };
    input.insert("algorithm".to_owned(), algorithm.into());
}

/// Writes a target's address in the one form that makes equal addresses equal.
fn normalize_target(input: &mut Map<String, Value>, _: &mut Errors) {
    if let Some(Value::String(target)) = input.get_mut("target")
        && let Ok(address) = text::Address::parse(target)
    {
        *target = address.with_port(TARGET_PORT);
    }
}
