//! proxy-cache: answers are kept and given again.
//!
//! The name of a memory is taken as it is: here it is no region of shared memory that must have been declared.

use super::PluginSchema;
use super::common::{TEXT, integer, off, on, text, texts};
use crate::field::{Field, Literal};

pub(super) static SCHEMA: PluginSchema = PluginSchema::of("proxy-cache", CONFIG).any_protocol();

const CONFIG: &[Field] = &[
    Field::array("response_code", &Field::integer("").between(100, 900))
        .required()
        .len_min(1)
        .default(Literal::Ints(&[200, 301, 404])),
    Field::array(
        "request_method",
        &TEXT.one_of(&["HEAD", "GET", "POST", "PATCH", "PUT"]),
    )
    .required()
    .default(Literal::Texts(&["GET", "HEAD"])),
    texts("content_type")
        .required()
        .default(Literal::Texts(&["text/plain", "application/json"])),
    integer("cache_ttl", 300).gt(0.0),
    Field::string("strategy").required().one_of(&["memory"]),
    off("cache_control").required(),
    off("ignore_uri_case"),
    Field::integer("storage_ttl"),
    Field::record(
        "memory",
        &[text("dictionary_name", "kong_db_cache").required()],
    )
    .required(),
    texts("vary_query_params"),
    texts("vary_headers"),
    Field::record(
        "response_headers",
        &[on("age"), on("X-Cache-Status"), on("X-Cache-Key")],
    )
    .required(),
];
