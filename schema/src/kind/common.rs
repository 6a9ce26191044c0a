//! Fields that several kinds and plugins share.

use crate::check::{path, text};
use crate::field::{Auto, Field, Literal};

/// Every protocol a route or service may have.
pub(crate) const PROTOCOLS: &[&str] = &[
    "grpc",
    "grpcs",
    "http",
    "https",
    "tcp",
    "tls",
    "tls_passthrough",
    "udp",
];
/// The protocols of HTTP requests.
pub(crate) const HTTP_PROTOCOLS: &[&str] = &["grpc", "grpcs", "http", "https"];

pub(crate) const CREATED_AT: Field = Field::integer("created_at").timestamp().auto(Auto::Created);
pub(crate) const UPDATED_AT: Field = Field::integer("updated_at").timestamp().auto(Auto::Updated);
pub(crate) const NAME: Field = Field::string("name").unique().text(text::name);
pub(crate) const TAGS: Field = Field::set("tags", &Field::string("").text(text::tag));
pub(crate) const PORT: Field = Field::integer("port").between(0, 65535);
pub(crate) const HOST: Field = Field::string("host").text(text::host);
pub(crate) const PATH: Field = Field::string("path").starts_with("/").text(path::plain);
pub(crate) const HEADER_NAME: Field = Field::string("").text(text::header_name);
/// Milliseconds, zero allowed.
pub(crate) const TIMEOUT: Field = Field::integer("timeout").between(0, 2_147_483_646);
/// A protocol of any kind.
pub(crate) const PROTOCOL: Field = Field::string("protocol").one_of(PROTOCOLS);
/// The protocols of a plugin that runs on HTTP requests only.
pub(crate) const PROTOCOLS_HTTP: Field =
    Field::set("protocols", &Field::string("").one_of(HTTP_PROTOCOLS))
        .required()
        .default(Literal::Texts(HTTP_PROTOCOLS));
