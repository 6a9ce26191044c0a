//! Plugins that turn requests away by what they are or where they come from.

use super::PluginSchema;
use super::common::{TEXT, integer, off, on, text, texts};
use crate::check::{regex, text::ip_or_cidr};
use crate::field::{Check, Field, Literal};

const METHODS: &[&str] = &[
    "GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "TRACE", "CONNECT",
];

/// By the `User-Agent` header.
pub(super) static BOT_DETECTION: PluginSchema = PluginSchema::of(
    "bot-detection",
    &[user_agents("allow"), user_agents("deny")],
)
.no_consumer();

const fn user_agents(name: &'static str) -> Field {
    const PATTERN: Field = TEXT.regex();
    Field::array(name, &PATTERN).default(Literal::Texts(&[]))
}

/// Tells browsers which pages may send requests.
pub(super) static CORS: PluginSchema = PluginSchema::of(
    "cors",
    &[
        Field::array("origins", &TEXT.text(regex::or_asterisk)),
        texts("headers"),
        texts("exposed_headers"),
        Field::array("methods", &TEXT.one_of(METHODS)).default(Literal::Texts(METHODS)),
        Field::number("max_age"),
        off("credentials").required(),
        off("private_network").required(),
        off("preflight_continue").required(),
        on("allow_origin_absent").required(),
    ],
)
.no_consumer();

/// By the client's address.
pub(super) static IP_RESTRICTION: PluginSchema = PluginSchema::of(
    "ip-restriction",
    &[
        Field::array("allow", &TEXT.text(ip_or_cidr)),
        Field::array("deny", &TEXT.text(ip_or_cidr)),
        Field::number("status"),
        Field::string("message"),
    ],
)
.any_protocol_by_default(&["http", "https", "tcp", "tls", "grpc", "grpcs"])
.checks(&[Check::AtLeastOneOf(&["config.allow", "config.deny"])]);

/// By the size of the body.
pub(super) static REQUEST_SIZE_LIMITING: PluginSchema = PluginSchema::of(
    "request-size-limiting",
    &[
        integer("allowed_payload_size", 128),
        text("size_unit", "megabytes")
            .required()
            .one_of(&["megabytes", "kilobytes", "bytes"]),
        off("require_content_length").required(),
    ],
);
